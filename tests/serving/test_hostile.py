"""Clients that mean no good, or vanish: each gets what it is due, and the next one is served."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from flowtrio import RunContext, ServerLimits
from flowtrio.serving.sockets._framing import Framing
from tests.support.ws_peer import (
    Served,
    close_code,
    connect,
    frame,
    handshake,
    open_server,
    raw,
    read_all,
    read_until,
    upgraded,
)

LIMITS = ServerLimits(close=0.3, send=1)


async def echo(ctx: RunContext, message: str) -> str:
    """Say it back."""
    async with ctx.message() as out:
        await out.write(message)
    return message


@asynccontextmanager
async def withstanding(agent: Any = echo, **options: Any) -> AsyncIterator[Served]:
    """A server that still serves a good client afterwards."""
    async with open_server(agent, **{"limits": LIMITS, **options}) as served:
        yield served
        headers = [("authorization", "Bearer good")] if "token" in options else []
        async with connect(served, headers=headers) as peer:
            assert (await peer.ask("still here"))[-1]["data"]["result"] == "still here"


async def answer_to(served: Served, request: bytes) -> bytes:
    """What a request is answered, its connection closed by the server."""
    async with raw(served) as stream:
        await stream.send_all(request)
        return await read_all(stream)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# Before the upgrade


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-client\r\n\r\n",
        b"GET /chat\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_garbage(garbage: bytes) -> None:
    async with withstanding() as served:
        answer = await answer_to(served, garbage)
        assert answer == b"" or 400 <= status_of(answer) < 500


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "waits"])
async def test_half_a_handshake(cut: int, leaves: bool) -> None:
    limits = ServerLimits(handshake=1)
    async with withstanding(limits=limits) as served, raw(served) as stream:
        await stream.send_all(handshake(served)[:cut])
        if leaves:
            await trio.aclose_forcefully(stream)
        else:
            # Read to its end, which comes by the limit alone.
            assert await read_all(stream) == b""


@pytest.mark.parametrize(
    ("path", "line", "status"),
    [
        ("/chat", "Sec-WebSocket-Protocol: fl\xf6w", 400),
        ("/chat", "Content-Length: 5", 400),
        ("/chat", "Transfer-Encoding: chunked", 400),
        ("/chat", "Origin: https://evil.example", 403),
        ("/chat", "X-Big: " + "x" * 20_000, 431),
        ("/nowhere", "X: y", 404),
        ("//[chat", "X: y", 400),
        ("http://[::1/chat", "X: y", 400),
        ("/../chat", "X: y", 404),
    ],
)
async def test_requests_that_are_refused(path: str, line: str, status: int) -> None:
    async with withstanding() as served:
        answer = await answer_to(served, handshake(served, path, line))
        assert status_of(answer) == status
        assert b"connection: close" in answer


@pytest.mark.parametrize(
    "change",
    [
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Connection: Upgrade", b"Connection: close"),
        (b"Version: 13", b"Version: 8"),
        (b"Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Key: AAA="),
        (b"GET", b"POST"),
    ],
)
async def test_what_is_no_websocket_handshake(change: tuple[bytes, bytes]) -> None:
    async with withstanding() as served:
        answer = await answer_to(served, handshake(served).replace(*change))
        assert status_of(answer) == 426


async def test_another_host_is_no_way_in() -> None:
    async with withstanding() as served:
        request = handshake(served).replace(b"127.0.0.1", b"evil.example")
        assert status_of(await answer_to(served, request)) == 403


async def test_a_wrong_token_is_told_and_not_quoted() -> None:
    async with withstanding(token="good") as served:
        answer = await answer_to(served, handshake(served, "/chat?token=canary"))
        assert status_of(answer) == 401
        assert b"www-authenticate: Bearer" in answer
        assert b"canary" not in answer


async def test_health_needs_nothing() -> None:
    async with withstanding(token="good") as served:
        answer = await answer_to(served, b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert answer.endswith(b'{"status": "ok"}')


@pytest.mark.parametrize("outcome", ["raises", "hangs", "wrong"])
async def test_an_authenticate_that_fails_lets_nobody_in(
    outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def authenticate(request: Any) -> Any:
        if "x-good" in request.headers:
            return "ann"
        if outcome == "raises":
            raise ZeroDivisionError
        if outcome == "hangs":
            await trio.sleep_forever()
        return 7

    limits = ServerLimits(handshake=1)
    async with open_server(echo, authenticate=authenticate, limits=limits) as served:
        answer = await answer_to(served, handshake(served))
        assert answer == b"" if outcome == "hangs" else status_of(answer) == 500
        async with connect(served, headers=[("x-good", "1")]) as peer:
            assert (await peer.ask("hi"))[-1]["data"]["result"] == "hi"
    how = "took too long" if outcome == "hangs" else "failed"
    what = "dropped" if outcome == "hangs" else "refused with 500"
    told = f"authenticate {how}: a client at 127.0.0.1 that asked for '/chat' was {what}"
    assert told in [record.getMessage() for record in caplog.records]


async def test_connections_have_a_limit() -> None:
    limits = ServerLimits(connections=2, handshake=5)
    async with open_server(echo, limits=limits) as served:
        async with connect(served), connect(served):
            assert status_of(await answer_to(served, handshake(served))) == 503
        # Who left is noticed a moment later.
        while not await lets_in(served):
            await trio.sleep(0.01)
        async with connect(served) as peer:
            assert (await peer.ask("hi"))[-1]["data"]["result"] == "hi"


async def lets_in(served: Served) -> bool:
    async with raw(served) as stream:
        await stream.send_all(handshake(served))
        return (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


async def test_plain_text_on_a_tls_port() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with open_server(echo, ssl_context=context, limits=LIMITS) as served:
        await answer_to(served, handshake(served))
        async with connect(served, ssl_context=trusting) as peer:
            assert (await peer.ask("hi"))[-1]["data"]["result"] == "hi"


# After it


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"bytes", 2), 1003),
        (frame(b"\xff\xfe"), 1007),
        (frame(b"a", masked=False), 1002),
        (frame(b"a", 3), 1002),
        (frame(b"a", 0), 1002),
        (frame(b"x" * 126, 9), 1002),
        (frame(b"", 9, fin=False), 1002),
        (b"\xf1\x80\0\0\0\0", 1002),
        (frame(b"\x03", 8), 1002),
        (frame(b"x" * 300_000), 1009),
        (frame(b"x" * 200_000, fin=False) + frame(b"x" * 200_000, 0), 1009),
        (frame(b"x", fin=False) + frame(b"", 0, fin=False) * 1100, 1009),
        (frame(b"") * 20, 1008),
        (frame(b'{"type": "no"}') * 20, 1008),
    ],
    ids=[
        *("binary", "utf8", "unmasked", "opcode", "continuation", "long-ping", "cut-ping", "rsv"),
        *("short-close", "large", "large-in-two", "empty-frames", "bad-20", "unknown-20"),
    ],
)
async def test_violations_are_closed_with_their_code(sent: bytes, code: int) -> None:
    async with withstanding() as served, raw(served) as stream:
        await upgraded(served, stream)
        await stream.send_all(sent)
        assert close_code(await read_all(stream)) == code


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as an error of ours."""
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


