"""`RunContext`: what an agent knows of its run, and what each verb does when things go wrong."""

from __future__ import annotations

import contextlib
import enum
from typing import Any

import pytest
import trio

from flowtrio import (
    AgentEvent,
    Chunk,
    EventStream,
    EventType,
    Limits,
    ProviderError,
    RunContext,
    ToolFailed,
    tool,
)
from flowtrio._core._exceptions import DeadlineExceeded, LocalProtocolError
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import agent_of, calling, only, outcomes, play, runner

T = EventType


async def test_an_agent_knows_its_run() -> None:
    history = [{"role": "user", "content": "before"}, {"role": "assistant", "content": "yes"}]
    app = {"db": object()}

    async def body(ctx: RunContext) -> list[Any]:
        assert ctx.app is app
        assert list(ctx.history) == history
        assert repr(ctx) == f"<RunContext run={ctx.run_id!r} agent='root'>"
        return [ctx.run_id, ctx.agent, ctx.tenant_id, ctx.session_id]

    played = await play(agent_of(body), history=history, app=app, run_id="r7")

    assert await played.stream.result() == ["r7", "root", "default", None]
    assert repr(played.stream) == "<EventStream run='r7' status='completed'>"


async def test_progress_belongs_to_a_tool_call() -> None:
    async def body(ctx: RunContext) -> str:
        with pytest.raises(LocalProtocolError, match="expected a tool call's context"):
            await ctx.progress(1)
        return "told"

    played = await play(agent_of(body))

    assert await played.stream.result() == "told"


async def test_the_same_status_twice_is_told_once() -> None:
    async def body(ctx: RunContext) -> None:
        for text in ("packing", "packing", "sending"):
            await ctx.status(text)

    played = await play(agent_of(body))

    reasons = [data["reason"] for data in only(played.log, T.STATE_CHANGE)]
    assert reasons.count("packing") == 1
    assert "sending" in reasons


async def test_a_message_that_fails_is_kept_as_far_as_it_came() -> None:
    async def body(ctx: RunContext) -> str:
        with pytest.raises(ValueError, match="planted"):
            async with ctx.message() as out:
                await out.write("half")
                raise ValueError("planted")
        return "went on"

    played = await play(agent_of(body))

    [complete] = only(played.log, T.MESSAGE_COMPLETE)
    assert (complete["content"], complete["finish_reason"]) == ("half", "error")
    assert await played.stream.result() == "went on"


@pytest.mark.parametrize("verb", ["write", "part"])
async def test_nothing_is_written_before_a_message_is_begun(verb: str) -> None:
    async def body(ctx: RunContext, message: str) -> str:
        out = ctx.message()
        with pytest.raises(LocalProtocolError, match="m1 before it was begun"):
            await getattr(out, verb)("too early")
        async with out:
            await out.write("in time")
        return "in time"

    # What nobody ends would be ended with the run, behind its answer.
    played = await play(body)

    assert [message["content"] for message in played.stream.messages] == ["go", "in time"]


async def test_a_message_that_a_scope_cuts_off_is_cancelled(autojump_clock: Any) -> None:
    async def body(ctx: RunContext) -> str:
        with trio.move_on_after(1):
            async with ctx.message() as out:
                await out.write("half")
                await trio.sleep_forever()
        return "went on"

    played = await play(agent_of(body))

    [complete] = only(played.log, T.MESSAGE_COMPLETE)
    assert (complete["content"], complete["finish_reason"]) == ("half", "cancelled")


async def test_a_call_that_fails_raises_with_its_cause() -> None:
    cause = ValueError("planted")

    @tool
    async def fails() -> None:
        """Fail."""
        raise cause

    failures: list[ToolFailed] = []

    async def body(ctx: RunContext) -> None:
        try:
            await ctx.call(fails)
        except ToolFailed as exc:
            failures.append(exc)

    await play(agent_of(body))

    [failed] = failures
    assert (failed.outcome, failed.tool_name, failed.call_id) == ("error", "fails", "c1")
    assert failed.__cause__ is cause


