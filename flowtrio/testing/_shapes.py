"""What the data of each event type looks like, key by key: a table, and what reads it.

`flowtrio._core._law` knows what may follow what; this module knows what one event may say, whatever
stands before and after it.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from types import NoneType
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from flowtrio._core._call_rules import OUTCOMES
from flowtrio._core._events import ADDED_KEYS, SCHEMA, EventType
from flowtrio._core._law import TRANSITIONS

_T = EventType
_MAX = sys.float_info.max

Shape: TypeAlias = Any
"""A type that msgspec can check a value against."""

Word: TypeAlias = Annotated[str, Meta(min_length=1)]
Path: TypeAlias = Annotated[str, Meta(pattern=r"^root(/[^/]+)*$")]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Instant: TypeAlias = Annotated[float, Meta(ge=-_MAX, le=_MAX)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=_MAX)]
WordOrNone: TypeAlias = Word | None
SecondsOrNone: TypeAlias = Seconds | None
Status: Shape = Literal[tuple(map(str, TRANSITIONS))]
Outcome: Shape = Literal[tuple(OUTCOMES)]
Source: Shape = Literal["model", "tool", "agent", "deadline", "limit", "store", "internal"]


class Usage(msgspec.Struct, forbid_unknown_fields=True):
    """See `flowtrio.Usage`; here all six keys are required."""

    prompt_tokens: Count
    completion_tokens: Count
    reasoning_tokens: Count
    cached_tokens: Count
    quality: Literal["measured", "lower_bound"]
    cost: Word | None


class Cause(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of an ERROR's ``causes``."""

    error: Word
    type: Word
    source: Source


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of a RUN_START's ``parts``."""

    kind: Word
    media_type: WordOrNone
    bytes: Count | None
    name: WordOrNone


SHAPES: Final[dict[EventType, dict[str, Shape]]] = {
    _T.MESSAGE_CHUNK: {"chunk": str, "message_id": Word},
    _T.MESSAGE_COMPLETE: {
        "message_id": Word,
        "content": str,
        "finish_reason": Literal[
            "stop", "length", "tool_calls", "content_filter", "cancelled", "error"
        ],
        "usage": Usage | None,
        "model": WordOrNone,
        "provider": WordOrNone,
        "requested_model": WordOrNone,
        "duration": SecondsOrNone,
        "first_token": SecondsOrNone,
        "parent_call_id": WordOrNone,
    },
    _T.STATE_CHANGE: {"old_status": Status, "new_status": Status, "reason": str | None},
    _T.TOOL_CALL_START: {
        "call_id": Word,
        "tool_name": Word,
        "arguments": dict[str, Any],
        "message_id": WordOrNone,
        "provider_executed": bool,
        "parent_call_id": WordOrNone,
    },
    _T.TOOL_CALL_END: {
        "call_id": Word,
        "tool_name": Word,
        "outcome": Outcome,
        "result": Any,
        "error": str | None,
        "duration": SecondsOrNone,
    },
    _T.ERROR: {
        "error": Word,
        "code": Word,
        "source": Source,
        "retryable": bool,
        "deadline": Literal[
            "run", "tool", "connect", "first_token", "gap", "content", "approval", "input"
        ]
        | None,
        "limit": WordOrNone,
        "detail": dict[str, Any] | None,
        "causes": list[Cause],
    },
    _T.DONE: {
        "status": Literal["completed", "error", "cancelled"],
        "reason": str | None,
        "result": Any,
        "usage": Usage,
        "events": Annotated[int, Meta(ge=1)],
        "duration": Seconds,
        "leftover": list[Word],
    },
    _T.RUN_START: {
        "message": str,
        "parts": list[Part],
        "session_id": WordOrNone,
        "agent": Word,
        "parent_run_id": WordOrNone,
        "schema": Literal[SCHEMA],
    },
    _T.AGENT_START: {"agent": Path, "call_id": WordOrNone},
    _T.AGENT_END: {
        "agent": Path,
        "call_id": WordOrNone,
        "outcome": Literal["ok", "error", "timeout", "cancelled"],
        "result": Any,
        "error": str | None,
        "usage": Usage | None,
        "duration": SecondsOrNone,
    },
    _T.REASONING_CHUNK: {"chunk": str, "message_id": Word},
    _T.MESSAGE_PART: {"message_id": Word, "part": dict[str, Any]},
    _T.MESSAGE_RESET: {"message_id": Word, "reason": Word},
    _T.TOOL_CALL_ARGS: {"call_id": Word, "tool_name": Word, "delta": str, "message_id": Word},
    _T.TOOL_PROGRESS: {"call_id": Word, "tool_name": Word, "progress": Any},
    _T.APPROVAL_REQUIRED: {
        "call_id": Word,
        "tool_name": Word,
        "arguments": dict[str, Any],
        "deadline": SecondsOrNone,
        "parent_call_id": WordOrNone,
    },
    _T.INPUT_REQUIRED: {
        "request_id": Word,
        "prompt": str,
        "call_id": WordOrNone,
        "schema": dict[str, Any] | None,
    },
    _T.INPUT_RESOLVED: {
        "request_id": Word,
        "outcome": Literal["answered", "declined", "timeout", "cancelled"],
        "text": str | None,
    },
    _T.USER_MESSAGE: {"message": str, "parts": list[Part]},
    _T.CUSTOM: {"name": str, "value": Any},
}
"""The value that belongs to each key of `DATA_KEYS`."""

OLD_SHAPES: Final[dict[EventType, dict[str, Shape]]] = {
    type: {key: shape for key, shape in shapes.items() if key not in ADDED_KEYS.get(type, ())}
    for type, shapes in SHAPES.items()
}
"""The same for a log of schema 1."""
OLD_SHAPES[_T.RUN_START]["schema"] = Literal[1]

SHAPES_OF: Final = {1: OLD_SHAPES, SCHEMA: SHAPES}
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
