"""Between an asyncio loop and the Trio thread: calls both ways.

An asyncio task that is cancelled cancels what it waits for on the other side, and goes on waiting
until that has ended: nothing is left alive behind it. A loop that is closed under a call gets
nothing any more; what worked for it is cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Generic, TypeVar

import attrs
import outcome
import trio

from ._thread import LOOK, Hold, Job, ThreadEnded, TrioThread, warn_of_left

T = TypeVar("T")


class LoopClosed(RuntimeError):
    """An asyncio loop that was to be reached is closed, or is not the one that runs here."""


@attrs.frozen
class Room:
    """Where jobs run: the Trio thread, or a part of it that ends earlier."""

    thread: TrioThread
    nursery: trio.Nursery | None = None


def post(loop: asyncio.AbstractEventLoop, fn: Callable[..., object], *args: Any) -> None:
    """Call *fn* in a loop, soon; from any thread.

    Raises:
      LoopClosed: nothing is called there any more.

    """
    try:
        loop.call_soon_threadsafe(fn, *args)
    except RuntimeError:
        raise LoopClosed("the asyncio loop is closed") from None


# From asyncio into the Trio thread


class Call:
    """A job in the Trio thread that asyncio tasks wait for."""

    def __init__(
        self, room: Room, name: str, when_gone: Callable[[], object] | None = None
    ) -> None:
        """Make it; *when_gone* is called, in the Trio thread, if its end cannot be told."""
        self.thread = room.thread
        self.result: outcome.Outcome[Any] | None = None
        """How it ended; None before."""
        self._loop = asyncio.get_running_loop()
        self._room = room
        self._name = name
        self._when_gone = when_gone
        self._is_given_up = False
        self._job: Job
        self._news = asyncio.Event()

    def start(self, fn: Callable[[], Awaitable[Any]]) -> None:
        """Begin it, with the context variables of the current task."""
        context = contextvars.copy_context()
        self._job = self.thread.start(fn, self, context, self._name, self._room.nursery)

    def cancel(self) -> None:
        """Cancel it."""
        with suppress(ThreadEnded):
            self._job.cancel()

    def tell(self, fn: Callable[..., object], *args: Any) -> None:
        """Call *fn* in the loop, and wake who waits; from the Trio thread.

        Raises:
          LoopClosed: nothing is called there any more.

        """
        post(self._loop, self._hear, fn, args)

    def end(self, result: outcome.Outcome[Any]) -> None:
        """See `Owner`."""
        try:
            self.tell(self._end, result)
        except LoopClosed:
            if self._when_gone is not None:
                self._when_gone()

    def is_gone(self) -> bool:
        """See `Owner`."""
        return self._loop.is_closed()

    def give_up(self) -> None:
        """See `Owner`; and warn, once, that it was never left."""
        if not self._is_given_up:
            self._is_given_up = True
            warn_of_left(self._name)

    def _end(self, result: outcome.Outcome[Any]) -> None:
        self.result = result

    def _hear(self, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        fn(*args)
        self._news.set()

    async def wait_for_news(self) -> None:
        """Wait until something is told that was not told before.

        Raises:
          LoopClosed: this is not called in the call's own loop, such as by the garbage collector.

        """
        if not is_running(self._loop):
            raise LoopClosed(f"can't wait for {self._name} in another loop than it was begun in")
        # Told in this loop, hence between two of its steps: nothing is missed here.
        self._news.clear()
        await self._news.wait()

    async def wait(self, leave: Callable[[], None]) -> outcome.Outcome[Any]:
        """Wait until it has ended, whatever happens here.

        Args:
          leave: Called where the waiting task is cancelled: it sees to it that the job ends.

        Raises:
          asyncio.CancelledError: the task was cancelled; the job has ended all the same.

        """
        cancelled: asyncio.CancelledError | None = None
        while self.result is None:
            try:
                await self.wait_for_news()
            except asyncio.CancelledError as exc:
                if cancelled is None:
                    leave()
                cancelled = exc
            except BaseException:
                # Nobody waits any more, such as in a task that was dropped.
                leave()
                raise
        if cancelled is not None:
            raise cancelled
        return self.result

    async def wait_left(self, leave: Callable[[], None]) -> outcome.Outcome[Any]:
        """End it by *leave*, and wait for that; see `wait`.

        Where its loop runs no more, nothing can be waited for: then it warns of that.
        """
        leave()
        try:
            return await self.wait(leave)
        except LoopClosed:
            self.give_up()
            return outcome.Value(None)


def is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is called by *loop*."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


async def call_trio(room: Room, fn: Callable[..., Awaitable[T]], *args: Any, name: str) -> T:
    """Run an async function in the Trio thread, and wait for it in an asyncio task.

    Raises:
      asyncio.CancelledError: the task was cancelled, and so was the function; it has ended.
      ThreadEnded: the thread has ended.

    """
    call = Call(room, name)
    call.start(lambda: fn(*args))
    value: T = (await call.wait(call.cancel)).unwrap()
    return value


class Entered(Generic[T]):
    """Holds a context manager of Trio's kind open in the Trio thread, for an asyncio block."""

    def __init__(
        self,
        room: Room,
        make: Callable[[], AbstractAsyncContextManager[T]],
        name: str,
        when_gone: Callable[[], object] | None = None,
    ) -> None:
        """Make it; see `Call`."""
        self._make = make
        self._leaving = trio.Event()
        self._values: list[T] = []
        self._call = Call(room, name, when_gone)

    async def __aenter__(self) -> T:
        """Enter it there, and give what that gives; if this is cancelled, so is that."""
        self._call.start(self._hold)
        try:
            while not self._values and self._call.result is None:
                await self._call.wait_for_news()
        except BaseException:
            await self._call.wait_left(self._call.cancel)
            raise
        if not self._values:
            (await self._call.wait(self.abandon)).unwrap()
        return self._values[0]

    async def __aexit__(self, *_: object) -> None:
        """Leave it there, and wait until that is through."""
        (await self._call.wait_left(self.abandon)).unwrap()

    def give_up(self) -> None:
        """Leave it, since nobody will, and warn of that."""
        self.abandon()
        self._call.give_up()

    async def _hold(self) -> None:
        async with self._make() as value:
            self._call.tell(self._values.append, value)
            await self._leaving.wait()

    def abandon(self) -> None:
        """See to it that it is left, from any thread."""
        with suppress(ThreadEnded):
            self._call.thread.post(self._leaving.set)


