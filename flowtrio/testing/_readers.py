"""Readers: how a run's events are read, what a person answers, and how the reader leaves."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import attrs
import trio

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._run._stream import EventStream

from ._code import AsCode


class ReaderLeft(Exception):
    """What a simulated reader's own code raises in the block of a stream."""


@attrs.frozen(kw_only=True, repr=False)
class Reader(AsCode):
    """Reads a run. As it is: at once, to the end, saying yes to everything.

    Places are counted in events read, from 1.
    """

    pause: float = 0.0
    """Seconds asleep after each event: a slow reader."""
    polls: float | None = None
    """Seconds after which each wait for an event is given up and begun anew."""
    approves: bool | None = True
    """What a person says to a call that needs approval; None for nothing."""
    answers: str | None = "yes"
    """What a person says to a question; None for nothing."""
    breaks: int | None = None
    """Leaves the block after so many events."""
    raises: int | None = None
    """Leaves the block by an exception after so many events."""
    times_out: float | None = None
    """Seconds after which a timeout around the block ends it."""
    cancels: int | None = None
    """Cancels the run after so many events, and reads on."""
    cancels_tool: int | None = None
    """Cancels a tool call once it has started: the n-th to start, from 1."""
    is_bare: bool = False
    """Whether it iterates over the stream without a block."""

    async def read(self, stream: EventStream, events: list[AgentEvent]) -> None:
        """Read *stream* into *events*.

        Raises:
          ReaderLeft: it was to leave by an exception.

        """
        async with AsyncExitStack() as stack:
            if not self.is_bare:
                await stack.enter_async_context(stream)
            started = 0
            while (event := await self._next(stream)) is not None:
                events.append(event)
                if self.pause:
                    await trio.sleep(self.pause)
                started += event.type is EventType.TOOL_CALL_START
                self._react(stream, event.type, event.data, started)
                if len(events) == self.cancels:
                    stream.cancel("the simulated reader cancelled")
                if len(events) == self.raises:
                    raise ReaderLeft
                if len(events) == self.breaks:
                    return

    async def _next(self, stream: EventStream) -> AgentEvent | None:
        if self.polls is None or self.is_bare:
            return await anext(stream, None)
        while True:
            with trio.move_on_after(self.polls):
                return await anext(stream, None)

    def _react(
        self, stream: EventStream, type: EventType, data: dict[str, Any], started: int
    ) -> None:
        match type:
            case EventType.APPROVAL_REQUIRED if self.approves is not None:
                if self.approves:
                    stream.approve(data["call_id"])
                else:
                    stream.deny(data["call_id"], "the simulated reader denied it")
            case EventType.INPUT_REQUIRED if self.answers is not None:
                stream.answer(data["request_id"], self.answers)
            case EventType.TOOL_CALL_START if started == self.cancels_tool:
                stream.cancel_tool(data["call_id"])
            case _:
                pass
