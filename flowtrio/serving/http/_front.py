"""The HTTP address of ``flowtrio serve``: our accept loop, with Hypercorn behind it.

::

    accept ─ TLS ─ head ─┬─ a WebSocket: our own framing, as on the WebSocket listener
                         └─ anything else: Hypercorn, one request a connection

Hypercorn's own loop is not for the open internet. What goes wrong in one connection ends its whole
server, and a header that is not ASCII is enough (0.18). Its WebSocket agrees to compression, of
which 200 KB become 400 MB; it closes on violations without a word, leaves a connection open whose
message was too large, and has no use for missing pongs. Its HTTP/2 in the clear, once begun, is
never too idle. So each request's head is read here, within its limits, and there is no second one
behind it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from flowtrio.serving._access import Access
from flowtrio.serving._head import Head
from flowtrio.serving._replayed import Replayed
from flowtrio.serving.sockets.websocket import Server

from .asgi import App

if TYPE_CHECKING:
    from hypercorn import Config

_UPGRADE = re.compile(rb"^upgrade:", re.IGNORECASE | re.MULTILINE)
_IGNORED = b"ignored:"
"""As long, since what follows it may be counted."""


async def serve_front(
    app: App,
    listeners: list[trio.SocketListener],
    config: Config,
    *,
    access: Access,
    ssl_context: ssl.SSLContext | None,
    until: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application, and WebSockets for it, until told to stop; then end in good order.

    Args:
      app: The application; its orchestrator is open.
      listeners: Where; they are closed at the end.
      config: Of Hypercorn.
      access: Who may open a WebSocket.
      ssl_context: For TLS; None for none.
      until: Returns when it is time to stop. ``/ready`` is answered for as long as that takes.
      task_status: Started when connections are accepted.

    """
    context = WorkerContext(None)
    # Hypercorn's type of an application lists each message of the protocol.
    served: Any = app
    wrapped = wrap_app(served, config.wsgi_max_body_size, "asgi")

    async def answer(stream: trio.abc.Stream, head: Head) -> None:
        handed = _hand_over(stream, head)
        try:
            await TCPServer(wrapped, config, context, ConnectionState({}), handed)
        except* trio.BusyResourceError:
            pass  # It was closing while its application sent: the client has left.

    server = Server(hosting=app._hosting, access=access, ssl_context=ssl_context, answer=answer)
    async with trio.open_nursery() as nursery:
        connections = await nursery.start(server.hold_connections)
        accept = partial(trio.serve_listeners, server.handle, listeners)
        try:
            nursery.start_soon(partial(accept, handler_nursery=connections))
            task_status.started()
            await until()
            await app.drain()
            await context.terminated.set()
            with trio.move_on_after(config.graceful_timeout):
                await server.wait_empty()
        finally:
            nursery.cancel_scope.cancel(reason="the server has stopped")
            # They are shielded: whoever cancels us from outside would wait for them for ever.
            connections.cancel_scope.cancel(reason="the server has stopped")


def _hand_over(stream: trio.abc.Stream, head: Head) -> Any:
    """Give what Hypercorn takes for a connection, and has not read from yet."""
    # Other protocols are not spoken here: whoever asks for one goes on in HTTP/1.1.
    received = _UPGRADE.sub(_IGNORED, head.raw[: head.length])
    if head.has_body:
        received += head.raw[head.length :]
    if isinstance(stream, trio.SSLStream):
        return _Secure(stream, received, has_body=head.has_body)
    return _Plain(stream, received, has_body=head.has_body)


class _Plain(Replayed):
    """A connection with one request in it."""

    def __init__(self, stream: trio.abc.Stream, received: bytes, *, has_body: bool) -> None:
        super().__init__(stream, received)
        self._has_body = has_body

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        is_head = bool(self.received)
        data = await super().receive_some(max_bytes)
        while data and not (is_head or self._has_body):
            # Another request behind the first: its answer is that the connection closes.
            data = await super().receive_some(max_bytes)
        return data

    @property
    def socket(self) -> trio.socket.SocketType:
        sock: trio.socket.SocketType = self.stream.socket  # type: ignore[attr-defined]
        return sock

    async def send_eof(self) -> None:
        await self.stream.send_eof()  # type: ignore[attr-defined]


class _Secure(_Plain):
    """The same within TLS, its handshake behind it."""

    @property
    def transport_stream(self) -> trio.SocketStream:
        transport: trio.SocketStream = self.stream.transport_stream  # type: ignore[attr-defined]
        return transport

    async def do_handshake(self) -> None:
        await trio.lowlevel.checkpoint()

    def selected_alpn_protocol(self) -> None:
        return None

    async def send_eof(self) -> None:
        raise AttributeError("TLS has no half of an end")  # What Hypercorn expects of it.
