"""Types that pydantic reads and writes, told by what they can do: there is no import of it here.

A model is whatever has its methods. Other types of pydantic's, such as its dataclasses, go through
its `TypeAdapter`; who has such a type has the library.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import msgspec

_REFS = "#/$defs/{model}"
_MAX_ERRORS = 3
"""Of the errors of one value, how many are told."""
_MAX_WORDS = 200
_MAX_STEPS = 16


def is_foreign(kind: Any) -> bool:
    """Whether a type says itself how it is read from JSON, as pydantic asks for it."""
    # An alias with parameters answers for its class; the hooks are the class's own.
    return isinstance(kind, type) and (
        _is_model(kind)
        or hasattr(kind, "__pydantic_validator__")
        or hasattr(kind, "__get_pydantic_core_schema__")
    )


def is_foreign_note(note: Any) -> bool:
    """Whether something in ``Annotated`` is pydantic's, such as what its ``Field()`` gives."""
    return type(note).__module__.partition(".")[0] == "pydantic" or hasattr(
        note, "__get_pydantic_core_schema__"
    )


def has_default(note: Any) -> bool:
    """Whether such a note gives a default, as ``Field(default=3)`` does."""
    is_required = getattr(note, "is_required", None)
    return callable(is_required) and not is_required()


def _is_model(kind: type) -> bool:
    return callable(getattr(kind, "model_json_schema", None)) and callable(
        getattr(kind, "model_validate", None)
    )


@attrs.frozen
class Foreign:
    """A type that is read by pydantic, by the rules that the type itself sets."""

    schema: dict[str, Any]
    """Its JSON Schema, with ``$defs`` of its own."""
    _read: Callable[[Any], Any] = attrs.field(alias="read")

    @classmethod
    def of(cls, kind: Any) -> Foreign:
        """Take a model, or whatever `TypeAdapter` takes.

        Raises:
          Exception: it has no JSON Schema; these errors are pydantic's.

        """
        if isinstance(kind, type) and _is_model(kind):
            model: Any = kind
            schema = model.model_json_schema(ref_template=_REFS)
            by_text = getattr(kind, "model_validate_json", None)
            read = model.model_validate if by_text is None else _of_text(by_text)
        else:
            adapter = _adapter(kind)
            schema, read = adapter.json_schema(ref_template=_REFS), _of_text(adapter.validate_json)
        return cls(_without_discriminators(schema), read)

    @property
    def keys(self) -> Iterable[str] | None:
        """The keys that its object knows; None if it keeps others as well."""
        schema = self.schema
        if isinstance(name := schema.get("$ref"), str):
            schema = schema.get("$defs", {}).get(name.rpartition("/")[2], {})
        keys: Iterable[str] = schema.get("properties", ())
        return None if schema.get("additionalProperties") else keys

    def read(self, value: Any) -> Any:
        """Make a value of plain JSON.

        Raises:
          ForeignError: it does not fit.

        """
        try:
            return self._read(value)
        except ValueError as exc:
            raise ForeignError(_problems(exc)) from exc


def _without_discriminators(schema: Any) -> Any:
    """A schema in which a tagged union is one of JSON Schema's: its mapping is OpenAPI's alone.

    It would refer to what may not be there any more; and no two of its members can fit at once.
    """
    if isinstance(schema, list):
        return [_without_discriminators(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "oneOf" in schema and "propertyName" in (schema.get("discriminator") or ()):
        rest = {key: item for key, item in schema.items() if key not in ("discriminator", "oneOf")}
        schema = {"anyOf": schema["oneOf"], **rest}
    return {key: _without_discriminators(item) for key, item in schema.items()}


class ForeignError(ValueError):
    """A value does not fit; tells what was expected, each with its place, and no content."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__(*problems)
        self.problems = problems


def _of_text(read: Callable[[bytes], Any]) -> Callable[[Any], Any]:
    # As JSON, so that strict models take dates, sets and enums by their JSON forms.
    return lambda value: read(msgspec.json.encode(value))


def _problems(exc: ValueError) -> list[tuple[str, str]]:
    try:
        errors = exc.errors(include_url=False, include_input=False)  # type: ignore[attr-defined]
        return [
            (str(each["msg"])[:_MAX_WORDS], _path(each["loc"])) for each in errors[:_MAX_ERRORS]
        ]
    except Exception:
        # Not pydantic's own error, or not one of its forms.
        return [(str(exc)[:_MAX_WORDS], "")]


def _path(steps: tuple[Any, ...]) -> str:
    return "".join(
        f"[{step}]" if isinstance(step, int) else f".{step[:_MAX_WORDS]}"
        for step in steps[:_MAX_STEPS]
    )


def opener_of(kind: Any) -> Callable[[Any], Any] | None:
    """What gives a value of a foreign type as JSON, by its schema's names; None for others."""
    if not is_foreign(kind):
        return None
    if callable(getattr(kind, "model_dump", None)):
        return lambda value: value.model_dump(mode="json", by_alias=True)
    serializer = getattr(kind, "__pydantic_serializer__", None)
    if serializer is not None:
        return lambda value: serializer.to_python(value, mode="json", by_alias=True)
    return lambda value: _adapter(kind).dump_python(value, mode="json", by_alias=True)


def _adapter(kind: Any) -> Any:
    return importlib.import_module("pydantic").TypeAdapter(kind)
