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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._exceptions import Fenced, LimitExceeded, LocalProtocolError, RunExists
from flowtrio._core._telling import tell
from flowtrio._run._controls import fail_run, run_of
from flowtrio._run._stream import receive_gathered, start_in
from flowtrio.abc import RunHeader, SharedStore

from ._cursor import Cursor
from ._hosted import HostedRun, Key
from ._mending import STORE_DEADLINE, Mender
from ._meter import Meter
from ._nowait import find_nowait
from ._unsettled import Unsettled, is_of_store

if TYPE_CHECKING:
    from flowtrio._run._stream import EventStream
    from flowtrio.abc import EventStore

    from ._claims import Claim

_MOST_RECENT: Final = 1024
"""Events that are kept beside the store, once it has taken them."""
_LAGS: Final = 8
"""How many times its lag a run is kept beside a store in this process.

What is read from the store has to be made again, event by event. A follower that is up to date
misses two lags at most, and what is gathered at once; one who starts a run and follows it comes
when more than that was said.
"""


@attrs.define(eq=False)
class Recorder:
    """Hosts the runs of one orchestrator."""

    store: EventStore
    meter: Meter
    note_fault: Callable[[BaseException], object]
    """Called with what the store raises."""
    hear: Callable[[RunHeader, Sequence[AgentEvent]], Awaitable[None]]
    """Called with what was recorded."""
    shared: SharedStore | None = attrs.field(
        default=attrs.Factory(lambda self: _shared(self.store), takes_self=True), init=False
    )
    """The store, where several processes divide its runs."""
    owner: str = attrs.field(factory=lambda: secrets.token_hex(8), init=False)
    """Who we are in the headers of our runs."""
    runs: dict[Key, HostedRun] = attrs.field(factory=dict, init=False)
    """The runs that are hosted here now."""
    _create_nowait: Callable[..., bool] | None = attrs.field(init=False)
    _append_nowait: Callable[..., None] | None = attrs.field(init=False)
    """How to append where that never waits, and so can neither be cancelled nor take too long."""
    unsettled: Unsettled = attrs.field(
        default=attrs.Factory(lambda self: Unsettled(self.store), takes_self=True), init=False
    )
    """Those that have ended and whose log the store does not hold."""

    def __attrs_post_init__(self) -> None:
        self._create_nowait = find_nowait(self.store, "create")
        self._append_nowait = find_nowait(self.store, "append")

    def find(self, tenant_id: str, run_id: str) -> HostedRun | None:
        """The run of this key, if it has to be read here."""
        key = (tenant_id, run_id)
        hosted = self.runs.get(key) or self.unsettled.find(key)
        return None if hosted is not None and hosted.is_apart else hosted

    async def newest(self, tenant_id: str, run_id: str) -> int:
        """The newest event that followers of a run may see, by its number; -1 for none.

        Raises:
          LookupError: there is no such run; what the store raises is raised too.

        """
        hosted = self.find(tenant_id, run_id)
        if hosted is not None:
            await hosted.has_begun.wait()
            if hosted.last >= 0:
                return hosted.last
        return await Cursor(self.store, self.owner, (tenant_id, run_id)).newest()

    @asynccontextmanager
    async def starting(
        self,
        nursery: trio.Nursery,
        stream: EventStream,
        resume_window: float,
        *,
        is_remembered: bool = False,
        begun: Callable[[HostedRun], None] | None = None,
    ) -> AsyncIterator[HostedRun]:
        """Host a run, unless there is one of its key that answers the same message.

        Whoever starts it has a seat from the beginning to the end of the block. Being cancelled
        here does not take the start back. A run that is new is told to *begun*.

        Raises:
          RunExists: there is one of its key that answers another message.

        """
        info = run_of(stream).info
        hosted = self.find(info.tenant_id, info.run_id)
        is_new = hosted is None
        if hosted is None:
            hosted = self._make(stream, resume_window, is_remembered)
            self.runs[hosted.key] = hosted
            name = f"flowtrio recorder {info.run_id}"
            nursery.start_soon(self._host, hosted, nursery, name=name)
        with hosted.seated():
            await hosted.has_begun.wait()
            if hosted.has_never_begun and not hosted.is_void:
                raise trio.ClosedResourceError(
                    f"can't start run {info.run_id!r}: its host was cancelled"
                )
            if hosted.stream.refusal is not None and hosted.is_void:
                refusal = hosted.stream.refusal
                raise LimitExceeded(str(refusal), limit=refusal.limit, code=refusal.code)
            answers = await _find_message(self.store, hosted)
            if answers not in (None, (info.message, info.said.digest)):
                raise of_another_message(info.run_id)
            if is_new and begun is not None and not hosted.is_void:
                begun(hosted)
            yield hosted

    def _make(self, stream: EventStream, resume_window: float, is_remembered: bool) -> HostedRun:
        header = header_of(stream, self.owner, is_remembered=is_remembered)
        lag = _lag_of(stream)
        # What is asked without waiting is in this process, and loses nothing.
        is_prompt = self._append_nowait is not None
        kept = min(_LAGS * lag, _MOST_RECENT) if is_prompt else _MOST_RECENT
        return HostedRun(stream, header, resume_window, lag, kept, is_prompt=is_prompt)

    def take_over(self, nursery: trio.Nursery, stream: EventStream, claim: Claim) -> None:
        """Host a run that was claimed in a store that several processes share."""
        header = claim.header
        hosted = HostedRun(stream, header, math.inf, _lag_of(stream), _MOST_RECENT, claim)
        hosted.is_created = True
        self.runs[hosted.key] = hosted
        name = f"flowtrio recorder {header.run_id}"
        nursery.start_soon(self._host, hosted, nursery, name=name)

    def fence(self, hosted: HostedRun) -> None:
        """Another process has ended this run, or will: end it here, and say nothing of it."""
        if hosted.fence():
            self.meter.fenced += 1

    def cancel_all(self, reason: str) -> None:
        """Cancel the runs, those that have not begun too; what is left to store has one try."""
        for hosted in list(self.runs.values()):
            hosted.stream.cancel(reason)
        self.unsettled.close(reason)

    async def forget_session(self, tenant_id: str, session_id: str, reason: str) -> None:
        """Cancel a conversation's runs, wait until they have nothing to store, and forget them."""
        key = (tenant_id, session_id)
        await self._forget(lambda o: (o.header.tenant_id, o.header.session_id) == key, reason)

    async def forget_run(self, tenant_id: str, run_id: str, reason: str) -> None:
        """Cancel a run if it goes on, wait until it has nothing to store, and forget it."""
        await self._forget(lambda other: other.key == (tenant_id, run_id), reason)

    async def _forget(self, is_meant: Callable[[HostedRun], bool], reason: str) -> None:
        meant = list(filter(is_meant, self.runs.values()))
        for hosted in meant:
            hosted.stream.cancel(reason)
        for hosted in meant:
            while not hosted.is_over:
                await hosted.news.park()
        await self.unsettled.forget(is_meant)

    # One hosted run, in the order of its life

    @enable_ki_protection
    async def _host(self, hosted: HostedRun, nursery: trio.Nursery) -> None:
        try:
            if not hosted.is_created:
                await self._create(hosted)
            if not hosted.is_void:
                await self._run(hosted, nursery)
        except Exception as exc:
            # A fault of ours costs this run, and no other.
            hosted.is_settled = not hosted.recent
            tell(logging.ERROR, "run %s: not recorded", hosted.run_id, exc=exc)
        finally:
            if self.runs.get(hosted.key) is hosted:
                del self.runs[hosted.key]
            if not (hosted.is_whole or hosted.is_unwanted or hosted.is_fenced):
                self.unsettled.add(hosted)
            hosted.end()
        await self.unsettled.go_on(hosted)

    async def _run(self, hosted: HostedRun, nursery: trio.Nursery) -> None:
        """Run it beside us: a nursery of our own costs as much as a dozen of tokens."""
        stream = hosted.stream
        start_in(nursery, stream)
        try:
            if stream.refusal is not None:
                await self._withdraw(hosted)
            else:
                await self._record_to_the_end(hosted)
        finally:
            # Nothing of it is alive once it is not among our runs any more.
            await stream.aclose()

    async def _create(self, hosted: HostedRun) -> None:
        try:
            if self._create_nowait is not None:
                hosted.is_void = not self._create_nowait(hosted.header)
            else:
                with trio.fail_after(STORE_DEADLINE):
                    hosted.is_void = not await self.store.create(hosted.header)
            hosted.is_created = True
        except BaseException as exc:
            if not is_of_store(exc):
                # Nobody will ever hear of this run, and it may have a log.
                hosted.is_unwanted, hosted.is_settled = True, False
                await self.unsettled.mend(hosted)
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
        run = run_of(hosted.stream)
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
                # A store that may fail is asked at once, before the run has done anything.
                begins = hosted.is_prompt and hosted.opening is None
                batch = await receive_gathered(hosted.stream, begins=begins)
            except trio.EndOfChannel:
                break
            except (KeyboardInterrupt, SystemExit):
                # One that struck within the run: it is told when all was read.
                await self.unsettled.mend(hosted)
                raise
            hosted.opening = hosted.opening or batch[0]
            if hosted.failure is None:
                if hosted.claim is not None and batch[-1].type is EventType.DONE:
                    await hosted.claim.keep_late()
                await self._append(hosted, batch)
            hosted.publish(batch)
            hosted.measure(self.meter, batch)
            await self.hear(hosted.header, batch)
            await hosted.wait_for_followers()
        await self.unsettled.mend(hosted)

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
                await self.store.append(tenant_id, run_id, hosted.stored, batch, *hosted.named)
                hosted.stored = batch[-1].seq
            if scope.cancelled_caught:
                raise trio.TooSlowError
            if hosted.claim is not None:
                hosted.claim.has_log.set()
        except Fenced:
            self.fence(hosted)
        except LocalProtocolError:
            await self._heal(hosted, batch)
        except BaseException as exc:
            self._fail(hosted, exc)

    async def _heal(self, hosted: HostedRun, batch: Sequence[AgentEvent]) -> None:
        """The log does not end where it did: put that right and go on, or fail."""
        mender = Mender(self.store, hosted.header, [*hosted.recent, *batch], hosted.named)
        try:
            with trio.fail_after(STORE_DEADLINE, shield=True):
                if hosted.claim is not None and batch[-1].type is EventType.DONE:
                    await hosted.claim.keep_again()
                await mender.complete(hosted.stored)
            hosted.stored = batch[-1].seq
        except Fenced:
            self.fence(hosted)
        except BaseException as exc:
            self._fail(hosted, exc)
        else:
            self.meter.healed += 1
            if hosted.claim is not None:
                hosted.claim.has_log.set()
            tell(logging.WARNING, "run %s: the store's log was put right", hosted.run_id)

    def _fail(self, hosted: HostedRun, exc: BaseException) -> None:
        """The store failed: end the run.

        Raises:
          BaseException: *exc*, if it is not of the store's doing.

        """
        if not is_of_store(exc):
            raise exc
        if hosted.is_fenced:
            return
        hosted.failure = exc
        hosted.is_settled = False
        # What is not stored may never be: where others can end it, their word is the log's.
        hosted.is_apart = hosted.claim is not None
        self.meter.store_failures += 1
        self.note_fault(exc)
        # Its text may name places and people of the operators'.
        fail_run(hosted.stream, "store_failed", "store", f"the store failed: {type(exc).__name__}")
        tell(logging.ERROR, "run %s: the store failed", hosted.run_id, exc=exc)


