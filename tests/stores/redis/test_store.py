"""Runs and conversations on a real server."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trustme

from flowtrio import RedisConversations, RedisStore
from flowtrio.stores.redis._link import Refused
from flowtrio.testing import check_event_store, check_shared_store
from flowtrio.testing._shared_given import SAID, SHORT, claim, enqueue, lapse
from flowtrio.testing._stored import done_event, events_of, header_of, log_of
from tests.support.redis_server import RedisServer, redis_server

COMMANDS: Final = (
    "+info +hmget +hget +hgetall +hset +hdel +exists +del +get +set +pttl +incr +time +xadd "
    "+xrange +llen +lindex +lrem +lpush +rpush +lpop +lrange +sadd +srem +scard +smembers "
    "+sismember +zadd +zrem +zcard +zrange +zrangebyscore +publish +subscribe +unsubscribe "
    "+pubsub +client +hello +ping"
)
"""What a user of the server has to be allowed."""


async def test_it_is_a_store_like_any_other(redis: RedisServer) -> None:
    await check_event_store(lambda: RedisStore(redis.url()))


async def test_it_is_a_shared_store(redis: RedisServer) -> None:
    def make() -> Any:
        url = redis.url()
        return RedisStore(url), RedisStore(url), RedisConversations(url)

    await check_shared_store(make)


# What the server is


async def test_a_server_that_forgets_what_it_has_no_room_for_is_refused() -> None:
    with redis_server("--maxmemory", "20mb", "--maxmemory-policy", "allkeys-lru") as server:
        async with RedisStore(server.url()) as store:
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"allkeys-lru.*expected noeviction"):
                    await store.header("t", "r")


async def test_an_old_server_is_refused(autojump_clock: Any) -> None:
    class Old:
        async def call(self, *arguments: Any) -> Any:
            await trio.lowlevel.checkpoint()
            return [b"# Server\r\nredis_version:6.2.1\r\n", b"maxmemory_policy:noeviction\r\n"]

        async def aclose(self) -> None: ...

    store = RedisStore("redis://old", make_link=lambda *given: Old())  # type: ignore[arg-type, return-value]
    with pytest.raises(RuntimeError, match=r"Redis 6\.2\.1: expected 7\.0"):
        await store.send("x", b"")


async def test_a_server_without_memory_still_stores_ends_turns_and_leases() -> None:
    with redis_server() as server:
        url = server.url()
        async with RedisStore(url) as store, RedisConversations(url) as conversations:
            for run_id in ("a", "b"):
                await enqueue(store, header_of(run_id))
            await store.create(header_of("own", owner="w"))
            await store.claim("w", SHORT)
            await store.append("t", "a", -1, events_of(0, 2, "a"), "w")
            server.ask("CONFIG SET maxmemory 1")
            for refused in (
                store.append("t", "a", 1, events_of(2, 3, "a"), "w"),
                enqueue(store, header_of("c")),
                store.create(header_of("c")),
            ):
                with pytest.raises(Refused, match="OOM"):
                    await refused
            await store.renew("w", SHORT)
            await conversations.save_after("t", "s", "own", SAID, "w")
            await store.append("t", "own", -1, [done_event(0, "own")], "w")
            await lapse()
            [header] = await store.lost()
            await store.close(header, 1, [done_event(2, "a")], SAID)

            assert await log_of(store, "a") == [*events_of(0, 2, "a"), done_event(2, "a")]
            assert await conversations.load("t", "s") == [*SAID, *SAID]
            assert await claim(store, "z") == "b"
            await store.leave("z")
            assert await store.take("t", "b", "g") is True
            assert await store.delete("t") == 3
            server.ask("CONFIG SET maxmemory 0")
            assert await enqueue(store, header_of("c"))


async def test_a_user_who_may_do_only_what_is_needed_is_enough(redis: RedisServer) -> None:
    redis.ask("ACL SETUSER ft on >pa%ss ~own:* &own:* -@all +@scripting " + COMMANDS)
    place = f"unix://ft:pa%25ss@{redis.socket}?prefix=own:"
    async with RedisStore(place) as store, RedisConversations(place) as conversations:
        await check_a_life(store, conversations)
    for wrong, word in ((place.replace("own:", "other:"), ""), (place.replace("25", "26"), "PASS")):
        async with RedisStore(wrong) as store:
            with pytest.raises(Refused, match=word or None), trio.fail_after(5):
                await store.create(header_of("r"))


async def test_a_database_that_is_not_there_is_told_at_once(redis: RedisServer) -> None:
    async with RedisStore(redis.url(database="99")) as store:
        with pytest.raises(Refused, match="it has no such database"), trio.fail_after(5):
            await store.header("t", "r")


async def check_a_life(store: RedisStore, conversations: RedisConversations) -> None:
    """One run, from its start to its being forgotten."""
    heard: list[bytes] = []
    await store.listen("work", heard.append)
    await enqueue(store, header_of("r"))
    assert await claim(store) == "r"
    following = await store.follow("t", "r")
    await store.append("t", "r", -1, events_of(0, 3), "w")
    await conversations.save_after("t", "s", "r", SAID, "w")
    await store.append("t", "r", 2, [done_event(3)], "w")
    assert await log_of(store) == [*events_of(0, 3), done_event(3)]
    following.close()
    assert await conversations.load("t", "s") == SAID
    assert await store.expire(1e12) == 1
    await conversations.delete("t", "s")
    assert await conversations.load("t", "s") == []
    with trio.fail_after(5):
        while not heard:
            await trio.sleep(0.01)


async def test_a_server_is_reached_by_tls_and_another_ones_is_not(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    pems = {name: tmp_path / name for name in ("cert", "key", "ca", "other")}
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(pems["cert"])
    issued.private_key_pem.write_to_path(pems["key"])
    authority.cert_pem.write_to_path(pems["ca"])
    other.cert_pem.write_to_path(pems["other"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ("--tls-port", str(port), "--tls-auth-clients", "no")
    files = ("cert-file", "key-file", "ca-cert-file")
    for setting, name in zip(files, ("cert", "key", "ca"), strict=True):
        settings += (f"--tls-{setting}", str(pems[name]))
    with redis_server(*settings):
        place = f"rediss://localhost:{port}/2?prefix=t:&ca="
        async with (
            RedisStore(place + str(pems["ca"])) as store,
            RedisConversations(place + str(pems["ca"])) as conversations,
        ):
            await check_a_life(store, conversations)
        async with RedisStore(place + str(pems["other"])) as store:
            with pytest.raises(Refused, match="certificate"), trio.fail_after(5):
                await store.create(header_of("r"))


# What is left


async def test_nothing_is_left_of_what_is_forgotten(redis: RedisServer) -> None:
    url = redis.url(prefix="left:")
    async with RedisStore(url) as store, RedisConversations(url) as conversations:
        for run_id, session in (("a", "s"), ("b", "s"), ("c", "z")):
            await enqueue(store, header_of(run_id, session_id=session))
        await store.create(header_of("d", owner="w"))
        await store.claim("w", 60)
        await store.append("t", "a", -1, events_of(0, 5, "a"), "w")
        await conversations.save_after("t", "s", "a", SAID, "w")
        await store.delete("t")
        await conversations.delete("t", "s")
        await store.leave("w")
        await store.lost()
        left = redis.ask("KEYS left:*")

    assert left == b"*1\r\n$10\r\nleft:count\r\n"


async def test_ends_and_conversations_are_kept_for_a_while(redis: RedisServer) -> None:
    now = 5000.0
    url = redis.url(prefix="kept:")
    async with RedisStore(url, keep=100, clock=lambda: now) as store:
        await store.create(header_of("a"))
        await store.append("t", "a", -1, [done_event(0, "a")])
        await store.create(header_of("b"))
        assert await store.header("t", "a") is not None
        now += 60
        await enqueue(store, header_of("c"))
        assert await store.header("t", "a") is None
    async with RedisConversations(url, keep=1000) as conversations:
        await conversations.save("t", "s", SAID)
        left = int(redis.ask("PTTL kept:c:1:t|s").strip(b":\r\n"))

    assert 0 < left <= 1_000_000


async def test_long_conversations_and_lists_are_kept_in_part(redis: RedisServer) -> None:
    url = redis.url()
    async with RedisConversations(url, max_messages=2) as conversations:
        await conversations.save("t", "s", [*SAID, *SAID])
        assert await conversations.load("t", "s") == SAID
    async with RedisStore(url) as store:
        async with trio.open_nursery() as nursery:
            for number in range(1100):
                nursery.start_soon(store.create, header_of(f"r{number}"))
        assert len(await store.list("t", "s")) == 1100
        assert await store.delete("t", run_id="r1", session_id="z") == 0
        assert await store.delete("t", run_id="x", session_id="z") == 0
        assert await store.delete("t", run_id="r1", session_id="s") == 1
        assert await store.delete("t", session_id="s") == 1099
