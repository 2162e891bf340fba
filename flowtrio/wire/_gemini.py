"""Google's Gemini: ``streamGenerateContent`` as server-sent events.

A reply is finished when its candidate has a ``finishReason``, or when the prompt was blocked. Many
reasons say that there is no answer (a call that does not parse, too many calls): those are errors,
and so is a reason that is not known here. What
the model thought is signed: the parts that it gave are kept as they came, and go back unchanged in
the next request, where the provider refuses calls whose signatures are missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

import msgspec

from flowtrio._core._chunks import Chunk, ToolArgs, Usage
from flowtrio._core._fit import NO_TEXT

from ._calls import CallWriter
from ._errors import is_said, stream_error
from ._finish import FinishMark
from ._gemini_parts import encode_part, may_join
from ._json import decode_json
from ._media import with_media_behind, with_notes
from ._messages import carried_for, parts_of, text_of, to_send
from ._payloads import EventReply, Payloads
from ._reply import ReplyDecoder, whole_of
from ._schemas import asked_in_words, may_call
from ._sse import MAX_EVENT_BYTES, ServerSentEvent, SSEDecoder
from ._usage import count

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
"""A function's name: "must start with a letter or an underscore", and have 64 characters at most"""


class _Content(msgspec.Struct):
    parts: list[dict[str, Any]] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None
    grounding_metadata: Any = None
    citation_metadata: Any = None


