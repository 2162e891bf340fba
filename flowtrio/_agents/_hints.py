"""Type hints, taken apart: what stands behind an alias, and of what a type is made."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import abc
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union

import attrs
import msgspec

from flowtrio._core._foreign import is_foreign

_LISTS: dict[Any, Any] = {
    **dict.fromkeys((list, abc.Sequence, abc.MutableSequence, abc.Collection), list),
    **dict.fromkeys((abc.Iterable,), list),
    **dict.fromkeys((set, abc.Set, abc.MutableSet), set),
    frozenset: frozenset,
    tuple: tuple,
}
_DICTS = (dict, abc.Mapping, abc.MutableMapping)
_WRAPPERS = {"Required", "NotRequired", "ReadOnly", "Final", "ClassVar"}


def is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def takes_none(hint: Any) -> bool:
    """Whether None is among what a hint means, or anything is."""
    kind, _ = notes_of(hint)
    members = typing.get_args(kind) if is_union(kind) else (kind,)
    return any(each in (Any, None, types.NoneType) for each in members)


def union_of(members: tuple[Any, ...]) -> Any:
    return Union[members]  # noqa: UP007


def list_of(hint: Any) -> Any:
    """What a type of many items is made as: list, set, frozenset or tuple; None for others."""
    return _LISTS.get(typing.get_origin(hint))


def is_dict(hint: Any) -> bool:
    return typing.get_origin(hint) in _DICTS


def opened(hint: Any) -> Any:
    """What a hint means: behind a NewType, an alias, a variable, and ``Required`` and the like."""
    while True:
        origin = typing.get_origin(hint)
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif isinstance(hint, TypeVar):
            bound = hint.__bound__
            hint = union_of(hint.__constraints__) if hint.__constraints__ else bound or Any
        elif _is_alias(hint):
            hint = hint.__value__
        elif _is_alias(origin):
            hint = _filled(
                origin.__value__, dict(zip(origin.__type_params__, hint.__args__, strict=True))
            )
        elif getattr(origin, "_name", None) in _WRAPPERS:
            hint = hint.__args__[0]
        else:
            return hint


def _is_alias(hint: Any) -> bool:
    # `type X = …`, and what typing_extensions makes of older Pythons.
    return type(hint).__name__ == "TypeAliasType"


def notes_of(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type, and what stands beside it; of several layers, the inner notes first."""
    notes: tuple[Any, ...] = ()
    hint = opened(hint)
    while typing.get_origin(hint) is Annotated:
        notes = (*hint.__metadata__, *notes)
        hint = opened(hint.__origin__)
    return hint, notes


def annotated(hint: Any, notes: tuple[Any, ...]) -> Any:
    return Annotated[(hint, *notes)] if notes else hint


@attrs.frozen
class Field:
    """One field of a class that is an object as JSON."""

    name: str
    """What the class calls it, and takes it by."""
    key: str
    """What it is called in JSON."""
    hint: Any
    is_required: bool
    default: Any = msgspec.NODEFAULT
    """The value where it is absent, if it is known without asking the class."""


def is_object(hint: Any) -> bool:
    """Whether a type is a class of named fields: dataclass, attrs, Struct or TypedDict."""
    kind = typing.get_origin(hint) or hint
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind)
        or "__attrs_attrs__" in kind.__dict__
        or issubclass(kind, msgspec.Struct)
        or typing.is_typeddict(kind)
        or _is_typeddict(kind)
    )


