from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core._brackets import Bracket
from flowtrio._core._events import DATA_KEYS, AgentEvent, AgentStatus, EventType
from flowtrio._core._law import Law
from flowtrio.testing import LawBroken, Violation, check_events, find_violations
from flowtrio.testing._checks import _Walk

T = EventType
Event = dict[str, Any]

USAGE: Final = {
    "prompt_tokens": 12,
    "completion_tokens": 3,
    "reasoning_tokens": 0,
    "cached_tokens": 0,
    "quality": "measured",
    "cost": None,
}

DEFAULTS: Final[dict[EventType, dict[str, Any]]] = {
    T.MESSAGE_COMPLETE: {
        "finish_reason": "stop",
        "usage": USAGE,
        "model": "m",
        "provider": "openai",
        "requested_model": "m",
        "duration": 1.0,
        "first_token": 0.5,
        "parent_call_id": None,
    },
    T.STATE_CHANGE: {"reason": None},
    T.TOOL_CALL_START: {
        "arguments": {},
        "message_id": "m1",
        "provider_executed": False,
        "parent_call_id": None,
    },
    T.TOOL_CALL_END: {"outcome": "ok", "result": None, "error": None, "duration": 0.5},
    T.ERROR: {
        "error": "ValueError: no",
        "code": "agent_failed",
        "source": "agent",
        "retryable": False,
        "deadline": None,
        "limit": None,
        "detail": None,
        "causes": [{"error": "ValueError: no", "type": "ValueError", "source": "agent"}],
    },
    T.DONE: {"reason": None, "result": None, "usage": USAGE, "duration": 1.5, "leftover": []},
    T.RUN_START: {
        "message": "hello",
        "parts": [],
        "session_id": None,
        "agent": "assistant",
        "parent_run_id": None,
        "schema": 2,
    },
    T.AGENT_START: {"call_id": None},
    T.AGENT_END: {
        "call_id": None,
        "outcome": "ok",
        "result": None,
        "error": None,
        "usage": USAGE,
        "duration": 1.0,
    },
    T.APPROVAL_REQUIRED: {"arguments": {}, "deadline": 300.0, "parent_call_id": None},
    T.INPUT_REQUIRED: {"call_id": None, "schema": None},
    T.INPUT_RESOLVED: {"outcome": "answered", "text": "blue"},
}


class Log(list[Event]):
    """A log that is written event by event, as it stands on the wire."""

    def say(self, type: EventType, agent: str = "root", /, **data: Any) -> None:
        data = {**DEFAULTS.get(type, {}), **data}
        if type is T.DONE:
            data["events"] = len(self) + 1
        self.append(
            {
                "type": str(type),
                "data": copy.deepcopy({key: data[key] for key in DATA_KEYS[type]}),
                "seq": len(self),
                "run_id": "r1",
                "agent": agent,
                "timestamp": 1000.0 + len(self),
            }
        )

    def begin(self, **data: Any) -> None:
        self.say(T.RUN_START, **data)
        self.move("initializing", "running")

    def move(self, old: str, new: str, reason: str | None = None) -> None:
        self.say(T.STATE_CHANGE, old_status=old, new_status=new, reason=reason)

    def speak(self, message_id: str, *texts: str, agent: str = "root", **data: Any) -> None:
        for text in texts:
            self.say(T.MESSAGE_CHUNK, agent, chunk=text, message_id=message_id)
        self.say(T.MESSAGE_COMPLETE, agent, message_id=message_id, content="".join(texts), **data)

    def start(
        self, call_id: str, tool_name: str = "look", agent: str = "root", **data: Any
    ) -> None:
        self.say(T.TOOL_CALL_START, agent, call_id=call_id, tool_name=tool_name, **data)

    def end(self, call_id: str, tool_name: str = "look", agent: str = "root", **data: Any) -> None:
        self.say(T.TOOL_CALL_END, agent, call_id=call_id, tool_name=tool_name, **data)

    def complete(self, old: str = "running") -> None:
        self.move(old, "completed")
        self.say(T.DONE, status="completed", result="done")

    def cancel(self, old: str = "running") -> None:
        self.move(old, "cancelled", "stop button")
        self.say(T.DONE, status="cancelled", reason="stop button")

    def fail(self, old: str = "running", **data: Any) -> None:
        leftover = data.pop("leftover", [])
        self.move(old, "error")
        self.say(T.ERROR, **data)
        self.say(T.DONE, status="error", leftover=leftover)


# One lawful log for each thing that a run can be


def answers() -> Log:
    log = Log()
    log.begin()
    log.speak("m1", "Good ", "day")
    log.complete()
    return log


def says_nothing() -> Log:
    log = Log()
    log.begin()
    log.speak("m1")
    log.complete()
    return log


