"""Text, images and files as values, and what a message or a result of them comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtrio import File, Image, Text
from flowtrio._core._parts import (
    MAX_BYTES,
    MAX_PARTS,
    UserMessage,
    content_of_result,
    read_message,
    told_result,
)

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff\xe0"
PDF = b"%PDF-1.7 "
PNG_URL = "data:image/png;base64,iVBORw0KGgo="


# Values


def test_a_path_is_read_at_once_and_names_the_part(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    image = Image(path=path)
    path.unlink()

    assert image.data == PNG
    assert (image.media_type, image.name, image.url) == ("image/png", "cat.png", None)
    assert image == Image(data=PNG, name="cat.png")


def test_a_path_may_be_a_text_and_another_name_may_be_given(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"hello")
    file = File(path=str(path), name="n.txt")

    assert (file.media_type, file.name) == ("text/plain", "n.txt")


def test_a_file_is_read_no_further_than_it_may_be_large(tmp_path: Path) -> None:
    path = tmp_path / "endless.bin"
    path.write_bytes(bytes(MAX_BYTES + 100))

    with pytest.raises(ValueError, match=f"File: has more than {MAX_BYTES} bytes"):
        File(path=path, media_type="application/zip")


def test_a_path_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Image(path=tmp_path / "none.png")


@pytest.mark.parametrize(
    ("part", "media_type"),
    [
        (Image(data=PNG), "image/png"),
        (Image(data=JPEG, name="wrong-by-name.png"), "image/jpeg"),
        (Image(data=JPEG, media_type="image/jpg"), "image/jpeg"),
        (Image(data=b"<svg/>", name="a.svg"), "image/svg+xml"),
        (Image(data=b"...", media_type="IMAGE/X-ODD; q=1"), "image/x-odd"),
        (Image(data=bytearray(PNG)), "image/png"),
        (Image(url="https://example.org/a.webp?x=.pdf#.gif"), "image/webp"),
        (Image(url="https://example.org/a"), None),
        (Image(url="https://example.org"), None),
        (Image(url=PNG_URL), "image/png"),
        (File(data=PDF), "application/pdf"),
        (File(data=PNG), "image/png"),
        (File(data=b"a,b", name="a.csv"), "text/csv"),
        (File(data=b"a", media_type="text/plain; charset=utf-8"), "text/plain"),
        (File(url="gs://bucket/a.pdf"), "application/pdf"),
        (File(url="https://example.org/a", name="a.pdf"), "application/pdf"),
        (File(url="https://example.org/a", media_type="application/pdf"), "application/pdf"),
        (File(url="data:text/plain;base64,QUJD"), "text/plain"),
        (File(url="data:text/plain;base64,QUJD", media_type="text/csv"), "text/csv"),
    ],
)
def test_the_type_is_known_from_what_is_given(part: Image | File, media_type: str | None) -> None:
    assert part.media_type == media_type


def test_a_data_url_is_what_it_holds() -> None:
    assert Image(url=PNG_URL) == Image(data=PNG)


@pytest.mark.parametrize(
    ("kind", "given", "error", "words"),
    [
        (Image, {}, TypeError, "expected one of url=, data= and path="),
        (Image, {"data": PNG, "url": "https://x"}, TypeError, "expected one of"),
        (Image, {"data": "text"}, TypeError, "data: expected bytes, got str"),
        (Image, {"url": b"https://x"}, TypeError, "url: expected a str, got bytes"),
        (Image, {"data": PNG, "name": 3}, TypeError, "name: expected a str, got int"),
        (Image, {"data": b""}, ValueError, "at least one byte"),
        (Image, {"data": b"abc"}, ValueError, "neither its bytes nor its name"),
        (Image, {"data": b"abc", "name": "a.png"}, ValueError, "its bytes are none"),
        (Image, {"data": JPEG, "media_type": "image/png"}, ValueError, "its bytes are image/jpeg"),
        (Image, {"data": PNG, "media_type": "image/heic"}, ValueError, "its bytes are image/png"),
        (Image, {"data": b"abc", "media_type": "png"}, ValueError, "one such as 'image/png'"),
        (Image, {"data": b"abc", "media_type": 3}, ValueError, "media_type=3: expected"),
        (Image, {"data": PDF}, ValueError, "expected an image, got application/pdf"),
        (Image, {"url": "https://x/a.pdf"}, ValueError, "expected an image, got application/pdf"),
        (Image, {"url": "file:///etc/passwd"}, ValueError, "begins with https://"),
        (Image, {"url": "https://x/a b"}, ValueError, "begins with https://"),
        (Image, {"url": "https://x/" + "a" * 9000}, ValueError, "begins with https://"),
        (Image, {"url": "data:image/png,abc"}, ValueError, "expected data:"),
        (Image, {"url": "data:image/png;base64,%%%"}, ValueError, "expected base64"),
        (File, {"data": b"abc", "media_type": "application/pdf"}, ValueError, "bytes are none"),
        (File, {"url": "https://x/a"}, ValueError, "its address does not tell it"),
    ],
)
def test_what_nobody_could_be_sent_is_refused_when_it_is_made(
    kind: Any, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        kind(**given)


def test_text_is_text() -> None:
    assert Text("a").text == "a"
    with pytest.raises(TypeError, match="Text: expected a str, got bytes"):
        Text(b"a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\dir\\a.png", "a.png"),
        ("a\r\nb\ud800.png", "a__b\ufffd.png"),
        ("x" * 300 + ".png", "x" * 251 + ".png"),
        ("dir/", None),
    ],
)
def test_a_name_is_that_of_a_file_and_no_way_to_one(given: str, name: str | None) -> None:
    assert Image(data=PNG, name=given).name == name


def test_a_parts_content_is_not_in_what_is_printed() -> None:
    assert "PNG" not in repr(Image(data=PNG))
    assert "QUJD" not in repr(read_message([File(url="data:text/plain;base64,QUJD")]))


# Messages


@given(st.text())
def test_a_text_is_a_message_of_that_text_alone(text: str) -> None:
    message = read_message(text)

    assert message.content == message.text == read_message([Text(text)]).content
    assert message.media == ()
    assert message.parts == []


def test_a_message_tells_its_text_and_of_the_rest_type_size_and_name() -> None:
    message = read_message(
        [
            Text("What is this?"),
            Image(data=PNG, name="a.png"),
            Text("  "),
            File(url="https://example.org/b.pdf"),
            Text("And that?"),
        ]
    )

    assert message.text == "What is this?\n  \nAnd that?"
    assert message.media == (
        {"kind": "image", "media_type": "image/png", "bytes": 8, "name": "a.png"},
        {"kind": "file", "media_type": "application/pdf", "bytes": None, "name": None},
    )
    assert message.content == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PNG_URL}, "flowtrio": {"name": "a.png"}},
        {
            "type": "file",
            "file": {"file_url": "https://example.org/b.pdf"},
            "flowtrio": {"media_type": "application/pdf"},
        },
        {"type": "text", "text": "And that?"},
    ]
    assert message.parts == message.content


def test_a_message_may_be_an_image_alone_and_one_that_was_read_is_taken_as_it_is() -> None:
    message = read_message(Image(data=PNG))  # type: ignore[arg-type]

    assert message.text == ""
    assert message.content == [{"type": "image_url", "image_url": {"url": PNG_URL}}]
    assert read_message(message) is message


def test_a_file_that_is_an_image_is_one_for_the_model() -> None:
    [part] = read_message([File(data=PNG)]).parts

    assert part == {"type": "image_url", "image_url": {"url": PNG_URL}}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (None, TypeError, "expected a str or a list of parts, got NoneType"),
        (b"text", TypeError, "expected a str or a list of parts, got bytes"),
        ({"type": "text"}, TypeError, "expected a str or a list of parts, got dict"),
        (["text"], TypeError, r"message\[0\]: expected Text, Image or File, got str"),
        ([], ValueError, "at least one part"),
        ([Text("a")] * (MAX_PARTS + 1), ValueError, "more than 100"),
        (
            [File(data=bytes(MAX_BYTES // 2 + 1), media_type="a/b")] * 2,
            ValueError,
            f"more than {MAX_BYTES}",
        ),
    ],
)
def test_what_is_no_message_is_refused(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_message(given)


def test_messages_are_equal_by_their_content() -> None:
    one = read_message([Text("a"), Image(data=PNG)])

    assert one == read_message([Text("a"), Image(data=PNG)])
    assert one != read_message([Text("a"), Image(data=PNG + b"1")])
    assert one != UserMessage("a", "a")


# Results

TOLD = {"kind": "image", "media_type": "image/png", "bytes": 8, "name": None}
SEEN = {"type": "image_url", "image_url": {"url": PNG_URL}}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    ("value", "told", "content"),
    [
        ({"n": 1}, {"n": 1}, None),
        ("text", "text", None),
        ([1, "a"], [1, "a"], None),
        (Text("a"), "a", None),
        ([Text("a"), 2], ["a", 2], None),
        (Image(data=PNG), TOLD, [SEEN]),
        ([Image(data=PNG)], [TOLD], [SEEN]),
        (
            ("page 1", Image(data=PNG), Text("b"), {"n": 2}, " "),
            ["page 1", TOLD, "b", {"n": 2}, " "],
            [_text("page 1"), SEEN, _text("b"), _text('{"n":2}')],
        ),
    ],
)
def test_a_result_is_told_without_and_shown_with_its_images(
    value: Any, told: Any, content: Any
) -> None:
    assert told_result(value, 1000) == told
    assert content_of_result(value, told) == content


def test_a_result_counts_what_its_parts_hold() -> None:
    with pytest.raises(ValueError, match="result: its parts have 8 bytes, more than 7"):
        told_result([Image(data=PNG)], 7)
    with pytest.raises(ValueError, match="has more than result_bytes=20"):
        told_result([Image(data=PNG)], 20)


def test_a_part_deeper_in_a_result_is_refused() -> None:
    with pytest.raises(TypeError, match="expected it alone, or in a list"):
        told_result({"plot": Image(data=PNG)}, 1000)
