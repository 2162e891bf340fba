"""Types that pydantic reads and writes, and others that look like its models."""

from __future__ import annotations

import datetime
import enum
from typing import Annotated, Any, Literal

import pydantic
import pytest
from pydantic import BaseModel, Field
from pydantic_core import core_schema

from flowtrio._core._foreign import Foreign, ForeignError, is_foreign, is_foreign_note
from flowtrio._core._values import check_json


class Colour(enum.Enum):
    RED = "red"


class Item(BaseModel):
    name: str
    price: float = Field(gt=0, alias="cost")
    when: datetime.date | None = None
    colours: set[Colour] = set()


class Exact(BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    when: datetime.date


class Open(BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    name: str


class Tree(BaseModel):
    kids: list[Tree] = []


@pydantic.dataclasses.dataclass
class Pair:
    left: int
    right: Item


class Numbers(pydantic.RootModel[list[int]]):
    pass


class LooksLikeOne:
    """What has a model's methods is one, whoever wrote it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @staticmethod
    def model_json_schema(**options: Any) -> dict[str, Any]:
        return {"type": "integer"}

    @classmethod
    def model_validate(cls, value: Any) -> LooksLikeOne:
        if type(value) is not int:
            raise ValueError("Expected `int`")
        return cls(value)

    def model_dump(self, **options: Any) -> Any:
        return self.value


class Degrees:
    """What only tells pydantic how it is read."""

    def __init__(self, value: float) -> None:
        self.value = value

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.float_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda it: it.value),
        )


ITEM = {"name": "a", "cost": 1.5, "when": "2026-01-02", "colours": ["red"]}

CASES: list[tuple[Any, Any]] = [
    (Item, ITEM),
    (Exact, {"when": "2026-01-02"}),
    (Open, {"name": "a", "other": 1}),
    (Tree, {"kids": [{"kids": []}]}),
    (Pair, {"left": 1, "right": ITEM}),
    (Numbers, [1, 2]),
    (pydantic.SecretStr, "**********"),
    (pydantic.HttpUrl, "https://example.org/"),
    (LooksLikeOne, 3),
    (Degrees, 1.5),
]


@pytest.mark.parametrize(("kind", "value"), CASES)
def test_what_is_read_is_written_by_the_same_names(kind: Any, value: Any) -> None:
    assert is_foreign(kind)

    read = Foreign.of(kind).read(value)

    assert isinstance(read, kind)
    assert check_json(read, "it") == value
    assert check_json([{"in": read}], "it") == [{"in": value}]


@pytest.mark.parametrize("kind", [int, list[int], Colour, pydantic.TypeAdapter, 3, None])
def test_other_types_are_none_of_them(kind: Any) -> None:
    assert not is_foreign(kind)


def test_notes_of_pydantics_are_told_from_others() -> None:
    assert is_foreign_note(Field(gt=1))
    assert is_foreign_note(pydantic.AfterValidator(abs))
    assert is_foreign_note(pydantic.types.StringConstraints(min_length=1))
    assert not is_foreign_note("text")


@pytest.mark.parametrize(
    ("kind", "value", "problems"),
    [
        (Item, {"name": 1, "cost": 0}, [("a valid string", ".name"), ("than 0", ".cost")]),
        (Pair, {"left": 1, "right": {"name": "a"}}, [("required", ".right.cost")]),
        (Tree, {"kids": [{}, {"kids": 3}]}, [("valid array", ".kids[1].kids")]),
        (Numbers, [1, "x", "y", "z", "a"], [("integer", f"[{place}]") for place in (1, 2, 3)]),
        (Annotated[int, Field(gt=3)], 3, [("greater than 3", "")]),
        (LooksLikeOne, "x", [("Expected `int`", "")]),
    ],
)
def test_what_does_not_fit_tells_its_place(
    kind: Any, value: Any, problems: list[tuple[str, str]]
) -> None:
    with pytest.raises(ForeignError) as caught:
        Foreign.of(kind).read(value)

    assert len(caught.value.problems) == len(problems)
    for (words, place), (some, where) in zip(caught.value.problems, problems, strict=True):
        assert some in words
        assert place == where


def test_the_known_keys_are_those_of_the_schema() -> None:
    assert set(Foreign.of(Item).keys or ()) == {"name", "cost", "when", "colours"}
    assert list(Foreign.of(Tree).keys or ()) == ["kids"]
    assert Foreign.of(Open).keys is None
    assert list(Foreign.of(Numbers).keys or ()) == []


def test_a_tagged_union_is_told_without_what_only_openapi_knows() -> None:
    class Cat(BaseModel):
        kind: Literal["cat"]

    class Dog(BaseModel):
        kind: Literal["dog"]

    class Owner(BaseModel):
        pet: Cat | Dog = Field(discriminator="kind", description="d")
        discriminator: str = "a key of one's own"

    schema = Foreign.of(Owner).schema

    assert schema["properties"]["pet"]["description"] == "d"
    assert len(schema["properties"]["pet"]["anyOf"]) == 2
    assert "mapping" not in str(schema)
    assert "discriminator" in schema["properties"]