def calls_tools_in_parallel() -> Log:
    log = Log()
    log.begin()
    log.say(T.REASONING_CHUNK, chunk="hm", message_id="m1")
    for call_id in ("c1", "c2"):
        for delta in ('{"city":', ' "Rome"}'):
            log.say(
                T.TOOL_CALL_ARGS,
                call_id=call_id,
                tool_name="look",
                delta=delta,
                message_id="m1",
            )
    log.speak("m1", "Looking", finish_reason="tool_calls")
    log.start("c1", arguments={"city": "Rome"})
    log.start("c2", arguments={"city": "Rome"})
    log.say(T.TOOL_PROGRESS, call_id="c1", tool_name="look", progress={"bytes": 5})
    log.end("c2", result=[1, 2.5, "three"])
    log.move("running", "running", "half way")
    log.end("c1", outcome="error", error="OSError: gone")
    log.say(T.CUSTOM, name="mood", value=None)
    log.say(T.USER_MESSAGE, message="Hurry", parts=[])
    log.speak("m2", "Sunny")
    log.complete()
    return log


def retries_its_model() -> Log:
    log = Log()
    log.begin()
    log.say(T.MESSAGE_CHUNK, chunk="Goo", message_id="m1")
    log.say(T.TOOL_CALL_ARGS, call_id="c1", tool_name="look", delta='{"ci', message_id="m1")
    log.end("c1", outcome="cancelled", duration=None)
    log.say(T.MESSAGE_RESET, message_id="m1", reason="connection lost")
    log.say(T.MESSAGE_PART, message_id="m1", part={"type": "citation"})
    log.speak("m1", "Good")
    log.complete()
    return log


def lets_the_provider_search() -> Log:
    log = Log()
    log.begin()
    log.say(T.MESSAGE_CHUNK, chunk="See: ", message_id="m1")
    log.start("c1", "web", provider_executed=True)
    log.end("c1", "web", result={"hits": 3})
    log.say(T.MESSAGE_CHUNK, chunk="this", message_id="m1")
    log.say(T.MESSAGE_COMPLETE, message_id="m1", content="See: this")
    log.complete()
    return log


def asks_for_approval() -> Log:
    log = Log()
    log.begin()
    log.speak("m1", "Booking", finish_reason="tool_calls")
    for call_id in ("c1", "c2", "c3"):
        log.say(T.APPROVAL_REQUIRED, call_id=call_id, tool_name="book")
        log.move(
            "running" if call_id == "c1" else "waiting_for_approval",
            "waiting_for_approval",
            f"book {call_id}",
        )
    log.start("c1", "book")
    log.end("c1", "book", result=True)
    log.end("c2", "book", outcome="denied", duration=None)
    log.end("c3", "book", outcome="timeout", duration=None)
    log.move("waiting_for_approval", "running")
    log.speak("m2", "Booked")
    log.complete()
    return log


def is_an_agent_that_calls_and_asks() -> Log:
    log = Log()
    log.begin()
    log.start("c1", message_id=None, arguments={"city": "Rome"})
    log.end("c1", result="sunny")
    log.say(T.APPROVAL_REQUIRED, call_id="c2", tool_name="book", arguments={"price": 5})
    log.move("running", "waiting_for_approval")
    log.start("c2", "book", message_id=None, arguments={"price": 5})
    log.end("c2", "book", result=True, duration=0)
    log.move("waiting_for_approval", "running")
    log.complete()
    return log


def asks_its_user() -> Log:
    log = Log()
    log.begin()
    log.say(T.INPUT_REQUIRED, request_id="q1", prompt="Colour?")
    log.move("running", "waiting_for_input")
    log.say(T.INPUT_RESOLVED, request_id="q1")
    log.move("waiting_for_input", "running")
    log.say(T.INPUT_REQUIRED, request_id="q2", prompt="Size?")
    log.move("running", "waiting_for_input")
    log.say(T.INPUT_RESOLVED, request_id="q2", outcome="timeout", text=None)
    log.move("waiting_for_input", "running")
    log.complete()
    return log


def is_cancelled_while_it_waits() -> Log:
    log = Log()
    log.begin()
    log.say(T.APPROVAL_REQUIRED, call_id="c1", tool_name="book")
    log.move("running", "waiting_for_approval")
    log.say(T.INPUT_REQUIRED, request_id="q1", prompt="Colour?")
    log.move("waiting_for_approval", "waiting_for_input")
    log.end("c1", "book", outcome="cancelled", duration=None)
    log.say(T.INPUT_RESOLVED, request_id="q1", outcome="cancelled", text=None)
    log.cancel("waiting_for_input")
    return log


def delegates() -> Log:
    log = Log()
    child, grandchild = "root/visa", "root/visa/lawyer#2"
    log.begin()
    log.speak("m1", finish_reason="tool_calls")
    log.start("c1")
    log.say(T.AGENT_START, child, agent=child, call_id="c1")
    inside = {"parent_call_id": "c1"}
    log.speak("m2", "Asking", agent=child, finish_reason="tool_calls", **inside)
    log.start("c2", agent=child, message_id="m2", **inside)
    log.say(T.AGENT_START, grandchild, agent=grandchild, call_id="c2")
    log.speak("m3", "No", agent=grandchild, parent_call_id="c2")
    log.say(T.AGENT_END, grandchild, agent=grandchild, call_id="c2", outcome="error", error="E")
    log.end("c2", agent=child, outcome="error", error="E")
    log.say(T.AGENT_END, child, agent=child, call_id="c1", result="no visa")
    log.end("c1")
    log.complete()
    return log


