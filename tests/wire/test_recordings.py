"""Answers of OpenAI and of what is compatible; see `tests.support.recordings`."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs
import pytest

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.wire._openai_chat import ChatDecoder
from flowtrio.wire._usage import read_usage
from tests.support.recordings import Recording, recordings_of

Make: TypeAlias = Callable[[], ChatDecoder]

PROVIDERS: Final = ("openai_chat", "compat_chat", "azure_chat")


def finished_at(recording: Recording) -> int:
    """The length from which on the finish mark is whole; more than all where there is none."""
    place = 0
    for line in recording.data.splitlines(keepends=True):
        if finishes(line.strip().removeprefix(b"data:").strip()):
            return place + len(line.rstrip())
        place += len(line)
    return len(recording.data) + 1


def finishes(data: bytes) -> bool:
    """Whether an event's data finish the first choice; by json, so that nothing of ours judges."""
    if data == b"[DONE]":
        return True
    if not data.startswith(b"{"):
        return False
    choices = json.loads(data).get("choices") or []
    return any(c.get("finish_reason") and c.get("index", 0) == 0 for c in choices)


RECORDINGS: Final = recordings_of(PROVIDERS)
UNAMBIGUOUS: Final = [r for r in RECORDINGS if not r.expected.get("ambiguous")]
FAILED: Final = [r for r in RECORDINGS if "sdk_error" in r.expected]
FINISHED: Final = [r for r in RECORDINGS if r not in FAILED]

each = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda r: r.id)
each_unambiguous = pytest.mark.parametrize("recording", UNAMBIGUOUS, ids=lambda r: r.id)


@attrs.frozen
class Heard:
    """What a decoder made of a stream: chunks, then the error if there was one."""

    chunks: list[Chunk]
    error: ProviderError | RemoteProtocolError | None

    @property
    def text(self) -> str:
        return "".join(chunk.content for chunk in self.chunks)

    @property
    def reasoning(self) -> str:
        return "".join(chunk.reasoning for chunk in self.chunks)

    @property
    def refusal(self) -> str:
        parts = [part for chunk in self.chunks for part in chunk.parts]
        return "".join(part["text"] for part in parts if part["type"] == "refusal")

    @property
    def is_final(self) -> bool:
        return any(chunk.is_final for chunk in self.chunks)


def hear(pieces: list[bytes], make: Make = ChatDecoder) -> Heard:
    decoder, chunks = make(), list[Chunk]()
    try:
        for piece in pieces:
            chunks += decoder.receive_data(piece)
        chunks += decoder.end_of_data()
    except (ProviderError, RemoteProtocolError) as exc:
        return Heard(chunks, exc)
    return Heard(chunks, None)


def whole(data: bytes) -> list[bytes]:
    return [data]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def randomly(data: bytes, seed: int = 0) -> list[bytes]:
    chance = random.Random(seed)
    places = sorted(chance.randrange(len(data)) for _ in range(chance.choice([3, 30, 300])))
    return [data[a:b] for a, b in itertools.pairwise([0, *places, len(data)])]


def test_there_are_recordings_of_each_kind() -> None:
    assert RECORDINGS
    assert FAILED
    assert all(finished_at(recording) <= len(recording.data) for recording in FINISHED)


@pytest.mark.parametrize("split", [whole, one_by_one, randomly])
@each_unambiguous
def test_a_recording_says_to_us_what_it_says_to_the_provider_s_library(
    recording: Recording, split: Callable[[bytes], list[bytes]]
) -> None:
    expected = recording.expected
    heard = hear(split(recording.data))

    assert heard.text == expected["text"]
    if "reasoning" in expected:
        assert heard.reasoning == expected["reasoning"]
    assert heard.refusal == (expected.get("refusal") or "")
    assert (heard.error is None) == ("sdk_error" not in expected)
    if heard.error is not None:
        assert isinstance(heard.error, ProviderError)
        assert heard.error.detail is not None
        assert heard.error.detail["words"] in expected["sdk_error"]
        return
    final = heard.chunks[-1]
    calls = [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in final.tool_calls]
    assert calls == expected["tool_calls"]
    assert final.raw_finish_reason == expected.get("finish_reason")
    assert final.usage == read_usage(expected.get("usage"))
    assert final.model == expected["model"]


def check_splits(recording: Recording, make: Make = ChatDecoder) -> None:
    heard = hear(one_by_one(recording.data), make)

    for seed in range(20):
        again = hear(randomly(recording.data, seed), make)

        assert again.chunks == heard.chunks
        assert repr(again.error) == repr(heard.error)


@each
def test_any_split_gives_the_same_chunks(recording: Recording) -> None:
    check_splits(recording)


def check_cuts(recording: Recording, make: Make = ChatDecoder) -> None:
    for length in range(0, min(finished_at(recording), len(recording.data) + 1), 50):
        heard = hear([recording.data[:length]], make)

        assert heard.error is not None
        assert not heard.is_final


@each
def test_a_recording_cut_before_its_finish_mark_is_an_error(recording: Recording) -> None:
    check_cuts(recording)


@pytest.mark.parametrize("recording", FINISHED, ids=lambda r: r.id)
def test_a_recording_with_its_finish_mark_is_an_answer(recording: Recording) -> None:
    for length in (finished_at(recording), len(recording.data)):
        heard = hear([recording.data[:length]])

        assert heard.error is None
        assert heard.chunks[-1].is_final


# Planted bugs


class TakesWhatThereIs(ChatDecoder):
    def end_of_data(self) -> list[Chunk]:
        try:
            return super().end_of_data()
        except RemoteProtocolError:
            return [self._reply.final()]


class DropsWhatCameBefore(ChatDecoder):
    def receive_data(self, data: bytes) -> list[Chunk]:
        return super().receive_data(data)[-1:]


@each
def test_a_decoder_that_takes_a_cut_stream_for_an_answer_is_found_out(recording: Recording) -> None:
    with pytest.raises(AssertionError):
        check_cuts(recording, TakesWhatThereIs)


def test_a_decoder_that_depends_on_the_pieces_is_found_out() -> None:
    with pytest.raises(AssertionError):
        for recording in FINISHED:
            check_splits(recording, DropsWhatCameBefore)
