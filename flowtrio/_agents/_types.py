"""Types that people have, read from JSON: what a model says becomes a value of such a type.

What msgspec reads as a whole it reads: that is quick, and most types are so. A type in which there
is something else (a model of pydantic's, a constraint of `annotated_types`, classes that stand side
by side in a union) is taken apart here, down to the parts that msgspec or pydantic read.
"""

from __future__ import annotations

import typing
from typing import Any

import attrs
import msgspec

from flowtrio._core._failures import describe
from flowtrio._core._foreign import Foreign, has_default, is_foreign, is_foreign_note

from . import _hints as hints
from ._constraints import Check, checks_of, is_text
from ._shapes import (
    Definitions,
    Fixed,
    Limited,
    Many,
    Mapped,
    Native,
    Object,
    Pydantic,
    Shape,
    Unfit,
    Union,
)

_NO_FORM = "has no JSON form"


@attrs.frozen
class JsonType:
    """A type, by its JSON Schema and the reading of values."""

    schema: dict[str, Any]
    definitions: dict[str, Any]
    """What the schema refers to by ``#/$defs/…``."""
    _shape: Shape = attrs.field(alias="shape", repr=False)

    @classmethod
    def of(cls, hint: Any) -> JsonType:
        """Read a type.

        Raises:
          TypeError: something in it has no JSON form, or a constraint in it cannot be applied.

        """
        try:
            builder = _Builder()
            shape = builder.build(hint)
            definitions = Definitions(builder.natives, builder.objects)
            return cls(shape.schema(definitions), definitions.all(), shape)
        except TypeError:
            raise
        except Exception as exc:
            # Annotations, and how a type describes itself, are anybody's code.
            raise TypeError(describe(exc)) from exc

    def whole(self) -> dict[str, Any]:
        """The schema with everything inlined but what refers to itself, and no ``$ref`` on top."""
        components, schema = self.definitions, self.schema
        if set(schema) == {"$ref"}:
            schema = components[schema["$ref"].rpartition("/")[2]]
        recursive = {key for key in components if _reaches(components, key, key)}
        made: dict[str, Any] = _inline(schema, components, recursive)
        if recursive:
            made["$defs"] = {
                key: _inline(components[key], components, recursive) for key in sorted(recursive)
            }
        return made

    def convert(self, value: Any, place: str = "") -> Any:
        """Make a value of plain JSON, which is told to stand at *place*, such as ``.result``.

        Raises:
          ValueError: it does not fit; says where, and what was expected.

        """
        try:
            return self._shape.read(value)
        except Unfit as unfit:
            raise ValueError(unfit.inside(place).told()) from unfit.__cause__


