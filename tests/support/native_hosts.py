"""How hosts answer in the protocols of Anthropic, Gemini and Ollama: text, and one call."""

from __future__ import annotations

import json
from typing import Any, Final

from .model_server import Answer, sends

WORDS: Final = ("Good ", "day")
CALL: Final = ("look", {"at": "Paris"})


def _sse(*payloads: dict[str, Any], named: bool = False) -> Answer:
    pieces = []
    for payload in payloads:
        name = f"event: {payload['type']}\n" if named else ""
        pieces.append(f"{name}data: {json.dumps(payload)}\n\n".encode())
    return sends(*pieces)


def anthropic_answers(*, calls: bool = False, whole: bool = False) -> Answer:
    """Text, or one call."""
    reason = "tool_use" if calls else "end_turn"
    usage = {"input_tokens": 7, "output_tokens": 3}
    if whole:
        content: list[dict[str, Any]] = [{"type": "text", "text": "".join(WORDS)}]
        body = {"type": "message", "model": "m-1", "content": content, "stop_reason": reason}
        return sends(json.dumps(body | {"usage": usage}).encode(), content_type="application/json")

    def delta(type: str, **rest: Any) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": 0, "delta": {"type": type, **rest}}

    block: dict[str, Any] = {"type": "text", "text": ""}
    deltas = [delta("text_delta", text=word) for word in WORDS]
    if calls:
        block = {"type": "tool_use", "id": "toolu_1", "name": CALL[0], "input": {}}
        raw = json.dumps(CALL[1])
        deltas = [delta("input_json_delta", partial_json=part) for part in (raw[:4], raw[4:])]
    return _sse(
        {"type": "message_start", "message": {"model": "m-1", "content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "ping"},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage},
        {"type": "message_stop"},
        named=True,
    )


def gemini_answers(*, calls: bool = False, whole: bool = False) -> Answer:
    """See `anthropic_answers`."""
    parts: list[dict[str, Any]] = [{"text": word} for word in WORDS]
    if calls:
        parts = [{"functionCall": {"name": CALL[0], "args": CALL[1]}, "thoughtSignature": "c2ln"}]

    def payload(parts: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0, **rest}
        usage = {"promptTokenCount": 7, "candidatesTokenCount": 3}
        return {"candidates": [candidate], "modelVersion": "m-1", "usageMetadata": usage}

    if whole:
        body = json.dumps(payload(parts, finishReason="STOP")).encode()
        return sends(body, content_type="application/json")
    return _sse(*(payload([part]) for part in parts), payload([], finishReason="STOP"))


def ollama_answers(*, calls: bool = False, whole: bool = False) -> Answer:
    """See `anthropic_answers`."""
    messages: list[dict[str, Any]] = [{"role": "assistant", "content": word} for word in WORDS]
    if calls:
        call = {"function": {"name": CALL[0], "arguments": CALL[1]}}
        messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    last = {"done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
    if whole:
        text = {"role": "assistant", "content": "".join(WORDS)}
        body = json.dumps({"model": "m-1", "message": text, "done": True, **last}).encode()
        return sends(body, content_type="application/json")
    lines = [{"model": "m-1", "message": message, "done": False} for message in messages]
    lines.append({"model": "m-1", "message": {"role": "assistant", "content": ""}, "done": True})
    lines[-1] |= last
    pieces = [json.dumps(line).encode() + b"\n" for line in lines]
    return sends(*pieces, content_type="application/x-ndjson")
