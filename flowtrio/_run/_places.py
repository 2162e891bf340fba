"""Places: so many at once, first come, first served.

A call may need two: one of its agent's, and one of its tool's where that has a limit of its own. It
takes both in one step or neither, so that a call which waits for its tool keeps no place of the
agent's from calls of other tools, and none that waits for the agent keeps one of the tool's.

Like `trio.CapacityLimiter`, without keeping who holds which place and without a schedule point
where one is free: for a tool that answers at once those two cost a tenth of the whole call.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio.lowlevel import Abort, Task, current_task, wait_task_rescheduled


class Places:
    """A limit on what runs at once."""

    __slots__ = ("_free", "_waiting")

    def __init__(self, count: float) -> None:
        self._free = count
        self._waiting: dict[Ticket, None] = {}

    def _first(self) -> Ticket | None:
        """The first in line that could go on now."""
        return next((ticket for ticket in self._waiting if _are_free(ticket.places)), None)


class Ticket:
    """One who wants a place of each of several; in line from its making on."""

    __slots__ = ("_task", "has_places", "on_grant", "places")

    def __init__(self, places: tuple[Places, ...]) -> None:
        self.places = places
        self.on_grant: Callable[[], object] | None = None
        """Called in the step in which places come free."""
        self._task: Task | None = None
        self.has_places: bool = _are_free(places)
        """Whether it is not in line any more."""
        if self.has_places:
            self._take()
        else:
            for place in places:
                place._waiting[self] = None

    async def wait(self) -> None:
        """Wait until it has the places; `give_back` is to follow, also if this is cancelled."""
        if not self.has_places:
            self._task = current_task()
            await wait_task_rescheduled(self._abort)

    def give_back(self) -> None:
        """Give them to the next in line, or back; or leave the line."""
        if not self.has_places:
            self._leave_line()
            self.on_grant = None
            return
        for place in self.places:
            place._free += 1
        for place in self.places:
            if place._waiting and (ticket := place._first()) is not None:
                ticket._grant()

    def _grant(self) -> None:
        self._leave_line()
        self._take()
        self.has_places = True
        on_grant, self.on_grant = self.on_grant, None
        if on_grant is not None:
            on_grant()
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def _take(self) -> None:
        for place in self.places:
            place._free -= 1

    def _leave_line(self) -> None:
        for place in self.places:
            del place._waiting[self]

    def _abort(self, _: object) -> Abort:
        self._task = None
        return Abort.SUCCEEDED


def _are_free(places: tuple[Places, ...]) -> bool:
    """Whether each of *places* has a free one; whoever waits there waits for something else too."""
    for place in places:  # noqa: SIM110 - a generator costs as much as all the rest of a ticket
        if place._free <= 0:
            return False
    return True
