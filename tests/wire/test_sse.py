from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core._exceptions import RemoteProtocolError
from flowtrio.wire._sse import (
    LineDecoder,
    ServerSentEvent,
    SSEDecoder,
    encode_comment,
    encode_event,
)

Event = ServerSentEvent
Read: TypeAlias = Callable[[list[bytes]], list[Any]]

# The planted bugs have to be found every time, so nothing here is left to chance.
PROPERTY: Final = settings(
    max_examples=300, deadline=None, database=None, derandomize=True, report_multiple_bugs=False
)

BOM: Final = b"\xef\xbb\xbf"


def read_lines(pieces: list[bytes]) -> list[bytes]:
    """Read the lines, and what follows the last line's end."""
    return lines_by(LineDecoder(), pieces)


def lines_by(decoder: LineDecoder, pieces: list[bytes]) -> list[bytes]:
    lines = [line for piece in pieces for line in decoder.receive_data(piece)]
    return [*lines, decoder.take_rest()]


def read_events(pieces: list[bytes]) -> list[Event]:
    """Read the events that were terminated."""
    return events_by(SSEDecoder(), pieces)


def events_by(decoder: SSEDecoder, pieces: list[bytes]) -> list[Event]:
    return [event for piece in pieces for event in decoder.receive_data(piece)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def every_cut(data: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, and in two pieces at every place."""
    return [[data], one_by_one(data), *(cut(data, [place]) for place in range(len(data) + 1))]


# Any split of the same bytes gives the same

STREAMS: Final = st.lists(
    st.sampled_from(
        [
            *(b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r", BOM, b":", b" ", b"\0", "\u2028é".encode()),
            *(b"data", b"data:", b"data: a", b"event: b", b"id: 1", b"id", b"retry: 20", b": hm"),
        ]
    ),
    max_size=12,
).map(b"".join)


def check_splits(read: Read) -> None:
    @PROPERTY
    @given(STREAMS, st.lists(st.integers(0, 100), max_size=6))
    def agree(data: bytes, places: list[int]) -> None:
        assert read(cut(data, places)) == read([data])
        assert read(one_by_one(data)) == read([data])

    agree()


@pytest.mark.parametrize("read", [read_lines, read_events])
def test_any_split_of_the_same_bytes_gives_the_same_lines_and_events(read: Read) -> None:
    check_splits(read)


class ForgetsTheCarriageReturn(LineDecoder):
    def receive_data(self, data: bytes) -> list[bytes]:
        self._after_cr = False
        return super().receive_data(data)


class ForgetsTheRest(LineDecoder):
    def receive_data(self, data: bytes) -> list[bytes]:
        self._pieces.clear()
        return super().receive_data(data)


class MarksEveryPiece(LineDecoder):
    def receive_data(self, data: bytes) -> list[bytes]:
        return super().receive_data(data.removeprefix(BOM))


class EndsWithEachPiece(SSEDecoder):
    def receive_data(self, data: bytes) -> list[Event]:
        events = super().receive_data(data)
        last = self.end_of_data()
        return events if last is None else [*events, last]


@pytest.mark.parametrize("wrong", [ForgetsTheCarriageReturn, ForgetsTheRest, MarksEveryPiece])
def test_a_line_decoder_that_depends_on_the_pieces_is_found_out(wrong: type[LineDecoder]) -> None:
    with pytest.raises(AssertionError):
        check_splits(lambda pieces: lines_by(wrong(), pieces))


def test_an_event_decoder_that_depends_on_the_pieces_is_found_out() -> None:
    with pytest.raises(AssertionError):
        check_splits(lambda pieces: events_by(EndsWithEachPiece(), pieces))


# Lines


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", [b""]),
        (b"a", [b"a"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b", b""]),
        (b"a\rb\r", [b"a", b"b", b""]),
        (b"a\n\rb", [b"a", b"", b"b"]),
        (b"a\r\n\r\nb", [b"a", b"", b"b"]),
        (b"a\r\r\nb", [b"a", b"", b"b"]),
        (b"\n\n", [b"", b"", b""]),
        (b"\r", [b"", b""]),
    ],
)
def test_a_line_ends_in_cr_lf_or_crlf(data: bytes, lines: list[bytes]) -> None:
    assert all(read_lines(pieces) == lines for pieces in every_cut(data))


def test_a_line_ends_in_nothing_else() -> None:
    data = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg".encode()

    assert read_lines([data, b"\n"]) == [data, b""]


def test_an_empty_piece_between_cr_and_lf_changes_nothing() -> None:
    assert read_lines([b"a\r", b"", b"\nb\n"]) == [b"a", b"b", b""]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (BOM + b"a\nb", [b"a", b"b"]),
        (BOM + b"a", [b"a"]),
        (BOM, [b""]),
        (BOM + b"\n", [b"", b""]),
        (BOM + BOM + b"a\n", [BOM + b"a", b""]),
        (b"a\n" + BOM + b"b\n", [b"a", BOM + b"b", b""]),
        (b"a\n" + BOM + b"b", [b"a", BOM + b"b"]),
    ],
)
def test_one_byte_order_mark_is_left_out_at_the_beginning_only(
    data: bytes, lines: list[bytes]
) -> None:
    assert all(read_lines(pieces) == lines for pieces in every_cut(data))


def test_the_rest_is_given_once() -> None:
    decoder = LineDecoder()
    decoder.receive_data(b"a\nbc")

    assert decoder.take_rest() == b"bc"
    assert decoder.take_rest() == b""
    assert decoder.receive_data(b"d\n") == [b"d"]


@pytest.mark.parametrize("data", [b"abcd", b"abcd\n", b"a\nabcd\n", b"abcd\r"])
def test_a_line_longer_than_the_limit_is_refused_however_it_comes(data: bytes) -> None:
    for pieces in every_cut(data):
        with pytest.raises(RemoteProtocolError, match=r"line .* longer than 3 bytes") as caught:
            lines_by(LineDecoder(max_bytes=3), pieces)

        assert caught.value.code == "too_large"
        assert not caught.value.retryable


def test_lines_as_long_as_the_limit_pass_however_many_they_are() -> None:
    data = b"abc\n" * 5 + b"abc"

    for pieces in every_cut(data):
        assert lines_by(LineDecoder(max_bytes=3), pieces) == [b"abc"] * 6


def test_a_long_line_in_small_pieces_is_not_copied_for_each_of_them() -> None:
    decoder = LineDecoder()
    piece = b"x" * 1000
    for _ in range(1000):
        decoder.receive_data(piece)

    assert decoder._pieces == [piece] * 1000
    assert decoder.receive_data(b"\n") == [piece * 1000]


# Fields and events

TOLD: Final[dict[bytes, list[Event]]] = {
    # The standard's own examples.
    b"data: YHOO\ndata: +2\ndata: 10\n\n": [Event(b"YHOO\n+2\n10")],
    b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third\n\n": [
        Event(b"first event", id="1"),
        Event(b"second event", id=""),
        Event(b" third", id=""),
    ],
    b"data\n\ndata\ndata\n\ndata:": [Event(b""), Event(b"\n")],
    b"data:test\n\ndata: test\n\n": [Event(b"test"), Event(b"test")],
    # Types
    b"event: a\ndata: 1\n\ndata: 2\n\n": [Event(b"1", "a"), Event(b"2")],
    b"event: a\nevent: b\ndata: 1\n\n": [Event(b"1", "b")],
    b"event: a\nevent:\ndata: 1\n\n": [Event(b"1")],
    b"event: a\n\ndata: 1\n\n": [Event(b"1")],
    b"event: \xff\ndata: 1\n\n": [Event(b"1", "\ufffd")],
    # Ids
    b"id: 1\ndata: a\n\ndata: b\n\n": [Event(b"a", id="1"), Event(b"b", id="1")],
    b"id: 1\n\ndata: a\n\n": [Event(b"a", id="1")],
    b"id: 1\nid: 2\0\ndata: a\n\n": [Event(b"a", id="1")],
    b"id: \xc3\xa9\ndata: a\n\n": [Event(b"a", id="é")],
    # Reconnection times
    b"retry: 20\ndata: a\n\ndata: b\n\n": [Event(b"a", retry=20), Event(b"b")],
    b"retry: 20\n\n": [],
    b"retry: 1.5\nretry: -1\nretry: 2e3\nretry:\ndata: a\n\n": [Event(b"a")],
    b"retry: 9999999999999999\ndata: a\n\n": [Event(b"a")],
    "retry: \u0662\ndata: a\n\n".encode(): [Event(b"a")],
    # What is ignored
    b": data: a\n\n:\n\n": [],
    b"\n\n\n": [],
    b"date: a\n data: b\nDATA: c\ndata : d\n\n": [],
    b"data: a": [],
    b"data: a\n": [],
    # Bytes as they came
    b"data: \xff\0\n\n": [Event(b"\xff\0")],
    b"data: a:b: c\n\n": [Event(b"a:b: c")],
    BOM + b"data: a\n\n": [Event(b"a")],
    b"data: a\r\ndata: b\r\n\r\ndata: c\r\rdata: d\n\r": [Event(b"a\nb"), Event(b"c"), Event(b"d")],
}


@pytest.mark.parametrize(("data", "events"), TOLD.items())
def test_fields_become_events_as_the_standard_says(data: bytes, events: list[Event]) -> None:
    assert all(read_events(pieces) == events for pieces in every_cut(data))


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (b"", None),
        (b"data: a\n\n", None),
        (b": hm", None),
        (b"event: a", None),
        (b"data: a", Event(b"a")),
        (b"data: a\n", Event(b"a")),
        (b"data: a\r", Event(b"a")),
        (b"data: a\ndata: b", Event(b"a\nb")),
        (b"data: a\nda", Event(b"a")),
        (b"data: a\n\nid: 7\nevent: b\nretry: 5\ndata: c", Event(b"c", "b", "7", 5)),
        (BOM + b"data: a", Event(b"a")),
    ],
)
def test_what_the_standard_discards_at_the_end_can_be_had(data: bytes, event: Event | None) -> None:
    for pieces in every_cut(data):
        decoder = SSEDecoder()
        events_by(decoder, pieces)

        assert decoder.end_of_data() == event
        assert decoder.end_of_data() is None


def test_an_event_larger_than_the_limit_is_refused_before_it_ends() -> None:
    line = b"data:123\n"

    for pieces in every_cut((line * 2 + b"\n") * 3):
        assert events_by(SSEDecoder(10), pieces) == [Event(b"123\n123")] * 3
    for pieces in every_cut(line * 3):
        with pytest.raises(RemoteProtocolError, match=r"an event .* than 10 bytes") as caught:
            events_by(SSEDecoder(10), pieces)

        assert caught.value.code == "too_large"


@pytest.mark.parametrize("large", [b"data: " + b"x" * 20, b"data:123\n" * 3])
def test_what_came_before_something_too_large_is_given_whatever_the_pieces(large: bytes) -> None:
    data = b"data: a\n\ndata: b\n\n" + large

    def until_error(pieces: list[bytes]) -> list[Event]:
        decoder, events = SSEDecoder(10), list[Event]()
        with pytest.raises(RemoteProtocolError):
            for piece in [*pieces, b"\n"]:
                events += decoder.receive_data(piece)
        return events

    assert all(until_error(pieces) == [Event(b"a"), Event(b"b")] for pieces in every_cut(data))


@pytest.mark.parametrize(
    "before",
    [
        *(
            b"",
            b"\xef\xbb\xbf",
            b"data: a\n\n",
            b"data: a\n",
            b"data: a",
            b"data: a\r",
            b"data: a\n\r",
        ),
        *(b"event: b\n", b"retry: 5\n", b"id: c\n", b"id: c\n\n", b": d", b": d\n", b"\n\n\r\n\r"),
        *(b"data: a\n\nevent: b\n", b"data: a\n\nretry: 7\n\n", b"retry: 7\n\ndata: a\n\nid: c\n"),
    ],
)
@pytest.mark.parametrize(
    "piece", [b"data: x\n\n", b"data: x\r\n\n", b"data: \n\n", b"data: x\ry\n\n", b"data:x\n\n"]
)
def test_an_event_in_a_piece_of_its_own_is_the_same_after_anything(
    before: bytes, piece: bytes
) -> None:
    data = before + piece + piece + b"data: end\n\n"
    expected = events_by(SSEDecoder(), one_by_one(data))

    assert events_by(SSEDecoder(), [before, piece, piece, b"data: end\n\n"]) == expected


@pytest.mark.parametrize("size", [9, 10, 11])
def test_an_event_in_a_piece_of_its_own_has_the_same_limit(size: int) -> None:
    piece = b"data: " + b"x" * size + b"\n\n"
    for pieces in ([b"data: a\n\n", piece], [b"data: a\n\n", *one_by_one(piece)]):
        events, decoder = list[Event](), SSEDecoder(16)
        try:
            for each in pieces:
                events += decoder.receive_data(each)
        except RemoteProtocolError:
            assert size == 11
        else:
            assert len(events) == 2


def test_comments_and_fields_without_data_do_not_add_up() -> None:
    data = b": ping\n\n" * 50 + b"event: a\n\n" * 50 + b"data: a\n\n"

    assert events_by(SSEDecoder(20), [data]) == [Event(b"a")]


# Encoding

ONE_LINE: Final = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"))
TEXT: Final = st.text(
    st.one_of(st.sampled_from("\r\n :\ufeff\u2028\0é"), st.characters(codec="utf-8"))
)
Encode: TypeAlias = Callable[..., bytes]


def check_round_trip(encode: Encode) -> None:
    @PROPERTY
    @given(
        data=TEXT,
        event=st.none() | ONE_LINE,
        id=st.none() | ONE_LINE,
        retry=st.none() | st.integers(0, 10**15 - 1),
        places=st.lists(st.integers(0, 100), max_size=4),
    )
    def agree(
        data: str, event: str | None, id: str | None, retry: int | None, places: list[int]
    ) -> None:
        told = encode(data, event=event, id=id, retry=retry)
        lines = data.replace("\r\n", "\n").replace("\r", "\n")

        expected = [Event(lines.encode(), event or "message", id, retry)]
        assert read_events(cut(told, places)) == expected
        assert read_events([encode_comment(data), told]) == expected

    agree()


def test_what_the_encoder_writes_the_decoder_reads() -> None:
    check_round_trip(encode_event)


def writes_one_line(data: str, **fields: Any) -> bytes:
    head = encode_event("", **fields).removesuffix(b"data: \n\n")
    return head + f"data: {data}\n\n".encode()


def writes_no_space(data: str, **fields: Any) -> bytes:
    return encode_event(data, **fields).replace(b"data: ", b"data:")


def splits_as_python_does(data: str, **fields: Any) -> bytes:
    return encode_event("\n".join(data.splitlines()), **fields)


@pytest.mark.parametrize("wrong", [writes_one_line, writes_no_space, splits_as_python_does])
def test_an_encoder_that_loses_something_is_found_out(wrong: Encode) -> None:
    with pytest.raises(AssertionError):
        check_round_trip(wrong)


@pytest.mark.parametrize(
    ("told", "data"),
    [
        (encode_event("a"), b"data: a\n\n"),
        (encode_event(""), b"data: \n\n"),
        (encode_event("a\nb\r\nc\rd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (
            encode_event("é", event="x", id="r1:7", retry=1000),
            b"event: x\nid: r1:7\nretry: 1000\ndata: \xc3\xa9\n\n",
        ),
        (encode_comment(), b": \n\n"),
        (encode_comment("ping"), b": ping\n\n"),
        (encode_comment("a\r\ndata: b\n\n"), b": a data: b\n\n"),
    ],
)
def test_events_and_comments_are_written_plainly(told: bytes, data: bytes) -> None:
    assert told == data


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0", "\n"])
def test_a_field_of_several_lines_is_refused(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} .*: expected text of one line$"):
        encode_event("a", **{field: value})
