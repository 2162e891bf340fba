"""Anthropic's messages: a reply as named server-sent events, and what has to be sent back.

A reply is a list of blocks. Each begins whole or empty, grows by deltas of its own kind, and stops;
blocks may overlap, told apart by their index. A reply is finished when a ``message_delta`` told its
``stop_reason``, and ends with ``message_stop``.

Blocks other than plain text and plain calls belong to the provider: thoughts are signed, results of
its own tools are encrypted in part, a compaction stands for the conversation before it. So a reply
that has one is kept as it came, and goes back in the next request; see `_anthropic_requests`.

A turn that took the provider's own tools too long is paused (``pause_turn``). It goes on when its
blocks are sent back as they are; what is said then belongs to the same reply, so its reader begins
with what was kept of the part before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import attrs
import msgspec

from flowtrio._core._chunks import Chunk, ToolArgs, Usage

from ._anthropic_parts import citation_part, is_signed, result_parts, server_call_part
from ._calls import CallWriter
from ._errors import is_said, stream_error
from ._finish import FinishMark
from ._json import decode_arguments
from ._payloads import EventReply, Payloads
from ._reply import ReplyDecoder, whole_of
from ._sse import MAX_EVENT_BYTES, ServerSentEvent, SSEDecoder
from ._usage import count

_PAUSED = "pause_turn"

_SERVER_CALLS = ("server_tool_use", "mcp_tool_use")

_PLAIN_KEYS = {
    "text": {"type", "text", "citations"},
    "tool_use": {"type", "id", "name", "input"},
}
"""Blocks that the conversation says as well, if they have no other keys than these."""


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: Any = None
    citation: Any = None
    content: str | None = None
    encrypted_content: str | None = None
    stop_reason: str | None = None
    stop_details: Any = None
    container: Any = None


class _Message(msgspec.Struct):
    content: list[dict[str, Any]] | None = None
    model: str | None = None
    usage: Any = None
    stop_reason: str | None = None
    stop_details: Any = None
    container: Any = None
    error: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int | None = None
    message: _Message | None = None
    content_block: dict[str, Any] | None = None
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Event)
_message_decoder = msgspec.json.Decoder(_Message)


@attrs.define(eq=False)
class _Block:
    """A block on its way."""

    given: dict[str, Any]
    """As it began."""
    texts: dict[str, StringIO] = attrs.Factory(dict)
    """What its deltas added, by key; ``input`` is the text of JSON."""
    citations: list[Any] = attrs.Factory(list)
    call: int | None = None
    """Its place in the reply's calls, if it is a call for us to run."""
    is_told: bool = False

    @property
    def type(self) -> str:
        """Its kind."""
        return str(self.given.get("type"))

    def add(self, key: str, text: str) -> None:
        """Take a piece of one of its texts."""
        if key not in self.texts:
            self.texts[key] = StringIO()
        self.texts[key].write(text)

    def value(self) -> dict[str, Any]:
        """The block as it is now."""
        value = dict(self.given)
        for key, written in self.texts.items():
            text = written.getvalue()
            if key == "input":
                value[key] = decode_arguments(text) or {}
            else:
                begun = value.get(key)
                value[key] = begun + text if isinstance(begun, str) else text
        if "input" in value and not isinstance(value["input"], dict):
            value["input"] = {}
        if self.citations:
            value["citations"] = self.citations
        return value

    @property
    def is_private(self) -> bool:
        """Whether it says what the conversation does not."""
        return bool(self.citations or not _PLAIN_KEYS.get(self.type, set()) >= self.given.keys())


def anthropic_decoder(
    max_event_bytes: int = MAX_EVENT_BYTES,
    *,
    paused: Chunk | None = None,
    under: Callable[[], str] | None = None,
) -> ReplyDecoder[ServerSentEvent]:
    """A decoder of one streamed reply.

    Args:
      max_event_bytes: The largest event that is taken.
      paused: The final chunk of what the reply goes on from.
      under: Gives the digest of what it is made under, where it has signed thoughts; without it
        they do not go back.

    """
    return ReplyDecoder(SSEDecoder(max_event_bytes), AnthropicReply(paused, under), "a stop_reason")


def is_paused(final: Chunk) -> bool:
    """Whether a reply goes on when it is sent back; not where it waits for results of ours."""
    has_blocks = bool(_kept(final).get("content"))
    return final.raw_finish_reason == _PAUSED and has_blocks and not final.tool_calls


def _kept(final: Chunk) -> dict[str, Any]:
    return (final.carry or {}).get("anthropic") or {}


