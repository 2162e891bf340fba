"""A request's head folded into what the access rules see of it: the same on every transport."""

from __future__ import annotations

from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from flowtrio.abc import Request


def fold_request(
    headers: Iterable[tuple[bytes, bytes]], *, path: str, query: str, client: str | None
) -> Request:
    """Make a request of its head.

    Args:
      headers: As they came. Those of one name are joined by commas (RFC 9110, section 5.3).
      path: Without the query, and below the place where we are mounted.
      query: What stands behind the ``?``. Of what it gives twice, the last counts.
      client: Address of whoever sent it.

    """
    folded: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        folded[name] = f"{folded[name]}, {value}" if name in folded else value
    return Request(
        path=path,
        headers=folded,
        cookies=_cookies(folded.get("cookie", "")),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        client=client,
    )


def _cookies(text: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(text).items()}
    except CookieError:
        return {}
