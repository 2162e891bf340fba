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

from flowtrio._hosting._options import check_name
from flowtrio.abc import (
    Authenticate,
    Caller,
    CannotAuthenticate,
    NotAuthenticated,
    Request,
)

logger: logging.Logger = logging.getLogger("flowtrio")

TOKEN_PROTOCOL: Final = "flowtrio.token."
"""A browser's WebSocket can send no headers: it offers this subprotocol, its token appended."""

DEFAULT_TENANT: Final = "default"

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class Refused(Exception):
    """A request is not let in."""

    def __init__(
        self,
        status: int,
        error: str,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        """HTTP status of the answer."""
        self.error = error
        """Its body: one line."""
        self.code = f"http_{status}" if code is None else code
        """For programs."""
        self.retry_after = retry_after
        """Seconds after which to try again; None where nobody knows."""


@attrs.frozen(kw_only=True)
class Access:
    """The rules of one server."""

    tokens: tuple[str, ...] = attrs.field(default=(), repr=False)
    operator_tokens: tuple[str, ...] = attrs.field(default=(), repr=False)
    """Of those who may see and steer the runs of all tenants."""
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
        operator_token: str | Iterable[str] | None = None,
    ) -> Access:
        """Make the rules from what a server was told.

        Raises:
          ValueError: both a token and *authenticate* are given; a token or origin cannot be one; or
            the address is open to others, and neither of them is given.

        """
        tokens, operator_tokens = _tokens(token), _tokens(operator_token)
        if tokens and authenticate is not None:
            raise ValueError("expected token=... or authenticate=..., not both")
        for name, texts in (("token", tokens), ("operator_token", operator_tokens)):
            if any(not text or not text.isascii() or not text.isprintable() for text in texts):
                raise ValueError(f"{name}: expected printable ASCII text that is not empty")
        if set(tokens) & set(operator_tokens):
            raise ValueError("operator_token: expected another one than of everybody's tokens")
        is_loopback = is_loopback_host(host)
        if not (is_loopback or tokens or authenticate or insecure):
            raise ValueError(
                f"can't listen on {host or 'all addresses'} for anybody: expected token=..., "
                "authenticate=..., insecure=True, or a loopback address"
            )
        return cls(
            tokens=tokens,
            operator_tokens=operator_tokens,
            origins=tuple(_check_origin(origin) for origin in origins),
            authenticate=authenticate,
            is_loopback=is_loopback,
        )

    async def admit(self, request: Request, *, is_tls: bool) -> Caller:
        """Say whose a request is.

        Raises:
          Refused: it is not let in.

        """
        self._check_host(request)
        self._check_origin(request, "https" if is_tls else "http")
        given = token_of(request)
        if _is_among(given, self.operator_tokens):
            return Caller(DEFAULT_TENANT, is_operator=True)
        if self.authenticate is not None:
            return await _ask(self.authenticate, request)
        if self.tokens and not _is_among(given, self.tokens):
            raise Refused(401, "a token is needed, and the one given is missing or wrong")
        return Caller(DEFAULT_TENANT)

    async def let_in(self, request: Request, *, is_tls: bool) -> Caller:
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


async def _ask(authenticate: Authenticate, request: Request) -> Caller:
    try:
        found = authenticate(request)
        if inspect.isawaitable(found):
            found = await found
    except NotAuthenticated as exc:
        raise Refused(401, str(exc) or "not authenticated") from None
    except CannotAuthenticate as exc:
        words = "the server cannot tell who you are at the moment"
        raise Refused(503, words, "cannot_authenticate", exc.retry_after) from None
    if found is None:
        raise Refused(401, "not authenticated")
    caller = Caller(found) if isinstance(found, str) else found
    if not isinstance(caller, Caller) or not caller.tenant_id:
        kind = type(found).__name__
        raise TypeError(f"authenticate gave {kind}, expected a tenant's name, a Caller or None")
    check_name("tenant_id", caller.tenant_id)
    return caller


def _tokens(given: str | Iterable[str] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


def _is_among(given: str | None, tokens: tuple[str, ...]) -> bool:
    # All are compared, in constant time, so that nothing can be learnt from how long it takes.
    matches = [hmac.compare_digest((given or "").encode(), token.encode()) for token in tokens]
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
