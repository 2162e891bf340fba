from __future__ import annotations

import gc
import inspect
import logging
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, Final
from urllib.parse import quote, quote_plus

import httpx
import httpx2
import pytest
import trio

from flowtrio._core._limits import ModelLimits
from flowtrio.clients._host import (
    CLOSE,
    SLOTS,
    ModelHost,
    check_base_url,
    check_headers,
    check_http_client,
    library_of,
    library_of_response,
    places_of,
)
from flowtrio.clients._request import HttpRequest
from tests.support.fake_host import FakeHost, speaks

KEY = "sk-canary-8531"


def host_of(base_url: str = "http://models.example/v1", **given: Any) -> ModelHost:
    given = {"headers": {}, "key": None, "http_client": None, "limits": None} | given
    return ModelHost.of(base_url, **given)


@pytest.fixture(params=[httpx, httpx2], ids=lambda library: library.__name__)
def library(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


async def test_a_requests_body_can_be_sent_again_and_left_half_sent(library: ModuleType) -> None:
    """An async generator, as httpx makes, would warn when it is left."""
    host = host_of()
    async with FakeHost(library, [speaks("a")]).http_client() as http:
        request = host.build(http, HttpRequest("http://models.example", {"a": 1}))

    assert isinstance(request.stream, library.AsyncByteStream)
    for _ in range(2):
        assert [piece async for piece in request.stream] == [request.content]
    assert not inspect.isasyncgen(aiter(request.stream))


# What it is made from


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("https://models.example/v1/", "https://models.example/v1"),
        ("https://models.example/v1//", "https://models.example/v1"),
    ],
)
def test_an_address_is_kept_without_its_last_slash(given: str, kept: str) -> None:
    assert check_base_url(given) == kept
    assert host_of(given).base_url == kept


@pytest.mark.parametrize(
    "given", ["", "models.example/v1", "ftp://models.example", "http://", "http:///v1", "//a/b"]
)
def test_what_is_no_address_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url: expected an address that begins with http"):
        host_of(given)


def test_a_password_in_what_is_no_address_is_not_shown() -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        host_of(f"htp://user:{KEY}@models.example")

    assert KEY not in str(caught.value)


@pytest.mark.parametrize("value", [f"Bearer {KEY}\n", f"Bearer {KEY}é", f"Bearer {KEY}\x00"])
def test_a_header_that_cannot_be_sent_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match="header 'authorization': expected a value of") as caught:
        host_of(headers={"authorization": value})

    assert KEY not in str(caught.value)


def test_headers_are_copied() -> None:
    given = {"a": "b"}
    kept = check_headers(given)
    given["a"] = "c"

    assert kept == {"a": "b"}


def test_limits_are_the_defaults_unless_they_are_given() -> None:
    assert host_of().limits == ModelLimits()
    assert host_of(limits=ModelLimits(gap=1)).limits.gap == 1


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://models.example:8443/v1", "models.example"),
        ("http://user:secret@models.example/v1", "models.example"),
        ("http://[::1]:8000", "::1"),
    ],
)
def test_its_name_is_the_host_alone(base_url: str, name: str) -> None:
    assert host_of(base_url).name == name


def test_a_host_whose_address_was_spoilt_has_a_name_all_the_same() -> None:
    host = host_of()
    host.base_url = "nowhere"

    assert host.name == "?"


# The library


async def test_a_library_is_known_by_its_client_and_its_response(library: ModuleType) -> None:
    class Mine(library.AsyncClient):  # type: ignore[name-defined, misc]
        pass

    for kind in (library.AsyncClient, Mine):
        async with kind(verify=False) as client:
            assert check_http_client(client) is client
            assert library_of(client) is library
    assert library_of_response(library.Response(200)) is library


@pytest.mark.parametrize("given", [object(), httpx.Client, "httpx"])
def test_what_is_no_client_is_refused(given: object) -> None:
    with pytest.raises(TypeError, match=r"expected an httpx.AsyncClient or httpx2.AsyncClient"):
        host_of(http_client=given)


def test_a_blocking_client_is_refused() -> None:
    with httpx.Client(verify=False) as client, pytest.raises(TypeError, match="http_client=Client"):
        host_of(http_client=client)


def test_no_client_is_none() -> None:
    assert check_http_client(None) is None


# The request


async def test_a_request_asks_for_bytes_as_they_come(library: ModuleType) -> None:
    host = host_of(headers={"authorization": f"Bearer {KEY}"}, limits=ModelLimits(connect=3))
    async with library.AsyncClient(verify=False) as http:
        request = host.build(http, HttpRequest("http://models.example/v1/x", {"é": "\ud800"}))

    assert (request.method, str(request.url)) == ("POST", "http://models.example/v1/x")
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.content == '{"é":"\ufffd"}'.encode()
    assert request.extensions["timeout"] == {
        "connect": 3,
        "read": None,
        "write": None,
        "pool": None,
    }


