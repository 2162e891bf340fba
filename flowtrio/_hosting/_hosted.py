"""A hosted run between its recorder and its followers: the newest events, and who has a seat."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio
from trio.lowlevel import ParkingLot

from flowtrio._core._events import AgentEvent, AgentStatus, EventType
from flowtrio._core._exceptions import Fenced
from flowtrio._core._telling import tell
from flowtrio._run._controls import run_of

if TYPE_CHECKING:
    from flowtrio._run._clock import Alarm
    from flowtrio._run._stream import EventStream
    from flowtrio.abc import RunHeader

    from ._claims import Claim
    from ._meter import Meter

Key = tuple[str, str]
"""A run's key: tenant and run id."""

WAITING: Final = frozenset({AgentStatus.WAITING_FOR_INPUT, AgentStatus.WAITING_FOR_APPROVAL})


@attrs.define(eq=False)
class Seat:
    """A follower's place at a run that is hosted here."""

    patience: float
    """Seconds that the recorder waits for it at most."""
    seq: int
    """The last event it fetched."""
    given: int = attrs.field(default=-1, init=False)
    """The last event its reader took: what the recorder looks at."""
    is_up_to_date: bool = False
    """Whether it has come near the newest event: from then on the recorder waits for it."""

    @classmethod
    def of_starter(cls) -> Seat:
        """The place of one who starts a run, until he follows it or gives up; never waited for."""
        return cls(patience=0, seq=-1)


