from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, ClassVar, Final, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from flowtrio._core._brackets import CallPhase, OpenAgent, OpenCall, OpenMessage, OpenQuestion
from flowtrio._core._call_rules import OUTCOMES
from flowtrio._core._events import AgentStatus, EventType
from flowtrio._core._exceptions import LocalProtocolError
from flowtrio._core._law import TERMINAL, TRANSITIONS, Law

T = EventType
Event: TypeAlias = tuple[EventType, dict[str, Any], str]

# Events, spelled shortly: only the keys that the law reads


def begin() -> Event:
    return T.RUN_START, {}, "root"


def to(old: str, new: str, reason: str | None = None) -> Event:
    return T.STATE_CHANGE, {"old_status": old, "new_status": new, "reason": reason}, "root"


def error() -> Event:
    return T.ERROR, {}, "root"


def done(status: str, events: int) -> Event:
    return T.DONE, {"status": status, "events": events}, "root"


def chunk(message_id: str, text: str = "a", agent: str = "root") -> Event:
    return T.MESSAGE_CHUNK, {"chunk": text, "message_id": message_id}, agent


def piece(type: EventType, message_id: str, agent: str = "root") -> Event:
    return type, {"message_id": message_id}, agent


def whole(message_id: str, text: str = "", finish: str = "stop", agent: str = "root") -> Event:
    data = {"message_id": message_id, "content": text, "finish_reason": finish}
    return T.MESSAGE_COMPLETE, data, agent


def args(call_id: str, message_id: str, agent: str = "root", tool_name: str = "t") -> Event:
    data = {"call_id": call_id, "tool_name": tool_name, "message_id": message_id}
    return T.TOOL_CALL_ARGS, data, agent


def ask(call_id: str, agent: str = "root", tool_name: str = "t") -> Event:
    return T.APPROVAL_REQUIRED, {"call_id": call_id, "tool_name": tool_name}, agent


def start(
    call_id: str,
    message_id: str | None = None,
    agent: str = "root",
    by_provider: bool = False,
    tool_name: str = "t",
) -> Event:
    data = {
        "call_id": call_id,
        "tool_name": tool_name,
        "message_id": message_id,
        "provider_executed": by_provider,
    }
    return T.TOOL_CALL_START, data, agent


def progress(call_id: str, agent: str = "root", tool_name: str = "t") -> Event:
    return T.TOOL_PROGRESS, {"call_id": call_id, "tool_name": tool_name}, agent


def end(call_id: str, outcome: str = "ok", agent: str = "root", tool_name: str = "t") -> Event:
    data = {"call_id": call_id, "tool_name": tool_name, "outcome": outcome}
    return T.TOOL_CALL_END, data, agent


def enter(path: str, call_id: str | None = None, agent: str | None = None) -> Event:
    return T.AGENT_START, {"agent": path, "call_id": call_id}, agent or path


def leave(
    path: str, call_id: str | None = None, outcome: str = "ok", agent: str | None = None
) -> Event:
    return T.AGENT_END, {"agent": path, "call_id": call_id, "outcome": outcome}, agent or path


def question(request_id: str, agent: str = "root") -> Event:
    return T.INPUT_REQUIRED, {"request_id": request_id}, agent


def answer(request_id: str, agent: str = "root") -> Event:
    return T.INPUT_RESOLVED, {"request_id": request_id}, agent


def custom(agent: str = "root") -> Event:
    return T.CUSTOM, {}, agent


LIVE: Final = [begin(), to("initializing", "running")]


def walked(*events: Event, law: Callable[[], Law] = Law) -> Law:
    walker = law()
    for event in events:
        walker.step(*event)
    return walker


def seen(law: Law) -> tuple[Any, ...]:
    """All that can be seen of a law."""
    brackets = [
        (type(b), b.key, b.agent, b.text.getvalue() if isinstance(b, OpenMessage) else None)
        for b in law.open_brackets()
    ]
    phases = [b.phase for b in law.open_brackets() if isinstance(b, OpenCall)]
    return law.count, law.status, law.reason, law.is_done, law.derived_status(), brackets, phases


# The tables


def test_the_table_of_transitions_is_the_documented_one() -> None:
    table = {old: " ".join(sorted(news)) for old, news in TRANSITIONS.items()}

    assert table == {
        "initializing": "cancelled error running",
        "running": "cancelled completed error running waiting_for_approval waiting_for_input",
        "waiting_for_input": "cancelled error running waiting_for_approval waiting_for_input",
        "waiting_for_approval": "cancelled error running waiting_for_approval waiting_for_input",
        "completed": "",
        "error": "",
        "cancelled": "",
    }
    assert {old for old, news in TRANSITIONS.items() if not news} == TERMINAL
    assert set(AgentStatus) == set(TRANSITIONS)


