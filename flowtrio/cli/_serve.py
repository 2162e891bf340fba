"""``flowtrio serve``: both listeners in one process, from the first address to the last goodbye.

::

    signal ─ /ready is 503 ─ runs get their drain ─ ERROR shutdown, DONE ─ 1012 ─ gone

The orchestrator is opened around both listeners, so that a run started on one of them can be
followed on the other. The sockets of the HTTP address are opened here: each listener has to know
the other's address before it takes its first connection.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import re
import signal
import ssl
import threading
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from flowtrio._core._failures import leaves
from flowtrio._core._limits import ServerLimits
from flowtrio.serving._access import Access, is_loopback_host
from flowtrio.serving._listening import open_listeners

from ._processes import STOP, stop_at_end_of_input
from ._protocols import PROTOCOLS, lines_of, make_protocols
from ._stores import CannotServe

if TYPE_CHECKING:
    from hypercorn import Config

    from flowtrio._hosting._orchestrator import Orchestrator
    from flowtrio.abc import Authenticate

logger: logging.Logger = logging.getLogger("flowtrio")

_LAST: Final = 4.0
"""Seconds after the drain in which everybody has to be gone: with the default drain, 9 in all."""

_OURS: Final = ("trio.", "flowtrio.", "<")
"""How tasks are named that only wait for others."""
_IDLE: Final = re.compile(r"Trio thread \d+")
"""How Trio names a thread that waits for work; one that works has the work's name."""
_MOST_NAMES: Final = 20
"""Of what has not ended that are told."""

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}


@attrs.frozen(kw_only=True)
class Serving:
    """What is served where, and for whom."""

    host: str = "127.0.0.1"
    port: int | None = 8000
    """Of the page, SSE and a WebSocket; 0 for any that is free, None for none of it."""
    ws_port: int | None = 8765
    """Of the WebSocket listener, likewise."""
    tokens: tuple[str, ...] = attrs.field(default=(), repr=False)
    operator_tokens: tuple[str, ...] = attrs.field(default=(), repr=False)
    authenticate: Authenticate | None = None
    """Instead of tokens."""
    origins: tuple[str, ...] = ()
    insecure: bool = False
    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    """Other people's that are spoken at the HTTP address."""
    limits: ServerLimits = attrs.Factory(ServerLimits)
    resume_window: float = 60
    """Seconds that a run goes on without a reader."""
    is_one_of_many: bool = False
    """Whether other processes listen at the same addresses, and a parent says when to stop."""
    drain: float = 5
    """Seconds that running runs get when the server stops."""
    certfile: str | None = None
    keyfile: str | None = None
    """None where the certificate's file has the key too."""

    @property
    def has_keys(self) -> bool:
        """Whether clients have to say who they are."""
        return bool(self.tokens or self.authenticate)

    @property
    def access(self) -> dict[str, Any]:
        """Who may connect, as servers and `Access` are told it."""
        return {
            "token": self.tokens or None,
            "operator_token": self.operator_tokens,
            "authenticate": self.authenticate,
            "insecure": self.insecure,
        }

    @property
    def is_tls(self) -> bool:
        """Whether both listeners speak TLS."""
        return self.certfile is not None

    def place(self, kind: str, port: int) -> str:
        """Give the beginning of an address of *kind*, ``http`` or ``ws``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{kind}{'s' if self.is_tls else ''}://{host}:{port}"

    def origins_of(self, kind: str, port: int) -> list[str]:
        """Give the origins of what is served at *port*: a loopback address has several names."""
        names = (
            {self.host, "localhost", "127.0.0.1"} if is_loopback_host(self.host) else {self.host}
        )
        origins = [attrs.evolve(self, host=name).place(kind, port) for name in sorted(names)]
        default = f":{_DEFAULT_PORTS[origins[0].partition(':')[0]]}"
        return [origin.removesuffix(default) for origin in origins]


async def serve(orchestrator: Orchestrator, serving: Serving) -> None:
    """Serve until a signal comes, and end in good order; a second signal ends at once.

    Raises:
      CannotServe: an address, a certificate or a token cannot be used, or something is missing.

    """
    _check(serving)
    async with trio.open_nursery() as nursery:
        own = (STOP,) if serving.is_one_of_many else ()
        stopping = await nursery.start(_watch_signals, serving.drain + _LAST, own)
        if serving.is_one_of_many:
            nursery.start_soon(stop_at_end_of_input)
        async with orchestrator, trio.open_nursery() as servers:
            try:
                lines = await _start(servers, orchestrator, serving, stopping)
            except* ValueError as group:
                raise CannotServe(str(next(leaves(group)))) from None
            # What is there by now is there to stay. The collector would walk it again and again,
            # 40 ms each time, in which nobody is told anything.
            gc.collect()
            gc.freeze()
            for line in lines:
                print(line, flush=True)
        nursery.cancel_scope.cancel(reason="both listeners have stopped")


def _check(serving: Serving) -> None:
    if serving.port is None and serving.ws_port is None:
        raise CannotServe("--no-http and --no-ws: nothing is left to serve")
    if serving.port is not None:
        try:
            import hypercorn.trio  # noqa: F401
        except ModuleNotFoundError:
            raise CannotServe(
                "the HTTP address needs hypercorn: pip install 'flowtrio[server]', or --no-http"
            ) from None
    if not (is_loopback_host(serving.host) or serving.has_keys or serving.insecure):
        raise CannotServe(
            f"can't listen on {serving.host} for anybody: expected --token, --tokens, "
            "--authenticate, --insecure, or a loopback address"
        )


async def _watch_signals(
    seconds: float,
    parents: Collection[int] = (),
    task_status: trio.TaskStatus[trio.Event] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Tell of the first signal; leave at once on the second, or after *seconds*.

    Where there is a parent with a signal of its own, one of it and one of others are no two.
    """
    stopping, seen = trio.Event(), set[bool]()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *parents) as signals:
        task_status.started(stopping)
        async with trio.open_nursery() as nursery:
            async for number in signals:
                if (number in parents) in seen:
                    # Whoever asks twice does not want to wait for what is being cleaned up.
                    os._exit(128 + number)
                seen.add(number in parents)
                if not stopping.is_set():
                    stopping.set()
                    nursery.start_soon(_leave_after, seconds)


