"""What stores of conversations keep beside what was said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from flowtrio import MemoryConversations, RedisConversations, RedisStore, SQLiteConversations
from flowtrio.abc import DescribedConversations
from flowtrio.testing._stored import header_of
from tests.support.redis_server import redis_server

ORIGIN = {"session_id": "s", "turn": 2}


async def check(make: Callable[[], Any]) -> None:
    store = make()
    assert isinstance(store, DescribedConversations)

    # Of one that was not saved yet, too.
    await store.describe("ann", "a:1", {"title": "One", "branched_from": ORIGIN})
    await store.save("ann", "a:1", [{"role": "user", "content": "hi"}])
    await store.describe("ann", "b", {"title": "Two"})
    await store.describe("bob", "a:1", {"title": "Bob's"})
    await store.describe("ann", "a:1", {"title": None, "agent_title": "Ü"})

    assert await store.descriptions("ann") == {
        "a:1": {"branched_from": ORIGIN, "agent_title": "Ü"},
        "b": {"title": "Two"},
    }

    await store.delete("ann", "a:1")

    assert await store.descriptions("ann") == {"b": {"title": "Two"}}
    assert await store.descriptions("bob") == {"a:1": {"title": "Bob's"}}
    assert await store.descriptions("eve") == {}


async def test_memory_keeps_it() -> None:
    await check(MemoryConversations)


async def test_a_file_keeps_it(tmp_path: Path) -> None:
    async with SQLiteConversations(tmp_path / "db") as store:
        await check(lambda: store)
    async with SQLiteConversations(tmp_path / "db") as again:
        assert await again.descriptions("ann") == {"b": {"title": "Two"}}


async def test_redis_keeps_it() -> None:
    with redis_server() as server:
        async with RedisConversations(server.url()) as store:
            await check(lambda: store)


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_it_is_forgotten_with_what_expires(kind: str, tmp_path: Path) -> None:
    now = 1000.0
    if kind == "memory":
        store: Any = MemoryConversations(max_idle=100, clock=lambda: now)
    else:
        store = SQLiteConversations(tmp_path / "db", keep=100, clock=lambda: now)
    await store.save("ann", "old", [{"role": "user", "content": "hi"}])
    await store.describe("ann", "old", {"title": "Old"})
    now += 200
    await store.save("ann", "new", [{"role": "user", "content": "hi"}])

    assert await store.descriptions("ann") == {}
    if kind == "file":
        await store.aclose()


async def test_redis_forgets_it_with_what_expires() -> None:
    with redis_server() as server:
        url = server.url()
        async with RedisStore(url) as logs, RedisConversations(url, keep=0.2) as store:
            await logs.create(header_of("r", session_id="runs"))
            await store.save("t", "old", [{"role": "user", "content": "hi"}])
            for session_id in ("old", "runs"):
                await store.describe("t", session_id, {"title": "T"})
            before = await store.descriptions("t")
            await trio.sleep(0.5)
            after = await store.descriptions("t")
        async with RedisConversations(url) as again:
            left = await again.descriptions("t")

    assert set(before) == {"old", "runs"}
    # One whose first run goes on is not saved yet.
    assert set(after) == set(left) == {"runs"}


async def test_memory_keeps_it_of_so_many() -> None:
    store = MemoryConversations(max_sessions=2)
    for number in range(3):
        await store.describe("ann", str(number), {"title": "x"})

    assert set(await store.descriptions("ann")) == {"1", "2"}
