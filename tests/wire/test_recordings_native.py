"""Recorded answers of Anthropic, Gemini and Ollama, each in the provider's own protocol.

See `tests.support.recordings`.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Any, Final

import pytest

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.wire._anthropic import anthropic_decoder
from flowtrio.wire._gemini import gemini_decoder
from flowtrio.wire._ollama import ollama_decoder
from tests.support.recordings import recordings_of

DECODERS: Final[dict[str, Callable[[], Any]]] = {
    "anthropic": anthropic_decoder,
    "gemini": gemini_decoder,
    "ollama_chat": ollama_decoder,
}
MARKS: Final = {
    "anthropic": b"event: message_delta",
    "gemini": b'"finishReason"',
    "ollama_chat": b'"done":true',
}

RECORDINGS: Final = [
    pytest.param(recording.provider, recording.data, recording.expected, id=recording.id)
    for recording in recordings_of(DECODERS)
]
each = pytest.mark.parametrize(("provider", "data", "expected"), RECORDINGS)


def hear(provider: str, pieces: list[bytes]) -> tuple[list[Chunk], Exception | None]:
    decoder, chunks = DECODERS[provider](), list[Chunk]()
    try:
        for piece in pieces:
            chunks += decoder.receive_data(piece)
        chunks += decoder.end_of_data()
    except (ProviderError, RemoteProtocolError) as exc:
        return chunks, exc
    return chunks, None


def split(data: bytes, size: int) -> list[bytes]:
    return [data[place : place + size] for place in range(0, len(data), size)]


@each
@pytest.mark.parametrize("size", [1, 37, 1_000_000])
def test_it_says_what_the_sdk_hears(
    provider: str, data: bytes, expected: dict[str, Any], size: int
) -> None:
    chunks, error = hear(provider, split(data, size))

    assert (error is not None) == ("sdk_error" in expected)
    if expected.get("ambiguous") or error is not None:
        return
    assert "".join(chunk.content for chunk in chunks) == expected["text"]
    final = chunks[-1]
    assert [(call.name, call.arguments) for call in final.tool_calls] == [
        _call(call) for call in expected["tool_calls"]
    ]
    assert final.raw_finish_reason == expected["finish_reason"]
    if "reasoning" in expected:
        assert "".join(chunk.reasoning for chunk in chunks) == expected["reasoning"]
    if provider == "anthropic":
        parts = [part for chunk in chunks for part in chunk.parts]
        ours = [part for part in parts if part["type"] == "server_tool_call"]
        theirs = expected.get("server_tool_calls", [])
        assert [call["name"] for call in ours] == [call["name"] for call in theirs]
        # The SDK keeps no arguments of calls to MCP servers.
        assert all(
            t["arguments"] in ({}, o["arguments"]) for o, t in zip(ours, theirs, strict=True)
        )


def _call(call: dict[str, Any]) -> tuple[str, Any]:
    arguments = call["arguments"]
    return call["name"], json.loads(arguments) if isinstance(arguments, str) else arguments


@each
def test_pieces_make_no_difference(provider: str, data: bytes, expected: dict[str, Any]) -> None:
    whole = told(hear(provider, [data]))
    moments = random.Random(5)
    for _ in range(5):
        cuts = sorted(moments.sample(range(len(data)), min(len(data) - 1, 40)))
        pieces = [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]
        assert told(hear(provider, pieces)) == whole
    assert told(hear(provider, data.splitlines(keepends=True))) == whole


def told(heard: tuple[list[Chunk], Exception | None]) -> Any:
    chunks, error = heard
    return chunks, str(error), getattr(error, "detail", None)


@each
def test_one_that_is_cut_before_its_finish_mark_is_an_error(
    provider: str, data: bytes, expected: dict[str, Any]
) -> None:
    place = data.replace(b'"done": true', b'"done":true ').find(MARKS[provider])
    end = len(data) if place < 0 else place
    for cut in range(0, end, 50):
        assert hear(provider, [data[:cut]])[1] is not None, cut
