"""Whatever moment a cancellation comes at, the log is lawful and whole, and nothing lives on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from flowtrio import Agent, EventStream, EventType, RunContext, StreamEngine, ToolCall, tool
from flowtrio.testing import ScriptedModel, check_events, check_messages
from tests.runtime._programs import nothing_left_behind, read_rest


class AtStep(trio.abc.Instrument):
    """Does something before the n-th step of Trio's scheduler after it was armed."""

    def __init__(self, number: int, action: Callable[[], object]) -> None:
        self.number = number
        self.action = action
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count."""
        self.steps += 1
        if self.steps == self.number:
            self.action()


# Reference programs: each makes a stream of its own


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


def _calls(*names: str) -> list[Any]:
    return [ToolCall(f"p{place}", name, {}) for place, name in enumerate(names)]


def talk() -> EventStream:
    return StreamEngine().stream(Agent(llm_client=ScriptedModel(["one ", 0.5, "two"])), "go")


def tools() -> EventStream:
    model = ScriptedModel(["let me see", *_calls("slow", "broken", "slow")], "fine")
    return StreamEngine().stream(Agent(llm_client=model, tools=[slow, broken]), "go")


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


def verbs() -> EventStream:
    return StreamEngine().stream(everything, "go")


def nested() -> EventStream:
    async def outer(ctx: RunContext, message: str) -> None:
        async for _ in talk():
            pass

    return StreamEngine().stream(outer, "go")


PROGRAMS = [talk, tools, verbs, nested]


async def _count(program: Callable[[], EventStream]) -> int:
    counter = AtStep(0, lambda: None)
    trio.lowlevel.add_instrument(counter)
    async with program() as stream:
        async for _ in stream:
            pass
    trio.lowlevel.remove_instrument(counter)
    return counter.steps


def _under_virtual_time(main: Callable[..., Any], *args: Any) -> Any:
    return trio.run(main, *args, clock=trio.testing.MockClock(autojump_threshold=0))


def _check(stream: EventStream, log: list[Any]) -> None:
    if not log:
        assert stream.status in ("initializing", "cancelled")
        return
    check_events(log)
    check_messages(stream.messages)
    assert sum(event.type is EventType.DONE for event in log) == 1


def _planted(stream: EventStream, number: int, how: str) -> tuple[trio.CancelScope, AtStep]:
    """What cancels *stream* before the n-th step, to be entered around its reader."""
    scope = trio.CancelScope()
    action = scope.cancel if how == "from outside" else lambda: stream.cancel("planted")
    return scope, AtStep(number, action)


async def _structured(stream: EventStream, number: int, how: str) -> list[Any]:
    log: list[Any] = []
    scope, hook = _planted(stream, number, how)
    with nothing_left_behind():
        trio.lowlevel.add_instrument(hook)
        with scope:
            async with stream:
                async for event in stream:
                    log.append(event)
        trio.lowlevel.remove_instrument(hook)
    return log


async def _bare(stream: EventStream, number: int, how: str) -> list[Any]:
    log: list[Any] = []
    scope, hook = _planted(stream, number, how)
    trio.lowlevel.add_instrument(hook)
    with scope:
        async for event in stream:
            log.append(event)
    trio.lowlevel.remove_instrument(hook)
    return log


async def _cancelled(
    form: Callable[..., Any], program: Callable[[], EventStream], number: int, how: str
) -> None:
    stream = program()
    log = await form(stream, number, how)
    if stream.status != "initializing":
        await read_rest(stream, log)
    _check(stream, log)


@pytest.mark.parametrize("how", ["from outside", "by its own control"])
@pytest.mark.parametrize("form", [_structured, _bare])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_run_cancelled_at_any_step_ends_lawfully(
    program: Callable[[], EventStream], form: Callable[..., Any], how: str
) -> None:
    steps = _under_virtual_time(_count, program)
    assert steps > 10

    for number in range(1, steps + 1):
        _under_virtual_time(_cancelled, form, program, number, how)


def test_the_steps_are_really_hit() -> None:
    """A program that loses its end when it is cancelled is caught."""

    async def forgetful(events: list[Any], number: int) -> None:
        hook = AtStep(number, trio.current_effective_deadline)
        with trio.CancelScope() as scope:
            hook.action = scope.cancel
            trio.lowlevel.add_instrument(hook)
            async with talk() as stream:
                async for event in stream:
                    events.append(event)
        trio.lowlevel.remove_instrument(hook)

    steps = _under_virtual_time(_count, talk)
    caught = 0
    for number in range(1, steps):
        events: list[Any] = []
        _under_virtual_time(forgetful, events, number)
        try:
            check_events(events)
        except AssertionError:
            caught += 1
    assert caught > steps // 3
