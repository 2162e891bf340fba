"""The answer that ends a connection."""

from __future__ import annotations

from flowtrio.serving._head import encode_response


def test_an_answer_is_whole() -> None:
    head, _, body = encode_response(401, {"error": "no"}, www_authenticate="Bearer").partition(
        b"\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert b"www-authenticate: Bearer" in head
