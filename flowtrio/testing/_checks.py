"""The laws, read from a log.

What may follow what is judged by the same `Law` that stands at a run's gate. What the gate takes on
trust, because the runtime makes it so, is judged here besides: numbers without gaps, one run, the
shape of each event's data, nothing left open in a nested agent that ended, and that what the model
wrote is what was executed, unless a person was asked, who may have edited it.

Each break is told once, see `_mend`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import attrs
import msgspec

from flowtrio._core._brackets import Bracket, CallPhase, OpenAgent, OpenCall
from flowtrio._core._events import ROOT, AgentEvent, EventType
from flowtrio.pictures._text import text_timeline

from ._mend import MendingLaw, names_in
from ._shapes import (
    ENVELOPE,
    SHAPES_OF,
    find_contradictions,
    find_flaws,
    find_foreign,
    schema_of,
)

_T = EventType

_PLACING: Final = frozenset(
    {
        *("chunk", "message_id", "content", "finish_reason"),
        *("old_status", "new_status", "reason", "status", "events"),
        *("call_id", "tool_name", "delta", "arguments", "provider_executed", "outcome"),
        *("agent", "request_id"),
    }
)
"""The keys that decide whether an event is in its place: with a flaw in one, none can say."""

_BESIDE: Final = {_T.RUN_START: _PLACING, _T.INPUT_REQUIRED: frozenset({"call_id"})}
"""Those that do not, of some types: what they tell there is something else."""


@attrs.frozen
class Violation:
    """One break of a law."""

    law: str
    """``"L1"`` to ``"L11"``, or ``"shape"`` where an event is not what its type promises."""
    reason: str
    """What is wrong, in a sentence."""
    index: int
    """Place of the event among those given; their number if something is missing at the end."""
    seq: int | None
    """The event's sequence number, where it has one."""
    type: str | None
    """The event's type, where it has one."""

    def __str__(self) -> str:
        if self.type is None and self.seq is None:
            return f"{self.law} is broken at place {self.index}: {self.reason}"
        return f"{self.law} is broken by {self.type} (seq {self.seq}): {self.reason}"


class LawBroken(AssertionError):
    """A log breaks a law. The message tells every break and shows the events around the first."""

    def __init__(self, message: str, violations: Sequence[Violation]) -> None:
        super().__init__(message)
        self.violations: list[Violation] = list(violations)
        """The breaks, in the order of the log."""


def find_violations(
    events: Iterable[AgentEvent | dict[str, Any]], whole: bool = True
) -> list[Violation]:
    """Find where a run's log breaks the laws.

    A log is held to the keys of the schema that its RUN_START tells, now 2; those of schema 1 have
    none of the keys that came later. Events without a RUN_START are held to the schema whose keys
    they have.

    Args:
      events: A run's events in mode EVENTS, from the first one; each an `AgentEvent`, or a dict as
        it stands on the wire.
      whole: Whether the log has to reach DONE. With False it may stop anywhere.

    Returns:
      The breaks in the order of the log, empty if it is lawful. One break gives one violation, or a
      few; what only follows from it is not told.

    """
    log = [_as_dict(event) for event in events]
    found = [*_numbers(log), *_strangers(log), *_Walk(schema_of(log)).take(log)]
    if whole and not any(envelope.get("type") == _T.DONE for envelope in log):
        found.append(Violation("L2", "the log ends without DONE", len(log), None, None))
    return sorted(found, key=lambda violation: violation.index)


def check_events(events: Iterable[AgentEvent | dict[str, Any]], whole: bool = True) -> None:
    """Assert that a run's log is lawful; see `find_violations`.

    Raises:
      LawBroken: it is not. An `AssertionError`.

    """
    log = list(events)
    if violations := find_violations(log, whole):
        raise LawBroken(_report(log, violations), violations)


def _as_dict(event: object) -> dict[str, Any]:
    if isinstance(event, AgentEvent):
        return msgspec.structs.asdict(event)
    return event if isinstance(event, dict) else {}


def _violation(law: str, reason: str, index: int, envelope: dict[str, Any]) -> Violation:
    type, seq = envelope.get("type"), envelope.get("seq")
    return Violation(
        law,
        reason,
        index,
        seq if isinstance(seq, int) else None,
        str(type) if isinstance(type, str) else None,
    )


