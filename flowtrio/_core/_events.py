"""What a run can say: the event types, their data, and the modes and statuses they speak of."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

_MAX: Final = sys.float_info.max

JSON: TypeAlias = Any
"""A JSON value by RFC 8259: dict with text keys, list, str, int, float, bool or None."""

SCHEMA: Final = 2
"""Version of the events' shape, told in RUN_START. Logs of schema 1 are read as well."""

ROOT: Final = "root"
"""Path of a run's own agent."""


class EventType(StrEnum):
    """The kinds of events. The first seven are the specification's; readers may ignore the rest."""

    MESSAGE_CHUNK = "message_chunk"
    """A piece of the model's text."""
    MESSAGE_COMPLETE = "message_complete"
    """A message is whole, or ended early with what there was."""
    STATE_CHANGE = "state_change"
    """The run moved, or says what it is doing."""
    TOOL_CALL_START = "tool_call_start"
    """A tool starts executing."""
    TOOL_CALL_END = "tool_call_end"
    """A tool call ended, however it ended."""
    ERROR = "error"
    """The run failed."""
    DONE = "done"
    """The run ended; always last."""
    RUN_START = "run_start"
    """The run began; always first."""
    AGENT_START = "agent_start"
    """A nested agent began."""
    AGENT_END = "agent_end"
    """A nested agent ended."""
    REASONING_CHUNK = "reasoning_chunk"
    """A piece of the model's visible reasoning."""
    MESSAGE_PART = "message_part"
    """What else a model says: a citation, a file, a refusal, …"""
    MESSAGE_RESET = "message_reset"
    """Discard what was streamed of a message: another attempt follows."""
    TOOL_CALL_ARGS = "tool_call_args"
    """A piece of a call's arguments as the model writes them."""
    TOOL_PROGRESS = "tool_progress"
    """A running tool reports."""
    APPROVAL_REQUIRED = "approval_required"
    """A call waits for a person."""
    INPUT_REQUIRED = "input_required"
    """The agent asks its user; the stream stays open."""
    INPUT_RESOLVED = "input_resolved"
    """A question was answered, or nobody will answer it any more."""
    USER_MESSAGE = "user_message"
    """The user said something while the run went on."""
    CUSTOM = "custom"
    """The application's own."""


class StreamMode(StrEnum):
    """Which events a reader sees. Each mode is a pure function of the log."""

    VALUES = "values"
    """Complete state after each update."""
    UPDATES = "updates"
    """Only incremental changes."""
    INCREMENTAL = "updates"
    """Another name of UPDATES."""
    MESSAGES = "messages"
    """LLM messages, token by token."""
    EVENTS = "events"
    """All events: the log itself."""

    @classmethod
    def _missing_(cls, value: object) -> StreamMode | None:
        if value == "incremental":
            return cls.UPDATES
        raise ValueError(f"mode {value!r}: expected one of {', '.join(cls)}, incremental")


class AgentStatus(StrEnum):
    """What a run is doing. The last three are terminal."""

    INITIALIZING = "initializing"
    RUNNING = "running"
    WAITING_FOR_INPUT = "waiting_for_input"
    WAITING_FOR_APPROVAL = "waiting_for_approval"
    COMPLETED = "completed"
    ERROR = "error"
    CANCELLED = "cancelled"


NO_DOTS: Final = r"(?!\.{1,2}\Z)"
"""Before a name that addresses have: a browser takes ``.`` and ``..`` for steps (WHATWG URL), also
where they are escaped, so that nothing of such a name could ever be asked for."""
RUN_ID: Final = rf"{NO_DOTS}[A-Za-z0-9_.~-]{{1,64}}"
"""A whole run id: URL-safe (RFC 3986, unreserved), up to 64 characters. A pattern to anchor."""


# Without a part in cyclic garbage collection: JSON has no cycles, and a server has so many events
# that walking over them would cost it more than making them did.
class AgentEvent(msgspec.Struct, frozen=True, gc=False):
    """A fact about a run. Frozen; its ``data`` is the reader's own."""

    type: EventType
    """What kind of fact."""
    data: dict[str, JSON]
    """The fact itself; keys by type, see `DATA_KEYS`."""
    seq: int
    """Place in the run's log, from 0 without gaps."""
    run_id: str
    """The run."""
    agent: str
    """Path of the agent that emitted it: ``root``, ``root/researcher``, ``root/researcher#2``."""
    timestamp: float
    """UTC, seconds; for people to read, never for order."""


Shape: TypeAlias = Any
"""A type that msgspec can check a value against."""

Word: TypeAlias = Annotated[str, Meta(min_length=1)]
Path: TypeAlias = Annotated[str, Meta(pattern=r"^root(/[^/]+)*$")]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Instant: TypeAlias = Annotated[float, Meta(ge=-_MAX, le=_MAX)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=_MAX)]
WordOrNone: TypeAlias = Word | None
SecondsOrNone: TypeAlias = Seconds | None
Status: Shape = Literal[tuple(map(str, AgentStatus))]
Outcome: TypeAlias = Literal["ok", "error", "timeout", "cancelled", "denied"]
Source: Shape = Literal["model", "tool", "agent", "deadline", "limit", "store", "internal"]