@attrs.define(eq=False)
class HostedRun:
    """A run that is hosted here, until its last event is stored."""

    stream: EventStream
    header: RunHeader
    resume_window: float
    """Seconds that it goes on without a follower; ``math.inf`` for as long as it takes."""
    lag: int
    """Events that an up to date follower may fall back before the recorder waits."""
    kept: int
    """Events kept of those that the store has taken: for followers, and in case it loses them."""
    claim: Claim | None = None
    """How it was claimed, where processes share the store."""
    is_prompt: bool = False
    """Whether what it says first is seen at once, as its store never waits."""
    is_apart: bool = attrs.field(default=False, init=False)
    """Whether its log may go on otherwise in a shared store: then that is what followers read."""
    is_fenced: bool = attrs.field(default=False, init=False)
    """Whether it is another process's now, and nothing may be said of it here."""
    last: int = attrs.field(default=-1, init=False)
    """The newest event that followers may see; -1 for none."""
    stored: int = attrs.field(default=-1, init=False)
    """The newest event that the store has taken."""
    opening: AgentEvent | None = attrs.field(default=None, init=False)
    """Its first event."""
    recent: list[AgentEvent] = attrs.field(factory=list, init=False)
    """The newest events that followers may see."""
    chunk_at: float | None = attrs.field(default=None, init=False)
    """When its last chunk came; UTC, seconds; None before the first."""
    has_begun: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when it is known whether there will be a run."""
    is_void: bool = attrs.field(default=False, init=False)
    """Whether there is none: the store knows one of this key, or it was refused."""
    is_over: bool = attrs.field(default=False, init=False)
    """Whether no more events will come."""
    failure: BaseException | None = attrs.field(default=None, init=False)
    """What the store raised, if it failed."""
    is_created: bool = attrs.field(default=False, init=False)
    """Whether the store is known to have begun its log."""
    is_unwanted: bool = attrs.field(default=False, init=False)
    """Whether the store is to keep nothing of it."""
    is_settled: bool = attrs.field(default=True, init=False)
    """Whether nothing is left to be done about its log; not once the store has failed."""
    real_end: int | None = attrs.field(default=None, init=False)
    """The last event that the store's log has in common with the run, where it goes on otherwise.
    """
    news: ParkingLot = attrs.field(factory=ParkingLot, init=False)
    """Where followers wait for events."""
    _progress: ParkingLot = attrs.field(factory=ParkingLot, init=False)
    """Where the recorder waits for followers."""
    _seats: dict[Seat, None] = attrs.field(factory=dict, init=False)
    _kept: list[Seat] = attrs.field(factory=list, init=False)
    """Seats among those that are given to whoever takes the next one."""
    _alarm: Alarm | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self.claim is not None:
            self.claim.recent = self.recent

    @property
    def key(self) -> Key:
        """Its key in the store."""
        return self.header.tenant_id, self.header.run_id

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.header.run_id

    @property
    def named(self) -> tuple[str, ...]:
        """In whose name it is appended to, as further arguments; none where nobody asks."""
        return () if self.claim is None else (self.claim.owner,)

    @property
    def has_done(self) -> bool:
        """Whether followers may see its DONE, though it may not be out of the recorder's hands."""
        return bool(self.recent) and self.recent[-1].type is EventType.DONE

    @property
    def is_whole(self) -> bool:
        """Whether the store has taken all, to the end; or there is nothing to take."""
        return self.last < 0 or (self.has_done and self.stored == self.last)

    @property
    def has_never_begun(self) -> bool:
        """Whether its host was cancelled before there was a log."""
        return self.is_over and self.last < 0

    @property
    def seats(self) -> int:
        """How many followers are attached."""
        return len(self._seats) - len(self._kept)

    def fence(self) -> bool:
        """End it, and say nothing of that: its log is another process's. False if that was done."""
        if self.is_fenced:
            return False
        self.failure = Fenced(f"run {self.run_id!r} is another process's")
        self.is_fenced = self.is_apart = self.is_settled = True
        if self.claim is not None:
            self.claim.keep = None
        self.stream.cancel("another process has taken its place")
        self.news.unpark_all()
        return True

    # The followers' side

    def attach(self, seat: Seat) -> None:
        """Take a seat, or keep it."""
        if self._alarm is not None:
            run_of(self.stream).clock.forget(self._alarm)
            self._alarm = None
        self._seats[seat] = None
        while self._kept:
            del self._seats[self._kept.pop()]

    def keep(self) -> None:
        """Keep a seat for whoever takes the next one."""
        seat = Seat.of_starter()
        self._seats[seat] = None
        self._kept.append(seat)

    @contextmanager
    def seated(self) -> Iterator[None]:
        """Have the run not count as left in a block; for one who starts it, or begins anew."""
        seat = Seat.of_starter()
        self.attach(seat)
        try:
            yield
        finally:
            self.detach(seat)

    def detach(self, seat: Seat) -> None:
        """Leave a seat; the run goes on, for its resume window at least."""
        self._seats.pop(seat, None)
        self._progress.unpark_all()
        self.watch()

    def take(self, seat: Seat) -> list[AgentEvent] | None:
        """The events behind the seat's place, if they are among the newest; None if not."""
        recent = self.recent
        first = len(recent) - (self.last - seat.seq)
        return None if first < 0 else recent[first:]

    def note(self, seat: Seat) -> None:
        """A follower's reader comes for more than it was given."""
        seat.given = seat.seq
        self.wake_recorder()

    def fetched(self, seat: Seat, seq: int) -> None:
        """A follower has fetched the events up to *seq*."""
        seat.seq = seq
        seat.is_up_to_date = seat.is_up_to_date or seq >= self.last - self.lag

    # The resume window

    def watch(self) -> None:
        """Have the run cancelled after its resume window, if it has no follower."""
        run = run_of(self.stream)
        is_watched = self.resume_window < math.inf and not run.is_closing
        is_watched = is_watched and self.has_begun.is_set() and not self.is_void
        if is_watched and not self._seats and self._alarm is None:
            self._alarm = run.clock.call_at(trio.current_time() + self.resume_window, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self.stream.status in WAITING:
            # Whoever is asked may take his time. Look again later; at once would be for ever.
            when = trio.current_time() + max(self.resume_window, 1)
            self._alarm = run_of(self.stream).clock.call_at(when, self._ring)
        else:
            seconds = self.resume_window
            came = f"no reader came back within {seconds:g} s" if seconds else "its reader left"
            self.stream.cancel(came)

    # The recorder's side

    def publish(self, batch: Sequence[AgentEvent]) -> None:
        """Let followers see a batch."""
        recent = self.recent
        recent += batch
        self.last = batch[-1].seq
        # What the store has not taken is kept.
        superfluous = min(len(recent) - self.kept, self.stored + 1 - recent[0].seq)
        # Many at once, as each time all others are moved.
        if superfluous > self.kept >> 2:
            del recent[:superfluous]
        self.news.unpark_all()

    def measure(self, meter: Meter, batch: Sequence[AgentEvent]) -> None:
        """Have it measured how fast it speaks."""
        began, last = self.header.created_at, self.chunk_at
        at = meter.note(began if last is None else last, last is not None, batch)
        self.chunk_at = at if at != began or last is not None else None

    async def wait_for_followers(self) -> None:
        """Wait until nobody lags too far behind, or his patience is over."""
        floor = self.last - self.lag
        if floor < 0:
            return
        slow = [seat for seat in self._seats if seat.is_up_to_date and seat.given < floor]
        now = trio.current_time() if slow else 0.0
        for seat in slow:
            with trio.CancelScope(deadline=now + seat.patience) as waiting:
                while (
                    seat in self._seats and seat.given < floor and not run_of(self.stream).is_done
                ):
                    await self._progress.park()
            if waiting.cancelled_caught:
                words = "run %s: a follower took nothing for %g s: the run does not wait for it"
                tell(logging.INFO, words, self.run_id, seat.patience)
                seat.is_up_to_date = False
                self.detach(seat)

    def wake_recorder(self) -> None:
        """Have the recorder look again whom it waits for."""
        if self._progress:
            self._progress.unpark_all()

    def end(self) -> None:
        """No more events will come."""
        self.is_over = True
        self.has_begun.set()
        self.news.unpark_all()