# L1: one run, numbered without gaps


def _places(log: list[dict[str, Any]]) -> Iterator[int]:
    """Give the number that each event should have.

    After a gap the numbers go on from there, but one event with a wrong number shifts no others.
    """
    shift = 0
    moves = [_move(index, envelope) for index, envelope in enumerate(log)]
    for index, move in enumerate(moves):
        yield index + shift
        if move is not None and move in moves[index + 1 : index + 2]:
            shift = move


def _move(index: int, envelope: dict[str, Any]) -> int | None:
    seq = envelope.get("seq")
    return seq - index if isinstance(seq, int) else None


def _numbers(log: list[dict[str, Any]]) -> Iterator[Violation]:
    for index, (place, envelope) in enumerate(zip(_places(log), log, strict=True)):
        seq = envelope.get("seq")
        if isinstance(seq, int) and seq != place:
            yield _violation("L1", f"expected seq {place}, got {seq}", index, envelope)


def _strangers(log: list[dict[str, Any]]) -> Iterator[Violation]:
    counts = Counter(run for envelope in log if isinstance(run := envelope.get("run_id"), str))
    told = {run for run, _ in counts.most_common(1)}
    for index, envelope in enumerate(log):
        run = envelope.get("run_id")
        if isinstance(run, str) and run not in told:
            told.add(run)
            reason = f"{counts[run]} of {len(log)} events belong to another run, {run!r}"
            yield _violation("L1", reason, index, envelope)


