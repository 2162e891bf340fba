"""Runs of ours of which the store has lost something, and that append nothing more.

A store may come back without its newest entries, as a replica does that lagged. Who appends to a
log is told, and puts it right. But a run may wait for somebody who never heard its question, as
that is what was lost. And one that has ended appends nothing any more: where its end is lost,
nobody else may end it, as its owner lives, and its conversation would wait for ever.

So an owner asks now and then what it owns. It gives the store what that lacks of runs that go on,
and ends what it does not run: with the events that it had, which are kept for a while, or else
where the log ends.
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import attrs
import trio

from flowtrio._core._telling import tell

from ._mending import STORE_DEADLINE, Mender
from ._reaping import close_lost, telling

if TYPE_CHECKING:
    from flowtrio.abc import RunHeader, SharedStore

    from ._claims import Claim
    from ._hosted import Key
    from ._lease import Lease
    from ._recorder import Recorder

_MOST_RUNS: Final = 1000
"""Runs that were claimed here last whose events are kept."""
_MOST_EVENTS: Final = 20_000
"""Events that are kept of those that have ended."""


@attrs.define(eq=False)
class Orphans:
    """Looks, now and then, what is owned here and not as it is here."""

    store: SharedStore
    lease: Lease
    recorder: Recorder
    _claims: OrderedDict[Key, Claim] = attrs.field(factory=OrderedDict, init=False)
    """The newest, with what their runs have told."""
    _seen: dict[Key, int] = attrs.field(factory=dict, init=False)
    """What was wrong at the last look, and where its log ended; something may be under way."""

    def note(self, claim: Claim) -> None:
        """A run was claimed."""
        self._claims[claim.key] = claim
        if len(self._claims) > _MOST_RUNS:
            self._claims.popitem(last=False)

    async def look_for_ever(self) -> None:
        """Look every third of a lease."""
        while True:
            await trio.sleep(self.lease.ttl / 3 * random.uniform(0.75, 1.25))
            await self.look()

    async def look(self) -> None:
        """Put right what is wrong for the second time."""
        owned = await self.store.owned(self.lease.owner)
        found = {key: last for key, last in owned.items() if not self._is_right(key, last)}
        for key, last in found.items():
            if self._seen.get(key) == last:
                await self._put_right(key)
        self._seen = found
        self._forget()

    def _is_right(self, key: Key, last: int) -> bool:
        hosted = self.recorder.runs.get(key)
        if hosted is None:
            return self.recorder.unsettled.find(key) is not None
        return last >= hosted.stored or hosted.failure is not None

    async def _put_right(self, key: Key) -> None:
        hosted = self.recorder.runs.get(key)
        if hosted is None:
            await self._end(key)
        elif hosted.recent:
            # What the recorder appends meanwhile is refused, or this is: nothing is there twice.
            mender = Mender(self.store, hosted.header, list(hosted.recent), hosted.named)
            with telling(hosted.header), trio.fail_after(STORE_DEADLINE):
                await mender.complete(hosted.stored)
                self._note(hosted.header)

    def _note(self, header: RunHeader) -> None:
        self.recorder.meter.healed += 1
        tell(logging.WARNING, "run %s: the store's log was put right", header.run_id)

    async def _end(self, key: Key) -> None:
        claim = self._claims.get(key)
        header = await self.store.header(*key) if claim is None else claim.header
        if header is None or header.owner is None:
            return
        known = () if claim is None else claim.recent
        with telling(header):
            if await close_lost(self.store, header, known, by=header.owner):
                self._note(header)

    def _forget(self) -> None:
        """Keep no more events than may be kept; those of runs that go on are not ours to count."""
        count = 0
        for key, claim in reversed(list(self._claims.items())):
            count += len(claim.recent)
            if count > _MOST_EVENTS and key not in self.recorder.runs:
                del self._claims[key]
