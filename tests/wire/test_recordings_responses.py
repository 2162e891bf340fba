"""Recorded answers of Responses, of OpenAI and others; see `tests.support.recordings`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pytest

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.wire._openai_responses import (
    ResponsesReply,
    responses_decoder,
)
from flowtrio.wire._reply import ReplyDecoder
from flowtrio.wire._sse import ServerSentEvent, SSEDecoder
from flowtrio.wire._usage import read_usage
from tests.support.recordings import Recording, recordings_of

Make: TypeAlias = Callable[[], ReplyDecoder[ServerSentEvent]]

RECORDINGS: Final = recordings_of(("openai_responses", "compat_responses"))
COMPARED: Final = [r for r in RECORDINGS if not r.expected.get("ambiguous")]
FAILED: Final = [r for r in RECORDINGS if "sdk_error" in r.expected]

each = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda r: r.id)
each_compared = pytest.mark.parametrize("recording", COMPARED, ids=lambda r: r.id)

MARKS: Final = ("response.completed", "response.incomplete")


def hear(pieces: list[bytes], make: Make = responses_decoder) -> tuple[list[Chunk], Any]:
    """The chunks of a stream, and the error that it ended with or None."""
    decoder, chunks = make(), list[Chunk]()
    try:
        for piece in pieces:
            chunks += decoder.receive_data(piece)
        chunks += decoder.end_of_data()
    except (ProviderError, RemoteProtocolError) as exc:
        return chunks, exc
    return chunks, None


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[place : place + size] for place in range(0, len(data), size)]


def cut_anywhere(data: bytes, seed: int) -> list[bytes]:
    chance, pieces, rest = random.Random(seed), list[bytes](), data
    while rest:
        size = chance.choice([1, 7, 100, 5000])
        pieces.append(rest[:size])
        rest = rest[size:]
    return pieces


def finished_at(data: bytes) -> int:
    """The length from which on the first finish mark is whole, as json sees it."""
    place = 0
    for line in data.splitlines(keepends=True):
        text = line.strip().removeprefix(b"data:").strip()
        if text.startswith(b"{") and json.loads(text).get("type") in MARKS:
            return place + len(line.rstrip())
        place += len(line)
    return len(data) + 1


def test_there_are_recordings_of_each_kind() -> None:
    assert {recording.provider for recording in COMPARED} == {
        "openai_responses",
        "compat_responses",
    }
    assert FAILED


@each_compared
@pytest.mark.parametrize("size", [1, 37, 1_000_000])
def test_a_recording_says_to_us_what_it_says_to_the_provider_s_library(
    recording: Recording, size: int
) -> None:
    expected = recording.expected
    chunks, error = hear(cut(recording.data, size))

    assert (error is not None) == ("sdk_error" in expected)
    parts = [part for chunk in chunks for part in chunk.parts]
    refusals = [part["text"] for part in parts if part["type"] == "refusal"]
    assert "".join(chunk.content for chunk in chunks) == expected["text"]
    assert "".join(refusals) == (expected.get("refusal") or "")
    for key in ("reasoning", "reasoning_summary"):
        if key in expected:
            assert "".join(chunk.reasoning for chunk in chunks) == expected[key]
    if error is not None:
        assert error.detail["words"] in expected["sdk_error"]
        return
    final = chunks[-1]
    calls = [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in final.tool_calls]
    assert calls == expected["tool_calls"]
    custom = [part for part in parts if part["type"] == "custom_tool_call"]
    told = [{"id": p["call_id"], "name": p["name"], "input": p["input"]} for p in custom]
    assert told == expected.get("custom_tool_calls", [])
    assert final.raw_finish_reason == expected["finish_reason"]
    assert final.usage == read_usage(expected["usage"])
    assert final.model == expected["model"]


@each
def test_what_the_provider_runs_has_a_beginning_and_an_end(recording: Recording) -> None:
    chunks, error = hear([recording.data])
    parts = [part for chunk in chunks for part in chunk.parts]
    begun = [part["id"] for part in parts if part["type"] == "server_tool_call"]
    ended = [part["id"] for part in parts if part["type"] == "server_tool_result"]
    kinds = recording.expected.get("output_item_types", [])
    wanted = [kind for kind in kinds if kind.endswith("_call") or kind == "mcp_list_tools"]
    wanted = [kind for kind in wanted if kind not in ("function_call", "custom_tool_call")]

    assert begun == ended
    assert error is not None or len(begun) == len(wanted)


def check_splits(recording: Recording, make: Make = responses_decoder) -> None:
    told = hear(cut(recording.data, 1), make)

    for seed in range(20):
        again = hear(cut_anywhere(recording.data, seed), make)
        assert again[0] == told[0]
        assert repr(again[1]) == repr(told[1])


@each
def test_any_split_gives_the_same_chunks(recording: Recording) -> None:
    check_splits(recording)


def check_cuts(recording: Recording, make: Make = responses_decoder) -> None:
    for length in range(0, min(finished_at(recording.data), len(recording.data) + 1), 50):
        chunks, error = hear([recording.data[:length]], make)

        assert error is not None, length
        assert not any(chunk.is_final for chunk in chunks), length


@each
def test_a_recording_cut_before_its_finish_mark_is_an_error(recording: Recording) -> None:
    check_cuts(recording)


# Planted bugs


class TakesWhatThereIs(ResponsesReply):
    @property
    def is_finished(self) -> bool:
        return True


class ForgetsPieces(SSEDecoder):
    def receive_data(self, data: bytes) -> list[ServerSentEvent]:
        return super().receive_data(data)[-1:]


def test_a_decoder_that_takes_a_cut_stream_for_an_answer_is_found_out() -> None:
    for recording in COMPARED:
        with pytest.raises(AssertionError):
            check_cuts(recording, lambda: ReplyDecoder(SSEDecoder(), TakesWhatThereIs(), "nothing"))


def test_a_decoder_that_depends_on_the_pieces_is_found_out() -> None:
    with pytest.raises(AssertionError):
        for recording in COMPARED:
            check_splits(
                recording, lambda: ReplyDecoder(ForgetsPieces(), ResponsesReply(), "nothing")
            )
