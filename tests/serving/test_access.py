"""Who is let in: hosts, origins, tokens, and the application's own word."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio.abc import Caller, Request
from flowtrio.serving._access import Access, Refused, is_loopback_host, token_of


def request(query: dict[str, str] | None = None, **headers: str) -> Request:
    """A request; headers are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("host", "localhost:8765")
    return Request(path="/chat", headers=named, cookies={}, query=query or {}, client="::1")


def access(host: str | None = "127.0.0.1", **options: Any) -> Access:
    options = {"token": None, "origins": (), "authenticate": None, "insecure": False, **options}
    return Access.of(host=host, **options)


async def refused(rules: Access, asked: Request, *, is_tls: bool = False) -> Refused:
    with pytest.raises(Refused) as caught:
        await rules.admit(asked, is_tls=is_tls)
    return caught.value


# Where one may listen


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "a.LOCALHOST"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback_host(host)
    assert access(host).is_loopback


@pytest.mark.parametrize("host", [None, "", "0.0.0.0", "::", "192.168.0.1", "example.com"])
def test_others_can_reach_the_rest(host: str | None) -> None:
    assert not is_loopback_host(host)
    with pytest.raises(ValueError, match=r"can't listen on .* for anybody: expected token=") as exc:
        access(host)
    assert (host or "all addresses") in str(exc.value)
    for options in ({"token": "t"}, {"insecure": True}, {"authenticate": lambda request: "x"}):
        assert not access(host, **options).is_loopback


@pytest.mark.parametrize("token", ["", "é", "a\n", ["good", ""]])
def test_tokens_can_be_sent(token: Any) -> None:
    with pytest.raises(ValueError, match="token: expected printable ASCII"):
        access(token=token)


def test_an_operators_token_is_nobody_elses() -> None:
    with pytest.raises(ValueError, match="operator_token: expected another one"):
        access(token=["a", "b"], operator_token="b")
    with pytest.raises(ValueError, match="operator_token: expected printable ASCII"):
        access(operator_token="")


@pytest.mark.parametrize("rules", [{}, {"token": "t"}, {"authenticate": lambda request: "x"}])
async def test_an_operators_token_opens_all_doors(rules: dict[str, Any]) -> None:
    let_in = await access(operator_token="op", **rules).admit(
        request({"token": "op"}), is_tls=False
    )

    assert let_in == Caller("default", is_operator=True)
    assert "canary" not in repr(access(operator_token="canary"))


def test_token_and_authenticate_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="not both"):
        access(token="t", authenticate=lambda request: "x")


def test_a_token_is_in_no_repr() -> None:
    assert "canary" not in repr(access(token="canary"))
    assert "canary" not in repr(request({"token": "canary"}, authorization="Bearer canary"))


@pytest.mark.parametrize("origin", ["example.com", "https://", "https://a/b", "*", "null", ""])
def test_origins_are_scheme_and_host(origin: str) -> None:
    with pytest.raises(ValueError, match="expected scheme://host"):
        access(origins=[origin])


# Hosts and origins


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "127.0.0.1:99", "[::1]:80", "x.localhost:1"]
)
async def test_loopback_answers_to_its_names(host: str) -> None:
    assert await access().admit(request(host=host), is_tls=False) == Caller("default")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "[", "10.0.0.1"])
async def test_loopback_is_not_reached_by_another_name(host: str) -> None:
    assert (await refused(access(), request(host=host))).status == 403


async def test_an_open_address_has_any_name() -> None:
    rules = access("0.0.0.0", token="t")
    asked = request({"token": "t"}, host="flow.example")
    assert await rules.admit(asked, is_tls=True) == Caller("default")


