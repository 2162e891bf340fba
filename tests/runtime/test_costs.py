"""``prices=``: what a run costs, however it ends, its nested agents included."""

from __future__ import annotations

from typing import Any

from flowtrio import Agent, AgentEvent, EventType, Orchestrator, RunContext, StreamEngine, Usage
from flowtrio.testing import ScriptedModel, check_events

PRICES = {"scripted": {"prompt": "1", "completion": "2"}}


class Named(ScriptedModel):
    """A scripted model that has a name."""

    model = "scripted"


async def log_of(stream: Any) -> list[AgentEvent]:
    async with stream:
        events = [event async for event in stream]
    check_events(events)
    return events


def usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion)


async def test_a_run_costs_the_sum_of_its_turns_and_nested_agents() -> None:
    inner = Agent(llm_client=Named(["inner", usage(1_000_000, 0)]), name="inner")
    outer = Named(["outer", usage(0, 1_000_000)], ["again", usage(500_000, 0)])

    async def agent(ctx: RunContext, message: str) -> str:
        await ctx.model([{"role": "user", "content": message}], client=outer)
        await ctx.delegate(inner, "go")
        return (await ctx.model([{"role": "user", "content": message}], client=outer)).content

    events = await log_of(StreamEngine(prices=PRICES).stream(agent, "hello"))

    assert events[-1].data["usage"]["cost"] == "3.5"
    [ended] = [e for e in events if e.type is EventType.AGENT_END]
    assert ended.data["usage"]["cost"] == "1"
    told = [e.data["usage"]["cost"] for e in events if e.type is EventType.MESSAGE_COMPLETE]
    assert told == ["2", "1", "0.5"]


async def test_a_cancelled_run_costs_at_least_what_was_seen() -> None:
    agent = Agent(llm_client=Named(["0123456789abcdef", 1000]))

    async with StreamEngine(prices=PRICES).stream(agent, "hello") as stream:
        events = []
        async for event in stream:
            events.append(event)
            if event.type is EventType.MESSAGE_CHUNK:
                stream.cancel()

    check_events(events)
    told = events[-1].data["usage"]
    assert told["quality"] == "lower_bound"
    assert told["completion_tokens"] == 2
    assert told["cost"] == "0.000004"


async def test_a_model_without_a_price_makes_the_cost_unknown() -> None:
    other = ScriptedModel(["unknown", usage(1, 1)])
    known = Named(["known", usage(1, 1)])

    async def agent(ctx: RunContext, message: str) -> None:
        for client in (known, other):
            await ctx.model([{"role": "user", "content": message}], client=client)

    events = await log_of(StreamEngine(prices=PRICES).stream(agent, "hello"))

    assert events[-1].data["usage"]["cost"] is None


async def test_an_orchestrator_takes_prices_too() -> None:
    orchestrator = Orchestrator(
        llm_client=Named(["hello", usage(1_000_000, 0)]),
        prices=PRICES,  # type: ignore[arg-type]
    )

    events = await log_of(orchestrator.process_stream("hello"))

    assert events[-1].data["usage"]["cost"] == "1"


async def test_without_prices_there_is_no_cost() -> None:
    events = await log_of(
        StreamEngine().stream(Agent(llm_client=Named(["hello", usage(1, 1)])), "hello")
    )

    assert events[-1].data["usage"]["cost"] is None
