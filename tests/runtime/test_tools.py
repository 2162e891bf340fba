"""Tools: the schema that a model is told, and the strict decoding of what it answers."""

from __future__ import annotations

import dataclasses
import enum
import functools
from typing import Annotated, Any, Literal, Optional

import attrs
import jsonschema
import pytest
import trio

from flowtrio import EventType, RunContext, ToolCall, tool
from flowtrio._runtime._calls import _Thread
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


# What is no tool


def _yields() -> Any:
    yield 1


async def _yields_later() -> Any:
    yield 1


def _any(*args: int) -> None: ...


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (7, "expected a function"),
        (Point, "expected a function"),
        (_yields, "yields"),
        (_yields_later, "yields"),
        (_any, "named parameters"),
    ],
)
def test_what_cannot_be_called_by_a_model_is_refused(fn: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        tool(fn)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": 1}, "unknown options colour"),
        ({"timeout": "long"}, "no number"),
        ({"timeout": True}, "no number"),
        ({"timeout": 0}, "too small"),
        ({"retries": -1}, "too small"),
        ({"retries": 0.5}, "no whole number"),
        ({"concurrency": 0}, "too small"),
        ({"name": "two words"}, "expected 1 to 64"),
    ],
)
def test_options_are_checked_where_they_are_given(options: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        tool(**options)(_any)


def test_an_annotation_that_means_nothing_is_told() -> None:
    def odd(size: "Nowhere") -> None:  # type: ignore[name-defined] # noqa: F821, UP037
        """Do something."""

    def unfit(size: trio.Event) -> None:
        """Do something."""

    for fn in (odd, unfit):
        with pytest.raises(TypeError, match=f"tool '{fn.__name__}'"):
            tool(fn)


def test_partials_methods_and_callable_objects_are_tools_too() -> None:
    def scale(factor: int, size: int) -> int:
        """Scale."""
        return factor * size

    class Shop:
        def buy(self, count: int) -> int:
            """Buy."""
            return count

        def __call__(self, count: int) -> int:
            """Sell."""
            return -count

    doubled = tool(name="double")(functools.partial(scale, 2))
    assert set(doubled.parameters["properties"]) >= {"size"}
    assert doubled(size=4) == 8
    assert tool(Shop().buy).parameters["required"] == ["count"]
    assert tool(name="sell")(Shop())(count=1) == -1


async def test_defaults_that_can_change_are_fresh_for_each_call() -> None:
    @tool
    async def collect(item: str, into: list[str] = []) -> list[str]:  # noqa: B006
        """Collect."""
        into.append(item)
        return into

    wanted = [ToolCall(id, "collect", {"item": id}) for id in ("a", "b")]
    played = await play(runner(ScriptedModel(wanted, "fine"), collect))

    assert [end["result"] for end in only(played.log, T.TOOL_CALL_END)] in (
        [["a"], ["b"]],
        [["b"], ["a"]],
    )


@attrs.define
class Node:
    """Refers to itself, and to what does not."""

    at: Point
    next: Optional[Node] = None  # noqa: UP045 - people write it
    kinds: list[Colour] = attrs.Factory(list)


def test_only_what_refers_to_itself_stays_a_reference() -> None:
    @tool
    async def walk(start: Node, other: Node | None = None) -> None:
        """Walk."""

    schema = walk.parameters
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["$defs"]) == {"Node"}
    jsonschema.validate({"start": {"at": {"x": 1}, "next": {"at": {"x": 2}}}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"start": {"at": {"x": 1}, "next": {"at": {"x": "2"}}}}, schema)


def test_tools_of_one_agent_are_a_list_with_names_of_their_own() -> None:
    with pytest.raises(TypeError, match="expected a list"):
        runner_of(paint)
    with pytest.raises(ValueError, match="names of their own: paint"):
        runner_of([paint, paint])


def runner_of(tools: Any) -> Any:
    from flowtrio import Agent

    return Agent(llm_client=ScriptedModel(), tools=tools)


def test_a_function_becomes_the_same_tool_each_time() -> None:
    def plain(size: int) -> int:
        """Do something."""
        return size

    first, second = runner_of([plain]).tools, runner_of([plain]).tools
    assert first == second
    assert first[0] is second[0]
    assert runner_of([functools.partial(plain, size=1)]).tools[0].name == "plain"


def test_a_tool_may_use_names_that_get_their_value_later() -> None:
    """Its own too: the local name of what is being decorated has no value yet."""

    @tool
    def half(ctx: RunContext, size: int) -> str:
        return str((half, other))

    other = half

    @tool
    def typed(colour: Colour, size: Literal[1, 2]) -> None:
        return other.fn

    assert set(half.parameters["properties"]) == {"size"}
    assert typed.parameters["properties"]["size"]["enum"] == [1, 2]


def test_a_context_that_only_type_checkers_know_is_the_context() -> None:
    source = """
from __future__ import annotations

async def step(ctx: RunContext, size: int) -> int:
    return size
"""
    names: dict[str, Any] = {}
    exec(compile(source, "module", "exec", dont_inherit=True), names)

    assert set(tool(names["step"]).parameters["properties"]) == {"size"}


async def test_a_thread_that_nobody_waits_for_any_more_does_not_begin() -> None:
    ran: list[str] = []
    limiter = trio.CapacityLimiter(1)
    thread = _Thread(lambda: ran.append("too late"))
    thread.limiter = limiter
    await limiter.acquire_on_behalf_of(thread)
    with trio.CancelScope() as scope:
        scope.cancel()
        await thread.wait()

    await thread.work()

    assert ran == []
    assert limiter.borrowed_tokens == 0
