"""`connect`: a server's runs over the network, read like an `EventStream`.

One WebSocket carries all streams of a connection. It is made anew when it is lost, and each stream
then says where it was: so readers notice a drop only by the time it takes. Nothing is done twice by
that. A run is started under an id of our own choice, and starting one that exists attaches to it;
every other command may be repeated, and is until it was replied to; events that come twice are told
by their numbers::

    streams ─ commands ─ pending ─ writer ─┐
       ▲                    ▲              ├─ WebSocket ─ server
       └─ events ─ replies ─┴──── reader ──┘
"""

from __future__ import annotations

import random
import secrets
import ssl
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
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

from flowtrio._core._events import AgentEvent, AgentStatus, EventType, StreamMode
from flowtrio._core._exceptions import (
    LimitExceeded,
    RemoteProtocolError,
    ReplayGap,
    RunCancelled,
    RunFailed,
)
from flowtrio._core._failures import leaves

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_HANDSHAKE: Final = 10.0
_PING: Final = 20.0
_CLEANUP: Final = 5.0
"""Seconds that leaving waits for the server to end what it was told to."""
_BUFFER: Final = 1024
"""Events of a stream that were received and not yet read, before the connection is paused."""
_MOST_BYTES: Final = 64 * 1024 * 1024
_NO_WEBSOCKET: Final = (HandshakeError, h11.ProtocolError, wsproto.utilities.ProtocolError)
_LOST: Final = (OSError, ConnectionClosed, trio.BrokenResourceError, *_NO_WEBSOCKET)

_Command: TypeAlias = dict[str, Any]


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    patience: float = 60,
) -> AsyncIterator[Remote]:
    """Connect to a flowtrio server, and stay connected for as long as the block lasts.

    ::

        async with flowtrio.connect("ws://127.0.0.1:8765/chat") as remote:
            async with remote.process_stream("Hello") as stream:
                async for event in stream: ...

    A connection that is lost is made again, sooner at first and then more slowly, and its streams
    go on where they were.

    Args:
      url: Address of the WebSocket: ``ws://``, ``wss://``, or ``http(s)://`` for the same.
      token: What the server wants to be brought; sent as ``Authorization: Bearer``.
      ssl_context: For ``wss``; the system's certificates by default.
      patience: Seconds without a connection after which streams raise `trio.BrokenResourceError`.

    Raises:
      ConnectionError: there is no server, or it refuses us (with the status that it gave).

    """
    if ssl_context is None and _address(url).startswith("wss:"):
        ssl_context = ssl.create_default_context()
    remote = Remote(_address(url), token, ssl_context, patience)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            await remote._open(nursery)
            yield remote
        except BaseException as exc:
            # A nursery has no part in what its body raises: that leaves as it came.
            failure = exc
        nursery.cancel_scope.cancel(reason="the connection was closed")
    if failure is not None:
        raise failure


def _address(url: str) -> str:
    parts = urlsplit(url)
    schemes = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError("url: expected ws://host:port/path, or wss, http, https")
    path = parts.path if parts.path not in ("", "/") else "/chat"
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, parts.query, ""))


class _Connection(WebSocketConnection):
    """A client's WebSocket, whose opening fails where the library would wait or crash."""

    _failure: Exception | None = None

    async def read(self) -> None:
        """Read from the network until it ends; one task has to, all the time."""
        try:
            await self._reader_task()
        except _NO_WEBSOCKET as exc:
            self._failure = exc
        finally:
            self._open_handshake.set()

    async def wait_open(self) -> None:
        """Wait for the server's answer to the handshake."""
        await self._open_handshake.wait()
        if self._failure is not None:
            raise self._failure
        if self._close_reason:
            raise ConnectionClosed(self._close_reason)


@attrs.define(eq=False)
class _Pending:
    """A command without a reply."""

    command: _Command
    stream: RemoteStream | None
    """Whose beginning it is; None for a control."""


