"""A reader that comes late is told all that was said as one event, and then what follows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio

from flowtrio import (
    AgentEvent,
    MemoryStore,
    Orchestrator,
    ReplayGap,
    RunContext,
    SQLiteStore,
    StreamMode,
    project,
)
from flowtrio._core._snapshot import Snapshot
from flowtrio.abc import EventStore
from flowtrio.aio import Bridge
from flowtrio.testing import LeasedStore


async def talks(ctx: RunContext, message: str) -> str:
    """Say some, wait for an answer, and say more."""
    async with ctx.message() as out:
        for word in ("one ", "two ", "three"):
            await out.write(word)
    answer = await ctx.ask("Go on?")
    async with ctx.message() as out:
        await out.write(answer)
    return message


async def fails(ctx: RunContext, message: str) -> None:
    """Fail."""
    raise ValueError("no")


async def log_of(orchestrator: Orchestrator, run_id: str) -> list[AgentEvent]:
    return [event async for event in orchestrator.attach(run_id)]


async def until(orchestrator: Orchestrator, run_id: str, type: str) -> int:
    """Read until an event of this type, and give its place."""
    async with orchestrator.attach(run_id) as stream:
        async for event in stream:
            if event.type == type:
                return event.seq
    raise AssertionError(f"no {type}")


def check_snapshot(
    seen: list[AgentEvent], log: list[AgentEvent], newest: int, mode: StreamMode | str
) -> None:
    """All up to *newest* is one event, and behind it stands what the mode shows."""
    snapshot = Snapshot()
    for event in log[: newest + 1]:
        snapshot.add(event)

    assert seen[0].seq == newest
    assert seen[0].data == {**log[newest].data, "state": snapshot.state()}
    assert seen[1:] == [event for event in project(mode, log) if event.seq > newest]


@pytest.mark.parametrize("mode", StreamMode)
@pytest.mark.parametrize("kept", ["memory", "sqlite"])
async def test_a_live_run_is_told_up_to_now_and_then_goes_on(
    mode: StreamMode, kept: str, tmp_path: Any
) -> None:
    store: EventStore = MemoryStore() if kept == "memory" else SQLiteStore(tmp_path / "runs.db")
    async with Orchestrator(agents=[talks], store=store) as orchestrator:
        run_id = await orchestrator.start("go")
        newest = await until(orchestrator, run_id, "input_required") + 1
        seen: list[AgentEvent] = []
        async with orchestrator.attach(run_id, mode=mode, snapshot=True) as stream:
            async for event in stream:
                seen.append(event)
                if len(seen) == 1:
                    [question] = event.data["state"]["questions"]
                    assert stream.answer(question["request_id"], "yes")
        log = await log_of(orchestrator, run_id)
        late = [e async for e in orchestrator.attach(run_id, mode=mode, snapshot=True)]

    check_snapshot(seen, log, newest, mode)
    check_snapshot(late, log, log[-1].seq, mode)
    assert [m["content"] for m in late[0].data["state"]["messages"]] == ["one two three", "yes"]


async def test_a_failed_run_tells_why_in_one_event(autojump_clock: Any) -> None:
    async with Orchestrator(agents=[fails]) as orchestrator:
        run_id = await orchestrator.start("go")
        await trio.testing.wait_all_tasks_blocked()
        [event] = [e async for e in orchestrator.attach(run_id, snapshot=True)]
        log = await log_of(orchestrator, run_id)

    check_snapshot([event], log, log[-1].seq, "events")
    assert event.data["state"]["error"] == log[-2].data


async def test_a_log_without_its_beginning_has_no_snapshot(autojump_clock: Any) -> None:
    store = MemoryStore(max_events=4)
    async with Orchestrator(agents=[fails], store=store) as orchestrator:
        run_id = await orchestrator.start("go")
        # Until then its newest events are kept beside the store.
        while orchestrator.attach(run_id).is_live:
            await trio.sleep(0.01)
        with pytest.raises(ReplayGap):
            await orchestrator.attach(run_id, snapshot=True).receive_batch()


async def test_a_snapshot_has_no_place_to_begin_behind() -> None:
    orchestrator = Orchestrator(agents=[talks])
    with pytest.raises(ValueError, match="snapshot=True"):
        orchestrator.attach("r", 3, snapshot=True)
    with pytest.raises(LookupError):
        await orchestrator.attach("r", snapshot=True).receive_batch()


async def test_a_store_that_processes_share_has_it_too(autojump_clock: Any) -> None:
    store = LeasedStore()
    kept = store.conversations
    async with (
        Orchestrator(agents=[talks], store=store, conversations=kept, role="worker"),
        Orchestrator(agents=[talks], store=store, conversations=kept, role="gateway") as gateway,
    ):
        run_id = await gateway.start("go")
        newest = await until(gateway, run_id, "input_required") + 1
        seen: list[AgentEvent] = []
        async with gateway.attach(run_id, snapshot=True) as stream:
            async for event in stream:
                seen.append(event)
                if len(seen) == 1:
                    [question] = event.data["state"]["questions"]
                    given = {"request_id": question["request_id"], "value": "yes"}
                    assert await gateway.command(run_id, "answer", **given)
        check_snapshot(seen, await log_of(gateway, run_id), newest, "events")


def test_an_asyncio_task_reads_it_as_well() -> None:
    async def main() -> tuple[list[AgentEvent], list[AgentEvent]]:
        async with Bridge() as bridge:
            orchestrator = await bridge.enter(Orchestrator(agents=[fails]))
            run_id = await bridge.call(orchestrator.start, "go")
            log = [event async for event in orchestrator.attach(run_id)]
            return [e async for e in orchestrator.attach(run_id, snapshot=True)], log

    seen, log = asyncio.run(main())
    check_snapshot(seen, log, log[-1].seq, "events")
