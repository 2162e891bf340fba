"""A request held to the types that a provider's own SDK has for it.

The SDKs write them as TypedDicts, which nothing checks at run time; pydantic takes unknown keys in
them, and cannot follow the larger ones.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NotRequired, Required

from typing_extensions import get_type_hints, is_typeddict


def check_typed(type_: Any, value: Any) -> None:
    """Refuse what is not of the type, or has keys that it does not know.

    Raises:
      TypeError: where, and why.

    """
    if errors := list(_errors(type_, value, "")):
        raise TypeError("; ".join(errors))


def _errors(type_: Any, value: Any, path: str) -> Iterator[str]:
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if type_ is Any or type_ is object:
        return
    if is_typeddict(type_):
        yield from _errors_of_dict(type_, value, path)
    elif origin in (typing.Union, types.UnionType):
        yield from _errors_of_union(arguments, value, path)
    elif origin is typing.Literal:
        if value not in arguments:
            yield f"{path}: {value!r} is none of {arguments}"
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{path}: {type(value).__name__} is no object"
            return
        for key, item in value.items():
            yield from _errors(arguments[1], item, f"{path}.{key}")
    elif arguments:
        # Lists of all kinds.
        if not isinstance(value, list | tuple):
            yield f"{path}: {type(value).__name__} is no list"
            return
        for place, item in enumerate(value):
            yield from _errors(arguments[0], item, f"{path}[{place}]")
    else:
        kind = types.NoneType if type_ is None else (int, float) if type_ is float else type_
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            yield f"{path}: {type(value).__name__} is no {type_}"


def _errors_of_dict(type_: Any, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: {type(value).__name__} is no {type_.__name__}"
        return
    known, required = _keys(type_)
    for key in value.keys() - known.keys():
        yield f"{path}: {type_.__name__} has no key {key!r}"
    for key in required - value.keys():
        yield f"{path}: {type_.__name__} needs the key {key!r}"
    for key in value.keys() & known.keys():
        yield from _errors(known[key], value[key], f"{path}.{key}")


def _errors_of_union(members: Iterable[Any], value: Any, path: str) -> Iterator[str]:
    """The errors of the member that agrees deepest."""
    found = [list(_errors(member, value, path)) for member in members]
    if all(found):
        yield from max(found, key=lambda errors: max(map(len, errors)))


@cache
def _keys(type_: Any) -> tuple[dict[str, Any], set[str]]:
    """A TypedDict's keys with their types, and those that it needs."""
    known, required = {}, set()
    for key, hint in get_type_hints(type_, include_extras=True).items():
        while typing.get_origin(hint) in (typing.Annotated, Required, NotRequired):
            if typing.get_origin(hint) is Required:
                required.add(key)
            hint = typing.get_args(hint)[0]
        known[key] = hint
    return known, required
