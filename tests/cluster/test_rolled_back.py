"""A store that comes back without its newest entries: who notices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from flowtrio import AgentEvent, Orchestrator, RedisConversations, RedisStore, RunContext
from flowtrio._hosting._mending import Mender
from flowtrio.testing import check_events
from tests.support.redis_server import RedisServer, redis_server

T = "default"
WORDS = 1100
ENTRY = 320
"""Events that are stored together at most: what is gathered, and what a run may say without its
reader."""
LEASE = 60.0


@attrs.define(eq=False)
class Played:
    """What became of one run."""

    seen: list[AgentEvent]
    """By a follower in another process."""
    stored: list[AgentEvent]
    lost: int
    """Events that the store has lost while it went on."""
    healed: int
    said: list[Any]


@asynccontextmanager
async def opened(agent: Any, role: Any, url: str) -> AsyncIterator[Any]:
    """One of the processes, with connections of its own."""
    async with (
        RedisStore(url) as store,
        RedisConversations(url) as kept,
        Orchestrator(
            agents=[agent], store=store, conversations=kept, role=role, lease=LEASE
        ) as orchestrator,
    ):
        yield orchestrator


def lose(redis: RedisServer, most: int) -> int:
    """Have the store lose so many of its newest events, or a few less; one entry at least."""
    ends = redis.entries()
    entries = max(1, sum(ends[-1] - end <= most for end in ends[:-1]))
    assert redis.roll_back(entries) == entries
    return ends[-1] - ends[-1 - entries]


async def play(most: int, patience: float = 60) -> Played:
    """Have a store lose the newest events of a run that goes on, and is followed elsewhere."""
    goes_on = trio.Event()
    seen: list[AgentEvent] = []

    async def talk(ctx: RunContext, message: str) -> str:
        async with ctx.message() as out:
            for number in range(WORDS):
                await out.write(f"{number} ")
            await goes_on.wait()
            for number in range(5):
                await out.write(f"{number} more ")
        return "fine"

    with redis_server("--appendonly", "yes", "--appendfsync", "no") as redis:
        url = redis.url()
        async with opened(talk, "gateway", url) as gateway:
            async with opened(talk, "worker", url) as worker:
                run_id = await gateway.start("hi", session_id="s")
                async with gateway.attach(run_id) as follower:
                    while len(seen) < WORDS:
                        seen += await follower.receive_batch()
                    lost = await trio.to_thread.run_sync(lose, redis, most)
                    goes_on.set()
                    with trio.move_on_after(patience):
                        async for event in follower:
                            seen.append(event)
                healed = worker._meter.healed
            stored: list[AgentEvent] = []
            while batch := await gateway.store.read(T, run_id, len(stored) - 1, 500):
                stored += batch
            said = await gateway.conversations.load(T, "s")
    return Played(seen, stored, lost, healed, said)


@pytest.mark.parametrize("most", [1, 1000])
async def test_a_reader_elsewhere_does_not_notice(most: int) -> None:
    played = await play(most)

    check_events(played.stored)
    assert played.seen == played.stored
    assert played.healed == 1
    assert most - ENTRY < played.lost <= max(most, ENTRY)
    assert len(played.stored) > WORDS + 5
    assert [each["role"] for each in played.said][:2] == ["user", "assistant"]


async def test_a_worker_that_takes_it_for_healed_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(self: Mender, stored: int) -> None:
        pass

    monkeypatch.setattr(Mender, "complete", nothing)

    played = await play(1000, patience=3)

    assert played.seen != played.stored
