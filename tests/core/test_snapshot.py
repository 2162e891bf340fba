from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._snapshot import Snapshot

T = EventType

USAGE: Final = {
    "prompt_tokens": 10,
    "completion_tokens": 3,
    "reasoning_tokens": 1,
    "cached_tokens": 2,
    "quality": "measured",
    "cost": None,
}
NOTHING: Final = {**dict.fromkeys(USAGE, 0), "quality": "measured", "cost": None}


LISTS: Final = ("messages", "calls", "agents", "questions", "user_messages")


def says(type: EventType, agent: str = "root", /, **data: Any) -> AgentEvent:
    return AgentEvent(type, data, 0, "r1", agent, 0.0)


def chunk(text: str, message_id: str = "m1") -> AgentEvent:
    return says(T.MESSAGE_CHUNK, chunk=text, message_id=message_id)


def reasoning(text: str, message_id: str = "m1") -> AgentEvent:
    return says(T.REASONING_CHUNK, chunk=text, message_id=message_id)


def part(value: Any, message_id: str = "m1") -> AgentEvent:
    return says(T.MESSAGE_PART, part=value, message_id=message_id)


def reset(message_id: str = "m1") -> AgentEvent:
    return says(T.MESSAGE_RESET, message_id=message_id, reason="again")


def whole(
    content: str, message_id: str = "m1", usage: Any = None, finish_reason: str = "stop"
) -> AgentEvent:
    return says(
        T.MESSAGE_COMPLETE,
        message_id=message_id,
        content=content,
        finish_reason=finish_reason,
        usage=usage,
        model="m",
    )


def status(new: str, reason: str | None = None) -> AgentEvent:
    return says(T.STATE_CHANGE, old_status="", new_status=new, reason=reason)


def call(type: EventType, call_id: str = "c1", **data: Any) -> AgentEvent:
    return says(type, "root/a", call_id=call_id, tool_name="look", **data)


ENDED: Final[dict[str, Any]] = {"outcome": "ok", "result": [1], "error": None}


def folded(*events: AgentEvent, snapshot: Callable[[], Snapshot] = Snapshot) -> dict[str, Any]:
    fold = snapshot()
    for event in events:
        fold.add(event)
    return fold.state()


def test_before_the_first_event_nothing_is_known() -> None:
    assert folded() == {
        "status": None,
        "reason": None,
        "messages": [],
        "calls": [],
        "agents": [],
        "approvals": [],
        "questions": [],
        "user_messages": [],
        "error": None,
        "usage": NOTHING,
        "began": {name: [] for name in LISTS},
    }


def test_the_status_is_the_last_one_told() -> None:
    start = says(T.RUN_START, message="hello")

    assert folded(start)["status"] == "initializing"
    state = folded(start, status("running"), status("running", "searching"))
    assert (state["status"], state["reason"]) == ("running", "searching")


def test_an_open_message_has_the_text_so_far() -> None:
    state = folded(reasoning("h"), reasoning("m"), chunk("Good "), part({"a": 1}), chunk("day"))

    assert state["messages"] == [
        {
            "message_id": "m1",
            "agent": "root",
            "content": "Good day",
            "reasoning": "hm",
            "parts": [{"a": 1}],
            "finish_reason": None,
        }
    ]


def test_a_complete_message_keeps_text_reasoning_and_parts() -> None:
    state = folded(reasoning("hm"), chunk("Good"), part(1), whole("Good", finish_reason="length"))

    assert state["messages"] == [
        {
            "message_id": "m1",
            "agent": "root",
            "content": "Good",
            "reasoning": "hm",
            "parts": [1],
            "finish_reason": "length",
        }
    ]


def test_a_reset_discards_what_was_streamed() -> None:
    state = folded(reasoning("hm"), chunk("Go"), part(1), reset(), chunk("Good"))

    assert [state["messages"][0][key] for key in ("content", "reasoning", "parts")] == [
        "Good",
        "",
        [],
    ]


@pytest.mark.parametrize("event", [reset(), part(1), reasoning("a"), chunk("a"), whole("")])
def test_any_event_of_a_message_begins_it(event: AgentEvent) -> None:
    assert [message["message_id"] for message in folded(event)["messages"]] == ["m1"]


def test_messages_stand_in_the_order_of_their_beginning() -> None:
    state = folded(chunk("a", "m2"), chunk("b", "m1"), whole("b", "m1"), whole("a", "m2"))

    assert [message["message_id"] for message in state["messages"]] == ["m2", "m1"]


