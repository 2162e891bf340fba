"""The events that close what is open when a run, a call or a nested agent ends early."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from flowtrio._core._events import EventType
from flowtrio._core._law import Bracket, OpenAgent, OpenCall, OpenMessage, OpenQuestion

if TYPE_CHECKING:
    from ._run import Run


def closing_event(run: Run, bracket: Bracket) -> tuple[EventType, dict[str, Any]]:
    """The event that closes *bracket* now."""
    log = run.log
    match bracket:
        case OpenCall():
            call = run.calls.get(bracket.key)
            if call is not None and call.ended is not None:
                # It had ended already and only waited for the reader to be told.
                return EventType.TOOL_CALL_END, call.ended
            return EventType.TOOL_CALL_END, {
                "call_id": bracket.key,
                "tool_name": bracket.tool_name,
                "outcome": "cancelled",
                "result": None,
                "error": None,
                "duration": log.seconds_since(bracket.key),
            }
        case OpenAgent():
            return EventType.AGENT_END, {
                "agent": bracket.key,
                "call_id": bracket.call_id,
                "outcome": "cancelled",
                "result": None,
                "error": None,
                "usage": log.agents[bracket.key].usage.to_dict(),
                "duration": log.seconds_since(bracket.key),
            }
        case OpenQuestion():
            return EventType.INPUT_RESOLVED, {
                "request_id": bracket.key,
                "outcome": "cancelled",
                "text": None,
            }
        case OpenMessage():
            turn = log.turns.get(bracket.key)
            usage = None if turn is None else turn.cut_short(bracket.text.tell()).to_dict()
            return EventType.MESSAGE_COMPLETE, {
                "message_id": bracket.key,
                "content": bracket.text.getvalue(),
                "finish_reason": "error" if turn is not None and turn.has_failed else "cancelled",
                "usage": usage,
                "model": None,
            }
        case _ as never:
            assert_never(never)
