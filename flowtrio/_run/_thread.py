"""The process's one Trio thread: where runs live whose readers are not under Trio.

A host of another kind, such as an asyncio loop or plain code, has no Trio loop to run anything in.
This thread has, one for the whole process, so that clients keep their connections whichever loop
asks them, and deadlines hold while a host's own loop is blocked. It is started when it is first
held, and ends with who held it last, or with the process where it is kept.

::

    another thread                         the Trio thread
      start(fn) ──── run_sync_soon ────────▶ a task: fn()
      job.cancel() ─ run_sync_soon ────────▶ its scope
      owner.end ◀─────────────────────────── its outcome, told in the Trio thread
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Protocol, TypeVar

import outcome
import trio

from flowtrio._core._telling import tell

T = TypeVar("T")

LOOK = 1.0
"""Seconds after which it is looked whether a loop or thread elsewhere is gone: it tells nobody."""

_AT_EXIT = 5.0
"""Seconds that the thread gets to end when the process does."""


class ThreadEnded(RuntimeError):
    """The Trio thread has ended, or belongs to the process that this one was forked from."""


class Job:
    """One function in the Trio thread, for somebody elsewhere."""

    __slots__ = ("_fn", "_is_given_up", "_owner", "_scope", "_thread", "name")

    def __init__(
        self, thread: TrioThread, fn: Callable[[], Awaitable[Any]], owner: Owner, name: str
    ) -> None:
        self._thread = thread
        self._fn = fn
        self._owner = owner
        self._scope = trio.CancelScope()
        self._is_given_up = False
        self.name: str = name

    def cancel(self) -> None:
        """Cancel it, from any thread; its outcome is told all the same."""
        self._thread.post(self._scope.cancel)

    def look(self) -> None:
        """Cancel it if nobody is there any more for whom it works."""
        if self._owner.is_gone() and not self._is_given_up:
            self._is_given_up = True
            self._scope.cancel()
            _guarded(self._owner.give_up, ())

    async def run(self) -> None:
        """Run it to its end, whatever that is."""
        result: outcome.Outcome[Any] = outcome.Error(_ended())
        try:
            with self._scope:
                result = outcome.Value(await self._fn())
        except trio.Cancelled:
            # The thread ends, or the room does that it was started in.
            raise
        except BaseException as exc:
            result = outcome.Error(exc)
        finally:
            self.end(result)

    def end(self, result: outcome.Outcome[Any]) -> None:
        """Tell its outcome, once."""
        if self in self._thread.jobs:
            self._thread.jobs.discard(self)
            _guarded(self._owner.end, (result,))


class Owner(Protocol):
    """For whom a job works."""

    def end(self, result: outcome.Outcome[Any]) -> None:
        """Be told its outcome, in the Trio thread, once, whatever happens."""
        ...

    def is_gone(self) -> bool:
        """Whether nobody can be told any more; asked now and then."""
        ...

    def give_up(self) -> None:
        """Be told, in the Trio thread, that therefore it was cancelled."""
        ...


class TrioThread:
    """A Trio loop in a thread of its own."""

    def __init__(self) -> None:
        self.jobs: set[Job] = set()
        """What has been started and has not ended."""
        self.holders = 0
        self.is_kept = False
        """Whether it lives as long as the process."""
        self.token: trio.lowlevel.TrioToken
        self._pid = os.getpid()
        self._nursery: trio.Nursery
        self._has_begun = threading.Event()
        self._when_ended: Callable[[], object] | None = None
        # A daemon: a run that was left to itself does not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="flowtrio", daemon=True)
        self._thread.start()
        self._has_begun.wait()
        if not hasattr(self, "token"):
            raise ThreadEnded("flowtrio's Trio thread did not begin: its reason is in the log")

    @property
    def is_alive(self) -> bool:
        """Whether it can be used: it runs, in this process."""
        return self._pid == os.getpid() and self._thread.is_alive()

    @property
    def ident(self) -> int | None:
        """Which thread it is."""
        return self._thread.ident

    def post(self, fn: Callable[..., object], *args: Any) -> None:
        """Call *fn* in the Trio thread, soon, in the order of the posts.

        Raises:
          ThreadEnded: nothing is called there any more.

        """
        self._check_process()
        try:
            self.token.run_sync_soon(_guarded, fn, args)
        except trio.RunFinishedError:
            raise _ended() from None

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ThreadEnded(
                "this process was forked after flowtrio's Trio thread began: expected the bridge "
                "or stream to be opened in the process that uses it"
            )

    def ask(self, fn: Callable[[], T]) -> T:
        """Call *fn* in the Trio thread and give what it gives.

        Once the thread has ended it is called here: what it looks at changes no more.

        Raises:
          ThreadEnded: this process was forked from that of the thread.

        """
        if threading.get_ident() == self.ident:
            return fn()
        answers: queue.SimpleQueue[outcome.Outcome[T]] = queue.SimpleQueue()
        try:
            self.post(lambda: answers.put(outcome.capture(fn)))
        except ThreadEnded:
            self._check_process()
            self._thread.join()
            return fn()
        while True:
            try:
                return answers.get(timeout=LOOK).unwrap()
            except queue.Empty:
                if not self._thread.is_alive():
                    return fn()

    def start(
        self,
        fn: Callable[[], Awaitable[Any]],
        owner: Owner,
        context: Context,
        name: str,
        nursery: trio.Nursery | None = None,
    ) -> Job:
        """Run an async function as a task of the Trio thread.

        Args:
          fn: The function.
          owner: For whom it works.
          context: The context variables that it begins with.
          name: The task's.
          nursery: Where it runs; the thread's own by default.

        Raises:
          ThreadEnded: nothing is run there any more.

        """
        job = Job(self, fn, owner, name)
        self.jobs.add(job)
        try:
            self.post(context.run, self._spawn, job, nursery or self._nursery)
        except ThreadEnded:
            self.jobs.discard(job)
            raise
        return job

    def _spawn(self, job: Job, nursery: trio.Nursery) -> None:
        try:
            nursery.start_soon(job.run, name=job.name)
        except RuntimeError:
            # The nursery is closed.
            job.end(outcome.Error(_ended()))

    # Its end

    def stop(self, when_ended: Callable[[], object] | None = None) -> None:
        """Cancel what is left, and end; from any thread.

        Args:
          when_ended: Called in the thread as the last thing.

        """
        self._when_ended = when_ended
        with suppress(ThreadEnded):
            self.post(self._cancel)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended; not from inside it."""
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
                job.end(outcome.Error(_ended()))
            if self._when_ended is not None:
                _guarded(self._when_ended, ())

    async def _live(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self.token = trio.lowlevel.current_trio_token()
            self._has_begun.set()
            while True:
                await trio.sleep(LOOK)
                self.look()

    def look(self) -> None:
        """Give up the jobs for which nobody is there any more; in the thread."""
        for job in list(self.jobs):
            job.look()


def _ended() -> ThreadEnded:
    return ThreadEnded("flowtrio's Trio thread has ended")


def warn_of_left(what: str) -> None:
    """Say that something was open when its asyncio loop was closed, or nobody had it any more."""
    warnings.warn(f"{what} was never left", ResourceWarning, stacklevel=2)


def _guarded(fn: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Call it; an exception here would end the whole loop."""
    try:
        fn(*args)
    except BaseException as exc:
        tell(logging.ERROR, "a function posted to flowtrio's Trio thread failed", exc=exc)


# Reentrant: what the garbage collector drops, in the midst of this, may let go too.
_lock = threading.RLock()
_shared: list[TrioThread] = []
"""The process's thread, or none."""


def hold(*, keep: bool = False) -> TrioThread:
    """Give the process's Trio thread, started if there is none; `release` lets it go.

    Args:
      keep: Whether it is to live as long as the process: for readers without a block, between whose
        runs a model's connections stay open.

    """
    with _lock:
        if not _shared or not _shared[0].is_alive:
            _shared[:] = [TrioThread()]
        thread = _shared[0]
        thread.holders += 1
        thread.is_kept = thread.is_kept or keep
        return thread


def release(thread: TrioThread, when_ended: Callable[[], object] | None = None) -> bool:
    """Let the thread go; the last one to do so ends it, unless it is kept.

    Args:
      thread: What `hold` gave.
      when_ended: Called in the thread as the last thing, where it ends.

    Returns:
      Whether it ends.

    """
    with _lock:
        thread.holders -= 1
        if thread.holders or thread.is_kept:
            return False
        if thread in _shared:
            _shared.clear()
    thread.stop(when_ended)
    return True


class Hold:
    """One hold of the process's Trio thread, let go of once; see `hold`."""

    def __init__(self) -> None:
        self.thread: TrioThread = hold()
        self._held: list[TrioThread] = [self.thread]

    def release(self, when_ended: Callable[[], object] | None = None) -> bool:
        """See `release`; whoever comes second has nothing to let go."""
        try:
            # In one step: two threads may come at once.
            thread = self._held.pop()
        except IndexError:
            return False
        return release(thread, when_ended)


@atexit.register
def _end() -> None:
    """Have the runs that are left end as runs do, before the interpreter goes."""
    for thread in _shared:
        with suppress(ThreadEnded):
            thread.post(thread.look)
        thread.stop()
        thread.join(_AT_EXIT)


def _forget() -> None:
    """This process was forked: its thread is the parent's, and so is whoever held the lock."""
    global _lock
    _lock = threading.RLock()
    _shared.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch (not on Windows)
    os.register_at_fork(after_in_child=_forget)
