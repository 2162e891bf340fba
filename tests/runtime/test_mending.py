"""Logs that their store did not take, or lost: each gets its end, and nobody waits for ever."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import trio

from flowtrio import (
    AgentEvent,
    LimitExceeded,
    Limits,
    MemoryStore,
    Orchestrator,
    ReplayGap,
    RunContext,
)
from flowtrio._hosting import _mending, _recorder, _unsettled
from flowtrio._hosting._cursor import Cursor
from flowtrio._hosting._hosted import HostedRun
from flowtrio._hosting._mending import LOST, Mender
from flowtrio._hosting._recorder import Recorder
from flowtrio.testing import LawBroken, check_event_store, check_events
from tests.runtime._programs import done_of, error_of
from tests.runtime.test_recorder import read, talks
from tests.support.fragile_store import FAULTS, FaultOf, FragileStore


async def test_the_fragile_store_is_a_good_one_while_nothing_is_asked_of_it() -> None:
    await check_event_store(FragileStore)


def failing(*names: str, first: int = 0, times: int = 10**9, how: str = "raises") -> FaultOf:
    """A fault for so many calls of some methods, from the first one behind so many calls on."""
    left = [times]

    def fault_of(call: int, name: str, run_id: str | None) -> str | None:
        if name not in names or call < first or not left[0]:
            return None
        left[0] -= 1
        return how

    return fault_of


async def settled(orchestrator: Orchestrator) -> None:
    """Wait until no log waits to be offered again."""
    recorder = orchestrator._recorder
    with trio.fail_after(1000):
        while recorder.runs or recorder.unsettled._waiting:
            await trio.sleep(0.1)


# Mending: the store failed, and the run has ended


@pytest.mark.parametrize("how", FAULTS)
@pytest.mark.parametrize("first", [0, 1, 3])
async def test_a_log_that_was_not_taken_is_stored_when_the_store_is_back(
    first: int, how: str, autojump_clock: Any
) -> None:
    store = FragileStore(failing("create", "append", "header", "read", first=first, how=how))
    async with Orchestrator(agents=[talks], store=store) as orchestrator:
        run_id = await orchestrator.start("100", run_id="r")
        live = await read(orchestrator, run_id, after=-1)
        took = trio.current_time()
        await trio.sleep(100)
        store.fault_of = lambda *call: None
        await settled(orchestrator)
        late = await read(orchestrator, run_id)

    check_events(live)
    assert error_of(live)["code"] == "store_failed"
    # The run ends at once; a call that hangs is waited for as long as one may take.
    assert took <= 100
    assert store.stored(run_id) == live == late
    assert not orchestrator._recorder.unsettled._cut


async def test_who_follows_elsewhere_gets_the_end_too(autojump_clock: Any) -> None:
    store = FragileStore()
    async with Orchestrator(agents=[talks], store=store) as there, trio.open_nursery() as nursery:
        run_id = await there.start("100")
        seen: list[AgentEvent] = []

        async def follow() -> None:
            seen.extend(await read(Orchestrator(agents=[talks], store=store), run_id))

        nursery.start_soon(follow)
        await trio.sleep(3.5)
        store.fault_of = failing("append", times=3)
        await trio.sleep(60)

    check_events(seen)
    assert error_of(seen)["code"] == "store_failed"
    assert seen == store.stored(run_id)


async def test_the_conversation_goes_on_while_a_log_waits(autojump_clock: Any) -> None:
    store = FragileStore(failing("append", first=2))
    async with Orchestrator(agents=[talks], store=store) as orchestrator:
        await orchestrator.start("100", session_id="s", run_id="cut")
        await read(orchestrator, "cut")
        store.fault_of = lambda call, name, run_id: "raises" if run_id == "cut" else None
        with trio.fail_after(5):
            await orchestrator.start("1", session_id="s", run_id="next")
            events = await read(orchestrator, "next")

    assert done_of(events)["status"] == "completed"


@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_leaving_waits_for_a_store_that_is_gone_no_longer_than_one_try(
    how: str, autojump_clock: Any
) -> None:
    store = FragileStore(failing("append", "header", "read", first=2, how=how))
    async with Orchestrator(agents=[talks], store=store) as orchestrator:
        await orchestrator.start("100", run_id="r")
        await read(orchestrator, "r")
        await trio.sleep(300)
        left = trio.current_time()

    assert trio.current_time() - left <= _mending.STORE_DEADLINE


async def test_leaving_tries_once_more(autojump_clock: Any) -> None:
    store = FragileStore(failing("append", first=2))
    async with Orchestrator(agents=[talks], store=store) as orchestrator:
        await orchestrator.start("100", run_id="r")
        live = await read(orchestrator, "r")
        await trio.sleep(20)
        store.fault_of = lambda *call: None

    assert store.stored("r") == live


async def test_so_does_cancelling_from_outside(autojump_clock: Any) -> None:
    store = FragileStore(failing("append", first=2))
    with trio.CancelScope() as scope:
        async with Orchestrator(agents=[talks], store=store) as orchestrator:
            await orchestrator.start("100", run_id="r")
            live = await read(orchestrator, "r")
            await trio.sleep(20)
            store.fault_of = lambda *call: None
            scope.cancel()
            await trio.sleep_forever()

    assert store.stored("r") == live


async def test_it_is_offered_less_and_less_often(autojump_clock: Any) -> None:
    store = FragileStore(failing("append", "header", first=2))
    async with Orchestrator(agents=[talks], store=store) as orchestrator:
        await orchestrator.start("100", run_id="r")
        await read(orchestrator, "r")
        del store.asked[:]
        await trio.sleep(3600)
        asked = store.asked.count("header")

    assert 100 < asked < 130


async def test_a_log_that_was_deleted_stays_so(autojump_clock: Any) -> None:
    store = FragileStore()
    async with Orchestrator(agents=[talks], store=store) as orchestrator:
        await orchestrator.start("100", run_id="r")
        await trio.sleep(2.5)
        await store.delete("default", run_id="r")
        await trio.sleep(60)

        assert len(store) == 0
        with pytest.raises(LookupError):
            await read(orchestrator, "r")


async def test_a_conversation_that_is_deleted_takes_the_logs_with_it_that_wait(
    autojump_clock: Any,
) -> None:
    store = FragileStore(failing("create", "append"))
    async with Orchestrator(agents=[talks], store=store) as orchestrator:
        for session_id in ("s", "z"):
            await orchestrator.start("100", session_id=session_id, run_id=f"r{session_id}")
            await read(orchestrator, f"r{session_id}")
        store.fault_of = lambda *call: None
        await orchestrator.start("100", session_id="s", run_id="goes-on")
        await orchestrator._forget("default", "s")
        await settled(orchestrator)

        assert [header.run_id for header in await store.list("default")] == ["rz"]
        with pytest.raises(LookupError):
            await read(orchestrator, "rs")


async def test_a_conversation_is_deleted_behind_what_is_being_stored_of_it(
    autojump_clock: Any,
) -> None:
    may_go_on = trio.Event()

    class Slow(FragileStore):
        async def create(self, header: Any) -> bool:
            if not self.fault_of(0, "create", None):
                await may_go_on.wait()
            return await super().create(header)

    store, deleted = Slow(failing("create", "append")), list[float]()
    async with Orchestrator(agents=[talks], store=store) as orchestrator:
        await orchestrator.start("100", session_id="s", run_id="r")
        await read(orchestrator, "r")
        store.fault_of = lambda *call: None
        # By now its log is offered again, and the store takes its time.
        await trio.sleep(5)

        async def delete() -> None:
            await orchestrator._forget("default", "s")
            deleted.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(delete)
            await trio.sleep(1)
            assert deleted == []
            may_go_on.set()
        await settled(orchestrator)

        assert await store.list("default") == []


@pytest.mark.parametrize("how", ["raises", "raises late"])
async def test_a_refused_start_leaves_nothing_once_the_store_is_back(
    how: str, autojump_clock: Any
) -> None:
    store = FragileStore()
    async with Orchestrator(agents=[talks], on_busy="reject", store=store) as orchestrator:
        await orchestrator.start("200", session_id="s")
        store.fault_of = failing("delete", times=3, how=how)
        with pytest.raises(LimitExceeded):
            await orchestrator.start("2", session_id="s", run_id="again")
        await trio.sleep(60)
        assert await store.header("default", "again") is None
        await orchestrator.start("2", run_id="again")
        events = await read(orchestrator, "again")

    assert done_of(events)["status"] == "completed"


async def test_a_host_that_is_cancelled_while_a_log_begins_leaves_none(
    autojump_clock: Any,
) -> None:
    store = FragileStore(failing("create", how="hangs late"))
    with trio.CancelScope() as scope:
        async with Orchestrator(agents=[talks], store=store) as orchestrator:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(orchestrator.start, "1", "default", None, "r")
                await trio.testing.wait_all_tasks_blocked()
                assert len(store) == 1
                scope.cancel()

    assert len(store) == 0


async def test_the_log_of_somebody_elses_run_is_left_alone(autojump_clock: Any) -> None:
    store = FragileStore(failing("create", times=1))
    async with Orchestrator(agents=[talks], store=store) as one:
        # Whether this has happened, nobody here knows.
        run_id = await one.start("3", run_id="r")
        async with Orchestrator(agents=[talks], store=store) as other:
            await other.start("3", run_id="r")
            theirs = await read(other, "r")
        await settled(one)
        ours = await read(one, "r")

    assert error_of(ours)["code"] == "store_failed"
    assert store.stored(run_id) == theirs


async def test_of_too_many_the_longest_waiting_is_given_up(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_unsettled, "_MOST_CUT", 2)
    store = FragileStore(failing("create", "append"))
    async with Orchestrator(agents=[talks], store=store) as orchestrator:
        for number in range(4):
            await orchestrator.start("1", run_id=f"r{number}")
            await read(orchestrator, f"r{number}")
        await trio.sleep(1)
        assert len(orchestrator._recorder.unsettled._waiting) == 2
        store.fault_of = lambda *call: None
        await settled(orchestrator)

    assert sorted(run_id for _, run_id in store._logs) == ["r2", "r3"]


# Healing: the store lost its newest entries, and the run goes on


async def everywhere(
    store: FragileStore, run: Callable[[Orchestrator], Any], **options: Any
) -> Any:
    """Run while somebody follows here, somebody elsewhere, and give what they saw."""
    logs: list[list[AgentEvent]] = [[], []]
    gaps: list[ReplayGap | None] = [None, None]

    async def follow(place: int, orchestrator: Orchestrator) -> None:
        try:
            async with orchestrator.attach("r") as stream:
                async for event in stream:
                    logs[place].append(event)
        except ReplayGap as gap:
            gaps[place] = gap

    async with Orchestrator(agents=[talks], store=store, **options) as here:
        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                await here.start("20", run_id="r")
                nursery.start_soon(follow, 0, here)
                nursery.start_soon(follow, 1, Orchestrator(agents=[talks], store=store))
                await run(here)
    return logs, gaps


@pytest.mark.parametrize("count", [1, 3, 100])
async def test_what_a_store_lost_it_gets_again_and_no_reader_notices(
    count: int, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = FragileStore()

    async def lose(here: Orchestrator) -> None:
        await trio.sleep(8.5)
        store.lose(count)

    [here, elsewhere], _ = await everywhere(store, lose)

    check_events(here)
    assert done_of(here)["status"] == "completed"
    assert here == elsewhere == store.stored("r")
    assert "run r: the store's log was put right" in caplog.text


async def test_an_append_that_had_happened_is_found_there(autojump_clock: Any) -> None:
    """One that was refused because the same events stand there already."""
    store = FragileStore()

    async def repeat(here: Orchestrator) -> None:
        await trio.sleep(8.5)
        [hosted] = here._recorder.runs.values()
        hosted.stored -= 2

    [here, _], _ = await everywhere(store, repeat)

    assert done_of(here)["status"] == "completed"
    assert here == store.stored("r")


async def test_other_events_under_the_same_numbers_are_left_alone(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = FragileStore()

    async def replace(here: Orchestrator) -> None:
        await trio.sleep(8.5)
        [*_, last] = store.stored("r")
        data = {**last.data, "chunk": "other"}
        store.keep_only(
            "r",
            last.seq - 1,
            *[
                msgspec.structs.replace(last, seq=last.seq - 1, data=data),
            ],
        )

    [here, _], _ = await everywhere_here(store, replace)

    check_events(here)
    assert error_of(here)["code"] == "store_failed"
    assert store.stored("r")[-1].data["chunk"] == "other"
    assert "its log is left as it is" in caplog.text


async def everywhere_here(store: FragileStore, run: Callable[[Orchestrator], Any]) -> Any:
    """The same with nobody elsewhere, where the log never ends."""
    seen: list[AgentEvent] = []

    async def follow(here: Orchestrator) -> None:
        seen.extend(await read(here, "r"))

    async with Orchestrator(agents=[talks], store=store) as here, trio.open_nursery() as nursery:
        await here.start("20", run_id="r")
        nursery.start_soon(follow, here)
        await run(here)
    return [seen, []], None


async def test_a_log_that_others_have_ended_is_left_alone(autojump_clock: Any) -> None:
    store = FragileStore()

    async def end(here: Orchestrator) -> None:
        await trio.sleep(8.5)
        log = store.stored("r")
        header = await store.header("default", "r")
        assert header is not None
        await Mender(store, header, log).close(log[0])

    [here, elsewhere], _ = await everywhere(store, end)

    check_events(here)
    check_events(elsewhere)
    assert error_of(here)["error"] != error_of(elsewhere)["error"]
    assert elsewhere == store.stored("r")


@pytest.mark.parametrize("kept", [0, 1, 5])
async def test_a_log_that_lost_more_than_is_kept_ends_where_it_ends(
    kept: int, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was ahead of that is told, and never gets other events under the same numbers."""
    monkeypatch.setattr(_recorder, "_MOST_RECENT", 2)
    store = FragileStore()

    async def lose(here: Orchestrator) -> None:
        await trio.sleep(12.5)
        store.keep_only("r", kept)

    [here, elsewhere], gaps = await everywhere(store, lose, limits=Limits(buffer=2))
    stored = store.stored("r")

    check_events(here)
    check_events(stored)
    assert error_of(stored)["error"] == LOST.error
    assert (error_of(here)["code"], error_of(stored)["code"]) == ("store_failed", "store_failed")
    assert stored[: max(kept, 1)] == here[: max(kept, 1)]
    assert elsewhere == here[: len(elsewhere)]
    assert gaps[0] is None
    assert gaps[1] is not None


