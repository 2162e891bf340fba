"""How much of a conversation is kept: its newest turns, each whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowtrio.wire._json import encode_json

if TYPE_CHECKING:
    from flowtrio.abc import Message


def turns_within(
    messages: Sequence[Message], max_messages: int, max_bytes: float
) -> tuple[list[Message], int]:
    """The newest turns of a conversation that are not too much, and their bytes as JSON."""
    kept = whole_turns(messages, max_messages)
    sizes = [_size_as_json(message) for message in kept]
    while sum(sizes) > max_bytes:
        kept = whole_turns(kept, len(kept) - 1)
        sizes = sizes[len(sizes) - len(kept) :]
    return kept, sum(sizes)


def whole_turns(messages: Sequence[Message], limit: int) -> list[Message]:
    """The newest of *messages*, at most *limit* of them, beginning with a user's message.

    A turn is cut whole, since a provider refuses a result without its call. Where the last turn
    alone is longer than the limit, nothing is kept: half a turn would be no conversation.
    """
    for place in range(max(0, len(messages) - limit), len(messages)):
        if messages[place].get("role") == "user":
            return list(messages[place:])
    return []


def _size_as_json(message: Message) -> int:
    try:
        return len(encode_json(message))
    except TypeError:
        # A client of one's own may carry what only it understands.
        return len(repr(message))
