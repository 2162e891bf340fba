"""Readers of runs that come back after each drop: some by the bare protocol, and our own client.

A reader asks for the runs that it has not read to their end from a place that it has reached, or
one before; so some events come twice. Each tells what it found wrong: on every connection events
have to come without a gap from just behind the place that was asked for, and the same number has to
be the same event.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from random import Random
from typing import Any, Final
from urllib.parse import urlencode

import attrs
import h11
import msgspec
import trio
import wsproto
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Message,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)

import flowtrio
from flowtrio.wire._sse import SSEDecoder
from tests.support.lines import Line

Frame = dict[str, Any]

SUBPROTOCOLS: Final = ((), ("flowtrio.v1",), ("flowtrio.batch.v1",))


@attrs.define(eq=False, kw_only=True)
class Reader(ABC):
    """Who reads runs over one line, and starts those that are not there."""

    line: Line
    run_ids: list[str]
    dice: Random
    piece: int = 65536
    """Bytes it takes at once."""
    pause: float = 0
    """Seconds it rests between."""
    late: float = 0
    """Seconds until it comes."""
    logs: dict[str, dict[int, Frame]] = attrs.field(init=False)
    """Events by their number, in the order in which they came first."""
    faults: list[str] = attrs.field(factory=list, init=False)
    _next: dict[str, int] = attrs.field(factory=dict, init=False)
    _over: set[str] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.logs = {run_id: {} for run_id in self.run_ids}

    async def read(self) -> None:
        """Read all runs to their end."""
        await trio.sleep(self.late)
        while not self.is_over:
            stream = await self.line.dial()
            try:
                await self._read_once(stream)
            except trio.BrokenResourceError:
                pass
            finally:
                await trio.aclose_forcefully(stream)

    @property
    def is_over(self) -> bool:
        """Whether no run is left to be read; a reader that found a fault stops."""
        return not self._left or bool(self.faults)

    @property
    def _left(self) -> list[str]:
        return [run_id for run_id in self.run_ids if run_id not in self._over]

    @abstractmethod
    async def _read_once(self, stream: trio.abc.Stream) -> None:
        """Read over one connection until it ends."""

    def _place(self, run_id: str, most: int = 1000) -> int:
        """The last event that it says it has seen; -1 for none."""
        back = min(self.dice.choice((0, 0, 0, 1, 7, 1000)), most)
        after = max(len(self.logs[run_id]) - 1 - back, -1)
        self._next[run_id] = after + 1
        return after

    def _take(self, frame: Frame) -> None:
        run_id, seq = frame["run_id"], frame["seq"]
        if run_id not in self.logs or seq != self._next[run_id]:
            self.faults.append(f"seq {seq} of {run_id} is not {self._next.get(run_id)}")
        self._next[run_id] = seq + 1
        log = self.logs.setdefault(run_id, {})
        if log.setdefault(seq, frame) != frame:
            self.faults.append(f"seq {seq} of {run_id} was another event before")
        if frame["type"] == "done":
            self._end(run_id)

    def _end(self, run_id: str) -> None:
        self._over.add(run_id)

    def _refused(self, run_id: str, how: object) -> None:
        self.faults.append(f"{run_id} was refused: {how}")
        self._over.add(run_id)

    async def _receive(self, stream: trio.abc.Stream) -> bytes:
        await trio.sleep(self.pause)
        return bytes(await stream.receive_some(self.piece))


@attrs.define(eq=False, kw_only=True)
class SocketReader(Reader):
    """Over a WebSocket, several runs at once."""

    subprotocols: tuple[str, ...] = ()

    async def _read_once(self, stream: trio.abc.Stream) -> None:
        ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        request = Request(
            host=f"127.0.0.1:{self.line.port}",
            target="/chat",
            subprotocols=list(self.subprotocols),
        )
        await stream.send_all(ws.send(request))
        asked: dict[int, str] = {}
        text = ""
        while not self.is_over:
            data = await self._receive(stream)
            if not data:
                return
            ws.receive_data(data)
            for event in ws.events():
                match event:
                    case AcceptConnection():
                        await stream.send_all(self._ask(ws, asked))
                    case RejectConnection(status_code=status):
                        return self._refused(self._left[0], status)
                    case TextMessage(data=part, message_finished=is_whole):
                        text += part
                        if is_whole:
                            self._take_message(json.loads(text), asked)
                            text = ""
                    case Ping():
                        await stream.send_all(ws.send(event.response()))
                    case CloseConnection(code=code):
                        if code not in (1012, 1013):
                            self.faults.append(f"closed with {code}")
                        return None

    def _ask(self, ws: wsproto.WSConnection, asked: dict[int, str]) -> bytes:
        data = b""
        for ref, run_id in enumerate(self._left):
            after, asked[ref] = self._place(run_id), run_id
            if after < 0:
                keys = {"type": "message", "message": run_id, "session_id": run_id}
            else:
                keys = {"type": "resume", "after": after}
            text = json.dumps({**keys, "run_id": run_id, "ref": ref})
            data += ws.send(Message(text))
        return data

    def _take_message(self, value: Any, asked: dict[int, str]) -> None:
        for frame in value if isinstance(value, list) else [value]:
            if "seq" in frame:
                self._take(frame)
            elif frame["type"] == "rejected":
                self._refused(asked.get(frame["ref"], "a run"), frame)


@attrs.define(eq=False, kw_only=True)
class HTTPReader(Reader):
    """Over HTTP, one run: as a browser's EventSource does it, or by POST and the run's address."""

    posts: bool = False
    """Whether it starts with POST and goes on at the run's own address."""
    wants_lines: bool = False
    """Whether it goes on in JSON lines there."""

    def _end(self, run_id: str) -> None:
        """See 204: only that says that nothing is left."""

    async def _read_once(self, stream: trio.abc.Stream) -> None:
        [run_id] = self._left
        http = h11.Connection(h11.CLIENT)
        request, body = self._request(run_id)
        await stream.send_all(b"".join(http.send(part) or b"" for part in (request, *body)))
        decoder: _Lines | SSEDecoder | None = None
        while True:
            match http.next_event():
                case h11.NEED_DATA:
                    data = await self._receive(stream)
                    if not data:
                        return
                    http.receive_data(data)
                case h11.Response(status_code=200, headers=headers):
                    is_sse = dict(headers)[b"content-type"] == b"text/event-stream"
                    decoder = SSEDecoder() if is_sse else _Lines()
                case h11.Response(status_code=204):
                    return self._over.add(run_id)
                case h11.Response(status_code=status):
                    return self._refused(run_id, status)
                case h11.Data(data=data):
                    assert decoder is not None
                    for event in decoder.receive_data(bytes(data)):
                        if event.data:
                            self._take(json.loads(event.data))
                            if event.id not in ("", f"{run_id}:{self._next[run_id] - 1}"):
                                self.faults.append(f"{event.id} is no place of {run_id}")
                case _:
                    return None  # the end of an answer; the log goes on, or 204 follows

    def _request(self, run_id: str) -> tuple[h11.Request, list[Any]]:
        headers = [("Host", f"127.0.0.1:{self.line.port}"), ("Connection", "close")]
        # A log that is over has to be asked for from its end, or its end comes again.
        has_all = self._has_all(run_id)
        after = self._place(run_id, most=0 if has_all else 1000)
        asks = {"message": run_id, "session_id": run_id, "run_id": run_id}
        if self.posts and after < 0:
            body = json.dumps(asks).encode()
            headers += [("Content-Type", "application/json"), ("Content-Length", f"{len(body)}")]
            request = h11.Request(method="POST", target="/chat/stream", headers=headers)
            return request, [h11.Data(data=body), h11.EndOfMessage()]
        if self.posts:
            accept = "application/x-ndjson" if self.wants_lines else "text/event-stream"
            headers.append(("Accept", accept))
            target = f"/runs/{run_id}/events?after={after}"
        else:
            target = f"/chat/stream?{urlencode(asks)}"
            headers += [("Last-Event-ID", f"{run_id}:{after}")] if after >= 0 else []
        return h11.Request(method="GET", target=target, headers=headers), [h11.EndOfMessage()]

    def _has_all(self, run_id: str) -> bool:
        log = self.logs[run_id]
        return bool(log) and log[max(log)]["type"] == "done"


