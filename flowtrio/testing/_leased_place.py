"""What several processes share, in memory: the steps that a server would do, each at once.

The plainest way to say what `flowtrio.abc.SharedStore` means: no step waits, and nothing comes
between. `LeasedStore` is what processes see of it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import attrs
from trio.lowlevel import ParkingLot

from flowtrio._core._events import AgentEvent
from flowtrio._core._telling import tell
from flowtrio.abc import WORK, Message, RunHeader, SharedStatistics
from flowtrio.stores._rules import (
    check_append,
    check_closing,
    header_after,
    read_place,
    refuse_one_more,
    refuse_stranger,
    refuse_unknown,
)
from flowtrio.stores._turns import turns_within

Key = tuple[str, str]


@attrs.define(eq=False)
class SharedRun:
    """A run, its log, and where it stands."""

    header: RunHeader
    waits_since: float | None
    """When it was enqueued; None for one that was not, and is never claimed."""
    is_told: bool
    """Whether its conversation has its part, or need not have it."""
    events: list[AgentEvent] = attrs.field(factory=list)
    news: ParkingLot = attrs.field(factory=ParkingLot)
    number: int = attrs.field(default=0, init=False)
    """Which one it is of all that were created."""

    @property
    def key(self) -> Key:
        """Its tenant and id."""
        return self.header.tenant_id, self.header.run_id

    @property
    def last(self) -> int:
        """Its newest event."""
        return len(self.events) - 1

    @property
    def has_ended(self) -> bool:
        """Whether it has its DONE."""
        return self.header.ended_at is not None

    @property
    def is_waiting(self) -> bool:
        """Whether somebody is to run it."""
        return self.waits_since is not None and self.header.owner is None and not self.has_ended

    @property
    def session(self) -> Key | None:
        """The conversation in whose line it stands, if it does."""
        if self.waits_since is None or not self.header.is_remembered:
            return None
        assert self.header.session_id is not None
        return self.header.tenant_id, self.header.session_id


@attrs.define(eq=False)
class Channel:
    """A process listens to a channel."""

    listeners: list[Channel]
    process: object
    callback: Callable[[bytes], object]

    def close(self) -> None:
        """See `flowtrio.abc.Listening`."""
        if self in self.listeners:
            self.listeners.remove(self)


@attrs.define(eq=False)
class SharedPlace:
    """All that the processes share."""

    clock: Callable[[], float]
    runs: dict[Key, SharedRun] = attrs.field(factory=dict)
    created: int = 0
    queue: deque[Key] = attrs.field(factory=deque)
    lines: dict[Key, list[Key]] = attrs.field(factory=dict)
    leases: dict[str, float] = attrs.field(factory=dict)
    """When the lease of each who ever had one is gone, until that one is forgotten."""
    claims: dict[str, Key] = attrs.field(factory=dict)
    """What was claimed by whom, and may not have arrived."""
    channels: dict[str, list[Channel]] = attrs.field(factory=dict)
    said: dict[Key, list[Message]] = attrs.field(factory=dict)
    """The conversations."""

    # Runs

    def get(self, tenant_id: str, run_id: str) -> SharedRun:
        """A run that there is."""
        run = self.runs.get((tenant_id, run_id))
        return refuse_unknown(run_id) if run is None else run

    def create(self, header: RunHeader) -> bool:
        """Begin a log that does not wait to be claimed."""
        key = (header.tenant_id, header.run_id)
        if key in self.runs:
            return False
        self._keep(SharedRun(header, None, not header.is_remembered))
        return True

    def enqueue(
        self, header: RunHeader, queue_length: float, runs_per_tenant: float | None
    ) -> bool:
        """Begin a log that waits to be claimed."""
        run = SharedRun(header, self.clock(), not header.is_remembered)
        if run.key in self.runs:
            return False
        count = sum(other.header.tenant_id == header.tenant_id for other in self.unended())
        if runs_per_tenant is not None and count >= runs_per_tenant:
            refuse_one_more(header, "tenant", count)
        line = [] if run.session is None else self.lines.get(run.session, [])
        if len(line) > queue_length:
            refuse_one_more(header, "session", len(line))
        self._keep(run)
        if run.session is not None:
            self.lines[run.session] = [*line, run.key]
        if not line:
            self._offer(run.key)
        return True

    def _keep(self, run: SharedRun) -> None:
        self.created += 1
        run.number = self.created
        self.runs[run.key] = run

    def append(
        self,
        tenant_id: str,
        run_id: str,
        after: int,
        events: Sequence[AgentEvent],
        owner: str | None,
    ) -> None:
        """Append, for its owner."""
        run = self.get(tenant_id, run_id)
        check_append(run.header, run.last, after, events, owner)
        self._add(run, events)

    def _add(self, run: SharedRun, events: Sequence[AgentEvent]) -> None:
        run.events += events
        run.header = header_after(run.header, events[-1])
        if run.has_ended:
            run.header = attrs.evolve(run.header, parts=(), asked=None)
            self._withdraw(run)
        run.news.unpark_all()

    def forget(self, is_meant: Callable[[RunHeader], bool]) -> int:
        """Forget runs; gives how many."""
        runs = [run for run in self.runs.values() if is_meant(run.header)]
        for run in runs:
            del self.runs[run.key]
            self._withdraw(run)
            run.news.unpark_all()
        return len(runs)

    def unended(self) -> Iterator[SharedRun]:
        """Those without a DONE, oldest first."""
        return (run for run in self.runs.values() if not run.has_ended)

    def newest(self, tenant_id: str | None, before: str | None, limit: int) -> list[SharedRun]:
        """Those that were created last, before a place."""
        end = self.created + 1 if before is None else read_place(before)
        found = (
            run
            for run in reversed(self.runs.values())
            if run.number < end and tenant_id in (None, run.header.tenant_id)
        )
        return list(islice(found, limit))

    # The queue, and lines

    def _offer(self, key: Key) -> None:
        self.queue.append(key)
        self.send(WORK, b"")

    def _withdraw(self, run: SharedRun) -> None:
        """A run has come to its end, or was forgotten: the next one's turn comes."""
        if run.key in self.queue:
            self.queue.remove(run.key)
        line = self.lines.get(run.session, []) if run.session is not None else []
        if run.session is None or run.key not in line:
            return
        was_first = line[0] == run.key
        line.remove(run.key)
        if not line:
            del self.lines[run.session]
        elif was_first and self.runs[line[0]].is_waiting:
            self._offer(line[0])

    def claim(self, owner: str, ttl: float) -> RunHeader | None:
        """Own the first of the queue; or the one before, if that did not arrive."""
        if owner in self.leases and not self.lives(owner):
            return None
        self.renew(owner, ttl)
        before = self.runs.get(self.claims.get(owner, ("", "")))
        if before is not None and before.header.owner == owner and not before.has_ended:
            return before.header
        if not self.queue:
            return None
        key = self.claims[owner] = self.queue.popleft()
        run = self.runs[key]
        run.header = attrs.evolve(run.header, owner=owner)
        return run.header

    def take(self, tenant_id: str, run_id: str, owner: str) -> bool:
        """Own a run that waits, to end it."""
        run = self.runs.get((tenant_id, run_id))
        if run is None or not run.is_waiting:
            return False
        if run.key in self.queue:
            self.queue.remove(run.key)
        run.header = attrs.evolve(run.header, owner=owner)
        return True

    def overdue(self, seconds: float) -> list[RunHeader]:
        """Those that have waited for so long."""
        since = self.clock() - seconds
        return [
            run.header
            for run in self.runs.values()
            if run.is_waiting and run.waits_since is not None and run.waits_since <= since
        ]

    # Leases

    def lives(self, owner: str | None) -> bool:
        """Whether somebody has a lease."""
        return owner is not None and self.leases.get(owner, self.clock()) > self.clock()

    def renew(self, owner: str, ttl: float) -> bool:
        """Have a lease last from now on; gives whether there was one."""
        lived = self.lives(owner)
        self.leases[owner] = self.clock() + ttl
        return lived

    def leave(self, owner: str) -> None:
        """Give a lease up, and give back what was never begun."""
        self.claims.pop(owner, None)
        if owner in self.leases:
            self.leases[owner] = self.clock()
        begun = [run for run in self._owned_by(owner) if run.events or run.waits_since is None]
        for run in reversed(list(self._owned_by(owner))):
            if run not in begun:
                run.header = attrs.evolve(run.header, owner=None)
                self.queue.appendleft(run.key)
                self.send(WORK, b"")

    def lost(self) -> list[RunHeader]:
        """The runs of those whose lease is gone."""
        dead = [owner for owner in self.leases if not self.lives(owner)]
        found = [run.header for run in self.unended() if run.header.owner in dead]
        owners = {header.owner for header in found}
        for owner in dead:
            if owner not in owners:
                del self.leases[owner]
        return found

    def owned(self, owner: str) -> dict[Key, int]:
        """The runs of one, and where their logs end."""
        return {run.key: run.last for run in self._owned_by(owner)}

    def _owned_by(self, owner: str) -> Iterator[SharedRun]:
        return (run for run in self.unended() if run.header.owner == owner)

    def close(
        self,
        header: RunHeader,
        after: int,
        events: Sequence[AgentEvent],
        said: Sequence[Message] | None,
        by: str | None = None,
    ) -> None:
        """End a run whose owner is gone."""
        run = self.get(header.tenant_id, header.run_id)
        is_same = run.header.owner == header.owner and not run.has_ended
        is_dead = header.owner in self.leases and not self.lives(header.owner)
        if not is_same or not (is_dead or by == header.owner):
            refuse_stranger(header.run_id)
        check_append(run.header, run.last, after, events, None)
        check_closing(header.run_id, events)
        run.header = attrs.evolve(run.header, owner=None)
        self._add(run, events)
        if said is not None and not run.is_told:
            assert header.session_id is not None
            session = (header.tenant_id, header.session_id)
            self.save(*session, [*self.said.get(session, ()), *said])
            run.is_told = True

    # Conversations

    def save(self, tenant_id: str, session_id: str, messages: Sequence[Message]) -> None:
        """Replace a conversation."""
        self.said[tenant_id, session_id] = turns_within(messages, 200, 2**24)[0]

    def save_after(
        self,
        tenant_id: str,
        session_id: str,
        run_id: str,
        messages: Sequence[Message],
        owner: str | None,
    ) -> None:
        """Replace a conversation by what a run has made of it."""
        run = self.runs.get((tenant_id, run_id))
        if owner is not None and (run is None or run.has_ended or run.header.owner != owner):
            refuse_stranger(run_id)
        self.save(tenant_id, session_id, messages)
        if run is not None:
            run.is_told = True

    # Channels

    def send(self, channel: str, data: bytes) -> int:
        """Call who listens; gives how many processes do."""
        listeners = list(self.channels.get(channel, ()))
        for listener in listeners:
            try:
                listener.callback(data)
            except Exception as exc:
                tell(logging.ERROR, "what listens to channel %r failed", channel, exc=exc)
        return self.processes(channel)

    def processes(self, channel: str) -> int:
        """How many processes listen."""
        return len({id(listener.process) for listener in self.channels.get(channel, ())})

    def listen(self, channel: str, process: object, callback: Callable[[bytes], object]) -> Channel:
        """Have somebody called."""
        listeners = self.channels.setdefault(channel, [])
        listener = Channel(listeners, process, callback)
        listeners.append(listener)
        return listener

    def statistics(self) -> SharedStatistics:
        """What there is."""
        runs = list(self.unended())
        leases = [at - self.clock() for owner, at in self.leases.items() if self.lives(owner)]
        return SharedStatistics(
            queued=len(self.queue),
            in_line=sum(run.is_waiting for run in runs) - len(self.queue),
            owned=sum(run.header.owner is not None for run in runs),
            processes=len(leases),
            next_lapse=min(leases, default=None),
        )
