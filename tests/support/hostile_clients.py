"""Clients that do harm: slow ones, malformed ones, some that vanish, and some that flood.

Each is what it sends and what it does then. They are data, so that one list serves the tests, which
ask whether anything of them is told as an error of ours, and the soak, which asks what they leave.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, Literal, TypeAlias

import attrs
import trio

from tests.support.ws_peer import frame

End: TypeAlias = Literal["read", "leave", "reset", "half-close", "stay"]

UPGRADE: Final = (
    b"GET /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)


def upgrade(*headers: bytes) -> bytes:
    """A WebSocket's handshake."""
    return UPGRADE % b"".join(header + b"\r\n" for header in headers)


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    """An HTTP request."""
    head = [line + b" HTTP/1.1", b"Host: 127.0.0.1", *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def post(body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    """A run's start over HTTP."""
    size = b"Content-Length: %d" % (len(body) if length is None else length)
    kind = b"Content-Type: application/json"
    return request(b"POST /chat/stream", kind, size, *headers, body=body)


@attrs.frozen
class Client:
    """One that does harm."""

    name: str
    sends: bytes
    end: End = "read"
    at_once: int | None = None
    """Bytes that it sends at once, with a pause behind each; None for all."""
    times: int = 1
    """How often it sends the last part again."""
    again: bytes = b""
    is_http: bool = False

    async def attack(self, port: int, seconds: float) -> None:
        """Do what it does, for so long at most."""
        with trio.move_on_after(seconds):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                try:
                    async with trio.open_nursery() as nursery:
                        if self.end == "read":
                            nursery.start_soon(_read_all, stream)
                        await self._send(stream)
                        await self._finish(stream)
                except* (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # It was dropped, as it should be.

    async def _send(self, stream: trio.SocketStream) -> None:
        step = self.at_once or max(len(self.sends), 1)
        for start in range(0, len(self.sends), step):
            await stream.send_all(self.sends[start : start + step])
            if self.at_once:
                await trio.sleep(0.05)
        for _ in range(self.times if self.again else 0):
            await stream.send_all(self.again)

    async def _finish(self, stream: trio.SocketStream) -> None:
        if self.end == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif self.end == "half-close":
            await stream.send_eof()
            await _read_all(stream)
        elif self.end == "stay":
            await trio.sleep_forever()


async def _read_all(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some(65536):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


def _text(text: str) -> bytes:
    return frame(text.encode())


_OPEN: Final = upgrade()
_BATCH: Final = upgrade(b"Sec-WebSocket-Protocol: flowtrio.batch.v1")
_GO: Final = _text("Book a flight to Paris")
_CLOSE: Final = frame(b"\x03\xe8", 8)
_DEEP: Final = b"[" * 100_000
_PART: Final = frame(b"x", fin=False)
_EMPTY_PART: Final = frame(b"", 0, fin=False)
_REFUSED: Final = frame(b"") * 20
"""Bad messages, behind which we close."""
_RUN: Final = post(b'{"message": "Book a flight to Paris"}')

SLOW: Final = [
    Client("says nothing", b"", "stay"),
    Client("a handshake byte by byte", _OPEN, at_once=1),
    Client("half a handshake", _OPEN[:60], "stay"),
    Client("a handshake without its end", _OPEN[:-2], "stay"),
    Client("a frame byte by byte", _OPEN + _GO, at_once=1),
    Client("half a frame's head", _OPEN + _GO[:1], "stay"),
    Client("half a frame", _OPEN + _GO[:-3], "stay"),
    Client("half a message", _OPEN + _PART, "stay"),
    Client("reads nothing of its run", _OPEN + _GO, "stay"),
    Client("reads nothing of eight runs", _OPEN + _GO * 8, "stay"),
    Client("half an HTTP head", _RUN[:40], "stay", is_http=True),
    Client("an HTTP head byte by byte", _RUN, at_once=1, is_http=True),
    Client("half an HTTP body", post(b"{", length=90), "stay", is_http=True),
    Client("an HTTP body byte by byte", post(b'{"message": "a"}'), at_once=4, is_http=True),
    Client("reads nothing of its SSE", _RUN, "stay", is_http=True),
    Client("keeps an idle connection", request(b"GET /health"), "stay", is_http=True),
]

MALFORMED: Final = [
    Client("garbage", bytes(range(256)) * 8),
    Client("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)),
    Client("no HTTP", b"HELLO\r\n\r\n"),
    Client("a bare line feed", b"GET / HTTP/1.1\n\n"),
    Client("two hosts", upgrade(b"Host: other")),
    Client("no key", UPGRADE.replace(b"Sec-WebSocket-Key", b"X-Key") % b""),
    Client("another version", UPGRADE.replace(b"Version: 13", b"Version: 8") % b""),
    Client("a subprotocol that is no ASCII", upgrade(b"Sec-WebSocket-Protocol: \xff\xfe")),
    Client("a handshake with a body", upgrade(b"Content-Length: 5") + b"hello"),
    Client("another path", _OPEN.replace(b"/chat", b"/../etc")),
    Client("an unmasked frame", _OPEN + frame(b"hi", masked=False)),
    Client("a reserved bit", _OPEN + b"\xf1\x82\0\0\0\0hi"),
    Client("an unknown opcode", _OPEN + frame(b"hi", 3)),
    Client("a continuation of nothing", _OPEN + frame(b"hi", 0)),
    Client("a message within a message", _OPEN + frame(b"a", fin=False) + frame(b"b")),
    Client("a cut ping", _OPEN + frame(b"x", 9, fin=False)),
    Client("a long ping", _OPEN + frame(b"x" * 126, 9)),
    Client("a close of one byte", _OPEN + frame(b"x", 8)),
    Client("a close of no code", _OPEN + frame(b"\x00\x00", 8)),
    Client("a close with bad UTF-8", _OPEN + frame(b"\x03\xe8\xff", 8)),
    Client("bad UTF-8", _OPEN + frame(b"\xff\xfe")),
    Client("half a character", _OPEN + frame(b"\xe2\x82")),
    Client("a binary message", _OPEN + frame(b"\0\1", 2)),
    Client("a lone surrogate", _OPEN + _text('{"type": "message", "message": "\\ud800"}')),
    Client("nested JSON", _OPEN + frame(_DEEP)),
    Client("a huge number", _OPEN + _text('{"type": "resume", "after": ' + "9" * 5000 + "}")),
    Client("not a number", _OPEN + _text('{"type": "resume", "run_id": "r", "after": NaN}')),
    Client("unknown types", _OPEN + _text('{"type": "no"}') * 30),
    Client("odd run ids", _OPEN + _text('{"type": "message", "message": "a", "run_id": "/"}')),
    Client("an odd content length", post(b"{}").replace(b": 2", b": -2"), is_http=True),
    Client("an odd chunk", post(b"", b"Transfer-Encoding: chunked") + b"zz\r\n", is_http=True),
    Client("nested JSON over HTTP", post(_DEEP), is_http=True),
    Client("an odd escape", request(b"GET /runs/%ff%00/events"), is_http=True),
    Client("an odd cookie", request(b"GET /ready", b"Cookie: \xff=;;="), is_http=True),
    Client(
        "an odd place", request(b"GET /chat/stream?message=a", b"Last-Event-ID: x"), is_http=True
    ),
]

VANISHING: Final = [
    Client("connects and goes", b"", "leave"),
    Client("connects and resets", b"", "reset"),
    Client("resets in its handshake", _OPEN[:50], "reset"),
    Client("resets behind its handshake", _OPEN, "reset"),
    Client("goes in a frame", _OPEN + _GO[:-3], "leave"),
    Client("resets in its run", _OPEN + _GO, "reset"),
    Client("goes in its run", _OPEN + _GO, "leave"),
    Client("ends its side in its run", _OPEN + _GO, "half-close"),
    Client("closes and resets", _OPEN + _GO + _CLOSE, "reset"),
    Client("resets in its SSE", _RUN, "reset", is_http=True),
    Client("goes in its body", post(b"{", length=90), "leave", is_http=True),
]

FLOODING: Final = [
    Client("a long head", b"GET /" + b"a" * 100_000),
    Client("many headers", upgrade(*[b"X-%d: y" % n for n in range(3000)])),
    Client("a long message", _OPEN + frame(b"x" * 10_000_000)),
    Client("a message in many frames", _OPEN + _PART + _EMPTY_PART * 5000),
    Client("pings", _OPEN, again=frame(b"ping", 9) * 100, times=300),
    Client("pongs", _OPEN, again=frame(b"pong", 10) * 100, times=300),
    Client("empty messages", _OPEN, again=frame(b"") * 100, times=100),
    Client("frames behind our close", _OPEN + _REFUSED + _PART + _EMPTY_PART * 2000),
    Client("a long message behind our close", _OPEN + _REFUSED + frame(b"x" * 1_000_000)),
    Client("bad UTF-8 behind our close", _OPEN + _REFUSED + frame(b"\xff")),
    Client("pings behind our close", _OPEN + _REFUSED + frame(b"ping", 9) * 100),
    Client("runs", _BATCH, again=_GO * 10, times=20),
    Client("closes", _OPEN, again=_CLOSE * 100, times=10),
    Client("a long body", post(b" " * 5_000_000), is_http=True),
    Client("requests at once", b"", again=request(b"GET /health") * 100, times=20, is_http=True),
]

CLIENTS: Final = [*SLOW, *MALFORMED, *VANISHING, *FLOODING]


async def attack(websocket_port: int, http_port: int, seconds: float) -> None:
    """Have all of them come at once."""
    async with trio.open_nursery() as nursery:
        for client in CLIENTS:
            port = http_port if client.is_http else websocket_port
            nursery.start_soon(client.attack, port, seconds, name=client.name)
