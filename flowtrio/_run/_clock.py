"""A run's clock: its alarms, its deadline, and where its host waits for them.

The host waits in `wait_task_rescheduled`, so whoever has news for it wakes it here: who sets an
alarm, who begins the run's end, and the last of its tasks.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from trio.lowlevel import Abort, Task, current_task, wait_task_rescheduled


class Alarm:
    """A synchronous function to be called by the run's host at a point of Trio's clock."""

    __slots__ = ("ring", "when")

    def __init__(self, when: float, ring: Callable[[], None]) -> None:
        self.when: float = when
        self.ring: Callable[[], None] = ring


class RunClock:
    """The alarms and the deadline of one run."""

    __slots__ = ("_alarm_scope", "_alarms", "_deadline", "_host", "_time_left", "_waiting_people")

    def __init__(self, seconds: float) -> None:
        self._time_left = seconds
        self._deadline: trio.CancelScope | None = None
        self._waiting_people = 0
        self._alarms: dict[Alarm, None] | None = None
        self._alarm_scope: trio.CancelScope | None = None
        self._host: Task | None = None

    # Alarms

    def call_at(self, when: float, ring: Callable[[], None]) -> Alarm:
        """Have *ring* called by the host at *when*, unless the run is closing by then."""
        alarm = Alarm(when, ring)
        self.set_alarm(alarm)
        return alarm

    def set_alarm(self, alarm: Alarm) -> None:
        """Have *alarm* rung when it is due; see `call_at`."""
        if self._alarms is None:
            # Made when it is first needed: most runs that idle have none.
            self._alarms = {}
        self._alarms[alarm] = None
        if self._alarm_scope is None:
            if self._host is not None:
                self.wake_host()
        elif alarm.when < self._alarm_scope.deadline:
            self._alarm_scope.deadline = alarm.when

    def forget(self, alarm: Alarm) -> None:
        """Do not ring *alarm* any more."""
        assert self._alarms is not None
        self._alarms.pop(alarm, None)

    # The deadline

    def start(self, deadline: trio.CancelScope) -> None:
        """Count the run's time from now on: *deadline* is cancelled when it is over."""
        self._deadline = deadline
        deadline.deadline = trio.current_time() + self._time_left

    def pause(self) -> None:
        """Stop counting: a person is being waited for."""
        self._waiting_people += 1
        if self._waiting_people == 1 and self._deadline is not None:
            self._time_left = self._deadline.deadline - trio.current_time()
            self._deadline.deadline = math.inf

    def resume(self) -> None:
        """Go on counting, once nobody is waited for."""
        self._waiting_people -= 1
        if not self._waiting_people:
            assert self._deadline is not None
            self.start(self._deadline)

    # The host's waiting

    @property
    def has_alarms(self) -> bool:
        """Whether `wait_for_alarm` is to be waited in."""
        return bool(self._alarms)

    @property
    def is_due(self) -> bool:
        """Whether the host is being cancelled by an alarm, and by nobody else."""
        return self._alarm_scope is not None and self._alarm_scope.cancel_called

    async def wait_for_alarm(self, abort: Callable[[Any], Abort]) -> None:
        """Wait until the host is woken, or an alarm is due; then ring those that are."""
        # An alarm is rare in a run that idles, so the scope for it is made only here.
        assert self._alarms
        when = min(alarm.when for alarm in self._alarms)
        with trio.CancelScope(deadline=when) as self._alarm_scope:
            await self.sleep(abort)
        self._alarm_scope = None
        self._ring(trio.current_time())

    def sleep(self, abort: Callable[[Any], Abort]) -> Awaitable[Any]:
        """Wait until the host is woken: to be awaited at once."""
        self._host = current_task()
        return wait_task_rescheduled(abort)  # noqa: ASYNC105 - the caller awaits it

    def leave(self) -> Task:
        """The host's wait is aborted; gives the host."""
        assert self._host is not None
        host, self._host = self._host, None
        return host

    def wake_host(self) -> None:
        """Have the host look what there is."""
        if self._host is not None:
            host, self._host = self._host, None
            trio.lowlevel.reschedule(host)

    def _ring(self, now: float) -> None:
        for alarm in list(self._alarms or ()):
            if alarm.when <= now:
                self.forget(alarm)
                alarm.ring()