def is_cancelled_in_the_midst() -> Log:
    log = Log()
    child = "root/visa"
    log.begin()
    log.speak("m1", finish_reason="tool_calls")
    log.start("c1")
    log.say(T.AGENT_START, child, agent=child, call_id="c1")
    log.say(T.MESSAGE_CHUNK, child, chunk="As", message_id="m2")
    log.say(T.TOOL_CALL_ARGS, child, call_id="c2", tool_name="look", delta="{", message_id="m2")
    log.end("c1", outcome="cancelled")
    log.end("c2", outcome="cancelled", agent=child, duration=None)
    log.say(T.AGENT_END, child, agent=child, call_id="c1", outcome="cancelled")
    lower_bound = {**USAGE, "quality": "lower_bound", "completion_tokens": 1}
    log.say(
        T.MESSAGE_COMPLETE,
        child,
        message_id="m2",
        content="As",
        finish_reason="cancelled",
        usage=lower_bound,
        model=None,
        parent_call_id="c1",
    )
    log.cancel()
    return log


def fails() -> Log:
    log = Log()
    log.begin()
    log.say(T.MESSAGE_CHUNK, chunk="Goo", message_id="m1")
    log.say(T.MESSAGE_COMPLETE, message_id="m1", content="Goo", finish_reason="error", usage=None)
    log.fail(source="model", code="stream_cut", retryable=True, detail={"status": 200})
    return log


def runs_out_of_time() -> Log:
    log = Log()
    log.begin()
    log.fail(source="deadline", code="deadline_exceeded", deadline="run")
    return log


def cleans_up_too_slowly() -> Log:
    log = Log()
    log.begin()
    log.fail(source="internal", code="cleanup_timeout", leftover=["tool look"])
    return log


def is_cancelled_in_the_queue() -> Log:
    log = Log()
    log.say(T.RUN_START, session_id="s1")
    log.cancel("initializing")
    return log


def finds_its_session_busy() -> Log:
    log = Log()
    log.say(T.RUN_START, session_id="s1")
    log.fail("initializing", source="limit", code="session_busy", limit="queue")
    return log


LAWFUL: Final = [
    answers,
    says_nothing,
    calls_tools_in_parallel,
    retries_its_model,
    lets_the_provider_search,
    asks_for_approval,
    is_an_agent_that_calls_and_asks,
    asks_its_user,
    is_cancelled_while_it_waits,
    delegates,
    is_cancelled_in_the_midst,
    fails,
    runs_out_of_time,
    cleans_up_too_slowly,
    is_cancelled_in_the_queue,
    finds_its_session_busy,
]

lawful = pytest.mark.parametrize("make", LAWFUL)


# Lawful logs


@lawful
def test_a_lawful_log_has_no_violations(make: Callable[[], Log]) -> None:
    assert find_violations(make()) == []
    check_events(make())


@lawful
def test_events_are_judged_like_the_dicts_of_the_wire(make: Callable[[], Log]) -> None:
    events = [msgspec.convert(event, AgentEvent) for event in make()]

    assert find_violations(events) == []
    assert find_violations(events[:-1]) == find_violations(make()[:-1]) != []


@lawful
def test_a_prefix_is_lawful_only_if_the_log_need_not_be_whole(make: Callable[[], Log]) -> None:
    log = make()

    for length in range(len(log)):
        assert find_violations(log[:length], whole=False) == []
        assert [v.law for v in find_violations(log[:length])] == ["L2"]
        check_events(log[:length], whole=False)


def test_the_lawful_logs_hold_every_type_of_event() -> None:
    assert {event["type"] for make in LAWFUL for event in make()} == set(map(str, T))


# Mutations: each event of each log removed, doubled, swapped with the next, altered


def renumbered(log: list[Event]) -> list[Event]:
    """The same events as a runtime would have numbered them: no gap tells of the mutation."""
    log = copy.deepcopy(log)
    for seq, event in enumerate(log):
        event["seq"] = seq
        if event["type"] == "done":
            event["data"]["events"] = seq + 1
    return log


def moved(log: Log) -> Iterator[tuple[str, list[Event]]]:
    for i, event in enumerate(log):
        yield f"remove {i} {event['type']}", log[:i] + log[i + 1 :]
        yield f"double {i} {event['type']}", [*log[:i], copy.deepcopy(event), *log[i:]]
    for i, (one, two) in enumerate(itertools.pairwise(log)):
        yield f"swap {i} {one['type']} {two['type']}", [*log[:i], two, one, *log[i + 2 :]]


def altered(log: Log, key: str, values: Callable[[Any], list[Any]]) -> Iterator[tuple[str, Any]]:
    """Each event whose envelope or data has *key*, with each of *values* instead of its own."""
    for i, event in enumerate(log):
        # RUN_START's data tells the agent's name, by the same key as the envelope its path.
        places = (event, event["data"]) if event["type"] != "run_start" else (event,)
        for place in places:
            for value in values(place[key]) if key in place else ():
                if value != place[key]:
                    mutant = copy.deepcopy(log)
                    (mutant[i] if place is event else mutant[i]["data"])[key] = value
                    yield f"{i} {event['type']} {key}={value!r}", mutant


