"""Runs that several processes divide among them, on explored schedules, with kills and freezes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from flowtrio import Agent, AgentEvent, StreamEngine, ToolCall, tool
from flowtrio._core._exceptions import ReplayGap
from flowtrio._core._interrupted import cancelled_end
from flowtrio._hosting._reaping import close_lost, end_waiting
from flowtrio.abc._stores import opening_of
from flowtrio.testing import LeasedStore, Schedule, ScriptedModel
from flowtrio.testing._leased_place import SharedPlace
from flowtrio.testing._schedule import exploring, virtual_clock
from flowtrio.testing._shared_given import PARTS, SHORT, enqueue, lapse
from flowtrio.testing._stored import header_of
from tests.support.cluster import Cluster


@tool
async def look(place: str) -> str:
    """Look."""
    return place


@functools.cache
def whole_log() -> tuple[AgentEvent, ...]:
    """What a run tells: a turn with two calls, and an answer."""

    async def main() -> list[AgentEvent]:
        model = ScriptedModel(
            [
                "well, ",
                ToolCall("p1", "look", {"place": "a"}),
                ToolCall("p2", "look", {"place": "b"}),
            ],
            ["fine"],
        )
        agent = Agent(llm_client=model, tools=[look])
        async with StreamEngine().stream(agent, "hi") as stream:
            return [event async for event in stream]

    return tuple(trio.run(main, clock=virtual_clock()))


def play(seed: int, **options: Any) -> list[str]:
    """One world on one schedule."""
    with exploring(Schedule.from_seed(seed)):
        cluster = Cluster(seed, whole_log(), **options)
        return trio.run(cluster.play, clock=virtual_clock())


def first_found(kind: type[SharedPlace], seeds: Sequence[int], **options: Any) -> list[str]:
    """What is found of a wrong store by the first seed that finds anything."""
    return next((found for seed in seeds if (found := play(seed, kind=kind, **options))), [])


@pytest.mark.parametrize("block", range(4))
def test_nothing_is_lost_doubled_or_run_twice(block: int) -> None:
    for seed in range(block * 10, block * 10 + 10):
        assert (seed, play(seed)) == (seed, [])


def test_nobody_is_interrupted_where_nobody_is_gone() -> None:
    for seed in range(10):
        assert (seed, play(seed, kills=0, freezes=0)) == (seed, [])


def test_a_store_that_loses_its_newest_entries_is_healed_and_no_reader_notices() -> None:
    for seed in range(15):
        assert (seed, play(seed, kills=0, freezes=0, losses=3)) == (seed, [])


# Planted bugs


class ClaimsTwice(SharedPlace):
    def claim(self, owner: str, ttl: float) -> Any:
        header = super().claim(owner, ttl)
        again: set[str] = self.__dict__.setdefault("again", set())
        if header is not None and header.run_id not in again:
            again.add(header.run_id)
            self.queue.append((header.tenant_id, header.run_id))
        return header


class SavesForAnybody(SharedPlace):
    def save_after(self, *given: Any) -> None:
        super().save_after(*given[:4], None)


class TellsTwice(SharedPlace):
    def save_after(self, tenant_id: str, session_id: str, run_id: str, *rest: Any) -> None:
        super().save_after(tenant_id, session_id, run_id, *rest)
        self.runs[tenant_id, run_id].is_told = False


class TellsNothing(SharedPlace):
    def close(self, header: Any, after: int, events: Any, said: Any, by: Any) -> None:
        super().close(header, after, events, None, by)


class ClosesWhatGoesOn(SharedPlace):
    """Who reaps looks at leases, and not at who has a run."""

    def lost(self) -> Any:
        return [run.header for run in self.unended() if run.header.owner is not None]

    def close(self, header: Any, *rest: Any) -> None:
        lease = self.leases[header.owner]
        self.leases[header.owner] = self.clock()
        try:
            super().close(header, *rest)
        finally:
            self.leases[header.owner] = lease


class ReapsNobody(SharedPlace):
    def lost(self) -> Any:
        return []


class ForgetsTheLine(SharedPlace):
    def _withdraw(self, run: Any) -> None:
        queue = self.queue.copy()
        super()._withdraw(run)
        if len(self.runs) > 5:
            self.queue = queue
            if run.key in queue:
                self.queue.remove(run.key)


class TakesAnyPlace(SharedPlace):
    """The log takes what is numbered on from anywhere."""

    def append(self, tenant_id: str, run_id: str, after: int, events: Any, owner: Any) -> None:
        run = self.get(tenant_id, run_id)
        if after > run.last:
            run.events += events
            return
        super().append(tenant_id, run_id, after, events, owner)


@pytest.mark.parametrize(
    ("kind", "word", "options"),
    [
        (ClaimsTwice, "executed 2 times", {}),
        (
            SavesForAnybody,
            "times in its conversation",
            {"freezes": 5, "runs": 12, "kills": 0},
        ),
        (TellsTwice, "2 times in its conversation", {}),
        (TellsNothing, "0 times in its conversation", {}),
        (ClosesWhatGoesOn, "interrupted though nobody was gone", {"kills": 0, "freezes": 0}),
        (ReapsNobody, "not all runs have ended", {}),
        (ForgetsTheLine, "not all runs have ended", {}),
        (TakesAnyPlace, "", {"kills": 0, "freezes": 0, "losses": 3}),
    ],
)
def test_a_planted_bug_is_found(kind: type[SharedPlace], word: str, options: Any) -> None:
    found = first_found(kind, range(60), **options)

    assert found
    assert any(word in sentence for sentence in found), found[:3]


# Reaping, step by step


async def owned(store: LeasedStore, **keys: Any) -> Any:
    """A run whose owner is gone."""
    await enqueue(store, header_of("r", **keys))
    await store.claim("w", SHORT)
    await lapse()
    [header] = await store.lost()
    return header


async def test_a_run_that_said_nothing_gets_a_whole_log(autojump_clock: Any) -> None:
    store = LeasedStore()
    header = await owned(store, parts=PARTS)

    assert await close_lost(store, header) is True
    log = await store.read("t", "r", -1, 100)
    assert [event.type for event in log] == ["run_start", "state_change", "error", "done"]
    assert await store.conversations.load("t", "s") == [{"role": "user", "content": list(PARTS)}]


async def test_a_run_that_went_on_or_is_gone_is_left_alone(autojump_clock: Any) -> None:
    store = LeasedStore()
    header = await owned(store)
    await store.renew("w", 60)
    assert await close_lost(store, header) is False
    await store.append("t", "r", -1, cancelled_end(opening_of(header), "stop"), "w")
    assert await close_lost(store, header) is False
    await store.delete("t")
    assert await close_lost(store, header) is False
    assert await end_waiting(store, header, "g", "stop") is False


async def test_a_log_whose_beginning_is_gone_is_told_of(autojump_clock: Any) -> None:
    class Ring(LeasedStore):
        async def read(self, tenant_id: str, run_id: str, after: int, limit: int) -> Any:
            raise ReplayGap("gone", run_id=run_id, after=after, oldest=2)

    store = Ring()
    header = await owned(store)
    with pytest.raises(ReplayGap):
        await close_lost(store, header)


async def test_who_ends_what_waits_and_is_overtaken_says_so(autojump_clock: Any) -> None:
    class Overtaken(LeasedStore):
        async def take(self, tenant_id: str, run_id: str, owner: str) -> bool:
            is_ours = await super().take(tenant_id, run_id, owner)
            await super().delete(tenant_id)
            return is_ours

    store = Overtaken()
    await enqueue(store, header_of("r"))

    assert await end_waiting(store, header_of("r"), "g", "stop") is False
