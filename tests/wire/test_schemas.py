"""Schemas as hosts take them that hold their models to one."""

from __future__ import annotations

import copy
import datetime
import enum
from typing import Annotated, Any, Final, Literal

import msgspec
import pytest
from msgspec import Meta

from flowtrio._agents._output import Output
from flowtrio.wire import (
    _anthropic_requests,
    _gemini,
    _ollama,
    _openai_chat_requests,
    _openai_input,
)
from flowtrio.wire._schemas import ANTHROPIC, OPENAI, asked_in_words, closed_schema


class Point(msgspec.Struct):
    x: int
    note: Annotated[str, Meta(min_length=1, description="A word.")] = ""


class Nothing(msgspec.Struct):
    pass


class Tree(msgspec.Struct):
    leaves: list[Tree] = []


class Tagged(msgspec.Struct, tag=True):
    at: datetime.datetime


class Other(msgspec.Struct, tag=True):
    point: Point


class Kind(enum.Enum):
    A = "a"


class Holder(msgspec.Struct):
    held: dict[str, int]


TYPES: Final[list[tuple[Any, bool, bool]]] = [
    (Point, True, True),
    (Nothing, True, True),
    (list[Point], True, True),
    (Tagged | Other | None, True, True),
    (Kind, True, True),
    (Literal["a", 1, None], True, True),
    (set[str], True, True),
    (Annotated[int, Meta(ge=1, multiple_of=2)], True, True),
    (Annotated[list[int], Meta(min_length=2)], True, True),
    # Recursive: Anthropic has no word for that.
    (Tree, True, False),
    # Keys of any name, values of any type, places of their own: neither has one.
    (Holder, False, False),
    (dict, False, False),
    (dict[str, Point], False, False),
    (list[dict[str, int]], False, False),
    (Any, False, False),
    (list, False, False),
    (tuple[int, str], False, False),
]
"""Types, and whether OpenAI and Anthropic can be held to them."""


def objects_of(schema: Any) -> list[dict[str, Any]]:
    """Every schema of an object in *schema*."""
    if isinstance(schema, list):
        return [found for item in schema for found in objects_of(item)]
    if not isinstance(schema, dict):
        return []
    here = [schema] if schema.get("type") == "object" else []
    return here + [found for value in schema.values() for found in objects_of(value)]


@pytest.mark.parametrize(("type_", "at_openai", "at_anthropic"), TYPES)
def test_a_type_is_said_as_a_closed_schema_or_not_at_all(
    type_: Any, at_openai: bool, at_anthropic: bool
) -> None:
    schema = Output.of(type_).schema
    before = copy.deepcopy(schema)
    openai, anthropic = closed_schema(schema, OPENAI), closed_schema(schema, ANTHROPIC)

    assert schema == before
    assert (openai is not None, anthropic is not None) == (at_openai, at_anthropic)
    for closed in (openai, anthropic):
        assert all(found["additionalProperties"] is False for found in objects_of(closed))
    assert all(found["required"] == [*found["properties"]] for found in objects_of(openai))


def test_what_is_left_out_of_a_schema_is_said_in_words() -> None:
    schema = {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"type": "integer", "minimum": 1, "title": "A", "description": "One."},
            "b": {"oneOf": [{"type": "null"}, {"allOf": [{"const": 1}]}], "default": None},
            "c": {"type": "string", "format": "decimal", "pattern": "x"},
            "d": {"type": "string", "format": "date"},
            "e": {"type": "array", "items": {"enum": [1.5, True, None]}, "minItems": 2},
            "f": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "g": {"$ref": "#/$defs/G", "description": "Beside it."},
        },
        "$defs": {"G": {"properties": {}, "additionalProperties": False}},
    }
    same = {
        "b": {"anyOf": [{"type": "null"}, {"const": 1, "type": "integer"}]},
        "c": {"type": "string", "description": '(format: "decimal", pattern: "x")'},
        "d": {"type": "string", "format": "date"},
        "f": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "g": {"anyOf": [{"$ref": "#/$defs/G"}], "description": "Beside it."},
    }
    one = {"type": "integer", "title": "A"}
    items = {"enum": [1.5, True, None], "type": ["number", "boolean", "null"]}
    some = {"type": "array", "items": items}
    openai, anthropic = closed_schema(schema, OPENAI), closed_schema(schema, ANTHROPIC)
    assert openai is not None
    assert anthropic is not None

    assert anthropic["properties"] == {
        **same,
        "a": {**one, "description": "One. (minimum: 1)"},
        "e": {**some, "description": "(minItems: 2)"},
    }
    assert anthropic["required"] == ["a"]
    assert openai["properties"] == {
        **same,
        "a": {**one, "description": "One.", "minimum": 1},
        "e": {**some, "minItems": 2},
    }
    closed = {"type": "object", "properties": {}, "additionalProperties": False}
    assert anthropic["$defs"] == {"G": closed}
    assert openai["$defs"] == {"G": {**closed, "required": []}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": True},
        {"type": "array", "items": False},
        {"type": "object", "properties": {}, "additionalProperties": True},
        {"type": "object", "properties": {}, "patternProperties": {"a": {}}},
        {"type": ["object", "null"]},
        {"allOf": [{"type": "string"}, {"minLength": 1}]},
        {"title": "Anything"},
        {"allOf": [{"type": "string"}], "type": "integer"},
        {"allOf": [True]},
        {"allOf": []},
        {"$ref": "#/$defs/G", "enum": ["a"]},
        {"enum": [{"a": 1}, {"b": 2}]},
        {"enum": [[1]], "type": "array", "items": {"type": "integer"}},
        {"const": {}},
    ],
)
def test_what_would_say_less_closed_is_not_said(schema: dict[str, Any]) -> None:
    whole = {"type": "object", "properties": {"x": schema}}

    assert closed_schema(whole, OPENAI) is None
    assert closed_schema(whole, ANTHROPIC) is None


