"""The process's one Trio thread: where runs live whose readers are not under Trio.

A host of another kind, such as an asyncio loop or plain code, has no Trio loop to run anything in.
This thread has, one for the whole process, so that clients keep their connections whichever loop
asks them, and deadlines hold while a host's own loop is blocked. It is started when it is first
held, and ends with who held it last, or with the process where it is kept.

::

    another thread                         the Trio thread
      start(fn) ──── run_sync_soon ────────▶ a task: fn()
      job.cancel() ─ run_sync_soon ────────▶ its scope
      when_done ◀─────────────────────────── its outcome, told in the Trio thread
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

import outcome
import trio

from flowtrio._core._telling import tell

_AT_EXIT = 5.0
"""Seconds that the thread gets to end when the process does."""


class ThreadEnded(RuntimeError):
    """The Trio thread has ended, or belongs to the process that this one was forked from."""


class Job:
    """One function in the Trio thread, for somebody elsewhere."""

    __slots__ = ("_fn", "_scope", "_thread", "_when_done")

    def __init__(
        self,
        thread: TrioThread,
        fn: Callable[[], Awaitable[Any]],
        when_done: Callable[[outcome.Outcome[Any]], None],
    ) -> None:
        self._thread = thread
        self._fn = fn
        self._when_done = when_done
        self._scope = trio.CancelScope()

    def cancel(self) -> None:
        """Cancel it, from any thread; its outcome is told all the same."""
        self._thread.post(self._scope.cancel)

    async def run(self) -> None:
        """Run it to its end, whatever that is."""
        result: outcome.Outcome[Any] = outcome.Error(ThreadEnded("the Trio thread has ended"))
        try:
            with self._scope:
                result = outcome.Value(await self._fn())
            if self._scope.cancelled_caught:
                result = outcome.Error(JobCancelled())
        except trio.Cancelled:
            # The thread ends.
            raise
        except BaseException as exc:
            result = outcome.Error(exc)
        finally:
            self.end(result)

    def end(self, result: outcome.Outcome[Any]) -> None:
        """Tell its outcome, once."""
        if self in self._thread.jobs:
            self._thread.jobs.discard(self)
            _guarded(self._when_done, (result,))


class JobCancelled(Exception):
    """A job ended because it was cancelled."""


class TrioThread:
    """A Trio loop in a thread of its own."""

    def __init__(self) -> None:
        self.pid: int = os.getpid()
        self.jobs: set[Job] = set()
        """What has been started and has not ended."""
        self.holders: int = 0
        self.is_kept: bool = False
        """Whether it lives as long as the process."""
        self.token: trio.lowlevel.TrioToken
        self._nursery: trio.Nursery
        self._has_begun = threading.Event()
        # A daemon: a run that was left to itself does not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="flowtrio", daemon=True)
        self._thread.start()
        self._has_begun.wait()
        if not hasattr(self, "token"):
            raise ThreadEnded("flowtrio's Trio thread could not begin; the log says why")

    @property
    def is_alive(self) -> bool:
        """Whether it can be used: it runs, in this process."""
        return self.pid == os.getpid() and self._thread.is_alive()

    def post(self, fn: Callable[..., object], *args: Any) -> None:
        """Call *fn* in the Trio thread, soon, in the order of the posts.

        Raises:
          ThreadEnded: nothing is called there any more.

        """
        if self.pid != os.getpid():
            raise ThreadEnded(
                "this process was forked after flowtrio's Trio thread began: expected the bridge "
                "or stream to be opened in the process that uses it"
            )
        try:
            self.token.run_sync_soon(_guarded, fn, args)
        except trio.RunFinishedError:
            raise ThreadEnded("the Trio thread has ended") from None

    def start(
        self,
        fn: Callable[[], Awaitable[Any]],
        when_done: Callable[[outcome.Outcome[Any]], None],
        context: Context,
        name: str,
    ) -> Job:
        """Run an async function as a task of the Trio thread.

        Args:
          fn: The function.
          when_done: Told its outcome, in the Trio thread, once, whatever happens.
          context: The context variables that it begins with.
          name: The task's.

        Raises:
          ThreadEnded: nothing is run there any more.

        """
        job = Job(self, fn, when_done)
        self.jobs.add(job)
        try:
            self.post(context.run, self._spawn, job, name)
        except ThreadEnded:
            self.jobs.discard(job)
            raise
        return job

    def _spawn(self, job: Job, name: str) -> None:
        try:
            self._nursery.start_soon(job.run, name=name)
        except RuntimeError:
            # Its nursery is closed: it ends.
            job.end(outcome.Error(ThreadEnded("the Trio thread has ended")))

    def stop(self, timeout: float | None = None, *, waits: bool = True) -> None:
        """Cancel what is left, and wait until the thread has ended."""
        try:
            self.post(self._cancel)
        except ThreadEnded:
            return
        if waits:
            self._thread.join(timeout)

    def _cancel(self) -> None:
        self._nursery.cancel_scope.cancel(reason="flowtrio's Trio thread ends")

    def _run(self) -> None:
        try:
            trio.run(self._live)
        except BaseException as exc:
            tell(logging.ERROR, "flowtrio's Trio thread broke", exc=exc)
        finally:
            self._has_begun.set()
            # Whoever waits for a job waits no longer.
            for job in list(self.jobs):
                job.end(outcome.Error(ThreadEnded("the Trio thread has ended")))

    async def _live(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self.token = trio.lowlevel.current_trio_token()
            self._has_begun.set()
            await trio.sleep_forever()


def _guarded(fn: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Call it; an exception here would end the whole loop."""
    try:
        fn(*args)
    except BaseException as exc:
        tell(logging.ERROR, "a function called in flowtrio's Trio thread failed", exc=exc)


_lock = threading.Lock()
_shared: list[TrioThread] = []
"""The process's thread, or none."""


def hold(*, keep: bool = False) -> TrioThread:
    """Give the process's Trio thread, started if there is none; `release` lets it go.

    Args:
      keep: Whether one that is started now lives as long as the process: for readers outside any
        bridge, between whose runs a model's connections stay open.

    """
    with _lock:
        if not _shared or not _shared[0].is_alive:
            _shared[:] = [TrioThread()]
            _shared[0].is_kept = keep
        thread = _shared[0]
        thread.holders += 1
        return thread


def release(thread: TrioThread, *, waits: bool = True) -> None:
    """Let the thread go; the last one to do so ends it, unless it is kept.

    Args:
      thread: What `hold` gave.
      waits: Whether to wait until it has ended; not in the thread itself.

    """
    with _lock:
        thread.holders -= 1
        if thread.holders or thread.is_kept:
            return
        if thread in _shared:
            _shared.clear()
    thread.stop(waits=waits)


@atexit.register
def _end() -> None:
    """Have the runs that are left end as runs do, before the interpreter goes."""
    for thread in _shared:
        thread.stop(_AT_EXIT)
