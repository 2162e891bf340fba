"""How a stream of a server is used, and controlled."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio

import flowtrio
from flowtrio import (
    RunCancelled,
    RunContext,
)
from flowtrio.testing import check_events
from tests.serving.test_websocket import approving_agent, waits
from tests.support.remote import connected, talks, until_chunk
from tests.support.ws_peer import open_server


async def test_a_stream_is_used_once_by_one_reader_until_it_is_closed() -> None:
    async with open_server(waits) as served, connected(served) as remote:
        stream = remote.process_stream("a", run_id="r")
        assert repr(stream) == "<RemoteStream run='r' status='initializing'>"
        assert not stream.cancel(), "it has not begun"
        async with stream:
            with pytest.raises(RuntimeError, match="used before"):
                await stream.__aenter__()
            await until_chunk(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_batch)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await anext(stream)
                nursery.cancel_scope.cancel()
        attached = remote.attach("other")
        await attached.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await anext(attached)


async def test_a_slow_reader_pauses_the_connection_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowtrio.remote._remote_stream._BUFFER", 2)
    async with open_server(talks) as served, connected(served) as remote:
        events = []
        async with remote.process_stream("30") as stream:
            async for event in stream:
                events.append(event)
                await trio.testing.wait_all_tasks_blocked()
                assert len(stream._queue) <= 2

    check_events(events)


# Controls


async def test_people_decide_over_the_network_from_any_thread() -> None:
    async with open_server(approving_agent()) as served, connected(served) as remote:
        async with remote.process_stream("pay") as stream:
            outcomes = []
            async for event in stream:
                if event.type == "approval_required":
                    assert stream.status in ("running", "waiting_for_approval")
                    await trio.to_thread.run_sync(stream.approve, event.data["call_id"])
                if event.type == "tool_call_end":
                    outcomes.append(event.data["outcome"])
            assert not stream.cancel()

    assert outcomes == ["ok"]


async def test_a_run_is_cancelled_once() -> None:
    async with open_server(waits) as served, connected(served) as remote:
        async with remote.process_stream("a") as stream:
            await until_chunk(stream)
            assert stream.cancel("enough")
            assert not stream.cancel("again")
            with pytest.raises(RunCancelled, match="enough"):
                await stream.result()


async def test_calls_are_denied_and_cancelled_over_the_network() -> None:
    @flowtrio.tool
    async def hang() -> None:
        """Hang."""
        await trio.sleep_forever()

    async def agent(ctx: RunContext, message: str) -> str:
        assert not await ctx.approve("pay", {})
        with pytest.raises(flowtrio.ToolFailed):
            await ctx.call(hang)
        return "done"

    outcomes = []
    async with open_server(agent) as served, connected(served) as remote:
        async with remote.process_stream("go") as stream:
            async for event in stream:
                if event.type == "approval_required":
                    assert stream.deny(event.data["call_id"], "no")
                if event.type == "tool_call_start":
                    assert stream.cancel_tool(event.data["call_id"])
                if event.type == "tool_call_end":
                    outcomes.append(event.data["outcome"])

    assert outcomes == ["denied", "cancelled"]


def test_when_all_is_over_nobody_hears_a_control() -> None:
    async def main() -> Any:
        async with open_server(waits) as served, connected(served) as remote:
            stream = remote.process_stream("a")
            await until_chunk(stream)
            return stream

    stream = trio.run(main)
    heard: list[bool] = []
    thread = threading.Thread(target=lambda: heard.append(stream.cancel()))
    thread.start()
    thread.join()

    assert heard == [False]
