"""Folds the events of UPDATES into the state they describe.

Nothing that was handed out is changed later: an entry that changes is replaced by a new dict, and
all entries that did not change are shared between one state and the next.
"""

from __future__ import annotations

from io import StringIO
from typing import Any

from ._chunks import Usage
from ._events import AgentEvent, EventType


class Snapshot:
    """The state of a run, event by event."""

    def __init__(self) -> None:
        self._status: str | None = None
        self._reason: str | None = None
        self._messages: dict[str, dict[str, Any]] = {}
        self._texts: dict[str, tuple[StringIO, StringIO]] = {}
        self._calls: dict[str, dict[str, Any]] = {}
        self._agents: dict[str, dict[str, Any]] = {}
        self._approvals: dict[str, None] = {}
        self._questions: dict[str, dict[str, Any]] = {}
        self._said: tuple[dict[str, Any], ...] = ()
        self._said_at: tuple[int, ...] = ()
        self._began: dict[str, int] = {}
        """The ``seq`` at which what has this id, or path, began."""
        self._error: dict[str, Any] | None = None
        self._usage: dict[str, Any] = Usage().to_dict()

    def state(self) -> dict[str, Any]:
        """The complete state after the events so far.

        Keys: ``status``, ``reason``, ``messages``, ``calls``, ``agents`` (lists in order of their
        beginning), ``approvals`` (open call ids), ``questions`` (open, with their prompts and
        schemas), ``user_messages`` (what the user said meanwhile), ``error`` (what ERROR told, or
        None), ``usage``; and ``began``: for each list of dicts the ``seq`` where each began,
        so that they can be put in order.
        """
        return {
            "status": self._status,
            "reason": self._reason,
            "messages": [self._message(key) for key in self._messages],
            "calls": list(self._calls.values()),
            "agents": list(self._agents.values()),
            "approvals": list(self._approvals),
            "questions": list(self._questions.values()),
            "user_messages": list(self._said),
            "error": self._error,
            "usage": self._usage,
            "began": {
                "messages": [self._began[key] for key in self._messages],
                "calls": [self._began[key] for key in self._calls],
                "agents": [self._began[key] for key in self._agents],
                "questions": [self._began[key] for key in self._questions],
                "user_messages": list(self._said_at),
            },
        }

    def add(self, event: AgentEvent) -> None:
        """Take one event of UPDATES; other events change nothing."""
        data = event.data
        match event.type:
            case EventType.MESSAGE_CHUNK:
                self._open(event)[0].write(data["chunk"])
            case EventType.REASONING_CHUNK:
                self._open(event)[1].write(data["chunk"])
            case EventType.MESSAGE_PART:
                self._open(event)
                self._change_message(event, parts=[*self._parts(event), data["part"]])
            case EventType.MESSAGE_RESET:
                self._open(event)
                self._texts[data["message_id"]] = (StringIO(), StringIO())
                self._change_message(event, parts=[])
            case EventType.MESSAGE_COMPLETE:
                self._close(event)
            case EventType.RUN_START:
                self._status = "initializing"
            case EventType.STATE_CHANGE:
                self._status, self._reason = data["new_status"], data["reason"]
            case EventType.APPROVAL_REQUIRED:
                self._approvals[data["call_id"]] = None
                self._change_call(event, status="waiting_for_approval", arguments=data["arguments"])
            case EventType.TOOL_CALL_START:
                self._approvals.pop(data["call_id"], None)
                self._change_call(event, status="running", arguments=data["arguments"])
            case EventType.TOOL_CALL_END:
                self._approvals.pop(data["call_id"], None)
                self._change_call(
                    event, status=data["outcome"], result=data["result"], error=data["error"]
                )
            case EventType.AGENT_START:
                self._began[data["agent"]] = event.seq
                self._agents[data["agent"]] = {
                    "agent": data["agent"],
                    "call_id": data["call_id"],
                    "status": "running",
                    "result": None,
                    "error": None,
                }
            case EventType.AGENT_END:
                self._agents[data["agent"]] = {
                    **self._agents[data["agent"]],
                    "status": data["outcome"],
                    "result": data["result"],
                    "error": data["error"],
                }
            case EventType.INPUT_REQUIRED:
                self._began[data["request_id"]] = event.seq
                self._questions[data["request_id"]] = {
                    "request_id": data["request_id"],
                    "prompt": data["prompt"],
                    "schema": data.get("schema"),
                }
            case EventType.INPUT_RESOLVED:
                self._questions.pop(data["request_id"], None)
            case EventType.USER_MESSAGE:
                self._said += (data,)
                self._said_at += (event.seq,)
            case EventType.ERROR:
                self._error = data
            case EventType.DONE:
                self._usage = data["usage"]
            case _:
                pass

    # Messages: text is kept in two growing buffers while a message is open

    def _open(self, event: AgentEvent) -> tuple[StringIO, StringIO]:
        message_id = event.data["message_id"]
        if message_id not in self._messages:
            self._began[message_id] = event.seq
            self._texts[message_id] = (StringIO(), StringIO())
            self._messages[message_id] = {
                "message_id": message_id,
                "agent": event.agent,
                "content": "",
                "reasoning": "",
                "parts": [],
                "finish_reason": None,
            }
        return self._texts[message_id]

    def _close(self, event: AgentEvent) -> None:
        data = event.data
        reasoning = self._open(event)[1].getvalue()
        self._change_message(
            event,
            content=data["content"],
            reasoning=reasoning,
            finish_reason=data["finish_reason"],
        )
        del self._texts[data["message_id"]]
        if data["usage"] is not None:
            self._usage = (Usage(**self._usage) + Usage(**data["usage"])).to_dict()

    def _message(self, message_id: str) -> dict[str, Any]:
        message = self._messages[message_id]
        if message_id not in self._texts:
            return message
        content, reasoning = self._texts[message_id]
        return {**message, "content": content.getvalue(), "reasoning": reasoning.getvalue()}

    def _parts(self, event: AgentEvent) -> list[Any]:
        parts: list[Any] = self._messages[event.data["message_id"]]["parts"]
        return parts

    def _change_message(self, event: AgentEvent, **changes: Any) -> None:
        message_id = event.data["message_id"]
        self._messages[message_id] = {**self._messages[message_id], **changes}

    def _change_call(self, event: AgentEvent, **changes: Any) -> None:
        call_id = event.data["call_id"]
        self._began.setdefault(call_id, event.seq)
        call = self._calls.get(call_id) or {
            "call_id": call_id,
            "tool_name": event.data["tool_name"],
            "agent": event.agent,
            "arguments": None,
            "status": None,
            "result": None,
            "error": None,
        }
        self._calls[call_id] = {**call, **changes}
