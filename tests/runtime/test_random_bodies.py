"""Random bodies, cut off anywhere: what a conversation says is what the log says (L11)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from flowtrio import (
    Agent,
    AgentEvent,
    EventType,
    Limits,
    RunContext,
    StreamEngine,
    ToolCall,
    ToolFailed,
    tool,
)
from flowtrio._core._said import Said
from flowtrio._core._transcript import Transcript
from flowtrio.testing import ScriptedModel, check_events, check_messages

T = EventType
SEEDS = 200
NOT_RUN = "error: this call was not run"


@tool
async def quick(n: int) -> int:
    """Answer at once."""
    return n


@tool
async def slow(n: int, seconds: float = 2.0) -> str:
    """Take a while."""
    await trio.sleep(seconds)
    return f"slow {n}"


@tool
async def broken(n: int) -> None:
    """Fail."""
    raise ValueError(f"{n}")


@tool(needs_approval=True)
async def risky(n: int) -> str:
    """Need a person."""
    return f"risky {n}"


TOOLS = [quick, slow, broken, risky]
BY_NAME = {t.name: t for t in TOOLS}


class Program:
    """A body that does what the dice say; each call that a model makes has a number of its own."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.number = 0
        self.is_at_once = False

    def calls(self) -> list[ToolCall]:
        return [self._call() for _ in range(self.dice.randint(1, 3))]

    def _call(self) -> ToolCall:
        self.number += 1
        name = self.dice.choice([*BY_NAME, "functions.quick"])
        id = self.dice.choice(["", "same", f"id{self.number}", f"{self.number}" * 30])
        return ToolCall(id, name, {"n": self.number})

    def turn(self) -> list[Any]:
        """A reply of a model that may say something before it calls."""
        self.number += 1
        said = [f"text {self.number}"] if self.dice.random() < 0.5 else []
        return [*said, self.dice.choice([0.0, 1.0]), *self.calls()]

    async def __call__(self, ctx: RunContext, message: str) -> Any:
        await self.some(ctx, [self.say, self.ask, self.agent, self.delegate, self.at_once])
        return self.dice.choice([None, "the answer", {"an": "answer"}, f"text {self.number}"])

    async def some(self, ctx: RunContext, deeds: list[Any]) -> None:
        for _ in range(self.dice.randint(1, 4)):
            with trio.move_on_after(self.dice.choice([1.5, 50.0, 50.0])):
                await self.dice.choice(deeds)(ctx)

    async def at_once(self, ctx: RunContext) -> None:
        self.is_at_once = True
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(self.some, ctx, [self.say, self.ask, self.agent])
        self.is_at_once = False

    async def say(self, ctx: RunContext) -> None:
        self.number += 1
        async with ctx.message() as out:
            await out.write(f"text {self.number}")
            await trio.sleep(self.dice.choice([0.0, 1.0]))

    async def ask(self, ctx: RunContext) -> None:
        completion = await ctx.model(ctx.messages, ScriptedModel(self.turn()), TOOLS)
        if self.dice.random() < 0.4:
            await ctx.run_calls(completion, TOOLS)
            return
        for call in self.dice.sample(completion.tool_calls, len(completion.tool_calls)):
            await self.answer(ctx, call)

    async def answer(self, ctx: RunContext, call: ToolCall) -> None:
        called = BY_NAME.get(call.name, quick)
        try:
            match self.dice.randrange(4):
                case 0:
                    await ctx.call(called, call)
                case 1 if call.name in BY_NAME and not self.is_at_once:
                    # By its arguments a call is one of the last reply, which of two is not said.
                    await ctx.call(called, **call.arguments or {})
                case 2:
                    self.number += 1
                    await ctx.call(called, n=self.number)
                case _:
                    await self.say(ctx)
        except ToolFailed:
            pass

    async def agent(self, ctx: RunContext) -> None:
        self.number += 1
        model = ScriptedModel(self.turn(), [0.5, f"text {self.number}"])
        await Agent(llm_client=model, tools=TOOLS)(ctx, f"task {self.number}")

    async def delegate(self, ctx: RunContext) -> None:
        model = ScriptedModel(self.turn(), "nested words")
        await ctx.delegate(Agent(llm_client=model, tools=TOOLS), "nested", ctx.history)


async def play(seed: int) -> tuple[list[AgentEvent], list[dict[str, Any]]]:
    log: list[AgentEvent] = []
    dice = Random(-seed)
    ends_at = dice.choice([None, dice.randrange(60)])
    limits = Limits(approval=1, run=dice.choice([5, 1000]), buffer=dice.choice([1, 64]))
    async with StreamEngine(limits=limits).stream(Program(seed), "hi") as stream:
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START and dice.random() < 0.1:
                stream.cancel_tool(event.data["call_id"])
            if event.type is T.APPROVAL_REQUIRED and dice.random() < 0.5:
                dice.choice([stream.approve, stream.deny])(event.data["call_id"])
            if event.seq == ends_at:
                stream.cancel("enough")
    check_events(log)
    return log, stream.messages


