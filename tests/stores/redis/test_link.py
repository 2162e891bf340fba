"""The link to a server: nothing is mixed up, whatever is cancelled, cut, or not there yet."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import pytest
import trio

from flowtrio import RedisConversations, RedisStore
from flowtrio.stores.redis._link import GlideLink, Refused, Unreachable
from flowtrio.stores.redis._scripts import READS, Script, script
from flowtrio.stores.redis._server import Server
from flowtrio.stores.redis._url import read_url
from flowtrio.testing._shared_given import claim, enqueue, one_off
from flowtrio.testing._stored import done_event, events_of, header_of, log_of
from tests.support.cutting import cutting
from tests.support.redis_server import RedisServer, redis_server

CALLS: Final = int(os.environ.get("FLOWTRIO_CANCELS", "2000"))
ECHO: Final = script("echo", "return ARGV[1]", READS)
COUNT: Final = script("count", "return call('INCR', P .. 'calls')")


@asynccontextmanager
async def linked(url: str) -> AsyncIterator[tuple[GlideLink, list[tuple[bytes, bytes]]]]:
    """A link, and what was pushed to it."""
    pushed: list[tuple[bytes, bytes]] = []
    link = GlideLink(read_url(url), lambda channel, data: pushed.append((channel, data)))
    try:
        yield link, pushed
    finally:
        await link.aclose()


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what comes from another process."""
    with trio.fail_after(20):
        while not is_so():
            await trio.sleep(0.005)


# Cancelled


async def test_a_call_that_is_cancelled_takes_no_other_ones_answer(redis: RedisServer) -> None:
    rng = random.Random(1)
    async with linked(redis.url()) as (link, _):
        for number in range(CALLS):
            with trio.move_on_after(rng.random() * 0.0006):
                assert await link.call(ECHO, [f"x{number}"]) == f"x{number}".encode()

        assert await link.call(ECHO, ["end"]) == b"end"


async def test_a_post_that_is_cancelled_is_heard_once_or_not(redis: RedisServer) -> None:
    rng = random.Random(2)
    answered: list[int] = []
    async with linked(redis.url()) as (link, pushed):
        await link.subscribe(["c"])
        for number in range(CALLS):
            with trio.move_on_after(rng.random() * 0.0006):
                assert await link.post("c", b"%d" % number) == 1
                answered.append(number)
        await link.post("c", b"-1")
        await until(lambda: (b"c", b"-1") in pushed)
        numbers = [int(data) for _, data in pushed]

    assert len(numbers) == len(set(numbers))
    assert set(answered) <= set(numbers)


async def test_a_subscription_that_is_cancelled_is_made_or_not(redis: RedisServer) -> None:
    rng = random.Random(3)
    async with linked(redis.url()) as (link, pushed):
        for number in range(CALLS):
            with trio.move_on_after(rng.random() * 0.002):
                await link.subscribe([f"c{number % 7}"])
            with trio.move_on_after(rng.random() * 0.0006):
                await link.unsubscribe([f"c{number % 7}"])
        await link.subscribe(["end"])
        await link.post("end", b"x")
        await until(lambda: (b"end", b"x") in pushed)

        assert await link.call(ECHO, ["end"]) == b"end"


async def test_a_claim_that_is_cancelled_or_late_loses_no_run(redis: RedisServer) -> None:
    rng = random.Random(4)
    found: list[str | None] = []
    async with RedisStore(redis.url()) as store:
        for number in range(200):
            await enqueue(store, one_off(f"r{number}"))
        while found[-1:] != [None]:
            with trio.move_on_after(rng.random() * 0.002):
                found.append(await claim(store))

    assert found[:-1] == [f"r{number}" for number in range(200)]


# Cut


