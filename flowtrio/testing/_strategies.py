"""Hypothesis strategies for everything that `simulate` takes.

All of it is drawn before the run begins, as lists of small values whose simplest form is nothing:
so a counter-example shrinks to the turn, the fault and the choice of the scheduler that it needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from flowtrio._agents._tools import Tool, as_tool
from flowtrio._agents._toolsets import Given, is_toolset
from flowtrio._core._chunks import Chunk, ToolCall

from ._arguments import arguments_of
from ._faults import Fault
from ._models import SimulatedFailure, SimulatedModel
from ._readers import Reader
from ._schedule import WIDTH, Schedule
from ._scripted import CUT, Step

T = TypeVar("T")

SECONDS = st.sampled_from([0.0, 0.1, 0.5, 1.0, 5.0])
"""Latencies, some of which fall together."""


def schedules() -> st.SearchStrategy[Schedule]:
    """Schedules: some leave spawn order in a few places, others everywhere."""
    place = st.integers(1, WIDTH - 1)
    few = st.lists(st.tuples(st.integers(0, 40), place), max_size=8).map(_spread)
    many = st.integers(8, 120).flatmap(
        lambda size: st.lists(st.integers(0, WIDTH - 1), min_size=size, max_size=size)
    )
    return st.one_of(few, many).map(Schedule)


def _spread(deviations: list[tuple[int, int]]) -> list[int]:
    """Write out choices, each so many places of spawn order after the one before."""
    return [choice for gap, place in deviations for choice in (*[0] * gap, place)]


def models(
    tools: Iterable[Given] = (),
) -> st.SearchStrategy[SimulatedModel]:
    """Models that stream text, fall silent, call *tools*, and fail at any point.

    Arguments fit their tool; now and then a call's arguments do not parse, or the stream is cut.
    """
    known = [as_tool(tool) for tool in tools if not is_toolset(tool)]
    turn = st.builds(_turn, st.lists(_words(), max_size=4), _calls(known), st.none() | _failures())
    return st.lists(turn, max_size=4).map(SimulatedModel)


def _words() -> st.SearchStrategy[Step]:
    text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
    odd = st.sampled_from([Chunk(reasoning="hm"), Chunk(reset="drawn")])
    return st.one_of(text, SECONDS.filter(bool), text, odd)


def _failures() -> st.SearchStrategy[tuple[int, Step]]:
    """What breaks a turn off, and after how many steps."""
    what: st.SearchStrategy[Step] = st.sampled_from([CUT, SimulatedFailure("drawn")])
    return st.tuples(st.integers(0, 6), what)


def _calls(tools: Sequence[Tool[..., Any]]) -> st.SearchStrategy[list[tuple[str, Any]]]:
    if not tools:
        return st.just([])
    good = st.sampled_from(tools).flatmap(
        lambda tool: st.tuples(st.just(tool.name), arguments_of(tool))
    )
    bad = st.tuples(st.sampled_from([tool.name for tool in tools]), st.none())
    # One in five is enough for what is refused before it reaches a tool.
    return st.lists(st.one_of(good, good, good, good, bad), max_size=4)


def _turn(
    words: list[Step], calls: list[tuple[str, Any]], failure: tuple[int, Step] | None
) -> list[Step]:
    steps = list(words)
    for number, (name, arguments) in enumerate(calls):
        raw = "{" if arguments is None else ""
        steps.append(ToolCall(f"p{number}", name, arguments, raw))
    if failure is not None:
        after, what = failure
        steps = [*itertools.islice(steps, after), what]
    return steps


def readers() -> st.SearchStrategy[Reader]:
    """Readers: at once or slow, answering or not, staying to the end or leaving in any way."""
    leaving: list[st.SearchStrategy[dict[str, Any]]] = [
        st.just({}),
        st.integers(1, 40).map(lambda n: {"breaks": n}),
        st.integers(1, 40).map(lambda n: {"raises": n}),
        st.integers(1, 40).map(lambda n: {"cancels": n}),
        SECONDS.map(lambda s: {"times_out": s}),
    ]
    staying: dict[str, st.SearchStrategy[Any]] = {
        "pause": st.sampled_from([0.0, 0.0, 0.3]),
        "polls": st.sampled_from([None, None, 0.2]),
        "approves": st.sampled_from([True, False, None]),
        "answers": st.sampled_from(["yes", None]),
        "cancels_tool": st.none() | st.integers(1, 4),
        "is_bare": st.booleans(),
    }
    return st.builds(
        lambda stays, leaves: Reader(**stays, **leaves),
        st.fixed_dictionaries({}, optional=staying),
        st.one_of(leaving),
    )


def faults() -> st.SearchStrategy[list[Fault]]:
    """Cancellations at any step of a run, and tools that are late, fail or are cancelled."""
    of_runs = st.builds(Fault, st.sampled_from(["cancel", "cut_off"]), st.integers(0, 150))
    of_tools = st.builds(
        Fault, st.sampled_from(["fail", "cancel_tool"]), st.integers(0, 6), st.integers(0, 5)
    )
    delays = st.builds(Fault, st.just("delay"), st.just(0), st.integers(0, 5), SECONDS)
    return st.lists(st.one_of(delays, of_tools, of_runs), max_size=3)
