"""Traces of runs that are started elsewhere than under Trio stand where they were started."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import trace

import flowtrio.sync
from flowtrio import Agent, RunContext, StreamEngine, ToolCall, tool
from flowtrio.aio import Bridge
from flowtrio.testing import ScriptedModel

from .traced import loud_detach, traced


def agent() -> Agent:
    return Agent(llm_client=ScriptedModel("fine"), name="guide")


@pytest.mark.parametrize("is_bridged", [True, False])
def test_a_run_that_an_asyncio_task_starts_stands_in_what_is_current_there(
    is_bridged: bool,
) -> None:
    made = traced()
    engine = StreamEngine(telemetry=made.telemetry)

    async def main() -> None:
        with made.tracer.start_as_current_span("request"):
            if not is_bridged:
                async for _ in engine.stream(agent(), "Hi"):
                    pass
                return
            async with (
                Bridge() as bridge,
                bridge.stream(lambda: engine.stream(agent(), "Hi")) as events,
            ):
                async for _ in events:
                    pass

    with loud_detach() as heard:
        asyncio.run(main())

    assert made.parents("invoke_agent guide") == ["request"]
    assert len(made.kept.begun) == len(made.kept.ended)
    assert heard == []


def test_an_asyncio_function_works_inside_the_span_of_its_call() -> None:
    made, seen = traced(), []
    engine = StreamEngine(telemetry=made.telemetry)

    async def main() -> None:
        async with Bridge() as bridge:

            @tool
            @bridge.function
            async def fetch() -> None:
                """Fetch."""
                await asyncio.sleep(0)
                seen.append(trace.get_current_span().get_span_context().span_id)

            async def body(ctx: RunContext, message: str) -> None:
                await ctx.call(fetch)

            async with bridge.stream(lambda: engine.stream(body, "Hi")) as events:
                async for _ in events:
                    pass

    asyncio.run(main())

    assert seen == [made.span("execute_tool fetch").context.span_id]


def test_a_run_that_plain_code_reads_stands_in_what_is_current_there() -> None:
    made = traced()
    calls = [ToolCall("a", "unknown", {})]
    model = ScriptedModel(calls, "fine")
    engine = StreamEngine(telemetry=made.telemetry)
    with made.tracer.start_as_current_span("script"):
        with flowtrio.sync.stream(engine, Agent(llm_client=model, name="guide"), "Hi") as events:
            for _ in events:
                pass

    assert made.parents("invoke_agent guide") == ["script"]
    assert len(made.kept.begun) == len(made.kept.ended)
