"""The seven protocols side by side: one reply, as each of their hosts streams it or tells it whole.

Every protocol says the same: a text in two pieces, then calls. Those that stream arguments send
them in two fragments, the others whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import attrs

from flowtrio import (
    AnthropicClient,
    AzureOpenAIClient,
    DashScopeClient,
    GeminiClient,
    OllamaClient,
    OpenAIClient,
)

from . import responses
from .model_server import Answer, Exchange, ModelServer, sends

KEY: Final = "sk-canary-4711"
MODEL: Final = "m-1"


@attrs.frozen
class Said:
    """What the model says in one reply."""

    text: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()

    @property
    def pieces(self) -> list[str]:
        """The text as it is streamed."""
        half = len(self.text) // 2
        return [piece for piece in (self.text[:half], self.text[half:]) if piece]


def _halves(arguments: dict[str, Any]) -> tuple[str, str]:
    raw = json.dumps(arguments)
    return raw[:4], raw[4:]


def _sse(payloads: list[dict[str, Any]]) -> list[bytes]:
    return [b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads]


# Chat completions


def _chat_calls(said: Said) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{place}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for place, (name, arguments) in enumerate(said.calls)
    ]


def _chat_end(said: Said) -> dict[str, Any]:
    return {"index": 0, "finish_reason": "tool_calls" if said.calls else "stop"}


_CHAT_USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def _chat_stream(said: Said) -> list[bytes]:
    deltas: list[dict[str, Any]] = [{"content": piece} for piece in said.pieces]
    for place, call in enumerate(_chat_calls(said)):
        begin, rest = _halves(said.calls[place][1])
        first = {**call, "index": place, "function": {**call["function"], "arguments": begin}}
        deltas.append({"tool_calls": [first]})
        deltas.append({"tool_calls": [{"index": place, "function": {"arguments": rest}}]})
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    told = [{"model": MODEL, "choices": [c]} for c in [*choices, {**_chat_end(said), "delta": {}}]]
    return [*_sse([*told, {"choices": [], "usage": _CHAT_USAGE}]), b"data: [DONE]\n\n"]


def _chat_whole(said: Said) -> dict[str, Any]:
    message = {"role": "assistant", "content": said.text, "tool_calls": _chat_calls(said)}
    choice = {**_chat_end(said), "message": message}
    return {"model": MODEL, "choices": [choice], "usage": _CHAT_USAGE}


# Responses


def _items(said: Said) -> list[dict[str, Any]]:
    calls = [
        responses.call(name, arguments, f"call_{place}")
        for place, (name, arguments) in enumerate(said.calls)
    ]
    return [*([responses.message(said.text)] if said.text else []), *calls]


def _responses_stream(said: Said) -> list[bytes]:
    return [responses.sse(event) for event in responses.events(*_items(said), model=MODEL)]


def _responses_whole(said: Said) -> dict[str, Any]:
    return responses.response(*_items(said), model=MODEL)


# Anthropic


def _blocks(said: Said) -> list[dict[str, Any]]:
    calls = [
        {"type": "tool_use", "id": f"toolu_{place}", "name": name, "input": arguments}
        for place, (name, arguments) in enumerate(said.calls)
    ]
    return [*([{"type": "text", "text": said.text}] if said.text else []), *calls]


def _anthropic_message(said: Said, content: list[dict[str, Any]]) -> dict[str, Any]:
    usage = {"input_tokens": 7, "output_tokens": 3}
    return {"type": "message", "model": MODEL, "content": content, "usage": usage}


def _anthropic_stream(said: Said) -> list[bytes]:
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": _anthropic_message(said, [])},
        {"type": "ping"},
    ]
    for index, block in enumerate(_blocks(said)):
        if block["type"] == "text":
            begun = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in said.pieces]
        else:
            begun = {**block, "input": {}}
            deltas = [
                {"type": "input_json_delta", "partial_json": half}
                for half in _halves(block["input"])
            ]
        told.append({"type": "content_block_start", "index": index, "content_block": begun})
        told += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        told.append({"type": "content_block_stop", "index": index})
    usage = {"output_tokens": 3}
    told.append({"type": "message_delta", "delta": _anthropic_end(said), "usage": usage})
    told.append({"type": "message_stop"})
    names = [b"event: " + event["type"].encode() + b"\n" for event in told]
    return [name + event for name, event in zip(names, _sse(told), strict=True)]


def _anthropic_end(said: Said) -> dict[str, Any]:
    return {"stop_reason": "tool_use" if said.calls else "end_turn"}


def _anthropic_whole(said: Said) -> dict[str, Any]:
    return {**_anthropic_message(said, _blocks(said)), **_anthropic_end(said)}


# Gemini


def _gemini_payload(parts: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0, **more}
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 3}
    return {"candidates": [candidate], "modelVersion": MODEL, "usageMetadata": usage}


def _gemini_calls(said: Said) -> list[dict[str, Any]]:
    return [{"functionCall": {"name": name, "args": args}} for name, args in said.calls]


def _gemini_stream(said: Said) -> list[bytes]:
    told = [_gemini_payload([{"text": piece}]) for piece in said.pieces]
    return _sse([*told, _gemini_payload(_gemini_calls(said), finishReason="STOP")])


def _gemini_whole(said: Said) -> dict[str, Any]:
    text = [{"text": said.text}] if said.text else []
    return _gemini_payload([*text, *_gemini_calls(said)], finishReason="STOP")


# Ollama


def _ollama_calls(said: Said) -> dict[str, Any]:
    calls = [{"function": {"name": name, "arguments": args}} for name, args in said.calls]
    return {"tool_calls": calls} if calls else {}


def _ollama_line(content: str, done: bool, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    line = {"model": MODEL, "message": message, "done": done}
    last = {"done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
    return {**line, **last} if done else line


def _ollama_stream(said: Said) -> list[bytes]:
    told = [_ollama_line(piece, False) for piece in said.pieces]
    if said.calls:
        told.append(_ollama_line("", False, **_ollama_calls(said)))
    return [json.dumps(line).encode() + b"\n" for line in [*told, _ollama_line("", True)]]


def _ollama_whole(said: Said) -> dict[str, Any]:
    return _ollama_line(said.text, True, **_ollama_calls(said))


# All of them


@attrs.frozen(kw_only=True)
class Protocol:
    """A client, and how its host speaks."""

    name: str
    client: Callable[..., Any]
    stream: Callable[[Said], list[bytes]]
    """A streamed reply, one piece an event."""
    whole: Callable[[Said], dict[str, Any]]
    content_type: str = "text/event-stream"
    has_version: bool = False
    """Whether the client's address has the version in it."""
    options: dict[str, Any] = attrs.field(factory=dict)
    sends_whole_arguments: bool = False

    def to(self, server: ModelServer | str, **options: Any) -> Any:
        """A client of this server."""
        url = server if isinstance(server, str) else server.url
        if not self.has_version:
            url = url.removesuffix("/v1")
        return self.client(
            **{"api_key": KEY, "model": MODEL, "base_url": url, **self.options, **options}
        )

    def says(self, said: Said) -> Answer:
        """Answer with this reply, streamed."""
        return sends(*self.stream(said), content_type=self.content_type)

    def says_whole(self, said: Said) -> Answer:
        """Answer with this reply as one JSON object."""
        body = json.dumps(self.whole(said)).encode()
        return sends(body, content_type="application/json")

    def answers(self, said: Said) -> Answer:
        """Answer as it was asked for."""

        async def answer(exchange: Exchange) -> None:
            way = self.says if self.wants_stream(exchange) else self.says_whole
            await way(said)(exchange)

        return answer

    @staticmethod
    def wants_stream(exchange: Exchange) -> bool:
        """Whether a request asked for a stream."""
        return bool(exchange.body.get("stream")) or "streamGenerateContent" in exchange.path

    @property
    def finish_mark(self) -> int:
        """How many pieces at a reply's end tell that it is finished."""
        return 3 if self.stream is _chat_stream else 2 if self.stream is _anthropic_stream else 1


_CHAT: Final[dict[str, Any]] = {"stream": _chat_stream, "whole": _chat_whole}

PROTOCOLS: Final = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="chat", client=OpenAIClient, has_version=True, **_CHAT),
        Protocol(
            name="responses",
            client=OpenAIClient,
            stream=_responses_stream,
            whole=_responses_whole,
            has_version=True,
            options={"api": "responses"},
        ),
        Protocol(name="azure", client=AzureOpenAIClient, **_CHAT),
        Protocol(
            name="anthropic",
            client=AnthropicClient,
            stream=_anthropic_stream,
            whole=_anthropic_whole,
        ),
        Protocol(
            name="gemini",
            client=GeminiClient,
            stream=_gemini_stream,
            whole=_gemini_whole,
            sends_whole_arguments=True,
        ),
        Protocol(
            name="ollama",
            client=OllamaClient,
            stream=_ollama_stream,
            whole=_ollama_whole,
            content_type="application/x-ndjson",
            sends_whole_arguments=True,
        ),
        Protocol(name="dashscope", client=DashScopeClient, **_CHAT),
    )
}
