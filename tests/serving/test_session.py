"""A session's refusals: runs of other connections, too many of them, and logs that are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from flowtrio import MemoryStore, Orchestrator, RunContext, ServerLimits
from flowtrio._core._events import AgentEvent
from flowtrio.abc import RunHeader
from flowtrio.serving._replayed import Replayed
from flowtrio.serving.commands import _session
from flowtrio.serving.commands._apply import apply
from flowtrio.serving.commands._clients import Hosting
from flowtrio.serving.commands._session import Session
from flowtrio.testing import check_events
from flowtrio.wire._frames import MessageCommand
from tests.serving.test_websocket import events_of, waits
from tests.support.site import as_events
from tests.support.ws_peer import connect, open_server
from tests.testing.test_checks import answers


async def test_the_run_of_a_connection_that_cannot_come_back_is_nobody_elses() -> None:
    async with open_server(waits) as served, connect(served) as one, connect(served) as two:
        await one.send("a")
        run_id = (await one.until("run_start"))[-1]["run_id"]
        await two.send(type="message", message="a", run_id=run_id, ref=1)
        refused = await two.receive()

    assert (refused["type"], refused["ref"], refused["code"]) == ("rejected", 1, "not_resumable")


async def test_the_log_of_such_a_run_is_not_kept_for_its_own_connection_either() -> None:
    async with open_server(waits) as served, connect(served) as peer:
        await peer.send("a")
        run_id = (await peer.until("message_chunk"))[-1]["run_id"]
        start = {"type": "message", "message": "a", "run_id": run_id}
        await peer.send({**start, "ref": "goes on"})
        assert (await peer.until("accepted"))[-1]["ref"] == "goes on"
        await peer.send(type="cancel", run_id=run_id)
        await peer.until("done")
        await peer.send({**start, "ref": "has ended"})
        refused = (await peer.until("rejected"))[-1]

    assert (refused["ref"], refused["code"]) == ("has ended", "not_resumable")


@pytest.mark.parametrize("may_come_back", [True, False])
async def test_a_session_keeps_little_of_the_runs_that_have_ended(
    may_come_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def says_nothing(ctx: RunContext, message: str) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(_session, "_MOST_ENDED", 3)
    async with Orchestrator(agents=[says_nothing]) as orchestrator:
        hosting = Hosting(orchestrator, ServerLimits(), False, 60)
        async with trio.open_nursery() as nursery:
            session = Session(
                hosting=hosting, tenant_id="t", nursery=nursery, may_come_back=may_come_back
            )
            ended: list[str] = []
            nursery.start_soon(_take_all, session, ended)
            for number in range(20):
                await session.receive(f'{{"type": "message", "message": "{number}"}}')
                await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    assert len(ended) == 20
    assert not session._own
    assert not session._following
    assert list(session._ended) == ([] if may_come_back else ended[-3:])
    assert not hosting.runs
    assert not hosting._hosted


async def _take_all(session: Session, ended: list[str]) -> None:
    async for texts in session.outgoing:
        assert isinstance(texts, list)
        frames = [json.loads(text) for text in texts]
        ended += [frame["run_id"] for frame in frames if frame["type"] == "done"]


async def test_a_run_that_is_refused_may_be_asked_for_again() -> None:
    orchestrator = Orchestrator(agents=[waits], on_busy="reject")
    async with open_server(orchestrator) as served, connect(served) as peer:
        await peer.send("a")
        first = (await peer.until("message_chunk"))[-1]["run_id"]
        await peer.send("b")
        refused = (await peer.until("rejected"))[-1]
        await peer.send(type="cancel", run_id=first)
        await peer.until("done")
        await peer.send("b")
        assert (await peer.receive())["type"] == "accepted"

    assert (refused["ref"], refused["code"]) == (None, "session_busy")


async def test_following_counts_as_a_run_of_the_connection() -> None:
    limits = ServerLimits(runs_per_connection=1)
    async with open_server(waits, limits=limits) as served:
        async with connect(served) as one, connect(served) as two:
            await one.send(type="message", message="a", run_id="first")
            await one.until("message_chunk")
            await two.send(type="message", message="a", run_id="second")
            await two.until("message_chunk")
            await two.send(type="resume", run_id="first", after=-1, ref="more")
            refused = (await two.until("rejected"))[-1]
            # What is followed already is not counted twice.
            await one.send(type="message", message="a", run_id="first", ref="again")
            again = await one.receive()

    assert (refused["ref"], refused["code"]) == ("more", "too_many_runs")
    assert (again["type"], again["ref"]) == ("accepted", "again")


async def test_one_that_ends_while_the_server_stops_is_not_waited_for(autojump_clock: Any) -> None:
    hosting = Hosting(Orchestrator(agents=[waits]), ServerLimits(send=60), False, 60)
    async with trio.open_nursery() as nursery:
        session = Session(hosting=hosting, tenant_id="default", nursery=nursery)
        with session.living():
            nursery.start_soon(hosting.dismiss)
            await wait_all_tasks_blocked()
    # Nobody sent its goodbye.
    assert trio.current_time() < 1
    assert not hosting.sessions


def stored_log() -> list[AgentEvent]:
    return as_events([{**event, "run_id": "r"} for event in answers()])


class SlowToCreate(MemoryStore):
    """A store whose answer to a run that there is already waits for a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.gate = trio.Event(), trio.Event()

    async def create(self, header: RunHeader) -> bool:
        if not await super().create(header):
            self.asked.set()
            await self.gate.wait()
            return False
        return True