def survivors(mutants: Callable[[Log], Iterator[tuple[str, list[Event]]]]) -> set[str]:
    return {
        f"{make.__name__}: {name}"
        for make in LAWFUL
        for name, mutant in mutants(make())
        if not find_violations(mutant)
    }


def moved_and_renumbered(log: Log) -> Iterator[tuple[str, list[Event]]]:
    return ((name, renumbered(mutant)) for name, mutant in moved(log))


STILL_LAWFUL: Final[dict[str, set[str]]] = {
    "a model turn without any event is not known to the log": {
        "says_nothing: remove 2 message_complete",
    },
    "nothing else in the log speaks of it": {
        "calls_tools_in_parallel: remove 2 reasoning_chunk",
        "calls_tools_in_parallel: remove 11 tool_progress",
        "calls_tools_in_parallel: remove 13 state_change",
        "calls_tools_in_parallel: remove 15 custom",
        "retries_its_model: remove 6 message_part",
        "asks_for_approval: remove 7 state_change",
        "asks_for_approval: remove 9 state_change",
    },
    "it may be said twice": {
        "calls_tools_in_parallel: double 2 reasoning_chunk",
        "calls_tools_in_parallel: double 11 tool_progress",
        "calls_tools_in_parallel: double 15 custom",
        "retries_its_model: double 6 message_part",
        "retries_its_model: double 5 message_reset",
    },
    "it was discarded, or never executed": {
        "retries_its_model: remove 2 message_chunk",
        "retries_its_model: double 2 message_chunk",
        "retries_its_model: remove 3 tool_call_args",
        "retries_its_model: double 3 tool_call_args",
        "is_cancelled_in_the_midst: remove 6 tool_call_args",
        "is_cancelled_in_the_midst: double 6 tool_call_args",
    },
    "a call may be denied without being asked for: nobody reads who could answer": {
        "asks_for_approval: remove 6 approval_required",
    },
    "pieces of one message of which none has to be first": {
        "calls_tools_in_parallel: swap 2 reasoning_chunk tool_call_args",
        "calls_tools_in_parallel: swap 4 tool_call_args tool_call_args",
        "calls_tools_in_parallel: swap 6 tool_call_args message_chunk",
        "retries_its_model: swap 2 message_chunk tool_call_args",
        "retries_its_model: swap 5 message_reset message_part",
        "retries_its_model: swap 6 message_part message_chunk",
        "lets_the_provider_search: swap 2 message_chunk tool_call_start",
        "lets_the_provider_search: swap 4 tool_call_end message_chunk",
        "is_cancelled_in_the_midst: swap 5 message_chunk tool_call_args",
    },
    "the user says what they like, when they like": {
        "calls_tools_in_parallel: double 16 user_message",
        "calls_tools_in_parallel: remove 16 user_message",
    },
    "two calls, messages or questions at once: either may be first": {
        "calls_tools_in_parallel: swap 9 tool_call_start tool_call_start",
        "calls_tools_in_parallel: swap 10 tool_call_start tool_progress",
        "calls_tools_in_parallel: swap 11 tool_progress tool_call_end",
        "calls_tools_in_parallel: swap 14 tool_call_end custom",
        "calls_tools_in_parallel: swap 15 custom user_message",
        "calls_tools_in_parallel: swap 16 user_message message_chunk",
        "asks_for_approval: swap 3 message_complete approval_required",
        "asks_for_approval: swap 11 tool_call_end tool_call_end",
        "asks_for_approval: swap 12 tool_call_end tool_call_end",
        "is_an_agent_that_calls_and_asks: swap 3 tool_call_end approval_required",
    },
    "a status follows what is open, not at once": {
        "calls_tools_in_parallel: swap 12 tool_call_end state_change",
        "calls_tools_in_parallel: swap 13 state_change tool_call_end",
        "asks_for_approval: swap 5 state_change approval_required",
        "asks_for_approval: swap 6 approval_required state_change",
        "asks_for_approval: swap 7 state_change approval_required",
        "asks_for_approval: swap 8 approval_required state_change",
        "asks_for_approval: swap 9 state_change tool_call_start",
        "asks_for_approval: swap 14 state_change message_chunk",
        "is_an_agent_that_calls_and_asks: swap 7 tool_call_end state_change",
        "is_cancelled_while_it_waits: swap 5 state_change tool_call_end",
    },
    "an early end closes calls before agents and agents before messages; which closers are the "
    "run's own cannot be seen": {
        "is_cancelled_while_it_waits: swap 6 tool_call_end input_resolved",
        "delegates: swap 10 message_complete agent_end",
        "delegates: swap 11 agent_end tool_call_end",
        "is_cancelled_in_the_midst: swap 6 tool_call_args tool_call_end",
        "is_cancelled_in_the_midst: swap 7 tool_call_end tool_call_end",
        "is_cancelled_in_the_midst: swap 9 agent_end message_complete",
    },
}