class _Walk:
    """Walks a log event by event."""

    def __init__(self, schema: int) -> None:
        self._shapes = SHAPES_OF[schema]
        self._gate = MendingLaw()
        self._started: dict[str, str | None] = {}
        """The calls that ran, and inside which call each was made."""
        self._around: dict[str, str | None] = {}
        """Inside which call each nested agent is."""
        self._written: dict[str, list[str]] = {}
        self._asked: set[str] = set()
        """The calls that a person was asked about."""

    def take(self, log: list[dict[str, Any]]) -> Iterator[Violation]:
        is_over = False
        for index, (place, envelope) in enumerate(zip(_places(log), log, strict=True)):
            if is_over:
                count = len(log) - index
                yield _violation("L2", f"{count} more after DONE", index, envelope)
                return
            for law, reason in self._judge(envelope, place):
                yield _violation(law, reason, index, envelope)
            is_over = envelope.get("type") == _T.DONE

    def _judge(self, envelope: dict[str, Any], place: int) -> Iterator[tuple[str, str]]:
        flaws = dict(find_flaws(envelope, ENVELOPE))
        for key, flaw in flaws.items():
            yield "shape", f"{key!r} {flaw}"
        if "type" in flaws or "data" in flaws:
            return
        agent = ROOT if "agent" in flaws else envelope["agent"]
        yield from self._judge_data(_T(envelope["type"]), envelope["data"], agent, place)

    def _judge_data(
        self, type: EventType, data: dict[str, Any], agent: str, place: int
    ) -> Iterator[tuple[str, str]]:
        flaws = dict(find_flaws(data, self._shapes[type]))
        for key, flaw in {**dict(find_foreign(data)), **flaws}.items():
            yield ("L10" if type is _T.ERROR else "shape"), f"data[{key!r}] {flaw}"
        if flaws.keys() & _PLACING - _BESIDE.get(type, frozenset()):
            self._gate.mended |= names_in(type, data)
            return
        if not flaws:
            yield from find_contradictions(type, data)
        yield from self._judge_place(type, data, agent, place)

    def _judge_place(
        self, type: EventType, data: dict[str, Any], agent: str, place: int
    ) -> Iterator[tuple[str, str]]:
        is_told = bool(names_in(type, data) & self._gate.mended)
        objections = [
            *self._left_open(type, data),
            *self._made_outside(type, data, agent),
            *self._not_as_written(type, data),
        ]
        if (refusal := self._gate.step(type, data, agent, place)) is not None:
            objections = [(refusal.law or "L3", str(refusal))]
        if not is_told:
            yield from objections

    # L3: what is inside ends first

    def _left_open(self, type: EventType, data: dict[str, Any]) -> Iterator[tuple[str, str]]:
        match type:
            case EventType.TOOL_CALL_END if data["outcome"] == "ok":
                inside = [b for b in self._open() if _is_agent_of(b, data["call_id"])]
            case EventType.AGENT_END:
                inside = [b for b in self._open() if _is_inside(b, data["agent"])]
                if data["outcome"] != "ok":
                    # Early endings close questions and messages after the agents they belong to.
                    inside = [b for b in inside if isinstance(b, OpenCall | OpenAgent)]
            case _:
                inside = []
        if inside:
            self._gate.mended.update(b.key for b in inside)
            yield "L3", f"{', '.join(b.key for b in inside)} should have been closed before it"

    def _made_outside(
        self, type: EventType, data: dict[str, Any], agent: str
    ) -> Iterator[tuple[str, str]]:
        """What was made inside a call was made while that ran, and inside its agent's call."""
        key = "call_id" if type is _T.INPUT_REQUIRED else "parent_call_id"
        if type is _T.AGENT_START:
            self._around[agent] = data["call_id"] or self._around.get(agent.rpartition("/")[0])
        parent = data.get(key)
        if key not in self._shapes[type] or parent == "" or not isinstance(parent, str | None):
            return
        if type is _T.TOOL_CALL_START:
            # Only what ran before it, so that no log leads in a circle.
            self._started.setdefault(data["call_id"], parent if parent in self._started else None)
        if {parent, around := self._around.get(agent)} & self._gate.mended:
            return
        if parent is not None and not self._was_running(parent, type, data):
            yield "L3", f"it is told to be made inside {parent}, which did not run"
        elif around is not None and around not in self._calls_around(parent):
            yield "L3", f"it is told to be made inside {parent}, and its agent inside {around}"

    def _was_running(self, call_id: str, type: EventType, data: dict[str, Any]) -> bool:
        if type is _T.MESSAGE_COMPLETE and data["finish_reason"] in ("cancelled", "error"):
            # Early endings close messages after the calls they were said in.
            return call_id in self._started
        call = self._gate.law.open_call(call_id)
        return call is not None and call.phase is CallPhase.STARTED

    def _calls_around(self, call_id: str | None) -> Iterator[str]:
        while call_id is not None:
            yield call_id
            call_id = self._started.get(call_id)

    def _open(self) -> list[Bracket]:
        mended = self._gate.mended
        return [b for b in self._gate.law.open_brackets() if b.key not in mended]

    # L10: what was written is what is executed, or what a person made of it

    def _not_as_written(self, type: EventType, data: dict[str, Any]) -> Iterator[tuple[str, str]]:
        match type:
            case EventType.TOOL_CALL_ARGS:
                self._written.setdefault(data["call_id"], []).append(data["delta"])
            case EventType.APPROVAL_REQUIRED:
                self._asked.add(data["call_id"])
                yield from self._compare(data)
            case EventType.TOOL_CALL_START if data["call_id"] not in self._asked:
                yield from self._compare(data)
            case _:
                pass

    def _compare(self, data: dict[str, Any]) -> Iterator[tuple[str, str]]:
        text = "".join(self._written.get(data["call_id"], ()))
        if data["call_id"] not in self._written or "\\ud" in text.lower():
            # Lone surrogates are replaced in arguments, so escaped ones cannot be compared.
            return
        try:
            written = msgspec.json.decode(text.strip() or "{}")
        except msgspec.DecodeError:
            yield "L10", "its arguments were written as text that does not parse"
        else:
            if written != data["arguments"]:
                yield "L10", "its arguments are not the ones that were written"


def _is_inside(bracket: Bracket, path: str) -> bool:
    if isinstance(bracket, OpenAgent):
        return bracket.key.startswith(f"{path}/")
    return bracket.agent == path or bracket.agent.startswith(f"{path}/")


def _is_agent_of(bracket: Bracket, call_id: str) -> bool:
    return isinstance(bracket, OpenAgent) and bracket.call_id == call_id


# Showing a break

_BEFORE: Final = 6
_AFTER: Final = 2


def _report(log: Sequence[AgentEvent | dict[str, Any]], violations: Sequence[Violation]) -> str:
    first = violations[0].index
    around = range(first - _BEFORE, first + _AFTER + 1)
    lines = [str(violation) for violation in violations]
    lines += ["", "around the first of them:", text_timeline(log, only=around, marked=first)]
    if first == len(log):
        lines.append("> (the log's end)")
    return "\n".join(lines)
