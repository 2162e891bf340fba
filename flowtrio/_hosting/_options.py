"""What an orchestrator may be given."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flowtrio._core._limits import is_wait, is_whole
from flowtrio._core._values import clean_text, told
from flowtrio.abc import RecoverableConversations, SharedStore

if TYPE_CHECKING:
    from flowtrio.abc import ConversationStore, EventStore


def check_queue(
    on_busy: str, queue_wait: float, queue_length: float, runs_per_tenant: float | None
) -> None:
    """Refuse what cannot be waited by.

    Raises:
      ValueError: with what was expected.

    """
    if on_busy not in ("queue", "reject", "cancel", "post"):
        raise ValueError(f"on_busy={on_busy!r}: expected 'queue', 'reject', 'cancel' or 'post'")
    if not is_wait(queue_wait):
        raise ValueError(f"queue_wait={told(queue_wait)}: expected seconds, 0 or more")
    if not (queue_length == math.inf or is_whole(queue_length, 0)):
        raise ValueError(f"queue_length={told(queue_length)}: expected a whole number, at least 0")
    if not (runs_per_tenant is None or is_whole(runs_per_tenant, 1)):
        raise ValueError(
            f"runs_per_tenant={told(runs_per_tenant)}: expected a whole number, at least 1, or None"
        )


def check_sharing(
    store: EventStore,
    conversations: ConversationStore,
    role: str,
    lease: float,
    capacity: float,
) -> None:
    """Refuse what makes no process of several.

    Raises:
      ValueError: with what was expected.

    """
    if role not in ("both", "gateway", "worker"):
        raise ValueError(f"role={role!r}: expected 'both', 'gateway' or 'worker'")
    if not (is_wait(lease) and 0 < lease < math.inf):
        raise ValueError(f"lease={told(lease)}: expected seconds, more than 0")
    if not (capacity == math.inf or is_whole(capacity, 1)):
        raise ValueError(f"capacity={told(capacity)}: expected a whole number, at least 1")
    if not isinstance(store, SharedStore):
        if role != "both":
            raise ValueError(f"role={role!r}: expected a store= that processes share")
    elif not isinstance(conversations, RecoverableConversations):
        raise ValueError(
            "store=: it is shared by processes: expected conversations= in the same place"
        )


def check_name(what: str, name: object) -> None:
    """Refuse what is no name of a tenant or a conversation.

    Raises:
      ValueError: with what was expected.

    """
    # Half a character is none that an event, or a store, could carry.
    if not isinstance(name, str) or not name or clean_text(name) != name:
        raise ValueError(f"{what} {told(name)}: expected a text that is not empty")
