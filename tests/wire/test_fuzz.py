"""Every codec against bytes that no provider sent: only our errors, little memory, linear time.

More examples than in the ordinary run: ``FLOWTRIO_FUZZ=20`` makes it twenty times as many.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.wire import _anthropic, _gemini, _ollama, _openai_chat, _openai_responses
from tests.support.protocols import PROTOCOLS, Said

MIB: Final = 1024 * 1024
TIMES: Final = int(os.environ.get("FLOWTRIO_FUZZ", "1"))
FUZZ: Final = settings(max_examples=150 * TIMES)


@attrs.frozen
class Codec:
    """What reads a reply, and replies that it reads."""

    decoder: Callable[[], Any]
    whole: Callable[[bytes], list[Chunk]]
    replies: list[bytes]
    answers: list[bytes]
    frame: tuple[bytes, bytes]
    """What stands around a frame's JSON."""


SAID: Final = [
    Said("Good day, Zürich 😀"),
    Said("I look. ", (("look", {"at": "Paris"}), ("look", {"at": "Rome", "deep": [{"er": None}]}))),
    Said('{"result": 3}'),
]


def _codec(name: str, decoder: Callable[[], Any], whole: Callable[[bytes], list[Chunk]]) -> Codec:
    protocol = PROTOCOLS[name]
    is_sse = protocol.content_type == "text/event-stream"
    return Codec(
        decoder,
        whole,
        [b"".join(protocol.stream(said)) for said in SAID],
        [json.dumps(protocol.whole(said)).encode() for said in SAID],
        (b"data: ", b"\n\n") if is_sse else (b"", b"\n"),
    )


CODECS: Final = {
    "chat": _codec("chat", _openai_chat.ChatDecoder, _openai_chat.decode_completion),
    "responses": _codec(
        "responses", _openai_responses.responses_decoder, _openai_responses.decode_completion
    ),
    "anthropic": _codec("anthropic", _anthropic.anthropic_decoder, _anthropic.decode_completion),
    "gemini": _codec("gemini", _gemini.gemini_decoder, _gemini.decode_completion),
    "ollama": _codec("ollama", _ollama.ollama_decoder, _ollama.decode_completion),
}


@pytest.fixture(params=CODECS.values(), ids=CODECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return request.param


def read(codec: Codec, pieces: list[bytes]) -> tuple[list[Chunk], str | None]:
    """What is heard, and the error at the end; any other exception fails the test."""
    decoder, chunks = codec.decoder(), list[Chunk]()
    try:
        for piece in pieces:
            chunks += decoder.receive_data(piece)
        chunks += decoder.end_of_data()
    except (ProviderError, RemoteProtocolError) as exc:
        return chunks, exc.code
    return chunks, None


def check_reading(codec: Codec, data: bytes, size: int) -> None:
    chunks, error = read(codec, [data])
    pieces = [data[place : place + size] for place in range(0, len(data), size)]

    assert [chunk.is_final for chunk in chunks].count(True) == (error is None)
    assert read(codec, pieces) == (chunks, error)


# Bytes


JUNK: Final = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [
            *(b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"data: ", b"data:\n", b"event: error\n", b":\n"),
            *(b"[DONE]", b"null", b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u", b"\\ud800", b"\0"),
            *(b"1e999", b"-1", b"9" * 30, b"true", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8"),
            *(b'{"error":{"message":"no"}}', b'{"a":' * 300, b"[" * 2000),
        ]
    ),
)


@st.composite
def spoilt(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """Replies with parts left out, said twice, put elsewhere, or written over."""
    data = draw(st.sampled_from(whole))
    for _ in range(draw(st.integers(1, 4))):
        place, size = draw(st.integers(0, len(data))), draw(st.integers(0, 60))
        part = data[place : place + size]
        match draw(st.sampled_from(["drop", "twice", "elsewhere", "junk", "other", "cut"])):
            case "drop":
                data = data[:place] + data[place + size :]
            case "twice":
                data = data[:place] + part + data[place:]
            case "elsewhere":
                data = part + data[:place] + data[place + size :]
            case "junk":
                data = data[:place] + draw(JUNK) + data[place + draw(st.integers(0, 3)) :]
            case "other":
                other = draw(st.sampled_from(whole))
                data = data[:place] + other[draw(st.integers(0, len(other))) :]
            case _:
                data = data[:place]
    return data


def test_only_our_errors_come_out_of_spoilt_replies(codec: Codec) -> None:
    @FUZZ
    @given(spoilt(codec.replies), st.integers(1, 80))
    def check(data: bytes, size: int) -> None:
        check_reading(codec, data, size)

    check()


def test_only_our_errors_come_out_of_spoilt_answers(codec: Codec) -> None:
    @FUZZ
    @given(spoilt(codec.answers))
    def check(data: bytes) -> None:
        with contextlib.suppress(ProviderError, RemoteProtocolError):
            assert codec.whole(data)[-1].is_final

    check()


# Shapes


def keys_of(value: Any) -> set[str]:
    """All keys that a reply has anywhere."""
    match value:
        case dict():
            return set(value).union(*map(keys_of, value.values()))
        case list():
            return set().union(*map(keys_of, value))
    return set()


def shapes(codec: Codec) -> st.SearchStrategy[Any]:
    """Values that have the codec's keys, and anything in them."""
    keys = sorted(set().union(*(keys_of(json.loads(answer)) for answer in codec.answers)))
    words = sorted(set(_words(codec)))
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False)
        | st.text("aß\0\ud7ff", max_size=4)
        | st.sampled_from(words)
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*keys, "error", "type", "delta"]), inner, max_size=5)
        ),
        max_leaves=15,
    )


