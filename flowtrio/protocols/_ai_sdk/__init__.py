"""The AI SDK's chats: a page's newest message is read, and a run's log told as one of its messages.

::

    request ─ `_requests` ─┬─ decisions ─ commands ─┐
              (`_routes`)  └──────────── a message ─┴─ run ─ log ─ `_mapper` ─ SSE

    `_mapper`  ─ `_parts`  what is said
               ─ `_calls`  what is called
               ─ `_steps`  which of it is taken back, and looked for, together
"""
