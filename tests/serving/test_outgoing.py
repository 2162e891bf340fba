"""What is said to a client: in order, and the reply to a start with the run's first words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from flowtrio import MemoryStore, Orchestrator, RunContext, ServerLimits
from flowtrio.serving.commands._clients import Hosting
from flowtrio.serving.commands._outgoing import Goodbye, Outgoing
from flowtrio.serving.commands._session import Session


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


@asynccontextmanager
async def open_session(store: type[MemoryStore] = MemoryStore) -> AsyncIterator[Session]:
    async with Orchestrator(agents=[thinks], store=store()) as orchestrator:
        hosting = Hosting(orchestrator, ServerLimits(), False, 60)
        async with trio.open_nursery() as nursery:
            yield Session(hosting=hosting, tenant_id="t", nursery=nursery, may_come_back=True)
            nursery.cancel_scope.cancel()


async def tell(session: Session, **command: Any) -> None:
    await session.receive(json.dumps(command))


async def take(session: Session) -> list[Any]:
    """What is written at once."""
    with trio.fail_after(30):
        item = await session.outgoing.receive()
    assert isinstance(item, list)
    return [frame.get("ref") or frame["type"] for frame in map(json.loads, item)]


async def test_a_start_is_accepted_in_one_write_with_the_runs_first_words() -> None:
    async with open_session() as session:
        await tell(session, type="message", message="hi", ref="start")

        assert await take(session) == ["start", "run_start", "state_change"]


async def test_a_start_is_accepted_at_once_where_the_store_has_to_be_waited_for(
    autojump_clock: Any,
) -> None:
    async with open_session(AwaitedStore) as session:
        session.nursery.start_soon(lambda: tell(session, type="message", message="hi", ref=1))

        begun = trio.current_time()
        assert await take(session) == [1]
        assert trio.current_time() == begun
        assert await take(session) == ["run_start"]


@pytest.mark.parametrize("mode", ["messages", "values", "updates"])
async def test_a_start_is_accepted_though_nothing_of_the_run_is_shown(mode: str) -> None:
    """Until its model says a word, which may take a minute."""
    async with open_session() as session:
        await tell(session, type="message", message="hi", ref="start", mode=mode)

        assert (await take(session))[0] == "start"


async def test_what_is_held_keeps_its_place_before_later_replies() -> None:
    outgoing = Outgoing()
    outgoing.hold("first")
    outgoing.hold("second")
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(outgoing.say, [str(number)])
            await wait_all_tasks_blocked()
        outgoing.hold("last")
        nursery.start_soon(outgoing.say_goodbye, 1000, "bye")
        await wait_all_tasks_blocked()
        said = [await outgoing.receive() for _ in range(5)]

    assert said == [["first", "second", "0"], ["1"], ["2"], ["last"], Goodbye(1000, "bye")]


async def test_a_reply_that_is_held_goes_with_the_next_one() -> None:
    async with open_session() as session:
        await tell(session, type="message", message="hi", run_id="r", ref="start")
        assert session.outgoing.is_holding
        session.nursery.start_soon(lambda: tell(session, type="ping", ref="ping"))

        told = await take(session) + await take(session)

    # Either may come first behind it.
    assert told[0] == "start"
    assert sorted(told[1:]) == ["ping", "run_start", "state_change"]


async def test_a_reply_that_is_held_is_told_though_its_run_is_resumed_before_it_speaks() -> None:
    async with open_session() as session:
        await tell(session, type="message", message="hi", run_id="r", ref="start")
        session.nursery.start_soon(
            lambda: tell(session, type="resume", run_id="r", after=-1, ref="resume")
        )

        told = await take(session)
        while "state_change" not in told:
            told += await take(session)

    assert told == ["start", "resume", "run_start", "state_change"]


async def test_a_reply_that_is_held_is_told_though_its_run_is_cancelled_before_it_speaks() -> None:
    async with open_session() as session:
        await tell(session, type="message", message="hi", run_id="r", ref="start")
        session.hosting.service.recorder.runs["t", "r"].stream.cancel("dropped")
        told = await take(session)
        while told[-1] != "done":
            told += await take(session)

    assert told[:2] == ["start", "run_start"]
