"""What thousands of runs cost that wait: to start, to keep, and to cancel.

Ours are bare streams held by an open engine. The agent of each waits for ever; each was started and
has given its first two events, RUN_START and the change to ``running``. Leaving the engine cancels
them all and waits until they have ended.

They are held against what a careful programmer would write for the same in bare Trio: for each
"run" a host task with a cancel scope that has a deadline, a memory channel through which one item
was sent and read, and in the scope a nursery with a child that sleeps for ever. To end them all,
the nursery that holds them is cancelled, and leaving an engine is held against that. Two more rows
tell the other ways: ours cancelled by a scope around the engine, and each bare scope cancelled by a
call of its own, which is Trio's cheapest way, since then no exception leaves any of them.

Most of the time goes to the garbage collector, which walks all that is alive again and again: so
the number of runs matters, and the median of the rounds is told. Memory is measured in fresh
processes, by what `tracemalloc` counts and by what the process holds.
"""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from flowtrio import AgentStatus, EventStream, EventType, RunContext, StreamEngine

from ._measure import (
    CAN_TELL_RESIDENT,
    Row,
    Stopwatch,
    compare,
    in_fresh_process,
    interleave,
    median,
    resident_bytes,
)

START_TARGET = 1.6
MEMORY_TARGET = 1.4
CANCEL_TARGET = 1.2
DEADLINE = 600
WARMING_UP = 20
"""Runs started and ended before memory is measured: what is made once is made by then."""


async def idle_agent(ctx: RunContext, message: str) -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def idle_runs(runs: int) -> AsyncIterator[None]:
    """Hold so many idle runs; leaving the block leaves their engine, which ends them."""
    async with StreamEngine() as engine:
        streams = await start_runs(engine, runs)
        yield
    assert all(stream.status is AgentStatus.CANCELLED for stream in streams)


@asynccontextmanager
async def idle_runs_in_scope(runs: int) -> AsyncIterator[None]:
    """The same, ended by a scope around their engine."""
    with trio.CancelScope() as scope:
        async with StreamEngine() as engine:
            streams = await start_runs(engine, runs)
            yield
            scope.cancel()
    assert all(stream.status is AgentStatus.CANCELLED for stream in streams)


async def start_runs(engine: StreamEngine, runs: int) -> list[EventStream]:
    streams: list[EventStream] = []
    for _ in range(runs):
        stream = engine.stream(idle_agent, "wait")
        first, second = await anext(stream), await anext(stream)
        assert (first.type, second.type) == (EventType.RUN_START, EventType.STATE_CHANGE)
        streams.append(stream)
    await wait_all_tasks_blocked()
    return streams


async def bare_host(scope: trio.CancelScope, send: trio.MemorySendChannel[str]) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await send.send("started")


@asynccontextmanager
async def idle_tasks(runs: int) -> AsyncIterator[None]:
    """Hold as many in bare Trio; leaving the block cancels the nursery that holds them."""
    async with trio.open_nursery() as nursery:
        await start_tasks(nursery, runs)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def idle_tasks_in_scopes(runs: int) -> AsyncIterator[None]:
    """The same, each ended by its own scope."""
    async with trio.open_nursery() as nursery:
        scopes = await start_tasks(nursery, runs)
        yield
        for scope in scopes:
            scope.cancel()
    assert all(scope.cancelled_caught for scope in scopes)


async def start_tasks(nursery: trio.Nursery, runs: int) -> list[trio.CancelScope]:
    scopes = []
    for _ in range(runs):
        send, receive = trio.open_memory_channel[str](1)
        scope = trio.CancelScope(deadline=trio.current_time() + DEADLINE)
        nursery.start_soon(bare_host, scope, send)
        assert await receive.receive() == "started"
        scopes.append(scope)
    await wait_all_tasks_blocked()
    return scopes


Idle = Callable[[int], AbstractAsyncContextManager[None]]
SIDES: dict[str, Idle] = {"ours": idle_runs, "bare": idle_tasks}


# Time


async def start_and_cancel(idle: Idle, runs: int) -> tuple[float, float]:
    """CPU seconds to start each, and to cancel each."""
    watch = Stopwatch()
    async with idle(runs):
        to_start = watch.seconds_each(runs)
        watch = Stopwatch()
    return to_start, watch.seconds_each(runs)


def time_rows(runs: int, rounds: int) -> list[Row]:
    """Start and cancel."""
    sides: dict[str, Idle] = {
        **SIDES,
        "ours in a scope": idle_runs_in_scope,
        "bare in scopes": idle_tasks_in_scopes,
    }
    taken = interleave(
        rounds,
        **{name: partial(trio.run, start_and_cancel, idle, runs) for name, idle in sides.items()},
    )

    def row(what: str, place: int, ours: str, bare: str, target: float | None) -> Row:
        return compare(
            f"idle run of {runs:,}, {what}",
            [sample[place] for sample in taken[ours]],
            [sample[place] for sample in taken[bare]],
            target=target,
            best=median,
        )

    return [
        row("start / bare Trio", 0, "ours", "bare", START_TARGET),
        row("leave the engine / cancel the nursery", 1, "ours", "bare", CANCEL_TARGET),
        row("cancel around it / the nursery", 1, "ours in a scope", "bare", None),
        row("leave the engine / each scope", 1, "ours", "bare in scopes", None),
    ]


# Memory


async def measure_memory(idle: Idle, counter: Callable[[], int], runs: int) -> float:
    """Bytes that each takes while it waits."""
    async with idle(WARMING_UP):
        pass
    gc.collect()
    before = counter()
    async with idle(runs):
        gc.collect()
        taken = counter() - before
    return taken / runs


def traced_bytes() -> int:
    """What Python's own allocations hold now."""
    return tracemalloc.get_traced_memory()[0]


def memory_rows(runs: int) -> list[Row]:
    """Memory, counted in two ways."""
    found = []
    for counter, what in (("traced", "tracemalloc"), ("resident", "RSS")):
        if counter == "resident" and not CAN_TELL_RESIDENT:
            continue
        ours, bare = (
            in_fresh_process("idle", side, counter, runs)["bytes"] / 1024 for side in SIDES
        )
        found.append(
            Row(
                subject=f"idle run of {runs:,}, {what} / bare Trio",
                ours=ours,
                theirs=bare,
                target=MEMORY_TARGET,
                unit="KiB",
            )
        )
    return found


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    runs, rounds = (1_000, 3) if quick else (10_000, 3)
    return [*time_rows(runs, rounds), *memory_rows(runs)]


def main(side: str, counter: str, runs: str) -> None:
    """Measure one side's memory in this process, and print it as JSON."""
    count = resident_bytes
    if counter == "traced":
        tracemalloc.start()
        count = traced_bytes
    taken: Any = trio.run(measure_memory, SIDES[side], count, int(runs))
    print(json.dumps({"bytes": taken}))


if __name__ == "__main__":
    main(*sys.argv[1:])
