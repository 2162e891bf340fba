"""``python -m tests.soak --minutes 60``: memory, tasks, threads and descriptors stay flat.

Runs come and go in one real Trio loop: some are read to their end, some are left in the midst, some
are cancelled. Nothing here is virtual. The counts of the last third of the time are held against
those of the second.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import threading
from pathlib import Path
from random import Random

import attrs
import trio

from flowtrio import Agent, DemoClient, StreamEngine, tool
from flowtrio.testing import check_events

AT_ONCE = 16
GROWTH_MIB = 8.0
"""Of memory, between the two thirds: less than a leak of a few bytes for each event in an hour."""


@tool
def look(city: str) -> str:
    """Look it up, in a thread."""
    return city


@tool
async def think(city: str) -> str:
    """Take a moment."""
    await trio.sleep(0.002)
    return city


AGENT = Agent(llm_client=DemoClient(delay=0.001), tools=[look, think])


@attrs.frozen
class Sample:
    """What is there between two batches of runs."""

    mib: float
    tasks: int
    threads: int
    descriptors: int


def sample() -> Sample:
    """Count."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return Sample(
        mib=pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        tasks=trio.lowlevel.current_statistics().tasks_living,
        threads=threading.active_count(),
        descriptors=len(os.listdir("/proc/self/fd")),
    )


async def one(source: Random) -> None:
    """One run that ends in one of three ways."""
    leaves = source.choice((None, None, 5, 20))
    async with StreamEngine().stream(AGENT, "Book a flight to Paris") as stream:
        events = []
        async for event in stream:
            events.append(event)
            if len(events) == leaves:
                if source.random() < 0.5:
                    break
                stream.cancel("the soak")
    check_events(events, whole=leaves is None)


async def soak(seconds: float) -> tuple[int, list[Sample]]:
    """Run for so long; give how many runs there were, and the samples."""
    source, runs, samples = Random(0), 0, []
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(one, source)
        runs += AT_ONCE
        samples.append(sample())
    return runs, samples


def growth(samples: list[Sample]) -> list[str]:
    """What grew from the second third of the time to the last."""
    third = len(samples) // 3
    second, last = samples[third : 2 * third], samples[2 * third :]

    def change(name: str) -> float:
        of = [statistics.median(getattr(s, name) for s in part) for part in (second, last)]
        return of[1] - of[0]

    grown = [name for name in ("tasks", "descriptors") if change(name) > 0]
    grown += ["threads"] if max(s.threads for s in last) > AT_ONCE * 2 + 2 else []
    return grown + (["memory"] if change("mib") > GROWTH_MIB else [])


def main() -> int:
    """Soak, tell what was seen, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    runs, samples = trio.run(soak, options.minutes * 60)
    grown = growth(samples)
    print(f"{runs} runs; first {samples[0]}, last {samples[-1]}; grown: {', '.join(grown) or 'no'}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