def header_of(stream: EventStream, owner: str | None, *, is_remembered: bool) -> RunHeader:
    """A run's header, before it has begun."""
    info = run_of(stream).info
    return RunHeader(
        tenant_id=info.tenant_id,
        run_id=info.run_id,
        session_id=info.session_id,
        agent=info.agent_name,
        message=info.message,
        parts=info.said.parts,
        digest=info.said.digest,
        created_at=info.wall_clock(),
        owner=owner,
        is_remembered=is_remembered,
    )


async def _find_message(store: EventStore, hosted: HostedRun) -> tuple[str, str | None] | None:
    """The text and the digest of what the run of this key answers; None if nobody can say."""
    if not hosted.is_void:
        return hosted.header.message, hosted.header.digest
    try:
        with trio.fail_after(STORE_DEADLINE):
            header = await store.header(*hosted.key)
    except Exception as exc:
        # Whoever goes on to read this run hears of it.
        tell(logging.ERROR, "run %s: the store failed a start", hosted.run_id, exc=exc)
        return None
    return None if header is None else (header.message, header.digest)


def _lag_of(stream: EventStream) -> int:
    return int(min(run_of(stream).info.limits.buffer, _MOST_RECENT))


def of_another_message(run_id: str) -> RunExists:
    """Why a message is not answered under the id of a run that answers another one."""
    return RunExists(
        f"can't start run {run_id!r}: it exists, and answers another message; expected the same "
        "message, or another run_id",
        run_id=run_id,
    )


def _shared(store: EventStore) -> SharedStore | None:
    return store if isinstance(store, SharedStore) else None
