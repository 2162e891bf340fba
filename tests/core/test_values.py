from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import itertools
import json
import math
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core import _values
from flowtrio._core._values import check_json, clean_text, copy_json, told

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


class Counted(int):
    def __int__(self) -> int:
        raise ValueError("no")


class Measured(float):
    """As numpy's float64 is one."""


class Fussy(str):
    """A text that is equal to nothing, and cannot be made one."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __str__(self) -> str:
        raise ValueError("no")


@dataclasses.dataclass
class Raising:
    hidden: int

    def __getattribute__(self, name: str) -> Any:
        raise KeyError(name)


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
        ({Fussy("a"): 1, datetime.date(2024, 2, 29): 2}, {"a": 1, "2024-02-29": 2}),
        ({b"ab": 1, decimal.Decimal("1.50"): 2}, {"YWI=": 1, "1.50": 2}),
        ({uuid.UUID(int=1): 1, Level.HIGH: 2}, {str(uuid.UUID(int=1)): 1, "3": 2}),
        (Colour.MIXED, {"1": "a"}),
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
        ([Fussy("a"), Counted(7), Measured(0.5)], ["a", 7, 0.5]),
        (Measured(0.5), 0.5),
    ],
)
def test_a_value_becomes_what_it_is_in_json(value: Any, plain: Any) -> None:
    made = check_json(value, "value")

    assert made == plain
    assert msgspec.json.decode(msgspec.json.encode(made)) == plain


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
        ({"\ud800": 1}, "result.\ufffd: text with lone surrogates is not JSON"),
        ({2: {2.5: math.nan}}, "result.2.2.5: expected a finite number, got nan"),
        ({Colour.RED: math.nan}, "result.Colour: expected a finite number, got nan"),
        ([Measured("inf")], "result[0]: expected a finite number, got inf"),
        ({1: "a", "1": "b"}, "result: two of its keys are the same text as JSON"),
        (
            [{"1": 1, 1.0: 2, Level.HIGH: 3, "3": 4}],
            "result[0]: two of its keys are the same text as JSON",
        ),
        ({"red": 1, Colour.RED: 2}, "result: two of its keys are the same text as JSON"),
        ({Fussy("a"): 1, "a": 2}, "result: two of its keys are the same text as JSON"),
        (
            City("Bern", ({1: "a", "1": "b"},)),
            "result.tags[0]: two of its keys are the same text as JSON",
        ),
        ({10**5000: 1}, "result.<int>: expected an integer of at most 8192 bits"),
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
        (object(), "result: object has no JSON form"),
        ([1, {"a": 1j}], r"result\[1\]\.a: complex has no JSON form"),
        (deque([1]), "result: deque has no JSON form"),
        (iter([1]), "result: list_iterator has no JSON form"),
        (ValueError("no"), "result: ValueError has no JSON form"),
        (City, "result: type has no JSON form"),
        (type("A" * 1000, (), {})(), "result: A{80} has no JSON form"),
        ({None: 1}, r"result\.NoneType: expected text or a number as key, got NoneType"),
        ({(1, 2): 3}, r"result\.tuple: expected text or a number as key, got tuple"),
        ({Colour.PAIR: 3}, r"result\.Colour: expected text or a number as key, got tuple"),
        ({1j: 3}, r"result\.complex: complex has no JSON form"),
        ({True: 3}, r"result\.bool: expected text or a number as key, got bool"),
        (Colour.OBJECT, "result: object has no JSON form"),
        (
            datetime.datetime(2024, 2, 29, tzinfo=Strange()),
            "result: datetime has no JSON form",
        ),
        ([Raising(1)], r"result\[0\]: Raising has no JSON form"),
    ],
)
def test_what_has_no_json_form_is_refused_by_its_name(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}") as caught:
        check_json(value, "result")

    assert len(str(caught.value)) < 200


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

    with pytest.raises(ValueError, match=r"^result\[0\].*: nested deeper"):
        check_json(value, "result")


# The budget


@attrs.frozen(slots=False)
class Pair:
    one: Any
    other: Any


@attrs.frozen
class Twin:
    one: Any
    other: Any


@dataclasses.dataclass
class Couple:
    one: Any
    other: Any


class Brace(msgspec.Struct):
    one: Any
    other: Any


class Row(msgspec.Struct, array_like=True, tag=True):
    one: Any
    other: Any


class Listed(list[Any]):
    """Has no end for whoever asks it."""

    def __iter__(self) -> Iterator[Any]:
        return itertools.count()

    def copy(self) -> Any:
        return self


def of_an_enum(value: Any) -> Any:
    return enum.Enum("Held", {"IT": value})["IT"]  # type: ignore[call-overload]


Two: TypeAlias = Callable[[Any, Any], Any]

CONTAINERS: Final[dict[str, Two]] = {
    "list": lambda one, other: [one, other],
    "a list's subclass": lambda one, other: Listed([one, other]),
    "tuple": lambda one, other: (one, other),
    "named tuple": Point,
    "dict": lambda one, other: {"one": one, "other": other},
    "dict by number": lambda one, other: {1: one, 2: other},
    "ordered dict": lambda one, other: OrderedDict(one=one, other=other),
    "attrs class": Pair,
    "attrs class with slots": Twin,
    "dataclass": Couple,
    "Struct": Brace,
    "Struct as an array": Row,
    "enum": lambda one, other: of_an_enum((one, other)),
}


def shared(two: Two, depth: int) -> Any:
    """A value whose children are each at two places, so that it has ``2**depth`` leaves."""
    value: Any = 7
    for _ in range(depth):
        value = two(value, value)
    return value


@pytest.mark.parametrize("two", CONTAINERS.values(), ids=list(CONTAINERS))
def test_what_is_shared_counts_as_often_as_it_would_be_written(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(json.dumps(check_json(shared(two, 5), "result"))) > 64
    # Whatever walked over all of it would never come back.
    with pytest.raises(
        ValueError, match=r"^result: has more than result_bytes=4096 bytes as JSON$"
    ):
        check_json(shared(two, 28), "result", limit_bytes=4096)
    monkeypatch.setattr(_values, "_MAX_VALUES", 1000)
    for limit in (None, 10**6, math.inf):
        with pytest.raises(ValueError, match=r"^result: has more than 1000 values$"):
            check_json([shared(two, 28)], "result", limit_bytes=limit)


@pytest.mark.parametrize("two", CONTAINERS.values(), ids=list(CONTAINERS))
def test_a_container_that_holds_itself_is_refused(two: Two) -> None:
    inner: list[Any] = []
    inner.append(two(inner, 1))

    with pytest.raises(ValueError, match=r"^result.*: (nested deeper than 64|has more than .*)$"):
        check_json(inner, "result", limit_bytes=10_000)


def test_sets_share_too() -> None:
    value: Any = frozenset({1, 2})
    for i in range(28):
        value = frozenset({(value, i), (value, -i - 1)})

    with pytest.raises(
        ValueError, match=r"^result: has more than result_bytes=4096 bytes as JSON$"
    ):
        check_json([value, {1}], "result", limit_bytes=4096)


def test_an_enum_that_is_its_own_value_has_an_end() -> None:
    member = of_an_enum(1)
    member._value_ = member

    with pytest.raises(ValueError, match=r"^result: nested deeper than 64$"):
        check_json(member, "result")


@pytest.mark.parametrize(
    "value",
    [
        *("x" * 4095, "é" * 2048, "\n" * 1500, "\x00" * 700, b"x" * 4096, 2**8000),
        *(["x" * 1024] * 4, {"x" * 2048: "x" * 2048}, {2**4000: 2**4000}, [2**4000] * 4),
        *([1] * 2048, [1.5] * 1100, [[]] * 1400, [{"": 1}] * 600, {i: i for i in range(600)}),
        *([-1.7976931348623157e308] * 170, [-(2**63)] * 200),
    ],
    ids=told,
)
def test_what_is_one_byte_too_large_is_refused_and_what_just_fits_is_not(value: Any) -> None:
    size = len(msgspec.json.encode(check_json(value, "result")))

    check_json(value, "result", limit_bytes=size)
    check_json(value, "result", limit_bytes=math.inf)
    with pytest.raises(ValueError, match=f"^result: has more than result_bytes={size - 1} bytes"):
        check_json(value, "result", limit_bytes=size - 1)


def test_a_size_is_bounded_where_nobody_says_one() -> None:
    text = "x" * 1024 * 1024

    check_json([text] * 15, "value")
    for value in ([text] * 16, [[text]] * 10**5, ["\x00" * 1024] * 3000):
        with pytest.raises(ValueError, match=r"^value: has more than 16777216 bytes as JSON$"):
            check_json(value, "value")


def test_many_values_are_refused_before_any_of_them_is_looked_at() -> None:
    with pytest.raises(ValueError, match=r"^value: has more than 500000 values$"):
        check_json([object()] * 500_001, "value", limit_bytes=math.inf)


SHARING: Final = st.recursive(
    st.none()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aé\n\x00😀"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.builds(lambda one, n: [one] * n, inner, st.integers(0, 20))
        | st.builds(lambda one, n: {str(i): one for i in range(n)}, inner, st.integers(0, 20))
        | st.builds(Row, inner, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=8,
)

Bounded: TypeAlias = Callable[[Any, int], Any]


def check_bounding(check: Bounded) -> None:
    @PROPERTY
    @given(SHARING, st.integers(-30, 3))
    def agree(value: Any, more: int) -> None:
        written = msgspec.json.encode(value)
        limit = max(1, len(written) + more)
        if len(written) <= limit:
            assert check(value, limit) == msgspec.json.decode(written)
        else:
            with pytest.raises(ValueError, match=r"^result: has more than"):
                check(value, limit)

    agree()


def bounded(value: Any, limit: int) -> Any:
    return check_json(value, "result", limit_bytes=limit)


def test_a_value_is_refused_exactly_if_its_json_is_larger_than_the_limit() -> None:
    check_bounding(bounded)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda value, limit: check_json(value, "result"),
        lambda value, limit: bounded(value, limit + 1),
        lambda value, limit: bounded(value, limit - 1),
    ],
)
def test_a_bound_that_is_too_wide_or_too_narrow_is_found_out(wrong: Bounded) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, ValueError)):
        check_bounding(wrong)


# Classes are told as msgspec tells them


class Tagged(msgspec.Struct, tag="kind", tag_field="what", rename="camel", omit_defaults=True):
    first_name: str
    nicknames: list[str] = []
    notes: dict[str, int] = {}
    others: set[int] = msgspec.field(default_factory=set)
    points: list[Any] = msgspec.field(default_factory=lambda: [1])
    age: int = 3
    pair: Any = (1, 2)


@attrs.define
class Private:
    _hidden: int
    shown: int = attrs.field(default=2)
    later: int = attrs.field(init=False)


@dataclasses.dataclass(slots=True)
class Slotted:
    _shown: int
    kind: ClassVar[int] = 3
    later: Any = dataclasses.field(init=False)
    note: Any = msgspec.UNSET


@pytest.mark.parametrize(
    "value",
    [
        Tagged("a"),
        Tagged("a", ["b"], {"c": 1}, {3}, [], 4, [5]),
        Tagged("a", [], {}, set(), [1], 3, (1, 2)),
        Row(1, Row(2, [Room(3)])),
        Room(1),
        Private(1),
        Slotted(1),
        Couple(Twin(1, Pair(2, Brace(3, {4: 5}))), Colour.RED),
        {"a": bytearray(b"x"), "b": memoryview(b"y"), "c": datetime.time(1), "d": b""},
        datetime.timedelta(seconds=1.5),
    ],
)
def test_a_class_is_told_as_msgspec_tells_it(value: Any) -> None:
    plain = check_json(value, "value")

    assert plain == msgspec.json.decode(msgspec.json.encode(value))
    assert is_plain(plain)


# Messages


class Quiet(type):
    @property
    def __name__(cls) -> str:
        raise ValueError("no")


class Mute(metaclass=Quiet):
    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        ("é\ud800", "'é\\ud800'"),
        ("x" * 1000, "'" + "x" * 79 + "…"),
        (10**5000, "<int>"),
        (Mute(), "<Mute>"),
    ],
    ids=["number", "text", "long", "digits", "mute"],
)
def test_a_message_tells_a_value_in_few_words(value: Any, text: str) -> None:
    assert told(value) == text


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
