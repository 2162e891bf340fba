"""What thousands of runs cost that wait: to start, to keep, and to cancel.

Ours are bare streams held by an open engine. The agent of each waits for ever; each was started and
has given its first two events, RUN_START and the change to ``running``. Leaving the engine cancels
them all and waits until they have ended.

They are held against what a careful programmer would write for the same in bare Trio: for each
"run" a host task with a cancel scope that has a deadline, a memory channel through which one item
was sent and read, and in the scope a nursery with a child that sleeps for ever. To end them, each
scope is cancelled, and all tasks are waited for.

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
    """Hold so many idle runs; leaving the block ends them."""
    streams: list[EventStream] = []
    async with StreamEngine() as engine:
        for _ in range(runs):
            stream = engine.stream(idle_agent, "wait")
            first, second = await anext(stream), await anext(stream)
            assert (first.type, second.type) == (EventType.RUN_START, EventType.STATE_CHANGE)
            streams.append(stream)
        await wait_all_tasks_blocked()
        yield
    assert all(stream.status is AgentStatus.CANCELLED for stream in streams)


async def bare_host(scope: trio.CancelScope, send: trio.MemorySendChannel[str]) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await send.send("started")


@asynccontextmanager
async def idle_tasks(runs: int) -> AsyncIterator[None]:
    """Hold as many in bare Trio."""
    held: list[tuple[trio.CancelScope, trio.MemoryReceiveChannel[str]]] = []
    async with trio.open_nursery() as nursery:
        for _ in range(runs):
            send, receive = trio.open_memory_channel[str](1)
            scope = trio.CancelScope(deadline=trio.current_time() + DEADLINE)
            nursery.start_soon(bare_host, scope, send)
            assert await receive.receive() == "started"
            held.append((scope, receive))
        await wait_all_tasks_blocked()
        yield
        for scope, _ in held:
            scope.cancel()
    assert all(scope.cancelled_caught for scope, _ in held)


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
    taken = interleave(
        rounds,
        ours=partial(trio.run, start_and_cancel, idle_runs, runs),
        bare=partial(trio.run, start_and_cancel, idle_tasks, runs),
    )
    return [
        compare(
            f"idle run of {runs:,}, {what} / bare Trio",
            [sample[place] for sample in taken["ours"]],
            [sample[place] for sample in taken["bare"]],
            target=target,
            best=median,
        )
        for place, what, target in ((0, "start", START_TARGET), (1, "cancel", CANCEL_TARGET))
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