async def begin_log(store: MemoryStore, owner: str) -> None:
    """Have the store know three events of a run, which some process goes on with."""
    names: Any = {"tenant_id": "default", "run_id": "r", "session_id": None, "agent": "a"}
    await store.create(RunHeader(**names, message="hi", created_at=0.0, owner=owner))
    await store.append("default", "r", -1, stored_log()[:3])


async def store_with_a_beginning(owner: str) -> MemoryStore:
    store = MemoryStore()
    await begin_log(store, owner)
    return store


async def test_a_run_that_ends_while_it_is_started_again_is_given_again() -> None:
    store = SlowToCreate()
    await begin_log(store, "another process")
    orchestrator = Orchestrator(agents=[waits], store=store)
    async with open_server(orchestrator) as served, connect(served) as peer:
        await peer.send(type="resume", run_id="r", after=-1, ref=1)
        frames = [await peer.receive() for _ in range(4)]
        await peer.send(type="message", message="hi", run_id="r", ref=2)
        await store.asked.wait()
        await store.append("default", "r", 2, stored_log()[3:])
        frames += await peer.until("done")
        await wait_all_tasks_blocked()
        store.gate.set()
        reply, *again = await peer.until("done")

    assert (reply["type"], reply["ref"]) == ("accepted", 2)
    assert again == frames[1:]
    check_events(again)


async def test_a_run_that_is_deleted_while_it_is_followed_is_told() -> None:
    store = await store_with_a_beginning("another process")
    orchestrator = Orchestrator(agents=[waits], store=store)
    async with open_server(orchestrator) as served, connect(served) as peer:
        await peer.send(type="resume", run_id="r", after=-1, ref=1)
        frames = [await peer.receive() for _ in range(4)]
        await store.delete("default", run_id="r")
        told = await peer.receive()

    assert as_events(events_of(frames)) == stored_log()[:3]
    assert (told["type"], told["ref"], told["code"]) == ("rejected", None, "unknown_run")


async def test_a_log_that_was_cut_short_is_told_behind_its_last_event() -> None:
    store = await store_with_a_beginning("us")
    orchestrator = Orchestrator(agents=[waits], store=store)
    orchestrator._recorder.owner = "us"
    async with open_server(orchestrator) as served, connect(served) as peer:
        await peer.send(type="resume", run_id="r", after=-1, ref=1)
        frames = [await peer.receive() for _ in range(4)]
        told = await peer.receive()

    assert as_events(events_of(frames)) == stored_log()[:3]
    assert (told["type"], told["ref"], told["code"]) == ("rejected", None, "replay_gap")


async def test_a_run_that_goes_on_in_another_process_is_followed_to_its_end() -> None:
    store = await store_with_a_beginning("another process")
    orchestrator = Orchestrator(agents=[waits], store=store)
    async with open_server(orchestrator) as served, connect(served) as peer:
        await peer.send(type="resume", run_id="r", after=-1, ref=1)
        frames = [await peer.receive() for _ in range(4)]
        await store.append("default", "r", 2, stored_log()[3:])
        frames += await peer.until("done")

    check_events(events_of(frames))


@pytest.mark.parametrize("received", [b"", b"before"])
async def test_what_came_with_a_requests_head_is_read_first(received: bytes) -> None:
    ours, theirs = memory_stream_pair()
    stream = Replayed(ours, received)
    await stream.wait_send_all_might_not_block()
    await stream.send_all(b"out")
    await theirs.send_all(b"after")
    await theirs.send_eof()
    read = b""
    while data := await stream.receive_some():
        read += data
    await stream.aclose()

    assert read == received + b"after"
    assert await theirs.receive_some() == b"out"
    assert await theirs.receive_some() == b""


def test_to_start_a_run_is_no_control() -> None:
    follower = Orchestrator(agents=[waits]).attach("r")

    with pytest.raises(AssertionError, match="MessageCommand"):
        apply(follower, MessageCommand(type="message", message="hi"), ServerLimits())


async def test_a_follower_that_ends_does_not_forget_the_one_after_it() -> None:
    orchestrator = Orchestrator(agents=[waits], store=await store_with_a_beginning("us"))
    orchestrator._recorder.owner = "us"
    hosting = Hosting(orchestrator, ServerLimits(), False, 60)
    frames: list[Any] = []

    async def take(session: Session, count: int) -> None:
        while len(frames) < count:
            said = await session.outgoing.receive()
            assert isinstance(said, list)
            frames.extend(map(json.loads, said))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            session = Session(
                hosting=hosting, tenant_id="default", nursery=nursery, may_come_back=True
            )
            for ref in (1, 2):
                # The first has come to the cut, and nobody takes yet what it says of that.
                resume = {"type": "resume", "run_id": "r", "after": -1, "ref": ref}
                nursery.start_soon(session.receive, json.dumps(resume))
                await wait_all_tasks_blocked()
                await take(session, [4, 9][ref - 1])
                await wait_all_tasks_blocked()
                assert list(session._following) == ["r"]
            await take(session, 10)
            await wait_all_tasks_blocked()
            assert not session._following
            nursery.cancel_scope.cancel()

    told = [frame.get("ref", frame.get("seq")) for frame in frames]
    assert told == [1, 0, 1, 2, None, 2, 0, 1, 2, None]