@attrs.define
class _Lines:
    """Whole lines, in the form of events."""

    _rest: bytes = b""

    def receive_data(self, data: bytes) -> list[Any]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [_Line(line.decode()) for line in lines if line]


@attrs.frozen
class _Line:
    data: str
    id: str = ""


@attrs.define(eq=False, kw_only=True)
class ClientReader(Reader):
    """By `flowtrio.connect`, several runs at once."""

    async def read(self) -> None:
        """See `Reader.read`."""
        await trio.sleep(self.late)
        self._next = dict.fromkeys(self.run_ids, 0)
        url = f"ws://127.0.0.1:{self.line.port}/chat"
        while not self.is_over:
            # The first connection is not tried again by itself.
            try:
                async with flowtrio.connect(url, patience=30) as remote:
                    async with trio.open_nursery() as nursery:
                        for run_id in self.run_ids:
                            nursery.start_soon(self._read_run, remote, run_id)
            except ConnectionError:
                await trio.sleep(0.005)

    async def _read_run(self, remote: Any, run_id: str) -> None:
        try:
            async with remote.process_stream(run_id, session_id=run_id, run_id=run_id) as stream:
                async for event in stream:
                    self._take(msgspec.to_builtins(event))
                    if self.pause:
                        await trio.sleep(self.pause / 4)
        except Exception as exc:
            self._refused(run_id, repr(exc))

    async def _read_once(self, stream: trio.abc.Stream) -> None:
        raise AssertionError("its connections are not ours")
