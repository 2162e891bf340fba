"""The programs reach what they are for: what never happens in them proves nothing.

A store of ours once failed every append, and every hosted run kept the law by ending at once.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from . import world as world_module
from .judge import KEYS
from .programs import Program, draw
from .trial import try_out
from .world import play

PROGRAMS = 1500


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What happened in many programs, by name."""
    counts: Counter[str] = Counter()
    verbs = dict(world_module._DO)

    def counted(name: str) -> Any:
        def do(*args: Any) -> Any:
            counts[f"statement {name}"] += 1
            return verbs[name](*args)

        return do

    with pytest.MonkeyPatch.context() as patch:
        for name in verbs:
            patch.setitem(world_module._DO, name, counted(name))
        for seed in range(PROGRAMS):
            program = draw(seed)
            world = play(program)
            form = program.policy["form"]
            for record in world.records():
                counts["runs"] += 1
                counts["whole"] += record["whole"]
                for event in record["log"]:
                    _count(counts, event, form)
                for control in record["controls"]:
                    counts[f"control {control['name']} {control['took']}"] += 1
                for effect in record["effects"]:
                    counts[f"effect {effect['kind']}"] += 1
                counts["told of a call that failed"] += len(record["failed"])
                _count_people(counts, record)
            for watch in world.watches:
                counts.update({f"hook {what}": times for what, times in watch.hooks.items()})
            counts["waited in reach"] += sum(bool(reach) for reach, _, _ in world.waits)
            counts["store struck"] += world.has_struck
            counts.update({f"telemetry {what}": n for what, n in world.telemetry.items()})
            counts["telemetry was told"] += len(world.told)
    return counts


def _count(counts: Counter[str], event: dict[str, Any], form: str) -> None:
    counts[event["type"]] += 1
    if event["type"] in ("tool_call_end", "agent_end", "input_resolved"):
        counts[f"{event['type']} {event['data']['outcome']}"] += 1
    if event["type"] == "done":
        counts[f"{form} {event['data']['status']}"] += 1


def _count_people(counts: Counter[str], record: dict[str, Any]) -> None:
    for post in record["posts"]:
        counts[f"post {post['took']}{' interrupting' if post['interrupt'] else ''}"] += 1
    for effect in record["effects"]:
        if effect["kind"] == "request" and effect["heard"]:
            counts["heard, and judged" if record["strict"] and effect["is_root"] else "heard"] += 1
    for event in record["log"]:
        key = event["data"].get("call_id")
        counts["edited START"] += event["type"] == "tool_call_start" and key in record["edits"]
        counts[f"reset {event['data'].get('reason')}"] += event["type"] == "message_reset"
    for hooked in record["hooked"].values():
        counts[f"hooked {hooked['how']}"] += 1


def test_every_statement_is_performed(seen: Counter[str]) -> None:
    assert [name for name in world_module._DO if not seen[f"statement {name}"]] == []


def test_every_event_is_told(seen: Counter[str]) -> None:
    assert [kind for kind in KEYS if not seen[kind]] == []


@pytest.mark.parametrize(
    ("what", "least"),
    [
        *((f"control {name} True", 5) for name in ("cancel", "cancel_tool", "approve", "deny")),
        ("control answer True", 3),
        *(
            (f"tool_call_end {how}", 20)
            for how in ("ok", "error", "timeout", "cancelled", "denied")
        ),
        *((f"agent_end {how}", 10) for how in ("ok", "error", "cancelled")),
        *((f"input_resolved {how}", 1) for how in ("answered", "timeout", "cancelled")),
        *(("input_resolved declined", 5), ("control dismiss True", 5), ("effect declined", 5)),
        *(("post True", 40), ("post True interrupting", 20), ("post False", 100)),
        *(("heard", 5), ("heard, and judged", 30), ("user_message", 60)),
        *(("edited START", 20), ("reset again", 20), ("reset replaced", 5)),
        *((f"hooked {how}", 10) for how in ("gave", "raised")),
        ("hooked denied", 5),
        *((f"hook {what}", 20) for what in ("proceed", "swallow", "two at once", "mutate")),
        *((f"hook {what}", 5) for what in ("deny", "raise", "give", "ask more", "perform")),
        *((f"hook toolset {how}", 5) for how in ("gives", "nothing")),
        ("hook toolset raises", 2),
        ("hook swallowed", 5),
        *((f"{form} completed", 20) for form in ("block", "bare", "engine")),
        *((f"{form} completed", 10) for form in ("orchestrator", "hosted")),
        *((f"effect {kind}", 50) for kind in ("tool", "agent", "request")),
        ("told of a call that failed", 50),
        ("waited in reach", 200),
        ("store struck", 20),
        ("telemetry was told", 2000),
        *((f"telemetry {what}", 10) for what in ("control", "post", "raise", "wreck", "nap")),
        *((f"telemetry {what}", 5) for what in ("refused", "has no keys")),
        ("whole", 1000),
    ],
)
def test_what_has_to_happen_happens_often_enough(seen: Counter[str], what: str, least: int) -> None:
    assert seen[what] >= least


# Each of these broke a law, or the process, once.


def _tool(name: str, options: dict[str, Any], *statements: Any) -> tuple[Any, ...]:
    return ("tool", name, options, statements)


def _calls(*names: str) -> tuple[Any, ...]:
    calls = tuple((f"p{n}", name, {"n": n}) for n, name in enumerate(names, 1))
    return (("final", calls, "tool_calls"),)


