"""A run lives in one Trio loop; a process may have several, and none may break another (L12)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from flowtrio import (
    Agent,
    Completion,
    EventStream,
    Limits,
    Orchestrator,
    RunContext,
    StreamEngine,
    ToolCall,
    tool,
)
from flowtrio.testing import ScriptedModel, check_events
from tests.runtime._programs import calling, outcomes, play

Verb = Callable[[RunContext], Awaitable[Any]]


@tool
async def quick() -> str:
    """Answer at once."""
    return "quick"


async def nested(ctx: RunContext, message: str) -> str:
    return "nested"


async def say(ctx: RunContext) -> None:
    async with ctx.message() as out:
        await out.write("hi")


async def start(ctx: RunContext) -> None:
    ctx.start_soon(trio.sleep, 0)


VERBS: dict[str, Verb] = {
    "status": lambda ctx: ctx.status("busy"),
    "progress": lambda ctx: ctx.progress(1),
    "custom": lambda ctx: ctx.custom("name"),
    "message": say,
    "model": lambda ctx: ctx.model([{"role": "user", "content": "hi"}], ScriptedModel("hi")),
    "call": lambda ctx: ctx.call(quick),
    "run_calls": lambda ctx: ctx.run_calls(
        Completion(tool_calls=[ToolCall("p", "quick", {})]), [quick]
    ),
    "approve": lambda ctx: ctx.approve("it"),
    "ask": lambda ctx: ctx.ask("why?"),
    "delegate": lambda ctx: ctx.delegate(nested, "go"),
    "agent": lambda ctx: Agent(llm_client=ScriptedModel("hi"))(ctx, "go"),
    "start_soon": start,
}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_context_is_refused_in_another_loop(verb: str) -> None:
    @tool
    def outside(ctx: RunContext) -> str:
        """Do something in a loop of its own, as people try it."""
        with pytest.raises(RuntimeError, match=r"expected a task of that loop, or trio\.from_th"):
            trio.run(VERBS[verb], ctx)
        return "refused"

    agent = Agent(llm_client=calling("outside"), tools=[outside])
    played = await play(agent, limits=Limits(approval=1, input=1))

    assert outcomes(played.log) == {"outside": "ok"}
    assert {event.agent for event in played.log} == {"root"}


async def test_a_background_task_is_refused_in_a_thread_without_a_loop() -> None:
    @tool
    async def agent_in_a_thread(ctx: RunContext) -> str:
        """Let a thread start a task of the run by itself."""

        def start() -> None:
            with pytest.raises(RuntimeError, match="can't start a background task"):
                contexts[0].start_soon(trio.sleep, 0)

        await trio.to_thread.run_sync(start)
        return "refused"

    contexts: list[RunContext] = []

    async def body(ctx: RunContext, message: str) -> Any:
        contexts.append(ctx)
        return await ctx.call(agent_in_a_thread)

    # A task that was counted and never began would be waited for.
    with trio.fail_after(5):
        played = await play(body)

    assert played.log[-1].data["result"] == "refused"


@pytest.mark.parametrize("form", ["bare", "dropped", "block"])
async def test_a_run_of_a_tools_own_loop_lives_there(form: str) -> None:
    async def read() -> None:
        stream = StreamEngine().stream(nested, "go")
        if form == "block":
            async with stream:
                check_events([event async for event in stream])
        elif form == "dropped":
            async for _ in stream:
                break
            await stream.aclose()
        else:
            check_events([event async for event in stream])

    @tool
    def outside() -> str:
        """Run an agent in a loop of its own."""
        trio.run(read)
        return "read"

    played = await play(Agent(llm_client=calling("outside"), tools=[outside]))

    assert outcomes(played.log) == {"outside": "ok"}


@pytest.mark.parametrize("kind", [StreamEngine, Orchestrator])
async def test_what_is_open_in_one_loop_holds_nothing_of_another(kind: type[Any]) -> None:
    begun, may_end = threading.Event(), threading.Event()
    logs: list[Any] = []

    def wait(ctx: RunContext, message: str) -> Awaitable[Any]:
        begun.set()
        return trio.to_thread.run_sync(may_end.wait)

    def make(opened: Any) -> EventStream[Any]:
        stream: EventStream[Any]
        if isinstance(opened, StreamEngine):
            stream = opened.stream(wait, "go")
        else:
            stream = opened.process_stream("go")
        return stream

    async def read(opened: Any) -> None:
        logs.append([event async for event in make(opened)])

    opened = kind() if kind is StreamEngine else kind(agents=[wait])
    async with trio.open_nursery() as nursery:
        async with opened:
            nursery.start_soon(trio.to_thread.run_sync, trio.run, read, opened)
            await trio.to_thread.run_sync(begun.wait)
        # It is left, and has waited for nobody there.
        may_end.set()

    assert logs[0][-1].data["status"] == "completed"
    check_events(logs[0])


@pytest.mark.parametrize("how", ["read", "aclose", "result", "receive_batch"])
async def test_a_stream_is_read_in_the_loop_of_its_run(how: str) -> None:
    verbs: dict[str, Callable[[EventStream[Any]], Awaitable[Any]]] = {
        "read": lambda stream: stream.__anext__(),
        "aclose": lambda stream: stream.aclose(),
        "result": lambda stream: stream.result(),
        "receive_batch": lambda stream: stream.receive_batch(),
    }

    async def body(ctx: RunContext, message: str) -> None:
        await trio.sleep_forever()

    async with StreamEngine().stream(body, "go") as stream:
        await stream.receive_batch()
        await stream.receive_batch()

        def outside() -> None:
            with pytest.raises(RuntimeError, match="outside the Trio loop of run"):
                trio.run(verbs[how], stream)

        await trio.to_thread.run_sync(outside)
        stream.cancel()
        log = [event async for event in stream]

    assert log[-1].data["status"] == "cancelled"


@pytest.mark.parametrize("verb", ["write", "part"])
async def test_a_message_is_written_in_the_loop_in_which_it_was_begun(verb: str) -> None:
    async def body(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            await out.write("here")

            def outside() -> None:
                with pytest.raises(RuntimeError, match="can't write a message outside"):
                    trio.run(getattr(out, verb), "there")

            await trio.to_thread.run_sync(outside)

    played = await play(body)

    assert played.stream.messages[-1]["content"] == "here"


async def test_a_hosted_run_is_followed_in_its_own_loop() -> None:
    may_end = trio.Event()

    async def wait(ctx: RunContext, message: str) -> None:
        await may_end.wait()

    async def follow(run_id: str) -> str:
        async with orchestrator.attach(run_id) as follower:
            return [str(event.type) async for event in follower][-1]

    async with Orchestrator(agents=[wait]) as orchestrator:
        run_id = await orchestrator.start("go")

        def outside() -> None:
            with pytest.raises(RuntimeError, match="can't follow outside the Trio loop"):
                trio.run(follow, run_id)

        await trio.to_thread.run_sync(outside)
        may_end.set()

        assert await follow(run_id) == "done"


@pytest.mark.parametrize("on_busy", ["queue", "cancel", "post"])
async def test_a_conversation_that_is_busy_in_another_loop_is_busy(on_busy: Any) -> None:
    may_end = trio.Event()

    async def wait(ctx: RunContext, message: str) -> str:
        await may_end.wait()
        return "here"

    async def read(message: str) -> dict[str, Any]:
        log = [e async for e in orchestrator.process_stream(message, session_id="s")]
        check_events(log)
        return log[-2].data if log[-1].data["status"] == "error" else log[-1].data

    orchestrator = Orchestrator(agents=[wait], on_busy=on_busy)
    async with orchestrator.process_stream("first", session_id="s") as stream:
        refused = await trio.to_thread.run_sync(trio.run, read, "second")
        may_end.set()

        assert await stream.result() == "here"
    assert refused["code"] == "session_busy"
    assert (await read("third"))["result"] == "here"


@pytest.mark.parametrize("verb", ["aclose", "result"])
def test_a_run_that_asyncio_reads_cannot_wait_for_itself(verb: str) -> None:
    @tool
    async def close() -> str:
        """Close the stream of one's own run."""
        with pytest.raises(RuntimeError, match="in a Trio task: expected the asyncio loop"):
            await getattr(streams[0], verb)()
        return "refused"

    async def main() -> list[Any]:
        agent = Agent(llm_client=calling("close"), tools=[close])
        streams.append(StreamEngine().stream(agent, "go"))
        return [event async for event in streams[0]]

    streams: list[EventStream[Any]] = []
    log = asyncio.run(main())

    check_events(log)
    assert outcomes(log) == {"close": "ok"}


def test_what_has_ended_is_read_in_any_loop() -> None:
    async def begin() -> EventStream[Any]:
        stream = StreamEngine().stream(nested, "go")
        async with stream:
            pass
        return stream

    async def read(stream: EventStream[Any]) -> list[str]:
        await stream.aclose()
        return [str(event.type) async for event in stream]

    stream = trio.run(begin)

    assert trio.run(read, stream)[-1] == "done"
