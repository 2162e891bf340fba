"""Answers of a given type: ``Agent(output=T)``."""

from __future__ import annotations

import re
from typing import Any

import attrs
import msgspec

from flowtrio._core._fit import fit_name, is_blank

from ._types import JsonType

_FENCED = re.compile(r"\s*```\w*[ \t]*\n(.*)\n[ \t]*```\s*", re.DOTALL)


@attrs.frozen
class Output:
    """What an agent's answer has to be: a type, and the JSON Schema it is asked for by.

    Providers want an object at the top, so any other type travels as ``{"result": …}``.
    """

    type: JsonType
    name: str
    schema: dict[str, Any]
    is_wrapped: bool

    @classmethod
    def of(cls, type: Any) -> Output:
        """Make the schema of *type*.

        Raises:
          TypeError: *type* has no JSON form.

        """
        name = getattr(type, "__name__", None) or "output"
        try:
            made = JsonType.of(type)
        except TypeError as exc:
            raise TypeError(
                f"output={name}: expected a type with a JSON form, such as a dataclass, an attrs "
                f"class or list[str]: {exc}"
            ) from exc
        schema, components = made.schema, made.definitions
        if set(schema) == {"$ref"} and components:
            schema = components[schema["$ref"].rpartition("/")[2]]
        is_wrapped = schema.get("type") != "object"
        if is_wrapped:
            schema = {
                "type": "object",
                "properties": {"result": schema},
                "required": ["result"],
                "additionalProperties": False,
            }
        if components:
            schema = {**schema, "$defs": components}
        return cls(made, fit_name(name), schema, is_wrapped)

    def decode(self, text: str) -> Any:
        """Decode an answer, strictly; a fence of Markdown may be around it.

        Raises:
          ValueError: it is not JSON, or not of the type; tells where, not what it says.

        """
        value = _parse(_without_fence(text))
        if self.is_wrapped:
            if type(value) is not dict or set(value) != {"result"}:
                raise ValueError("expected an object with the one key 'result'")
            return self.type.convert(value["result"], ".result")
        return self.type.convert(value)


def _without_fence(text: str) -> str:
    # So write models that were asked in words.
    fenced = _FENCED.fullmatch(text)
    return text if fenced is None else fenced[1]


def _parse(text: str) -> Any:
    try:
        return msgspec.json.decode(text.encode())
    except msgspec.DecodeError as exc:
        # What the decoder says of a text that breaks off reads as if our input had been cut.
        if is_blank(text):
            what = "it is empty"
        elif "truncated" in str(exc):
            what = "it breaks off in the middle of its JSON"
        else:
            what = f"it is not JSON: {exc}"
        raise ValueError(what) from exc
