"""JSON Web Tokens, whose keys an issuer publishes.

An issuer changes its keys now and then: it publishes the new one, signs with it, and takes the old
one back. So keys are kept for a while, and asked for again when a token names one that is not among
them; but not at each such token, or whoever sends nonsense would have us ask for it all day.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import httpx
import trio

from flowtrio.abc import Caller, CannotAuthenticate, NotAuthenticated, Request
from flowtrio.serving._access import token_of

if TYPE_CHECKING:
    import jwt

logger: logging.Logger = logging.getLogger("flowtrio")

ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""By which tokens may be signed: those whose keys can be published, and no other."""

_KINDS: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""The kind of key that signs, by the beginning of the algorithm's name."""
_KEPT: Final = 3600.0
"""Seconds that keys are kept before they are asked for again."""
_PAUSE: Final = 10.0
"""Seconds between two questions for keys, at least."""
_PATIENCE: Final = 4.0
"""Seconds that an answer may take: less than a handshake."""


@attrs.define
class _Keys:
    """What an issuer has published."""

    by_id: dict[str | None, jwt.PyJWK] = attrs.field(factory=dict)
    asked_at: float = -math.inf
    """When they were asked for last, with or without success; by Trio's clock."""
    told_at: float = -math.inf
    """When they came."""

    @property
    def is_away(self) -> bool:
        """Whether the issuer was asked for them in vain."""
        return self.asked_at > self.told_at


