"""Answers of a given type, and the schemas that they are asked for by."""

from __future__ import annotations

from typing import Any, Literal

import attrs
import jsonschema
import pytest

from flowtrio import Agent, RunFailed, StreamEngine
from flowtrio._runtime._output import Output
from flowtrio.testing import ScriptedModel, check_events


@attrs.frozen
class Leg:
    """One flight."""

    to: str
    seats: int = 1


@attrs.frozen
class Trip:
    """A journey."""

    legs: list[Leg]
    kind: Literal["day", "night"]


CASES: list[tuple[Any, Any, str, Any]] = [
    (Leg, {"to": "Oslo"}, '{"to": "Oslo"}', Leg("Oslo")),
    (
        Trip,
        {"legs": [{"to": "Oslo", "seats": 2}], "kind": "day"},
        '{"legs": [{"to": "Oslo", "seats": 2}], "kind": "day"}',
        Trip([Leg("Oslo", 2)], "day"),
    ),
    (int, {"result": 3}, '{"result": 3}', 3),
    (list[Leg], {"result": [{"to": "a"}]}, '{"result": [{"to": "a"}]}', [Leg("a")]),
    (str | None, {"result": None}, '{"result": null}', None),
]


@pytest.mark.parametrize(("type_", "value", "text", "decoded"), CASES)
def test_schemas_take_what_is_decoded(type_: Any, value: Any, text: str, decoded: Any) -> None:
    output = Output.of(type_)
    jsonschema.Draft202012Validator.check_schema(output.schema)
    jsonschema.validate(value, output.schema)

    assert output.schema["type"] == "object"
    assert output.decode(text) == decoded


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (Leg, "hello"),
        (Leg, ""),
        (Leg, "{}"),
        (Leg, '{"to": 7}'),
        (Leg, '{"to": "a", "seats": "2"}'),
        (Trip, '{"legs": [], "kind": "dusk"}'),
        (int, "3"),
        (int, '{"result": "3"}'),
        (int, '{"result": 3, "other": 4}'),
        (int, '{"other": 3}'),
        (int, "{}"),
    ],
)
def test_answers_of_another_type_are_refused(type_: Any, text: str) -> None:
    with pytest.raises(ValueError):
        Output.of(type_).decode(text)


def test_a_type_without_a_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^output=object: expected a type with a JSON form"):
        Output.of(object)


async def test_an_agents_result_is_of_its_type() -> None:
    with ScriptedModel(['{"to": ', '"Oslo"}']) as model:
        async with StreamEngine() as engine:
            stream = engine.stream(Agent(llm_client=model, output=Leg), "where?")
            assert await stream.result() == Leg("Oslo")

    assert model.requests[0].options["output_schema"][0] == "Leg"


async def test_an_answer_of_another_type_fails_the_run_and_is_not_quoted() -> None:
    model = ScriptedModel(*['{"to": "canary", "seats": "x"}'] * 5)
    async with StreamEngine() as engine:
        stream = engine.stream(Agent(llm_client=model, output=Leg), "where?")
        async with stream:
            events = [event async for event in stream]
        with pytest.raises(RunFailed):
            await stream.result()

    check_events(events)
    assert events[-2].type == "error"
    assert "canary" not in str(events[-2].data)