async def test_a_call_that_is_cancelled_raises_without_an_error(autojump_clock: Any) -> None:
    async def stuck() -> None:
        """Never end."""
        await trio.sleep_forever()

    async def body(ctx: RunContext) -> str:
        with pytest.raises(ToolFailed, match="ended cancelled"):
            await ctx.call(stuck)
        return "went on"

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START:
                assert stream.cancel_tool(event.data["call_id"])

    played = await play(agent_of(body), reader=reader)

    assert await played.stream.result() == "went on"


async def test_a_call_that_a_scope_cuts_off_is_cancelled(autojump_clock: Any) -> None:
    async def stuck() -> None:
        """Never end."""
        await trio.sleep_forever()

    async def body(ctx: RunContext) -> str:
        with trio.move_on_after(1):
            await ctx.call(stuck)
        return "went on"

    played = await play(agent_of(body))

    assert outcomes(played.log) == {"stuck": "cancelled"}
    assert await played.stream.result() == "went on"


async def test_a_question_that_nobody_answers_times_out(autojump_clock: Any) -> None:
    async def body(ctx: RunContext) -> str:
        with pytest.raises(DeadlineExceeded) as caught:
            await ctx.ask("Anybody?")
        assert isinstance(caught.value, TimeoutError)
        return caught.value.deadline

    played = await play(agent_of(body), limits=Limits(input=3))

    assert await played.stream.result() == "input"
    assert only(played.log, T.INPUT_RESOLVED)[0]["outcome"] == "timeout"


async def test_a_question_that_a_scope_cuts_off_leaves_no_status_behind(
    autojump_clock: Any,
) -> None:
    async def body(ctx: RunContext) -> str:
        with trio.move_on_after(1):
            await ctx.ask("Anybody?")
        return "went on"

    played = await play(agent_of(body))

    assert only(played.log, T.INPUT_RESOLVED)[0]["outcome"] == "cancelled"
    assert [data["new_status"] for data in only(played.log, T.STATE_CHANGE)] == [
        "running",
        "waiting_for_input",
        "running",
        "completed",
    ]


async def test_questions_where_nobody_reads_time_out_at_once(autojump_clock: Any) -> None:
    from flowtrio import StreamEngine

    asked = trio.Event()

    async def body(ctx: RunContext, message: str) -> str:
        outcomes = []
        for number in range(2):
            try:
                asked.set()
                await ctx.ask(f"{number}?")
            except TimeoutError:
                outcomes.append("timeout")
        outcomes.append(str(await ctx.approve("launch")))
        return " ".join(outcomes)

    async with StreamEngine().stream(body, "go") as stream:
        # The first question is open already when the reader gives up.
        while str(stream.status) != "waiting_for_input":
            await anext(stream)
        begun = trio.current_time()
        assert await stream.result() == "timeout timeout False"
        assert trio.current_time() == begun


@pytest.mark.parametrize("verb", ["status", "custom", "ask", "approve"])
async def test_what_is_no_text_is_refused(verb: str) -> None:
    async def body(ctx: RunContext) -> str:
        with pytest.raises(TypeError, match="expected a str, got int"):
            await getattr(ctx, verb)(7)
        return "told"

    assert (await play(agent_of(body))).status == "completed"


