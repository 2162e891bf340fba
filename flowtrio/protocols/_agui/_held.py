"""The messages that an AG-UI client holds, folded from what it is sent as the client folds it.

A server that takes something back has to send all messages there are, the client's own among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import attrs

Told: TypeAlias = dict[str, Any]
"""An event of AG-UI."""


@attrs.define(eq=False)
class _Call:
    call_id: str
    name: str
    arguments: list[str] = attrs.field(factory=list)

    def shown(self) -> Told:
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        return {"id": self.call_id, "type": "function", "function": function}


@attrs.define(eq=False)
class _Held:
    fields: Told
    """All but what grows."""
    text: list[str] | None = None
    calls: dict[str, _Call] = attrs.field(factory=dict)

    def shown(self) -> Told:
        shown = dict(self.fields)
        if self.text is not None:
            shown["content"] = "".join(self.text)
        if self.calls:
            shown["toolCalls"] = [call.shown() for call in self.calls.values()]
        return shown


@attrs.define(eq=False)
class HeldMessages:
    """What a client holds that held *given* when a run began, and applies what the run tells."""

    given: list[Told]
    _said: dict[str, _Held] = attrs.field(factory=dict, init=False)
    _owners: dict[str, str] = attrs.field(factory=dict, init=False)
    """The message that a call stands in, by call id."""

    def apply(self, event: Told) -> None:
        """Take an event that the client is sent."""
        match event["type"]:
            case "TEXT_MESSAGE_START":
                held = self._open(event["messageId"], event["role"], event)
                held.text = [] if held.text is None else held.text
            case "REASONING_MESSAGE_START":
                held = self._open(event["messageId"], "reasoning", event)
                held.text = [] if held.text is None else held.text
            case "TEXT_MESSAGE_CONTENT" | "REASONING_MESSAGE_CONTENT":
                text = self._said[event["messageId"]].text
                assert text is not None  # it was started
                text.append(event["delta"])
            case "TEXT_MESSAGE_END":
                self._annotate(self._said[event["messageId"]], event)
            case "TOOL_CALL_START":
                self._begin_call(event)
            case "TOOL_CALL_ARGS":
                call_id = event["toolCallId"]
                self._said[self._owners[call_id]].calls[call_id].arguments.append(event["delta"])
            case "TOOL_CALL_RESULT":
                fields = {"toolCallId": event["toolCallId"], "content": event["content"]}
                held = self._open(event["messageId"], "tool", event)
                held.fields.update(fields)
                self._annotate(held, event)

    def _open(self, message_id: str, role: str, event: Told) -> _Held:
        if message_id not in self._said:
            fields = {"id": message_id, "role": role}
            if "subagentRunId" in event:
                fields["subagentRunId"] = event["subagentRunId"]
            self._said[message_id] = _Held(fields)
        return self._said[message_id]

    def _begin_call(self, event: Told) -> None:
        call_id = event["toolCallId"]
        if call_id not in self._owners:
            owner = str(event.get("parentMessageId", call_id))
            held = self._open(owner, "assistant", event)
            held.calls[call_id] = _Call(call_id, event["toolCallName"])
            self._owners[call_id] = owner

    def _annotate(self, held: _Held, event: Told) -> None:
        if "metadata" in event:
            held.fields["metadata"] = {**held.fields.get("metadata", {}), **event["metadata"]}

    def retract(self, message_id: str, reasoning_ids: Iterable[str]) -> None:
        """Take back a message with its calls and their results, and its reasoning.

        A client keeps its reasoning unless it is sent some: what is taken back is sent empty.
        """
        held = self._said.pop(message_id, None)
        calls = () if held is None else held.calls
        for call_id in calls:
            self._owners.pop(call_id)
        self._said = {
            key: other
            for key, other in self._said.items()
            if other.fields.get("toolCallId") not in calls
        }
        for reasoning_id in reasoning_ids:
            self._said[reasoning_id].text = []

    def all(self) -> list[Told]:
        """All messages, results behind the messages with their calls."""
        return [*self.given, *self._in_order()]

    def said(self) -> list[Told]:
        """Those of the run."""
        return list(self._in_order())

    def _in_order(self) -> Iterator[Told]:
        results: dict[str, list[Told]] = {}
        for held in self._said.values():
            if "toolCallId" in held.fields:
                owner = self._owners[held.fields["toolCallId"]]
                results.setdefault(owner, []).append(held.shown())
        for message_id, held in self._said.items():
            if "toolCallId" not in held.fields:
                yield held.shown()
                yield from results.get(message_id, ())


def content_of(message: Told) -> tuple[Any, ...]:
    """What is compared of a message: two clients may remember other things beside it."""
    calls = [
        (call.get("id"), (call.get("function") or {}).get("arguments"))
        for call in message.get("toolCalls") or ()
    ]
    return message.get("role"), message.get("content") or "", tuple(calls)