def closing_fails(store: FragileStore) -> FaultOf:
    def fault_of(call: int, name: str, run_id: str | None) -> str | None:
        return "raises late" if name == "append" and store.asked[-1] == "read" else None

    return fault_of


@pytest.mark.parametrize("is_told", [True, False])
async def test_who_was_ahead_of_such_an_end_and_comes_back_is_told(
    is_told: bool, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recorder, "_MOST_RECENT", 2)
    store = FragileStore()
    async with Orchestrator(agents=[talks], store=store, limits=Limits(buffer=2)) as here:
        await here.start("20", run_id="r")
        await trio.sleep(12.5)
        store.keep_only("r", 5)
        if not is_told:
            # The log is closed, and whoever closed it does not know.
            store.fault_of = closing_fails(store)
        await settled(here)
        stored = store.stored("r")
        check_events(stored)
        assert await read(here, "r") == stored
        if is_told:
            assert await read(here, "r", after=3) == stored[4:]
        with pytest.raises(ReplayGap):
            await read(here, "r", after=5)


# Followers of what is lost


async def test_who_reads_elsewhere_what_was_lost_waits_for_it(autojump_clock: Any) -> None:
    store = FragileStore()
    async with Orchestrator(agents=[talks], store=store) as here:
        await here.start("9", run_id="r")
        await trio.sleep(5.5)
        async with Orchestrator(agents=[talks], store=store).attach("r") as stream:
            seen = await stream.receive_batch()
            store.lose(3)
            seen += [event async for event in stream]

    check_events(seen)
    assert done_of(seen)["status"] == "completed"
    assert seen == store.stored("r")