class _Usage(msgspec.Struct, forbid_unknown_fields=True):
    """See `flowtrio.Usage`; here all six keys are required."""

    prompt_tokens: Count
    completion_tokens: Count
    reasoning_tokens: Count
    cached_tokens: Count
    quality: Literal["measured", "lower_bound"]
    cost: Word | None


class _Cause(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of an ERROR's ``causes``."""

    error: Word
    type: Word
    source: Source


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of a RUN_START's ``parts``."""

    kind: Word
    media_type: WordOrNone
    bytes: Count | None
    name: WordOrNone


FIELDS: Final[dict[EventType, dict[str, Shape]]] = {
    EventType.MESSAGE_CHUNK: {"chunk": str, "message_id": Word},
    EventType.MESSAGE_COMPLETE: {
        "message_id": Word,
        "content": str,
        "finish_reason": Literal[
            "stop", "length", "tool_calls", "content_filter", "cancelled", "error"
        ],
        "usage": _Usage | None,
        "model": WordOrNone,
        "provider": WordOrNone,
        "requested_model": WordOrNone,
        "duration": SecondsOrNone,
        "first_token": SecondsOrNone,
        "parent_call_id": WordOrNone,
    },
    EventType.STATE_CHANGE: {"old_status": Status, "new_status": Status, "reason": str | None},
    EventType.TOOL_CALL_START: {
        "call_id": Word,
        "tool_name": Word,
        "arguments": dict[str, Any],
        "message_id": WordOrNone,
        "provider_executed": bool,
        "parent_call_id": WordOrNone,
    },
    EventType.TOOL_CALL_END: {
        "call_id": Word,
        "tool_name": Word,
        "outcome": Outcome,
        "result": Any,
        "error": str | None,
        "duration": SecondsOrNone,
    },
    EventType.ERROR: {
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
        "causes": list[_Cause],
    },
    EventType.DONE: {
        "status": Literal["completed", "error", "cancelled"],
        "reason": str | None,
        "result": Any,
        "usage": _Usage,
        "events": Annotated[int, Meta(ge=1)],
        "duration": Seconds,
        "leftover": list[Word],
    },
    EventType.RUN_START: {
        "message": str,
        "parts": list[_Part],
        "session_id": WordOrNone,
        "agent": Word,
        "parent_run_id": WordOrNone,
        "schema": Literal[SCHEMA],
    },
    EventType.AGENT_START: {"agent": Path, "call_id": WordOrNone},
    EventType.AGENT_END: {
        "agent": Path,
        "call_id": WordOrNone,
        "outcome": Literal["ok", "error", "timeout", "cancelled"],
        "result": Any,
        "error": str | None,
        "usage": _Usage | None,
        "duration": SecondsOrNone,
    },
    EventType.REASONING_CHUNK: {"chunk": str, "message_id": Word},
    EventType.MESSAGE_PART: {"message_id": Word, "part": dict[str, Any]},
    EventType.MESSAGE_RESET: {"message_id": Word, "reason": Word},
    EventType.TOOL_CALL_ARGS: {
        "call_id": Word,
        "tool_name": Word,
        "delta": str,
        "message_id": Word,
    },
    EventType.TOOL_PROGRESS: {"call_id": Word, "tool_name": Word, "progress": Any},
    EventType.APPROVAL_REQUIRED: {
        "call_id": Word,
        "tool_name": Word,
        "arguments": dict[str, Any],
        "deadline": SecondsOrNone,
        "parent_call_id": WordOrNone,
    },
    EventType.INPUT_REQUIRED: {
        "request_id": Word,
        "prompt": str,
        "call_id": WordOrNone,
        "schema": dict[str, Any] | None,
    },
    EventType.INPUT_RESOLVED: {
        "request_id": Word,
        "outcome": Literal["answered", "declined", "timeout", "cancelled"],
        "text": str | None,
    },
    EventType.USER_MESSAGE: {"message": str, "parts": list[_Part]},
    EventType.CUSTOM: {"name": str, "value": Any},
}
"""The keys of each type's data, each with what its value may be. Every key is always present, null
where there is nothing to say.

What has to know of a new type or key is named by ``tests/test_event_types.py``.
"""

DATA_KEYS: Final[dict[EventType, tuple[str, ...]]] = {
    type: tuple(fields) for type, fields in FIELDS.items()
}
"""The keys alone."""

ADDED_KEYS: Final[dict[EventType, frozenset[str]]] = {
    EventType.MESSAGE_COMPLETE: frozenset(
        {"provider", "requested_model", "duration", "first_token", "parent_call_id"}
    ),
    EventType.TOOL_CALL_START: frozenset({"parent_call_id"}),
    EventType.RUN_START: frozenset({"parts"}),
    EventType.APPROVAL_REQUIRED: frozenset({"parent_call_id"}),
    EventType.INPUT_REQUIRED: frozenset({"call_id", "schema"}),
}
"""The keys that schema 1 did not have."""
