"""Orchestrators that share a store: who runs what, and what becomes of it when one is gone."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from flowtrio import (
    AgentEvent,
    AgentStatus,
    ClientTool,
    LimitExceeded,
    Limits,
    LocalProtocolError,
    MemoryConversations,
    Orchestrator,
    RunContext,
    RunExists,
    Text,
    tool,
)
from flowtrio._hosting import _orphans
from flowtrio._hosting._claims import Claim
from flowtrio._hosting._cluster import Cluster
from flowtrio._hosting._hosted import HostedRun
from flowtrio._hosting._reaping import Reaper
from flowtrio._hosting._recorder import Recorder
from flowtrio._hosting._service import Service
from flowtrio.testing import LeasedStore, Schedule, ScriptedModel, check_events
from flowtrio.testing._schedule import exploring, virtual_clock
from tests.runtime._programs import done_of, error_of
from tests.support.orchestrators import SeenStore, World
from tests.support.photographs import photograph

T = "default"


async def talks(ctx: RunContext, message: str) -> str:
    """Say a word a second, as many as the message says."""
    async with ctx.message() as out:
        for number in range(int(message)):
            await trio.sleep(1)
            await out.write(f"{number} ")
    return message


async def asks(ctx: RunContext, message: str) -> str:
    """Ask for approval, then a question."""
    if not await ctx.approve("book", {}):
        return "denied"
    return await ctx.ask("where?")


def make(store: LeasedStore, agent: Any = talks, **options: Any) -> Orchestrator:
    """One process."""
    return Orchestrator(agents=[agent], store=store, conversations=store.conversations, **options)


@asynccontextmanager
async def two(
    agent: Any = talks, store: LeasedStore | None = None, **options: Any
) -> AsyncIterator[tuple[Orchestrator, Orchestrator]]:
    """A gateway and a worker."""
    store = store or SeenStore(LeasedStore())
    worker = make(SeenStore(store), agent, role="worker", **options)
    async with make(store, agent, role="gateway", **options) as gateway, worker:
        await trio.sleep(0.6)
        yield gateway, worker


async def read(orchestrator: Orchestrator, run_id: str, **options: Any) -> list[AgentEvent]:
    """A run's whole log, which keeps the laws."""
    async with orchestrator.attach(run_id, **options) as stream:
        log = [event async for event in stream]
    check_events(log)
    return log


async def until(orchestrator: Orchestrator, run_id: str, kind: str) -> AgentEvent:
    """Wait for an event."""
    async with orchestrator.attach(run_id) as stream:
        async for event in stream:
            if event.type == kind:
                return event
    raise AssertionError(f"no {kind} came")


def sight_of(orchestrator: Orchestrator) -> Any:
    assert isinstance(orchestrator.store, SeenStore)
    return orchestrator.store.sight


# Starting, running and reading


async def test_a_gateway_starts_and_reads_what_a_worker_runs(autojump_clock: Any) -> None:
    async with two() as (gateway, worker):
        run_id = await gateway.start("3", session_id="s")
        log = await read(gateway, run_id)

        assert await read(worker, run_id) == log
        said = await gateway.conversations.load(T, "s")

    assert done_of(log)["status"] == "completed"
    assert said[0] == {"role": "user", "content": "3"}


async def test_one_process_alone_does_both(autojump_clock: Any) -> None:
    async with make(LeasedStore()) as both:
        run_id = await both.start("2")
        assert done_of(await read(both, run_id))["status"] == "completed"
    async with make(LeasedStore()) as both:
        assert await both.process("1") == "1"


async def test_what_was_asked_for_goes_to_who_runs_it(autojump_clock: Any) -> None:
    pytest.importorskip("jsonschema")
    met: list[RunContext] = []

    async def sees(ctx: RunContext, message: str) -> str:
        met.append(ctx)
        return ctx.app["name"]

    schema = {"type": "object", "properties": {}}
    async with two(sees, app={"name": "theirs"}) as (gateway, _):
        run_id = await gateway.start(
            [Text("hi")],
            limits=Limits(turns=3),
            history=[{"role": "user", "content": "before"}, {"role": "assistant", "content": "x"}],
            tools=[ClientTool("look", "Look.", schema)],
            model_settings={"temperature": 0},
        )
        log = await read(gateway, run_id)
        header = await gateway.store.header(T, run_id)

    assert done_of(log)["result"] == "theirs"
    assert met[0].history[0]["content"] == "before"
    info = met[0]._frame.run.info
    assert info.limits.turns == 3
    assert info.given.model_settings == {"temperature": 0}
    assert [each.name for each in info.given.tools] == ["look"]
    assert header is not None
    assert header.asked is None