async def _read_a_little_ahead(monkeypatch: pytest.MonkeyPatch) -> list[AgentEvent]:
    """Read elsewhere, one event ahead of where a log is closed."""
    monkeypatch.setattr(_recorder, "_MOST_RECENT", 1)
    store, seen = FragileStore(), []
    async with Orchestrator(agents=[talks], store=store, limits=Limits(buffer=1)) as here:
        await here.start("20", run_id="r")
        await trio.sleep(5.5)
        async with Orchestrator(agents=[talks], store=store).attach("r") as stream:
            seen += await stream.receive_batch()
            await trio.sleep(2)
            store.keep_only("r", len(seen) - 1)
            await settled(here)
            with suppress(ReplayGap):
                async for event in stream:
                    seen.append(event)
    return seen


async def test_who_is_a_little_ahead_of_such_an_end_is_told(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = await _read_a_little_ahead(monkeypatch)

    assert [event.type for event in seen[-2:]] == ["message_chunk"] * 2


async def test_a_follower_that_does_not_look_back_would_be_noticed(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_on(self: Cursor, last: AgentEvent) -> Any:
        return await self._store.read(*self._key, last.seq, 500)

    monkeypatch.setattr(Cursor, "_read_behind", read_on)
    seen = await _read_a_little_ahead(monkeypatch)

    with pytest.raises(LawBroken):
        check_events(seen)


async def test_who_has_fallen_back_behind_what_is_kept_is_told_where_the_store_ends(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recorder, "_MOST_RECENT", 1)
    store = FragileStore()
    async with Orchestrator(agents=[talks], store=store, limits=Limits(buffer=1)) as here:
        await here.start("20", run_id="r")
        await trio.sleep(2.5)
        async with here.attach("r") as stream:
            seen = await stream.receive_batch()
            await trio.sleep(15)
            store.keep_only("r", len(seen))
            with pytest.raises(ReplayGap, match=f"cut short after seq {seen[-1].seq}"):
                await stream.receive_batch()


async def test_who_waits_elsewhere_looks_again_where_nobody_wakes_him(
    autojump_clock: Any,
) -> None:
    store = FragileStore(failing("wait_past", how="hangs"))
    async with Orchestrator(agents=[talks], store=store) as here:
        await here.start("9", run_id="r")
        with trio.fail_after(100):
            seen = await read(Orchestrator(agents=[talks], store=store), "r")

    assert seen == store.stored("r")


async def test_a_front_that_is_gone_is_told_elsewhere_as_ever(autojump_clock: Any) -> None:
    store = FragileStore()
    store.max_events = 4
    async with Orchestrator(agents=[talks], store=store) as here:
        await here.start("20", run_id="r")
        async with Orchestrator(agents=[talks], store=store).attach("r") as stream:
            await stream.receive_batch()
            await trio.sleep(10)
            with pytest.raises(ReplayGap) as caught:
                while True:
                    await stream.receive_batch()

    assert caught.value.oldest is not None


# Logs whose front is gone


async def test_a_log_without_its_front_is_healed(autojump_clock: Any) -> None:
    store = FragileStore()
    store.max_events = 5
    async with Orchestrator(agents=[talks], store=store) as here:
        await here.start("20", run_id="r")
        await trio.sleep(10.5)
        log = store.stored("r")
        store.cut("r", log[:-2])
        seen = await read(here, "r", after=log[0].seq)

    assert done_of(seen)["status"] == "completed"
    assert store.stored("r") == seen[-5:]


async def test_one_that_lost_more_than_is_kept_as_well_has_no_end(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_recorder, "_MOST_RECENT", 1)
    store = FragileStore()
    store.max_events = 5
    async with Orchestrator(agents=[talks], store=store, limits=Limits(buffer=1)) as here:
        await here.start("20", run_id="r")
        await trio.sleep(10.5)
        store.cut("r", store.stored("r")[:2])
        await settled(here)

    assert "its beginning is not kept any more" in caplog.text


# What else a store may raise


async def test_a_cancelled_that_a_store_kept_is_a_failure_like_any_other(
    autojump_clock: Any,
) -> None:
    kept: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            kept.append(exc)
            raise

    class Keeping(FragileStore):
        async def append(self, *args: Any) -> None:
            if args[1] == "one" and args[2] >= 2:
                raise kept[0]
            await super().append(*args)

    async with Orchestrator(agents=[talks], store=Keeping()) as orchestrator:
        for run_id in ("one", "two"):
            await orchestrator.start("5", run_id=run_id)
        one, two = await read(orchestrator, "one"), await read(orchestrator, "two")

    assert error_of(one)["code"] == "store_failed"
    assert done_of(two)["status"] == "completed"


@pytest.mark.parametrize("name", ["append", "header"])
async def test_a_ctrl_c_in_a_store_is_one(name: str, autojump_clock: Any) -> None:
    class Interrupted(FragileStore):
        async def _do(self, called: str, *args: Any, **options: Any) -> Any:
            if called == name and is_left:
                raise KeyboardInterrupt
            if called == "append" and is_left:
                raise OSError
            return await super()._do(called, *args, **options)

    is_left: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        async with Orchestrator(agents=[talks], store=Interrupted()) as orchestrator:
            await orchestrator.start("5", run_id="r")
            await trio.sleep(1.5)
            is_left.append(True)


@pytest.mark.parametrize("name", ["append", "header"])
async def test_an_odd_exception_of_a_store_is_its_own_also_when_all_is_left(
    name: str, autojump_clock: Any
) -> None:
    """It is no Ctrl-C, and the last try to store an end is made while we are cancelled."""

    class Odd(BaseException):
        pass

    class Raising(FragileStore):
        async def _do(self, called: str, *args: Any, **options: Any) -> Any:
            if called in ("append", name):
                raise Odd
            return await super()._do(called, *args, **options)

    async with Orchestrator(agents=[talks], store=Raising()) as orchestrator:
        await orchestrator.start("5", run_id="r")
        await trio.sleep(1.5)


async def test_a_log_handler_that_raises_costs_nothing(autojump_clock: Any) -> None:
    class Raising(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise RuntimeError

    raising = Raising()
    logging.getLogger("flowtrio").addFilter(raising)
    store = FragileStore(failing("append", first=2, times=1))
    try:
        async with Orchestrator(agents=[talks], store=store) as orchestrator:
            await orchestrator.start("5", run_id="r")
            await trio.sleep(0.5)
            live = await read(orchestrator, "r")
    finally:
        logging.getLogger("flowtrio").removeFilter(raising)

    assert error_of(live)["code"] == "store_failed"
    assert store.stored("r") == live


@pytest.mark.parametrize("seq", [0, 4])
async def test_a_fault_of_the_recorders_own_costs_one_run(
    seq: int, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Recorder._append

    async def fail(self: Recorder, hosted: HostedRun, batch: Any) -> None:
        if hosted.run_id == "one" and batch[-1].seq >= seq:
            raise AssertionError("a bug")
        await append(self, hosted, batch)

    monkeypatch.setattr(Recorder, "_append", fail)
    store = FragileStore()
    async with Orchestrator(agents=[talks], store=store) as orchestrator:
        for run_id in ("one", "two"):
            await orchestrator.start("5", run_id=run_id)
        two = await read(orchestrator, "two")
        await settled(orchestrator)

    assert done_of(two)["status"] == "completed"
    if seq:
        check_events(store.stored("one"))


@pytest.mark.parametrize("exc", [KeyboardInterrupt, SystemExit])
async def test_a_run_that_is_struck_by_ctrl_c_while_its_store_fails_has_its_end_stored(
    exc: type[BaseException], autojump_clock: Any
) -> None:
    """It leaves through the recorder, which tries once more before."""

    async def struck(ctx: RunContext, message: str) -> None:
        await ctx.custom("one")
        await trio.sleep(1)
        raise exc

    store = FragileStore()
    with pytest.raises(exc):
        async with Orchestrator(agents=[struck], store=store) as orchestrator:
            await orchestrator.start("5", run_id="r")
            await trio.sleep(0.5)
            store.fault_of = once_on_append()
            await trio.sleep(5)
    log = await MemoryStore.read(store, "default", "r", -1, 100)

    check_events(log)
    assert done_of(log)["status"] == "error"


def once_on_append() -> Any:
    """A fault of the next append, and of none behind it."""
    struck: list[str] = []

    def fault_of(call: int, name: str, run_id: str) -> str | None:
        if name == "append" and not struck:
            struck.append(name)
            return "error"
        return None

    return fault_of
