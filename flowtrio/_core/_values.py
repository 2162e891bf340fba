"""Values that come from users, made fit for events: JSON by RFC 8259, in plain Python types."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import re
import types
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
import msgspec

from ._foreign import opener_of

_MAX_DEPTH = 64
"""Nesting of a value; deeper ones are refused, since readers would refuse them too."""

_MAX_BITS = 8192
"""Size of an integer: readers refuse to turn thousands of digits into one."""

_MAX_BYTES = 16 * 1024 * 1024
"""Size of a value as JSON where nobody says another."""

_MAX_VALUES = 500_000
"""Values within a value: they take a third of a second, in which nothing else runs."""

_MAX_TOLD = 80
"""Characters of a value, a name or a path in a message."""

_NAME_OF_TYPE = type.__dict__["__name__"]
_CONTAINERS = frozenset((dict, list))


def clean_text(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot carry, by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # A pair that was cut into two escapes is joined; what has no partner is replaced.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def squashed(word: str) -> str:
    """A word without what different hosts write differently in it: capitals, and signs between."""
    return re.sub(r"[\W_]", "", word.lower())


def told(value: object) -> str:
    """A value as a message tells it: its ``repr``, of a bounded length, or its type's name."""
    try:
        text = clean_text(str.__str__(repr(value)))
    except Exception:
        # Also a whole number of more digits than Python likes to write.
        return f"<{type_name(value)}>"
    return text if len(text) <= _MAX_TOLD else f"{text[:_MAX_TOLD]}…"


def type_name(value: object) -> str:
    """The name of a value's type, of a bounded length, whatever its metaclass says."""
    name: str = _NAME_OF_TYPE.__get__(type(value))
    return name[:_MAX_TOLD]


def check_json(value: Any, what: str, *, limit_bytes: float | None = None) -> Any:
    """Copy a JSON value into plain dict, list, str, int, float, bool and None.

    Tuples and sets become lists; attrs classes, dataclasses, msgspec Structs, enums, dates, UUIDs
    and the like become what they are in JSON. It is measured while it is copied: what is shared
    counts as often as it would be written, and what is too large is left as soon as that is known.

    Args:
      value: The value.
      what: Its name in messages.
      limit_bytes: Size as JSON at most, the run's ``Limits.result_bytes``; None for 16 MiB. Half a
        million values are the most in any case.

    Raises:
      ValueError: a number is not finite, a text has lone surrogates, two keys of a dict are the
        same text, the nesting is too deep, or all is too large.
      TypeError: something in it has no JSON form.

    """
    if _is_small(value, limit_bytes):
        return value
    if type(value) is dict and (flat := _copy_flat(value, limit_bytes)) is not None:
        return flat
    limit, name = (_MAX_BYTES, "") if limit_bytes is None else (limit_bytes, "result_bytes=")
    # A value takes a byte at least, and what stands between it and the next one another.
    copier = _Copier(min(_MAX_VALUES, limit / 2), limit)
    try:
        copied = copier.copy(value, 0)
    except _Unfit as unfit:
        raise unfit.error(what) from unfit.__cause__
    except _TooLarge:
        # Which of the two was spent: see the copier.
        many = copier.values < 0 and limit / 2 > _MAX_VALUES
        bound = f"{_MAX_VALUES} values" if many else f"{name}{limit} bytes as JSON"
        raise ValueError(f"{what}: has more than {bound}") from None
    if copier.at_most() > limit and len(msgspec.json.encode(copied)) > limit:
        raise ValueError(f"{what}: has more than {name}{limit} bytes as JSON")
    return copied


def _is_small(value: Any, limit_bytes: float | None) -> bool:
    """Whether a value is JSON as it stands, and short; most results are."""
    kind = type(value)
    if kind is str:
        # As JSON, a character takes six bytes at most.
        return len(value) * 6 + 2 <= (limit_bytes or _SMALL) and value.isascii()
    if kind is int:
        return -_SMALL_INT < value < _SMALL_INT and (limit_bytes or _SMALL) >= _SMALL
    return value is None or kind is bool