def test_every_type_of_event_has_a_rule() -> None:
    assert set(Law._RULES) == set(T)
    assert sorted(OUTCOMES) == ["cancelled", "denied", "error", "ok", "timeout"]


def at_status(status: str) -> Law:
    """A run in this status; waiting ones have what they wait for open."""
    before: dict[str, list[Event]] = {
        "initializing": [begin()],
        "running": LIVE,
        "waiting_for_input": [*LIVE, question("q1"), to("running", status)],
        "waiting_for_approval": [*LIVE, ask("c1"), to("running", status)],
    }
    return walked(*before.get(status, [*LIVE, to("running", status)]))


@pytest.mark.parametrize(("old", "new"), list(product(AgentStatus, AgentStatus)))
def test_a_status_moves_only_as_the_table_says(old: str, new: str) -> None:
    law = at_status(old)
    # What is open is answered, and what the new status needs is opened.
    if old == "waiting_for_input" and new != old:
        law.step(*answer("q1"))
    if old == "waiting_for_approval" and new != old:
        law.step(*end("c1", "denied"))
    if law.status not in (*TERMINAL, "initializing"):
        if new == "waiting_for_input" != old:
            law.step(*question("q2"))
        if new == "waiting_for_approval" != old:
            law.step(*ask("c2"))

    if new in TRANSITIONS[AgentStatus(old)]:
        law.step(*to(old, new, "why"))
        assert (law.status, law.reason) == (new, "why")
    else:
        with pytest.raises(LocalProtocolError) as caught:
            law.step(*to(old, new, "why"))
        assert caught.value.law == "L4"
        assert law.status == old


# Lawful walks

NESTED: Final = [*LIVE, start("c1"), enter("root/a", "c1")]

WALKS: Final[dict[str, list[Event]]] = {
    "an answer": [
        *LIVE,
        chunk("m1", "a"),
        chunk("m1", "b"),
        whole("m1", "ab"),
        to("running", "completed"),
        done("completed", 7),
    ],
    "a failure": [*LIVE, to("running", "error"), error(), done("error", 5)],
    "a failure in the queue": [begin(), to("initializing", "error"), error(), done("error", 4)],
    "cancelled in the queue": [begin(), to("initializing", "cancelled"), done("cancelled", 3)],
    "a message of all kinds": [
        *LIVE,
        piece(T.REASONING_CHUNK, "m1"),
        chunk("m1", "x"),
        piece(T.MESSAGE_PART, "m1"),
        piece(T.MESSAGE_RESET, "m1"),
        chunk("m1", "b"),
        whole("m1", "b"),
    ],
    "an empty message": [*LIVE, whole("m1")],
    "calls of a message": [
        *LIVE,
        args("c1", "m1"),
        args("c2", "m1"),
        args("c1", "m1"),
        whole("m1", finish="tool_calls"),
        start("c2", "m1"),
        ask("c1"),
        start("c1", "m1"),
        progress("c2"),
        start("c3", "m1"),
        end("c3", "timeout"),
        end("c1", "error"),
        end("c2"),
    ],
    "calls that never start": [
        *LIVE,
        args("c1", "m1"),
        end("c1", "cancelled"),
        piece(T.MESSAGE_RESET, "m1"),
        args("c2", "m1"),
        whole("m1"),
        end("c2", "error"),
        end("c3", "denied"),
        ask("c4"),
        end("c4", "timeout"),
    ],
    "a call that the provider executes": [
        *LIVE,
        chunk("m1"),
        start("c1", "m1", by_provider=True),
        end("c1"),
        whole("m1", "a"),
    ],
    "a message that begins with a provider's call": [
        *LIVE,
        start("c1", "m1", by_provider=True),
        end("c1"),
        whole("m1"),
    ],
    "a provider's call that ends after its message": [
        *LIVE,
        chunk("m1", ""),
        start("c1", "m1", by_provider=True),
        whole("m1"),
        end("c1"),
    ],
    "nested agents": [
        *NESTED,
        chunk("m1", "x", "root/a"),
        enter("root/a/b"),
        custom("root/a/b"),
        question("q1", "root/a/b"),
        answer("q1", "root/a/b"),
        leave("root/a/b", outcome="error"),
        whole("m1", "x", agent="root/a"),
        leave("root/a", "c1"),
        end("c1"),
        enter("root/a#2"),
        leave("root/a#2"),
    ],
    "a nested agent closed before its message, as closers do": [
        *NESTED,
        chunk("m1", "x", "root/a"),
        question("q1", "root/a"),
        end("c1", "cancelled"),
        leave("root/a", "c1", "cancelled"),
        answer("q1", "root/a"),
        whole("m1", "x", "cancelled", "root/a"),
        to("running", "cancelled"),
        done("cancelled", 12),
    ],
    "waiting": [
        *LIVE,
        ask("c1"),
        to("running", "waiting_for_approval"),
        question("q1"),
        to("waiting_for_approval", "waiting_for_input", "one"),
        question("q2"),
        to("waiting_for_input", "waiting_for_input", "two"),
        answer("q1"),
        answer("q2"),
        to("waiting_for_input", "waiting_for_approval"),
        start("c1"),
        to("waiting_for_approval", "running"),
        to("running", "running", "three"),
    ],
}