class AnthropicReply(EventReply):
    """Reads the events of one reply; see `flowtrio.wire._reply.Reply`."""

    def __init__(self, paused: Chunk | None = None, under: Callable[[], str] | None = None) -> None:
        self._under = under
        kept = {} if paused is None else _kept(paused)
        self._before: list[dict[str, Any]] = kept.get("content", [])
        """The blocks of the part before, as they came."""
        self._usage_before = None if paused is None else paused.usage
        self._container: str | None = kept.get("container")
        self.payloads = Payloads(_decoder)
        self._clear()

    def _clear(self) -> None:
        self._blocks: list[_Block] = []
        self._places: dict[int, _Block] = {}
        self._calls = CallWriter()
        self._usage: dict[str, Any] = {}
        self._model: str | None = None
        self._mark = FinishMark()
        self._stop_details: Any = None
        self._is_begun = False

    def read_payload(self, data: bytes, event: str = "") -> list[Chunk]:
        """Give what an event says; kinds that are not known say nothing. See `EventReply.read`."""
        told = self.payloads.read(data)
        return self._event(told, told.type or event)

    def _event(self, event: _Event, kind: str) -> list[Chunk]:
        if is_said(event.error):
            raise stream_error(event.error)
        match kind:
            case "content_block_delta" if event.delta is not None:
                return self._grow(event.index, event.delta)
            case "content_block_start" if event.content_block is not None:
                return self._begin(event.index, event.content_block)
            case "content_block_stop":
                block = self._block(event.index)
                return [] if block is None else self._stop(block)
            case "message_start":
                return [*self._start(), *self.read_message(event.message or _Message())]
            case "message_delta":
                self._end(event.delta or _Delta(), event.usage)
            case "message_stop":
                self.is_ended = True
        return []

    def _start(self) -> list[Chunk]:
        """Begin; a gateway that asked its own host again begins anew, and the first is void."""
        is_again, has_blocks = self._is_begun, bool(self._blocks)
        if is_again:
            self._clear()
        self._is_begun = True
        return [Chunk(reset="the host began its reply anew")] if is_again and has_blocks else []

    def read_message(self, message: _Message) -> list[Chunk]:
        """Give what a message says that came whole, or in part before its events."""
        self._model = message.model or self._model
        self._end(message, message.usage)
        chunks = []
        for block in message.content or ():
            chunks += self._begin(None, block)
            chunks += self._stop(self._blocks[-1])
        return chunks

    def _end(self, told: _Delta | _Message, usage: Any) -> None:
        self._mark.tell(told.stop_reason)
        self._stop_details = told.stop_details or self._stop_details
        if isinstance(told.container, dict) and isinstance(told.container.get("id"), str):
            self._container = told.container["id"]
        if isinstance(usage, dict):
            # "The token counts shown in the usage field of the message_delta event are cumulative."
            self._usage |= {key: value for key, value in usage.items() if value is not None}

    # Blocks

    def _begin(self, index: int | None, given: dict[str, Any]) -> list[Chunk]:
        block = _Block(given)
        self._blocks.append(block)
        if index is not None:
            self._places[index] = block
        citations = given.get("citations")
        if isinstance(citations, list):
            block.citations = [item for item in citations if isinstance(item, dict)]
        parts = [citation_part(item) for item in block.citations]
        parts += result_parts(given)
        match given:
            case {"type": "tool_use"}:
                block.call = len(self._calls)
                id, name = str(given.get("id") or ""), str(given.get("name") or "")
                return [Chunk(tool_args=[self._calls.add(block.call, id, name, None)])]
            case {"type": "text", "text": str(text)} if text or parts:
                return [Chunk(content=text, parts=parts)]
            case {"type": "thinking", "thinking": str(text)} if text:
                return [Chunk(reasoning=text)]
            case _:
                return [Chunk(parts=parts)] if parts else []

    def _block(self, index: int | None) -> _Block | None:
        """The block that an event speaks of: the last one where it does not say."""
        if index is None:
            return self._blocks[-1] if self._blocks else None
        return self._places.get(index)

    def _grow(self, index: int | None, delta: _Delta) -> list[Chunk]:
        block = self._block(index)
        if delta.type == "text_delta" or (delta.text and not delta.type):
            if block is None or block.type != "text":
                self._begin(index, {"type": "text", "text": ""})
                block = self._blocks[-1]
            block.add("text", delta.text or "")
            return [Chunk(content=delta.text)] if delta.text else []
        if delta.partial_json:
            return self._grow_input(block, delta.partial_json)
        if block is None:
            return []
        match delta.type:
            case "thinking_delta" if delta.thinking:
                block.add("thinking", delta.thinking)
                return [Chunk(reasoning=delta.thinking)]
            case "signature_delta" if delta.signature:
                block.add("signature", delta.signature)
            case "citations_delta" if isinstance(delta.citation, dict):
                block.citations.append(delta.citation)
                return [Chunk(parts=[citation_part(delta.citation)])]
            case "compaction_delta":
                for key in ("content", "encrypted_content"):
                    if (text := getattr(delta, key)) is not None:
                        block.add(key, text)
        return []

    def _grow_input(self, block: _Block | None, given: Any) -> list[Chunk]:
        """Take a piece of a call's arguments, which may not get lost: it would run without."""
        if block is None:
            # Begun at another place, or at none.
            calls = (block for block in reversed(self._blocks) if block.call is not None)
            block = next(calls, None)
            if block is None or block.is_told:
                return []
        block.add("input", given if isinstance(given, str) else json.dumps(given))
        if block.call is None:
            return []
        return [Chunk(tool_args=[self._calls.add(block.call, "", "", given)])]

    def _stop(self, block: _Block) -> list[Chunk]:
        """Tell what can be told of a block only when it is whole."""
        if block.is_told:
            return []
        block.is_told = True
        if block.call is not None:
            args = self._given_arguments(block)
            return [] if args is None else [Chunk(tool_args=[args])]
        if block.type in _SERVER_CALLS:
            return [Chunk(parts=[server_call_part(block.value())])]
        if block.type == "compaction":
            return [Chunk(parts=[{"type": "compaction", "text": block.value().get("content")}])]
        return []

    def _given_arguments(self, block: _Block) -> ToolArgs | None:
        """Arguments that a call had from the start, where no text of them followed."""
        given = block.given.get("input")
        if not given or "input" in block.texts:
            return None
        return self._calls.add(block.call, "", "", given)

    # The end

    def final(self) -> Chunk:
        """The final chunk."""
        # A call or a compaction that nobody stopped is told now.
        told = [chunk for block in self._blocks for chunk in self._stop(block)]
        parts = [part for chunk in told for part in chunk.parts]
        calls = self._calls.finish()
        reason = self._mark.finish_reason(bool(calls))
        if reason == "content_filter":
            details = self._stop_details if isinstance(self._stop_details, dict) else {}
            words = details.get("explanation")
            parts.append({"type": "refusal", "text": words if isinstance(words, str) else ""})
        return Chunk(
            parts=parts,
            tool_args=[args for chunk in told for args in chunk.tool_args],
            is_final=True,
            tool_calls=calls,
            finish_reason=reason,
            raw_finish_reason=self._mark.raw,
            usage=self._total_usage(),
            model=self._model,
            carry=None if reason == "content_filter" else self._carry(),
        )

    def _total_usage(self) -> Usage | None:
        usage = _read_usage(self._usage)
        if usage is None or self._usage_before is None:
            return usage or self._usage_before
        return self._usage_before + usage

    def _carry(self) -> dict[str, Any] | None:
        carry: dict[str, Any] = {}
        goes_back = bool(self._before) or self._mark.raw == _PAUSED
        if goes_back or any(block.is_private for block in self._blocks):
            carry["content"] = [*self._before, *(block.value() for block in self._blocks)]
            if self._under is not None and is_signed(carry["content"]):
                carry["under"] = self._under()
        if self._container is not None:
            carry["container"] = self._container
        return {"anthropic": carry} if carry else None


def decode_completion(
    body: bytes, paused: Chunk | None = None, under: Callable[[], str] | None = None
) -> list[Chunk]:
    """Decode an answer that was not streamed; see `whole_of`, and `anthropic_decoder`."""
    message = Payloads(_message_decoder).read(body)
    if is_said(message.error):
        raise stream_error(message.error)
    reply = AnthropicReply(paused, under)
    return whole_of(reply, reply.read_message(message), body, "has no stop_reason")


def _read_usage(usage: dict[str, Any]) -> Usage | None:
    if not usage:
        return None

    cached = count(usage, "cache_read_input_tokens")
    return Usage(
        # "Total input tokens in a request is the summation of input_tokens,
        # cache_creation_input_tokens, and cache_read_input_tokens."
        prompt_tokens=count(usage, "input_tokens")
        + count(usage, "cache_creation_input_tokens")
        + cached,
        completion_tokens=count(usage, "output_tokens"),
        reasoning_tokens=count(usage.get("output_tokens_details"), "thinking_tokens"),
        cached_tokens=cached,
    )
