"""Hostile programs: trees of statements over the public verbs, drawn from a seed.

A program is plain tuples, so that its repr runs: `world.play(Program(...))` does what a seed did.
Every statement is ``(name, *arguments)``; what they mean stands in `world`. Lists of statements are
tuples. Two kinds of agent: ``("body", statements)`` and ``("agent", client, tools, hooks)``. A
client is ``("client", options, turns)``, each turn a tuple of pieces, a tool ``("tool", name,
options, statements)``, a toolset ``("toolset", options, tools)``; what hooks are stands in `hooks`.
Tools have names of their own in the whole program, and what may be counted has a number of its own,
so that the judge can tell one from another.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

import attrs

from . import odd

Statement: TypeAlias = tuple[Any, ...]
Statements: TypeAlias = tuple[Statement, ...]

TIMES = (0.0, 0.0, 0.1, 0.5, 1.0, 3.0)
MODES = ("events", "updates", "messages", "values")
CONTROLS = (
    *("cancel", "cancel_tool", "cancel_tool", "cancel_tool", "cancel_tool"),
    *("approve", "approve", "approve", "deny", "answer", "answer"),
)
IDS = ("c1", "c2", "c3", "q1", "m1", "nothing")
OPEN = tuple(("open", place) for place in (0, 0, 1, 2, -1, -1))
"""A call or question that is open by then, by its place among them."""
POSTED_AT = (
    *("message_chunk", "message_chunk", "message_complete", "tool_call_start", "tool_call_start"),
    *("tool_call_end", "state_change", "input_required", "approval_required", "run_start"),
)
"""Events at which a reader says something of its own."""
SCHEMAS = ("whole", "list", "json", "choice")
"""Types and schemas of questions, see `people`."""
NAMES = ("web", "functions.get_weather", "", "\ud800", "x" * 70, "t1", "t2")
PROVIDER_IDS = ("p1", "p2", "p3", "", "p1", "chatcmpl-tool-" + "9" * 32, "\ud800")


@attrs.frozen
class Program:
    """What one hostile run does. The defaults do nothing hostile."""

    agent: tuple[Any, ...] = ("body", ())
    message: str = "go"
    reader: tuple[tuple[int, Statement], ...] = ()
    """What the reader does before it reads the event of a number."""
    policy: dict[str, Any] = attrs.Factory(dict)
    """How it reads: ``form`` (block, bare, engine,
    orchestrator, hosted), ``mode``, ``approve``, ``answer``, ``pause``,
    ``batch``, ``mutates``, ``poll``, ``patience``, and what a person does:
    ``edits``, ``dismisses``, ``posts``."""
    clicks: tuple[tuple[float, Statement], ...] = ()
    """What the outside does at a time."""
    limits: dict[str, Any] = attrs.Factory(dict)
    engine: dict[str, Any] = attrs.Factory(dict)
    """What of the surroundings is hostile: ``log``, ``wall_clock``, ``store`` (of an orchestrator),
    ``telemetry``, and what there is besides: ``prices``, ``history``, ``hooks``."""
    schedule: int = 0
    """Seed of Trio's scheduler."""


def draw(seed: int) -> Program:
    """Make up the program of a seed."""
    return _Pen(Random(seed)).program(seed)


def draw_with_threads(seed: int) -> Program:
    """Make up one for the real clock: short times, plain tools, and clicks from worker threads."""
    return _Pen(Random(seed), threads=True).program(seed)


