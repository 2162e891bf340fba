"""Visits: tasks outside a run that do something in it, by a context that was handed to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import attrs
import trio


@attrs.frozen(eq=False)
class Visit:
    """One task's, for as long as a block."""

    task: trio.lowlevel.Task
    outside: frozenset[trio.Nursery]
    """The nurseries that the task had opened before: nothing in the run waits for them."""

    def includes(self, task: trio.lowlevel.Task) -> bool:
        """Whether *task* is the visitor, or one that it started since."""
        since = set(self.task.child_nurseries) - self.outside
        return task is self.task or any(is_below(task, nursery) for nursery in since)


class Visited(Protocol):
    """A run, as far as it is visited."""

    visits: tuple[Visit, ...]

    @property
    def outer(self) -> Visited | None:
        """The one whose end waits for this one's: so it waits for its visitors too."""


@contextmanager
def visiting(run: Visited, task: trio.lowlevel.Task) -> Iterator[None]:
    """Have *task* visit *run*, and all that it is inside of, for the block."""
    visit = Visit(task, frozenset(task.child_nurseries))
    runs = [*_outwards(run)]
    for visited in runs:
        visited.visits += (visit,)
    try:
        yield
    finally:
        for visited in runs:
            visited.visits = tuple(other for other in visited.visits if other is not visit)


def _outwards(run: Visited | None) -> Iterator[Visited]:
    while run is not None:
        yield run
        run = run.outer


def is_below(task: trio.lowlevel.Task, nursery: trio.Nursery | None) -> bool:
    """Whether *task* is in *nursery*, or below one that is."""
    above = task.parent_nursery
    while above is not None and above is not nursery:
        above = above.parent_task.parent_nursery
    return above is not None
