"""Schedules: who goes next, decided beforehand by a list of numbers.

In each step Trio takes all tasks that can run, and runs them in an order that it promises nothing
about. Here that order is drawn up front. Each number decides one place of one such batch: 0 takes
the task that was spawned first of those that are left, 1 the one after it, and so on, and beyond
the last the first again; a list that is used up goes on with zeros. So the empty list is spawn
order, and what a property test shrinks a list to are the few choices that matter.

Trio keeps its scheduler's random numbers and the switch for a fixed order under private names, and
those are replaced here. `check_scheduler` makes sure, once in a process, that they still do what
they did, and fails loudly if not.
"""

from __future__ import annotations

import functools
import math
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import attrs
import trio
from trio.lowlevel import Task

from ._code import AsCode

_SEEDED_CHOICES = 400
"""Choices of a schedule that is made from a seed: more than most runs take."""

WIDTH = 2520
"""Choices are drawn from so many numbers. Every number of tasks up to ten divides it, so that any
of them may go first, and each as often."""


def virtual_clock() -> trio.abc.Clock:
    """Time that jumps to the next deadline as soon as nobody can go on."""
    # Imported here: it brings pytest along, where that is installed.
    from trio.testing import MockClock

    return MockClock(autojump_threshold=0)


def _as_choices(given: Iterable[int]) -> tuple[int, ...]:
    choices = tuple(given)
    for choice in choices:
        if not isinstance(choice, int) or choice < 0:
            raise ValueError(f"a schedule's choice {choice!r}: expected a whole number from 0")
    return choices


@attrs.frozen(repr=False)
class Schedule(AsCode):
    """Who goes next where several tasks could: 0 is the one spawned first. Empty: spawn order."""

    choices: tuple[int, ...] = attrs.field(default=(), converter=_as_choices)
    """One number for each choice of the scheduler, modulo the tasks that it chooses from."""

    @classmethod
    def from_seed(cls, seed: int) -> Self:
        """Make one up: the same for the same *seed*.

        Every second seed leaves spawn order in a few places only, the others everywhere: some
        races need one task to be late, others need many.
        """
        source = random.Random(seed)
        share = 1.0 if seed % 2 else 0.1
        return cls(
            source.randrange(WIDTH) if source.random() < share else 0
            for _ in range(_SEEDED_CHOICES)
        )


@attrs.frozen
class Deviation:
    """A choice that was not spawn order."""

    choice: int
    """Its place in the schedule."""
    ran: str
    """The task that went first: its name, and the id of the tool call that it ran then, or next, or
    last; or a number, where several of the same name ran none."""
    before: tuple[str, ...]
    """The tasks that were spawned earlier and had to wait for it."""

    def __str__(self) -> str:
        return f"choice {self.choice}: {self.ran} ran before {', '.join(self.before)}"


@attrs.define
class _Call:
    """A tool call that a task ran."""

    id: str
    over_at: float = math.inf
    """Choices that had been taken when it was over."""


class Chooser:
    """Stands where Trio's scheduler has its random numbers, and keeps what it chose."""

    def __init__(self, choices: Sequence[int], usual: random.Random) -> None:
        self._choices = choices
        self._usual = usual
        self._thread = threading.get_ident()
        self.taken: list[int] = []
        self._deviations: list[tuple[int, Task, list[Task]]] = []
        self._calls: dict[Task, list[_Call]] = {}

    def shuffle(self, batch: list[Task]) -> None:
        """Put a batch into the order in which it is taken, from its end; it is in spawn order."""
        if threading.get_ident() != self._thread:
            # Another Trio loop of the process.
            self._usual.shuffle(batch)
        elif len(batch) > 1 and len(self.taken) < len(self._choices):
            batch[:] = self._order(batch)
        else:
            batch.reverse()

    def _order(self, left: list[Task]) -> list[Task]:
        order = []
        while len(left) > 1:
            at = len(self.taken)
            place = self._choices[at] % len(left) if at < len(self._choices) else 0
            self.taken.append(place)
            if place:
                self._deviations.append((at, left[place], left[:place]))
            order.append(left.pop(place))
        return [*left, *reversed(order)]

    def random(self) -> float:
        """See `random.random`; for the scheduler of other threads' loops."""
        return self._usual.random()

    def uniform(self, low: float, high: float) -> float:
        """See `random.uniform`; Trio's own clock asks for it."""
        return self._usual.uniform(low, high)

    @contextmanager
    def calling(self, call_id: str) -> Iterator[None]:
        """Know the current task as that of a tool call, in the block."""
        call = _Call(call_id)
        self._calls.setdefault(trio.lowlevel.current_task(), []).append(call)
        try:
            yield
        finally:
            call.over_at = len(self.taken)

    @property
    def deviations(self) -> list[Deviation]:
        """The choices that were not spawn order."""
        numbers = self._number_namesakes()

        def shown(task: Task, at: int) -> str:
            calls = self._calls.get(task, [])
            call = next((call for call in calls if call.over_at > at), calls[-1] if calls else None)
            more = numbers.get(task, "") if call is None else f"({call.id})"
            return task.name if more in task.name else f"{task.name} {more}"

        return [
            Deviation(at, shown(ran, at), tuple(shown(task, at) for task in late))
            for at, ran, late in self._deviations
        ]

    def _number_namesakes(self) -> dict[Task, str]:
        """Tell apart those tasks whose names are the same, by the order in which they were met."""
        named: dict[str, dict[Task, None]] = {}
        for _, ran, late in self._deviations:
            for task in (*late, ran):
                named.setdefault(task.name, {})[task] = None
        return {
            task: f"#{number}"
            for tasks in named.values()
            if len(tasks) > 1
            for number, task in enumerate(tasks, start=1)
        }

    @property
    def played(self) -> Schedule:
        """The schedule as it was used: without what made no difference."""
        last = self._deviations[-1][0] + 1 if self._deviations else 0
        return Schedule(self.taken[:last])


@contextmanager
def exploring(schedule: Schedule) -> Iterator[Chooser]:
    """Have Trio loops of this thread follow *schedule* inside the block."""
    core = trio._core._run
    usual, switch = core._r, core._ALLOW_DETERMINISTIC_SCHEDULING
    chooser = Chooser(schedule.choices, usual)
    names: Any = vars(core)
    names.update(_r=chooser, _ALLOW_DETERMINISTIC_SCHEDULING=True)
    try:
        yield chooser
    finally:
        names.update(_r=usual, _ALLOW_DETERMINISTIC_SCHEDULING=switch)


@functools.cache
def check_scheduler() -> None:
    """Make sure that the schedule really decides who goes next.

    Raises:
      RuntimeError: it does not: this release of Trio keeps its scheduler in another way.

    """
    for choices, expected in (((), "abc"), ((1,), "bac"), ((2, 1), "cba"), ((0, 1), "acb")):
        try:
            # One choice comes before: between two tasks of Trio's own.
            found = _order_of_three((0, *choices))
        except Exception as exc:
            found = type(exc).__name__
        if found != expected:
            raise RuntimeError(
                f"can't explore schedules with trio {trio.__version__}: schedule {list(choices)} "
                f"gave {found!r}, expected {expected!r}. Its scheduler has changed; please report"
            )


def _order_of_three(choices: tuple[int, ...]) -> str:
    order: list[str] = []

    async def note(name: str) -> None:
        order.append(name)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(note, name)

    with exploring(Schedule(choices)):
        trio.run(main, clock=virtual_clock())
    return "".join(order)
