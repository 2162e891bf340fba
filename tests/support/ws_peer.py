"""A WebSocket server of ours on a loopback port, and clients for it: polite ones and raw ones."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio_websocket

from flowtrio import Orchestrator, serve_websocket


@attrs.frozen
class Served:
    """A server that runs."""

    port: int
    scope: trio.CancelScope
    """Cancelled, the server shuts down."""

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/chat"


@asynccontextmanager
async def open_server(
    orchestrator: Any, *, seconds: float = 180, **options: Any
) -> AsyncIterator[Served]:
    """Serve an orchestrator, or one agent, for as long as the block lasts; *seconds* at most."""
    if not isinstance(orchestrator, Orchestrator):
        orchestrator = Orchestrator(agents=[orchestrator])
    scope = trio.CancelScope()

    async def serve(
        task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with scope:
            await serve_websocket(
                orchestrator, "127.0.0.1", 0, task_status=task_status, **{"drain": 0.2, **options}
            )

    # No test takes this long, whatever hangs.
    with trio.fail_after(seconds):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(serve)
            yield Served(listeners[0].socket.getsockname()[1], scope)
            scope.cancel()


@attrs.define(eq=False)
class Peer:
    """A polite client: texts in, frames out."""

    connection: trio_websocket.WebSocketConnection

    async def send(self, frame: Any = None, **keys: Any) -> None:
        """Send a text, or a command by its keys."""
        text = frame if isinstance(frame, str) else json.dumps(frame if keys == {} else keys)
        await self.connection.send_message(text)

    async def receive(self) -> Any:
        """One frame; there has to be one soon."""
        with trio.fail_after(60):
            return json.loads(await self.connection.get_message())

    async def until(self, type_: str, **keys: Any) -> list[dict[str, Any]]:
        """Frames up to the first of this type and with these values, which comes last."""
        frames = []
        while True:
            frames.append(await self.receive())
            last = frames[-1]
            values = {**last.get("data", {}), **last}
            if last["type"] == type_ and all(values.get(key) == keys[key] for key in keys):
                return frames

    async def ask(self, text: Any = None, **keys: Any) -> list[dict[str, Any]]:
        """Start a run and read to its end: its reply first, then its events."""
        await self.send(text, **keys)
        return await self.until("done")

    async def closed(self) -> tuple[int, str]:
        """Wait until the server closes; give its code and reason."""
        try:
            while True:
                await self.connection.get_message()
        except trio_websocket.ConnectionClosed:
            closed: Any = self.connection.closed
            return closed.code, closed.reason or ""


@asynccontextmanager
async def connect(
    served: Served,
    *,
    headers: Iterable[tuple[str, str]] = (),
    subprotocols: Iterable[str] = (),
    path: str = "/chat",
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Peer]:
    """A client's connection."""
    opening = trio_websocket.open_websocket(
        "localhost" if ssl_context else "127.0.0.1",
        served.port,
        path,
        use_ssl=ssl_context or False,
        subprotocols=list(subprotocols) or None,
        max_message_size=1 << 26,
        extra_headers=[(name.encode(), value.encode()) for name, value in headers],
    )
    async with opening as connection:
        try:
            yield Peer(connection)
        finally:
            # As a client the library forgets its socket where the server closes.
            if connection.closed is not None:
                await trio.aclose_forcefully(connection._stream)


HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{more}\r\n"
)


def handshake(served: Served, path: str = "/chat", *more: str) -> bytes:
    """The opening request, with further header lines."""
    lines = "".join(f"{line}\r\n" for line in more)
    return HANDSHAKE.format(path=path, port=served.port, more=lines).encode("latin-1")


def frame(payload: bytes = b"", opcode: int = 1, *, fin: bool = True, masked: bool = True) -> bytes:
    """A client's frame, mask zero."""
    head = bytes([(0x80 if fin else 0) | opcode])
    mask = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([mask | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([mask | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + len(payload).to_bytes(8, "big")
    return head + (b"\0\0\0\0" if masked else b"") + payload


@asynccontextmanager
async def raw(served: Served) -> AsyncIterator[trio.SocketStream]:
    """A bare connection, dropped at the block's end."""
    stream = await trio.open_tcp_stream("127.0.0.1", served.port)
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def read_all(stream: trio.abc.ReceiveStream, seconds: float = 5) -> bytes:
    """What comes until the other side closes; a reset is an end too."""
    data = b""
    with trio.fail_after(seconds):
        try:
            async for piece in stream:
                data += piece
        except trio.BrokenResourceError:
            pass
    return data


async def read_until(stream: trio.abc.ReceiveStream, mark: bytes) -> bytes:
    """What comes up to a mark."""
    data = b""
    with trio.fail_after(60):
        while mark not in data:
            piece = await stream.receive_some()
            assert piece, f"closed before {mark!r}: {data!r}"
            data += piece
    return data


async def upgraded(served: Served, stream: trio.abc.Stream) -> None:
    """Go through the handshake on a bare connection."""
    await stream.send_all(handshake(served))
    assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


def close_code(data: bytes) -> int | None:
    """The code of the close frame at the end of what a server sent; None without one."""
    at = data.rfind(b"\x88")
    return int.from_bytes(data[at + 2 : at + 4], "big") if at >= 0 else None