def _copy_flat(value: dict[Any, Any], limit_bytes: float | None) -> dict[str, Any] | None:
    """A copy of a dict of a few short values, as most arguments are; None of any other.

    A third of the price of what has to be measured (0.7 us for two keys, and not 2.6).
    """
    if len(value) > _FEW or (limit_bytes or _MAX_BYTES) < 2 * _FEW * _SMALL:
        return None
    copied = value.copy()  # A thread of a tool may go on changing it.
    for key, item in copied.items():
        if type(key) is not str or not _is_small(key, None) or not _is_small(item, None):
            return None
    return copied


def copy_json(value: Any) -> Any:
    """Copy plain JSON, such as `check_json` gave, all the way down; checks nothing."""
    kind = type(value)
    if kind is dict:
        # Most values are flat: a copy of the dict, in which containers are replaced, is the fastest
        # (0.5 us for four keys; a comprehension that calls this for each item takes 1.2).
        copied = value.copy()
        for key, item in value.items():
            if type(item) in _CONTAINERS:
                copied[key] = copy_json(item)
        return copied
    if kind is list:
        return [copy_json(item) if type(item) in _CONTAINERS else item for item in value]
    return value


_SMALL: Final = 1024
_SMALL_INT: Final = 2**63
_FEW: Final = 16


class _TooLarge(Exception):
    """A value is larger than its budget."""


class _Unfit(Exception):
    """Something in a value is not JSON; learns where on its way out."""

    def __init__(self, kind: type[Exception], words: str) -> None:
        super().__init__(words)
        self._kind = kind
        self._words = words
        self._path: list[str] = []

    def inside(self, place: str) -> None:
        self._path.append(place)

    def error(self, what: str) -> Exception:
        path = what + "".join(reversed(self._path))
        return self._kind(f"{path[:_MAX_TOLD]}: {self._words}")