async def let_go(held: Hold, loop: asyncio.AbstractEventLoop) -> None:
    """Let the thread go, and wait until it has ended, if it ends; see `Hold`.

    Where *loop* does not run any more, nothing is waited for.
    """
    if not is_running(loop):
        held.release()
        return
    ended = asyncio.Event()
    cancelled: asyncio.CancelledError | None = None

    def tell() -> None:
        with suppress(LoopClosed):
            post(loop, ended.set)

    if not held.release(tell):
        return
    while not ended.is_set():
        try:
            await ended.wait()
        except asyncio.CancelledError as exc:
            cancelled = exc
    held.thread.join()
    if cancelled is not None:
        raise cancelled


# From the Trio thread into asyncio


async def call_asyncio(
    loop: asyncio.AbstractEventLoop, fn: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any
) -> T:
    """Run an asyncio function in its loop, and wait for it in a Trio task.

    A cancellation of the Trio task cancels the function's task, and is raised when that has ended;
    unless it had come to its end before, or ends otherwise.

    Raises:
      LoopClosed: the loop is closed.
      RuntimeError: somebody else cancelled the function's task.

    """
    visit = _Visit(loop, lambda: fn(*args, **kwargs))
    try:
        await visit.wait()
    except trio.Cancelled:
        visit.leave()
        with trio.CancelScope(shield=True), suppress(LoopClosed):
            await visit.wait()
        if visit.result is None or visit.is_cancelled:
            raise
    assert visit.result is not None
    if visit.is_cancelled:
        raise RuntimeError("an asyncio function was cancelled by somebody else")
    value: T = visit.result.unwrap()
    return value


class _Visit:
    """One asyncio function at work for a Trio task."""

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], Awaitable[Any]]) -> None:
        self._loop = loop
        self._make = make
        self._token = trio.lowlevel.current_trio_token()
        self._done = trio.Event()
        self._task: asyncio.Task[None] | None = None
        self.result: outcome.Outcome[Any] | None = None
        """How it ended; None before."""
        post(loop, self._begin)

    @property
    def is_cancelled(self) -> bool:
        """Whether its task ended by being cancelled."""
        result = self.result
        return isinstance(result, outcome.Error) and isinstance(
            result.error, asyncio.CancelledError
        )

    async def wait(self) -> None:
        """Wait for its end.

        Raises:
          LoopClosed: that will never come.

        """
        while not self._done.is_set():
            with trio.move_on_after(LOOK):
                await self._done.wait()
            if self._loop.is_closed() and not self._done.is_set():
                raise LoopClosed("the asyncio loop was closed before its function had ended")

    def leave(self) -> None:
        """Cancel its task."""
        with suppress(LoopClosed):
            post(self._loop, self._cancel)

    # In the asyncio loop

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._end)

    async def _run(self) -> Any:
        return await self._make()

    def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()

    def _end(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.result = outcome.Error(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.result = outcome.Error(error)
        else:
            self.result = outcome.Value(task.result())
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._done.set)