class Remote:
    """A server that we are connected to. Made by `flowtrio.connect`."""

    def __init__(
        self, url: str, token: str | None, ssl_context: ssl.SSLContext | None, patience: float
    ) -> None:
        self._url = url
        self._token = token
        self._ssl_context = ssl_context
        self._patience = patience
        self._streams: dict[str, RemoteStream] = {}
        self._pending: dict[int, _Pending] = {}
        self._unsent: deque[int] = deque()
        self._last_ref = 0
        self._work = trio.Event()
        self._failure: Exception | None = None
        self._has_heard = False
        self.is_connected = False
        """Whether there is a connection now."""

    def process_stream(
        self,
        message: str,
        session_id: str | None = None,
        mode: StreamMode | str | None = None,
        run_id: str | None = None,
    ) -> RemoteStream:
        """Make the stream of the run that answers *message*; leaving it cancels the run.

        Nothing happens until it is entered or iterated.

        Args:
          message: What the user says.
          session_id: The conversation; None for a message that stands alone.
          mode: Which events to give; all by default.
          run_id: URL-safe text of up to 64 characters; one that nobody can guess by default. With
            one that exists, nothing is started and its events are given.

        """
        run_id = secrets.token_hex(16) if run_id is None else run_id
        session_id = secrets.token_urlsafe(16) if session_id is None else session_id
        start = {"type": "message", "message": message, "session_id": session_id}
        return RemoteStream(self, run_id, StreamMode(mode or "events"), -1, start)

    def attach(
        self, run_id: str, after: int = -1, mode: StreamMode | str | None = None
    ) -> RemoteStream:
        """Make a reader of a run that was started before; leaving it does nothing to the run.

        One that begins behind DONE has nothing to read.

        Args:
          run_id: The run.
          after: The last sequence number that was seen; -1 for none.
          mode: Which events to give; all by default.

        """
        return RemoteStream(self, run_id, StreamMode(mode or "events"), after, None)

    async def process(self, message: str, session_id: str | None = None) -> Any:
        """Have *message* answered and give the result; see `RemoteStream.result`."""
        async with self.process_stream(message, session_id) as stream:
            return await stream.result()

    # Streams and commands

    def _add(self, stream: RemoteStream) -> None:
        if self._failure is not None:
            raise self._failure
        if stream.run_id in self._streams:
            raise RuntimeError(f"run {stream.run_id!r} is read here already")
        self._streams[stream.run_id] = stream
        self._ask(stream._opening(), stream)

    def _ask(self, command: _Command, stream: RemoteStream | None = None) -> None:
        """Have a command sent, now or when there is a connection again."""
        self._last_ref += 1
        self._pending[self._last_ref] = _Pending(command, stream)
        self._unsent.append(self._last_ref)
        self._work.set()

    def _forget(self, stream: RemoteStream) -> None:
        if self._streams.get(stream.run_id) is stream:
            del self._streams[stream.run_id]

    # The connection, made again and again

    async def _open(self, nursery: trio.Nursery) -> None:
        failure = await nursery.start(self._stay_connected)
        if failure is not None:
            raise ConnectionError(f"can't reach {self._place}: {_words(failure)}") from failure

    @property
    def _place(self) -> str:
        # What stands before the host and in the query may be secret.
        scheme, netloc, path, _, _ = urlsplit(self._url)
        return urlunsplit((scheme, netloc.rpartition("@")[2], path, "", ""))

    async def _stay_connected(self, task_status: trio.TaskStatus[Exception | None]) -> None:
        has_started = False

        def started() -> None:
            nonlocal has_started
            if not has_started:
                has_started = True
                task_status.started(None)

        delay, lost_at = _FIRST_DELAY, trio.current_time()
        while True:
            failure = await self._connect_once(started)
            if not has_started:
                return task_status.started(failure)
            if self._has_heard:
                self._has_heard, delay, lost_at = False, _FIRST_DELAY, trio.current_time()
            elif _is_final(failure) or trio.current_time() - lost_at > self._patience:
                return self._give_up(failure)
            # Spread, so that all clients of a server that restarts do not come at once.
            await trio.sleep(delay * random.uniform(0.5, 1))
            delay = min(delay * 2, _LONGEST_DELAY)

    def _give_up(self, cause: Exception | None) -> None:
        failure = trio.BrokenResourceError(f"lost {self._place}: {_words(cause)}")
        failure.__cause__ = cause
        self._failure = failure
        for stream in list(self._streams.values()):
            stream._fail(failure)

    async def _connect_once(self, started: Callable[[], None]) -> Exception | None:
        """Connect, and talk until the connection is lost; gives why."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            stream: trio.abc.Stream | None = None
            try:
                with trio.fail_after(_HANDSHAKE):
                    stream = await self._open_stream()
                    if isinstance(stream, trio.SSLStream):
                        # By itself, so that what it fails with is not taken for a bad answer.
                        await stream.do_handshake()
                    connection = await self._shake_hands(nursery, stream)
                started()
                failure = await self._talk(connection)
            except (*_LOST, trio.TooSlowError) as exc:
                failure = exc
            finally:
                # As a client the library forgets its socket where the server closes.
                if stream is not None:
                    await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel(reason="the connection is over")
        return failure

    async def _open_stream(self) -> trio.abc.Stream:
        parts = urlsplit(self._url)
        assert parts.hostname is not None
        port = parts.port or (80 if self._ssl_context is None else 443)
        stream = await trio.open_tcp_stream(parts.hostname, port)
        if self._ssl_context is None:
            return stream
        return trio.SSLStream(
            stream, self._ssl_context, server_hostname=parts.hostname, https_compatible=True
        )

    async def _shake_hands(self, nursery: trio.Nursery, stream: trio.abc.Stream) -> _Connection:
        parts = urlsplit(self._url)
        headers = [(b"Authorization", f"Bearer {self._token}".encode())] if self._token else []
        connection = _Connection(
            stream,
            WSConnection(ConnectionType.CLIENT),
            host=parts.netloc.rpartition("@")[2],
            path=f"{parts.path}?{parts.query}" if parts.query else parts.path,
            client_subprotocols=["flowtrio.batch.v1", "flowtrio.v1"],
            client_extra_headers=headers,
            max_message_size=_MOST_BYTES,
        )
        nursery.start_soon(connection.read)
        await connection.wait_open()
        return connection

    async def _talk(self, connection: _Connection) -> Exception:
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def until_lost(fn: Callable[[_Connection], Any]) -> None:
                try:
                    await fn(connection)
                except (*_LOST, trio.TooSlowError) as exc:
                    failures.append(exc)
                nursery.cancel_scope.cancel(reason="the connection is lost")

            self._begin_anew()
            self.is_connected = True
            try:
                nursery.start_soon(until_lost, self._write)
                nursery.start_soon(until_lost, self._keep_alive)
                await until_lost(self._read)
            finally:
                self.is_connected = False
        return failures[0]

    def _begin_anew(self) -> None:
        """Put in line what this connection has to know: streams where they are, then controls."""
        controls = [p.command for p in self._pending.values() if p.stream is None]
        self._pending.clear()
        self._unsent.clear()
        for stream in self._streams.values():
            self._ask(stream._opening(), stream)
        for command in controls:
            self._ask(command)

    async def _write(self, connection: _Connection) -> None:
        while True:
            while self._unsent:
                ref = self._unsent.popleft()
                command = {**self._pending[ref].command, "ref": ref}
                await connection.send_message(msgspec.json.encode(command).decode())
            self._work = trio.Event()
            await self._work.wait()

    async def _keep_alive(self, connection: _Connection) -> None:
        while True:
            await trio.sleep(_PING)
            with trio.fail_after(_PING):
                await connection.ping()

    async def _read(self, connection: _Connection) -> None:
        while True:
            frames = _decode(await connection.get_message())
            self._has_heard = True
            for frame in frames:
                if "seq" in frame:
                    await self._take_event(frame)
                else:
                    self._take_reply(frame)

    async def _take_event(self, frame: dict[str, Any]) -> None:
        stream = self._streams.get(frame.get("run_id", ""))
        if stream is not None:
            await stream._take(_convert(frame))

    def _take_reply(self, frame: dict[str, Any]) -> None:
        pending = self._pending.pop(frame.get("ref") or 0, None)
        if frame.get("type") != "rejected":
            if frame.get("is_over") and pending is not None and pending.stream is not None:
                pending.stream._end()
            return
        code, error = str(frame.get("code")), str(frame.get("error"))
        if code == "shutting_down" or frame.get("ref") is None:
            # The server goes, or has lost our place: say anew where we are, and hear the reason.
            raise trio.BrokenResourceError(f"the server says {code}")
        if pending is not None and pending.stream is not None:
            pending.stream._fail(_refusal(pending.stream, code, error))


def _decode(message: str | bytes) -> list[dict[str, Any]]:
    try:
        value = msgspec.json.decode(message)
    except msgspec.DecodeError:
        value = None
    frames: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(frame, dict) for frame in frames):
        raise trio.BrokenResourceError("the server sent something that is no frame")
    return frames


def _convert(frame: dict[str, Any]) -> AgentEvent:
    try:
        return msgspec.convert(frame, AgentEvent)
    except msgspec.ValidationError as exc:
        raise trio.BrokenResourceError(f"the server sent an event that is none: {exc}") from None


def _refusal(stream: RemoteStream, code: str, error: str) -> Exception:
    match code:
        case "session_busy" | "tenant_busy":
            return LimitExceeded(error, limit=code.removesuffix("_busy"), code=code)
        case "too_many_runs":
            return LimitExceeded(error, limit="runs_per_connection", code=code)
        case "unknown_run" | "not_resumable" | "store_failed":
            return LookupError(error)
        case "replay_gap":
            after = stream._last
            return ReplayGap(error, run_id=stream.run_id, after=after, oldest=None)
        case _:
            return RemoteProtocolError(f"the server refused: {error}", code=code)


def _is_final(failure: Exception | None) -> bool:
    """Whether trying again is in vain: we may not come in."""
    return isinstance(failure, ConnectionRejected) and failure.status_code in (401, 403, 404)


def _words(failure: Exception | None) -> str:
    match failure:
        case ConnectionRejected(status_code=401):
            return "the server answers 401 (the token is missing or wrong)"
        case ConnectionRejected():
            return f"the server answers {failure.status_code}"
        case trio.TooSlowError():
            return f"no answer within {_HANDSHAKE:g} s"
        case OSError() | trio.BrokenResourceError():
            # Trio tells one failure for each address that a name has.
            return str(next(leaves(failure.__cause__ or failure)))
        case _:
            return "it does not answer as a WebSocket server"


class RemoteStream(AsyncIterator[AgentEvent]):
    """One run on a server, with the interface of `EventStream`.

    Made by `Remote.process_stream`, then leaving it cancels the run; or by `Remote.attach`, then
    leaving it does nothing. The controls are sent, and sent again after a drop; whether they took
    effect is seen in the events.
    """

    def __init__(
        self, remote: Remote, run_id: str, mode: StreamMode, after: int, start: _Command | None
    ) -> None:
        self.run_id = run_id
        """The run's id."""
        self.mode = mode
        """Which view of the log this stream gives."""
        self.status = AgentStatus.INITIALIZING
        """What the run is doing, as far as its events say."""
        self._remote = remote
        self._start = start
        self._last = after
        self._has_events = False
        self._queue: deque[AgentEvent] = deque()
        self._news = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._failure: Exception | None = None
        self._last_event: AgentEvent | None = None
        self._error: dict[str, Any] | None = None
        self._has_begun = False
        self._is_done = False
        self._is_cancelled = False
        self._is_closed = False
        self._is_reading = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread: int | None = None

    def __repr__(self) -> str:
        return f"<RemoteStream run={self.run_id!r} status={str(self.status)!r}>"

    # What the connection does with it

    def _opening(self) -> _Command:
        """What makes a connection send our events, from where we are."""
        keys = {"run_id": self.run_id, "mode": str(self.mode)}
        if self._start is not None and not self._has_events:
            return {**self._start, **keys}
        return {"type": "resume", "after": self._last, **keys}

    async def _take(self, event: AgentEvent) -> None:
        if event.seq <= self._last or self._is_closed:
            return
        while len(self._queue) >= _BUFFER and not self._is_closed:
            await self._room.park()
        self._last = event.seq
        self._has_events = True
        self._last_event = event
        match event.type:
            case EventType.STATE_CHANGE:
                self.status = AgentStatus(event.data["new_status"])
            case EventType.ERROR:
                self._error = event.data
            case EventType.DONE:
                self.status = AgentStatus(event.data["status"])
                self._end()
            case _:
                pass
        self._queue.append(event)
        self._news.unpark_all()

    def _end(self) -> None:
        """No event will come any more."""
        self._is_done = True
        self._remote._forget(self)
        self._news.unpark_all()

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._remote._forget(self)
        self._news.unpark_all()

    # The two ways in

    def _begin(self) -> None:
        self._has_begun = True
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._remote._add(self)

    async def __aenter__(self) -> Self:
        """Start the run, or attach to it."""
        if self._has_begun:
            raise RuntimeError(
                f"can't start run {self.run_id!r} again: this stream was used before"
            )
        await trio.lowlevel.checkpoint()
        self._begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave; a run that this stream started is cancelled, and has a while to end."""
        await self.aclose()

    async def aclose(self) -> None:
        """Leave; a run that this stream started is cancelled, and has a while to end."""
        if self._has_begun and self._start is not None and self._goes_on:
            self.cancel("the reader left")
            within = trio.current_time() + _CLEANUP
            with trio.CancelScope(shield=True, deadline=within):
                while self._goes_on:
                    self._queue.clear()
                    self._room.unpark_all()
                    await self._news.park()
        self._is_closed = True
        self._room.unpark_all()
        self._news.unpark_all()
        self._remote._forget(self)
        await trio.lowlevel.checkpoint()

    @property
    def _goes_on(self) -> bool:
        return not self._is_done and self._failure is None

    # Reading

    def __aiter__(self) -> Self:
        """Iterate; outside a block the first step starts the run, or attaches to it."""
        return self

    async def __anext__(self) -> AgentEvent:
        """Give the next event."""
        try:
            await self._wait()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        event = self._queue.popleft()
        self._room.unpark_all()
        return event

    async def receive_batch(self) -> list[AgentEvent]:
        """Wait for an event, and give it with all that are ready after it.

        Raises:
          trio.EndOfChannel: DONE was given before.
          LimitExceeded: the server refused to start the run (``code`` says why).
          LookupError: the server knows no such run.
          ReplayGap: the server has lost the events that come next.
          trio.BrokenResourceError: the connection was lost, for longer than its patience.

        """
        await self._wait()
        batch = list(self._queue)
        self._queue.clear()
        self._room.unpark_all()
        return batch

    async def _wait(self) -> None:
        """Wait until an event is ready."""
        if self._is_reading:
            raise trio.BusyResourceError(f"another task is reading run {self.run_id!r}")
        self._is_reading = True
        try:
            await trio.lowlevel.checkpoint()
            if not self._has_begun:
                self._begin()
            while not self._queue:
                if self._is_done:
                    raise trio.EndOfChannel
                if self._failure is not None:
                    raise self._failure
                if self._is_closed:
                    raise trio.ClosedResourceError("this stream was closed")
                await self._news.park()
        finally:
            self._is_reading = False

    async def result(self) -> Any:
        """Read the rest of the events away and give what the agent returned, as JSON.

        Raises:
          RunFailed: the run failed.
          RunCancelled: the run was cancelled.
          LookupError: this reader began behind DONE, which has the result; or see `receive_batch`.
          Exception: the run cannot be read to its end; see `receive_batch`.

        """
        try:
            while True:
                await self.receive_batch()
        except trio.EndOfChannel:
            pass
        if self._last_event is None:
            raise LookupError(
                f"run {self.run_id!r} had ended by seq {self._last}, where this reader began: "
                "attach from an earlier place for its result"
            )
        data = self._last_event.data
        if data["status"] == "completed":
            return data["result"]
        known: dict[str, Any] = {
            "run_id": self.run_id,
            "messages": [],
            "usage": data["usage"],
        }
        if self._error is None:
            reason = data["reason"] or "no reason given"
            raise RunCancelled(f"run {self.run_id!r} was cancelled: {reason}", **known)
        raise RunFailed(
            f"run {self.run_id!r} failed: {self._error['error']}", error=self._error, **known
        )

    # Controls

    def cancel(self, reason: str | None = None) -> bool:
        """See `EventStream.cancel`; False also if this reader asked for it before."""
        if self._is_cancelled:
            return False
        self._is_cancelled = self._control("cancel", reason=reason)
        return self._is_cancelled

    def cancel_tool(self, call_id: str) -> bool:
        """See `EventStream.cancel_tool`."""
        return self._control("cancel_tool", call_id=call_id)

    def approve(self, call_id: str) -> bool:
        """See `EventStream.approve`."""
        return self._control("approve", call_id=call_id)

    def deny(self, call_id: str, reason: str | None = None) -> bool:
        """See `EventStream.deny`."""
        return self._control("deny", call_id=call_id, reason=reason)

    def answer(self, request_id: str, text: str) -> bool:
        """See `EventStream.answer`."""
        return self._control("answer", request_id=request_id, text=text)

    def _control(self, type: str, **keys: Any) -> bool:
        """Send a command; True if the run goes on as far as we know."""
        if self._token is None or not self._goes_on or self._is_closed:
            return False
        command = {"type": type, "run_id": self.run_id, **keys}
        if threading.get_ident() == self._thread:
            self._remote._ask(command)
        else:
            try:
                self._token.run_sync_soon(self._remote._ask, command)
            except trio.RunFinishedError:
                return False
        return True
