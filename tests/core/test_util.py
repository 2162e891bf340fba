from __future__ import annotations

import inspect
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import msgspec
import pytest

from flowtrio._core._util import publish

Publish = Callable[[str, Iterable[Any]], None]

SOURCE = """
from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import attrs
import msgspec

if TYPE_CHECKING:
    from fractions import Fraction


class Plain:
    amount: Decimal
    marked: Annotated[int, "a mark"]

    def double(self) -> Decimal:
        return self.amount * 2


class Child(Plain):
    name: str


class Bare:
    pass


class Unresolvable:
    amount: Decimal
    part: Fraction


class Struct(msgspec.Struct):
    amount: Decimal


@attrs.frozen
class Value:
    amount: Decimal


def function(amount: Decimal) -> Decimal:
    return amount


MARK = Plain()
NUMBER = 3
"""


@pytest.fixture
def home() -> Iterator[types.ModuleType]:
    """A private module of the package, with one of everything that a package re-exports."""
    module = types.ModuleType("flowtrio._pretended")
    sys.modules[module.__name__] = module
    exec(SOURCE, module.__dict__)
    yield module
    del sys.modules[module.__name__]


# Where a name says it lives


@pytest.mark.parametrize("name", ["Plain", "Child", "Bare", "Struct", "Value", "function"])
def test_what_is_published_says_that_it_lives_at_the_door(
    home: types.ModuleType, name: str
) -> None:
    value = getattr(home, name)
    assert value.__module__ == "flowtrio._pretended"

    publish("flowtrio.door", [value])

    assert value.__module__ == "flowtrio.door"


def test_a_traceback_names_the_door(home: types.ModuleType) -> None:
    class Broken(Exception):
        __module__ = "flowtrio._somewhere"

    Broken.__qualname__ = "Broken"  # as at a module's top
    publish("flowtrio.door", [Broken])

    assert traceback.format_exception_only(Broken("why")) == ["flowtrio.door.Broken: why\n"]


def test_what_is_not_ours_keeps_its_home() -> None:
    class Flowtriolike:
        __module__ = "flowtriolike._core"

    foreign = [msgspec.Struct, len, sys, typing.Any, Flowtriolike]
    before = [getattr(value, "__module__", None) for value in foreign]

    publish("flowtrio.door", [*foreign, 3, "text", None])

    assert [getattr(value, "__module__", None) for value in foreign] == before


def test_values_that_are_no_class_and_no_function_are_left_alone(home: types.ModuleType) -> None:
    # An instance shows its class's home, but has no name of its own.
    publish("flowtrio.door", [home.MARK, home.NUMBER])

    assert home.MARK.__module__ == "flowtrio._pretended"
    assert "__module__" not in vars(home.MARK)


def test_one_whose_home_is_no_text_is_left_alone() -> None:
    odd = types.SimpleNamespace(__module__=None, __qualname__="odd")

    publish("flowtrio.door", [odd])

    assert odd.__module__ is None


# Annotations, which others resolve where the class says it lives


def move_only(module: str, values: Iterable[Any]) -> None:
    """The planted bug: only the module is changed."""
    for value in values:
        value.__module__ = module


def annotations_are_kept(publish: Publish, home: types.ModuleType) -> bool:
    """Whether the three who look into classes still understand theirs."""
    # The door exists, and has none of the names that the private module imported.
    door = types.ModuleType("flowtrio.door")
    sys.modules[door.__name__] = door
    try:
        publish("flowtrio.door", [home.Plain, home.Struct, home.Value])
        hints = typing.get_type_hints(home.Plain)
        attrs.resolve_types(home.Value)
        decoded = msgspec.convert({"amount": "1.5"}, home.Struct)
    except NameError:
        return False
    finally:
        del sys.modules[door.__name__]
    decimal = home.Decimal
    field = attrs.fields(home.Value).amount
    return hints["amount"] is decimal and field.type is decimal and decoded.amount == decimal("1.5")


def test_annotations_are_understood_at_the_door(home: types.ModuleType) -> None:
    assert annotations_are_kept(publish, home)


def test_annotations_would_not_be_understood_if_only_the_module_changed(
    home: types.ModuleType,
) -> None:
    assert not annotations_are_kept(move_only, home)


def test_annotations_keep_what_they_are_annotated_with(home: types.ModuleType) -> None:
    publish("flowtrio.door", [home.Plain])

    assert home.Plain.__annotations__["marked"] == typing.Annotated[int, "a mark"]


def test_a_class_gets_no_annotations_but_its_own(home: types.ModuleType) -> None:
    publish("flowtrio.door", [home.Child, home.Bare])

    assert home.Child.__annotations__ == {"name": str}
    assert inspect.get_annotations(home.Bare) == {}


def test_names_that_only_type_checkers_import_stay_text(home: types.ModuleType) -> None:
    publish("flowtrio.door", [home.Unresolvable])

    assert home.Unresolvable.__module__ == "flowtrio.door"
    assert home.Unresolvable.__annotations__ == {"amount": "Decimal", "part": "Fraction"}


def test_a_function_keeps_its_annotations_as_they_are(home: types.ModuleType) -> None:
    publish("flowtrio.door", [home.function])

    assert home.function.__annotations__ == {"amount": "Decimal", "return": "Decimal"}
    assert typing.get_type_hints(home.function)["amount"] is home.Decimal
