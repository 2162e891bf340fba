"""Control of a run that lives: one call is stopped, people are asked, limits nest, all is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from flowtrio import (
    AgentEvent,
    EventStream,
    EventType,
    Limits,
    ModelLimits,
    RunContext,
    ToolFailed,
    tool,
)
from tests.regressions._case import Case, open_case
from tests.runtime._programs import agent_of, outcomes
from tests.support.model_server import Answer, Exchange, calls, chooses, hangs, says

T = EventType
FINE = says("all ", "fine")


def turn(*names: str) -> Answer:
    """An answer that calls tools without arguments."""
    return calls(*((name, {}) for name in names))


def scripted(**turns: tuple[Answer, ...]) -> Answer:
    """Answers by whom the agent's instructions say it is, one for each of its turns."""

    def choose(body: Any) -> Answer:
        system, *rest = body["messages"]
        return turns[system["content"]][sum(m["role"] == "assistant" for m in rest)]

    return chooses(choose)


def delegating(case: Case, name: str, *tools: Any) -> Any:
    """A tool that delegates to an agent of its own, both of this name."""
    nested = case.agent(*tools, name=name, instructions=name)

    @tool(name=name)
    async def delegate(ctx: RunContext) -> str:
        """Ask somebody else."""
        return str(await ctx.delegate(nested, f"work, {name}"))

    return delegate


# One call


async def test_one_call_is_cancelled_while_its_siblings_and_the_tokens_go_on() -> None:
    go_on = trio.Event()

    async def explains(exchange: Exchange) -> None:
        await exchange.send_delta({"content": "first "})
        await go_on.wait()
        for word in ("second ", "third"):
            await exchange.send_delta({"content": word})
        await exchange.finish()

    answer = scripted(root=(turn("stuck", "sibling", "expert"), FINE), expert=(explains,))
    async with open_case(answer) as case:
        stuck = case.diary.tool("stuck", trio.sleep_forever)
        sibling = case.diary.tool("sibling", go_on.wait)
        ids: dict[str, str] = {}

        async def reader(stream: EventStream, log: list[AgentEvent]) -> None:
            async for event in stream:
                log.append(event)
                if event.type is T.TOOL_CALL_START:
                    ids[event.data["tool_name"]] = event.data["call_id"]
                is_talking = any(e.type is T.MESSAGE_CHUNK for e in log)
                if len(ids) == 3 and is_talking and "asked" not in ids:
                    ids["asked"] = ids["stuck"]
                    assert stream.cancel_tool(ids["stuck"])
                    assert not stream.cancel_tool(ids["stuck"])
                if event.type is T.TOOL_CALL_END and event.data["tool_name"] == "stuck":
                    go_on.set()

        agent = case.agent(stuck, sibling, delegating(case, "expert"), instructions="root")
        await case.play(agent, reader)

        assert outcomes(case.log) == {"stuck": "cancelled", "sibling": "ok", "expert": "ok"}
        ended = [e.seq for e in case.log if e.type is T.TOOL_CALL_END]
        chunks = {e.data["chunk"]: e.seq for e in case.log if e.type is T.MESSAGE_CHUNK}
        assert chunks["first "] < ended[0] < chunks["second "] < chunks["third"]
        # The model is told, in the place of that call.
        told = [result["content"] for result in case.results()]
        assert len(told) == 3
        assert "cancelled" in told[0]
        assert told[2] == "first second third"
        assert case.done["result"] == "all fine"


# People


