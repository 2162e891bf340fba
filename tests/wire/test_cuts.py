"""A recorded answer that is cut anywhere is never taken for another answer (L10).

Here it is cut at some places; ``nox -s cuts`` cuts each recording at every byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import pytest

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.wire._anthropic import anthropic_decoder
from flowtrio.wire._gemini import gemini_decoder
from flowtrio.wire._ollama import ollama_decoder
from flowtrio.wire._openai_chat import ChatDecoder
from flowtrio.wire._openai_responses import responses_decoder
from tests.support.recordings import Recording, recordings_of

EVERY: Final = int(os.environ.get("FLOWTRIO_CUT_EVERY", "397"))
"""Bytes between two cuts."""

DECODERS: Final[dict[str, Callable[[], Any]]] = {
    **dict.fromkeys(("openai_chat", "compat_chat", "azure_chat"), ChatDecoder),
    **dict.fromkeys(("openai_responses", "compat_responses"), responses_decoder),
    "anthropic": anthropic_decoder,
    "gemini": gemini_decoder,
    "ollama_chat": ollama_decoder,
}


def hear(make: Callable[[], Any], data: bytes) -> list[Chunk]:
    """The chunks of some bytes, as far as they go."""
    decoder, chunks = make(), list[Chunk]()
    try:
        chunks += decoder.receive_data(data)
        chunks += decoder.end_of_data()
    except (ProviderError, RemoteProtocolError):
        pass
    return chunks


def answer(chunks: list[Chunk]) -> tuple[Any, ...] | None:
    """What somebody who was told that the answer is whole has of it; None if nobody was."""
    if not any(chunk.is_final for chunk in chunks):
        return None
    calls = [(call.name, call.arguments, call.raw) for call in chunks[-1].tool_calls]
    return "".join(chunk.content for chunk in chunks), calls, chunks[-1].finish_reason


def find_lies(make: Callable[[], Any], data: bytes, every: int) -> list[int]:
    """The places at which a cut answer passes for a whole one, and is another."""
    true = answer(hear(make, data))
    return [
        place
        for place in range(0, len(data), every)
        if (told := answer(hear(make, data[:place]))) is not None and told != true
    ]


def is_one_answer(recording: Recording) -> bool:
    """Whether a file holds one answer: some hold several, and between two it is whole."""
    return recording.data.count(b"event: response.created") <= 1


RECORDINGS: Final = [each for each in recordings_of(DECODERS) if is_one_answer(each)]


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda each: each.id)
def test_a_cut_answer_never_passes_for_another(recording: Recording) -> None:
    assert find_lies(DECODERS[recording.provider], recording.data, EVERY) == []


def test_a_decoder_that_takes_the_end_of_data_for_the_answers_end_is_noticed() -> None:
    class Gullible:
        def receive_data(self, data: bytes) -> list[Chunk]:
            return [Chunk(content=data.decode())]

        def end_of_data(self) -> list[Chunk]:
            return [Chunk(is_final=True, finish_reason="stop")]

    assert find_lies(Gullible, b"hello", 1) == [0, 1, 2, 3, 4]