@pytest.mark.parametrize("name", WALKS)
def test_a_lawful_walk_is_accepted(name: str) -> None:
    law = walked(*WALKS[name])

    assert law.count == len(WALKS[name])
    assert law.is_done == (WALKS[name][-1][0] is T.DONE)


# Refusals

OVER: Final = [*LIVE, to("running", "completed")]
FAILED: Final = [*LIVE, to("running", "error")]
TURN: Final = [*LIVE, args("c1", "m1"), whole("m1")]

REFUSALS: Final[list[tuple[str, list[Event], Event]]] = [
    # the run itself
    ("L2", [], to("initializing", "running")),
    ("L2", [], chunk("m1")),
    ("L2", [], error()),
    ("L4", [], done("completed", 1)),
    ("L2", [begin()], begin()),
    ("L2", LIVE, begin()),
    ("L2", [], (T.RUN_START, {}, "root/a")),
    ("L2", [begin()], custom()),
    ("L2", [begin()], (*to("initializing", "running")[:2], "root/a")),
    ("L4", [begin()], to("running", "error")),
    ("L4", LIVE, to("initializing", "running")),
    ("L4", LIVE, to("running", "initializing")),
    ("L4", LIVE, to("running", "asleep")),
    ("L4", LIVE, to("running", "waiting_for_input")),
    ("L4", [*LIVE, question("q1")], to("running", "waiting_for_approval")),
    ("L4", [*LIVE, question("q1")], to("running", "running", "a")),
    ("L4", [*LIVE, question("q1"), ask("c1")], to("running", "waiting_for_approval")),
    ("L4", LIVE, to("running", "running")),
    ("L4", [*LIVE, to("running", "running", "a")], to("running", "running", "a")),
    ("L3", [*LIVE, start("c1")], to("running", "completed")),
    ("L3", [*LIVE, chunk("m1")], to("running", "cancelled")),
    ("L3", [*LIVE, question("q1")], to("running", "error")),
    ("L3", [*LIVE, enter("root/a")], to("running", "error")),
    ("L2", LIVE, error()),
    ("L2", OVER, error()),
    ("L2", [*FAILED, error()], error()),
    ("L2", FAILED, (T.ERROR, {}, "root/a")),
    ("L2", [*FAILED, error(), done("error", 5)], error()),
    ("L4", LIVE, done("completed", 3)),
    ("L2", FAILED, done("error", 4)),
    ("L4", OVER, done("cancelled", 4)),
    ("L1", OVER, done("completed", 3)),
    ("L2", OVER, (*done("completed", 4)[:2], "root/a")),
    ("L2", [*OVER, done("completed", 4)], done("completed", 5)),
    ("L2", OVER, custom()),
    ("L4", OVER, to("completed", "running", "a")),
    # messages
    ("L3", LIVE, chunk("m1", agent="root/a")),
    ("L3", [*LIVE, whole("m1")], chunk("m1")),
    ("L3", [*LIVE, whole("m1")], piece(T.REASONING_CHUNK, "m1")),
    ("L3", [*LIVE, whole("m1")], whole("m1")),
    ("L3", [*NESTED, chunk("m1")], chunk("m1", agent="root/a")),
    ("L3", [*NESTED, chunk("m1", "", "root/a"), leave("root/a", "c1")], chunk("m1", "", "root/a")),
    ("L3", [*NESTED, chunk("m1")], piece(T.MESSAGE_PART, "m1", "root/a")),
    (
        "L3",
        [*NESTED, chunk("m1", "", "root/a"), leave("root/a", "c1")],
        piece(T.MESSAGE_PART, "m1", "root/a"),
    ),
    ("L3", [*NESTED, chunk("m1")], whole("m1", "a", agent="root/a")),
    ("L3", LIVE, whole("m1", agent="root/a")),
    ("L3", LIVE, whole("m1", "a")),
    ("L3", [*LIVE, chunk("m1", "ab")], whole("m1", "a")),
    ("L3", [*LIVE, chunk("m1", "ab")], whole("m1", "ba")),
    ("L3", [*LIVE, chunk("m1", "a"), piece(T.MESSAGE_RESET, "m1")], whole("m1", "a")),
    ("L3", [*LIVE, args("c1", "m1")], piece(T.MESSAGE_RESET, "m1")),
    # calls
    ("L3", [*LIVE, args("c1", "m1")], args("c1", "m2")),
    ("L3", [*LIVE, args("c1", "m1")], args("c1", "m1", tool_name="u")),
    ("L3", TURN, args("c1", "m1")),
    ("L3", TURN, args("c2", "m1")),
    ("L3", [*TURN, ask("c1")], args("c1", "m1")),
    ("L3", [*TURN, start("c1", "m1")], args("c1", "m1")),
    ("L3", [*LIVE, end("c1", "denied")], args("c1", "m1")),
    ("L3", [*LIVE, args("c1", "m1")], args("c1", "m1", "root/a")),
    ("L10", [*LIVE, args("c1", "m1")], ask("c1")),
    ("L3", [*TURN, ask("c1")], ask("c1")),
    ("L3", TURN, ask("c1", tool_name="u")),
    ("L3", [*TURN, end("c1", "denied")], ask("c1")),
    ("L3", LIVE, ask("c1", "root/a")),
    ("L10", [*LIVE, args("c1", "m1")], start("c1", "m1")),
    ("L10", LIVE, start("c1", "m1")),
    ("L10", [*LIVE, chunk("m1")], start("c1", "m1")),
    ("L10", [*LIVE, whole("m1", finish="error")], start("c1", "m1")),
    ("L10", [*LIVE, whole("m1", finish="cancelled")], start("c1", "m1")),
    ("L3", [*TURN, whole("m2")], start("c1", "m2")),
    ("L3", TURN, start("c1")),
    ("L3", TURN, start("c1", "m1", tool_name="u")),
    ("L3", TURN, start("c1", "m1", by_provider=True)),
    ("L3", [*TURN, start("c1", "m1")], start("c1", "m1")),
    ("L3", [*LIVE, start("c1"), end("c1")], start("c1")),
    ("L3", LIVE, start("c1", agent="root/a")),
    ("L3", TURN, progress("c1")),
    ("L3", LIVE, progress("c1")),
    ("L3", [*LIVE, start("c1")], progress("c1", tool_name="u")),
    (
        "L3",
        [*NESTED, start("c2", agent="root/a"), leave("root/a", "c1")],
        progress("c2", "root/a"),
    ),
    ("L3", LIVE, end("c1")),
    ("L3", TURN, end("c1")),
    ("L3", [*TURN, ask("c1")], end("c1")),
    ("L3", [*LIVE, start("c1")], end("c1", "fine")),
    ("L3", [*LIVE, start("c1")], end("c1", tool_name="u")),
    ("L3", [*NESTED], end("c1", agent="root/a")),
    ("L3", [*LIVE, start("c1"), end("c1")], end("c1")),
    ("L3", LIVE, end("c1", "denied", "root/a")),
    # nested agents
    ("L3", LIVE, enter("root/a", agent="root")),
    ("L3", LIVE, enter("root")),
    ("L3", LIVE, enter("root/")),
    ("L3", LIVE, enter("trunk/a")),
    ("L3", LIVE, enter("root/a/b")),
    ("L3", NESTED, enter("root/a")),
    ("L3", [*NESTED, leave("root/a", "c1")], enter("root/a")),
    ("L3", LIVE, enter("root/a", "c1")),
    ("L3", TURN, enter("root/a", "c1")),
    ("L3", LIVE, leave("root/a")),
    ("L3", NESTED, leave("root/a")),
    ("L3", NESTED, leave("root/a", "c1", "fine")),
    ("L3", NESTED, leave("root/a", "c1", agent="root")),
    ("L3", [*NESTED, leave("root/a", "c1")], custom("root/a")),
    # questions
    ("L3", LIVE, question("q1", "root/a")),
    ("L3", [*LIVE, question("q1")], question("q1")),
    ("L3", [*LIVE, question("q1"), answer("q1")], question("q1")),
    ("L3", [*LIVE, question("q1"), answer("q1")], answer("q1")),
    ("L3", [*NESTED, question("q1")], answer("q1", "root/a")),
    # names are used once, whatever they name
    ("L3", [*LIVE, question("x")], start("x")),
    ("L3", [*LIVE, start("x")], chunk("x")),
    ("L3", [*LIVE, whole("x")], question("x")),
]


