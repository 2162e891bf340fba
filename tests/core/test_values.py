from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core._values import check_json, clean_text, copy_json

PROPERTY: Final = settings(
    max_examples=300, deadline=None, database=None, derandomize=True, report_multiple_bugs=False
)

# Text

ANY_TEXT: Final = st.lists(st.sampled_from("ab é€\n😀\ud83d\ude00\udfff\ud800"), max_size=8).map(
    "".join
)


def is_utf_8(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("", ""),
        ("abc", "abc"),
        ("Zürich 😀", "Zürich 😀"),
        ("é\ud83d", "é\ufffd"),
        ("a\ude00", "a\ufffd"),
        ("a\ud83db", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ("\ud83d\ud83d\ude00\ude00", "\ufffd😀\ufffd"),
        ("€\udfff", "€\ufffd"),
    ],
)
def test_a_surrogate_without_its_partner_is_replaced(text: str, clean: str) -> None:
    assert clean_text(text) == clean


def check_cleaning(clean: Callable[[str], str]) -> None:
    @PROPERTY
    @given(ANY_TEXT)
    def agree(text: str) -> None:
        cleaned = clean(text)

        assert is_utf_8(cleaned)
        assert clean(cleaned) == cleaned
        assert cleaned == text or not is_utf_8(text)
        units = text.encode("utf-16-le", "surrogatepass")
        assert len(cleaned) == len(units.decode("utf-16-le", "replace"))

    agree()


def test_cleaned_text_is_fit_for_utf_8_and_keeps_all_else() -> None:
    check_cleaning(clean_text)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda text: text,
        lambda text: text.encode("utf-8", "ignore").decode(),
        lambda text: text.encode("utf-8", "replace").decode(),
        lambda text: text.encode("ascii", "replace").decode(),
    ],
)
def test_a_cleaning_that_keeps_drops_or_spoils_is_found_out(wrong: Callable[[str], str]) -> None:
    with pytest.raises(AssertionError):
        check_cleaning(wrong)


# JSON by RFC 8259, in plain types


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)
    MIXED = {1: "a"}  # noqa: RUF012  (an enum's members are its values)
    OBJECT = object()


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: int


@attrs.frozen
class City:
    name: str
    tags: tuple[str, ...] = ()


@dataclasses.dataclass
class Trip:
    to: City
    when: datetime.date


class Room(msgspec.Struct):
    number: int
    note: str | msgspec.UnsetType = msgspec.UNSET


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (2.5, 2.5),
        ("Zürich 😀", "Zürich 😀"),
        ([1, [2, {"a": None}]], [1, [2, {"a": None}]]),
        ((1, (2,)), [1, [2]]),
        ({3}, [3]),
        (frozenset({3}), [3]),
        (Point(1, 2), [1, 2]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        ({1: "a", 2.5: "b", Colour.RED: "c"}, {"1": "a", "2.5": "b", "red": "c"}),
        (Colour.RED, "red"),
        (Colour.PAIR, [1, 2]),
        (Level.HIGH, 3),
        (
            Trip(City("Bern", ("old",)), datetime.date(2024, 2, 29)),
            {"to": {"name": "Bern", "tags": ["old"]}, "when": "2024-02-29"},
        ),
        ([Room(7), Room(8, "sea")], [{"number": 7}, {"number": 8, "note": "sea"}]),
        (decimal.Decimal("1.50"), "1.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC), "2024-02-29T12:00:00Z"),
        (b"ab", "YWI="),
    ],
)
def test_a_value_becomes_what_it_is_in_json(value: Any, plain: Any) -> None:
    assert check_json(value, "value") == plain


Check: TypeAlias = Callable[[Any, str], Any]

VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(ANY_TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)


def is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and is_plain(key) and is_plain(value[key]) for key in value)
    if kind is list:
        return all(map(is_plain, value))
    if kind is str:
        return is_utf_8(value)
    return value is None or kind in (bool, int) or (kind is float and math.isfinite(value))


