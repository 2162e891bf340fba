"""The laws as properties: whatever models, tools, faults and readers do, every log is lawful.

Worlds come from seeds, where they are counted, and from Hypothesis, where they are shrunk. Beside
each law stand bugs that break it: in the runtime (`tests.proof.bugs`), and in the log of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, example, find, given, settings
from hypothesis import strategies as st

from flowtrio import AgentEvent, EventType, Limits, ToolCall
from flowtrio.testing import CUT, Reader, find_violations
from tests.proof.bugs import BUGS, Bug
from tests.proof.judge import problems_of
from tests.proof.worlds import World, draw_plain_world, draw_world, play

T = EventType

SEEDS_HERE = 1000
"""A sample: ``nox -s proof`` plays ten times as many, without the burden of measuring coverage."""
CHUNK = 100
SEEDS_TO_CATCH = 2000
"""Within which each planted bug has to be noticed."""

WORLDS = st.randoms(use_true_random=False).map(draw_world)
PLAIN_WORLDS = st.randoms(use_true_random=False).map(draw_plain_world)
"""For shrinking, which ends early where one draw means two things, as what people do does."""

SILENT_HELPER = World(
    turns=((ToolCall("p0", "c", {"n": 1}),),),
    tools={"c": ("delegates", 0.0)},
    reader=Reader(cancels_tool=1, pause=0.3),
    limits=Limits(buffer=1),
)
"""Ends a nested agent whose message was begun and has no chunk yet: found by Hypothesis."""


@pytest.mark.parametrize("first", range(0, SEEDS_HERE, CHUNK))
def test_worlds_from_seeds_obey_every_law(first: int) -> None:
    broken = {
        seed: problems
        for seed in range(first, first + CHUNK)
        if (problems := problems_of(draw_world(Random(seed))))
    }

    assert broken == {}


@settings(max_examples=200)
@example(SILENT_HELPER)
@given(WORLDS)
def test_worlds_from_hypothesis_obey_every_law(world: World) -> None:
    assert problems_of(world) == []


def test_the_worlds_are_not_all_alike() -> None:
    worlds = [draw_world(Random(seed)) for seed in range(300)]
    ends = [play(world)[0] for world in worlds]
    types = {event.type for run in ends for event in run.events}

    assert {run.status for run in ends} == {"completed", "error", "cancelled"}
    assert types >= set(T) - {T.MESSAGE_PART}
    assert {world.reader.is_bare for world in worlds} == {False, True}


# Planted bugs in the runtime


def test_every_law_has_a_bug_that_breaks_it() -> None:
    assert {bug.law for bug in BUGS} == {f"L{number}" for number in range(1, 12)}
    assert len(BUGS) >= 12


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_bug_in_the_runtime_is_caught(bug: Bug) -> None:
    with bug.planted():
        caught = next(
            (s for s in range(SEEDS_TO_CATCH) if problems_of(draw_world(Random(s)))), None
        )

    assert caught is not None
    # And it was the bug: without it the same world is lawful.
    assert problems_of(draw_world(Random(caught))) == []


SHRUNK = {
    "gives_half_of_the_text": World(reader=Reader(breaks=3)),
    "takes_a_cut_for_the_end": World(turns=((CUT,),)),
    "gives_no_result_to_what_was_cancelled": World(
        turns=((ToolCall("p0", "a", {"n": 1}),),), reader=Reader(cancels_tool=1)
    ),
}
"""Counter-examples as Hypothesis leaves them; `docs/proof.md` shows them."""


@pytest.mark.parametrize("bug", [bug for bug in BUGS if str(bug) in SHRUNK], ids=str)
def test_what_catches_a_bug_shrinks_to_a_small_world(bug: Bug) -> None:
    with bug.planted():
        world = find(
            PLAIN_WORLDS,
            lambda world: bool(problems_of(world)),
            settings=settings(max_examples=2000, phases=[Phase.generate, Phase.shrink]),
        )

    expected = SHRUNK[str(bug)]
    assert (world.turns, world.faults, world.schedule.choices) == (expected.turns, (), ())
    assert world.reader == expected.reader


# Planted bugs in the log of a real run, as a broken runtime would leave it


def _reference() -> list[AgentEvent]:
    calls = [ToolCall("p_a", "a", {"n": 1}), ToolCall("p_b", "b", {"n": 1})]
    world = World(
        turns=(("one ", "two", *calls), ("fine",)),
        tools={"a": ("progresses", 0.1), "b": ("delegates", 0.1)},
    )
    return play(world)[0].events


def _renumbered(log: list[AgentEvent]) -> list[dict[str, Any]]:
    return [{**msgspec.structs.asdict(event), "seq": place} for place, event in enumerate(log)]


def _without(type: EventType) -> Callable[[list[AgentEvent]], list[AgentEvent]]:
    def plant(log: list[AgentEvent]) -> list[AgentEvent]:
        victim = next(event for event in log if event.type is type)
        return [event for event in log if event is not victim]

    return plant


def _last_first(log: list[AgentEvent]) -> list[AgentEvent]:
    return [*log[:-2], log[-1], log[-2]]


def _done_twice(log: list[AgentEvent]) -> list[AgentEvent]:
    return [*log, log[-1]]


def _result_before_call(log: list[AgentEvent]) -> list[AgentEvent]:
    start = next(i for i, event in enumerate(log) if event.type is T.TOOL_CALL_START)
    id = log[start].data["call_id"]
    end = next(
        i
        for i, event in enumerate(log)
        if event.type is T.TOOL_CALL_END and event.data["call_id"] == id
    )
    log = list(log)
    log[start], log[end] = log[end], log[start]
    return log


def _late_chunk(log: list[AgentEvent]) -> list[AgentEvent]:
    chunk = next(event for event in log if event.type is T.MESSAGE_CHUNK)
    return [*log[:-2], chunk, *log[-2:]]


PLANTED = [
    *(
        _without(type)
        for type in (
            T.RUN_START,
            T.MESSAGE_CHUNK,
            T.MESSAGE_COMPLETE,
            T.TOOL_CALL_START,
            T.TOOL_CALL_END,
            T.AGENT_START,
            T.AGENT_END,
            T.STATE_CHANGE,
            T.DONE,
        )
    ),
    _last_first,
    _done_twice,
    _result_before_call,
    _late_chunk,
]


@pytest.mark.parametrize("plant", PLANTED)
def test_a_bug_in_a_log_is_caught(plant: Callable[[list[AgentEvent]], list[AgentEvent]]) -> None:
    log = _reference()
    assert find_violations(log) == []

    assert find_violations(_renumbered(plant(log))) != []
