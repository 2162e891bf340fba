"""What the strategies draw fits what it is drawn for, and shrinks to nothing."""

from __future__ import annotations

import subprocess
import sys
from enum import Enum
from typing import Annotated, Any, Literal

import attrs
import msgspec
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

import flowtrio.testing
from flowtrio import Chunk, RemoteProtocolError, ToolCall, tool
from flowtrio.testing import (
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
from flowtrio.testing._arguments import _values, arguments_of
from flowtrio.testing._faults import KINDS


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Tree(msgspec.Struct):
    name: str
    below: list[Tree] = []


@tool
async def everything(
    text: Annotated[str, msgspec.Meta(min_length=2, max_length=3)],
    even: Annotated[int, msgspec.Meta(ge=3, lt=200)],
    above: Annotated[int, msgspec.Meta(gt=10)],
    below: Annotated[float, msgspec.Meta(le=-7)],
    colour: Colour,
    size: Literal["s", "m", 3],
    pair: tuple[int, bool],
    trees: list[Tree],
    weights: dict[str, int],
    anything: Any,
    small: Annotated[list[None], msgspec.Meta(max_length=2)],
    code: Annotated[str, msgspec.Meta(pattern="^[a-z]?$")] = "",
    maybe: int | str | None = None,
) -> None:
    """Take everything."""


@tool
async def look(at: int) -> int:
    """Look."""
    return at


@settings(max_examples=30)
@given(arguments_of(everything))
def test_arguments_fit_their_tool(arguments: dict[str, Any]) -> None:
    decoded = everything.decode(arguments)

    assert 3 <= decoded["even"] < 200
    assert msgspec.json.decode(msgspec.json.encode(arguments)) == arguments


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        ({"const": 3}, {3}),
        ({"type": ["null", "boolean"]}, {None, False, True}),
        ({"type": "integer", "maximum": 3, "minimum": 2}, {2, 3}),
        ({"type": "integer", "exclusiveMaximum": 3, "exclusiveMinimum": 1}, {2}),
    ],
)
def test_a_schema_is_drawn_from(schema: dict[str, Any], values: set[Any]) -> None:
    assert set(drawn_from(_values(schema, {}), 60)) == values


def test_an_array_of_nothing_in_particular_may_hold_anything() -> None:
    assert find(_values({"type": "array", "minItems": 1}, {}), lambda _: True) == [None]


def test_everything_shrinks_to_nothing() -> None:
    assert find(schedules(), lambda _: True) == Schedule()
    assert find(models(), lambda _: True).turns == ()
    assert find(readers(), lambda _: True) == Reader()
    assert find(faults(), lambda _: True) == []


def drawn_from(strategy: st.SearchStrategy[Any], examples: int = 200) -> list[Any]:
    """Values as Hypothesis draws them."""
    seen: list[Any] = []

    @settings(max_examples=examples, phases=[Phase.generate])
    @given(strategy)
    def draw(value: Any) -> None:
        seen.append(value)

    draw()
    return seen


def test_every_kind_of_fault_is_drawn() -> None:
    assert {fault.kind for drawn in drawn_from(faults()) for fault in drawn} == set(KINDS)


def test_every_way_of_reading_is_drawn() -> None:
    plain = Reader()
    seen = {
        field.name
        for reader in drawn_from(readers())
        for field in attrs.fields(Reader)
        if getattr(reader, field.name) != getattr(plain, field.name)
    }

    assert seen == {field.name for field in attrs.fields(Reader)}


def test_schedules_leave_spawn_order_in_few_places_or_in_many() -> None:
    places = [sum(c > 0 for c in schedule.choices) for schedule in drawn_from(schedules())]

    assert min(places) <= 1
    assert max(places) > 20


def test_every_kind_of_step_is_drawn_and_now_and_then_arguments_do_not_parse() -> None:
    turns = [turn for model in drawn_from(models([look])) for turn in model.turns]
    steps = [step for turn in turns for step in turn]
    calls = [step for step in steps if isinstance(step, ToolCall)]

    assert {type(step) for step in steps} == {
        *(str, float, Chunk, ToolCall, SimulatedFailure, type(flowtrio.testing.CUT))
    }
    assert {call.arguments is None for call in calls} == {False, True}


# The model, outside a run


async def test_a_model_plays_the_turn_that_the_conversation_has_come_to() -> None:
    model = SimulatedModel(
        ["one", ["two", ToolCall("p", "look", {})], ["cut", flowtrio.testing.CUT]]
    )
    user = {"role": "user", "content": "hi"}
    said = {"role": "assistant", "content": "one"}
    offered = [{"type": "function", "function": {"name": "look"}}]

    for _ in range(2):
        assert (await model.complete([user])).content == "one"
    assert (await model.complete([user, said], offered)).tool_calls[0].name == "look"
    assert (await model.complete([user, said])).tool_calls == []
    assert (await model.complete([user, said, said, said])).content == "done"
    with pytest.raises(RemoteProtocolError, match="without its finish mark"):
        await model.complete([user, said, said])
    assert model.open_replies == 0


async def test_a_drawn_failure_is_a_new_exception_each_time() -> None:
    failure = SimulatedFailure("drawn")
    model = SimulatedModel([["a", failure]])
    for _ in range(2):
        with pytest.raises(SimulatedFailure, match="drawn") as caught:
            async for _ in model.stream_completion([{"role": "user", "content": "hi"}]):
                pass
        assert caught.value is not failure


def test_turns_survive_being_written_down() -> None:
    from flowtrio.testing._models import turns_from_json, turns_to_json

    turns = SimulatedModel(
        [
            "text",
            [0.5, ToolCall("p", "look", {"a": 1}), ToolCall("q", "look", None, "{")],
            [Chunk(reasoning="hm"), Chunk(reset="again"), flowtrio.testing.CUT],
        ]
    ).turns
    text = msgspec.json.encode(turns_to_json((*turns, (SimulatedFailure("x"),))))
    back = turns_from_json(msgspec.json.decode(text))

    assert back[:3] == turns
    assert str(back[3][0]) == "x"
    with pytest.raises(ValueError, match="no step of a turn"):
        turns_from_json([[{"what": 1}]])


# Faults that are none


@pytest.mark.parametrize(
    "arguments", [("explode",), ("cancel", -1), ("cancel", 1.5), ("fail", 0, -3)]
)
def test_what_is_no_fault_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Fault(*arguments)


# Without Hypothesis


def test_without_hypothesis_the_rest_can_be_used_and_the_strategies_say_what_is_missing() -> None:
    program = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import flowtrio.testing as kit\n"
        "async def agent(ctx, message): return message\n"
        "assert kit.simulate(agent, 'hi').result == 'hi'\n"
        "try: kit.models\n"
        "except ModuleNotFoundError as exc: print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )

    assert "flowtrio.testing.models needs 'hypothesis'" in done.stdout, done.stderr
    assert "pip install 'flowtrio[testing]'" in done.stdout


def test_a_strategy_without_hypothesis_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flowtrio.testing._strategies", None)
    monkeypatch.delattr(flowtrio.testing, "models")
    with pytest.raises(ModuleNotFoundError, match=r"flowtrio.testing.models needs"):
        flowtrio.testing.models()


def test_a_missing_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'model'"):
        flowtrio.testing.model  # noqa: B018


def test_models_without_tools_call_none() -> None:
    steps = [s for model in drawn_from(models(), 30) for turn in model.turns for s in turn]

    assert not any(isinstance(step, ToolCall) for step in steps)
