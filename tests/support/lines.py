"""Lines from readers to servers, and who on them drops a connection, at which byte.

Each reader has a line of its own: a port that leads to a server. Every connection through it may
have a drop in store, which one of three brings about when so many bytes have passed one way::

    reader ── end ────── near ─ line ─ far ────── end ── server
               ▲            ▲           ▲          ▲
               client        ── line ──            server

What drops is the socket at that place; how the others hear of it is the network's business.
"""

from __future__ import annotations

import contextlib
import struct
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from random import Random
from socket import SO_LINGER, SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import attrs
import hypercorn.trio.run
import pytest
import trio
from hypercorn.trio.tcp_server import TCPServer

from flowtrio.remote import _line, _reconnect
from flowtrio.serving.commands._session import Session
from flowtrio.serving.sockets import websocket

Way: TypeAlias = Literal["up", "down"]
"""``up`` is what the reader says."""

HOWS: Final = {
    "client": ("close", "reset"),
    "line": ("close", "reset", "silence"),
    "server": ("close", "reset", "goodbye"),
}
"""Who drops, and how: a line may also leave the server in the belief that all is well, and a server
say goodbye first, by a WebSocket's close frame."""


_HELD: Final = 32 * 1024
"""Bytes that each socket holds: by itself it would hold most logs whole, and no reader be slow."""


@attrs.frozen
class Drop:
    """What happens to one connection, if it lasts long enough."""

    transport: str
    who: str
    how: str
    way: Way
    after: int
    """Bytes that pass that way before."""


def draw_drop(dice: Random, transport: str) -> Drop:
    """Draw a drop: in the handshake, in what starts a run, in the first events or somewhere."""
    kinds = [(who, how) for who, hows in HOWS.items() for how in hows]
    who, how = dice.choice(kinds if "sse" not in transport else kinds[:-1])
    way: Way = dice.choice(("up", "down", "down"))
    most = dice.choice((2, 250, 600) if way == "up" else (2, 250, 1500, 8000, 50_000))
    return Drop(transport, who, how, way, dice.randrange(most))


@attrs.define(eq=False)
class End(trio.abc.HalfCloseableStream):
    """A socket that drops its connection when so many bytes have passed one way."""

    _stream: trio.SocketStream
    _sends: Way
    _drop: Drop | None
    _net: Net
    _left: int = attrs.field(init=False)
    is_dropped: bool = attrs.field(default=False, init=False)
    sent: int = attrs.field(default=0, init=False)
    """Bytes that were sent here."""
    session: Session | None = attrs.field(default=None, init=False)
    """At a server, who speaks there."""

    def __attrs_post_init__(self) -> None:
        self._left = self._drop.after if self._drop is not None else 0

    @property
    def socket(self) -> trio.socket.SocketType:
        return self._stream.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with self._broken():
            if not self._counts_received:
                return bytes(await self._stream.receive_some(max_bytes))
            if self._left == 0 and self._happen():
                raise trio.BrokenResourceError("dropped")
            data = self._pass(bytes(await self._stream.receive_some(max_bytes)))
            if self._left == 0 and data:
                # At once: what was received before is the reader's all the same.
                self._happen()
            return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += len(data)
        with self._broken():
            if self._drop is None or self._counts_received:
                return await self._stream.send_all(data)
            if part := self._pass(bytes(data)):
                await self._stream.send_all(part)
            if self._left == 0 and self._happen():
                raise trio.BrokenResourceError("dropped")
        return None

    async def wait_send_all_might_not_block(self) -> None:
        with self._broken():
            await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        with self._broken():
            await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    @property
    def _counts_received(self) -> bool:
        return self._drop is not None and self._drop.way != self._sends

    def _pass(self, data: bytes) -> bytes:
        """Count what passes, and give as much of it as does."""
        assert self._drop is not None
        passed = data if self._drop.how == "goodbye" else data[: self._left]
        self._left = max(self._left - len(data), 0)
        return passed

    def _happen(self) -> bool:
        """Let it happen, once; False if the connection goes on for now."""
        drop, self._drop = self._drop, None
        if drop is None:
            return False
        session = self.session
        if drop.how == "goodbye" and session is not None:
            if not session.nursery.cancel_scope.cancel_called:
                session.nursery.start_soon(session.outgoing.say_goodbye, 1012, "come back")
                self._net.tally[drop.transport, drop.who, drop.how] += 1
            return False
        how = "close" if drop.how == "goodbye" else drop.how
        self.is_dropped = True
        _close(self._stream, how)
        self._net.tally[drop.transport, drop.who, how] += 1
        return True

    @contextmanager
    def _broken(self) -> Iterator[None]:
        """Who used a socket that was dropped did not close it."""
        try:
            yield
        except trio.ClosedResourceError:
            if self.is_dropped:
                raise trio.BrokenResourceError("dropped") from None
            raise


def _close(stream: trio.SocketStream | End, how: str) -> None:
    if how == "reset":
        with contextlib.suppress(OSError):
            stream.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


_HERE: ContextVar[End] = ContextVar("_HERE")
"""A server's end of the connection that is being served."""


