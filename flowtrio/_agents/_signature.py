"""A function's signature as the form of a tool's arguments.

From it come the JSON Schema that the model is told, and the strict decoding of what it answers.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from contextlib import suppress
from typing import Annotated, Any

import attrs
import msgspec

from . import _hints as hints
from ._types import JsonType


@attrs.frozen(kw_only=True)
class SignatureForm:
    """Arguments by a signature: each parameter is one; see `Form`."""

    parameters: dict[str, Any]
    context_parameter: str | None
    _type: JsonType = attrs.field(alias="type")
    """Of a Struct with a field for each."""
    _names: tuple[str, ...] = attrs.field(alias="names")
    """The parameters that the fields stand for."""

    @classmethod
    def of(cls, name: str, fn: Any, target: Any, texts: dict[str, str]) -> SignatureForm:
        """Read it.

        Args:
          name: The tool's name.
          fn: What is called, whose parameters count.
          target: The function at its innermost, which has the annotations.
          texts: The parameters' descriptions.

        Raises:
          TypeError: the function cannot be a tool; says why.

        """
        context, fields = _fields(name, fn, target, texts)
        # Not every name that a parameter may have can be a field's: none of a class's own, as
        # __slots__, and none that Python mangles.
        names = {f"p{number}": each[0] for number, each in enumerate(fields)}
        try:
            struct = msgspec.defstruct(
                f"{name}_arguments",
                [(field, *each[1:]) for field, each in zip(names, fields, strict=True)],
                rename=names,
                kw_only=True,
                forbid_unknown_fields=True,
            )
            type = JsonType.of(struct)
        except (TypeError, NameError) as exc:
            raise TypeError(f"tool {name!r}: {exc}") from None
        parameters = type.whole()
        parameters.pop("title", None)
        return cls(
            parameters=parameters,
            context_parameter=context,
            type=type,
            names=tuple(names.values()),
        )

    def decode(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """See `Form`."""
        struct = self._type.convert(arguments)
        return dict(zip(self._names, msgspec.structs.astuple(struct), strict=True))


def _fields(
    name: str, fn: Any, target: Any, texts: dict[str, str]
) -> tuple[str | None, list[tuple[str, Any] | tuple[str, Any, Any]]]:
    """The context's parameter, and the others as fields of a Struct."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError) as exc:
        raise TypeError(f"tool {name!r}: {exc}") from None
    annotations = _annotations(name, target)
    context: str | None = None
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(
                f"tool {name!r}: parameter {parameter} cannot be told to a model: expected named "
                "parameters only"
            )
        if parameter.annotation is parameter.empty:
            raise TypeError(f"tool {name!r}: parameter {parameter.name!r} needs an annotation")
        hint = annotations.get(parameter.name, parameter.annotation)
        if hint is _Context:
            context = parameter.name
            continue
        if type(parameter.default).__module__ == "pydantic.fields":
            # It is no value, and whoever writes it means what stands in it.
            raise TypeError(
                f"tool {name!r}: the default of {parameter.name!r} is a Field(): expected it in "
                "the annotation, as Annotated[…, Field(…)]"
            )
        if parameter.default is None and not hints.takes_none(hint):
            # It would be told as the default, and be refused where a model says it.
            hint = hints.union_of((hint, types.NoneType))
        text = texts.get(parameter.name)
        if text:
            hint = Annotated[hint, msgspec.Meta(description=text)]
        if parameter.default is parameter.empty:
            fields.append((parameter.name, hint))
        else:
            default = parameter.default
            if isinstance(default, list | dict | set):
                # A fresh one for each call; msgspec refuses to share a mutable default.
                default = msgspec.field(default_factory=functools.partial(type(default), default))
            fields.append((parameter.name, hint, default))
    return context, fields


class Context:
    """What a tool is given and no model is told of: the base of `RunContext` and its stand-in.

    By this, tools know a context's annotation without knowing what a context can do.
    """

    __slots__ = ()


class _Context(Context):
    """Stands for `RunContext` while annotations are read."""

    def __class_getitem__(cls, app: object) -> type[_Context]:
        return cls


class _Names(dict[str, Any]):
    """A module's names, in which any spelling of RunContext means the context."""

    def __missing__(self, key: str) -> Any:
        if key == "RunContext":
            return _Context
        raise KeyError(key)


def _closure(target: Any) -> dict[str, Any]:
    """Local names around a function; not those that get their value later, as its own does."""
    found = {}
    if inspect.isfunction(target):
        for name, cell in zip(target.__code__.co_freevars, target.__closure__ or (), strict=True):
            with suppress(ValueError):
                found[name] = cell.cell_contents
    return found


def _annotations(name: str, target: Any) -> dict[str, Any]:
    """The annotations of a function, those under TYPE_CHECKING that mean the context included."""
    target = inspect.unwrap(target)
    names = _Names(getattr(target, "__globals__", {}))
    names.update(_closure(target))
    try:
        found = typing.get_type_hints(target, names, names, include_extras=True)
    except Exception as exc:
        # Any code may stand in an annotation that is a text.
        raise TypeError(f"tool {name!r}: {exc}") from None
    return {key: _Context if _is_context(hint) else hint for key, hint in found.items()}


def _is_context(hint: Any) -> bool:
    """Whether an annotation means the context: itself, of any application, or that or None."""
    if isinstance(origin := typing.get_origin(hint), type) and _is_context(origin):
        return True
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
        return len(kinds) == 1 and _is_context(kinds[0])
    return isinstance(hint, type) and Context in hint.__bases__
