"""Log records are told in which run and in which span they were written."""

from __future__ import annotations

import logging
from typing import Any

from flowtrio import Agent, Limits, RunContext, StreamEngine, tool
from flowtrio.otel import LogFilter
from flowtrio.testing import ScriptedModel

from .traced import traced


def told(**given: Any) -> dict[str, Any]:
    """What a record has after the filter."""
    record = logging.makeLogRecord(given)

    assert LogFilter().filter(record) is True
    return vars(record)


async def test_a_record_has_the_run_and_the_span_that_it_was_written_in() -> None:
    made, seen = traced(), {}

    @tool
    async def work() -> None:
        """Work."""
        seen["tool"] = told()

    async def body(ctx: RunContext, message: str) -> None:
        seen["body"] = told(run_id="given")
        await ctx.call(work)

    engine = StreamEngine(telemetry=made.telemetry)
    async with engine.stream(body, "Hi", run_id="r") as stream:
        await stream.result()
    root, call = made.span("invoke_agent").context, made.span("execute_tool").context

    assert seen["tool"]["run_id"] == "r"
    assert seen["tool"]["trace_id"] == seen["body"]["trace_id"] == f"{root.trace_id:032x}"
    assert seen["tool"]["span_id"] == f"{call.span_id:016x}"
    assert seen["body"]["span_id"] == f"{root.span_id:016x}"
    assert seen["body"]["run_id"] == "given"
    assert "trace_id" not in told()


async def test_a_model_that_never_spoke_has_no_first_chunk(autojump_clock: object) -> None:
    made = traced()
    engine = StreamEngine(telemetry=made.telemetry, limits=Limits(run=1))
    async with engine.stream(Agent(llm_client=ScriptedModel([5.0, "late"])), "Hi") as stream:
        async for _ in stream:
            pass
    attributes = made.span("chat").attributes or {}

    assert attributes["error.type"] == "cancelled"
    assert "gen_ai.response.time_to_first_chunk" not in attributes
    assert not any("first_chunk" in name for name in made.measured())
