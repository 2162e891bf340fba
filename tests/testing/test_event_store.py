"""The suite for stores: both of ours pass it, and wrong variants of one do not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from flowtrio import LocalProtocolError, MemoryStore, SQLiteStore
from flowtrio.testing import check_event_store


async def test_the_store_in_memory_passes(autojump_clock: Any) -> None:
    await check_event_store(MemoryStore)


async def test_the_store_in_a_file_passes(tmp_path: Path) -> None:
    numbers = count()
    await check_event_store(lambda: SQLiteStore(tmp_path / f"{next(numbers)}.db"))


async def test_a_store_may_be_made_by_a_coroutine(autojump_clock: Any) -> None:
    async def make() -> MemoryStore:
        return MemoryStore()

    await check_event_store(make)


class CreatesAnew(MemoryStore):
    async def create(self, header: Any) -> bool:
        self._logs.pop((header.tenant_id, header.run_id), None)
        return await super().create(header)


class LooksBeforeItCreates(MemoryStore):
    async def create(self, header: Any) -> bool:
        if await self.header(header.tenant_id, header.run_id) is not None:
            return False
        await trio.lowlevel.checkpoint()
        await CreatesAnew.create(self, header)  # type: ignore[arg-type]
        return True


class ForgetsWhoOwnsIt(MemoryStore):
    async def create(self, header: Any) -> bool:
        return await super().create(attrs.evolve(header, owner=None))


class LetsStrangersIn(MemoryStore):
    async def append(
        self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any = None
    ) -> None:
        await super().append(tenant_id, run_id, after, events)


class LooksAtThePlaceFirst(MemoryStore):
    async def append(
        self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any = None
    ) -> None:
        log = self._get(tenant_id, run_id)
        if after != log.last:
            owner = None
        await super().append(tenant_id, run_id, after, events, owner)


class OneTenant(MemoryStore):
    async def create(self, header: Any) -> bool:
        return await super().create(attrs.evolve(header, tenant_id="t"))

    def _get(self, tenant_id: str, run_id: str) -> Any:
        return super()._get("t", run_id)


class TakesAnything(MemoryStore):
    async def append(
        self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any = None
    ) -> None:
        log = self._get(tenant_id, run_id)
        log.events.extend(events)
        log.last = log.events[-1].seq if events else log.last
        log.news.unpark_all()


class RefusesByAWordOfItsOwn(MemoryStore):
    async def append(
        self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any = None
    ) -> None:
        try:
            await super().append(tenant_id, run_id, after, events, owner)
        except LocalProtocolError as exc:
            raise ValueError("no") from exc


class TakesSome(MemoryStore):
    async def append(
        self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any = None
    ) -> None:
        for event in events:
            await super().append(tenant_id, run_id, event.seq - 1, [event], owner)
            await trio.lowlevel.checkpoint()


class IsCutShort(MemoryStore):
    async def append(
        self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any = None
    ) -> None:
        await super().append(tenant_id, run_id, after, events[:1], owner)
        await trio.lowlevel.checkpoint()
        if len(events) > 1:
            await super().append(tenant_id, run_id, after + 1, events[1:], owner)


class TakesAPage(MemoryStore):
    async def append(
        self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any = None
    ) -> None:
        if len(events) > 1000:
            raise ValueError("too many events at once")
        await super().append(tenant_id, run_id, after, events, owner)


class IgnoresLimits(MemoryStore):
    async def read(self, tenant_id: str, run_id: str, after: int, limit: int) -> Sequence[Any]:
        return await super().read(tenant_id, run_id, after, 1000)


class GivesTheLastAgain(MemoryStore):
    async def read(self, tenant_id: str, run_id: str, after: int, limit: int) -> Sequence[Any]:
        return await super().read(tenant_id, run_id, max(after - 1, -1), limit)


class HidesGaps(MemoryStore):
    async def read(self, tenant_id: str, run_id: str, after: int, limit: int) -> Sequence[Any]:
        after = min(after, self._get(tenant_id, run_id).last)
        return await super().read(tenant_id, run_id, after, limit)


class UnknownIsEmpty(MemoryStore):
    async def read(self, tenant_id: str, run_id: str, after: int, limit: int) -> Sequence[Any]:
        if (tenant_id, run_id) not in self._logs:
            return []
        return await super().read(tenant_id, run_id, after, limit)


class NeverEnds(MemoryStore):
    async def header(self, tenant_id: str, run_id: str) -> Any:
        header = await super().header(tenant_id, run_id)
        return header and attrs.evolve(header, ended_at=None)


class ListsBackwards(MemoryStore):
    async def list(self, tenant_id: str, session_id: str | None = None) -> Any:
        return (await super().list(tenant_id, session_id))[::-1]


class DeletesAll(MemoryStore):
    async def delete(self, tenant_id: str, **keys: Any) -> int:
        return await super().delete(tenant_id)


class ExpiresWhatGoesOn(MemoryStore):
    async def expire(self, before: float) -> int:
        return self._forget([key for key, log in self._logs.items() if before > 1e9]) or (
            await super().expire(before)
        )


class WakesOne(MemoryStore):
    async def append(
        self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any = None
    ) -> None:
        log = self._get(tenant_id, run_id)
        waiting, log.news = log.news, trio.lowlevel.ParkingLot()
        await super().append(tenant_id, run_id, after, events, owner)
        waiting.unpark(count=1)


class NeverWaits(MemoryStore):
    async def wait_past(self, tenant_id: str, run_id: str, seq: int) -> int:
        return await super().wait_past(tenant_id, run_id, -1)


class WaitsForTheDead(MemoryStore):
    async def wait_past(self, tenant_id: str, run_id: str, seq: int) -> int:
        while (log := self._get(tenant_id, run_id)).last <= seq:
            await log.news.park()
        return log.last


class KeepsDatesOnly(MemoryStore):
    async def append(
        self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any = None
    ) -> None:
        import msgspec

        blurred = [msgspec.structs.replace(e, timestamp=float(int(e.timestamp))) for e in events]
        await super().append(tenant_id, run_id, after, blurred, owner)


@pytest.mark.parametrize(
    "store",
    [
        CreatesAnew,
        LooksBeforeItCreates,
        ForgetsWhoOwnsIt,
        LetsStrangersIn,
        LooksAtThePlaceFirst,
        OneTenant,
        TakesAnything,
        RefusesByAWordOfItsOwn,
        TakesSome,
        IsCutShort,
        TakesAPage,
        IgnoresLimits,
        GivesTheLastAgain,
        HidesGaps,
        UnknownIsEmpty,
        NeverEnds,
        ListsBackwards,
        DeletesAll,
        ExpiresWhatGoesOn,
        WakesOne,
        NeverWaits,
        WaitsForTheDead,
        KeepsDatesOnly,
    ],
)
async def test_a_wrong_store_does_not(store: Any, autojump_clock: Any) -> None:
    with pytest.raises((AssertionError, ExceptionGroup)) as caught:
        await check_event_store(store)
    if isinstance(caught.value, ExceptionGroup):
        assert caught.group_contains(AssertionError)
