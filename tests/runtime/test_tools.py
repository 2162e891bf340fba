"""Tools: the schema that a model is told, and the strict decoding of what it answers."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import math
from contextlib import suppress
from typing import Annotated, Any, Final, Literal, Optional

import attrs
import jsonschema
import pytest
import trio
from pydantic import Field

from flowtrio import EventType, Limits, RunContext, ToolCall, tool
from flowtrio._agents._threads import Thread
from flowtrio._agents._tools import as_tool
from flowtrio._core._values import told
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import calling, only, play, runner

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


LARGE = ["x" * 50]


async def returns_much(ctx: RunContext, message: str = "") -> Any:
    return LARGE


async def delegates(ctx: RunContext, message: str) -> Any:
    with suppress(ValueError):
        await ctx.delegate(returns_much, "go")
    return "fine"


async def test_the_result_of_an_agent_is_bounded_like_that_of_a_tool() -> None:
    words = "result: has more than result_bytes=50 bytes as JSON"
    for agent, type, error in (
        (runner(calling("much"), tool(name="much")(returns_much)), T.TOOL_CALL_END, words),
        (delegates, T.AGENT_END, words),
        (returns_much, T.ERROR, words),
    ):
        log = (await play(agent, limits=Limits(result_bytes=50))).log

        assert error in only(log, type)[0]["error"]
        assert "xxx" not in str(log)


async def test_what_is_told_in_between_is_bounded_like_a_result() -> None:
    async def tells(ctx: RunContext) -> None:
        for tell in (ctx.progress, functools.partial(ctx.custom, "news")):
            with pytest.raises(ValueError, match="has more than result_bytes=50 bytes as JSON"):
                await tell(LARGE)

    played = await play(
        runner(calling("tells"), tool(name="tells")(tells)), limits=Limits(result_bytes=50)
    )

    assert only(played.log, T.TOOL_CALL_END)[0]["outcome"] == "ok"
    assert "xxx" not in str(played.log)


async def test_a_value_that_shares_its_children_does_not_hold_up_the_run() -> None:
    value: Any = "x" * 100
    for _ in range(60):
        value = [value, value]

    async def returns_it(ctx: RunContext, message: str) -> Any:
        return value

    for agent in (returns_it, runner(calling("it"), tool(name="it")(lambda: value))):
        played = await play(agent)

        assert "has more than result_bytes=1048576 bytes" in str(played.log)


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (ValueError("x" * 20_000_000), "ValueError: xxx"),
        (Wordless(), "Wordless"),
        (ValueError("\ud800"), "ValueError: \ufffd"),
    ],
    ids=["long", "wordless", "unfit"],
)
@pytest.mark.parametrize("fatal", [False, True])
async def test_what_a_tool_raises_is_told_in_bounded_text_everywhere(
    exc: Exception, words: str, fatal: bool
) -> None:
    @tool(fatal=fatal)
    async def failing() -> None:
        raise exc

    model = calling("failing")
    played = await play(runner(model, failing))

    assert only(played.log, T.TOOL_CALL_END)[0]["error"].startswith(words)
    assert only(played.log, T.ERROR)[0]["error"].startswith(words) if fatal else model.requests[1]
    assert len(str(played.log)) < 30_000
    assert len(str(played.stream.messages)) < 10_000


async def test_a_tool_that_nobody_has_is_told_to_the_model() -> None:
    model = ScriptedModel([ToolCall("p1", "ghost", {})], "fine")

    played = await play(runner(model, paint))

    [end] = only(played.log, T.TOOL_CALL_END)
    assert end["outcome"] == "error"
    assert "there are: paint" in model.requests[1].messages[-1]["content"]


def test_a_default_of_none_may_be_said_whatever_the_annotation_says() -> None:
    @tool
    def find(
        name: str = None,  # type: ignore[assignment] # noqa: RUF013 - people write it
        size: Annotated[int, Field(ge=1)] = None,  # type: ignore[assignment] # noqa: RUF013
        other: int | None = None,
        anything: Any = None,
    ) -> None:
        """Find something.

        Args:
          name: What it is called.

        """

    properties = find.parameters["properties"]
    assert properties["name"] == {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "description": "What it is called.",
        "default": None,
    }
    assert properties["other"] == {
        "anyOf": [{"type": "integer"}, {"type": "null"}],
        "default": None,
    }
    assert find.decode({"name": None, "size": None}) == find.decode({})
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        find.decode({"size": 0})


@pytest.mark.parametrize(
    "name", ["__x", "___x", "_x", "__slots__", "__dict__", "__doc__", "__post_init__", "p1"]
)
def test_a_parameter_may_have_any_name(name: str) -> None:
    """Also one that no field of a class may have, or that classes have for themselves."""
    made: dict[str, Any] = {}
    exec(f"def look({name}: int, p0: list[int] = []) -> int:\n    'Look.'", made)
    form = tool(made["look"])

    assert form.parameters["required"] == [name]
    assert form.decode({name: 1}) == {name: 1, "p0": []}
    with pytest.raises(ValueError, match=f"{name}"):
        form.decode({name: "x"})


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
        (paint, "expected a function"),
    ],
)
def test_what_cannot_be_called_by_a_model_is_refused(fn: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        tool(fn)


NO_TIMES: Final = [0, -1, -0.5, math.nan, -math.inf, 10**400, 2**53 + 1, True, "long", [1], 1j]
NO_COUNTS: Final = [-1, 0.5, 2.0, math.nan, math.inf, 10**400, 10**5000, 2**53 + 1, True, "1", [1]]
NO_BOOLS: Final = [None, 0, 1, "no", [], math.nan]


async def _asks(arguments: dict[str, Any]) -> bool:
    return False


class Unspeakable:
    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("timeout", value) for value in NO_TIMES),
        *(("retries", value) for value in [*NO_COUNTS, None]),
        *(("concurrency", value) for value in [*NO_COUNTS, 0]),
        *((option, value) for option in ("abandon", "fatal") for value in NO_BOOLS),
        *(("needs_approval", value) for value in [*NO_BOOLS, _asks]),
        *(("name", value) for value in ["two words", "a" * 65, "zürich", 7, b"a", ["a"]]),
        *((option, Unspeakable()) for option in ("timeout", "retries", "fatal", "name")),
    ],
    ids=lambda value: value.__name__ if value is _asks else told(value),
)
def test_an_option_that_means_nothing_is_refused_where_it_is_given(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{option}.*: expected ") as caught:
        tool(**{option: value})(simple)

    assert len(str(caught.value)) < 300


def test_an_option_that_nobody_knows_is_refused() -> None:
    with pytest.raises(TypeError, match="unknown options colour"):
        tool(colour=1)(simple)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("timeout", value) for value in (0.05, 1, 2**53, math.inf, None)),
        *(("retries", value) for value in (0, 3)),
        *(("concurrency", value) for value in (1, 2**53, None)),
        *((option, True) for option in ("abandon", "fatal", "needs_approval")),
        *((("needs_approval", bool), ("name", "a" * 64))),
    ],
)
def test_an_option_is_kept_as_it_was_given(option: str, value: Any) -> None:
    assert getattr(tool(**{option: value})(simple), option) == value


def test_an_annotation_that_means_nothing_is_told() -> None:
    def odd(size: "Nowhere") -> None:  # type: ignore[name-defined] # noqa: F821, UP037
        """Do something."""

    def faulty(size: "1 / 0") -> None:  # type: ignore[valid-type] # noqa: UP037
        """Do something."""

    def unfit(size: trio.Event) -> None:
        """Do something."""

    for fn in (odd, faulty, unfit):
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


async def test_a_static_method_is_a_tool_where_its_class_says_so() -> None:
    class Shop:
        @tool
        @staticmethod
        async def price(count: int) -> int:
            """Tell the price."""
            return count * 2

    assert Shop.price.is_async
    assert Shop.price.description == "Tell the price."
    assert await Shop.price(count=2) == 4


# What stands around a function


class Refused(Exception):
    pass


def guarded(fn: Any) -> Any:
    """A decorator as people write it: nothing passes."""

    @functools.wraps(fn)
    async def guard(*args: Any, **keywords: Any) -> Any:
        raise Refused("nobody passes")

    return guard


class Guard:
    """The same as a class."""

    def __init__(self, fn: Any) -> None:
        functools.update_wrapper(self, fn)

    async def __call__(self, *args: Any, **keywords: Any) -> Any:
        raise Refused("nobody passes")


async def simple(size: int) -> str:
    """Do something simple.

    Args:
      size: How large.

    """
    ran.append(size)
    return "done"


ran: list[int] = []


class Holder:
    async def simple(self, size: int) -> str:
        """Do something simple."""
        ran.append(size)
        return "done"


@pytest.mark.parametrize("guard", [guarded, Guard])
@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(simple, id="function"),
        pytest.param(tool(name="simple")(simple), id="tool"),
        pytest.param(Holder().simple, id="method"),
        pytest.param(functools.partial(simple), id="partial"),
        pytest.param(guarded(simple), id="guarded twice"),
        pytest.param(functools.partial(tool(name="simple")(simple)), id="partial of a tool"),
    ],
)
async def test_a_wrapper_around_what_became_a_tool_before_is_what_runs(
    guard: Any, inner: Any
) -> None:
    ran.clear()
    before = runner_of([inner]).tools[0]
    wrapper = guard(inner)
    if isinstance(inner, functools.partial):
        wrapper.__name__ = "simple"
    model = ScriptedModel([ToolCall("p1", "simple", {"size": 1})], "fine")

    played = await play(runner(model, wrapper))
    [end] = only(played.log, T.TOOL_CALL_END)

    assert end["error"] == "Refused: nobody passes"
    assert ran == []
    assert model.requests[0].tools[0]["function"]["parameters"] == before.parameters


def remembers_the_first(fn: Any) -> Any:
    """A planted bug: the tool that was kept, whatever it was made for."""
    if "_flowtrio_tool" not in fn.__dict__:
        fn.__dict__["_flowtrio_tool"] = tool(fn)
    return fn.__dict__["_flowtrio_tool"]


@pytest.mark.parametrize(("make", "is_right"), [(as_tool, True), (remembers_the_first, False)])
def test_each_function_has_a_tool_of_its_own(make: Any, is_right: bool) -> None:
    def plain(size: int) -> int:
        return size

    made = make(plain)
    wrapper = guarded(plain)

    assert made.fn is plain
    assert (make(wrapper).fn is wrapper) is is_right
    assert make(wrapper) is make(wrapper)
    assert make(plain) is made


def test_what_stands_around_a_tool_keeps_its_name_text_and_options() -> None:
    inner = tool(name="careful", timeout=3, retries=1, needs_approval=True, fatal=True)(simple)

    outer = as_tool(guarded(inner))
    partial = as_tool(functools.partial(inner))
    changed = tool(name="quick", timeout=1, needs_approval=False)(guarded(inner))

    for made in (outer, partial):
        assert (made.name, made.timeout, made.retries) == ("careful", 3, 1)
        assert made.needs_approval is made.fatal is made.is_async is True
        assert made.spec() == inner.spec()
    assert (changed.name, changed.timeout, changed.retries) == ("quick", 1, 1)
    assert changed.needs_approval is False


def test_who_is_told_of_a_tool_may_change_what_it_was_told() -> None:
    made = as_tool(simple)
    told = made.spec()

    told["function"]["parameters"].clear()

    assert made.spec()["function"]["parameters"]["type"] == "object"


def test_a_function_that_remembers_its_results_is_a_tool_like_the_function() -> None:
    @functools.lru_cache
    def half(size: int) -> float:
        """Halve."""
        return size / 2

    made = as_tool(half)

    assert (made.name, made.description, made.is_async) == ("half", "Halve.", False)
    assert made.decode({"size": 3}) == {"size": 3}
    assert made(size=3) == 1.5


def test_a_callable_object_has_the_name_of_its_class() -> None:
    class Sell:
        def __call__(self, count: int) -> int:
            """Sell."""
            return -count

    assert (as_tool(Sell()).name, as_tool(Sell()).description) == ("Sell", "Sell.")


def test_a_signature_of_ones_own_is_what_the_model_is_told() -> None:
    def any_of(**keywords: Any) -> Any:
        return keywords

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("size", kind, annotation=int)]
    any_of.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

    assert as_tool(any_of).parameters["required"] == ["size"]


class Endless:
    """Gives another one, whatever it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return Endless()

    def __call__(self, size: int) -> int:
        return size