@attrs.frozen(kw_only=True)
class JWTAuth:
    """An ``authenticate`` for JSON Web Tokens; needs the extra ``jwt``.

    A token is brought like any other one: as ``Authorization: Bearer``, subprotocol or query. It
    has to be signed by a key that the issuer publishes, for this audience, by this issuer, and not
    to have expired. What is wrong with one is told to its client, and never the token.

    Args:
      jwks_url: Address of the issuer's keys, a JSON Web Key Set.
      audience: What the tokens are made for (``aud``); one of several is enough.
      issuer: Who makes them (``iss``).
      tenant_claim: The claim that names the tenant.
      operator_claim: A claim and the value that makes its bearer an operator, which is it or is in
        it, such as ``("roles", "operator")``; None for nobody.
      algorithms: By which they may be signed, of those with published keys.
      leeway: Seconds by which clocks may differ.
      http_client: Asks for the keys; by default one is made each time.

    """

    jwks_url: str = attrs.field(repr=False)
    audience: str | Sequence[str]
    issuer: str
    tenant_claim: str = "sub"
    operator_claim: tuple[str, str] | None = None
    algorithms: Sequence[str] = ("RS256", "ES256", "EdDSA")
    leeway: float = 30
    http_client: httpx.AsyncClient | None = attrs.field(default=None, repr=False)
    _keys: _Keys = attrs.field(factory=_Keys, init=False, repr=False)
    _asking: trio.Lock = attrs.field(factory=trio.Lock, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        try:
            import jwt.algorithms
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "JWTAuth needs PyJWT: pip install 'flowtrio[jwt]'", name="jwt"
            ) from None
        if not jwt.algorithms.has_crypto:
            raise ModuleNotFoundError(
                "JWTAuth needs cryptography: pip install 'flowtrio[jwt]'", name="cryptography"
            )
        if not self.algorithms or not set(self.algorithms) <= set(ALGORITHMS):
            known = ", ".join(ALGORITHMS)
            raise ValueError(f"algorithms={list(self.algorithms)}: expected some of {known}")
        for name in ("audience", "issuer", "tenant_claim"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected a text that is not empty")
        if not _is_address(self.jwks_url):
            raise ValueError("jwks_url: expected http:// or https:// and a host")

    async def __call__(self, request: Request) -> Caller:
        """See `flowtrio.abc.Authenticate`."""
        import jwt

        token = token_of(request)
        if not token:
            raise NotAuthenticated("a token is needed")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise NotAuthenticated("the token is no JSON Web Token") from None
        if header.get("alg") not in self.algorithms:
            raise NotAuthenticated("the token is signed by an algorithm that is not accepted")
        key = await self._key_of(header)
        if key.key_type != _KINDS[header["alg"][:2]]:
            raise NotAuthenticated("the token's signature is wrong")
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[header["alg"]],
                audience=self.audience,
                issuer=self.issuer,
                leeway=self.leeway,
                options={"require": ["exp", "aud", "iss", self.tenant_claim]},
            )
        except jwt.InvalidTokenError as exc:
            raise NotAuthenticated(_words(exc)) from None
        return self._caller(claims)

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        tenant = claims[self.tenant_claim]
        if not isinstance(tenant, str) or not tenant:
            raise NotAuthenticated(f"the token's {self.tenant_claim} is no name of a tenant")
        return Caller(tenant, is_operator=self._is_operator(claims))

    def _is_operator(self, claims: Mapping[str, Any]) -> bool:
        if self.operator_claim is None:
            return False
        name, value = self.operator_claim
        held = claims.get(name)
        # A text of several words is how OAuth writes scopes.
        words = held.split() if isinstance(held, str) else held
        return isinstance(words, list) and value in words

    # Keys

    async def _key_of(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        """The key that a token says it was signed by."""
        keys, now = self._keys, trio.current_time()
        if now - keys.told_at > _KEPT or self._find(header) is None:
            async with self._asking:
                # Another request may have asked while this one waited for its turn.
                if trio.current_time() - keys.asked_at >= _PAUSE:
                    await self._ask()
        found = self._find(header)
        if found is None and keys.is_away:
            # Nobody can tell whether the token is good: no fault of its bearer's.
            pause = max(1.0, keys.asked_at + _PAUSE - trio.current_time())
            words = f"the keys of {self.issuer} cannot be had"
            raise CannotAuthenticate(words, retry_after=pause)
        if found is None:
            raise NotAuthenticated("the token is signed by a key that the issuer does not publish")
        return found

    def _find(self, header: Mapping[str, Any]) -> jwt.PyJWK | None:
        by_id, name = self._keys.by_id, header.get("kid")
        if name is None and len(by_id) == 1:
            [key] = by_id.values()
            return key
        return by_id.get(name)

    async def _ask(self) -> None:
        """Ask for the keys; those that are known stay where nobody answers."""
        import jwt

        keys = self._keys
        was_away, keys.asked_at = keys.is_away, trio.current_time()
        try:
            with trio.fail_after(_PATIENCE):
                answer = await self._fetch()
            told = jwt.PyJWKSet.from_json(answer).keys
        except Exception as exc:  # whatever an issuer answers, or a client of one's own raises
            if not was_away:
                self._tell(exc)
            return
        keys.by_id = {key.key_id: key for key in told if key.public_key_use != "enc"}
        keys.told_at = keys.asked_at
        if was_away:
            logger.info("the keys of %s are there again", self.issuer)

    def _tell(self, exc: Exception) -> None:
        """Write down that the issuer is away, once for as long as it is."""
        status = getattr(getattr(exc, "response", None), "status_code", None)
        why = type(exc).__name__ if status is None else f"status {status}"
        place = httpx.URL(self.jwks_url).copy_with(username="", password="", query=None)
        rest = "those that are known are used" if self._keys.by_id else "nobody is let in by them"
        words = "the keys of %s cannot be had from %s (%s): %s, and it is asked again every %g s"
        logger.warning(words, self.issuer, place, why, rest, _PAUSE)

    async def _fetch(self) -> str:
        if self.http_client is not None:
            return await _get(self.http_client, self.jwks_url)
        async with httpx.AsyncClient() as client:
            return await _get(client, self.jwks_url)


def _is_address(url: str) -> bool:
    try:
        read = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return False
    return read.scheme in ("http", "https") and bool(read.host)


async def _get(client: httpx.AsyncClient, url: str) -> str:
    answer = await client.get(url, headers={"accept": "application/json"})
    return answer.raise_for_status().text


def _words(exc: jwt.InvalidTokenError) -> str:
    """What is wrong with a token, for whoever brought it."""
    import jwt

    match exc:
        case jwt.ExpiredSignatureError():
            return "the token has expired"
        case jwt.ImmatureSignatureError():
            return "the token is not valid yet"
        case jwt.InvalidAudienceError():
            return "the token is for another audience"
        case jwt.InvalidIssuerError():
            return "the token is from another issuer"
        case jwt.MissingRequiredClaimError():
            return f"the token has no {exc.claim}"
        case jwt.InvalidSignatureError():
            return "the token's signature is wrong"
        case _:
            return "the token is not valid"
