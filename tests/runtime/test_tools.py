"""Tools: the schema that a model is told, and the strict decoding of what it answers."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Any, Literal, Optional

import attrs
import jsonschema
import pytest

from flowtrio import EventType, RunContext, ToolCall, tool
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import only, play, runner

T = EventType


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.define
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Path:
    points: list[Point]
    name: str = "path"


@tool
async def paint(
    ctx: RunContext,
    path: Path,
    colour: Colour,
    finish: Literal["matt", "gloss"] = "matt",
    coats: Annotated[int, "Not used as a text."] = 1,
    note: Optional[str] = None,  # noqa: UP045 - people write it
    tags: list[str] | None = None,
) -> str:
    """Paint a path.

    Args:
      path: Where to paint.
      colour: What colour to paint it in.
      note: Anything else.

    """
    return f"{path.points[0].x} {colour.value} {finish} {coats} {note} {tags}"


GOOD: list[dict[str, Any]] = [
    {"path": {"points": [{"x": 1}]}, "colour": "red"},
    {"path": {"points": [{"x": 1, "y": 2}], "name": "n"}, "colour": "blue", "finish": "gloss"},
    {"path": {"points": [{"x": 1}]}, "colour": "red", "note": None, "tags": ["a"], "coats": 3},
]
BAD: list[dict[str, Any]] = [
    {},
    {"path": {"points": [{"x": 1}]}},
    {"path": {"points": [{"x": "1"}]}, "colour": "red"},
    {"path": {"points": [{"x": 1}]}, "colour": "green"},
    {"path": {"points": [{"x": 1}]}, "colour": "red", "finish": "satin"},
    {"path": {"points": [{"x": 1}]}, "colour": "red", "coats": "many"},
    {"path": {"points": {"x": 1}}, "colour": "red"},
]


def test_a_schema_is_json_schema_and_tells_what_the_docstring_tells() -> None:
    schema = paint.parameters

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert "ctx" not in schema["properties"]
    assert schema["required"] == ["path", "colour"]
    assert "Where to paint." in str(schema["properties"]["path"])
    assert paint.description == "Paint a path."


@pytest.mark.parametrize("arguments", GOOD)
async def test_what_the_schema_allows_reaches_the_function(arguments: dict[str, Any]) -> None:
    jsonschema.validate(arguments, paint.parameters)
    model = ScriptedModel([ToolCall("p1", "paint", arguments)], "fine")

    played = await play(runner(model, paint))

    [end] = only(played.log, T.TOOL_CALL_END)
    assert end["outcome"] == "ok"
    assert end["result"].startswith("1 ")


@pytest.mark.parametrize("arguments", BAD)
async def test_what_it_does_not_allow_never_does(arguments: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(arguments, paint.parameters)
    model = ScriptedModel([ToolCall("p1", "paint", arguments)], "fine")

    played = await play(runner(model, paint))

    [end] = only(played.log, T.TOOL_CALL_END)
    assert end["outcome"] == "error"
    assert played.status == "completed"


async def test_a_tool_is_tried_again_as_often_as_it_says() -> None:
    tries: list[int] = []

    @tool(retries=2)
    async def flaky() -> str:
        """Fail twice."""
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return "there"

    played = await play(runner(ScriptedModel([ToolCall("p1", "flaky", {})], "fine"), flaky))

    [end] = only(played.log, T.TOOL_CALL_END)
    assert (end["outcome"], end["result"], len(tries)) == ("ok", "there", 3)


async def test_a_result_that_is_no_json_is_an_error_of_the_tool() -> None:
    @tool
    async def odd() -> Any:
        """Give what JSON has not."""
        return object()

    played = await play(runner(ScriptedModel([ToolCall("p1", "odd", {})], "fine"), odd))

    [end] = only(played.log, T.TOOL_CALL_END)
    assert end["outcome"] == "error"


async def test_a_tool_that_nobody_has_is_told_to_the_model() -> None:
    model = ScriptedModel([ToolCall("p1", "ghost", {})], "fine")

    played = await play(runner(model, paint))

    [end] = only(played.log, T.TOOL_CALL_END)
    assert end["outcome"] == "error"
    assert "there are: paint" in model.requests[1].messages[-1]["content"]


def test_a_parameter_without_a_type_is_refused() -> None:
    with pytest.raises(TypeError, match="size"):

        @tool
        async def vague(size) -> None:  # type: ignore[no-untyped-def]
            """Do something."""


def test_a_tool_is_still_a_function() -> None:
    @tool
    def double(size: int) -> int:
        """Double."""
        return 2 * size

    assert double(4) == 8
