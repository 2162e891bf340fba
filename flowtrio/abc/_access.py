"""Who may come in: what a server asks of an application about each request."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

import attrs


@attrs.frozen(kw_only=True)
class Request:
    """A client's request as ``authenticate`` sees it, the same on all transports."""

    path: str
    """Path of the address, without the query."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """By lower-case name; several of one name are joined by ``", "``."""
    cookies: Mapping[str, str] = attrs.field(repr=False)
    """By name."""
    query: Mapping[str, str] = attrs.field(repr=False)
    """By name; the last one where a name stands twice."""
    client: str | None
    """Address of the other side, without the port; None where there is none."""


@attrs.frozen
class Caller:
    """Whose a request is, and what that one may see."""

    tenant_id: str
    """The tenant."""
    is_operator: bool = attrs.field(default=False, kw_only=True)
    """Whether it may see and steer the runs of all tenants."""


class NotAuthenticated(Exception):
    """What ``authenticate`` may raise: the request is refused with 401, and its client told why."""


class CannotAuthenticate(Exception):
    """What ``authenticate`` may raise: nobody can tell now, such as where another service is away.

    The request is refused with 503, and its client told nothing of why.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which it is worth another try; None where nobody knows."""


class Authenticate(Protocol):
    """Says whose a request is."""

    def __call__(self, request: Request, /) -> str | Caller | Awaitable[str | Caller | None] | None:
        """Give the tenant, or a `Caller`, or None to refuse.

        May be async; has the handshake's time.

        Raises:
          NotAuthenticated: refuse, and say why.
          CannotAuthenticate: refuse for now.

        """
        ...
