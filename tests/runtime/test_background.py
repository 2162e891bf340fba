"""Background tasks: awaited at their body's end, and their errors are the body's."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from flowtrio import EventStream, EventType, RunContext, tool
from tests.runtime._programs import agent_of, calling, error_of, only, outcomes, play, runner

T = EventType


async def fails(exc: BaseException, seconds: float = 1) -> None:
    await trio.sleep(seconds)
    raise exc


async def test_a_body_waits_for_what_it_started(autojump_clock: Any) -> None:
    ended: list[str] = []

    async def background(name: str) -> None:
        await trio.sleep(5)
        ended.append(name)

    async def nested(ctx: RunContext, message: str) -> None:
        ctx.start_soon(background, "nested")

    async def body(ctx: RunContext) -> list[str]:
        ctx.start_soon(background, "root")
        await ctx.delegate(nested, "go")
        return list(ended)

    played = await play(agent_of(body))

    assert await played.stream.result() == ["nested", "root"] or ended == ["root", "nested"]
    assert sorted(ended) == ["nested", "root"]


async def test_what_fails_in_the_background_of_the_root_fails_the_run(autojump_clock: Any) -> None:
    async def body(ctx: RunContext) -> None:
        ctx.start_soon(fails, ValueError("planted"))
        await trio.sleep_forever()

    played = await play(agent_of(body))

    assert error_of(played.log)["error"] == "ValueError: planted"


async def test_what_fails_in_the_background_of_a_nested_agent_fails_that(
    autojump_clock: Any,
) -> None:
    async def nested(ctx: RunContext, message: str) -> None:
        ctx.start_soon(fails, ValueError("planted"))
        await trio.sleep_forever()

    async def body(ctx: RunContext) -> str:
        with pytest.raises(ValueError, match="planted"):
            await ctx.delegate(nested, "go")
        return "caught"

    played = await play(agent_of(body))

    assert await played.stream.result() == "caught"
    assert [end["outcome"] for end in only(played.log, T.AGENT_END)] == ["error"]


async def test_a_second_background_error_joins_the_causes(autojump_clock: Any) -> None:
    async def nested(ctx: RunContext, message: str) -> None:
        async def both(exc: Exception) -> None:
            try:
                await trio.sleep(1)
            finally:
                # Each raises, also the one that the other's error cancels.
                raise exc

        ctx.start_soon(both, ValueError("one"))
        ctx.start_soon(both, KeyError("two"))
        await trio.sleep_forever()

    async def body(ctx: RunContext) -> None:
        await ctx.delegate(nested, "go")

    played = await play(agent_of(body))

    error = error_of(played.log)
    told = {error["error"].partition(":")[0], *(cause["type"] for cause in error["causes"])}
    assert told >= {"ValueError", "KeyError"}


async def test_the_background_of_a_tool_ends_with_the_call(autojump_clock: Any) -> None:
    cancelled: list[str] = []

    @tool
    async def works(ctx: RunContext) -> None:
        """Work in two tasks."""

        async def background() -> None:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append("background")

        ctx.start_soon(background)
        await trio.sleep_forever()

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START:
                await trio.sleep(1)
                assert stream.cancel_tool(event.data["call_id"])

    played = await play(runner(calling("works"), works), reader=reader)

    assert outcomes(played.log) == {"works": "cancelled"}
    assert cancelled == ["background"]


async def test_nothing_can_be_started_when_a_body_has_ended(autojump_clock: Any) -> None:
    kept: list[RunContext] = []

    async def nested(ctx: RunContext, message: str) -> None:
        kept.append(ctx)

    async def body(ctx: RunContext) -> None:
        await ctx.delegate(nested, "go")
        with pytest.raises(trio.ClosedResourceError, match="its body has ended"):
            kept[0].start_soon(fails, ValueError())
        # Nor does what it still says get into the log.
        before = only(played_log, T.CUSTOM)
        await kept[0].custom("late")
        assert only(played_log, T.CUSTOM) == before

    played_log: list[Any] = []

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            played_log.append(event)

    played = await play(agent_of(body), reader=reader)

    assert played.status == "completed"
    assert only(played.log, T.CUSTOM) == []
    assert played.stream.statistics().late_events == 1


class _Knocks(trio.abc.Instrument):
    """Asks to start something after each step of any task, once there is a context for it."""

    def __init__(self) -> None:
        self.contexts: list[RunContext] = []
        self.refused: list[Exception] = []

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        for ctx in self.contexts:
            try:
                ctx.start_soon(trio.sleep_forever)
            except Exception as exc:
                self.refused.append(exc)


@pytest.mark.parametrize("is_tool", [False, True])
async def test_nothing_can_be_started_from_the_step_on_in_which_a_body_ends(is_tool: bool) -> None:
    knocks = _Knocks()

    @tool
    async def ends(ctx: RunContext) -> None:
        """End at once."""
        knocks.contexts.append(ctx)

    async def nested(ctx: RunContext, message: str) -> None:
        knocks.contexts.append(ctx)

    async def body(ctx: RunContext) -> None:
        await (ctx.call(ends) if is_tool else ctx.delegate(nested, "go"))

    trio.lowlevel.add_instrument(knocks)
    with trio.fail_after(5):
        played = await play(agent_of(body))
    trio.lowlevel.remove_instrument(knocks)

    assert played.status == "completed"
    # Also while its nursery closes, which takes a step in which it takes nobody in.
    assert {type(exc) for exc in knocks.refused} == {trio.ClosedResourceError}