async def _leave_after(seconds: float) -> None:
    """Leave what does not end: a tool that cleans up for ever, a client that takes nothing."""
    await trio.sleep(seconds)
    logger.error(
        "something has not ended %g s after the signal: leaving without it; what is left: %s",
        seconds,
        ", ".join(_what_is_left()) or "nothing that has a name",
    )
    os._exit(1)


def _what_is_left() -> list[str]:
    """Names of what keeps a process from its end: worker threads, and the innermost tasks."""
    threads = [t.name for t in threading.enumerate() if t is not threading.current_thread()]
    names = [name for name in threads if not _IDLE.fullmatch(name)]
    own, root = trio.lowlevel.current_task(), trio.lowlevel.current_root_task()
    tasks = [] if root is None else [root]
    while tasks:
        task = tasks.pop()
        inner = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        tasks += inner
        if not inner and task is not own and not task.name.startswith(_OURS):
            names.append(task.name)
    return sorted(set(names))[:_MOST_NAMES]


# Starting


async def _start(
    servers: trio.Nursery, orchestrator: Orchestrator, serving: Serving, stopping: trio.Event
) -> list[str]:
    """Start what is asked for; gives the lines that tell of it."""
    tls = _make_tls(serving)
    lines: list[str] = []
    async with AsyncExitStack() as opened:
        listeners: list[trio.SocketListener] = []
        url = ""
        origins, sockets = list(serving.origins), list[str]()
        if serving.port is not None:
            shared = serving.is_one_of_many
            listeners = await _listen(serving.host, serving.port, is_shared=shared)
            for listener in listeners:
                opened.push_async_callback(listener.aclose)
                _drop_who_takes_nothing(listener.socket, serving.limits.send)
            port = _port_of(listeners)
            url = serving.place("http", port)
            origins += serving.origins_of("http", port)
        if serving.ws_port is not None:
            ws_port = await _start_websocket(servers, orchestrator, serving, origins, tls, stopping)
            sockets = serving.origins_of("ws", ws_port)
            lines.append(f"{serving.place('ws', ws_port)}/chat")
        if listeners:
            await _start_http(servers, orchestrator, serving, sockets, listeners, tls, stopping)
            opened.pop_all()  # They are the server's now.
            if orchestrator.role == "worker":
                # It serves nobody, but tells how it is.
                return [f"{url}/ready"]
            lines = [f"{url}/", *lines, _curl(url, has_token=serving.has_keys)]
            lines += lines_of(url, serving.protocols)
            if serving.operator_tokens or serving.authenticate:
                lines.append(f"{url}/studio (studio)")
        return lines