def refuses(law: Law, event: Event) -> str | None:
    """The law by which an event is refused, or None; refusing changes nothing."""
    before = seen(law)
    try:
        law.step(*event)
    except LocalProtocolError as exc:
        assert seen(law) == before
        return exc.law
    return None


@pytest.mark.parametrize(("name", "before", "event"), REFUSALS)
def test_an_illegal_event_is_refused_and_changes_nothing(
    name: str, before: list[Event], event: Event
) -> None:
    assert refuses(walked(*before), event) == name


def test_a_refusal_says_what_was_asked_and_where() -> None:
    law = walked(*LIVE, chunk("m1", "secret"))

    with pytest.raises(LocalProtocolError) as caught:
        law.step(*whole("m1", "secrets"))

    assert str(caught.value).startswith("can't emit MESSAGE_COMPLETE when run=running (seq 3): ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "state"), [([], "not started"), ([*OVER, done("completed", 4)], "done")]
)
def test_a_refusal_tells_the_runs_state(before: list[Event], state: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"run={state} "):
        walked(*before).step(*custom())


# What is open


def test_brackets_are_given_in_closing_order() -> None:
    law = walked(
        *LIVE,
        chunk("m1"),
        question("q1"),
        start("c1"),
        enter("root/a", "c1"),
        enter("root/a/b"),
        ask("c2", "root/a"),
        args("c3", "m2"),
    )

    assert [(b.key, b.agent) for b in law.open_brackets()] == [
        ("c1", "root"),
        ("c2", "root/a"),
        ("c3", "root"),
        ("root/a/b", "root/a/b"),
        ("root/a", "root/a"),
        ("q1", "root"),
        ("m1", "root"),
        ("m2", "root"),
    ]
    assert [b.key for b in law.open_brackets(only={"m2", "root/a", "c9"})] == ["root/a", "m2"]
    assert [type(b) for b in law.open_brackets(only=("c1", "q1", "root/a", "m1"))] == [
        OpenCall,
        OpenAgent,
        OpenQuestion,
        OpenMessage,
    ]