class _Copier:
    """Copies a value, and counts down what its JSON takes at least."""

    __slots__ = ("_given", "chars", "values")

    def __init__(self, values: float, chars: float) -> None:
        self._given = (values, chars)
        self.values = values
        """How many values may still come, each in a container."""
        self.chars = chars
        """How many characters of text."""

    def at_most(self) -> float:
        """Bytes that JSON may take for what was copied."""
        values, chars = self._given
        # A number has 24 characters at most, or its digits are counted as text; of a text each
        # character takes up to six bytes; the rest is quotes, brackets, colons and commas.
        return 32 * (values - self.values + 1) + 6 * (chars - self.chars)

    def copy(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is int:
            if value.bit_length() > 64:
                _check_bits(value)
                # Fewer than its digits, of which each takes more than three bits.
                self._spend(value.bit_length() // 4)
            return value
        if value is None or kind is bool:
            return value
        if kind is float:
            if not math.isfinite(value):
                raise _Unfit(ValueError, f"expected a finite number, got {value}")
            return value
        if depth >= _MAX_DEPTH:
            raise _Unfit(ValueError, f"nested deeper than {_MAX_DEPTH}")
        if kind is not dict and kind is not list:
            value = self._open(value)
            kind = type(value)
        if kind is dict:
            return self._dict(value, depth + 1)
        if kind is list:
            return self._list(value, depth + 1)
        # Of an enum's member, which may have another one as its value.
        return self.copy(value, depth + 1)

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        self._take(len(value))
        copied = {}
        key: Any = None
        try:
            # A thread of a tool may go on changing it.
            for key, item in value.copy().items():
                text = self._text(key) if type(key) is str else self._key(key)
                copied[text] = self.copy(item, depth)
        except _Unfit as unfit:
            unfit.inside(_place_of(key))
            raise
        if len(copied) < len(value):
            raise _Unfit(ValueError, "two of its keys are the same text as JSON")
        return copied

    def _list(self, value: list[Any], depth: int) -> list[Any]:
        self._take(len(value))
        copied: list[Any] = []
        try:
            for item in value.copy():
                copied.append(self.copy(item, depth))
        except _Unfit as unfit:
            unfit.inside(f"[{len(copied)}]")
            raise
        return copied

    def _take(self, values: int) -> None:
        self.values -= values
        if self.values < 0:
            raise _TooLarge

    def _spend(self, chars: int) -> None:
        self.chars -= chars
        if self.chars < 0:
            raise _TooLarge

    def _text(self, text: str) -> str:
        self._spend(len(text))
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _Unfit(ValueError, "text with lone surrogates is not JSON") from None
        return text

    def _key(self, key: Any) -> str:
        kind: Any = type(key)
        if issubclass(kind, enum.Enum):
            key = key._value_
            kind = type(key)
        if issubclass(kind, str):
            return self._text(str.__str__(key))
        if kind is int:
            _check_bits(key)
        elif kind is not float:
            name = type_name(key)
            key = self._open(key)
            if type(key) is not str:
                raise _Unfit(TypeError, f"expected text or a number as key, got {name}")
        return self._text(str(key))

    def _open(self, value: Any) -> Any:
        """One level of a value of another type; what it holds is opened in its turn."""
        kind: Any = type(value)
        if kind is types.CoroutineType:
            value.close()
            raise _Unfit(TypeError, "expected a JSON value, got a coroutine that lacks its 'await'")
        try:
            return _opener(kind)(value)
        except Exception as exc:
            # Not only for what msgspec does not know: fields may be properties, and a time zone is
            # code too.
            words = getattr(kind, "_no_json", "has no JSON form")
            raise _Unfit(TypeError, f"{type_name(value)} {words}") from exc


def _check_bits(number: int) -> None:
    if number.bit_length() > _MAX_BITS:
        raise _Unfit(ValueError, f"expected an integer of at most {_MAX_BITS} bits")


def _place_of(key: object) -> str:
    kind = type(key)
    if kind is str:
        return f".{clean_text(key[:_MAX_TOLD])}"  # type: ignore[index]
    return f".{told(key) if kind in (int, float) else type_name(key)}"


@functools.lru_cache(256)
def _opener(kind: Any) -> Callable[[Any], Any]:
    """What opens a value of a type by one level.

    msgspec would open it down to the ground, what is shared once more for each place that it is at;
    so it gets only what holds nothing: dates, UUIDs and the like, and what it does not know.
    """
    for known, known_opener in _OPENERS:
        if issubclass(kind, known):
            return known_opener
    opener = opener_of(kind)
    if opener is not None:
        return opener
    if hasattr(kind, "_no_json"):
        # One of our own, which says why.
        return _refuse
    if issubclass(kind, msgspec.Struct):
        config = kind.__struct_config__
        if config.array_like or config.omit_defaults or config.tag is not None:
            return _open_struct
        names = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    elif dataclasses.is_dataclass(kind):
        names = {field.name: field.name for field in dataclasses.fields(kind)}
    elif "__attrs_attrs__" in kind.__dict__:
        names = {name: name for name in attrs.fields_dict(kind) if not name.startswith("_")}
    else:
        return msgspec.to_builtins
    return functools.partial(_open_fields, names.items())


def _refuse(value: Any) -> Any:
    raise TypeError(type_name(value))


def _open_fields(names: Iterable[tuple[str, str]], value: Any) -> dict[str, Any]:
    return {
        key: item
        for name, key in names
        if (item := getattr(value, name, msgspec.UNSET)) is not msgspec.UNSET
    }


def _open_struct(value: msgspec.Struct) -> dict[str, Any] | list[Any]:
    """What msgspec tells of a Struct with a tag, or with fields that it leaves out or unnamed."""
    config = value.__struct_config__
    tag: dict[Any, Any] = {} if config.tag is None else {config.tag_field: config.tag}
    items = [getattr(value, name) for name in value.__struct_fields__]
    if config.array_like:
        return [*tag.values(), *items]
    defaults = value.__struct_defaults__
    always = len(items) - len(defaults) if config.omit_defaults else len(items)
    for i, (key, item) in enumerate(zip(value.__struct_encode_fields__, items, strict=True)):
        if item is not msgspec.UNSET and (
            i < always or not _is_default(item, defaults[i - always])
        ):
            tag[key] = item
    return tag


def _is_default(item: Any, default: Any) -> bool:
    if item is default:
        return True
    # An empty container of the kind that a factory makes.
    made = getattr(default, "factory", None)
    return made in (list, dict, set) and type(item) is made and not item


_OPENERS: list[tuple[Any, Callable[[Any], Any]]] = [
    # Methods of the types themselves: those of subclasses are anybody's code, and may never end.
    (list, list.copy),
    (tuple, lambda value: list(tuple.__iter__(value))),
    (dict, dict.copy),
    (enum.Enum, lambda value: value._value_),
    (set, lambda value: list(set.__iter__(value))),
    (frozenset, lambda value: list(frozenset.__iter__(value))),
    # Such as numpy's float64, and the texts that parsers of markup give.
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
]
