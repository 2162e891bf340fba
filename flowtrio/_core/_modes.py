"""Pure views: what one mode's reader sees of the ordered log.

EVENTS, UPDATES and MESSAGES are filters. VALUES replaces chunks by complete states: each of its
events carries ``data["state"]``, the fold of all UPDATES up to and including it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from ._compact import CompactedLog
from ._events import AgentEvent, EventType, StreamMode
from ._snapshot import Snapshot

_T = EventType

_UPDATES: Final = frozenset(_T) - {_T.TOOL_CALL_ARGS, _T.TOOL_PROGRESS, _T.CUSTOM}

VISIBLE: Final[dict[StreamMode, frozenset[EventType]]] = {
    StreamMode.EVENTS: frozenset(_T),
    StreamMode.UPDATES: _UPDATES,
    StreamMode.MESSAGES: frozenset(
        {
            _T.MESSAGE_CHUNK,
            _T.MESSAGE_PART,
            _T.MESSAGE_RESET,
            _T.MESSAGE_COMPLETE,
            _T.REASONING_CHUNK,
            _T.APPROVAL_REQUIRED,
            _T.INPUT_REQUIRED,
            _T.INPUT_RESOLVED,
            _T.USER_MESSAGE,
            _T.ERROR,
            _T.DONE,
        }
    ),
    StreamMode.VALUES: _UPDATES - {_T.MESSAGE_CHUNK, _T.REASONING_CHUNK},
}
"""Which types each mode shows. ERROR, DONE, APPROVAL_REQUIRED and INPUT_REQUIRED are in all: nobody
may wait for a question they were not asked."""


class View:
    """One reader's view of one log, fed event by event.

    Args:
      mode: The view.
      newest: An event, by its number, up to which the log is told as one snapshot: that event, of
        whatever type, with the state up to and including it. -1 for none.
      is_compacted: Whether that event has, instead of the state, the `CompactedLog` before it.

    """

    __slots__ = ("_compacted", "_is_whole", "_mode", "_newest", "_snapshot", "visible")

    def __init__(self, mode: StreamMode, newest: int = -1, *, is_compacted: bool = False) -> None:
        self.visible: frozenset[EventType] = VISIBLE[mode]
        """The types this view shows."""
        self._mode = mode
        self._newest = newest
        self._is_whole = mode is StreamMode.EVENTS and newest < 0
        self._compacted = CompactedLog() if is_compacted and newest >= 0 else None
        has_states = mode is StreamMode.VALUES or (newest >= 0 and not is_compacted)
        self._snapshot = Snapshot() if has_states else None

    def see_all(self, events: Sequence[AgentEvent]) -> Sequence[AgentEvent]:
        """Take several of the log's next events; gives what the reader sees of them."""
        if self._is_whole:
            return events
        return [seen for event in events if (seen := self.see(event)) is not None]

    def see(self, event: AgentEvent) -> AgentEvent | None:
        """Take the log's next event; gives what the reader sees of it, or None."""
        if event.seq <= self._newest:
            return self._see_late(event)
        snapshot = self._snapshot
        if snapshot is None:
            return event if event.type in self.visible else None
        snapshot.add(event)
        return _telling(event, state=snapshot.state()) if event.type in self.visible else None

    def _see_late(self, event: AgentEvent) -> AgentEvent | None:
        """Take one of those that are told as one."""
        told: dict[str, Any] = {}
        if self._snapshot is not None:
            self._snapshot.add(event)
        if event.seq < self._newest:
            if self._compacted is not None and event.type in self.visible:
                self._compacted.add(event)
            return None
        if self._snapshot is not None:
            told["state"] = self._snapshot.state()
        if self._compacted is not None:
            told["log"] = [_entry(kept) for kept in self._compacted.events()]
            self._compacted = None
        if self._mode is not StreamMode.VALUES:
            self._snapshot = None
            self._is_whole = self._mode is StreamMode.EVENTS
        return _telling(event, **told)


def _telling(event: AgentEvent, **told: Any) -> AgentEvent:
    return AgentEvent(
        event.type,
        {**event.data, **told},
        event.seq,
        event.run_id,
        event.agent,
        event.timestamp,
    )


def _entry(event: AgentEvent) -> dict[str, Any]:
    """An event in another one of its run."""
    return {
        "type": event.type.value,
        "data": event.data,
        "seq": event.seq,
        "agent": event.agent,
        "timestamp": event.timestamp,
    }


def project(mode: StreamMode | str, events: Iterable[AgentEvent]) -> Iterator[AgentEvent]:
    """Give what a reader of *mode* sees of *events*.

    Pure: the same events give the same view. Order and ``seq`` are kept, so a filtered view has
    holes in ``seq`` and nothing else.

    Args:
      mode: The view, a `StreamMode` or its value.
      events: A log from its first event, as EVENTS gives it.

    Raises:
      ValueError: *mode* is not one of the modes.

    """
    view = View(StreamMode(mode))
    return (seen for event in events if (seen := view.see(event)) is not None)