# Secrets


def test_neither_keys_nor_headers_nor_bodies_are_in_a_repr() -> None:
    host = host_of(
        f"http://user:{KEY}@models.example", headers={"authorization": KEY}, key=f"2{KEY}"
    )

    assert KEY not in repr(host)
    assert "models.example" in repr(host)
    assert KEY not in repr(HttpRequest("http://models.example", {"key": KEY}))


@pytest.mark.parametrize(
    ("userinfo", "header"),
    [
        ("user:pass", "Basic dXNlcjpwYXNz"),
        ("user:p%40ss%3A", "Basic dXNlcjpwQHNzOg=="),
        ("user", "Basic dXNlcjo="),
        ("us@er:pass", "Basic dXNAZXI6cGFzcw=="),
    ],
)
def test_a_password_in_the_address_is_sent_as_a_header(userinfo: str, header: str) -> None:
    host = host_of(f"http://{userinfo}@models.example:81/v1", headers={"authorization": "Bearer x"})

    assert host.base_url == "http://models.example:81/v1"
    assert host.headers == {"authorization": header}


async def test_the_header_of_a_password_is_the_one_that_the_library_would_send(
    library: ModuleType,
) -> None:
    fake = FakeHost(library, [speaks("a")])
    async with fake.http_client() as http:
        address = "http://us%20er:p%40ss@models.example/v1"
        await http.post(address, json={})
        mine = host_of(address)
        await http.send(mine.build(http, HttpRequest(mine.base_url, {})))

    theirs, ours = (asked.headers["authorization"] for asked in fake.asked)
    assert ours == theirs


async def test_a_password_in_the_address_is_not_logged(
    library: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeHost(library, [speaks("a")])
    with caplog.at_level(logging.DEBUG):
        async with fake.http_client() as http:
            host = host_of(f"http://user:{KEY}@models.example/v1", http_client=http)
            await http.send(host.build(http, HttpRequest(host.base_url, {})))
            assert "models.example" in caplog.text
            assert KEY not in caplog.text

            # What the test would see otherwise.
            await http.post(f"http://user:{KEY}@models.example/v1", json={})
            assert KEY in caplog.text


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        (f"no {KEY}, no", "no ***, no"),
        ({"a": [f"{KEY}{KEY}", 3, None, {"b": KEY}]}, {"a": ["******", 3, None, {"b": "***"}]}),
        (3.5, 3.5),
        (True, True),
        ("nothing", "nothing"),
    ],
)
def test_secrets_are_hidden_wherever_they_stand(value: Any, hidden: Any) -> None:
    assert host_of(key=KEY).hide(value) == hidden