# In requests

HELLO: Final = {"role": "user", "content": "hello"}
SYSTEM: Final = {"role": "system", "content": "Be brief."}
TOOL: Final = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def asked(type_: Any) -> dict[str, Any]:
    output = Output.of(type_)
    return {"output_schema": (output.name, output.schema)}


REF: Final = {"$ref": "#/$defs/G"}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (REF, REF),
        ({"allOf": [REF]}, REF),
        ({"allOf": [REF], "default": 1}, REF),
        ({**REF, "title": "T"}, {"anyOf": [REF], "title": "T"}),
        ({"allOf": [REF], "description": "D."}, {"anyOf": [REF], "description": "D."}),
        ({"allOf": [{**REF, "description": "D."}]}, {"anyOf": [REF], "description": "D."}),
        # What limits it stands in words: beside a choice few hosts know it.
        (
            {**REF, "description": "D.", "minItems": 1, "format": "date"},
            {"anyOf": [REF], "description": 'D. (format: "date", minItems: 1)'},
        ),
        (
            {"allOf": [{"type": "string", "pattern": "x", "description": "A."}], "title": "T"},
            {"type": "string", "title": "T", "description": 'A. (pattern: "x")'},
        ),
    ],
)
@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC])
def test_what_is_said_of_a_reference_stands_around_it(
    schema: dict[str, Any], said: dict[str, Any], dialect: Any
) -> None:
    whole = {"type": "object", "properties": {"x": schema}, "additionalProperties": False}
    closed = closed_schema({**whole, "$defs": {"G": {"type": "string"}}}, dialect)

    assert closed is not None
    assert closed["properties"]["x"] == said


def test_words_stand_behind_the_other_instructions() -> None:
    sent = asked_in_words([SYSTEM, HELLO], {"type": "object"})

    assert [sent[0], sent[2]] == [SYSTEM, HELLO]
    assert sent[1]["role"] == "system"
    assert sent[1]["content"].endswith('{"type": "object"}')
    assert len(asked_in_words([], {})) == 1


@pytest.mark.parametrize(("type_", "is_strict"), [(Point, True), (Holder, False)])
def test_openai_is_asked_strictly_where_the_schema_can_be(type_: Any, is_strict: bool) -> None:
    options = asked(type_)
    chat = _openai_chat_requests.encode_request("m", [HELLO], None, options, stream=True)
    responses = _openai_input.encode_request("m", [HELLO], None, options, stream=True)
    form = responses["text"]["format"]
    given = Output.of(type_).schema
    expected = closed_schema(given, OPENAI) if is_strict else given

    assert chat["response_format"]["json_schema"] == {
        "name": type_.__name__,
        "schema": expected,
        "strict": is_strict,
    }
    assert (form["strict"], form["schema"]) == (is_strict, expected)


def test_anthropic_is_asked_in_words_for_what_it_cannot_be_held_to() -> None:
    body = _anthropic_requests.encode_request(
        "m", [SYSTEM, HELLO], None, asked(Holder), stream=True
    )

    assert "output_config" not in body
    assert body["system"][0] == {"type": "text", "text": "Be brief."}
    assert '"held"' in body["system"][1]["text"]


def test_gemini_and_ollama_are_asked_in_words_where_there_are_tools() -> None:
    gemini = _gemini.encode_request([HELLO], [TOOL], asked(Point))
    ollama = _ollama.encode_request("m", [HELLO], [TOOL], asked(Point), stream=True)

    assert "generationConfig" not in gemini
    assert '"note"' in gemini["systemInstruction"]["parts"][0]["text"]
    assert "format" not in ollama
    assert '"note"' in ollama["messages"][0]["content"]
