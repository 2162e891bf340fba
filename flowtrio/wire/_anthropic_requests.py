"""Requests to Anthropic's messages.

A conversation alternates between a user and the assistant: instructions stand apart from it, and
the results of a turn's calls are one message of the user. What a turn carried goes back in the
place of what the conversation says of it, unchanged but for what the provider says and does not
take: blocks of nothing but white space, the file behind a citation, why a program was stopped.

What the model thought is signed together with what it was shown: the provider refuses it under
another system prompt, other tools or other messages before it. So a reply carries a digest of those
(`made_under`), and its thoughts go back only where that is what they would stand behind now.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowtrio._core._chunks import Chunk
from flowtrio._core._fit import NO_TEXT
from flowtrio._core._media import Media, decode_data

from ._anthropic_parts import SIGNED, is_signed
from ._media import is_text, media_of, refused, with_notes
from ._messages import carried_for, parts_of, to_send
from ._schemas import ANTHROPIC, asked_in_words, closed_schema

MAX_TOKENS = 16_384
"""Tokens of an answer at most, where nobody says: the provider wants a number."""

KNOWN = frozenset(
    {
        *("cache_control", "container", "context_management", "inference_geo", "max_tokens"),
        *("mcp_servers", "metadata", "output_config", "output_format", "service_tier"),
        *("speed", "stop", "stop_sequences", "system", "temperature", "thinking"),
        *("tool_choice", "tools", "top_k", "top_p"),
    }
)
"""Fields of a request, and the options that become some of them; the conversation is none."""

_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})

_NATIVE = ("document", "image", "search_result")
"""Parts that are handed on as they are."""


def encode_request(
    model: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any],
    *,
    stream: bool,
) -> dict[str, Any]:
    """The body of a request, from a conversation and tools in OpenAI's shape.

    Parts of messages may have a ``cache_control``. Of the *options*, ``output_schema`` is asked in
    words where the provider cannot be held to it, ``tools`` (its own) join the others, and all but
    ``stop`` are keys of the body; None takes a key out. A part that Anthropic does not take is a
    `ProviderError`.
    """
    messages = with_notes(to_send(messages, "anthropic"), _encode_part)
    output = options.get("output_schema")
    if output is not None and closed_schema(output[1], ANTHROPIC) is None:
        messages = asked_in_words(messages, output[1])
    body: dict[str, Any] = {"model": model, "max_tokens": MAX_TOKENS}
    system = [
        _encode_part(part)
        for message in messages
        if message["role"] in ("system", "developer")
        for part in parts_of(message.get("content"))
    ]
    if system:
        body["system"] = system
    if tools:
        body["tools"] = [_encode_tool(tool) for tool in tools]
    if (container := _container(messages)) is not None:
        body["container"] = container
    if stream:
        body["stream"] = True
    _add_options(body, options)
    body["messages"] = _encode_messages(messages, _Conditions(body))
    return body


def made_under(body: Mapping[str, Any]) -> str:
    """A digest of what the reply to this request is made under."""
    conditions = _Conditions(body)
    for message in body["messages"]:
        conditions.add(message["role"], message["content"])
    return conditions.digest()


class _Conditions:
    """What a reply is made under: system prompt and tools, and each block that stands before it."""

    __slots__ = ("_hash",)

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._hash = hashlib.sha256()
        self._add([body.get("system"), body.get("tools")])

    def add(self, role: str, blocks: Sequence[Mapping[str, Any]]) -> None:
        for block in blocks:
            # One by one, since neighbours of one role are one message.
            self._add([role, block])

    def _add(self, value: Any) -> None:
        # A store may change the order of keys.
        text = json.dumps(_without_marks(value), sort_keys=True, separators=(",", ":"))
        self._hash.update(text.encode())

    def digest(self) -> str:
        return self._hash.hexdigest()[:32]


def _without_marks(value: Any) -> Any:
    """A value without the marks of what is to be cached: they move, and say nothing."""
    if isinstance(value, Mapping):
        return {k: _without_marks(v) for k, v in value.items() if k != "cache_control"}
    return [_without_marks(item) for item in value] if isinstance(value, list) else value


def continued(messages: Sequence[Mapping[str, Any]], paused: Chunk) -> Sequence[Mapping[str, Any]]:
    """The conversation that lets a paused reply go on; *paused* is its final chunk."""
    return [*messages, {"role": "assistant", "flowtrio": {"carry": paused.carry}}]


def _add_options(body: dict[str, Any], options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        if value is None:
            if key != "max_tokens":
                body.pop(key, None)
        elif key == "output_schema":
            if (schema := closed_schema(value[1], ANTHROPIC)) is not None:
                format = {"type": "json_schema", "schema": schema}
                body["output_config"] = {**body.get("output_config", {}), "format": format}
        elif key == "output_config":
            body[key] = {**body.get(key, {}), **value}
        elif key == "tools":
            body[key] = [*body.get(key, ()), *value]
        elif key == "stop":
            body["stop_sequences"] = [value] if isinstance(value, str) else list(value)
        else:
            body[key] = value


def _encode_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    encoded = {
        "name": function["name"],
        "description": function.get("description") or "",
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    if function.get("strict") is True:
        encoded["strict"] = True
    return encoded | _cache_control(tool)


def _cache_control(holder: Mapping[str, Any]) -> dict[str, Any]:
    kept = holder.get("cache_control")
    return {} if kept is None else {"cache_control": kept}


# Messages


def _encode_messages(
    messages: Sequence[Mapping[str, Any]], conditions: _Conditions
) -> list[dict[str, Any]]:
    encoded: list[dict[str, Any]] = []
    for message in messages:
        match message["role"]:
            case "system" | "developer":
                continue
            case "assistant":
                role, blocks = "assistant", list(_encode_reply(message, conditions))
            case "tool":
                role, blocks = "user", [_encode_result(message)]
            case _:
                parts = parts_of(message.get("content"))
                role, blocks = "user", [_encode_part(part) for part in parts]
        if not encoded and blocks and role == "assistant":
            # "first message must use the "user" role"
            first = [{"type": "text", "text": NO_TEXT}]
            encoded.append({"role": "user", "content": first})
            conditions.add("user", first)
        if encoded and encoded[-1]["role"] == role:
            encoded[-1]["content"] += blocks
        elif blocks:
            encoded.append({"role": role, "content": blocks})
        conditions.add(role, blocks)
    return encoded


def _encode_reply(message: Mapping[str, Any], conditions: _Conditions) -> Iterator[dict[str, Any]]:
    calls = message.get("tool_calls") or ()
    carry = _carry(message)
    carried = carry.get("content")
    if isinstance(carried, list) and _asks(carried) in (len(calls), 0):
        if is_signed(carried) and carry.get("under") != conditions.digest():
            carried = [block for block in carried if block.get("type") not in SIGNED]
        yield from _send_back(carried, iter(calls))
        return
    for part in parts_of(message.get("content")):
        yield _encode_part(part)
    for call in calls:
        function = call["function"]
        yield {
            "type": "tool_use",
            "id": _tool_id(call["id"]),
            "name": function["name"],
            "input": json.loads(function["arguments"] or "{}"),
        }


def _asks(blocks: Sequence[Mapping[str, Any]]) -> int:
    """How many calls of ours a turn's blocks make."""
    return sum(block.get("type") == "tool_use" for block in blocks)


