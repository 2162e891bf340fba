"""This process among those that share a store.

What it does of its own, as long as the orchestrator is open, and until all of its runs have ended::

    lease       one name at a time, under which it owns runs
    worker      claims runs that wait, unless it is a gateway
    reaper      gives those an end who have nobody to end them
    orphans     are runs of ours of which the store has lost the end
    commands    are taken for runs here, and sent to where others are

`flowtrio.abc.SharedStore` tells who calls what. A store that fails ends none of this: it goes on
when the store is there again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs
import trio

from flowtrio._core._interrupted import cancelled_end
from flowtrio._core._telling import tell
from flowtrio.abc._stores import opening_of

from ._bringing import brings_nothing
from ._commands import Commands
from ._lease import Lease
from ._mending import STORE_DEADLINE
from ._orphans import Orphans
from ._reaping import Reaper
from ._recorder import of_another_message
from ._worker import Worker

if TYPE_CHECKING:
    from flowtrio._run._stream import EventStream
    from flowtrio.abc import RunHeader, SharedStore

    from ._claims import Claim
    from ._hosted import HostedRun
    from ._recorder import Recorder
    from ._sessions import OnBusy

Role: TypeAlias = Literal["both", "gateway", "worker"]
_PAUSE: Final = 1.0
"""Seconds until something goes on that the store has failed."""
_LOOK_EVERY: Final = 0.05
"""Seconds between two looks whether a run that was cancelled has ended."""
_NEWER: Final = "a newer message came in the same conversation"


@attrs.frozen
class Started:
    """A run that somebody, somewhere, will run."""

    run_id: str


@attrs.define(eq=False, kw_only=True)
class Cluster:
    """What one process does as one of several."""

    store: SharedStore
    recorder: Recorder
    role: Role
    ttl: float
    capacity: float
    on_busy: OnBusy
    queue_length: float
    queue_wait: float
    runs_per_tenant: float | None
    make_stream: Callable[[Claim], EventStream]
    find_nursery: Callable[[], trio.Nursery | None]
    lease: Lease = attrs.field(init=False)
    commands: Commands = attrs.field(init=False)
    worker: Worker = attrs.field(init=False)
    orphans: Orphans = attrs.field(init=False)
    reaper: Reaper = attrs.field(init=False)
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _ended: trio.Event | None = attrs.field(default=None, init=False)
    """Set when it has ended; None before it begins."""

    def __attrs_post_init__(self) -> None:
        store, recorder = self.store, self.recorder
        self.lease = Lease(store, self.ttl, self._prepare, self._fence_all)
        self.commands = Commands(store, self.lease, recorder, self._spawn)
        self.orphans = Orphans(store, self.lease, recorder)
        self.worker = Worker(
            *(store, self.lease, recorder, self.make_stream, self.find_nursery, self.capacity),
            self.orphans.note,
        )
        self.reaper = Reaper(store, self.lease, recorder.meter, self.queue_wait)

    # As long as the orchestrator is open

    def open(self) -> None:
        """Begin. What may not be opened, others refuse."""
        if self._ended is not None or not trio.lowlevel.in_trio_task():
            return
        self.worker.is_stopped = False
        self._ended = trio.Event()
        # In nobody's scope: whoever is cancelled around us has runs to end, and needs the lease for
        # that.
        trio.lowlevel.spawn_system_task(self._live, self._ended, name="flowtrio cluster")

    async def _live(self, ended: trio.Event) -> None:
        tasks = [self.lease.keep_for_ever, self.reaper.reap_for_ever, self.orphans.look_for_ever]
        tasks.append(self.worker.watch_for_ever)
        if self.role != "gateway":
            tasks.append(self.worker.claim_for_ever)
        try:
            async with trio.open_nursery() as self._nursery:
                for task in tasks:
                    self._nursery.start_soon(self._go_on, task, name=f"flowtrio {task.__name__}")
        finally:
            self._nursery = None
            ended.set()

    async def close(self) -> None:
        """End, when nothing is run here any more: what was claimed and not begun is given back."""
        ended, self._ended = self._ended, None
        assert ended is not None
        with trio.CancelScope(shield=True):
            await self.lease.leave(self.lease.owner)
            self.commands.close()
            if self._nursery is not None:
                self._nursery.cancel_scope.cancel(reason="the orchestrator was closed")
            await ended.wait()
        self.lease.renew_name()

    async def _go_on(self, task: Callable[[], Awaitable[None]]) -> None:
        """Do something for ever, whatever the store raises meanwhile."""
        is_told = False
        while True:
            began = trio.current_time()
            try:
                await task()
            except Exception as exc:
                is_told = is_told and trio.current_time() < began + 60
                if not is_told:
                    tell(logging.ERROR, "the shared store failed this process", exc=exc)
                is_told = True
            await trio.sleep(_PAUSE)

    def _fence_all(self, owner: str) -> None:
        """A name was given up: all that was run under it ends here."""

        def is_meant(hosted: HostedRun) -> bool:
            return hosted.named == (owner,)

        for hosted in filter(is_meant, list(self.recorder.runs.values())):
            self.recorder.fence(hosted)
        self.recorder.unsettled.give_up(is_meant)

    async def _prepare(self, owner: str) -> None:
        await self.commands.listen_as(owner)

    def _spawn(self, fn: Callable[..., Awaitable[None]], *args: Any) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._try, fn, *args)

    async def _try(self, fn: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Do something once. What it raises would be the end of the process's Trio loop."""
        try:
            await fn(*args)
        except Exception as exc:
            tell(logging.ERROR, "the shared store failed this process", exc=exc)

    # Starts

    @asynccontextmanager
    async def starting(self, header: RunHeader) -> AsyncIterator[Started]:
        """Have a run wait to be claimed, unless there is one of its key.

        Raises:
          LimitExceeded: the conversation or the tenant is busy.
          RunExists: there is one of its key that answers another message.
          trio.TooSlowError: the store takes too long; what it raises itself is raised too.

        """
        with trio.fail_after(STORE_DEADLINE):
            if not await self._start(header):
                found = await self.store.header(header.tenant_id, header.run_id)
                answers = None if found is None else (found.message, found.digest)
                if answers not in (None, (header.message, header.digest)):
                    raise of_another_message(header.run_id)
        yield Started(header.run_id)

    async def _start(self, header: RunHeader) -> bool:
        """Begin its log; False if there is one."""
        on_busy = self.on_busy if header.is_remembered else "queue"
        if on_busy == "post" and (posted := await self._post(header)) is not None:
            return posted
        length = {"cancel": float("inf"), "reject": 0}.get(on_busy, self.queue_length)
        is_new = await self.store.enqueue(
            header, queue_length=length, runs_per_tenant=self.runs_per_tenant
        )
        if is_new and on_busy == "cancel":
            await self._cancel_those_before(header)
        return is_new

    async def _line(self, header: RunHeader) -> list[str]:
        """The runs of its conversation that are before it."""
        assert header.session_id is not None
        line = list(await self.store.line(header.tenant_id, header.session_id))
        return line[: line.index(header.run_id)] if header.run_id in line else line

    async def _cancel_those_before(self, header: RunHeader) -> None:
        async with trio.open_nursery() as nursery:
            for run_id in await self._line(header):
                nursery.start_soon(self.cancel, header.tenant_id, run_id, _NEWER)

    def cancel_soon(self, tenant_id: str, run_id: str, reason: str) -> None:
        """Cancel a run, wherever it lives, when there is time."""
        self._spawn(self.cancel, tenant_id, run_id, reason)

    async def cancel(self, tenant_id: str, run_id: str, reason: str) -> None:
        """Cancel a run, wherever it lives, if that can be done."""
        try:
            await self.commands.command(tenant_id, run_id, "cancel", {"reason": reason})
        except Exception as exc:
            tell(logging.WARNING, "run %s: not cancelled: %s", run_id, type(exc).__name__)

    async def _post(self, header: RunHeader) -> bool | None:
        """Say its message to the run before it; None where it has to wait in line.

        Its own log says so. That is begun last: who asks again posts the same again, which is said
        once.
        """
        if not brings_nothing(header.asked):
            return None
        line = await self._line(header)
        # Behind another one that waits, it would be said before that one's message.
        if len(line) != 1 or await self.store.header(header.tenant_id, header.run_id) is not None:
            return None
        before = await self.store.header(header.tenant_id, line[0])
        if before is None or before.agent != header.agent:
            return None
        given = {
            "message": {"text": header.message, "parts": list(header.parts)},
            "post_id": header.run_id,
        }
        try:
            if not await self.commands.command(header.tenant_id, line[0], "post", given):
                return None
        except trio.TooSlowError:
            return None
        own = attrs.evolve(header, owner=self.lease.owner, is_remembered=False)
        events = cancelled_end(opening_of(own), f"its message was posted to run {line[0]}")
        with trio.fail_after(STORE_DEADLINE, shield=True):
            if not await self.store.create(own):
                return False
            await self.store.append(own.tenant_id, own.run_id, -1, events, own.owner)
        return True

    # Ends

    async def clear(self, tenant_id: str, session_id: str, reason: str) -> None:
        """Cancel a conversation's runs, wherever they live, and wait until they have ended.

        Those too that stand in no line, as nothing of them is remembered.
        """
        runs = await self.store.list(tenant_id, session_id)
        apart = [run.run_id for run in runs if not run.is_remembered and run.ended_at is None]
        with trio.fail_after(2 * STORE_DEADLINE):
            while line := await self.store.line(tenant_id, session_id):
                for run_id in reversed(line):
                    await self.cancel(tenant_id, run_id, reason)
                await trio.sleep(_LOOK_EVERY)
        for run_id in apart:
            await self.clear_run(tenant_id, run_id, reason)
        await self.recorder.forget_session(tenant_id, session_id, reason)

    async def clear_run(self, tenant_id: str, run_id: str, reason: str) -> None:
        """Cancel a run, wherever it lives, and wait for its end, if that comes soon."""
        with trio.move_on_after(2 * STORE_DEADLINE):
            while (header := await self.store.header(tenant_id, run_id)) is not None:
                if header.ended_at is not None:
                    return
                await self.cancel(tenant_id, run_id, reason)
                await trio.sleep(_LOOK_EVERY)

    def stop_claiming(self) -> None:
        """Begin no more runs: those that wait are for others."""
        self.worker.is_stopped = True