def test_what_is_open_can_be_looked_up() -> None:
    law = walked(*LIVE, chunk("m1", "a"), chunk("m1", "b"), args("c1", "m1"), start("c2"))

    message, call = law.open_message("m1"), law.open_call("c1")
    assert message is not None
    assert message.text.getvalue() == "ab"
    assert call is not None
    assert call.phase is CallPhase.WRITTEN
    assert law.calls_of("m1") == [call]
    assert law.open_message("c1") is None
    assert law.open_call("m1") is None


def test_a_call_moves_through_its_phases() -> None:
    law = walked(*TURN)
    call = law.open_call("c1")
    assert call is not None

    for event, phase, status in (
        (ask("c1"), CallPhase.ASKED, "waiting_for_approval"),
        (start("c1", "m1"), CallPhase.STARTED, "running"),
    ):
        law.step(*event)
        assert (call.phase, law.derived_status()) == (phase, status)


def test_a_call_that_is_approved_before_it_names_its_message_belongs_to_it_then() -> None:
    law = walked(*LIVE, whole("m1"), ask("c1"))
    assert law.calls_of("m1") == []

    law.step(*start("c1", "m1"))

    assert [call.key for call in law.calls_of("m1")] == ["c1"]


def test_a_message_that_was_begun_has_to_be_completed() -> None:
    law = walked(*LIVE)
    law.begin_message("m1", "root")

    assert [b.key for b in law.open_brackets()] == ["m1"]
    assert law.count == 2
    assert refuses(law, to("running", "completed")) == "L3"
    assert refuses(law, whole("m1")) is None
    assert refuses(law, to("running", "completed")) is None


@pytest.mark.parametrize(
    ("before", "message_id", "agent", "name"),
    [
        ([begin()], "m1", "root", "L2"),
        (OVER, "m1", "root", "L2"),
        (LIVE, "m1", "root/a", "L3"),
        ([*LIVE, whole("m1")], "m1", "root", "L3"),
        ([*LIVE, chunk("m1")], "m1", "root", "L3"),
    ],
)
def test_a_message_is_begun_once_in_a_live_run_by_an_agent_that_runs(
    before: list[Event], message_id: str, agent: str, name: str
) -> None:
    law = walked(*before)
    unchanged = seen(law)

    with pytest.raises(LocalProtocolError) as caught:
        law.begin_message(message_id, agent)

    assert caught.value.law == name
    assert seen(law) == unchanged


# Who may refer to what


@pytest.mark.parametrize(
    ("before", "event"),
    [
        pytest.param(LIVE, start("c1", by_provider=True), id="provider call without a message"),
        pytest.param(LIVE, start("x", "x", by_provider=True), id="a provider call as a message"),
        pytest.param(
            [*NESTED, whole("m1")], start("c2", "m1", "root/a"), id="call of another's message"
        ),
        pytest.param(LIVE, args("x", "x"), id="one name for two things at once"),
        pytest.param([*LIVE, args("c1", "m1")], end("c1", "timeout"), id="timeout of nothing"),
    ],
)
def test_a_call_refers_to_what_is_there(before: list[Event], event: Event) -> None:
    law = walked(*before)
    unchanged = seen(law)

    assert refuses(law, event) == "L3"
    assert seen(law) == unchanged


def test_an_agent_that_ends_before_its_calls_is_for_the_checker_to_refuse() -> None:
    """The run's own code closes them first; `flowtrio.testing.find_violations` looks."""
    before = [*NESTED, start("c2", agent="root/a")]

    assert refuses(walked(*before), leave("root/a", "c1")) is None


