"""JSON Web Tokens: who is let in, what is told of the others, and when keys are asked for."""

from __future__ import annotations

import hmac
import json
import sys
import time
from functools import cache
from typing import Any

import attrs
import httpx
import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode

from flowtrio.abc import Caller, CannotAuthenticate, NotAuthenticated, Request
from flowtrio.auth import JWTAuth
from flowtrio.serving._access import Access, Refused
from tests.auth.test_tokens import bearing
from tests.serving.test_access import access, refused

URL = "https://ann:canary@issuer.example/jwks.json?key=canary"


@cache
def key(name: str) -> Any:
    if name == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


def public(name: str, **more: Any) -> dict[str, Any]:
    """A key as an issuer publishes it."""
    algorithm = RSAAlgorithm if name == "rsa" else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key(name).public_key())), "kid": name, **more}


@attrs.define
class Issuer:
    """Publishes keys, and counts who asks for them."""

    keys: list[Any]
    asked: int = 0
    answers: int = 200
    delay: float = 0
    body: bytes | None = None
    raises: Exception | None = None

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await trio.sleep(self.delay)
        if self.raises is not None:
            raise self.raises
        if self.body is not None:
            return httpx.Response(self.answers, content=self.body)
        return httpx.Response(self.answers, json={"keys": self.keys})


def auth(asked: Issuer, **options: Any) -> JWTAuth:
    given: dict[str, Any] = {
        **{"jwks_url": URL, "audience": "agents", "issuer": "https://issuer.example"}
    }
    if "http_client" not in options:
        given["http_client"] = httpx.AsyncClient(transport=httpx.MockTransport(asked))
    return JWTAuth(**{**given, **options})


def token(name: str = "one", kid: str | None = None, alg: str = "", **claims: Any) -> str:
    given = {
        "sub": "ann",
        "aud": "agents",
        "iss": "https://issuer.example",
        "exp": time.time() + 600,
        **claims,
    }
    given = {name: value for name, value in given.items() if value is not None}
    alg = alg or ("RS256" if name == "rsa" else "ES256")
    return jwt.encode(given, key(name), alg, headers={"kid": kid or name})


async def ask(who: JWTAuth, text: str) -> Caller:
    return await who(bearing(text))


async def words(who: JWTAuth, text: str) -> str:
    with pytest.raises(NotAuthenticated) as raised:
        await ask(who, text)
    assert text[:20] not in str(raised.value) or not text
    return str(raised.value)


@pytest.mark.parametrize("name", ["one", "rsa"])
async def test_a_good_token_is_its_tenants(name: str) -> None:
    who = auth(Issuer([public("one"), public("rsa")]))
    rules = access("0.0.0.0", authenticate=who)

    assert await rules.admit(bearing(token(name)), is_tls=False) == Caller("ann")


async def test_the_tenant_and_the_operators_are_what_the_claims_say() -> None:
    who = auth(Issuer([public("one")]), tenant_claim="org", operator_claim=("roles", "operator"))
    callers = [
        await ask(who, token(org="x", roles=roles))
        for roles in (
            *(None, ["user"], ["user", "operator"], "operator", "no operators"),
            *(True, 7, {"operator": True}, [["operator"]]),
        )
    ]

    assert {caller.tenant_id for caller in callers} == {"x"}
    assert [caller.is_operator for caller in callers] == [False, False, True, True] + [False] * 5


def unsigned() -> str:
    return jwt.encode({"sub": "ann"}, "", "none")


