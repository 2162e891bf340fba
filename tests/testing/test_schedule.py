"""Schedules decide who goes next, and a Trio that would not listen to them is noticed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from itertools import permutations

import pytest
import trio
from hypothesis import Phase, given, settings

from flowtrio.testing import Schedule, schedules
from flowtrio.testing import _schedule as module
from flowtrio.testing._schedule import Chooser, _order_of_three, check_scheduler, exploring


def test_the_empty_schedule_is_spawn_order_and_each_other_order_has_one() -> None:
    found = {_order_of_three((0, first, second)) for first in range(3) for second in range(2)}

    assert _order_of_three(()) == "abc"
    assert found == {"".join(order) for order in permutations("abc")}


@pytest.mark.parametrize("choices", [(-1,), (0, 1.5), ("1",)])
def test_what_is_no_choice_is_refused(choices: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="expected a whole number from 0"):
        Schedule(choices)  # type: ignore[arg-type]


def test_a_seed_gives_the_same_schedule_always_and_seeds_differ() -> None:
    assert Schedule.from_seed(7) == Schedule.from_seed(7)
    assert len({Schedule.from_seed(seed) for seed in range(100)}) == 100


@pytest.mark.parametrize("tasks", [2, 6, 13])
def test_whoever_could_go_first_does_under_some_seed_and_all_alike(tasks: int) -> None:
    seeds = range(1, 1001, 2)
    first = Counter(_order(Schedule.from_seed(seed), tasks)[0] for seed in seeds)

    assert set(first) == set(range(tasks))
    assert all(0.4 < count * tasks / len(seeds) < 1.8 for count in first.values())


def test_whoever_could_go_first_does_under_some_schedule_that_is_drawn() -> None:
    first: set[int] = set()

    @settings(max_examples=300, phases=[Phase.generate], derandomize=True, database=None)
    @given(schedules())
    def draw(schedule: Schedule) -> None:
        first.add(_order(schedule, 6)[0])

    draw()
    assert first == set(range(6))


def _order(schedule: Schedule, tasks: int) -> list[int]:
    """The order in which so many tasks go that become ready at once."""
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(note, number)

    with exploring(schedule):
        trio.run(main)
    return order


def test_what_was_played_is_told_without_what_made_no_difference() -> None:
    names: list[str] = []

    async def note(name: str) -> None:
        names.append(name)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(note, name, name=name)

    with exploring(Schedule((0, 5, 0, 0, 0, 7))) as chooser:
        trio.run(main)

    assert names == ["c", "a", "b"]
    assert chooser.played == Schedule((0, 2))
    assert [str(deviation) for deviation in chooser.deviations] == ["choice 1: c ran before a, b"]


def test_tasks_of_one_name_are_told_apart_by_their_calls_or_by_a_number() -> None:
    async def work(chooser: Chooser, call_ids: tuple[str, ...]) -> None:
        for call_id in call_ids:
            with chooser.calling(call_id):
                await trio.sleep(0)

    async def main(chooser: Chooser) -> None:
        async with trio.open_nursery() as nursery:
            for call_ids in (("c1", "c3"), ("c2",), (), ()):
                nursery.start_soon(work, chooser, call_ids, name="work")
            nursery.start_soon(work, chooser, ("c4",), name="tool a (c4)")

    # The last of all goes first, then all in turn; then the second of those two that have calls.
    with exploring(Schedule((0, 4, 3, 2, 1, 0, 1))) as chooser:
        trio.run(main, chooser)

    assert [str(deviation) for deviation in chooser.deviations] == [
        "choice 1: tool a (c4) ran before work (c1), work (c2), work #3, work #4",
        "choice 2: work #4 ran before work (c1), work (c2), work #3",
        "choice 3: work #3 ran before work (c1), work (c2)",
        "choice 4: work (c2) ran before work (c1)",
        "choice 6: tool a (c4) ran before work (c2)",
    ]


def test_the_loops_of_other_threads_keep_their_own_order() -> None:
    usual = random.Random(1)
    chooser = Chooser([1, 1, 1], usual)
    batch = list(range(9))

    thread = threading.Thread(target=chooser.shuffle, args=(batch,))
    thread.start()
    thread.join()

    assert (sorted(batch), chooser.taken) == (list(range(9)), [])
    assert 0 <= chooser.random() < 1
    assert 3 <= chooser.uniform(3, 4) <= 4


def test_outside_the_block_trio_is_as_it_was() -> None:
    core = trio._core._run
    before = (core._r, core._ALLOW_DETERMINISTIC_SCHEDULING)
    with pytest.raises(ZeroDivisionError), exploring(Schedule()):
        raise ZeroDivisionError

    assert (core._r, core._ALLOW_DETERMINISTIC_SCHEDULING) == before


# A Trio that keeps its scheduler elsewhere


def test_this_trio_can_be_explored() -> None:
    check_scheduler.__wrapped__()


@pytest.mark.parametrize("name", ["_r", "_ALLOW_DETERMINISTIC_SCHEDULING"])
def test_a_trio_without_the_private_names_is_noticed_loudly(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delattr(trio._core._run, name)
    with pytest.raises(RuntimeError, match=r"can't explore schedules with trio .*AttributeError"):
        check_scheduler.__wrapped__()


def test_a_trio_that_does_not_ask_is_noticed_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Chooser, "shuffle", lambda self, batch: batch.reverse())
    with pytest.raises(RuntimeError, match=r"schedule \[1\] gave 'abc', expected 'bac'"):
        check_scheduler.__wrapped__()
