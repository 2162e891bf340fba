"""A log that its store did not take, or lost: how it gets its end all the same.

The recorder knows what the run told. What the store holds it can only ask, because a call that
raised, or took too long, has happened or has not, and because a store may come back without its
newest entries. So nothing is ever appended on a guess. Whoever is in doubt reads where the store's
log really ends, and compares what stands there with what was told::

                              ┌─ it is not ours, was ended by others, or says something
                              │  else where we know better ──────────────── REFUSED, for ever
    in doubt ─ read the log ──┼─ it ends as the run does ────────────────── WHOLE
      ▲                       ├─ it ends within what is kept here ─ append the rest ─ WHOLE
      │                       ├─ it ends before all that is kept:
      │                       │    the run goes on ──────────────────────── it fails, and ends
      │                       │    the run has ended ─ append closers, ERROR ``store_failed`` and
      │                       │                        DONE at the real end ─ CLOSED
      └── wait, twice as long ┴─ the store fails again

Two things bring doubt. An append may be *refused*, because the log does not end where it did: the
store has lost something, or an append that was given up has happened after all. Then the run goes
on while this is put right (*healing*), and no follower notices. Or the store *fails*. Then the run
ends at once, its followers are told from memory, and nobody waits: neither the next message of the
conversation nor the end of a server. Only the storing of its end goes on behind it (*mending*), by
itself, until it is done, the orchestrator is left (it tries once more), or too many logs wait for
it: then the one that has waited longest is given up.

What is kept for it are the newest events of the run, and all that the store has not taken. A log
that has lost more cannot be made what it was. It gets an end, but readers who were ahead of that
are told by `ReplayGap`, and never given other events under numbers that they have seen.

A log of which the store knows nothing any more, though it had begun it, was deleted, and stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import attrs

from flowtrio._core._events import AgentEvent
from flowtrio._core._exceptions import Fenced, ReplayGap
from flowtrio._core._failures import Failure
from flowtrio._core._interrupted import missing_end

if TYPE_CHECKING:
    from flowtrio.abc import EventStore, RunHeader

STORE_DEADLINE: Final = 10.0
"""Seconds that one step of the store may take."""
READ_AT_ONCE: Final = 500
"""Events asked of a store at once."""
LOST: Final = Failure(
    error="the store lost events of this run", code="store_failed", source="store"
)
"""How a run failed whose log cannot be made what it was."""


class Refused(Exception):
    """Nothing may be appended to this log from here, now or later."""


class Deleted(Refused):
    """The store knows nothing of it any more."""


class LostTooMuch(Exception):
    """The store's log ends before all that is kept here."""


@attrs.frozen
class Mender:
    """One run's log, as it should be and as its store has it."""

    store: EventStore
    header: RunHeader
    """The log's, as it was created."""
    known: Sequence[AgentEvent]
    """The newest events of the run, without gaps; one or more."""
    named: tuple[str, ...] = ()
    """In whose name it is appended to, where processes share the store: then another one may have
    ended it, and all that is done here raises `Fenced`."""

    async def create(self) -> None:
        """Begin the log, for one of which nobody knows whether it was begun.

        Raises:
          Refused: there is another run of this key.

        """
        if not await self.store.create(self.header):
            self._check_header(await self.store.header(*self._key))

    async def delete(self) -> None:
        """Delete the log of a run that was not let in.

        Raises:
          Refused: it is gone, or there is another run of this key.

        """
        self._check_header(await self.store.header(*self._key))
        tenant_id, run_id = self._key
        await self.store.delete(tenant_id, run_id=run_id)

    async def complete(self, stored: int) -> None:
        """Append what the log lacks of what is known.

        Args:
          stored: The newest event that the store is known to have taken.

        Raises:
          Refused: nothing may be appended; see above.
          LostTooMuch: it ends before all that is known.

        """
        self._check_header(await self.store.header(*self._key))
        at = await self._find_end(stored)
        if lacking := self.known[at + 1 - self._first :]:
            await self.store.append(*self._key, at, lacking, *self.named)

    async def close(self, opening: AgentEvent) -> int:
        """End the log where it ends.

        Args:
          opening: The run's RUN_START.

        Returns:
          The last event that it has in common with the run; -1 if that is not known, because
          somebody has ended it already.

        Raises:
          Refused: nothing may be appended, or its beginning is gone.

        """
        self._check_header(await self.store.header(*self._key))
        log: list[AgentEvent] = []
        try:
            while found := await self._read(len(log) - 1):
                log += found
        except ReplayGap as exc:
            raise Refused("its beginning is not kept any more") from exc
        missing = missing_end(log, opening, LOST)
        if not missing:
            return -1
        await self.store.append(*self._key, len(log) - 1, missing, *self.named)
        return len(log) - 1

    @property
    def _key(self) -> tuple[str, str]:
        return self.header.tenant_id, self.header.run_id

    @property
    def _first(self) -> int:
        return self.known[0].seq

    def _check_header(self, header: RunHeader | None) -> None:
        if header is None:
            raise Deleted("it was deleted")
        ours = self.header
        if self.named and header.owner != ours.owner:
            raise Fenced(f"run {ours.run_id!r} is another process's")
        if (header.owner, header.created_at) != (ours.owner, ours.created_at):
            raise Refused("there is another run of this key")

    async def _find_end(self, stored: int) -> int:
        """Where the log ends, within what is known; all that is there is what was told."""
        if stored >= self._first:
            with suppress(ReplayGap):
                # Nothing was lost, if the last that was taken is there: then there is little to
                # read.
                if (end := await self._compare_behind(stored - 1)) >= stored:
                    return end
        try:
            return await self._compare_behind(self._first - 1)
        except ReplayGap as gap:
            raise LostTooMuch from gap

    async def _compare_behind(self, after: int) -> int:
        try:
            found = await self._read(after)
        except ReplayGap as gap:
            if gap.oldest is None or gap.oldest <= after + 1:
                raise
            # Only its front is gone.
            after = gap.oldest - 1
            found = await self._read(after)
        while found:
            self._compare(found)
            after = found[-1].seq
            found = await self._read(after)
        return after

    def _compare(self, found: Sequence[AgentEvent]) -> None:
        start = found[0].seq - self._first
        known = self.known[start : start + len(found)]
        if start < 0 or list(found) != list(known):
            raise Refused(f"from seq {found[0].seq} on it says something else")

    async def _read(self, after: int) -> Sequence[AgentEvent]:
        return await self.store.read(*self._key, after, READ_AT_ONCE)
