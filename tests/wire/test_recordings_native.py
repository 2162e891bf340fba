"""Recorded answers of Gemini and Ollama in their own protocols; see `tests.support.recordings`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.wire._gemini import gemini_decoder
from flowtrio.wire._ollama import ollama_decoder
from tests.support.recordings import recordings_of

DECODERS: Final[dict[str, Callable[[], Any]]] = {
    "gemini": gemini_decoder,
    "ollama_chat": ollama_decoder,
}
MARKS: Final = {"gemini": b'"finishReason"', "ollama_chat": b'"done":true'}

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
    calls = [call for chunk in chunks for call in chunk.tool_calls if not _is_providers(call)]
    told = [(call.name, call.arguments) for call in calls]
    assert told == [_call(call) for call in expected.get("tool_calls", [])]


def _is_providers(call: Any) -> bool:
    return bool(getattr(call, "provider_executed", False))


def _call(call: dict[str, Any]) -> tuple[str, Any]:
    arguments = call["arguments"]
    return call["name"], json.loads(arguments) if isinstance(arguments, str) else arguments


@each
def test_one_that_is_cut_before_its_finish_mark_is_an_error(
    provider: str, data: bytes, expected: dict[str, Any]
) -> None:
    place = data.replace(b'"done": true', b'"done":true ').find(MARKS[provider])
    end = len(data) if place < 0 else place
    for cut in range(0, end, 50):
        assert hear(provider, [data[:cut]])[1] is not None, cut
