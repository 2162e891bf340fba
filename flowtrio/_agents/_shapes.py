"""What a type looks like as JSON, part by part: its schema, and the reading of a value.

A part that a value does not fit says so by `Unfit`, which learns its place on the way out.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any, Protocol

import attrs
import msgspec

from flowtrio._core._failures import describe
from flowtrio._core._foreign import Foreign, ForeignError
from flowtrio._core._values import check_json, copy_json

from ._constraints import Check
from ._hints import Field, fields_of, is_dict, is_object, notes_of

_MAX_WORDS = 200
_MAX_TOLD = 5
"""How many problems of one value are told: of a union, why each member does not fit."""
_PLACE = re.compile(r" - at (?:`key` in )?`\$(.*)`\Z", re.DOTALL)
_IS_KIND = re.compile(r"Expected `[^`]*`, got `[^`]*`\Z")
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,18})(\.\d{1,18})?", re.ASCII)
_JSON_NAMES: dict[type, str] = {
    **{type(None): "null", bool: "bool", int: "int", float: "float", str: "str"},
    **{list: "array", dict: "object"},
}


class Unfit(Exception):
    """A value does not fit: what was expected, and where."""

    def __init__(self, words: str, place: str = "") -> None:
        super().__init__()
        self._problems = [(_short(words), place)]

    @classmethod
    def of(cls, problems: list[tuple[str, str]]) -> Unfit:
        made = cls("")
        made._problems = problems
        return made

    def inside(self, step: str) -> Unfit:
        """Say in what it stands."""
        self._problems = [(words, step + place) for words, place in self._problems]
        return self

    def add(self, words: str, other: Unfit) -> None:
        """Say more: what another one says, behind *words*; but not that it is of another kind."""
        problems = [
            (words + each, place)
            for each, place in other._problems
            if place or not _IS_KIND.match(each)
        ]
        self._problems = [*self._problems, *problems][:_MAX_TOLD]

    def told(self) -> str:
        """As a message."""
        return "; ".join(
            f"{words} - at `${place}`" if place else words for words, place in self._problems
        )


def _short(words: str) -> str:
    # A value that the model chose stands in some of them.
    return words if len(words) <= _MAX_WORDS else f"{words[:_MAX_WORDS]}…"


def _expected(what: str, value: Any) -> Unfit:
    return Unfit(f"Expected `{what}`, got `{_JSON_NAMES.get(type(value), type(value).__name__)}`")


class Shape(Protocol):
    """One part of a type."""

    def schema(self, definitions: Definitions, /) -> dict[str, Any]: ...
    def read(self, value: Any, /) -> Any: ...


class Definitions:
    """What the parts of a schema refer to, each under a name of its own."""

    def __init__(self, natives: list[Native], objects: dict[Any, Object]) -> None:
        schemas, self._found = msgspec.json.schema_components(
            [native.type for native in natives], ref_template="#/$defs/{name}"
        )
        self.native = {id(native): each for native, each in zip(natives, schemas, strict=True)}
        # First all names, then what stands behind them: a class may refer to itself.
        self.names = {id(each): self._name(each.name) for each in objects.values()}
        for each in objects.values():
            self._found[self.names[id(each)]] = each.definition(self)

    def all(self) -> dict[str, Any]:
        return self._found

    def _name(self, wanted: str) -> str:
        wanted = name = re.sub(r"[^A-Za-z0-9_.-]+", "_", wanted).strip("_") or "type"
        count = 1
        while name in self._found:
            count += 1
            name = f"{wanted}_{count}"
        self._found[name] = {}
        return name

    def take(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Move the definitions of a schema of another's here; where two have one name, rename."""
        schema = copy_json(schema)
        theirs: dict[str, Any] = schema.pop("$defs", {})
        if all(self._found.get(name, each) == each for name, each in theirs.items()):
            self._found.update(theirs)
            return schema
        names = {f"#/$defs/{name}": self._name(name) for name in theirs}
        for name, each in theirs.items():
            self._found[names[f"#/$defs/{name}"]] = _renamed(each, names)
        renamed: dict[str, Any] = _renamed(schema, names)
        return renamed


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    if isinstance(schema, list):
        return [_renamed(item, names) for item in schema]
    if isinstance(schema, dict):
        return {key: _renamed(item, names) for key, item in schema.items()}
    return f"#/$defs/{names[schema]}" if isinstance(schema, str) and schema in names else schema