async def cut_everywhere(redis: RedisServer, kind: type[GlideLink]) -> list[object]:
    """Cut a link's connections at each byte; gives what was answered to another call."""
    mixed: list[object] = []
    lost = 0
    with cutting(str(redis.socket)) as proxy:
        pushed: list[tuple[bytes, bytes]] = []
        place = read_url(f"redis://127.0.0.1:{proxy.port}?prefix=cut:")
        link = kind(place, lambda channel, data: pushed.append((channel, data)))

        async def ask(text: str) -> None:
            nonlocal lost
            try:
                answer = await link.call(ECHO, [text])
            except Unreachable:
                lost += 1
            else:
                mixed.extend([] if answer == text.encode() else [answer])

        await link.subscribe(["a", "b", "c", "d"])
        for place_of_cut in range(300):
            proxy.cut_after(place_of_cut)
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(ask, f"k{place_of_cut}j{number}")
        proxy.cut_after(None)
        while not pushed:
            # What was subscribed to is so again by itself.
            with suppress(Unreachable):
                await link.post("c", b"again")
            await trio.sleep(0.01)
        await link.aclose()
    assert set(pushed) == {(b"c", b"again")}
    assert min(lost, proxy.connections) > 20
    return mixed


async def test_a_connection_that_is_cut_at_any_byte_mixes_nothing_up(redis: RedisServer) -> None:
    assert await cut_everywhere(redis, GlideLink) == []


async def test_one_connection_for_calls_and_pushes_mixes_them_up(redis: RedisServer) -> None:
    """The planted bug, and why there are two."""

    class OneConnection(GlideLink):
        async def _for_calls(self) -> Any:
            await self.subscribe(["a"])
            return self._pushes

    # On a busy machine an answer may come before the cut, or all of them behind it.
    for _ in range(5):
        if mixed := await cut_everywhere(redis, OneConnection):
            break
    assert mixed


async def test_what_is_stored_through_cut_connections_is_stored_once(redis: RedisServer) -> None:
    rng = random.Random(5)
    claimed: list[str | None] = []
    with cutting(str(redis.socket)) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}?prefix=once:"
        async with RedisStore(url) as store, RedisConversations(url) as conversations:
            await store.create(header_of("r", owner="w"))
            for seq in range(150):
                if seq % 3 == 0:
                    proxy.cut_after(rng.randrange(60))
                await store.append("t", "r", seq - 1, events_of(seq, seq + 1), "w")
            for number in range(30):
                proxy.cut_after(rng.randrange(60))
                assert await enqueue(store, one_off(f"q{number}"))
            for _ in range(30):
                proxy.cut_after(rng.randrange(60))
                claimed.append(await claim(store))
            proxy.cut_after(3)
            await conversations.save_after("t", "s", "r", [{"role": "user", "content": "a"}], "w")
            proxy.cut_after(2)
            await store.append("t", "r", 149, [done_event(150)], "w")
            log = await log_of(store)

    assert log == [*events_of(0, 150), done_event(150)]
    assert claimed == [f"q{number}" for number in range(30)]


async def test_a_call_that_is_made_again_would_happen_twice(redis: RedisServer) -> None:
    """The planted bug: a script that does not know which call it was asked by."""
    asked = 0
    with cutting(str(redis.socket)) as proxy:
        server = Server(f"redis://127.0.0.1:{proxy.port}?prefix=twice:")
        for _ in range(40):
            # The first byte of the answer comes, and so it had happened.
            proxy.cut_after(1)
            count = await server.call(COUNT)
            asked += 1
        await server.aclose()

    assert count > asked


# Not there


async def test_a_server_that_forgot_the_scripts_is_told_them_again(redis: RedisServer) -> None:
    async with linked(redis.url()) as (link, _):
        for number in range(20):
            redis.ask("SCRIPT FLUSH")
            assert await link.call(ECHO, [f"x{number}"]) == f"x{number}".encode()


async def test_what_the_server_refuses_is_told_by_its_word(redis: RedisServer) -> None:
    wrong: Script = script("wrong", "return call('LPUSH', P .. 'calls', 'secret')")
    async with linked(redis.url(prefix="w:")) as (link, _):
        await link.call(COUNT, [])
        with pytest.raises(Refused, match="WRONGTYPE") as caught:
            await link.call(wrong, [])

    assert "secret" not in str(caught.value)