class _Builder:
    """Takes types apart. Each class of fields is met once, so that it may refer to itself."""

    def __init__(self) -> None:
        self.natives: list[Native] = []
        self.objects: dict[Any, Object] = {}

    def build(self, hint: Any) -> Shape:
        kind, notes = hints.notes_of(hint)
        problem = _NO_FORM
        if not hints.is_strange(hint):
            native = Native(hints.annotated(kind, notes))
            try:
                msgspec.json.schema_components([native.type])
            except TypeError as exc:
                # Of a class it does not know it says how msgspec can be told of one.
                if "\n" not in str(exc):
                    problem = str(exc)
            else:
                self.natives.append(native)
                return native
        if is_foreign(kind) or any(map(is_foreign_note, notes)):
            return self._foreign(kind, notes)
        if notes:
            return self._limited(kind, notes)
        if hints.is_union(kind):
            return Union([(_name(each), self.build(each)) for each in typing.get_args(kind)])
        if hints.is_object(kind):
            return self._object(kind)
        arguments = typing.get_args(kind)
        if hints.is_dict(kind):
            return Mapped(self.build(arguments[0]), self.build(arguments[1]))
        made = hints.list_of(kind)
        if made is tuple and arguments[-1] is not ...:
            return Fixed([self.build(each) for each in arguments])
        if made is not None:
            return Many(made, self.build(arguments[0]))
        raise TypeError(f"{_name(kind)}: {problem}")

    def _foreign(self, kind: Any, notes: tuple[Any, ...]) -> Shape:
        """What pydantic reads, its own notes too; of others it would leave some aside."""
        theirs = tuple(note for note in notes if is_foreign_note(note))
        ours = tuple(note for note in notes if not is_foreign_note(note))
        shape = Pydantic(Foreign.of(hints.annotated(kind, theirs)))
        return self._checked(shape, ours, _class_of(kind))

    def _limited(self, kind: Any, notes: tuple[Any, ...]) -> Shape:
        if not hints.is_union(kind):
            return self._checked(self.build(kind), notes, _class_of(kind))
        # A bound holds for each member, None excepted; a text belongs to all.
        texts = tuple(note for note in notes if is_text(note))
        bounds = tuple(note for note in notes if not is_text(note))
        members = tuple(
            each if each is type(None) else hints.annotated(each, bounds)
            for each in typing.get_args(kind)
        )
        return self._checked(self.build(hints.union_of(members)), texts, None)

    def _checked(self, shape: Shape, notes: tuple[Any, ...], kind: Any) -> Shape:
        checks: list[Check] = [check for note in notes for check in checks_of(note, kind)]
        return Limited(shape, checks) if checks else shape

    def _object(self, hint: Any) -> Shape:
        if hint in self.objects:
            return self.objects[hint]
        config = getattr(hint, "__struct_config__", None)
        if config is not None and (config.array_like or config.tag is not None):
            raise TypeError(
                f"{_name(hint)}: expected a Struct without a tag, and not as an array, since not "
                "all in it is what msgspec reads"
            )
        made = self.objects[hint] = Object(typing.get_origin(hint) or hint, _name(hint))
        for field in hints.fields_of(hint):
            if field.is_required and any(map(has_default, hints.notes_of(field.hint)[1])):
                # It would be told, and whoever relies on it be refused.
                raise TypeError(
                    f"{field.key}: a default in Annotated[…, Field(default=…)] has no effect: "
                    "expected it behind the annotation, as = …"
                )
            made.fields[field.key] = (field, self.build(field.hint))
        return made


def _class_of(kind: Any) -> Any:
    if hints.is_dict(kind):
        return dict
    return hints.list_of(kind) or typing.get_origin(kind) or kind


def _name(kind: Any) -> str:
    kind, _ = hints.notes_of(kind)
    if hints.is_union(kind):
        return " | ".join(map(_name, typing.get_args(kind)))
    if kind is type(None):
        return "null"
    origin = typing.get_origin(kind)
    name = getattr(origin or kind, "__name__", None) or str(kind)
    arguments = [each for each in typing.get_args(kind) if isinstance(each, type)]
    return f"{name}[{', '.join(map(_name, arguments))}]" if origin and arguments else name


def _reaches(components: dict[str, Any], start: str, goal: str) -> bool:
    seen: set[str] = set()
    pending = [start]
    while pending:
        for name in _refs(components[pending.pop()]):
            if name == goal:
                return True
            if name not in seen:
                seen.add(name)
                pending.append(name)
    return False


def _refs(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        found = [schema["$ref"].rpartition("/")[2]] if isinstance(schema.get("$ref"), str) else []
        return found + [name for item in schema.values() for name in _refs(item)]
    if isinstance(schema, list):
        return [name for item in schema for name in _refs(item)]
    return []


def _inline(schema: Any, components: dict[str, Any], recursive: set[str]) -> Any:
    if isinstance(schema, list):
        return [_inline(item, components, recursive) for item in schema]
    if not isinstance(schema, dict):
        return schema
    ref = schema.get("$ref")
    if isinstance(ref, str):
        name = ref.rpartition("/")[2]
        if name in recursive:
            return dict(schema)
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        named = _inline(components[name], components, recursive)
        # The title is the class's name. Forms would show it in the place of the field's.
        return {key: value for key, value in named.items() if key != "title"} | rest
    return {key: _inline(value, components, recursive) for key, value in schema.items()}
