"""What is told of conversations beside what was said in them: titles, and where branches came from.

A person gives a ``title``. An agent gives an ``agent_title``, by ``ctx.custom("title", ...)`` in a
hosted run; it stands where no person gave one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from flowtrio._core._events import ROOT, AgentEvent, EventType
from flowtrio._core._telling import tell
from flowtrio.abc import DescribedConversations

from ._mending import STORE_DEADLINE

if TYPE_CHECKING:
    from flowtrio.abc import ConversationStore, RunHeader

MOST: Final = 120
"""Characters of a title."""


def title_of(text: str) -> str | None:
    """A text as a title: on one line, and not too long; None where nothing is left."""
    return " ".join(text[: 4 * MOST].split())[:MOST].rstrip() or None


def _described(conversations: ConversationStore) -> DescribedConversations | None:
    return conversations if isinstance(conversations, DescribedConversations) else None


_CUSTOM: Final = EventType.CUSTOM


@attrs.frozen
class Descriptions:
    """What a store of conversations keeps of that, if it does."""

    store: DescribedConversations | None = attrs.field(converter=_described)

    async def of(self, tenant_id: str) -> Mapping[str, Mapping[str, Any]]:
        """What is told of a tenant's conversations, by their session ids."""
        return {} if self.store is None else await self.store.descriptions(tenant_id)

    async def tell(self, tenant_id: str, session_id: str, told: Mapping[str, Any]) -> bool:
        """Keep what is told of one; False where that is not kept."""
        if self.store is not None:
            await self.store.describe(tenant_id, session_id, told)
        return self.store is not None

    async def hear(self, header: RunHeader, events: Sequence[AgentEvent]) -> None:
        """Keep the title that an agent gives in *events*; a fault of the store is logged."""
        title = None
        for event in events:
            if event.type is _CUSTOM:
                title = _title_in(event) or title
        if title is None or header.session_id is None or not header.is_remembered:
            return
        try:
            with trio.fail_after(STORE_DEADLINE):
                await self.tell(header.tenant_id, header.session_id, {"agent_title": title})
        except Exception as exc:
            tell(logging.WARNING, "run %s: its title was not kept: %r", header.run_id, exc)


def _title_in(event: AgentEvent) -> str | None:
    is_title = event.data["name"] == "title" and event.agent == ROOT
    value = event.data["value"]
    return title_of(value) if is_title and isinstance(value, str) else None
