"""Runs for programs under asyncio: their readers are asyncio tasks, they live in a Trio thread.

A stream can be read in an asyncio task as it stands: ``async for event in engine.stream(...)``. A
`Bridge` holds the thread for a block, behind which nothing of it is alive, and reaches all else
that wants Trio: an orchestrator that is to be opened, functions, and asyncio functions as tools.
"""

from __future__ import annotations

import asyncio
import functools
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import trio

from flowtrio._core._events import AgentEvent
from flowtrio._core._util import publish as _publish
from flowtrio._run._asyncio import Reading, call_asyncio, call_trio, entered
from flowtrio._run._stream import EventStream
from flowtrio._run._thread import TrioThread, hold, release

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=AbstractAsyncContextManager[Any])


class Bridge:
    """A block of an asyncio program in which flowtrio's Trio thread is at hand.

    ::

        async with Bridge() as bridge:
            async with bridge.stream(lambda: engine.stream(agent, "hello")) as events:
                async for event in events:
                    ...

    All bridges of a process share one Trio thread, also those of several loops; the last one that
    is left ends it, unless a stream is or was read without a bridge.
    """

    def __init__(self) -> None:
        self._thread: TrioThread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = AsyncExitStack()
        self._forgotten: weakref.finalize[Any, Self] | None = None

    async def __aenter__(self) -> Self:
        """Have the Trio thread.

        Raises:
          RuntimeError: the bridge is or was open.

        """
        if self._loop is not None:
            raise RuntimeError("can't open a bridge twice: expected a new one")
        self._loop = asyncio.get_running_loop()
        self._thread = hold()
        self._forgotten = weakref.finalize(self, _forget, self._thread)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave what is still entered, and let the thread go."""
        thread, self._thread = self._thread, None
        assert thread is not None
        assert self._forgotten is not None
        try:
            await self._stack.aclose()
        finally:
            self._forgotten.detach()
            release(thread)

    def _held(self) -> tuple[TrioThread, asyncio.AbstractEventLoop]:
        if self._thread is None or self._loop is None:
            raise RuntimeError("the bridge is not open: expected a call inside async with Bridge()")
        return self._thread, self._loop

    @asynccontextmanager
    async def stream(self, make: Callable[[], S]) -> AsyncIterator[S]:
        """Hold a stream open for the block, and give it.

        When the block is left, the run of an `EventStream` has ended; a `Follower` is detached.

        Args:
          make: Gives a stream: ``lambda: engine.stream(agent, message)``, or
            ``lambda: orchestrator.attach(run_id)``.

        """
        thread, _ = self._held()
        made = make()
        readable: Any = made if isinstance(made, EventStream) else _Followed(thread, made)
        async with readable as stream:
            yield stream

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Open something under Trio until the bridge is left: an orchestrator, an engine.

        What was opened last is left first, in a Trio task of its own.
        """
        thread, _ = self._held()
        return await self._stack.enter_async_context(entered(thread, lambda: manager))

    async def call(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run an async function under Trio: ``await bridge.call(orchestrator.start, "hello")``.

        Cancelling the asyncio task cancels it; it has ended when the cancellation is raised.
        """
        thread, _ = self._held()
        return await call_trio(thread, fn, *args, name="flowtrio call from asyncio")

    def function(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Make a function that can be a tool of one that needs asyncio, with the same signature.

        It runs in a task of this bridge's loop; ending its call cancels that task.
        """
        _, loop = self._held()

        @functools.wraps(fn)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return await call_asyncio(loop, fn, *args, **kwargs)

        return call


class _Followed:
    """A reader in the Trio thread of a hosted run, read in an asyncio task."""

    def __init__(self, thread: TrioThread, follower: Any) -> None:
        self._follower = follower
        self._reading = Reading(thread, lambda: follower)

    def __getattr__(self, name: str) -> Any:
        # Its controls may be called from any thread, and what it tells be asked.
        return getattr(self._follower, name)

    async def __aenter__(self) -> Self:
        try:
            await self._reading.wait_opened()
        except BaseException:
            await self._reading.leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reading.leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AgentEvent:
        try:
            return await self._reading.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def receive_batch(self) -> list[AgentEvent]:
        return await self._reading.receive_batch()


def _forget(thread: TrioThread) -> None:
    """A bridge was dropped, or the process ends, and nobody left it."""
    release(thread, waits=False)
    warnings.warn("a flowtrio Bridge was never left", ResourceWarning, stacklevel=2)


_publish(__name__, [Bridge])
__all__ = ["Bridge"]
