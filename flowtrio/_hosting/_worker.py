"""A worker: claims runs that wait in a shared store, and has them run here."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs
import trio

from flowtrio._core._failures import Failure
from flowtrio._core._interrupted import missing_end
from flowtrio._core._telling import tell
from flowtrio.abc import WORK
from flowtrio.abc._stores import opening_of

from ._claims import Claim
from ._hosted import WAITING, HostedRun
from ._mending import STORE_DEADLINE

if TYPE_CHECKING:
    from flowtrio._run._stream import EventStream
    from flowtrio.abc import RunHeader, SharedStore

    from ._lease import Lease
    from ._recorder import Recorder

_LOOK_EVERY: Final = 0.5
"""Seconds between two looks for work: what wakes a worker may be lost."""
_SHORTEST: Final = 2.0
"""Seconds without a follower after which a run is left at the earliest: one who changes the
gateway is away for a moment."""


@attrs.define(eq=False)
class Worker:
    """Runs what it claims."""

    store: SharedStore
    lease: Lease
    recorder: Recorder
    make_stream: Callable[[Claim], EventStream]
    """Makes the stream of a run from what its starter has left."""
    find_nursery: Callable[[], trio.Nursery | None]
    """Where runs live, while they may."""
    capacity: float
    """Runs at once."""
    note: Callable[[Claim], None]
    """Called with each claim that is run here."""
    is_stopped: bool = attrs.field(default=False, init=False)
    """Whether it claims no more."""
    _work: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def claim_for_ever(self) -> None:
        """Claim while there is room, at each message that there is work, and now and then."""
        listening = await self.store.listen(WORK, self._wake)
        try:
            while True:
                with trio.move_on_after(_LOOK_EVERY):
                    await self._work.wait()
                self._work = trio.Event()
                while await self._claim():
                    pass
        finally:
            listening.close()

    def _wake(self, data: bytes) -> None:
        self._work.set()

    async def _claim(self) -> bool:
        """Claim one run; False if there is none, or no room."""
        lease, owner = self.lease, self.lease.owner
        if self.is_stopped or not lease.is_held or len(self.recorder.runs) >= self.capacity:
            return False
        header = await self.store.claim(owner, lease.ttl)
        if header is None:
            return False
        if owner != lease.owner:
            # The name was given up meanwhile, and this with it, unless it came later.
            await lease.leave(owner)
        elif not self.is_stopped:
            self._run(header)
        return True

    def _run(self, header: RunHeader) -> None:
        nursery = self.find_nursery()
        if nursery is None:
            # It is given back with the lease.
            return
        claim = Claim(header)
        if self._runs_already(claim):
            return
        try:
            stream = self.make_stream(claim)
        except Exception as exc:
            tell(logging.ERROR, "run %s: it cannot be run here", header.run_id, exc=exc)
            nursery.start_soon(self._end, header, type(exc).__name__)
        else:
            self.recorder.take_over(nursery, stream, claim)
            self.note(claim)

    def _runs_already(self, claim: Claim) -> bool:
        """Whether it runs here: then the store had lost that, and gets what it lacks by and by."""
        hosted = self.recorder.runs.get(claim.key)
        if hosted is None or hosted.failure is not None:
            return False
        if hosted.header == claim.header:
            return True
        # Another start, of which the first was lost.
        self.recorder.fence(hosted)
        return False

    async def _end(self, header: RunHeader, kind: str) -> None:
        """End a run that was claimed and cannot be made."""
        error = f"the process that claimed it cannot run it: {kind}"
        failure = Failure(error=error, code="not_runnable", source="internal")
        events = missing_end([], opening_of(header), failure)
        try:
            with trio.fail_after(STORE_DEADLINE, shield=True):
                await self.store.append(header.tenant_id, header.run_id, -1, events, header.owner)
        except Exception as exc:
            tell(logging.ERROR, "run %s: its end is not stored", header.run_id, exc=exc)

    # Who is followed by nobody

    async def watch_for_ever(self) -> None:
        """Cancel runs that nobody has followed, in any process, for their resume window."""
        while True:
            await trio.sleep(1)
            for hosted in list(self.recorder.runs.values()):
                if hosted.claim is not None:
                    await self._watch(hosted, hosted.claim)

    async def _watch(self, hosted: HostedRun, claim: Claim) -> None:
        window, now = claim.resume_window, trio.current_time()
        if window == math.inf or now < claim.look_at or not hosted.has_begun.is_set():
            return
        claim.look_at = now + max(1.0, window / 4)
        if hosted.seats or await self.store.followers(*hosted.key):
            claim.followed_at, claim.was_followed = trio.current_time(), True
            return
        is_alone = trio.current_time() >= claim.followed_at + max(window, _SHORTEST)
        if is_alone and hosted.stream.status not in WAITING and claim.may_be_left:
            came = f"no reader came back within {window:g} s" if window else "its reader left"
            hosted.stream.cancel(came)
