"""How long the other sides may take nothing of what is sent to them: one clock for a whole server.

A deadline of its own would cost each send as much as sending does, and each deadline that was kept
stays in Trio's heap until it has passed, with its scope.
"""

from __future__ import annotations

from typing import Protocol

import trio


class Sender(Protocol):
    """Who sends."""

    async def drop(self, seconds: float) -> None:
        """Give up the connection, whose other side took nothing for *seconds*; never waits."""
        ...


class Patience:
    """Drops those whose other side takes nothing for too long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[Sender, float] = {}
        """When each began what it sends now, the earliest first."""

    def begin(self, sender: Sender) -> None:
        """*sender* begins to send something, or the next piece of it."""
        self.end(sender)
        self._since[sender] = trio.current_time()

    def end(self, sender: Sender) -> None:
        """What *sender* began has been taken, or given up."""
        self._since.pop(sender, None)

    async def watch(self) -> None:
        """Drop whoever is too late, until cancelled."""
        while True:
            now = trio.current_time()
            for sender in [one for one, since in self._since.items() if self._is_late(since, now)]:
                self.end(sender)
                await sender.drop(self._seconds)
            # Who begins from now on is not late before that.
            await trio.sleep_until(next(iter(self._since.values()), now) + self._seconds)

    def _is_late(self, since: float, now: float) -> bool:
        return since + self._seconds <= now
