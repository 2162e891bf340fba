"""The conversation that a run leaves behind, valid however it ended.

It is not written by the agent but read off the run's own log: a turn joins the conversation with
its MESSAGE_COMPLETE, a result with its TOOL_CALL_END. So it always agrees with what the reader saw,
also when a run was cut off and its agent never came to write anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from ._chunks import ToolCall


@attrs.define(eq=False)
class Reply:
    """One model reply on its way into the conversation."""

    message_id: str
    calls: list[tuple[str, str, ToolCall]] = attrs.Factory(list)
    """Of each call: our id, the id used in the conversation, the call itself."""
    carry: dict[str, Any] | None = None
    """What the provider wants back."""
    refusal: str = ""
    """What the model said instead of an answer."""


class Transcript:
    """One agent's conversation: what it was given, and what followed."""

    def __init__(self, history: Sequence[dict[str, Any]], message: str) -> None:
        self._messages: list[dict[str, Any]] = [*history, {"role": "user", "content": message}]
        self._expected: dict[str, Reply] = {}
        self._open: dict[str, str] = {}
        """Calls without a result: our id to the conversation's."""
        self._used: dict[str, None] = {
            call["id"]: None for message in history for call in message.get("tool_calls") or ()
        }
        """The ids of all its calls."""
        self._results: dict[str, str] = {}

    def expect(self, reply: Reply) -> None:
        """Take *reply* into the conversation when its MESSAGE_COMPLETE is recorded."""
        self._expected[reply.message_id] = reply

    def conversation_id(self, call: ToolCall, fallback: str) -> str:
        """The id of *call* in this conversation: the provider's, where it gave a new one."""
        chosen = call.id if call.id and call.id not in self._used else fallback
        self._used[chosen] = None
        return chosen

    def say(self, role: str, text: str) -> None:
        """Append a message of our own."""
        self._settle()
        self._messages.append({"role": role, "content": text})

    def note_message(self, data: dict[str, Any]) -> None:
        """A MESSAGE_COMPLETE of this agent was recorded."""
        reply = self._expected.pop(data["message_id"], None)
        if reply is None:
            return
        self._settle()
        partial = data["finish_reason"] in ("cancelled", "error")
        text = data["content"] or reply.refusal
        calls = [] if partial else reply.calls
        if not text and not calls:
            return
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [_call_dict(id, call) for _, id, call in calls]
            self._open = {call_id: id for call_id, id, _ in calls}
        private: dict[str, Any] = {"partial": True} if partial else {}
        if reply.carry is not None and not partial:
            private["carry"] = reply.carry
        if private:
            message["flowtrio"] = private
        self._messages.append(message)

    def note_result(self, data: dict[str, Any]) -> None:
        """A TOOL_CALL_END of this agent was recorded."""
        if data["call_id"] in self._open:
            self._results[data["call_id"]] = result_text(data)

    def messages(self) -> list[dict[str, Any]]:
        """The conversation so far. Calls without a result get one that says so."""
        return [*self._messages, *self._result_messages()]

    def _settle(self) -> None:
        """The next message begins: the results of the last reply's calls are final."""
        self._messages += self._result_messages()
        self._open = {}
        self._results = {}

    def _result_messages(self) -> list[dict[str, Any]]:
        return [
            {
                "role": "tool",
                "tool_call_id": id,
                "content": self._results.get(call_id, "error: the call was cancelled"),
            }
            for call_id, id in self._open.items()
        ]


def own_id(run_id: str, call_id: str) -> str:
    """An id for a call whose provider gave none, or gave one twice."""
    return f"call_{run_id[-24:]}_{call_id}"


def result_text(data: dict[str, Any]) -> str:
    """What the model is told of an ended call: its result, or what went wrong."""
    if data["outcome"] == "ok":
        result = data["result"]
        return result if isinstance(result, str) else _to_text(result)
    error = data["error"]
    match data["outcome"]:
        case "denied":
            return f"error: the call was denied by the user{f': {error}' if error else ''}"
        case "cancelled":
            return "error: the call was cancelled"
        case outcome:
            return f"error: {error or outcome}"


def _to_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _call_dict(id: str, call: ToolCall) -> dict[str, Any]:
    # A provider may refuse a conversation whose arguments do not parse, so those become empty.
    arguments = _to_text(call.arguments or {})
    entry: dict[str, Any] = {
        "id": id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
    if call.carry is not None:
        entry["flowtrio"] = {"carry": call.carry}
    return entry
