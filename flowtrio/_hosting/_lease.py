"""The lease of this process, and the name under which it owns runs.

It is renewed every third of its time. Where that fails for the whole of it, or it turns out that it
was gone, others may have ended what is run here: then all of it ends here too, quietly, and the
process goes on under another name::

    new name ─ listen to it ─ renew ─► HELD ─┬─ renewed ──────────────────────► HELD
                                             └─ gone, or not renewed in time ─► all runs end here,
                                                the old name is left, and there is a new one
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import attrs
import trio

from flowtrio._core._telling import tell

if TYPE_CHECKING:
    from flowtrio.abc import SharedStore

_LEAVE_WITHIN: Final = 2.0
"""Seconds that giving a lease up may take: it lapses by itself."""


def make_name() -> str:
    """A name that no process has had."""
    return secrets.token_hex(8)


@attrs.define(eq=False)
class Lease:
    """One process's lease in a shared store."""

    store: SharedStore
    ttl: float
    """Seconds that it lasts."""
    prepare: Callable[[str], Awaitable[None]]
    """Called with each name before it is used."""
    on_loss: Callable[[str], None]
    """Called with a name under which nothing may be done any more."""
    owner: str = attrs.field(factory=make_name, init=False)
    """Under which name this process owns runs."""
    held_until: float = attrs.field(default=-math.inf, init=False)
    """When it is gone, by our clock, if it is not renewed."""

    @property
    def is_held(self) -> bool:
        """Whether runs may be owned under this name now."""
        return trio.current_time() < self.held_until

    async def keep_for_ever(self) -> None:
        """Have a lease, under one name after another."""
        while True:
            await self._begin()
            is_held = True
            while is_held:
                await trio.sleep(self.ttl / 3)
                is_held = await self._renew()
            await self._lose()

    async def _begin(self) -> None:
        """Get the first lease of a name."""
        is_told = False
        while True:
            began = trio.current_time()
            try:
                with trio.fail_after(self.ttl):
                    await self.prepare(self.owner)
                    await self.store.renew(self.owner, self.ttl)
            except Exception as exc:
                if not is_told:
                    tell(logging.ERROR, "no lease: the store cannot be asked", exc=exc)
                is_told = True
                await trio.sleep(self.ttl / 6)
            else:
                self.held_until = began + self.ttl
                return

    async def _renew(self) -> bool:
        """Renew it, trying again for as long as it lasts; False if it is gone."""
        while True:
            began = trio.current_time()
            lived: bool | None = None
            with trio.CancelScope(deadline=self.held_until):
                try:
                    lived = await self.store.renew(self.owner, self.ttl)
                except Exception as exc:
                    tell(logging.WARNING, "the lease is not renewed", exc=exc)
            if lived is False or trio.current_time() >= self.held_until:
                return False
            if lived:
                self.held_until = began + self.ttl
                return True
            await trio.sleep(self.ttl / 12)

    async def _lose(self) -> None:
        old = self.renew_name()
        tell(logging.WARNING, "the lease was gone: what was run under it ends here")
        self.on_loss(old)
        await self.leave(old)

    def renew_name(self) -> str:
        """Go on under another name, once that has a lease; gives the old one."""
        old, self.owner = self.owner, make_name()
        self.held_until = -math.inf
        return old

    async def leave(self, owner: str) -> None:
        """Give a lease up; runs of that name that were never begun wait to be claimed again."""
        with trio.move_on_after(_LEAVE_WITHIN, shield=True):
            try:
                await self.store.leave(owner)
            except Exception as exc:
                tell(logging.WARNING, "a lease is not given up, and will lapse", exc=exc)
