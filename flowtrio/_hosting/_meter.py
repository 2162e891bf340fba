"""What operators want to know of all runs together: counts, and how long tokens take."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import attrs

from flowtrio._core._events import AgentEvent, EventType

if TYPE_CHECKING:
    from flowtrio._run._run import Run

_CHUNK: Final = EventType.MESSAGE_CHUNK
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
        if span <= self.bounds[0]:
            # None of them is longer: the usual case where a model is fast.
            self.counts[0] += len(times) - 1
            self.total += span
        else:
            for earlier, later in pairwise(times):
                self.add(later - earlier)


@attrs.define(eq=False)
class Meter:
    """Counts the runs of one orchestrator, and the chunks of those that are hosted."""

    outcomes: dict[str, int] = attrs.field(factory=dict, init=False)
    """Runs that ended, by status."""
    running: int = attrs.field(default=0, init=False)
    """Runs that have begun and not ended."""
    events: int = attrs.field(default=0, init=False)
    """Events of the runs that ended."""
    store_failures: int = attrs.field(default=0, init=False)
    """Hosted runs whose store failed."""
    first_token: Histogram = attrs.field(factory=Histogram, init=False)
    """From a hosted run's start to its first chunk."""
    gaps: Histogram = attrs.field(factory=Histogram, init=False)
    """Between two chunks of a hosted run."""

    def watch(self, run: Run) -> None:
        """Count *run*, and again when it has ended."""
        self.running += 1
        run.when_done(lambda: self._ended(run))

    def _ended(self, run: Run) -> None:
        status = str(run.log.status)
        self.running -= 1
        self.outcomes[status] = self.outcomes.get(status, 0) + 1
        self.events += run.log.law.count

    def note(self, last_at: float, has_spoken: bool, batch: Sequence[AgentEvent]) -> float:
        """Count a hosted run's chunks; gives when the last one came.

        Args:
          last_at: When its last chunk came, or the run began.
          has_spoken: Whether there was a chunk before.
          batch: Its next events.

        """
        times = [event.timestamp for event in batch if event.type is _CHUNK]
        if not times:
            return last_at
        # By itself, as it is the long one: what comes together was said at once.
        (self.gaps if has_spoken else self.first_token).add(times[0] - last_at)
        self.gaps.add_gaps(times)
        return times[-1]
