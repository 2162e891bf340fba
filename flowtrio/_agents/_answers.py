"""What a question asks for: a line of text, a value of a type, or JSON by a schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
import msgspec

from flowtrio._core._failures import why_unfit
from flowtrio._core._values import check_json, copy_json, told, type_name

from ._schema_check import make_check
from ._types import JsonType

Decode: TypeAlias = Callable[[Any], Any]
"""Gives what an answer means, or raises for one that does not fit."""


@attrs.frozen
class AnswerForm:
    """What an answer has to be."""

    schema: dict[str, Any] | None
    """What the user is told: a JSON Schema; None for a line of text."""
    _decode: Decode | None
    is_for_programs: bool = False
    """Whether no person is asked, but a program that runs a tool of its own."""

    @classmethod
    def of(cls, wanted: Any) -> AnswerForm:
        """Read what ``ctx.ask(schema=)`` was given.

        Raises:
          TypeError: it is neither a type with a JSON form nor a JSON Schema.
          ValueError: it is a mapping, and no JSON Schema.

        """
        if isinstance(wanted, AnswerForm):
            return wanted
        if wanted is None:
            return cls(None, None)
        if isinstance(wanted, Mapping):
            schema = check_json(dict(wanted), "schema")
            return cls(schema, _fitting(schema))
        try:
            made = JsonType.of(wanted)
        except TypeError as exc:
            raise TypeError(
                f"schema={told(wanted)}: expected a type with a JSON form, or a JSON Schema: {exc}"
            ) from exc
        return cls(made.whole(), made.convert)

    def read(self, given: Any) -> tuple[str, Any]:
        """Read an answer: a text, or a JSON value where more than a text is asked for.

        A text stands for the JSON that is written in it, where that fits, else for itself: so one
        who is asked for a text need not write its quotes.

        Returns:
          The answer as INPUT_RESOLVED tells it, and what it means.

        Raises:
          ValueError: it does not fit; tells where, not what it says.

        """
        if self._decode is None:
            if not isinstance(given, str):
                raise ValueError(f"expected a text, got {type_name(given)}")
            return given, given
        failure: Exception | None = None
        for value in _meanings(given):
            try:
                return msgspec.json.encode(value).decode(), self._decode(copy_json(value))
            except Exception as exc:
                # What a type checks of itself may raise anything.
                failure = failure or exc
        assert failure is not None
        raise ValueError(why_unfit(failure)) from failure


def _meanings(given: Any) -> list[Any]:
    """The values that an answer may stand for, the likeliest first."""
    if not isinstance(given, str):
        return [given]
    try:
        return [check_json(msgspec.json.decode(given), "answer"), given]
    except (ValueError, RecursionError):
        return [given]


def _fitting(schema: dict[str, Any]) -> Decode:
    """Check by `jsonschema`; where that is missing the body gets any JSON, as it came."""
    try:
        check = make_check(schema)
    except ImportError:
        return lambda value: value

    def decode(value: Any) -> Any:
        check(value)
        return value

    return decode
