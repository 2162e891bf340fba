"""A run over the network reads like one in process, and what is refused is told."""

from __future__ import annotations

import pytest
import trio

import flowtrio
from flowtrio import (
    AgentEvent,
    LimitExceeded,
    MemoryStore,
    Orchestrator,
    ReplayGap,
    RunCancelled,
    RunContext,
    RunFailed,
    project,
)
from flowtrio.testing import check_events
from tests.serving.test_websocket import echo, waits
from tests.support.remote import connected, talks, until_chunk
from tests.support.ws_peer import open_server


async def fails(ctx: RunContext, message: str) -> None:
    """Fail."""
    raise ValueError("no")


# Like a stream in process


async def test_a_run_over_the_network_reads_like_one_in_process() -> None:
    async with open_server(echo) as served, connected(served) as remote:
        async with remote.process_stream("hello") as stream:
            events = [event async for event in stream]
        assert stream.status == "completed"
        bare = [event async for event in remote.process_stream("hello")]
        assert await remote.process("hello") == "hello"
        batches: list[AgentEvent] = []
        stream = remote.process_stream("hello")
        with pytest.raises(trio.EndOfChannel):
            while True:
                batches += await stream.receive_batch()

    for log in (events, bare, batches):
        check_events(log)


async def test_a_conversation_goes_on_in_its_session() -> None:
    async with open_server(echo) as served, connected(served) as remote:
        assert await remote.process("one", session_id="s") == "one"
        assert await remote.process("two", session_id="s") == "one two"
        assert await remote.process("three") == "three"


@pytest.mark.parametrize("mode", ["values", "updates", "messages"])
async def test_modes_are_those_of_the_log(mode: str) -> None:
    async with open_server(talks) as served, connected(served) as remote:
        async with remote.process_stream("9", mode=mode) as stream:
            seen = [event async for event in stream]
        whole = [event async for event in remote.attach(stream.run_id)]

    assert seen == list(project(mode, whole))


async def test_leaving_a_run_cancels_it_and_leaving_an_attached_one_does_not() -> None:
    orchestrator = Orchestrator(agents=[waits])
    async with open_server(orchestrator) as served, connected(served) as remote:
        async with remote.process_stream("a", run_id="r") as stream:
            await until_chunk(stream)
            async with connected(served) as other, other.attach("r") as follower:
                await until_chunk(follower)
            assert orchestrator.attach("r").is_live
        header = await orchestrator.store.header("default", "r")

    assert stream.status == "cancelled"
    assert header is not None
    assert header.status == "cancelled"


async def test_a_question_is_answered_and_a_run_cancelled() -> None:
    async def asks(ctx: RunContext, message: str) -> str:
        answer = await ctx.ask("Where?")
        await ctx.custom("answered", answer)
        await trio.sleep_forever()
        return answer

    async with open_server(asks) as served, connected(served) as remote:
        async with remote.process_stream("go") as stream:
            async for event in stream:
                if event.type == "input_required":
                    stream.answer(event.data["request_id"], "Paris")
                if event.type == "custom":
                    assert event.data["value"] == "Paris"
                    stream.cancel("enough")
            with pytest.raises(RunCancelled, match="enough"):
                await stream.result()


async def test_a_result_that_is_none_says_why() -> None:
    async with open_server(fails) as served, connected(served) as remote:
        with pytest.raises(RunFailed) as caught:
            await remote.process("go")

    assert caught.value.error["source"] == "agent"
    # Exception texts stay on the server.
    assert "no" not in caught.value.error["error"].split()


# What is refused


async def test_what_a_server_refuses_is_raised_where_it_is_read() -> None:
    orchestrator = Orchestrator(agents=[talks], runs_per_tenant=1, store=MemoryStore(max_events=10))
    async with open_server(orchestrator) as served, connected(served) as remote:
        with pytest.raises(LookupError):
            await remote.attach("unknown").receive_batch()
        async with remote.process_stream("100000", run_id="r") as stream:
            await stream.receive_batch()
            with pytest.raises(LimitExceeded) as caught:
                await remote.process("1")
            assert caught.value.code == "tenant_busy"
            with pytest.raises(RuntimeError, match="read here already"):
                await remote.attach("r").receive_batch()
        with pytest.raises(ReplayGap):
            await remote.attach("r").receive_batch()


async def test_a_reader_that_begins_behind_the_end_is_at_its_end() -> None:
    async with open_server(echo) as served, connected(served) as remote:
        log = [event async for event in remote.process_stream("hello", run_id="r")]
        async with remote.attach("r", after=log[-1].seq) as stream:
            assert [event async for event in stream] == []
            assert not stream.cancel()
        with pytest.raises(trio.EndOfChannel):
            await remote.attach("r", after=log[-1].seq).receive_batch()
        with pytest.raises(LookupError, match="attach from an earlier place"):
            await remote.attach("r", after=log[-1].seq).result()
        with pytest.raises(ReplayGap):
            await remote.attach("r", after=log[-1].seq + 1).receive_batch()
        assert await remote.attach("r", after=log[-2].seq).result() == "hello"


async def test_a_run_that_has_ended_is_read_again_under_its_id() -> None:
    async with open_server(echo) as served, connected(served) as remote:
        logs = [[e async for e in remote.process_stream("hello", run_id="r")] for _ in range(2)]

    check_events(logs[0])
    assert logs[0] == logs[1]


async def test_a_wrong_token_or_no_server_is_told_at_once() -> None:
    async with open_server(echo, token="right") as served:
        async with connected(served, token="right") as remote:
            assert await remote.process("hi") == "hi"
        with pytest.raises(ConnectionError, match="answers 401") as caught:
            async with connected(served, token="wrong-secret"):
                raise AssertionError("not reached")
        assert "wrong-secret" not in str(caught.value)
    with pytest.raises(ConnectionError, match=r"can't reach .*onnection refused"):
        async with connected(served):
            raise AssertionError("not reached")


async def test_what_the_body_raises_leaves_as_it_is() -> None:
    async with open_server(echo) as served:
        with pytest.raises(KeyError):
            async with connected(served):
                raise KeyError("mine")


async def test_a_token_may_be_a_function_that_is_asked_whenever_a_connection_is_made() -> None:
    asked = []

    async def token() -> str:
        asked.append(None)
        if len(asked) == 2:
            raise LookupError("no token for now")
        return "right"

    async with open_server(echo, token="right") as served:
        for _ in range(2):
            async with connected(served, token=lambda: "right") as remote:
                assert await remote.process("hi") == "hi"
        async with connected(served, token=token) as remote:
            assert await remote.process("hi") == "hi"
        with pytest.raises(ConnectionError, match=r"can't reach .*: no token for now"):
            async with connected(served, token=token):
                raise AssertionError("not reached")
    assert len(asked) == 2


async def test_a_token_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="token: expected a text or a function, got int"):
        async with flowtrio.connect("ws://127.0.0.1:1", token=7):  # type: ignore[arg-type]
            raise AssertionError("not reached")
