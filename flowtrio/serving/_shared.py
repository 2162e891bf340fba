"""What a store holds that processes share, for those who watch them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from flowtrio._hosting._service import Service
    from flowtrio.abc import SharedStatistics

_ASKED_WITHIN: Final = 2.0
"""Seconds that it has to say so."""


async def ask_shared(service: Service) -> SharedStatistics | None:
    """What the store holds; None where it is not shared, or does not say."""
    cluster = service.cluster
    if cluster is not None:
        with trio.move_on_after(_ASKED_WITHIN), suppress(Exception):
            return await cluster.store.statistics()
    return None