async def test_a_server_that_is_loading_is_waited_for() -> None:
    settings = ("--appendonly", "yes", "--appendfsync", "no", "--enable-debug-command", "yes")
    with redis_server(*settings) as server:
        url = server.url()
        async with RedisStore(url) as store:
            await store.create(header_of("r"))
            server.ask("DEBUG POPULATE 600000 filler 40")
            server.ask("BGREWRITEAOF")
            await until(lambda: b"aof_rewrite_in_progress:0" in server.ask("INFO persistence"))
            server.stop()
            server.spawn()
            said = b""
            while not said.startswith(b"-LOADING"):
                said = server.ask("PING")
                assert not said.startswith(b"+PONG")
            await store.append("t", "r", -1, [done_event(0)])

            assert await log_of(store) == [done_event(0)]


async def test_a_server_that_is_killed_is_waited_for() -> None:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        async with RedisStore(server.url()) as store:
            await store.create(header_of("r"))
            listened: list[bytes] = []
            await store.listen("x", listened.append)
            for seq in range(40):
                if seq % 10 == 5:
                    server.kill()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(store.append, "t", "r", seq - 1, events_of(seq, seq + 1))
                        await trio.sleep(0.05)
                        server.start()
                else:
                    await store.append("t", "r", seq - 1, events_of(seq, seq + 1))
            log = await log_of(store)
            while not listened:
                await store.send("x", b"again")
                await trio.sleep(0.02)

    assert log == events_of(0, 40)


async def test_while_nobody_answers_everybody_else_goes_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as closed:
            nobody = closed.getsockname()[1]
        for place in (port, nobody):
            ticks = 0
            async with RedisStore(f"redis://127.0.0.1:{place}") as store:
                with trio.move_on_after(0.3) as waiting:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(store.header, "t", "r")
                        while True:
                            await trio.sleep(0.005)
                            ticks += 1

            assert waiting.cancelled_caught
            assert ticks > 5


async def test_nobody_waits_for_ever(redis: RedisServer, autojump_clock: Any) -> None:
    class Dead:
        async def call(self, *arguments: Any) -> Any:
            await trio.lowlevel.checkpoint()
            raise Unreachable("no")

        async def aclose(self) -> None: ...

    store = RedisStore("redis://nowhere", make_link=lambda *given: Dead())  # type: ignore[arg-type, return-value]
    began = trio.current_time()
    with pytest.raises(Unreachable):
        await store.header("t", "r")

    assert 25 < trio.current_time() - began < 31


async def test_a_store_that_was_closed_says_so(redis: RedisServer) -> None:
    store = RedisStore(redis.url())
    await store.header("t", "r")
    await store.aclose()
    await store.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await store.header("t", "r")
    fresh = RedisStore(redis.url())
    await fresh.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await fresh.listen("x", print)


# One loop at a time


def test_a_second_loop_of_a_process_is_refused_and_not_left_hanging(redis: RedisServer) -> None:
    raised: list[str] = []
    is_open, may_close = threading.Event(), threading.Event()

    async def first() -> None:
        async with RedisStore(redis.url()) as store:
            await store.header("t", "r")
            is_open.set()
            await trio.to_thread.run_sync(may_close.wait)
            assert await store.header("t", "r") is None

    async def second() -> None:
        async with RedisStore(redis.url()) as store:
            try:
                await store.header("t", "r")
            except RuntimeError as exc:
                raised.append(str(exc))

    thread = threading.Thread(target=trio.run, args=(first,))
    thread.start()
    is_open.wait(10)
    trio.run(second)
    may_close.set()
    thread.join(20)
    trio.run(second)

    assert not thread.is_alive()
    assert len(raised) == 1
    assert "another Trio loop" in raised[0]


def test_one_loop_after_the_other_may_have_a_store(redis: RedisServer) -> None:
    url = redis.url()

    async def use() -> bool:
        store = RedisStore(url)
        created = await store.create(header_of("r"))
        await store.aclose()
        return created

    assert [trio.run(use), trio.run(use)] == [True, False]
