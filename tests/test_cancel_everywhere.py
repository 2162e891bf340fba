"""Whatever moment a cancellation or a failure comes at, the log is lawful, and nothing lives on.

Five reference programs. Each is cancelled before every step of Trio's scheduler, each of its tools
fails at every place where it waits, and each reply of its model breaks off after every chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from flowtrio import Agent, Chunk, EventType, RunContext, StreamEngine, ToolCall, tool
from flowtrio.testing import (
    CUT,
    Fault,
    Reader,
    SimulatedFailure,
    SimulatedModel,
    SimulatedRun,
    check_events,
    simulate,
)
from flowtrio.testing import _simulate as module

# Reference programs


@tool
async def slow(ctx: RunContext) -> str:
    """Work for a while, and tell of it."""
    await ctx.progress({"done": 0})
    await trio.sleep(1)
    return "slow"


@tool
async def broken() -> str:
    """Fail."""
    raise ValueError("planted")


@tool(needs_approval=True)
async def risky(ctx: RunContext) -> str:
    """Ask first, and in the midst."""
    return await ctx.ask("Sure?")


def _calls(*names: str) -> list[Any]:
    return [ToolCall(f"p{place}", name, {}) for place, name in enumerate(names)]


async def helper(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        await out.write("helping")
        await trio.sleep(0.5)
    return message


async def everything(ctx: RunContext, message: str) -> str:
    async def later() -> None:
        await trio.sleep(0.2)
        await ctx.custom("later", 1)

    ctx.start_soon(later)
    await ctx.status("at work")
    await ctx.call(slow)
    return str(await ctx.delegate(helper, message))


TALKS = [["one ", 0.5, Chunk(reasoning="hm"), "two", Chunk(reset="again"), "three"]]
CALLS = [["let me see", *_calls("slow", "broken", "slow")], "fine"]
ASKS = [["well", *_calls("risky", "slow")], "fine"]


async def nests(ctx: RunContext, message: str) -> None:
    agent = Agent(llm_client=SimulatedModel(CALLS), tools=[slow, broken])
    async for _ in StreamEngine().stream(agent, "go"):
        pass


def of_model(turns: list[Any], *tools: Any) -> Agent[str]:
    """An agent of a model."""
    return Agent(llm_client=SimulatedModel(turns), tools=tools)


PROGRAMS: dict[str, Any] = {
    "talks": of_model(TALKS),
    "calls tools": of_model(CALLS, slow, broken),
    "asks people": of_model(ASKS, risky, slow),
    "uses every verb": everything,
    "runs another": nests,
}


def steps_of(agent: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """The steps of Trio's scheduler that a program takes."""
    strikers = []
    usual = module.Striker

    def make(limit: int) -> Any:
        strikers.append(usual(limit))
        return strikers[-1]

    with monkeypatch.context() as patch:
        patch.setattr(module, "Striker", make)
        simulate(agent, "go").check()
    return int(strikers[-1].steps)


def test_the_programs_succeed_when_nothing_strikes() -> None:
    assert {
        name: simulate(agent, "go").status for name, agent in PROGRAMS.items()
    } == dict.fromkeys(PROGRAMS, "completed")


@pytest.mark.parametrize("kind", ["cut_off", "cancel"])
@pytest.mark.parametrize("is_bare", [False, True])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_run_cancelled_at_any_step_ends_lawfully(
    program: str, is_bare: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = PROGRAMS[program]
    steps = steps_of(agent, monkeypatch)
    assert steps > 30

    statuses = set()
    for step in range(steps):
        run = simulate(agent, "go", faults=[Fault(kind, step)], reader=Reader(is_bare=is_bare))
        run.check()
        statuses.add(run.status)
        assert run.closing_seconds == 0
    assert "cancelled" in statuses


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name != "talks"])
def test_a_tool_that_fails_wherever_it_waits_has_its_end(program: str) -> None:
    agent, failed = PROGRAMS[program], 0
    for call in range(4):
        for wait in range(20):
            run = simulate(agent, "go", faults=[Fault("fail", wait, call)])
            run.check()
            failed += "SimulatedFailure: drawn" in str([e.data for e in run.events])
    assert failed >= 1 or program == "runs another"


def broken_off(turns: list[Any]) -> Iterator[list[Any]]:
    """A model's turns, broken off at every place in every way."""
    for number, turn in enumerate(turns):
        steps = [turn] if isinstance(turn, str) else turn
        for place in range(len(steps) + 1):
            for end in (CUT, SimulatedFailure("drawn")):
                yield [*turns[:number], [*steps[:place], end]]


@pytest.mark.parametrize("turns", [TALKS, CALLS, ASKS])
def test_a_reply_that_breaks_off_anywhere_is_an_error(turns: list[Any]) -> None:
    for broken_turns in broken_off(turns):
        run = simulate(of_model(broken_turns, slow, broken, risky), "go")
        run.check()
        assert run.status == "error"
        assert run.events[-2].data["source"] == "model"


# The steps are really hit


def forgetful(run: SimulatedRun) -> list[Any]:
    """The log as a reader has it who leaves when he is cancelled, and reads no rest."""
    ends = (EventType.STATE_CHANGE, EventType.DONE)
    return [event for event in run.events if not (event.type in ends and event.seq > 1)]


def test_a_log_without_its_end_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = PROGRAMS["talks"]
    check: Callable[[list[Any]], None] = check_events
    caught = 0
    steps = steps_of(agent, monkeypatch)
    for step in range(steps):
        run = simulate(agent, "go", faults=[Fault("cancel", step)])
        try:
            check(forgetful(run))
        except AssertionError:
            caught += 1

    assert caught == steps
