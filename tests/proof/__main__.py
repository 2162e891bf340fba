"""``python -m tests.proof --runs 100000``: so many seeded runs, judged by every law."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from random import Random

from .judge import problems_of
from .worlds import draw_world


def main() -> int:
    """Play the runs, tell what was found, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    begun, cpu = time.perf_counter(), time.process_time()
    broken: Counter[str] = Counter()
    for seed in range(options.first, options.first + options.runs):
        world = draw_world(Random(seed))
        for problem in problems_of(world):
            law = problem.split()[0]
            broken[law] += 1
            if broken[law] <= 3:
                print(f"seed {seed}: {problem}\n  {world}", flush=True)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(
        f"{options.runs} runs in {seconds:.0f} s ({options.runs / cpu:.0f} a second of one core): "
        f"{sum(broken.values())} violations"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