async def test_approvals_and_questions_do_not_end_the_stream() -> None:
    async with open_case(turn("charge", "ask", "works"), FINE) as case:
        decided = trio.Event()
        charge = case.diary.tool("charge", trio.lowlevel.checkpoint, needs_approval=True)
        works = case.diary.tool("works", trio.lowlevel.checkpoint)

        @tool
        async def ask(ctx: RunContext) -> str:
            """Ask the user."""
            return await ctx.ask("Window or aisle?")

        pending: dict[EventType, str] = {}

        async def reader(stream: EventStream, log: list[AgentEvent]) -> None:
            async for event in stream:
                log.append(event)
                if event.type is T.APPROVAL_REQUIRED:
                    pending[event.type] = event.data["call_id"]
                elif event.type is T.INPUT_REQUIRED:
                    pending[event.type] = event.data["request_id"]
                elif event.type is T.TOOL_CALL_END and event.data["tool_name"] == "works":
                    decided.set()
                # Both are open, and what needs nobody has gone on in between.
                if len(pending) == 2 and decided.is_set():
                    assert str(stream.status) == "waiting_for_input"
                    assert stream.answer(pending.pop(T.INPUT_REQUIRED), "window")
                    assert stream.approve(pending.pop(T.APPROVAL_REQUIRED))

        # The run's clock stands still while it waits for people.
        await case.play(case.agent(charge, ask, works), reader)

        assert outcomes(case.log) == {"charge": "ok", "ask": "ok", "works": "ok"}
        assert [data["outcome"] for data in case.data(T.INPUT_RESOLVED)] == ["answered"]
        statuses = [data["new_status"] for data in case.data(T.STATE_CHANGE)]
        assert {"waiting_for_input", "waiting_for_approval"} & set(statuses)
        assert "window" in case.results()[1]["content"]


# Limits inside limits


@attrs.frozen
class Nest:
    """Four limits around one wait of a nested agent for its model; one of them is the shortest."""

    name: str
    limits: Limits = attrs.field(factory=Limits)
    model: ModelLimits = attrs.field(factory=ModelLimits)
    timeout: float = 60
    words: tuple[str, ...] = ()
    """What the nested agent's model says before it stalls."""
    status: str = "completed"
    tool: str = "error"
    agent: str = "cancelled"
    says: str | None = None


NESTS = [
    Nest("run", Limits(run=0.5), status="error", tool="cancelled"),
    Nest("tool", timeout=0.5, tool="timeout", says="0.5 s"),
    Nest("first_token", model=ModelLimits(first_token=0.5), agent="error", says="first_token"),
    Nest("gap", model=ModelLimits(gap=0.5), agent="error", words=("a ",), says="gap"),
]


@pytest.mark.parametrize("nest", NESTS, ids=[nest.name for nest in NESTS])
async def test_the_shortest_of_nested_limits_names_itself(nest: Nest) -> None:
    answer = scripted(root=(turn("expert"), FINE), expert=(hangs(*nest.words),))
    async with open_case(answer, limits=nest.model) as case:
        nested = case.agent(name="expert", instructions="expert")

        @tool(timeout=nest.timeout)
        async def expert(ctx: RunContext) -> str:
            """Ask somebody else."""
            return str(await ctx.delegate(nested, "work"))

        await case.play(case.agent(expert, instructions="root"), limits=nest.limits)

        assert case.done["status"] == nest.status
        assert outcomes(case.log) == {"expert": nest.tool}
        [end] = case.data(T.AGENT_END)
        assert end["outcome"] == nest.agent
        if nest.status == "error":
            assert (case.error["source"], case.error["deadline"]) == ("deadline", nest.name)
            assert end["outcome"] == "cancelled"
        else:
            assert nest.says is not None
            assert nest.says in case.data(T.TOOL_CALL_END)[0]["error"]
            assert nest.says in case.results()[0]["content"]
            assert case.done["result"] == "all fine"


@pytest.mark.parametrize("name", ["first_token", "gap"])
async def test_the_models_limit_ends_the_run_where_nothing_is_around_it(name: str) -> None:
    limits = ModelLimits(**{name: 0.3})
    async with open_case(hangs(*["word "] * (name == "gap")), limits=limits) as case:
        await case.play(case.agent())

        assert (case.error["source"], case.error["deadline"]) == ("deadline", name)