def test_what_stands_around_itself_is_refused() -> None:
    async def around(size: int) -> None: ...

    around.__wrapped__ = around  # type: ignore[attr-defined]

    for fn in (around, Endless()):
        with pytest.raises((TypeError, ValueError), match=r"^tool"):
            tool(name="around")(fn)


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
    thread = Thread(lambda: ran.append("too late"))
    thread.limiter = limiter
    await limiter.acquire_on_behalf_of(thread)
    with trio.CancelScope() as scope:
        scope.cancel()
        await thread.wait()

    await thread.work()

    assert ran == []
    assert limiter.borrowed_tokens == 0


@pytest.mark.parametrize("known", [True, False], ids=["imported", "for type checkers only"])
@pytest.mark.parametrize(
    "annotation", ["RunContext", "RunContext | None", "Optional[RunContext]", "None | RunContext"]
)
def test_a_context_is_known_by_its_annotation(annotation: str, known: bool) -> None:
    names: dict[str, Any] = {"RunContext": RunContext} if known else {}
    exec(
        "from __future__ import annotations\n"
        "from typing import Optional\n"
        f"def f(ctx: {annotation}, size: int) -> str: ...",
        names,
    )

    assert tool(names["f"]).context_parameter == "ctx"


class Mine(RunContext):
    """Nobody makes one of these."""


@pytest.mark.parametrize("annotation", [list[RunContext], RunContext | int | None, Mine])
def test_what_is_no_context_is_not_taken_for_one(annotation: Any) -> None:
    def f(ctx: Any) -> str:
        return ""

    f.__annotations__["ctx"] = annotation

    with pytest.raises(TypeError, match="tool 'f'"):
        tool(f)