@attrs.frozen(eq=False)
class Native:
    """What msgspec reads as a whole."""

    type: Any

    @property
    def keys(self) -> Iterable[str] | None:
        """The keys it knows; None if it takes any."""
        kind, _ = notes_of(self.type)
        if is_object(kind):
            return [field.key for field in fields_of(kind)]
        return None if kind is Any or kind is dict or is_dict(kind) else ()

    def schema(self, definitions: Definitions, /) -> dict[str, Any]:
        return definitions.native[id(self)]

    def read(self, value: Any, /) -> Any:
        try:
            return msgspec.convert(value, self.type, strict=True, str_keys=True)
        except msgspec.ValidationError as exc:
            words = str(exc)
            found = _PLACE.search(words)
            if found is None:
                raise Unfit(words) from None
            raise Unfit(words[: found.start()], found[1]) from None
        except Exception as exc:
            # A class may check its values, and convert them.
            raise Unfit(describe(exc)) from exc


@attrs.frozen(eq=False)
class Pydantic:
    """What pydantic reads."""

    foreign: Foreign

    @property
    def keys(self) -> Iterable[str] | None:
        """The keys it knows; None if it takes any."""
        return self.foreign.keys

    def schema(self, definitions: Definitions, /) -> dict[str, Any]:
        return definitions.take(self.foreign.schema)

    def read(self, value: Any, /) -> Any:
        try:
            return self.foreign.read(value)
        except ForeignError as exc:
            raise Unfit.of(exc.problems) from exc
        except Exception as exc:
            raise Unfit(describe(exc)) from exc


@attrs.frozen(eq=False)
class Limited:
    """What has bounds."""

    inner: Shape
    checks: list[Check]

    def schema(self, definitions: Definitions, /) -> dict[str, Any]:
        schema = dict(self.inner.schema(definitions))
        for check in self.checks:
            schema.update(check.schema)
        return schema

    def read(self, value: Any, /) -> Any:
        made = self.inner.read(value)
        for check in self.checks:
            try:
                fits = check.fits(made)
            except Exception as exc:
                raise Unfit(f"Expected {check.words}: {describe(exc)}") from exc
            if not fits:
                raise Unfit(f"Expected {check.words}")
        return made


@attrs.frozen(eq=False)
class Many:
    """A list, a set or a tuple of items of one type."""

    make: Any
    item: Shape

    def schema(self, definitions: Definitions, /) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema(definitions)}

    def read(self, value: Any, /) -> Any:
        if type(value) is not list:
            raise _expected("array", value)
        made = []
        for place, each in enumerate(value):
            made.append(_read(self.item, each, f"[{place}]"))
        try:
            return self.make(made)
        except TypeError as exc:
            raise Unfit(describe(exc)) from exc


@attrs.frozen(eq=False)
class Fixed:
    """A tuple of a type for each place."""

    items: list[Shape]

    def schema(self, definitions: Definitions, /) -> dict[str, Any]:
        count = len(self.items)
        return {
            "type": "array",
            "prefixItems": [item.schema(definitions) for item in self.items],
            "items": False,
            "minItems": count,
            "maxItems": count,
        }

    def read(self, value: Any, /) -> Any:
        if type(value) is not list:
            raise _expected("array", value)
        if len(value) != len(self.items):
            raise Unfit(f"Expected `array` of length {len(self.items)}, got {len(value)}")
        return tuple(
            _read(item, each, f"[{place}]")
            for place, (item, each) in enumerate(zip(self.items, value, strict=True))
        )


@attrs.frozen(eq=False)
class Mapped:
    """A dict; its keys are texts in JSON, and may be numbers, enums or dates by their type."""

    key: Shape
    value: Shape

    def schema(self, definitions: Definitions, /) -> dict[str, Any]:
        key = self.key.schema(definitions)
        schema: dict[str, Any] = {
            "type": "object",
            "additionalProperties": self.value.schema(definitions),
        }
        # As JSON they are texts, whatever the type is; what is told is what bounds a text.
        is_bounded = key.get("type") == "string" and len(key) > 1
        return {**schema, "propertyNames": key} if is_bounded else schema

    def read(self, value: Any, /) -> Any:
        if type(value) is not dict:
            raise _expected("object", value)
        # The keys are the model's words; they are not told.
        return {self._key(key): _read(self.value, each, "[...]") for key, each in value.items()}

    def _key(self, key: str) -> Any:
        try:
            return self.key.read(key)
        except Unfit as unfit:
            if not _NUMBER.fullmatch(key):
                raise unfit.inside("[...]") from unfit.__cause__
        return _read(self.key, msgspec.json.decode(key), "[...]")