def test_a_log_with_any_event_removed_doubled_or_swapped_is_refused() -> None:
    assert survivors(moved) == set()


def test_a_renumbered_log_is_refused_too_unless_it_is_provably_lawful() -> None:
    assert survivors(moved_and_renumbered) == set().union(*STILL_LAWFUL.values())


STATUSES: Final = [
    "initializing",
    "running",
    "waiting_for_input",
    "waiting_for_approval",
    "completed",
    "error",
    "cancelled",
]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("seq", lambda seq: [seq - 1, seq + 1, seq + 100, None, str(seq)]),
        ("run_id", lambda _: ["r2", "", None]),
        ("agent", lambda _: ["root", "root/ghost", "root/visa", "visa", "root/", "", None]),
        ("timestamp", lambda _: [math.nan, math.inf, "now", None]),
        ("data", lambda data: [{}, {**data, "more": 1}, None, []]),
        ("status", lambda _: STATUSES),
        ("old_status", lambda _: STATUSES),
        ("new_status", lambda _: STATUSES),
        ("request_id", lambda _: ["q1", "q2", "zz", "", None]),
        ("content", lambda text: [f"{text}x", text[1:], None]),
        ("tool_name", lambda _: ["zz", "", None]),
        ("provider_executed", lambda _: [True, False, None]),
        ("events", lambda count: [count - 1, count + 1]),
    ],
)
def test_a_log_with_one_value_altered_is_refused(
    key: str, values: Callable[[Any], list[Any]]
) -> None:
    assert survivors(lambda log: altered(log, key, values)) == set()


@pytest.mark.parametrize(
    ("key", "values", "lawful_for"),
    [
        (
            "type",
            lambda _: list(map(str, T)),
            {"retries_its_model: 2 message_chunk type='reasoning_chunk'": "it was discarded"},
        ),
        (
            "chunk",
            lambda text: [f"{text}x"],
            {
                "calls_tools_in_parallel: 2 reasoning_chunk chunk='hmx'": "it is said once",
                "retries_its_model: 2 message_chunk chunk='Goox'": "it was discarded",
            },
        ),
        (
            "delta",
            lambda text: [f"{text}x"],
            {
                "is_cancelled_in_the_midst: 6 tool_call_args delta='{x'": "it never ran",
                "retries_its_model: 3 tool_call_args delta='{\"cix'": "it never ran",
            },
        ),
        (
            "call_id",
            lambda _: ["c1", "c2", "m1", "zz", "", None],
            {"calls_tools_in_parallel: 11 tool_progress call_id='c2'": "that one runs too"},
        ),
        (
            "message_id",
            lambda _: ["m1", "m2", "zz", ""],
            {
                "calls_tools_in_parallel: 2 reasoning_chunk message_id='m2'": "m2 is a message too",
                "says_nothing: 2 message_complete message_id='m2'": "nothing else names it",
                "says_nothing: 2 message_complete message_id='zz'": "nothing else names it",
            },
        ),
    ],
)
def test_a_log_with_one_value_altered_is_refused_unless_it_is_provably_lawful(
    key: str, values: Callable[[Any], list[Any]], lawful_for: dict[str, str]
) -> None:
    assert survivors(lambda log: altered(log, key, values)) == set(lawful_for)


def moved_inside(log: Log) -> Iterator[tuple[str, Any]]:
    return altered(log, "parent_call_id", lambda _: ["c1", "c2", "m1", "zz", "", None, []])


def test_what_is_made_inside_a_call_names_one_that_runs_and_that_its_agent_is_inside_of() -> None:
    assert survivors(moved_inside) == {
        # Another call that runs, at the top.
        "calls_tools_in_parallel: 10 tool_call_start parent_call_id='c1'",
    }


def test_a_checker_that_does_not_ask_what_runs_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Walk, "_was_running", lambda *_: True)

    assert "asks_for_approval: 16 message_complete parent_call_id='zz'" in survivors(moved_inside)


def test_a_checker_that_does_not_ask_where_an_agent_is_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Walk, "_calls_around", lambda *_: ["c1", "c2"])

    assert "delegates: 7 tool_call_start parent_call_id=None" in survivors(moved_inside)


@pytest.mark.parametrize(
    ("call_id", "reasons"),
    [
        ("c1", []),
        (None, []),
        ("c2", ["L3 4: it is told to be made inside c2, which did not run"]),
        ("zz", ["L3 4: it is told to be made inside zz, which did not run"]),
        ("", ["shape 4: data['call_id'] is wrong: Expected `str` of length >= 1"]),
    ],
)
def test_a_question_names_the_call_that_asks(call_id: str | None, reasons: list[str]) -> None:
    log = Log()
    log.begin()
    log.start("c1", message_id=None)
    log.say(T.APPROVAL_REQUIRED, call_id="c2", tool_name="book")
    log.say(T.INPUT_REQUIRED, request_id="q1", prompt="Colour?", call_id=call_id)
    log.move("running", "waiting_for_input")
    log.say(T.INPUT_RESOLVED, request_id="q1")
    log.end("c2", "book", outcome="denied")
    log.end("c1")
    log.move("waiting_for_input", "running")
    log.complete()

    assert [reason.split(" - ")[0] for reason in told(log)] == reasons


