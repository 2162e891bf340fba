"""Ollama's ``/api/chat``: a reply as JSON lines, finished by ``done``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from flowtrio._core._chunks import Chunk, Usage

from ._calls import CallWriter
from ._errors import is_said, stream_error
from ._finish import FinishMark
from ._media import media_of, refused, with_media_behind, with_notes
from ._messages import carried_for, parts_of, text_of, to_send
from ._ndjson import NDJSONDecoder
from ._payloads import Payloads, is_keepalive
from ._reply import ReplyDecoder, whole_of
from ._schemas import asked_in_words, may_call
from ._sse import MAX_EVENT_BYTES
from ._usage import count


class _Function(msgspec.Struct):
    name: str = ""
    arguments: Any = None


class _ToolCall(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Line(msgspec.Struct):
    model: str | None = None
    message: _Message | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None


def ollama_decoder(max_line_bytes: int = MAX_EVENT_BYTES) -> ReplyDecoder[bytes]:
    """A decoder of one streamed reply."""
    return ReplyDecoder(NDJSONDecoder(max_line_bytes), OllamaReply(), "a line that is done")


_decoder = msgspec.json.Decoder(_Line)


class OllamaReply:
    """Reads the lines of one reply; see `flowtrio.wire._reply.Reply`."""

    def __init__(self) -> None:
        self.payloads = Payloads(_decoder)
        self._calls = CallWriter()
        self._last: _Line | None = None
        self._thoughts: list[str] = []

    @property
    def is_finished(self) -> bool:
        """Whether the line that is done was seen."""
        return self._last is not None

    @property
    def is_ended(self) -> bool:
        """The same: nothing may follow it."""
        return self._last is not None

    def read(self, frame: bytes) -> list[Chunk]:
        """Give what a line says; see `flowtrio.wire._reply.Reply`."""
        if is_keepalive(frame):
            return []
        line = self.payloads.read(frame)
        if is_said(line.error):
            raise stream_error(line.error)
        if line.done:
            self._last = line
        return [] if line.message is None else self._message(line.message)

    def _message(self, message: _Message) -> list[Chunk]:
        args = []
        for call in message.tool_calls or ():
            function = call.function or _Function()
            args.append(
                self._calls.add(
                    # Each call comes whole, in one piece.
                    len(self._calls),
                    call.id or "",
                    function.name,
                    function.arguments,
                )
            )
        if message.thinking:
            self._thoughts.append(message.thinking)
        if not (message.content or message.thinking or args):
            return []
        content, reasoning = message.content or "", message.thinking or ""
        return [Chunk(content=content, reasoning=reasoning, tool_args=args)]

    def final(self) -> Chunk:
        """The final chunk."""
        last = self._last or _Line()
        calls = self._calls.finish()
        mark = FinishMark()
        mark.tell(last.done_reason)
        usage = None
        if last.prompt_eval_count is not None or last.eval_count is not None:
            told = msgspec.structs.asdict(last)
            usage = Usage(
                prompt_tokens=count(told, "prompt_eval_count"),
                completion_tokens=count(told, "eval_count"),
            )
        thoughts = "".join(self._thoughts)
        return Chunk(
            is_final=True,
            tool_calls=calls,
            finish_reason=mark.finish_reason(bool(calls)),
            raw_finish_reason=last.done_reason,
            usage=usage,
            model=last.model,
            carry={"ollama": {"thinking": thoughts}} if thoughts and calls else None,
        )


def decode_completion(body: bytes) -> list[Chunk]:
    """Decode an answer that was not streamed; see `whole_of`."""
    reply = OllamaReply()
    return whole_of(reply, reply.read(body), body, "is not done")


# Requests

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "num_predict",
    "stop": "stop",
    "seed": "seed",
    "num_ctx": "num_ctx",
}
"""Options that belong under ``options``, by the name that all clients share."""

KNOWN = frozenset(
    {
        *("format", "keep_alive", "logprobs", "options", "shift", "think", "tools"),
        *("top_logprobs", "truncate"),
    }
).union(_OPTIONS)
"""Fields of a request, and the options that become some of them; the conversation is none."""


def encode_request(
    model: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any],
    *,
    stream: bool,
) -> dict[str, Any]:
    """The body of a request, from a conversation and tools in OpenAI's shape.

    Of the *options*, ``output_schema`` is asked in words where there are tools, those in `_OPTIONS`
    go there, and others are keys of the body; None takes a key out. A part that Ollama does not
    take is a `ProviderError`.
    """
    messages = with_media_behind(with_notes(to_send(messages, "ollama"), _encode_image))
    output = options.get("output_schema")
    if output is not None and may_call(tools, options):
        # A model that may only write what fits the schema cannot write a call.
        messages = asked_in_words(messages, output[1])
        options = {**options, "output_schema": None}
    names: dict[str, str] = {}
    body: dict[str, Any] = {
        "model": model,
        "messages": [_encode_message(message, names) for message in messages],
        "stream": stream,
    }
    if tools:
        body["tools"] = [dict(tool) for tool in tools]
    inner: dict[str, Any] = {}
    for key, value in options.items():
        if value is None:
            continue
        if key == "output_schema":
            body["format"] = value[1]
        elif key == "options":
            inner |= value
        elif key == "tools":
            body["tools"] = [*body.get("tools", ()), *map(dict, value)]
        elif key in _OPTIONS:
            inner[_OPTIONS[key]] = [value] if key == "stop" and isinstance(value, str) else value
        else:
            body[key] = value
    if inner:
        body["options"] = inner
    return body


def _encode_message(message: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    content = message.get("content")
    role = "system" if message["role"] == "developer" else message["role"]
    encoded: dict[str, Any] = {"role": role, "content": text_of(content)}
    images = [_encode_image(part) for part in parts_of(content) if part.get("type") != "text"]
    if images:
        encoded["images"] = images
    if message["role"] == "tool":
        encoded["tool_name"] = names.get(message["tool_call_id"], message["tool_call_id"])
    calls = []
    for call in message.get("tool_calls") or ():
        function = call["function"]
        names[call["id"]] = function["name"]
        arguments = json.loads(function["arguments"] or "{}")
        calls.append({"function": {"name": function["name"], "arguments": arguments}})
    if calls:
        encoded["tool_calls"] = calls
    if (carry := carried_for(message, "ollama")) is not None:
        encoded["thinking"] = carry["thinking"]
    return encoded


def _encode_image(part: Mapping[str, Any]) -> str:
    media = media_of(part, "Ollama")
    if not media.is_image or media.data is None:
        raise refused(media, "Ollama", "the content of images")
    return media.data
