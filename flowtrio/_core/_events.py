"""What a run can say: the event types, their data, and the modes and statuses they speak of."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec

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


RUN_ID: Final = r"[A-Za-z0-9_.~-]{1,64}"
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


DATA_KEYS: Final[dict[EventType, tuple[str, ...]]] = {
    EventType.MESSAGE_CHUNK: ("chunk", "message_id"),
    EventType.MESSAGE_COMPLETE: (
        "message_id",
        "content",
        "finish_reason",
        "usage",
        "model",
        "provider",
        "requested_model",
        "duration",
        "first_token",
        "parent_call_id",
    ),
    EventType.STATE_CHANGE: ("old_status", "new_status", "reason"),
    EventType.TOOL_CALL_START: (
        "call_id",
        "tool_name",
        "arguments",
        "message_id",
        "provider_executed",
        "parent_call_id",
    ),
    EventType.TOOL_CALL_END: ("call_id", "tool_name", "outcome", "result", "error", "duration"),
    EventType.ERROR: (
        "error",
        "code",
        "source",
        "retryable",
        "deadline",
        "limit",
        "detail",
        "causes",
    ),
    EventType.DONE: ("status", "reason", "result", "usage", "events", "duration", "leftover"),
    EventType.RUN_START: ("message", "parts", "session_id", "agent", "parent_run_id", "schema"),
    EventType.AGENT_START: ("agent", "call_id"),
    EventType.AGENT_END: ("agent", "call_id", "outcome", "result", "error", "usage", "duration"),
    EventType.REASONING_CHUNK: ("chunk", "message_id"),
    EventType.MESSAGE_PART: ("message_id", "part"),
    EventType.MESSAGE_RESET: ("message_id", "reason"),
    EventType.TOOL_CALL_ARGS: ("call_id", "tool_name", "delta", "message_id"),
    EventType.TOOL_PROGRESS: ("call_id", "tool_name", "progress"),
    EventType.APPROVAL_REQUIRED: (
        "call_id",
        "tool_name",
        "arguments",
        "deadline",
        "parent_call_id",
    ),
    EventType.INPUT_REQUIRED: ("request_id", "prompt", "call_id", "schema"),
    EventType.INPUT_RESOLVED: ("request_id", "outcome", "text"),
    EventType.USER_MESSAGE: ("message", "parts"),
    EventType.CUSTOM: ("name", "value"),
}
"""The keys of each type's data. Every key is always present, None where there is nothing to say."""

ADDED_KEYS: Final[dict[EventType, frozenset[str]]] = {
    EventType.RUN_START: frozenset({"parts"}),
    EventType.MESSAGE_COMPLETE: frozenset(
        {"provider", "requested_model", "duration", "first_token", "parent_call_id"}
    ),
    EventType.TOOL_CALL_START: frozenset({"parent_call_id"}),
    EventType.APPROVAL_REQUIRED: frozenset({"parent_call_id"}),
    EventType.INPUT_REQUIRED: frozenset({"call_id", "schema"}),
}
"""The keys that schema 1 did not have."""
