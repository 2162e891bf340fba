"""The suite for shared stores: ours pass it, and wrong variants of one do not."""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
import pytest

from flowtrio.abc import RecoverableConversations, SharedStore
from flowtrio.stores._rules import check_append
from flowtrio.testing import LeasedStore, check_event_store, check_shared_store
from flowtrio.testing._leased_place import SharedPlace, SharedRun


def place_of(kind: type[SharedPlace]) -> Any:
    """What two processes see of a place of this kind."""
    one = LeasedStore()
    one._place = one.conversations._place = kind(one._place.clock)
    return one, one.beside(), one.conversations


async def test_the_store_with_leases_passes(autojump_clock: Any) -> None:
    await check_shared_store(lambda: place_of(SharedPlace))


async def test_it_is_a_store_like_any_other(autojump_clock: Any) -> None:
    await check_event_store(LeasedStore)


async def test_a_place_may_be_made_by_a_coroutine_and_is_closed(autojump_clock: Any) -> None:
    closed: list[object] = []

    class Closes(LeasedStore):
        async def aclose(self) -> None:
            closed.append(self)

    async def make() -> Any:
        one = Closes()
        return one, one.beside(), one.conversations

    await check_shared_store(make)

    assert len(closed) > 20


def test_it_is_known_by_its_methods() -> None:
    store = LeasedStore(lambda: 0.0)

    assert isinstance(store, SharedStore)
    assert isinstance(store.conversations, RecoverableConversations)


# Planted bugs


class EnqueuesAnew(SharedPlace):
    def enqueue(self, header: Any, *limits: Any) -> bool:
        self.runs.pop((header.tenant_id, header.run_id), None)
        return super().enqueue(header, *limits)


class LooksAtLimitsFirst(SharedPlace):
    def enqueue(self, header: Any, queue_length: float, runs_per_tenant: Any) -> bool:
        line = self.lines.get((header.tenant_id, header.session_id or ""), [])
        if len(line) > queue_length:
            self.runs.pop((header.tenant_id, header.run_id), None)
        return super().enqueue(header, queue_length, runs_per_tenant)


class HasNoLines(SharedPlace):
    def enqueue(self, header: Any, *limits: Any) -> bool:
        return super().enqueue(attrs.evolve(header, is_remembered=False), *limits)


class CountsNoTenants(SharedPlace):
    def enqueue(self, header: Any, queue_length: float, runs_per_tenant: Any) -> bool:
        return super().enqueue(header, queue_length, None)


class CountsAllTenants(SharedPlace):
    def unended(self) -> Any:
        for run in super().unended():
            yield attrs.evolve(run, header=attrs.evolve(run.header, tenant_id="t"))


class CountsTheDead(SharedPlace):
    def unended(self) -> Any:
        return iter(self.runs.values())


class ClaimsTheNewest(SharedPlace):
    def claim(self, owner: str, ttl: float) -> Any:
        self.queue.reverse()
        return super().claim(owner, ttl)


class LosesClaims(SharedPlace):
    def claim(self, owner: str, ttl: float) -> Any:
        self.claims.clear()
        return super().claim(owner, ttl)


class ClaimsForNobody(SharedPlace):
    def claim(self, owner: str, ttl: float) -> Any:
        header = super().claim(owner, ttl)
        if header is not None:
            self.runs[header.tenant_id, header.run_id].header = attrs.evolve(header, owner=None)
        return header


class ClaimsForTheDead(SharedPlace):
    def claim(self, owner: str, ttl: float) -> Any:
        self.renew(owner, ttl)
        return super().claim(owner, ttl)


class ForgetsWhatWasAsked(SharedPlace):
    def enqueue(self, header: Any, *limits: Any) -> bool:
        return super().enqueue(attrs.evolve(header, asked=None), *limits)


class RenewsNothing(SharedPlace):
    def claim(self, owner: str, ttl: float) -> Any:
        return super().claim(owner, 1e9)


class LetsStrangersIn(SharedPlace):
    def append(self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any) -> None:
        super().append(tenant_id, run_id, after, events, None)


class LooksAtThePlaceFirst(SharedPlace):
    def append(self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any) -> None:
        run = self.get(tenant_id, run_id)
        check_append(run.header, run.last, after, events, None)
        super().append(tenant_id, run_id, after, events, owner)


class TakesWhatIsOwned(SharedPlace):
    def take(self, tenant_id: str, run_id: str, owner: str) -> bool:
        run = self.runs.get((tenant_id, run_id))
        if run is not None:
            run.header = attrs.evolve(run.header, owner=None)
        return super().take(tenant_id, run_id, owner)


class LeavesWhatIsTaken(SharedPlace):
    def take(self, tenant_id: str, run_id: str, owner: str) -> bool:
        queue = self.queue.copy()
        is_ours = super().take(tenant_id, run_id, owner)
        self.queue = queue
        return is_ours


class StopsTheLine(SharedPlace):
    def _withdraw(self, run: SharedRun) -> None:
        before = self.queue.copy()
        super()._withdraw(run)
        if run.has_ended:
            self.queue = deque(key for key in self.queue if key in before)


class KeepsWhatWasDeleted(SharedPlace):
    def _withdraw(self, run: SharedRun) -> None:
        queue = self.queue.copy()
        super()._withdraw(run)
        if not run.has_ended:
            self.queue.extend(key for key in queue if key not in self.queue)
            self.runs.setdefault(run.key, run)


class NeverLapses(SharedPlace):
    def lives(self, owner: Any) -> bool:
        return owner in self.leases


class LapsesAtOnce(SharedPlace):
    def renew(self, owner: str, ttl: float) -> bool:
        return super().renew(owner, ttl / 100)


