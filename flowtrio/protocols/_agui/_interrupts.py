"""What an AG-UI run waits for at its end, and what the next request answers.

A call that waits for approval and a question are interrupts; a call of a tool that the front end
runs is a call without a result, which the client sends as a message.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from flowtrio._agents._client_tool import asks_for_result
from flowtrio._core._events import AgentEvent
from flowtrio.serving.http._segments import Waits

from ._held import Told
from ._said import Ids, ours

APPROVAL: Final[Told] = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean"},
        "reason": {"type": "string"},
        "editedArgs": {"type": "object"},
    },
    "required": ["approved"],
}
"""What answers a call; ``editedArgs`` stand for all of its own."""


def interrupts_of(waits: Waits, ids: Ids, calls: Iterable[str]) -> list[Told]:
    """The interrupts that a run ends with: those of *calls*, which wait, in their order."""
    return [
        *(_approval(waits.approvals[call_id], ids) for call_id in calls),
        *(_question(event, ids) for event in questions_of(waits).values()),
    ]


def questions_of(waits: Waits) -> dict[str, AgentEvent]:
    """The questions that people are asked, by request id."""
    return {key: event for key, event in waits.questions.items() if not is_for_client(event)}


def pending_calls(waits: Waits) -> dict[str, str]:
    """The calls that the front end runs, each with the request that its result answers."""
    asked = [event.data for event in waits.questions.values() if is_for_client(event)]
    return {data["call_id"]: data["request_id"] for data in asked}


def is_for_client(event: AgentEvent) -> bool:
    """Whether a question is a call that the front end runs."""
    return asks_for_result(event.data)


def _approval(event: AgentEvent, ids: Ids) -> Told:
    data = event.data
    call_id = ids.of(data["call_id"])
    interrupt = {
        "id": call_id,
        "reason": "tool_call",
        "message": f"Approve {data['tool_name']}?",
        "toolCallId": call_id,
        "responseSchema": APPROVAL,
        "metadata": ours({"toolName": data["tool_name"], "arguments": data["arguments"]}),
        **ids.tag(event.agent),
    }
    expires = _expires(event.timestamp, data["deadline"])
    return interrupt if expires is None else {**interrupt, "expiresAt": expires}


def _question(event: AgentEvent, ids: Ids) -> Told:
    data = event.data
    schema = data["schema"] or {"type": "string"}
    call = None if data["call_id"] is None else ids.of(data["call_id"])
    return {
        "id": ids.of(data["request_id"]),
        "reason": "input_required",
        "message": data["prompt"],
        "responseSchema": {
            "type": "object",
            "properties": {"text": schema},
            "required": ["text"],
        },
        "metadata": ours({"toolCallId": call}),
        **ids.tag(event.agent),
    }


def _expires(since: float, seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        at = datetime.fromtimestamp(since + seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # later than there are dates for
    return at.isoformat(timespec="milliseconds")
