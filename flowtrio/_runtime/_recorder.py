"""Hosted runs: their events go into a store, and everybody reads them there.

The *recorder* is a run's one reader. It appends what it takes to the store and then tells the
followers; so a follower sees only what is stored, and replaying, attaching late and following live
are the same act: reading on from a place. The newest stored events are kept beside the store too,
so that those who follow live need not ask it::

    run ─ channel ─ recorder ─┬─ store ─────────────── followers that come late, or lag
                              └─ the newest, in memory ─ followers that are up to date

Four things that may happen to a run are kept apart. *Attaching* takes a seat at it. *Detaching*
leaves the seat and does nothing to the run; only where a transport set a *resume window*, a run
without any seat taken is cancelled when the window has passed, and not while it waits for a person.
*Cancelling* ends it on purpose. A *deadline* ends it with an ERROR that names itself.

The recorder waits for the slowest of those that are up to date, so that a slow follower slows the
model; but only for its patience. Then that follower loses its seat, and takes one again when it
reads on.

A store that fails ends the run with ERROR ``store_failed``. What it did not take is kept in memory
for the followers, and is stored when the store is there again; `_mending` tells how.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio
from trio.lowlevel import ParkingLot, enable_ki_protection

from flowtrio._core._events import AgentEvent, AgentStatus, EventType
from flowtrio._core._exceptions import LimitExceeded, LocalProtocolError, RunExists
from flowtrio._core._failures import leaves
from flowtrio._core._telling import tell
from flowtrio.abc import RunHeader

from ._clock import Alarm
from ._mending import Deleted, LostTooMuch, Mender, Refused
from ._meter import Meter
from ._stream import EventStream

if TYPE_CHECKING:
    from flowtrio.abc import EventStore

AppendNowait: TypeAlias = "Callable[[str, str, int, Sequence[AgentEvent]], None]"
Key = tuple[str, str]
"""A run's key: tenant and run id."""

