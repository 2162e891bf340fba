"""What remote readers are not shown: the text of the application's own exceptions.

It may hold paths, queries and customers. They see its type and an error id, under which the
operators find it in the log, with its traceback.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from flowtrio._core._events import AgentEvent, EventType

_DESCRIBED = re.compile(r"([^\W\d]\w*)(?:: .*)?", re.DOTALL)
"""How an exception is told: ``Type: text``, or the type alone. Our own words begin otherwise."""

_ERROR = "error: "
"""How a conversation tells the model that a call failed."""

_TELLING = frozenset({EventType.ERROR, EventType.TOOL_CALL_END, EventType.AGENT_END})
"""The events that tell of exceptions."""

_OURS = frozenset({"tool", "agent", "store", "internal"})
"""Sources whose texts were written by the application or by a library below it."""


def conceal(event: AgentEvent) -> AgentEvent:
    """Give *event* as remote readers may see it."""
    data = event.data
    match event.type:
        case EventType.ERROR:
            concealed = _conceal_failure(data, event.run_id)
        case EventType.TOOL_CALL_END:
            concealed = _conceal_error(data, f"{event.run_id}:{data['call_id']}")
        case EventType.AGENT_END:
            concealed = _conceal_error(data, event.run_id)
        case _:
            return event
    return event if concealed is data else msgspec.structs.replace(event, data=concealed)


def conceal_all(events: Sequence[AgentEvent]) -> list[AgentEvent]:
    """Give *events* as remote readers may see them."""
    return [conceal(event) if event.type in _TELLING else event for event in events]


def conceal_message(message: dict[str, Any]) -> dict[str, Any]:
    """Give a conversation's *message* as remote readers may see it: without a tool's own text.

    A conversation does not tell results from errors. What a tool returned that reads like an error
    is cut too.
    """
    content = message.get("content")
    if message.get("role") != "tool" or not isinstance(content, str):
        return message
    described = _DESCRIBED.fullmatch(content.removeprefix(_ERROR))
    if described is None or not content.startswith(_ERROR):
        return message
    return {**message, "content": _ERROR + described[1]}


def _conceal_failure(data: dict[str, Any], error_id: str) -> dict[str, Any]:
    if data["source"] in _OURS:
        data = _conceal_error(data, error_id)
    causes = [
        {**cause, "error": f"{cause['type']} ({error_id})"} if cause["source"] in _OURS else cause
        for cause in data["causes"]
    ]
    return {**data, "causes": causes}


def _conceal_error(data: dict[str, Any], error_id: str) -> dict[str, Any]:
    described = _DESCRIBED.fullmatch(data["error"] or "")
    if described is None or data.get("outcome", "error") != "error":
        return data
    return {**data, "error": f"{described[1]} ({error_id})"}
