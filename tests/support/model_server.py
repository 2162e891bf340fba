"""A model's host on loopback: speaks OpenAI's chat completions over real sockets."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import attrs
import trio


@attrs.define(eq=False)
class Exchange:
    """One request and its answer."""

    path: str
    headers: dict[str, str]
    body: Any
    stream: trio.SocketStream
    left_at: float | None = None
    """When the client closed the connection before the answer was whole."""
    is_head_sent: bool = False
    sent: int = 0
    """Tokens that the network took, where the answer counts them."""

    async def send_head(self, status: int = 200, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", "transfer-encoding: chunked"]
        headers.setdefault("content_type", "text/event-stream")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.stream.send_all("\r\n".join([*lines, "", ""]).encode())
        self.is_head_sent = True

    async def send(self, data: bytes) -> None:
        if not self.is_head_sent:
            await self.send_head()
        if data:
            # An empty chunk would be the last one.
            await self.stream.send_all(b"%x\r\n%s\r\n" % (len(data), data))

    async def send_event(self, payload: Any) -> None:
        await self.send(b"data: " + json.dumps(payload).encode() + b"\n\n")

    async def send_delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        await self.send_event({"model": "loopback-1", "choices": [choice]})

    async def end(self) -> None:
        await self.stream.send_all(b"0\r\n\r\n")

    async def finish(self, reason: str = "stop") -> None:
        await self.send_delta({}, reason)
        await self.send_event(
            {
                "model": "loopback-1",
                "choices": [],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3},
            }
        )
        await self.send(b"data: [DONE]\n\n")
        await self.end()

    async def wait_left(self) -> None:
        """Wait until the client has closed the connection, and note when."""
        with suppress(trio.BrokenResourceError):
            await self.stream.receive_some(1)
        self.left_at = trio.current_time()


Answer: TypeAlias = Callable[[Exchange], Awaitable[None]]


def says(*words: str, gap: float = 0) -> Answer:
    """Answer with text."""

    async def answer(exchange: Exchange) -> None:
        for word in words:
            await exchange.send_delta({"content": word})
            await trio.sleep(gap)
        await exchange.finish()

    return answer


def calls(*wanted: tuple[str, dict[str, Any]], text: str = "") -> Answer:
    """Answer with tool calls, their arguments in two fragments each."""

    async def answer(exchange: Exchange) -> None:
        if text:
            await exchange.send_delta({"content": text})
        for index, (name, arguments) in enumerate(wanted):
            raw = json.dumps(arguments)
            function = {"name": name, "arguments": raw[:3]}
            head = {"index": index, "id": f"call_{name}_{index}", "type": "function"}
            await exchange.send_delta({"tool_calls": [{**head, "function": function}]})
            rest = {"index": index, "function": {"arguments": raw[3:]}}
            await exchange.send_delta({"tool_calls": [rest]})
        await exchange.finish("tool_calls")

    return answer


def talks_for_ever(gap: float = 0.01) -> Answer:
    """Answer with one word after another until the client leaves."""

    async def answer(exchange: Exchange) -> None:
        async def talk() -> None:
            while True:
                try:
                    await exchange.send_delta({"content": "word "})
                except trio.BrokenResourceError:
                    return
                await trio.sleep(gap)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            await exchange.wait_left()
            nursery.cancel_scope.cancel()

    return answer


def hangs(*words: str) -> Answer:
    """Say something, then nothing more until the client leaves."""

    async def answer(exchange: Exchange) -> None:
        for word in words:
            await exchange.send_delta({"content": word})
        await exchange.wait_left()

    return answer


def refuses(status: int, body: Any = None, **headers: str) -> Answer:
    """Answer with an error."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send_head(status, **{"content_type": "application/json", **headers})
        await exchange.send(json.dumps(body or {"error": {"message": "no"}}).encode())
        await exchange.end()

    return answer


def sends(*pieces: bytes, content_type: str = "text/event-stream", cut: bool = False) -> Answer:
    """Answer with these bytes; with *cut* the connection breaks instead of ending."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send_head(content_type=content_type)
        for piece in pieces:
            await exchange.send(piece)
        if cut:
            await exchange.stream.aclose()
        else:
            await exchange.end()

    return answer


def counts(total: int, size: int = 0) -> Answer:
    """Answer with the numbers from 0, each a token of at least *size* characters."""

    async def answer(exchange: Exchange) -> None:
        for first in range(0, total, 100):
            events = b""
            for number in range(first, min(first + 100, total)):
                delta = {"content": f"{number:<{size}} "}
                choice = {"index": 0, "delta": delta, "finish_reason": None}
                events += b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
            await exchange.send(events)
            exchange.sent = min(first + 100, total)
        await exchange.finish()

    return answer


def breaks_after(*words: str) -> Answer:
    """Answer with text, then break the connection."""

    async def answer(exchange: Exchange) -> None:
        for word in words:
            await exchange.send_delta({"content": word})
        await resets(exchange)

    return answer


def chooses(choose: Callable[[Any], Answer]) -> Answer:
    """Answer as the request's body asks for."""

    async def answer(exchange: Exchange) -> None:
        await choose(exchange.body)(exchange)

    return answer


def answers_whole(text: str) -> Answer:
    """Answer as one JSON object, as hosts do that cannot stream."""
    message = {"role": "assistant", "content": text}
    body = {
        "model": "loopback-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    return sends(json.dumps(body).encode(), content_type="application/json")


async def resets(exchange: Exchange) -> None:
    """Break the connection without an answer."""
    import socket
    import struct

    # SO_LINGER with 0 makes close() a reset.
    linger = struct.pack("ii", 1, 0)
    exchange.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await exchange.stream.aclose()


@attrs.define(eq=False)
class ModelServer:
    """The host: gives one answer a request, the last one again and again."""

    url: str = ""
    answers: deque[Answer] = attrs.Factory(deque)
    exchanges: list[Exchange] = attrs.Factory(list)
    connections: int = 0
    open_connections: int = 0
    _left: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def wait_left(self) -> None:
        """Wait until no client holds a connection any more."""
        while self.open_connections:
            self._left = trio.Event()
            await self._left.wait()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.open_connections += 1
        try:
            async with stream:
                while (exchange := await _read_request(stream)) is not None:
                    self.exchanges.append(exchange)
                    answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
                    await answer(exchange)
                    if exchange.left_at is not None:
                        return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.exchanges[-1].left_at = trio.current_time()
        finally:
            self.open_connections -= 1
            self._left.set()


@asynccontextmanager
async def open_model_server(answers: Sequence[Answer]) -> AsyncIterator[ModelServer]:
    """Serve on a loopback port for as long as the block lasts."""
    server = ModelServer(answers=deque(answers))
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    server.url = f"http://127.0.0.1:{port}/v1"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()


async def _read_request(stream: trio.SocketStream) -> Exchange | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some()
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += await stream.receive_some()
    path = first.split(" ")[1]
    return Exchange(path, headers, json.loads(body) if body else None, stream)