async def _listen(host: str, port: int, *, is_shared: bool) -> list[trio.SocketListener]:
    try:
        return await open_listeners(host, port, is_shared=is_shared)
    except OSError as exc:
        raise _cannot_listen(host, port, exc) from None


def _cannot_listen(host: str, port: int, exc: OSError) -> CannotServe:
    return CannotServe(f"can't listen on {host}:{port}: {exc.strerror or exc}")


def _drop_who_takes_nothing(sock: trio.socket.SocketType, seconds: float) -> None:
    """Have the kernel drop connections, accepted here, whose client takes nothing for so long.

    Hypercorn shields its sends: no deadline of the application's reaches them.
    """
    if hasattr(trio.socket, "TCP_USER_TIMEOUT") and seconds < math.inf:
        milliseconds = min(math.ceil(seconds * 1000), 2**31 - 1)
        sock.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_USER_TIMEOUT, milliseconds)


def _port_of(listeners: list[trio.SocketListener]) -> int:
    port: int = listeners[0].socket.getsockname()[1]
    return port


async def _start_websocket(
    servers: trio.Nursery,
    orchestrator: Orchestrator,
    serving: Serving,
    origins: list[str],
    tls: ssl.SSLContext | None,
    stopping: trio.Event,
) -> int:
    from flowtrio.serving.sockets.websocket import serve_websocket

    assert serving.ws_port is not None
    listener = partial(
        serve_websocket,
        orchestrator,
        serving.host,
        serving.ws_port,
        ssl_context=tls,
        origins=origins,
        limits=serving.limits,
        resume_window=serving.resume_window,
        reuse_port=serving.is_one_of_many,
        drain=serving.drain,
        **serving.access,
    )
    try:
        listeners: list[trio.SocketListener] = await servers.start(_run_until, listener, stopping)
    except* OSError as group:
        [exc] = leaves(group)
        assert isinstance(exc, OSError)
        raise _cannot_listen(serving.host, serving.ws_port, exc) from None
    return _port_of(listeners)


async def _run_until(
    run: Callable[..., Awaitable[None]],
    stopping: trio.Event,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a server that ends in good order when it is cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when, stopping, nursery.cancel_scope)
        await run(task_status=task_status)


async def _cancel_when(stopping: trio.Event, scope: trio.CancelScope) -> None:
    await stopping.wait()
    scope.cancel(reason="the server was told to stop")


async def _start_http(
    servers: trio.Nursery,
    orchestrator: Orchestrator,
    serving: Serving,
    sockets: list[str],
    listeners: list[trio.SocketListener],
    tls: ssl.SSLContext | None,
    stopping: trio.Event,
) -> None:
    from flowtrio.serving.http._front import serve_front
    from flowtrio.serving.http.asgi import create_app

    app = create_app(
        orchestrator,
        origins=serving.origins,
        limits=serving.limits,
        resume_window=serving.resume_window,
        drain=serving.drain,
        sockets=sockets,
        protocols=make_protocols(serving.protocols),
        **serving.access,
    )
    access = Access.of(host=serving.host, origins=serving.origins, **serving.access)
    front = partial(
        serve_front,
        app,
        listeners,
        make_config(serving),
        access=access,
        ssl_context=tls,
        until=stopping.wait,
    )
    await servers.start(front)


def make_config(serving: Serving) -> Config:
    """Make the configuration of Hypercorn, which has one request of each connection."""
    from hypercorn import Config

    limits = serving.limits
    config = Config()
    config.accesslog = None  # Its lines would tell the tokens in queries.
    config.errorlog = _http_logger()
    config.include_server_header = False
    config.graceful_timeout = 1  # The application has drained by then.
    config.keep_alive_max_requests = 0  # Each request's head is read by us, see `serve_front`.
    config.keep_alive_timeout = limits.handshake
    config.h11_max_incomplete_size = limits.head
    return config


def _http_logger() -> logging.Logger:
    """Hypercorn's own log: what it tells of each start is told by us already."""
    child = logger.getChild("http")
    child.setLevel(logging.WARNING)
    return child


def _make_tls(serving: Serving) -> ssl.SSLContext | None:
    if serving.certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(serving.certfile, serving.keyfile)
    except OSError as exc:
        raise CannotServe(
            f"can't use --certfile {serving.certfile}: {exc.strerror or exc}"
        ) from None
    return context


def _curl(url: str, *, has_token: bool) -> str:
    token = ' -H "Authorization: Bearer $TOKEN"' if has_token else ""
    return f"curl -N{token} '{url}/chat/stream?message=Book+a+flight+to+Paris'"
