"""Hosted runs: who follows them, who leaves, and what ends them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from flowtrio import (
    AgentEvent,
    LimitExceeded,
    Limits,
    MemoryConversations,
    MemoryStore,
    Orchestrator,
    ReplayGap,
    RunContext,
    RunExists,
)
from flowtrio._core._values import told
from flowtrio._hosting import _hosted, _unsettled
from flowtrio._hosting._hosted import HostedRun
from flowtrio._run._controls import fail_run
from flowtrio.asgi import create_app
from flowtrio.testing import LawBroken, check_events
from tests.runtime._programs import done_of, error_of, until_idle
from tests.support.fragile_store import FragileStore


async def talks(ctx: RunContext, message: str) -> str:
    """Say a word a second, as many as the message says."""
    async with ctx.message() as out:
        for number in range(int(message)):
            await trio.sleep(1)
            await out.write(f"{number} ")
    return message


async def gushes(ctx: RunContext, message: str) -> str:
    """Say so many words at once, after a while."""
    await trio.sleep(1)
    async with ctx.message() as out:
        for number in range(int(message)):
            await out.write(f"{number} ")
    return message


async def asks(ctx: RunContext, message: str) -> str:
    """Ask for approval, then talk on."""
    if not await ctx.approve("book", {}):
        return "denied"
    await trio.sleep(1)
    return "booked"


async def read(orchestrator: Orchestrator, run_id: str, **options: Any) -> list[AgentEvent]:
    async with orchestrator.attach(run_id, **options) as stream:
        return [event async for event in stream]


async def log_of(orchestrator: Orchestrator, run_id: str, tenant: str = "default") -> Any:
    return await orchestrator.store.read(tenant, run_id, -1, 1_000_000)


# Following


async def test_a_hosted_run_can_be_followed_live_and_replayed(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("5")
        live = await read(orchestrator, run_id)
        again = await read(orchestrator, run_id)

    check_events(live)
    assert done_of(live)["result"] == "5"
    assert again == live == await log_of(orchestrator, run_id)


@pytest.mark.parametrize("limit", [1, 3, 64])
async def test_from_every_place_the_rest_is_read_live_or_late(
    limit: int, autojump_clock: Any
) -> None:
    logs: dict[tuple[int, float], list[AgentEvent]] = {}
    orchestrator = Orchestrator(agents=[talks], limits=Limits(buffer=limit))

    async def follow(after: int, delay: float) -> None:
        await trio.sleep(delay)
        logs[after, delay] = await read(orchestrator, run_id, after=after)

    async with orchestrator, trio.open_nursery() as nursery:
        run_id = await orchestrator.start("6")
        for delay in (0, 3.5, 100):
            for after in range(-1, {0: 0, 3.5: 5, 100: 11}[delay]):
                nursery.start_soon(follow, after, delay)
    log = await log_of(orchestrator, run_id)

    assert len(log) == 11
    for (after, _), events in logs.items():
        assert events == log[after + 1 :]


async def test_after_done_nothing_is_left_to_read(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("1")
        events = await read(orchestrator, run_id)

        assert await read(orchestrator, run_id, after=events[-1].seq) == []
        follower = orchestrator.attach(run_id, after=events[-1].seq)
        with pytest.raises(trio.EndOfChannel):
            await follower.receive_batch()


async def test_values_are_folded_from_the_beginning_wherever_one_attaches(
    autojump_clock: Any,
) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("3")
        whole = await read(orchestrator, run_id, mode="values")
        part = await read(orchestrator, run_id, mode="values", after=3)

    assert part == [event for event in whole if event.seq > 3]
    assert part[-1].data["state"]["status"] == "completed"


async def test_a_read_that_is_cancelled_loses_nothing(autojump_clock: Any) -> None:
    events: list[AgentEvent] = []
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("9")
        async with orchestrator.attach(run_id) as stream:
            while not events or events[-1].type != "done":
                with trio.move_on_after(0.3):
                    events += await stream.receive_batch()

    assert events == await log_of(orchestrator, run_id)


async def test_one_task_reads_at_a_time(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("9")
        await trio.testing.wait_all_tasks_blocked()
        async with orchestrator.attach(run_id, after=1) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_batch)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.receive_batch()


# Starting


async def test_starting_twice_is_starting_once(autojump_clock: Any) -> None:
    begun: list[str] = []

    async def counted(ctx: RunContext, message: str) -> None:
        begun.append(message)

    async with Orchestrator(agents=[counted]) as orchestrator:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(orchestrator.start, "go", "default", None, "mine")
        assert await orchestrator.start("go", run_id="mine") == "mine"
        check_events(await read(orchestrator, "mine"))

    assert len(begun) == 1


@pytest.mark.parametrize("has_ended", [False, True])
@pytest.mark.parametrize("store", [MemoryStore, FragileStore])
async def test_another_message_under_a_runs_id_is_refused_and_the_run_goes_on(
    store: type[MemoryStore], has_ended: bool, autojump_clock: Any
) -> None:
    begun: list[str] = []

    async def counted(ctx: RunContext, message: str) -> str:
        begun.append(message)
        await trio.sleep(1)
        return message

    async with Orchestrator(agents=[counted], store=store()) as orchestrator:
        await orchestrator.start("first", run_id="mine")
        if has_ended:
            await read(orchestrator, "mine")
        for other in ("second", "First", "first "):
            with pytest.raises(RunExists, match="answers another message") as caught:
                await orchestrator.start(other, run_id="mine")

            assert (caught.value.run_id, caught.value.code) == ("mine", "run_exists")
            assert other not in str(caught.value)
        # Another tenant's run of that id is another run.
        await orchestrator.start("second", "other", run_id="mine")
        log = await read(orchestrator, "mine")
        await read(orchestrator, "mine", tenant_id="other")

    assert done_of(log)["result"] == "first"
    assert begun == ["first", "second"]


async def test_two_messages_that_race_for_an_id_start_one_run(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        outcomes: dict[str, Any] = {}

        async def start(message: str) -> None:
            try:
                outcomes[message] = await orchestrator.start(message, run_id="mine")
            except RunExists as exc:
                outcomes[message] = exc.code

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, "1")
            nursery.start_soon(start, "2")
        log = await read(orchestrator, "mine")

    assert sorted(outcomes.values()) == ["mine", "run_exists"]
    assert outcomes[done_of(log)["result"]] == "mine"


@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_a_store_that_cannot_say_what_a_run_answers_refuses_nobody(
    how: str, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be compared attaches; who reads it hears of the store."""

    def fault_of(number: int, name: str, run_id: Any) -> str | None:
        return how if name == "header" else None

    async with Orchestrator(agents=[talks], store=FragileStore(fault_of)) as orchestrator:
        await orchestrator.start("1", run_id="mine")
        await trio.sleep(5)

        assert await orchestrator.start("2", run_id="mine") == "mine"

    assert "run mine: the store failed a start" in caplog.text


