"""Servers that share a store: what a client is told by one of them of a run in another one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from flowtrio import Orchestrator, RunContext, ServerLimits
from flowtrio.protocols import AISDKProtocol, OpenAIProtocol
from flowtrio.serving.commands._clients import Hosting
from flowtrio.serving.http._protocol import Visit, unknown_run
from flowtrio.testing import LeasedStore
from flowtrio.wire._frames import BadFrame, CancelCommand
from tests.support.orchestrators import SeenStore
from tests.support.site import Site, read_run, site, socket
from tests.support.ws_peer import connect, open_server


async def asks(ctx: RunContext, message: str) -> str:
    """Ask for approval, then two questions."""
    if not await ctx.approve("book", {}):
        return "denied"
    await ctx.ask("where?")
    return str(await ctx.ask("how many?", int))


async def waits(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        await out.write("well")
        if message != "quick":
            await trio.sleep_forever()
    return ""


def make(store: LeasedStore, agent: Any, role: str, lease: float = 20) -> Orchestrator:
    """With a lease longer than a busy machine keeps it from being renewed."""
    return Orchestrator(
        agents=[agent], store=store, conversations=store.conversations, role=role, lease=lease
    )


@asynccontextmanager
async def pair(
    agent: Any, lease: float = 20, **options: Any
) -> AsyncIterator[tuple[Site, Orchestrator]]:
    """A gateway that is served, and a worker."""
    store = SeenStore(LeasedStore())
    worker = make(SeenStore(store), agent, "worker", lease)
    async with worker, site(orchestrator=make(store, agent, "gateway", lease), **options) as s:
        yield s, worker


async def asked(orchestrator: Orchestrator, run_id: str) -> None:
    """Wait until a run asks for approval."""
    async with orchestrator.attach(run_id) as follower:
        async for event in follower:
            if event.type == "approval_required":
                return


async def handshake(port: int) -> bytes:
    """Ask for a WebSocket, and give the status of the answer."""
    request = (
        "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with trio.fail_after(60):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request.encode())
            return (await stream.receive_some()).split()[1]


async def test_clients_command_a_run_elsewhere() -> None:
    async with pair(asks) as (s, _), socket(s, "flowtrio.v1") as ws:

        async def send(**command: Any) -> Any:
            await ws.send_message(json.dumps(command))
            while "ref" not in (frame := json.loads(await ws.get_message())):
                frames.append(frame)
            return frame

        async def until(kind: str) -> Any:
            while not (found := [f for f in frames if f["type"] == kind]):
                frames.append(json.loads(await ws.get_message()))
            frames.clear()
            return found[-1]["data"]

        frames: list[Any] = []
        with trio.fail_after(60):
            assert (await send(type="message", message="hi", run_id="r"))["type"] == "accepted"
            call_id = (await until("approval_required"))["call_id"]
            told = await send(type="approve", run_id="r", call_id=call_id)
            assert told["type"] == "accepted"
            request_id = (await until("input_required"))["request_id"]
            # The same over HTTP.
            answer = {"request_id": request_id, "text": "there"}
            assert (await s.http.post("/runs/r/answer", json=answer)).status_code == 200
            request_id = (await until("input_required"))["request_id"]
            told = await send(type="answer", run_id="r", request_id=request_id, text="many")
            assert told["code"] == "bad_answer"
            told = await send(type="post", run_id="r", message="more")
            assert told["code"] == "no_next_reply"
            told = await send(type="post", run_id="r", message=" ")
            assert told["code"] == "bad_frame"
            for command in (
                {"type": "deny", "call_id": call_id},
                {"type": "dismiss", "request_id": "q9"},
                {"type": "cancel_tool", "call_id": "c9"},
            ):
                assert (await send(run_id="r", **command))["type"] == "accepted"
            assert (await send(type="cancel", run_id="none"))["code"] == "unknown_run"
            assert (await send(type="cancel", run_id="r"))["type"] == "accepted"
            await until("done")
            assert (await send(type="cancel", run_id="r"))["code"] == "unknown_run"
            assert (await s.http.post("/runs/r/cancel")).status_code == 404


async def test_who_does_not_reply_and_a_store_that_fails_are_told_apart() -> None:
    async with pair(waits, lease=2) as (s, worker):
        events = await s.http.get("/runs/none/events")
        assert events.status_code == 404
        async with socket(s, "flowtrio.v1") as ws:
            await ws.send_message('{"type": "message", "message": "hi", "run_id": "r"}')
            while "message_chunk" not in await ws.get_message():
                pass
            assert isinstance(worker.store, SeenStore)
            worker.store.sight.is_dead = True
            refused = await s.http.post("/runs/r/approve", json={"call_id": "c1"})
            # By then others may have ended it.
            assert (refused.status_code, refused.json()["code"]) in (
                (503, "no_reply"),
                (404, "unknown_run"),
            )

            async def broken(*args: Any, **options: Any) -> Any:
                raise OSError("no store")

            s.orchestrator.store.header = broken  # type: ignore[method-assign]
            s.orchestrator.store.enqueue = broken  # type: ignore[attr-defined]
            await ws.send_message('{"type": "cancel", "run_id": "r", "ref": 1}')
            await ws.send_message('{"type": "message", "message": "hi", "ref": 2}')
            codes = []
            while len(codes) < 2:
                frame = await ws.get_message()
                if "rejected" in frame:
                    codes.append("store_failed" in frame)
            assert codes == [True, True]
            refused = await s.http.post("/chat/stream", json={"message": "hi"})
            assert refused.json()["code"] == "store_failed"
            s.orchestrator.store.create = broken  # type: ignore[method-assign]
            ready = await s.http.get("/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "store_failed")
            refused = await s.http.post("/runs/r/cancel")
            assert refused.json()["code"] == "store_failed"


async def test_the_run_of_a_plain_client_ends_when_it_leaves() -> None:
    store = SeenStore(LeasedStore())
    worker, gateway = make(SeenStore(store), waits, "worker"), make(store, waits, "gateway")
    async with worker, open_server(gateway) as served:
        async with connect(served) as peer:
            run_id = (await peer.ask("quick"))[-1]["run_id"]
            await peer.send("hi")
            run_id = (await peer.until("message_chunk"))[-1]["run_id"]
        with trio.fail_after(60):
            async with gateway.attach(run_id) as follower:
                log = [event async for event in follower]
        assert log[-1].data["reason"] == "its reader left"


async def test_a_worker_serves_nobody_and_tells_how_it_is() -> None:
    store = SeenStore(LeasedStore())
    async with site(orchestrator=make(store, waits, "worker")) as s:
        with trio.fail_after(60):
            while (ready := await s.http.get("/ready")).status_code != 200:
                assert ready.json()["status"] == "no_lease"
                await trio.sleep(0.05)
        told = ready.json()
        assert told["role"] == "worker"
        assert told["processes"] == 1
        assert 0 < told["lease"] <= 20
        assert (await s.http.get("/health")).status_code == 200
        for path in ("/", "/app.js", "/sessions", "/chat/stream?message=hi"):
            assert (await s.http.get(path)).status_code == 404, path
        metrics = (await s.http.get("/metrics")).text
        for name in (
            "lease_seconds",
            "runs_reaped_total",
            "runs_fenced_total",
            "cluster_processes",
        ):
            assert f"\nflowtrio_{name} " in metrics
        port = int(s.url.rpartition(":")[2])
        assert await handshake(port) in (b"404", b"403")
        async with open_server(s.orchestrator) as served:
            assert await handshake(served.port) == b"404"

        async def broken() -> Any:
            raise OSError("no store")

        store.statistics = broken  # type: ignore[method-assign]
        assert "processes" not in (await s.http.get("/ready")).json()
        assert "flowtrio_cluster_processes" not in (await s.http.get("/metrics")).text


async def test_a_stopping_worker_gives_its_runs_time_and_leaves_the_queue() -> None:
    store = SeenStore(LeasedStore())
    gateway, worker = make(store, waits, "gateway"), make(SeenStore(store), waits, "worker")
    async with gateway, worker:
        run_id = await gateway.start("hi")
        async with gateway.attach(run_id) as follower:
            while (await follower.receive_batch())[-1].type != "message_chunk":
                pass
            hosting = Hosting(worker, ServerLimits(), False, 60)
            await hosting.drain(0.1)
            log = [event async for event in follower]
        assert log[-2].data["code"] == "shutdown"
        waiting = await gateway.start("hi")
        await trio.sleep(1)
        header = await store.header("default", waiting)
        assert header is not None
        assert header.owner is None
        # And a gateway does not wait for what its clients read elsewhere.
        async with gateway.attach(waiting) as follower:
            hosting = Hosting(gateway, ServerLimits(), False, 60)
            with hosting.reading(follower), trio.fail_after(20):
                await hosting.drain(30)
            # For those who could not go on elsewhere it does, and not for longer than it may.
            with hosting.reading(follower, is_only_here=True), trio.fail_after(5):
                begun = trio.current_time()
                await hosting.drain(0.5)
            assert trio.current_time() >= begun + 0.5


async def takes_a_second(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        await out.write("begun ")
        await trio.sleep(1)
        await out.write("and done")
    return ""


async def ask_by(s: Site, client: str) -> str:
    """Ask as a client that knows nothing of a run it could resume; gives all it was told."""
    if client == "plain":
        async with socket(s) as ws:
            await ws.send_message("hi")
            return "".join([frame["type"] for frame in await read_run(ws)])
    said = [{"role": "user", "content": "hi"}]
    asked = {"model": "takes_a_second", "messages": said, "stream": client == "streamed"}
    return (await s.http.post("/v1/chat/completions", json=asked)).text


@pytest.mark.parametrize("client", ["whole", "streamed", "plain"])
async def test_a_gateway_that_stops_lets_those_read_on_who_could_not_elsewhere(client: str) -> None:
    async with pair(takes_a_second, protocols=[OpenAIProtocol()], drain=30) as (s, worker):
        told: list[str] = []

        async def ask() -> None:
            told.append(await ask_by(s, client))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not worker._recorder.runs:
                await trio.sleep(0.01)
            with trio.fail_after(20):
                await s.app.drain()
            assert not worker._recorder.runs

    assert "done" in told[0]


async def test_protocols_find_and_answer_runs_elsewhere() -> None:
    async with pair(asks, protocols=[OpenAIProtocol(), AISDKProtocol()]) as (s, _):
        orchestrator = s.orchestrator
        visit = Visit(Hosting(orchestrator, ServerLimits(), False, 60), None, "default", None)  # type: ignore[arg-type]
        assert await visit.live_run_of("s") is None
        run_id = await orchestrator.start("hi", session_id="s")
        await asked(orchestrator, run_id)
        assert await visit.live_run_of("s") == run_id
        assert await visit.is_live(run_id)
        assert await visit.last_of(run_id) > 0
        await visit.control(run_id, CancelCommand(run_id=run_id))
        async with orchestrator.attach(run_id) as follower:
            async for _event in follower:
                pass
        assert not await visit.is_live(run_id)
        for call in (visit.last_of(run_id), visit.control(run_id, CancelCommand(run_id=run_id))):
            with pytest.raises(type(unknown_run())):
                await call
        run_id = await orchestrator.start("hi", session_id="s2")
        await asked(orchestrator, run_id)
        from flowtrio.wire._frames import PostCommand

        with pytest.raises(BadFrame):
            await visit.control(run_id, PostCommand(run_id=run_id, message=" "))


async def test_a_response_elsewhere_is_told_as_it_stands() -> None:
    async with pair(waits, protocols=[OpenAIProtocol()]) as (s, _):
        with trio.fail_after(60):
            asked = {"model": "waits", "input": "hi", "background": True}
            told = (await s.http.post("/v1/responses", json=asked)).json()
            address = f"/v1/responses/{told['id']}"
            again = (await s.http.get(address)).json()
            given = (await s.http.get(f"{address}/input_items")).json()
            ended = (await s.http.post(f"{address}/cancel")).json()

    assert (told["status"], again["status"]) == ("in_progress", "in_progress")
    assert [item["content"][0]["text"] for item in given["data"]] == ["hi"]
    assert ended["status"] == "cancelled"


async def test_an_answer_that_began_elsewhere_is_told_again_as_the_same_message() -> None:
    protocols = [AISDKProtocol()]
    async with pair(asks, protocols=[AISDKProtocol()]) as (s, _):
        run_id = await s.orchestrator.start("hi", session_id="s")
        await asked(s.orchestrator, run_id)
        assert await s.orchestrator.command(run_id, "approve", call_id="c1")
        async with (
            s.orchestrator.attach(run_id) as follower,
            site(orchestrator=s.orchestrator, protocols=protocols) as elsewhere,
        ):
            async for event in follower:
                if event.type == "input_required":
                    break
            said = {"id": "u2", "role": "user", "parts": [{"type": "text", "text": "there"}]}
            told = await s.http.post("/ai-sdk/chat", json={"id": "s", "messages": [said]})
            message = json.loads(told.text.partition("data: ")[2].partition("\n")[0])["messageId"]
            known = {"message": message}
            again = await elsewhere.http.get("/ai-sdk/chat/s/stream", params=known)

    assert message != run_id
    assert again.text == told.text


async def test_a_run_is_deleted_wherever_it_lives() -> None:
    async with pair(waits) as (s, _):
        run_id = await s.orchestrator.start("hi")
        hosting = Hosting(s.orchestrator, ServerLimits(), False, 60)
        assert await hosting.service.forget_run("default", run_id)
        assert not await hosting.service.forget_run("default", run_id)
        assert await s.orchestrator.store.header("default", run_id) is None