def test_a_call_that_is_told_to_be_inside_itself_is_refused_once() -> None:
    log = Log()
    log.begin()
    log.start("c1", message_id=None, parent_call_id="c1")
    log.start("c2", message_id=None, parent_call_id="c1")
    log.end("c2")
    log.end("c1")
    log.complete()

    assert told(log) == ["L3 2: it is told to be made inside c1, which did not run"]


@lawful
def test_every_key_of_every_event_has_to_be_there(make: Callable[[], Log]) -> None:
    for i, event in enumerate(make()):
        for place in ("envelope", "data"):
            for key in event if place == "envelope" else event["data"]:
                log = make()
                del (log[i] if place == "envelope" else log[i]["data"])[key]

                assert find_violations(log), (event["type"], key)


# A checker that is blind to one law lets such a log pass: these tests would notice


def test_a_checker_that_does_not_compare_text_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Blind(Law):
        def _chunk(self, data: dict[str, Any], agent: str) -> None:
            super()._chunk({**data, "chunk": ""}, agent)

        def _complete(self, data: dict[str, Any], agent: str) -> None:
            super()._complete({**data, "content": ""}, agent)

        _RULES: ClassVar[dict[EventType, Any]] = {
            **Law._RULES,
            T.MESSAGE_CHUNK: _chunk,
            T.MESSAGE_COMPLETE: _complete,
        }

    monkeypatch.setattr("flowtrio.testing._mend.Law", Blind)

    assert "answers: remove 2 message_chunk" in survivors(moved_and_renumbered)


def test_a_checker_that_forgets_what_is_open_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Blind(Law):
        def open_brackets(self, only: Any = None) -> list[Bracket]:
            return []

    monkeypatch.setattr("flowtrio.testing._mend.Law", Blind)

    assert "calls_tools_in_parallel: remove 14 tool_call_end" in survivors(moved_and_renumbered)


# What is told of a break


def told(log: list[Event], whole: bool = True) -> list[str]:
    return [f"{v.law} {v.index}: {v.reason}" for v in find_violations(log, whole)]


@pytest.mark.parametrize(
    "remove",
    [
        (answers, 0),
        (answers, 1),
        (answers, 2),
        (answers, 4),
        (answers, 5),
        (answers, 6),
        (calls_tools_in_parallel, 8),
        (calls_tools_in_parallel, 9),
        (calls_tools_in_parallel, 14),
        (retries_its_model, 4),
        (asks_for_approval, 4),
        (asks_for_approval, 12),
        (asks_for_approval, 14),
        (asks_its_user, 3),
        (asks_its_user, 4),
        (delegates, 4),
        (delegates, 8),
        (delegates, 10),
        (delegates, 11),
        (delegates, 12),
        (delegates, 13),
        (is_cancelled_in_the_midst, 8),
        (fails, 4),
        (fails, 5),
    ],
    ids=lambda remove: f"{remove[0].__name__}-{remove[1]}",
)
def test_one_lost_event_is_told_once(remove: tuple[Callable[[], Log], int]) -> None:
    make, i = remove
    log = make()
    del log[i]

    assert len(find_violations(renumbered(log))) == 1


def test_a_call_of_a_message_that_the_log_never_shows_is_told_once() -> None:
    log = calls_tools_in_parallel()
    del log[2:9]

    assert [(v.law, v.index) for v in find_violations(renumbered(log))] == [("L10", 2)]


def test_no_mutation_makes_a_cascade() -> None:
    for make in LAWFUL:
        for name, mutant in moved_and_renumbered(make()):
            assert len(find_violations(mutant)) <= 3, (make.__name__, name)


def test_a_gap_is_told_where_it_opens() -> None:
    log = answers()
    del log[3]

    assert told(log)[0] == "L1 3: expected seq 3, got 4"
    assert [v.law for v in find_violations(log)] == ["L1", "L3"]


def test_one_wrong_number_does_not_shift_the_others() -> None:
    log = answers()
    log[3]["seq"] = 77

    assert told(log) == ["L1 3: expected seq 3, got 77"]


def test_a_log_that_begins_late_lacks_its_beginning() -> None:
    assert [v.law for v in find_violations(answers()[2:])] == ["L1", "L2"]


def test_an_empty_log_is_a_prefix_and_not_a_whole() -> None:
    assert find_violations([], whole=False) == []
    assert told([]) == ["L2 0: the log ends without DONE"]
    with pytest.raises(LawBroken, match="at place 0"):
        check_events([])


def test_what_follows_done_is_told_once() -> None:
    log = renumbered([*answers(), *answers()])

    assert told(log) == ["L2 7: 7 more after DONE"]


def test_another_run_in_the_log_is_told_once() -> None:
    log = answers()
    log[2]["run_id"] = log[3]["run_id"] = "r2"

    assert told(log) == ["L1 2: 2 of 7 events belong to another run, 'r2'"]


