"""AG-UI 1.0: a request is read, decides or starts, and is told a run's log in AG-UI's events.

::

    request ─ `_input` ─┬─ `_decisions` ─ commands ─┐
            (`_routes`) └─────────────── a message ─┴─ run ─ log ─ `_mapper` ─ SSE

    `_mapper`  ─ `_said`        messages, reasoning, calls
               ─ `_interrupts`  what the run waits for
               ─ `_held`        what the client holds of it, with `_patch` for its state
"""
