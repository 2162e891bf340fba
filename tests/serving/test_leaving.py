"""A client that leaves cancels its run within a second, or within one after its resume window.

On every transport, and whether it says goodbye or is just gone. The specification's SSE example is
tested where it stands, and the endpoints of one's own by the guide's tests.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pytest
import trio
import trio_websocket

from flowtrio import Orchestrator
from flowtrio.asgi import create_app
from tests.support.leaving import Endless, check_ends_within_a_second
from tests.support.worker import serving
from tests.support.ws_peer import open_server

WINDOW = 0.4

Server: TypeAlias = Callable[..., AbstractAsyncContextManager[str]]
HOW = pytest.mark.parametrize("how", ["says goodbye", "ends", "resets"])


@asynccontextmanager
async def our_server(agent: Endless, **options: Any) -> AsyncIterator[str]:
    """The WebSocket server; gives host and port."""
    async with open_server(agent, **options) as served:
        yield f"127.0.0.1:{served.port}"


@asynccontextmanager
async def application(agent: Endless, **options: Any) -> AsyncIterator[str]:
    """The ASGI application on Hypercorn; gives host and port."""
    app = create_app(Orchestrator(agents=[agent]), drain=0.1, **options)
    async with serving(app) as url:
        yield url.removeprefix("http://")


async def leave(stream: trio.SocketStream, how: str) -> None:
    """End a connection without a word: in order, or by a reset."""
    if how == "resets":
        linger = struct.pack("ii", 1, 0)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await trio.aclose_forcefully(stream)


async def talk_by_websocket(address: str, agent: Endless, how: str, *protocols: str) -> float:
    """Start a run, hear its word, leave; gives when."""
    async with trio_websocket.open_websocket_url(
        f"ws://{address}/chat", subprotocols=protocols or None
    ) as ws:
        await ws.send_message("hello")
        while "message_chunk" not in await ws.get_message():
            pass
        left_at = trio.current_time()
        if how != "says goodbye":
            await leave(ws._stream, how)
    return left_at


async def talk_by_request(address: str, how: str, head: str, body: str = "") -> float:
    """Send a request, hear a word of the answer, leave; gives when."""
    port = urlsplit(f"//{address}").port
    stream = await trio.open_tcp_stream("127.0.0.1", port or 0)
    lines = [head, f"Host: {address}", f"Content-Length: {len(body)}"]
    lines.append("Content-Type: application/json")
    await stream.send_all("\r\n".join([*lines, "", body]).encode())
    answer = b""
    with trio.fail_after(20):
        while b"message_chunk" not in answer:
            answer += await stream.receive_some()
    left_at = trio.current_time()
    await leave(stream, how)
    return left_at


@HOW
@pytest.mark.parametrize("server", [our_server, application])
async def test_a_websocket_that_cannot_come_back_cancels_at_once(server: Server, how: str) -> None:
    agent = Endless()
    async with server(agent, resume_window=1000) as address:
        left_at = await talk_by_websocket(address, agent, how)
        await check_ends_within_a_second(agent, left_at)


@HOW
@pytest.mark.parametrize("server", [our_server, application])
async def test_a_websocket_that_may_come_back_cancels_after_its_window(
    server: Server, how: str
) -> None:
    agent = Endless()
    async with server(agent, resume_window=WINDOW) as address:
        left_at = await talk_by_websocket(address, agent, how, "flowtrio.v1")
        await check_ends_within_a_second(agent, left_at, WINDOW)

        assert agent.ended_at - left_at >= WINDOW


REQUESTS = {
    "GET": ("GET /chat/stream?message=a HTTP/1.1", ""),
    "POST": ("POST /chat/stream HTTP/1.1", '{"message": "a"}'),
}


@pytest.mark.parametrize("how", ["ends", "resets"])
@pytest.mark.parametrize("window", [0, WINDOW])
@pytest.mark.parametrize("method", REQUESTS)
async def test_a_reader_of_sse_cancels_after_its_window(
    method: str, window: float, how: str
) -> None:
    agent = Endless()
    async with application(agent, resume_window=window) as address:
        left_at = await talk_by_request(address, how, *REQUESTS[method])
        await check_ends_within_a_second(agent, left_at, window)

        assert agent.ended_at - left_at >= window


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_the_last_of_several_readers_begins_the_window(accept: str) -> None:
    agent = Endless()
    follow = f"GET /runs/r/events HTTP/1.1\r\nAccept: {accept}"
    async with application(agent, resume_window=WINDOW) as address:
        async with trio.open_nursery() as nursery:
            port = urlsplit(f"//{address}").port
            first = await trio.open_tcp_stream("127.0.0.1", port or 0)
            start = f"GET /chat/stream?message=a&run_id=r HTTP/1.1\r\nHost: {address}\r\n\r\n"
            await first.send_all(start.encode())
            await agent.wait_begun()
            nursery.start_soon(talk_by_request, address, "ends", follow)
        # The other one has left, for longer than the window; the first still reads.
        with trio.move_on_after(2 * WINDOW):
            await agent.ended.wait()

        assert not agent.ended.is_set()

        left_at = trio.current_time()
        await leave(first, "ends")
        await check_ends_within_a_second(agent, left_at, WINDOW)

        assert agent.ended_at - left_at >= WINDOW
