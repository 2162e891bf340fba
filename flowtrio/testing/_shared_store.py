"""A suite for shared stores: what `flowtrio.abc.SharedStore` promises, asked of any of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from flowtrio.abc import RecoverableConversations, SharedStore

from ._shared_leases import LEASES
from ._shared_starts import STARTS
from ._shared_telling import TELLING
from ._stored import run_checks

Place: TypeAlias = "tuple[SharedStore, SharedStore, RecoverableConversations]"
"""What two processes see of one store, and the conversations in the same place."""


async def check_shared_store(make: Callable[[], Place | Awaitable[Place]]) -> None:
    """Hold a store to all that `flowtrio.abc.SharedStore` says beyond `flowtrio.abc.EventStore`.

    Run it under Trio, where the store talks to something outside under its real clock. Each of
    some twenty checks asks for a place of its own; what has an ``aclose`` is closed after it.

    Args:
      make: Gives what two processes see of one fresh place, and the conversations kept there; may
        be async.

    Raises:
      AssertionError: the store breaks a promise; the message says which.

    """
    await run_checks((*STARTS, *LEASES, *TELLING), make, tuple)
