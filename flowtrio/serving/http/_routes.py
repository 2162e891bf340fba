"""The HTTP side of the ASGI application: which address is whose, and how a request is refused."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from flowtrio.abc import Caller
from flowtrio.page._files import read_page
from flowtrio.serving._access import Refused
from flowtrio.serving._shared import ask_shared
from flowtrio.serving.commands._clients import Hosting, StoreFailed
from flowtrio.serving.commands._letting_in import check_address
from flowtrio.wire._frames import CONTROLS, BadFrame

from ._door import Door, answer_preflight
from ._endpoints import Endpoints
from ._operator import OperatorEndpoints
from ._page import answer_file
from ._protocol import HTTPProtocol, ProtocolRoute, Visit
from ._request import (
    STATUSES,
    Exchange,
    Left,
    Receive,
    Scope,
    Send,
    path_below,
    pieces_below,
    read_request,
)

if TYPE_CHECKING:
    from flowtrio._hosting._cluster import Cluster
    from flowtrio._hosting._service import Service

logger: logging.Logger = logging.getLogger("flowtrio")

_OF_TENANTS: Final = frozenset({"runs", "sessions"})
"""What addresses of a tenant's own begin with."""


@attrs.frozen
class Routes:
    """Answers HTTP requests."""

    _hosting: Hosting
    _door: Door
    _endpoints: Endpoints
    _page_headers: dict[str, str]
    _protocols: tuple[HTTPProtocol, ...] = ()
    _page: Any = attrs.field(factory=read_page, init=False)
    _operator: OperatorEndpoints = attrs.field(
        default=attrs.Factory(lambda self: OperatorEndpoints(self._hosting), takes_self=True),
        init=False,
    )

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that leaves meanwhile is no error."""
        request = read_request(scope, path_below(scope))
        cors, seconds = self._door.cors(request), self._hosting.limits.send
        exchange = Exchange(request, scope["method"], receive, send, cors, seconds)
        protocol, routes = self._find_protocol(request.path)
        if protocol is not None:
            exchange.shape = protocol.refuse
        with contextlib.suppress(Left):
            await self._answer_or_refuse(scope, exchange, routes)

    def _find_protocol(
        self, path: str
    ) -> tuple[HTTPProtocol | None, list[tuple[ProtocolRoute, list[str]]]]:
        """Whose address it is, with what is done there and the pieces of the address."""
        for protocol in self._protocols:
            found = [
                (route, pieces)
                for route in protocol.routes
                if (pieces := route.match(path)) is not None
            ]
            if found:
                return protocol, found
        return None, []

    async def _answer_or_refuse(
        self,
        scope: Scope,
        exchange: Exchange,
        routes: list[tuple[ProtocolRoute, list[str]]],
    ) -> None:
        try:
            if exchange.method == "OPTIONS":
                await answer_preflight(exchange)
            elif not await self._answer_anybody(scope, exchange):
                check_address(self._hosting, exchange.request.client)
                self._check_path(exchange.request.path)
                caller = await self._door.admit(scope, exchange.request)
                if routes:
                    await self._visit(exchange, caller.tenant_id, routes)
                elif exchange.request.path.startswith("/operator/"):
                    await self._answer_operator(exchange, caller)
                else:
                    await self._answer(exchange, caller, pieces_below(scope))
        except Refused as exc:
            await exchange.refuse(exc.status, exc.code, exc.error, exc.retry_after)
        except StoreFailed as failed:
            logger.error("the store failed a request", exc_info=failed.error)
            words = self._hosting.words_of(failed.error)
            await exchange.refuse(STATUSES["store_failed"], "store_failed", words)
        except BadFrame as exc:
            await exchange.refuse(STATUSES.get(exc.code, 400), exc.code, exc.error)

    async def _answer_anybody(self, scope: Scope, exchange: Exchange) -> bool:
        """Answer what needs no token; False if it is none of that."""
        path = exchange.request.path
        if exchange.method not in ("GET", "HEAD"):
            return False
        if path == "/health":
            await exchange.answer_json(200, {"status": "ok"})
        elif path == "/ready":
            await self._answer_ready(exchange)
        elif self._hosting.serves_nobody:
            return False
        elif path == "":
            # The page's addresses are relative to its own, which therefore ends in a slash.
            place = str(scope["path"]).rpartition("/")[2]
            await exchange.answer(307, headers={"location": f"{place}/"})
        elif (file := self._page.get(path.removeprefix("/"))) is not None:
            await answer_file(exchange, file, self._page_headers)
        else:
            return False
        return True

    async def _answer_ready(self, exchange: Exchange) -> None:
        """Say whether a run that is started now has a chance."""
        if self._hosting.is_draining:
            return await exchange.answer_json(503, {"status": "draining"})
        fault = await self._hosting.service.health.check()
        if fault is not None:
            reason = self._hosting.words_of(fault)
            return await exchange.answer_json(503, {"status": "store_failed", "reason": reason})
        cluster = self._hosting.service.cluster
        if cluster is None:
            return await exchange.answer_json(200, {"status": "ready"})
        status = 200 if cluster.lease.is_held else 503
        return await exchange.answer_json(status, await _told(self._hosting.service, cluster))

    def _check_path(self, path: str) -> None:
        """Refuse what a process does not do that only runs runs."""
        if self._hosting.serves_nobody and path not in ("/metrics", "/health", "/ready"):
            raise Refused(404, "this process is a worker, and serves no clients")

    async def _visit(
        self,
        exchange: Exchange,
        tenant_id: str,
        routes: list[tuple[ProtocolRoute, list[str]]],
    ) -> None:
        """Answer a request at a protocol's address."""
        for route, pieces in routes:
            if exchange.method == route.method:
                visit = Visit(self._hosting, exchange, tenant_id, self._door)
                return await route.answer(visit, *pieces)
        raise Refused(405, f"{exchange.method} is not possible here")

    async def _answer_operator(self, exchange: Exchange, caller: Caller) -> None:
        if not caller.is_operator:
            raise Refused(403, "expected an operator's token", "not_operator")
        match exchange.request.path.split("/")[2:], exchange.method:
            case ["runs"], "GET":
                await self._operator.runs(exchange)
            case ["inbox"], "GET":
                await self._operator.inbox(exchange)
            case ["runs"] | ["inbox"], _:
                raise Refused(405, f"{exchange.method} is not possible here")
            case _:
                raise Refused(404, "there is nothing at this address")

    async def _answer(self, exchange: Exchange, caller: Caller, pieces: list[str]) -> None:
        endpoints = self._endpoints
        tenant_id = _tenant(exchange, caller) if pieces[0] in _OF_TENANTS else caller.tenant_id
        match pieces, exchange.method:
            case ["sessions" | "runs", "", *_], _:
                raise Refused(404, "there is nothing without a name")
            case ["chat", "stream"], "GET" | "POST":
                await endpoints.chat(exchange, tenant_id)
            case ["runs", run_id, "events"], "GET":
                await endpoints.events(exchange, tenant_id, run_id)
            case ["runs", run_id, control], "POST" if control in CONTROLS:
                await endpoints.control(exchange, tenant_id, run_id, control)
            case ["sessions"], "GET":
                await endpoints.sessions(exchange, tenant_id)
            case ["runs"], "GET":
                await endpoints.runs(exchange, tenant_id)
            case ["sessions", session_id], "GET" | "DELETE":
                await endpoints.session(exchange, tenant_id, session_id)
            case ["sessions", session_id], "PATCH":
                await endpoints.rename(exchange, tenant_id, session_id)
            case ["sessions", session_id, "branch"], "POST":
                await endpoints.branch(exchange, tenant_id, session_id)
            case ["sessions", session_id, "parts", number], "GET":
                await endpoints.part(exchange, tenant_id, session_id, number)
            case ["metrics"], "GET":
                await endpoints.metrics(exchange, caller)
            case (
                (
                    ["chat", "stream"]
                    | ["runs", _, "events"]
                    | ["sessions" | "runs"]
                    | ["sessions", _]
                    | ["sessions", _, "branch"]
                    | ["sessions", _, "parts", _]
                    | ["metrics"]
                    | ["health"]
                    | ["ready"]
                ),
                _,
            ):
                raise Refused(405, f"{exchange.method} is not possible here")
            case _:
                raise Refused(404, "there is nothing at this address")


def _tenant(exchange: Exchange, caller: Caller) -> str:
    """Whose runs and conversations are asked for: operators say it, all others have their own.

    Raises:
      Refused: another tenant's are asked for, whether there is such a one or not.

    """
    asked = exchange.request.query.get("tenant") or caller.tenant_id
    if asked != caller.tenant_id and not caller.is_operator:
        raise Refused(404, "nothing of this name is known", "unknown_run")
    return asked


async def _told(service: Service, cluster: Cluster) -> dict[str, Any]:
    """What this process and the store are about, for those who watch a cluster."""
    lease = cluster.lease
    left = max(0.0, lease.held_until - trio.current_time())
    told: dict[str, Any] = {
        "status": "ready" if lease.is_held else "no_lease",
        "role": cluster.role,
        "lease": round(left, 3),
        "runs": len(cluster.recorder.runs),
    }
    found = await ask_shared(service)
    return told if found is None else {**told, **attrs.asdict(found)}