def test_what_comes_after_the_terminal_status_does_not_end_the_walk() -> None:
    log = Log()
    log.begin()
    log.complete()
    log.pop()
    log.speak("m1", "Good")
    log.say(T.MESSAGE_COMPLETE, message_id="m2", content="Bad")
    log.complete()

    assert [v.law for v in find_violations(renumbered(log))] == ["L2", "L3"]


def test_what_is_no_event_is_told_of() -> None:
    log: list[Any] = answers()
    log[2:4] = ["text", {"type": "accepted", "ref": None, "run_id": "r1"}]

    assert {v.law for v in find_violations(log)} == {"shape", "L3"}
    with pytest.raises(LawBroken):
        check_events(log)


def test_an_event_that_cannot_be_placed_breaks_only_its_shape() -> None:
    log = calls_tools_in_parallel()
    log[8]["data"]["content"] = None

    assert told(log) == ["shape 8: data['content'] is wrong: Expected `str`, got `null`"]


def test_a_second_break_elsewhere_is_told_too() -> None:
    log = calls_tools_in_parallel()
    log[8]["data"]["content"] = "Lo"
    log[18]["data"]["content"] = "Sun"

    assert [(v.law, v.index) for v in find_violations(log)] == [("L3", 8), ("L3", 18)]


# Shapes and contradictions


def with_data(make: Callable[[], Log], i: int, **changes: Any) -> Log:
    log = make()
    log[i]["data"].update(changes)
    return log


@pytest.mark.parametrize(
    ("log", "law", "reason"),
    [
        (with_data(answers, 0, schema=3), "shape", "data['schema'] is wrong"),
        (with_data(answers, 4, usage={}), "shape", "data['usage'] is wrong"),
        (with_data(answers, 4, usage={**USAGE, "x": 1}), "shape", "unknown field"),
        (with_data(answers, 4, usage={**USAGE, "cached_tokens": -1}), "shape", ">= 0"),
        (with_data(answers, 6, duration=-1), "shape", "data['duration'] is wrong"),
        (with_data(answers, 6, more=None), "shape", "data['more'] is unknown"),
        (with_data(answers, 6, result=math.nan), "shape", "it holds nan"),
        (with_data(answers, 6, result=[{"a": "\ud800"}]), "shape", "it holds a lone surrogate"),
        (with_data(answers, 6, result={"a": {1: 2}}), "shape", "a key that is not text"),
        (with_data(answers, 6, result=(1, 2)), "shape", "it holds a tuple"),
        (with_data(answers, 6, status=T.DONE), "shape", "data['status'] is wrong"),
        (with_data(answers, 1, old_status=T.DONE), "shape", "data['old_status'] is wrong"),
        (with_data(answers, 6, leftover=["tool"]), "L5", "the status is error, not completed"),
        (with_data(fails, 5, error=""), "L10", "data['error'] is wrong"),
        (with_data(fails, 5, code=None), "L10", "data['code'] is wrong"),
        (with_data(fails, 5, source="moon"), "L10", "data['source'] is wrong"),
        (with_data(fails, 5, causes=[{"error": "E"}]), "L10", "data['causes'] is wrong"),
        (with_data(fails, 5, source="deadline"), "L10", "a deadline ended the run"),
        (with_data(fails, 5, source="limit"), "L10", "a limit ended the run"),
        (
            with_data(calls_tools_in_parallel, 14, error=None),
            "L10",
            "it ended with an error and does not tell which",
        ),
        (
            with_data(calls_tools_in_parallel, 14, error=""),
            "L10",
            "it ended with an error and does not tell which",
        ),
        (with_data(calls_tools_in_parallel, 12, error="E"), "L10", "it ended ok and tells an"),
        (
            with_data(asks_for_approval, 12, result=1),
            "L10",
            "it ended denied and tells a result",
        ),
        (with_data(asks_its_user, 4, text=None), "shape", "its outcome is answered, its text None"),
        (with_data(asks_its_user, 8, text="red"), "shape", "its outcome is timeout"),
        (
            with_data(
                answers, 4, usage={**USAGE, "quality": "lower_bound", "completion_tokens": 0}
            ),
            "L10",
            "at least one token",
        ),
        (with_data(answers, 4, duration=None), "shape", "it took None s, and its first token 0.5"),
        (with_data(answers, 4, duration=0.25), "shape", "it took 0.25 s, and its first token 0.5"),
        (with_data(answers, 0, parts=[{"kind": "image"}]), "shape", "missing required field"),
        (
            with_data(calls_tools_in_parallel, 9, provider_executed=True, message_id=None),
            "L3",
            "the provider executes calls of its own messages only",
        ),
        (
            with_data(calls_tools_in_parallel, 9, arguments={"city": "Oslo"}),
            "L10",
            "its arguments are not the ones that were written",
        ),
        (
            with_data(calls_tools_in_parallel, 4, delta=' "Rome"'),
            "L10",
            "its arguments were written as text that does not parse",
        ),
        (
            with_data(retries_its_model, 4, outcome="timeout"),
            "L3",
            "neither started nor waited",
        ),
        (with_data(delegates, 7, message_id="m1"), "L3", "m1 belongs to root"),
        (with_data(delegates, 11, agent="root/visa"), "L3", "its envelope says"),
    ],
)
def test_one_wrong_value_is_told_with_its_law(log: Log, law: str, reason: str) -> None:
    first, *others = find_violations(log)

    assert (first.law, reason in first.reason) == (law, True), first
    assert len(others) <= 1


