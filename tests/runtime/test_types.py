"""Types that people have: in tools, in results, and as the type of an answer."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)

import annotated_types as at
import attrs
import jsonschema
import msgspec
import pydantic
import pytest
import typing_extensions
from pydantic import BaseModel, Field

from flowtrio import Agent, EventType, StreamEngine, ToolCall, tool
from flowtrio._agents._output import Output
from flowtrio._agents._types import JsonType
from flowtrio._core._values import check_json
from flowtrio.testing import ScriptedModel, check_events

T = TypeVar("T")
Some = TypeVar("Some", int, str)
AtMost = TypeVar("AtMost", bound=Annotated[int, at.Le(9)])


class Colour(enum.Enum):
    RED = "red"


class Item(BaseModel):
    name: str
    price: float = Field(gt=0)


class Note(BaseModel):
    text: str
    item: Item | None = None


@attrs.frozen
class Order:
    """What somebody wants."""

    items: list[Item]
    by: str = "post"
    seen: set[int] = attrs.Factory(set)
    when: datetime.date = attrs.Factory(lambda: datetime.date(2026, 1, 2))
    total: int = attrs.field(init=False, default=0)


@dataclasses.dataclass
class Cat:
    name: str


@dataclasses.dataclass
class Dog:
    name: str
    tricks: list[str] = dataclasses.field(default_factory=list)


@attrs.define
class Fish:
    depth: int = attrs.field(validator=attrs.validators.ge(1))


class Bird(TypedDict):
    wings: Required[int]
    egg: NotRequired[Item]


class Worm(typing_extensions.TypedDict, total=False):
    rings: Annotated[int, at.Ge(1)]
    friend: Required[Item]


@dataclasses.dataclass
class Tree:
    item: Item
    kids: list[Tree] = dataclasses.field(default_factory=list)
    root: dataclasses.InitVar[int] = 0
    made: datetime.date = dataclasses.field(default_factory=lambda: datetime.date(2026, 1, 2))
    depth: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Box(Generic[T]):
    inner: T
    more: list[T] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Crate(Box[Item]):
    weight: int = 1


class Letter(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    to_whom: Cat | Dog
    in_it: list[Item] = []


class Point(NamedTuple):
    x: Annotated[int, at.Ge(1)]


class Tagged(msgspec.Struct, tag=True):
    item: Item


Pet = typing_extensions.TypeAliasType("Pet", Cat | Dog)


@dataclasses.dataclass
class Broken:
    a: int

    def __post_init__(self) -> None:
        raise KeyError("never")


@dataclasses.dataclass
class BrokenToo:
    item: Item

    def __post_init__(self) -> None:
        raise KeyError("never")


class BrokenModel(BaseModel):
    a: int

    @pydantic.field_validator("a")
    @classmethod
    def never(cls, value: int) -> int:
        raise KeyError("never")


Id = NewType("Id", Annotated[int, at.Ge(1)])
Items = typing_extensions.TypeAliasType("Items", Annotated[list[Item], at.Len(1, 2)])
Pairs = typing_extensions.TypeAliasType("Pairs", list[tuple[T, int]], type_params=(T,))

TENTHS = Annotated[float, at.MultipleOf(0.1)]

ITEM = {"name": "a", "price": 1.5}
A = Item(name="a", price=1.5)


def dated(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


READ: list[tuple[Any, Any, Any]] = [
    # Models, and what holds them.
    (Item, ITEM, A),
    (list[Item], [ITEM], [A]),
    (dict[str, Item], {"k": ITEM}, {"k": A}),
    (Mapping[str, Sequence[Item]], {"k": [ITEM]}, {"k": [A]}),
    (tuple[Item, ...], [ITEM, ITEM], (A, A)),
    (tuple[Item, int], [ITEM, 1], (A, 1)),
    (Iterable[Item], [ITEM], [A]),
    (Item | None, None, None),
    (Item | int, 3, 3),
    (Order, {"items": [ITEM], "seen": [1]}, Order([A], seen={1})),
    (Note, {"text": "t", "item": ITEM}, Note(text="t", item=A)),
    (Tree, {"item": ITEM, "kids": [{"item": ITEM}]}, Tree(A, [Tree(A)])),
    (Box[Item], {"inner": ITEM, "more": [ITEM]}, Box(A, [A])),
    (Box[int], {"inner": 1}, Box(1)),
    (Crate, {"inner": ITEM, "weight": 2}, Crate(A, weight=2)),
    (Bird, {"wings": 2, "egg": ITEM}, {"wings": 2, "egg": A}),
    (Bird, {"wings": 2}, {"wings": 2}),
    (Worm, {"friend": ITEM}, {"friend": A}),
    (Letter, {"toWhom": {"name": "a"}, "inIt": [ITEM]}, Letter(Cat("a"), [A])),
    # Unions: the first that fits, and of objects one that knows all keys.
    (Cat | Dog, {"name": "a"}, Cat("a")),
    (Dog | Cat, {"name": "a"}, Dog("a")),
    (Cat | Dog, {"name": "a", "tricks": ["sit"]}, Dog("a", ["sit"])),
    (Cat | Dog, {"name": "a", "other": 1}, Cat("a")),
    (Pet | Fish, {"name": "a", "tricks": []}, Dog("a")),
    (Fish | Any, {"a": 1}, {"a": 1}),
    (Cat | dict[str, int], {"name": 1}, {"name": 1}),
    (Cat | dict[str, Item], {"other": ITEM}, {"other": A}),
    (Cat | Fish | Bird | Note | list[int], {"text": "t"}, Note(text="t")),
    (Cat | Fish | Bird | list[int] | None, [1], [1]),
    (Annotated[Cat, "a cat"] | Annotated[Dog, "a dog"], {"name": "a"}, Cat("a")),
    (datetime.datetime | str, "2026-01-02", "2026-01-02"),
    (datetime.date | str, "2026-01-02", dated("2026-01-02")),
    # Constraints.
    (Annotated[int, at.Interval(ge=1, lt=5)], 4, 4),
    (Annotated[int | None, at.Gt(1)], None, None),
    (Annotated[int | float, at.Gt(1)], 1.5, 1.5),
    (TENTHS, 0.3, 0.3),
    (Annotated[int, at.MultipleOf(3)], 9, 9),
    (Annotated[decimal.Decimal, at.MultipleOf(2), at.Lt(9)], "4", decimal.Decimal(4)),
    (Annotated[str, at.Len(1, 3), at.Predicate(str.islower)], "abc", "abc"),
    (at.LowerCase[str], "abc", "abc"),
    (Annotated[bytes, at.MaxLen(2)], "YQ==", b"a"),
    (Annotated[dict[str, int], at.MinLen(1)], {"a": 1}, {"a": 1}),
    (Annotated[set[int], at.MinLen(1)], [1], {1}),
    (Annotated[list[Item], msgspec.Meta(max_length=1)], [ITEM], [A]),
    (Annotated[list[str], at.MinLen(0), at.Len(0, None)], [], []),
    (Annotated[datetime.date, at.Ge(dated("2026-01-01"))], "2026-01-02", dated("2026-01-02")),
    (Annotated[datetime.datetime, at.Timezone(None)], "2026-01-02T00:00:00", ...),
    (Annotated[datetime.datetime, at.Timezone(...)], "2026-01-02T00:00:00Z", ...),
    (Annotated[int, Field(gt=3, description="d")], 4, 4),
    (Annotated[str, pydantic.AfterValidator(str.upper)], "a", "A"),
    (pydantic.conint(gt=3), 4, 4),
    (pydantic.confloat(ge=0), 0.5, 0.5),
    (pydantic.condecimal(max_digits=2), "1.5", decimal.Decimal("1.5")),
    (Annotated[Item, Field(description="d"), "what is sold"], ITEM, A),
    (Annotated[str, at.Len(1), msgspec.Meta(pattern="^a")], "ab", "ab"),
    (Annotated[int, typing_extensions.Doc("how many")], 1, 1),
    # What else stands in signatures.
    (Colour, "red", Colour.RED),
    (Literal["a", 1], 1, 1),
    (uuid.UUID, str(uuid.UUID(int=1)), uuid.UUID(int=1)),
    (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
    (frozenset[Id], [1, 1], frozenset({1})),
    (dict[Id, Colour], {"1": "red"}, {1: Colour.RED}),
    (dict[int, int], {"1": 2}, {1: 2}),
    (dict[Annotated[str, at.MinLen(2)], Item], {"ab": ITEM}, {"ab": A}),
    (Items, [ITEM], [A]),
    (Pairs[Item], [[ITEM, 1]], [(A, 1)]),
    (Box[Some], {"inner": "a"}, Box("a")),  # type: ignore[valid-type]
    (list[AtMost], [9], [9]),  # type: ignore[valid-type]
    (Box, {"inner": [1]}, Box([1])),
    (Any, {"a": [1]}, {"a": [1]}),
]


@pytest.mark.parametrize(("hint", "value", "expected"), READ, ids=lambda each: str(each)[:40])
def test_a_value_is_read_and_written_again(hint: Any, value: Any, expected: Any) -> None:
    made = JsonType.of(hint)
    schema = {**made.schema, "$defs": made.definitions}
    read = made.convert(value)
    again = check_json(read, "it")

    jsonschema.Draft202012Validator.check_schema(schema)
    if hint != TENTHS:
        # Its own arithmetic is that of floats, by which 0.3 is no multiple of 0.1.
        jsonschema.validate(value, schema)
    assert expected is ... or read == expected
    assert type(read) is type(expected) or expected is ...
    assert made.convert(json.loads(json.dumps(again))) == read


UNFIT: list[tuple[Any, Any, str]] = [
    (list[Item], [ITEM, ITEM, {"name": "a", "price": 0}], "greater than 0 - at `$[2].price`"),
    (Order, {"items": [{"name": "a"}]}, "Field required - at `$.items[0].price`"),
    (Order, {"items": [], "by": 1}, "Expected `str`, got `int` - at `$.by`"),
    (Order, {}, "Object missing required field `items`"),
    (Order, [], "Expected `object`, got `array`"),
    (list[Item], {}, "Expected `array`, got `object`"),
    (dict[str, Item], [], "Expected `object`, got `array`"),
    (dict[str, Item], {"k": {"name": "a"}}, "Field required - at `$[...].price`"),
    (dict[Id, Item], {"secret": ITEM}, "Expected `int`, got `str` - at `$[...]`"),
    (dict[Id, int], {"0": 1}, "Expected `int` >= 1 - at `$[...]`"),
    (tuple[Item, int], [ITEM], "Expected `array` of length 2, got 1"),
    (tuple[Item, int], [ITEM, "a"], "Expected `int`, got `str` - at `$[1]`"),
    (tuple[Item, int], 3, "Expected `array`, got `int`"),
    (set[Cat | Dog], [{"name": "a"}], "TypeError: unhashable type"),
    (Item | None, {"name": "a"}, "Field required - at `$.price`"),
    (Cat | Dog, 3, "Expected `Cat | Dog`, got `int`"),
    (
        Cat | Fish,
        {"depth": "x"},
        "`Cat | Fish`, got `object`; as `Fish`: Expected `int`, got `str`",
    ),
    (Cat | Dog | None, 3, "Expected `Cat | Dog | null`, got `int`"),
    (Cat | Dog | None, {"name": 1}, "as `Dog`: Expected `str`, got `int` - at `$.name`"),
    (
        Pet | Fish,
        {"name": 1},
        "Expected `Cat | Dog | Fish`, got `object`; as `Cat | Dog`: as `Cat`",
    ),
    (Broken, {"a": 1}, "KeyError: 'never'"),
    (BrokenToo, {"item": ITEM}, "KeyError: 'never'"),
    (BrokenModel, {"a": 1}, "KeyError: 'never'"),
    (list[Cat | Dog], [{"name": "a", "tricks": [1]}], "as `Dog`: Expected `str`, got `int` - at"),
    (Fish | Item, {"depth": 0}, "as `Fish`: 'depth' must be >= 1: 0"),
    (Box[Item] | Bird, 3, "Expected `Box[Item] | Bird`, got `int`"),
    (Letter, {"toWhom": {"name": "a"}, "zz": 1}, "Object contains unknown field `zz`"),
    (Annotated[int, at.Interval(gt=1, le=5)], 6, "Expected `int` <= 5"),
    (list[Annotated[str, at.MinLen(2)]], ["ab", "a"], "Expected `str` of length >= 2 - at `$[1]`"),
    (TENTHS, 0.35, "Expected `float` that's a multiple of 0.1"),
    (Annotated[int, at.Predicate(str.islower)], 1, "for which str.islower holds: TypeError: "),
    (Annotated[datetime.datetime, at.Timezone(None)], "2026-01-02T00:00:00Z", "without timezone"),
    (Annotated[list[Item], msgspec.Meta(max_length=0)], [ITEM], "`array` of length <= 0"),
    (Annotated[dict[str, Item], at.MinLen(1)], {}, "`object` of length >= 1"),
    (Annotated[str, msgspec.Meta(pattern="^a"), "t"], "b", "Expected `str` matching regex '^a'"),
    (Colour, "x" * 1000, "Invalid enum value 'xxx"),
]


@pytest.mark.parametrize(("hint", "value", "words"), UNFIT, ids=lambda each: str(each)[:40])
def test_what_does_not_fit_is_told_by_its_place(hint: Any, value: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        JsonType.of(hint).convert(value)

    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


class Secretive:
    def __init__(self, **given: Any) -> None:
        raise KeyError("never")


def unreadable() -> Any:
    class Unreadable:
        item: Item
        other: Missing  # type: ignore[name-defined] # noqa: F821

    return dataclasses.dataclass(Unreadable)


class Anything(BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    thing: Secretive


@dataclasses.dataclass
class Lost:
    name: str
    key: dataclasses.InitVar[str]


@dataclasses.dataclass
class Told:
    name: str
    count: Annotated[int, Field(default=3)]


REFUSED: list[tuple[Any, str]] = [
    (complex, "complex: has no JSON form"),
    (list[Cat | complex], "complex: has no JSON form"),
    (Callable[[int], int], "has no JSON form"),
    (Annotated[int, object()], "is no constraint that can be applied"),
    (Annotated[Item, object()], "is no constraint that can be applied"),
    (Annotated[int, Field(gt=1), object()], "is no constraint that can be applied"),
    (Annotated[int | str, object()], "is no constraint that can be applied"),
    (Annotated[float, at.Unit("m")], "is no constraint that can be applied"),
    (Annotated[str, at.Ge(1)], "Ge(ge=1) cannot be applied to str"),
    (Annotated[int, at.Ge("a")], "cannot be applied to int"),
    (Annotated[Item, at.Ge(1)], "cannot be applied to Item"),
    (Annotated[int | str, at.Ge(1)], "cannot be applied to str"),
    (Annotated[int, at.Len(1)], "cannot be applied to int"),
    (Annotated[list[int], at.MinLen(-1)], "cannot be applied to list"),
    (Annotated[str, at.MultipleOf(2)], "cannot be applied to str"),
    (Annotated[list[Item], msgspec.Meta(pattern="a")], "cannot be applied to list"),
    (Annotated[datetime.datetime, at.Timezone("Europe/Oslo")], "cannot be applied to datetime"),
    (Annotated[str, msgspec.Meta(ge=1)], "Meta(ge=1) cannot be applied to str"),
    (Point, "Point: has no JSON form"),
    (Tagged, "Tagged: expected a Struct without a tag"),
    (unreadable(), "NameError: name 'Missing' is not defined"),
    (Anything, "PydanticInvalidForJsonSchema"),
    (Annotated[Cat, Field(description="d"), at.Ge(1)], "cannot be applied to Cat"),
    (Lost, "Lost.key: an InitVar has no JSON form"),
    (list[Lost | Item], "Lost.key: an InitVar has no JSON form"),
    (Told, "count: a default in Annotated"),
]


@pytest.mark.parametrize(("hint", "words"), REFUSED, ids=lambda each: str(each)[:40])
def test_what_cannot_be_applied_is_refused_when_it_is_made(hint: Any, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        JsonType.of(hint)
    with pytest.raises(TypeError, match="output="):
        Output.of(hint)

    assert words in str(caught.value)


def test_what_is_told_of_a_constraint_stands_in_the_schema() -> None:
    def schema(hint: Any) -> dict[str, Any]:
        return JsonType.of(hint).schema

    assert schema(Annotated[int, at.Interval(ge=1, lt=5), "how many"]) == {
        **{"type": "integer", "minimum": 1, "exclusiveMaximum": 5},
        "description": "how many",
    }
    assert schema(Annotated[list[Item], at.Len(1, 2)])["maxItems"] == 2
    assert schema(Annotated[dict[str, Item], at.Len(1, 2)])["minProperties"] == 1
    assert schema(dict[Annotated[str, at.MinLen(2)], Item])["propertyNames"]["minLength"] == 2
    assert schema(Annotated[int, Field(gt=3, description="d")])["description"] == "d"


def test_classes_tell_their_texts_and_defaults() -> None:
    made = JsonType.of(Order | Crate | Letter | Cat)

    assert made.definitions["Order"]["description"] == "What somebody wants."
    assert made.definitions["Order"]["properties"]["by"] == {"type": "string", "default": "post"}
    assert made.definitions["Order"]["required"] == ["items"]
    assert "description" not in made.definitions["Crate"]
    assert made.definitions["Letter"]["additionalProperties"] is False


def test_a_default_without_a_json_form_is_not_told() -> None:
    @dataclasses.dataclass
    class Odd:
        item: Item
        other: int = object()  # type: ignore[assignment]

    made = JsonType.of(Odd)

    assert made.definitions["Odd"]["properties"]["other"] == {"type": "integer"}


def test_two_definitions_of_one_name_are_kept_apart() -> None:
    def model(**fields: Any) -> Any:
        inner = pydantic.create_model("Inner", **fields)
        return pydantic.create_model("Outer", inner=(inner, ...), more=(list[inner], []))

    made = JsonType.of(tuple[model(a=(int, ...)), model(b=(str, ...)), Box[Item], Box[Note]])
    schema = {**made.schema, "$defs": made.definitions}
    value = [{"inner": {"a": 1}}, {"inner": {"b": "x"}}, {"inner": ITEM}, {"inner": {"text": "t"}}]

    jsonschema.validate(value, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([value[1], value[0], *value[2:]], schema)
    assert made.convert(value)[1].inner.b == "x"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement is newer")
def test_an_alias_by_its_statement_is_what_it_stands_for() -> None:
    names: dict[str, Any] = {"Item": Item}
    exec("type Many[T] = list[T]\ntype Named = dict[str, Many[Item]]", names)
    made = JsonType.of(names["Named"])

    assert made.convert({"a": [ITEM]}) == {"a": [A]}


# Where types are used


def test_a_tool_tells_and_reads_all_of_them_without_references() -> None:
    @tool
    def order(
        item: Item,
        pet: Cat | Dog,
        count: Annotated[int, at.Gt(0)] = 1,
        past: list[Item] = [],  # noqa: B006
    ) -> None:
        """Order something.

        Args:
          item: What it is.
          count: How many.

        """

    properties = order.parameters["properties"]
    read = order.decode({"item": ITEM, "pet": {"name": "a"}})

    assert properties["item"]["description"] == "What it is."
    assert properties["count"]["exclusiveMinimum"] == 0
    assert properties["count"]["default"] == 1
    assert properties["past"]["default"] == []
    assert "$ref" not in json.dumps(order.parameters)
    assert read == {"item": A, "pet": Cat("a"), "count": 1, "past": []}
    assert order.decode({"item": ITEM, "pet": {"name": "a"}})["past"] is not read["past"]
    with pytest.raises(ValueError, match=r"arguments of 'order': Field required - at `\$\.item\.p"):
        order.decode({"item": {"name": "a"}, "pet": {"name": "a"}})
    with pytest.raises(ValueError, match="Object contains unknown field `zz`"):
        order.decode({"item": ITEM, "pet": {"name": "a"}, "zz": 1})


def test_a_tool_refuses_what_it_cannot_apply() -> None:
    def odd(count: Annotated[int, object()]) -> None: ...

    def late(count: int = Field(3, gt=1)) -> None: ...

    def early(count: Annotated[int, Field(default=3)]) -> None: ...

    def both(count: Annotated[int, Field(default=3)] = 4) -> None: ...

    with pytest.raises(TypeError, match=r"tool 'odd': .* is no constraint"):
        tool(odd)
    with pytest.raises(TypeError, match=r"tool 'late': the default of 'count' is a Field\(\)"):
        tool(late)
    with pytest.raises(TypeError, match=r"tool 'early': count: a default in Annotated"):
        tool(early)
    assert tool(both).decode({}) == {"count": 4}


def test_the_place_in_an_answer_that_is_no_object_is_that_in_its_wrapping() -> None:
    with pytest.raises(ValueError, match=r"greater than 0 - at `\$\.result\[0\]\.price`"):
        Output.of(list[Item]).decode('{"result": [{"name": "a", "price": 0}]}')


async def test_an_agent_answers_and_its_tools_return_models() -> None:
    @tool
    async def price(item: Item) -> list[Item]:
        return [item, Item(name="b", price=2)]

    turns = [[ToolCall("p1", "price", {"item": ITEM})], json.dumps({"text": "t", "item": ITEM})]
    with ScriptedModel(*turns) as model:
        agent = Agent(llm_client=model, tools=[price], output=Note)
        async with StreamEngine().stream(agent, "What is it?") as stream:
            events = [event async for event in stream]

    check_events(events)
    [end] = [event.data for event in events if event.type == EventType.TOOL_CALL_END]
    assert end["result"] == [ITEM, {"name": "b", "price": 2.0}]
    assert events[-1].data["result"] == {"text": "t", "item": ITEM}
    assert await stream.result() == Note(text="t", item=A)


async def test_an_agent_may_answer_with_none() -> None:
    with ScriptedModel('{"result": null}') as model:
        async with StreamEngine().stream(
            Agent(llm_client=model, output=Item | None), "?"
        ) as stream:
            assert await stream.result() is None