@attrs.define(eq=False)
class Net:
    """All lines of a test, and what happened on them."""

    tally: Counter[tuple[str, str, str]] = attrs.Factory(Counter)
    """Drops that happened: by transport, who and how."""
    _lines: dict[int, Line] = attrs.Factory(dict)
    _expected: dict[int, Drop] = attrs.Factory(dict)
    """What servers shall drop, by the port that it comes from."""

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have servers and `flowtrio.connect` hold the ends of these lines."""
        handle, living = websocket.Server.handle, Session.living
        net = self

        async def handle_here(server: Any, stream: trio.SocketStream) -> None:
            _HERE.set(end := net._server_end(stream))
            await handle(server, end)

        class TCPServerHere(TCPServer):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args[:-1], net._server_end(args[-1]))

            async def run(self) -> None:
                _HERE.set(self.stream)
                await super().run()

        def living_here(session: Session) -> AbstractContextManager[None]:
            if (end := _HERE.get(None)) is not None:
                end.session = session
            return living(session)

        async def dial(target: _line.Target) -> trio.abc.Stream:
            return await net._lines[urlsplit(target.url).port or 0].dial()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(websocket.Server, "handle", handle_here)
            patch.setattr(hypercorn.trio.run, "TCPServer", TCPServerHere)
            patch.setattr(Session, "living", living_here)
            patch.setattr(_line.Target, "open_stream", dial)
            patch.setattr(_reconnect, "_FIRST_DELAY", 0.01)
            patch.setattr(_reconnect, "_LONGEST_DELAY", 0.05)
            yield

    def _server_end(self, stream: trio.SocketStream) -> End:
        stream.socket.setsockopt(SOL_SOCKET, SO_SNDBUF, _HELD)
        try:
            port = stream.socket.getpeername()[1]
        except OSError:
            port = 0
        return End(stream, "down", self._expected.pop(port, None), self)


@attrs.define(eq=False)
class Line:
    """A port that leads to a server, for one reader."""

    net: Net
    behind: int
    """The server's port."""
    drops: deque[Drop]
    """What happens to its next connections; those behind them hold."""
    dice: Random
    port: int = 0
    ends: list[End] = attrs.Factory(list)
    """The reader's ends of its connections, in their order."""
    _next: Drop | None = None
    _silent: list[trio.SocketStream] = attrs.Factory(list)

    async def dial(self) -> End:
        """Connect, as the reader."""
        drop = self._next = self.drops.popleft() if self.drops else None
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        stream.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, _HELD)
        own = drop if drop and drop.who == "client" else None
        self.ends.append(End(stream, "up", own, self.net))
        return self.ends[-1]

    async def carry(self, near: trio.SocketStream) -> None:
        """Carry one connection, until somebody drops it or it ends."""
        drop, self._next = self._next, None
        near.socket.setsockopt(SOL_SOCKET, SO_SNDBUF, _HELD)
        far = await self._reach_server(drop)
        ends: list[Any] = [near, far]
        if drop and drop.who == "line":
            # Whichever is dropped, the other end hears of it a little later, if at all.
            place = self.dice.randrange(2) if drop.how != "silence" else 0
            ends[place] = End(ends[place], ("down", "up")[place], drop, self.net)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pump, ends[0], ends[1], nursery.cancel_scope)
                nursery.start_soon(_pump, ends[1], ends[0], nursery.cancel_scope)
            await trio.sleep(self.dice.choice((0, 0, 0.02)))
        finally:
            streams = self.dice.sample([near, far], 2)
            if drop and drop.how == "silence" and ends[0].is_dropped:
                streams.remove(far)
                self._silent.append(far)
            for stream in streams:
                _close(stream, self.dice.choice(("close", "reset")))

    def end(self) -> None:
        """Let the server know of what it was not told."""
        for stream in self._silent:
            _close(stream, "close")

    async def _reach_server(self, drop: Drop | None) -> trio.SocketStream:
        socket = trio.socket.socket()
        socket.setsockopt(SOL_SOCKET, SO_RCVBUF, _HELD)
        try:
            await socket.bind(("127.0.0.1", 0))
            if drop and drop.who == "server":
                self.net._expected[socket.getsockname()[1]] = drop
            await socket.connect(("127.0.0.1", self.behind))
        except BaseException:
            socket.close()
            raise
        return trio.SocketStream(socket)


async def _pump(source: Any, sink: Any, scope: trio.CancelScope) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await source.receive_some(8192):
            await sink.send_all(data)
    scope.cancel()


@asynccontextmanager
async def open_lines(net: Net, *lines: Line) -> AsyncIterator[None]:
    """Open the lines for as long as the block lasts."""
    serve = partial(trio.serve_tcp, port=0, host="127.0.0.1")
    try:
        async with trio.open_nursery() as nursery:
            for line in lines:
                listeners = await nursery.start(serve, line.carry)
                line.port = listeners[0].socket.getsockname()[1]
                net._lines[line.port] = line
            yield
            nursery.cancel_scope.cancel()
    finally:
        for line in lines:
            line.end()