def _send_back(
    blocks: Sequence[Mapping[str, Any]], calls: Iterator[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A turn's blocks as they came; calls by the ids and names that the conversation has."""
    for block in blocks:
        match block:
            case {"type": "text", "text": str(text)}:
                if text.strip():
                    yield _without_files(block)
            case {"type": "tool_use"}:
                call = next(calls)
                name = call["function"]["name"]
                yield {**block, "id": _tool_id(call["id"]), "name": name}
            case {"content": {"abort_reason": _, **content}}:
                yield {**block, "content": content}
            case _:
                yield dict(block)


def _without_files(block: Mapping[str, Any]) -> dict[str, Any]:
    citations = block.get("citations")
    if not citations:
        return dict(block)
    kept = [{k: v for k, v in citation.items() if k != "file_id"} for citation in citations]
    return {**block, "citations": kept}


def _encode_result(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    result = {"type": "tool_result", "tool_use_id": _tool_id(message["tool_call_id"])}
    if isinstance(content, str):
        return {**result, "content": content} | _cache_control(message)
    return {**result, "content": [_encode_part(part) for part in parts_of(content)]}


def _encode_part(part: Mapping[str, Any]) -> dict[str, Any]:
    match part:
        case {"type": "text", "text": str(text)}:
            block: dict[str, Any] = {"type": "text", "text": text}
        case {"type": type} if type in _NATIVE:
            return dict(part)
        case _:
            block = _encode_media(media_of(part, "Anthropic"))
    return block | _cache_control(part)


def _encode_media(media: Media) -> dict[str, Any]:
    if media.is_image:
        if media.data is not None and media.media_type not in _IMAGES:
            raise refused(media, "Anthropic", "PNG, JPEG, GIF and WebP")
        return {"type": "image", "source": _source(media)}
    if media.media_type == "application/pdf":
        source = _source(media)
    elif media.data is not None and is_text(media.media_type):
        text = decode_data(media.data).decode("utf-8", "replace")
        source = {"type": "text", "media_type": "text/plain", "data": text}
    else:
        raise refused(media, "Anthropic", "PDF, and the content of texts")
    return {"type": "document", "source": source} | ({"title": media.name} if media.name else {})


def _source(media: Media) -> dict[str, Any]:
    if media.data is None:
        return {"type": "url", "url": media.url}
    return {"type": "base64", "media_type": media.media_type, "data": media.data}


def _tool_id(id: str) -> str:
    """A call's id, made of what Anthropic takes in ids."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", id)


def _carry(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return carried_for(message, "anthropic") or {}


def _container(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Where the program runs that waits for the results that end *messages*."""
    for message in reversed(messages):
        if message["role"] == "assistant":
            return _carry(message).get("container")
        if message["role"] != "tool":
            break
    return None
