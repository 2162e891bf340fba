"""What a simulation gives: the log, the result, and questions that tests ask of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._exceptions import RunCancelled, RunFailed
from flowtrio.pictures._text import text_timeline

from ._checks import check_events
from ._faults import KINDS, Fault, Places
from ._requests import check_messages
from ._schedule import Deviation, Schedule


@attrs.frozen(eq=False, kw_only=True)
class SimulatedCall:
    """One tool call that was started."""

    name: str
    """The tool's name."""
    call_id: str
    """The call's id in the run."""
    agent: str
    """Path of the agent that made it."""
    arguments: dict[str, Any]
    """What it was called with."""
    started: int
    """``seq`` of its TOOL_CALL_START."""
    ended: int
    """``seq`` of its TOOL_CALL_END."""
    outcome: str
    """``ok``, ``error``, ``timeout``, ``cancelled`` or ``denied``."""
    result: Any
    """What it gave; None unless it ended ``ok``."""
    error: str | None
    """Why it did not end ``ok``."""

    def __str__(self) -> str:
        return f"{self.name} ({self.call_id}, seq {self.started} to {self.ended}, {self.outcome})"

    def started_before(self, other: SimulatedCall) -> bool:
        """Whether it started before *other* did."""
        return self.started < other.started

    def ended_before(self, other: SimulatedCall) -> bool:
        """Whether it ended, however it did, before *other* started."""
        return self.ended < other.started

    def ended_ok_before(self, other: SimulatedCall) -> bool:
        """Whether it ended ``ok`` before *other* started."""
        return self.outcome == "ok" and self.ended_before(other)

    def overlaps(self, other: SimulatedCall) -> bool:
        """Whether both ran at some time at once."""
        return not (self.ended_before(other) or other.ended_before(self))


@attrs.frozen(eq=False, kw_only=True)
class SimulatedRun:
    """A run that was simulated to its end."""

    events: list[AgentEvent]
    """The whole log, however early the reader left."""
    result: Any
    """What the agent returned; None unless the run completed."""
    error: RunFailed | RunCancelled | None
    """Why it did not complete."""
    messages: list[dict[str, Any]]
    """The conversation, as `EventStream.messages` gives it."""
    schedule: Schedule
    """The schedule as it was used, without what made no difference."""
    deviations: list[Deviation]
    """Where that was not spawn order."""
    left_alive: list[str]
    """Names of the tasks that outlived the run: has to be empty (L5)."""
    most_undelivered: int
    """Events that were recorded and not yet read, at most (L6)."""
    closing_seconds: float
    """From the moment at which the run began to end to its DONE (L7)."""
    app: Any
    """What its agents and tools found as ``ctx.app``."""
    struck: list[Fault]
    """The faults that took effect, in that order."""
    _came: list[Fault] = attrs.field(alias="came")
    """Those whose moment came, with those that took no effect."""
    _places: Places = attrs.field(alias="places")

    def __repr__(self) -> str:
        return f"<SimulatedRun {self.status} events={len(self.events)}>"

    @property
    def status(self) -> str:
        """How it ended: ``completed``, ``error`` or ``cancelled``."""
        return str(self.events[-1].data["status"])

    def calls(self, name: str | None = None) -> list[SimulatedCall]:
        """The tool calls that were started, in that order: those of one tool, or all."""
        ends = {e.data["call_id"]: e for e in self.events if e.type is EventType.TOOL_CALL_END}
        starts = [e for e in self.events if e.type is EventType.TOOL_CALL_START]
        return [
            _call(start, ends[start.data["call_id"]])
            for start in starts
            if name is None or start.data["tool_name"] == name
        ]

    def check(self) -> None:
        """Assert the laws on all that is known of the run: its log, its conversation, its tasks.

        Raises:
          AssertionError: one is broken; see `check_events` and `check_messages`.

        """
        check_events(self.events)
        check_messages(self.messages)
        if self.left_alive:
            raise AssertionError(f"L5 is broken: alive after the end: {', '.join(self.left_alive)}")

    def places(self, *kinds: str) -> list[Fault]:
        """Faults of these *kinds*, or of all: one for each place where the run could be struck."""
        return list(self._places.faults(kinds or KINDS))

    def timeline(self) -> str:
        """Draw the log as text, and tell what struck, and where the schedule left spawn order."""
        return "\n".join(
            [text_timeline(self.events), *told_faults(self.struck), *_told(self.deviations)]
        )


_TOLD = 12
"""Choices of a schedule that a timeline tells; a shrunk one has fewer."""


def told_faults(struck: Sequence[Fault]) -> list[str]:
    """What struck, a line each."""
    return [f"struck by {fault}" for fault in struck]


def _told(deviations: Sequence[Deviation]) -> list[str]:
    lines = [str(deviation) for deviation in deviations[:_TOLD]]
    if len(deviations) > _TOLD:
        lines.append(f"and {len(deviations) - _TOLD} more choices")
    return lines


def _call(start: AgentEvent, end: AgentEvent) -> SimulatedCall:
    return SimulatedCall(
        name=start.data["tool_name"],
        call_id=start.data["call_id"],
        agent=start.agent,
        arguments=start.data["arguments"],
        started=start.seq,
        ended=end.seq,
        outcome=end.data["outcome"],
        result=end.data["result"],
        error=end.data["error"],
    )
