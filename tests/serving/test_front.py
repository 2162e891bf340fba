"""The HTTP address of `flowtrio serve`: what its accept loop keeps from Hypercorn."""

from __future__ import annotations

import json
import logging
import re
import zlib
from typing import Any

import httpx
import pytest
import trio
import trio.testing
import trustme

from flowtrio import RunContext, ServerLimits
from flowtrio.serving.http import _front
from flowtrio.testing import check_events
from flowtrio.wire._sse import SSEDecoder
from tests.support.front_door import open_door
from tests.support.ws_peer import (
    Served,
    close_code,
    connect,
    frame,
    handshake,
    raw,
    read_all,
    read_until,
    upgraded,
)

LIMITS = ServerLimits(close=0.3, send=1, handshake=2)
HEALTH = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


async def echo(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        await out.write(message)
    return message


async def ask(served: Served, request: bytes) -> bytes:
    """What a request is answered, to the connection's end."""
    async with raw(served) as stream:
        await stream.send_all(request)
        return await read_all(stream)


async def is_well(served: Served) -> bool:
    """Whether the next clients are served, a request and a WebSocket."""
    health = await ask(served, HEALTH)
    async with connect(served) as peer:
        said = (await peer.ask("still here"))[-1]["data"]["result"]
    return health.startswith(b"HTTP/1.1 200 ") and said == "still here"


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


# Requests that end Hypercorn as a whole, or that it never lets go of


@pytest.mark.parametrize(
    "request_",
    [
        UPGRADE + b"Sec-WebSocket-Protocol: fl\xf6w\r\n\r\n",
        UPGRADE + b"Sec-WebSocket-Extensions: \xf6\r\n\r\n",
        UPGRADE.replace(b": Upgrade", b": Upgrade, \xf6") + b"\r\n",
        UPGRADE.replace(b": websocket", b": websocket, \xf6") + b"\r\n",
        UPGRADE.replace(b"AAAAA==", b"\xf6") + b"\r\n",
        UPGRADE.replace(b": 13", b": \xf6") + b"\r\n",
        UPGRADE.replace(b": 13", b": 8") + b"\r\n",
        UPGRADE.replace(b"GET", b"POST") + b"\r\n",
        UPGRADE + b"Content-Length: 3\r\n\r\nabc",
        b"GET /\xff HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nhost: other\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"x" * 20_000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_a_head_that_is_none_is_refused(
    request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_door(echo, limits=LIMITS) as served:
        answer = await ask(served, request_)
        assert await is_well(served)

    assert re.match(rb"HTTP/1.1 4\d\d ", answer)
    assert errors_of(caplog) == []


@pytest.mark.parametrize(
    "lines", [b"", b"http2-settings: AAMAAABkAAQAAP__\r\n", b"http2-settings: !"]
)
async def test_http_2_in_the_clear_is_not_spoken(lines: bytes) -> None:
    request = HEALTH[:-2] + b"connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n" + lines
    async with open_door(echo, limits=LIMITS) as served:
        answer = await ask(served, request.rstrip() + b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("behind", [HEALTH * 200, UPGRADE + b"\r\n", b"\xff" * 100_000])
async def test_a_connection_has_one_request(
    behind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes behind it was not looked at."""
    async with open_door(echo, limits=LIMITS) as served:
        answer = await ask(served, HEALTH + behind)
        assert await is_well(served)

    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer.lower()
    assert errors_of(caplog) == []


async def test_a_body_comes_in_many_pieces() -> None:
    body = json.dumps({"message": "x" * 200_000}).encode()
    head = "POST /chat/stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    async with open_door(echo) as served:
        answer = await ask(served, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    events = [json.loads(e.data) for e in SSEDecoder().receive_data(dechunked(answer)) if e.data]
    check_events(events)
    assert len(events[-1]["data"]["result"]) == 200_000


def dechunked(answer: bytes) -> bytes:
    """The body of an answer in chunks."""
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    head = "POST /chat/stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    async with open_door(echo, limits=ServerLimits(handshake=0.5)) as served:
        answer = await ask(served, f"{head}content-length: 9\r\n\r\n{{".encode())

    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost:"])
async def test_a_head_that_does_not_come_is_not_waited_for(sent: bytes) -> None:
    async with open_door(echo, limits=ServerLimits(handshake=0.3)) as served:
        assert await ask(served, sent) == b""


# WebSockets


async def test_no_compression_is_agreed_to() -> None:
    """Else a message of some bytes becomes as large as its sender likes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(2**26)) + packer.flush(zlib.Z_SYNC_FLUSH)
    packed = frame(bomb)
    packed = bytes([packed[0] | 0x40]) + packed[1:]
    async with open_door(echo, limits=LIMITS) as served, raw(served) as stream:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        await stream.send_all(handshake(served, "/chat", offer))
        answer = await read_until(stream, b"\r\n\r\n")
        await stream.send_all(packed)
        assert close_code(await read_all(stream)) == 1002

    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"extensions" not in answer.lower()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"bytes", 2), 1003),
        (frame(b"\xff\xfe"), 1007),
        (frame(b"a", masked=False), 1002),
        (frame(b"x" * 300_000), 1009),
        (frame(b"x", fin=False) + frame(b"", 0, fin=False) * 1100, 1009),
        (frame(b"") * 20, 1008),
    ],
)
async def test_violations_are_closed_with_their_code(sent: bytes, code: int) -> None:
    async with open_door(echo, limits=LIMITS) as served, raw(served) as stream:
        await upgraded(served, stream)
        await stream.send_all(sent)
        assert close_code(await read_all(stream)) == code


