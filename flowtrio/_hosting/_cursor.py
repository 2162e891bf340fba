"""A cursor into a log as its store has it, which tells if the log is not the one it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs
import trio

from flowtrio._core._events import AgentEvent
from flowtrio._core._exceptions import ReplayGap

from ._mending import READ_AT_ONCE, STORE_DEADLINE

if TYPE_CHECKING:
    from flowtrio.abc import EventStore, RunHeader

    from ._hosted import Key

_LOOK_AGAIN: Final = 30.0
"""Seconds after which one who waits for a run elsewhere looks: what wakes him may be lost too."""


@attrs.define(eq=False)
class Cursor:
    """Reads one run's log, from wherever its reader is."""

    _store: EventStore
    _owner: str
    """Who hosts runs here."""
    _key: Key
    header: RunHeader | None = attrs.field(default=None, init=False)
    """The log's, since it was asked for."""
    last: AgentEvent | None = attrs.field(default=None, init=False)
    """The event that was read last."""

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

    async def read_elsewhere(self, seq: int) -> Sequence[AgentEvent]:
        """Read a run that has ended, or goes on in another process."""
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
