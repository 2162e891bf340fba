"""Schemas of an answer, as hosts take them that hold their models to one.

Such a host wants every object closed and knows a part of JSON Schema only. What it does not know of
a value's limits is said in the value's description, and the answer is held to it by its reader. Of
other kinds of schema nothing would remain: an object with keys of any name, closed, is ``{}``, and
the model would have to answer that. Those cannot be said to it as a schema at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Dialect:
    """What one host knows of JSON Schema."""

    limits: frozenset[str]
    """Keywords that limit a value."""
    formats: frozenset[str]
    """Formats of texts."""
    min_items: int | None = None
    """The largest ``minItems``; None for any."""
    requires_all: bool
    """Whether it wants each property of an object to be required."""
    follows_itself: bool
    """Whether a schema may contain itself."""


_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)

OPENAI = Dialect(
    limits=frozenset(
        {
            *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
            *("minItems", "maxItems"),
        }
    ),
    formats=_FORMATS,
    requires_all=True,
    follows_itself=True,
)
"""https://platform.openai.com/docs/guides/structured-outputs#supported-schemas"""

ANTHROPIC = Dialect(
    limits=frozenset({"minItems"}),
    formats=_FORMATS | {"uri"},
    min_items=1,
    requires_all=False,
    follows_itself=False,
)
"""https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations"""


class _CannotSay(Exception):
    """The dialect has no word for a part of the schema."""


def closed_schema(schema: Mapping[str, Any], dialect: Dialect) -> dict[str, Any] | None:
    """*schema* with every object closed, as the host takes it; None where it cannot be said."""
    if not dialect.follows_itself and _contains_itself(schema):
        return None
    try:
        closed = _close(schema, dialect)
        if defs := schema.get("$defs"):
            closed["$defs"] = {name: _close(inner, dialect) for name, inner in defs.items()}
    except _CannotSay:
        return None
    return closed


