"""What a run asks a person, as it is put to the client of an MCP server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
from mcp_types import ElicitResult

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._failures import why_unfit

if TYPE_CHECKING:
    from flowtrio._hosting._follower import Follower


@attrs.frozen
class Put:
    """A question in the protocol's words."""

    kind: str
    """``approve``, ``answer`` with the form's one field, or ``form`` with all of them."""
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
        reason = "nobody can be asked" if reply is None else None
        if reply is None or reply.action != "accept":
            self._decline(follower, reason)
        else:
            self._accept(follower, dict(reply.content or {}))

    def _accept(self, follower: Follower, content: dict[str, Any]) -> None:
        if self.kind == "approve":
            if content.get("approve") is True:
                follower.approve(self.id)
            else:
                self._decline(follower, None)
            return
        try:
            follower.answer(self.id, content if self.kind == "form" else content.get("answer"))
        except (TypeError, ValueError) as exc:
            self._decline(follower, f"the answer does not fit: {why_unfit(exc)}")

    def _decline(self, follower: Follower, reason: str | None) -> None:
        if self.kind == "approve":
            follower.deny(self.id, reason)
        else:
            follower.dismiss(self.id, reason)


def put_of(event: AgentEvent) -> Put | None:
    """The question that an event asks, if it asks any."""
    data = event.data
    match event.type:
        case EventType.APPROVAL_REQUIRED:
            arguments = json.dumps(data["arguments"], ensure_ascii=False)
            words = f"Approve {data['tool_name']} with {arguments}?"
            return Put("approve", data["call_id"], words, _one("approve", {"type": "boolean"}))
        case EventType.INPUT_REQUIRED:
            schema = data["schema"] or {"type": "string"}
            # A form is an object, whatever is asked for.
            is_form = schema.get("type") == "object"
            kind, form = ("form", schema) if is_form else ("answer", _one("answer", schema))
            return Put(kind, data["request_id"], data["prompt"], form)
        case _:
            return None


def _one(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A form of one field."""
    fields = {name: {"title": name.capitalize(), **schema}}
    return {"type": "object", "properties": fields, "required": [name]}


def settle(follower: Follower, key: str, reply: ElicitResult) -> None:
    """Do what the user said to the question of *key*."""
    kind, _, id = key.partition(":")
    if kind in ("approve", "answer", "form"):
        Put(kind, id, "").settle(follower, reply)
