"""One WebSocket to a server, as a client: opened within a deadline, kept alive, lost with a reason.

::

    TCP ─ TLS ─ handshake ─┬─ frames in both directions
                           └─ pings

As a client trio-websocket waits, or crashes, where an opening goes wrong, so that is done here.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import attrs
import h11
import msgspec
import trio
import wsproto.utilities
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
)
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState

from flowtrio._core._asked import Asked, ask, check_asked
from flowtrio._core._failures import leaves
from flowtrio.wire._frames import BATCH_SUBPROTOCOL, LINKED, SUBPROTOCOL

from ._closing import LOST_CODE, TooMuch, code_of, is_too_big, words_of_closing

_HANDSHAKE: Final = 10.0
"""Seconds that an opening may take."""
_PING: Final = 20.0
"""Seconds between two pings, and those that an answer may take."""
_MOST_BYTES: Final = 64 * 1024 * 1024
_NO_WEBSOCKET: Final = (HandshakeError, h11.ProtocolError, wsproto.utilities.ProtocolError)
LOST: Final = (
    *(OSError, ConnectionClosed, trio.BrokenResourceError, trio.TooSlowError),
    *_NO_WEBSOCKET,
)
"""What is raised where a line is lost, or cannot be opened."""


@attrs.frozen(kw_only=True)
class Target:
    """Where a server is, and what it takes to come in."""

    url: str = attrs.field(repr=False)
    """Of its WebSocket; ``ws`` or ``wss``."""
    token: Asked | None = attrs.field(repr=False)
    """Asked for at each opening, where it is a function."""
    ssl_context: ssl.SSLContext | None
    """None for no TLS."""

    @classmethod
    def of(cls, url: str, token: Asked | None, ssl_context: ssl.SSLContext | None) -> Self:
        """Read an address as people write it, and a token; `ValueError`, `TypeError` if odd."""
        check_asked("token", token)
        parts = urlsplit(url)
        schemes = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError("url: expected ws://host:port/path, or wss, http, https")
        scheme = schemes[parts.scheme]
        if ssl_context is None and scheme == "wss":
            ssl_context = ssl.create_default_context()
        path = parts.path if parts.path not in ("", "/") else "/chat"
        url = urlunsplit((scheme, parts.netloc, path, parts.query, ""))
        return cls(url=url, token=token, ssl_context=ssl_context)

    @property
    def place(self) -> str:
        """The address, for people: what stands before the host and in the query may be secret."""
        scheme, netloc, path, _, _ = urlsplit(self.url)
        return urlunsplit((scheme, netloc.rpartition("@")[2], path, "", ""))

    async def ask_token(self) -> str | None:
        """The token as it is now; where the function fails, another attempt may succeed."""
        try:
            return None if self.token is None else await ask("token", self.token)
        except Exception as exc:
            raise trio.BrokenResourceError("there is no token") from exc

    async def open_stream(self) -> trio.abc.Stream:
        """Connect, without any handshake."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        port = parts.port or (80 if self.ssl_context is None else 443)
        stream = await trio.open_tcp_stream(parts.hostname, port)
        if self.ssl_context is None:
            return stream
        return trio.SSLStream(
            stream, self.ssl_context, server_hostname=parts.hostname, https_compatible=True
        )


class Line(WebSocketConnection):
    """A client's WebSocket, whose opening fails where the library would wait or crash."""

    def __init__(self, stream: trio.abc.Stream, target: Target, token: str | None) -> None:
        parts = urlsplit(target.url)
        query = f"{parts.query}&{LINKED}=1" if parts.query else f"{LINKED}=1"
        super().__init__(
            stream,
            WSConnection(ConnectionType.CLIENT),
            host=parts.netloc.rpartition("@")[2],
            path=f"{parts.path}?{query}",
            client_subprotocols=[BATCH_SUBPROTOCOL, SUBPROTOCOL],
            client_extra_headers=[(b"Authorization", f"Bearer {token}".encode())] if token else [],
            max_message_size=_MOST_BYTES,
        )
        self._failure: Exception | None = None
        self.has_heard = False
        """Whether a frame came."""

    async def read(self) -> None:
        """Read from the network until it ends; one task has to, all the time."""
        try:
            await self._reader_task()
        except _NO_WEBSOCKET as exc:
            self._failure = exc
        finally:
            self._open_handshake.set()

    async def wait_open(self) -> None:
        """Wait until the server has accepted the handshake; one of `LOST` if it has not."""
        await self._open_handshake.wait()
        if self._failure is not None:
            raise self._failure
        if self._close_reason:
            closed = ConnectionClosed(self._close_reason)
            # Who answers and goes, without a word in the protocol, does not speak it.
            raise HandshakeError if code_of(closed) == LOST_CODE else closed

    async def keep_alive(self) -> None:
        """Ping until no answer comes."""
        while True:
            await trio.sleep(_PING)
            with trio.fail_after(_PING):
                await self.ping()

    def reason_of(self, failure: Exception) -> Exception:
        """What *failure* comes from: a message that is too large may be the server's own."""
        if is_too_big(failure) and self._wsproto.state is ConnectionState.LOCAL_CLOSING:
            return TooMuch(f"the server sent a message of more than {_MOST_BYTES} bytes")
        return failure

    async def send(self, command: dict[str, Any]) -> None:
        """Send a frame."""
        await self.send_message(msgspec.json.encode(command).decode())

    async def receive(self) -> list[dict[str, Any]]:
        """Wait for frames, all that came together; what is no frame breaks the line."""
        frames = _decode(await self.get_message())
        self.has_heard = True
        return frames


def _decode(message: str | bytes) -> list[dict[str, Any]]:
    try:
        value = msgspec.json.decode(message)
    except msgspec.DecodeError:
        value = None
    frames: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(frame, dict) for frame in frames):
        raise trio.BrokenResourceError("the server sent something that is no frame")
    return frames


async def hold_line(target: Target, talk: Callable[[Line], Awaitable[Exception]]) -> Exception:
    """Open a line and *talk* on it until it is lost, which is given or raised; gives why."""
    failure: Exception
    async with trio.open_nursery() as nursery:
        stream: trio.abc.Stream | None = None
        try:
            with trio.fail_after(_HANDSHAKE):
                token = await target.ask_token()
                stream = await target.open_stream()
                if isinstance(stream, trio.SSLStream):
                    # By itself, so that what it fails with is not taken for a bad answer.
                    await stream.do_handshake()
                line = Line(stream, target, token)
                nursery.start_soon(line.read)
                await line.wait_open()
            failure = await talk(line)
        except LOST as exc:
            failure = exc
        finally:
            # As a client the library forgets its socket where the server closes.
            if stream is not None:
                await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel(reason="the line is over")
    return failure


def is_final(failure: Exception) -> bool:
    """Whether trying again is in vain: we may not come in."""
    return isinstance(failure, ConnectionRejected) and failure.status_code in (401, 403, 404)


def words_of(failure: Exception) -> str:
    """Why a line was lost, for people."""
    match failure:
        case ConnectionRejected(status_code=401):
            return "the server answers 401 (the token is missing or wrong)"
        case ConnectionRejected():
            return f"the server answers {failure.status_code}"
        case ConnectionClosed():
            return words_of_closing(failure)
        case trio.TooSlowError():
            return f"no answer within {_HANDSHAKE:g} s"
        case OSError() | trio.BrokenResourceError():
            # Trio tells one failure for each address that a name has.
            return str(next(leaves(failure.__cause__ or failure)))
        case _:
            return "it does not answer as a WebSocket server"
