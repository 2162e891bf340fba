"""The end that a cut log gets: whatever it had, the whole obeys the laws."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from flowtrio import Agent, AgentEvent, EventType, Limits, RunContext, StreamEngine, ToolCall, tool
from flowtrio._core._interrupted import cancelled_end, missing_end
from flowtrio.testing import LawBroken, ScriptedModel, check_events

T = EventType


@tool
async def slow(ctx: RunContext) -> str:
    """Take a while."""
    await ctx.progress(1)
    await trio.sleep(1)
    return "done"


@tool(needs_approval=True)
async def risky() -> str:
    """Need approval."""
    return "done"


async def nested(ctx: RunContext, message: str) -> str:
    """Answer, and say so."""
    async with ctx.message() as out:
        await out.write("nested ")
        await out.write("words")
    return "ok"


async def everything(ctx: RunContext, message: str) -> str:
    """Do all that opens something: a question, messages, calls, nested agents."""
    await ctx.status("asking")
    await ctx.custom("note", {"a": 1})
    await ctx.delegate(nested, "hi")
    with contextlib.suppress(TimeoutError):
        await ctx.ask("who?")
    model = ScriptedModel(
        ["thinking ", ToolCall("p1", "slow", {}), ToolCall("p2", "risky", {})], "fine"
    )
    return str(await ctx.delegate(Agent(llm_client=model, tools=[slow, risky], name="b"), "go"))


async def _whole_log() -> list[AgentEvent]:
    limits = Limits(approval=5, input=5)
    async with StreamEngine(limits=limits).stream(everything, "hi") as stream:
        return [event async for event in stream]


def _start(log: Sequence[AgentEvent]) -> AgentEvent:
    return log[0]


async def test_a_log_cut_anywhere_gets_a_lawful_end(autojump_clock: Any) -> None:
    log = await _whole_log()
    check_events(log)

    assert {T.AGENT_END, T.INPUT_REQUIRED, T.APPROVAL_REQUIRED} <= {e.type for e in log}
    for place in range(len(log)):
        missing = missing_end(log[:place], _start(log))
        whole = [*log[:place], *missing]
        check_events(whole)
        assert whole[-1].type is T.DONE
        assert {event.run_id for event in missing} == {log[0].run_id}
        if place < len(log) - 2:
            assert whole[-1].data["status"] == "error"
            assert (whole[-2].data["code"], whole[-2].data["source"]) == ("interrupted", "internal")


async def test_a_whole_log_lacks_nothing(autojump_clock: Any) -> None:
    log = await _whole_log()

    assert missing_end(log, _start(log)) == []


async def test_what_was_said_has_its_price(autojump_clock: Any) -> None:
    log = await _whole_log()
    place = next(i for i, e in enumerate(log) if e.type is T.MESSAGE_CHUNK)
    done = missing_end(log[: place + 1], _start(log))[-1]

    assert done.data["usage"]["quality"] == "lower_bound"
    assert done.data["usage"]["completion_tokens"] > 0


async def test_an_end_that_forgets_what_is_open_would_be_noticed(autojump_clock: Any) -> None:
    """The planted bug: an end without closers."""
    log = await _whole_log()
    place = next(i for i, e in enumerate(log) if e.type is T.TOOL_CALL_START)
    closers = {T.TOOL_CALL_END, T.AGENT_END, T.MESSAGE_COMPLETE}
    missing = missing_end(log[: place + 1], _start(log))

    with pytest.raises(LawBroken):
        check_events([*log[: place + 1], *(e for e in missing if e.type not in closers)])


def test_a_run_that_nobody_began_is_cancelled_as_any_other() -> None:
    data = {"message": "hi", "parts": [], "session_id": None, "agent": "a", "schema": 2}
    opening = AgentEvent(T.RUN_START, {**data, "parent_run_id": None}, 0, "r", "root", 1.5)
    log = cancelled_end(opening, "stop button")
    check_events(log)

    assert [event.type for event in log] == [T.RUN_START, T.STATE_CHANGE, T.DONE]
    assert (log[-1].data["status"], log[-1].data["reason"]) == ("cancelled", "stop button")
