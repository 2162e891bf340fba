"""What stands beside a type in ``Annotated``: bounds, lengths and texts.

Those of `annotated_types` and of `msgspec.Meta` are known, told by their names, so that neither has
to be there. What is not known is refused: a constraint that nobody checks is worse than none.
"""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import msgspec

from flowtrio._core._values import told

_NUMBERS = (int, float)
_SIZES = {str: "Length", bytes: "Bytes", list: "Items", dict: "Properties"}
_DIGITS = 1e-9
"""How far a float may be from a multiple, of what it is divided by: 0.3 is one of 0.1."""


@attrs.frozen
class Check:
    """One constraint: how it is told, and what fits."""

    words: str
    """As an error tells it, behind ``Expected``."""
    fits: Callable[[Any], bool]
    schema: dict[str, Any] = attrs.Factory(dict)
    """How it is told by JSON Schema, if that knows it."""


def checks_of(note: Any, kind: Any) -> Iterator[Check]:
    """Read what stands beside a type.

    Args:
      note: It.
      kind: The class that values have: of a list ``list``, of a dataclass itself; None if a value
        may be of several.

    Raises:
      TypeError: it is unknown, or cannot hold for such values.

    """
    for name, bound in _named(note):
        try:
            maker = _MAKERS[name]
        except KeyError:
            raise TypeError(f"{told(note)} is no constraint that can be applied") from None
        check = maker(bound, kind)
        if check is None:
            what = getattr(kind, "__name__", "a union")
            raise TypeError(f"{told(note)} cannot be applied to {what}")
        yield check


def is_text(note: Any) -> bool:
    """Whether it only tells something, and bounds nothing."""
    return all(name in _TEXTS for name, _ in _named(note))


def _named(note: Any) -> Iterable[tuple[str, Any]]:
    """The constraints within one note, each by its name."""
    if note is None:
        # pydantic's conint() and the like leave one for each bound that they were not given.
        return []
    if isinstance(note, str):
        return [("description", note)]
    if isinstance(note, msgspec.Meta):
        every = ((name, getattr(note, name)) for name in _OF_META)
        return [(name, bound) for name, bound in every if bound is not None]
    if isinstance(getattr(note, "documentation", None), str):
        return [("description", note.documentation)]
    names = [base.__name__ for base in type(note).__mro__ if base.__module__ == "annotated_types"]
    for name in names:
        if name in _ATTRIBUTES:
            return [(each, getattr(note, each)) for each in _ATTRIBUTES[name]]
    if "GroupedMetadata" in names:
        return [pair for part in note for pair in _named(part)]
    return [(type(note).__name__, None)]


_TEXTS = ("title", "description", "examples", "extra_json_schema")
_OF_META = (
    *("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz"),
    *_TEXTS,
)
_ATTRIBUTES = {
    "Gt": ("gt",),
    "Ge": ("ge",),
    "Lt": ("lt",),
    "Le": ("le",),
    "MultipleOf": ("multiple_of",),
    "MinLen": ("min_length",),
    "MaxLen": ("max_length",),
    "Predicate": ("func",),
    "Timezone": ("tz",),
}


def _bound(
    sign: str, key: str, fits: Callable[[Any, Any], bool]
) -> Callable[[Any, Any], Check | None]:
    def make(bound: Any, kind: Any) -> Check | None:
        is_number = kind in _NUMBERS
        if not isinstance(bound, _COMPARED.get(kind, ())):
            return None
        schema = {key: bound} if is_number else {}
        return Check(f"`{kind.__name__}` {sign} {bound}", lambda value: fits(value, bound), schema)

    return make


_COMPARED: dict[Any, Any] = {
    # By what values of a type may be compared with.
    int: _NUMBERS,
    float: _NUMBERS,
    decimal.Decimal: (int, decimal.Decimal),
    str: str,
    **{
        kind: kind for kind in (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)
    },
}


def _multiple(bound: Any, kind: Any) -> Check | None:
    if kind not in (*_NUMBERS, decimal.Decimal) or not isinstance(bound, _NUMBERS) or bound <= 0:
        return None

    def fits(value: Any) -> bool:
        if isinstance(value, int) and isinstance(bound, int):
            return value % bound == 0
        share = float(value) / bound
        return abs(share - round(share)) <= _DIGITS * max(1.0, abs(share))

    schema = {} if kind is decimal.Decimal else {"multipleOf": bound}
    return Check(f"`{kind.__name__}` that's a multiple of {bound}", fits, schema)


def _length(which: str, sign: str, is_most: bool) -> Callable[[Any, Any], Check | None]:
    def make(bound: Any, kind: Any) -> Check | None:
        base = list if kind in (set, frozenset, tuple) else kind
        if base not in _SIZES:
            return None
        if type(bound) is not int or bound < 0:
            return None
        schema = {} if base is bytes else {f"{which}{_SIZES[base]}": bound}
        return Check(
            f"`{_json_name(base)}` of length {sign} {bound}",
            (lambda value: len(value) <= bound) if is_most else (lambda value: len(value) >= bound),
            schema,
        )

    return make


def _json_name(kind: type) -> str:
    return "array" if kind is list else "object" if kind is dict else kind.__name__


def _pattern(bound: Any, kind: Any) -> Check | None:
    if kind is not str:
        return None
    search = re.compile(bound).search
    return Check(
        f"`str` matching regex {told(bound)}",
        lambda value: search(value) is not None,
        {"pattern": bound},
    )


def _zone(bound: Any, kind: Any) -> Check | None:
    if kind not in (datetime.datetime, datetime.time) or bound not in (True, False, None, ...):
        # By name, a zone has other hours in summer; a time tells only its distance from UTC.
        return None
    is_aware = bound in (True, ...)
    words = f"`{kind.__name__}` {'with a' if is_aware else 'without'} timezone component"
    return Check(words, lambda value: (value.tzinfo is not None) is is_aware)


def _predicate(fn: Any, kind: Any) -> Check:
    name = getattr(fn, "__qualname__", type(fn).__name__)
    return Check(f"a value for which {name} holds", lambda value: bool(fn(value)))


def _text(key: str) -> Callable[[Any, Any], Check]:
    return lambda bound, kind: Check("", lambda value: True, {key: bound})


_MAKERS: dict[str, Callable[[Any, Any], Check | None]] = {
    "gt": _bound(">", "exclusiveMinimum", lambda value, bound: value > bound),
    "ge": _bound(">=", "minimum", lambda value, bound: value >= bound),
    "lt": _bound("<", "exclusiveMaximum", lambda value, bound: value < bound),
    "le": _bound("<=", "maximum", lambda value, bound: value <= bound),
    "multiple_of": _multiple,
    "min_length": _length("min", ">=", False),
    "max_length": _length("max", "<=", True),
    "pattern": _pattern,
    "tz": _zone,
    "func": _predicate,
    "title": _text("title"),
    "description": _text("description"),
    "examples": _text("examples"),
    "extra_json_schema": lambda bound, kind: Check("", lambda value: True, dict(bound)),
}
