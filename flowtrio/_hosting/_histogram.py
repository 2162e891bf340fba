"""Seconds, counted by how long they are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import attrs

_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@attrs.define(eq=False)
class Histogram:
    """Seconds, counted by how long they are."""

    bounds: tuple[float, ...] = _BOUNDS
    counts: list[int] = attrs.field(init=False)
    """How many were at most as long as each bound, and longer than the one before; then longer."""
    total: float = attrs.field(default=0.0, init=False)
    """All together, in seconds."""

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def add_gaps(self, times: Sequence[float]) -> None:
        """Count what lies between each of *times* and the next; they only grow."""
        span = times[-1] - times[0]
        gaps = pairwise(times) if span > self.bounds[0] else ()
        long = [later - earlier for earlier, later in gaps if later - earlier > self.bounds[0]]
        # Nearly none, where a model is fast.
        self.counts[0] += len(times) - 1 - len(long)
        self.total += span - sum(long)
        for gap in long:
            self.add(gap)
