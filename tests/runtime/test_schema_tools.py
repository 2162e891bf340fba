"""Tools from a JSON Schema: what they take, what they refuse, and how their names are made fit."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest

from flowtrio import EventType, RunContext, Tool, ToolCall
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import only, play, runner

T = EventType

PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
}
TREE = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "$ref": "#/$defs/Node~1x",
    "$defs": {
        "Node/x": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node~1x"}},
            },
            "required": ["name"],
        }
    },
}


async def echo(arguments: dict[str, Any]) -> Any:
    """Give back what was given."""
    return arguments


def make(fn: Any = echo, parameters: Any = PLACE, **options: Any) -> Tool[..., Any]:
    given = {"name": "look", "description": "Look it up.", **options}
    return Tool.from_schema(fn, parameters=parameters, **given)


async def test_the_model_is_told_the_schema_and_the_function_gets_one_dict() -> None:
    model = ScriptedModel([ToolCall("p", "look", {"city": "Rome", "days": 2})], "fine")

    played = await play(runner(model, make()))

    [end] = only(played.log, T.TOOL_CALL_END)
    assert end["result"] == {"city": "Rome", "days": 2}

    [spec] = model.requests[0].tools
    assert spec["function"] == {
        "name": "look",
        "description": "Look it up.",
        "parameters": PLACE,
    }


async def test_a_function_of_two_gets_the_context_and_a_plain_one_runs_in_a_thread() -> None:
    async def with_context(ctx: RunContext, arguments: dict[str, Any]) -> str:
        await ctx.progress(arguments["city"])
        return ctx.agent

    def plain(arguments: dict[str, Any], unit: str = "C") -> str:
        return arguments["city"] + unit

    arguments = {"city": "Rome"}
    model = ScriptedModel([ToolCall("p", "one", arguments), ToolCall("q", "two", arguments)], "ok")
    tools = [make(with_context, name="one"), make(plain, name="two")]

    played = await play(runner(model, *tools))

    assert [end["result"] for end in only(played.log, T.TOOL_CALL_END)] == ["root", "RomeC"]
    assert [each["progress"] for each in only(played.log, T.TOOL_PROGRESS)] == ["Rome"]


def test_calling_the_tool_calls_the_function() -> None:
    assert make(lambda arguments: arguments["city"])({"city": "Oslo"}) == "Oslo"


@pytest.mark.parametrize(
    ("parameters", "arguments", "expected"),
    [
        (PLACE, {}, "arguments of 'look': object misses 'city' - at `$`"),
        (PLACE, {"city": 1}, 'expected "string", got number - at `$.city`'),
        (PLACE, {"city": "Rome", "days": 0}, "expected minimum 1 - at `$.days`"),
        (PLACE, {"city": "Rome", "nights": 0}, "object contains unknown fields 'nights' - at `$`"),
        (TREE, {"name": "a", "children": [{}]}, "object misses 'name' - at `$.children[0]`"),
        (
            {"properties": {"a": {"enum": ["x" * 400]}}},
            {"a": "secret"},
            f'expected enum ["{"x" * 298}… - at `$.a`',
        ),
        ({"additionalProperties": False}, {"a": 1}, "object contains unknown fields 'a'"),
        (
            {"additionalProperties": {"additionalProperties": False}},
            {"a": {"b": 1}},
            "object contains unknown fields 'b' - at `$.a`",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_place_and_without_what_was_given(
    parameters: dict[str, Any], arguments: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError, match="arguments of 'look'") as caught:
        make(parameters=parameters).decode(arguments)

    assert expected in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (None, "null"),
        (True, "boolean"),
        ("x", "string"),
        (1.5, "number"),
        ([], "array"),
        ({}, "object"),
    ],
)
def test_the_type_of_what_was_given_is_told_in_the_words_of_schemas(value: Any, word: str) -> None:
    tool = make(parameters={"properties": {"a": {"type": "integer"}}})

    with pytest.raises(ValueError, match=f'expected "integer", got {word}'):
        tool.decode({"a": value})


async def test_arguments_that_do_not_fit_never_reach_the_function() -> None:
    seen = []
    model = ScriptedModel([ToolCall("p", "look", {"town": "Rome"})], "sorry")

    played = await play(runner(model, make(lambda arguments: seen.append(arguments))))

    [end] = only(played.log, T.TOOL_CALL_END)
    assert end["outcome"] == "error"
    assert seen == []


def test_the_object_stands_at_the_top_and_may_refer_to_itself() -> None:
    tool = make(parameters=TREE)

    assert tool.parameters["type"] == "object"
    assert "$ref" not in tool.parameters
    assert "$schema" not in tool.parameters, "not every provider knows it"
    assert tool.decode({"name": "a", "children": [{"name": "b"}]})


def test_a_schema_of_nothing_is_an_object_without_properties() -> None:
    tool = make(parameters={})

    assert tool.parameters == {"type": "object", "properties": {}}
    assert tool.decode({}) == {"arguments": {}}


def test_the_schema_is_its_own_whatever_becomes_of_what_was_given() -> None:
    given = {"type": "object", "properties": {"a": {"type": "string"}}}
    tool = make(parameters=given)
    given["properties"] = {}

    assert tool.parameters["properties"] == {"a": {"type": "string"}}


# A function of one's own to check


def test_what_validate_says_counts_instead() -> None:
    def refuse(arguments: dict[str, Any]) -> bool | None:
        if arguments.get("odd"):
            raise LookupError("odd")
        return None if arguments else False

    tool = make(parameters={"type": "object", "required": 7}, validate=refuse)

    assert tool.decode({"any": 1}) == {"arguments": {"any": 1}}

    with pytest.raises(ValueError, match="they do not fit"):
        tool.decode({})

    with pytest.raises(ValueError, match="LookupError: odd"):
        tool.decode({"odd": 1})


def test_what_it_raises_is_told_as_it_is_where_it_is_a_value_error() -> None:
    def refuse(arguments: dict[str, Any]) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match=r"^arguments of 'look': no$"):
        make(validate=refuse).decode({})


def test_without_jsonschema_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)

    with pytest.raises(ImportError, match=r"pip install 'flowtrio\[schema\]', or give it validate"):
        make()

    assert make(validate=lambda arguments: None).decode({"a": 1}) == {"arguments": {"a": 1}}


# What is refused when the tool is made


def gives() -> Any:
    return None


async def no_check(arguments: dict[str, Any]) -> None: ...


def yields(arguments: dict[str, Any]) -> Any:
    yield arguments


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"fn": "fn"}, TypeError, "expected a function"),
        ({"fn": dict}, TypeError, "expected a function"),
        ({"fn": make()}, TypeError, "expected a function"),
        ({"fn": gives}, TypeError, r"expected a function of \(arguments\) or \(ctx, arguments\)"),
        ({"fn": lambda a, b, c: None}, TypeError, r"got one of \(a, b, c\)"),
        ({"fn": lambda a, /: None}, TypeError, r"got one of \(a, /\)"),
        ({"fn": lambda a, *, b: None}, TypeError, r"got one of \(a, \*, b\)"),
        ({"fn": functools.partial(max)}, TypeError, "no signature found"),
        ({"fn": yields}, TypeError, "yields: expected a function that returns"),
        ({"name": ""}, ValueError, "name='': expected a text"),
        ({"name": 7}, ValueError, "name=7: expected a text"),
        ({"description": None}, ValueError, "description=None: expected a text"),
        ({"timeout": 0}, ValueError, "timeout=0: expected seconds above 0"),
        ({"slow": 1}, TypeError, "unknown options slow"),
        ({"validate": 7}, TypeError, "validate=7: expected a plain function"),
        ({"validate": no_check}, TypeError, "expected a plain function"),
        ({"parameters": "object"}, ValueError, "expected a JSON Schema, got str"),
        ({"parameters": {"default": object()}}, ValueError, "parameters of tool 'look': schema"),
        ({"parameters": {"type": "array"}}, ValueError, "of type 'object', got 'array'"),
        ({"parameters": {"required": 7}}, ValueError, r"expected a JSON Schema; at \$.required"),
        ({"parameters": {"$ref": "#"}}, ValueError, "refers to '#', which it does not hold"),
        ({"parameters": {"$ref": 7}}, ValueError, "refers to 7"),
        ({"parameters": {"$ref": "#/a/b", "a": 1}}, ValueError, "refers to '#/a/b'"),
        ({"parameters": {"$ref": "#/a", "a": {"$ref": "#/a"}}}, ValueError, "refers to '#/a'"),
        (
            {"parameters": {"properties": {"a": {"$ref": "#/$defs/b"}}}},
            ValueError,
            r"refers to '#/\$defs/b'",
        ),
        (
            {"parameters": {"properties": {"a": {"$ref": "https://elsewhere.test/b"}}}},
            ValueError,
            "refers to 'https://elsewhere.test/b', which it does not hold",
        ),
    ],
)
def test_what_cannot_be_a_tool_is_refused_when_it_is_made(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make(**options)


# Names


def test_a_name_is_made_fit_and_the_given_one_is_kept() -> None:
    tool = make(name="files/read.text")

    assert tool.name == "files_read_text"
    assert tool.given_name == "files/read.text"
    assert make().given_name is None


def test_names_that_become_one_are_kept_apart() -> None:
    long = "x" * 70
    tools = [make(name=name) for name in ("a.b", "a/b", "a_b", f"{long}1", f"{long}2")]

    names = [tool.name for tool in runner(ScriptedModel(), *tools).tools]  # type: ignore[union-attr]

    assert len(set(names)) == 5
    assert names[2] == "a_b", "a name that fits stays as it is"
    assert all(len(name) <= 64 for name in names)
    assert names == [tool.name for tool in runner(ScriptedModel(), *tools).tools]  # type: ignore[union-attr]


def test_two_of_one_given_name_are_refused() -> None:
    with pytest.raises(ValueError, match="need names of their own: a_b_"):
        runner(ScriptedModel(), make(name="a.b"), make(name="a.b"))
