"""A log in fewer events says what the log says: every fold of it, its laws, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from flowtrio._core._compact import PIECES, CompactedLog
from flowtrio._core._events import DATA_KEYS, AgentEvent, EventType, StreamMode
from flowtrio._core._modes import View, project
from flowtrio._core._snapshot import Snapshot
from flowtrio.testing import find_violations
from tests.core.test_modes import LOG

T = EventType
GOLDEN: Final = Path(__file__).parents[1] / "golden"


def read(path: Path) -> list[AgentEvent]:
    decode = msgspec.json.Decoder(AgentEvent).decode
    return [decode(line) for line in path.read_text("utf-8").splitlines()]


LOGS: Final = {
    **{f"{path.parent.name}/{path.stem}": read(path) for path in GOLDEN.glob("*/*.jsonl")},
    "all": LOG,
}


def says(seq: int, type: EventType, /, **data: Any) -> AgentEvent:
    return AgentEvent(type, data, seq, "r1", "root", float(seq))


def compact(events: Iterable[AgentEvent]) -> list[AgentEvent]:
    compacted = CompactedLog()
    for event in events:
        compacted.add(event)
    return compacted.events()


def state(events: Iterable[AgentEvent]) -> dict[str, Any]:
    snapshot = Snapshot()
    for event in events:
        snapshot.add(event)
    return snapshot.state()


def numbered(events: Iterable[AgentEvent]) -> list[AgentEvent]:
    """Without holes in ``seq``, as the laws want it."""
    log = [msgspec.structs.replace(event, seq=seq) for seq, event in enumerate(events)]
    if log[-1].type is T.DONE:
        log[-1] = msgspec.structs.replace(log[-1], data={**log[-1].data, "events": len(log)})
    return log


def flaws(
    log: list[AgentEvent], fn: Callable[[Iterable[AgentEvent]], list[AgentEvent]]
) -> set[str]:
    """What is wrong with *fn* as a way to tell each beginning of a log in fewer events."""
    found = set()
    for place in range(1, len(log) + 1):
        told = fn(log[:place])
        if state([*told, *log[place:]]) != state(log):
            found.add("state")
        if find_violations(numbered(told), whole=False):
            found.add("law")
        if [event.seq for event in told] != sorted({event.seq for event in told}):
            found.add("order")
        if not {event.seq for event in told} <= {event.seq for event in log[:place]}:
            found.add("place")
    return found


@pytest.mark.parametrize("name", [name for name in LOGS if name != "all"])
def test_every_beginning_says_the_same_in_fewer_events_and_keeps_the_laws(name: str) -> None:
    log = LOGS[name]

    assert flaws(log, compact) == set()
    assert len(compact(log)) <= len(log)


def test_a_way_that_forgets_or_moves_something_is_found() -> None:
    log = LOGS["schema-2/nested"]

    def forgetful(events: Iterable[AgentEvent]) -> list[AgentEvent]:
        return [event for event in compact(events) if event.type is not T.AGENT_END]

    def misplaced(events: Iterable[AgentEvent]) -> list[AgentEvent]:
        [first, *rest] = compact(events)
        return [msgspec.structs.replace(first, seq=-1), *rest]

    def unordered(events: Iterable[AgentEvent]) -> list[AgentEvent]:
        return sorted(compact(events), key=lambda event: event.type is T.RUN_START)

    def wordless(events: Iterable[AgentEvent]) -> list[AgentEvent]:
        return [event for event in compact(events) if event.type is not T.MESSAGE_CHUNK]

    assert {"state", "law"} <= flaws(log, forgetful)
    assert "place" in flaws(log, misplaced)
    assert "order" in flaws(log, unordered)
    assert "law" in flaws(log, wordless)


def test_pieces_are_one_where_the_first_one_stood() -> None:
    log = [
        says(0, T.REASONING_CHUNK, chunk="a", message_id="m1"),
        says(1, T.MESSAGE_CHUNK, chunk="b", message_id="m1"),
        says(2, T.MESSAGE_CHUNK, chunk="other ", message_id="m2"),
        says(3, T.REASONING_CHUNK, chunk="c", message_id="m1"),
        says(4, T.TOOL_CALL_ARGS, call_id="c1", tool_name="t", delta="{", message_id="m1"),
        says(5, T.MESSAGE_CHUNK, chunk="d", message_id="m1"),
        says(6, T.TOOL_CALL_ARGS, call_id="c1", tool_name="t", delta="}", message_id="m1"),
        says(7, T.MESSAGE_RESET, message_id="m1", reason="again"),
        says(8, T.MESSAGE_CHUNK, chunk="e", message_id="m1"),
        says(9, T.MESSAGE_CHUNK, chunk="message", message_id="m2"),
        says(10, T.MESSAGE_CHUNK, chunk="f", message_id="m1"),
    ]
    told = [(e.seq, e.timestamp, e.data.get("chunk", e.data.get("delta"))) for e in compact(log)]

    assert told == [
        *((0, 0.0, "ac"), (1, 1.0, "bd"), (2, 2.0, "other message")),
        *((4, 4.0, "{}"), (7, 7.0, None), (8, 8.0, "ef")),
    ]


def test_of_one_status_said_again_and_again_the_first_and_the_newest_stay() -> None:
    statuses = ["running", "running", "running", "running", "completed"]
    log = [
        says(seq, T.STATE_CHANGE, old_status=old, new_status=new, reason=str(seq))
        for seq, (old, new) in enumerate(zip(["initializing", *statuses], statuses, strict=False))
    ]

    assert [event.seq for event in compact(log)] == [0, 3, 4]
    assert [event.seq for event in compact(log[:3])] == [0, 2]


def test_the_log_is_not_changed_and_may_go_on() -> None:
    before = msgspec.json.encode(LOG)
    compacted = CompactedLog()
    for place, event in enumerate(LOG):
        compacted.add(event)
        assert compacted.events() == compact(LOG[: place + 1])

    assert msgspec.json.encode(LOG) == before


def test_what_says_a_piece_is_told_apart_by_what_it_is_of() -> None:
    for type, keys in PIECES.items():
        assert set(keys) <= set(DATA_KEYS[type])


# As a view


@pytest.mark.parametrize("mode", StreamMode)
@pytest.mark.parametrize("name", ["all", "schema-2/approvals"])
def test_a_late_reader_has_it_in_the_newest_event(name: str, mode: StreamMode) -> None:
    log = LOGS[name]
    for newest, event in enumerate(log):
        view = View(mode, newest, is_compacted=True)
        first, *rest = view.see_all(log)
        past = [one for one in log[:newest] if one.type in view.visible]
        entries = [
            {key: getattr(one, key) for key in ("type", "data", "seq", "agent", "timestamp")}
            for one in compact(past)
        ]
        expected = {**event.data, "log": entries}
        if mode is StreamMode.VALUES:
            expected["state"] = state(log[: newest + 1])

        assert first == msgspec.structs.replace(event, data=expected)
        assert rest == [one for one in project(mode, log) if one.seq > newest]
