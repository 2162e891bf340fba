"""One origin for the page and its WebSocket, with a network that can be cut."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from flowtrio.transports._page import page_headers, read_page


@attrs.define(eq=False)
class Front:
    """A server in front of ours: files of the page are its own, all else is passed on."""

    behind: int
    """Port of the server that the rest is passed on to."""
    port: int = 0
    is_down: bool = False
    """Whether connections are refused, as by a network that is gone."""
    token: str | None = None
    """What plain requests have to bring."""
    edits: dict[str, list[tuple[str, str]]] = attrs.field(factory=dict)
    """What is written differently in files of the page: bugs that a test plants."""
    _scopes: set[trio.CancelScope] = attrs.field(factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def cut(self) -> None:
        """Drop every connection at once, in the middle of whatever it carries."""
        for scope in list(self._scopes):
            scope.cancel()

    async def handle(self, stream: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if not self.is_down:
                    await self._serve(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                pass
            finally:
                self._scopes.discard(scope)
                await trio.aclose_forcefully(stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = await stream.receive_some()
            if not piece:
                return
            head += piece
        method, target, _ = head.split(b"\r\n")[0].split(b" ")
        path = target.split(b"?")[0].removeprefix(b"/").decode()
        if method == b"GET" and path in PAGE:
            await stream.send_all(self._answer(path))
            return
        if path.startswith("runs/"):
            is_known = self.token is None or f"Bearer {self.token}".encode() in head
            status = b"404 Not Found" if is_known else b"401 Unauthorized"
            await stream.send_all(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
            return
        upstream = await trio.open_tcp_stream("127.0.0.1", self.behind)
        try:
            await upstream.send_all(head)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pump, stream, upstream, nursery.cancel_scope)
                nursery.start_soon(_pump, upstream, stream, nursery.cancel_scope)
        finally:
            await trio.aclose_forcefully(upstream)

    def _answer(self, path: str) -> bytes:
        file = PAGE[path]
        body = file.body.decode()
        for old, new in self.edits.get(path, ()):
            assert body.count(old) == 1, f"{path} does not have {old!r} once"
            body = body.replace(old, new)
        headers = {
            **page_headers(),
            "content-type": file.media_type,
            "content-length": str(len(body.encode())),
            "connection": "close",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 200 OK\r\n{lines}\r\n{body}".encode()


PAGE = read_page()


async def _pump(
    source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await sink.send_all(data)
    scope.cancel()


@asynccontextmanager
async def open_front(behind: int) -> AsyncIterator[Front]:
    """Serve the page, and what is behind it, on one port."""
    front = Front(behind)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, front.handle, 0)
        front.port = listeners[0].socket.getsockname()[1]
        yield front
        nursery.cancel_scope.cancel()
