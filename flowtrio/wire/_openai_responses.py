"""OpenAI's Responses: a stream of named events about the items of an answer.

A reply is finished when its response is ``completed`` or ``incomplete``. What a model says comes in
fragments, and again whole when an item is done: servers that send no fragments are heard by that.
The conversation is ours: the provider is asked to store nothing, so the items that it wants back
(encrypted reasoning, calls of its own tools) go back as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from flowtrio._core._chunks import Chunk, ToolArgs

from ._calls import CallWriter
from ._errors import is_said, stream_error
from ._finish import FinishMark
from ._json import decode_json
from ._openai_items import (
    annotation_part,
    call_part,
    carry_of,
    is_known_at_once,
    is_server_tool,
    other_part,
    result_parts,
)
from ._payloads import EventReply, Payloads
from ._reply import ReplyDecoder, whole_of
from ._sse import MAX_EVENT_BYTES, ServerSentEvent, SSEDecoder
from ._usage import read_usage

_REASONS = ("max_output_tokens", "content_filter")
"""What this protocol's incomplete responses say of themselves; gateways have other words."""


_ARGUMENTS = "response.function_call_arguments.delta"


class _Event(msgspec.Struct):
    type: str | None = None
    delta: Any = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: str | None = None
    item: Any = None
    response: Any = None
    annotation: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    code: Any = None
    error: Any = None
    message: Any = None
    param: Any = None


_decoder = msgspec.json.Decoder(_Event)


@attrs.define(eq=False)
class _Item:
    """An item of the answer that is being written."""

    value: dict[str, Any] = attrs.Factory(dict)
    """As it was told last."""
    is_done: bool = False
    started: str | None = None
    """The id under which its call of a tool of the provider's was told."""
    call: int | None = None
    """Where the calls are written, if it is one of a function."""
    said: set[tuple[str, int]] = attrs.Factory(set)
    """What of it came in fragments: kind, and place of the fragment's text."""
    cited: dict[int, int] = attrs.Factory(dict)
    """How many annotations of each text were told."""

    @property
    def is_cut(self) -> bool:
        """Whether it is a call of which nobody said that it is whole, though its response is."""
        if self.call is None:
            return False
        return self.value.get("status") == "incomplete" or not (self.is_done or self.said)


def responses_decoder(max_event_bytes: int = MAX_EVENT_BYTES) -> ReplyDecoder[ServerSentEvent]:
    """A decoder of one streamed reply."""
    return ReplyDecoder(SSEDecoder(max_event_bytes), ResponsesReply(), "a response.completed")


