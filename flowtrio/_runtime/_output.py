"""Answers of a given type: ``Agent(output=T)``."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec


@attrs.frozen
class Output:
    """What an agent's answer has to be: a type, and the JSON Schema it is asked for by.

    Providers want an object at the top, so any other type travels as ``{"result": …}``.
    """

    type: Any
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
            [schema], components = msgspec.json.schema_components(
                [type], ref_template="#/$defs/{name}"
            )
        except TypeError as exc:
            raise TypeError(
                f"output={name}: expected a type with a JSON form, such as a dataclass, an attrs "
                "class or list[str]"
            ) from exc
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
        return cls(type, "".join(c if c.isalnum() else "_" for c in name), schema, is_wrapped)

    def decode(self, text: str) -> Any:
        """Decode an answer, strictly.

        Raises:
          ValueError: it is not JSON, or not of the type; tells where, not what it says.

        """
        target = dict[str, self.type] if self.is_wrapped else self.type  # type: ignore[name-defined]
        value = msgspec.json.decode(text.encode(), type=target, strict=True)
        if not self.is_wrapped:
            return value
        if set(value) != {"result"}:
            raise ValueError("expected an object with the one key 'result'")
        return value["result"]