def test_a_call_may_be_denied_without_a_word() -> None:
    assert find_violations(with_data(asks_for_approval, 12, error="")) == []


def test_plain_json_only() -> None:
    log = with_data(answers, 1, new_status=AgentStatus.RUNNING)

    assert told(log) == ["shape 1: data['new_status'] is not JSON: it holds a AgentStatus"]


def test_deep_values_are_no_trouble() -> None:
    value: Any = None
    for _ in range(100_000):
        value = [value]

    assert find_violations(with_data(answers, 6, result=value)) == []
    while value:
        # Deallocated level by level: the interpreter's own recursion is not what is tested.
        value = value.pop()


def test_arguments_with_escaped_surrogates_are_not_compared() -> None:
    log = with_data(calls_tools_in_parallel, 4, delta=' "\\ud800"}')

    assert find_violations(log) == []


def test_empty_argument_text_is_an_empty_object() -> None:
    log = calls_tools_in_parallel()
    log[3]["data"]["delta"] = log[4]["data"]["delta"] = ""
    log[9]["data"]["arguments"] = {}

    assert find_violations(log) == []


@pytest.mark.parametrize("outcome", ["ok", "cancelled"])
def test_a_nested_agent_leaves_nothing_open_that_should_end_before_it(outcome: str) -> None:
    log = Log()
    child = "root/visa"
    log.begin()
    log.say(T.AGENT_START, child, agent=child)
    log.say(T.MESSAGE_CHUNK, child, chunk="a", message_id="m1")
    log.say(T.AGENT_END, child, agent=child, outcome=outcome)
    log.say(T.MESSAGE_COMPLETE, child, message_id="m1", content="a")
    log.complete()

    late = ["L3 4: m1 should have been closed before it"]
    assert told(log) == (late if outcome == "ok" else [])


# The report


def test_the_report_shows_each_break_and_the_events_around_the_first() -> None:
    log = calls_tools_in_parallel()
    log[8]["data"]["content"] = "x" * 200
    log[18]["data"]["content"] = "Sun"

    with pytest.raises(LawBroken) as caught:
        check_events(iter(log))

    lines = str(caught.value).splitlines()
    assert [v.index for v in caught.value.violations] == [8, 18]
    assert lines[0].startswith("L3 is broken by message_complete (seq 8): ")
    assert lines[1].startswith("L3 is broken by message_complete (seq 18): ")
    assert lines[5].endswith("m1 thinks 'hm'")
    assert [line[:6] for line in lines[5:]] == [
        *("     2", "     3", "     5", "     7", ">    8", "     9", "    10")
    ]
    assert all(len(line) <= 100 for line in lines[5:])


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.text(max_size=3)
    return inner | st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2)


# Two levels, written out: st.recursive reads its lambda's source when it first draws, and warns
# where it finds no lambda there, since the file has changed after its import.
JSON: Final = nested(
    nested(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3))
)


@settings(max_examples=100, deadline=None, database=None)
@given(data=st.data())
def test_no_value_of_a_log_makes_the_checker_fail_instead_of_the_log(data: st.DataObject) -> None:
    log: list[Any] = data.draw(st.sampled_from(LAWFUL))()
    for _ in range(data.draw(st.integers(1, 3))):
        event = data.draw(st.sampled_from(log))
        place = data.draw(st.sampled_from([event, event["data"]]))
        if not isinstance(place, dict) or not place:
            continue
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
        if not isinstance(event["data"], dict) and len(log) > 1:
            log.remove(event)

    with contextlib.suppress(LawBroken):
        check_events(log)


def test_deep_values_do_not_hinder_the_report() -> None:
    value: Any = None
    for _ in range(100_000):
        value = [value]
    log = with_data(answers, 6, result=value, status="error")

    with pytest.raises(LawBroken):
        check_events(log)
    while value:
        value = value.pop()


def test_the_report_of_a_cut_log_points_behind_its_last_event() -> None:
    with pytest.raises(LawBroken, match=r"broken at place 3: the log ends without DONE") as caught:
        check_events(answers()[:3])

    assert str(caught.value).endswith("> (the log's end)")


def test_a_broken_law_is_a_failed_assertion() -> None:
    with pytest.raises(AssertionError):
        check_events([])


def test_a_violation_is_a_value() -> None:
    assert find_violations([]) == [Violation("L2", "the log ends without DONE", 0, None, None)]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        find_violations([])[0].law = "L3"  # type: ignore[misc]


def test_a_person_may_have_edited_what_is_executed() -> None:
    assert find_violations(with_data(asks_for_approval, 10, arguments={"price": 1})) == []