async def test_a_scope_around_a_nested_agent_ends_it_alone() -> None:
    async with open_case(scripted(expert=(hangs("so far "),))) as case:
        nested = case.agent(name="expert", instructions="expert")

        async def body(ctx: RunContext) -> str:
            with trio.move_on_after(0.3):
                await ctx.delegate(nested, "work")
            return "without it"

        await case.play(agent_of(body))

        assert case.done["result"] == "without it"
        [end] = case.data(T.AGENT_END)
        assert (end["outcome"], end["usage"]["quality"]) == ("cancelled", "lower_bound")
        [message] = case.data(T.MESSAGE_COMPLETE)
        assert (message["content"], message["finish_reason"]) == ("so far ", "cancelled")


async def test_a_tools_own_timeout_comes_before_the_runs_and_its_caller_hears_of_it() -> None:
    async with open_case(FINE) as case:
        heard: list[ToolFailed] = []

        async def body(ctx: RunContext) -> None:
            try:
                await ctx.call(case.diary.tool("never", trio.sleep_forever, timeout=0.2))
            except ToolFailed as exc:
                heard.append(exc)

        await case.play(agent_of(body), limits=Limits(run=30, tool=20))

        assert heard[0].outcome == "timeout"
        assert case.done["status"] == "completed"


# Three deep


@pytest.mark.parametrize("way", ["cancel", "scope", "break"])
async def test_three_agents_deep_with_tools_at_each_level_cancelled_from_outside(way: str) -> None:
    answer = scripted(
        root=(turn("work", "second"), FINE),
        second=(turn("work", "third"), FINE),
        third=(turn("work", "fourth"), FINE),
        fourth=(turn("work", "also"), FINE),
    )
    async with open_case(answer) as case:
        work = case.diary.tool("work", trio.sleep_forever)
        also = case.diary.tool("also", trio.sleep_forever)
        fourth = delegating(case, "fourth", work, also)
        third = delegating(case, "third", work, fourth)
        second = delegating(case, "second", work, third)
        scope = trio.CancelScope()

        leave: dict[str, Callable[[EventStream], object]] = {
            "cancel": lambda stream: stream.cancel("enough"),
            "scope": lambda stream: scope.cancel(),
        }

        async def reader(stream: EventStream, log: list[AgentEvent]) -> None:
            async for event in stream:
                log.append(event)
                if event.type is T.TOOL_CALL_START and _opened(log) == 8:
                    # Told in the moment in which their functions begin.
                    await trio.testing.wait_all_tasks_blocked()
                    assert len(case.diary.running) == 5
                    if way == "break":
                        return
                    leave[way](stream)

        with scope:
            await case.play(case.agent(work, second, instructions="root"), reader)
        await case.check_after()

        assert case.done["status"] == "cancelled"
        # Calls in the order they were opened, then the agents, the last opened first.
        closers = [e for e in case.log if e.type in (T.TOOL_CALL_END, T.AGENT_END)]
        # A call opens with its arguments, which its model wrote in order.
        written = dict.fromkeys(e.data["call_id"] for e in case.log if e.type is T.TOOL_CALL_ARGS)
        assert [e.data["call_id"] for e in closers[:8]] == list(written)
        assert [e.agent for e in closers[8:]] == [
            "root/second/third/fourth",
            "root/second/third",
            "root/second",
        ]
        assert {e.data["outcome"] for e in closers} == {"cancelled"}
        # Each of the four models was asked once, and told what it cost: 7 and 3.
        costs = [e.data["usage"] for e in closers[8:]]
        costs.append(case.done["usage"])
        assert [cost["prompt_tokens"] for cost in costs] == [7, 14, 21, 28]
        assert [cost["completion_tokens"] for cost in costs] == [3, 6, 9, 12]


def _opened(log: list[AgentEvent]) -> int:
    return sum(event.type is T.TOOL_CALL_START for event in log)