@pytest.mark.parametrize(
    ("origin", "host", "is_tls"),
    [
        ("http://localhost:8765", "localhost:8765", False),
        ("http://localhost", "localhost", False),
        ("http://localhost", "localhost:80", False),
        ("https://localhost", "localhost", True),
        ("https://localhost:443", "localhost", True),
        ("https://pages.example", "localhost:1", False),
    ],
)
async def test_origins_that_may(origin: str, host: str, is_tls: bool) -> None:
    rules = access(origins=["https://pages.example"])
    await rules.admit(request(origin=origin, host=host), is_tls=is_tls)


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:8766",
        "http://localhost",
        "http://127.0.0.1:8765",
        "https://evil.example",
        "https://pages.example.evil",
        "http://pages.example",
        "https://pages.example:1",
        "null",
        "",
        "http://[",
        "http://localhost:99999",
    ],
)
async def test_origins_that_may_not(origin: str) -> None:
    rules = access(origins=["https://pages.example"])
    error = await refused(rules, request(origin=origin))

    assert (error.status, error.error) == (403, "the Origin is not allowed")


# Tokens


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ({}, {"authorization": "Bearer two"}),
        ({}, {"authorization": "bearer   two "}),
        ({}, {"sec_websocket_protocol": "flowtrio.v1, flowtrio.token.two"}),
        ({"token": "two"}, {}),
    ],
)
async def test_a_token_opens(query: dict[str, str], headers: dict[str, str]) -> None:
    rules = access(token=["one", "two"])

    assert await rules.admit(request(query, **headers), is_tls=False) == Caller("default")


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ({}, {}),
        ({"token": ""}, {}),
        ({"token": "twoo"}, {}),
        ({"token": "TWO"}, {}),
        ({}, {"authorization": "two"}),
        ({}, {"authorization": "Basic two"}),
        ({}, {"authorization": "Bearer"}),
        ({}, {"authorization": "Bearer tw\xe9"}),
        ({}, {"sec_websocket_protocol": "flowtrio.token."}),
        ({"token": "two"}, {"authorization": "Bearer wrong"}),
    ],
)
async def test_a_wrong_token_does_not(query: dict[str, str], headers: dict[str, str]) -> None:
    rules = access(token=["one", "two"])
    error = await refused(rules, request(query, **headers))

    assert error.status == 401
    assert "two" not in str(error)


async def test_every_token_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(b)
        return a == b

    monkeypatch.setattr("hmac.compare_digest", compare)
    await access(token=["one", "two", "three"]).admit(request({"token": "one"}), is_tls=False)

    assert compared == [b"one", b"two", b"three"]


def test_a_header_goes_before_the_others() -> None:
    asked = request(
        {"token": "c"}, authorization="Bearer a", sec_websocket_protocol="flowtrio.token.b"
    )
    assert token_of(asked) == "a"


# The application's own word


async def test_authenticate_gives_the_tenant() -> None:
    def plain(asked: Request) -> str | None:
        return asked.headers.get("x-user")

    async def later(asked: Request) -> str | None:
        return plain(asked)

    for authenticate in (plain, later):
        rules = access("0.0.0.0", authenticate=authenticate)
        assert await rules.admit(request(x_user="ann"), is_tls=False) == Caller("ann")
        assert (await refused(rules, request())).status == 401


@pytest.mark.parametrize("tenant", [7, "", True, ["ann"]])
async def test_a_tenant_is_a_text(tenant: Any) -> None:
    rules = access(authenticate=lambda asked: tenant)
    words = f"authenticate gave {type(tenant).__name__}, expected a tenant"
    with pytest.raises(TypeError, match=words):
        await rules.admit(request(), is_tls=False)


@pytest.mark.parametrize("tenant", [7, b"ann", "half \ud83d"])
async def test_a_callers_tenant_is_a_name_for_every_address(tenant: Any) -> None:
    rules = access(authenticate=lambda asked: Caller(tenant))
    with pytest.raises(ValueError, match="expected a text that is not empty"):
        await rules.admit(request(), is_tls=False)


async def test_authenticate_is_asked_after_host_and_origin() -> None:
    rules = access(authenticate=lambda asked: pytest.fail("asked too early"))
    await refused(rules, request(origin="https://evil.example"))
    await refused(rules, request(host="evil.example"))