def test_usage_is_the_sum_of_the_messages_until_done_tells_it() -> None:
    events = [whole("", "m1", USAGE), whole("", "m2"), whole("", "m3", {**USAGE, "cost": "1"})]
    done = says(T.DONE, usage={**USAGE, "cost": "0.1"})

    assert folded(*events)["usage"] == {
        "prompt_tokens": 20,
        "completion_tokens": 6,
        "reasoning_tokens": 2,
        "cached_tokens": 4,
        "quality": "measured",
        "cost": None,
    }
    assert folded(*events, done)["usage"] == {**USAGE, "cost": "0.1"}


def test_one_lower_bound_makes_the_sum_one() -> None:
    bound = {**USAGE, "quality": "lower_bound"}

    assert folded(whole("", "m1", bound), whole("", "m2", USAGE))["usage"]["quality"] == (
        "lower_bound"
    )


def test_a_call_goes_from_approval_to_its_end() -> None:
    asked = call(T.APPROVAL_REQUIRED, arguments={"a": 1}, deadline=300.0)
    start = call(T.TOOL_CALL_START, arguments={"a": 1})
    entry = {
        "call_id": "c1",
        "tool_name": "look",
        "agent": "root/a",
        "arguments": {"a": 1},
        "status": "waiting_for_approval",
        "result": None,
        "error": None,
    }

    waiting, running = folded(asked), folded(asked, start)
    ended = folded(asked, start, call(T.TOOL_CALL_END, **ENDED))

    assert (waiting["calls"], waiting["approvals"]) == ([entry], ["c1"])
    assert (running["calls"], running["approvals"]) == ([{**entry, "status": "running"}], [])
    assert ended["calls"] == [{**entry, "status": "ok", "result": [1]}]


def test_a_denied_call_waits_no_longer() -> None:
    asked = call(T.APPROVAL_REQUIRED, arguments={})
    end = call(T.TOOL_CALL_END, outcome="denied", result=None, error="no")

    state = folded(asked, end)

    assert state["approvals"] == []
    assert [(c["status"], c["error"]) for c in state["calls"]] == [("denied", "no")]


def test_a_call_that_never_started_has_only_its_end() -> None:
    end = call(T.TOOL_CALL_END, outcome="error", result=None, error="ValueError")

    assert folded(end)["calls"][0]["arguments"] is None


def test_nested_agents_run_and_end() -> None:
    start = says(T.AGENT_START, "root/a", agent="root/a", call_id="c1")
    end = says(
        T.AGENT_END, "root/a", agent="root/a", call_id="c1", outcome="ok", result=1, error=None
    )
    entry = {
        "agent": "root/a",
        "call_id": "c1",
        "status": "running",
        "result": None,
        "error": None,
    }

    assert folded(start)["agents"] == [entry]
    assert folded(start, end)["agents"] == [{**entry, "status": "ok", "result": 1}]


def test_a_question_is_open_until_it_is_resolved() -> None:
    one = says(T.INPUT_REQUIRED, request_id="q1", prompt="Colour?")
    two = says(T.INPUT_REQUIRED, request_id="q2", prompt="Size?", schema={"type": "integer"})
    resolved = says(T.INPUT_RESOLVED, request_id="q1", outcome="answered", text="blue")

    assert folded(one, two, resolved)["questions"] == [
        {"request_id": "q2", "prompt": "Size?", "schema": {"type": "integer"}}
    ]


def test_what_the_user_says_meanwhile_is_kept_in_order() -> None:
    said = [says(T.USER_MESSAGE, message=text, parts=[]) for text in ("one", "two")]

    assert folded(*said)["user_messages"] == [
        {"message": "one", "parts": []},
        {"message": "two", "parts": []},
    ]


def test_why_a_run_failed_stays_in_its_state() -> None:
    error = says(T.ERROR, error="ValueError", code="agent_failed")

    assert folded(error, says(T.DONE, usage=NOTHING))["error"] == error.data


def test_where_each_began_stands_beside_the_lists() -> None:
    given = [
        *LONG,
        says(T.USER_MESSAGE, message="one", parts=[]),
        says(T.INPUT_REQUIRED, request_id="q2", prompt="Size?"),
    ]
    events = [msgspec.structs.replace(event, seq=seq) for seq, event in enumerate(given)]
    state = folded(*events)

    assert state["began"] == {
        "messages": [2, 15],
        "calls": [8],
        "agents": [10],
        "questions": [19],
        "user_messages": [18],
    }
    assert all(len(state[name]) == len(state["began"][name]) for name in LISTS)


