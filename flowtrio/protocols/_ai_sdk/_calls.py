"""Calls in an AI SDK message: a part of it each, from the first of its arguments to its end.

The client finds a part by its call's id, but looks for one whose arguments are being written, and
for one that is announced again, in the newest step alone. So no step may begin while a call is
written, or waits for somebody; `Calls.are_settled` tells.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from flowtrio._agents._client_tool import asks_for_result
from flowtrio._core._events import ROOT, AgentEvent
from flowtrio.wire._json import decode_json

UIChunk: TypeAlias = dict[str, Any]
"""An event of a UI message stream."""


@attrs.define
class _Call:
    """A call that has not ended."""

    id: str
    name: str
    metadata: dict[str, Any]
    """What its part tells beside."""
    written: list[str] = attrs.Factory(list)
    """Its arguments, as far as the model has written them."""
    input: Any = None
    is_whole: bool = False
    """Whether its arguments are known."""
    is_running: bool = False
    asks: bool = False
    """Whether it waits for a person's approval."""
    is_elsewhere: bool = False
    """Whether the other side runs it."""
    provider: dict[str, Any] = attrs.Factory(dict)
    """That the provider runs it, if so."""

    def begin(self) -> UIChunk:
        """That its arguments begin to be written."""
        return {
            "type": "tool-input-start",
            "toolCallId": self.id,
            "toolName": self.name,
            **self.metadata,
        }

    def write(self, text: str) -> UIChunk:
        """A piece of its arguments."""
        return {"type": "tool-input-delta", "toolCallId": self.id, "inputTextDelta": text}

    def tell(self) -> UIChunk:
        """Its arguments."""
        self.is_whole = True
        return {
            "type": "tool-input-available",
            "toolCallId": self.id,
            "toolName": self.name,
            "input": self.input,
            **self.provider,
            **self.metadata,
        }

    def ask(self) -> UIChunk:
        """That it waits for a person."""
        self.asks = True
        return {"type": "tool-approval-request", "approvalId": self.id, "toolCallId": self.id}

    def decide(self, *, approved: bool, reason: str | None = None) -> UIChunk:
        """What a person said."""
        self.asks = False
        words = {} if reason is None else {"reason": reason}
        decision = {"approvalId": self.id, "approved": approved, **words}
        return {"type": "tool-approval-response", **decision}

    def announce(self) -> list[UIChunk]:
        """All that is known of it, for a message that does not have it."""
        if not self.is_whole:
            return [self.begin(), self.write("".join(self.written))]
        return [self.tell(), *([self.ask()] if self.asks else [])]


@attrs.define(eq=False)
class Calls:
    """The calls of a run that have not ended."""

    run_id: str
    _open: dict[str, _Call] = attrs.field(factory=dict, init=False)

    @property
    def are_settled(self) -> bool:
        """Whether none is being written, or waits for somebody."""
        return not any(
            call.asks or call.is_elsewhere or not call.is_whole for call in self._open.values()
        )

    def knows(self, call_id: str) -> bool:
        """Whether something was told of a call that has not ended."""
        return call_id in self._open

    def runs(self, call_id: str) -> bool:
        """Whether a call has begun, and neither ended nor asked the other side to run it."""
        call = self._open.get(call_id)
        return call is not None and call.is_running and not call.is_elsewhere

    def is_elsewhere(self, call_id: str | None) -> bool:
        """Whether the other side runs a call."""
        call = self._open.get(call_id or "")
        return call is not None and call.is_elsewhere

    def announce(self) -> list[UIChunk]:
        """All that is known of all, for a message that has none of them."""
        return [chunk for call in self._open.values() for chunk in call.announce()]

    @property
    def ids(self) -> list[str]:
        """Those that are open."""
        return list(self._open)

    def id_of(self, call_id: str) -> str:
        """A call's id in a conversation."""
        return f"{self.run_id}:{call_id}"

    def _find(self, event: AgentEvent) -> _Call:
        data = event.data
        call = self._open.get(data["call_id"])
        if call is None:
            parent = data.get("parent_call_id")
            told = {
                **({} if event.agent == ROOT else {"agent": event.agent}),
                **({} if parent is None else {"parentCallId": self.id_of(parent)}),
            }
            metadata = {"toolMetadata": {"flowtrio": told}} if told else {}
            call = _Call(self.id_of(data["call_id"]), data["tool_name"], metadata)
            self._open[data["call_id"]] = call
        return call

    # Events, in the order of a call's life

    def write(self, event: AgentEvent) -> list[UIChunk]:
        """A piece of a call's arguments."""
        is_new = not self.knows(event.data["call_id"])
        call = self._find(event)
        call.written.append(event.data["delta"])
        return [*([call.begin()] if is_new else []), call.write(event.data["delta"])]

    def ask(self, event: AgentEvent) -> list[UIChunk]:
        """It waits for a person."""
        call = self._find(event)
        call.input = event.data["arguments"]
        return [call.tell(), call.ask()]

    def start(self, event: AgentEvent) -> list[UIChunk]:
        """It begins; a person who approved it may have changed its arguments."""
        data, call = event.data, self._find(event)
        chunks = []
        if data["provider_executed"]:
            call.provider = {"providerExecuted": True}
        if not call.is_whole or call.input != data["arguments"]:
            call.input = data["arguments"]
            chunks.append(call.tell())
        if call.asks:
            chunks.append(call.decide(approved=True))
        call.is_running = True
        return chunks

    def expect(self, event: AgentEvent) -> bool:
        """A question is open; give whether it is for the other side, which is to run a call."""
        call = self._open.get(event.data["call_id"] or "")
        if call is None or not asks_for_result(event.data):
            return False
        call.is_elsewhere = True
        return True

    def end(self, event: AgentEvent) -> list[UIChunk]:
        """It has ended, however."""
        data, call = event.data, self._find(event)
        del self._open[data["call_id"]]
        outcome, error = data["outcome"], data["error"] or data["outcome"]
        named = {"toolCallId": call.id, **call.provider}
        if call.asks:
            # Also where nobody said no: of a call that was never approved, a page that checks its
            # messages knows no other end.
            denied = {"type": "tool-output-denied", "toolCallId": call.id}
            return [call.decide(approved=False, reason=error), denied]
        if not call.is_whole:
            given = {"toolName": call.name, "input": _read("".join(call.written))}
            return [
                {
                    "type": "tool-input-error",
                    **named,
                    **given,
                    "errorText": error,
                    **call.metadata,
                }
            ]
        if outcome == "ok":
            return [{"type": "tool-output-available", **named, "output": data["result"]}]
        return [{"type": "tool-output-error", **named, "errorText": error}]


def _read(written: str) -> Any:
    """Arguments that no tool was given: what they mean, or as they were written."""
    try:
        return decode_json(written)
    except ValueError:
        return written or None
