"""Answers of OpenAI's Responses, for `tests.support.model_server` and for codecs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .model_server import Answer, Exchange, sends

USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 12,
}


def message(text: str, **more: Any) -> dict[str, Any]:
    """An item: what the model says."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": content,
    } | more


def reasoning(summary: str, encrypted: str | None = "gAAA-sealed") -> dict[str, Any]:
    """An item: what the model thought."""
    item = {"type": "reasoning", "summary": [{"type": "summary_text", "text": summary}]}
    return item | ({} if encrypted is None else {"encrypted_content": encrypted})


def call(name: str, arguments: dict[str, Any], call_id: str = "call_1") -> dict[str, Any]:
    """An item: a call of one of our functions."""
    text = json.dumps(arguments)
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": text}


def response(*items: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    """A whole answer."""
    told = [{"id": f"item_{place}", **item} for place, item in enumerate(items)]
    head = {"id": "resp_1", "object": "response", "model": "loopback-1", "status": status}
    return {**head, "store": False, "error": None, "output": told, "usage": USAGE, **more}


def events(*items: dict[str, Any], status: str = "completed", **more: Any) -> Iterator[Any]:
    """The events of an answer, texts and arguments in two fragments each."""
    whole = response(*items, status=status, **more)
    yield {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}
    for place, item in enumerate(whole["output"]):
        at = {"output_index": place, "item_id": item["id"]}
        begun = {**item, "content": [], "arguments": "", "status": "in_progress"}
        if item["type"] == "reasoning":
            begun["summary"] = []
        yield {"type": "response.output_item.added", "output_index": place, "item": begun}
        yield from _fragments(item, at)
        yield {"type": "response.output_item.done", "output_index": place, "item": item}
    yield {"type": f"response.{status}", "response": whole}


def _fragments(item: dict[str, Any], at: dict[str, Any]) -> Iterator[Any]:
    match item:
        case {"type": "message", "content": [{"text": str(text)}]}:
            kind, where = "output_text", {"content_index": 0}
        case {"type": "reasoning", "summary": [{"text": str(text)}]}:
            kind, where = "reasoning_summary_text", {"summary_index": 0}
        case {"type": "function_call", "arguments": str(text)}:
            kind, where = "function_call_arguments", {}
        case _:
            return
    for piece in (text[:3], text[3:]):
        if piece:
            yield {"type": f"response.{kind}.delta", **at, **where, "delta": piece}
    key = "arguments" if kind == "function_call_arguments" else "text"
    yield {"type": f"response.{kind}.done", **at, **where, key: text}


def sse(*told: Any) -> bytes:
    """Events as they are sent."""
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode())
        for event in told
    )


def answers(*items: dict[str, Any], status: str = "completed", **more: Any) -> Answer:
    """Answer with these items, streamed if a stream was asked for."""
    told = sse(*events(*items, status=status, **more))
    whole = json.dumps(response(*items, status=status, **more)).encode()

    async def answer(exchange: Exchange) -> None:
        if exchange.body.get("stream"):
            await sends(told)(exchange)
        else:
            await sends(whole, content_type="application/json")(exchange)

    return answer
