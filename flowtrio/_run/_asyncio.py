"""Between an asyncio loop and the Trio thread: calls both ways, and a stream's events.

An asyncio task that is cancelled cancels what it waits for on the other side, and goes on waiting
until that has ended: nothing is left alive behind it. A loop that is closed under a call gets
nothing any more; what worked for it is left as by a reader who went.
"""

from __future__ import annotations

import asyncio
import contextvars
import warnings
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar

import outcome
import trio

from flowtrio._core._events import AgentEvent

from ._pump import Pump
from ._thread import Job, JobCancelled, ThreadEnded, TrioThread

T = TypeVar("T")

_LOOK = 1.0
"""Seconds after which a wait for an asyncio loop looks whether that is closed: it tells nobody."""


class LoopClosed(RuntimeError):
    """The asyncio loop that was to be reached is closed."""


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

    def __init__(self, thread: TrioThread, when_over: Callable[[], None] = lambda: None) -> None:
        """Prepare one; *when_over* is called in the Trio thread when it has ended and was told."""
        self._loop = asyncio.get_running_loop()
        self._thread = thread
        self._when_over = when_over
        self._job: Job
        self.news = asyncio.Event()
        """Set when it has ended, and by whoever tells of something else."""
        self.result: outcome.Outcome[Any] | None = None
        """How it ended; None before."""

    def start(self, fn: Callable[[], Awaitable[Any]], name: str) -> None:
        """Begin it, with the context variables of the current task."""
        context = contextvars.copy_context()
        self._job = self._thread.start(fn, self._tell, context, name)

    @property
    def is_gone(self) -> bool:
        """Whether the loop was closed: nobody waits any more."""
        return self._loop.is_closed()

    def cancel(self) -> None:
        """Cancel it."""
        with suppress(ThreadEnded):
            self._job.cancel()

    def tell(self, fn: Callable[..., object], *args: Any) -> None:
        """Call *fn* in the loop, and wake who waits; from the Trio thread."""
        post(self._loop, self._hear, fn, args)

    def _tell(self, result: outcome.Outcome[Any]) -> None:
        try:
            self.tell(self._end, result)
        except LoopClosed:
            words = "an asyncio loop was closed while it waited for flowtrio's Trio thread"
            warnings.warn(words, ResourceWarning, stacklevel=2)
        finally:
            self._when_over()

    def _end(self, result: outcome.Outcome[Any]) -> None:
        self.result = result

    def _hear(self, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        fn(*args)
        self.news.set()

    async def wait_for_news(self) -> None:
        """Wait until something is told that was not told before."""
        self.news.clear()
        await self.news.wait()

    async def wait(self, leave: Callable[[], None]) -> outcome.Outcome[Any]:
        """Wait until it has ended, whatever happens here.

        Args:
          leave: Called where the waiting task is cancelled: it sees to it that the job ends.

        Raises:
          asyncio.CancelledError: the task was cancelled; the job has ended all the same.

        """
        was_cancelled = False
        while self.result is None:
            try:
                await self.wait_for_news()
            except asyncio.CancelledError:
                if not was_cancelled:
                    leave()
                was_cancelled = True
        if was_cancelled:
            raise asyncio.CancelledError
        return self.result


async def call_trio(
    thread: TrioThread, fn: Callable[..., Awaitable[T]], *args: Any, name: str
) -> T:
    """Run an async function in the Trio thread, and wait for it in an asyncio task.

    Raises:
      asyncio.CancelledError: the task was cancelled, and so was the function; it has ended.
      ThreadEnded: the thread has ended.

    """
    call = Call(thread)
    call.start(lambda: fn(*args), name)
    value: T = _unwrap(await call.wait(call.cancel))
    return value


def _unwrap(result: outcome.Outcome[Any]) -> Any:
    if isinstance(result, outcome.Error) and isinstance(result.error, JobCancelled):
        raise ThreadEnded("what ran in the Trio thread was cancelled there")
    return result.unwrap()


@asynccontextmanager
async def entered(
    thread: TrioThread, make: Callable[[], AbstractAsyncContextManager[T]]
) -> AsyncIterator[T]:
    """Hold a context manager of Trio's kind open in the Trio thread, for an asyncio block."""
    leaving = trio.Event()
    values: list[T] = []

    async def hold() -> None:
        async with make() as value:
            call.tell(values.append, value)
            await leaving.wait()

    def leave() -> None:
        with suppress(ThreadEnded):
            thread.post(leaving.set)

    call = Call(thread)
    call.start(hold, "flowtrio block elsewhere")
    try:
        while not values and call.result is None:
            await call.wait_for_news()
        if values:
            yield values[0]
    finally:
        # Where it waits to be entered, it is left as soon as that is through.
        leave()
        _unwrap(await call.wait(lambda: None))


# From the Trio thread into asyncio


async def call_asyncio(
    loop: asyncio.AbstractEventLoop, fn: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any
) -> T:
    """Run an asyncio function in its loop, and wait for it in a Trio task.

    A cancellation of the Trio task cancels the function's task, and is raised when that has ended.

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
        raise
    assert visit.result is not None
    if isinstance(visit.result, outcome.Error):
        error = visit.result.error
        if isinstance(error, asyncio.CancelledError):
            raise RuntimeError("an asyncio function was cancelled by somebody else") from error
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
        self._is_left = False
        self.result: outcome.Outcome[Any] | None = None
        post(loop, self._begin)

    async def wait(self) -> None:
        while not self._done.is_set():
            with trio.move_on_after(_LOOK):
                await self._done.wait()
            if self._loop.is_closed() and not self._done.is_set():
                raise LoopClosed("the asyncio loop was closed before its function had ended")

    def leave(self) -> None:
        with suppress(LoopClosed):
            post(self._loop, self._cancel)

    # In the asyncio loop

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._run())
        if self._is_left:
            self._task.cancel()
        self._task.add_done_callback(self._end)

    async def _run(self) -> Any:
        return await self._make()

    def _cancel(self) -> None:
        self._is_left = True
        if self._task is not None:
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


# A stream's events


class Reading:
    """A stream whose run lives in the Trio thread, read by an asyncio task."""

    def __init__(
        self,
        thread: TrioThread,
        make: Callable[[], AbstractAsyncContextManager[Any]],
        when_over: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to read; see `Pump` for *make*, and `Call` for *when_over*."""
        self._ready: deque[AgentEvent] = deque()
        self._arrived: list[AgentEvent] | None = None
        self._pump = Pump(thread, make, self._tell_opened, self._deliver, self._is_gone)
        self._was_told = False
        """Whether the reader knows how it ended."""
        self.stream: Any = None
        """The stream in the Trio thread, once it is entered there."""
        self._call = Call(thread, when_over)
        self._call.start(self._pump.run, "flowtrio reader elsewhere")

    def _is_gone(self) -> bool:
        return self._call.is_gone

    def _tell_opened(self, stream: Any) -> None:
        self._call.tell(self._open, stream)

    def _deliver(self, batch: list[AgentEvent]) -> None:
        self._call.tell(self._arrive, batch)

    def _open(self, stream: Any) -> None:
        self.stream = stream

    def _arrive(self, batch: list[AgentEvent]) -> None:
        self._arrived = batch

    async def wait_opened(self) -> None:
        """Wait until the stream is entered; raises what that raised."""
        while self.stream is None:
            self._tell_end()
            await self._call.wait_for_news()

    async def receive(self) -> AgentEvent:
        """Give the next event; a read that is cancelled loses nothing.

        Raises:
          trio.EndOfChannel: the last event was given.

        """
        while not self._ready:
            if self._arrived is None and self._call.result is not None:
                self._tell_end()
                raise trio.EndOfChannel
            await self._take()
        return self._ready.popleft()

    async def receive_batch(self) -> list[AgentEvent]:
        """Give the next event with all that came with it; see `receive`."""
        batch = [await self.receive(), *self._ready]
        self._ready.clear()
        return batch

    async def _take(self) -> None:
        if self._arrived is None:
            return await self._call.wait_for_news()
        self._ready.extend(self._arrived)
        self._arrived = None
        with suppress(ThreadEnded):
            self._pump.go_on()

    async def leave(self) -> None:
        """Leave the stream's block in the Trio thread, and wait until that is through.

        Raises:
          asyncio.CancelledError: the task was cancelled meanwhile; it is through all the same.

        """
        self.abandon()
        await self._call.wait(lambda: None)
        self._tell_end()

    def _tell_end(self) -> None:
        """Raise what ended it, if anything did and nobody was told."""
        if self._call.result is not None and not self._was_told:
            self._was_told = True
            _unwrap(self._call.result)

    def abandon(self) -> None:
        """See to it that the stream's block is left, from any thread."""
        with suppress(ThreadEnded):
            self._pump.leave()