class _Payload(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: Any = None
    usage_metadata: Any = None
    model_version: str | None = None
    error: Any = None


def gemini_decoder(max_event_bytes: int = MAX_EVENT_BYTES) -> ReplyDecoder[ServerSentEvent]:
    """A decoder of one streamed reply."""
    return ReplyDecoder(SSEDecoder(max_event_bytes), GeminiReply(), "a finishReason")


_decoder = msgspec.json.Decoder(_Payload)


class GeminiReply(EventReply):
    """Reads the frames of one reply; see `flowtrio.wire._reply.Reply`."""

    def __init__(self) -> None:
        self.payloads = Payloads(_decoder)
        self._calls = CallWriter()
        self._mark = FinishMark(unknown="failed")
        self._usage: Usage | None = None
        self._model: str | None = None
        self._kept: list[tuple[dict[str, Any], StringIO]] = []
        self._is_signed = False
        self._cited: set[tuple[Any, ...]] = set()
        self._executions = 0

    def read_payload(self, data: bytes, event: str = "") -> list[Chunk]:
        """Give what one response object says; see `EventReply.read`."""
        payload = self.payloads.read(data)
        if is_said(payload.error):
            raise stream_error(payload.error)
        self._model = payload.model_version or self._model
        self._usage = _read_usage(payload.usage_metadata) or self._usage
        feedback = payload.prompt_feedback
        if isinstance(feedback, dict):
            # The prompt was blocked, for whatever reason.
            self._mark.tell(feedback.get("blockReason"), "content_filter")
        for candidate in payload.candidates or ():
            # Several choices: the first.
            if not candidate.index:
                return self._candidate(candidate)
        return []

    def _candidate(self, candidate: _Candidate) -> list[Chunk]:
        given = () if candidate.content is None else candidate.content.parts or ()
        chunks = [chunk for part in given if (chunk := self._part(part)) is not None]
        cited = [*_grounding(candidate.grounding_metadata), *_citations(candidate)]
        parts = [part for part in cited if self._is_new(part)]
        if parts:
            chunks.append(Chunk(parts=parts))
        self._mark.tell(candidate.finish_reason)
        return chunks

    def _part(self, part: dict[str, Any]) -> Chunk | None:
        self._keep(part)
        text = part.get("text")
        match part:
            case {"functionCall": {"name": str(name)} as call}:
                return Chunk(tool_args=[self._call(name, call, part)])
            case {"executableCode": {} as code}:
                return Chunk(parts=[self._execution(code)])
            case {"codeExecutionResult": {} as result}:
                return Chunk(parts=[self._execution_result(result)])
            case {"inlineData": {"data": str(data), "mimeType": str(mime)}}:
                return Chunk(parts=[{"type": "file", "mime_type": mime, "data": data}])
            case {"fileData": {"fileUri": str(url)} as file}:
                mime = file.get("mimeType")
                return Chunk(parts=[{"type": "file", "mime_type": mime, "url": url}])
            case _ if isinstance(text, str) and text:
                return Chunk(reasoning=text) if part.get("thought") else Chunk(content=text)
            case _:
                return None

    def _call(self, name: str, call: dict[str, Any], part: dict[str, Any]) -> ToolArgs:
        signature = part.get("thoughtSignature")
        carry = {"gemini": {"signature": signature}} if isinstance(signature, str) else None
        call_id = call.get("id")
        return self._calls.add(
            len(self._calls),
            call_id if isinstance(call_id, str) else "",
            name,
            {} if (arguments := call.get("args")) is None else arguments,
            carry,
        )

    def _execution(self, code: dict[str, Any]) -> dict[str, Any]:
        self._executions += 1
        return {
            "type": "server_tool_call",
            "id": str(code.get("id") or f"code_{self._executions}"),
            "name": "code_execution",
            "arguments": {"language": code.get("language"), "code": code.get("code")},
        }

    def _execution_result(self, result: dict[str, Any]) -> dict[str, Any]:
        part = {
            "type": "server_tool_result",
            "id": str(result.get("id") or f"code_{self._executions}"),
            "result": {"outcome": result.get("outcome"), "output": result.get("output")},
        }
        if result.get("outcome") not in (None, "OUTCOME_OK"):
            part["error"] = str(result["outcome"])
        return part

    def _keep(self, part: dict[str, Any]) -> None:
        """Keep a part for the next request; text that came in pieces becomes one."""
        self._is_signed = self._is_signed or part.keys() - {"text", "thought"} != set()
        last, words = self._kept[-1] if self._kept else ({}, StringIO())
        is_text = {"text", "thought"} >= part.keys() | last.keys()
        text = part.get("text")
        if is_text and last.get("text") and part.get("thought") == last.get("thought"):
            words.write(text if isinstance(text, str) else "")
            return
        words = StringIO()
        words.write(text if isinstance(text, str) else "")
        self._kept.append((part, words))

    def _carry(self) -> dict[str, Any] | None:
        if not self._is_signed:
            return None
        parts = [
            {**part, "text": words.getvalue()} if isinstance(part.get("text"), str) else part
            for part, words in self._kept
        ]
        return {"gemini": {"parts": parts}}

    def _is_new(self, part: dict[str, Any]) -> bool:
        key = (part.get("url"), part.get("title"), part.get("text"))
        is_new = key not in self._cited
        self._cited.add(key)
        return is_new

    def final(self) -> Chunk:
        """The final chunk; see `flowtrio.wire._reply.Reply`."""
        calls = self._calls.finish()
        return Chunk(
            is_final=True,
            tool_calls=calls,
            finish_reason=self._mark.finish_reason(bool(calls)),
            raw_finish_reason=self._mark.raw,
            usage=self._usage,
            model=self._model,
            carry=self._carry(),
        )


def decode_completion(body: bytes) -> list[Chunk]:
    """Decode an answer that was not streamed; see `whole_of`."""
    reply = GeminiReply()
    return whole_of(reply, reply.read_payload(body), body, "has no finishReason")


def _read_usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None

    thoughts = count(usage, "thoughtsTokenCount")
    return Usage(
        prompt_tokens=count(usage, "promptTokenCount") + count(usage, "toolUsePromptTokenCount"),
        completion_tokens=count(usage, "candidatesTokenCount") + thoughts,
        reasoning_tokens=thoughts,
        cached_tokens=count(usage, "cachedContentTokenCount"),
    )


def _grounding(metadata: Any) -> Iterator[dict[str, Any]]:
    chunks = metadata.get("groundingChunks") if isinstance(metadata, dict) else None
    for chunk in chunks if isinstance(chunks, list) else ():
        for kind in ("web", "retrievedContext", "maps"):
            source = chunk.get(kind) if isinstance(chunk, dict) else None
            if isinstance(source, dict):
                yield {**_citation(source), "text": _text(source, "text")}


def _citations(candidate: _Candidate) -> Iterator[dict[str, Any]]:
    metadata = candidate.citation_metadata
    if isinstance(metadata, dict):
        sources = metadata.get("citationSources") or metadata.get("citations")
        for source in sources if isinstance(sources, list) else ():
            if isinstance(source, dict):
                yield _citation(source)


def _citation(source: dict[str, Any]) -> dict[str, Any]:
    return {"type": "citation", "url": _text(source, "uri"), "title": _text(source, "title")}


def _text(source: dict[str, Any], key: str) -> str | None:
    value = source.get(key)
    return value if isinstance(value, str) else None


# Requests

_CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "stop": "stopSequences",
    "seed": "seed",
}
"""Options that belong to ``generationConfig``, by the name that all clients share."""

KNOWN = frozenset(
    {
        *("cachedContent", "generationConfig", "labels", "safetySettings", "serviceTier"),
        *("store", "systemInstruction", "toolConfig", "tools"),
    }
).union(_CONFIG)
"""Fields of a request, and the options that become some of them; the conversation is none."""


