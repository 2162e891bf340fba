"""Conversations in memory, bounded in every direction."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from flowtrio.abc import Message


@attrs.frozen
class _Conversation:
    messages: tuple[Message, ...]
    used_at: float


@attrs.define(eq=False, kw_only=True)
class MemoryConversations:
    """A `flowtrio.abc.ConversationStore` that forgets with its process.

    The longest unused conversations are forgotten first.
    """

    max_messages: int = 200
    """Messages kept of one conversation; the oldest turns are dropped whole."""
    max_idle: float = 24 * 3600
    """Seconds after which an unused conversation is forgotten; ``math.inf`` for never."""
    max_sessions: int = 10_000
    """Conversations kept."""
    clock: Callable[[], float] = time.monotonic
    """Seconds, for ``max_idle``."""
    _conversations: OrderedDict[tuple[str, str], _Conversation] = attrs.field(
        factory=OrderedDict, init=False, repr=False
    )

    def __len__(self) -> int:
        """Conversations kept."""
        return len(self._conversations)

    async def load(self, tenant_id: str, session_id: str) -> list[Message]:
        """See `flowtrio.abc.ConversationStore`."""
        self._expire()
        conversation = self._conversations.get((tenant_id, session_id))
        return [] if conversation is None else list(conversation.messages)

    async def save(self, tenant_id: str, session_id: str, messages: Sequence[Message]) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        key = (tenant_id, session_id)
        kept = whole_turns(messages, self.max_messages)
        self._conversations[key] = _Conversation(tuple(kept), self.clock())
        self._conversations.move_to_end(key)
        self._expire()

    async def delete(self, tenant_id: str, session_id: str) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        self._conversations.pop((tenant_id, session_id), None)

    def _expire(self) -> None:
        oldest = self.clock() - self.max_idle if self.max_idle < math.inf else -math.inf
        while self._conversations:
            key, conversation = next(iter(self._conversations.items()))
            if len(self._conversations) <= self.max_sessions and conversation.used_at >= oldest:
                return
            del self._conversations[key]


def whole_turns(messages: Sequence[Message], limit: int) -> list[Message]:
    """The newest of *messages*, at most *limit* of them, beginning with a user's message.

    A turn is cut whole, since a provider refuses a result without its call. Where the last turn
    alone is longer than the limit, nothing is kept: half a turn would be no conversation.
    """
    for place in range(max(0, len(messages) - limit), len(messages)):
        if messages[place].get("role") == "user":
            return list(messages[place:])
    return []
