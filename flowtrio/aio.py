"""Runs for programs under asyncio: their readers are asyncio tasks, they live in a Trio thread.

A stream can be read in an asyncio task as it stands: ``async for event in engine.stream(...)``. A
`Bridge` holds the thread for a block, behind which nothing of it is alive, and reaches all else
that wants Trio: an orchestrator that is to be opened, functions, and asyncio functions as tools.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, ParamSpec, Self, TypeVar

import trio

from flowtrio._core._util import publish as _publish
from flowtrio._hosting._follower import Follower
from flowtrio._run._asyncio import Entered, Room, call_asyncio, call_trio, let_go
from flowtrio._run._reading import current_room
from flowtrio._run._stream import EventStream
from flowtrio._run._thread import Hold, ThreadEnded

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", EventStream[Any], Follower)


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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room: Room | None = None
        self._stack = AsyncExitStack()
        self._hold: Hold
        self._opened: Entered[trio.Nursery]

    async def __aenter__(self) -> Self:
        """Have the Trio thread.

        Raises:
          RuntimeError: the bridge is or was open.

        """
        if self._loop is not None:
            raise RuntimeError("can't open a bridge twice: expected a new one")
        self._loop = asyncio.get_running_loop()
        held = self._hold = Hold()
        # Where the loop is closed with this open, what waits in that room says so.
        self._opened = Entered(
            Room(held.thread), trio.open_nursery, "a flowtrio Bridge", held.release
        )
        try:
            self._room = Room(held.thread, await self._opened.__aenter__())
        except BaseException:
            await let_go(held, self._loop)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel what is still read or called by it, leave what is entered, and let go."""
        room, loop = self._held()
        self._room = None
        _empty(room)
        try:
            await self._stack.aclose()
        finally:
            try:
                await self._opened.__aexit__()
            finally:
                await let_go(self._hold, loop)

    def __del__(self) -> None:
        # Any thread, at any time.
        if self._room is not None:
            _empty(self._room)
            self._hold.release()
            self._opened.give_up()

    def _held(self) -> tuple[Room, asyncio.AbstractEventLoop]:
        if self._room is None or self._loop is None:
            raise RuntimeError("the bridge is not open: expected a call inside async with Bridge()")
        return self._room, self._loop

    @asynccontextmanager
    async def stream(self, make: Callable[[], S]) -> AsyncIterator[S]:
        """Hold a stream open for the block: its run has ended when that is left.

        Args:
          make: Gives an `EventStream`, or a `Follower`: ``lambda: engine.stream(agent, message)``.

        """
        room, _ = self._held()
        stream = make()
        # It begins in the first step of its entering, and takes its room from here.
        token = current_room.set(room)
        try:
            opened = await stream.__aenter__()
        finally:
            current_room.reset(token)
        try:
            yield opened
        except BaseException as exc:
            await stream.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        else:
            await stream.__aexit__(None, None, None)

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Open something under Trio until the bridge is left: an orchestrator, an engine.

        What was opened last is left first, in a Trio task of its own.
        """
        room, _ = self._held()
        held = Entered(Room(room.thread), lambda: manager, "what a flowtrio Bridge has entered")
        return await self._stack.enter_async_context(held)

    async def call(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run an async function under Trio: ``await bridge.call(orchestrator.start, "hello")``.

        Cancelling the asyncio task cancels it; it has ended when the cancellation is raised.
        """
        room, _ = self._held()
        return await call_trio(room, fn, *args, name="a flowtrio call from asyncio")

    def function(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Make a function that can be a tool of one that needs asyncio, with the same signature.

        It runs in a task of this bridge's loop; ending its call cancels that task.
        """
        _, loop = self._held()

        @functools.wraps(fn)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return await call_asyncio(loop, fn, *args, **kwargs)

        return call


def _empty(room: Room) -> None:
    """Cancel what works in a bridge's room."""
    assert room.nursery is not None
    with suppress(ThreadEnded):
        room.thread.post(room.nursery.cancel_scope.cancel)


_publish(__name__, [Bridge])
__all__ = ["Bridge"]
