"""A cursor into a log as its store has it, which tells if the log is not the one it was."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs
import trio

from flowtrio._core._events import AgentEvent
from flowtrio._core._exceptions import ReplayGap

from ._mending import READ_AT_ONCE, STORE_DEADLINE

if TYPE_CHECKING:
    from flowtrio.abc import EventStore, Listening, RunHeader, SharedStore

    from ._hosted import Key, Seat

_LOOK_AGAIN: Final = 30.0
"""Seconds after which one who waits for a run elsewhere looks: what wakes him may be lost too."""


@attrs.define(eq=False)
class Cursor:
    """Reads one run's log, from wherever its reader is."""

    _store: EventStore
    _owner: str
    """Who hosts runs here."""
    _key: Key
    _shared: SharedStore | None = None
    """The store, where other processes may append to the log."""
    header: RunHeader | None = attrs.field(default=None, init=False)
    """The log's, since it was asked for."""
    last: AgentEvent | None = attrs.field(default=None, init=False)
    """The event that was read last."""
    _following: Listening | None = attrs.field(default=None, init=False)
    """What tells other processes that somebody follows the run here."""
    _token: trio.lowlevel.TrioToken | None = attrs.field(default=None, init=False)

    # Where processes share the store

    @property
    def is_following(self) -> bool:
        """Whether this counts as one who follows a run elsewhere."""
        return self._following is not None

    async def follow(self) -> None:
        """Count as one, and be told what comes; nothing where nobody else runs runs."""
        if self._shared is not None and self._following is None:
            self._token = trio.lowlevel.current_trio_token()
            with trio.fail_after(STORE_DEADLINE):
                self._following = await self._shared.follow(*self._key)

    def leave(self) -> None:
        """Count no more."""
        following, self._following = self._following, None
        if following is not None:
            following.close()

    def __del__(self) -> None:
        # See `Follower.__del__`.
        if self._following is not None and self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._following.close)

    # Reading

    async def look(self, seq: int, shown: int) -> bool:
        """Find the log, and see that it can be read on; False if nothing is left to come.

        Args:
          seq: The last event that was read.
          shown: The last event that its reader has seen; later than *seq* for one who makes a view.

        """
        tenant_id, run_id = self._key
        with trio.fail_after(STORE_DEADLINE):
            self.header = await self._store.header(tenant_id, run_id)
            if self.header is None:
                raise LookupError(f"no run {run_id!r} is known")
            left = await self._store.read(tenant_id, run_id, seq, 1)
            if shown != seq:
                left = await self._store.read(tenant_id, run_id, shown, 1)
        return self.header.ended_at is None or bool(left)

    async def newest(self) -> int:
        """The newest event that the store has now, by its number; -1 for none."""
        with trio.fail_after(STORE_DEADLINE):
            if not await self._store.read(*self._key, -1, 1):
                return -1
            # It is there, so this is no wait.
            return await self._store.wait_past(*self._key, -1)

    async def read_elsewhere(self, seat: Seat) -> Sequence[AgentEvent]:
        """Read a run that has ended, or goes on in another process."""
        if self._shared is not None:
            events = await self._read_shared(self._shared, seat.seq)
        else:
            events = await self._read_unshared(seat.seq)
        self.last = events[-1]
        seat.seq = events[-1].seq
        return events

    async def _read_unshared(self, seq: int) -> Sequence[AgentEvent]:
        tenant_id, run_id = self._key
        while True:
            if events := await self._read_what_is_there(seq):
                return events
            with trio.fail_after(STORE_DEADLINE):
                header = await self._store.header(tenant_id, run_id)
            if header is None:
                raise LookupError(f"no run {run_id!r} is known any more")
            self.header = header
            if header.ended_at is not None or header.owner == self._owner:
                # It is over. Its end came while we asked, or is not in the store.
                if events := await self.read(seq):
                    return events
                raise self.cut_short(seq)
            with trio.move_on_after(_LOOK_AGAIN):
                await self._store.wait_past(tenant_id, run_id, seq)

    async def _read_shared(self, store: SharedStore, seq: int) -> Sequence[AgentEvent]:
        """Read a run that any process may run, and end: who waits asks for nothing else."""
        await self.follow()
        tenant_id, run_id = self._key
        while True:
            if events := await self._read_what_is_there(seq):
                return events
            newest = seq
            with trio.move_on_after(_LOOK_AGAIN):
                newest = await store.wait_past(tenant_id, run_id, seq)
            if newest > seq:
                continue
            with trio.fail_after(STORE_DEADLINE):
                header = await self._store.header(tenant_id, run_id)
            if header is None:
                raise LookupError(f"no run {run_id!r} is known any more")
            self.header = header
            if header.ended_at is not None:
                # Its end came while we asked, or is before what was seen.
                if events := await self.read(seq):
                    return events
                raise self.cut_short(seq)

    def cut_short(self, seq: int) -> ReplayGap:
        """Tell of a log without an end; with its DONE seen, nobody reads on."""
        return ReplayGap(
            f"the log of run {self._key[1]!r} was cut short after seq {seq}",
            run_id=self._key[1],
            after=seq,
            oldest=None,
        )

    async def _read_what_is_there(self, seq: int) -> Sequence[AgentEvent]:
        """See `read`; nothing where the store has lost what was read last.

        It may get that again from whoever runs the run, and tells when it does.
        """
        try:
            return await self.read(seq)
        except ReplayGap as gap:
            if self.last is None or (gap.oldest is not None and gap.oldest > self.last.seq):
                raise
            return ()

    async def read(self, seq: int) -> Sequence[AgentEvent]:
        """Give what the store has behind *seq*, the last event that was read."""
        with trio.fail_after(STORE_DEADLINE):
            if self.last is not None:
                return await self._read_behind(self.last)
            return await self._store.read(*self._key, seq, READ_AT_ONCE)

    async def _read_behind(self, last: AgentEvent) -> Sequence[AgentEvent]:
        """Read on, if the store still has what was read last."""
        read = self._store.read
        try:
            events = await read(*self._key, last.seq - 1, READ_AT_ONCE + 1)
        except ReplayGap:
            events = ()
        if not events:
            # It has not: it says what it keeps.
            return await read(*self._key, last.seq, READ_AT_ONCE)
        if not _is_same(events[0], last):
            raise self.cut_short(last.seq)
        return events[1:]


def _is_same(one: AgentEvent, other: AgentEvent) -> bool:
    """Whether two events are the same one; their data may have been changed by who read them."""
    return (one.seq, one.type, one.agent, one.timestamp) == (
        *(other.seq, other.type),
        *(other.agent, other.timestamp),
    )
