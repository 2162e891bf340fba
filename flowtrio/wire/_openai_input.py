"""Requests of OpenAI's Responses: a conversation in the shape of chat completions, as input items.

A reply that this protocol gave goes back as the items it consisted of; one that another gave, as
its text and its calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._json import decode_arguments
from ._media import media_of, name_of, refused, with_notes
from ._messages import carried_for, parts_of, text_of, to_send
from ._schemas import held_to

_HOST = "Responses"

_ENCRYPTED = "reasoning.encrypted_content"

_WITHOUT_REASONING = ("gpt-3.5", "gpt-4", "chatgpt-4o", "gpt-5-chat")
"""How the names of OpenAI's models begin that refuse a request for encrypted reasoning."""

KNOWN = frozenset(
    {
        *("background", "context_management", "conversation", "include", "instructions"),
        *("max_completion_tokens", "max_output_tokens", "max_tokens", "max_tool_calls"),
        *("metadata", "moderation", "parallel_tool_calls", "previous_response_id", "prompt"),
        *("prompt_cache_key", "prompt_cache_retention", "reasoning", "reasoning_effort"),
        *("safety_identifier", "service_tier", "store", "stream_options", "temperature"),
        *("text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user"),
    }
)
"""Fields of a request, and the options that become some of them; the conversation is none."""

_OPTIONS = {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
"""Options by the names that other protocols have for them."""


def encode_request(
    model: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any],
    *,
    stream: bool,
) -> dict[str, Any]:
    """The body of a request, from a conversation and tools in the shape of chat completions.

    Tools may have this protocol's own shape too. Of the *options*, ``output_schema=(name, schema)``
    becomes the ``text.format``, strict where it can be, ``tools`` join the others, and the rest are
    keys of the body, some by the names of chat completions; None takes a key out. A part that
    Responses does not take is a `ProviderError`.
    """
    body: dict[str, Any] = {
        "model": model,
        "input": [
            item
            for message in with_notes(to_send(messages, "openai_responses"), _encode_part)
            for item in _encode_message(message)
        ],
        # The conversation is the caller's; so what only the provider can read has to come along.
        "store": False,
    }
    if not _base_name(model).startswith(_WITHOUT_REASONING):
        body["include"] = [_ENCRYPTED]
    if tools:
        body["tools"] = [_encode_tool(tool) for tool in tools]
    if stream:
        body["stream"] = True
    for key, value in options.items():
        _add_option(body, key, value)
    return {key: value for key, value in body.items() if value is not None}


def _base_name(model: str) -> str:
    return model.rpartition("/")[2].removeprefix("ft:")


def _add_option(body: dict[str, Any], key: str, value: Any) -> None:
    match key:
        case "output_schema":
            if value is not None:
                name, schema = value
                form = {"type": "json_schema", "name": name, **held_to(schema)}
                body["text"] = {**(body.get("text") or {}), "format": form}
        case "text" if value is not None:
            body["text"] = {**(body.get("text") or {}), **value}
        case "reasoning_effort" if value is not None:
            body["reasoning"] = {**(body.get("reasoning") or {}), "effort": value}
        case "reasoning" if value is not None:
            body["reasoning"] = {**(body.get("reasoning") or {}), **value}
        case "reasoning_effort":
            pass
        case "tools" if value is not None:
            body["tools"] = [*(body.get("tools") or ()), *map(_encode_tool, value)]
        case "include" if value is not None:
            body["include"] = list(dict.fromkeys([*(body.get("include") or ()), *value]))
        case _:
            body[_OPTIONS.get(key, key)] = value


def _encode_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, Mapping):
        # A tool of the provider's, or one in this shape already.
        return dict(tool)
    return {
        "type": "function",
        "name": function["name"],
        "description": function.get("description", ""),
        "parameters": function.get("parameters", {"type": "object", "properties": {}}),
        # Left out, it means true here, and then optional parameters are refused.
        "strict": function.get("strict", False),
    }


def _encode_message(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    match message["role"]:
        case "assistant":
            return _encode_reply(message)
        case "tool":
            output = _encode_content(message.get("content"))
            call_id = message["tool_call_id"]
            return [{"type": "function_call_output", "call_id": call_id, "output": output}]
        case "system" | "developer" | "user" as role:
            return [{"role": role, "content": _encode_content(message.get("content"))}]
        case role:
            raise ValueError(f"message of role {role!r}: expected system, user, assistant or tool")


def _encode_reply(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls") or ()
    carried = _carried(message, calls)
    if carried is not None:
        return carried
    items: list[dict[str, Any]] = []
    if text := text_of(message.get("content")):
        items.append({"role": "assistant", "content": text})
    for call in calls:
        items.append(
            {
                "type": "function_call",
                "call_id": call["id"],
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"] or "{}",
            }
        )
    return items


def _carried(
    message: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]] | None:
    """The items that came, their calls by the ids, names and arguments of the conversation."""
    carry = carried_for(message, "openai_responses")
    if carry is None:
        return None
    items = [dict(item) for item in carry["items"]]
    places = [item for item in items if item["type"] == "function_call"]
    if len(places) != len(calls):
        return None
    for item, call in zip(places, calls, strict=True):
        item["call_id"], item["name"] = call["id"], call["function"]["name"]
        if decode_arguments(item.get("arguments", "")) is None:
            item["arguments"] = call["function"]["arguments"]
    return items


def _encode_content(content: Any) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [_encode_part(part) for part in parts_of(content)]


def _encode_part(part: Mapping[str, Any]) -> dict[str, Any]:
    match part:
        case {"type": "text", "text": text}:
            return {"type": "input_text", "text": text}
        case {"type": "image_url", "image_url": {"url": url} as image}:
            detail = image.get("detail", "auto")
            return {"type": "input_image", "image_url": url, "detail": detail}
        case {"type": "file", "file": {"file_id": _} as file}:
            return {"type": "input_file", **file}
        case {"type": "input_text" | "input_image" | "input_file"}:
            return dict(part)
        case _:
            return _encode_file(part)


def _encode_file(part: Mapping[str, Any]) -> dict[str, Any]:
    media = media_of(part, _HOST)
    if media.is_image:
        return {"type": "input_image", "image_url": media.to_url(), "detail": "auto"}
    if (media.media_type or "").startswith(("audio/", "video/")):
        raise refused(media, _HOST, "images and documents")
    if media.url is not None:
        # Its name is that of its address.
        return {"type": "input_file", "file_url": media.url}
    return {"type": "input_file", "filename": name_of(media), "file_data": media.to_url()}
