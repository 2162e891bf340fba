"""The same server as an ASGI application: SSE, WebSocket and the page, alone or mounted.

::

    GET  /                        the page, and its files
    GET  /chat/stream?message=…   start a run, or go on with one (Last-Event-ID), as SSE
    POST /chat/stream             the same, in JSON: message, session_id, run_id, mode
    WS   /chat                    the frames of the WebSocket server
    GET  /runs/{id}/events        follow a run from any place, as SSE or JSON lines
    POST /runs/{id}/{command}     cancel, cancel_tool, approve, deny, answer
    GET, DELETE /sessions/{id}    a conversation
    GET  /health /ready /metrics

All runs of SSE readers are hosted: their ids name the run, so such a reader may always come back.
An ASGI application that only sends never learns that its client has gone, so beside each sender
stands a task that listens for just that.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from flowtrio._core._events import AgentEvent, StreamMode
from flowtrio._core._exceptions import LimitExceeded
from flowtrio._core._limits import ServerLimits
from flowtrio._core._modes import View
from flowtrio._runtime._recorder import Seat
from flowtrio.wire._frames import (
    BadFrame,
    MessageCommand,
    decode_request,
    encode_accepted,
    encode_events,
    encode_rejected,
)
from flowtrio.wire._sse import encode_comment, encode_event

from ._access import Access, Refused, is_loopback_host
from ._asgi_socket import serve_socket
from ._conceal import conceal_message
from ._exchange import Exchange, Left, Receive, Scope, Send, path_below, read_request
from ._hosting import Hosting
from ._metrics import MEDIA_TYPE, encode_metrics
from ._page import page_headers, read_page
from ._session import apply

if TYPE_CHECKING:
    from flowtrio._runtime._follower import Follower
    from flowtrio._runtime._orchestrator import Orchestrator
    from flowtrio.abc import Authenticate, Request

logger: logging.Logger = logging.getLogger("flowtrio")


class _StoreFailed(Exception):
    """A store raised *error*, before anything was answered."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextlib.contextmanager
def _asking_the_store() -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        raise _StoreFailed(exc) from exc


CONTROLS: Final = ("cancel", "cancel_tool", "approve", "deny", "answer")
"""Commands that can be posted to a run."""

_RETRY: Final = 1000
"""Milliseconds after which an EventSource comes back."""

_SSE: Final = {"content-type": "text/event-stream", "x-accel-buffering": "no"}
_STATUSES: Final = {"unknown_run": 404, "replay_gap": 410, "store_failed": 503}
"""Of answers that tell why a run cannot be read."""
_LINES: Final = {"content-type": "application/x-ndjson", "x-accel-buffering": "no"}


def create_app(
    orchestrator: Orchestrator,
    *,
    token: str | Iterable[str] | None = None,
    origins: Iterable[str] = (),
    authenticate: Authenticate | None = None,
    limits: ServerLimits | None = None,
    resume_window: float = 60,
    drain: float = 5,
    insecure: bool = False,
    debug: bool = False,
    sockets: Iterable[str] = (),
) -> App:
    """Make an ASGI application that serves an orchestrator's agents.

    For Hypercorn's trio worker, alone or mounted in another application; all its addresses are
    relative. An orchestrator that is not open is opened for as long as the application runs; where
    a framework does not run the lifespan of what it mounts, chain `App.lifespan` into its own.

    Args:
      orchestrator: Who answers.
      token: One or several tokens, of which a client has to bring one: as ``Authorization:
        Bearer``, as subprotocol ``flowtrio.token.<token>``, or as query ``token``. The page,
        ``/health`` and ``/ready`` need none.
      origins: Origins of web pages that may connect and read, beside the same host and port.
      authenticate: Gives the tenant of a `flowtrio.abc.Request`, or None to refuse it with 401.
      limits: Limits of the connections.
      resume_window: Seconds in which a reader that was cut off may come back; then its run is
        cancelled, unless it waits for a person. 0 cancels it when the last reader leaves.
      drain: Seconds that running runs get when the application stops; 0 for none.
      insecure: Whether to answer everybody on an address that others can reach.
      debug: Whether clients see the text of the application's exceptions.
      sockets: Origins of WebSocket servers at other addresses that the page may connect to.

    Raises:
      ValueError: both a token and *authenticate* are given, or a token or origin cannot be one.

    """
    access = Access.of(
        host=None, token=token, origins=origins, authenticate=authenticate, insecure=True
    )
    limits = ServerLimits() if limits is None else limits
    hosting = Hosting(orchestrator, limits, debug, resume_window)
    return App(hosting, access, drain, insecure, page_headers(sockets))


