"""What a request's head is folded into."""

from __future__ import annotations

import pytest

from flowtrio.abc import Request
from flowtrio.serving._folding import fold_request


def folded(*headers: tuple[bytes, bytes], query: str = "") -> Request:
    return fold_request(headers, path="/chat", query=query, client="::1")


@pytest.mark.parametrize(
    ("text", "cookies"),
    [
        (b"", {}),
        (b"a=1; b=two", {"a": "1", "b": "two"}),
        (b"a=1; b@c=2", {}),
        (b"a(b=1", {}),
    ],
)
def test_cookies_are_read_or_there_are_none(text: bytes, cookies: dict[str, str]) -> None:
    assert folded((b"cookie", text)).cookies == cookies


def test_headers_of_one_name_are_one_in_small_letters() -> None:
    request = folded((b"X-A", b"1"), (b"host", b"x"), (b"x-a", b"\xe4"))

    assert request.headers == {"x-a": "1, \xe4", "host": "x"}
    assert (request.path, request.client) == ("/chat", "::1")


def test_a_query_may_have_values_that_are_empty_and_the_last_of_a_name_counts() -> None:
    assert folded(query="a=1&b=&a=%20c").query == {"a": " c", "b": ""}
