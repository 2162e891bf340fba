"""The suite for shared stores: how processes hear of each other, and of runs elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio

from flowtrio._core._events import AgentEvent
from flowtrio.abc import WORK, SharedStatistics, SharedStore

from ._shared_given import SHORT, SOON, TTL, end, enqueue, lapse, none_left, one_off
from ._stored import done_event, events_of, header_of


class _Heard:
    """What came, and a way to wait for it."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.news = trio.Event()

    def __call__(self, data: bytes) -> None:
        self.data.append(data)
        self.news.set()

    async def wait(self, count: int) -> list[bytes]:
        with trio.move_on_after(SOON):
            while len(self.data) < count:
                self.news = trio.Event()
                await self.news.wait()
        return self.data


async def _sends(one: SharedStore, other: SharedStore, _: Any) -> None:
    """What is sent is heard by all who listen, in order, and by nobody else."""
    heard, again, elsewhere = _Heard(), _Heard(), _Heard()
    assert await one.send("x:w", b"nobody") == 0, "send() tells that nobody listens"
    first = await one.listen("x:w", heard)
    second = await other.listen("x:w", again)
    third = await other.listen("x:w", again)
    await other.listen("x:z", elsewhere)
    texts = [b"\x00\xff\r\n", b"", "é".encode(), b"x" * 100_000]
    counts = [await one.send("x:w", text) for text in texts]

    assert counts == [2] * 4, "send() tells how many processes listen"
    assert await heard.wait(4) == texts, "who listens hears all, in order"
    twice = [text for text in texts for _number in range(2)]
    assert await again.wait(8) == twice, "who listens twice hears it twice"
    second.close()
    second.close()
    await one.send("x:w", b"one")
    assert (await again.wait(9))[8:] == [b"one"], "who has closed one of two hears it once"
    first.close()
    third.close()
    assert await none_left(lambda: one.send("x:w", b"late")), "who has closed listens no more"
    await one.send("x:z", b"there")
    assert await elsewhere.wait(1) == [b"there"], "each channel is its own"


async def _survives_a_callback(one: SharedStore, other: SharedStore, _: Any) -> None:
    """A callback that raises harms nobody."""
    heard = _Heard()

    def fail(data: bytes) -> None:
        heard(data)
        raise ValueError("no")

    await one.listen("x", fail)
    await one.listen("x", heard)
    for text in (b"a", b"b"):
        await other.send("x", text)

    assert await heard.wait(4) == [b"a", b"a", b"b", b"b"], "what a callback raises harms nobody"


async def _tells_of_work(one: SharedStore, other: SharedStore, _: Any) -> None:
    """Workers are told that there is something to claim."""
    heard = _Heard()
    listening = await other.listen(WORK, heard)
    await enqueue(one, header_of("a"))
    assert await heard.wait(1) == [b""], "enqueue() says that there is work"
    await enqueue(one, header_of("b"))
    await enqueue(one, header_of("a"))
    await one.claim("w", TTL)
    await end(one, "a")
    assert await heard.wait(2) == [b""] * 2, "so does the end of the one before it in line"
    await one.claim("w", TTL)
    await one.leave("w")
    assert await heard.wait(3) == [b""] * 3, "so does who leaves what was not begun"
    listening.close()


async def _counts_followers(one: SharedStore, other: SharedStore, _: Any) -> None:
    """How many processes follow a run is known."""
    await one.create(one_off("r", owner="w"))
    await one.create(one_off("r", tenant_id="u", owner="w"))
    assert await one.followers("t", "r") == 0, "nobody follows at first"
    mine = [await one.follow("t", "r") for _number in range(2)]
    assert await one.followers("t", "r") == 1, "a process that follows twice counts once"
    theirs = await other.follow("t", "r")
    assert await one.followers("t", "r") == 2, "each process counts"
    assert await one.followers("u", "r") == 0, "another tenant's run is another"
    for following in (*mine, theirs, theirs):
        following.close()
    assert await none_left(lambda: one.followers("t", "r")), "who has closed does not follow"


async def _follows_elsewhere(one: SharedStore, other: SharedStore, _: Any) -> None:
    """Whoever follows in another process sees each event once and in order."""
    await enqueue(one, header_of())
    await one.claim("w", TTL)
    logs: dict[int, list[AgentEvent]] = {}

    async def follow(number: int, limit: int) -> None:
        following = await other.follow("t", "r")
        log = logs[number] = []
        seq = -1
        while seq < 60:
            await other.wait_past("t", "r", seq)
            log += await other.read("t", "r", seq, limit)
            seq = log[-1].seq if log else -1
        following.close()

    with trio.move_on_after(4 * SOON):
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(follow, number, 1 + 2 * number)
            for seq in range(0, 60, 3):
                await one.append("t", "r", seq - 1, events_of(seq, seq + 3), "w")
            await one.append("t", "r", 59, [done_event(60)], "w")
    whole = [*events_of(0, 60), done_event(60)]
    for number in range(8):
        assert logs.get(number) == whole, "who follows elsewhere sees the whole log"
    header = await other.header("t", "r")
    assert header is not None, "header() gives a run that was followed"
    assert header.ended_at == whole[-1].timestamp, "its header tells of its end"


async def _does_not_hide_what_was_lost(one: SharedStore, other: SharedStore, _: Any) -> None:
    """Who follows a run that is deleted, and begun anew, sees the new one."""
    await enqueue(one, header_of())
    await one.claim("w", TTL)
    following = await other.follow("t", "r")
    await one.append("t", "r", -1, events_of(0, 5), "w")
    await other.wait_past("t", "r", 3)
    await one.delete("t", run_id="r")
    await enqueue(one, header_of(message="anew"))
    await one.claim("w", TTL)
    await one.append("t", "r", -1, [done_event(0)], "w")
    found: Sequence[AgentEvent] = ()
    with trio.move_on_after(SOON):
        while list(found) != [done_event(0)]:
            await trio.sleep(SHORT / 10)
            found = await other.read("t", "r", -1, 10)
    assert list(found) == [done_event(0)], "read() gives the log that there is"
    following.close()


async def _counts(one: SharedStore, other: SharedStore, _: Any) -> None:
    """What there is can be told."""
    nothing = SharedStatistics(queued=0, in_line=0, owned=0, processes=0, next_lapse=None)
    assert await other.statistics() == nothing, "statistics() of an empty store tells of nothing"
    for run_id in ("a", "b", "c"):
        await enqueue(one, header_of(run_id))
    await enqueue(one, one_off("d"))
    await one.renew("z", SOON)
    await one.claim("w", TTL)
    found = await other.statistics()
    assert (found.queued, found.in_line, found.owned) == (1, 2, 1), "statistics() counts runs"
    assert found.processes == 2, "statistics() counts leases"
    assert found.next_lapse is not None, "statistics() tells when the next lease lapses"
    assert 0 < found.next_lapse <= SOON, "statistics() tells when the next lease lapses"
    await one.renew("z", SHORT)
    await lapse()
    await end(one, "a")
    found = await other.statistics()
    counts = (found.queued, found.in_line, found.owned, found.processes)
    assert counts == (2, 1, 0, 1), "statistics() counts what there is then"


TELLING: Final[tuple[Callable[[SharedStore, SharedStore, Any], Awaitable[None]], ...]] = (
    _sends,
    _survives_a_callback,
    _tells_of_work,
    _counts_followers,
    _follows_elsewhere,
    _does_not_hide_what_was_lost,
    _counts,
)