@attrs.define(eq=False)
class App:
    """An ASGI application. Made by `create_app`."""

    _hosting: Hosting
    _access: Access
    _drain: float
    _is_insecure: bool
    _page_headers: dict[str, str]
    _page: Any = attrs.field(factory=read_page, init=False)
    _opened: trio.Event | None = attrs.field(default=None, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; see the ASGI specification."""
        match scope["type"]:
            case "lifespan":
                await self._serve_lifespan(receive, send)
            case "http":
                await self._ensure_open()
                await self._serve_http(scope, receive, send)
            case "websocket":
                await self._ensure_open()
                await self._serve_websocket(scope, receive, send)
            case kind:
                raise RuntimeError(f"ASGI scope {kind!r}: expected http, websocket or lifespan")

    # Living

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Hold the orchestrator open, and end the runs in good order.

        For frameworks: ``FastAPI(lifespan=...)`` whose function enters this.
        """
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

    # Who may come in

    async def _admit(self, scope: Scope, request: Request) -> str:
        """Give the request's tenant.

        Raises:
          Refused: it is not let in.

        """
        server = scope.get("server")
        is_loopback = server is None or is_loopback_host(server[0])
        has_keys = bool(self._access.tokens or self._access.authenticate)
        if not (is_loopback or has_keys or self._is_insecure):
            raise Refused(403, "this address is open to others: expected token=... or authenticate")
        access = attrs.evolve(self._access, is_loopback=server is not None and is_loopback)
        try:
            return await access.admit(request, is_tls=scope.get("scheme") in ("https", "wss"))
        except Refused:
            raise
        except Exception:
            logger.exception("authenticate failed")
            raise Refused(500, "the server could not tell who you are") from None

    def _check_site(self, request: Request) -> None:
        """Refuse what another origin's page makes a browser send: an image's address starts no run.

        For an image a browser tells no Origin, only this. "Same site" is said of the same host at
        another port too, and of hosts of one domain: neither is this server's page.

        Raises:
          Refused: it does.

        """
        site = request.headers.get("sec-fetch-site")
        is_foreign = site in ("cross-site", "same-site")
        if is_foreign and request.headers.get("origin") not in self._access.origins:
            raise Refused(403, "requests from other sites are not allowed")

    @contextlib.contextmanager
    def _connected(self) -> Any:
        """One of the connections that are limited."""
        hosting = self._hosting
        if hosting.connections >= hosting.limits.connections:
            raise Refused(503, "no more connections at the moment")
        hosting.connections += 1
        try:
            yield
        finally:
            hosting.connections -= 1

    # WebSocket

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = read_request(scope, path_below(scope))
        await receive()  # websocket.connect
        try:
            if request.path not in ("/", "/chat", "/ws"):
                raise Refused(404, "expected /chat")
            if self._hosting.is_draining:
                raise Refused(503, "the server is shutting down")
            tenant_id = await self._admit(scope, request)
            with self._connected():
                await serve_socket(self._hosting, tenant_id, scope, receive, send)
        except Refused as exc:
            await _deny(scope, send, exc)

    # HTTP

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = path_below(scope)
        request = read_request(scope, path)
        cors, seconds = self._cors(request), self._hosting.limits.send
        exchange = Exchange(request, scope["method"], receive, send, cors, seconds)
        with contextlib.suppress(Left):
            await self._answer_or_refuse(scope, exchange)

    async def _answer_or_refuse(self, scope: Scope, exchange: Exchange) -> None:
        try:
            if exchange.method == "OPTIONS":
                await self._answer_preflight(exchange)
            elif not await self._answer_anybody(scope, exchange):
                tenant_id = await self._admit(scope, exchange.request)
                await self._answer(exchange, tenant_id)
        except Refused as exc:
            await exchange.refuse(exc.status, f"http_{exc.status}", exc.error)
        except _StoreFailed as failed:
            logger.error("the store failed a request", exc_info=failed.error)
            words = self._hosting.words_of(failed.error)
            await exchange.refuse(_STATUSES["store_failed"], "store_failed", words)
        except BadFrame as exc:
            await exchange.refuse(400, exc.code, exc.error)

    def _cors(self, request: Request) -> dict[str, str]:
        origin = request.headers.get("origin")
        if origin is None or origin not in self._access.origins:
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-allow-credentials": "true",
            "vary": "origin",
        }

    async def _answer_preflight(self, exchange: Exchange) -> None:
        if not exchange.cors:
            raise Refused(403, "the Origin is not allowed")
        allowed = {
            "access-control-allow-methods": "GET, POST, DELETE",
            "access-control-allow-headers": "authorization, content-type, last-event-id",
            "access-control-max-age": "600",
        }
        await exchange.answer(204, headers=allowed)

    async def _answer_anybody(self, scope: Scope, exchange: Exchange) -> bool:
        """Answer what needs no token; False if it is none of that."""
        path = exchange.request.path
        if exchange.method not in ("GET", "HEAD"):
            return False
        if path == "/health":
            await exchange.answer_json(200, {"status": "ok"})
        elif path == "/ready":
            is_ready = not self._hosting.is_draining
            status = "ready" if is_ready else "draining"
            await exchange.answer_json(200 if is_ready else 503, {"status": status})
        elif path == "":
            # The page's addresses are relative to its own, which therefore ends in a slash.
            place = str(scope["path"]).rpartition("/")[2]
            await exchange.answer(307, headers={"location": f"{place}/"})
        elif (file := self._page.get(path.removeprefix("/"))) is not None:
            headers = {**self._page_headers, "content-type": file.media_type, "etag": file.etag}
            if exchange.request.headers.get("if-none-match") == file.etag:
                await exchange.answer(304, headers=headers)
            else:
                await exchange.answer(200, file.body, headers)
        else:
            return False
        return True

    async def _answer(self, exchange: Exchange, tenant_id: str) -> None:
        match exchange.request.path.split("/")[1:], exchange.method:
            case ["chat", "stream"], "GET" | "POST":
                await self._chat(exchange, tenant_id)
            case ["runs", run_id, "events"], "GET":
                await self._events(exchange, tenant_id, run_id)
            case ["runs", run_id, control], "POST" if control in CONTROLS:
                await self._control(exchange, tenant_id, run_id, control)
            case ["sessions", session_id], "GET" | "DELETE":
                await self._session(exchange, tenant_id, session_id)
            case ["metrics"], "GET":
                await self._metrics(exchange)
            case (
                (
                    ["chat", "stream"]
                    | ["runs", _, "events"]
                    | ["sessions", _]
                    | ["metrics"]
                    | ["health"]
                    | ["ready"]
                ),
                _,
            ):
                raise Refused(405, f"{exchange.method} is not possible here")
            case _:
                raise Refused(404, "there is nothing at this address")

    async def _metrics(self, exchange: Exchange) -> None:
        has_keys = bool(self._access.tokens or self._access.authenticate)
        if not has_keys and not is_loopback_host(exchange.request.client):
            raise Refused(403, "metrics are for loopback, or with a token")
        body = encode_metrics(self._hosting.orchestrator, self._hosting.connections)
        await exchange.answer(200, body, {"content-type": MEDIA_TYPE})

    # Runs

    async def _chat(self, exchange: Exchange, tenant_id: str) -> None:
        """Start a run and follow it; or go on with the one that an EventSource was reading."""
        self._check_site(exchange.request)
        place = _last_event_id(exchange.request)
        if place is not None:
            _check_same_run(exchange.request.query.get("run_id"), place[0])
            mode = _mode(exchange.request.query.get("mode"))
            return await self._follow(exchange, tenant_id, *place, mode)
        command = await self._read_message(exchange)
        seat = Seat.of_starter()
        try:
            run_id = await self._start(tenant_id, command, seat)
        except LimitExceeded as exc:
            return await exchange.refuse(429, exc.code, str(exc))
        try:
            return await self._follow(exchange, tenant_id, run_id, -1, command.mode, seat)
        finally:
            self._hosting.leave(tenant_id, run_id, seat)

    async def _read_message(self, exchange: Exchange) -> MessageCommand:
        limits = self._hosting.limits
        if exchange.method == "GET":
            keys = ("message", "session_id", "run_id", "mode")
            query = exchange.request.query
            body: Any = {key: query[key] for key in keys if key in query}
        else:
            kind = exchange.request.headers.get("content-type", "").partition(";")[0].strip()
            if kind != "application/json":
                raise Refused(415, "expected a request in application/json")
            body = await exchange.read_body(limits.message, limits.handshake)
        command = decode_request("message", body, limits.json_depth)
        assert isinstance(command, MessageCommand)
        return command

    async def _start(self, tenant_id: str, command: MessageCommand, seat: Seat) -> str:
        hosting, run_id = self._hosting, command.run_id
        if hosting.is_draining:
            with _asking_the_store():
                is_known = run_id is not None and await hosting.is_known(tenant_id, run_id)
            if not is_known:
                raise Refused(503, "the server is shutting down")
        return await hosting.start(tenant_id, command.message, command.session_id, run_id, seat)

    async def _events(self, exchange: Exchange, tenant_id: str, run_id: str) -> None:
        query = exchange.request.query
        place = _last_event_id(exchange.request)
        if place is not None:
            _check_same_run(run_id, place[0])
        after = place[1] if place is not None else _whole(query.get("after", "-1"))
        await self._follow(exchange, tenant_id, run_id, after, _mode(query.get("mode")))

    async def _control(self, exchange: Exchange, tenant_id: str, run_id: str, control: str) -> None:
        self._check_site(exchange.request)
        limits = self._hosting.limits
        body = await exchange.read_body(limits.message, limits.handshake)
        command = decode_request(control, body, limits.json_depth, run_id=run_id)
        stream = self._hosting.find(tenant_id, run_id)
        if stream is None:
            return await exchange.refuse(404, "unknown_run", "no run of this id is under way")
        apply(stream, command)
        accepted = encode_accepted(command.ref, run_id).encode()
        return await exchange.answer(200, accepted, {"content-type": "application/json"})

    async def _session(self, exchange: Exchange, tenant_id: str, session_id: str) -> None:
        orchestrator = self._hosting.orchestrator
        if exchange.method == "DELETE":
            self._check_site(exchange.request)
            with _asking_the_store():
                await orchestrator.conversations.delete(tenant_id, session_id)
                await orchestrator.store.delete(tenant_id, session_id=session_id)
            return await exchange.answer(204)
        with _asking_the_store():
            messages = await orchestrator.conversations.load(tenant_id, session_id)
            headers = await orchestrator.store.list(tenant_id, session_id)
        shown = [{k: v for k, v in m.items() if k != "flowtrio"} for m in messages]
        if not self._hosting.debug:
            shown = [conceal_message(message) for message in shown]
        for message in shown:
            if calls := message.get("tool_calls"):
                message["tool_calls"] = [
                    {k: v for k, v in call.items() if k != "flowtrio"} for call in calls
                ]
        runs = [
            {"run_id": h.run_id, "created_at": h.created_at, "status": h.status and str(h.status)}
            for h in headers
        ]
        body = {"session_id": session_id, "messages": shown, "runs": runs}
        return await exchange.answer_json(200, body)

    # Following

    async def _follow(
        self,
        exchange: Exchange,
        tenant_id: str,
        run_id: str,
        after: int,
        mode: StreamMode | None,
        seat: Seat | None = None,
    ) -> None:
        hosting = self._hosting
        follower, view = hosting.follow(tenant_id, run_id, after, mode)
        with self._connected(), contextlib.ExitStack() as held:
            held.enter_context(hosting.reading())
            held.callback(follower.let_go)
            try:
                await follower.__aenter__()
            except Exception as exc:
                code, error = hosting.refusal_of(run_id, exc)
                return await exchange.refuse(_STATUSES[code], code, error)
            if seat is not None:
                hosting.leave(tenant_id, run_id, seat)
            return await self._stream(exchange, follower, view, after, held)

    async def _stream(
        self,
        exchange: Exchange,
        follower: Follower,
        view: View,
        after: int,
        held: contextlib.ExitStack,
    ) -> None:
        if follower.is_over:
            return await exchange.answer(204)
        wants_lines = "application/x-ndjson" in exchange.request.headers.get("accept", "")
        is_whole = False
        async with trio.open_nursery() as nursery:
            exchange.scope = nursery.cancel_scope
            nursery.start_soon(_let_go, exchange, nursery.cancel_scope, held)
            await exchange.begin(200, _LINES if wants_lines else _SSE)
            if not wants_lines:
                await exchange.send(f"retry: {_RETRY}\n\n".encode())
            while not is_whole:
                body, is_whole = await self._next(follower, view, after, wants_lines=wants_lines)
                if body:
                    await exchange.send(body)
            nursery.cancel_scope.cancel(reason="the log has ended")
        exchange.scope = None
        if is_whole:
            # Here, where nobody listens any more: a server says that the exchange is over as if the
            # client had left, in the midst of this, and then has the connection to close.
            await exchange.send(b"", more=False)
        return None

    async def _next(
        self, follower: Follower, view: View, after: int, *, wants_lines: bool
    ) -> tuple[bytes, bool]:
        """Wait for the answer's next piece; give it, and whether it is the last."""
        encode = _encode_lines if wants_lines else _encode_sse
        with trio.move_on_after(self._hosting.limits.ping_interval):
            try:
                batch = await follower.receive_batch()
            except trio.EndOfChannel:
                return b"", True
            except Exception as exc:
                # The status is told already. So this is the frame that a WebSocket would get.
                rejected = encode_rejected(None, *self._hosting.refusal_of(follower.run_id, exc))
                body = f"{rejected}\n".encode() if wants_lines else encode_event(rejected)
                return body, True
            return encode(self._hosting.show(batch, view, after)), False
        return b"\n" if wants_lines else encode_comment("still here"), False