ADDRESSES: Final = {
    "a query": ("http://h.example/v1?sig=a%2Fb%2bc%20d+e", "a/b+c d e"),
    "a short one": ("http://h.example/v1?sig=a%2Fb", "a/b"),
    "a query of other letters": ("http://h.example/v1?sig=%C3%BCnter-2222222", "ünter-2222222"),
    "a query that is nothing's value": ("http://h.example/v1?canary%2F8531", "canary/8531"),
    "a query of bytes": ("http://h.example/v1?sig=%FF%FEcanary8531", "%FF%FEcanary8531"),
    "a password": ("http://user:a%2Fb%40c+d@h.example/v1", "a/b@c+d"),
    "a user alone": ("http://can%2Fary%208531@h.example/v1", "can/ary 8531"),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_secret_of_an_address_is_hidden_in_each_spelling(name: str) -> None:
    address, meant = ADDRESSES[name]
    host = host_of(address)
    raw = address.rpartition("=")[2].removeprefix("http://").partition("@h.")[0]
    raw = raw.removeprefix("user:").removeprefix("h.example/v1?")
    spellings = [meant, raw, raw.lower(), quote(meant), quote(meant, safe=""), quote_plus(meant)]
    if "%FF" in meant:
        spellings = [raw, quote(raw)]
    for told in spellings:
        assert host.hide(f"at http://h.example/v1?x={told}&b") == "at http://h.example/v1?x=***&b"


def test_the_header_of_a_password_is_hidden() -> None:
    host = host_of("http://user:secret@h.example")

    assert host.hide(f"sent {host.headers['authorization']}") == "sent Basic ***"


def test_a_key_is_hidden_where_it_is_quoted_in_an_address() -> None:
    assert host_of(key="sk/canary+8531==").hide("?k=sk%2fcanary%2B8531%3D%3D&") == "?k=***&"


def test_without_a_secret_nothing_is_hidden() -> None:
    assert host_of(key="").hide("text") == "text"
    assert host_of("http://user@models.example").hide("text") == "text"


def chain() -> Iterator[BaseException]:
    """Exceptions that quote the key, each behind the one before."""
    inner = ValueError(f"illegal line: {KEY}", 3)
    middle = OSError(7, KEY)
    outer = RuntimeError(inner)
    outer.__cause__, middle.__context__ = middle, inner
    # As happens where errors are raised again by hand.
    inner.__context__ = outer
    yield from (outer, middle, inner)


def test_secrets_are_taken_out_of_exceptions_and_of_those_behind_them() -> None:
    outer, middle, inner = chain()
    host_of(key=KEY).clean(outer)

    for exc in (outer, middle, inner):
        assert KEY not in str(exc.args)
    assert inner.args == ("illegal line: ***", 3)


# One pool a loop


async def test_a_pool_is_made_once_a_loop_and_closed_with_the_client() -> None:
    host = host_of()
    pool = host.pool()

    assert host.pool() is pool
    assert type(pool.http) is httpx.AsyncClient
    assert pool.limiter.total_tokens == SLOTS

    await host.aclose()
    assert pool.http.is_closed
    assert host.pool() is not pool
    await host.aclose()


async def test_the_library_has_more_places_than_we_have_slots() -> None:
    host = host_of()
    places = host.pool().http._transport._pool._max_connections
    await host.aclose()

    assert places > SLOTS


async def test_an_address_without_tls_needs_no_certificates() -> None:
    plain, secure = host_of("http://models.example"), host_of("https://models.example")
    contexts = [host.pool().http._transport._pool._ssl_context for host in (plain, secure)]
    for host in (plain, secure):
        await host.aclose()

    assert [context.check_hostname for context in contexts] == [False, True]


async def test_the_context_of_tls_is_made_once() -> None:
    hosts = [host_of("https://models.example") for _ in range(2)]
    first, second = (host.pool().http._transport._pool._ssl_context for host in hosts)
    for host in hosts:
        await host.aclose()

    assert first is second


async def test_an_application_keeps_its_own_client(library: ModuleType) -> None:
    async with library.AsyncClient(verify=False) as http:
        host = host_of(http_client=http)
        assert host.pool().http is http
        await host.aclose()

        assert not http.is_closed
        assert host.pool().http is http
        await host.aclose()


async def test_closing_what_was_never_used_is_nothing_but_a_checkpoint() -> None:
    host = host_of()
    with trio.testing.assert_checkpoints():
        await host.aclose()

    with trio.CancelScope() as scope:
        scope.cancel()
        await host.aclose()
    assert scope.cancelled_caught


async def test_closing_cannot_be_cancelled_halfway() -> None:
    host = host_of()
    http = host.pool().http
    with trio.CancelScope() as scope:
        scope.cancel()
        await host.aclose()

    assert http.is_closed


async def test_a_library_that_cannot_close_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async def closes_never() -> None:
        await trio.sleep_forever()

    async def closes_badly() -> None:
        raise OSError("gone")

    for aclose, seconds in ((closes_never, CLOSE), (closes_badly, 0)):
        host = host_of()
        host.pool().http = SimpleNamespace(aclose=aclose)
        begun = trio.current_time()
        await host.aclose()

        assert trio.current_time() - begun == pytest.approx(seconds)


def test_a_client_is_closed_when_its_loop_ends_and_works_in_the_next() -> None:
    host = host_of()

    async def use() -> Any:
        http = host.pool().http
        await trio.lowlevel.checkpoint()
        return http

    first, second = trio.run(use), trio.run(use)

    assert first is not second
    assert first.is_closed
    assert second.is_closed
    assert host._pools == {}


def test_a_loop_that_ends_does_not_close_the_applications_client(library: ModuleType) -> None:
    http = library.AsyncClient(verify=False)
    host = host_of(http_client=http)

    async def use() -> None:
        assert host.pool().http is http

    trio.run(use)
    assert not http.is_closed
    assert host._pools == {}
    trio.run(http.aclose)


async def test_a_client_that_is_dropped_is_closed() -> None:
    host = host_of()
    http = host.pool().http
    del host
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()

    assert http.is_closed


async def test_a_client_may_be_dropped_in_another_thread() -> None:
    holder = [host_of()]
    http = holder[0].pool().http
    await trio.to_thread.run_sync(holder.clear)
    await trio.testing.wait_all_tasks_blocked()

    assert http.is_closed


def test_a_client_may_be_dropped_after_its_loop() -> None:
    async def make() -> ModelHost:
        host = host_of()
        host.pool()
        return host

    host = trio.run(make)
    # A loop that crashed does not get to its keepers.
    host._pools = {host_token(): SimpleNamespace(keeper=trio.CancelScope())}  # type: ignore[dict-item]
    del host
    gc.collect()


def host_token() -> trio.lowlevel.TrioToken:
    """The token of a loop that is over."""

    async def token() -> trio.lowlevel.TrioToken:
        return trio.lowlevel.current_trio_token()

    return trio.run(token)


async def test_statistics_count_what_holds_and_what_waits_for_a_slot() -> None:
    host = host_of()
    assert host.statistics().open_replies == 0
    pool = host.pool()
    for name in range(SLOTS):
        await pool.enter(name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.enter, "late")
        await trio.testing.wait_all_tasks_blocked()
        statistics = host.statistics()
        nursery.cancel_scope.cancel()
    for name in range(SLOTS):
        pool.leave(name)

    assert (statistics.open_replies, statistics.waiting_replies) == (SLOTS, 1)
    assert (statistics.requests, statistics.retries) == (0, 0)
    assert (host.statistics().open_replies, host.statistics().waiting_replies) == (0, 0)
    await host.aclose()


# Slots


@pytest.mark.parametrize(
    ("places", "slots"), [(1, 1), (5, 5), (10, 9), (100, 90), (1000, SLOTS), (None, SLOTS)]
)
async def test_a_client_of_the_application_has_no_more_slots_than_places(
    library: ModuleType, places: int | None, slots: int
) -> None:
    async with library.AsyncClient(limits=library.Limits(max_connections=places)) as http:
        assert host_of(http_client=http).pool().limiter.total_tokens == slots


async def test_the_smallest_pool_counts(library: ModuleType) -> None:
    small = library.AsyncHTTPTransport(limits=library.Limits(max_connections=3))
    async with library.AsyncClient(mounts={"https://": small, "all://local": None}) as http:
        assert places_of(http) == 3


async def test_who_shares_an_http_client_shares_its_slots(library: ModuleType) -> None:
    async with library.AsyncClient() as http:
        one, other = host_of(http_client=http), host_of(http_client=http)
        await one.pool().enter("reply")

        assert one.pool().limiter is other.pool().limiter
        assert (one.statistics().open_replies, other.statistics().open_replies) == (1, 0)
        one.pool().leave("reply")


# Addresses and keys as they are given


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("http://h/v1", "chat", "http://h/v1/chat"),
        (" http://h/v1/ \n", "chat", "http://h/v1/chat"),
        ("http://h/v1?k=a", "chat", "http://h/v1/chat?k=a"),
        ("http://h/v1/?k=a&b=", "chat?v=2", "http://h/v1/chat?v=2&k=a&b="),
        ("http://h/v1?v=1#part", "chat?v=2", "http://h/v1/chat?v=1"),
    ],
)
def test_an_address_may_have_a_query_and_space_around_it(
    base_url: str, path: str, url: str
) -> None:
    assert host_of(base_url).url(path) == url


