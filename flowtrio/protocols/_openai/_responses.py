"""A run as one response of OpenAI's Responses, or as several where it waits for the client.

A response is a list of items, each with its own beginning and end: texts, reasoning, calls. Calls
that we run are items of kind ``mcp_call``, which clients show and do not run; those of the client's
own tools are ``function_call``, told when the run waits for nothing else. What is discarded ends
``incomplete`` and is no part of the response at its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import attrs
import msgspec

from flowtrio._agents._client_tool import asks_for_result
from flowtrio._core._events import ROOT, AgentEvent, EventType
from flowtrio.serving.http._segments import Waits

from ._chat import Item, answer_of
from ._errors import Ending, unreadable
from ._items import Message, Opening, Output, Outputs, Speech
from ._usage import Spent

LABEL: Final = "flowtrio"
"""The server by which the calls that we run are told."""
_ARGUMENTS: Final = {"mcp_call": "mcp_call_arguments", "function_call": "function_call_arguments"}


@attrs.define(eq=False)
class _Call:
    """A call that has been told of and has not ended."""

    name: str
    written: str = ""
    """Its arguments as the model writes them."""
    arguments: str = ""
    """Those it runs with."""
    output: Output | None = None


@attrs.define(eq=False, kw_only=True)
class ResponseMapper:
    """Tells a run's log in events of Responses, all but their numbers; see `Mapper`."""

    run_id: str
    model: str
    client_tools: frozenset[str] = frozenset()
    """Names of the tools that the client runs."""
    is_held: bool = False
    """Whether a message is told when it is complete."""
    shows_tools: bool = True
    previous: str | None = None
    """The response before this one."""
    ending: Ending = attrs.field(factory=Ending, init=False)
    status: str = attrs.field(default="in_progress", init=False)
    _id: str = attrs.field(default="", init=False)
    _created: float = attrs.field(default=0, init=False)
    _seq: int = attrs.field(default=-1, init=False)
    _spent: Spent = attrs.field(factory=Spent, init=False)
    _outputs: Outputs = attrs.field(factory=Outputs, init=False)
    _speech: Speech = attrs.field(init=False)
    _held: dict[str, list[tuple[EventType, Item]]] = attrs.field(factory=dict, init=False)
    _calls: dict[str, _Call] = attrs.field(factory=dict, init=False)
    _said: str | None = attrs.field(default=None, init=False)
    _is_cut: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._begin_outputs()

    def _begin_outputs(self) -> None:
        self._outputs = Outputs()
        self._speech = Speech(self._outputs, self.run_id)

    def feed(self, event: AgentEvent) -> list[Item]:
        """See `Mapper`."""
        self._seq = event.seq
        self._spent.feed(event)
        self.ending.feed(event)
        data = event.data
        match event.type:
            case EventType.RUN_START:
                self._created = event.timestamp
                return self._begin(f"resp_{self.run_id}")
            case EventType.TOOL_CALL_ARGS | EventType.TOOL_CALL_START | EventType.TOOL_CALL_END:
                return list(self._tell_call(event.type, data))
            case EventType.APPROVAL_REQUIRED:
                self._know(data).arguments = _as_json(data["arguments"])
                return []
            case EventType.DONE:
                return list(self._end(data))
            case _ if event.agent == ROOT:
                return list(self._tell_root(event.type, data))
            case _:
                return []

    def resume(self) -> list[Item]:
        """See `Mapper`."""
        self.status = "in_progress"
        self._begin_outputs()
        for call in self._calls.values():
            call.output = None
        self._spent.begin()
        return self._begin(f"resp_{self.run_id}:{self._seq}")

    def pause(self, waits: Waits) -> list[Item]:
        """See `Mapper`."""
        return [*self._ask(waits), *self._finish("completed")]

    def fail(self, code: str, error: str) -> list[Item]:
        """See `Mapper`."""
        self.ending.failure = unreadable(code, error)
        return list(self._finish("failed"))

    def response(self) -> Item:
        """The response as it stands."""
        failure = self.ending.failure if self.status in ("failed", "cancelled") else None
        code = "rate_limit_exceeded" if failure and failure.status == 429 else "server_error"
        is_over = self.status != "in_progress"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": self.status,
            "error": failure and {"code": code, "message": failure.message},
            "incomplete_details": {"reason": "max_output_tokens"}
            if self.status == "incomplete"
            else None,
            "instructions": None,
            "metadata": {},
            "model": self.model,
            "output": [dict(o.value) for o in self._outputs.items if not o.is_discarded],
            "parallel_tool_calls": True,
            "previous_response_id": self.previous,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": self._spent.of_response() if is_over else None,
        }

    # What is said

    def _tell_root(self, type: EventType, data: Item) -> Iterator[Item]:
        message_id = data.get("message_id")
        if message_id is None:
            return
        if self.is_held and type is EventType.MESSAGE_RESET:
            self._held.pop(message_id, None)
        elif self.is_held and type is not EventType.MESSAGE_COMPLETE:
            self._held.setdefault(message_id, []).append((type, data))
        else:
            for held in self._held.pop(message_id, ()):
                yield from self._speech.tell(*held)
            yield from self._speech.tell(type, data)
            if type is EventType.MESSAGE_COMPLETE:
                self._said = data["content"] or self._said
                self._is_cut = data["finish_reason"] == "length"

    # Calls

    def _know(self, data: Item) -> _Call:
        return self._calls.setdefault(data["call_id"], _Call(data["tool_name"]))

    def _tell_call(self, type: EventType, data: Item) -> Iterator[Item]:
        call_id, call = data["call_id"], self._know(data)
        is_told = self.shows_tools and call.name not in self.client_tools
        match type:
            case EventType.TOOL_CALL_ARGS:
                call.written += data["delta"]
                if is_told:
                    output = yield from self._opened(call_id, call)
                    yield self._outputs.in_item(
                        "mcp_call_arguments.delta", output, delta=data["delta"]
                    )
            case EventType.TOOL_CALL_START:
                call.arguments = _as_json(data["arguments"])
                if is_told:
                    yield from self._settle(call_id, call)
            case _:
                del self._calls[call_id]
                if is_told:
                    yield from self._end_call(call_id, call, data)

    def _opened(self, call_id: str, call: _Call) -> Opening:
        """The item of a call, which begins if it has not."""
        if call.output is None:
            value = {"type": "mcp_call", "name": call.name, "server_label": LABEL, "arguments": ""}
            call.output = yield from self._outputs.open(f"mcp_{self.run_id}:{call_id}", value)
            yield self._outputs.in_item("mcp_call.in_progress", call.output)
        return call.output

    def _settle(self, call_id: str, call: _Call) -> Iterator[Item]:
        """Tell the arguments of a call as a whole."""
        was_open = call.output is not None
        output = yield from self._opened(call_id, call)
        whole = call.written if _is_same(call.written, call.arguments) else call.arguments
        if not was_open and whole:
            yield self._outputs.in_item("mcp_call_arguments.delta", output, delta=whole)
        output.value["arguments"] = whole
        yield self._outputs.in_item("mcp_call_arguments.done", output, arguments=whole)

    def _end_call(self, call_id: str, call: _Call, data: Item) -> Iterator[Item]:
        if call.output is None or not call.output.value["arguments"]:
            call.arguments = call.arguments or call.written
            yield from self._settle(call_id, call)
        output = call.output
        assert output is not None
        is_ok = data["outcome"] == "ok"
        if is_ok:
            output.value["output"] = _as_text(data["result"])
        else:
            words = data["error"] or data["outcome"]
            content = [{"type": "text", "text": words}]
            output.value["error"] = {"type": "mcp_tool_execution_error", "content": content}
        status = "completed" if is_ok else "failed"
        yield self._outputs.in_item(f"mcp_call.{status}", output)
        yield self._outputs.done(output, status)

    # What is asked

    def _ask(self, waits: Waits) -> Iterator[Item]:
        for call in self._calls.values():
            if call.output is not None:
                # It is told again where it goes on.
                call.output.is_discarded = True
                yield self._outputs.done(call.output, "incomplete")
        for call_id, event in waits.approvals.items():
            value = {
                "type": "mcp_approval_request",
                "name": event.data["tool_name"],
                "server_label": LABEL,
                "arguments": _as_json(event.data["arguments"]),
            }
            output = yield from self._outputs.open(f"mcpr_{self.run_id}:{call_id}", value, None)
            yield self._outputs.done(output, None)
        for request_id, event in waits.questions.items():
            asked = self._calls.get(str(event.data["call_id"]))
            if asked is None or not asks_for_result(event.data):
                message = Message()
                yield from self._speech.say(
                    request_id, message, "output_text", event.data["prompt"]
                )
                yield from self._speech.close(message, "completed")
            else:
                yield from self._hand_over(event.data["call_id"], asked)

    def _hand_over(self, call_id: str, call: _Call) -> Iterator[Item]:
        """A call for the client to run."""
        id = f"{self.run_id}:{call_id}"
        value = {"type": "function_call", "call_id": id, "name": call.name, "arguments": ""}
        output = yield from self._outputs.open(f"fc_{id}", value)
        output.value["arguments"] = whole = call.arguments
        yield self._outputs.in_item("function_call_arguments.delta", output, delta=whole)
        told = {"arguments": whole, "name": call.name}
        yield self._outputs.in_item("function_call_arguments.done", output, **told)
        yield self._outputs.done(output, "completed")

    # Beginning and end

    def _begin(self, id: str) -> list[Item]:
        self._id = id
        return [
            {"type": f"response.{kind}", "response": self.response()}
            for kind in ("created", "in_progress")
        ]

    def _end(self, data: Item) -> Iterator[Item]:
        if self.ending.failure is not None:
            yield from self._finish("cancelled" if self.ending.is_cancelled else "failed")
            return
        answer = answer_of(data["result"], self._said)
        if answer is not None:
            message = Message()
            yield from self._speech.say("result", message, "output_text", answer)
            yield from self._speech.close(message, "completed")
        yield from self._finish("incomplete" if self._is_cut else "completed")

    def _finish(self, status: str) -> Iterator[Item]:
        self.status = status
        kind = "failed" if status == "cancelled" else status
        yield {"type": f"response.{kind}", "response": self.response()}


def _as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else _as_json(value)


def _is_same(written: str, arguments: str) -> bool:
    try:
        return bool(json.loads(written) == json.loads(arguments))
    except ValueError:
        return not arguments
