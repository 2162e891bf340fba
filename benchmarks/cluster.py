"""How soon an event is elsewhere: from the worker that records it to followers in another process.

The worker is a process of its own, on a redis-server of its own; the followers are here, at a
gateway. What a chunk says is the moment at which it was written, by the clock that all processes of
a machine share. Beside the times stands how many commands the store was asked for each event.
"""

from __future__ import annotations

import gc
import re
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

import trio

from flowtrio import EventType, Orchestrator, RedisConversations, RedisStore, RunContext

from ._measure import ROOT, Row
from .stores import redis

ONE_MEDIAN, ONE_WORST, MANY_WORST = 1.5, 6, 20
"""Milliseconds: of one follower, and the 99th of 100 of one and of many."""
COMMANDS = 20
"""Of the store, for each event that many follow."""
PAUSE = 0.02
Role: TypeAlias = Literal["gateway", "worker"]


async def tick(ctx: RunContext, message: str) -> None:
    """Say what time it is, as often as the message says."""
    async with ctx.message() as out:
        for _ in range(int(message)):
            await trio.sleep(PAUSE)
            await out.write(f"{time.perf_counter()}")


@asynccontextmanager
async def opened(url: str, role: Role) -> AsyncIterator[Orchestrator]:
    """One of the processes."""
    store, kept = RedisStore(url), RedisConversations(url)
    async with (
        store,
        kept,
        Orchestrator(agents=[tick], store=store, conversations=kept, role=role) as orchestrator,
    ):
        yield orchestrator


async def commands_so_far(socket: str) -> int:
    """Commands that the server has been asked."""
    async with await trio.open_unix_socket(socket) as stream:
        await stream.send_all(b"INFO stats\r\n")
        told = (await stream.receive_some(65536)).decode()
    [count] = re.findall(r"total_commands_processed:(\d+)", told)
    return int(count)


async def follow(
    orchestrator: Orchestrator,
    run_id: str,
    told: array[float],
    task_status: trio.TaskStatus[None],
) -> None:
    """Read a run, and note when each chunk was written, and how late it is."""
    async with orchestrator.attach(run_id) as stream:
        task_status.started()
        async for event in stream:
            if event.type is EventType.MESSAGE_CHUNK:
                written = float(event.data["chunk"])
                told.extend((written, time.perf_counter() - written))


async def measure(url: str, socket: str, events: int, followers: int) -> tuple[list[float], float]:
    """The milliseconds of all chunks at all followers, and commands for each event.

    Of those that were written when all were there: before, they are read from the store.
    """
    told = array("d")  # Of tuples the collector would take longer than all else.
    async with opened(url, "gateway") as orchestrator:
        run_id = await orchestrator.start(str(events))
        before = await commands_so_far(socket)
        async with trio.open_nursery() as nursery:

            async def begin(task_status: trio.TaskStatus[None]) -> None:
                await follow(orchestrator, run_id, told, task_status)

            for _ in range(followers):
                await nursery.start(begin)
            gc.collect()
            gc.freeze()  # As `flowtrio serve` does, when it is ready.
            all_there = time.perf_counter()
        commands = (await commands_so_far(socket) - before) / events
    pairs = zip(told[::2], told[1::2], strict=True)
    return sorted(late * 1000 for written, late in pairs if written > all_there), commands


def percentile(ordered: list[float], share: float) -> float:
    """The value below which this share of them is."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    events, many = (50, 20) if quick else (500, 200)
    with redis("--appendonly", "yes", "--appendfsync", "everysec") as url:
        if url is None:
            print("no redis-server on this machine: nothing is followed elsewhere")
            return []
        socket = url.removeprefix("unix://")
        command = [sys.executable, "-m", "benchmarks.cluster", url]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as worker:
            one, _ = trio.run(measure, url, socket, events, 1)
            all_, commands = trio.run(measure, url, socket, events, many)
            worker.communicate()
    return [
        _row(
            "an event at one follower elsewhere, median / mean",
            statistics.median(one),
            one,
            ONE_MEDIAN,
        ),
        _row("the same, 99 of 100 / mean", percentile(one, 0.99), one, ONE_WORST),
        _row(
            f"at {many} followers elsewhere, 99 of 100 / mean",
            percentile(all_, 0.99),
            all_,
            MANY_WORST,
        ),
        Row(
            subject=f"commands of the store an event, {many} followers / an event's own",
            ours=commands,
            theirs=1,
            limit=COMMANDS,
            unit="",
        ),
    ]


def _row(subject: str, figure: float, of: list[float], limit: float) -> Row:
    return Row(subject=subject, ours=figure, theirs=statistics.mean(of), limit=limit, unit="ms")


async def work(url: str) -> None:
    """Run runs until the input is closed."""
    async with opened(url, "worker"):
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(work, *sys.argv[1:])
