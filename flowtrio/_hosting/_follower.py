"""`Follower`: a hosted run as one of its readers sees it, by a cursor into the log."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Self

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from flowtrio._core._events import AgentEvent, EventType, StreamMode
from flowtrio._core._modes import View
from flowtrio._core._values import copy_json
from flowtrio._run._controls import run_of
from flowtrio._run._elsewhere import is_elsewhere, read_elsewhere
from flowtrio._run._log import SCHEDULE_EVERY
from flowtrio._run._loops import elsewhere, is_here

from ._cursor import Cursor
from ._followed import FollowedControls
from ._hosted import HostedRun, Seat
from ._recorder import Recorder

if TYPE_CHECKING:
    from flowtrio._run._reading import Reading
    from flowtrio._run._stream import EventStream


class Follower(FollowedControls, AsyncIterator[AgentEvent]):
    """A hosted run's events from a place in its log on. Made by `Orchestrator.attach`.

    Read like an `EventStream`: ``async for``, or `receive_batch`; one task at a time, and a read
    that is cancelled loses nothing. It attaches when it is entered (``async with``) or first read,
    and detaches when it is left, closed, dropped or has given DONE. Detaching does nothing to the
    run. The controls (`cancel`, `cancel_tool`, `approve`, `deny`, `answer`) may be called from any
    thread, attached or not; they tell whether they took effect.
    """

    __slots__ = (
        "__weakref__",
        "_away",
        "_cursor",
        "_is_attached",
        "_is_closed",
        "_is_encoder",
        "_is_over",
        "_is_reading",
        "_ready",
        "_seat",
        "_shown_after",
        "_token",
        "_until_schedule",
        "_view",
        "_wants_snapshot",
        "seq",
    )

    def __init__(
        self,
        recorder: Recorder,
        tenant_id: str,
        run_id: str,
        after: int,
        mode: StreamMode,
        patience: float,
        start: int | None = None,
        *,
        snapshot: bool = False,
    ) -> None:
        # With *start* reading begins there, for whoever makes a view of it and shows what is behind
        # *after* himself.
        self._recorder = recorder
        self._key = (tenant_id, run_id)
        self._mode = mode
        self._view = None if mode is StreamMode.EVENTS else View(mode)
        self._wants_snapshot = snapshot
        is_encoder = start is not None
        if start is None:
            # A state is the fold of all that went before it.
            start = -1 if mode is StreamMode.VALUES else after
        self._shown_after = after
        self._away: Reading | None = None
        """Who reads the log in the Trio thread, where this is read in an asyncio task."""
        self._is_encoder = is_encoder
        """Whether what is given is only looked at, and needs no copies."""
        self._seat = Seat(patience, start)
        self._ready: deque[AgentEvent] = deque()
        self._hosted = None
        self._cursor = Cursor(recorder.store, recorder.owner, self._key, recorder.shared)
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_attached = False
        self._is_closed = False
        self._is_over = False
        self._is_reading = False
        self._until_schedule = SCHEDULE_EVERY
        self.seq: int = after
        """The last event that was given, by its number; ``after`` before the first."""

    @property
    def is_beginning(self) -> bool:
        """Whether the run has told nothing yet, and is about to."""
        hosted = self._hosted
        return hosted is not None and hosted.is_prompt and hosted.last < 0

    # Attaching and detaching

    async def __aenter__(self) -> Self:
        """Attach.

        Raises:
          LookupError: there is no such run.
          ReplayGap: the log cannot be read on from the asked place.
          trio.TooSlowError: the store takes too long; what it raises itself is raised too.

        """
        if self._is_closed:
            raise trio.ClosedResourceError("this follower was closed")
        if is_elsewhere("follower"):
            await self._attach_elsewhere()
        elif not self._is_attached:
            await self._attach()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Detach; the run goes on."""
        self.close()
        if self._away is not None:
            await self._away.leave()

    def close(self) -> None:
        """Detach at once; the run goes on. Reading is over."""
        self._is_closed = True
        self._detach()

    def let_go(self) -> None:
        """Detach, and keep nothing of the run; for one whose reader is stuck elsewhere."""
        self.close()
        self._hosted = None
        self._ready.clear()

    async def aclose(self) -> None:
        """Detach; the run goes on. Reading is over."""
        self.close()
        if self._away is not None:
            await self._away.leave()
        else:
            await checkpoint()

    def __del__(self) -> None:
        # Any thread, at any time: nothing may be done here but to leave word for the loop.
        if self._away is not None:
            self._away.abandon()
        if self._is_attached and self._hosted is not None and self._token is not None:
            hosted, seat = self._hosted, self._seat
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(hosted.detach, seat)

    async def _attach(self) -> None:
        hosted = self._recorder.find(*self._key)
        if hosted is not None:
            _check_here(hosted.stream)
            if not hosted.has_begun.is_set():
                await hosted.has_begun.wait()
            if hosted.is_void or hosted.has_never_begun:
                hosted = None
        await self._check(hosted)
        if self._wants_snapshot:
            self._view = View(self._mode, await self._recorder.newest(*self._key))
        if hosted is not None and not self._is_over:
            self._token = trio.lowlevel.current_trio_token()
            hosted.attach(self._seat)
        self._hosted = hosted
        if hosted is None and not self._is_over:
            await self._cursor.follow()
        self._is_attached = True

    async def _attach_elsewhere(self) -> None:
        """Attach in the Trio thread, and read there for this one."""
        inner = Follower(
            self._recorder,
            *self._key,
            self.seq,
            self._mode,
            self._seat.patience,
            snapshot=self._wants_snapshot,
        )
        was_over: list[bool] = []
        self._away = read_elsewhere(lambda: _attached(inner, was_over), f"a flowtrio {self!r}")
        self._away.begin()
        await self._away.wait_opened()
        self._is_over = was_over[0]

    async def _check(self, hosted: HostedRun | None) -> None:
        """Find the run, see that it can be read on from here, and whether anything is left."""
        after = self._shown_after
        if hosted is not None and hosted.take(self._seat) is not None and after <= hosted.last:
            self._is_over = hosted.has_done and after == hosted.last
            return await checkpoint_if_cancelled()
        if hosted is not None and hosted.real_end is not None and after > hosted.real_end:
            # The store's log goes on otherwise there than the one that was seen.
            raise self._cursor.cut_short(self._seat.seq)
        self._is_over = not await self._cursor.look(self._seat.seq, after)
        return None

    def _detach(self) -> None:
        self._is_attached = False
        if self._away is not None:
            self._away.abandon()
        if self._hosted is not None:
            self._hosted.detach(self._seat)
        self._cursor.leave()

    # Reading

    def __aiter__(self) -> Self:
        """Iterate; outside a block the first step attaches."""
        return self

    async def __anext__(self) -> AgentEvent:
        """Give the next event that the mode shows."""
        if not self._ready:
            try:
                await self._fill()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
        else:
            self._until_schedule -= 1
            if self._until_schedule > 0:
                await checkpoint_if_cancelled()
            else:
                self._until_schedule = SCHEDULE_EVERY
                await checkpoint()
        event = self._ready.popleft()
        self.seq = self._seat.given = event.seq
        if self._hosted is not None:
            self._hosted.wake_recorder()
        return event

    async def receive_batch(self) -> list[AgentEvent]:
        """Wait for an event, and give it with all that are ready after it.

        Raises:
          trio.EndOfChannel: DONE was given before.
          LookupError: there is no such run, or it was deleted.
          ReplayGap: the next events are not kept any more.
          trio.TooSlowError: the store takes too long; what it raises itself is raised too.

        """
        if not self._ready:
            await self._fill()
        else:
            await checkpoint()
        batch = list(self._ready)
        self._ready.clear()
        if self._away is not None:
            batch += self._away.take_ready()
            self._is_over = batch[-1].type is EventType.DONE
        self.seq = self._seat.given = batch[-1].seq
        if self._hosted is not None:
            self._hosted.wake_recorder()
        return batch

    async def _fill(self) -> None:
        """Have something ready, or say that all was given."""
        if self._is_reading:
            raise trio.BusyResourceError(f"another task is reading run {self.run_id!r} here")
        if self._is_closed:
            raise trio.ClosedResourceError("this follower was closed")
        self._is_reading = True
        try:
            while not self._ready:
                if self._away is None and not self._is_attached and is_elsewhere("follower"):
                    await self._attach_elsewhere()
                if self._away is not None:
                    event = await self._away.receive()
                    self._is_over = event.type is EventType.DONE
                    self._ready.append(event)
                    continue
                if self._is_over:
                    await checkpoint()
                    raise trio.EndOfChannel
                self._show(await self._read())
        finally:
            self._is_reading = False

    def _show(self, events: Sequence[AgentEvent]) -> None:
        view = self._view
        if not self._is_encoder:
            # The store, and other readers, have the same ones.
            events = [_copy(event) for event in events]
        if view is None:
            self._ready.extend(events)
        else:
            seen = view.see_all(events)
            self._ready.extend(event for event in seen if event.seq > self._shown_after)
        if events[-1].type is EventType.DONE:
            self._is_over = True
            self._detach()

    async def _read(self) -> Sequence[AgentEvent]:
        """Give the log's next events, waiting for them; the cursor moves when they are given."""
        if not self._is_attached:
            await self._attach()
            if self._is_over:
                raise trio.EndOfChannel
        await checkpoint_if_cancelled()
        hosted, seat = self._hosted, self._seat
        if hosted is None:
            return await self._cursor.read_elsewhere(seat)
        # Whoever was too slow lost his seat, and takes it again by reading on.
        hosted.attach(seat)
        hosted.note(seat)
        while hosted.last == seat.seq and not hosted.is_apart:
            if hosted.is_over:
                raise self._cursor.cut_short(self._seat.seq)
            await hosted.news.park()
        if hosted.is_apart:
            # It goes on elsewhere, or its log does.
            hosted.detach(seat)
            self._hosted = None
            return await self._cursor.read_elsewhere(seat)
        events = hosted.take(seat) or await self._cursor.read(seat.seq)
        if not events:
            # The store has lost what is next, and it is not kept here any more.
            raise self._cursor.cut_short(self._seat.seq)
        self._cursor.last = events[-1]
        hosted.fetched(seat, events[-1].seq)
        return events


@contextlib.asynccontextmanager
async def _attached(follower: Follower, was_over: list[bool]) -> AsyncIterator[Follower]:
    """Attach, and tell whether anything was left to read before anybody did."""
    async with follower:
        was_over.append(follower.is_over)
        yield follower


def _check_here(stream: EventStream) -> None:
    """Refuse a follower in another Trio loop than that of a run which goes on."""
    run = run_of(stream)
    if run.token is not None and not is_here(run.token):
        raise elsewhere("follow", run.info.run_id)


def _copy(event: AgentEvent) -> AgentEvent:
    return AgentEvent(
        event.type,
        copy_json(event.data),
        event.seq,
        event.run_id,
        event.agent,
        event.timestamp,
    )