@pytest.mark.parametrize(
    "event",
    [
        call(T.TOOL_CALL_ARGS, delta="{", message_id="m1"),
        call(T.TOOL_PROGRESS, progress=1),
        says(T.CUSTOM, name="mood", value=1),
    ],
)
def test_other_events_change_nothing(event: AgentEvent) -> None:
    assert folded(chunk("a"), event) == folded(chunk("a"))


# What was handed out is never changed; what did not change is shared

LONG: Final = [
    says(T.RUN_START, message="hello"),
    status("running"),
    chunk("Go"),
    part(1),
    reset(),
    chunk("Good"),
    part(2),
    whole("Good", usage=USAGE),
    call(T.APPROVAL_REQUIRED, arguments={}),
    call(T.TOOL_CALL_START, arguments={}),
    says(T.AGENT_START, "root/a", agent="root/a", call_id="c1"),
    says(T.INPUT_REQUIRED, request_id="q1", prompt="Colour?"),
    says(T.INPUT_RESOLVED, request_id="q1"),
    says(T.AGENT_END, "root/a", agent="root/a", outcome="ok", result=1, error=None),
    call(T.TOOL_CALL_END, **ENDED),
    chunk("!", "m2"),
    whole("!", "m2", usage=USAGE),
    says(T.DONE, usage=USAGE),
]


def check_states_are_never_changed(snapshot: Snapshot) -> None:
    handed_out = []
    for event in LONG:
        snapshot.add(event)
        state = snapshot.state()
        handed_out.append((state, copy.deepcopy(state)))

    assert all(state == as_it_was for state, as_it_was in handed_out)


def check_reset_discards(snapshot: Snapshot) -> None:
    for event in (chunk("Go"), part(1), reset(), chunk("Good")):
        snapshot.add(event)
    message = snapshot.state()["messages"][0]

    assert (message["content"], message["parts"]) == ("Good", [])


def check_all(make: Callable[[], Snapshot]) -> None:
    check_states_are_never_changed(make())
    check_reset_discards(make())


def test_a_state_that_was_handed_out_is_never_changed() -> None:
    check_all(Snapshot)


def test_states_share_what_did_not_change() -> None:
    snapshot = Snapshot()
    for event in LONG[:10]:
        snapshot.add(event)
    one = snapshot.state()
    snapshot.add(status("running", "searching"))
    two = snapshot.state()

    assert one != two
    assert one["messages"][0] is two["messages"][0]
    assert one["calls"][0] is two["calls"][0]
    assert one["usage"] is two["usage"]


def test_folding_does_not_change_the_events() -> None:
    before = copy.deepcopy(LONG)

    folded(*LONG)

    assert before == LONG


@settings(max_examples=50, deadline=None, database=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["m1", "m2"]), st.booleans(), st.text(max_size=3)), max_size=12
    )
)
def test_the_boundaries_of_chunks_carry_no_meaning(pieces: list[tuple[str, bool, str]]) -> None:
    make = {True: reasoning, False: chunk}
    texts: dict[tuple[str, bool], str] = {}
    for message_id, is_reasoning, text in pieces:
        key = (message_id, is_reasoning)
        texts[key] = texts.get(key, "") + text

    apart = folded(*(make[r](text, message_id) for message_id, r, text in pieces))
    merged = folded(*(make[r](text, message_id) for (message_id, r), text in texts.items()))

    assert {m["message_id"]: m for m in apart["messages"]} == {
        m["message_id"]: m for m in merged["messages"]
    }


# Planted bugs


class ChangesInPlace(Snapshot):
    def _change_call(self, event: AgentEvent, **changes: Any) -> None:
        call_id = event.data["call_id"]
        if call_id in self._calls:
            self._calls[call_id].update(changes)
        else:
            super()._change_call(event, **changes)


class AppendsInPlace(Snapshot):
    def add(self, event: AgentEvent) -> None:
        if event.type is T.MESSAGE_PART:
            self._open(event)
            self._parts(event).append(event.data["part"])
        else:
            super().add(event)


class KeepsPartsAfterReset(Snapshot):
    def add(self, event: AgentEvent) -> None:
        parts = self._parts(event) if event.type is T.MESSAGE_RESET else None
        super().add(event)
        if parts is not None:
            self._change_message(event, parts=parts)


@pytest.mark.parametrize("bug", [ChangesInPlace, AppendsInPlace, KeepsPartsAfterReset])
def test_a_planted_bug_is_noticed(bug: Callable[[], Snapshot]) -> None:
    with pytest.raises(AssertionError):
        check_all(bug)