def held_to(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with which OpenAI is asked for an answer by *schema*: held to it where it can be."""
    closed = closed_schema(schema, OPENAI)
    return {"schema": schema if closed is None else closed, "strict": closed is not None}


def may_call(tools: Sequence[Mapping[str, Any]] | None, options: Mapping[str, Any]) -> bool:
    """Whether a request offers tools: the agent's, or what its client was given as such."""
    return bool(tools or options.get("tools"))


def asked_in_words(
    messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """*messages* with the instruction to answer by *schema*, for hosts that cannot be held to it.

    It stands behind the other instructions, where it is the same in each request of a conversation.
    """
    words = (
        "Give your final answer as one JSON value, with nothing before or behind it. It has to fit "
        f"this JSON Schema:\n{json.dumps(schema, ensure_ascii=False)}"
    )
    place = 0
    while place < len(messages) and messages[place]["role"] in ("system", "developer"):
        place += 1
    return [*messages[:place], {"role": "system", "content": words}, *messages[place:]]


_HANDLED = frozenset(
    {
        *("type", "enum", "const", "title", "description", "$defs", "default"),
        *("properties", "required", "additionalProperties", "items", "discriminator", "$schema"),
        *("anyOf", "oneOf"),
    }
)
_TYPES = {str: "string", int: "integer", bool: "boolean", type(None): "null"}
_SAYS_WHAT = ("type", "enum", "const", "anyOf", "oneOf", "properties")
_WORDS = frozenset({"title", "description", "default"})
"""What a schema says of a value that does not limit it."""
_UNKNOWN = ("prefixItems", "patternProperties", "unevaluatedProperties", "$dynamicRef")


def _close(schema: Any, dialect: Dialect) -> dict[str, Any]:
    if not isinstance(schema, Mapping) or any(key in schema for key in _UNKNOWN):
        raise _CannotSay
    if "allOf" in schema:
        return _close(_without_all_of(schema), dialect)
    if "$ref" in schema:
        return _refer(schema, dialect)
    if not any(key in schema for key in _SAYS_WHAT):
        # Any value at all.
        raise _CannotSay
    closed = {key: schema[key] for key in ("title", "type", "enum", "const") if key in schema}
    if values := schema.get("enum", [*_const(schema)]):
        closed = {"type": _types_of(values), **closed}
    for key in ("anyOf", "oneOf"):
        if key in schema:
            closed["anyOf"] = [_close(inner, dialect) for inner in schema[key]]
    types = schema.get("type", "object" if "properties" in schema else None)
    types = types if isinstance(types, list) else [types]
    if "object" in types:
        closed |= _close_object(schema, dialect)
    if "array" in types:
        closed["items"] = _close(schema.get("items"), dialect)
    _add_limits(closed, schema, dialect)
    return closed


def _without_all_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """*schema* with what stands in its ``allOf``: of one, it serves to say more of a reference."""
    if len(schema["allOf"]) != 1 or not isinstance(first := schema["allOf"][0], Mapping):
        raise _CannotSay
    rest = {key: value for key, value in schema.items() if key != "allOf"}
    if any(first[key] != rest[key] for key in first.keys() & rest.keys() - _WORDS):
        raise _CannotSay
    return {**first, **rest}


def _refer(schema: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """A reference. "$ref cannot have keywords" beside it: what is said of it stands around it."""
    if any(key in schema for key in _SAYS_WHAT if key != "type"):
        raise _CannotSay
    reference = {"$ref": schema["$ref"]}
    around = {key: schema[key] for key in ("title",) if key in schema}
    in_words = attrs.evolve(dialect, limits=frozenset(), formats=frozenset(), min_items=None)
    said = {key: value for key, value in schema.items() if key != "$ref"}
    _add_limits(around, said, in_words)
    return {"anyOf": [reference], **around} if around else reference


def _const(schema: Mapping[str, Any]) -> Iterator[Any]:
    if "const" in schema:
        yield schema["const"]


def _close_object(schema: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    extra = schema.get("additionalProperties", "properties" not in schema)
    if extra is not False:
        raise _CannotSay
    properties = schema.get("properties", {})
    required = list(properties) if dialect.requires_all else schema.get("required")
    return {
        "type": schema.get("type", "object"),
        "properties": {name: _close(inner, dialect) for name, inner in properties.items()},
        **({} if required is None else {"required": required}),
        "additionalProperties": False,
    }


def _add_limits(closed: dict[str, Any], schema: Mapping[str, Any], dialect: Dialect) -> None:
    unsaid = []
    for key in sorted(schema.keys() - _HANDLED):
        if _knows(dialect, key, schema[key]):
            closed[key] = schema[key]
        else:
            unsaid.append(f"{key}: {json.dumps(schema[key], ensure_ascii=False)}")
    words = [schema.get("description"), f"({', '.join(unsaid)})" if unsaid else None]
    if any(words):
        closed["description"] = " ".join(filter(None, words))


def _knows(dialect: Dialect, key: str, value: Any) -> bool:
    match key:
        case "format":
            return value in dialect.formats
        case "minItems" if dialect.min_items is not None:
            return bool(value <= dialect.min_items)
        case _:
            return key in dialect.limits


def _types_of(values: Sequence[Any]) -> str | list[str]:
    """The types of an enumeration's values: a host wants them said, and no objects or lists."""
    if any(isinstance(value, dict | list | tuple) for value in values):
        raise _CannotSay
    types = dict.fromkeys(_TYPES.get(type(value), "number") for value in values)
    return next(iter(types)) if len(types) == 1 else list(types)


def _contains_itself(schema: Mapping[str, Any]) -> bool:
    defs = schema.get("$defs") or {}
    refers = {f"#/$defs/{name}": set(_references(inner)) for name, inner in defs.items()}
    refers["#"] = set(_references({k: v for k, v in schema.items() if k != "$defs"}))
    # What refers to nothing that is left is no part of a circle.
    while ends := [name for name, names in refers.items() if not names & refers.keys()]:
        for name in ends:
            del refers[name]
    return bool(refers)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