class JudgesWhoHadNoLease(SharedPlace):
    def create(self, header: Any) -> bool:
        if header.owner is not None:
            self.leases.setdefault(header.owner, self.clock())
        return super().create(header)


class ClosesTheLiving(SharedPlace):
    def close(self, header: Any, *rest: Any) -> None:
        lease = self.leases.get(header.owner, self.clock())
        self.leases[header.owner] = self.clock()
        super().close(header, *rest)
        self.leases[header.owner] = lease


class ClosesForAnybody(SharedPlace):
    def close(self, header: Any, after: int, events: Any, said: Any, by: Any = None) -> None:
        super().close(header, after, events, said, by and header.owner)


class ClosesForNoOwner(SharedPlace):
    def close(self, header: Any, after: int, events: Any, said: Any, by: Any = None) -> None:
        super().close(header, after, events, said)


class OwnsNothing(SharedPlace):
    def owned(self, owner: str) -> Any:
        return {}


class ClosesWithoutDone(SharedPlace):
    def close(self, header: Any, after: int, events: Any, said: Any, by: Any = None) -> None:
        if events[-1].type != "done":
            return self._add(self.get(header.tenant_id, header.run_id), events)
        return super().close(header, after, events, said, by)


class ClosesForTheDead(SharedPlace):
    def close(self, header: Any, *rest: Any) -> None:
        super().close(header, *rest)
        run = self.get(header.tenant_id, header.run_id)
        run.header = attrs.evolve(run.header, owner=header.owner)


class TellsTwice(SharedPlace):
    def save_after(self, tenant_id: str, session_id: str, run_id: str, *rest: Any) -> None:
        super().save_after(tenant_id, session_id, run_id, *rest)
        self.runs[tenant_id, run_id].is_told = False


class TellsNothing(SharedPlace):
    def close(self, header: Any, after: int, events: Any, said: Any, by: Any = None) -> None:
        super().close(header, after, events, None, by)


class SavesForAnybody(SharedPlace):
    def save_after(self, tenant_id: str, session_id: str, run_id: str, *rest: Any) -> None:
        super().save_after(tenant_id, session_id, run_id, rest[0], None)


class SavesForTheDead(SharedPlace):
    def save_after(self, tenant_id: str, session_id: str, run_id: str, *rest: Any) -> None:
        run = self.runs.get((tenant_id, run_id))
        is_over = run is not None and run.has_ended and run.header.owner == rest[1]
        super().save_after(tenant_id, session_id, run_id, rest[0], None if is_over else rest[1])


class KeepsWhatWasNotBegun(SharedPlace):
    def leave(self, owner: str) -> None:
        self.leases[owner] = self.clock()


class LeavesToTheEnd(SharedPlace):
    def leave(self, owner: str) -> None:
        super().leave(owner)
        self.queue.rotate(1)


class LeavesAndStays(SharedPlace):
    def leave(self, owner: str) -> None:
        lease = self.leases.get(owner)
        super().leave(owner)
        if lease is not None:
            self.leases[owner] = lease


class CountsListenersTwice(SharedPlace):
    def processes(self, channel: str) -> int:
        return len(self.channels.get(channel, ()))


class HasOneChannel(SharedPlace):
    def listen(self, channel: str, *rest: Any) -> Any:
        return super().listen(channel[:2], *rest)

    def send(self, channel: str, data: bytes) -> int:
        return super().send(channel[:2], data)


class BreaksWithItsCallback(SharedPlace):
    def send(self, channel: str, data: bytes) -> int:
        for listener in self.channels.get(channel, ()):
            listener.callback(data)
        return self.processes(channel)


class TellsOfNoWork(SharedPlace):
    def send(self, channel: str, data: bytes) -> int:
        return 0 if channel == "work" else super().send(channel, data)


class IsNeverLate(SharedPlace):
    def overdue(self, seconds: float) -> Any:
        return []


class IsLateWhileItRuns(SharedPlace):
    def overdue(self, seconds: float) -> Any:
        return super().overdue(seconds) or [run.header for run in self.unended()]


class CountsNothing(SharedPlace):
    def statistics(self) -> Any:
        return attrs.evolve(super().statistics(), in_line=0)


@pytest.mark.parametrize(
    "kind",
    [
        EnqueuesAnew,
        LooksAtLimitsFirst,
        HasNoLines,
        CountsNoTenants,
        CountsAllTenants,
        CountsTheDead,
        ClaimsTheNewest,
        LosesClaims,
        ClaimsForNobody,
        ClaimsForTheDead,
        ForgetsWhatWasAsked,
        RenewsNothing,
        LetsStrangersIn,
        LooksAtThePlaceFirst,
        TakesWhatIsOwned,
        LeavesWhatIsTaken,
        StopsTheLine,
        KeepsWhatWasDeleted,
        NeverLapses,
        LapsesAtOnce,
        JudgesWhoHadNoLease,
        ClosesTheLiving,
        ClosesForAnybody,
        ClosesForNoOwner,
        OwnsNothing,
        ClosesWithoutDone,
        ClosesForTheDead,
        TellsTwice,
        TellsNothing,
        SavesForAnybody,
        SavesForTheDead,
        KeepsWhatWasNotBegun,
        LeavesToTheEnd,
        LeavesAndStays,
        CountsListenersTwice,
        HasOneChannel,
        BreaksWithItsCallback,
        TellsOfNoWork,
        IsNeverLate,
        IsLateWhileItRuns,
        CountsNothing,
    ],
)
async def test_a_wrong_store_does_not(kind: type[SharedPlace], autojump_clock: Any) -> None:
    with pytest.raises((AssertionError, ExceptionGroup)) as caught:
        await check_shared_store(lambda: place_of(kind))
    if isinstance(caught.value, ExceptionGroup):
        assert caught.group_contains(AssertionError)
