"""A run's tail, told of things in every order."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import trio
import trio.testing

from flowtrio import AgentEvent
from flowtrio.stores.redis._tails import Tail
from flowtrio.testing._stored import done_event, events_of
from flowtrio.wire._json import encode_json


def told(start: int, stop: int) -> bytes:
    """What is told of an append."""
    return b"%d %b" % (start - 1, encode_json(events_of(start, stop)))


def held(tail: Tail) -> list[AgentEvent]:
    return tail.events


async def test_it_holds_what_it_was_told_of() -> None:
    tail = Tail()
    for start in range(0, 9, 3):
        tail.take(told(start, start + 3))

    assert held(tail) == events_of(0, 9)
    assert tail.read(-1, 100) == events_of(0, 9)
    assert tail.read(4, 2) == events_of(5, 7)
    assert tail.read(8, 5) is None
    assert tail.read(99, 5) is None
    assert (tail.last, tail.has_ended, tail.is_gone) == (8, False, False)


@pytest.mark.parametrize("order", list(permutations(range(4))))
async def test_an_answer_that_comes_late_takes_nothing_back(order: tuple[int, ...]) -> None:
    """Three batches are told while the store is asked, and its answer knows any number of them."""
    for answered in (-1, 1, 3, 5):
        tail = Tail()
        known = tail.last
        batches = iter([told(0, 2), told(2, 4), told(4, 6)])
        for step in order:
            if step == 3:
                before = tail.last
                tail.note(known, answered, False)
                assert tail.last >= before
            else:
                tail.take(next(batches))

        assert tail.last == 5
        assert held(tail)[-1:] in ([], events_of(5, 6))
        assert held(tail) == events_of(6 - len(held(tail)), 6)


async def test_what_is_told_twice_or_in_part_is_held_once() -> None:
    tail = Tail()
    for batch in (told(0, 2), told(0, 2), told(1, 4), told(3, 4), told(0, 5)):
        tail.take(batch)

    assert held(tail) == events_of(0, 5)


async def test_what_was_missed_is_not_filled_in() -> None:
    tail = Tail()
    tail.take(told(0, 2))
    tail.take(told(4, 6))

    assert held(tail) == events_of(4, 6)
    assert tail.read(1, 9) is None
    assert tail.read(3, 9) == events_of(4, 6)


async def test_a_store_that_lost_something_is_believed() -> None:
    tail = Tail()
    tail.take(told(0, 6))
    tail.note(5, 2, False)

    assert (tail.last, held(tail)) == (2, [])
    tail.take(told(3, 7))
    assert (tail.last, held(tail)) == (6, events_of(3, 7))


async def test_an_answer_that_knows_more_than_was_told_is_believed() -> None:
    tail = Tail()
    tail.take(told(0, 3))
    tail.note(2, 9, True)

    assert (tail.last, tail.has_ended, held(tail)) == (9, True, [])


async def test_the_end_is_seen(autojump_clock: Any) -> None:
    tail = Tail()
    with trio.move_on_after(5) as waiting:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tail.news.park)
            await trio.testing.wait_all_tasks_blocked()
            tail.take(b"-1 " + encode_json([done_event(0)]))

    assert not waiting.cancelled_caught
    assert tail.has_ended


async def test_a_run_that_was_deleted_is_read_nowhere() -> None:
    tail = Tail()
    tail.take(told(0, 6))
    tail.take(b"gone")

    assert tail.is_gone
    assert tail.read(2, 5) is None


async def test_it_is_bounded() -> None:
    tail = Tail()
    for start in range(0, 6000, 100):
        tail.take(told(start, start + 100))

    assert 1024 <= len(held(tail)) <= 2048
    assert held(tail)[-1].seq == 5999
    assert tail.read(10, 5) is None