@attrs.frozen(eq=False)
class Union:
    """What may be of several types: the first that fits.

    Of an object no key is lost where that can be: members that would leave some out are asked only
    where there is none that knows all.
    """

    members: list[tuple[str, Shape]]
    """Each with its name."""

    def schema(self, definitions: Definitions, /) -> dict[str, Any]:
        return {"anyOf": [member.schema(definitions) for _, member in self.members]}

    def read(self, value: Any, /) -> Any:
        told = [name for name, _ in self.members if name != "null"]
        found = _expected(" | ".join(name for name, _ in self.members), value)
        keeping = [each for each in self.members if _keeps_all(each[1], value)]
        for name, member in keeping or self.members:
            try:
                return member.read(value)
            except Unfit as unfit:
                if told == [name]:
                    found = unfit
                elif name in told:
                    found.add(f"as `{name}`: ", unfit)
        raise found


def _keeps_all(shape: Shape, value: Any) -> bool:
    """Whether a type is an object, and knows all keys of a value that is one too."""
    if type(value) is not dict:
        return True
    while isinstance(shape, Limited):
        shape = shape.inner
    if isinstance(shape, Union):
        return any(_keeps_all(member, value) for _, member in shape.members)
    if isinstance(shape, Object | Pydantic | Native):
        keys = shape.keys
        return keys is None or value.keys() <= set(keys)
    return isinstance(shape, Mapped)


@attrs.frozen(eq=False)
class Object:
    """A class of named fields; other keys are left out, or refused if it says so."""

    kind: Any
    name: str
    fields: dict[str, tuple[Field, Shape]] = attrs.field(factory=dict)

    def schema(self, definitions: Definitions, /) -> dict[str, Any]:
        return {"$ref": f"#/$defs/{definitions.names[id(self)]}"}

    def definition(self, definitions: Definitions) -> dict[str, Any]:
        """What stands behind that."""
        made: dict[str, Any] = {"title": self.name, "type": "object"}
        if text := _description(self.kind):
            made["description"] = text
        made["properties"] = {
            key: _with_default(shape.schema(definitions), field.default)
            for key, (field, shape) in self.fields.items()
        }
        made["required"] = [key for key, (field, _) in self.fields.items() if field.is_required]
        if self._forbids_others:
            made["additionalProperties"] = False
        return made

    @property
    def keys(self) -> Iterable[str]:
        """The keys it knows."""
        return self.fields

    @property
    def _forbids_others(self) -> bool:
        config = getattr(self.kind, "__struct_config__", None)
        return config is not None and bool(config.forbid_unknown_fields)

    def read(self, value: Any, /) -> Any:
        if type(value) is not dict:
            raise _expected("object", value)
        made = {}
        for key, (field, shape) in self.fields.items():
            if key in value:
                made[field.name] = _read(shape, value[key], f".{key}")
            elif field.is_required:
                raise Unfit(f"Object missing required field `{key}`")
        if self._forbids_others:
            unknown = [key for key in value if key not in self.fields]
            if unknown:
                raise Unfit(f"Object contains unknown field `{unknown[0]}`")
        try:
            return self.kind(**made)
        except Exception as exc:
            # A class may check its values, and convert them.
            raise Unfit(describe(exc)) from exc


def _description(kind: Any) -> str | None:
    text = kind.__dict__.get("__doc__")
    # That of a dataclass without a text of its own is its signature.
    return None if text is None or text.startswith(f"{kind.__name__}(") else inspect.cleandoc(text)


def _with_default(schema: dict[str, Any], default: Any) -> dict[str, Any]:
    if default is msgspec.NODEFAULT:
        return schema
    try:
        return {**schema, "default": check_json(default, "default")}
    except (TypeError, ValueError):
        return schema


def _read(shape: Shape, value: Any, step: str) -> Any:
    try:
        return shape.read(value)
    except Unfit as unfit:
        raise unfit.inside(step)  # noqa: B904
