"""Messages in OpenAI's shape: parts, texts and data addresses."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio.wire._messages import data_url, parts_of, text_of


@pytest.mark.parametrize(
    ("content", "parts", "text"),
    [
        (None, [], ""),
        ("", [], ""),
        ("hi", [{"type": "text", "text": "hi"}], "hi"),
        ([{"type": "text", "text": "a"}, "odd", {"type": "image_url"}], None, "a"),
    ],
)
def test_a_content_has_parts_and_a_text(content: Any, parts: Any, text: str) -> None:
    expected = [content[0], content[2]] if parts is None else parts
    assert parts_of(content) == expected
    assert text_of(content) == text


def test_a_data_address_gives_its_type_and_data() -> None:
    assert data_url("data:image/png;base64,AAAA") == ("image/png", "AAAA")
    assert data_url("data:image/png;charset=x;base64,AA") == ("image/png", "AA")
    assert data_url("data:;base64,AA") == ("application/octet-stream", "AA")
    assert data_url("https://example.org/a.png") is None


@pytest.mark.parametrize("url", ["data:image/png,AAAA", "data:image/png;base64", "data:"])
def test_another_kind_of_data_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        data_url(url)
