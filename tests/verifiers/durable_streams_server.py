"""Durable Streams to be written, before our side, which only reads; ends with its input.

The protocol's own tests make a stream by PUT and append to it by POST. Here a PUT starts a run, and
what is posted is what the run's agent says, in an event of its own; a stream is closed when the
agent is through. All that is read goes through our addresses: offsets, statuses, headers, waiting
and closing are ours. Only what an event says is put in the place of the event, since a log has more
events than what was posted, and these tests also post what is no JSON.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import trio

from flowtrio import Orchestrator, RunContext
from flowtrio.asgi import create_app
from flowtrio.protocols import DurableStreamsProtocol, _durable_streams
from flowtrio.wire._sse import SSEDecoder
from tests.support.worker import serving

Message = Any
Send = Callable[[Message], Awaitable[None]]
POSTED = "posted"
JSON = "application/json"
LINE_END = b"\r\n|\r|\n"
MOST = 500_000
"""Bytes that may be posted at once."""


@attrs.define(eq=False)
class Stream:
    """A stream that is written here, and the run that it is."""

    run_id: str
    kind: str
    said: trio.MemorySendChannel[Any]
    is_closed: bool = False

    @property
    def is_binary(self) -> bool:
        """Whether it goes into Server-Sent Events as base64."""
        return not self.kind.startswith(("text/", JSON))

    def read(self, body: bytes) -> list[Any]:
        """What a body posts: each value goes into an event."""
        if not self.kind.startswith(JSON):
            return [base64.b64encode(body).decode()] if body else []
        value = json.loads(body) if body else []
        return value if isinstance(value, list) else [value]

    def tell(self, events: Sequence[Message]) -> bytes:
        """What was posted, of events of a log."""
        own = [e["data"]["value"] for e in events if e["data"].get("name") == POSTED]
        if self.kind.startswith(JSON):
            return json.dumps(own).encode()
        return b"".join(map(base64.b64decode, own))


@attrs.define(eq=False)
class Door:
    """An application that takes what is written, and hands on what is read."""

    app: Any = None
    orchestrator: Any = None
    streams: dict[str, Stream] = attrs.Factory(dict)
    heard: dict[str, trio.MemoryReceiveChannel[Any]] = attrs.Factory(dict)

    async def agent(self, ctx: RunContext, message: str) -> None:
        """Say what is posted."""
        async with self.heard[ctx.run_id] as heard:
            async for value in heard:
                await ctx.custom(POSTED, value)

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        method, stream = scope["method"], self.streams.get(scope["path"])
        if method == "PUT":
            return await self._put(scope, receive, send)
        if stream is None:
            if method == "POST":
                return await _answer(send, 404, {})
            return await self.app({**scope, "path": "/streams/none"}, receive, send)
        scope = {**scope, "path": f"/streams/{stream.run_id}"}
        if method == "POST":
            return await self._post(stream, scope, receive, send)
        return await self.app(scope, receive, Reading(stream, send))

    # Writing

    async def _put(self, scope: Message, receive: Any, send: Send) -> None:
        given, path = _headers(scope), scope["path"]
        kind, known = given.get("content-type", "application/octet-stream"), self.streams.get(path)
        if known is not None:
            status = 200 if known.kind.lower() == kind.lower() else 409
            return await _answer(send, status, await self._place(known))
        said, heard = trio.open_memory_channel[Any](1000)
        run_id = f"run{len(self.streams)}"
        self.heard[run_id] = heard
        await self.orchestrator.start(path, run_id=run_id)
        stream = self.streams[path] = Stream(run_id, kind, said)
        await self._wait_for(stream, 2)
        await self._write(stream, stream.read(await _body(receive)), given)
        place = await self._place(stream)
        url = f"http://{given['host']}{path}"
        return await _answer(send, 201, {**place, "location": url, "content-type": kind})

    async def _post(self, stream: Stream, scope: Message, receive: Any, send: Send) -> None:
        given, body = _headers(scope), await _body(receive)
        closes = given.get("stream-closed") == "true"
        kind = given.get("content-type", "")
        if stream.is_closed and body:
            return await _answer(send, 409, await self._place(stream))
        if body and kind.lower() != stream.kind.lower():
            return await _answer(send, 409 if kind else 400, {})
        try:
            values = stream.read(body)
        except ValueError:
            return await _answer(send, 400, {})
        if not (values or closes) or len(body) > MOST:
            return await _answer(send, 413 if body[MOST:] else 400, {})
        await self._write(stream, values, given)
        return await _answer(send, 204, await self._place(stream))

    async def _write(self, stream: Stream, values: Sequence[Any], given: Message) -> None:
        place = await self._place(stream)
        for value in values:
            stream.said.send_nowait(value)
        if given.get("stream-closed") == "true" and not stream.is_closed:
            stream.is_closed = True
            stream.said.close()
        await self._wait_for(stream, int(place["stream-next-offset"]) + len(values))

    async def _wait_for(self, stream: Stream, tail: int) -> None:
        """Wait until what was written can be read."""
        while True:
            place = await self._place(stream)
            is_there = not stream.is_closed or "stream-closed" in place
            if int(place["stream-next-offset"]) >= tail and is_there:
                return
            await trio.sleep(0.001)

    async def _place(self, stream: Stream) -> dict[str, str]:
        """Where it ends, as our side tells."""
        told: dict[str, str] = {}

        async def send(message: Message) -> None:
            for name, value in message.get("headers", ()):
                told[name.decode()] = value.decode()

        scope = {"type": "http", "method": "HEAD", "path": f"/streams/{stream.run_id}"}
        more = {
            "headers": [(b"host", b"127.0.0.1")],
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "scheme": "http",
        }
        await self.app({**scope, **more, "server": ("127.0.0.1", 1)}, trio.sleep_forever, send)
        return {k: told[k] for k in ("stream-next-offset", "stream-closed") if k in told}


@attrs.define(eq=False)
class Reading:
    """Puts what was posted in the place of the events that tell of it."""

    stream: Stream
    send: Send
    _start: Message = attrs.field(factory=dict, init=False)
    _body: bytes = attrs.field(default=b"", init=False)
    _sse: SSEDecoder | None = attrs.field(default=None, init=False)

    async def __call__(self, message: Message) -> None:
        """Send on an answer of ours."""
        if message["type"] == "http.response.start":
            self._start = message
            if dict(message["headers"]).get(b"content-type") == b"text/event-stream":
                self._sse = SSEDecoder()
                encoding = [(b"stream-sse-data-encoding", b"base64")]
                headers = [*message["headers"], *(encoding if self.stream.is_binary else [])]
                await self.send({**message, "headers": headers})
        elif self._sse is not None:
            told = b"".join(map(self._event, self._sse.receive_data(message["body"])))
            await self.send({**message, "body": told})
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_whole()

    def _event(self, event: Any) -> bytes:
        # Nothing between the colon and the value: these tests look for that.
        if event.event == "control":
            return b"event: control\ndata:%b\n\n" % event.data
        if not event.data:
            return b""
        data = self.stream.tell(json.loads(event.data))
        if data in (b"", b"[]"):
            return b""
        lines = [base64.b64encode(data)] if self.stream.is_binary else re.split(LINE_END, data)
        return b"event: data\n%b\n" % b"".join(b"data:%b\n" % line for line in lines)

    async def _send_whole(self) -> None:
        headers, body = dict(self._start["headers"]), self._body
        if self._start["status"] == 200:
            body = self.stream.tell(json.loads(body)) if body else b""
            headers[b"content-type"] = self.stream.kind.encode()
            headers[b"content-length"] = str(len(body)).encode()
        await self.send({**self._start, "headers": [*headers.items()]})
        await self.send({"type": "http.response.body", "body": body})


def _headers(scope: Message) -> dict[str, str]:
    return {name.decode().lower(): value.decode() for name, value in scope["headers"]}


async def _body(receive: Any) -> bytes:
    body, is_last = b"", False
    while not is_last:
        message = await receive()
        body += message.get("body", b"")
        is_last = not message.get("more_body")
    return body


async def _answer(send: Send, status: int, headers: dict[str, str]) -> None:
    headers = {"x-content-type-options": "nosniff", "content-length": "0", **headers}
    told = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": b""})


async def main() -> None:
    if "planted" in sys.argv:
        # A bug: the same cursor again and again, and caches between us answer with what they have.
        _durable_streams._cursor = lambda visit: {"stream-cursor": "1"}
    door = Door()
    door.orchestrator = Orchestrator(agents=[door.agent])
    protocol = DurableStreamsProtocol(long_poll=0.3)
    door.app = create_app(door.orchestrator, protocols=[protocol], origins=["https://example.com"])
    async with serving(door) as url:
        print(url, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(main)
