"""Runs that have ended and whose log the store does not hold: who offers it again, and reads it.

What `_mending` does once is tried here until it is done, the orchestrator is left (it tries once
more), or too many logs wait for it: then the one that has waited longest is given up.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs
import trio
from trio.lowlevel import ParkingLot

from flowtrio._core._exceptions import Fenced
from flowtrio._core._failures import leaves
from flowtrio._core._telling import tell

from ._hosted import HostedRun, Key
from ._mending import STORE_DEADLINE, Deleted, LostTooMuch, Mender, Refused

if TYPE_CHECKING:
    from flowtrio.abc import EventStore

_MOST_CUT: Final = 1000
"""Runs that have ended and whose log the store does not hold that are remembered."""
_MEND_AFTER: Final = 0.5
"""Seconds until such a log is offered again; then twice as long each time."""
_LONGEST_PAUSE: Final = 30.0
"""Seconds between two offers at most."""


@attrs.define(eq=False)
class Unsettled:
    """The runs of one recorder that have ended and whose log the store does not hold."""

    store: EventStore
    is_open: bool = attrs.field(default=True, init=False)
    """Whether there is time to wait for a store that failed."""
    _cut: OrderedDict[Key, HostedRun] = attrs.field(factory=OrderedDict, init=False)
    """Those that can be asked for."""
    _waiting: dict[HostedRun, trio.CancelScope] = attrs.field(factory=dict, init=False)
    """Those whose log waits to be offered again, with what ends the wait."""
    _news: ParkingLot = attrs.field(factory=ParkingLot, init=False)

    def find(self, key: Key) -> HostedRun | None:
        """The run of this key, if it has to be read here."""
        return self._cut.get(key)

    def add(self, hosted: HostedRun) -> None:
        """Remember a run for those who ask for it."""
        self._cut[hosted.key] = hosted
        if len(self._cut) > _MOST_CUT:
            self._give_up(next(iter(self._cut.values())))

    def close(self, reason: str) -> None:
        """Try each once more, and no more."""
        self.is_open = False
        for waiting in self._waiting.values():
            waiting.cancel(reason)

    def give_up(self, is_meant: Callable[[HostedRun], bool]) -> None:
        """Leave the logs of some as they are."""
        for hosted in filter(is_meant, [*self._cut.values(), *self._waiting]):
            self._give_up(hosted)

    async def forget(self, is_meant: Callable[[HostedRun], bool]) -> None:
        """Give up some, and wait until nothing of them is stored any more."""
        self.give_up(is_meant)
        while any(map(is_meant, self._waiting)):
            await self._news.park()

    async def mend(self, hosted: HostedRun) -> None:
        """Offer the store once what it lacks of a run that has ended."""
        if hosted.is_settled:
            return
        try:
            with trio.fail_after(STORE_DEADLINE, shield=True):
                mender = Mender(self.store, hosted.header, hosted.recent, hosted.named)
                await self._settle(hosted, mender)
            hosted.is_settled = True
        except (Deleted, Fenced):
            self._give_up(hosted)
        except Refused as exc:
            hosted.is_settled = True
            tell(logging.ERROR, "run %s: its log is left as it is, for %s", hosted.run_id, exc)
        except BaseException as exc:
            if not is_of_store(exc):
                raise

    async def _settle(self, hosted: HostedRun, mender: Mender) -> None:
        if hosted.is_unwanted:
            return await mender.delete()
        if not hosted.is_created:
            await mender.create()
            hosted.is_created = True
        assert hosted.opening is not None
        try:
            await mender.complete(hosted.stored)
        except LostTooMuch:
            hosted.real_end = await mender.close(hosted.opening)
            return None
        hosted.stored = hosted.last
        if not hosted.has_done:
            await mender.close(hosted.opening)
        self._cut.pop(hosted.key, None)
        return None

    async def go_on(self, hosted: HostedRun) -> None:
        """Offer it again, until it is settled or we are left."""
        if hosted.is_settled:
            return
        pause = _MEND_AFTER
        waiting = self._waiting[hosted] = trio.CancelScope()
        try:
            with waiting:
                while not hosted.is_settled and self.is_open:
                    try:
                        await trio.sleep(pause)
                    finally:
                        # Who is left tries once more.
                        await self.mend(hosted)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            del self._waiting[hosted]
            self._news.unpark_all()

    def _give_up(self, hosted: HostedRun) -> None:
        """Leave its log as it is, and remember nothing of it."""
        hosted.is_settled = True
        if hosted.claim is None:
            hosted.is_unwanted = True
        else:
            hosted.is_fenced = True
        if (waiting := self._waiting.get(hosted)) is not None:
            waiting.cancel(reason="its log is given up")
        if self._cut.get(hosted.key) is hosted:
            del self._cut[hosted.key]


def is_of_store(exc: BaseException) -> bool:
    """Whether a store is to blame: not for a Ctrl-C, nor where we are cancelled ourselves.

    A `trio.Cancelled` that it kept from elsewhere is a failure like any other.
    """
    errors = list(leaves(exc))
    if any(isinstance(error, KeyboardInterrupt | SystemExit) for error in errors):
        return False
    if any(isinstance(error, trio.Cancelled) for error in errors):
        return trio.current_effective_deadline() > -math.inf
    return True