STORE_DEADLINE: Final = 10.0
"""Seconds that one step of the store may take."""
_MOST_RECENT: Final = 1024
"""Events that are kept beside the store, once it has taken them."""
_LAGS: Final = 4
"""How many times its lag a run is kept beside a store in this process.

What is read from the store has to be made again, event by event. A follower that is up to date
misses two lags at most; one who starts a run and follows it comes when more than that was said.
"""
_MOST_CUT: Final = 1000
"""Runs that have ended and whose log the store does not hold that are remembered."""
_MEND_AFTER: Final = 0.5
"""Seconds until such a log is offered again; then twice as long each time."""
_LONGEST_PAUSE: Final = 30.0
"""Seconds between two offers at most."""
_WAITING: Final = frozenset({AgentStatus.WAITING_FOR_INPUT, AgentStatus.WAITING_FOR_APPROVAL})


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
    mending: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """Around the time in which its log waits to be offered again."""
    news: ParkingLot = attrs.field(factory=ParkingLot, init=False)
    """Where followers wait for events."""
    _progress: ParkingLot = attrs.field(factory=ParkingLot, init=False)
    """Where the recorder waits for followers."""
    _seats: dict[Seat, None] = attrs.field(factory=dict, init=False)
    _kept: list[Seat] = attrs.field(factory=list, init=False)
    """Seats among those that are left by themselves once somebody else takes one."""
    _alarm: Alarm | None = attrs.field(default=None, init=False)

    @property
    def key(self) -> Key:
        """Its key in the store."""
        return self.header.tenant_id, self.header.run_id

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.header.run_id

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

    # The followers' side

    def attach(self, seat: Seat) -> None:
        """Take a seat, or keep it."""
        if self._alarm is not None:
            self.stream._run.clock.forget(self._alarm)
            self._alarm = None
        self._seats[seat] = None
        while self._kept:
            del self._seats[self._kept.pop()]

    def keep(self, seat: Seat) -> None:
        """Let a seat count until another one is taken."""
        self._kept.append(seat)

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
        run = self.stream._run
        is_watched = self.resume_window < math.inf and not run.is_closing
        is_watched = is_watched and self.has_begun.is_set() and not self.is_void
        if is_watched and not self._seats and self._alarm is None:
            self._alarm = run.clock.call_at(trio.current_time() + self.resume_window, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self.stream.status in _WAITING:
            # Whoever is asked may take his time. Look again later; at once would be for ever.
            when = trio.current_time() + max(self.resume_window, 1)
            self._alarm = self.stream._run.clock.call_at(when, self._ring)
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

    async def wait_for_followers(self) -> None:
        """Wait until nobody lags too far behind, or his patience is over."""
        floor = self.last - self.lag
        if floor < 0:
            return
        slow = [seat for seat in self._seats if seat.is_up_to_date and seat.given < floor]
        now = trio.current_time() if slow else 0.0
        for seat in slow:
            with trio.CancelScope(deadline=now + seat.patience) as waiting:
                while seat in self._seats and seat.given < floor and not self.stream._run.is_done:
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


@attrs.define(eq=False)
class Recorder:
    """Hosts the runs of one orchestrator."""

    store: EventStore
    meter: Meter = attrs.Factory(Meter)
    note_fault: Callable[[BaseException], object] = lambda exc: None
    """Called with what the store raises."""
    is_open: bool = attrs.field(default=True, init=False)
    """Whether there is time to wait for a store that failed."""
    owner: str = attrs.field(factory=lambda: secrets.token_hex(8), init=False)
    """Who we are in the headers of our runs."""
    runs: dict[Key, HostedRun] = attrs.field(factory=dict, init=False)
    """The runs that are hosted here now."""
    _append_nowait: AppendNowait | None = attrs.field(
        default=attrs.Factory(lambda self: _find_append_nowait(self.store), takes_self=True),
        init=False,
    )
    """How to append where that never waits, and so can neither be cancelled nor take too long."""
    _cut: OrderedDict[Key, HostedRun] = attrs.field(factory=OrderedDict, init=False)
    """Runs that have ended and whose log the store does not hold, for those who ask for it."""
    _unsettled: dict[HostedRun, None] = attrs.field(factory=dict, init=False)
    """Runs whose log waits to be offered again."""
    _idle: ParkingLot = attrs.field(factory=ParkingLot, init=False)

    def find(self, tenant_id: str, run_id: str) -> HostedRun | None:
        """The run of this key, if it has to be read here."""
        key = (tenant_id, run_id)
        return self.runs.get(key) or self._cut.get(key)

    async def start(
        self,
        nursery: trio.Nursery,
        stream: EventStream,
        resume_window: float,
        seat: Seat,
        *,
        is_remembered: bool = False,
    ) -> HostedRun:
        """Host a run, unless there is one of its key that answers the same message.

        Whoever starts it has *seat* from the beginning, and has to leave it (`HostedRun.detach`)
        when this has returned. Being cancelled here does not take the start back.

        Raises:
          RunExists: there is one of its key that answers another message.

        """
        info = stream._run.info
        hosted = self.find(info.tenant_id, info.run_id)
        if hosted is None:
            hosted = self._make(stream, resume_window, is_remembered)
            self.runs[hosted.key] = hosted
            nursery.start_soon(self._host, hosted, name=f"flowtrio recorder {info.run_id}")
        hosted.attach(seat)
        try:
            await hosted.has_begun.wait()
            if hosted.has_never_begun and not hosted.is_void:
                raise trio.ClosedResourceError(
                    f"can't start run {info.run_id!r}: its host was cancelled"
                )
            if hosted.stream.refusal is not None and hosted.is_void:
                refusal = hosted.stream.refusal
                raise LimitExceeded(str(refusal), limit=refusal.limit, code=refusal.code)
            answers = await self._find_message(hosted)
            if answers not in (None, info.message):
                raise of_another_message(info.run_id)
        except BaseException:
            hosted.detach(seat)
            raise
        return hosted

    async def _find_message(self, hosted: HostedRun) -> str | None:
        """What the run of this key answers; None where nobody can say."""
        if not hosted.is_void:
            return hosted.header.message
        try:
            with trio.fail_after(STORE_DEADLINE):
                header = await self.store.header(*hosted.key)
        except Exception as exc:
            # Whoever goes on to read this run hears of it.
            tell(logging.ERROR, "run %s: the store failed a start", hosted.run_id, exc=exc)
            return None
        return None if header is None else header.message

    def _make(self, stream: EventStream, resume_window: float, is_remembered: bool) -> HostedRun:
        info = stream._run.info
        header = RunHeader(
            tenant_id=info.tenant_id,
            run_id=info.run_id,
            session_id=info.session_id,
            agent=info.agent_name,
            message=info.message,
            created_at=info.wall_clock(),
            owner=self.owner,
            is_remembered=is_remembered,
        )
        lag = int(min(info.limits.buffer, _MOST_RECENT))
        # What is asked without waiting is in this process, and loses nothing.
        kept = min(_LAGS * lag, _MOST_RECENT) if self._append_nowait is not None else _MOST_RECENT
        return HostedRun(stream, header, resume_window, lag, kept)

    def cancel_all(self, reason: str) -> None:
        """Cancel the runs, those that have not begun too; what is left to store has one try."""
        self.is_open = False
        for hosted in list(self.runs.values()):
            hosted.stream.cancel(reason)
        for hosted in self._unsettled:
            hosted.mending.cancel(reason)

    def fail_all(self, code: str, source: str, error: str) -> None:
        """End the runs with an ERROR: for servers that are told to stop."""
        for hosted in list(self.runs.values()):
            hosted.stream._fail(code, source, error)

    async def forget_session(self, tenant_id: str, session_id: str) -> None:
        """Wait until no run of a conversation has anything to store, and keep nothing of it."""

        def of_session(hosted: HostedRun) -> bool:
            header = hosted.header
            return (header.tenant_id, header.session_id) == (tenant_id, session_id)

        for hosted in filter(of_session, list(self.runs.values())):
            while not hosted.is_over:
                await hosted.news.park()
        for hosted in filter(of_session, [*self._cut.values(), *self._unsettled]):
            self._give_up(hosted)
        while any(map(of_session, self._unsettled)):
            await self._idle.park()

    async def wait_idle(self) -> None:
        """Wait until no run is hosted here."""
        while self.runs:
            await self._idle.park()

    # One hosted run, in the order of its life

    @enable_ki_protection
    async def _host(self, hosted: HostedRun) -> None:
        try:
            await self._create(hosted)
            if not hosted.is_void:
                async with hosted.stream as stream:
                    if stream.refusal is not None:
                        await self._withdraw(hosted)
                    else:
                        await self._record_to_the_end(hosted)
        except Exception as exc:
            # A fault of ours costs this run, and no other.
            hosted.is_settled = not hosted.recent
            tell(logging.ERROR, "run %s: not recorded", hosted.run_id, exc=exc)
        finally:
            del self.runs[hosted.key]
            if not hosted.is_whole and not hosted.is_unwanted:
                self._remember(hosted)
            hosted.end()
            if not self.runs:
                self._idle.unpark_all()
        await self._go_on_mending(hosted)

    async def _create(self, hosted: HostedRun) -> None:
        try:
            with trio.fail_after(STORE_DEADLINE):
                hosted.is_void = not await self.store.create(hosted.header)
            hosted.is_created = True
        except BaseException as exc:
            if not _is_of_store(exc):
                # Nobody will ever hear of this run, and it may have a log.
                hosted.is_unwanted, hosted.is_settled = True, False
                await self._mend(hosted)
            self._fail(hosted, exc)

    async def _withdraw(self, hosted: HostedRun) -> None:
        """The run was not let in: leave no log, so that the same start may be tried again."""
        hosted.is_void = hosted.is_unwanted = True
        tenant_id, run_id = hosted.key
        try:
            with trio.fail_after(STORE_DEADLINE, shield=True):
                await self.store.delete(tenant_id, run_id=run_id)
        except BaseException as exc:
            self._fail(hosted, exc)

    async def _record_to_the_end(self, hosted: HostedRun) -> None:
        run = hosted.stream._run
        run.when_done(hosted.wake_recorder)
        hosted.has_begun.set()
        hosted.watch()
        try:
            await self._record(hosted)
        except trio.Cancelled:
            # Who hosts us is cancelled, and so is the run. Its end is stored all the same.
            hosted.stream.cancel("cancelled from outside")
            within = trio.current_time() + run.limits.grace + STORE_DEADLINE
            with trio.CancelScope(shield=True, deadline=within):
                await self._record(hosted)
            raise

    async def _record(self, hosted: HostedRun) -> None:
        while True:
            try:
                batch = await hosted.stream.receive_batch()
            except trio.EndOfChannel:
                break
            except (KeyboardInterrupt, SystemExit):
                # One that struck within the run: it is told when all was read.
                await self._mend(hosted)
                raise
            if hosted.opening is None:
                hosted.opening = batch[0]
            if hosted.failure is None:
                await self._append(hosted, batch)
            hosted.publish(batch)
            self._measure(hosted, batch)
            await hosted.wait_for_followers()
        await self._mend(hosted)

    def _measure(self, hosted: HostedRun, batch: Sequence[AgentEvent]) -> None:
        began, last = hosted.header.created_at, hosted.chunk_at
        at = self.meter.note(began if last is None else last, last is not None, batch)
        hosted.chunk_at = at if at != began or last is not None else None

    # The store

    async def _append(self, hosted: HostedRun, batch: Sequence[AgentEvent]) -> None:
        tenant_id, run_id = hosted.key
        deadline = trio.current_time() + STORE_DEADLINE
        try:
            if self._append_nowait is not None:
                self._append_nowait(tenant_id, run_id, hosted.stored, batch)
                hosted.stored = batch[-1].seq
                return
            # Shielded: an append of which nobody knows whether it happened would have to be asked
            # for. By hand: for every token, `trio.fail_after` costs twice as much.
            with trio.CancelScope(shield=True, deadline=deadline) as scope:
                await self.store.append(tenant_id, run_id, hosted.stored, batch)
                hosted.stored = batch[-1].seq
            if scope.cancelled_caught:
                raise trio.TooSlowError
        except LocalProtocolError:
            await self._heal(hosted, batch)
        except BaseException as exc:
            self._fail(hosted, exc)

    async def _heal(self, hosted: HostedRun, batch: Sequence[AgentEvent]) -> None:
        """The log does not end where it did: put that right and go on, or fail."""
        mender = Mender(self.store, hosted.header, [*hosted.recent, *batch])
        try:
            with trio.fail_after(STORE_DEADLINE, shield=True):
                await mender.complete(hosted.stored)
            hosted.stored = batch[-1].seq
        except BaseException as exc:
            self._fail(hosted, exc)
        else:
            tell(logging.WARNING, "run %s: the store's log was put right", hosted.run_id)

    async def _mend(self, hosted: HostedRun) -> None:
        """Offer the store once what it lacks of a run that has ended."""
        if hosted.is_settled:
            return
        try:
            with trio.fail_after(STORE_DEADLINE, shield=True):
                await self._settle(hosted, Mender(self.store, hosted.header, hosted.recent))
            hosted.is_settled = True
        except Deleted:
            self._give_up(hosted)
        except Refused as exc:
            hosted.is_settled = True
            tell(logging.ERROR, "run %s: its log is left as it is, for %s", hosted.run_id, exc)
        except BaseException as exc:
            if not _is_of_store(exc):
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

    async def _go_on_mending(self, hosted: HostedRun) -> None:
        """Offer it again, until it is settled or we are left."""
        if hosted.is_settled:
            return
        pause = _MEND_AFTER
        self._unsettled[hosted] = None
        try:
            with hosted.mending:
                while not hosted.is_settled and self.is_open:
                    try:
                        await trio.sleep(pause)
                    finally:
                        # Who is left tries once more.
                        await self._mend(hosted)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            del self._unsettled[hosted]
            self._idle.unpark_all()

    def _fail(self, hosted: HostedRun, exc: BaseException) -> None:
        """The store failed: end the run.

        Raises:
          BaseException: *exc*, if it is not of the store's doing.

        """
        if not _is_of_store(exc):
            raise exc
        hosted.failure = exc
        hosted.is_settled = False
        self.meter.store_failures += 1
        self.note_fault(exc)
        # Its text may name places and people of the operators'.
        hosted.stream._fail("store_failed", "store", f"the store failed: {type(exc).__name__}")
        tell(logging.ERROR, "run %s: the store failed", hosted.run_id, exc=exc)

    def _give_up(self, hosted: HostedRun) -> None:
        """Leave its log as it is, and remember nothing of it."""
        hosted.is_settled = hosted.is_unwanted = True
        hosted.mending.cancel(reason="its log is given up")
        if self._cut.get(hosted.key) is hosted:
            del self._cut[hosted.key]

    def _remember(self, hosted: HostedRun) -> None:
        self._cut[hosted.key] = hosted
        if len(self._cut) > _MOST_CUT:
            self._give_up(next(iter(self._cut.values())))


def of_another_message(run_id: str) -> RunExists:
    """Why a message is not answered under the id of a run that answers another one."""
    return RunExists(
        f"can't start run {run_id!r}: it exists, and answers another message; expected the same "
        "message, or another run_id",
        run_id=run_id,
    )


def _is_of_store(exc: BaseException) -> bool:
    """Whether a store is to blame: not for a Ctrl-C, nor where we are cancelled ourselves.

    A `trio.Cancelled` that it kept from elsewhere is a failure like any other.
    """
    errors = list(leaves(exc))
    if any(isinstance(error, KeyboardInterrupt | SystemExit) for error in errors):
        return False
    if any(isinstance(error, trio.Cancelled) for error in errors):
        return trio.current_effective_deadline() > -math.inf
    return True


def _find_append_nowait(store: EventStore) -> AppendNowait | None:
    for kind in type(store).__mro__:
        # A class that has only `append` of its own means that one.
        if "append_nowait" in vars(kind) or "append" in vars(kind):
            found = vars(kind).get("append_nowait")
            return None if found is None else found.__get__(store)
    return None