async def test_a_client_that_answers_no_ping_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowtrio")
    limits = ServerLimits(ping_interval=0.1, ping_timeout=0.1)
    async with open_door(echo, limits=limits) as served, raw(served) as stream:
        await upgraded(served, stream)
        await read_all(stream)

    assert "a client answered no ping for 0.1 s" in caplog.text


async def test_sockets_and_streams_are_counted_together() -> None:
    async def waits(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            await out.write("begun")
            await trio.sleep_forever()

    limits = ServerLimits(connections=2)
    stream = b"GET /chat/stream?message=a HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with open_door(waits, limits=limits) as served:
        async with connect(served), raw(served) as reader:
            await reader.send_all(stream)
            await read_until(reader, b"begun")
            metrics = await ask(served, HEALTH.replace(b"health", b"metrics"))
            assert b"\nflowtrio_connections 2.0\n" in metrics
            assert (await ask(served, stream)).startswith(b"HTTP/1.1 503 ")
            assert (await ask(served, UPGRADE + b"\r\n")).startswith(b"HTTP/1.1 503 ")
            assert (await ask(served, HEALTH)).startswith(b"HTTP/1.1 200 ")


# TLS, and what goes wrong


async def test_within_tls(caplog: pytest.LogCaptureFixture) -> None:
    import ssl

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with open_door(echo, ssl_context=context, limits=LIMITS) as served:
        await ask(served, HEALTH)
        async with httpx.AsyncClient(verify=trusting) as http:
            url = f"https://localhost:{served.port}/"
            own = {"origin": url[:-1], "sec-fetch-site": "same-origin"}
            answer = await http.get(f"{url}chat/stream?message=a", headers=own)
            # Named by its host alone, a WebSocket's origin is that of TLS here.
            async with connect(
                served, ssl_context=trusting, headers=[("origin", url[:-1])]
            ) as peer:
                assert (await peer.ask("hi"))[-1]["data"]["result"] == "hi"

    assert b'"done"' in answer.content
    assert answer.headers["connection"] == "close"
    assert errors_of(caplog) == []


@pytest.mark.parametrize("exception", [trio.BusyResourceError, ZeroDivisionError])
async def test_what_hypercorn_lets_out_ends_one_connection(
    exception: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise exception("planted")

    async with open_door(echo) as served:
        with monkeypatch.context() as patch:
            patch.setattr(_front, "TCPServer", broken)
            assert await ask(served, HEALTH) == b""
        assert await is_well(served)

    ours = ["a connection ended by an error of ours"]
    assert errors_of(caplog) == (ours if exception is ZeroDivisionError else [])


async def test_at_its_end_it_waits_a_moment_for_who_is_still_answered() -> None:
    async with open_door(echo) as served:
        async with raw(served) as idle:
            await idle.send_all(b"GET / HT")
            await trio.testing.wait_all_tasks_blocked(0.05)
            begun = trio.current_time()
            served.scope.cancel()
            await read_all(idle)
            assert trio.current_time() - begun < 5


async def test_who_is_cancelled_from_outside_ends_at_once() -> None:
    """As when the other listener fails: what is shielded here would be waited for for ever."""
    with trio.CancelScope() as outside:
        async with open_door(echo) as served, connect(served) as peer:
            await peer.ask("hi")
            outside.cancel()
            await trio.sleep_forever()

    assert outside.cancelled_caught