@pytest.mark.parametrize("base_url", ["http://h/a b", "http://h\n/v1", "http://h/\x00"])
def test_an_address_with_white_space_in_it_is_none(base_url: str) -> None:
    with pytest.raises(ValueError, match="expected an address without white space in it"):
        host_of(base_url)


def test_what_stands_in_the_query_of_an_address_is_hidden() -> None:
    host = host_of("http://h/v1?key=canary-canary")

    assert "canary" not in repr(host)
    assert host.hide("canary-canary no") == "*** no"


@pytest.mark.parametrize(
    ("key", "text", "hidden"),
    [
        ("limit", "rate_limited by rate-limit", "rate_limited by rate-limit"),
        ("limit", "key 'limit' is wrong: limit", "key '***' is wrong: ***"),
        ("rate", "rate_limited", "rate_limited"),
        ("sk-canary-8531", "xsk-canary-8531x", "x***x"),
        ("k.y", "kay k.y", "kay ***"),
    ],
)
def test_a_short_key_is_hidden_only_where_it_is_a_word(key: str, text: str, hidden: str) -> None:
    assert host_of(key=key).hide({"code": [text]}) == {"code": [hidden]}


async def test_a_key_that_is_a_function_is_asked_at_each_request() -> None:
    keys = iter(["canary-key-0001", "canary-key-0001", "canary-key-0002"])
    host = host_of(key=lambda: next(keys), key_header=("x-key", "Key "))
    assert host.headers == {}

    given = [await host.ask_key() for _ in range(3)]
    assert [header["x-key"] for header in given] == [
        *["Key canary-key-0001"] * 2,
        "Key canary-key-0002",
    ]
    assert host.hide("canary-key-0001 canary-key-0002") == "*** ***"
    assert "canary" not in repr(host)


async def test_a_key_that_is_a_text_stands_in_its_header() -> None:
    host = host_of(key="canary", key_header=("x-key", "Key "))

    assert host.headers == {"x-key": "Key canary"}
    assert await host.ask_key() == {}
    with pytest.raises(TypeError, match="api_key: expected a text or a function, got int"):
        host_of(key=7)