async def _let_go(exchange: Exchange, scope: trio.CancelScope, held: contextlib.ExitStack) -> None:
    """Wait until the client has gone; then, or when it takes nothing, hold nothing for it.

    Apart from who sends, since that one may be stuck where no cancellation comes.
    """
    try:
        await exchange.wait_left()
        scope.cancel(reason="the client left")
    finally:
        if exchange.is_late:
            exchange.tell_late()
        held.close()


def _encode_sse(events: list[AgentEvent]) -> bytes:
    texts = encode_events(events, is_batch=False)
    return b"".join(
        encode_event(text, id=f"{event.run_id}:{event.seq}")
        for event, text in zip(events, texts, strict=True)
    )


def _encode_lines(events: list[AgentEvent]) -> bytes:
    return "".join(f"{text}\n" for text in encode_events(events, is_batch=False)).encode()


def _last_event_id(request: Request) -> tuple[str, int] | None:
    """The run and the place in it that an EventSource has seen; None where it has seen nothing.

    Raises:
      Refused: it is none of our ids; to begin anew would be to start the run again.

    """
    text = request.headers.get("last-event-id", "").strip()
    if not text:
        return None
    run_id, _, seq = text.rpartition(":")
    if not (run_id and seq.isascii() and seq.isdecimal() and len(seq) < 16):
        raise Refused(400, "Last-Event-ID: expected <run_id>:<seq>")
    return run_id, int(seq)


def _check_same_run(asked: str | None, seen: str) -> None:
    if asked is not None and asked != seen:
        raise Refused(400, "Last-Event-ID: it is of another run than the address")


def _whole(text: str) -> int:
    digits = text.removeprefix("-")
    if not digits.isdecimal() or len(digits) > 15 or int(text) < -1:
        raise Refused(400, "after: expected the last seq that was seen, or -1")
    return int(text)


def _mode(text: str | None) -> StreamMode | None:
    try:
        return None if text is None else StreamMode(text)
    except ValueError:
        raise Refused(400, f"mode: expected one of {', '.join(StreamMode)}") from None


async def _deny(scope: Scope, send: Send, refused: Refused) -> None:
    """Answer a WebSocket's handshake with a status, where the server can; else refuse it."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        return await send({"type": "websocket.close", "code": 1008, "reason": refused.error})
    body = refused.error.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "websocket.http.response.start", "status": refused.status, "headers": headers}
    )
    await send({"type": "websocket.http.response.body", "body": body})
    return None
