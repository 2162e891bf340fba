"""Toolsets: asked at each turn, so that tools may come and go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import trio

from flowtrio import Agent, EventType, Orchestrator, RunContext, Tool, tool
from flowtrio.testing import ScriptedModel, models
from tests.runtime._programs import call, calling, error_of, only, play, runner

T = EventType


@tool
async def first() -> str:
    """The first."""
    return "1"


@tool
async def second() -> str:
    """The second."""
    return "2"


def plain() -> str:
    """A plain function."""
    return "3"


@attrs.define
class Turns:
    """Gives other tools in each turn, and the last ones from then on."""

    given: list[Any]
    asked: list[str] = attrs.Factory(list)

    async def tools(self, ctx: RunContext) -> Sequence[Tool[..., Any] | Callable[..., Any]]:
        self.asked.append(f"{ctx.agent} {len(ctx.messages)}")
        given = self.given.pop(0) if len(self.given) > 1 else self.given[0]
        if isinstance(given, BaseException):
            raise given
        return given  # type: ignore[no-any-return]


def told(model: ScriptedModel) -> list[list[str]]:
    """Which tools the model was told of, turn by turn."""
    return [[spec["function"]["name"] for spec in request.tools] for request in model.requests]


async def test_it_is_asked_at_each_turn_and_its_tools_stand_where_it_stands() -> None:
    toolset = Turns([[first], [first, plain], []])
    model = ScriptedModel([call("first")], [call("plain")], [call("second")], "fine")

    played = await play(Agent(llm_client=model, tools=[toolset, second]))

    assert told(model) == [["first", "second"], ["first", "plain", "second"], *[["second"]] * 2]
    assert [end["result"] for end in only(played.log, T.TOOL_CALL_END)] == ["1", "3", "2"]
    assert toolset.asked == ["root 1", "root 3", "root 5", "root 7"]


class CalledTurns(Turns):
    async def __call__(self) -> None:
        """Do something else; no model is to be told of it."""


async def test_one_that_can_be_called_is_still_no_tool_of_its_own() -> None:
    model = ScriptedModel("fine")

    await play(Agent(llm_client=model, tools=[CalledTurns([[first]])]))

    assert told(model) == [["first"]]


async def test_a_call_of_a_tool_that_has_gone_ends_in_an_error() -> None:
    model = ScriptedModel([call("first")], [call("first")], "sorry")

    played = await play(Agent(llm_client=model, tools=[second, Turns([[first], []])]))

    ends = only(played.log, T.TOOL_CALL_END)
    assert [end["outcome"] for end in ends] == ["ok", "error"]
    assert ends[1]["error"] == "there is no tool of that name; there are: second"


async def test_where_all_have_gone_the_model_is_told_of_none() -> None:
    model = ScriptedModel("fine")

    await play(runner(model, Turns([[]])))  # type: ignore[arg-type]

    assert told(model) == [[]]


async def test_several_are_asked_at_once(autojump_clock: object) -> None:
    @attrs.frozen
    class Slow:
        tool: Tool[..., Any]

        async def tools(self, ctx: RunContext) -> Sequence[Tool[..., Any]]:
            await trio.sleep(5)
            return (self.tool,)

    model = ScriptedModel("fine")
    before = trio.current_time()

    await play(Agent(llm_client=model, tools=[Slow(first), Slow(second)]))

    assert trio.current_time() - before == 5
    assert told(model) == [["first", "second"]]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (ValueError("no list today"), "ValueError: no list today"),
        ([second], "ValueError: tools of one agent need names of their own: second"),
        ([7], "TypeError: tool: expected a function, got 7"),
        ("second", "TypeError: Turns.tools(): expected a list of tools, got 'second'"),
        (None, "TypeError: Turns.tools(): expected a list of tools, got None"),
    ],
)
async def test_what_it_raises_and_what_is_no_list_of_tools_fails_the_run(
    given: Any, error: str
) -> None:
    played = await play(Agent(llm_client=calling("second"), tools=[second, Turns([[], given])]))

    assert error_of(played.log)["error"] == error
    assert error_of(played.log)["source"] == "tool"


async def test_a_nested_agent_whose_toolset_raises_fails_alone() -> None:
    nested = Agent(llm_client=ScriptedModel(), tools=[Turns([OSError("gone")])], name="helper")

    async def body(ctx: RunContext, message: str) -> str:
        with pytest.raises(OSError, match="gone"):
            await ctx.delegate(nested, message)
        return "alone"

    played = await play(body)

    assert played.status == "completed"
    assert only(played.log, T.AGENT_END)[0]["error"] == "OSError: gone"


async def test_a_run_that_is_cancelled_while_a_toolset_is_asked_ends_at_once(
    autojump_clock: object,
) -> None:
    class Never:
        async def tools(self, ctx: RunContext) -> Sequence[Tool[..., Any]]:
            await trio.sleep_forever()
            raise AssertionError

    async def stop(stream: Any, log: list[Any]) -> None:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel() -> None:
                await trio.sleep(1)
                stream.cancel("enough")

            async for event in stream:
                log.append(event)

    played = await play(Agent(llm_client=ScriptedModel(), tools=[Never()]), reader=stop)

    assert played.status == "cancelled"


async def test_ctrl_c_in_a_toolset_leaves_the_run_bare() -> None:
    agent = Agent(llm_client=ScriptedModel(), tools=[Turns([KeyboardInterrupt()])])

    with pytest.raises(KeyboardInterrupt):
        await play(agent)


async def test_an_orchestrator_takes_them_too() -> None:
    model = calling("first")
    orchestrator = Orchestrator(llm_client=model, tools=[Turns([[first]])])

    assert await orchestrator.process("go") == "fine"
    assert told(model) == [["first"]] * 2


def test_a_toolset_alone_is_no_list_of_tools() -> None:
    with pytest.raises(TypeError, match="expected a list of tools, got a tool alone"):
        Agent(llm_client=ScriptedModel(), tools=Turns([[]]))  # type: ignore[arg-type]


def test_a_class_is_no_toolset() -> None:
    with pytest.raises(TypeError, match="expected a function, got <class"):
        Agent(llm_client=ScriptedModel(), tools=[Turns])


def test_strategies_leave_toolsets_out() -> None:
    models(tools=[first, Turns([[]])])
