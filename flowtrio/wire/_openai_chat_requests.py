"""Requests of OpenAI's chat completions, whose shape a conversation has here anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._messages import carried_for, to_send
from ._schemas import held_to


def encode_request(
    model: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any],
    *,
    stream: bool,
) -> dict[str, Any]:
    """The body of a request.

    Args:
      model: The model's name.
      messages: The conversation; the private key ``flowtrio`` is taken out.
      tools: Tools to offer.
      options: Further keys of the body; None takes a key out. ``output_schema=(name, schema)``
        becomes the ``response_format``, strict where it can be, and ``tools`` join the others.
      stream: Whether the answer is to be streamed.

    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [encode_message(message) for message in to_send(messages, "openai_chat")],
    }
    if tools:
        body["tools"] = [dict(tool) for tool in tools]
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    for key, value in options.items():
        if key == "output_schema":
            if value is None:
                continue
            name, schema = value
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": name, **held_to(schema)},
            }
        elif key == "tools" and value is not None:
            body["tools"] = [*(body.get("tools") or ()), *map(dict, value)]
        else:
            body[key] = value
    if not stream:
        body.pop("stream_options", None)
    return {key: value for key, value in body.items() if value is not None}


def encode_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the provider wants it: without our private key, with what was carried for it."""
    encoded = {key: value for key, value in message.items() if key != "flowtrio"}
    encoded.update(carried_for(message, "openai_chat") or {})
    if isinstance(encoded.get("tool_calls"), list):
        encoded["tool_calls"] = [
            {key: value for key, value in call.items() if key != "flowtrio"}
            for call in encoded["tool_calls"]
        ]
    return encoded
