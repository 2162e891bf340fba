"""The watch on a model's reply: no wait for it is longer than its client's limits say.

The limits cost nothing for each chunk: the watch knows since when the model is waited for, and one
alarm of the run's host looks at that now and then. There are two clocks: bytes of any kind show
that the host is alive, and only what is said shows that the model is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

from flowtrio._core._limits import ModelLimits

if TYPE_CHECKING:
    from flowtrio._core._exceptions import DeadlineExceeded
    from flowtrio._run._clock import Alarm, RunClock


class Watch:
    """The watch on one reply."""

    __slots__ = (
        "_alarm",
        "_clock",
        "_limits",
        "_pinged_at",
        "has_begun",
        "is_waiting",
        "iterator",
        "scope",
        "stalled",
        "waits_since",
    )

    def __init__(self, clock: RunClock) -> None:
        self._clock = clock
        self._limits = ModelLimits()
        self._pinged_at = -math.inf
        self._alarm: Alarm | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        """Cancelled when a limit has passed."""
        self.is_waiting: bool = True
        """Whether the model is being waited for, and nobody else."""
        self.waits_since: float = 0.0
        self.has_begun: bool = False
        """Whether anything was said since the model was asked."""
        self.iterator: Any = None
        """What the client gave."""
        self.stalled: DeadlineExceeded | None = None
        """Which limit has passed, as an exception."""

    def start(self, client: object) -> float:
        """Begin, when the model is asked; gives the time."""
        limits = getattr(client, "limits", None)
        if isinstance(limits, ModelLimits):
            self._limits = limits
        self.waits_since = now = trio.current_time()
        self._watch()
        return now

    def take_over(self, iterator: object) -> None:
        """Watch what the client gave, in its place.

        A scope around each of the client's reads would cost more than all the rest.
        """
        self.iterator = iterator
        if isinstance(getattr(iterator, "limits", None), ModelLimits):
            setattr(iterator, "limits", None)  # noqa: B010 - not in the interface

    def begin(self) -> None:
        """The model has said the first thing: other limits hold from now on."""
        self.has_begun = True
        self._watch()

    def stop(self) -> None:
        """The reply has ended."""
        assert self._alarm is not None
        self._clock.forget(self._alarm)
        # It leads back here: see `Host.host` on what waits for the garbage collector.
        self._alarm = None

    def heard(self, *, says_anything: bool) -> None:
        """Note a chunk of which nothing was told: an empty one is a ping, as far as we know."""
        now = trio.current_time()
        if says_anything:
            self.waits_since = now
        else:
            self._pinged_at = now

    def _watch(self) -> None:
        if self._alarm is not None:
            self._clock.forget(self._alarm)
        self._alarm = self._clock.call_at(self._due(self.waits_since)[1], self._look)

    def _due(self, since: float) -> tuple[str, float]:
        """Which limit strikes first, and when, of a model that was last heard of at *since*."""
        if not self.has_begun:
            return "first_token", since + self._limits.first_token
        return self._limits.due(since, self._last_ping())

    def _last_ping(self) -> float:
        """When its host last sent something that said nothing; only our clients can tell."""
        told = getattr(self.iterator, "heard_at", None)
        return max(self._pinged_at, told) if isinstance(told, float) else self._pinged_at

    def _look(self) -> None:
        now = trio.current_time()
        limit, due = self._due(self.waits_since if self.is_waiting else now)
        if now >= due:
            pings = limit != "gap" and self._last_ping() > self.waits_since
            self.stalled = self._limits.stalled(limit, pings=pings)
            self.scope.cancel(reason=f"model limit {limit}")
        else:
            self._alarm = self._clock.call_at(due, self._look)