_PAY = _tool("t2", {"needs_approval": True}, ("sleep", 1.0))
_SHIELDED = ("call", _tool("t1", {}, ("shield", (("call", _PAY, {"n": 2}),))), {"n": 1})
_OTHER_NAME = (("args", 0, "p1", "web", {}), ("final", (("p1", "t1", {}),), "tool_calls"))
_SPEAKS = _tool("t1", {}, ("message", (("write", "w"),)), ("return", "said"))
_ASKS = _tool("t1", {"needs_approval": True})
_CALLS_ONE = _tool("t1", {}, ("call", _tool("t3", {}, ("shield", (("result_main",),))), {"n": 2}))
_BUT_ONE = {"buffer": 1}


def _clicked(first: float, control: str) -> Program:
    """`c1` is ended, and then something is done about the call inside it."""
    return Program(
        agent=("body", (_SHIELDED,)),
        policy={"approve": None, "pause": 0.5},
        limits=_BUT_ONE,
        clicks=((first, ("control", "cancel_tool", "c1")), (0.0, ("control", control, "c2"))),
    )


KNOWN = {
    "a shielded call goes on when its caller was ended": _clicked(1.1, "approve"),
    "a nested call is ended after its caller": _clicked(2.1, "cancel_tool"),
    "a call's name differs from the streamed one": Program(
        agent=("agent", ("client", {}, (_OTHER_NAME,)), ())
    ),
    "a tool speaks": Program(agent=("agent", ("client", {}, (_calls("t1"),)), (_SPEAKS,))),
    "a body runs a reply's calls": Program(
        agent=("body", (("model_and_calls", ("client", {}, (_calls("t1"),)), (_SPEAKS,)),))
    ),
    "a body returns a text": Program(agent=("body", (("return", "said"),))),
    "a call is denied with True": Program(
        agent=("body", (("call", _ASKS, {"n": 1}),)),
        policy={"approve": None},
        clicks=((0.5, ("control", "deny", "c1", True)),),
    ),
    "a reader edits what is to be approved": Program(
        agent=("body", (("call", _ASKS, {"n": 1}),)), policy={"approve": True, "mutates": True}
    ),
    "messages are opened before a reader that waits": Program(
        agent=("body", (("messages", 30),)), policy={"pause": 20.0}, limits={"buffer": 4}
    ),
    "a model is asked again and again before a reader that waits": Program(
        agent=("body", (("model", ("client", {"shape": "raises", "failure": 0}, ((),)), 30),)),
        policy={"pause": 20.0},
        limits={"buffer": 4},
    ),
    "a log handler raises": Program(engine={"log": "handler"}, policy={"form": "bare"}),
    "a log filter raises": Program(engine={"log": "filter"}),
    "a wall clock raises": Program(engine={"wall_clock": "raises"}),
    "a wall clock tells no time": Program(engine={"wall_clock": "text"}, policy={"form": "engine"}),
    "a tool is called after the end": Program(
        agent=(
            "body",
            (("finally", (("sleep", 3.0),), (("shield", (("call", _SPEAKS, {"n": 1}),)),)),),
        ),
        clicks=((0.5, ("control", "cancel", None)),),
    ),
    "the user says nothing": Program(message=""),
    "a run is closed from inside": Program(agent=("body", (("aclose_main",),))),
    "a start waits while its call is ended": Program(
        agent=(
            "body",
            (
                ("start_soon", (("call", _tool("t1", {"needs_approval": "asks"}), {"n": 1}),)),
                (
                    "call",
                    _tool("t5", {}, ("call", _tool("t4", {"needs_approval": "asks"}), {"n": 3})),
                    {"n": 2},
                ),
            ),
        ),
        reader=((7, ("control", "cancel_tool", ("open", -1))),),
        policy={"approve": True},
        limits=_BUT_ONE,
    ),
    "a question is answered while its timeout waits for the reader": Program(
        agent=("body", (("messages", 3), ("foreign", "reader", (("ask", ""),)), ("ask", ""))),
        policy={"answer": "late", "pause": 1.0},
        limits={"input": 1, "buffer": 4},
    ),
    "a task outside waits for the result behind a shield": Program(
        agent=(
            "agent",
            ("client", {}, (_calls("t1"),)),
            (_tool("t1", {}, ("foreign", "system", (("call", _CALLS_ONE, {"n": 1}),))),),
        )
    ),
    "a client raises what Python makes another exception of": Program(
        agent=("body", (("delegate", ("agent", ("client", {}, ((("raise", 7),),)), ())),))
    ),
    "a reply that was cut has calls": Program(
        agent=(
            "agent",
            ("client", {}, ((("final", (("p1", "t1", {"n": 1}),), "length"),),)),
            (_SPEAKS,),
        )
    ),
    # Gaps of the judge: it must not find anything there.
    "an interrupt while the store takes the end of the log at no try": Program(
        agent=("body", (("raise", "interrupt", 1),)),
        policy={"form": "hosted"},
        engine={"store": ((3, "raises"), (4, "group"))},
    ),
    "a telemetry that raises in what it does while it is told, and behind that": Program(
        agent=(
            "body",
            (
                (
                    "call",
                    ("tool", "t4", {}, (("await_agent", ("agent", ("client", {}, ()), (), ())),)),
                    {"n": 1},
                ),
            ),
        ),
        engine={
            "telemetry": (
                (4, ("raise", 0)),
                (3, ("control", "cancel_tool", ("open", 2))),
                (3, ("raise", 9)),
            )
        },
    ),
}


@pytest.mark.parametrize("what", KNOWN)
def test_what_broke_a_law_once_keeps_it(what: str) -> None:
    assert try_out(KNOWN[what]) == []
