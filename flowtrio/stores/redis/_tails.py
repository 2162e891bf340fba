"""The newest events of runs that are followed here, as they are told: nobody asks for each of them.

A run's *tail* is fed by what its owner's appends tell, which is the events themselves, and all who
follow it in this process read it and wait at it. What it does not hold, they read in the store.

Two things tell where a log ends: what is pushed, and what the store answers when it is asked. They
come on two connections, so an answer may be older than what was pushed before it came. So nothing
goes by arrival: a batch that is known already changes nothing; one that does not follow on what is
known empties the tail, as something was missed; and an answer that knows less than was known *when
it was asked for* means that the store has lost something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs
import msgspec
import trio
from trio.lowlevel import ParkingLot

from flowtrio._core._events import AgentEvent, EventType

if TYPE_CHECKING:
    from flowtrio.abc import Listening

EVENTS: Final = msgspec.json.Decoder(list[AgentEvent])
_MOST: Final = 1024
"""Events that are kept of one run."""


@attrs.define(eq=False)
class Tail:
    """The newest events of one run."""

    last: int = -1
    """The newest event that is known of."""
    has_ended: bool = False
    is_gone: bool = False
    """Whether the run was deleted."""
    heard_at: float = attrs.field(factory=trio.current_time)
    """When the store was asked, or told of something, last."""
    users: int = 0
    """Who follow, or wait."""
    opening: trio.Lock = attrs.field(factory=trio.Lock)
    """Held while it is made ready."""
    listening: Listening | None = None
    """What feeds it."""
    is_ready: bool = False
    """Whether news of the run are told, and its end was asked for."""
    events: list[AgentEvent] = attrs.field(factory=list)
    """The newest events, up to *last*, without gaps; maybe none."""
    news: ParkingLot = attrs.field(factory=ParkingLot)

    def take(self, told: bytes) -> None:
        """Something was told of the run."""
        self.heard_at = trio.current_time()
        if told == b"gone":
            self.is_gone = True
        else:
            after, _, batch = told.partition(b" ")
            self._add(int(after), EVENTS.decode(batch))
        self.news.unpark_all()

    def _add(self, after: int, batch: list[AgentEvent]) -> None:
        newest = batch[-1].seq
        if newest <= self.last:
            return
        if after > self.last:
            self.events.clear()
        self.events += batch[max(self.last - after, 0) :] if after <= self.last else batch
        if len(self.events) > 2 * _MOST:
            del self.events[:-_MOST]
        self.last = newest
        self.has_ended = batch[-1].type is EventType.DONE

    def note(self, known: int, last: int, has_ended: bool) -> None:
        """The store has answered where the log ends; *known* was known when it was asked."""
        # Where it has lost something, what was told meanwhile may be behind that.
        if last < known or last > self.last:
            self.events.clear()
            self.last, self.has_ended = last, has_ended
        self.news.unpark_all()

    def read(self, after: int, limit: int) -> Sequence[AgentEvent] | None:
        """The events behind *after*, if they are all here."""
        if self.is_gone or not self.events or not self.events[0].seq - 1 <= after < self.last:
            return None
        start = after + 1 - self.events[0].seq
        return self.events[start : start + limit]