async def talks(ctx: RunContext, message: str) -> str:
    """Say a word a millisecond, for ever."""
    if message == "still here":
        return await echo(ctx, message)
    async with ctx.message() as out:
        while True:
            await out.write("word ")
            await trio.sleep(0.001)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"\x03\xe8", 8), 1000),
        (frame(b"a", 3), 1002),
        (frame(b"bytes", 2), 1003),
        (frame(b"\xff\xfe"), 1007),
        (frame(b"") * 20, 1008),
        (frame(b"x" * 300_000), 1009),
    ],
)
async def test_in_mid_stream_too(sent: bytes, code: int, caplog: pytest.LogCaptureFixture) -> None:
    async with withstanding(talks) as served, raw(served) as stream:
        await upgraded(served, stream)
        await stream.send_all(frame(b"go"))
        await read_until(stream, b"message_chunk")
        await stream.send_all(sent)
        assert close_code(await read_all(stream)) == code
    assert errors_of(caplog) == []


async def test_a_close_is_answered_behind_the_frame_that_is_being_sent() -> None:
    async def floods(ctx: RunContext, message: str) -> str:
        if message == "still here":
            return await echo(ctx, message)
        async with ctx.message() as out:
            while True:
                await out.write("x" * 50_000)

    limits = ServerLimits(send=10, close=10)
    async with withstanding(floods, limits=limits) as served, raw(served) as stream:
        await upgraded(served, stream)
        await stream.send_all(frame(b"go"))
        # All buffers on the way are full: the writer is in the middle of a frame, and more wait.
        await trio.testing.wait_all_tasks_blocked(0.1)
        await stream.send_all(frame(b"\x03\xe8", 8))
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert close_code(await read_all(stream)) == 1000


async def test_a_ping_behind_our_close_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with withstanding() as served, raw(served) as stream:
        await upgraded(served, stream)
        await stream.send_all(frame(b"") * 20)
        assert close_code(await read_until(stream, b"too many bad messages")) == 1008
        await stream.send_all(frame(b"ping", 9) + frame(b"\x03\xf0", 8))
        assert await read_all(stream) == b""
    assert errors_of(caplog) == []


