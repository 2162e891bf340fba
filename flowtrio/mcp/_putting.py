"""What a run asks a person, as it is put to the client of an MCP server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
from mcp_types import ElicitResult

from flowtrio._core._events import AgentEvent, EventType

if TYPE_CHECKING:
    from flowtrio._hosting._follower import Follower


def _one(name: str, type: str) -> dict[str, Any]:
    """A form of one field."""
    fields = {name: {"type": type, "title": name.capitalize()}}
    return {"type": "object", "properties": fields, "required": [name]}


@attrs.frozen
class Put:
    """A question in the protocol's words."""

    kind: str
    """``approve``, ``answer`` with a text, or ``form`` with JSON."""
    id: str
    """The call, or the question."""
    words: str
    schema: dict[str, Any] = attrs.field(factory=dict)

    @property
    def key(self) -> str:
        """What the client answers it by."""
        return f"{self.kind}:{self.id}"

    def settle(self, follower: Follower, reply: ElicitResult | None) -> None:
        """Do what the user said; None where there is nobody to ask."""
        content = (reply.content or {}) if reply is not None else {}
        is_accepted = reply is not None and reply.action == "accept"
        if self.kind == "approve":
            if is_accepted and content.get("approve") is True:
                follower.approve(self.id)
            else:
                follower.deny(self.id, "nobody can be asked" if reply is None else None)
        elif is_accepted:
            text = json.dumps(content) if self.kind == "form" else str(content.get("answer", ""))
            follower.answer(self.id, text)


def put_of(event: AgentEvent) -> Put | None:
    """The question that an event asks, if it asks any."""
    data = event.data
    match event.type:
        case EventType.APPROVAL_REQUIRED:
            arguments = json.dumps(data["arguments"], ensure_ascii=False)
            words = f"Approve {data['tool_name']} with {arguments}?"
            return Put("approve", data["call_id"], words, _one("approve", "boolean"))
        case EventType.INPUT_REQUIRED:
            schema = data["schema"] or {}
            if schema.get("type") == "object":
                return Put("form", data["request_id"], data["prompt"], schema)
            return Put("answer", data["request_id"], data["prompt"], _one("answer", "string"))
        case _:
            return None


def settle(follower: Follower, key: str, reply: ElicitResult) -> None:
    """Do what the user said to the question of *key*."""
    kind, _, id = key.partition(":")
    if kind in ("approve", "answer", "form"):
        Put(kind, id, "").settle(follower, reply)
