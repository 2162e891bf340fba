"""The same server as an ASGI application: SSE, WebSocket and the page, alone or mounted.

::

    GET  /                        the page, and its files
    GET  /chat/stream?message=…   start a run, or go on with one (Last-Event-ID), as SSE
    POST /chat/stream             the same, in JSON: message, session_id, run_id, mode
    WS   /chat                    the frames of the WebSocket server
    GET  /runs/{id}/events        follow a run from any place, as SSE or JSON lines
    POST /runs/{id}/{command}     cancel, cancel_tool, approve, deny, answer
    GET         /sessions         the tenant's conversations
    GET         /runs             and its runs
    GET, PATCH, DELETE /sessions/{id}    a conversation
    POST        /sessions/{id}/branch  another that begins as it does
    GET         /sessions/{id}/parts/{n}  an image or a file of it
    GET         /operator/runs    the runs of all tenants, for operators
    GET         /operator/inbox   and what they wait for
    GET  /health /ready /metrics
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from flowtrio._core._limits import ServerLimits
from flowtrio.page._files import page_headers
from flowtrio.serving._access import Access, Refused
from flowtrio.serving.commands._clients import Hosting
from flowtrio.serving.commands._letting_in import check_address

from ._asgi_socket import serve_socket
from ._door import Door
from ._endpoints import Endpoints
from ._protocol import HTTPProtocol
from ._request import (
    Left,
    Receive,
    Scope,
    Send,
    path_below,
    read_request,
    telling_who_left,
)
from ._routes import Routes

if TYPE_CHECKING:
    from flowtrio._hosting._orchestrator import Orchestrator
    from flowtrio.abc import Authenticate

logger: logging.Logger = logging.getLogger("flowtrio")


def create_app(
    orchestrator: Orchestrator,
    *,
    token: str | Iterable[str] | None = None,
    origins: Iterable[str] = (),
    authenticate: Authenticate | None = None,
    operator_token: str | Iterable[str] | None = None,
    limits: ServerLimits | None = None,
    resume_window: float = 60,
    drain: float = 5,
    insecure: bool = False,
    debug: bool = False,
    sockets: Iterable[str] = (),
    protocols: Iterable[HTTPProtocol] = (),
) -> App:
    """Make an ASGI application that serves an orchestrator's agents.

    For Hypercorn's trio worker, and for uvicorn and other servers under asyncio, where it lives in
    the process's Trio thread; alone or mounted in another application: all its addresses are
    relative. An orchestrator that is not open is opened for as long as the application runs; where
    a framework does not run the lifespan of what it mounts, chain `App.lifespan` into its own.

    Args:
      orchestrator: Who answers.
      token: One or several tokens, of which a client has to bring one: as ``Authorization:
        Bearer``, as subprotocol ``flowtrio.token.<token>``, or as query ``token``. The page,
        ``/health`` and ``/ready`` need none.
      origins: Origins of web pages that may connect and read, beside the same host and port.
      authenticate: Gives the tenant of a `flowtrio.abc.Request`, or a `flowtrio.abc.Caller`, or
        None to refuse it with 401.
      operator_token: One or several tokens of operators, brought like other ones: they see and
        steer the runs of all tenants, below ``/operator`` and by ``?tenant=`` on the addresses of
        runs and conversations.
      limits: Limits of the connections.
      resume_window: Seconds in which a reader that was cut off may come back; then its run is
        cancelled, unless it waits for a person. 0 cancels it when the last reader leaves.
      drain: Seconds that running runs get when the application stops; 0 for none.
      insecure: Whether to answer everybody on an address that others can reach.
      debug: Whether clients see the text of the application's exceptions.
      sockets: Origins of WebSocket servers at other addresses that the page may connect to.
      protocols: Other people's protocols that are spoken too, of `flowtrio.protocols`, such as
        ``[OpenAIProtocol()]``; each brings addresses of its own, under the same rules.

    Raises:
      ValueError: both a token and *authenticate* are given, or a token or origin cannot be one.

    """
    access = Access.of(
        host=None,
        token=token,
        origins=origins,
        authenticate=authenticate,
        insecure=True,
        operator_token=operator_token,
    )
    limits = ServerLimits() if limits is None else limits
    hosting = Hosting(orchestrator, limits, debug, resume_window)
    door = Door(access, insecure)
    endpoints, headers = Endpoints(hosting, door), page_headers(sockets)
    routes = Routes(hosting, door, endpoints, headers, tuple(protocols))
    return App(hosting, door, drain, routes)


@attrs.define(eq=False)
class App:
    """An ASGI application. Made by `create_app`."""

    _hosting: Hosting
    _door: Door
    _drain: float
    _routes: Routes
    _opened: trio.Event | None = attrs.field(default=None, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; see the ASGI specification."""
        if not trio.lowlevel.in_trio_task():
            # Its server is asyncio's: noticed here, where the first scope comes.
            from ._asyncio_host import serve_elsewhere

            return await serve_elsewhere(self, scope, receive, send)
        match scope["type"]:
            case "lifespan":
                await self._serve_lifespan(receive, send)
            case "http":
                await self._ensure_open()
                await self._routes.serve(scope, receive, telling_who_left(send))
            case "websocket":
                await self._ensure_open()
                with contextlib.suppress(Left):
                    await self._serve_websocket(scope, receive, telling_who_left(send))
            case kind:
                raise RuntimeError(f"ASGI scope {kind!r}: expected http, websocket or lifespan")
        return None

    # Living

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Hold the orchestrator open, and end the runs in good order.

        For frameworks: ``FastAPI(lifespan=...)`` whose function enters this.
        """
        if not trio.lowlevel.in_trio_task():
            from ._asyncio_host import live_elsewhere

            async with live_elsewhere(self.lifespan):
                yield
            return
        orchestrator = self._hosting.orchestrator
        async with contextlib.AsyncExitStack() as stack:
            if not orchestrator.is_open:
                await stack.enter_async_context(orchestrator)
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    await self.drain()

    async def drain(self) -> None:
        """Start no more runs, give those under way their time, then end them and say goodbye."""
        hosting = self._hosting
        if hosting.is_draining:
            return
        await hosting.drain(self._drain)
        await hosting.dismiss()

    async def _ensure_open(self) -> None:
        """Have the orchestrator open, also where nobody runs our lifespan."""
        if self._hosting.orchestrator.is_open:
            return
        if self._opened is None:
            self._opened = trio.Event()
            trio.lowlevel.spawn_system_task(self._hold_open, name="flowtrio application")
        await self._opened.wait()

    async def _hold_open(self) -> None:
        assert self._opened is not None
        try:
            async with self.lifespan():
                self._opened.set()
                await trio.sleep_forever()
        except Exception:
            logger.exception("the application ended by an error of ours")
        finally:
            # What could not be opened is told by each request, instead of waited for.
            self._opened.set()

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self.lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    # WebSocket

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = read_request(scope, path_below(scope))
        await receive()  # websocket.connect
        try:
            if request.path not in ("/", "/chat", "/ws") or self._hosting.serves_nobody:
                raise Refused(404, "expected /chat")
            if self._hosting.is_draining:
                raise Refused(503, "the server is shutting down")
            check_address(self._hosting, request.client)
            caller = await self._door.admit(scope, request)
            with self._hosting.connecting():
                tenant_id = caller.tenant_id
                await serve_socket(self._hosting, tenant_id, request, scope, receive, send)
        except Refused as exc:
            await _deny(scope, send, exc)


async def _deny(scope: Scope, send: Send, refused: Refused) -> None:
    """Answer a WebSocket's handshake with a status, where the server can; else refuse it."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        return await send({"type": "websocket.close", "code": 1008, "reason": refused.error})
    body = refused.error.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    if refused.retry_after is not None:
        headers.append((b"retry-after", str(math.ceil(refused.retry_after)).encode()))
    await send(
        {"type": "websocket.http.response.start", "status": refused.status, "headers": headers}
    )
    await send({"type": "websocket.http.response.body", "body": body})
    return None