async def test_a_run_that_goes_on_from_its_history_does_so_wherever_it_runs(
    autojump_clock: Any,
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    history = [
        {"role": "user", "content": "Look!"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "a loom"},
    ]
    seen: list[Any] = []

    async def sees(ctx: RunContext, message: str) -> str:
        seen.append(ctx.messages)
        return message

    async with two(sees) as (gateway, _):
        for given in (history, history[:1]):
            await read(gateway, await gateway.start(None, history=given))

    assert seen == [history, history[:1]]


async def test_an_app_that_is_json_goes_to_who_runs_it(autojump_clock: Any) -> None:
    async def sees(ctx: RunContext, message: str) -> Any:
        return ctx.app

    async with two(sees, app="theirs") as (gateway, _):
        results = [
            done_of(await read(gateway, await gateway.start("1", app=app)))["result"]
            for app in ({"state": {"n": [1, None]}}, None)
        ]

    assert results == [{"state": {"n": [1, None]}}, "theirs"]


async def test_what_is_in_one_process_alone_is_refused(autojump_clock: Any) -> None:
    @tool
    async def here() -> str:
        """Here."""
        return "here"

    async with make(LeasedStore()) as both:
        with pytest.raises(LocalProtocolError, match="app="):
            await both.start("1", app=object())
        with pytest.raises(LocalProtocolError, match="tools="):
            await both.start("1", tools=[here])


async def test_a_start_with_an_id_is_one_run_in_the_whole_cluster(autojump_clock: Any) -> None:
    store = LeasedStore()
    executed: list[str] = []

    async def counts(ctx: RunContext, message: str) -> str:
        executed.append(ctx.run_id)
        return message

    many = [make(store.beside(), counts) for _ in range(10)]
    async with trio.open_nursery() as nursery:

        async def live(orchestrator: Orchestrator, task_status: Any) -> None:
            async with orchestrator:
                task_status.started()
                await trio.sleep(60)

        for each in many:
            await nursery.start(live, each)
        for each in many:
            nursery.start_soon(each.start, "hi", T, None, "mine")
        await trio.sleep(5)
        with pytest.raises(RunExists):
            await many[3].start("another", run_id="mine")

    assert executed == ["mine"]


async def test_conversations_and_limits_hold_for_all_processes(autojump_clock: Any) -> None:
    async with two(queue_length=1, runs_per_tenant=3) as (gateway, _):
        first = await gateway.start("5", session_id="s")
        second = await gateway.start("1", session_id="s")
        with pytest.raises(LimitExceeded, match="session 's' is busy"):
            await gateway.start("1", session_id="s")
        await gateway.start("9")
        with pytest.raises(LimitExceeded, match="tenant 'default' has 3 runs"):
            await gateway.start("1")
        await read(gateway, first)
        await read(gateway, second)
        said = await gateway.conversations.load(T, "s")

    assert [each["content"] for each in said if each["role"] == "user"] == ["5", "1"]


async def test_a_busy_conversation_rejects_cancels_or_takes_a_post(autojump_clock: Any) -> None:
    async with two(on_busy="reject") as (gateway, _):
        await gateway.start("5", session_id="s")
        with pytest.raises(LimitExceeded) as refused:
            await gateway.start("1", session_id="s")
        assert refused.value.code == "session_busy"

    async with two(on_busy="cancel") as (gateway, _):
        first = await gateway.start("50", session_id="s")
        waiting = await gateway.start("50", session_id="s")
        last = await gateway.start("1", session_id="s")
        assert done_of(await read(gateway, first))["reason"].startswith("a newer message")
        assert done_of(await read(gateway, waiting))["status"] == "cancelled"
        assert done_of(await read(gateway, last))["status"] == "completed"


class Slow(ScriptedModel):
    """A model that takes its time."""

    async def stream_completion(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        await trio.sleep(3)
        async with super().stream_completion(*args, **options) as chunks:
            async for chunk in chunks:
                yield chunk


async def test_a_message_is_posted_to_a_run_elsewhere(autojump_clock: Any) -> None:
    from flowtrio import Agent, ToolCall

    @tool
    async def look() -> str:
        """Look."""
        await trio.sleep(5)
        return "seen"

    agent = Agent(llm_client=Slow([ToolCall("p", "look", {})], "done"), tools=[look])
    async with two(agent, on_busy="post") as (gateway, _):
        first = await gateway.start("hello", session_id="s")
        await trio.sleep(4)
        own = await gateway.start("mine", session_id="s", limits=Limits(turns=9))
        await gateway.command(own, "cancel", reason="enough")
        assert done_of(await read(gateway, own))["reason"] == "enough"
        second = await gateway.start("and this", session_id="s", run_id="second")
        assert await gateway.start("and this", session_id="s", run_id="second") == second
        log = await read(gateway, first)
        posted = await read(gateway, second)
        # Nothing follows that could take it: it waits in line.
        third = await gateway.start("later", session_id="s")
        said = await gateway.conversations.load(T, "s")

    heard = [event.data["message"] for event in log if event.type == "user_message"]
    assert heard == ["and this"]
    assert done_of(posted)["reason"] == f"its message was posted to run {first}"
    assert [e["content"] for e in said if e["role"] == "user"] == ["hello", "and this"]
    assert third


async def test_nothing_that_is_posted_elsewhere_overtakes_what_waits(autojump_clock: Any) -> None:
    async def reads_first(ctx: RunContext, message: str) -> None:
        # Before it has asked a model, nobody knows whether it will.
        await trio.sleep(5)
        await ctx.model(ctx.messages, Slow("fine", "fine", "fine"))

    async with two(reads_first, on_busy="post") as (gateway, _):
        await gateway.start("go", session_id="s")
        await trio.sleep(2)
        await gateway.start("waits", session_id="s")
        await trio.sleep(4)
        await read(gateway, await gateway.start("comes last", session_id="s"))
        kept = await gateway.conversations.load(T, "s")

    said = [message["content"] for message in kept if message["role"] == "user"]
    assert said == ["go", "waits", "comes last"]


async def test_who_cannot_be_posted_to_is_waited_for(autojump_clock: Any) -> None:
    async with two(on_busy="post") as (gateway, worker):
        # It waits itself: no reply of its follows yet.
        worker._cluster.worker.is_stopped = True  # type: ignore[union-attr]
        await gateway.start("1", session_id="s")
        second = await gateway.start("2", session_id="s")
        worker._cluster.worker.is_stopped = False  # type: ignore[union-attr]
        assert done_of(await read(gateway, second))["result"] == "2"


async def test_a_run_that_nobody_has_room_for_ends_at_last(autojump_clock: Any) -> None:
    async with two(queue_wait=30, lease=3, capacity=1) as (gateway, _):
        first = await gateway.start("90", session_id="s")
        behind = await gateway.start("1", session_id="s")
        alone = await gateway.start("1")
        late, lone = await read(gateway, behind), await read(gateway, alone)
        assert error_of(late)["code"] == "session_busy"
        assert error_of(lone)["code"] == "queue_wait"
        assert await gateway.command(first, "cancel", reason="enough") is True


async def test_a_deleted_conversation_is_gone_everywhere(autojump_clock: Any) -> None:
    async with two() as (gateway, _):
        run_id = await gateway.start("50", session_id="s")
        await gateway.start("50", session_id="s")
        await trio.sleep(2)
        await gateway._forget(T, "s")

        assert await gateway.conversations.load(T, "s") == []
        assert await gateway.store.header(T, run_id) is None


@asynccontextmanager
async def alone() -> AsyncIterator[tuple[Orchestrator, Orchestrator]]:
    """A process that shares its store with nobody."""
    async with Orchestrator(agents=[talks]) as orchestrator:
        yield orchestrator, orchestrator


@pytest.mark.parametrize("what", ["run", "conversation"])
@pytest.mark.parametrize("some", [alone, two])
async def test_what_is_deleted_is_cancelled_first_and_told_so(
    some: Any, what: str, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Though it stands in no line, as nothing of it is remembered."""
    async with some() as (orchestrator, _):
        run_id = await orchestrator.start("500")
        [header] = await orchestrator.store.list(T)
        assert header.session_id is not None
        log: list[AgentEvent] = []

        async def follow() -> None:
            async with orchestrator.attach(run_id) as follower:
                log.extend([event async for event in follower])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.sleep(5)
            with trio.fail_after(20):
                if what == "run":
                    assert await Service(orchestrator).forget_run(T, run_id)
                else:
                    await orchestrator._forget(T, header.session_id)

        assert done_of(log)["reason"].endswith("was deleted")
        assert await orchestrator.store.header(T, run_id) is None
        await trio.sleep(5)
    assert [each for each in caplog.records if each.levelno > logging.INFO] == []


async def test_a_run_that_cannot_be_made_here_ends(autojump_clock: Any) -> None:
    store = LeasedStore()

    async def other(ctx: RunContext, message: str) -> str:
        return message

    async with (
        make(store, talks, role="gateway") as gateway,
        make(store.beside(), other, role="worker"),
    ):
        log = await read(gateway, await gateway.start("1"))

    assert error_of(log)["code"] == "not_runnable"


def test_what_does_not_make_one_process_of_several_is_refused() -> None:
    store = LeasedStore()
    for options, word in (
        ({"role": "boss"}, "role='boss'"),
        ({"lease": 0}, "lease=0"),
        ({"lease": math.inf}, "lease=inf"),
        ({"capacity": 0}, "capacity=0"),
    ):
        with pytest.raises(ValueError, match=word):
            make(store, **options)
    with pytest.raises(ValueError, match="shared by processes"):
        Orchestrator(agents=[talks], store=store, conversations=MemoryConversations())
    with pytest.raises(ValueError, match="expected a store= that processes share"):
        Orchestrator(agents=[talks], role="gateway")


async def test_an_orchestrator_is_not_opened_twice(autojump_clock: Any) -> None:
    both = make(LeasedStore())
    async with both:
        with pytest.raises(RuntimeError, match="twice"):
            await both.__aenter__()
    async with both:
        assert done_of(await read(both, await both.start("1")))["status"] == "completed"


# Commands


async def test_commands_reach_a_run_elsewhere(autojump_clock: Any) -> None:
    async with two(asks) as (gateway, _):
        run_id = await gateway.start("hi")
        call = await until(gateway, run_id, "approval_required")
        assert await gateway.command(run_id, "approve", call_id=call.data["call_id"]) is True
        question = await until(gateway, run_id, "input_required")
        key = question.data["request_id"]
        assert await gateway.command(run_id, "answer", request_id=key, value="there") is True
        log = await read(gateway, run_id)
        assert await gateway.command(run_id, "cancel") is False
        assert await gateway.command(run_id, "cancel", tenant_id="other") is None

    assert done_of(log)["result"] == "there"


async def test_a_command_that_does_not_fit_says_so_wherever_the_run_is(autojump_clock: Any) -> None:
    async def asks_number(ctx: RunContext, message: str) -> str:
        return str(await ctx.ask("how many?", int))

    async with two(asks_number) as (gateway, worker):
        run_id = await gateway.start("hi")
        key = (await until(gateway, run_id, "input_required")).data["request_id"]
        for each in (gateway, worker):
            with pytest.raises(ValueError, match="int"):
                await each.command(run_id, "answer", request_id=key, value="many")
        with pytest.raises(ValueError, match="expected one of"):
            await gateway.command(run_id, "explode")
        with pytest.raises(TypeError):
            await gateway.command(run_id, "cancel", why="so")
        assert await worker.command(run_id, "answer", request_id=key, value=3) is True
        assert done_of(await read(gateway, run_id))["result"] == "3"


async def test_commands_need_no_shared_store(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as alone:
        run_id = await alone.start("50")
        assert await alone.command(run_id, "cancel", reason="enough") is True
        await read(alone, run_id)
        assert await alone.command(run_id, "cancel") is False
        assert await alone.command("none", "cancel") is None


async def test_a_run_that_waits_is_cancelled_before_it_begins(autojump_clock: Any) -> None:
    async with make(LeasedStore(), role="gateway") as gateway:
        run_id = await gateway.start("1", session_id="s")
        await trio.sleep(1)
        assert await gateway.command(run_id, "post", message="more") is False
        assert await gateway.command(run_id, "cancel", reason="not wanted") is True
        log = await read(gateway, run_id)

    assert [event.type for event in log] == ["run_start", "state_change", "done"]
    assert done_of(log)["reason"] == "not wanted"


async def test_a_command_is_not_accepted_without_a_reply(autojump_clock: Any) -> None:
    async with two(lease=60) as (gateway, worker):
        run_id = await gateway.start("500")
        await until(gateway, run_id, "message_chunk")
        sight_of(worker).is_dead = True
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await gateway.command(run_id, "cancel")
        assert trio.current_time() == began + 5


async def test_a_command_whose_reply_was_lost_is_done_once(autojump_clock: Any) -> None:
    class Deaf(SeenStore):
        lost = 1

        async def send(self, channel: str, data: bytes) -> int:
            if channel.startswith("from:") and Deaf.lost:
                Deaf.lost -= 1
                raise OSError("gone")
            return await super().send(channel, data)

    store = LeasedStore()
    async with make(store, asks, role="gateway") as gateway, make(Deaf(store), asks) as worker:
        run_id = await gateway.start("hi")
        key = (await until(gateway, run_id, "approval_required")).data["call_id"]
        assert await gateway.command(run_id, "approve", call_id=key) is True
        answers = worker._cluster.commands._answers  # type: ignore[union-attr]
        assert len(answers) == 1


async def test_only_so_many_answers_are_kept(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowtrio._hosting import _commands

    monkeypatch.setattr(_commands, "_MOST_ANSWERS", 1)
    async with two(asks) as (gateway, worker):
        run_id = await gateway.start("hi")
        await until(gateway, run_id, "approval_required")
        for key in ("x", "y"):
            assert await gateway.command(run_id, "approve", call_id=key) is False
        assert len(worker._cluster.commands._answers) == 1  # type: ignore[union-attr]


async def test_controls_of_a_run_elsewhere_name_the_command(autojump_clock: Any) -> None:
    async with two() as (gateway, _):
        run_id = await gateway.start("3")
        async with gateway.attach(run_id) as follower:
            assert follower.status is AgentStatus.INITIALIZING
            with pytest.raises(LocalProtocolError, match=r"orchestrator\.command"):
                follower.cancel()
            async for _ in follower:
                pass
            assert follower.cancel() is False
        assert gateway.attach(run_id).cancel() is False


async def test_a_command_that_this_process_does_not_know_is_refused(autojump_clock: Any) -> None:
    async with two(asks) as (gateway, worker):
        run_id = await gateway.start("hi")
        await until(gateway, run_id, "approval_required")
        for each in (gateway, worker):
            with pytest.raises(ValueError, match="expected one of"):
                await each._cluster.commands.command(T, run_id, "aclose", {})  # type: ignore[union-attr]


async def test_who_is_not_there_to_be_posted_to_is_waited_for(autojump_clock: Any) -> None:
    async with two(on_busy="post", lease=30) as (gateway, worker):
        first = await gateway.start("500", session_id="s")
        await until(gateway, first, "message_chunk")
        sight_of(worker).is_dead = True
        assert await gateway.start("1", session_id="s", run_id="second") == "second"
        assert await gateway.store.line(T, "s") == [first, "second"]  # type: ignore[attr-defined]


async def test_what_fails_beside_a_start_costs_no_loop(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(SeenStore):
        is_odd = False

        async def header(self, *key: str) -> Any:
            if self.is_odd:
                raise RuntimeError("OOM")
            return await super().header(*key)

    store = Odd(LeasedStore())
    async with two(store=store, on_busy="cancel") as (gateway, _):
        first = await gateway.start("500", session_id="s")
        store.is_odd = True
        second = await gateway.start("1", session_id="s")

        async def fails() -> None:
            raise RuntimeError("odd")

        gateway._cluster._spawn(fails)  # type: ignore[union-attr]
        await trio.sleep(1)
        store.is_odd = False
        assert f"run {first}: not cancelled: RuntimeError" in caplog.text
        assert "the shared store failed this process" in caplog.text
        assert await gateway.command(first, "cancel") is True
        assert done_of(await read(gateway, second))["status"] == "completed"


async def test_an_end_that_is_not_stored_costs_that_run(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def other(ctx: RunContext, message: str) -> str:
        return message

    store = LeasedStore()
    async with make(store, talks, role="gateway") as gateway, make(Full(store), other) as worker:
        run_id = await gateway.start("1")
        await trio.sleep(5)
        assert f"run {run_id}: its end is not stored" in caplog.text
        assert worker.is_open


# Who is gone


async def test_the_run_of_a_killed_worker_ends_as_interrupted(autojump_clock: Any) -> None:
    async with two() as (gateway, worker):
        await trio.sleep(20)
        run_id = await gateway.start("50", session_id="s")
        await until(gateway, run_id, "message_chunk")
        sight_of(worker).is_dead = True
        began = trio.current_time()
        log = await read(gateway, run_id)

        assert trio.current_time() - began <= 1.75 * gateway.lease
        assert error_of(log)["code"] == "interrupted"
        said = await gateway.conversations.load(T, "s")
        assert [each["role"] for each in said] == ["user", "assistant"]
        assert gateway._meter.reaped == 1


async def test_a_worker_that_was_away_says_nothing_more(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is Fenced: no event, no turn, no traceback; and it goes on under another name."""
    store = LeasedStore()
    async with two(store=SeenStore(store)) as (gateway, worker):
        await trio.sleep(20)
        owner = worker._cluster.lease.owner  # type: ignore[union-attr]
        run_id = await gateway.start("40", session_id="s")
        await until(gateway, run_id, "message_chunk")
        # Another process ends it at once, as if the lease had been gone.
        lost = store._place.runs[T, run_id].header
        log = store._place.runs[T, run_id].events
        store._place.runs[T, run_id].header = attrs.evolve(lost, owner="another")
        with caplog.at_level(logging.INFO):
            await trio.sleep(3)
        assert not [r for r in caplog.records if r.levelno >= logging.ERROR or r.exc_info]
        assert worker._recorder.runs == {}
        assert worker._meter.fenced == 1
        assert worker._meter.store_failures == 0
        assert len(log) == store._place.runs[T, run_id].last + 1
        assert await gateway.conversations.load(T, "s") == []
        # Cut off for longer than its lease, it goes by another name.
        run_id = await gateway.start("40", run_id="second")
        await until(gateway, run_id, "message_chunk")
        sight_of(worker).back_at = trio.current_time() + 3 * worker.lease
        await trio.sleep(6 * worker.lease)
        assert worker._cluster.lease.owner != owner  # type: ignore[union-attr]
        assert error_of(await read(gateway, run_id))["code"] == "interrupted"
        again = await read(gateway, await gateway.start("1"))
        assert done_of(again)["status"] == "completed"


async def test_a_lease_that_is_gone_ends_what_is_run_here(autojump_clock: Any) -> None:
    class Forgetful(SeenStore):
        forgets = False

        async def renew(self, owner: str, ttl: float) -> bool:
            lived = await super().renew(owner, ttl)
            forgets, self.forgets = self.forgets, False
            return lived and not forgets

    store = Forgetful(LeasedStore())
    async with make(store) as both:
        run_id = await both.start("500")
        await until(both, run_id, "message_chunk")
        async with both.attach(run_id) as follower:
            await follower.receive_batch()
            store.forgets = True
            rest = [event async for event in follower]
        assert rest[-2].data["code"] == "interrupted"
        check_events(await read(both, run_id))


async def test_a_lease_is_got_as_soon_as_the_store_is_there(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = SeenStore(LeasedStore())
    store.sight.back_at = trio.current_time() + 100
    async with make(store) as both:
        with pytest.raises(trio.TooSlowError):
            await both.start("1")
        await trio.sleep(100)
        assert done_of(await read(both, await both.start("1")))["status"] == "completed"

    said = [r.getMessage() for r in caplog.records if "no lease" in r.getMessage()]
    assert len(said) == 1


async def test_what_the_store_raises_ends_nothing_for_good(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SeenStore):
        is_broken = False

        async def claim(self, owner: str, ttl: float) -> Any:
            if self.is_broken:
                raise OSError("no store")
            return await super().claim(owner, ttl)

        renew_fails = 0

        async def renew(self, owner: str, ttl: float) -> bool:
            if self.renew_fails:
                self.renew_fails -= 1
                raise OSError("no store")
            return await super().renew(owner, ttl)

        async def leave(self, owner: str) -> None:
            raise OSError("no store")

    store = Broken(LeasedStore())
    async with make(store) as both:
        await trio.sleep(1.2)
        store.is_broken, store.renew_fails = True, 2
        run_id = await both.start("1")
        await trio.sleep(7)
        assert (await both.store.list(T))[0].owner is None
        store.is_broken = False
        assert done_of(await read(both, run_id))["status"] == "completed"

    said = [r.getMessage() for r in caplog.records]
    assert said.count("the shared store failed this process") == 1
    assert "a lease is not given up, and will lapse" in said


async def test_many_runs_of_one_worker_all_end_in_time(autojump_clock: Any) -> None:
    """They are asked for some at a time."""
    async with two() as (gateway, worker):
        await trio.sleep(20)
        runs = [await gateway.start("500") for _ in range(250)]
        await until(gateway, runs[-1], "message_chunk")
        sight_of(worker).is_dead = True
        began = trio.current_time()
        for run_id in runs:
            assert error_of(await read(gateway, run_id))["code"] == "interrupted"

        assert trio.current_time() - began <= 1.5 * gateway.lease


async def test_runs_end_as_soon_as_the_store_is_back(autojump_clock: Any) -> None:
    """All leases are gone with it, and whoever had one has given up."""
    async with two() as (gateway, worker):
        run_id = await gateway.start("500")
        await until(gateway, run_id, "message_chunk")
        back_at = trio.current_time() + 3 * gateway.lease
        for each in (gateway, worker):
            sight_of(each).back_at = back_at
        await trio.sleep_until(back_at)
        log = await read(gateway, run_id)

        assert error_of(log)["code"] == "interrupted"
        assert trio.current_time() <= back_at + gateway.lease / 2


async def test_one_lost_run_that_cannot_be_closed_does_not_keep_others(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Half(SeenStore):
        async def close(self, header: Any, *rest: Any) -> None:
            if header.run_id == "bad":
                raise OSError("no store")
            await super().close(header, *rest)

    store = LeasedStore()
    worker = make(SeenStore(store), role="worker")
    async with make(Half(store), role="gateway") as gateway, worker:
        for run_id in ("bad", "good"):
            await gateway.start("50", run_id=run_id)
            await until(gateway, run_id, "message_chunk")
        sight_of(worker).is_dead = True
        assert error_of(await read(gateway, "good"))["code"] == "interrupted"
        assert "run bad: its log cannot be put right now" in caplog.text


async def test_a_store_that_lost_something_is_healed_by_the_owner(autojump_clock: Any) -> None:
    store = LeasedStore()
    async with make(store) as both:
        run_id = await both.start("6")
        await until(both, run_id, "message_chunk")
        del store._place.runs[T, run_id].events[2:]
        log = await read(both, run_id)
        assert both._meter.healed == 1

    assert done_of(log)["status"] == "completed"
    assert log == store._place.runs[T, run_id].events


async def ended_again(**options: Any) -> tuple[list[AgentEvent], list[AgentEvent], Any]:
    """What was read of a run whose end its store has lost, and later again; and what was said."""
    store = LeasedStore()
    async with make(store, **options) as both:
        await trio.sleep(1)
        run_id = await both.start("3", session_id="s")
        await trio.sleep(2.5)
        restore = photograph(store._place)
        first = await read(both, run_id)
        await trio.sleep(1)
        restore()
        # Another one of the conversation waits behind it.
        await read(both, await both.start("1", session_id="s"))
        return first, await read(both, run_id), await both.conversations.load(T, "s")


async def test_an_end_that_the_store_has_lost_is_stored_again(autojump_clock: Any) -> None:
    first, again, said = await ended_again()

    assert again == first
    assert done_of(first)["status"] == "completed"
    assert [each["content"] for each in said if each["role"] == "user"] == ["3", "1"]
    assert trio.current_time() < 16


async def asked_again() -> list[AgentEvent]:
    """What a run told that waits for an answer to what its store has lost."""
    async with two(asks) as (gateway, _):
        run_id = await gateway.start("hi")
        await until(gateway, run_id, "approval_required")
        assert isinstance(gateway.store, LeasedStore)
        del gateway.store._place.runs[T, run_id].events[2:]
        call = await until(gateway, run_id, "approval_required")
        assert await gateway.command(run_id, "approve", call_id=call.data["call_id"])
        question = await until(gateway, run_id, "input_required")
        key = question.data["request_id"]
        assert await gateway.command(run_id, "answer", request_id=key, value="there")
        return await read(gateway, run_id)


async def test_who_waits_for_an_answer_tells_a_lost_question_again(autojump_clock: Any) -> None:
    assert done_of(await asked_again())["result"] == "there"


async def turns_of_a_lost_moment() -> list[str]:
    """Of a conversation whose store has lost what came just before the end of its run."""
    store = LeasedStore()

    class Late(SeenStore):
        """It loses what was saved, as the end comes."""

        async def append(
            self, tenant_id: str, run_id: str, after: int, events: Any, *who: Any
        ) -> None:
            if events[-1].type == "done" and restores:
                restores.pop()()
            await super().append(tenant_id, run_id, after, events, *who)

    restores: list[Any] = []
    async with make(Late(store)) as both:
        await trio.sleep(1)
        run_id = await both.start("3", session_id="s")
        await trio.sleep(2.5)
        restores.append(photograph(store._place))
        await read(both, run_id)
        said = await both.conversations.load(T, "s")
    return [each["content"] for each in said if each["role"] == "user"]


async def test_a_turn_that_the_store_has_lost_is_kept_again(autojump_clock: Any) -> None:
    assert await turns_of_a_lost_moment() == ["3"]


async def test_who_keeps_no_turn_again_is_found(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Claim, "keep_again", lambda self: trio.sleep(0))

    assert await turns_of_a_lost_moment() == []


async def test_an_end_that_nobody_knows_any_more_is_made_anew(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_orphans, "_MOST_EVENTS", 0)
    monkeypatch.setattr(_orphans, "_MOST_RUNS", 0)
    first, again, said = await ended_again()

    assert done_of(first)["status"] == "completed"
    assert error_of(again)["code"] == "interrupted"
    assert [each["content"] for each in said if each["role"] == "user"] == ["3", "1"]


async def test_who_never_asks_what_it_owns_is_found(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_orphans.Orphans, "look", lambda self: trio.sleep(0))

    for play in (asked_again, partial(ended_again, queue_wait=math.inf)):
        with trio.move_on_after(100) as waiting:
            await play()
        assert waiting.cancelled_caught


async def test_what_was_claimed_and_never_begun_is_nobodys_orphan(autojump_clock: Any) -> None:
    store = LeasedStore()
    async with make(store, role="gateway") as gateway, make(SeenStore(store)) as worker:
        await trio.sleep(1)
        claiming = worker._cluster.worker  # type: ignore[union-attr]
        claiming.find_nursery = lambda: None
        run_id = await gateway.start("1")
        await trio.sleep(9)
        assert (await store.list(T))[0].ended_at is None
        assert await store.owned(worker._cluster.lease.owner) == {(T, run_id): -1}  # type: ignore[union-attr]


async def test_a_run_whose_store_fails_is_told_by_the_store_alone(autojump_clock: Any) -> None:
    """Followers here never hear an end that the log may not get."""

    class Full(SeenStore):
        is_full = False

        async def append(self, *args: Any) -> None:
            if self.is_full:
                raise OSError("no room")
            await super().append(*args)

    store = Full(LeasedStore())
    async with make(store) as both:
        run_id = await both.start("3")
        async with both.attach(run_id) as follower:
            await follower.receive_batch()
            store.is_full = True
            with trio.move_on_after(20):
                while True:
                    batch = await follower.receive_batch()
                    assert batch[-1].type != "done"
            store.is_full = False
            rest = [event async for event in follower]
        assert rest[-2].data["code"] == "store_failed"
        assert await read(both, run_id) == store._place.runs[T, run_id].events


async def test_a_claim_under_a_name_that_was_given_up_is_given_back(autojump_clock: Any) -> None:
    class Slow(SeenStore):
        async def claim(self, owner: str, ttl: float) -> Any:
            header = await super().claim(owner, ttl)
            if header is not None and header.run_id not in seen:
                seen.append(header.run_id)
                await trio.sleep(3 * ttl)
            return header

    seen: list[str] = []
    store = LeasedStore()
    async with make(Slow(store), lease=6) as both:
        await trio.sleep(1)
        run_id = await both.start("1")
        assert done_of(await read(both, run_id))["status"] in ("completed", "error")


# Who leaves


async def test_what_was_claimed_and_not_begun_is_given_back(autojump_clock: Any) -> None:
    store = LeasedStore()
    async with make(store, role="gateway") as gateway:
        async with make(SeenStore(store), role="worker") as worker:
            await trio.sleep(1)
            claiming = worker._cluster.worker  # type: ignore[union-attr]
            claiming.find_nursery = lambda: None
            run_id = await gateway.start("1")
            await trio.sleep(1)
            assert (await store.list(T))[0].owner is not None
            worker._cluster.stop_claiming()  # type: ignore[union-attr]
        assert (await store.list(T))[0].owner is None
        async with make(SeenStore(store), role="worker"):
            assert done_of(await read(gateway, run_id))["status"] == "completed"


async def test_a_worker_that_is_closed_ends_its_runs_and_leaves_the_queue(
    autojump_clock: Any,
) -> None:
    store = LeasedStore()
    async with make(store, role="gateway") as gateway:
        async with make(SeenStore(store), role="worker", capacity=1):
            await trio.sleep(1)
            first = await gateway.start("500")
            second = await gateway.start("1")
            await until(gateway, first, "message_chunk")
        assert done_of(await read(gateway, first))["reason"] == "the orchestrator was closed"
        async with make(SeenStore(store), role="worker"):
            assert done_of(await read(gateway, second))["status"] == "completed"


async def test_a_cancelled_block_keeps_its_lease_until_all_is_stored(autojump_clock: Any) -> None:
    store = LeasedStore()
    with trio.move_on_after(5):
        async with make(store) as both:
            await both.start("500", run_id="r", session_id="s")
            await trio.sleep_forever()
    log = store._place.runs[T, "r"].events

    check_events(log)
    assert done_of(log)["reason"] == "the orchestrator was closed" or done_of(log)["reason"]
    assert len(store._place.said[T, "s"]) == 2


async def test_a_turn_is_kept_though_cleanup_outlasts_its_grace(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def lingers(ctx: RunContext, message: str) -> str:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(30)
        return ""

    async with two(lingers, limits=Limits(grace=2)) as (gateway, worker):
        run_id = await gateway.start("hi", session_id="s")
        await trio.sleep(1)
        assert await gateway.command(run_id, "cancel")
        assert error_of(await read(gateway, run_id))["code"] == "cleanup_timeout"
        said = await gateway.conversations.load(T, "s")
        assert said[0] == {"role": "user", "content": "hi"}
        # And where that fails, the end is stored all the same.
        run_id = await gateway.start("hi", session_id="s2")
        await trio.sleep(1)

        async def broken(*args: Any) -> None:
            raise OSError("no store")

        worker.conversations.save_after = broken  # type: ignore[attr-defined]
        assert await gateway.command(run_id, "cancel")
        assert error_of(await read(gateway, run_id))["code"] == "cleanup_timeout"
        assert f"run {run_id}: its turn is not kept" in caplog.text


# Readers


async def test_a_run_without_a_follower_anywhere_is_cancelled(autojump_clock: Any) -> None:
    async with two() as (gateway, _):
        run_id = await gateway.start("500", resume_window=8)
        async with gateway.attach(run_id):
            await trio.sleep(30)
        left = trio.current_time()
        log = await read(gateway, run_id)
        # Whoever read on has come back in time.
        assert trio.current_time() > left + 8
        run_id = await gateway.start("500", resume_window=8)
        await trio.sleep(20)
        log = await read(gateway, run_id)
        assert done_of(log)["reason"] == "no reader came back within 8 s"


async def test_a_window_of_nothing_waits_for_the_first_follower(autojump_clock: Any) -> None:
    async with two() as (gateway, _):
        run_id = await gateway.start("500", resume_window=0)
        await trio.sleep(10)
        async with gateway.attach(run_id):
            await trio.sleep(5)
        await trio.sleep(8)
        assert done_of(await read(gateway, run_id))["reason"] == "its reader left"


@pytest.mark.parametrize("room", [True, False], ids=["at-once", "in-the-queue"])
async def test_who_starts_a_run_to_read_it_may_leave_before_anybody_has_looked(
    room: bool, autojump_clock: Any
) -> None:
    async with two(capacity=1) as (gateway, _):
        other = None if room else await gateway.start("10")
        async with Service(gateway).starting(None, "500", T, None, "left", 0):
            with trio.move_on_after(0.2):
                await read(gateway, "left")
        if other is not None:
            await read(gateway, other)
        await trio.sleep(5)
        assert done_of(await read(gateway, "left"))["duration"] < 5


async def test_a_run_that_waits_for_a_person_is_not_left(autojump_clock: Any) -> None:
    async with two(asks) as (gateway, worker):
        run_id = await gateway.start("hi", resume_window=3)
        await trio.sleep(60)
        assert run_id in {key[1] for key in worker._recorder.runs}


async def test_a_follower_that_is_dropped_counts_no_more(autojump_clock: Any) -> None:
    async with two() as (gateway, _):
        run_id = await gateway.start("30")
        follower = gateway.attach(run_id)
        await follower.receive_batch()
        assert await gateway.store.followers(T, run_id) == 1  # type: ignore[attr-defined]
        del follower
        gc.collect()
        await trio.sleep(0.1)
        assert await gateway.store.followers(T, run_id) == 0  # type: ignore[attr-defined]


async def test_a_run_that_is_deleted_elsewhere_ends_its_readers(autojump_clock: Any) -> None:
    async with two() as (gateway, worker):
        run_id = await gateway.start("30")
        async with gateway.attach(run_id) as follower:
            await follower.receive_batch()
            await worker.store.delete(T, run_id=run_id)
            with pytest.raises(LookupError):
                while True:
                    await follower.receive_batch()


# Worlds


def play(seed: int, **options: Any) -> list[str]:
    """One world on one schedule."""
    with exploring(Schedule.from_seed(seed)):
        return trio.run(World(seed, **options).play, clock=virtual_clock())


def first_found(**options: Any) -> list[str]:
    """What is found by the first seed that finds anything."""
    return next((found for seed in range(60) if (found := play(seed, **options))), [])


@pytest.mark.parametrize("block", range(4))
def test_nothing_is_lost_doubled_or_run_twice(block: int) -> None:
    for seed in range(block * 8, block * 8 + 8):
        assert (seed, play(seed)) == (seed, [])


@pytest.mark.parametrize("block", range(2))
def test_runs_that_have_nobody_end_in_time_though_the_store_is_away(block: int) -> None:
    for seed in range(block * 6, block * 6 + 6):
        assert (seed, play(seed, outages=4)) == (seed, [])


def test_nobody_fails_where_nobody_is_gone() -> None:
    for seed in range(4):
        assert (seed, play(seed, kills=0, cuts=0)) == (seed, [])


# Planted bugs


def test_who_appends_in_nobodys_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostedRun, "named", ())

    assert first_found(outages=10)


def test_who_goes_on_without_a_lease_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "_fence_all", lambda self, owner: None)

    assert first_found(outages=10)


def test_who_tells_followers_what_is_not_stored_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        HostedRun, "is_apart", property(lambda self: False, lambda self, value: None)
    )

    assert first_found()


def test_reapers_that_wait_after_each_outage_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Reaper.reap

    async def slow(self: Reaper) -> None:
        began = trio.current_time()
        await self.store.lost(1)
        if trio.current_time() > began + self.lease.ttl / 3:
            await trio.sleep(2 * self.lease.ttl)
            return
        await original(self)

    monkeypatch.setattr(Reaper, "reap", slow)

    assert "had nobody for" in first_found(outages=4)[0]


class Full(SeenStore):
    """It takes no log's beginning."""

    async def append(self, *args: Any) -> None:
        await trio.sleep(1)
        raise OSError("no room")


async def executed_without_a_log() -> int:
    """How often a run is executed of which the store takes no event."""
    executed: list[str] = []

    async def counts(ctx: RunContext, message: str) -> str:
        executed.append(ctx.run_id)
        return message

    async with make(Full(LeasedStore()), counts) as both:
        await both.start("hi")
        await trio.sleep(30)
    return len(executed)


async def test_nothing_is_executed_before_the_log_has_begun(autojump_clock: Any) -> None:
    """A run without events may be given to another process, which would do it again."""
    assert await executed_without_a_log() == 0


async def test_who_runs_before_the_log_has_begun_is_found(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Recorder.take_over

    def hasty(self: Recorder, nursery: Any, stream: Any, claim: Claim) -> None:
        claim.has_log.set()
        original(self, nursery, stream, claim)

    monkeypatch.setattr(Recorder, "take_over", hasty)

    assert await executed_without_a_log() == 1
