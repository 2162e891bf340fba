"""Images and files of a conversation: read from its parts, and told without their content."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtrio._core._media import (
    Media,
    bytes_of_data,
    data_url,
    decode_data,
    encode_data,
    plain_type,
    read_media,
    type_of_bytes,
    type_of_name,
)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("image/png", "image/png"),
        ("IMAGE/JPG", "image/jpeg"),
        ("text/plain; charset=utf-8", "text/plain"),
        ("audio/x-wav", "audio/wav"),
        ("png", None),
        ("image/", None),
        ("image/png\nx: y", None),
        ("a/b/c", None),
        ("", None),
    ],
)
def test_a_media_type_is_compared_without_its_parameters(given: str, plain: str | None) -> None:
    assert plain_type(given) == plain


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n...", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"RIFF....WEBPVP8 ", "image/webp"),
        (b"RIFF....WAVEfmt ", "audio/wav"),
        (b"RIFF....AVI ", None),
        (b"....ftypheic", "image/heic"),
        (b"....ftypM4A ", "audio/mp4"),
        (b"....ftypqt  ", None),
        (b"%PDF-1.7", "application/pdf"),
        (b"ID3\x04", "audio/mpeg"),
        (b"OggS", "audio/ogg"),
        (b"fLaC", "audio/flac"),
        (b"<svg/>", None),
        (b"", None),
    ],
)
def test_bytes_tell_what_they_are_by_how_they_begin(data: bytes, media_type: str | None) -> None:
    assert type_of_bytes(data) == media_type


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.PNG", "image/png"),
        ("a.tar.pdf", "application/pdf"),
        ("a.md", "text/markdown"),
        ("a.unknown", None),
        ("png", None),
        ("", None),
    ],
)
def test_a_name_tells_it_by_how_it_ends(name: str, media_type: str | None) -> None:
    assert type_of_name(name) == media_type


@given(st.binary(max_size=50))
def test_the_size_of_base64_is_known_without_decoding_it(data: bytes) -> None:
    text = encode_data(data)

    assert bytes_of_data(text) == len(data)
    assert decode_data(text) == data


@pytest.mark.parametrize("text", ["a", "a===", "a b=", "!!!!", "YWJj\n", "é"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected base64"):
        decode_data(text)


def test_a_data_url_is_taken_apart_and_any_other_is_none() -> None:
    assert data_url("data:image/png;base64,QUJD") == ("image/png", "QUJD")
    assert data_url("data:text/plain;charset=utf-8;base64,QUJD") == ("text/plain", "QUJD")
    assert data_url("data:;base64,QUJD") == ("application/octet-stream", "QUJD")
    assert data_url("https://example.org/a.png") is None
    with pytest.raises(ValueError, match="expected data:"):
        data_url("data:text/plain,hello")


def _media(media_type: str | None, **given: Any) -> Media:
    return Media(media_type=media_type, is_image="image" in (media_type or "image"), **given)


MEDIA = st.builds(
    _media,
    media_type=st.sampled_from(["image/png", "application/pdf", "text/plain"]),
    data=st.binary(max_size=20).map(encode_data),
    name=st.none() | st.sampled_from(["a.png", "b"]),
) | st.builds(
    _media,
    media_type=st.sampled_from([None, "image/png", "application/pdf"]),
    url=st.just("https://example.org/a"),
    name=st.none() | st.just("a.pdf"),
)


@given(MEDIA)
def test_what_was_written_as_a_part_is_read_back(media: Media) -> None:
    assert read_media(media.to_part()) == media


def test_a_sound_in_openais_shape_is_a_file() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}}
    media = read_media(part)

    assert media == Media(media_type="audio/mpeg", data="QUJD", is_image=False)
    assert media.to_url() == "data:audio/mpeg;base64,QUJD"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": "https://example.org"},
        {"type": "image_url", "image_url": {"url": 3}},
        {"type": "file", "file": {"file_id": "f1"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD"}},
        {"type": ["image_url"]},
        {},
    ],
)
def test_other_parts_are_no_media(part: dict[str, Any]) -> None:
    assert read_media(part) is None


def test_only_what_a_private_key_should_hold_is_taken_from_it() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a"}, "flowtrio": 3}
    named = {**part, "flowtrio": {"name": 3, "media_type": "image/png"}}

    assert read_media(part) == Media(media_type=None, url="https://example.org/a", is_image=True)
    assert read_media(named) == Media(
        media_type="image/png", url="https://example.org/a", is_image=True
    )
