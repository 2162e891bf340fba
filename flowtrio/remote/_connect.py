"""`connect`: a server's runs over the network, read like an `EventStream`.

One WebSocket carries all streams of a connection. It is made anew when it is lost, and each stream
then says where it was: so readers notice a drop only by the time it takes::

    streams ─ commands ─ pending ─ writer ─┐
       ▲                    ▲              ├─ line ─ server
       └─ events ─ replies ─┴──── reader ──┘
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from flowtrio._core._asked import Asked
from flowtrio._core._events import StreamMode
from flowtrio._core._parts import Part, read_message
from flowtrio.wire._sent_parts import encode_sent

from ._closing import GaveUpOne, is_too_big
from ._commands import Commands
from ._line import LOST, Line, Target, words_of
from ._reconnect import stay_connected
from ._remote_stream import RemoteStream


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: Asked | None = None,
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
      token: What the server wants to be brought; sent as ``Authorization: Bearer``. May be a
        function, async too, which is asked for it whenever the connection is made.
      ssl_context: For ``wss``; the system's certificates by default.
      patience: Seconds without a connection after which streams raise `trio.BrokenResourceError`;
        sooner where three in a row were closed because the server does not take what is sent.

    Raises:
      ConnectionError: there is no server, or it refuses us (with the status that it gave).

    """
    remote = Remote(Target.of(url, token, ssl_context), patience)
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


class Remote:
    """A server that we are connected to. Made by `flowtrio.connect`."""

    def __init__(self, target: Target, patience: float) -> None:
        self._target = target
        self._patience = patience
        self._commands = Commands()
        self.is_connected = False
        """Whether there is a connection now."""

    def process_stream(
        self,
        message: str | Sequence[Part],
        session_id: str | None = None,
        mode: StreamMode | str | None = None,
        run_id: str | None = None,
    ) -> RemoteStream:
        """Make the stream of the run that answers *message*; leaving it cancels the run.

        Nothing happens until it is entered or iterated.

        Args:
          message: What the user says: a text, or a list of `Text`, `Image` and `File`. The server
            has limits for these, and refuses what is beyond them with `RemoteProtocolError`.
          session_id: The conversation; None for a message that stands alone.
          mode: Which events to give; all by default.
          run_id: URL-safe text of up to 64 characters; one that nobody can guess by default. With
            one that exists, nothing is started and its events are given; where it answers another
            message, reading raises `RunExists`.

        """
        run_id = secrets.token_hex(16) if run_id is None else run_id
        session_id = secrets.token_urlsafe(16) if session_id is None else session_id
        said = encode_sent(read_message(message))
        start = {"type": "message", **said, "session_id": session_id}
        return RemoteStream(self._commands, run_id, StreamMode(mode or "events"), -1, start)

    def attach(
        self,
        run_id: str,
        after: int = -1,
        mode: StreamMode | str | None = None,
        *,
        snapshot: bool = False,
    ) -> RemoteStream:
        """Make a reader of a run that was started before; leaving it does nothing to the run.

        One that begins behind DONE has nothing to read.

        Args:
          run_id: The run.
          after: The last sequence number that was seen; -1 for none.
          mode: Which events to give; all by default.
          snapshot: Whether what was said by now is given as one event; see `Orchestrator.attach`.

        Raises:
          ValueError: a *snapshot* is asked for behind a place.

        """
        if snapshot and after >= 0:
            raise ValueError(f"after={after}, snapshot=True: a snapshot is of all that was said")
        mode = StreamMode(mode or "events")
        return RemoteStream(self._commands, run_id, mode, after, None, snapshot=snapshot)

    async def process(self, message: str | Sequence[Part], session_id: str | None = None) -> Any:
        """Have *message* answered and give the result; see `RemoteStream.result`."""
        async with self.process_stream(message, session_id) as stream:
            return await stream.result()

    # The connection

    async def _open(self, nursery: trio.Nursery) -> None:
        failure = await nursery.start(self._stay_connected)
        if failure is not None:
            place = self._target.place
            raise ConnectionError(f"can't reach {place}: {words_of(failure)}") from failure

    async def _stay_connected(self, task_status: trio.TaskStatus[Exception | None]) -> None:
        cause = await stay_connected(self._target, self._patience, self._talk, task_status)
        if cause is not None:
            failure = trio.BrokenResourceError(f"lost {self._target.place}: {words_of(cause)}")
            failure.__cause__ = cause
            self._commands.give_up(failure)

    async def _talk(self, line: Line) -> Exception:
        """Talk until the line is lost; gives why."""
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def until_lost(fn: Callable[..., Awaitable[None]], *args: Line) -> None:
                try:
                    await fn(*args)
                except LOST as exc:
                    failures.append(exc)
                nursery.cancel_scope.cancel(reason="the line is lost")

            self._commands.begin_anew()
            self.is_connected = True
            try:
                nursery.start_soon(until_lost, self._write, line)
                nursery.start_soon(until_lost, line.keep_alive)
                await until_lost(self._read, line)
            finally:
                self.is_connected = False
        failure = line.reason_of(failures[0])
        if is_too_big(failure) and self._commands.give_up_largest():
            return GaveUpOne("a message was too large")
        return failure

    async def _write(self, line: Line) -> None:
        while True:
            await line.send(await self._commands.next())

    async def _read(self, line: Line) -> None:
        while True:
            for frame in await line.receive():
                await self._commands.take(frame)
