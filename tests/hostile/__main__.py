"""``python -m tests.hostile --runs 20000``: so many hostile programs, judged by every law.

``--threads`` plays them under the real clock, with controls from worker threads and plain tools.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
from collections import Counter

from .programs import Program, draw, draw_with_threads
from .shrink import kind_of, shrink
from .trial import try_out

SECONDS = 60
"""Real time that one program may take; it is dumped and the process ends after that."""


def main() -> int:
    """Play the programs, tell what was found, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--threads", action="store_true", help="the real clock, and threads")
    parser.add_argument("--shrink", action="store_true", help="show the smallest program of a kind")
    parser.add_argument("--ignore", default=None, help="a text: kinds that hold it are not told")
    options = parser.parse_args()
    begun, cpu = time.perf_counter(), time.process_time()
    kinds: Counter[str] = Counter()
    for seed in range(options.first, options.first + options.runs):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        program = (draw_with_threads if options.threads else draw)(seed)
        for problem in try_out(program, threads=options.threads):
            kind = kind_of(problem)
            if options.ignore and options.ignore in kind:
                continue
            kinds[kind] += 1
            if kinds[kind] == 1:
                _tell(seed, program, problem, options)
    faulthandler.cancel_dump_traceback_later()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    for kind, count in kinds.most_common():
        print(f"{count:6} {kind}")
    print(
        f"{options.runs} programs in {seconds:.0f} s ({options.runs / max(cpu, 0.01):.0f} a second "
        f"of one core): {sum(kinds.values())} violations of {len(kinds)} kinds"
    )
    return 1 if kinds else 0


def _tell(seed: int, program: Program, problem: str, options: argparse.Namespace) -> None:
    print(f"seed {seed}: {problem!a}", flush=True)
    if options.shrink:
        kind = kind_of(problem)

        def is_broken(candidate: Program) -> bool:
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            found = try_out(candidate, threads=options.threads)
            return kind in map(kind_of, found)

        program = shrink(program, is_broken)
    print(f"  {program!r}".encode("ascii", "backslashreplace").decode(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
