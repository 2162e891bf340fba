"""Approvals and questions: asked once, answered once, and never in the way of the stream."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from flowtrio import DeadlineExceeded, EventStream, EventType, Limits, RunContext, tool
from tests.runtime._programs import agent_of, calling, only, outcomes, play, runner

T = EventType


@tool(needs_approval=True)
async def charge() -> str:
    """Charge the card."""
    return "charged"


def deciding(*presses: tuple[str, Any]) -> Any:
    """A reader that presses buttons when it is asked; each press and whether it took effect."""

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.APPROVAL_REQUIRED:
                id = event.data["call_id"]
            elif event.type is T.INPUT_REQUIRED:
                id = event.data["request_id"]
            else:
                continue
            for verb, expected in presses:
                name, _, argument = verb.partition(" ")
                act = getattr(stream, name)
                target = id if argument != "nobody" else "nobody"
                took_effect = act(target, "blue") if name == "answer" else act(target)
                assert took_effect is expected, verb

    return reader


async def test_an_approved_call_runs_and_a_second_press_changes_nothing() -> None:
    reader = deciding(("approve nobody", False), ("approve", True), ("approve", False))

    played = await play(runner(calling("charge"), charge), reader=reader)

    assert outcomes(played.log) == {"charge": "ok"}
    statuses = [data["new_status"] for data in only(played.log, T.STATE_CHANGE)]
    assert "waiting_for_approval" in statuses


async def test_a_denied_call_never_runs_and_the_model_is_told() -> None:
    played = await play(
        runner(calling("charge"), charge), reader=deciding(("deny", True), ("approve", False))
    )

    assert played.status == "completed"
    assert outcomes(played.log) == {"charge": "denied"}
    assert only(played.log, T.TOOL_CALL_START) == []


async def test_an_answer_that_comes_too_late_changes_nothing(autojump_clock: Any) -> None:
    asked: list[str] = []

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.APPROVAL_REQUIRED:
                asked.append(event.data["call_id"])
            if event.type is T.TOOL_CALL_END:
                assert not stream.approve(asked[0])
                assert not stream.deny(asked[0])
        assert not stream.cancel()
        assert not stream.cancel_tool(asked[0])

    played = await play(runner(calling("charge"), charge), reader=reader, limits=Limits(approval=5))

    assert outcomes(played.log) == {"charge": "timeout"}


async def test_an_answer_that_comes_while_the_timeout_waits_for_the_reader_changes_nothing(
    autojump_clock: Any,
) -> None:
    async def body(ctx: RunContext) -> None:
        with pytest.raises(DeadlineExceeded):
            await ctx.ask("Which colour?")

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.INPUT_REQUIRED:
                await trio.sleep(5)
                assert not stream.answer(event.data["request_id"], "blue")

    played = await play(agent_of(body), reader=reader, limits=Limits(input=1, buffer=1))

    assert only(played.log, T.INPUT_RESOLVED)[0]["outcome"] == "timeout"


async def test_a_question_is_answered_while_the_stream_goes_on() -> None:
    async def body(ctx: RunContext) -> str:
        return await ctx.ask("Which colour?")

    played = await play(
        agent_of(body),
        reader=deciding(("answer nobody", False), ("answer", True), ("answer", False)),
    )

    assert await played.stream.result() == "blue"
    assert only(played.log, T.INPUT_RESOLVED)[0]["outcome"] == "answered"


async def test_nobody_is_asked_where_nobody_reads() -> None:
    from flowtrio import StreamEngine

    model = calling("charge")
    async with StreamEngine().stream(runner(model, charge), "go") as stream:
        with trio.fail_after(5):
            assert await stream.result() == "fine"

    assert model.requests[1].messages[-1]["role"] == "tool"


async def test_controls_work_from_other_threads() -> None:
    @tool
    async def wait() -> None:
        """Wait for ever."""
        await trio.sleep_forever()

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START:
                id = event.data["call_id"]
                assert await trio.to_thread.run_sync(stream.cancel_tool, id)
                assert not await trio.to_thread.run_sync(stream.cancel_tool, id)

    played = await play(runner(calling("wait"), wait), reader=reader)

    assert played.status == "completed"
    assert outcomes(played.log) == {"wait": "cancelled"}


async def test_every_verb_once_gives_one_lawful_log() -> None:
    @tool
    async def step(ctx: RunContext, size: int) -> int:
        """Step."""
        await ctx.progress(0.5)
        return size + 1

    async def guest(ctx: RunContext, message: str) -> str:
        async with ctx.message() as out:
            await out.write("as a guest")
        return message.upper()

    model = calling("unused", then="")

    async def body(ctx: RunContext) -> dict[str, Any]:
        await ctx.status("working")
        await ctx.custom("note", {"a": [1]})
        ctx.start_soon(ctx.custom, "background")
        async with ctx.message() as out:
            await out.write("hello")
        completion = await ctx.model([{"role": "user", "content": "hi"}], client=model)
        return {
            "call": await ctx.call(step, size=1),
            "approve": await ctx.approve("launch", {"when": "now"}),
            "ask": await ctx.ask("Why?"),
            "delegate": await ctx.delegate(guest, "welcome"),
            "model": [call.name for call in completion.tool_calls],
        }

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.APPROVAL_REQUIRED:
                stream.approve(event.data["call_id"])
            if event.type is T.INPUT_REQUIRED:
                stream.answer(event.data["request_id"], "because")

    played = await play(agent_of(body), reader=reader)

    assert await played.stream.result() == {
        "call": 2,
        "approve": True,
        "ask": "because",
        "delegate": "WELCOME",
        "model": ["unused"],
    }
    types = {event.type for event in played.log}
    assert types >= {T.CUSTOM, T.TOOL_PROGRESS, T.AGENT_START, T.AGENT_END, T.INPUT_RESOLVED}


async def test_progress_belongs_to_a_tool() -> None:
    from flowtrio import LocalProtocolError

    async def body(ctx: RunContext) -> None:
        with pytest.raises(LocalProtocolError, match="expected a tool call's context"):
            await ctx.progress(1)

    assert (await play(agent_of(body))).status == "completed"
