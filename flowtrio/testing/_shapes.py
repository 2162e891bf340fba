"""What one event may say, whatever stands before and after it, by the table of fields.

`flowtrio._core._law` knows what may follow what.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from types import NoneType
from typing import Any, Final, Literal

import msgspec

from flowtrio._core._events import (
    ADDED_KEYS,
    FIELDS,
    SCHEMA,
    Count,
    EventType,
    Instant,
    Path,
    Shape,
    Word,
)

_T = EventType

OLD_SHAPES: Final[dict[EventType, dict[str, Shape]]] = {
    type: {key: shape for key, shape in shapes.items() if key not in ADDED_KEYS.get(type, ())}
    for type, shapes in FIELDS.items()
}
"""The fields of a log of schema 1."""
OLD_SHAPES[_T.RUN_START]["schema"] = Literal[1]

SHAPES_OF: Final = {1: OLD_SHAPES, SCHEMA: FIELDS}
"""The shapes of each schema that is read."""

ENVELOPE: Final[dict[str, Shape]] = {
    "type": EventType,
    "data": dict[str, Any],
    "seq": Count,
    "run_id": Word,
    "agent": Path,
    "timestamp": Instant,
}
"""The value that belongs to each key of an event, whatever its type."""


def schema_of(log: Iterable[dict[str, Any]]) -> int:
    """The schema by which a log is to be judged: what its RUN_START says.

    Unless most of its events belie it: then that one value is wrong, and not all of them. A log
    without a RUN_START, or where that says something else, has the schema that its events look
    like, and the newest one where none of them can tell.
    """
    said: object = None
    votes: Counter[object] = Counter()
    for envelope in log:
        type, data = envelope.get("type"), envelope.get("data")
        if not isinstance(data, dict) or not isinstance(type, str) or type not in ADDED_KEYS:
            continue
        votes[SCHEMA if ADDED_KEYS[_T(type)] & data.keys() else 1] += 1
        if type == _T.RUN_START and said is None and data.get("schema") in list(SHAPES_OF):
            said = data["schema"]
            votes[said] += 1
    return max(SHAPES_OF, key=lambda schema: (votes[schema], schema == said, schema))


def find_flaws(values: dict[str, Any], shapes: dict[str, Shape]) -> Iterator[tuple[str, str]]:
    """Give each key that is missing, unknown or wrong, with what is wrong about it."""
    for key, shape in shapes.items():
        if key not in values:
            yield key, "is missing"
            continue
        try:
            msgspec.convert(values[key], shape)
        except msgspec.ValidationError as exc:
            yield key, f"is wrong: {exc}"
    for key in values:
        if key not in shapes:
            yield str(key), "is unknown"


def find_foreign(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give each key whose value is not plain JSON, with what it holds."""
    for key, value in data.items():
        if (reason := _not_json(value)) is not None:
            yield str(key), f"is not JSON: it holds {reason}"


def find_contradictions(type: EventType, data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give each pair of keys that belie one another, as a law and a sentence.

    *data* has the shape of its type.
    """
    match type:
        case EventType.TOOL_CALL_END | EventType.AGENT_END:
            if data["outcome"] == "error" and not data["error"]:
                yield "L10", "it ended with an error and does not tell which"
            if data["outcome"] == "ok" and data["error"] is not None:
                yield "L10", "it ended ok and tells an error"
            if data["outcome"] not in ("ok", "error") and data["result"] is not None:
                yield "L10", f"it ended {data['outcome']} and tells a result"
        case EventType.TOOL_CALL_START:
            if data["provider_executed"] and data["message_id"] is None:
                yield "L3", "the provider executes calls of its own messages only"
        case EventType.ERROR:
            for source in ("deadline", "limit"):
                if data["source"] == source and data[source] is None:
                    yield "L10", f"a {source} ended the run and is not named"
        case EventType.DONE:
            if data["leftover"] and data["status"] != "error":
                yield "L5", f"cleanup was not over, so the status is error, not {data['status']}"
        case EventType.INPUT_RESOLVED:
            if (data["outcome"] == "answered") != (data["text"] is not None):
                yield "shape", f"its outcome is {data['outcome']}, its text {data['text']!r}"
        case EventType.MESSAGE_COMPLETE:
            usage = data["usage"]
            if usage is not None and data["content"] and _is_bound_of_nothing(usage):
                yield "L10", "text was seen, so at least one token was spent"
            first, whole = data.get("first_token"), data.get("duration")
            if first is not None and (whole is None or first > whole):
                yield "shape", f"it took {whole} s, and its first token {first} s"
        case _:
            pass


def _is_bound_of_nothing(usage: dict[str, Any]) -> bool:
    return (usage["quality"], usage["completion_tokens"]) == ("lower_bound", 0)


def _not_json(value: Any) -> str | None:
    """Say what makes *value* other than plain JSON, or None if nothing does."""
    # A loop with its own stack, so that hostile nesting is no RecursionError.
    stack = [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is dict:
            if any(type(key) is not str for key in item):
                return "a key that is not text"
            stack.extend(item)
            stack.extend(item.values())
        elif kind is list:
            stack.extend(item)
        elif kind is str:
            if not _is_text(item):
                return "a lone surrogate"
        elif kind is float:
            if not math.isfinite(item):
                return f"{item}"
        elif kind not in (int, bool, NoneType):
            return f"a {kind.__name__}"
    return None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
