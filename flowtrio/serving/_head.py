"""A connection's first request: read within limits, and answered where it is no WebSocket's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import attrs
import h11
import trio

from flowtrio.abc import Request

from ._access import Refused
from ._folding import fold_request

_PIECE = 4096

_ASCII = frozenset(
    {
        *("connection", "upgrade", "sec-websocket-protocol", "sec-websocket-extensions"),
        *("sec-websocket-key", "sec-websocket-version"),
    }
)
"""Headers that are lists of tokens, or one."""


@attrs.frozen(kw_only=True)
class Head:
    """The head of a request as it came."""

    method: str
    request: Request
    raw: bytes = attrs.field(repr=False)
    """All bytes received so far, to be read again by what is behind us."""
    is_upgrade: bool
    """Whether it asks for a WebSocket, of the one version there is."""
    has_body: bool
    """Whether something of the request follows it."""
    length: int
    """Bytes of ``raw`` that are the head."""


async def read_head(stream: trio.abc.ReceiveStream, max_bytes: int, client: str | None) -> Head:
    """Read a request's head.

    Raises:
      Refused: it is no HTTP/1.1, or too large.
      trio.BrokenResourceError: the other side left in the middle of it.

    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=max_bytes)
    raw = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as exc:
            raise Refused(exc.error_status_hint, "expected a request of HTTP/1.1") from None
        if isinstance(event, h11.Request):
            return _read(event, raw, len(raw) - len(connection.trailing_data[0]), client)
        if event is not h11.NEED_DATA:
            raise trio.BrokenResourceError("the connection ended before a request")
        if len(raw) >= max_bytes:
            # h11 measures only what is incomplete: a last piece could complete more than may be.
            raise Refused(431, f"the request's head is larger than {max_bytes} bytes")
        data = bytes(await stream.receive_some(min(_PIECE, max_bytes - len(raw))))
        raw += data
        connection.receive_data(data)


def _read(event: h11.Request, raw: bytes, length: int, client: str | None) -> Head:
    try:
        target = urlsplit(event.target.decode("latin-1"))
    except ValueError:
        raise Refused(400, "the request's target is no address") from None
    request = fold_request(event.headers, path=target.path, query=target.query, client=client)
    headers = request.headers
    # What is behind us takes these for ASCII, and whole servers end where they are not.
    for name in headers:
        if name in _ASCII and not headers[name].isascii():
            raise Refused(400, f"{name}: expected ASCII text")
    if event.http_version not in (b"1.0", b"1.1"):
        # Such as a client that speaks HTTP/2 without having asked.
        raise Refused(400, "expected a request of HTTP/1.1")
    method = event.method.decode("ascii")
    return Head(
        method=method,
        request=request,
        raw=raw,
        is_upgrade=_is_upgrade(method, headers),
        has_body="transfer-encoding" in headers or headers.get("content-length", "0") != "0",
        length=length,
    )


def _is_upgrade(method: str, headers: Mapping[str, str]) -> bool:
    tokens = [token.strip().lower() for token in headers.get("connection", "").split(",")]
    return (
        method == "GET"
        and "upgrade" in tokens
        and headers.get("upgrade", "").lower() == "websocket"
        and headers.get("sec-websocket-version") == "13"
        and len(headers.get("sec-websocket-key", "")) == 24
    )


def encode_response(status: int, body: Any, **headers: str) -> bytes:
    """A whole answer with a JSON body, after which the connection closes."""
    content = json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "content-type: application/json",
        f"content-length: {len(content)}",
        "cache-control: no-store",
        "connection: close",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + content