def _words(codec: Codec) -> list[str]:
    """Texts that stand in the frames: kinds of events, reasons, names."""
    begin, _ = codec.frame
    frames = b"".join(codec.replies).split(b"\n")
    values = [json.loads(f.removeprefix(begin)) for f in frames if f.startswith(begin + b"{")]
    return [text for value in values for text in _texts(value)]


def _texts(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for item in value.values() for text in _texts(item)]
        case list():
            return [text for item in value for text in _texts(item)]
    return []


def mixed(codec: Codec) -> st.SearchStrategy[list[bytes]]:
    """Frames of any shape among those of a real reply."""
    begin, end = codec.frame
    real = [frame + end for reply in codec.replies for frame in reply.split(end) if frame]
    made = shapes(codec).map(lambda value: begin + json.dumps(value).encode() + end)
    return st.lists(st.sampled_from(real) | made, max_size=8)


def test_only_our_errors_come_out_of_frames_of_any_shape(codec: Codec) -> None:
    @FUZZ
    @given(mixed(codec), st.integers(1, 200))
    def check(frames: list[bytes], size: int) -> None:
        check_reading(codec, b"".join(frames), size)

    check()


def test_only_our_errors_come_out_of_answers_of_any_shape(codec: Codec) -> None:
    @FUZZ
    @given(shapes(codec))
    def check(value: Any) -> None:
        with contextlib.suppress(ProviderError, RemoteProtocolError):
            assert codec.whole(json.dumps(value).encode())[-1].is_final

    check()


@pytest.mark.parametrize("kind", [KeyError, TypeError, RecursionError])
def test_a_codec_that_lets_another_error_out_is_found_out(kind: type[Exception]) -> None:
    class Fragile(_openai_chat.ChatDecoder):
        def receive_data(self, data: bytes) -> list[Chunk]:
            chunks = super().receive_data(data)
            if any(chunk.tool_args for chunk in chunks):
                raise kind
            return chunks

    codec = attrs.evolve(CODECS["chat"], decoder=Fragile)
    with pytest.raises(kind):
        test_only_our_errors_come_out_of_spoilt_replies(codec)


# Memory and time


PIECE: Final = b"x" * 65536


@pytest.mark.parametrize("begin", [b"", b"data: ", b'data: {"a": "', b'{"a": "', b": "])
def test_what_does_not_end_is_refused_before_memory_is(codec: Codec, begin: bytes) -> None:
    decoder = codec.decoder()
    tracemalloc.start()
    taken = 0
    try:
        with pytest.raises(RemoteProtocolError) as caught:
            decoder.receive_data(begin)
            for _ in range(12 * MIB // len(PIECE)):
                # A piece of its own each time, as a socket gives it.
                decoder.receive_data(bytes(bytearray(PIECE)))
                taken += len(PIECE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert caught.value.code == "too_large"
    assert taken <= 8 * MIB
    assert peak < 18 * MIB


def test_an_event_of_many_lines_is_refused_before_memory_is() -> None:
    lines = (b"data: " + b"x" * 94 + b"\n") * 640
    for name in ("chat", "responses", "anthropic", "gemini"):
        decoder = CODECS[name].decoder()
        with pytest.raises(RemoteProtocolError) as caught:
            for _ in range(12 * MIB // len(lines)):
                decoder.receive_data(lines)
        assert caught.value.code == "too_large"


def seconds(codec: Codec, data: bytes, size: int) -> float:
    """CPU seconds to read this in pieces of that size."""
    pieces = [data[place : place + size] for place in range(0, len(data), size)]
    begun = time.process_time()
    read(codec, pieces)
    return time.process_time() - begun


@pytest.mark.parametrize("size", [7, 4096])
def test_time_is_linear(codec: Codec, size: int) -> None:
    """Eight times the bytes may take thrice as long as eight times; what is quadratic takes more.

    A long event in small pieces, then a long reply, whose texts and arguments have to be joined.
    """
    begin, end = codec.frame
    frames = [frame + end for frame in codec.replies[1].split(end) if frame]

    def long_event(count: int) -> bytes:
        return begin + b'{"a": "' + b"x" * (40 * count) + b'"}' + end

    def long_reply(count: int) -> bytes:
        return b"".join(frames[:-2]) + b"".join(frames[1:2]) * count

    for make in (long_event, long_reply):
        few = min(seconds(codec, make(1_000), size) for _ in range(3))
        many = min(seconds(codec, make(8_000), size) for _ in range(2))
        assert many < 24 * max(few, 0.002)
