"""Runs that outlast their connection: attaching, coming back, and what ends them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from flowtrio import Limits, MemoryStore, Orchestrator, RunContext
from flowtrio.testing import check_events
from tests.serving.test_websocket import approving_agent, events_of, waits
from tests.support.ws_peer import Peer, Served, connect, open_server

V1 = "flowtrio.v1"
BATCH = "flowtrio.batch.v1"


class Counting:
    """An agent that says numbers, some at once, when it is told to go on."""

    def __init__(self) -> None:
        self.started = 0
        self.steps = trio.Semaphore(0)
        self.left = trio.Event()

    async def __call__(self, ctx: RunContext, message: str) -> str:
        """Say numbers."""
        self.started += 1
        try:
            async with ctx.message() as out:
                for number in range(int(message)):
                    await self.steps.acquire()
                    await out.write(f"{number} ")
        finally:
            self.left.set()
        return message

    def go(self, steps: int) -> None:
        """Let it say so many."""
        for _ in range(steps):
            self.steps.release()


@asynccontextmanager
async def coming_back(served: Served, **options: Any) -> AsyncIterator[Peer]:
    async with connect(served, subprotocols=[V1], **options) as peer:
        yield peer


async def drop(peer: Peer) -> None:
    await trio.aclose_forcefully(peer.connection._stream)


def flat(frames: list[Any]) -> list[dict[str, Any]]:
    return [e for f in frames for e in (f if isinstance(f, list) else [f]) if "seq" in e]


# Coming back


@pytest.mark.parametrize("subprotocol", [V1, BATCH])
async def test_whoever_comes_back_reads_on_where_he_was(subprotocol: str) -> None:
    agent = Counting()
    async with open_server(agent) as served:
        async with connect(served, subprotocols=[subprotocol]) as peer:
            await peer.send(type="message", message="9")
            agent.go(3)
            seen: list[Any] = []
            while len(flat(seen)) < 5:
                seen.append(await peer.receive())
            await drop(peer)
        first = flat(seen)
        agent.go(6)
        async with connect(served, subprotocols=[subprotocol]) as peer:
            run_id, after = first[-1]["run_id"], first[-1]["seq"]
            await peer.send(type="resume", run_id=run_id, after=after, ref=1)
            assert await peer.receive() == {"type": "accepted", "ref": 1, "run_id": run_id}
            rest: list[Any] = []
            while not flat(rest) or flat(rest)[-1]["type"] != "done":
                rest.append(await peer.receive())

    check_events([*first, *flat(rest)])
    assert flat(rest)[-1]["data"]["result"] == "9"


async def test_starting_again_elsewhere_attaches_and_starts_nothing() -> None:
    agent = Counting()
    start = {"type": "message", "message": "4", "run_id": "mine"}
    async with open_server(agent) as served:
        # Without a subprotocol: the client chose the id of its run, so it may come back.
        async with connect(served) as peer:
            await peer.send(start)
            await peer.until("run_start")
            await drop(peer)
        async with connect(served) as one, connect(served) as two:
            await one.send(start)
            await two.send(start)
            agent.go(4)
            logs = [events_of(await peer.until("done")) for peer in (one, two)]
        async with connect(served) as late:
            replayed = events_of(await late.ask(start))

    check_events(logs[0])
    assert logs[0] == logs[1] == replayed
    assert agent.started == 1


async def test_an_ended_run_is_replayed_from_any_place() -> None:
    agent = Counting()
    agent.go(5)
    async with open_server(agent) as served, coming_back(served) as peer:
        log = events_of(await peer.ask(type="message", message="5", run_id="r"))
        for after in range(-1, len(log) - 1):
            frames = await peer.ask(type="resume", run_id="r", after=after)
            assert events_of(frames) == log[after + 1 :]

    check_events(log)


@pytest.mark.parametrize("mode", [None, "values", "messages"])
async def test_whoever_has_seen_the_end_of_a_run_is_told_that_nothing_comes(
    mode: str | None,
) -> None:
    agent = Counting()
    agent.go(2)
    resume = {"type": "resume", "run_id": "r", **({"mode": mode} if mode else {})}
    async with open_server(agent) as served, coming_back(served) as peer:
        log = events_of(await peer.ask(type="message", message="2", run_id="r"))
        last = log[-1]["seq"]
        for after in (last, last + 1, last - 1):
            await peer.send({**resume, "after": after, "ref": after})
        over, ahead, accepted, done = [await peer.receive() for _ in range(4)]

    assert over == {"type": "accepted", "ref": last, "run_id": "r", "is_over": True}
    assert (ahead["type"], ahead["ref"], ahead["code"]) == ("rejected", last + 1, "replay_gap")
    assert accepted == {"type": "accepted", "ref": last - 1, "run_id": "r"}
    assert (done["type"], done["seq"]) == ("done", last)


async def test_a_place_that_a_run_has_not_come_to_is_refused() -> None:
    agent = Counting()
    async with open_server(agent) as served, coming_back(served) as peer:
        await peer.send(type="message", message="2", run_id="r")
        agent.go(1)
        seq = (await peer.until("message_chunk"))[-1]["seq"]
        async with coming_back(served) as other:
            for mode in ("events", "values"):
                ahead = {"type": "resume", "run_id": "r", "after": seq + 1, "mode": mode}
                await other.send({**ahead, "ref": mode})
                refused = await other.receive()
                assert (refused["ref"], refused["code"]) == (mode, "replay_gap")
        agent.go(1)
        await peer.until("done")


async def test_starting_again_after_the_end_replays_on_the_same_connection_too() -> None:
    agent = Counting()
    agent.go(2)
    start = {"type": "message", "message": "2", "run_id": "r"}
    async with open_server(agent) as served, connect(served) as peer:
        log = events_of(await peer.ask(start))
        assert events_of(await peer.ask(start)) == log

    check_events(log)
    assert agent.started == 1


async def test_resuming_what_one_follows_begins_anew_at_that_place() -> None:
    agent = Counting()
    async with open_server(agent) as served, coming_back(served) as peer:
        await peer.send(type="message", message="6", run_id="r")
        agent.go(3)
        first = await peer.until("message_chunk", chunk="2 ")
        await peer.send(type="resume", run_id="r", after=1, ref="again")
        assert (await peer.until("accepted"))[-1]["ref"] == "again"
        agent.go(3)
        again = await peer.until("done")

    log = events_of(first)[:2] + events_of(again)
    check_events(log)
    assert events_of(again)[0]["seq"] == 2


async def test_states_are_the_same_wherever_one_resumes() -> None:
    agent = Counting()
    agent.go(5)
    async with open_server(agent) as served, coming_back(served) as peer:
        whole = events_of(await peer.ask(type="message", message="5", run_id="r", mode="values"))
        part = events_of(await peer.ask(type="resume", run_id="r", after=3, mode="values"))

    assert part == [event for event in whole if event["seq"] > 3]


async def test_a_person_may_come_back_to_decide() -> None:
    async with open_server(approving_agent(), resume_window=0.05) as served:
        async with coming_back(served) as peer:
            await peer.send("pay")
            asked = (await peer.until("approval_required"))[-1]
            await drop(peer)
        # Longer than the window, which does not count while a person is waited for.
        await trio.sleep(0.3)
        async with coming_back(served) as peer:
            run_id = asked["run_id"]
            await peer.send(type="resume", run_id=run_id, after=asked["seq"])
            await peer.send(type="approve", run_id=run_id, call_id=asked["data"]["call_id"])
            frames = await peer.until("done")

    [ended] = [frame for frame in frames if frame["type"] == "tool_call_end"]
    assert ended["data"]["outcome"] == "ok"


async def test_without_a_window_leaving_cancels_and_nothing_else_does() -> None:
    agent = Counting()
    async with open_server(agent, resume_window=0) as served:
        async with coming_back(served) as peer:
            await peer.send(type="message", message="6", run_id="r")
            agent.go(3)
            await peer.until("message_chunk", chunk="2 ")
            await peer.send(type="resume", run_id="r", after=1)
            await peer.until("message_chunk", chunk="2 ")
            agent.go(3)
            done = (await peer.until("done"))[-1]
            agent.left = trio.Event()
            await peer.send(type="message", message="6", run_id="q")
            await peer.until("state_change")
            await drop(peer)
        with trio.fail_after(5):
            await agent.left.wait()
        async with coming_back(served) as peer:
            log = events_of(await peer.ask(type="resume", run_id="q", after=-1))

    assert done["data"]["status"] == "completed"
    assert (log[-1]["data"]["status"], log[-1]["data"]["reason"]) == (
        "cancelled",
        "its reader left",
    )


async def test_without_a_window_a_start_that_is_refused_leaves_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its starter does not come to follow it, and counts no more."""
    # So little is kept beside the store that the starter has to ask it.
    monkeypatch.setattr("flowtrio._hosting._recorder._LAGS", 1)

    class Unread(MemoryStore):
        async def header(self, *args: Any) -> Any:
            raise OSError("unreadable")

        async def read(self, *args: Any) -> Any:
            raise OSError("unreadable")

    agent = Counting()
    orchestrator = Orchestrator(agents=[agent], store=Unread(), limits=Limits(buffer=1))
    async with open_server(orchestrator, resume_window=0) as served, coming_back(served) as peer:
        agent.go(1000)
        await peer.send(type="message", message="9", run_id="r")
        agent.go(1000)
        await peer.until("accepted")
        await drop(peer)
        with trio.fail_after(5):
            await agent.left.wait()
            while orchestrator._recorder.runs:
                await trio.sleep(0.01)


