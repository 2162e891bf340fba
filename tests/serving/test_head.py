"""Cookies of a request, and the answer that ends a connection."""

from __future__ import annotations

import pytest

from flowtrio.serving._head import _cookies, encode_response


@pytest.mark.parametrize(
    ("text", "cookies"),
    [("", {}), ("a=1; b=two", {"a": "1", "b": "two"}), ("a=1; b@c=2", {})],
)
def test_cookies_are_read_or_there_are_none(text: str, cookies: dict[str, str]) -> None:
    assert _cookies(text) == cookies


def test_an_answer_is_whole() -> None:
    head, _, body = encode_response(401, {"error": "no"}, www_authenticate="Bearer").partition(
        b"\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert b"www-authenticate: Bearer" in head
