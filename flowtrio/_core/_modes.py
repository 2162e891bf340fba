"""Pure views: what one mode's reader sees of the ordered log.

EVENTS, UPDATES and MESSAGES are filters. VALUES replaces chunks by complete states: each of its
events carries ``data["state"]``, the fold of all UPDATES up to and including it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

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
    """One reader's view of one log, fed event by event."""

    __slots__ = ("_is_whole", "_snapshot", "visible")

    def __init__(self, mode: StreamMode) -> None:
        self.visible: frozenset[EventType] = VISIBLE[mode]
        """The types this view shows."""
        self._is_whole = mode is StreamMode.EVENTS
        self._snapshot = Snapshot() if mode is StreamMode.VALUES else None

    def see_all(self, events: Sequence[AgentEvent]) -> Sequence[AgentEvent]:
        """Take several of the log's next events; gives what the reader sees of them."""
        if self._is_whole:
            return events
        return [seen for event in events if (seen := self.see(event)) is not None]

    def see(self, event: AgentEvent) -> AgentEvent | None:
        """Take the log's next event; gives what the reader sees of it, or None."""
        snapshot = self._snapshot
        if snapshot is None:
            return event if event.type in self.visible else None
        snapshot.add(event)
        if event.type not in self.visible:
            return None
        return AgentEvent(
            event.type,
            {**event.data, "state": snapshot.state()},
            event.seq,
            event.run_id,
            event.agent,
            event.timestamp,
        )


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