class ResponsesReply(EventReply):
    """Reads the frames of one reply; see `flowtrio.wire._reply.Reply`."""

    def __init__(self) -> None:
        self.payloads = Payloads(_decoder)
        self._calls = CallWriter()
        self._is_begun = False
        self._begin()

    def _begin(self) -> None:
        """A response begins; calls are counted on."""
        self._items: dict[int | str, _Item] = {}
        self._first_call = len(self._calls)
        self._status: str | None = None
        self._response: dict[str, Any] = {}

    @property
    def is_finished(self) -> bool:
        """Whether the finish mark was seen."""
        return self._status is not None

    def read_payload(self, data: bytes, event: str = "") -> list[Chunk]:
        """Give what an event says; see `EventReply.read`."""
        told = self.payloads.read(data)
        return self._event(told, told.type or event)

    def _event(self, event: _Event, kind: str) -> list[Chunk]:
        delta = event.delta
        if kind == _ARGUMENTS:
            return [Chunk(tool_args=[self._write(self._item(event), delta)])]
        if isinstance(delta, str):
            return self._delta(event, kind, delta) if delta else []
        if kind == "error" or (is_said(event.error) and not kind.startswith("response.")):
            raise stream_error(_error_of(event))
        if isinstance(event.response, dict):
            return self._progress(kind, event.response)
        item = self._item(event)
        if isinstance(event.item, dict):
            item.value = event.item
            return self._begun(item) if kind == "response.output_item.added" else self._done(item)
        if isinstance(event.annotation, dict):
            place = event.content_index or 0
            item.cited[place] = item.cited.get(place, 0) + 1
            return [Chunk(parts=[annotation_part(event.annotation)])]
        return self._whole(item, event, kind)

    def _item(self, event: _Event) -> _Item:
        key: int | str | None = event.output_index
        if key is None:
            told = event.item.get("id") if isinstance(event.item, dict) else event.item_id
            key = told if isinstance(told, str) else ""
        item = self._items.get(key)
        if item is None:
            item = self._items[key] = _Item()
        return item

    # The response

    def _progress(self, kind: str, response: dict[str, Any]) -> list[Chunk]:
        """Take what is told of the whole response."""
        again: list[Chunk] = []
        if kind == "response.created":
            if self._is_begun and not self.is_finished:
                # A gateway that asked its own host again: what that said first is void.
                again = [Chunk(reset="the host began its reply anew")] if self._items else []
                self._calls = CallWriter()
            if self._is_begun or self.is_finished:
                # Another answer in the same stream takes the place of this one.
                self._begin()
            self._is_begun = True
        status = response.get("status")
        if kind in ("response.failed", "response.cancelled") or status in ("failed", "cancelled"):
            raise stream_error(response.get("error") or {"message": f"response {status or kind}"})
        self._response = response
        if kind not in ("response.completed", "response.incomplete"):
            return again
        chunks = self._output(_dicts(response.get("output")))
        is_cut = "incomplete" in (status, kind.removeprefix("response."))
        self._status = "incomplete" if is_cut else "completed"
        return chunks

    def _output(self, output: Sequence[dict[str, Any]]) -> list[Chunk]:
        """Take the items that a response ends with, where they were not told one by one."""
        chunks: list[Chunk] = []
        if any(item.is_done for item in self._items.values()):
            for value in output:
                chunks += self._forgotten(value)
            return chunks
        places = {item.value.get("id") or key: key for key, item in self._items.items()}
        for place, value in enumerate(output):
            key = places.get(value.get("id"), "" if "" in self._items else place)
            item = self._items.setdefault(key, _Item())
            item.value = value
            chunks += self._done(item)
        return chunks

    def _forgotten(self, value: dict[str, Any]) -> list[Chunk]:
        """Take a call that was not told to be done when other items were."""
        call_id = value.get("call_id")
        if value.get("type") != "function_call" or not isinstance(call_id, str):
            return []
        known = [item for item in self._items.values() if item.value.get("call_id") == call_id]
        if any(item.is_done for item in known):
            return []
        item = known[0] if known else self._items.setdefault(call_id, _Item())
        item.value = value
        return self._done(item)

    def final(self) -> Chunk:
        """The final chunk."""
        calls = self._calls.finish()[self._first_call :]
        mark = FinishMark(unknown="length")
        if self._status == "incomplete":
            details = self._response.get("incomplete_details")
            why = details.get("reason") if isinstance(details, dict) else None
            mark.tell("incomplete")
            mark.tell(why)
        elif any(item.is_cut for item in self._items.values()):
            mark.tell("incomplete")
        raw = self._status if mark.raw in _REASONS else mark.raw or self._status
        model = self._response.get("model")
        done = [item.value for item in self._items.values() if item.is_done]
        return Chunk(
            is_final=True,
            tool_calls=calls,
            finish_reason=mark.finish_reason(bool(calls)),
            raw_finish_reason=raw,
            usage=read_usage(self._response.get("usage")),
            model=model if isinstance(model, str) else None,
            carry=carry_of(done, self._response.get("store") is True),
        )

    # Fragments

    def _delta(self, event: _Event, kind: str, delta: str) -> list[Chunk]:
        match kind:
            case "response.output_text.delta":
                self._item(event).said.add(("text", event.content_index or 0))
                return [Chunk(content=delta)]
            case "response.reasoning_summary_text.delta":
                return self._summary(self._item(event), event.summary_index or 0, delta)
            case "response.reasoning_text.delta":
                self._item(event).said.add(("reasoning", event.content_index or 0))
                return [Chunk(reasoning=delta)]
            case "response.refusal.delta":
                self._item(event).said.add(("refusal", event.content_index or 0))
                return [_refusal(delta)]
            case _:
                return []

    def _summary(self, item: _Item, place: int, text: str) -> list[Chunk]:
        # Each part of a summary is a paragraph, with a headline of its own.
        is_next = place > 0 and ("summary", place) not in item.said
        item.said.add(("summary", place))
        return [Chunk(reasoning=f"\n\n{text}" if is_next else text)]

    def _write(self, item: _Item, arguments: Any) -> ToolArgs:
        """Write a piece of a function call's arguments."""
        if item.call is None:
            item.call = len(self._calls)
        if arguments:
            item.said.add(("arguments", 0))
        call_id, name = item.value.get("call_id"), item.value.get("name")
        return self._calls.add(
            item.call,
            call_id if isinstance(call_id, str) else "",
            name if isinstance(name, str) else "",
            arguments,
        )

    # Items

    def _begun(self, item: _Item) -> list[Chunk]:
        if item.value.get("type") == "function_call":
            return [Chunk(tool_args=[self._write(item, "")])]
        return self._start(item) if is_known_at_once(item.value) else []

    def _start(self, item: _Item) -> list[Chunk]:
        if item.started is not None or not is_server_tool(item.value):
            return []
        item.started = str(item.value.get("id") or f"server_{len(self._items)}")
        return [Chunk(parts=[call_part(item.value, item.started)])]

    def _whole(self, item: _Item, event: _Event, kind: str) -> list[Chunk]:
        """Take what is now told whole; only what did not come in fragments is new."""
        place = event.content_index or 0
        match kind:
            case "response.output_text.done":
                return self._text(item, place, event.text)
            case "response.refusal.done":
                return self._refused(item, place, event.refusal)
            case "response.function_call_arguments.done":
                chunks = self._arguments(item, event.arguments)
                item.said.add(("arguments", 0))
                return chunks
            case "response.mcp_call_arguments.done":
                item.value = {**item.value, "arguments": event.arguments}
                return self._start(item)
            case "response.code_interpreter_call_code.done":
                item.value = {**item.value, "code": event.code}
                return self._start(item)
            case _:
                return []

    def _done(self, item: _Item) -> list[Chunk]:
        item.is_done = True
        value = item.value
        match value.get("type"):
            case "message":
                return self._message(item)
            case "reasoning":
                return self._thoughts(item)
            case "function_call":
                return self._arguments(item, value.get("arguments"))
            case _ if is_server_tool(value):
                started = self._start(item)
                return [*started, Chunk(parts=result_parts(value, str(item.started)))]
            case _:
                return [Chunk(parts=[other_part(value)])]

    def _message(self, item: _Item) -> list[Chunk]:
        chunks: list[Chunk] = []
        for place, part in enumerate(_dicts(item.value.get("content"))):
            chunks += self._text(item, place, part.get("text"))
            chunks += self._refused(item, place, part.get("refusal"))
            new = _dicts(part.get("annotations"))[item.cited.get(place, 0) :]
            if new:
                chunks.append(Chunk(parts=[annotation_part(annotation) for annotation in new]))
        return chunks

    def _thoughts(self, item: _Item) -> list[Chunk]:
        if any(kind in ("summary", "reasoning") for kind, _ in item.said):
            return []
        chunks: list[Chunk] = []
        for place, part in enumerate(_dicts(item.value.get("summary"))):
            if isinstance(part.get("text"), str):
                chunks += self._summary(item, place, part["text"])
        for place, part in enumerate(_dicts(item.value.get("content"))):
            if isinstance(part.get("text"), str):
                item.said.add(("reasoning", place))
                chunks.append(Chunk(reasoning=part["text"]))
        return chunks

    def _text(self, item: _Item, place: int, text: Any) -> list[Chunk]:
        if not isinstance(text, str) or not text or ("text", place) in item.said:
            return []
        item.said.add(("text", place))
        return [Chunk(content=text)]

    def _refused(self, item: _Item, place: int, text: Any) -> list[Chunk]:
        if not isinstance(text, str) or not text or ("refusal", place) in item.said:
            return []
        item.said.add(("refusal", place))
        return [_refusal(text)]

    def _arguments(self, item: _Item, arguments: Any) -> list[Chunk]:
        is_new = ("arguments", 0) not in item.said
        return [Chunk(tool_args=[self._write(item, arguments if is_new else "")])]


def _refusal(text: str) -> Chunk:
    return Chunk(parts=[{"type": "refusal", "text": text}])


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _error_of(event: _Event) -> Any:
    if event.error is not None:
        return event.error
    return {"message": event.message, "code": event.code}


def decode_completion(body: bytes) -> list[Chunk]:
    """Decode an answer that was not streamed; see `whole_of`."""
    try:
        response = decode_json(body)
    except ValueError:
        response = None
    response = response if isinstance(response, dict) else {}
    if is_said(response.get("error")):
        raise stream_error(response["error"])
    reply, chunks = ResponsesReply(), list[Chunk]()
    if (status := response.get("status")) is not None:
        chunks = reply._progress(f"response.{status}", response)
    return whole_of(reply, chunks, body, f"is no completed response ({len(body)} bytes)")
