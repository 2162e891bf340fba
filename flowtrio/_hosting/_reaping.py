"""Ends for runs that have nobody to end them: their process is gone, or none has begun them.

A run whose owner is gone gets what a run that was cut off gets: what is open is closed as
cancelled, then ERROR ``interrupted`` and DONE, in one append. The store takes it on condition that
the owner is gone, and that the log still ends where it was read: so whoever reaps may do it at the
same time as others, and as an owner who was only slow.

Nobody waits for an owner, not even where the store was away and all leases are gone with it: a
process whose lease is gone there has counted it from earlier on, and has given up what it ran.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._exceptions import Fenced, LocalProtocolError
from flowtrio._core._failures import Failure
from flowtrio._core._interrupted import cancelled_end, missing_end
from flowtrio._core._said import Said
from flowtrio._core._telling import tell
from flowtrio.abc._stores import opening_of

from ._mending import READ_AT_ONCE, STORE_DEADLINE

if TYPE_CHECKING:
    from flowtrio.abc import RunHeader, SharedStore

    from ._lease import Lease
    from ._meter import Meter


async def close_lost(
    store: SharedStore,
    header: RunHeader,
    known: Sequence[AgentEvent] = (),
    by: str | None = None,
) -> bool:
    """End the log of a run that nobody runs, and keep what was said in its conversation.

    Args:
      store: Where it is.
      header: As ``lost`` or ``claim`` gave it.
      known: The newest events of the run, up to DONE, where they are known.
      by: Its owner, who lives and has ended it.

    Returns:
      False if there was nothing to do any more: others have ended it, or its owner lives.

    """
    try:
        log = await _read_all(store, header)
    except LookupError:
        return False
    if not log and by is not None and not known:
        # Nobody has begun it.
        return False
    missing = _behind(log, known) or missing_end(log, opening_of(header))
    try:
        await store.close(header, len(log) - 1, missing, _said(header, [*log, *missing]), by)
    except (LookupError, LocalProtocolError):
        # It was deleted, or it went on: then it is not lost, or will be found again.
        return False
    return True


async def end_waiting(
    store: SharedStore, header: RunHeader, owner: str, end: Failure | str
) -> bool:
    """End a run that nobody has begun.

    Args:
      store: Where it is.
      header: As ``overdue`` gave it, or ``header``.
      owner: Who ends it; has a lease.
      end: How it failed, or why it is cancelled.

    Returns:
      False if somebody runs it, or it has ended.

    """
    tenant_id, run_id = header.tenant_id, header.run_id
    opening = opening_of(header)
    events = cancelled_end(opening, end) if isinstance(end, str) else missing_end([], opening, end)
    # Both or none: what was taken and not ended would be nobody's before our lease is gone.
    with trio.fail_after(STORE_DEADLINE, shield=True):
        if not await store.take(tenant_id, run_id, owner):
            return False
        try:
            await store.append(tenant_id, run_id, -1, events, owner)
        except (LookupError, Fenced):
            return False
    return True


_AT_ONCE: Final = 100
"""Runs that are asked for at once."""
_TOO_LONG_IN_LINE: Final = Failure(
    error="the conversation stayed busy for too long",
    code="session_busy",
    source="limit",
    limit="queue",
)
_TOO_LONG: Final = Failure(
    error="no process had room for it for too long",
    code="queue_wait",
    source="limit",
    limit="queue",
)


@attrs.define(eq=False)
class Reaper:
    """Ends, now and then, what has nobody to end it."""

    store: SharedStore
    lease: Lease
    meter: Meter
    queue_wait: float
    """Seconds that a run may wait to be claimed."""

    async def reap_for_ever(self) -> None:
        """Look every third of a lease, and not at the same time as all others."""
        while True:
            await trio.sleep(self.lease.ttl / 3 * random.uniform(0.75, 1.25))
            await self.reap()

    async def reap(self) -> None:
        """End all that has nobody now."""
        while await self._close_some():
            pass
        if self.queue_wait < math.inf:
            for header in await self.store.overdue(self.queue_wait):
                if self.lease.is_held:
                    with telling(header):
                        end = await self._why(header)
                        await end_waiting(self.store, header, self.lease.owner, end)

    async def _close_some(self) -> bool:
        """End runs whose owners are gone; whether there may be more of them."""
        lost = await self.store.lost(_AT_ONCE)
        before = self.meter.reaped
        for header in lost:
            with telling(header):
                self.meter.reaped += await close_lost(self.store, header)
        # Of those that cannot be ended now there may be many.
        return len(lost) == _AT_ONCE and self.meter.reaped > before

    async def _why(self, header: RunHeader) -> Failure:
        """Why a run has waited for too long."""
        if header.is_remembered and header.session_id is not None:
            line = await self.store.line(header.tenant_id, header.session_id)
            if line and line[0] != header.run_id:
                return _TOO_LONG_IN_LINE
        return _TOO_LONG


@contextmanager
def telling(header: RunHeader) -> Iterator[None]:
    """What one run's end fails with does not concern the others."""
    try:
        yield
    except Exception as exc:
        tell(logging.ERROR, "run %s: its log cannot be put right now", header.run_id, exc=exc)


async def _read_all(store: SharedStore, header: RunHeader) -> list[AgentEvent]:
    log: list[AgentEvent] = []
    while found := await store.read(header.tenant_id, header.run_id, len(log) - 1, READ_AT_ONCE):
        log += found
    return log


def _behind(log: Sequence[AgentEvent], known: Sequence[AgentEvent]) -> Sequence[AgentEvent]:
    """What a log lacks of what is known; nothing if it does not go on where that ends."""
    if not known or known[-1].type is not EventType.DONE or known[0].seq > len(log):
        return ()
    place = len(log) - known[0].seq
    return known[place:] if not log or log[-1:] == list(known[place - 1 : place]) else ()


def _said(header: RunHeader, log: Sequence[AgentEvent]) -> list[dict[str, object]] | None:
    if not header.is_remembered:
        return None
    said = Said(header.parts)
    for event in log:
        said.add(event)
    return said.messages()
