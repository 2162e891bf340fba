"""A log laid out for the eye: lanes, and what stands in each of them from where to where.

::

    events ─ columns ─┐
           ─ lanes ───┼─ bars, streaks and marks ─ a picture (`flowtrio.pictures._svg`)
           ─ moments ─┘                            ─ a text (`flowtrio.pictures._text`)

The order of a log is its law and its times are not, so a place to the right is a place later *in
the order*. Every event that opens or closes something has a column of its own. The pieces between
two of those (chunks, arguments, progress) share one column, however many they are: their boundaries
carry no meaning, and merged they leave a long log readable.

Nothing here judges. A log that breaks laws is laid out as far as it goes, since that is when people
want to look at it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs
import msgspec

from flowtrio._core._events import ROOT, AgentEvent, EventType

from ._layout import Bar, Column, Lane, Layout, Mark, Moment, take_place

_T = EventType

_TYPES: Final = {str(type): type for type in EventType}

PIECES: Final = {
    _T.MESSAGE_CHUNK: "chunk",
    _T.REASONING_CHUNK: "reasoning",
    _T.MESSAGE_PART: "part",
    _T.TOOL_CALL_ARGS: "args",
    _T.TOOL_PROGRESS: "progress",
}
"""What comes in numbers, and how it is called in a picture."""

_RUN: Final = ("run", "")


def lay_out(events: Iterable[AgentEvent | dict[str, Any]]) -> Layout:
    """Lay a run's log out.

    Args:
      events: A run's events, each an `AgentEvent` or a dict as it stands on the wire. What a dict
        lacks is taken as empty, and what is no dict as an empty one.

    """
    layouter = _Layouter()
    for event in events:
        if isinstance(event, AgentEvent):
            event = msgspec.structs.asdict(event)
        layouter.take(event if isinstance(event, dict) else {})
    return layouter.finish()


@attrs.define(eq=False)
class _Track:
    """Something that is open: its lane, its row, and its latest bar."""

    lane: Lane
    row: int
    rail: int
    bar: Bar
    name: str
    pieces: int = 0


class _Layouter:
    def __init__(self) -> None:
        self._columns: list[Column] = []
        self._began: float | None = None
        self._run = Lane("run", 0, "run")
        self._agents: dict[str, dict[tuple[str, str], Lane]] = {}
        """The lanes of each agent, the agents in the order of their first event."""
        self._open: dict[tuple[str, str], _Track] = {}
        self._rails: list[bool] = []
        self._moments: list[Moment] = []
        self._run_id = self._message = self._status = ""

    # One event

    def take(self, envelope: dict[str, Any]) -> None:
        type, data = _TYPES.get(_text(envelope, "type")), envelope.get("data")
        data = data if isinstance(data, dict) else {}
        agent = _text(envelope, "agent") or ROOT
        self._run_id = self._run_id or _text(envelope, "run_id")
        kind = None if type is None else PIECES.get(type)
        moment = Moment(envelope, type, data, agent, self._time(envelope))
        self._advance(moment, is_piece=kind is not None)
        self._moments.append(moment)
        if kind is not None:
            self._piece(kind, data, agent)
        elif type is not None:
            self._event(type, data, agent)
        else:
            self._mark_run("custom", _text(envelope, "type"))

    def _time(self, envelope: dict[str, Any]) -> float | None:
        time = envelope.get("timestamp")
        if not isinstance(time, int | float) or not math.isfinite(time):
            return None
        self._began = time if self._began is None else self._began
        return time - self._began

    def _advance(self, moment: Moment, *, is_piece: bool) -> None:
        if is_piece and self._columns and self._columns[-1].is_merged:
            self._columns[-1].count += 1
            return
        seq = moment.envelope.get("seq")
        seq = seq if isinstance(seq, int) else None
        self._columns.append(Column(len(self._moments), seq, moment.time, is_piece))

    @property
    def _column(self) -> int:
        return len(self._columns) - 1

    def _piece(self, kind: str, data: dict[str, Any], agent: str) -> None:
        if kind in ("args", "progress"):
            track = self._call(data, agent, "written" if kind == "args" else "running")
        else:
            track = self._message_track(data, agent)
        track.pieces += 1
        key = (track.row, self._column, kind)
        track.lane.streaks[key] = track.lane.streaks.get(key, 0) + 1

    def _event(self, type: EventType, data: dict[str, Any], agent: str) -> None:
        match type:
            case EventType.RUN_START:
                self._message = _text(data, "message")
                self._move("initializing", "initializing")
            case EventType.STATE_CHANGE:
                status = _text(data, "new_status")
                self._move(status, _text(data, "reason") or status.replace("_", " "))
            case EventType.ERROR:
                self._mark_run("failed", f"ERROR {_text(data, 'code')}")
            case EventType.DONE:
                self._done(data)
            case EventType.MESSAGE_COMPLETE:
                self._complete(data, agent)
            case EventType.MESSAGE_RESET:
                track = self._message_track(data, agent)
                self._mark(track.lane, "reset", f"RESET {_text(data, 'reason')}", track.row)
            case EventType.TOOL_CALL_START:
                self._phase(self._call(data, agent, "running"), "running")
            case EventType.APPROVAL_REQUIRED:
                self._phase(self._call(data, agent, "asked"), "asked")
            case EventType.TOOL_CALL_END:
                self._call_end(data, agent)
            case EventType.AGENT_START:
                self._nested(agent)
            case EventType.AGENT_END:
                self._agent_end(data, agent)
            case EventType.INPUT_REQUIRED:
                self._question(data, agent)
            case EventType.INPUT_RESOLVED:
                outcome = _text(data, "outcome")
                self._close(self._question(data, agent), "asked", f"question: {outcome}")
            case EventType.USER_MESSAGE:
                self._mark_run("said", "user: " + _text(data, "message"))
            case _:
                self._custom(f"CUSTOM {_text(data, 'name')}", agent)

    # The run

    def _move(self, status: str, text: str) -> None:
        if (track := self._touched(_RUN)) is not None:
            self._phase(track, status)
            track.bar.text = track.bar.title = text
        else:
            self._begin(_RUN, self._run, status, text)

    def _done(self, data: dict[str, Any]) -> None:
        self._status = _text(data, "status")
        self._mark_run(f"done {self._status}", f"DONE {self._status}")
        track = self._touched(_RUN)
        if track is not None:
            self._close(track, track.bar.tone, track.bar.title)

    def _custom(self, title: str, agent: str) -> None:
        if agent == ROOT:
            self._mark_run("custom", title)
        else:
            self._mark(self._nested(agent).lane, "custom", title)

    def _mark_run(self, kind: str, title: str) -> None:
        self._touched(_RUN)
        self._mark(self._run, kind, title)

    # Messages, calls, agents, questions

    def _message_track(self, data: dict[str, Any], agent: str) -> _Track:
        message_id = _text(data, "message_id")
        return self._track(("message", message_id), agent, "model", "model", "text", message_id)

    def _complete(self, data: dict[str, Any], agent: str) -> None:
        track, reason = self._message_track(data, agent), _text(data, "finish_reason")
        tone = reason if reason in ("error", "cancelled") else "text"
        self._close(track, tone, f"message {track.name}: {track.pieces} pieces, {reason}")

    def _call(self, data: dict[str, Any], agent: str, tone: str) -> _Track:
        call_id, name = _text(data, "call_id"), _text(data, "tool_name")
        return self._track(("call", call_id), agent, "tool", name, tone, call_id)

    def _call_end(self, data: dict[str, Any], agent: str) -> None:
        outcome, took = _text(data, "outcome"), _seconds(data.get("duration"))
        track = self._call(data, agent, outcome)
        track.bar.text = f"{track.name} {took}".rstrip()
        self._close(track, outcome, f"call {track.name}: {outcome} {took}".rstrip())

    def _nested(self, agent: str) -> _Track:
        name = agent.rpartition("/")[2]
        return self._track(("agent", agent), agent, "agent", name, "agent", name)

    def _agent_end(self, data: dict[str, Any], agent: str) -> None:
        outcome, took = _text(data, "outcome"), _seconds(data.get("duration"))
        track = self._nested(agent)
        tone = "agent" if outcome == "ok" else outcome
        self._close(track, tone, f"agent {agent}: {outcome} {took}".rstrip())

    def _question(self, data: dict[str, Any], agent: str) -> _Track:
        request_id = _text(data, "request_id")
        key = ("question", request_id)
        return self._track(key, agent, "question", "questions", "asked", request_id)

    # Tracks

    def _track(
        self, key: tuple[str, str], agent: str, kind: str, lane: str, tone: str, name: str
    ) -> _Track:
        """What is open under *key*, else something new in a lane of *agent*."""
        if (track := self._touched(key)) is not None:
            return track
        lanes = self._agents.setdefault(agent, {})
        depth = agent.count("/") - (kind == "agent")
        return self._begin(key, lanes.setdefault((kind, lane), Lane(lane, depth, kind)), tone, name)

    def _touched(self, key: tuple[str, str]) -> _Track | None:
        """What is open under *key*, if anything is; the event is about that."""
        track = self._open.get(key)
        if track is not None:
            self._moments[-1].rail = track.rail
        return track

    def _begin(self, key: tuple[str, str], lane: Lane, tone: str, name: str) -> _Track:
        row, moment = take_place(lane.rows), self._moments[-1]
        bar = Bar(row, self._column, self._column, tone, name, name)
        lane.bars.append(bar)
        moment.rail, moment.opens = take_place(self._rails), True
        track = self._open[key] = _Track(lane, row, moment.rail, bar, name)
        return track

    def _phase(self, track: _Track, tone: str) -> None:
        """Go on with a bar of another tone."""
        if track.bar.start == self._column:
            track.bar.tone = tone
            return
        before = track.bar
        before.end = self._column - 1
        if track.lane.kind != "run":
            # What was before is told by its colour, and once is enough for the name.
            before.text = ""
        track.bar = Bar(track.row, self._column, self._column, tone, track.name, track.name)
        track.lane.bars.append(track.bar)

    def _close(self, track: _Track, tone: str, title: str) -> None:
        track.bar.end, track.bar.tone, track.bar.title = self._column, tone, title
        track.lane.rows[track.row] = self._rails[track.rail] = False
        self._moments[-1].closes = True
        self._open = {key: other for key, other in self._open.items() if other is not track}

    def _mark(self, lane: Lane, kind: str, title: str, row: int = 0) -> None:
        lane.marks.append(Mark(row, self._column, kind, title))

    # All of them

    def finish(self) -> Layout:
        for track in self._open.values():
            track.bar.end, track.bar.is_open = max(self._column, 0), True
            track.bar.title += " (the log ends here)"
        lanes = [self._run, *self._in_order()]
        return Layout(
            self._moments, self._columns, lanes, self._run_id, self._message, self._status
        )

    def _in_order(self) -> Iterator[Lane]:
        """Each agent's own lanes, then those of the agents nested in it."""
        first = {agent: place for place, agent in enumerate(self._agents)}
        for agent in sorted(self._agents, key=lambda path: _family(path, first)):
            lanes = self._agents[agent].values()
            yield from sorted(lanes, key=lambda lane: _KINDS.index(lane.kind))


_KINDS: Final = ("agent", "model", "question", "tool")
"""In which order an agent's lanes stand."""


def _family(path: str, first: dict[str, int]) -> list[int]:
    """What sorts a path behind its ancestors and beside its sisters, by who spoke first."""
    names = path.split("/")
    ancestors = ("/".join(names[:length]) for length in range(1, len(names) + 1))
    return [first.get(ancestor, -1) for ancestor in ancestors]


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _seconds(value: object) -> str:
    return f"{value:.2f} s" if isinstance(value, int | float) else ""
