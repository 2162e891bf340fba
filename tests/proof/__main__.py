"""``python -m tests.proof --runs 100000``: so many seeded runs, judged by every law."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from random import Random

from .judge import problems_of
from .worlds import draw_world

SHARE = 250
"""Runs that a process plays before it tells what it found."""


def main() -> int:
    """Play the runs on every core, tell what was found, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    begun, cpu = time.perf_counter(), 0.0
    broken: Counter[str] = Counter()
    seeds = range(options.first, options.first + options.runs)
    shares = [seeds[place : place + SHARE] for place in range(0, len(seeds), SHARE)]
    with ProcessPoolExecutor() as processes:
        for told, spent in processes.map(play, shares):
            cpu += spent
            for seed, problem in told:
                law = problem.split()[0]
                broken[law] += 1
                if broken[law] <= 3:
                    print(f"seed {seed}: {problem}\n  {draw_world(Random(seed))}", flush=True)
    seconds = time.perf_counter() - begun
    print(
        f"{options.runs} runs in {seconds:.0f} s ({options.runs / cpu:.0f} a second of one core): "
        f"{sum(broken.values())} violations"
    )
    return 1 if broken else 0


def play(seeds: range) -> tuple[list[tuple[int, str]], float]:
    """Play these runs; each problem with its seed, and the seconds of processor time."""
    cpu = time.process_time()
    told = [(seed, problem) for seed in seeds for problem in problems_of(draw_world(Random(seed)))]
    return told, time.process_time() - cpu


if __name__ == "__main__":
    sys.exit(main())