def _is_typeddict(kind: type) -> bool:
    # That of typing_extensions, which has more than the standard one of this Python.
    return issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def fields_of(hint: Any) -> list[Field]:
    """The fields of such a class.

    Raises:
      Exception: its annotations cannot be read; these may be any code.

    """
    kind = typing.get_origin(hint) or hint
    bound = _bindings(kind, typing.get_args(hint))
    hints = {
        name: _filled(each, bound)
        for name, each in typing.get_type_hints(kind, include_extras=True).items()
    }
    if issubclass(kind, msgspec.Struct):
        return [
            Field(
                each.name, each.encode_name, hints[each.name], each.required, _struct_default(each)
            )
            for each in msgspec.structs.fields(kind)
        ]
    if dataclasses.is_dataclass(kind):
        for name, each in hints.items():
            if isinstance(each, dataclasses.InitVar) and not hasattr(kind, name):
                # Its class asks for it, and it is no field: no object would ever do.
                raise TypeError(f"{hint.__name__}.{name}: an InitVar has no JSON form")
        return [
            Field(each.name, each.name, hints[each.name], *_dataclass_default(each))
            for each in dataclasses.fields(kind)
            if each.init
        ]
    if "__attrs_attrs__" in kind.__dict__:
        return [
            Field(each.alias, each.alias, hints.get(each.name, Any), *_attrs_default(each))
            for each in attrs.fields(kind)
            if each.init
        ]
    required = kind.__required_keys__
    return [
        Field(name, name, each, _is_required(each, name in required))
        for name, each in hints.items()
    ]


def _is_required(hint: Any, otherwise: bool) -> bool:
    """What a key's own word says: where annotations are texts, its class did not read it."""
    while hint is not None:
        name = getattr(typing.get_origin(hint), "_name", None)
        if name in ("Required", "NotRequired"):
            return bool(name == "Required")
        hint = getattr(hint, "__origin__", None) if name is None else typing.get_args(hint)[0]
    return otherwise


def _struct_default(field: Any) -> Any:
    factory = field.default_factory
    # That of a parameter copies what stands in the signature.
    is_plain = getattr(factory, "func", factory) in (list, dict, set)
    return factory() if is_plain else field.default


def _dataclass_default(field: dataclasses.Field[Any]) -> tuple[bool, Any]:
    if field.default is not dataclasses.MISSING:
        return False, field.default
    if field.default_factory in (list, dict, set):
        return False, field.default_factory()
    return field.default_factory is dataclasses.MISSING, msgspec.NODEFAULT


def _attrs_default(field: attrs.Attribute[Any]) -> tuple[bool, Any]:
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        is_plain = default.factory in (list, dict, set)
        return False, default.factory() if is_plain else msgspec.NODEFAULT
    return (True, msgspec.NODEFAULT) if default is attrs.NOTHING else (False, default)


def _bindings(kind: Any, given: tuple[Any, ...]) -> dict[Any, Any]:
    """What the variables of a class and of those below it stand for."""
    bound = dict(zip(getattr(kind, "__parameters__", ()), given, strict=False))
    for base in getattr(kind, "__orig_bases__", ()):
        origin = typing.get_origin(base)
        if isinstance(origin, type) and origin is not typing.Generic:
            below = tuple(_filled(each, bound) for each in typing.get_args(base))
            bound = {**_bindings(origin, below), **bound}
    return bound


def _filled(hint: Any, bound: Mapping[Any, Any]) -> Any:
    """A hint with its variables replaced by what they stand for."""
    if isinstance(hint, TypeVar):
        return bound.get(hint, hint)
    names = getattr(hint, "__parameters__", ())
    if isinstance(hint, type) or not names or not any(name in bound for name in names):
        return hint
    return hint[tuple(bound.get(name, name) for name in names)]


def parts_of(hint: Any) -> Iterator[Any]:
    """Of what a type is made, each part as it stands, notes included."""
    kind = typing.get_origin(hint) or hint
    if is_object(hint):
        yield from (field.hint for field in fields_of(hint))
    elif isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        yield from typing.get_type_hints(kind, include_extras=True).values()
    elif kind is not typing.Literal:
        # A literal's arguments are values.
        yield from (each for each in typing.get_args(hint) if each is not ...)


def is_strange(hint: Any) -> bool:
    """Whether something in a type is what msgspec leaves aside, or cannot read."""
    seen: set[Any] = set()
    pending = [hint]
    while pending:
        kind, notes = notes_of(pending.pop())
        if is_foreign(kind) or any(not isinstance(note, msgspec.Meta) for note in notes):
            return True
        if typing.get_origin(kind) is abc.Callable:
            # It has no JSON form, and no hash.
            return False
        if kind not in seen:
            seen.add(kind)
            pending.extend(parts_of(kind))
    return False
