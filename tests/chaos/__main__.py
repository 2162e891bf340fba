"""Kill, freeze and stop the processes of a cluster while clients use it, and judge what is left.

python -m tests.chaos --minutes 10 --seed 7
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import attrs
import trio

from tests.support.redis_server import RedisServer, redis_server

from .clients import Clients
from .judge import deeds_of, judge, judge_keys
from .processes import KINDS, LEASE, LOSSES, Processes

_ALL_END_WITHIN = 90.0
"""Seconds after which every run has its end, once nothing befalls anybody any more."""


@attrs.define
class Outcome:
    """What one run of the chaos showed."""

    runs: int
    troubles: Counter[str]
    statuses: Counter[str]
    lapsed: int
    """Runs whose owner was gone."""
    lapse: float
    """The longest time in which such a run had nobody, in seconds."""
    begun_anew: int
    """Runs that were executed again, as the store had lost that they were begun."""
    wrong: list[str]

    def told(self) -> str:
        """All in a few lines."""
        befell = ", ".join(f"{kind} {count}" for kind, count in sorted(self.troubles.items()))
        ended = ", ".join(f"{status} {count}" for status, count in sorted(self.statuses.items()))
        lines = [
            f"{self.runs} runs ({ended})",
            f"befell: {befell}",
            f"{self.lapsed} runs had nobody, for {self.lapse:.1f} s at most (lease {LEASE:g} s)",
            f"begun anew: {self.begun_anew}",
            f"wrong: {len(self.wrong)}",
        ]
        return "\n".join([*lines, *(f"  {each}" for each in self.wrong[:30])])


async def play(
    redis: RedisServer,
    folder: Path,
    seed: int,
    seconds: float,
    clients: int,
    kinds: tuple[str, ...] = KINDS,
) -> Outcome:
    """One run of the chaos."""
    processes = Processes(redis, folder, random.Random(seed), redis.url())
    (folder / "marks").touch()
    try:
        await processes.start()
        until = time.monotonic() + seconds
        world = Clients(processes, random.Random(seed + 1), until)
        with trio.move_on_after(seconds + _ALL_END_WITHIN) as whole:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(processes.watch)
                async with trio.open_nursery() as both:
                    both.start_soon(processes.trouble, until, kinds)
                    both.start_soon(world.live, clients)
                nursery.cancel_scope.cancel()
        wrong = ["not all runs have ended"] if whole.cancelled_caught else []
        wrong += processes.lapses.told()
        if processes.losses:
            # Ends that were lost when the last clients had gone are stored again.
            await trio.sleep(2 * LEASE)
        wrong += await judge(world, processes.url, folder / "marks")
        await processes.end()
        wrong += judge_keys(world)
        wrong += _tracebacks(folder)
    finally:
        processes.kill()
    ends = [log[-1]["data"] for run in world.runs for log in run.logs[:1] if log]
    statuses = Counter(str(end.get("reason") or end.get("status")) for end in ends)
    return Outcome(
        runs=len(world.runs),
        troubles=processes.troubles,
        statuses=statuses,
        lapsed=processes.lapses.count,
        lapse=processes.lapses.longest,
        begun_anew=sum(deeds.began > 1 for deeds in deeds_of(folder / "marks").values()),
        wrong=wrong,
    )


def _tracebacks(folder: Path) -> list[str]:
    """Lines of errors that are bugs of ours."""
    found = []
    for path in sorted(folder.glob("*.log")):
        for line in path.read_text(errors="replace").splitlines():
            if "internal_failed" in line or "TrioInternalError" in line:
                found.append(f"{path.name}: {line[:200]}")
    return found


def main() -> int:
    """Run it, and tell; the exit status says whether all held."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--keep", type=Path, help="a folder for what processes have written")
    parser.add_argument(
        "--losses", action="store_true", help="have the store lose its newest entries, instead"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ft-chaos-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        with redis_server("--appendonly", "yes", "--appendfsync", "always") as redis:
            outcome = trio.run(
                *(play, redis, folder, options.seed, options.minutes * 60, options.clients),
                LOSSES if options.losses else KINDS,
            )
    print(outcome.told())
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
