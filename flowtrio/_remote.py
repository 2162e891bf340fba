"""A run on a server, as a chat needs it: followed over WebSocket, through lost connections.

The client chooses the run's id. So a command to start it may be sent again when its reply was lost,
and a connection that breaks is opened again to go on from the last event that was seen. Commands
are sent again too until the server replied to them: each of them does once what it does.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

import attrs
import h11
import msgspec
import trio
import trio_websocket
import wsproto.utilities

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._failures import leaves

DELAYS = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0, 5.0)
"""Seconds before each attempt to reconnect; after the last one the run is given up."""

_CONNECT = 10
_CLOSE = 2
_MESSAGE = 1 << 26
"""Bytes of a frame at most: a result of 1 MiB may be told several times over."""


_NO_CONNECTION = (
    OSError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    trio_websocket.HandshakeError,
    h11.ProtocolError,
    wsproto.utilities.ProtocolError,
)


class RemoteError(Exception):
    """The server cannot be reached, or refuses."""

    def __init__(self, message: str, *, has_begun: bool) -> None:
        super().__init__(message)
        self.has_begun = has_begun
        """Whether anything was said before."""


@attrs.frozen
class RemoteSource:
    """Runs on a server, all of one conversation."""

    url: str
    """``ws://`` or ``wss://``, with host, port and path."""
    token: str | None = attrs.field(default=None, repr=False)
    delays: tuple[float, ...] = DELAYS
    _session_id: str = attrs.Factory(lambda: secrets.token_urlsafe(16))

    @asynccontextmanager
    async def start(self, message: str) -> AsyncIterator[RemoteRun]:
        """See `flowtrio._chat.Source`."""
        run = RemoteRun(self, message, self._session_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.follow)
            yield run
            nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class RemoteRun(AsyncIterator[AgentEvent]):
    """One run on a server."""

    source: RemoteSource
    message: str
    session_id: str
    run_id: str = attrs.field(factory=lambda: secrets.token_urlsafe(16), init=False)
    _seen: int = attrs.field(default=-1, init=False)
    """The last event's sequence number."""
    _is_accepted: bool = attrs.field(default=False, init=False)
    _is_cancelled: bool = attrs.field(default=False, init=False)
    _pending: dict[int, dict[str, Any]] = attrs.field(factory=dict, init=False)
    """Commands without a reply, by their ref."""
    _sent: set[int] = attrs.field(factory=set, init=False)
    """Those of them that went out on this connection."""
    _count: int = attrs.field(default=0, init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)
    _send: trio.MemorySendChannel[AgentEvent] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[AgentEvent] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # No buffer: what is not read waits in the server.
        self._send, self._receive = trio.open_memory_channel[AgentEvent](0)

    # Reading, and the controls

    def __aiter__(self) -> Self:
        """Give the run itself."""
        return self

    async def __anext__(self) -> AgentEvent:
        """Give the next event."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def cancel(self, reason: str | None = None) -> bool:
        """End it on purpose; False if that was asked for before."""
        if self._is_cancelled:
            return False
        self._is_cancelled = True
        return self._command("cancel", reason=reason)

    def approve(self, call_id: str) -> bool:
        """Let a call begin."""
        return self._command("approve", call_id=call_id)

    def deny(self, call_id: str, reason: str | None = None) -> bool:
        """Refuse a call."""
        return self._command("deny", call_id=call_id, reason=reason)

    def answer(self, request_id: str, text: str) -> bool:
        """Answer a question."""
        return self._command("answer", request_id=request_id, text=text)

    def _command(self, type: str, **keys: Any) -> bool:
        self._count += 1
        self._pending[self._count] = {
            "type": type,
            "run_id": self.run_id,
            "ref": self._count,
            **keys,
        }
        self._wake.set()
        return True

    # Connections

    async def follow(self) -> None:
        """Hand the run's events over until DONE.

        Raises:
          RemoteError: the server cannot be reached, or refuses.

        """
        with self._send:
            failures, is_over = 0, False
            while not is_over:
                before, failure = self._seen, None
                try:
                    is_over = await self._connect()
                except* _NO_CONNECTION as group:
                    # A group since the library keeps a task beside each connection.
                    failure = next(leaves(group))
                if failure is not None and self._is_refusal(failure):
                    raise self._error(_words(failure))
                failures = 0 if self._seen > before else failures
                if not is_over:
                    await self._pause(failures, failure)
                    failures += 1

    async def _pause(self, failures: int, failure: BaseException | None) -> None:
        """Wait before the next attempt, or give the run up."""
        if failures == len(self.source.delays):
            raise self._error("the connection was lost" if failure is None else _words(failure))
        await trio.sleep(self.source.delays[failures])

    def _is_refusal(self, exc: BaseException) -> bool:
        """Whether there is no use in trying again."""
        if isinstance(exc, trio_websocket.ConnectionRejected):
            return exc.status_code < 500
        return not self._is_accepted

    def _error(self, failure: str) -> RemoteError:
        has_begun = self._is_accepted
        verb = "lost" if has_begun else "can't reach"
        return RemoteError(f"{verb} {self.source.url}: {failure}", has_begun=has_begun)

    async def _connect(self) -> bool:
        """Follow the run over one connection; give whether that was all of it."""
        url, token = urlsplit(self.source.url), self.source.token
        with trio.fail_after(_CONNECT):
            stream = await _open_stream(url)
        try:
            # The stream is ours: the library forgets it where the server refuses, or closes.
            async with trio.open_nursery() as nursery:
                with trio.fail_after(_CONNECT):
                    connection = await trio_websocket.wrap_client_stream(
                        nursery,
                        stream,
                        url.netloc,
                        f"{url.path or '/'}?{url.query}".removesuffix("?"),
                        subprotocols=["flowtrio.v1"],
                        extra_headers=(
                            [(b"Authorization", f"Bearer {token}".encode())] if token else []
                        ),
                        max_message_size=_MESSAGE,
                    )
                is_over = await self._converse(connection)
                with trio.move_on_after(_CLOSE):
                    await connection.aclose()
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)
        return is_over

    async def _converse(self, connection: Any) -> bool:
        self._sent.clear()
        is_over = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, connection)
            try:
                while not is_over:
                    is_over = await self._take(await connection.get_message())
            except trio_websocket.ConnectionClosed:
                pass
            nursery.cancel_scope.cancel()
        return is_over

    async def _write(self, connection: Any) -> None:
        try:
            await connection.send_message(_encode(self._opening()))
            while True:
                self._wake = trio.Event()
                for ref in [ref for ref in self._pending if ref not in self._sent]:
                    self._sent.add(ref)
                    await connection.send_message(_encode(self._pending[ref]))
                await self._wake.wait()
        except trio_websocket.ConnectionClosed:
            pass  # the reader notices too, and says what follows

    def _opening(self) -> dict[str, Any]:
        command: dict[str, Any] = {"run_id": self.run_id, "ref": 0, "mode": "events"}
        if self._is_accepted:
            return {**command, "type": "resume", "after": self._seen}
        command |= {"message": self.message, "session_id": self.session_id}
        return {**command, "type": "message"}

    async def _take(self, text: str | bytes) -> bool:
        """Take a frame; give whether it was the last one."""
        frame = msgspec.json.decode(text)
        match frame:
            case {"type": "accepted", "ref": ref} if "seq" not in frame:
                self._is_accepted = True
                self._pending.pop(ref, None)
            case {"type": "rejected", "ref": ref} if "seq" not in frame:
                if ref == 0:
                    raise self._error(f"{frame['code']}: {frame['error']}")
                self._pending.pop(ref, None)
            case {"type": type, "seq": seq} if type in _TYPES and seq > self._seen:
                self._seen = seq
                await self._send.send(msgspec.convert(frame, AgentEvent))
                return bool(type == EventType.DONE)
            case _:
                pass  # seen before, or of a kind that came after this program
        return False


_TYPES = frozenset(map(str, EventType))


def _encode(frame: dict[str, Any]) -> str:
    return msgspec.json.encode(frame).decode()


async def _open_stream(
    url: SplitResult,
) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    host = url.hostname or ""
    if url.scheme == "wss":
        stream = await trio.open_ssl_over_tcp_stream(host, url.port or 443, https_compatible=True)
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream
    return await trio.open_tcp_stream(host, url.port or 80)


def _words(exc: BaseException) -> str:
    match exc:
        case trio_websocket.ConnectionRejected(status_code=401):
            return "the server answers 401 (--token is missing or wrong)"
        case trio_websocket.ConnectionRejected():
            return f"the server answers {exc.status_code}"
        case trio.TooSlowError():
            return f"no answer within {_CONNECT} s"
        case OSError() | trio.BrokenResourceError():
            # Trio tells one failure for each address that a name has.
            return str(next(leaves(exc.__cause__ or exc)))
        case _:
            return "it does not answer as a WebSocket server"