async def test_several_runs_and_conversations_share_a_socket() -> None:
    agent = Counting()
    async with open_server(agent) as served:
        async with coming_back(served) as peer:
            for name in ("a", "b", "c"):
                await peer.send(type="message", message="4", run_id=name, session_id=name)
            agent.go(3)
            frames = [await peer.receive() for _ in range(12)]
            await drop(peer)
        last = {n: max([-1, *(e["seq"] for e in events_of(frames, n))]) for n in ("a", "b", "c")}
        async with coming_back(served) as peer:
            for name, after in last.items():
                await peer.send(type="resume", run_id=name, after=after)
            agent.go(9)
            ended = 0
            while ended < 3:
                frames.append(await peer.receive())
                ended += frames[-1]["type"] == "done"

    for name in last:
        check_events(events_of(frames, name))


# Not coming back


async def test_a_run_is_cancelled_when_nobody_came_back_in_time() -> None:
    agent = Counting()
    async with open_server(agent, resume_window=0.2) as served:
        async with coming_back(served) as peer:
            await peer.send(type="message", message="4", run_id="r")
            await peer.until("run_start")
            await drop(peer)
        with trio.fail_after(10):
            await agent.left.wait()
        async with coming_back(served) as peer:
            frames = await peer.ask(type="resume", run_id="r", after=-1)

    check_events(events_of(frames))
    assert frames[-1]["data"]["status"] == "cancelled"