def of_a_secret() -> str:
    """Signed by the public key taken for a secret, the oldest trick of them."""
    parts = [{"alg": "HS256", "kid": "one"}, {"sub": "ann"}]
    signed = b".".join(base64url_encode(json.dumps(part).encode()) for part in parts)
    secret = json.dumps(public("one")).encode()
    digest = hmac.digest(secret, signed, "sha256")
    return b".".join([signed, base64url_encode(digest)]).decode()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: "", "a token is needed"),
        (lambda: "x.y.z", "no JSON Web Token"),
        (lambda: "one", "no JSON Web Token"),
        (unsigned, "an algorithm that is not accepted"),
        (of_a_secret, "an algorithm that is not accepted"),
        (lambda: token(exp=time.time() - 60), "has expired"),
        (lambda: token(nbf=time.time() + 600), "not valid yet"),
        (lambda: token(aud="other"), "another audience"),
        (lambda: token(iss="other"), "another issuer"),
        (lambda: token(exp=None), "has no exp"),
        (lambda: token(aud=None), "has no aud"),
        (lambda: token(sub=None), "has no sub"),
        (lambda: token(sub=""), "no name of a tenant"),
        (lambda: token(exp="soon"), "the token is not valid"),
        (lambda: token("two", kid="one"), "signature is wrong"),
        (lambda: token("two"), "a key that the issuer does not publish"),
        (lambda: token("rsa", kid="one"), "signature is wrong"),
    ],
)
async def test_what_is_wrong_with_a_token_is_told(make: Any, told: str) -> None:
    who = auth(Issuer([public("one")]))
    text = make()

    assert told in await words(who, text)
    answer = await refused(access("0.0.0.0", authenticate=who), bearing(text))
    assert (answer.status, told in answer.error) == (401, True)


async def test_clocks_may_differ_a_little() -> None:
    who = auth(Issuer([public("one")]))

    assert await ask(who, token(exp=time.time() - 10)) == Caller("ann")


async def test_a_key_for_encryption_signs_nothing() -> None:
    who = auth(Issuer([public("one", use="enc"), public("two")]))

    assert "does not publish" in await words(who, token("one"))


# Keys


async def test_keys_are_asked_for_once(autojump_clock: Any) -> None:
    issuer = Issuer([public("one")], delay=1)
    who = auth(issuer)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask, who, token())
    await ask(who, token())

    assert issuer.asked == 1


async def test_a_key_that_comes_later_is_found(autojump_clock: Any) -> None:
    issuer = Issuer([public("one")])
    who = auth(issuer)
    await ask(who, token())
    issuer.keys = [public("one"), public("two")]
    await trio.sleep(11)

    assert await ask(who, token("two")) == Caller("ann")
    assert issuer.asked == 2


async def test_a_key_that_is_taken_back_is_gone_after_a_while(autojump_clock: Any) -> None:
    issuer = Issuer([public("one"), public("two")])
    who = auth(issuer)
    await ask(who, token())
    issuer.keys = [public("two")]
    await trio.sleep(3601)

    assert "does not publish" in await words(who, token())


async def test_nonsense_does_not_have_us_ask_all_day(autojump_clock: Any) -> None:
    issuer = Issuer([public("one")])
    who = auth(issuer)
    for _ in range(50):
        await words(who, token("two"))
        await trio.sleep(0.1)

    assert issuer.asked == 1