def says_the_same(value: Any, plain: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == len(plain) and all(map(says_the_same, value, plain))
    if isinstance(value, dict):
        return list(value) == list(plain) and all(says_the_same(value[k], plain[k]) for k in value)
    return type(value) is type(plain) and value == plain


def is_fit(value: Any) -> bool:
    """Whether every number is finite and every text fit for UTF-8."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


def check_checking(check: Check) -> None:
    @PROPERTY
    @given(VALUES)
    def agree(value: Any) -> None:
        if is_fit(value):
            plain = check(value, "value")

            assert is_plain(plain)
            assert says_the_same(value, plain)
        else:
            with pytest.raises(ValueError, match=r"^value"):
                check(value, "value")

    agree()


def test_what_is_fit_for_json_is_copied_and_the_rest_is_refused() -> None:
    check_checking(check_json)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda value, what: value,
        lambda value, what: json.loads(json.dumps(value)),
        lambda value, what: msgspec.json.decode(msgspec.json.encode(value)),
    ],
)
def test_a_check_that_lets_something_through_is_found_out(wrong: Check) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_checking(wrong)


def test_the_copy_does_not_follow_later_changes() -> None:
    value: dict[str, Any] = {"a": [1], "b": {"c": 1}}
    plain = check_json(value, "value")
    value["a"].append(2)
    value["b"]["d"] = 2

    assert plain == {"a": [1], "b": {"c": 1}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "result: expected a finite number, got nan"),
        ({"a": [0, -math.inf]}, "result.a[1]: expected a finite number, got -inf"),
        ("\ud800", "result: text with lone surrogates is not JSON"),
        (["é\udfff"], "result[0]: text with lone surrogates is not JSON"),
        ({"\ud800": 1}, "result: text with lone surrogates is not JSON"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_json(value, "result")

    assert str(caught.value) == message


class Strange(datetime.tzinfo):
    def utcoffset(self, at: datetime.datetime | None) -> datetime.timedelta:
        raise msgspec.EncodeError("no offset")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "result: .*object is unsupported"),
        ([1, {"a": 1j}], "result: .*complex is unsupported"),
        (deque([1]), "result: .*deque is unsupported"),
        (iter([1]), "result: .*list_iterator is unsupported"),
        (ValueError("no"), "result: .*ValueError is unsupported"),
        ({None: 1}, "result: Only dicts with"),
        ({(1, 2): 3}, "result: Only dicts with"),
        (Colour.OBJECT, "result: object has no JSON form"),
        ([Colour.MIXED], r"result\[0\]: expected text as key, got int"),
        (datetime.datetime(2024, 2, 29, tzinfo=Strange()), "result: no offset"),
    ],
)
def test_what_has_no_json_form_is_refused_by_its_name(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        check_json(value, "result")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_is_bounded() -> None:
    assert check_json(nested(64), "result") == nested(64)
    for depth in (65, 100, 100_000):
        with pytest.raises(ValueError, match=r"^result.*: nested deeper than 64$") as caught:
            check_json(nested(depth), "result")

        assert len(str(caught.value)) < 120


def test_a_value_that_holds_itself_is_nested_too_deeply() -> None:
    value: list[Any] = []
    value.append(value)

    with pytest.raises(ValueError, match=r"^result: nested deeper"):
        check_json(value, "result")


def test_a_number_too_long_to_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^result"):
        check_json(10**5000, "result")


def test_a_coroutine_is_told_as_a_forgotten_await() -> None:
    async def late() -> None: ...

    with pytest.raises(TypeError, match="got a coroutine that lacks its 'await'"):
        check_json(late(), "result")


# A copy of what was checked


def containers(value: Any) -> list[int]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [id(value)] if isinstance(value, dict | list) else []
    return own + [found for item in inner for found in containers(item)]


def check_copying(copying: Callable[[Any], Any]) -> None:
    @PROPERTY
    @given(VALUES.filter(is_fit))
    def agree(value: Any) -> None:
        plain = check_json(value, "value")
        copied = copying(plain)

        assert is_plain(copied)
        assert copied == plain
        assert not set(containers(plain)) & set(containers(copied))

    agree()


def test_a_copy_of_plain_json_is_equal_and_shares_nothing_that_can_change() -> None:
    check_copying(copy_json)


@pytest.mark.parametrize(
    "wrong", [lambda value: value, copy.copy, lambda value: copy_json([value])[0:1]]
)
def test_a_copy_that_shares_or_adds_something_is_found_out(wrong: Callable[[Any], Any]) -> None:
    with pytest.raises(AssertionError):
        check_copying(wrong)