@pytest.mark.parametrize(
    "behind",
    [
        frame(b"x", fin=False) + frame(b"", 0, fin=False) * 1100,
        frame(b"x" * 300_000),
        frame(b"x" * 200_000, fin=False) + frame(b"x" * 200_000, 0),
        frame(b"a", 3),
        frame(b"\xff"),
        frame(b"ping", 9) * 100,
        frame(b"more") * 100,
    ],
    ids=["frames", "large", "large-in-two", "opcode", "utf8", "pings", "texts"],
)
async def test_a_limit_that_strikes_behind_our_close_is_no_error(
    behind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with withstanding() as served, raw(served) as stream:
        await upgraded(served, stream)
        await stream.send_all(frame(b"") * 20 + behind)
        # Whichever comes first: the session's goodbye, or what the framing finds.
        assert close_code(await read_all(stream)) in (1002, 1007, 1008, 1009)
    assert errors_of(caplog) == []


async def test_a_ping_is_answered_in_mid_stream_too() -> None:
    async with withstanding(talks) as served, raw(served) as stream:
        await upgraded(served, stream)
        await stream.send_all(frame(b"go"))
        await read_until(stream, b"message_chunk")
        await stream.send_all(frame(b"are you there", 9))
        await read_until(stream, b"\x8a\x0dare you there")


async def test_a_client_that_resets_while_it_is_closed_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with withstanding() as served, raw(served) as stream:
        await upgraded(served, stream)
        await stream.send_all(frame(b"a", 3))
        await read_until(stream, b"\x88")
        linger = struct.pack("ii", 1, 0)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert errors_of(caplog) == []


async def test_beyond_the_crowd_connections_are_dropped_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowtrio.serving.sockets.websocket._MOST_REFUSALS", 0)
    limits = ServerLimits(connections=1)
    async with open_server(echo, limits=limits) as served, connect(served):
        assert await answer_to(served, handshake(served)) == b""


@pytest.mark.parametrize("where", ["Framing.accept", "Session.receive"])
async def test_an_error_of_ours_ends_its_connection_and_no_other(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("planted")

    async with withstanding() as served:
        with monkeypatch.context() as patch:
            patch.setattr(f"flowtrio.serving.sockets.websocket.{where}", broken)
            async with raw(served) as stream:
                await stream.send_all(handshake(served))
                if where == "Session.receive":
                    await read_until(stream, b"\r\n\r\n")
                    await stream.send_all(frame(b"hi"))
                await read_all(stream)
    assert errors_of(caplog) == ["a connection ended by an error of ours"]


async def test_a_client_that_leaves_before_it_is_accepted_is_no_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept = Framing.accept

    async def accept_late(self: Framing, subprotocol: str | None) -> None:
        await self._has_read_all.wait()
        await accept(self, subprotocol)

    async with withstanding() as served:
        with monkeypatch.context() as patch:
            patch.setattr(Framing, "accept", accept_late)
            async with raw(served) as stream:
                await stream.send_all(handshake(served))
                linger = struct.pack("ii", 1, 0)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert errors_of(caplog) == []


async def test_all_refusals_come_before_the_close() -> None:
    async with withstanding() as served, raw(served) as stream:
        await upgraded(served, stream)
        await stream.send_all(frame(b"") * 20)
        assert (await read_all(stream)).count(b'"rejected"') == 20


async def test_ten_mebibytes_in_one_message() -> None:
    async with withstanding() as served, raw(served) as stream:
        await upgraded(served, stream)
        received = b""

        async def receive() -> None:
            nonlocal received
            received = await read_all(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with trio.move_on_after(3):
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(frame(b"x" * 10 * 1024 * 1024))
        assert close_code(received) == 1009


@pytest.mark.parametrize("how", ["reset", "half-frame", "closes-in-stream"])
async def test_vanishing_in_mid_stream(how: str) -> None:
    cancelled = trio.Event()

    async def talks_until_cancelled(ctx: RunContext, message: str) -> str:
        try:
            return await talks(ctx, message)
        finally:
            cancelled.set()

    async with withstanding(talks_until_cancelled) as served:
        async with raw(served) as stream:
            await upgraded(served, stream)
            await stream.send_all(frame(b"go"))
            await read_until(stream, b"message_chunk")
            if how == "half-frame":
                await stream.send_all(frame(b"x" * 100)[:50])
            elif how == "closes-in-stream":
                await stream.send_all(frame(b"\x03\xe8", 8))
                assert close_code(await read_all(stream)) == 1000
        with trio.fail_after(20):
            await cancelled.wait()


async def test_a_crowd_of_bad_clients_disturbs_nobody() -> None:
    async with withstanding() as served:

        async def bad(number: int) -> None:
            async with raw(served) as stream:
                if number % 3 == 0:
                    await stream.send_all(b"\x00garbage")
                else:
                    await upgraded(served, stream)
                    await stream.send_all(frame(b"a", number % 16, masked=False))

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(bad, number)
            async with connect(served) as peer:
                for _ in range(10):
                    assert (await peer.ask("hi"))[-1]["data"]["result"] == "hi"