async def test_a_run_that_was_deleted_as_it_was_asked_for_refuses_nobody(
    autojump_clock: Any,
) -> None:
    class Forgetful(MemoryStore):
        async def header(self, tenant_id: str, run_id: str) -> None:
            await trio.lowlevel.checkpoint()

    async with Orchestrator(agents=[talks], store=Forgetful()) as orchestrator:
        await orchestrator.start("1", run_id="mine")
        await trio.sleep(5)

        assert await orchestrator.start("2", run_id="mine") == "mine"


async def test_a_start_that_was_cut_short_may_be_repeated(autojump_clock: Any) -> None:
    """Cancelled at every checkpoint of starting, the run starts once."""
    for ticks in range(6):
        begun: list[str] = []

        async def counted(ctx: RunContext, message: str, begun: list[str] = begun) -> None:
            begun.append(message)

        async with Orchestrator(agents=[counted]) as orchestrator:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(orchestrator.start, "a", "default", None, "mine")
                for _ in range(ticks):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await orchestrator.start("a", run_id="mine")
            await read(orchestrator, "mine")

        assert len(begun) == 1


async def test_each_tenant_has_its_own_runs(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        await orchestrator.start("1", "one", run_id="r")
        await orchestrator.start("2", "two", run_id="r")

        assert done_of(await read(orchestrator, "r", tenant_id="one"))["result"] == "1"
        assert done_of(await read(orchestrator, "r", tenant_id="two"))["result"] == "2"
        with pytest.raises(LookupError):
            await read(orchestrator, "r", tenant_id="three")


async def test_a_hosted_run_needs_an_open_orchestrator() -> None:
    orchestrator = Orchestrator(agents=[talks])

    with pytest.raises(RuntimeError, match="expected an open orchestrator"):
        await orchestrator.start("1")


async def test_a_start_that_is_refused_leaves_nothing(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks], on_busy="reject") as orchestrator:
        first = await orchestrator.start("2", session_id="s")
        with pytest.raises(LimitExceeded) as caught:
            await orchestrator.start("2", session_id="s", run_id="again")
        assert caught.value.code == "session_busy"
        assert await orchestrator.store.header("default", "again") is None

        await read(orchestrator, first)
        await orchestrator.start("3", session_id="s", run_id="again")
        assert done_of(await read(orchestrator, "again"))["result"] == "3"


