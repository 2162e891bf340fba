"""The events that close what is open, in a form that the law cannot refuse.

Whatever the law would compare with what opened a bracket (whose it is, its name, its text) is taken
from the bracket itself. Only how it ended is told by others, and where they cannot tell or tell
what is not legal of it, it was cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, assert_never

from ._brackets import Bracket, CallPhase, OpenAgent, OpenCall, OpenMessage, OpenQuestion
from ._chunks import Usage
from ._events import EventType

_CANCELLED: Final = {"outcome": "cancelled", "result": None, "error": None}
_UNANSWERED: Final = {"outcome": "cancelled", "text": None}
UNASKED: Final[dict[str, Any]] = {
    "model": None,
    "provider": None,
    "requested_model": None,
    "duration": None,
    "first_token": None,
}
"""What a message tells of a model where none was asked, or it is not known."""
_CUT_SHORT: Final = {
    **UNASKED,
    "finish_reason": "cancelled",
    "usage": None,
    "parent_call_id": None,
}
_OUTCOMES: Final = {
    CallPhase.WRITTEN: frozenset({"error", "denied", "cancelled"}),
    CallPhase.ASKED: frozenset({"error", "denied", "timeout", "cancelled"}),
    CallPhase.STARTED: frozenset({"ok", "error", "timeout", "cancelled"}),
}
"""How a call may end, by how far it has come."""


def closing_event(
    bracket: Bracket, told: Mapping[str, Any] | None = None
) -> tuple[EventType, dict[str, Any]]:
    """The event that closes *bracket*.

    Args:
      bracket: What is open.
      told: What there is to tell of its end: keys of the event's data.

    """
    told = {} if told is None else told
    own: dict[str, Any]
    match bracket:
        case OpenCall():
            if told.get("outcome") not in _OUTCOMES[bracket.phase]:
                told = {"duration": told.get("duration")}
            own = {"call_id": bracket.key, "tool_name": bracket.tool_name}
            return EventType.TOOL_CALL_END, {**own, **_CANCELLED, "duration": None, **told, **own}
        case OpenAgent():
            own = {"agent": bracket.key, "call_id": bracket.call_id}
            usage = {**Usage().to_dict(), "quality": "lower_bound"}
            told = {"usage": usage, "duration": None, **told}
            return EventType.AGENT_END, {**own, **_CANCELLED, **told, **own}
        case OpenQuestion():
            own = {"request_id": bracket.key}
            return EventType.INPUT_RESOLVED, {**own, **_UNANSWERED, **told, **own}
        case OpenMessage():
            own = {"message_id": bracket.key, "content": bracket.text.getvalue()}
            return EventType.MESSAGE_COMPLETE, {**own, **_CUT_SHORT, **told, **own}
        case _ as never:
            assert_never(never)