def encode_request(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a request, from a conversation and tools in OpenAI's shape.

    Of the *options*, ``output_schema`` is asked in words where there are tools, those in `_CONFIG`
    go there, and others are keys of the body; None takes a key out. A part that Gemini does not
    take is a `ProviderError`.
    """
    contents: list[dict[str, Any]] = []
    system: list[dict[str, Any]] = []
    called: dict[str, dict[str, Any]] = {}
    messages = with_media_behind(with_notes(to_send(messages, "gemini"), encode_part))
    output = options.get("output_schema")
    if output is not None and may_call(tools, options):
        # "Function calling with a response mime type: 'application/json' is unsupported"
        messages = asked_in_words(messages, output[1])
        options = {**options, "output_schema": None}
    for message in messages:
        if message["role"] in ("system", "developer"):
            if text := text_of(message["content"]):
                system.append({"text": text})
            continue
        role, parts = _encode_message(message, called)
        if contents and contents[-1]["role"] == role and may_join(contents[-1]["parts"], parts):
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    if contents and contents[0]["role"] == "model":
        # "ensure that multiturn requests alternate between user and model", the user first.
        contents.insert(0, {"role": "user", "parts": [{"text": NO_TEXT}]})
    body: dict[str, Any] = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    if tools:
        body["tools"] = [{"functionDeclarations": [_encode_tool(tool) for tool in tools]}]
    _add_options(body, options)
    return body


def _add_options(body: dict[str, Any], options: Mapping[str, Any]) -> None:
    config: dict[str, Any] = {}
    for key, value in options.items():
        if value is None:
            continue
        if key == "output_schema":
            config |= {"responseMimeType": "application/json", "responseJsonSchema": value[1]}
        elif key == "generationConfig":
            config |= value
        elif key == "tools":
            body["tools"] = [*body.get("tools", ()), *value]
        elif key in _CONFIG:
            config[_CONFIG[key]] = [value] if key == "stop" and isinstance(value, str) else value
        else:
            body[key] = value
    if config:
        body["generationConfig"] = config


def _encode_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    declaration = {"name": function["name"], "description": function.get("description", "")}
    if parameters := function.get("parameters"):
        declaration["parametersJsonSchema"] = parameters
    return declaration


def _encode_message(
    message: Mapping[str, Any], called: dict[str, dict[str, Any]]
) -> tuple[str, list[dict[str, Any]]]:
    match message["role"]:
        case "assistant":
            return "model", _encode_reply(message, called)
        case "tool":
            return "user", [_encode_result(message, called)]
        case _:
            return "user", [encode_part(part) for part in parts_of(message.get("content"))]


def _encode_reply(
    message: Mapping[str, Any], called: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    calls = message.get("tool_calls") or ()
    for call in calls:
        called[call["id"]] = {"name": _function_name(call)}
    carried = _carried(message, calls)
    if carried is not None:
        written = [part["functionCall"] for part in carried if "functionCall" in part]
        for call, own in zip(calls, written, strict=False):
            # Results go to the call of this name, also where the conversation's was made fit, and
            # are told apart by these ids, where the provider gives them.
            called[call["id"]] |= {key: own[key] for key in ("name", "id") if own.get(key)}
        return carried
    parts = [encode_part(part) for part in parts_of(message.get("content"))]
    for call in calls:
        part = {"functionCall": {"name": _function_name(call), "args": _arguments(call)}}
        if (kept := carried_for(call, "gemini")) is not None:
            part["thoughtSignature"] = kept["signature"]
        parts.append(part)
    return parts


def _carried(
    message: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]] | None:
    """The parts that came, unchanged but for names and arguments that are taken from nobody."""
    carry = carried_for(message, "gemini")
    if carry is None:
        return None
    parts = [dict(part) for part in carry["parts"] if _says_anything(part)]
    written = [part for part in parts if "functionCall" in part]
    if len(written) != len(calls):
        return None
    for part, call in zip(written, calls, strict=True):
        own = part["functionCall"]
        if not _NAME.fullmatch(str(own.get("name"))):
            part["functionCall"] = own = {**own, "name": _function_name(call)}
        if not isinstance(own.get("args"), dict):
            part["functionCall"] = {**own, "args": _arguments(call)}
    return parts


def _arguments(call: Mapping[str, Any]) -> Any:
    return json.loads(call["function"]["arguments"] or "{}")


def _says_anything(part: Mapping[str, Any]) -> bool:
    """Whether a part may stand in a request: a text that is empty may only bring a signature."""
    return bool(part.get("text")) or part.keys() - {"text", "thought"} != set()


def _function_name(call: Mapping[str, Any]) -> str:
    """The name of a call's function, as Google takes it."""
    name: str = call["function"]["name"]
    return name if _NAME.fullmatch(name) else f"_{name}"[:64]


def _encode_result(message: Mapping[str, Any], called: dict[str, dict[str, Any]]) -> dict[str, Any]:
    text = text_of(message.get("content"))
    try:
        value = decode_json(text)
    except ValueError:
        value = text
    response = value if isinstance(value, dict) else {"result": value}
    call = called.get(message["tool_call_id"], {"name": message["tool_call_id"]})
    return {"functionResponse": {**call, "response": response}}
