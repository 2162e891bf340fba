"""The HTTP side of the ASGI application: which address is whose, and how a request is refused."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Final

import attrs

from flowtrio.page._files import read_page
from flowtrio.serving._access import Refused
from flowtrio.serving.commands._clients import Hosting, StoreFailed
from flowtrio.wire._frames import BadFrame

from ._door import Door, answer_preflight
from ._endpoints import Endpoints
from ._request import STATUSES, Exchange, Left, Receive, Scope, Send, path_below, read_request

logger: logging.Logger = logging.getLogger("flowtrio")

CONTROLS: Final = ("cancel", "cancel_tool", "approve", "deny", "answer", "dismiss", "post")
"""Commands that can be posted to a run."""


@attrs.frozen
class Routes:
    """Answers HTTP requests."""

    _hosting: Hosting
    _door: Door
    _endpoints: Endpoints
    _page_headers: dict[str, str]
    _page: Any = attrs.field(factory=read_page, init=False)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that leaves meanwhile is no error."""
        request = read_request(scope, path_below(scope))
        cors, seconds = self._door.cors(request), self._hosting.limits.send
        exchange = Exchange(request, scope["method"], receive, send, cors, seconds)
        with contextlib.suppress(Left):
            await self._answer_or_refuse(scope, exchange)

    async def _answer_or_refuse(self, scope: Scope, exchange: Exchange) -> None:
        try:
            if exchange.method == "OPTIONS":
                await answer_preflight(exchange)
            elif not await self._answer_anybody(scope, exchange):
                tenant_id = await self._door.admit(scope, exchange.request)
                await self._answer(exchange, tenant_id)
        except Refused as exc:
            await exchange.refuse(exc.status, f"http_{exc.status}", exc.error)
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

    async def _answer_ready(self, exchange: Exchange) -> None:
        """Say whether a run that is started now has a chance."""
        if self._hosting.is_draining:
            return await exchange.answer_json(503, {"status": "draining"})
        fault = await self._hosting.service.health.check()
        if fault is not None:
            reason = self._hosting.words_of(fault)
            return await exchange.answer_json(503, {"status": "store_failed", "reason": reason})
        return await exchange.answer_json(200, {"status": "ready"})

    async def _answer(self, exchange: Exchange, tenant_id: str) -> None:
        endpoints = self._endpoints
        match exchange.request.path.split("/")[1:], exchange.method:
            case ["sessions" | "runs", "", *_], _:
                raise Refused(404, "there is nothing without a name")
            case ["chat", "stream"], "GET" | "POST":
                await endpoints.chat(exchange, tenant_id)
            case ["runs", run_id, "events"], "GET":
                await endpoints.events(exchange, tenant_id, run_id)
            case ["runs", run_id, control], "POST" if control in CONTROLS:
                await endpoints.control(exchange, tenant_id, run_id, control)
            case ["sessions", session_id], "GET" | "DELETE":
                await endpoints.session(exchange, tenant_id, session_id)
            case ["sessions", session_id, "parts", number], "GET":
                await endpoints.part(exchange, tenant_id, session_id, number)
            case ["metrics"], "GET":
                await endpoints.metrics(exchange)
            case (
                (
                    ["chat", "stream"]
                    | ["runs", _, "events"]
                    | ["sessions", _]
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
