"""A follower by itself: its names, its end, and runs that are hosted elsewhere."""

from __future__ import annotations

import contextlib
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from flowtrio import AgentEvent, EventType, MemoryStore, Orchestrator, ReplayGap, RunContext
from flowtrio.testing import ScriptedModel, check_events
from tests.runtime._programs import until_idle
from tests.runtime.test_recorder import log_of, read, talks


async def asks_much(ctx: RunContext, message: str) -> list[Any]:
    """Ask for an answer, and for two approvals."""
    answer = await ctx.ask("who?")
    return [answer, await ctx.approve("one", {}), await ctx.approve("two", {})]


async def test_its_controls_are_those_of_the_run(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[asks_much]) as orchestrator:
        run_id = await orchestrator.start("go")
        last: AgentEvent | None = None
        async with orchestrator.attach(run_id) as stream:
            async for event in stream:
                last = event
                if event.type == "input_required":
                    assert stream.answer(event.data["request_id"], "Ada")
                if event.type == "approval_required" and event.data["tool_name"] == "one":
                    assert stream.approve(event.data["call_id"])
                elif event.type == "approval_required":
                    assert stream.deny(event.data["call_id"], "no")
            assert not stream.cancel_tool("c1")

    assert last is not None
    assert last.data["result"] == ["Ada", True, False]


async def test_nobody_hears_the_controls_of_a_run_that_is_not_there() -> None:
    stream = Orchestrator(agents=[talks]).attach("r")

    assert not stream.cancel()
    assert not stream.cancel_tool("c1")
    assert not stream.approve("c1")
    assert not stream.deny("c1")
    assert not stream.answer("q1", "text")


