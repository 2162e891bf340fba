"""Where a server is, and who we are there, as a URL says it."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

_SCHEMES: Final = {
    "redis": False,
    "valkey": False,
    "rediss": True,
    "valkeys": True,
    "unix": False,
}
"""Schemes, with whether they mean TLS."""
_FORM: Final = "redis://[user:password@]host[:port][/database][?prefix=ft:], rediss:// or unix://"


@attrs.frozen
class Place:
    """A server, a database of it, and the prefix of all keys there."""

    host: str
    port: int
    socket: str | None
    """Path of a Unix socket, instead of host and port."""
    has_tls: bool
    user: str | None
    password: str | None = attrs.field(repr=False)
    database: int
    prefix: str
    ca: str | None
    """File with the certificates that are trusted; the system's where None."""

    def __str__(self) -> str:
        """Where it is, without who we are there."""
        return self.socket or f"{self.host}:{self.port}"


def read_url(url: str) -> Place:
    """Read ``redis://[user:password@]host[:port][/database][?prefix=&ca=]``.

    ``rediss`` means TLS, ``valkey`` and ``valkeys`` the same two; ``unix:///path?database=0`` is a
    socket of this machine.

    Raises:
      ValueError: it is no such URL. What it says is not repeated, as it may hold a password.

    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"a store's URL whose parts cannot be told: expected {_FORM}") from None
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"a store's URL of scheme {parts.scheme!r}: expected {_FORM}")
    if query.keys() - {"prefix", "database", "ca"}:
        raise ValueError("a store's URL with a ?: expected prefix, database or ca behind it")
    if "ca" in query and not _SCHEMES[parts.scheme]:
        raise ValueError(f"a store's URL with ca= and without TLS: expected {_FORM}")
    if parts.username and not parts.password:
        raise ValueError(f"a store's URL with a user and no password: expected {_FORM}")
    is_socket = parts.scheme == "unix"
    try:
        port = parts.port or 6379
        database = int(query.get("database") or ("" if is_socket else parts.path.strip("/")) or 0)
    except ValueError:
        raise ValueError(f"a store's URL with an odd port or database: expected {_FORM}") from None
    if database < 0 or not (is_socket or parts.hostname):
        raise ValueError(f"a store's URL without a host, or a database below 0: expected {_FORM}")
    return Place(
        host=parts.hostname or "",
        port=port,
        socket=unquote(parts.path) if is_socket else None,
        has_tls=_SCHEMES[parts.scheme],
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        database=database,
        prefix=query.get("prefix", "ft:"),
        ca=query.get("ca"),
    )