async def test_whoever_can_not_come_back_cancels_by_leaving() -> None:
    agent = Counting()
    async with open_server(agent, resume_window=1000) as served:
        async with connect(served) as peer:
            await peer.send("4")
            run_id = (await peer.until("run_start"))[-1]["run_id"]
            async with coming_back(served) as other:
                await other.send(type="resume", run_id=run_id, after=-1, ref=1)
                refused = await other.receive()
        with trio.fail_after(5):
            await agent.left.wait()

    assert (refused["type"], refused["ref"]) == ("rejected", 1)
    assert refused["code"] == "not_resumable"


async def test_what_is_gone_or_unknown_is_told() -> None:
    agent = Counting()
    agent.go(100)
    orchestrator = Orchestrator(agents=[agent], store=MemoryStore(max_events=10))
    async with open_server(orchestrator) as served, coming_back(served) as peer:
        await peer.ask(type="message", message="50", run_id="r")
        for run_id, after, code in (
            ("r", -1, "replay_gap"),
            ("r", 5, "replay_gap"),
            ("r", 5000, "replay_gap"),
            ("other", -1, "unknown_run"),
        ):
            await peer.send(type="resume", run_id=run_id, after=after, ref=code)
            reply = await peer.receive()
            assert (reply["type"], reply["ref"], reply["code"]) == ("rejected", code, code)


async def test_another_tenants_run_answers_like_an_unknown_one() -> None:
    def authenticate(request: Any) -> str | None:
        return request.query.get("user")

    replies: list[list[Any]] = []
    async with open_server(waits, authenticate=authenticate) as served:
        async with (
            coming_back(served, path="/chat?user=ann") as ann,
            coming_back(served, path="/chat?user=bob") as bob,
        ):
            await ann.send(type="message", message="a", run_id="secret")
            await ann.until("message_chunk")
            for run_id in ("secret", "nobodys"):
                replies.append([])
                for command in (
                    {"type": "resume", "run_id": run_id, "after": -1},
                    {"type": "cancel", "run_id": run_id},
                    {"type": "approve", "run_id": run_id, "call_id": "c1"},
                ):
                    await bob.send(command)
                    replies[-1].append(await bob.receive())
            await bob.send(type="message", message="b", run_id="secret")
            own = await bob.until("run_start")

    assert replies[0] == replies[1]
    assert {reply["code"] for reply in replies[0]} == {"unknown_run"}
    assert own[-1]["data"]["message"] == "b"