async def test_what_a_nested_agent_raises_is_raised_after_its_end() -> None:
    async def nested(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            await out.write("half")
            raise LookupError("planted")

    async def body(ctx: RunContext) -> str:
        with pytest.raises(LookupError, match="planted"):
            await ctx.delegate(nested, "go")
        return "went on"

    played = await play(agent_of(body))

    [end] = only(played.log, T.AGENT_END)
    assert (end["outcome"], end["error"]) == ("error", "LookupError: planted")
    assert await played.stream.result() == "went on"


async def test_names_of_nested_agents_make_paths_of_their_own() -> None:
    async def nested(ctx: RunContext, message: str) -> str:
        return ctx.agent

    nested.__name__ = "a/b#c"

    async def body(ctx: RunContext) -> list[str]:
        return [await ctx.delegate(nested, "go"), await ctx.delegate(nested, "go")]

    played = await play(agent_of(body))

    assert await played.stream.result() == ["root/a_b_c", "root/a_b_c#2"]


async def test_an_unknown_tool_of_an_agent_without_tools_is_told() -> None:
    model = calling("ghost")

    played = await play(runner(model))

    assert outcomes(played.log) == {"ghost": "error"}
    assert "there are: none" in model.requests[1].messages[-1]["content"]


async def test_texts_that_are_more_than_texts_become_plain() -> None:
    class Step(enum.StrEnum):
        SEARCH = "search"

    async def body(ctx: RunContext) -> None:
        await ctx.status(Step.SEARCH)
        await ctx.custom(Step.SEARCH)
        async with ctx.message() as out:
            await out.write(Step.SEARCH)

    played = await play(agent_of(body))

    assert type(only(played.log, T.CUSTOM)[0]["name"]) is str
    assert type(only(played.log, T.MESSAGE_CHUNK)[0]["chunk"]) is str
    reasons = [type(data["reason"]) for data in only(played.log, T.STATE_CHANGE)]
    assert set(reasons) == {str, type(None)}


# Inside which call something is


@tool
async def innermost(ctx: RunContext) -> None:
    """Be called by an agent that a tool asked."""


async def test_what_is_made_inside_a_call_names_it_and_at_the_top_nothing_does() -> None:
    async def expert(ctx: RunContext, message: str) -> None:
        await ctx.call(innermost)
        async with ctx.message() as out:
            await out.write("nested")

    @tool
    async def outer(ctx: RunContext) -> None:
        await ctx.ask("q?")
        await ctx.approve("a")
        with contextlib.suppress(ProviderError):
            await ctx.model([], ScriptedModel([ProviderError("no")]))
        await ctx.delegate(expert, "go")
        web = {"type": "server_tool_call", "id": "s1", "name": "web"}
        await ctx.model([], ScriptedModel([Chunk(parts=[web])]))

    async def body(ctx: RunContext) -> None:
        async with ctx.message() as out:
            await out.write("top")
        await ctx.call(outer)
        await ctx.ask("q?")
        await ctx.approve("a")

    async def act(stream: EventStream, log: list[AgentEvent]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.INPUT_REQUIRED:
                stream.answer(event.data["request_id"], "x")
            elif event.type is T.APPROVAL_REQUIRED:
                stream.approve(event.data["call_id"])

    played = await play(agent_of(body), reader=act)

    key = {T.INPUT_REQUIRED: "call_id"}
    types = (T.MESSAGE_COMPLETE, T.TOOL_CALL_START, T.APPROVAL_REQUIRED, T.INPUT_REQUIRED)
    told = [
        (str(event.type), event.agent, event.data[key.get(event.type, "parent_call_id")])
        for event in played.log
        if event.type in types
    ]
    assert told == [
        ("message_complete", "root", None),
        ("tool_call_start", "root", None),
        ("input_required", "root", "c1"),
        ("approval_required", "root", "c1"),
        ("tool_call_start", "root", "c1"),
        ("message_complete", "root", "c1"),
        ("tool_call_start", "root/expert", "c1"),
        ("message_complete", "root/expert", "c1"),
        ("tool_call_start", "root", "c1"),
        ("message_complete", "root", "c1"),
        ("input_required", "root", None),
        ("approval_required", "root", None),
        ("tool_call_start", "root", None),
    ]


async def test_a_message_that_is_closed_for_its_tool_names_the_call() -> None:
    @tool
    async def outer(ctx: RunContext) -> None:
        with trio.CancelScope() as scope:
            async with ctx.message() as out:
                await out.write("half")
                scope.cancel()
                await trio.lowlevel.checkpoint()

    async def body(ctx: RunContext) -> None:
        await ctx.call(outer)

    played = await play(agent_of(body))

    [data] = only(played.log, T.MESSAGE_COMPLETE)
    assert (data["finish_reason"], data["parent_call_id"]) == ("cancelled", "c1")
