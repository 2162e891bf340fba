"""The WebSocket server.

One connection::

    accept ─ head ─ access ─ upgrade ─┬─ reader: one task, always reading ─ session ─┐
                                      ├─ writer: the only one that sends  ◄──────────┘
                                      └─ pings

The accept loop is ours, and nothing that a connection does can leave it. A send that was cut short
leaves half a frame behind, so it ends its connection. A connection that ends cancels its runs, or
detaches from those that may be resumed.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import trio

from flowtrio._core._limits import ServerLimits
from flowtrio.serving._access import Access, Refused, subprotocols_of
from flowtrio.serving._head import Head, encode_response, read_head
from flowtrio.serving._listening import open_listeners
from flowtrio.serving.commands._letting_in import check_address
from flowtrio.serving.commands._outgoing import Goodbye
from flowtrio.serving.commands._session import (
    Hosting,
    Session,
    TooManyBadMessages,
    choose_subprotocol,
)
from flowtrio.serving.commands._showing import asks_for_links
from flowtrio.wire._frames import BATCH_SUBPROTOCOL, TooLarge

from ._framing import ConnectionClosed, Framing
from ._patience import Patience

if TYPE_CHECKING:
    from flowtrio._hosting._orchestrator import Orchestrator
    from flowtrio.abc import Authenticate

logger: logging.Logger = logging.getLogger("flowtrio")

_GoOn: TypeAlias = Callable[[], Awaitable[Any]]

PATHS = ("/", "/chat", "/ws")
"""Where a WebSocket is served."""

_PIECE = 64 * 1024
"""Characters that are written to a connection at once, or one text."""

_MOST_REFUSALS = 100
"""Connections over the limit that are told so at once; more are dropped without a word."""


async def serve_websocket(
    orchestrator: Orchestrator,
    host: str | None,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    token: str | Iterable[str] | None = None,
    origins: Iterable[str] = (),
    authenticate: Authenticate | None = None,
    operator_token: str | Iterable[str] | None = None,
    limits: ServerLimits | None = None,
    resume_window: float = 60,
    drain: float = 5,
    insecure: bool = False,
    debug: bool = False,
    reuse_port: bool = False,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an orchestrator's agents to WebSocket clients until cancelled.

    When it is cancelled it takes no more connections and starts no more runs; those under way have
    *drain* seconds to end, then they get ERROR ``shutdown`` and DONE; then the connections are
    closed with 1012. An orchestrator that is not open is opened for as long as this runs.

    Args:
      orchestrator: Who answers.
      host: Address to listen on; None for all.
      port: Port; 0 for any that is free.
      ssl_context: For ``wss``; None for ``ws``.
      token: One or several tokens, of which a client has to bring one: as ``Authorization:
        Bearer``, as subprotocol ``flowtrio.token.<token>``, or as query ``token``.
      origins: Origins of web pages that may connect, beside the same host and port.
      authenticate: Gives the tenant of a `flowtrio.abc.Request`, or a `flowtrio.abc.Caller`, or
        None to refuse it with 401.
      operator_token: One or several tokens of operators, who are let in here too.
      limits: Limits of the connections.
      resume_window: Seconds in which a client that was cut off may come back, if it named a
        subprotocol or chose its ``run_id``; then its runs are cancelled, unless they wait for a
        person. The runs of other clients are cancelled at once, as all are where this is 0.
      drain: Seconds that running runs get when the server stops; 0 for none.
      insecure: Whether to listen to everybody on an address that others can reach.
      debug: Whether clients see the text of the application's exceptions.
      reuse_port: Whether other processes listen at the same address; the kernel then gives each
        connection to one of them.
      task_status: Started with the listeners, as of `trio.serve_tcp`.

    Raises:
      ValueError: the options contradict each other, or the address is open to others and nobody
        has to say who they are.
      OSError: the address cannot be listened on.

    """
    access = Access.of(
        host=host,
        token=token,
        origins=origins,
        authenticate=authenticate,
        insecure=insecure,
        operator_token=operator_token,
    )
    limits = ServerLimits() if limits is None else limits
    # Before a port is taken, which nobody would give back: it refuses options too.
    server = Server(
        hosting=Hosting(orchestrator, limits, debug, resume_window),
        access=access,
        ssl_context=ssl_context,
    )
    try:
        listeners = await open_listeners(host, port, is_shared=reuse_port)
    except OSError as exc:
        exc.add_note(f"flowtrio can't listen on {host or 'all addresses'}, port {port}")
        raise
    async with _opened(orchestrator), trio.open_nursery() as nursery:
        connections = await nursery.start(server.hold_connections)
        server.hosting.nursery = connections
        try:
            task_status.started(listeners)
            await trio.serve_listeners(server.handle, listeners, handler_nursery=connections)
        finally:
            with trio.CancelScope(shield=True):
                await server.stop(drain)
            nursery.cancel_scope.cancel(reason="the server has stopped")
            connections.cancel_scope.cancel(reason="the server has stopped")