async def test_a_run_that_is_forgotten_while_it_is_followed_is_told() -> None:
    agent = Counting()
    orchestrator = Orchestrator(agents=[agent])
    async with open_server(orchestrator) as served, coming_back(served) as peer:
        await peer.send(type="message", message="4", run_id="r")
        await peer.until("run_start")
        await orchestrator.store.delete("default", run_id="r")
        agent.go(4)
        frames = await peer.until("done")

    # Its recorder may append no more: the store has failed.
    assert frames[-2]["data"]["code"] == "store_failed"


@attrs.define(eq=False, kw_only=True)
class FailingStore(MemoryStore):
    """A store that reads nothing any more, where it is told so."""

    how: str = ""
    reads_left: int = 0
    """How often it still reads."""

    async def read(self, *args: Any) -> Any:
        if self.reads_left:
            self.reads_left -= 1
            return await super().read(*args)
        if self.how == "hangs":
            await trio.sleep_forever()
        if self.how:
            raise OSError("/canary")
        return await super().read(*args)


@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_a_store_that_fails_a_reader_ends_nothing_else(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowtrio._hosting._cursor.STORE_DEADLINE", 0.1)
    store, agent = FailingStore(), Counting()
    agent.go(1)
    async with open_server(Orchestrator(agents=[agent], store=store)) as served:
        async with coming_back(served) as peer:
            await peer.send(type="message", message="1", run_id="ended")
            await peer.until("done")
            await peer.send(type="message", message="1", run_id="other")
            await peer.until("run_start")
            store.how = how
            await peer.send(type="resume", run_id="ended", after=2, ref=7)
            rejected = await peer.until("rejected", ref=7)
            agent.go(1)
            done = await peer.until("done")

    assert rejected[-1]["code"] == "store_failed"
    assert "canary" not in str(rejected)
    assert done[-1]["data"]["status"] == "completed"


async def test_a_store_that_fails_in_the_middle_is_told() -> None:
    """The log is read from the store again, by a reader who came late."""
    store, agent = FailingStore(), Counting()
    agent.go(2000)
    async with open_server(Orchestrator(agents=[agent], store=store)) as served:
        async with coming_back(served) as peer:
            await peer.send(type="message", message="2000", run_id="r")
            await peer.until("done")
            store.how, store.reads_left = "raises", 2
            await peer.send(type="resume", run_id="r", after=0)
            frames = await peer.until("rejected")

    assert (frames[-1]["code"], frames[-1]["ref"]) == ("store_failed", None)
    assert len([f for f in frames if "seq" in f]) == 500


# Stopping


@pytest.mark.parametrize("is_attached", [True, False])
async def test_a_shutdown_ends_hosted_runs_too(is_attached: bool) -> None:
    orchestrator = Orchestrator(agents=[waits])
    async with open_server(orchestrator, drain=0.1) as served:
        async with coming_back(served) as peer:
            await peer.send(type="message", message="a", run_id="r")
            frames = await peer.until("message_chunk")
            if not is_attached:
                await drop(peer)
            served.scope.cancel()
            if is_attached:
                frames += await peer.until("done")
                code, _ = await peer.closed()
                assert code == 1012
        if not is_attached:
            while orchestrator.is_open:
                await trio.sleep(0.01)
    log = await orchestrator.store.read("default", "r", -1, 1000)

    check_events(log)
    assert log[-2].data["code"] == "shutdown"
    if is_attached:
        assert [event["seq"] for event in events_of(frames)] == [event.seq for event in log]


async def test_while_it_stops_a_server_attaches_and_starts_nothing() -> None:
    agent = Counting()
    async with open_server(agent, drain=5) as served, coming_back(served) as peer:
        await peer.send(type="message", message="2", run_id="r")
        await peer.until("run_start")
        async with coming_back(served) as other:
            await other.send(type="message", message="2", run_id="r", ref="warm")
            await other.until("run_start")
            served.scope.cancel()
            await trio.testing.wait_all_tasks_blocked(0.05)
            await other.send(type="resume", run_id="r", after=-1, ref="again")
            assert (await other.until("accepted"))[-1]["ref"] == "again"
            await other.send(type="message", message="2", run_id="new", ref="new")
            assert (await other.until("rejected"))[-1]["code"] == "shutting_down"
            agent.go(2)
            await other.until("done")
            await peer.until("done")

    assert agent.started == 1
