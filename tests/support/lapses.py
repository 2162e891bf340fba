"""How long runs have nobody: from their owner's end to their own.

A run's owner is gone some time before its lease is, at most the lease's time. So who looks on from
outside, again and again, knows at the latest then that a run waits for its end; and it has to come
within two leases of the owner's, or of the moment from which there were both a store and a process
that could give it. What nobody can do is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

MOST_LEASES = 2
"""Leases in which a run whose owner is gone has its end."""


@attrs.define(eq=False)
class Lapses:
    """What one who looks on has seen."""

    lease: float
    """Seconds."""
    longest: float = 0.0
    """The longest time that any run had nobody, though it could have its end; seconds."""
    late: dict[str, float] = attrs.field(factory=dict)
    """Runs that had nobody for too long, and for how long."""
    count: int = 0
    """Runs that had nobody."""
    _since: dict[str, float] = attrs.field(factory=dict)
    """Runs whose owner has no lease now, and when that was seen first."""
    _attended_since: float = math.inf

    def look(self, now: float, lapsed: Iterable[str] | None) -> None:
        """Note what there is.

        Args:
          now: Seconds.
          lapsed: Runs without an end whose owner has no lease; None where there is no store to
            tell, or no process that could end them.

        """
        if lapsed is None:
            self._attended_since = math.inf
            return
        self._attended_since = min(self._attended_since, now)
        runs = set(lapsed)
        self._since = {run: since for run, since in self._since.items() if run in runs}
        for run in runs - self._since.keys():
            self._since[run] = now
            self.count += 1
        for run, since in self._since.items():
            # The owner has gone a lease ago at most; that is the worst for whoever is judged.
            waits = now - max(since - self.lease, self._attended_since)
            self.longest = max(self.longest, waits)
            if waits > MOST_LEASES * self.lease:
                self.late[run] = waits

    def told(self) -> list[str]:
        """What does not hold, as sentences."""
        return [
            f"{run} had nobody for {seconds:.1f} s (lease {self.lease:g} s)"
            for run, seconds in self.late.items()
        ]