# A walk beside a naive model, which keeps nothing but the events and reads them anew each time

_MESSAGE: Final = {
    T.MESSAGE_CHUNK,
    T.REASONING_CHUNK,
    T.MESSAGE_PART,
    T.MESSAGE_RESET,
    T.MESSAGE_COMPLETE,
    T.TOOL_CALL_ARGS,
}
_CALL: Final = {
    T.TOOL_CALL_ARGS,
    T.APPROVAL_REQUIRED,
    T.TOOL_CALL_START,
    T.TOOL_PROGRESS,
    T.TOOL_CALL_END,
}
_QUESTION: Final = {T.INPUT_REQUIRED, T.INPUT_RESOLVED}
_AGENT: Final = {T.AGENT_START, T.AGENT_END}


class Model:
    """Says of any event whether it may come next."""

    def __init__(self) -> None:
        self.log: list[Event] = []

    def of(self, kinds: set[EventType], key: str, name: str | None) -> list[Event]:
        return [e for e in self.log if e[0] in kinds and e[1][key] == name]

    def message(self, name: str | None) -> list[Event]:
        events = self.of(_MESSAGE | {T.TOOL_CALL_START}, "message_id", name)
        return [
            event
            for event in events
            if event[0] is not T.TOOL_CALL_START or event[1]["provider_executed"]
        ]

    def call(self, name: str | None) -> list[Event]:
        return self.of(_CALL, "call_id", name)

    def agent(self, path: str) -> list[Event]:
        return self.of(_AGENT, "agent", path)

    def question(self, name: str) -> list[Event]:
        return self.of(_QUESTION, "request_id", name)

    def is_open(self, events: list[Event]) -> bool:
        closers = {T.TOOL_CALL_END, T.AGENT_END, T.INPUT_RESOLVED, T.MESSAGE_COMPLETE}
        return bool(events) and events[-1][0] not in closers

    def is_new(self, name: str) -> bool:
        return not (
            self.message(name) or self.call(name) or self.agent(name) or self.question(name)
        )

    def may_speak(self, agent: str) -> bool:
        return agent == "root" or self.is_open(self.agent(agent))

    def last_change(self) -> dict[str, Any]:
        changes = [data for type, data, _ in self.log if type is T.STATE_CHANGE]
        first = {"new_status": "initializing" if self.log else None, "reason": None}
        return changes[-1] if changes else first

    @property
    def status(self) -> str | None:
        status: str | None = self.last_change()["new_status"]
        return status

    def names(self, key: str) -> set[str]:
        return {data[key] for _, data, _ in self.log if isinstance(data.get(key), str)}

    def waits(self) -> str:
        if any(self.is_open(self.question(q)) for q in self.names("request_id")):
            return "waiting_for_input"
        calls = [self.call(c) for c in self.names("call_id")]
        if any(events and events[-1][0] is T.APPROVAL_REQUIRED for events in calls):
            return "waiting_for_approval"
        return "running"

    def anything_open(self) -> bool:
        return any(
            self.is_open(find(name))
            for key, find in (
                ("message_id", self.message),
                ("call_id", self.call),
                ("request_id", self.question),
                ("agent", self.agent),
            )
            for name in self.names(key)
        )

    def text(self, message_id: str) -> str:
        text = ""
        for type, data, _ in self.message(message_id):
            if type is T.MESSAGE_RESET:
                text = ""
            if type is T.MESSAGE_CHUNK:
                text += data["chunk"]
        return text

    def allows(self, event: Event) -> bool:
        type, data, agent = event
        match type:
            case EventType.RUN_START:
                return not self.log and agent == "root"
            case EventType.STATE_CHANGE:
                return agent == "root" and self._allows_change(data)
            case EventType.ERROR:
                return agent == "root" and self._ends_with(T.STATE_CHANGE, "error")
            case EventType.DONE:
                last = T.ERROR if self.status == "error" else T.STATE_CHANGE
                return (
                    agent == "root"
                    and self._ends_with(last, data["status"])
                    and data["status"] in ("completed", "error", "cancelled")
                    and data["events"] == len(self.log) + 1
                )
        if self.status not in ("running", "waiting_for_input", "waiting_for_approval"):
            return False
        if type in _AGENT:
            return data["agent"] == agent and self._allows_agent(type, data)
        if type in _CALL:
            return self._allows_call(event)
        if type in _MESSAGE:
            return self._allows_message(event)
        if type is T.INPUT_REQUIRED:
            return self.is_new(data["request_id"]) and self.may_speak(agent)
        if type is T.INPUT_RESOLVED:
            asked = self.question(data["request_id"])
            return self.is_open(asked) and asked[0][2] == agent
        return self.may_speak(agent)

    def _ends_with(self, type: EventType, status: str) -> bool:
        return bool(self.log) and self.log[-1][0] is type and self.status == status

    def _allows_change(self, data: dict[str, Any]) -> bool:
        if not self.log or data["old_status"] != self.status:
            return False
        new = data["new_status"]
        if new not in TRANSITIONS[AgentStatus(str(self.status))]:
            return False
        if new in ("completed", "error", "cancelled"):
            return not self.anything_open()
        news = data["reason"] is not None and data["reason"] != self.last_change()["reason"]
        return new == self.waits() and (new != self.status or news)

    def _allows_agent(self, type: EventType, data: dict[str, Any]) -> bool:
        path, call_id = data["agent"], data["call_id"]
        if type is T.AGENT_END:
            began = self.agent(path)
            return self.is_open(began) and began[0][1]["call_id"] == call_id
        if "/" not in path or not self.is_new(path):
            return False
        return self.may_speak(path[: path.rindex("/")]) and (
            call_id is None or self._is_running(self.call(call_id))
        )

    def _is_running(self, events: list[Event]) -> bool:
        return bool(events) and events[-1][0] in (T.TOOL_CALL_START, T.TOOL_PROGRESS)

    def _allows_message(self, event: Event) -> bool:
        type, data, agent = event
        message_id = data["message_id"]
        said = self.message(message_id)
        if said:
            if not self.is_open(said) or said[0][2] != agent:
                return False
        elif not self.is_new(message_id):
            return False
        if type is T.MESSAGE_COMPLETE:
            is_said = data["content"] == self.text(message_id)
            was_cut_short = data["finish_reason"] in ("cancelled", "error")
            was_silent = bool(self.agent(agent)) and was_cut_short
            return is_said and (bool(said) or self.may_speak(agent) or was_silent)
        if type is T.MESSAGE_RESET and any(
            self.is_open(self.call(c)) and self._message_of(c) == message_id
            for c in self.names("call_id")
        ):
            return False
        return self.may_speak(agent)

    def _message_of(self, call_id: str) -> str | None:
        named = [data["message_id"] for _, data, _ in self.call(call_id) if "message_id" in data]
        return named[-1] if named else None

    def _allows_call(self, event: Event) -> bool:
        type, data, agent = event
        call_id = data["call_id"]
        said = self.call(call_id)
        if said:
            if not self.is_open(said) or said[0][2] != agent:
                return False
        elif not self.is_new(call_id) or not self.may_speak(agent):
            return False
        started, asked = self._is_running(said), bool(said) and said[-1][0] is T.APPROVAL_REQUIRED
        match type:
            case EventType.TOOL_CALL_ARGS:
                return (
                    not started
                    and not asked
                    and self._message_of(call_id) in (None, data["message_id"])
                    and self._allows_message(event)
                )
            case EventType.APPROVAL_REQUIRED:
                return not (
                    started or asked or self.is_open(self.message(self._message_of(call_id)))
                )
            case EventType.TOOL_CALL_START:
                return not started and self._allows_start(data, agent)
            case EventType.TOOL_PROGRESS:
                return started and self.may_speak(agent)
            case _:
                return started or data["outcome"] != "ok"

    def _allows_start(self, data: dict[str, Any], agent: str) -> bool:
        message_id = data["message_id"]
        if self._message_of(data["call_id"]) not in (None, message_id):
            return False
        if message_id is None:
            return True
        said = self.message(message_id)
        if said and said[0][2] != agent:
            return False
        if data["provider_executed"]:
            return not said or self.is_open(said)
        finished = bool(said) and said[-1][0] is T.MESSAGE_COMPLETE
        return finished and said[-1][1]["finish_reason"] == "stop"

    def candidates(self) -> Iterator[Event]:
        """Events of all types about a few names: most of them are illegal now."""
        agents, calls, messages = ("root", "root/a", "root/a/b"), ("c1", "c2"), ("m1", "m2")
        yield from (begin(), error(), (T.ERROR, {}, "root/a"))
        for new, reason in product(AgentStatus, (None, "a", "b")):
            yield to(str(self.status), new, reason)
            yield to("initializing", new, reason)
        for status, off in product(sorted(TERMINAL), (0, 1)):
            yield done(status, len(self.log) + off)
        for agent in agents:
            yield from (custom(agent), question("q1", agent), answer("q1", agent))
            for call_id in calls:
                yield from (ask(call_id, agent), progress(call_id, agent))
                yield from (end(call_id, o, agent) for o in ("ok", "denied", "cancelled"))
                yield start(call_id, None, agent)
                for message_id in messages:
                    yield args(call_id, message_id, agent)
                    yield start(call_id, message_id, agent)
                    yield start(call_id, message_id, agent, by_provider=True)
            for message_id in messages:
                yield chunk(message_id, "a", agent)
                yield chunk(message_id, "b", agent)
                yield piece(T.REASONING_CHUNK, message_id, agent)
                yield piece(T.MESSAGE_RESET, message_id, agent)
                yield whole(message_id, self.text(message_id), "stop", agent)
                yield whole(message_id, self.text(message_id), "error", agent)
                yield whole(message_id, self.text(message_id)[1:] + "c", "stop", agent)
        for path, inside in product(agents, (None, "c1")):
            yield from (enter(path, inside), leave(path, inside))