class _Pen:
    """Writes one program."""

    def __init__(self, source: Random, *, threads: bool = False) -> None:
        self.source = source
        self.left = source.choice((4, 8, 14, 22))
        # Most programs have some of the vices, few have all: what dies at once reaches nothing.
        self.raises = source.randrange(3) == 0
        self.lies = source.randrange(3) == 0
        self.numbers = 0
        self.tools = 0
        self.threads = threads

    def number(self) -> int:
        """A number that nothing else in the program has."""
        self.numbers += 1
        return self.numbers

    def odds(self, of: int) -> bool:
        """Once in *of* times."""
        return self.source.randrange(of) == 0

    def pick(self, *among: Any) -> Any:
        return self.source.choice(among)

    def time(self) -> float:
        time: float = self.source.choice(TIMES)
        return time / 100 if self.threads else time

    # The whole

    def program(self, seed: int) -> Program:
        agent = self.agent(0)
        drops = self.odds(12)
        policy: dict[str, Any] = {"form": self.pick("block", "block", "bare", "engine")}
        if self.odds(8):
            policy["form"] = self.pick("orchestrator", "hosted")
        policy["approve"] = self.pick(True, True, False, None)
        policy["answer"] = self.pick("yes", None, "\ud800")
        if policy["approve"] and not self.odds(3):
            policy["edits"] = self.pick("fits", "fits", "unfit", "odd")
        if self.odds(3):
            policy["dismisses"] = self.pick(None, "no idea", "\ud800")
        if self.odds(3):
            policy["posts"] = tuple(self.posted_at() for _ in range(self.pick(1, 1, 2, 4)))
        if self.odds(4):
            policy["pause"] = self.time()
        if self.odds(6):
            policy["batch"] = True
        if self.odds(3):
            policy["mutates"] = True
        if self.odds(5):
            policy["poll"] = self.pick(0.2, 0.01)
        if self.odds(8):
            policy["mode"] = self.pick(*MODES)
        if self.odds(8):
            policy["patience"] = self.pick(0.0, 0.5, 2.0) / (100 if self.threads else 1)
        if drops and policy["form"] not in ("orchestrator", "hosted"):
            policy["form"] = self.pick("bare", "engine")
        reader = tuple(
            (self.source.randrange(14), self.read_step())
            for _ in range(self.pick(0, 0, 1, 1, 2, 3))
        )
        if policy["form"] in ("bare", "engine") and drops:
            reader = (*reader, (1 + self.source.randrange(8), ("drop",)))
        return Program(
            agent=agent,
            message="go" if not self.odds(20) else self.pick("", " ", "\ud800", "parts"),
            reader=reader,
            policy=policy,
            clicks=tuple((self.time(), self.click()) for _ in range(self.pick(0, 1, 2, 3, 5))),
            limits=self.limits(),
            engine=self.engine(),
            schedule=seed,
        )

    def limits(self) -> dict[str, Any]:
        scale = 0.01 if self.threads else 1
        return {
            "run": self.pick(*(100,) * 8, 2, 0.3) * scale,
            "tool": self.pick(50, 50, 0.7) * scale,
            "approval": self.pick(1, 1, 20) * scale,
            "input": self.pick(1, 1, 20) * scale,
            "grace": self.pick(5, 0.2) * scale,
            "parallel_tools": self.pick(8, 2, 1, 1),
            "buffer": self.pick(64, 4, 1, 1),
            "turns": self.pick(4, 4, 4, 4, 1),
        }

    def engine(self) -> dict[str, Any]:
        what: dict[str, Any] = {}
        if self.odds(6):
            what["log"] = self.pick("handler", "filter", "interrupting")
        if self.odds(12):
            what["wall_clock"] = self.pick("raises", "nan", "text")
        if self.odds(8):
            what["prices"] = self.pick("1.5", "1e9", "1e-9")
        if self.odds(8):
            what["history"] = True
        if self.odds(6):
            what["hooks"] = self.hooks(3)
        if self.odds(2):
            what["store"] = tuple(
                (1 + self.source.randrange(8), self.pick("raises", "raises", "group", "slow"))
                for _ in range(self.pick(1, 1, 2, 4))
            )
        # Last, so that what is drawn before is as it was.
        if self.odds(4):
            what["telemetry"] = tuple(
                (self.source.randrange(14), self.heard_act()) for _ in range(self.pick(1, 2, 3))
            )
        return what

    def heard_act(self) -> Statement:
        """What a telemetry does at an event."""
        match self.source.randrange(12):
            case 0 | 1:
                return ("raise", self.source.randrange(len(odd.FAILURES)))
            case 2 | 3:
                return ("wreck",)
            case 4:
                return ("nap",)
            case 5:
                return self.pick(("refuse",), ("no keys",))
            case _:
                return self.click()

    # Readers and others outside

    def read_step(self) -> Statement:
        match self.source.randrange(18):
            case 0 | 1:
                return ("break",)
            case 2:
                return ("raise", self.source.randrange(len(odd.FAILURES)))
            case 3:
                return ("pause", self.pick(0.3, 2.0, 20.0) / (100 if self.threads else 1))
            case 4:
                return ("second_reader",)
            case 5:
                return ("aclose",)
            case 6:
                return ("result",)
            case 7:
                return ("result_beside",)
            case 8:
                return ("again",)
            case _:
                return self.click()

    def click(self) -> Statement:
        return self.post() if self.odds(5) else self.control()

    def post(self) -> Statement:
        """Something that the user says while the run goes on."""
        what = self.pick(*("text",) * 6, "parts", "\ud800", "", 5)
        return ("post", what, self.odds(3))

    def posted_at(self) -> tuple[Any, ...]:
        return (self.pick(*POSTED_AT), self.pick(1, 1, 2, 3), self.post())

    def control(self) -> Statement:
        name = self.pick(*CONTROLS)
        key: Any = self.pick(*OPEN)
        if self.odds(8):
            key = ("odd", self.source.randrange(len(odd.IDS)))
        elif self.odds(5):
            key = self.pick(*IDS)
        match name:
            case "cancel":
                return (
                    "control",
                    name,
                    self.pick(None, "enough", key if key[0] == "odd" else None),
                )
            case "deny":
                extra = self.pick(None, "no", True, ("odd", self.source.randrange(len(odd.IDS))))
                return ("control", name, key, extra)
            case "answer":
                return ("control", name, key, self.pick("yes", "\ud800", None, 5))
            case _:
                return ("control", name, key)

    # Agents, clients and tools

    def agent(self, depth: int) -> tuple[Any, ...]:
        if self.odds(2):
            tools = tuple(self.tool(depth + 1) for _ in range(self.pick(0, 1, 1, 2)))
            client = self.client(depth, tools)
            if tools and self.odds(4):
                tools = (*tools[1:], self.toolset(tools[:1]))
            hooks = self.hooks(depth) if self.odds(3) else ()
            return ("agent", client, tools, hooks)
        return ("body", self.statements(depth))

    def toolset(self, tools: tuple[Any, ...]) -> tuple[Any, ...]:
        """Tools that come and go: of each turn, what the toolset does in it."""
        often = "raises" if self.raises else "gives"
        turns = tuple(
            self.pick("gives", "gives", "gives", "gives", "nothing", often)
            for _ in range(self.pick(1, 2, 4))
        )
        return ("toolset", {"turns": turns, "seconds": self.time()}, tools)

    # What stands around tools and models

    def hooks(self, depth: int) -> tuple[Any, ...]:
        which = self.pick(("tool",), ("model",), ("tool", "model"))
        return tuple(self.hook(kind, depth) for kind in which)

    def hook(self, kind: str, depth: int) -> tuple[Any, ...]:
        """What one does, each time that it is asked."""
        acts: list[Any] = []
        for _ in range(self.pick(0, 1, 1, 1, 1, 2)):
            acts += self.before(depth)
            swallows = ("swallow", self.pick("cancelled", "base"))
            acts.append(self.pick(*(("proceed",),) * 4, swallows))
        acts += self.before(depth)
        match self.source.randrange(7):
            case 0:
                acts.append(("give", self.pick(*HOOKED[kind])))
            case 1 if self.raises:
                acts.append(("raise", self.source.randrange(len(odd.FAILURES))))
            case 2 | 4 if kind == "tool" or self.raises:
                acts.append(("deny", self.pick("no", "", "\ud800")))
            case 3:
                acts.append(("mutate",))
            case _:
                pass
        return ("hook", kind, tuple(acts))

    def before(self, depth: int) -> list[Any]:
        """What one does before it goes on, or instead of it."""
        match self.source.randrange(10):
            case 0:
                return [("sleep", self.time())]
            case 1:
                return [("mutate",)]
            case 2:
                return [("perform", self.statements(depth + 1))]
            case 3:
                return [("two at once",)]
            case 4:
                return [("ask more",)]
            case _:
                return []

    def client(self, depth: int, tools: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        options: dict[str, Any] = {}
        if self.odds(3):
            options["shape"] = self.pick("object", "coroutine", "object")
            if self.lies and self.odds(3):
                options["shape"] = self.pick("raises", "nothing")
            if options["shape"] == "raises":
                options["failure"] = self.source.randrange(len(odd.FAILURES))
        if self.odds(4):
            options["aclose"] = self.pick("raises", "hangs", "swallows", "sync", "absent", "shield")
        if self.odds(8):
            options["gap"] = self.pick(0.2, 1.0)
        turns = tuple(self.turn(tools) for _ in range(self.pick(1, 1, 2, 3)))
        return ("client", options, turns)

    def turn(self, tools: tuple[Any, ...]) -> tuple[Any, ...]:
        pieces: list[Any] = []
        for _ in range(self.pick(0, 1, 1, 2, 3)):
            pieces.append(self.piece())
        calls: list[Any] = []
        if tools and not self.odds(4):
            for _ in range(self.pick(1, 1, 2, 3)):
                calls.append(self.written(pieces, tools))
        if self.odds(4):
            pieces.append(self.piece())
        match self.source.randrange(14) if self.lies else 2 + self.source.randrange(20):
            case 0:
                pass  # no final chunk
            case 1:
                pieces.append(("raise", self.source.randrange(len(odd.FAILURES))))
            case 2:
                finish = self.pick("length", "content_filter", "nonsense", None)
                pieces.append(("final", tuple(calls), finish))
            case 3:
                pieces.append(("final", tuple(calls), "tool_calls" if calls else "stop"))
                pieces.append(self.piece())
                pieces.append(("final", (), "stop"))
            case _:
                pieces.append(("final", tuple(calls), "tool_calls" if calls else "stop"))
        if self.raises and self.odds(5):
            pieces.insert(self.source.randrange(len(pieces) + 1), ("raise", 0))
        return tuple(pieces)

    def piece(self) -> tuple[Any, ...]:
        match self.source.randrange(0 if self.lies else 1, 12):
            case 0:
                return ("odd", self.source.randrange(len(odd.CHUNKS)))
            case 1:
                return ("reset", self.pick("again", ""))
            case 2:
                return ("reasoning", "hm")
            case 3:
                return ("part", self.pick("citation", "call", "result", "refusal"))
            case 4 | 5:
                return ("sleep", self.time())
            case 6:
                return ("args", self.source.randrange(3), self.pick(*PROVIDER_IDS), "t1", "{")
            case _:
                return ("text", self.pick("a", "b ", "é"))

    def written(self, pieces: list[Any], tools: tuple[Any, ...]) -> tuple[Any, ...]:
        """A call of a reply, its fragments put among the pieces; the two need not agree."""
        known = self.source.choice(tools)[1]
        name = known if not (self.lies and self.odds(3)) else self.pick(*NAMES)
        provider_id = self.pick(*PROVIDER_IDS)
        number = self.number()
        arguments: Any = {"n": number}
        if self.odds(8):
            arguments = self.pick(None, {}, {"n": "x"}, {"n": number, "zz": 1}, {"n": 1.5})
        elif self.odds(3):
            arguments = {"n": number, "data": {"list": [number]}}
        if self.odds(2):
            index = len([p for p in pieces if p[0] == "args"])
            streamed = name if not self.odds(6) else self.pick(known, *NAMES)
            pieces.append(("args", index, provider_id, streamed, arguments))
        return (provider_id, name, arguments)

    def tool(self, depth: int) -> tuple[Any, ...]:
        self.tools += 1
        options: dict[str, Any] = {}
        if self.odds(3):
            options["needs_approval"] = self.pick(True, True, "asks", "raises", "mutates")
        for option, often, values in (
            ("fatal", 8, (True,)),
            ("timeout", 6, (0.5, 2.0)),
            ("retries", 8, (1, 2)),
            ("concurrency", 10, (1,)),
        ):
            if self.odds(often):
                options[option] = self.pick(*values)
        if self.threads and "timeout" in options:
            options["timeout"] /= 100
        if self.threads and self.odds(2):
            options["plain"] = True
            if self.odds(4):
                options["abandon"] = True
        statements = self.statements(depth)
        if self.odds(2):
            # Else it has ended before anybody can do something about it.
            statements = (*statements, ("sleep", self.time() + self.time()))
        return ("tool", f"t{self.tools}", options, statements)

    # Statements

    def statements(self, depth: int) -> Statements:
        written: list[Statement] = []
        for _ in range(self.pick(1, 1, 2, 2, 3, 4)):
            if self.left <= 0:
                break
            self.left -= 1
            written.append(self.statement(depth))
        return tuple(written)

    def statement(self, depth: int) -> Statement:
        if depth < 5 and not self.odds(3):
            inside: Callable[[int], Statement] = self.source.choice(_INSIDE)
            return inside(self, depth + 1)  # type: ignore[call-arg, arg-type]
        return self.simple()

    def simple(self) -> Statement:
        match self.source.randrange(28):
            case 0 | 1 | 2 | 3 | 24 | 25 | 26 | 27:
                return ("sleep", self.time())
            case 4:
                return ("checkpoint",)
            case 5:
                return ("status", self.pick("busy", "busy", "", "\ud800", 5))
            case 6:
                return ("progress", self.number(), self.value())
            case 7 | 8:
                return ("custom", self.number(), self.value())
            case 9:
                return ("message", (("write", "w"), ("write", "v")))
            case 10:
                return self.pick(("open_message",), ("write_kept", "k"), ("close_kept",))
            case 11:
                return ("approve", self.pick("pay", "\ud800", ""))
            case 12:
                schema = self.pick(None, *SCHEMAS)
                return ("ask", self.pick("who?", "", "\ud800", 5, "how many?"), schema)
            case 13 | 14:
                return self.click()
            case 15 if not self.raises:
                return ("approve", "pay")
            case 16 if not self.raises:
                return ("ask", "how many?", self.pick(None, *SCHEMAS))
            case 15:
                return ("raise", "failure", self.source.randrange(len(odd.FAILURES)))
            case 16:
                if self.odds(4):
                    return ("raise", "interrupt", self.source.randrange(len(odd.INTERRUPTS)))
                return ("raise", "failure", 0)
            case 17:
                return ("raise_kept",)
            case 18:
                shown = ("odd", self.pick(-4, -3))
                return ("return", self.pick("said", "", None, ("odd", self.value() or 0), shown))
            case 19:
                return ("mutate",)
            case 20:
                return self.pick(
                    ("aclose_main",), ("aclose_main",), ("read_main",), ("result_main",)
                )
            case 21:
                return ("messages", self.pick(3, 30))
            case _:
                return ("message", (("write", "x"), ("sleep", self.time())))

    def value(self) -> int | None:
        return self.source.randrange(len(odd.VALUES)) if self.odds(2) else None

    def call(self, depth: int) -> Statement:
        arguments: Any = {"n": self.number()}
        if self.odds(10):
            odd_one = {"n": self.number(), "data": ("odd", self.value() or 0)}
            arguments = self.pick({}, {"n": "x"}, odd_one)
        return ("call", self.tool(depth), arguments)

    def delegate(self, depth: int) -> Statement:
        return (self.pick("delegate", "delegate", "await_agent"), self.agent(depth))

    def model(self, depth: int) -> Statement:
        if self.odds(2):
            tools = (self.tool(depth),)
            return ("model_and_calls", self.client(depth, tools), tools)
        return ("model", self.client(depth), self.pick(0, 0, 1, 8))

    def nursery(self, depth: int) -> Statement:
        return ("nursery", tuple(self.statements(depth) for _ in range(self.pick(1, 2, 2, 3))))

    def around(self, depth: int) -> Statement:
        statements = self.statements(depth)
        match self.source.randrange(9):
            case 0 | 1 | 8:
                return ("shield", statements)
            case 2:
                return ("timeout", self.time(), statements)
            case 3 | 4:
                what = self.pick("cancelled", "base", "exception")
                return ("swallow", what, statements, self.statements(depth))
            case 5 | 6:
                return ("finally", statements, (("shield", self.statements(depth)),))
            case _:
                return ("message", (("write", "w"), *statements))

    def background(self, depth: int) -> Statement:
        if self.odds(2):
            return ("start_soon", self.statements(depth))
        where = self.pick("system", "reader", "run", "late")
        return ("foreign", where, self.statements(depth))

    def stream(self, depth: int) -> Statement:
        form = self.pick("block", "bare", "left open")
        steps = ((self.source.randrange(6), self.read_step()),) if self.odds(2) else ()
        return ("stream", form, self.agent(depth), steps)


HOOKED = {"tool": (None, "said", 3, 18, 4), "model": ("said", "", "same", "calls", "nothing")}
"""What hooks give instead: of a tool, a value by its number or a text; of a model, a kind."""

_INSIDE = (
    *(_Pen.call, _Pen.call, _Pen.call, _Pen.delegate, _Pen.delegate, _Pen.model, _Pen.model),
    *(_Pen.nursery, _Pen.around, _Pen.around, _Pen.around, _Pen.background, _Pen.stream),
)
