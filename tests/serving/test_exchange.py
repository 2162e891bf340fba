"""One HTTP request under ASGI, as the rest sees it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from flowtrio.serving._access import Refused
from flowtrio.serving.http._request import (
    Exchange,
    Left,
    path_below,
    pieces_below,
    read_request,
)

SCOPE: dict[str, Any] = {
    "path": "/agents/chat",
    "root_path": "/agents",
    "query_string": b"a=1&b=&a=2",
    "client": ("192.0.2.1", 5),
    "headers": [(b"Host", b"x"), (b"Cookie", b"k=v; l=w"), (b"x-a", b"1"), (b"X-A", b"2")],
}


def test_a_request_has_headers_cookies_query_and_address() -> None:
    request = read_request(SCOPE, path_below(SCOPE))

    assert request.path == "/chat"
    assert request.headers == {"host": "x", "cookie": "k=v; l=w", "x-a": "1, 2"}
    assert request.cookies == {"k": "v", "l": "w"}
    assert request.query == {"a": "2", "b": ""}
    assert request.client == "192.0.2.1"


def test_a_cookie_that_is_none_is_left_out() -> None:
    scope = {"headers": [(b"cookie", b"a(b=1")], "client": None}

    assert read_request(scope, "/").cookies == {}


@pytest.mark.parametrize(
    ("root", "path", "below"),
    [("", "/a", "/a"), ("/r", "/r/a", "/a"), ("/r/", "/r", ""), ("/r", "/rest", "/rest")],
)
def test_a_path_is_told_below_its_mount(root: str, path: str, below: str) -> None:
    assert path_below({"path": path, "root_path": root}) == below


@pytest.mark.parametrize(
    ("root", "path", "raw", "pieces"),
    [
        ("", "/a/b", b"/a/b", ["a", "b"]),
        ("", "/a/b", b"/a%2Fb", ["a/b"]),
        ("", "/a/b/c", b"/a%2fb/c?d=/e", ["a/b", "c"]),
        ("", "/a/..", b"/a/%2E%2E", ["a", ".."]),
        ("", "/a%2Fb", b"/a%252Fb", ["a%2Fb"]),
        ("", "/\u00e4/", b"/%C3%A4/", ["\u00e4", ""]),
        ("", "/", b"/", [""]),
        ("/r", "/r/a/b", b"/r/a%2Fb", ["a/b"]),
        # Some servers tell the address below the mount, some above it, and some tell none.
        ("/r", "/a/b", b"/r/a%2Fb", ["a/b"]),
        ("/r/s", "/r/s/a/b", b"/a%2Fb", ["a/b"]),
        ("/r", "/r/a/b", None, ["a", "b"]),
        ("", "/a/b", b"/elsewhere", ["a", "b"]),
    ],
)
def test_a_slash_in_a_name_is_none_between_names(
    root: str, path: str, raw: bytes | None, pieces: list[str]
) -> None:
    assert pieces_below({"path": path, "root_path": root, "raw_path": raw}) == pieces


async def test_a_body_comes_in_pieces_and_a_client_may_leave_within() -> None:
    pieces = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b"},
    ]
    news = iter([*pieces, pieces[0], {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(news)

    async def send(message: Any) -> None:
        raise AssertionError("nothing is to be sent")

    exchange = Exchange(read_request(SCOPE, "/"), "POST", receive, send)

    assert await exchange.read_body(10, 5) == b"ab"
    with pytest.raises(Left):
        await exchange.read_body(10, 5)


async def test_each_piece_of_a_large_body_has_its_time(autojump_clock: Any) -> None:
    left = 3

    async def receive() -> Any:
        nonlocal left
        await trio.sleep(4)
        left -= 1
        return {"type": "http.request", "body": b"x" * 100, "more_body": left > 0}

    async def send(message: Any) -> None:
        raise AssertionError("nothing is to be sent")

    exchange = Exchange(read_request(SCOPE, "/"), "POST", receive, send)

    assert len(await exchange.read_body(1000, 5, 100)) == 300
    assert trio.current_time() == pytest.approx(12, abs=0.1)

    left = 3
    with pytest.raises(Refused):
        await exchange.read_body(1000, 5, 300)


async def test_a_body_has_its_time(autojump_clock: Any) -> None:
    async def receive() -> Any:
        await trio.sleep(1)
        return {"type": "http.request", "body": b"a", "more_body": True}

    async def send(message: Any) -> None:
        raise AssertionError("nothing is to be sent")

    exchange = Exchange(read_request(SCOPE, "/"), "POST", receive, send)

    with pytest.raises(Refused) as refused:
        await exchange.read_body(1000, 5)
    assert (refused.value.status, trio.current_time()) == (408, pytest.approx(5, abs=0.1))