class Walk(RuleBasedStateMachine):
    """Steps through what the model allows; everything else is tried, too, and changes nothing."""

    make: ClassVar[type[Law]] = Law

    def __init__(self) -> None:
        super().__init__()
        self.law = self.make()
        self.model = Model()

    @rule(data=st.data(), may_end=st.sampled_from([False] * 9 + [True]))
    def say_something_legal(self, data: st.DataObject, may_end: bool) -> None:
        legal = [event for event in self.model.candidates() if self.model.allows(event)]
        longer = [event for event in legal if event[1].get("new_status") not in TERMINAL]
        if not may_end:
            legal = longer or legal
        if not legal:
            return
        # First the type, so that the many that are about texts do not crowd out the others.
        types = list(dict.fromkeys(event[0] for event in legal))
        type = data.draw(st.sampled_from(types))
        event = data.draw(st.sampled_from([event for event in legal if event[0] is type]))

        assert refuses(self.law, event) is None, event
        self.model.log.append(event)

    @invariant()
    def nothing_illegal_is_accepted(self) -> None:
        for event in self.model.candidates():
            if not self.model.allows(event):
                assert refuses(self.law, event) is not None, event

    @invariant()
    def law_and_model_see_the_same(self) -> None:
        assert self.law.count == len(self.model.log)
        assert self.law.status == self.model.status
        assert self.law.derived_status() == self.model.waits()
        assert bool(self.law.open_brackets()) == self.model.anything_open()
        assert self.law.is_done == (bool(self.model.log) and self.model.log[-1][0] is T.DONE)


