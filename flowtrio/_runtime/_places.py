"""Places: so many at once, first come, first served.

A call may need two: one of its agent's, and one of its tool's where that has a limit of its own. It
takes both in one step or neither, so that a call which waits for its tool keeps no place of the
agent's from calls of other tools, and none that waits for the agent keeps one of the tool's.

Like `trio.CapacityLimiter`, without keeping who holds which place and without a schedule point
where one is free: for a tool that answers at once those two cost a tenth of the whole call.
"""

from __future__ import annotations

import trio
from trio.lowlevel import Abort, Task, current_task, wait_task_rescheduled


class Places:
    """A limit on what runs at once."""

    __slots__ = ("_free", "_waiting")

    def __init__(self, count: float) -> None:
        self._free = count
        self._waiting: dict[_Ticket, None] = {}

    def _first(self) -> _Ticket | None:
        """The first in line that could go on now."""
        return next((ticket for ticket in self._waiting if are_free(ticket.places)), None)


class _Ticket:
    """One who waits for a place of each of several."""

    __slots__ = ("places", "task")

    def __init__(self, places: tuple[Places, ...], task: Task) -> None:
        self.places = places
        self.task = task
        for place in places:
            place._waiting[self] = None

    def leave_line(self) -> None:
        for place in self.places:
            del place._waiting[self]


def are_free(places: tuple[Places, ...]) -> bool:
    """Whether each of *places* has a free one; whoever waits there waits for something else too."""
    return all(place._free > 0 for place in places)


def take_nowait(places: tuple[Places, ...]) -> None:
    """Take one of each; they have to be free."""
    for place in places:
        place._free -= 1


async def take(places: tuple[Places, ...]) -> None:
    """Take one of each, waiting in line until all are free at once."""
    if are_free(places):
        take_nowait(places)
        return
    ticket = _Ticket(places, current_task())

    def abort(_: object) -> Abort:
        ticket.leave_line()
        return Abort.SUCCEEDED

    # Who is woken has been given the places, also if it is cancelled before it runs.
    await wait_task_rescheduled(abort)


def give_back(places: tuple[Places, ...]) -> None:
    """Give one of each to the next in line, or back."""
    for place in places:
        place._free += 1
    for place in places:
        if place._waiting and (ticket := place._first()) is not None:
            ticket.leave_line()
            take_nowait(ticket.places)
            trio.lowlevel.reschedule(ticket.task)
