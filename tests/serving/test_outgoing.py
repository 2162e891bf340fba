"""What is said to a client: in order, and the reply to a start with the run's first words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from flowtrio import MemoryStore, Orchestrator, RunContext, ServerLimits
from flowtrio.serving.commands._clients import Hosting
from flowtrio.serving.commands._outgoing import Goodbye, Outgoing
from flowtrio.serving.commands._session import Session
from tests.support.ws_peer import connect, open_server


@attrs.define(eq=False, kw_only=True)
class AwaitedStore(MemoryStore):
    """One that has to be waited for, as those on disks and in networks have."""

    async def append(self, *args: Any, **options: Any) -> None:
        """See `MemoryStore`."""
        await trio.sleep(1)
        await super().append(*args, **options)


async def thinks(ctx: RunContext, message: str) -> None:
    """Say nothing for a long time."""
    await trio.sleep_forever()


@attrs.define(eq=False)
class Client:
    """One whose connection takes what is written, unless it is *stuck*."""

    session: Session
    written: list[list[Any]] = attrs.field(factory=list)
    """What was written at once: the ``ref`` of each reply, and the type of each event."""
    is_stuck: bool = False
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    async def write(self) -> None:
        """Take what the session says, as a writer does."""
        async for item in self.session.outgoing:
            assert isinstance(item, list)
            frames = [json.loads(text) for text in item]
            self.written.append([frame.get("ref") or frame["type"] for frame in frames])
            self._news.unpark_all()
            while self.is_stuck:
                await self._news.park()

    def go_on(self) -> None:
        """Take what is written again."""
        self.is_stuck = False
        self._news.unpark_all()

    async def tell(self, **command: Any) -> None:
        """Send a command, and have it taken."""
        await self.session.receive(json.dumps(command))

    async def until(self, what: str) -> list[Any]:
        """Wait until this was written; gives all that was."""
        with trio.fail_after(30):
            while what not in [*chain(*self.written)]:
                await self._news.park()
        return [*chain(*self.written)]


@asynccontextmanager
async def open_client(store: type[MemoryStore] = MemoryStore) -> AsyncIterator[Client]:
    async with Orchestrator(agents=[thinks], store=store()) as orchestrator:
        hosting = Hosting(orchestrator, ServerLimits(), False, 60)
        async with trio.open_nursery() as nursery:
            client = Client(
                Session(hosting=hosting, tenant_id="t", nursery=nursery, may_come_back=True)
            )
            nursery.start_soon(client.write)
            await wait_all_tasks_blocked()
            yield client
            nursery.cancel_scope.cancel()


async def test_a_start_is_accepted_in_one_write_with_the_runs_first_words() -> None:
    async with open_client() as client:
        await client.tell(type="message", message="hi", ref="start")
        await client.until("state_change")

    assert client.written == [["start", "run_start", "state_change"]]


async def test_a_start_is_accepted_at_once_where_the_store_has_to_be_waited_for(
    autojump_clock: Any,
) -> None:
    async with open_client(AwaitedStore) as client:
        begun = trio.current_time()
        await client.tell(type="message", message="hi", ref="start")
        await client.until("start")
        assert trio.current_time() == begun
        await client.until("run_start")

    assert client.written == [["start"], ["run_start"]]


@pytest.mark.parametrize("mode", ["messages", "values", "updates"])
async def test_a_start_is_accepted_though_nothing_of_the_run_is_shown(mode: str) -> None:
    """Until its model says a word, which may take a minute."""
    async with open_client() as client:
        await client.tell(type="message", message="hi", ref="start", mode=mode)
        told = await client.until("start")

    assert told[0] == "start"


async def test_what_is_held_keeps_its_place_before_later_replies() -> None:
    outgoing, said = Outgoing(), list[Any]()

    async def write() -> None:
        async for item in outgoing:
            said.append(item)
            await wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        await outgoing.say_with_next("first")
        await outgoing.say_with_next("second")
        assert outgoing.is_holding
        for number in range(3):
            nursery.start_soon(outgoing.say, [str(number)])
        await wait_all_tasks_blocked(0.01)
        await outgoing.say_with_next("last")
        await outgoing.say_goodbye(1000, "bye")
        await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()

    assert said[0][:2] == ["first", "second"]
    assert sorted(chain(*said[:3])) == ["0", "1", "2", "first", "second"]
    assert said[3:] == [["last"], Goodbye(1000, "bye")]


async def test_a_reply_that_is_held_goes_before_the_next_one() -> None:
    async with open_client() as client:
        await client.tell(type="message", message="hi", run_id="r", ref="start")
        assert client.session.outgoing.is_holding
        await client.tell(type="ping", ref="ping")
        told = await client.until("state_change")

    assert told[0] == "start"
    assert sorted(told[1:]) == ["ping", "run_start", "state_change"]


async def test_a_reply_that_is_held_is_told_though_its_run_is_resumed_before_it_speaks() -> None:
    async with open_client() as client:
        await client.tell(type="message", message="hi", run_id="r", ref="start")
        await client.tell(type="resume", run_id="r", after=-1, ref="resume")
        told = await client.until("state_change")

    assert told == ["start", "resume", "run_start", "state_change"]


async def test_a_reply_to_a_client_that_takes_nothing_is_not_lost_by_a_resume() -> None:
    """Whoever waits to hand over a run's events is cancelled by it, and what he has with him."""
    async with open_client() as client:
        client.is_stuck = True
        await client.tell(type="message", message="hi", run_id="a", ref="start a")
        await client.until("start a")
        client.session.nursery.start_soon(
            lambda: client.tell(type="message", message="hi", run_id="b", ref="start b")
        )
        await wait_all_tasks_blocked(0.01)
        client.session.nursery.start_soon(
            lambda: client.tell(type="resume", run_id="b", after=-1, ref="resume b")
        )
        await wait_all_tasks_blocked(0.01)
        client.go_on()
        told = await client.until("resume b")

    assert [word for word in told if " " in word] == ["start a", "start b", "resume b"]


async def test_a_reply_that_is_held_is_told_though_its_run_is_cancelled_before_it_speaks() -> None:
    async with open_client() as client:
        await client.tell(type="message", message="hi", run_id="r", ref="start")
        client.session.hosting.service.recorder.runs["t", "r"].stream.cancel("dropped")
        told = await client.until("done")

    assert told[:2] == ["start", "run_start"]


@pytest.mark.parametrize("turns", range(8))
async def test_a_start_that_is_under_way_when_the_server_stops_is_told_its_end(turns: int) -> None:
    is_asked, goes_on = trio.Event(), trio.Event()

    class Slow(MemoryStore):
        async def create(self, header: Any) -> bool:
            """See `MemoryStore`."""
            is_asked.set()
            await goes_on.wait()
            return await super().create(header)

    orchestrator = Orchestrator(agents=[thinks], store=Slow())
    async with open_server(orchestrator, drain=0) as served:
        async with connect(served, subprotocols=["flowtrio.v1"]) as peer:
            await peer.send(type="message", message="hi", ref="start")
            await is_asked.wait()
            served.scope.cancel()
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            goes_on.set()
            told = await peer.until("done")

    assert [frame.get("ref") or frame["type"] for frame in told][:2] == ["start", "run_start"]
    assert told[-1]["data"]["status"] == "error"
