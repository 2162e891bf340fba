"""A log told in fewer events: the pieces of a text are one piece, and all else stands as it was.

What is streamed piece by piece is most of a log, and who comes late has nothing of the pieces. So
they are joined where the first of them stood: whoever shows a log, and shows it by its texts and
not by its pieces, shows the same by the compacted one. It keeps the laws, but for the holes that it
has in ``seq``.
"""

from __future__ import annotations

from io import StringIO
from typing import Final

import attrs

from ._events import AgentEvent, EventType

PIECES: Final = {
    EventType.MESSAGE_CHUNK: ("message_id", "chunk"),
    EventType.REASONING_CHUNK: ("message_id", "chunk"),
    EventType.TOOL_CALL_ARGS: ("call_id", "delta"),
}
"""Events that say a piece of a text: the keys of what the text is of, and of the piece."""


@attrs.define(eq=False)
class _Joined:
    """A text of several pieces, where the first one stands."""

    first: AgentEvent
    text: StringIO

    def event(self) -> AgentEvent:
        first = self.first
        data = {**first.data, PIECES[first.type][1]: self.text.getvalue()}
        return AgentEvent(first.type, data, first.seq, first.run_id, first.agent, first.timestamp)


class CompactedLog:
    """A log's events, compacted as they come.

    Of several changes to one and the same status the first and the newest are kept, and events of
    the application's own are left out, as the states leave them out.
    """

    def __init__(self) -> None:
        self._kept: dict[int, AgentEvent | _Joined] = {}
        self._joined: dict[tuple[EventType, str], _Joined] = {}
        self._status: str | None = None
        self._again: int | None = None
        """The newest change to the status that there was already, by its number."""

    def add(self, event: AgentEvent) -> None:
        """Take the log's next event."""
        type, data = event.type, event.data
        if type in PIECES:
            return self._join(event)
        match type:
            case EventType.CUSTOM:
                return None
            case EventType.STATE_CHANGE:
                self._change(event)
            case EventType.MESSAGE_RESET | EventType.MESSAGE_COMPLETE:
                # What is said now is another text.
                self._joined.pop((EventType.MESSAGE_CHUNK, data["message_id"]), None)
                self._joined.pop((EventType.REASONING_CHUNK, data["message_id"]), None)
            case EventType.TOOL_CALL_START | EventType.TOOL_CALL_END:
                self._joined.pop((EventType.TOOL_CALL_ARGS, data["call_id"]), None)
            case _:
                pass
        self._kept[event.seq] = event

    def events(self) -> list[AgentEvent]:
        """What the log is so far."""
        return [kept.event() if isinstance(kept, _Joined) else kept for kept in self._kept.values()]

    def _join(self, event: AgentEvent) -> None:
        whose, piece = PIECES[event.type]
        key = (event.type, event.data[whose])
        joined = self._joined.get(key)
        if joined is None:
            joined = self._joined[key] = self._kept[event.seq] = _Joined(event, StringIO())
        joined.text.write(event.data[piece])

    def _change(self, event: AgentEvent) -> None:
        if event.data["new_status"] != self._status:
            self._status, self._again = event.data["new_status"], None
            return
        if self._again is not None:
            del self._kept[self._again]
        self._again = event.seq
