"""Who may connect: hosts, origins, tokens. The same rules on every transport."""

from __future__ import annotations

import hmac
import inspect
import ipaddress
import logging
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

import attrs
import trio

from flowtrio.abc import Authenticate, Request

logger: logging.Logger = logging.getLogger("flowtrio")

TOKEN_PROTOCOL: Final = "flowtrio.token."
"""A browser's WebSocket can send no headers: it offers this subprotocol, its token appended."""

DEFAULT_TENANT: Final = "default"

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class Refused(Exception):
    """A request is not let in."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        """HTTP status of the answer."""
        self.error = error
        """Its body: one line."""


@attrs.frozen(kw_only=True)
class Access:
    """The rules of one server."""

    tokens: tuple[str, ...] = attrs.field(default=(), repr=False)
    origins: tuple[str, ...] = ()
    authenticate: Authenticate | None = None
    is_loopback: bool = True
    """Whether the server listens on loopback: then the Host is checked, against DNS rebinding."""

    @classmethod
    def of(
        cls,
        *,
        host: str | None,
        token: str | Iterable[str] | None,
        origins: Iterable[str],
        authenticate: Authenticate | None,
        insecure: bool,
    ) -> Access:
        """Make the rules from what a server was told.

        Raises:
          ValueError: both a token and *authenticate* are given; a token or origin cannot be one; or
            the address is open to others, and neither of them is given.

        """
        tokens = () if token is None else (token,) if isinstance(token, str) else tuple(token)
        if tokens and authenticate is not None:
            raise ValueError("expected token=... or authenticate=..., not both")
        if any(not text or not text.isascii() or not text.isprintable() for text in tokens):
            raise ValueError("token: expected printable ASCII text that is not empty")
        is_loopback = is_loopback_host(host)
        if not (is_loopback or tokens or authenticate or insecure):
            raise ValueError(
                f"can't listen on {host or 'all addresses'} for anybody: expected token=..., "
                "authenticate=..., insecure=True, or a loopback address"
            )
        return cls(
            tokens=tokens,
            origins=tuple(_check_origin(origin) for origin in origins),
            authenticate=authenticate,
            is_loopback=is_loopback,
        )

    async def admit(self, request: Request, *, is_tls: bool) -> str:
        """Give the tenant of a request.

        Raises:
          Refused: it is not let in.

        """
        self._check_host(request)
        self._check_origin(request, "https" if is_tls else "http")
        if self.authenticate is not None:
            tenant = self.authenticate(request)
            if inspect.isawaitable(tenant):
                tenant = await tenant
            if tenant is None:
                raise Refused(401, "not authenticated")
            if not isinstance(tenant, str) or not tenant:
                raise TypeError(f"authenticate gave {type(tenant).__name__}, expected str or None")
            return tenant
        if self.tokens and not self._is_known(token_of(request)):
            raise Refused(401, "a token is needed, and the one given is missing or wrong")
        return DEFAULT_TENANT

    async def let_in(self, request: Request, *, is_tls: bool) -> str:
        """Do what `admit` does; an ``authenticate`` that fails is told to the operators.

        Raises:
          Refused: it is not let in, or nobody can tell: 500.

        """
        deadline = trio.current_effective_deadline()
        try:
            return await self.admit(request, is_tls=is_tls)
        except Refused:
            raise
        except trio.Cancelled:
            if trio.current_time() >= deadline:
                words = "authenticate took too long: a client at %s that asked for %r was dropped"
                logger.warning(words, request.client, request.path)
            raise
        except Exception:
            words = "authenticate failed: a client at %s that asked for %r was refused with 500"
            logger.exception(words, request.client, request.path)
            raise Refused(500, "the server could not tell who you are") from None

    def _check_host(self, request: Request) -> None:
        host = _host_name(request.headers.get("host", ""))
        if self.is_loopback and not is_loopback_host(host) and host not in self._hosts():
            raise Refused(403, "the Host is not this server's")

    def _hosts(self) -> set[str | None]:
        """Hosts of the allowed origins: what a proxy before a loopback address is reached by."""
        return {urlsplit(origin).hostname for origin in self.origins}

    def _check_origin(self, request: Request, scheme: str) -> None:
        origin = request.headers.get("origin")
        if origin is None or origin in self.origins:
            return
        if self._place(origin) != self._place(f"{scheme}://{request.headers.get('host', '')}"):
            raise Refused(403, "the Origin is not allowed")

    @staticmethod
    def _place(url: str) -> tuple[str | None, int | None]:
        """Host and port of an address, the port told or implied."""
        try:
            parts = urlsplit(url)
            return parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
        except ValueError:
            return url, None

    def _is_known(self, given: str | None) -> bool:
        # All are compared, in constant time, so that nothing can be learnt from how long it takes.
        matches = [hmac.compare_digest((given or "").encode(), t.encode()) for t in self.tokens]
        return any(matches)


def token_of(request: Request) -> str | None:
    """The token that a request brings: in a header, a subprotocol, or the query."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for name in subprotocols_of(request.headers):
        if name.startswith(TOKEN_PROTOCOL):
            return name.removeprefix(TOKEN_PROTOCOL)
    return request.query.get("token")


def subprotocols_of(headers: Mapping[str, str]) -> list[str]:
    """The subprotocols that a client offers, in its order."""
    offered = headers.get("sec-websocket-protocol", "").split(",")
    return [name.strip() for name in offered if name.strip()]


def is_loopback_host(host: str | None) -> bool:
    """Whether a name or address means this machine alone."""
    if host is None:
        return False
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """The Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _check_origin(origin: str) -> str:
    parts = urlsplit(origin)
    if not parts.scheme or not parts.hostname or parts.path or parts.query:
        raise ValueError(f"origin {origin!r}: expected scheme://host or scheme://host:port")
    return origin
