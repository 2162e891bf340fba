from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import pytest

from flowtrio._core._events import AgentEvent, EventType, StreamMode
from flowtrio._core._modes import VISIBLE, View, project
from flowtrio._core._snapshot import Snapshot

T = EventType

USAGE: Final = {
    "prompt_tokens": 10,
    "completion_tokens": 3,
    "reasoning_tokens": 0,
    "cached_tokens": 0,
    "quality": "measured",
    "cost": None,
}

CALL: Final = {"call_id": "c1", "tool_name": "look"}

FACTS: Final[list[tuple[EventType, dict[str, Any]]]] = [
    (T.RUN_START, {"message": "hello"}),
    (T.STATE_CHANGE, {"old_status": "", "new_status": "running", "reason": None}),
    (T.REASONING_CHUNK, {"chunk": "hm", "message_id": "m1"}),
    (T.MESSAGE_CHUNK, {"chunk": "G", "message_id": "m1"}),
    (T.MESSAGE_RESET, {"reason": "again", "message_id": "m1"}),
    (T.MESSAGE_CHUNK, {"chunk": "Go", "message_id": "m1"}),
    (T.MESSAGE_PART, {"part": {"a": 1}, "message_id": "m1"}),
    (T.TOOL_CALL_ARGS, {**CALL, "delta": "{}", "message_id": "m1"}),
    (T.MESSAGE_CHUNK, {"chunk": "od", "message_id": "m1"}),
    (
        T.MESSAGE_COMPLETE,
        {"content": "Good", "message_id": "m1", "finish_reason": "stop", "usage": USAGE},
    ),
    (T.APPROVAL_REQUIRED, {**CALL, "arguments": {}}),
    (T.TOOL_CALL_START, {**CALL, "arguments": {}}),
    (T.TOOL_PROGRESS, {**CALL, "progress": 1}),
    (T.AGENT_START, {"agent": "root/a", "call_id": "c1"}),
    (T.INPUT_REQUIRED, {"request_id": "q1", "prompt": "Colour?"}),
    (T.INPUT_RESOLVED, {"request_id": "q1"}),
    (T.AGENT_END, {"agent": "root/a", "outcome": "ok", "result": 1, "error": None}),
    (T.TOOL_CALL_END, {**CALL, "outcome": "ok", "result": 1, "error": None}),
    (T.CUSTOM, {"name": "mood", "value": 1}),
    (T.USER_MESSAGE, {"message": "Hurry", "parts": []}),
    (T.STATE_CHANGE, {"old_status": "", "new_status": "error", "reason": None}),
    (T.ERROR, {"error": "E"}),
    (T.DONE, {"status": "error", "usage": USAGE}),
]

LOG: Final = [
    AgentEvent(type, data, seq, "r1", "root", 1000.0 + seq)
    for seq, (type, data) in enumerate(FACTS)
]

FILTERS: Final = [StreamMode.EVENTS, StreamMode.UPDATES, StreamMode.MESSAGES]


def test_the_log_of_these_tests_holds_every_type() -> None:
    assert {event.type for event in LOG} == set(T)


def hidden(mode: StreamMode) -> set[str]:
    return {str(type) for type in set(T) - VISIBLE[mode]}


def test_each_mode_shows_what_is_documented() -> None:
    noise = {"tool_call_args", "tool_progress", "custom"}

    assert set(VISIBLE) == set(StreamMode)
    assert hidden(StreamMode.EVENTS) == set()
    assert hidden(StreamMode.UPDATES) == noise
    assert hidden(StreamMode.VALUES) == noise | {"message_chunk", "reasoning_chunk"}
    assert hidden(StreamMode.MESSAGES) == noise | {
        "run_start",
        "state_change",
        "tool_call_start",
        "tool_call_end",
        "agent_start",
        "agent_end",
    }


@pytest.mark.parametrize("mode", StreamMode)
def test_nobody_waits_for_a_question_or_an_end_that_they_are_not_shown(mode: StreamMode) -> None:
    assert VISIBLE[mode] >= {T.ERROR, T.DONE, T.APPROVAL_REQUIRED, T.INPUT_REQUIRED}


@pytest.mark.parametrize("mode", FILTERS)
def test_a_filter_leaves_events_out_and_changes_none(mode: StreamMode) -> None:
    assert list(project(mode, LOG)) == [event for event in LOG if event.type in VISIBLE[mode]]


@pytest.mark.parametrize("mode", StreamMode)
def test_a_projection_keeps_order_and_numbers_and_is_pure(mode: StreamMode) -> None:
    before = copy.deepcopy(LOG)

    seen = list(project(mode, LOG))

    assert [event.seq for event in seen] == [e.seq for e in LOG if e.type in VISIBLE[mode]]
    assert seen == list(project(mode, iter(LOG)))
    assert before == LOG


