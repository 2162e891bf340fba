"""How everything here is measured.

Times are CPU time, and mean something only as ratios. So both sides of a ratio are measured in turn
(A B A B …) within one process: what slows one side for a while slows the other too. The garbage
collector stays on, as users run it, and starts each measurement with nothing left over.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
"""The folder from which ``python -m benchmarks`` is run."""

MICROSECONDS = 1e6


@attrs.frozen(kw_only=True)
class Row:
    """One line of the table: a figure of ours, held against one of somebody else's."""

    subject: str
    ours: float
    theirs: float
    target: float | None = None
    """The ratio not to exceed; None where the figure is only told."""
    limit: float | None = None
    """The same for a figure of ours that is limited by itself and not as a ratio."""
    unit: str = "µs"
    spread: tuple[float, float] | None = None
    """The smallest and the largest ratio of any single round."""

    @property
    def ratio(self) -> float:
        """Ours as a multiple of theirs."""
        return self.ours / self.theirs if self.theirs else float("inf")

    @property
    def is_reached(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.limit is not None:
            return self.ours <= self.limit
        return None if self.target is None else self.ratio <= self.target

    def to_json(self) -> dict[str, Any]:
        """Everything about it, for ``--json``."""
        return {**attrs.asdict(self), "ratio": self.ratio, "reached": self.is_reached}


class Stopwatch:
    """CPU seconds since it was made."""

    def __init__(self) -> None:
        self._begin = time.process_time()

    def seconds_each(self, items: int) -> float:
        """The time so far, for each of *items*."""
        return (time.process_time() - self._begin) / items


def interleave(rounds: int, **sides: Callable[[], T]) -> dict[str, list[T]]:
    """Measure each side once a round, after one round that only warms up."""
    taken: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, measure in sides.items():
            gc.collect()
            sample = measure()
            if number:
                taken[name].append(sample)
    return taken


def compare(
    subject: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    target: float | None = None,
    best: Callable[[Sequence[float]], float] = min,
) -> Row:
    """Make the row of two interleaved series of seconds.

    The *best* of each stands for it: the minimum, as noise only ever adds; the median where the
    garbage collector, whose turn comes now and then, is a part of the cost.
    """
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Row(
        subject=subject,
        ours=best(ours) * MICROSECONDS,
        theirs=best(theirs) * MICROSECONDS,
        target=target,
        spread=(min(ratios), max(ratios)),
    )


median = statistics.median


# Memory


_STATM = Path("/proc/self/statm")
CAN_TELL_RESIDENT = _STATM.exists()
"""Whether the system tells what a process holds now; else the rows about that are left out."""


def resident_bytes() -> int:
    """The memory that this process holds now."""
    pages = int(_STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def in_fresh_process(module: str, *arguments: object) -> Mapping[str, Any]:
    """Run a module's own ``main`` where nothing has used any memory before; give what it tells."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    told: Mapping[str, Any] = json.loads(done.stdout)
    return told
