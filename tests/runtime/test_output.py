"""Answers of a given type, and the schemas that they are asked for by."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Literal

import attrs
import jsonschema
import pytest

from flowtrio import Agent, Chunk, RunFailed, StreamEngine
from flowtrio._agents._output import Output
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


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ('{"to": "Os', "it breaks off in the middle of its JSON"),
        ('{"to": "Oslo"', "it breaks off in the middle of its JSON"),
        ("Oslo it is", "it is not JSON: JSON is malformed: invalid character (byte 0)"),
    ],
)
def test_a_text_that_is_no_json_is_told_as_what_it_is(text: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:
        Output.of(Leg).decode(text)

    assert str(caught.value) == why


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "\n```\n{}\n```\n", "```JSON \n{}\n  ``` "])
def test_an_answer_may_stand_in_a_fence(fence: str) -> None:
    assert Output.of(Leg).decode(fence.replace("{}", '{\n"to": "Oslo"\n}')) == Leg("Oslo")


def test_the_name_of_an_output_is_one_that_hosts_take() -> None:
    Größe = type("Größe" * 20, (Leg,), {})

    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", Output.of(Größe).name)


@pytest.mark.parametrize("said", ["", "I am sorry."])
async def test_a_refusal_instead_of_an_answer_says_so_and_is_not_asked_again(said: str) -> None:
    class Refusing:
        requests = 0

        async def stream_completion(
            self, messages: Any, tools: Any = None, **options: Any
        ) -> AsyncIterator[Chunk]:
            self.requests += 1
            yield Chunk(content=said)
            yield Chunk(parts=[{"type": "refusal", "text": "canary"}])
            yield Chunk(is_final=True, finish_reason="stop")

    model = Refusing()
    stream = StreamEngine().stream(Agent(llm_client=model, output=Leg), "where?")
    async with stream:
        events = [event async for event in stream]

    check_events(events)
    error = events[-2].data
    assert (error["source"], error["code"], error["retryable"]) == ("model", "refused", False)
    assert error["error"] == "the model refused to give an answer of the type output=Leg"
    assert model.requests == 1


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