async def test_it_says_what_it_is(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("3", run_id="mine")
        stream = orchestrator.attach(run_id, mode="messages")
        assert (stream.run_id, stream.mode, stream.seq) == ("mine", "messages", -1)
        assert repr(stream) == "<Follower run='mine' seq=-1>"
        await stream.receive_batch()
        assert stream.status == "running"
        await read(orchestrator, run_id)
        # Its host and the recorder leave after its DONE.
        await trio.testing.wait_all_tasks_blocked()
        late = orchestrator.attach(run_id)
        assert late.status == "initializing"
        await late.receive_batch()

        assert late.status == "completed"
        assert not late.is_live


async def test_a_batch_is_what_single_reads_have_left(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("3")
        log = await read(orchestrator, run_id)
        async with orchestrator.attach(run_id) as stream:
            first = await anext(stream)
            rest = await stream.receive_batch()

    assert [first, *rest] == log


async def test_attaching_while_a_start_comes_too_late_reads_what_is_stored(
    autojump_clock: Any,
) -> None:
    class Slow(MemoryStore):
        async def create(self, header: Any) -> bool:
            await trio.sleep(1)
            return await super().create(header)

    logs = []
    async with Orchestrator(agents=[talks], store=Slow()) as orchestrator:
        run_id = await orchestrator.start("3", run_id="r")
        logs.append(await read(orchestrator, run_id))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: orchestrator.start("3", run_id="r"))
            await trio.testing.wait_all_tasks_blocked()
            assert orchestrator.attach(run_id).is_live
            logs.append(await read(orchestrator, run_id))

    check_events(logs[0])
    assert logs[0] == logs[1]


async def test_attaching_to_a_start_whose_host_is_cancelled_finds_no_run(
    autojump_clock: Any,
) -> None:
    class Hanging(MemoryStore):
        async def create(self, header: Any) -> bool:
            await trio.sleep_forever()
            raise AssertionError("not reached")

    async def start() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await orchestrator.start("1", run_id="r")

    async def follow() -> None:
        with pytest.raises(LookupError, match="no run 'r' is known"):
            await read(orchestrator, "r")
        told.append("r")

    told: list[str] = []
    orchestrator = Orchestrator(agents=[talks], store=Hanging())
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as host:
            async with orchestrator:
                nursery.start_soon(start)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(follow)
                await trio.testing.wait_all_tasks_blocked()
                host.cancel()

    assert told == ["r"]


async def test_a_reader_never_takes_a_log_without_its_end_for_a_whole_one(
    autojump_clock: Any,
) -> None:
    async def waits(ctx: RunContext, message: str) -> None:
        await trio.sleep(10)

    async def follow() -> None:
        with pytest.raises(ReplayGap, match="cut short after seq 1"):
            await read(orchestrator, "r")
        told.append("r")

    told: list[str] = []
    async with Orchestrator(agents=[waits]) as orchestrator, trio.open_nursery() as nursery:
        await orchestrator.start("1", run_id="r")
        nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        [hosted] = orchestrator._recorder.runs.values()
        hosted.end()

    assert told == ["r"]


@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_run_elsewhere_that_ends_while_its_reader_asks_is_read_to_its_end(
    autojump_clock: Any, is_stored: bool
) -> None:
    """Its last events come behind the read that found nothing, and before its header is read."""

    class Late(MemoryStore):
        async def header(self, tenant_id: str, run_id: str) -> Any:
            header = await super().header(tenant_id, run_id)
            if header is None or seen != [0, 1]:
                return header
            if not is_stored:
                return attrs.evolve(header, ended_at=1.0)
            may_end.set()
            await until_idle(here._recorder)
            return await super().header(tenant_id, run_id)

    async def waits(ctx: RunContext, message: str) -> None:
        await may_end.wait()

    seen: list[int] = []
    may_end, store = trio.Event(), Late()
    elsewhere = Orchestrator(agents=[waits], store=store)
    async with Orchestrator(agents=[waits], store=store) as here:
        await here.start("1", run_id="r")
        async with elsewhere, elsewhere.attach("r") as follower:
            with contextlib.nullcontext() if is_stored else pytest.raises(ReplayGap, match="cut"):
                async for event in follower:
                    seen.append(event.seq)
        log = await read(here, "r") if is_stored else []

    assert seen == ([event.seq for event in log] if is_stored else [0, 1])


class Forgetting(MemoryStore):
    """A store that takes nothing behind a run's first events."""

    async def append(self, tenant_id: str, run_id: str, after: int, events: Any) -> None:
        if after >= 0:
            raise OSError("full")
        await super().append(tenant_id, run_id, after, events)


@pytest.mark.parametrize("mode", ["events", "values"])
@pytest.mark.parametrize("store", [MemoryStore, Forgetting])
async def test_one_that_begins_behind_the_end_is_over_at_once(
    store: Any, mode: str, autojump_clock: Any
) -> None:
    async with Orchestrator(agents=[talks], store=store()) as orchestrator:
        run_id = await orchestrator.start("3")
        log = await read(orchestrator, run_id)
        last = log[-1].seq
        async with orchestrator.attach(run_id, last, mode=mode) as stream:
            assert stream.is_over
        with pytest.raises(trio.EndOfChannel):
            await orchestrator.attach(run_id, last, mode=mode).receive_batch()
        async with orchestrator.attach(run_id, last - 1, mode=mode) as stream:
            assert not stream.is_over
            [done] = [event async for event in stream]
            assert stream.is_over
        with pytest.raises(ReplayGap):
            await orchestrator.attach(run_id, last + 1, mode=mode).receive_batch()

    assert done.type == "done"


async def test_one_that_was_closed_reads_no_more(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        stream = orchestrator.attach(await orchestrator.start("3"))
        await stream.receive_batch()
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_batch()
        with pytest.raises(trio.ClosedResourceError):
            async with stream:
                raise AssertionError("not reached")


async def test_a_run_that_is_hosted_elsewhere_is_followed_by_its_store(
    autojump_clock: Any,
) -> None:
    store = MemoryStore()
    async with Orchestrator(agents=[talks], store=store) as there:
        run_id = await there.start("5")
        here = Orchestrator(agents=[talks], store=store)
        events = await read(here, run_id)

        check_events(events)
        assert events == await log_of(there, run_id)
        assert await read(here, run_id, after=events[-1].seq) == []


async def test_a_run_that_is_forgotten_while_it_is_followed_elsewhere_is_told(
    autojump_clock: Any,
) -> None:
    store = MemoryStore()
    async with Orchestrator(agents=[talks], store=store) as there:
        run_id = await there.start("100")
        async with Orchestrator(agents=[talks], store=store).attach(run_id) as stream:
            await stream.receive_batch()
            await store.delete("default", run_id=run_id)
            with pytest.raises(LookupError):
                while True:
                    await stream.receive_batch()


async def test_the_log_of_a_run_that_its_host_lost_is_told_as_cut(autojump_clock: Any) -> None:
    orchestrator = Orchestrator(agents=[talks])
    async with orchestrator:
        run_id = await orchestrator.start("100")
        await trio.sleep(3.5)
    log = await log_of(orchestrator, run_id)
    header = await orchestrator.store.header("default", run_id)
    await orchestrator.store.delete("default")
    # As a store leaves it that failed for good: begun, by us, and without an end.
    assert header is not None

    await orchestrator.store.create(attrs.evolve(header, ended_at=None, status=None))
    await orchestrator.store.append("default", run_id, -1, log[:3])
    stream = orchestrator.attach(run_id)

    assert await stream.receive_batch() == log[:3]
    with pytest.raises(ReplayGap, match="cut short after seq 2"):
        await stream.receive_batch()


async def test_a_run_of_which_a_store_knows_nothing_any_more_is_told(autojump_clock: Any) -> None:
    class Forgetful(MemoryStore):
        knows = True

        async def header(self, tenant_id: str, run_id: str) -> Any:
            return await super().header(tenant_id, run_id) if self.knows else None

    store = Forgetful()
    async with Orchestrator(agents=[talks], store=store) as there:
        run_id = await there.start("100")
        stream = Orchestrator(agents=[talks], store=store).attach(run_id)
        await stream.receive_batch()
        store.knows = False
        with pytest.raises(LookupError, match="is known any more"):
            while True:
                await stream.receive_batch()


@pytest.mark.parametrize("after", ["3", -2, 1.5, True, None])
def test_a_place_that_is_no_sequence_number_is_refused(after: Any) -> None:
    orchestrator = Orchestrator(llm_client=ScriptedModel())

    with pytest.raises(ValueError, match="expected the last seq that was seen, or -1"):
        orchestrator.attach("r1", after)


@pytest.mark.parametrize("mode", ["events", "updates", "values"])
async def test_what_a_follower_does_with_his_events_reaches_nobody_else(mode: str) -> None:
    """Neither the store, nor those who follow live or come later."""

    async def agent(ctx: RunContext, message: str) -> str:
        await ctx.custom("list", {"items": [1, 2]})
        async with ctx.message() as out:
            await out.write("said")
        return message

    async with Orchestrator(agents=[agent]) as orchestrator:
        run_id = await orchestrator.start("go")
        async with orchestrator.attach(run_id, mode=mode) as spoiler:
            async for event in spoiler:
                for value in event.data.values():
                    if isinstance(value, dict | list):
                        value.clear()
                event.data.clear()
        async with orchestrator.attach(run_id) as follower:
            log = [event async for event in follower]

    check_events(log)
    assert [event.data["value"] for event in log if event.type is EventType.CUSTOM] == [
        {"items": [1, 2]}
    ]


async def test_who_starts_a_run_and_follows_it_needs_nothing_from_a_store_in_memory() -> None:
    """What it would read there has to be made again, event by event."""
    is_followed = trio.Event()

    class Unread(MemoryStore):
        async def read(self, *args: Any) -> Any:
            raise AssertionError("read")

    async def gushes(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            for _ in range(200):
                await out.write("word")
        await is_followed.wait()

    async with Orchestrator(agents=[gushes], store=Unread()) as orchestrator:
        run_id = await orchestrator.start("go")
        # A server's starter comes when others let it, and nobody waits for one that never came.
        await trio.testing.wait_all_tasks_blocked()
        async with orchestrator.attach(run_id) as follower:
            is_followed.set()
            events = [event async for event in follower]

    assert len(events) > 200
    check_events(events)