@asynccontextmanager
async def _opened(orchestrator: Orchestrator) -> AsyncIterator[None]:
    if orchestrator.is_open:
        yield
    else:
        async with orchestrator:
            yield


@attrs.define(eq=False, kw_only=True)
class Server:
    """What the connections of one server share."""

    hosting: Hosting
    access: Access
    ssl_context: ssl.SSLContext | None
    answer: Callable[[trio.abc.Stream, Head], Awaitable[None]] | None = None
    """Answers requests that ask for no WebSocket; None where there are no others."""
    _patience: Patience = attrs.field(
        default=attrs.Factory(lambda self: Patience(self.limits.send), True), init=False
    )
    _count: int = attrs.field(default=0, init=False)
    _has_fewer: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def limits(self) -> ServerLimits:
        """Those of its connections."""
        return self.hosting.limits

    async def handle(self, transport: trio.SocketStream) -> None:
        """Serve one connection; nothing it does leaves here but a cancellation."""
        self._count += 1
        try:
            await self._serve(transport)
        # In groups or bare: most of it comes out of the connection's nursery.
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed):
            pass  # The other side left.
        except* trio.TooSlowError:
            words = "a handshake took longer than %s s: the connection from %s was dropped"
            logger.info(words, self.limits.handshake, _address(transport))
        except* Exception as group:
            logger.error("a connection ended by an error of ours", exc_info=group)
        finally:
            self._count -= 1
            self._has_fewer.set()

    async def hold_connections(
        self, task_status: trio.TaskStatus[trio.Nursery] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Shielded, so that connections and runs outlive the accept loop and end in good order."""
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            task_status.started(nursery)
            await self._patience.watch()

    async def wait_empty(self) -> None:
        """Wait until no connection is left."""
        while self._count:
            self._has_fewer = trio.Event()
            await self._has_fewer.wait()

    async def stop(self, seconds: float) -> None:
        """End the runs, then the connections."""
        await self.hosting.drain(seconds)
        await self.hosting.dismiss()

    # One connection, in the order of its life

    async def _serve(self, transport: trio.SocketStream) -> None:
        limits = self.limits
        if self._count > limits.connections + _MOST_REFUSALS:
            return
        with trio.fail_after(limits.handshake):
            stream = await self._secure(transport)
            try:
                go_on = await self._let_in(stream, _address(transport))
            except Refused as exc:
                return await _refuse(stream, exc)
        if go_on is not None:
            await go_on()

    async def _let_in(self, stream: trio.abc.Stream, address: str | None) -> _GoOn | None:
        """Read what is asked for, and give what serves that; None where it is answered already.

        The head stays here: an idle connection would keep all of it.
        """
        head = await read_head(stream, self.limits.head, address)
        if self.answer is not None and not _wants_websocket(head):
            return partial(self.answer, stream, head)
        tenant_id = await self._admit(head)
        if tenant_id is None:
            await _answer(stream, 200, {"status": "ok"})
            return None
        self.hosting.check_room()
        return partial(
            self._upgrade,
            Framing(stream, head, self.limits, self._patience),
            tenant_id,
            choose_subprotocol(subprotocols_of(head.request.headers)),
            asks_for_links(head.request),
        )

    async def _secure(self, transport: trio.SocketStream) -> trio.abc.Stream:
        if self.ssl_context is None:
            return transport
        stream = trio.SSLStream(
            transport, self.ssl_context, server_side=True, https_compatible=True
        )
        await stream.do_handshake()
        return stream

    async def _admit(self, head: Head) -> str | None:
        """Give the request's tenant; None for one that only asks whether we live."""
        path = head.request.path
        if path == "/health" and head.method in ("GET", "HEAD"):
            return None
        if path not in PATHS or self.hosting.serves_nobody:
            raise Refused(404, f"expected one of {', '.join(PATHS)}")
        if head.has_body:
            raise Refused(400, "expected a request without a body")
        if not head.is_upgrade:
            raise Refused(426, "expected a WebSocket handshake, version 13")
        most = self.limits.connections
        if self.hosting.is_draining or max(self._count - 1, self.hosting.connections) >= most:
            raise Refused(503, "no more connections at the moment")
        check_address(self.hosting, head.request.client)
        caller = await self.access.let_in(head.request, is_tls=self.ssl_context is not None)
        return caller.tenant_id

    async def _upgrade(
        self, framing: Framing, tenant_id: str, subprotocol: str | None, is_linked: bool
    ) -> None:
        with self.hosting.connecting():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(framing.read)
                await framing.accept(subprotocol)
                session = Session(
                    hosting=self.hosting,
                    tenant_id=tenant_id,
                    nursery=nursery,
                    is_batch=subprotocol == BATCH_SUBPROTOCOL,
                    is_linked=is_linked,
                    may_come_back=subprotocol is not None,
                )
                framing.let_go = session.leave
                nursery.start_soon(self._write, framing, session, nursery.cancel_scope)
                nursery.start_soon(self._keep_alive, framing)
                with session.living():
                    await self._read(framing, session)
                nursery.cancel_scope.cancel(reason="the client left")

    async def _read(self, framing: Framing, session: Session) -> None:
        """Take what the client says until one of us closes."""
        try:
            while True:
                message = await framing.get_message()
                if isinstance(message, bytes):
                    return await self._refuse(session, 1003, "expected text")
                await session.receive(message)
        except TooManyBadMessages:
            await self._refuse(session, 1008, "too many bad messages")
        except TooLarge:
            await self._refuse(session, 1009, "the message is too large")
        except ConnectionClosed:
            await framing.wait_closed()

    @staticmethod
    async def _refuse(session: Session, code: int, reason: str) -> None:
        """Have the writer say goodbye, which ends this task too."""
        await session.outgoing.say_goodbye(code, reason)
        await trio.sleep_forever()

    async def _write(self, framing: Framing, session: Session, scope: trio.CancelScope) -> None:
        """Send what the session says; the only task that does."""
        outgoing = session.outgoing
        try:
            while True:
                # What came meanwhile. Sending it is a schedule point, and so was what we sent. Who
                # waits behind an `except` keeps the exception and its frames for all that time.
                item = outgoing.take_ready() or await outgoing.receive()
                if isinstance(item, Goodbye):
                    # Here, and nowhere else: a close frame that overtakes events would lose them.
                    return await framing.close(item.code, item.reason)
                for texts in _pieces(item):
                    await framing.send_texts(texts)
        except ConnectionClosed:
            # The network's side may be about to send its close frame: cancelled, it would not.
            return await framing.wait_closed()
        finally:
            # Cut short or gone: what is on the wire may end in half a frame.
            if framing.closed is None:
                await framing.abort()
            scope.cancel(reason="the client takes nothing more")

    async def _keep_alive(self, framing: Framing) -> None:
        while True:
            await trio.sleep(self.limits.ping_interval)
            received = framing.received
            with trio.move_on_after(self.limits.ping_timeout) as waiting:
                try:
                    await framing.ping()
                except ConnectionClosed:
                    return None
            if waiting.cancelled_caught and framing.received == received:
                words = "a client answered no ping for %s s: its WebSocket is dropped"
                logger.info(words, self.limits.ping_timeout)
                return await framing.abort()


async def _answer(stream: trio.abc.Stream, status: int, body: dict[str, str], **more: str) -> None:
    headers = {401: {"www_authenticate": "Bearer"}, 426: {"upgrade": "websocket"}}.get(status, {})
    await stream.send_all(encode_response(status, body, **headers, **more))


async def _refuse(stream: trio.abc.Stream, refused: Refused) -> None:
    seconds = refused.retry_after
    later = {} if seconds is None else {"retry_after": str(math.ceil(seconds))}
    await _answer(stream, refused.status, {"error": refused.error}, **later)


def _wants_websocket(head: Head) -> bool:
    """Whether it does, be it in a way that we do not serve."""
    return head.request.headers.get("upgrade", "").lower() == "websocket"


def _pieces(texts: list[str]) -> Iterator[list[str]]:
    """Texts to be written together, so that a long batch is not copied whole."""
    piece: list[str] = []
    size = 0
    for text in texts:
        piece.append(text)
        size += len(text)
        if size >= _PIECE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _address(transport: trio.SocketStream) -> str | None:
    try:
        name = transport.socket.getpeername()
    except OSError:
        return None
    return str(name[0]) if isinstance(name, tuple) else None
