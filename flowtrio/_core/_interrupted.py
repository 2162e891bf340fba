"""The end of a log whose run was cut off: what a run would have recorded, had it had the time.

Whoever recorded it is gone, killed or without power, and nobody knows what it did last. So what is
open is closed as cancelled, and the run has failed with ERROR ``interrupted``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from ._brackets import OpenMessage
from ._chunks import least_usage
from ._closing import closing_event
from ._events import ADDED_KEYS, ROOT, AgentEvent, AgentStatus, EventType
from ._failures import Failure
from ._law import TERMINAL, Law
from ._snapshot import Snapshot

_T = EventType

INTERRUPTED: Final = Failure(
    error="the process that ran it ended before the run did", code="interrupted", source="internal"
)
"""How such a run failed."""


def missing_end(
    events: Iterable[AgentEvent], start: AgentEvent, failure: Failure = INTERRUPTED
) -> list[AgentEvent]:
    """Give the events that make a cut log whole; none where it is.

    Args:
      events: The log as far as it goes, from its first event and without gaps.
      start: Its RUN_START, for a log that has nothing.
      failure: How the run failed, where the log does not say.

    """
    ending = _Ending(start, failure)
    for event in events:
        ending.add(event)
    return list(ending.finish())


def cancelled_end(start: AgentEvent, reason: str) -> list[AgentEvent]:
    """Give the whole log of a run that was cancelled before anybody began it."""
    ending = _Ending(start, None, reason)
    return list(ending.finish())


class _Ending:
    """Walks a log, and then ends it."""

    def __init__(
        self, start: AgentEvent, failure: Failure | None, reason: str | None = None
    ) -> None:
        self._law = Law()
        self._snapshot = Snapshot()
        self._start = start
        self._failure = failure
        self._reason = reason if failure is None else failure.code
        self._first: AgentEvent | None = None
        self._last = start
        self._characters = 0
        self._around: dict[str, str | None] = {}
        """Inside which call each nested agent is."""

    def add(self, event: AgentEvent) -> None:
        """Take the log's next event."""
        self._law.step(event.type, event.data, event.agent)
        self._snapshot.add(event)
        self._first = self._first or event
        self._last = event
        if event.type is _T.MESSAGE_CHUNK:
            self._characters += len(event.data["chunk"])
        elif event.type is _T.AGENT_START:
            around = self._around.get(event.agent.rpartition("/")[0])
            self._around[event.agent] = event.data["call_id"] or around

    def finish(self) -> Iterator[AgentEvent]:
        """Give what is missing."""
        law = self._law
        if law.is_done:
            return
        if self._first is None:
            yield self._record(_T.RUN_START, self._start.data, ROOT)
        if law.status not in TERMINAL:
            for bracket in law.open_brackets():
                told = {"parent_call_id": self._around.get(bracket.agent)}
                is_message = isinstance(bracket, OpenMessage)
                closer = closing_event(bracket, told if is_message else None)
                yield self._record(*closer, bracket.agent)
            status = "cancelled" if self._failure is None else "error"
            change = {"old_status": str(law.status), "new_status": status, "reason": self._reason}
            yield self._record(_T.STATE_CHANGE, change, ROOT)
        if law.status is AgentStatus.ERROR and self._last.type is not _T.ERROR:
            assert self._failure is not None
            yield self._record(_T.ERROR, self._failure.to_data([]), ROOT)
        yield self._record(_T.DONE, self._done(), ROOT)

    def _record(self, type: EventType, data: dict[str, Any], agent: str) -> AgentEvent:
        # The time is the last that is known: nobody can say when the run really stopped.
        if (self._first or self._start).data.get("schema") == 1:
            data = {k: v for k, v in data.items() if k not in ADDED_KEYS.get(type, ())}
        event = AgentEvent(
            type, data, self._law.count, self._start.run_id, agent, self._last.timestamp
        )
        self.add(event)
        return event

    def _done(self) -> dict[str, Any]:
        assert self._first is not None
        return {
            "status": str(self._law.status),
            "reason": self._law.reason,
            "result": None,
            "usage": self._usage(),
            "events": self._law.count + 1,
            "duration": max(0.0, self._last.timestamp - self._first.timestamp),
            "leftover": [],
        }

    def _usage(self) -> dict[str, Any]:
        usage: dict[str, Any] = {**self._snapshot.state()["usage"], "quality": "lower_bound"}
        if self._characters and not usage["completion_tokens"]:
            usage["completion_tokens"] = least_usage(self._characters).completion_tokens
        return usage
