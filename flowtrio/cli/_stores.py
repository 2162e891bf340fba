"""Where ``flowtrio serve`` keeps logs and conversations, and with whom it shares them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

_SHARED: Final = ("redis", "rediss", "valkey", "valkeys", "unix")
"""Schemes of stores that processes share."""
_KINDS: Final = "expected memory, sqlite:PATH or redis://HOST"
_REACHED_WITHIN: Final = 30.0
"""Seconds that a server has to come up, when it is started together with us."""


class CannotServe(Exception):
    """What was asked for cannot be done; told in one line."""


@attrs.frozen(kw_only=True)
class Sharing:
    """What a process is among those that share its store."""

    role: str = "both"
    lease: float = 10
    capacity: float = 500


def is_shared(name: str) -> bool:
    """Whether ``--store`` names one that processes share."""
    return name.partition("://")[0] in _SHARED and "://" in name


@asynccontextmanager
async def open_stores(
    name: str, keep: float | None, sharing: Sharing | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Open what ``--store`` names; gives the options of an orchestrator.

    What has ended is kept for *keep* seconds, or for ever. `CannotServe` tells of what is
    not there, or cannot be used.
    """
    sharing = Sharing() if sharing is None else sharing
    if is_shared(name):
        async with _open_shared(name, keep) as stores:
            yield {**stores, **attrs.asdict(sharing)}
        return
    if sharing.role != "both":
        raise CannotServe(f"--role {sharing.role}: expected --store redis://HOST, to be shared")
    kind, _, path = name.partition(":")
    if (kind, path) == ("memory", ""):
        if keep is not None:
            raise CannotServe("--keep is for an sqlite store: memory is bounded by its size")
        yield {}
        return
    if kind != "sqlite" or not path:
        raise CannotServe(f"--store {kind}: {_KINDS}")
    if not Path(path).parent.is_dir():
        raise CannotServe(f"--store {name}: there is no folder {Path(path).parent}")

    from flowtrio.stores.sqlite import SQLiteConversations, SQLiteStore

    async with (
        SQLiteStore(path, keep=keep) as store,
        SQLiteConversations(path, keep=keep) as conversations,
    ):
        try:
            # A store opens its file at its first use, which would be the first client's.
            await store.header("default", "")
        except (OSError, ValueError, sqlite3.Error) as exc:
            words = getattr(exc, "strerror", None) or exc
            raise CannotServe(f"can't open the store {path}: {words}") from None
        yield {"store": store, "conversations": conversations}


@asynccontextmanager
async def _open_shared(url: str, keep: float | None) -> AsyncIterator[dict[str, Any]]:
    from flowtrio import RedisConversations, RedisStore
    from flowtrio.stores.redis._link import Unreachable

    try:
        store, conversations = RedisStore(url, keep=keep), RedisConversations(url, keep=keep)
    except ValueError as exc:
        raise CannotServe(f"--store: {exc}") from None
    async with store, conversations:
        try:
            with trio.fail_after(_REACHED_WITHIN):
                await store.header("default", "")
        except (trio.TooSlowError, Unreachable):
            raise CannotServe(f"can't reach the store at {store}") from None
        except (ModuleNotFoundError, RuntimeError, OSError) as exc:
            # Too old, or one that forgets; it does not know us, or there is no such file of
            # certificates. No secret of the URL is in it.
            raise CannotServe(f"can't use the store: {exc}") from None
        yield {"store": store, "conversations": conversations}
