"""`RedisConversations`: what was said, on a server that several processes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from flowtrio.stores._rules import refuse_stranger
from flowtrio.stores._turns import turns_within
from flowtrio.wire._json import encode_json

from . import _log_scripts as scripts
from ._keys import run_key, session_key, text_of
from ._link import GlideLink
from ._server import MakeLink, Server

if TYPE_CHECKING:
    from flowtrio.abc import Message


class RedisConversations(trio.abc.AsyncResource):
    """A `flowtrio.abc.RecoverableConversations` on Redis or Valkey 7.0 or newer.

    With the URL of a `RedisStore`, what a run has said is in its conversation once, whatever
    becomes of its process.

    Args:
      url: As that of a `RedisStore`.
      make_link: Another client than GLIDE, where there is a reason.

    """

    def __init__(
        self,
        url: str,
        *,
        max_messages: int = 200,
        max_bytes: int = 16 * 1024 * 1024,
        keep: float | None = None,
        make_link: MakeLink = GlideLink,
    ) -> None:
        if keep is not None and not keep > 0:
            raise ValueError(
                f"RedisConversations(keep={keep!r}): expected a number above 0, or None"
            )
        self.max_messages = max_messages
        """Messages kept of one conversation; the oldest turns are dropped whole."""
        self.max_bytes = max_bytes
        """Bytes kept of one conversation, as JSON; the oldest turns are dropped whole."""
        self.keep = keep
        """Seconds that a conversation is kept after its last message; None for ever."""
        self._server = Server(url, make_link)

    def __repr__(self) -> str:
        return f"<RedisConversations {self._server.place}>"

    async def aclose(self) -> None:
        """Close the connection."""
        await self._server.aclose()

    async def load(self, tenant_id: str, session_id: str) -> list[Message]:
        """See `flowtrio.abc.ConversationStore`."""
        told = await self._server.call(scripts.LOAD, session_key(tenant_id, session_id))
        messages: list[Message] = [] if told is None else msgspec.json.decode(told)
        return messages

    async def save(self, tenant_id: str, session_id: str, messages: Sequence[Message]) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        await self._save(tenant_id, session_id, messages, "", "")

    async def save_after(
        self,
        tenant_id: str,
        session_id: str,
        run_id: str,
        messages: Sequence[Message],
        owner: str | None = None,
    ) -> None:
        """See `flowtrio.abc.RecoverableConversations`."""
        run = run_key(tenant_id, run_id)
        if not await self._save(tenant_id, session_id, messages, run, owner or ""):
            refuse_stranger(run_id)

    async def _save(
        self, tenant_id: str, session_id: str, messages: Sequence[Message], run: str, owner: str
    ) -> bool:
        encoded = encode_json(turns_within(messages, self.max_messages, self.max_bytes)[0])
        kept = "" if self.keep is None else str(max(1, round(self.keep * 1000)))
        key = session_key(tenant_id, session_id)
        return bool(await self._server.call(scripts.SAVE, key, encoded, kept, run, owner))

    async def delete(self, tenant_id: str, session_id: str) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        key = session_key(tenant_id, session_id)
        await self._server.call(scripts.DROP, key, tenant_id, session_id)

    async def describe(self, tenant_id: str, session_id: str, told: Mapping[str, Any]) -> None:
        """See `flowtrio.abc.DescribedConversations`."""
        for name, value in told.items():
            encoded = "" if value is None else encode_json(value)
            await self._server.call(scripts.DESCRIBE, tenant_id, session_id, name, encoded)

    async def descriptions(self, tenant_id: str) -> dict[str, dict[str, Any]]:
        """See `flowtrio.abc.DescribedConversations`."""
        found: dict[str, dict[str, Any]] = {}
        # The server forgets conversations by itself, and nothing beside them.
        sessions = "" if self.keep is None else session_key(tenant_id, "")
        flat = iter(await self._server.call(scripts.DESCRIPTIONS, tenant_id, sessions))
        for field, value in zip(flat, flat, strict=True):
            name, _, session_id = text_of(field).partition(":")
            found.setdefault(session_id, {})[name] = msgspec.json.decode(value)
        return found
