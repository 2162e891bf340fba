"""The judge notices what it is there for: one break of a law planted into a good record each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from .conversation import flaws_of
from .judge import Record, problems_of, problems_of_innocent
from .programs import Program
from .trial import try_out
from .world import play

CALLS = (("p1", "t1", {"n": 1}), ("p2", "t2", {"n": 2}))
TURN = (
    ("text", "a"),
    ("args", 0, "p1", "t1", {"n": 1}),
    ("reset", "again"),
    ("text", "b "),
    ("args", 0, "p1", "t1", {"n": 1}),
    ("final", CALLS, "tool_calls"),
)
TOOLS = (
    ("tool", "t1", {"needs_approval": True}, (("progress", 3, None), ("return", "said"))),
    ("tool", "t2", {}, (("delegate", ("body", (("ask", "who?"), ("custom", 4, None)))),)),
)
BUSY = Program(
    agent=("agent", ("client", {}, (TURN,)), TOOLS),
    policy={"approve": True, "answer": "yes"},
    engine={"history": True},
)
"""Every kind of bracket, ended well."""
CUT_OFF = Program(
    agent=(
        "body",
        (
            ("start_soon", (("call", ("tool", "t1", {}, (("sleep", 3.0),)), {"n": 1}),)),
            ("start_soon", (("delegate", ("body", (("sleep", 3.0),))),)),
            ("start_soon", (("ask", "who?"),)),
            ("message", (("write", "w"), ("sleep", 3.0))),
        ),
    ),
    policy={"answer": None},
    clicks=((0.5, ("control", "cancel", "enough")),),
)
"""Every kind of bracket, cancelled."""
_EDITED = ("tool", "t1", {"needs_approval": True}, (("sleep", 1.0), ("return", "said")))
_DENIED = ("hook", "tool", (("proceed",), ("deny", "no")))
STEERED = Program(
    agent=(
        "agent",
        ("client", {}, (TURN,)),
        (_EDITED, ("tool", "t2", {}, (("ask", "who?"),))),
        (("hook", "model", (("proceed",), ("give", "same"))),),
    ),
    policy={
        "approve": True,
        "edits": "fits",
        "dismisses": "no idea",
        "posts": (
            ("tool_call_start", 1, ("post", "text", False)),
            ("run_start", 1, ("post", "text", False)),
        ),
    },
    engine={"hooks": (("hook", "tool", (("proceed",), ("give", "said"))),)},
)
"""People edit, decline and say something, and functions stand around it all."""
REFUSED = Program(
    agent=("agent", ("client", {}, (TURN,)), (("tool", "t1", {}, ()),), (_DENIED,)),
)
LATE = Program(
    agent=("agent", ("client", {}, (TURN,)), (("tool", "t1", {}, (("sleep", 3.0),)),)),
    policy={"posts": (("tool_call_start", 1, ("post", "text", False)),)},
    clicks=((0.5, ("control", "cancel", "enough")),),
)
"""Cancelled while something that the user said waits to be taken."""
HEARD = Program(
    agent=("agent", ("client", {}, (TURN,)), TOOLS),
    policy={"approve": True, "answer": "yes"},
    engine={"telemetry": ((2, ("wreck",)), (9, ("raise", 0)))},
)
"""A telemetry hears of it, and falls."""
_FAILING = ("tool", "t2", {"needs_approval": "raises"}, ())
QUOTED = Program(
    agent=(
        "agent",
        (
            "client",
            {},
            (
                (
                    ("args", 1, "p2", "t3", {"n": 5}),
                    ("final", (("", "t2", {"n": 4}), ("p2", "t3", {"n": 5})), "tool_calls"),
                ),
            ),
        ),
        (
            ("tool", "t2", {}, (("delegate", ("body", (("call", _FAILING, {"n": 1}),))),)),
            ("tool", "t3", {"needs_approval": "raises"}, ()),
        ),
    ),
)
"""One call's error stands in the words of another's."""
FAILED = Program(agent=("body", (("message", (("write", "w"), ("raise", "failure", 0))),)))


def record_of(program: Program) -> Record:
    [record] = play(program).records()
    return copy.deepcopy(record)


def find(record: Record, kind: str, last: bool = False) -> dict[str, Any]:
    found = [event for event in record["log"] if event["type"] == kind]
    event: dict[str, Any] = found[-1 if last else 0]
    return event


def data(kind: str, key: str, value: Any, last: bool = False) -> Callable[[Record], None]:
    return lambda record: find(record, kind, last)["data"].__setitem__(key, value)


def drop(kind: str, last: bool = False) -> Callable[[Record], None]:
    def plant(record: Record) -> None:
        record["log"].remove(find(record, kind, last))
        renumber(record)

    return plant


def twice(kind: str) -> Callable[[Record], None]:
    def plant(record: Record) -> None:
        event = find(record, kind)
        record["log"].insert(record["log"].index(event), copy.deepcopy(event))
        renumber(record)

    return plant


def swap(kind: str, other: str, last: bool = False) -> Callable[[Record], None]:
    """Let two events change their places."""

    def plant(record: Record) -> None:
        log = record["log"]
        one, two = log.index(find(record, kind, last)), log.index(find(record, other, last))
        log[one], log[two] = log[two], log[one]
        renumber(record)

    return plant


def renumber(record: Record) -> None:
    for seq, event in enumerate(record["log"]):
        event["seq"] = seq
    record["log"][-1]["data"]["events"] = record["recorded"] = len(record["log"])
    record["views"] = {}


def seen(key: str, change: Callable[[Any], Any]) -> Callable[[Record], None]:
    def plant(record: Record) -> None:
        record[key] = change(record[key])

    return plant


def message(place: int, **changes: Any) -> Callable[[Record], None]:
    return lambda record: record["messages"][place].update(changes)


def waits_longer(record: Record) -> None:
    record["waits"] = [(reach, begun, ended + 0.2) for reach, begun, ended in record["waits"]]


def cut_silently(record: Record) -> None:
    record["cuts"] = 1


def shows_too_little(record: Record) -> None:
    record["views"]["updates"].pop(3)


def shows_another_status(record: Record) -> None:
    record["views"]["values"][-1]["data"]["state"] = {"status": "running", "messages": []}


def ran_unapproved(record: Record) -> None:
    record["controls"] = [c for c in record["controls"] if c["name"] != "approve"]


def ran_too_late(record: Record) -> None:
    for effect in record["effects"]:
        if effect["kind"] == "tool":
            effect["events"] = len(record["log"])


def ran_with_others(record: Record) -> None:
    for effect in record["effects"]:
        if effect["kind"] == "tool":
            effect["arguments"] = {"n": 99}


def was_refused(record: Record) -> None:
    for post in record["posts"]:
        post["took"] = not post["took"]


def said_before(record: Record) -> None:
    for effect in record["effects"]:
        if effect["kind"] == "request":
            effect["heard"] = []


def said_twice(record: Record) -> None:
    said = next(m for m in record["messages"] if "p!" in str(m["content"]))
    record["messages"].append(said)


def never_said(record: Record) -> None:
    record["messages"] = [m for m in record["messages"] if "p!" not in str(m["content"])]


def edited_otherwise(record: Record) -> None:
    record["edits"] = {key: {"n": 7} for key in record["edits"]}


def edited_in_the_history_alone(record: Record) -> None:
    for message in record["messages"]:
        for call in message.get("tool_calls") or ():
            call["function"]["arguments"] = '{"n": 1}'


def left_otherwise(how: str) -> Callable[[Record], None]:
    def plant(record: Record) -> None:
        for hooked in record["hooked"].values():
            hooked.update(how=how, value="other")

    return plant


def nobody_stood_there(record: Record) -> None:
    record["hooked"] = {}


def dismissed_nothing(record: Record) -> None:
    record["controls"] = [c for c in record["controls"] if c["name"] != "dismiss"]


def drop_said_from_the_state(record: Record) -> None:
    record["views"]["values"][-1]["data"]["state"]["user_messages"] = []


def hears_on(record: Record) -> None:
    record["told"].append(copy.deepcopy(record["log"][-1]))


def goes_on_after_the_cancel(record: Record) -> None:
    custom = {"type": "custom", "data": {"name": "n", "value": 1}, "agent": "root"}
    rest = {"run_id": record["log"][0]["run_id"], "timestamp": 0.5}
    record["log"].insert(record["controls"][-1]["events"] + 1, {**custom, **rest})
    renumber(record)


BREAKS: list[tuple[str, Program, Callable[[Record], None]]] = [
    ("L1", BUSY, lambda record: record["log"][4].update(seq=9)),
    ("L1", BUSY, lambda record: record["log"][4].update(run_id="another")),
    ("L1", BUSY, data("done", "events", 3)),
    ("L2", BUSY, drop("done")),
    ("L2", BUSY, twice("done")),
    ("L2", BUSY, twice("run_start")),
    ("L2", FAILED, drop("error")),
    ("L2", FAILED, twice("error")),
    ("L2", FAILED, seen("outcome", lambda _: "completed")),
    ("L2", CUT_OFF, goes_on_after_the_cancel),
    ("L2", BUSY, seen("recorded", lambda count: count + 1)),
    ("L3", BUSY, drop("tool_call_end")),
    ("L3", BUSY, twice("tool_call_end")),
    ("L3", BUSY, drop("tool_call_start")),
    ("L3", BUSY, drop("agent_end")),
    ("L3", BUSY, drop("agent_start")),
    ("L3", BUSY, drop("input_resolved")),
    ("L3", BUSY, twice("message_complete")),
    ("L3", BUSY, data("message_complete", "content", "ab ")),
    ("L3", BUSY, drop("message_reset")),
    ("L3", BUSY, data("tool_call_end", "tool_name", "t9")),
    ("L10", BUSY, data("tool_call_end", "outcome", "denied", last=True)),
    ("L3", BUSY, swap("tool_call_start", "tool_progress")),
    ("L3", CUT_OFF, drop("message_complete")),
    ("L3", CUT_OFF, swap("tool_call_end", "message_complete")),
    ("L3", CUT_OFF, swap("agent_end", "input_resolved")),
    ("L4", BUSY, data("state_change", "old_status", "completed", last=True)),
    ("L4", BUSY, data("state_change", "new_status", "waiting_for_input")),
    ("L4", BUSY, data("done", "status", "cancelled")),
    ("L4", CUT_OFF, drop("state_change", last=True)),
    ("L6", BUSY, seen("peak", lambda _: 80)),
    ("L7", CUT_OFF, waits_longer),
    ("L8", BUSY, shows_too_little),
    ("L8", BUSY, shows_another_status),
    ("L10", FAILED, data("error", "error", "")),
    ("L10", FAILED, data("error", "source", "store")),
    ("L10", BUSY, cut_silently),
    ("L10", BUSY, ran_unapproved),
    ("L10", BUSY, ran_too_late),
    ("L10", BUSY, ran_with_others),
    ("L10", BUSY, data("message_complete", "finish_reason", "length")),
    ("L10", BUSY, data("approval_required", "arguments", {"n": 7})),
    ("L10", BUSY, data("custom", "value", {"number": 4, "value": 5})),
    ("L10", BUSY, seen("failed", lambda _: [{"call_id": "c1", "outcome": "error"}])),
    ("L10", BUSY, data("input_resolved", "text", "no")),
    ("L11", BUSY, message(0, content="other")),
    ("L11", BUSY, message(2, content="")),
    ("L11", BUSY, message(3, content="")),
    ("L11", BUSY, message(4, content="error: the call was cancelled")),
    ("L11", BUSY, message(4, tool_call_id="p9")),
    ("L11", BUSY, lambda record: record["messages"].pop(4)),
    ("L11", BUSY, lambda record: record["messages"].pop()),
    ("L11", FAILED, lambda record: record["messages"].pop()),
    ("L11", STEERED, was_refused),
    ("L11", STEERED, said_before),
    ("L11", STEERED, said_twice),
    ("L11", STEERED, never_said),
    ("L11", STEERED, drop("user_message")),
    ("L11", STEERED, twice("user_message")),
    ("L11", STEERED, data("user_message", "message", "other")),
    ("L11", LATE, drop("user_message")),
    ("L2", STEERED, lambda record: find(record, "user_message").update(agent="root/a")),
    ("L3", LATE, swap("user_message", "tool_call_end")),
    ("L8", STEERED, drop_said_from_the_state),
    ("L10", STEERED, edited_otherwise),
    ("L11", STEERED, edited_in_the_history_alone),
    ("L10", STEERED, data("input_resolved", "outcome", "timeout")),
    ("L10", STEERED, dismissed_nothing),
    ("L10", STEERED, left_otherwise("gave")),
    ("L10", STEERED, left_otherwise("denied")),
    ("L10", STEERED, left_otherwise("raised")),
    ("L10", REFUSED, nobody_stood_there),
    ("L10", REFUSED, data("tool_call_end", "outcome", "error", last=True)),
    ("L10", REFUSED, left_otherwise("gave")),
    ("L12", FAILED, data("error", "source", "internal")),
    ("L12", HEARD, hears_on),
    ("L12", HEARD, lambda record: record["told"].pop(3)),
    ("L12", HEARD, lambda record: record["told"].pop()),
    ("L12", HEARD, lambda record: record["told"][2]["data"].update(wrecked=True)),
    ("shape", BUSY, lambda record: find(record, "done")["data"].pop("leftover")),
]


GOOD = {
    "busy": BUSY,
    "cut off": CUT_OFF,
    "failed": FAILED,
    "steered": STEERED,
    "refused": REFUSED,
    "late": LATE,
    "heard": HEARD,
    "quoted": QUOTED,
}


@pytest.mark.parametrize("program", GOOD.values(), ids=GOOD)
def test_nothing_is_wrong_with_what_is_right(program: Program) -> None:
    assert problems_of(record_of(program)) == []


@pytest.mark.parametrize("number", range(len(BREAKS)))
def test_each_break_of_a_law_is_noticed(number: int) -> None:
    law, program, plant = BREAKS[number]
    record = record_of(program)

    plant(record)

    assert law in {problem.split()[0] for problem in problems_of(record)}


def call(key: str = "p1", name: str = "t1", arguments: str = "{}") -> dict[str, Any]:
    return {"id": key, "type": "function", "function": {"name": name, "arguments": arguments}}


USER = {"role": "user", "content": "go"}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": " "}],
        [USER, {"role": "assistant", "content": None}],
        [USER, {"role": "assistant", "content": None, "tool_calls": [call()]}],
        [USER, {"role": "assistant", "content": None, "tool_calls": [call()]}, USER],
        [USER, {"role": "tool", "tool_call_id": "p1", "content": "x"}],
        [USER, {"role": "assistant", "content": None, "tool_calls": [call(name="a.b")]}],
        [USER, {"role": "assistant", "content": None, "tool_calls": [call("x" * 41)]}],
        [USER, {"role": "assistant", "content": None, "tool_calls": [call(), call()]}],
        [USER, {"role": "assistant", "content": None, "tool_calls": [call(arguments="[")]}],
        [USER, {"role": "nobody", "content": "x"}],
        [USER, {"role": "assistant", "content": "\ud800"}],
        ["hi"],
    ],
)
def test_what_a_provider_would_refuse_is_noticed(messages: Any) -> None:
    assert list(flaws_of(messages))


def test_an_innocent_run_that_was_disturbed_is_noticed() -> None:
    log = play(Program()).innocent
    assert log is not None

    assert problems_of_innocent(log, copy.deepcopy(log)) == []
    assert problems_of_innocent(None, log)
    assert problems_of_innocent(log[:-1], log)
    assert problems_of_innocent([*log[:3], log[4], log[3], *log[5:]], log)


def test_a_program_that_never_ends_is_noticed() -> None:
    # The program's own fault: nobody can end a shield.
    stuck = Program(agent=("body", (("shield", (("sleep", 50_000.0),)),)), limits={"grace": 1})

    assert any("waits for ever" in problem for problem in try_out(stuck))
