"""How long it takes to open a long run again: its snapshot, beside all of its events.

Wall time from asking for the log to the first event that can be drawn as all that was said, read as
a server reads it and encoded as its frame; beside it the same log event by event. A snapshot costs
the fold of the log; what it saves is the way to the reader, and the reader's own work.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import trio

from flowtrio import MemoryStore, Orchestrator, RunContext, SQLiteStore, StreamMode
from flowtrio.abc import EventStore
from flowtrio.serving.commands._clients import Hosting, ServerLimits
from flowtrio.wire._frames import encode_events

from ._measure import Row, interleave, median

LIMIT = 200
"""Milliseconds until a log of 20,000 events stands there again."""
EVENTS = 20_000
CHUNKS = 400
"""Chunks of each message."""


async def talk(ctx: RunContext, message: str) -> None:
    """Say messages of many chunks, as many as the message says."""
    for _ in range(int(message)):
        async with ctx.message() as out:
            for _ in range(CHUNKS):
                await out.write("token ")


async def fill(store: EventStore, events: int) -> int:
    """Have a run of so many events in the store; gives how many there are."""
    async with Orchestrator(agents=[talk], store=store) as orchestrator:
        run_id = await orchestrator.start(str(events // (CHUNKS + 1)), run_id="long")
        async for event in orchestrator.attach(run_id):
            last = event.seq
    return last + 1


async def open_again(store: EventStore, snapshot: bool) -> float:
    """Seconds until all is there."""
    async with Orchestrator(agents=[talk], store=store) as orchestrator:
        hosting = Hosting(orchestrator, ServerLimits(), False, 60)
        begun = time.perf_counter()
        newest = await hosting.service.recorder.newest("default", "long") if snapshot else -1
        showing = hosting.showing(StreamMode.EVENTS, -1, is_linked=False, newest=newest)
        follower = hosting.follow("default", "long", showing.after, showing.start)
        async with follower:
            while not follower.is_over:
                encode_events(showing.show(await follower.receive_batch()), is_batch=True)
        return time.perf_counter() - begun


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    events, rounds = (2_000, 2) if quick else (EVENTS, 7)
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        stores: dict[str, Any] = {
            "memory": MemoryStore(max_events=2 * events),
            "sqlite": SQLiteStore(Path(folder) / "runs.db"),
        }
        for name, store in stores.items():
            count = trio.run(fill, store, events)
            taken = interleave(
                rounds,
                snapshot=partial(trio.run, open_again, store, True),
                whole=partial(trio.run, open_again, store, False),
            )
            found.append(
                Row(
                    subject=f"open {count:,} events again, {name}, snapshot / all of them",
                    ours=median(taken["snapshot"]) * 1000,
                    theirs=median(taken["whole"]) * 1000,
                    limit=LIMIT,
                    unit="ms",
                )
            )
    return found
