"""A JSON Schema as the form of a tool's arguments: for tools whose arguments only a server knows.

The function gets them as they are, in one dict, once they were found to fit.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from flowtrio._core._failures import describe
from flowtrio._core._values import check_json, told, type_name

from ._schema_check import make_check

_MAX_HOPS = 16
"""References from the top of a schema to its object."""

Validate = Callable[[dict[str, Any]], object]
"""Raises, or gives False, for arguments that do not fit."""


@attrs.frozen(kw_only=True)
class SchemaForm:
    """Arguments by a schema: all of them are one dict; see `Form`."""

    parameters: dict[str, Any]
    context_parameter: str | None
    _argument: str = attrs.field(alias="argument")
    """The parameter that gets the dict."""
    _validate: Validate = attrs.field(alias="validate")

    @classmethod
    def of(
        cls, name: str, fn: Callable[..., Any], parameters: Any, validate: Validate | None
    ) -> SchemaForm:
        """Read a schema; *validate* decides what fits where it is given.

        Raises:
          ImportError: there is no *validate*, and `jsonschema` is missing.
          TypeError: the function is none of the arguments, or *validate* none at all.
          ValueError: *parameters* is no JSON Schema of an object.

        """
        if validate is not None and (
            not callable(validate) or inspect.iscoroutinefunction(validate)
        ):
            raise TypeError(
                f"tool {name!r}: validate={told(validate)}: expected a plain function of the "
                "arguments"
            )
        context, argument = _parameters(name, fn)
        try:
            schema = _read(parameters)
            check = make_check(schema) if validate is None else validate
        except ValueError as exc:
            raise ValueError(f"parameters of tool {name!r}: {exc}") from None
        # It chooses among versions of the standard, and not every provider knows it.
        schema.pop("$schema", None)
        return cls(parameters=schema, context_parameter=context, argument=argument, validate=check)

    def decode(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """See `Form`."""
        try:
            fits = self._validate(arguments)
        except ValueError:
            raise
        except Exception as exc:
            # Other validators have errors of other types.
            raise ValueError(describe(exc)) from exc
        if fits is False:
            raise ValueError("they do not fit")
        return {self._argument: arguments}


def _parameters(name: str, fn: Callable[..., Any]) -> tuple[str | None, str]:
    """The function's parameters for the context, if it takes one, and for the arguments."""
    expected = f"tool {name!r}: expected a function of (arguments) or (ctx, arguments)"
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError) as exc:
        raise TypeError(f"{expected}; {exc}") from None
    given = [
        each.name
        for each in signature.parameters.values()
        if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    others = [
        each.name
        for each in signature.parameters.values()
        if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.KEYWORD_ONLY)
    ]
    if len(given) not in (1, 2) or others:
        raise TypeError(f"{expected}, got one of {signature}")
    return (given[0] if len(given) == 2 else None), given[-1]


def _read(parameters: Any) -> dict[str, Any]:
    """Copy a schema, with its object at the top and said to be one."""
    if not isinstance(parameters, Mapping):
        raise ValueError(f"expected a JSON Schema, got {type_name(parameters)}")
    try:
        schema: dict[str, Any] = check_json(dict(parameters), "schema")
    except TypeError as exc:
        raise ValueError(str(exc)) from None
    hops = 0
    while "$ref" in schema:
        hops += 1
        reference = schema.pop("$ref")
        target = _find(schema, reference) if hops < _MAX_HOPS else None
        if not isinstance(target, dict):
            raise ValueError(f"the schema refers to {told(reference)}, which it does not hold")
        schema = {**target, **schema}
    if schema.setdefault("type", "object") != "object":
        raise ValueError(f"expected a schema of type 'object', got {told(schema['type'])}")
    # "object schema missing properties", says one provider of a tool that takes nothing.
    schema.setdefault("properties", {})
    return schema


def _find(schema: dict[str, Any], reference: Any) -> Any:
    """What stands in *schema* where a local reference points to."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Any = schema
    for step in reference[2:].split("/"):
        if not isinstance(found, dict):
            return None
        found = found.get(step.replace("~1", "/").replace("~0", "~"))
    return found
