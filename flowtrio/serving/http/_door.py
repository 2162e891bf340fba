"""Who may come in to the ASGI application."""

from __future__ import annotations

import re
from typing import Final

import attrs

from flowtrio.abc import Caller, Request
from flowtrio.serving._access import Access, Refused, is_loopback_host

from ._request import Exchange, Scope

_PREFLIGHT: Final = {
    "access-control-allow-methods": "GET, POST, PATCH, DELETE",
    "access-control-max-age": "600",
}
_HEADERS: Final = "authorization, content-type, last-event-id"
_NAMES: Final = re.compile(r"[A-Za-z0-9-]+( ?, ?[A-Za-z0-9-]+)*")


@attrs.frozen
class Door:
    """The rules of access, where the server in front of us knows the address."""

    _access: Access
    _is_insecure: bool
    """Whether everybody is let in on an address that others can reach."""

    @property
    def has_keys(self) -> bool:
        """Whether clients have to say who they are."""
        return bool(self._access.tokens or self._access.authenticate)

    def may_measure(self, caller: Caller, request: Request) -> bool:
        """Whether a caller may read what is counted of all tenants together.

        Where there are others, what a tenant has not done itself tells of them, and all come from
        loopback if a proxy does.
        """
        if caller.is_operator or self._access.authenticate:
            return caller.is_operator
        return bool(self._access.tokens) or is_loopback_host(request.client)

    async def admit(self, scope: Scope, request: Request) -> Caller:
        """Say whose the request is.

        Raises:
          Refused: it is not let in.

        """
        server = scope.get("server")
        is_loopback = server is None or is_loopback_host(server[0])
        if not (is_loopback or self.has_keys or self._is_insecure):
            raise Refused(403, "this address is open to others: expected token=... or authenticate")
        access = attrs.evolve(self._access, is_loopback=server is not None and is_loopback)
        return await access.let_in(request, is_tls=scope.get("scheme") in ("https", "wss"))

    def check_site(self, request: Request) -> None:
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

    def cors(self, request: Request) -> dict[str, str]:
        """Headers that let a page of an allowed origin read the answer."""
        origin = request.headers.get("origin")
        if origin is None or origin not in self._access.origins:
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-allow-credentials": "true",
            "vary": "origin",
        }


async def answer_preflight(exchange: Exchange) -> None:
    """Tell a browser what a page of an allowed origin may ask for.

    Raises:
      Refused: its origin is none of those.

    """
    if not exchange.cors:
        raise Refused(403, "the Origin is not allowed")
    # Libraries that speak other people's protocols send headers of their own; none means anything.
    asked = exchange.request.headers.get("access-control-request-headers", "")
    allowed = f"{_HEADERS}, {asked}" if _NAMES.fullmatch(asked) else _HEADERS
    await exchange.answer(204, headers={**_PREFLIGHT, "access-control-allow-headers": allowed})
