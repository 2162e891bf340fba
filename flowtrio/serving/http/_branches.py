"""What a client changes about conversations: their names, and other ways on from within them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from flowtrio.abc import Message
from flowtrio.serving._access import Refused


class Branch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a conversation is left: before a message of its user."""

    back: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    """Which one, counted from the end: 1 is the last that the user said."""
    message: str
    """Its text, so that it is surely the one that is meant."""


class Rename(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person wants a conversation to be called."""

    title: str | None
    """None for what it would be called by itself."""


T = TypeVar("T", Branch, Rename)


def decode_change(body: bytes, kind: type[T], what: str) -> T:
    """Read a request's body.

    Args:
      body: JSON.
      kind: What it has to be.
      what: Its name in messages.

    Raises:
      Refused: it is none.

    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise Refused(400, f"{what}: {exc}") from None


def turns_of(messages: Sequence[Message]) -> int:
    """How often the user spoke."""
    return sum(message.get("role") == "user" for message in messages)


def before(messages: Sequence[Message], branch: Branch) -> Sequence[Message] | None:
    """What was said before that; None where the user did not say it there."""
    places = [place for place, message in enumerate(messages) if message.get("role") == "user"]
    if branch.back > len(places):
        return None
    place = places[-branch.back]
    is_meant = _text(messages[place].get("content")) == branch.message
    return messages[:place] if is_meant else None


def _text(content: Any) -> str:
    """The text of a message, without its images and files."""
    if not isinstance(content, list):
        return str(content)
    return "\n".join(part["text"] for part in content if part.get("type") == "text")