@pytest.mark.parametrize("length", range(len(LOG) + 1))
@pytest.mark.parametrize("mode", StreamMode)
def test_the_view_of_a_prefix_is_a_prefix_of_the_view(mode: StreamMode, length: int) -> None:
    seen = list(project(mode, LOG[:length]))

    assert seen == list(project(mode, LOG))[: len(seen)]


def test_values_adds_the_state_and_nothing_else() -> None:
    by_seq = {event.seq: event for event in LOG}

    for event in project(StreamMode.VALUES, LOG):
        origin = by_seq[event.seq]
        data = {key: value for key, value in event.data.items() if key != "state"}
        assert data == origin.data
        assert "state" not in origin.data
        assert (event.type, event.run_id) == (origin.type, origin.run_id)
        assert (event.agent, event.timestamp) == (origin.agent, origin.timestamp)


def check_folding_updates_gives_values(
    view: Callable[[StreamMode, Iterable[AgentEvent]], Iterator[AgentEvent]],
) -> None:
    states = {event.seq: event.data["state"] for event in view(StreamMode.VALUES, LOG)}
    snapshot = Snapshot()
    for event in view(StreamMode.UPDATES, LOG):
        snapshot.add(event)
        if event.seq in states:
            assert states.pop(event.seq) == snapshot.state()
    assert states == {}


def test_folding_updates_gives_the_state_wherever_values_emits() -> None:
    check_folding_updates_gives_values(project)


def test_a_view_of_values_that_leaves_chunks_out_of_the_fold_would_be_noticed() -> None:
    def forgetful(mode: StreamMode, events: Iterable[AgentEvent]) -> Iterator[AgentEvent]:
        if mode is StreamMode.VALUES:
            return project(mode, project(StreamMode.VALUES, events))
        return project(mode, events)

    with pytest.raises(AssertionError):
        check_folding_updates_gives_values(forgetful)


def test_chunks_reach_the_state_with_the_next_event_that_values_shows() -> None:
    events = [e for e in project("values", LOG) if e.type is T.MESSAGE_PART]

    assert [event.data["state"]["messages"][0]["content"] for event in events] == ["Go"]


def check_a_snapshot_stands_for_all_before_it(
    view: Callable[[StreamMode, int], View], mode: StreamMode, newest: int
) -> None:
    seen = view(mode, newest).see_all(LOG)
    snapshot = Snapshot()
    for event in LOG[: newest + 1]:
        snapshot.add(event)

    first, behind = seen[0], list(seen[1:])
    assert (first.seq, first.type) == (newest, LOG[newest].type)
    assert first.data == {**LOG[newest].data, "state": snapshot.state()}
    assert behind == [event for event in project(mode, LOG) if event.seq > newest]


@pytest.mark.parametrize("newest", range(len(LOG)))
@pytest.mark.parametrize("mode", StreamMode)
def test_a_snapshot_stands_for_all_before_it(mode: StreamMode, newest: int) -> None:
    check_a_snapshot_stands_for_all_before_it(View, mode, newest)


def test_a_snapshot_that_is_given_before_its_place_would_be_noticed() -> None:
    for mode in StreamMode:
        with pytest.raises(AssertionError):
            check_a_snapshot_stands_for_all_before_it(
                lambda mode, newest: View(mode, newest - 1), mode, 9
            )


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("values", StreamMode.VALUES),
        ("updates", StreamMode.UPDATES),
        ("incremental", StreamMode.UPDATES),
        (StreamMode.INCREMENTAL, StreamMode.UPDATES),
        ("messages", StreamMode.MESSAGES),
        ("events", StreamMode.EVENTS),
    ],
)
def test_a_mode_may_be_given_by_its_name(name: str, mode: StreamMode) -> None:
    assert list(project(name, LOG)) == list(project(mode, LOG))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="everything"):
        list(project("everything", LOG))


def test_a_view_gives_nothing_for_what_its_mode_hides() -> None:
    custom: Any = AgentEvent(T.CUSTOM, {"name": "a", "value": 1}, 0, "r1", "root", 0.0)

    assert View(StreamMode.UPDATES).see(custom) is None
    assert View(StreamMode.VALUES).see(custom) is None
    assert View(StreamMode.EVENTS).see(custom) is custom
    assert View(StreamMode.MESSAGES).visible == VISIBLE[StreamMode.MESSAGES]


@pytest.mark.parametrize("mode", list(StreamMode))
def test_to_see_all_is_to_see_one_after_the_other(mode: StreamMode) -> None:
    events = [
        AgentEvent(type, data, seq, "r", "root", 0.0) for seq, (type, data) in enumerate(FACTS)
    ]

    assert list(View(mode).see_all(events)) == list(project(mode, events))