WALKING: Final = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_the_law_walks_beside_a_naive_model() -> None:
    run_state_machine_as_test(Walk, settings=WALKING)


# Planted bugs: each of these laws is wrong in one place, and the same walk notices


class LetsDoneComeTwice(Law):
    def _done(self, data: dict[str, Any], agent: str) -> None:
        self.is_done = False
        super()._done(data, agent)

    _RULES: ClassVar[dict[EventType, Any]] = {**Law._RULES, T.DONE: _done}


class ForgetsTheError(Law):
    def _done(self, data: dict[str, Any], agent: str) -> None:
        self._failed = True
        super()._done(data, agent)

    _RULES: ClassVar[dict[EventType, Any]] = {**Law._RULES, T.DONE: _done}


class KeepsTextAfterReset(Law):
    def _reset(self, data: dict[str, Any], agent: str) -> None:
        self._message(T.MESSAGE_RESET, data["message_id"], agent)

    _RULES: ClassVar[dict[EventType, Any]] = {**Law._RULES, T.MESSAGE_RESET: _reset}


class LetsNamesBeUsedAgain(Law):
    def _must_be_new(self, type: str, key: str) -> None:
        pass


class LetsTheDeadSpeak(Law):
    def _must_speak(self, type: str, agent: str) -> None:
        pass


class StartsBeforeTheFinishMark(Law):
    def _must_be_ready(self, message_id: str, provider_executed: bool) -> None:
        pass


class ForgetsAnApproval(Law):
    def _approval(self, data: dict[str, Any], agent: str) -> None:
        super()._approval(data, agent)
        self._asked = 0

    _RULES: ClassVar[dict[EventType, Any]] = {**Law._RULES, T.APPROVAL_REQUIRED: _approval}


class ChangesBeforeItRefuses(Law):
    def _end(self, data: dict[str, Any], agent: str) -> None:
        self._use(data["call_id"])
        if (call := self._calls.pop(data["call_id"], None)) is not None:
            self._must_own(T.TOOL_CALL_END, call, data, agent)

    _RULES: ClassVar[dict[EventType, Any]] = {**Law._RULES, T.TOOL_CALL_END: _end}


class LetsARunEndWithOpenBrackets(Law):
    def open_brackets(self, only: Any = None) -> list[Any]:
        return []


BUGS: Final = [
    LetsDoneComeTwice,
    ForgetsTheError,
    KeepsTextAfterReset,
    LetsNamesBeUsedAgain,
    LetsTheDeadSpeak,
    StartsBeforeTheFinishMark,
    ForgetsAnApproval,
    ChangesBeforeItRefuses,
    LetsARunEndWithOpenBrackets,
]


@pytest.mark.parametrize("bug", BUGS)
def test_the_walk_notices_a_planted_bug(bug: type[Law]) -> None:
    class Wrong(Walk):
        make = bug

    with pytest.raises((AssertionError, LocalProtocolError)):
        run_state_machine_as_test(Wrong, settings=WALKING)