# Leaving, and the resume window


async def test_leaving_does_not_end_a_run(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("20")
        async with orchestrator.attach(run_id) as stream:
            first = await stream.receive_batch()
        await trio.sleep(100)
        rest = await read(orchestrator, run_id, after=first[-1].seq)

    assert done_of(rest)["status"] == "completed"
    check_events([*first, *rest])


@pytest.mark.parametrize("leaving", ["block", "aclose", "drop"])
async def test_without_a_follower_a_run_is_cancelled_after_its_window(
    leaving: str, autojump_clock: Any
) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("1000", resume_window=30)
        began = trio.current_time()
        if leaving == "drop":
            async for _ in orchestrator.attach(run_id):
                break
        else:
            stream = orchestrator.attach(run_id)
            async with stream:
                await stream.receive_batch()
                if leaving == "aclose":
                    await stream.aclose()
        await trio.sleep(29)
        assert orchestrator.attach(run_id).is_live
        events = await read_stored_end(orchestrator, run_id)

    assert events[-1].data["status"] == "cancelled"
    assert "30 s" in events[-1].data["reason"]
    assert trio.current_time() - began == pytest.approx(30, abs=1.5)


async def read_stored_end(orchestrator: Orchestrator, run_id: str) -> Sequence[AgentEvent]:
    """Wait for a run's end without attaching to it."""
    store = orchestrator.store
    last = -1
    while (header := await store.header("default", run_id)) and header.ended_at is None:
        last = await store.wait_past("default", run_id, last)
    return await store.read("default", run_id, -1, 1_000_000)


async def test_whoever_comes_back_within_the_window_keeps_the_run(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("100", resume_window=30)
        seen: list[AgentEvent] = []
        while not seen or seen[-1].type != "done":
            async with orchestrator.attach(run_id, len(seen) - 1) as stream:
                seen += await stream.receive_batch()
            await trio.sleep(25)

    check_events(seen)
    assert done_of(seen)["status"] == "completed"


async def test_without_a_window_the_last_reader_that_leaves_ends_the_run(
    autojump_clock: Any,
) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("1000", resume_window=0)
        # Nobody has left yet.
        await trio.sleep(50)
        [hosted] = orchestrator._recorder.runs.values()
        assert hosted.seats == 0
        async with orchestrator.attach(run_id) as last:
            async with orchestrator.attach(run_id) as first:
                await first.receive_batch()
            assert hosted.seats == 1
            await trio.sleep(50)
            await last.receive_batch()
            assert not hosted.stream._run.is_closing
        events = await read_stored_end(orchestrator, run_id)
        assert trio.current_time() < 101

    check_events(events)
    assert events[-1].data["status"] == "cancelled"
    assert events[-1].data["reason"] == "its reader left"


@pytest.mark.parametrize(
    "window", [-1, math.nan, 10**400, 10**5000, 2**53 + 1, True, "1", None], ids=told
)
async def test_a_window_is_a_time(window: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        with pytest.raises(ValueError, match="expected seconds, 0 or more"):
            await orchestrator.start("1", resume_window=window)
        with pytest.raises(ValueError, match="expected seconds, 0 or more"):
            create_app(orchestrator, resume_window=window)


async def test_the_window_cancels_nothing_that_waits_for_a_person(autojump_clock: Any) -> None:
    limits = Limits(approval=math.inf)
    async with Orchestrator(agents=[asks], limits=limits) as orchestrator:
        run_id = await orchestrator.start("hi", resume_window=30)
        await trio.sleep(1000)
        follower = orchestrator.attach(run_id)
        async with follower:
            asked = await follower.receive_batch()
            assert follower.status == "waiting_for_approval"
            assert follower.approve(asked[-2].data["call_id"])
            rest = [event async for event in follower]

    assert done_of(rest)["result"] == "booked"


async def test_the_window_ends_what_goes_on_after_nobody_answered(autojump_clock: Any) -> None:
    async def asks_then_talks(ctx: RunContext, message: str) -> str:
        await ctx.approve("book", {})
        return await talks(ctx, "1000")

    async with Orchestrator(agents=[asks_then_talks]) as orchestrator:
        run_id = await orchestrator.start("hi", resume_window=30)
        events = await read_stored_end(orchestrator, run_id)

    assert events[-1].data["status"] == "cancelled"
    assert 300 <= trio.current_time() <= 361


async def test_cancelling_and_leaving_are_two_things(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("100")
        async with orchestrator.attach(run_id) as one, orchestrator.attach(run_id) as two:
            assert two.cancel("enough")
            events = [event async for event in one]
            assert not two.cancel("again")
        assert not orchestrator.attach("unknown").cancel()

    assert done_of(events) == {**done_of(events), "status": "cancelled", "reason": "enough"}


# Slow followers


async def test_a_slow_follower_slows_the_run_for_its_patience_only(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[gushes], limits=Limits(buffer=10)) as orchestrator:
        run_id = await orchestrator.start("1000")
        async with orchestrator.attach(run_id, patience=7) as slow:
            seen = await slow.receive_batch()
            await trio.sleep(7.9)
            assert orchestrator.attach(run_id).is_live
            assert len(await log_of(orchestrator, run_id)) < 100
            await trio.sleep(0.2)
            ended = await read_stored_end(orchestrator, run_id)
            assert trio.current_time() == pytest.approx(8.1)
            seen += [event async for event in slow]

    assert seen == ended


async def _read_slowly() -> list[AgentEvent]:
    """Read a run that gushes into a small store, with pauses that are within one's patience."""
    seen: list[AgentEvent] = []
    orchestrator = Orchestrator(
        agents=[gushes], limits=Limits(buffer=10), store=MemoryStore(max_events=50)
    )
    async with orchestrator:
        run_id = await orchestrator.start("1000")
        async with orchestrator.attach(run_id) as slow:
            async for event in slow:
                seen.append(event)
                if len(seen) % 10 == 0:
                    await trio.sleep(5)
    return seen


async def test_a_follower_that_is_read_in_time_is_waited_for_every_time(
    autojump_clock: Any,
) -> None:
    seen = await _read_slowly()

    check_events(seen)
    assert len(seen) == 1005


async def test_a_follower_that_fell_out_of_the_store_is_told(autojump_clock: Any) -> None:
    store = MemoryStore(max_events=50)
    async with Orchestrator(agents=[gushes], store=store) as orchestrator:
        run_id = await orchestrator.start("1000")
        async with orchestrator.attach(run_id) as slow:
            await slow.receive_batch()
            await trio.sleep(100)
            with pytest.raises(ReplayGap) as caught:
                while True:
                    await slow.receive_batch()
        with pytest.raises(ReplayGap):
            await read(orchestrator, run_id)
        with pytest.raises(ReplayGap):
            await read(orchestrator, run_id, after=980, mode="values")

    assert caught.value.oldest == 955


# The store


class Failing(MemoryStore):
    """A store that takes so many events and then nothing."""

    def __init__(self, takes: int, gives_up_at: int = 10**9) -> None:
        super().__init__()
        self.takes = takes
        self.calls = 0

    async def create(self, header: Any) -> bool:
        if self.takes < 0:
            raise OSError("disk at /secret/place is full")
        return await super().create(header)

    async def append(self, tenant_id: str, run_id: str, after: int, events: Any) -> None:
        if events[-1].seq >= self.takes:
            raise OSError("disk at /secret/place is full")
        await super().append(tenant_id, run_id, after, events)


@pytest.mark.parametrize("takes", [-1, 0, 3, 6])
async def test_a_store_that_fails_ends_the_run_and_its_followers_are_told(
    takes: int, autojump_clock: Any
) -> None:
    async with Orchestrator(agents=[talks], store=Failing(takes)) as orchestrator:
        run_id = await orchestrator.start("100")
        live = await read(orchestrator, run_id)
        late = await read(orchestrator, run_id)
        assert await read(orchestrator, run_id, after=live[-1].seq) == []

    check_events(live)
    error = error_of(live)
    assert (error["code"], error["source"]) == ("store_failed", "store")
    assert "secret" not in str(live)
    assert late == live


async def test_what_a_store_did_not_take_is_offered_again_at_the_end(autojump_clock: Any) -> None:
    class FailingOnce(MemoryStore):
        has_failed = False

        async def append(self, tenant_id: str, run_id: str, after: int, events: Any) -> None:
            if after > 3 and not self.has_failed:
                type(self).has_failed = True
                raise OSError
            await super().append(tenant_id, run_id, after, events)

    async with Orchestrator(agents=[talks], store=FailingOnce()) as orchestrator:
        run_id = await orchestrator.start("100")
        live = await read(orchestrator, run_id)

    assert error_of(live)["code"] == "store_failed"
    assert await log_of(orchestrator, run_id) == live


async def test_a_store_that_hangs_is_a_store_that_fails(autojump_clock: Any) -> None:
    class Hanging(MemoryStore):
        async def append(self, tenant_id: str, run_id: str, after: int, events: Any) -> None:
            await trio.sleep_forever()

    async with Orchestrator(agents=[talks], store=Hanging()) as orchestrator:
        run_id = await orchestrator.start("100")
        events = await read(orchestrator, run_id)

    assert error_of(events)["code"] == "store_failed"


# The end of the orchestrator


async def test_closing_the_orchestrator_stores_the_end_of_its_runs(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("100")
        await trio.sleep(5)
    events = await log_of(orchestrator, run_id)

    check_events(events)
    assert done_of(events)["status"] == "cancelled"


async def test_so_does_cancelling_it_from_outside(autojump_clock: Any) -> None:
    with trio.move_on_after(5.5):
        async with Orchestrator(agents=[talks]) as orchestrator:
            run_id = await orchestrator.start("100")
            await trio.sleep_forever()
    events = await log_of(orchestrator, run_id)

    check_events(events)
    assert done_of(events)["status"] == "cancelled"
    assert events[-3].data["content"] == "0 1 2 3 4 "


async def test_one_that_is_closed_at_once_has_ended_what_it_started(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(orchestrator.start, "5", "default", None, "r")
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    events = await log_of(orchestrator, "r")

    check_events(events)
    assert done_of(events)["status"] == "cancelled"


async def test_a_start_whose_host_is_cancelled_is_told(autojump_clock: Any) -> None:
    class Hanging(MemoryStore):
        async def create(self, header: Any) -> bool:
            await trio.sleep_forever()
            raise AssertionError("not reached")

    host = trio.CancelScope()

    async def start() -> None:
        with pytest.raises(trio.ClosedResourceError, match="its host was cancelled"):
            await orchestrator.start("1", run_id="r")
        told.append("r")

    told: list[str] = []
    orchestrator = Orchestrator(agents=[talks], store=Hanging())
    async with trio.open_nursery() as nursery:
        with host:
            async with orchestrator:
                nursery.start_soon(start)
                await trio.testing.wait_all_tasks_blocked()
                host.cancel()

    assert told == ["r"]


async def test_the_runs_of_a_server_that_stops_end_with_its_error(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("100")
        recorder = orchestrator._recorder
        async with orchestrator.attach(run_id):
            [hosted] = recorder.runs.values()
            assert hosted.seats == 1
        assert hosted.seats == 0
        assert fail_run(hosted.stream, "shutdown", "internal", "the server stops")
        await until_idle(recorder)
        events = await log_of(orchestrator, run_id)

    check_events(events)
    assert error_of(events)["code"] == "shutdown"


async def test_a_refused_start_of_which_the_log_cannot_be_removed_is_logged(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Keeping(MemoryStore):
        async def delete(self, *keys: Any, **options: Any) -> None:
            raise OSError("read-only")

    orchestrator = Orchestrator(agents=[talks], on_busy="reject", store=Keeping())
    async with orchestrator:
        await orchestrator.start("2", session_id="s")
        with pytest.raises(LimitExceeded):
            await orchestrator.start("2", session_id="s", run_id="again")

    assert "run again: the store failed" in caplog.text


async def test_of_logs_that_no_store_took_the_newest_are_kept(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_unsettled, "_MOST_CUT", 1)
    async with Orchestrator(agents=[talks], store=Failing(3)) as orchestrator:
        for run_id in ("first", "second"):
            await orchestrator.start("9", run_id=run_id)
            live = await read(orchestrator, run_id)
            await until_idle(orchestrator._recorder)
            assert await read(orchestrator, run_id) == live
        with pytest.raises(ReplayGap, match="cut short after seq 2"):
            await read(orchestrator, "first")


# Planted bugs, which the same checks catch


async def test_a_follower_that_loses_an_event_would_be_noticed(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = HostedRun.take

    def take_less(self: HostedRun, seat: Any) -> Any:
        events = take(self, seat)
        return events[1:] if events and len(events) > 1 else events

    monkeypatch.setattr(HostedRun, "take", take_less)
    async with Orchestrator(agents=[talks]) as orchestrator:
        run_id = await orchestrator.start("5")
        await trio.sleep(2.5)
        live = await read(orchestrator, run_id)

    assert live != await log_of(orchestrator, run_id)
    with pytest.raises(LawBroken):
        check_events(live)


async def test_a_recorder_that_waits_for_nobody_would_be_noticed(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait_for_nobody(self: HostedRun) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(HostedRun, "wait_for_followers", wait_for_nobody)
    with pytest.raises(ReplayGap):
        await _read_slowly()


async def test_a_window_that_forgets_people_would_be_noticed(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hosted, "WAITING", frozenset())
    async with Orchestrator(agents=[asks], limits=Limits(approval=math.inf)) as orchestrator:
        run_id = await orchestrator.start("hi", resume_window=30)
        await trio.sleep(1000)

        assert done_of(await read(orchestrator, run_id))["status"] == "cancelled"


async def test_a_store_without_a_base_of_ours_is_waited_for(autojump_clock: Any) -> None:
    class Wrapped:
        def __init__(self) -> None:
            self.store = MemoryStore()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

    async with Orchestrator(agents=[talks], store=Wrapped()) as orchestrator:  # type: ignore[arg-type]
        assert orchestrator._recorder._append_nowait is None
        events = await read(orchestrator, await orchestrator.start("3"))

    check_events(events)


async def test_closing_an_orchestrator_lets_what_is_stored_be_stored(autojump_clock: Any) -> None:
    """The runs are cancelled, and not those who have something of theirs in hand."""

    class Slow(MemoryConversations):
        async def describe(self, *args: Any) -> None:
            """See `MemoryConversations`."""
            await trio.sleep(1)
            await super().describe(*args)

    class SlowStore(MemoryStore):
        async def create(self, header: Any) -> bool:
            """See `MemoryStore`."""
            await trio.sleep(1)
            return await super().create(header)

    async def titled(ctx: RunContext, message: str) -> None:
        await ctx.custom("title", "My title")
        await trio.sleep_forever()

    kept, store = Slow(), SlowStore()
    async with trio.open_nursery() as nursery:
        async with Orchestrator(agents=[titled], conversations=kept, store=store) as orchestrator:
            await orchestrator.start("go", tenant_id="t", session_id="s")
            nursery.start_soon(lambda: orchestrator.start("go", run_id="begun"))
            await trio.sleep(0.5)

    log = list(await store.read("default", "begun", -1, 100))
    check_events(log)
    assert done_of(log)["reason"] == "the orchestrator was closed"
    assert (await kept.descriptions("t"))["s"]["agent_title"] == "My title"
