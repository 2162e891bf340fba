"""Arguments that fit a tool: its JSON Schema as a Hypothesis strategy.

Values are small and plain on purpose: a counter-example is read by people. What the schema says and
this does not know (patterns, formats) is left to the tool's own decoding, which throws away what
does not fit.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from flowtrio._agents._tools import Tool

_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_ANY = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), _TEXT)


def arguments_of(tool: Tool[..., Any]) -> st.SearchStrategy[dict[str, Any]]:
    """JSON arguments that *tool* takes."""
    schema = tool.parameters
    return _values(schema, schema.get("$defs", {})).filter(lambda value: _fits(tool, value))


def _fits(tool: Tool[..., Any], arguments: dict[str, Any]) -> bool:
    try:
        tool.decode(arguments)
    except ValueError:
        return False
    return True


def _values(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    match schema:
        case {"$ref": ref}:
            target = defs[ref.rpartition("/")[2]]
            return st.deferred(lambda: _values(target, defs))
        case {"const": value}:
            return st.just(value)
        case {"enum": values}:
            return st.sampled_from(values)
        case {"anyOf": schemas}:
            return st.one_of([_values(each, defs) for each in schemas])
        case {"type": [*types]}:
            return st.one_of([_values({**schema, "type": each}, defs) for each in types])
        case {"type": "object"}:
            return _objects(schema, defs)
        case {"type": "array"}:
            return _arrays(schema, defs)
        case {"type": "string"}:
            low = schema.get("minLength", 0)
            high = schema.get("maxLength", low + 8)
            return st.text(st.characters(codec="utf-8"), min_size=low, max_size=high)
        case {"type": "integer"}:
            return st.integers(*_bounds(schema, 1))
        case {"type": "number"}:
            return st.floats(*_bounds(schema, 0), allow_nan=False, width=32)
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "null"}:
            return st.none()
        case _:
            return _ANY


def _bounds(schema: dict[str, Any], step: int) -> tuple[Any, Any]:
    """The least and the greatest number, near nought where the schema leaves it open."""
    low: Any = schema.get("minimum")
    high: Any = schema.get("maximum")
    if (above := schema.get("exclusiveMinimum")) is not None:
        low = above + step
    if (below := schema.get("exclusiveMaximum")) is not None:
        high = below - step
    if low is None:
        return (-100, 100) if high is None else (high - 100, high)
    return low, (max(low, 100) if high is None else high)


def _arrays(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    if fixed := schema.get("prefixItems"):
        return st.tuples(*[_values(each, defs) for each in fixed]).map(list)
    low = schema.get("minItems", 0)
    items = schema.get("items")
    each = _values(items, defs) if isinstance(items, dict) else _ANY
    return st.lists(each, min_size=low, max_size=schema.get("maxItems", low + 3))


def _objects(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    properties = {key: _values(each, defs) for key, each in schema.get("properties", {}).items()}
    if not properties and isinstance(schema.get("additionalProperties"), dict):
        return st.dictionaries(_TEXT, _values(schema["additionalProperties"], defs), max_size=3)
    required = set(schema.get("required", ()))
    return st.fixed_dictionaries(
        {key: each for key, each in properties.items() if key in required},
        optional={key: each for key, each in properties.items() if key not in required},
    )
