"""Secrets of a host's address, and how they are hidden in what is told."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit

_LONG = 12
"""Characters from which on a secret is like no other word."""


def hide(value: Any, secrets: Iterable[str]) -> Any:
    """The same JSON without *secrets*, however they are written."""
    match value:
        case str():
            for secret in secrets:
                value = _mask(secret).sub("***", value)
            return value
        case dict():
            return {key: hide(item, secrets) for key, item in value.items()}
        case list():
            return [hide(item, secrets) for item in value]
        case _:
            return value


@functools.lru_cache(maxsize=64)
def _mask(secret: str) -> re.Pattern[str]:
    """Finds a secret, also where some of its characters are percent-encoded, as in an address.

    One as short as a word is found only where it is one, and not in other words.
    """
    whole = "".join(map(_spellings, secret))
    return re.compile(whole if len(secret) >= _LONG else rf"(?<![\w-]){whole}(?![\w-])")


def _spellings(character: str) -> str:
    encoded = "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    plus = r"|\+" if character == " " else ""
    return f"(?:{re.escape(character)}|(?i:{encoded}){plus})"


def secrets_of_query(query: str) -> Iterator[str]:
    """The values in a query, and what stands there without a name."""
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        yield from _meant_by(value if equals else name, unquote_plus)


def split_query(base_url: str) -> tuple[str, str]:
    """An address without what stands behind its path, and its query: paths go between them."""
    parts = urlsplit(base_url)
    return parts._replace(query="", fragment="").geturl().rstrip("/"), parts.query


def split_credentials(base_url: str) -> tuple[str, dict[str, str], list[str]]:
    """An address without its user and password, those as a header, and what of them is secret.

    httpx would send the same header, but logs whole addresses.
    """
    parts = urlsplit(base_url)
    userinfo, at, place = parts.netloc.rpartition("@")
    if not at:
        return base_url, {}, []
    user, _, password = userinfo.partition(":")
    token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode("ascii")
    # Without a password it is the user that is a key.
    secrets = [*_meant_by(password or user, unquote), token]
    return parts._replace(netloc=place).geturl(), {"authorization": f"Basic {token}"}, secrets


def _meant_by(raw: str, decode: Callable[[str], str]) -> Iterator[str]:
    """What is written in an address, and what it means, where that is more than a spelling."""
    meant = decode(raw)
    yield meant
    # Of bytes that are no UTF-8 nothing else is a spelling of what is sent.
    if not _mask(meant).fullmatch(raw):
        yield raw
