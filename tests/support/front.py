"""The server as a browser sees it, behind a network that can be cut."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio

from flowtrio import Orchestrator
from flowtrio.asgi import create_app
from flowtrio.page._files import page_headers, read_page
from tests.support.worker import serving

PAGE = read_page()


@attrs.define(eq=False)
class Front:
    """What stands between the browser and the server, and passes bytes on."""

    behind: int
    """The server's port."""
    port: int = 0
    is_down: bool = False
    """Whether connections are refused, as by a network that is gone."""
    has_sockets: bool = True
    """Whether WebSockets come through, which not every proxy lets them."""
    is_silent: bool = False
    """Whether connections stay as they are and carry nothing, as where half of one is gone."""
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
                if self.is_silent:
                    await trio.sleep_forever()
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
        path = head.split(b" ", 2)[1].split(b"?")[0].removeprefix(b"/").decode()
        if b"\r\nUpgrade: websocket" in head:
            if not self.has_sockets:
                await stream.send_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
                return
        else:
            # One request a connection, so that each is seen here.
            head = head.replace(b"Connection: keep-alive", b"Connection: close")
        if path in PAGE:
            # Each test loads all of them: from here it costs the server nothing.
            await stream.send_all(self._answer(path))
            return
        upstream = await trio.open_tcp_stream("127.0.0.1", self.behind)
        try:
            await upstream.send_all(head)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, stream, upstream, nursery.cancel_scope)
                nursery.start_soon(self._pump, upstream, stream, nursery.cancel_scope)
        finally:
            await trio.aclose_forcefully(upstream)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                if self.is_silent:
                    # What is on its way is lost, and its connection for good.
                    await trio.sleep_forever()
                await sink.send_all(data)
        scope.cancel()

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


@asynccontextmanager
async def open_front(agent: Any, **options: Any) -> AsyncIterator[Front]:
    """Serve an agent behind a front."""
    app = create_app(Orchestrator(agents=[agent]), **{"drain": 0.2, **options})
    async with front_of(app) as front:
        yield front


@asynccontextmanager
async def front_of(app: Any) -> AsyncIterator[Front]:
    """Serve an application behind a front."""
    # No test takes this long, whatever hangs.
    with trio.fail_after(180):
        async with serving(app) as url, trio.open_nursery() as nursery:
            front = Front(urlsplit(url).port or 80)
            listeners = await nursery.start(trio.serve_tcp, front.handle, 0)
            front.port = listeners[0].socket.getsockname()[1]
            yield front
            nursery.cancel_scope.cancel()