def problems_of(log: list[AgentEvent], messages: list[dict[str, Any]]) -> Iterator[str]:
    """Where the conversation does not say what the log says."""
    try:
        check_messages(messages)
    except AssertionError as exc:
        yield str(exc)
        return
    ends = _ends_by_number(log)
    results = {m["tool_call_id"]: m["content"] for m in messages if m["role"] == "tool"}
    for call in [call for m in messages for call in m.get("tool_calls") or ()]:
        number, told = json.loads(call["function"]["arguments"])["n"], results[call["id"]]
        if not _agrees(ends.get(number), told):
            yield f"call {number} reads {told!r}, its END says {ends.get(number)}"
    said = Counter(m["content"] for m in messages if m["role"] == "assistant" and m["content"])
    heard = Counter(
        event.data["content"]
        for event in log
        if event.type is T.MESSAGE_COMPLETE and event.agent == "root" and event.data["content"]
    )
    result = log[-1].data["result"]
    if isinstance(result, str) and not said[result]:
        yield f"{result!r} was returned and is not in it"
    extra = [result] if isinstance(result, str) else [json.dumps(result, separators=(",", ":"))]
    if heard - said or said - heard - Counter(extra):
        yield f"heard {heard}, said {said}"


def _ends_by_number(log: list[AgentEvent]) -> dict[int, dict[str, Any]]:
    numbers: dict[str, int] = {}
    ends: dict[int, dict[str, Any]] = {}
    for event in log:
        data = event.data
        match event.type:
            case T.TOOL_CALL_START | T.APPROVAL_REQUIRED:
                numbers[data["call_id"]] = data["arguments"]["n"]
            case T.TOOL_CALL_END if numbers.get(data["call_id"]):
                ends[numbers[data["call_id"]]] = data
            case _:
                pass
    return ends


def _agrees(end: dict[str, Any] | None, told: str) -> bool:
    if end is None:
        # It never started: refused, cut off before its turn came, or left alone.
        return told.startswith("error: ")
    if end["outcome"] == "ok":
        return told == str(end["result"])
    word = {"cancelled": "cancelled", "denied": "denied"}.get(end["outcome"], str(end["error"]))
    return told.startswith("error: ") and word in told


def _alike(messages: list[dict[str, Any]]) -> Counter[tuple[str, Any]]:
    """What a log can know: no order among what was said at once, no tasks, no calls left alone."""
    return Counter(
        (m["role"], m["content"])
        for m in messages
        if m["role"] != "user" and m["content"] not in (None, NOT_RUN)
    )


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_a_conversation_says_what_the_log_says(first: int) -> None:
    for seed in range(first, first + 50):
        log, messages = trio.run(play, seed, clock=trio.testing.MockClock(autojump_threshold=0))

        assert list(problems_of(log, messages)) == [], f"seed {seed}"


def test_random_bodies_meet_all_endings() -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(SEEDS):
        log, messages = trio.run(play, seed, clock=trio.testing.MockClock(autojump_threshold=0))
        outcomes[log[-1].data["status"]] += 1
        outcomes.update(e.data["outcome"] for e in log if e.type is T.TOOL_CALL_END)
        outcomes.update(m["content"] for m in messages if m["content"] == NOT_RUN)

    assert min(outcomes[word] for word in ("completed", "cancelled", "error", "ok")) > 10
    assert min(outcomes[word] for word in ("denied", "timeout", NOT_RUN)) > 10


def _settles(right: Any) -> Any:
    def note_message(it: Transcript, data: dict[str, Any]) -> None:
        it._book.open.clear()
        right(it, data)

    return note_message


def _says_cancelled(right: Any) -> Any:
    def note_result(it: Transcript, data: dict[str, Any], *shown: Any) -> None:
        right(it, {**data, "outcome": "cancelled"}, *shown)

    return note_result


def _forgets_parts(right: Any) -> Any:
    def end(it: Transcript) -> None:
        it._entries.clear()
        right(it)

    return end


def _keeps_answers(right: Any) -> Any:
    return lambda it, value: None


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("note_message", _settles),
        ("note_result", _says_cancelled),
        ("end", _forgets_parts),
        ("answer", _keeps_answers),
    ],
)
def test_a_transcript_that_says_something_else_is_noticed(
    name: str, plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bugs."""
    monkeypatch.setattr(Transcript, name, plant(getattr(Transcript, name)))
    noticed = 0
    for seed in range(50):
        log, messages = trio.run(play, seed, clock=trio.testing.MockClock(autojump_threshold=0))
        noticed += any(True for _ in problems_of(log, messages))

    assert noticed > 3


def _has_a_call_of_nobody(log: list[Any]) -> bool:
    told = {e.data["call_id"] for e in log if e.type in (T.TOOL_CALL_ARGS, T.TOOL_CALL_START)}
    others = {e.data["call_id"] for e in log if e.type in (T.APPROVAL_REQUIRED, T.TOOL_CALL_END)}
    return bool(others - told)


def test_a_log_says_what_its_run_said() -> None:
    compared = 0
    for seed in range(50):
        log, messages = trio.run(play, seed, clock=trio.testing.MockClock(autojump_threshold=0))
        if any(e.type is T.MESSAGE_COMPLETE and "parent_call_id" not in e.data for e in log):
            # A log of the first schema does not tell whose words they are.
            continue
        if _has_a_call_of_nobody(log):
            # It does not tell who made that call.
            continue
        compared += 1
        said = Said()
        for event in log:
            said.add(event)

        assert _alike(said.messages()) == _alike(messages), f"seed {seed}"

    assert compared > 25
