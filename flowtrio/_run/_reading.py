"""A stream or follower whose home is the Trio thread, read by asyncio tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

import outcome
import trio

from flowtrio._core._events import AgentEvent

from ._asyncio import Call, Room, call_trio
from ._pump import Pump
from ._thread import ThreadEnded, hold

T = TypeVar("T")

current_room: ContextVar[Room | None] = ContextVar("flowtrio_room", default=None)
"""Where what is entered now is to live; by default in the thread, which is then kept."""


class Reading:
    """Reads one for one task at a time; a read that is cancelled loses nothing."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Any]], name: str) -> None:
        """Make it, for the current task; see `Pump` for *make*."""
        room = current_room.get() or Room(hold(keep=True))
        self.thread = room.thread
        self._room = room
        self._ready: deque[AgentEvent] = deque()
        self._arrived: list[AgentEvent] | None = None
        self._is_open = False
        self._is_told = False
        """Whether the reader knows how it ended."""
        self._is_left = False
        self._pump = Pump(room.thread, make, self._tell_opened, self._deliver)
        self._call = Call(room, name)

    def begin(self) -> None:
        """Begin to read, with the context variables of the current task."""
        self._call.start(self._pump.run)

    # In the Trio thread

    def _tell_opened(self) -> None:
        self._call.tell(self._open)

    def _deliver(self, batch: list[AgentEvent]) -> None:
        self._call.tell(self._arrive, batch)

    # In the asyncio loop

    def _open(self) -> None:
        self._is_open = True

    def _arrive(self, batch: list[AgentEvent]) -> None:
        if not self._is_left:
            self._arrived = batch

    async def wait_opened(self) -> None:
        """Wait until it is entered; where that fails, or is cancelled, it is left."""
        try:
            while not self._is_open:
                self._tell_end()
                await self._call.wait_for_news()
        except BaseException:
            await self.leave_quietly()
            raise

    async def receive(self) -> AgentEvent:
        """Give the next event.

        Raises:
          trio.EndOfChannel: the last event was given.

        """
        while not self._ready:
            await self._fill()
        return self._ready.popleft()

    def take_ready(self) -> list[AgentEvent]:
        """Give what can be given without waiting."""
        events = [*self._ready]
        self._ready.clear()
        return events

    async def _fill(self) -> None:
        if self._arrived is not None:
            self._ready.extend(self._arrived)
            self._arrived = None
            with suppress(ThreadEnded):
                self._pump.go_on()
        elif self._call.result is None and not self._is_left:
            await self._call.wait_for_news()
        else:
            self._tell_end(again=True)
            raise trio.EndOfChannel

    async def leave(self) -> None:
        """Leave it in the Trio thread, and wait until that is through.

        Raises:
          asyncio.CancelledError: the task was cancelled meanwhile; it is through all the same.

        """
        await self.leave_quietly()
        self._tell_end()

    async def leave_quietly(self) -> None:
        """Leave it, also where what ended it is told in another way."""
        self._is_left = True
        self.take_ready()
        self._arrived = None
        await self._call.wait_left(self.abandon)

    def _tell_end(self, *, again: bool = False) -> None:
        """Raise what ended it, if anything did and nobody was told; what failed, *again* too."""
        result = self._call.result
        has_failed = isinstance(result, outcome.Error) and isinstance(result.error, Exception)
        if result is not None and (not self._is_told or (again and has_failed)):
            self._is_told = True
            result.unwrap()

    async def call(self, fn: Callable[[], Awaitable[T]]) -> T:
        """Call something of it in the Trio thread; at once where it has ended."""
        return await call_trio(self._room, fn, name="a flowtrio call from asyncio")

    def abandon(self) -> None:
        """See to it that it is left, from any thread."""
        with suppress(ThreadEnded):
            self._pump.leave()
