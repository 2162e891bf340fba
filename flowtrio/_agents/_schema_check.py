"""Whether arguments fit a JSON Schema, by `jsonschema`, which knows all of the standard.

Nothing is fetched: a schema that refers to another document is refused when it is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flowtrio._core._values import told

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from referencing import Resource
    from referencing._core import Resolver

_MAX_TOLD = 300
"""Characters of what a schema expects, in an error's text."""


def make_check(schema: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Make a function that raises a `ValueError` for arguments which do not fit.

    ``format`` is not checked: by the standard it is a remark.

    Raises:
      ImportError: `jsonschema` is missing.
      ValueError: *schema* is none, or refers to what it does not hold.

    """
    try:
        from jsonschema import Draft202012Validator, SchemaError
        from jsonschema.exceptions import best_match
        from jsonschema.validators import validator_for
        from jsonschema_specifications import REGISTRY
        from referencing.jsonschema import DRAFT202012
    except ImportError as exc:
        raise ImportError(
            f"Tool.from_schema() needs {exc.name!r}: pip install 'flowtrio[schema]', or give it "
            "validate=",
            name=exc.name,
        ) from None
    given: Any = schema
    kind = validator_for(given, default=Draft202012Validator)
    try:
        kind.check_schema(given)
        resource = DRAFT202012.detect(given).create_resource(given)
        _check_references(resource, REGISTRY.resolver_with_root(resource))
    except SchemaError as exc:
        raise ValueError(f"expected a JSON Schema; at {exc.json_path}: {exc.message}") from None
    validator = kind(given, registry=REGISTRY)

    def check(arguments: dict[str, Any]) -> None:
        error = best_match(validator.iter_errors(arguments))
        if error is not None:
            raise ValueError(_words(error))

    return check


def _check_references(resource: Resource[Any], resolver: Resolver[Any]) -> None:
    """Look up whatever a schema refers to."""
    from referencing.exceptions import Unresolvable

    contents = resource.contents
    if isinstance(contents, Mapping) and isinstance(reference := contents.get("$ref"), str):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise ValueError(
                f"the schema refers to {told(reference)}, which it does not hold"
            ) from None
    for inner in resource.subresources():
        _check_references(inner, resolver.in_subresource(inner))


def _words(error: ValidationError) -> str:
    """What was expected, and where; without what was given, of which only the type is told."""
    where = f" - at `{error.json_path}`"
    expected: Any = error.validator_value
    given: Any = error.instance
    match error.validator:
        case "required":
            missing = [name for name in expected if name not in given]
            return f"object misses {', '.join(map(told, missing))}{where}"
        case "additionalProperties" | "unevaluatedProperties" if expected is False:
            names = [told(name) for name in given if name not in _properties(error)]
            return f"object contains unknown fields {', '.join(names[:8])}{where}"
        case "type":
            return f"expected {_json(expected)}, got {_type(given)}{where}"
        case keyword:
            return f"expected {keyword} {_json(expected)}{where}"


def _properties(error: ValidationError) -> Mapping[str, Any]:
    schema = error.schema
    properties = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
    return properties if isinstance(properties, Mapping) else {}


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_TOLD else f"{text[:_MAX_TOLD]}…"


def _type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
        case _:
            return "object"
