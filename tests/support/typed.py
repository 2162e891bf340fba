"""Whether JSON is what a ``TypedDict`` says, unknown keys refused: for the types of SDKs.

Validators that people use read ``Iterable[X]`` lazily and let unknown keys pass; a provider does
neither.
"""

from __future__ import annotations

import collections.abc
import types
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin

import typing_extensions

_LISTS = (list, collections.abc.Iterable, collections.abc.Sequence)
_DICTS = (dict, collections.abc.Mapping)


def problems(value: Any, expected: Any, path: str = "body") -> list[str]:
    """What is wrong with *value*, each with its place; nothing if it is of the type."""
    origin, args = get_origin(expected), get_args(expected)
    if expected in (Any, object):
        return []
    if typing_extensions.is_typeddict(expected):
        return _problems_of_dict(value, expected, path)
    if origin in (Required, NotRequired, Annotated):
        return problems(value, args[0], path)
    if origin in (Union, types.UnionType):
        found = [problems(value, each, path) for each in args]
        return min(found, key=lambda each: (len(each), -max(map(len, each), default=0)))
    if origin is Literal:
        is_right = any(value == each and type(value) is type(each) for each in args)
        return [] if is_right else [f"{path}: {value!r} is not one of {args}"]
    if origin in _LISTS:
        if not isinstance(value, list):
            return [f"{path}: {value!r} is no list"]
        pairs = enumerate(value)
        return [each for i, item in pairs for each in problems(item, args[0], f"{path}[{i}]")]
    if origin in _DICTS:
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no object"]
        pairs = value.items()
        return [each for key, item in pairs for each in problems(item, args[1], f"{path}.{key}")]
    return [] if _is_of(value, expected) else [f"{path}: {value!r} is no {expected}"]


def _problems_of_dict(value: Any, expected: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: {value!r} is no object"]
    hints = typing_extensions.get_type_hints(expected, include_extras=True)
    needed = {key for key, hint in hints.items() if get_origin(hint) is Required}
    found = [f"{path}: {key!r} is missing" for key in sorted(needed - value.keys())]
    for key, item in value.items():
        if key in hints:
            found += problems(item, hints[key], f"{path}.{key}")
        else:
            found.append(f"{path}: {key!r} is not known to {expected.__name__}")
    return found


def _is_of(value: Any, expected: Any) -> bool:
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is (type(None) if expected is None else expected)
