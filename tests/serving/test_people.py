"""What people bring, over the wire: edited arguments, answers of a schema, and posted messages."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from flowtrio import (
    Agent,
    ClientTool,
    EventStream,
    Limits,
    Orchestrator,
    RunContext,
    ToolCall,
    connect,
    tool,
)
from flowtrio import EventType as T
from flowtrio.testing import ScriptedModel
from tests.support.ws_peer import connect as connect_peer
from tests.support.ws_peer import open_server


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


async def asks(ctx: RunContext, message: str) -> Any:
    """Ask for a number, and pay it."""
    return await ctx.call(pay, amount=await ctx.ask("How much?", int))


async def test_what_does_not_fit_is_rejected_and_what_was_asked_stays_open() -> None:
    async with open_server(asks) as served, connect_peer(served) as peer:
        await peer.send("go")
        asked = (await peer.until("input_required"))[-1]
        run_id = asked["run_id"]
        assert asked["data"]["schema"] == {"type": "integer"}
        answer = {"type": "answer", "run_id": run_id, "request_id": "q1"}
        await peer.send({**answer, "text": {"much": 1}, "ref": 1})
        refused = (await peer.until("rejected"))[-1]
        assert (refused["ref"], refused["code"]) == (1, "bad_answer")
        await peer.send({**answer, "text": 100})
        call_id = (await peer.until("approval_required"))[-1]["data"]["call_id"]
        approve = {"type": "approve", "run_id": run_id, "call_id": call_id}
        await peer.send({**approve, "arguments": {"amount": "all"}, "ref": 2})
        refused = (await peer.until("rejected"))[-1]
        assert (refused["ref"], refused["code"]) == (2, "bad_arguments")
        await peer.send({**approve, "arguments": {"amount": 1}})
        done = (await peer.until("done"))[-1]

    assert done["data"]["result"] == "paid 1"


async def test_a_dismissed_question_fails_who_asked() -> None:
    async with open_server(asks) as served, connect_peer(served) as peer:
        await peer.send("go")
        run_id = (await peer.until("input_required"))[-1]["run_id"]
        await peer.send(type="dismiss", run_id=run_id, request_id="q1", reason="no")
        events = await peer.until("done")

    [resolved] = [e["data"] for e in events if e["type"] == "input_resolved"]
    assert resolved["outcome"] == "declined"


async def test_what_is_posted_again_under_its_name_is_said_once() -> None:
    """The reply to the first was lost, so its client sends it again."""
    async with open_server(answering()) as served, connect_peer(served) as peer:
        await peer.send("go")
        event = (await peer.until("approval_required"))[-1]
        post = {"type": "post", "run_id": event["run_id"], "message": "in euros"}
        for ref, name in enumerate(("a", "a", "b", "a")):
            await peer.send({**post, "post_id": name, "ref": ref})
            assert (await peer.until("accepted"))[-1]["ref"] == ref
        await peer.send(type="approve", run_id=event["run_id"], call_id=event["data"]["call_id"])
        events = await peer.until("done")

    assert [e["data"]["message"] for e in events if e["type"] == "user_message"] == ["in euros"] * 2


def answering() -> Agent:
    """An agent that is asked to book, and waits for an approval meanwhile."""
    model = ScriptedModel([ToolCall("1", "pay", {"amount": 1})], "fine")
    return Agent(llm_client=model, tools=[pay])


@pytest.mark.parametrize("parts", [(), ({"type": "text", "text": "please"},)])
async def test_what_is_posted_is_told_and_refused_where_nothing_follows(parts: Any) -> None:
    async def alone(ctx: RunContext, message: str) -> None:
        await ctx.ask("?")

    async with open_server(answering()) as served, connect_peer(served) as peer:
        await peer.send("go")
        event = (await peer.until("approval_required"))[-1]
        post = {"type": "post", "run_id": event["run_id"], "message": "in euros"}
        await peer.send({**post, "parts": parts, "ref": 1})
        await peer.until("accepted")
        await peer.send(type="approve", run_id=event["run_id"], call_id=event["data"]["call_id"])
        events = await peer.until("done")
    said = [e["data"]["message"] for e in events if e["type"] == "user_message"]
    assert said == ["in euros\nplease" if parts else "in euros"]
    async with open_server(alone) as served, connect_peer(served) as peer:
        await peer.send("go")
        run_id = (await peer.until("input_required"))[-1]["run_id"]
        await peer.send(type="post", run_id=run_id, message="hello", ref=2)
        refused = (await peer.until("rejected"))[-1]
        await peer.send(type="post", run_id=run_id, message="", ref=3)
        empty = (await peer.until("rejected"))[-1]

    assert (refused["ref"], refused["code"]) == (2, "no_next_reply")
    assert (empty["ref"], empty["code"]) == (3, "bad_frame")


async def test_a_remote_stream_has_the_same_controls() -> None:
    async with open_server(answering()) as served, connect(served.url) as remote:
        async with remote.process_stream("go") as stream:
            async for event in stream:
                if event.type is T.APPROVAL_REQUIRED:
                    assert stream.post("in euros", interrupt=True)
                    assert stream.approve(event.data["call_id"], {"amount": 2})
            assert await stream.result() == "fine"
    async with open_server(asks) as served, connect(served.url) as remote:
        async with remote.process_stream("go") as stream:
            async for event in stream:
                if event.type is T.INPUT_REQUIRED:
                    assert stream.dismiss(event.data["request_id"])
                if event.type is T.INPUT_RESOLVED:
                    assert event.data["outcome"] == "declined"


async def test_a_message_for_a_busy_conversation_may_be_posted_to_its_run() -> None:
    async with Orchestrator(agents=[answering()], on_busy="post") as orchestrator:
        async with orchestrator.process_stream("go", session_id="s") as stream:
            async for event in stream:
                if event.type is T.APPROVAL_REQUIRED:
                    async with orchestrator.process_stream("in euros", session_id="s") as second:
                        log = [event async for event in second]
                    stream.approve(event.data["call_id"])
                    assert log[-1].data["status"] == "cancelled"
                    assert (
                        log[-1].data["reason"] == f"its message was posted to run {stream.run_id}"
                    )
        kept = await orchestrator.conversations.load("default", "s")

    assert [m["content"] for m in kept if m["role"] == "user"] == ["go", "in euros"]


async def test_nothing_that_is_posted_overtakes_what_waits(autojump_clock: Any) -> None:
    model = ScriptedModel([2.0, "fine"], "later", "last")

    async def reads_first(ctx: RunContext, message: str) -> str:
        # Before it has asked a model, nobody knows whether it will.
        await trio.sleep(1)
        return (await ctx.model(ctx.messages, model)).content

    async with Orchestrator(agents=[reads_first], on_busy="post") as orchestrator:
        async with trio.open_nursery() as nursery:
            for seconds, said in ((0, "go"), (0.5, "waits"), (2, "comes last")):

                @nursery.start_soon
                async def say(seconds: float = seconds, said: str = said) -> None:
                    await trio.sleep(seconds)
                    await orchestrator.process(said, session_id="s")

        kept = await orchestrator.conversations.load("default", "s")

    assert [m["content"] for m in kept if m["role"] == "user"] == ["go", "waits", "comes last"]


async def test_what_is_for_another_agent_is_not_posted() -> None:
    async def hotels(ctx: RunContext, message: str) -> str:
        return f"{message}: none"

    agents = [answering(), hotels]
    async with Orchestrator(agents=agents, route=lambda *_: "hotels", on_busy="post") as it:
        async with it.process_stream("go", session_id="s", agent="assistant") as stream:
            async for event in stream:
                if event.type is T.APPROVAL_REQUIRED:
                    run_id = await it.start("rooms", session_id="s", agent="hotels")
                    stream.approve(event.data["call_id"])
        async with it.attach(run_id) as other:
            done = [event async for event in other][-1]

    assert done.data["result"] == "rooms: none"


class Toolset:
    async def tools(self, ctx: RunContext) -> list[Any]:
        return []


def hint() -> str:
    """Give a hint."""
    return "hint"


BROUGHT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tools": ({"tools": [hint]}, {"tools": [tool(timeout=1)(hint)]}),
    "client-tools": (
        {"tools": [ClientTool("look", "Look.", {"type": "object"})]},
        {"tools": [ClientTool("look", "Look up.", {"type": "object"})]},
    ),
    "toolset": ({"tools": [Toolset()]}, {"tools": [hint]}),
    "limits": ({"limits": Limits(turns=9)}, {"limits": Limits(turns=8)}),
    "settings": ({"model_settings": {"seed": 1}}, {"model_settings": {"seed": 2}}),
    "app": ({"app": {"user": "u"}}, {"app": {"user": "v"}}),
}


@pytest.mark.parametrize("what", BROUGHT)
async def test_what_brings_something_of_its_own_is_not_posted(what: str) -> None:
    """Only what the run has too, and what it has alone, is no reason to wait."""
    had, other = BROUGHT[what]
    app = {"user": "w"}
    async with Orchestrator(agents=[answering()], on_busy="post", app=app) as it:
        async with it.process_stream("go", session_id="s", **had) as stream:
            async for event in stream:
                if event.type is T.APPROVAL_REQUIRED:
                    waits = await it.start("mine", session_id="s", **other)
                    await it.command(waits, "cancel", reason="enough")
                    async with it.attach(waits) as second:
                        mine = [event async for event in second][-1]
                    same = await reason_of(it.process_stream("same", session_id="s", **had))
                    plain = await reason_of(it.process_stream("plain", session_id="s"))
                    stream.approve(event.data["call_id"])

    posted = f"its message was posted to run {stream.run_id}"
    assert (mine.data["reason"], same, plain) == ("enough", posted, posted)


async def reason_of(stream: EventStream) -> Any:
    async with stream:
        return [event async for event in stream][-1].data["reason"]


async def test_what_cannot_be_compared_is_the_messages_own() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

    async def body(ctx: RunContext, message: str) -> None:
        await ctx.model(ctx.messages, ScriptedModel("fine"))
        await ctx.approve("book", {})

    async with Orchestrator(agents=[body], on_busy="post") as it:
        async with it.process_stream("go", session_id="s", app=Odd()) as stream:
            async for event in stream:
                if event.type is T.APPROVAL_REQUIRED:
                    mine = await it.start("mine", session_id="s", app=Odd())
                    await it.command(mine, "cancel", reason="enough")
                    async with it.attach(mine) as own:
                        assert [event async for event in own][-1].data["reason"] == "enough"
                    stream.deny(event.data["call_id"])


async def test_what_no_reply_follows_waits_for_its_turn_instead() -> None:
    async def body(ctx: RunContext, message: str) -> str:
        return message

    async with Orchestrator(agents=[body], on_busy="post") as orchestrator:
        async with orchestrator.process_stream("one", session_id="s") as one:
            async with orchestrator.process_stream("two", session_id="s") as two:
                assert await one.result() == "one"
                assert await two.result() == "two"
