"""What operators want to know of all runs together: counts, and how long tokens take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

from flowtrio._core._events import AgentEvent, EventType

from ._histogram import Histogram
from ._labels import Labelled

if TYPE_CHECKING:
    from flowtrio._run._run import Run

_CHUNK: Final = EventType.MESSAGE_CHUNK


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
    healed: int = attrs.field(default=0, init=False)
    """How often a log of which the store had lost something was put right."""
    fenced: int = attrs.field(default=0, init=False)
    """Runs that ended here because another process had, or might have, taken their place."""
    reaped: int = attrs.field(default=0, init=False)
    """Runs of processes that are gone, to which an end was given here."""
    first_token: Histogram = attrs.field(factory=Histogram, init=False)
    """From a hosted run's start to its first chunk."""
    gaps: Histogram = attrs.field(factory=Histogram, init=False)
    """Between two chunks of a hosted run."""

    labelled: Labelled = attrs.field(factory=Labelled, init=False)
    """What hosted runs did, by model, tool and code."""

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
        """Count what a hosted run tells; gives when its last chunk came.

        Args:
          last_at: When its last chunk came, or the run began.
          has_spoken: Whether there was a chunk before.
          batch: Its next events.

        """
        times = [event.timestamp for event in batch if event.type is _CHUNK]
        if len(times) < len(batch):
            for event in batch:
                if event.type is not _CHUNK:
                    self.labelled.note(event)
        if not times:
            return last_at
        # By itself, as it is the long one: what comes together was said at once.
        (self.gaps if has_spoken else self.first_token).add(times[0] - last_at)
        self.gaps.add_gaps(times)
        return times[-1]
