"""All tasks of a run live in one Trio loop, and only those may do anything in it.

A process may have several loops: a tool's worker thread may call `trio.run` itself. A task that
comes from there wakes those who wait in the run into its own loop, and Trio breaks down in both.
"""

from __future__ import annotations

from trio.lowlevel import TrioToken, current_trio_token


def is_here(token: TrioToken | None) -> bool:
    """Whether the current task is in the Trio loop of *token*."""
    try:
        return current_trio_token() is token
    except RuntimeError:
        # In no loop at all.
        return False


def elsewhere(what: str, run_id: str) -> RuntimeError:
    """Say that *what* is asked for in another loop than that of the run."""
    return RuntimeError(
        f"can't {what} outside the Trio loop of run {run_id!r}: expected a task of that loop, or "
        "trio.from_thread.run(...) in a worker thread of it"
    )
