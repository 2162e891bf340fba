"""What the strategies draw is shown as code that gives it again."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.vendor.pretty import pretty

import flowtrio
from flowtrio import Chunk, ToolCall, tool
from flowtrio.testing import (
    CUT,
    Fault,
    Reader,
    Schedule,
    SimulatedFailure,
    SimulatedModel,
    faults,
    models,
    readers,
    schedules,
)

NAMES = {
    kind.__name__: kind
    for kind in (Chunk, ToolCall, Fault, Reader, Schedule, SimulatedFailure, SimulatedModel)
} | {"CUT": CUT, "flowtrio": flowtrio}
"""What somebody has imported who pastes an example."""


@tool
async def look(at: int) -> int:
    """Look."""
    return at


def evaluated(text: str) -> Any:
    return eval(text, dict(NAMES))


def told(value: Any) -> Any:
    """A value as what it is compared by: failures and models are compared by identity."""
    if isinstance(value, SimulatedModel):
        return [[told(step) for step in turn] for turn in value.turns]
    return (type(value), value.args) if isinstance(value, SimulatedFailure) else value


@settings(max_examples=50)
@given(models([look]), readers(), faults(), schedules())
def test_what_is_drawn_is_its_repr(
    model: SimulatedModel, reader: Reader, struck: list[Fault], schedule: Schedule
) -> None:
    for value in (model, reader, struck, schedule):
        for text in (repr(value), pretty(value)):
            assert told(evaluated(text)) == told(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Reader(), "Reader()"),
        (Reader(approves=None, breaks=3), "Reader(approves=None, breaks=3)"),
        (Fault("cancel"), "Fault('cancel')"),
        (Fault("delay", 0, 2, 0.5), "Fault('delay', call=2, seconds=0.5)"),
        (Schedule(), "Schedule()"),
        (Schedule([0, 1]), "Schedule([0, 1])"),
        (SimulatedModel(), "SimulatedModel()"),
        (
            SimulatedModel(["a", [1.5, Chunk(reset="b"), CUT]]),
            "SimulatedModel([('a',), (1.5, Chunk(reset='b'), CUT)])",
        ),
    ],
)
def test_only_what_differs_from_the_defaults_is_shown(value: Any, text: str) -> None:
    assert repr(value) == pretty(value) == text


def test_an_example_that_breaks_a_property_can_be_pasted() -> None:
    seen: list[Any] = []

    @settings(max_examples=200, database=None, derandomize=True)
    @given(model=models([look]), reader=readers(), struck=faults(), schedule=schedules())
    def breaks(**example: Any) -> None:
        seen[:] = [example]
        assert not (
            example["model"].turns
            and example["reader"].breaks
            and example["struck"]
            and example["schedule"].choices
        )

    with pytest.raises(AssertionError) as caught:
        breaks()
    text = "\n".join(caught.value.__notes__)
    [arguments] = re.findall(r"breaks\((.*?)\n\)", text, re.DOTALL)
    example = evaluated(f"dict({arguments})")

    assert {name: told(value) for name, value in example.items()} == {
        name: told(value) for name, value in seen[0].items()
    }