@pytest.mark.parametrize("trouble", [{"answers": 500}, {"delay": 60}, {"keys": ["x"]}])
async def test_known_keys_are_used_where_the_issuer_is_away(
    autojump_clock: Any, trouble: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer([public("one")])
    who = auth(issuer)
    await ask(who, token())
    for name, value in trouble.items():
        setattr(issuer, name, value)
    await trio.sleep(3601)

    assert await ask(who, token()) == Caller("ann")
    assert "those that are known are used" in caplog.text


AWAY: dict[str, dict[str, Any]] = {
    "an error": {"answers": 503},
    "a page": {"answers": 404},
    "silence": {"delay": 60},
    "no keys": {"keys": []},
    "odd keys": {"keys": ["x"]},
    "no set": {"keys": None},
    "a list": {"body": b"[1]"},
    "no JSON": {"body": b"<html>"},
    "no text": {"body": b"\xff\xfe\xff"},
    "nobody": {"raises": httpx.ConnectError("secret: no route")},
    "a socket": {"raises": OSError("secret: broken")},
    "anything": {"raises": RuntimeError("secret: odd client")},
}
"""Ways of an issuer not to publish its keys."""


@pytest.mark.parametrize("trouble", AWAY)
async def test_without_any_key_it_is_no_fault_of_the_token(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    caplog.set_level("INFO", "flowtrio")
    issuer = Issuer([public("one")])
    good = attrs.asdict(issuer)
    for name, value in AWAY[trouble].items():
        setattr(issuer, name, value)
    who = auth(issuer)
    rules = access("0.0.0.0", authenticate=who)
    for _ in range(25):
        answer = await let_out(rules, bearing(token()))
        assert (answer.status, answer.code) == (503, "cannot_authenticate")
        assert answer.retry_after is not None
        assert 1 <= answer.retry_after <= 10
        assert "issuer" not in answer.error
        await trio.sleep(1)

    # A pause is at least as long as one takes that is not answered.
    assert 3 <= issuer.asked <= 5
    [told] = [record.getMessage() for record in caplog.records]
    assert "https://issuer.example/jwks.json" in told
    assert not any(secret in caplog.text for secret in ("secret", "canary", token()[:20]))

    for name, value in good.items():
        setattr(issuer, name, value)
    await trio.sleep(11)

    assert await ask(who, token()) == Caller("ann")
    assert caplog.records[-1].getMessage().endswith("are there again")


async def let_out(rules: Access, asked: Request) -> Refused:
    with pytest.raises(Refused) as caught:
        await rules.let_in(asked, is_tls=False)
    return caught.value


async def test_a_key_that_nobody_knows_while_the_issuer_is_away_may_be_a_new_one(
    autojump_clock: Any,
) -> None:
    issuer = Issuer([public("one")])
    who = auth(issuer)
    await ask(who, token())
    issuer.answers = 503
    await trio.sleep(11)

    with pytest.raises(CannotAuthenticate):
        await ask(who, token("two"))
    assert await ask(who, token()) == Caller("ann")


async def test_the_one_key_of_an_issuer_needs_no_name() -> None:
    who = auth(Issuer([{k: v for k, v in public("one").items() if k != "kid"}]))
    text = jwt.encode(jwt.decode(token(), options={"verify_signature": False}), key("one"), "ES256")

    assert await ask(who, text) == Caller("ann")


async def test_a_client_is_made_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Issuer([public("one")])
    made = httpx.AsyncClient(transport=httpx.MockTransport(issuer))
    monkeypatch.setattr(httpx, "AsyncClient", lambda: made)
    who = auth(issuer, http_client=None)

    assert await ask(who, token()) == Caller("ann")
    assert made.is_closed


# Making one


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"algorithms": ["HS256"]}, "algorithms="),
        ({"algorithms": ["none"]}, "algorithms="),
        ({"algorithms": []}, "algorithms="),
        ({"audience": ""}, "audience: expected"),
        ({"issuer": ""}, "issuer: expected"),
        ({"tenant_claim": ""}, "tenant_claim: expected"),
        *(
            ({"jwks_url": url}, "jwks_url: expected")
            for url in ("", "keys", "ftp://a/k", "https://")
        ),
    ],
)
def test_what_would_let_in_too_many_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        auth(Issuer([]), **options)


def test_what_may_be_secret_in_the_address_is_not_shown() -> None:
    assert "canary" not in repr(auth(Issuer([])))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("jwt.algorithms.has_crypto", False)
        with pytest.raises(ModuleNotFoundError, match=r"flowtrio\[jwt\]"):
            auth(Issuer([]))
    monkeypatch.setitem(sys.modules, "jwt", None)
    monkeypatch.setitem(sys.modules, "jwt.algorithms", None)
    with pytest.raises(ModuleNotFoundError, match=r"flowtrio\[jwt\]"):
        auth(Issuer([]))
