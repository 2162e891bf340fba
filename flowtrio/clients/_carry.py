"""What goes back only to where it came from.

Some of what a host wants back can be read by nobody else: reasoning that is encrypted for an
account, items that it stored. Another host of the same protocol refuses it, so a conversation that
changes hosts, as a `FallbackClient` does, would end there. The final chunk's ``carry`` therefore
names its origin, and messages from elsewhere are sent as their text and calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from flowtrio._core._chunks import Chunk


def origin_of(base_url: str) -> str:
    """The name of a host in what it gives to carry: a digest, since addresses may hold secrets."""
    return hashlib.sha256(base_url.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def tagged(final: Chunk, origin: str) -> Chunk:
    """*final*, with its origin beside what it carries."""
    if final.carry is None:
        return final
    return msgspec.structs.replace(final, carry={**final.carry, "origin": origin})


def for_origin(messages: Sequence[Mapping[str, Any]], origin: str) -> list[Mapping[str, Any]]:
    """The messages as this host may see them; what does not name its origin stays."""
    return [
        {**message, "flowtrio": {**message["flowtrio"], "carry": None}}
        if _origin(message) not in (None, origin)
        else message
        for message in messages
    ]


def _origin(message: Mapping[str, Any]) -> Any:
    private = message.get("flowtrio")
    carry = private.get("carry") if isinstance(private, Mapping) else None
    return carry.get("origin") if isinstance(carry, Mapping) else None
