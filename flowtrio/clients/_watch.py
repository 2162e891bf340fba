"""Limits of waiting that cost a wait no more than a look at the clock.

A cancel scope around each read costs more than all else that is done for a token. So a reply that
is under way only notes when it began to wait, and a task of its pool looks at that now and then.
What waited too long has its connection closed, which ends the read with an error of the library.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable

import attrs
import trio


@attrs.define(eq=False)
class Wait:
    """One reply's waiting for its host."""

    _close: Callable[[], Awaitable[None]]
    """Closes the connection."""
    seconds: float
    since: float | None = None
    """When the wait began, on Trio's clock; None while nobody waits."""
    is_expired: bool = False

    def due(self, now: float) -> float:
        """When to look again."""
        return (now if self.since is None else self.since) + self.seconds

    async def expire(self) -> None:
        """End it."""
        self.is_expired = True
        with contextlib.suppress(Exception):
            await self._close()


@attrs.define(eq=False)
class Watch:
    """All waits of one pool."""

    _waits: set[Wait] = attrs.field(factory=set, init=False)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)

    def add(self, wait: Wait) -> None:
        """Watch it from now on."""
        self._waits.add(wait)
        self._news.set()

    def discard(self, wait: Wait) -> None:
        """Do so no more."""
        self._waits.discard(wait)

    async def run(self) -> None:
        """Look at each wait when it is due."""
        while True:
            self._news = trio.Event()
            now = trio.current_time()
            for wait in [wait for wait in self._waits if wait.due(now) <= now]:
                self._waits.discard(wait)
                await wait.expire()
            due = min((wait.due(now) for wait in self._waits), default=math.inf)
            with trio.move_on_at(due):
                await self._news.wait()
