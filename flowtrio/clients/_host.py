"""A model's host: its address, its key, and one pool of connections for each Trio loop."""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs
import trio

from flowtrio._core._asked import Asked, ask, check_asked, fits_header
from flowtrio._core._limits import ModelLimits, of_kind
from flowtrio.wire._json import encode_json

from ._request import HttpRequest
from ._retries import MAX_RETRIES, check_retries
from ._secrets import hide, secrets_of_query, split_credentials, split_query
from ._watch import Watch

PLACES = 100
"""Connections that a pool of httpx has by default."""

SLOTS = 90
"""Requests at once in one Trio loop, at most: fewer than `PLACES`."""

_KEYS = 16
"""Keys that are remembered to be hidden, where they are asked for: replies that are under way may
use older ones."""

CLOSE = 1.0
"""Seconds for closing a connection: a TLS goodbye may wait for the other side."""


@attrs.frozen(kw_only=True)
class ClientStatistics:
    """A snapshot for debugging; never used for logic."""

    requests: int
    """Requests sent."""
    retries: int
    """Requests sent again for the same reply."""
    open_replies: int
    """Replies that hold a slot."""
    waiting_replies: int
    """Replies that wait for one."""


@attrs.define(eq=False)
class Pool:
    """What a host keeps for one Trio loop."""

    http: Any
    limiter: trio.CapacityLimiter
    """The slots of ``http``; all that use the same ``http`` share them."""
    keeper: trio.CancelScope
    watch: Watch = attrs.field(factory=Watch, init=False)
    open_replies: int = 0
    waiting_replies: int = 0

    async def enter(self, reply: object) -> None:
        """Wait for a slot and take it."""
        self.waiting_replies += 1
        try:
            await self.limiter.acquire_on_behalf_of(reply)
        finally:
            self.waiting_replies -= 1
        self.open_replies += 1

    def leave(self, reply: object) -> None:
        """Give the slot back."""
        self.limiter.release_on_behalf_of(reply)
        self.open_replies -= 1


@attrs.define(eq=False)
class ModelHost:
    """Where a client's requests go. May be made outside Trio, and used in several loops."""

    base_url: str
    headers: dict[str, str] = attrs.field(repr=False)
    secrets: tuple[str, ...] = attrs.field(repr=False)
    """Texts that must not be seen: keys, a password and a query from the address."""
    query: str = attrs.field(default="", repr=False)
    """What stands behind the path of every address."""
    key: Asked | None = attrs.field(default=None, repr=False)
    """Asked for a key at each request, where that is not among the headers."""
    key_header: tuple[str, str] | None = None
    """Where such a key stands: the header's name, and what stands before it."""
    http_client: Any = None
    """The application's own `httpx.AsyncClient` or `httpx2.AsyncClient`; never closed here."""
    limits: ModelLimits = attrs.field(factory=ModelLimits, validator=of_kind(ModelLimits))
    max_retries: int = MAX_RETRIES
    """How often a reply is asked for again at most."""
    jitter: Callable[[], float] = random.random
    wall_clock: Callable[[], float] = time.time
    _pools: dict[trio.lowlevel.TrioToken, Pool] = attrs.field(factory=dict, init=False)
    _keys: deque[str] = attrs.field(factory=lambda: deque(maxlen=_KEYS), init=False, repr=False)
    """The keys that were given last."""
    requests: int = attrs.field(default=0, init=False)
    retries: int = attrs.field(default=0, init=False)

    @classmethod
    def of(
        cls,
        base_url: str,
        *,
        headers: Mapping[str, str],
        key: Asked | None,
        key_header: tuple[str, str] | None = None,
        http_client: Any,
        limits: ModelLimits | None,
        max_retries: int = MAX_RETRIES,
    ) -> ModelHost:
        """Make it from what a client was given.

        Raises:
          ValueError: the address is none, a header cannot be sent, or *max_retries* is no number.
          TypeError: *http_client* is no client of httpx's shape, or *key* no key.

        """
        check_asked("api_key", key)
        base_url, query = split_query(check_base_url(base_url))
        base_url, credentials, passwords = split_credentials(base_url)
        if isinstance(key, str) and key and key_header is not None:
            headers = {**headers, key_header[0]: key_header[1] + key}
        secrets = (key, *passwords, *secrets_of_query(query))
        return cls(
            base_url=base_url,
            query=query,
            headers=check_headers({**headers, **credentials}),
            secrets=tuple(secret for secret in secrets if isinstance(secret, str) and secret),
            key=None if isinstance(key, str) else key,
            key_header=key_header,
            http_client=check_http_client(http_client),
            limits=ModelLimits() if limits is None else limits,
            max_retries=check_retries(max_retries),
        )

    @property
    def name(self) -> str:
        """The host as messages show it: no path, no credentials."""
        return urlsplit(self.base_url).hostname or "?"

    def statistics(self) -> ClientStatistics:
        """Count requests; the replies are those of all loops."""
        pools = list(self._pools.values())
        return ClientStatistics(
            requests=self.requests,
            retries=self.retries,
            open_replies=sum(pool.open_replies for pool in pools),
            waiting_replies=sum(pool.waiting_replies for pool in pools),
        )

    async def aclose(self) -> None:
        """Close the connections of this loop; a later request makes new ones."""
        pool = self._pools.pop(trio.lowlevel.current_trio_token(), None)
        if pool is None:
            return await trio.lowlevel.checkpoint()
        pool.keeper.cancel(reason="the client was closed")
        if self.http_client is None:
            await _close_http(pool.http)
        return None

    def __del__(self) -> None:
        for token, pool in list(self._pools.items()):
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(pool.keeper.cancel)

    def hide(self, value: Any) -> Any:
        """The same JSON without our secrets: hosts like to quote the key they refuse."""
        return hide(value, (*self.secrets, *self._keys))

    def clean(self, exc: BaseException) -> None:
        """Take our secrets out of an exception and of those behind it: libraries quote the host."""
        seen: set[int] = set()
        behind: BaseException | None = exc
        while behind is not None and id(behind) not in seen:
            seen.add(id(behind))
            behind.args = tuple(self.hide(arg) for arg in behind.args)
            behind = behind.__cause__ or behind.__context__

    # One loop's pool

    def pool(self) -> Pool:
        """The pool of this loop, made when it is first needed."""
        token = trio.lowlevel.current_trio_token()
        pool = self._pools.get(token)
        if pool is None:
            http = self.http_client if self.http_client is not None else _make_http(self.base_url)
            pool = Pool(http, slots_of(http, token), trio.CancelScope())
            self._pools[token] = pool
            # A client that nobody closes is closed when its loop ends.
            own = http if self.http_client is None else None
            trio.lowlevel.spawn_system_task(
                _keep, self._pools, token, pool, own, name=f"flowtrio client of {self.name}"
            )
        return pool

    async def ask_key(self) -> dict[str, str]:
        """The header of a key that has to be asked for; none where the key is known.

        Raises:
          Exception: whatever the function raises; `TypeError`, `ValueError` where it gave none.

        """
        if self.key is None or self.key_header is None:
            return {}
        key = await ask("api_key", self.key)
        if key not in self._keys:
            self._keys.append(key)
        return {self.key_header[0]: self.key_header[1] + key}

    def url(self, path: str) -> str:
        """The address of a path, which may have a query of its own, below the host's."""
        path, _, own = path.partition("?")
        given = {name for name, _ in parse_qsl(self.query, keep_blank_values=True)}
        # What the user's address says goes first.
        parts = [part for part in own.split("&") if part and part.partition("=")[0] not in given]
        query = "&".join(filter(None, (*parts, self.query)))
        return f"{self.base_url}/{path}" + (f"?{query}" if query else "")

    def build(self, http: Any, request: HttpRequest, key: Mapping[str, str] | None = None) -> Any:
        """The library's own request object; *key* is the header of one that was asked for."""
        library = library_of(http)
        # Waiting is limited by us: in a run by its turn, else by the stream's own scopes.
        timeout = library.Timeout(None, connect=self.limits.connect)
        content = encode_json(request.body)
        built = http.build_request(
            "POST",
            request.url,
            content=content,
            headers={
                "accept": "*/*",
                # Compressed, tokens would wait in the compressor's buffer.
                "accept-encoding": "identity",
                "content-type": "application/json",
                **self.headers,
                **(key or {}),
            },
            timeout=timeout,
        )
        built.stream = _body_kind(library)(content)
        return built


async def _keep(
    pools: dict[trio.lowlevel.TrioToken, Pool],
    token: trio.lowlevel.TrioToken,
    pool: Pool,
    own: Any,
) -> None:
    """Watch a pool, and close it when its loop ends or its client is dropped."""
    with pool.keeper:
        try:
            await pool.watch.run()
        finally:
            if pools.get(token) is pool:
                del pools[token]
                if own is not None:
                    await _close_http(own)


async def _close_http(http: Any) -> None:
    deadline = trio.current_time() + CLOSE
    with trio.CancelScope(shield=True, deadline=deadline), contextlib.suppress(Exception):
        await http.aclose()


# Slots


_slots: weakref.WeakKeyDictionary[Any, tuple[trio.lowlevel.TrioToken, trio.CapacityLimiter]]
_slots = weakref.WeakKeyDictionary()
"""Of each `AsyncClient`, which serves one loop at a time."""


def slots_of(http: Any, token: trio.lowlevel.TrioToken) -> trio.CapacityLimiter:
    """The slots of an `AsyncClient`: fewer than any of its pools has places, and at least one.

    So no request has to wait in its pool, however small that is and however many clients share it.
    """
    found = _slots.get(http)
    if found is None or found[0] is not token:
        places = places_of(http)
        found = _slots[http] = token, trio.CapacityLimiter(min(SLOTS, places - places // 10))
    return found[1]


def places_of(http: Any) -> int:
    """Connections that an `AsyncClient` makes at once; what does not tell has as many as usual."""
    transports = [getattr(http, "_transport", None), *getattr(http, "_mounts", {}).values()]
    pools = [getattr(transport, "_pool", None) for transport in transports]
    return max(1, min(getattr(pool, "_max_connections", PLACES) for pool in pools))


# The library


def _make_http(base_url: str) -> Any:
    import httpx

    verify = _tls_context() if base_url.startswith("https:") else False
    return httpx.AsyncClient(
        verify=verify,
        limits=httpx.Limits(max_connections=PLACES, max_keepalive_connections=SLOTS),
    )


@functools.cache
def _tls_context() -> Any:
    # Made once: it costs more than 20 ms.
    import httpx

    return httpx.create_ssl_context()


@functools.cache
def _body_kind(library: Any) -> type[Any]:
    """A request's body that may be left half sent.

    httpx iterates its own by an async generator, and leaves that to the garbage collector, with a
    warning, where the sending is cancelled.
    """

    class Body(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, content: bytes) -> None:
            self._content = content

        def __aiter__(self) -> AsyncIterator[bytes]:
            return _Once(self._content)

    return Body


class _Once(AsyncIterator[bytes]):
    """Gives one piece."""

    def __init__(self, piece: bytes) -> None:
        self._rest = [piece]

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        return self._rest.pop()


def library_of(http: Any) -> Any:
    """The module whose `AsyncClient` this is: httpx, httpx2, or one of the same shape."""
    for kind in type(http).__mro__:
        if kind.__name__ == "AsyncClient":
            return sys.modules[kind.__module__.partition(".")[0]]
    raise TypeError(
        f"http_client={type(http).__name__}: expected an httpx.AsyncClient or httpx2.AsyncClient"
    )


def library_of_response(response: Any) -> Any:
    return sys.modules[type(response).__module__.partition(".")[0]]


def check_http_client(http_client: Any) -> Any:
    """Refuse what is no client of httpx's shape, by a `TypeError`."""
    if http_client is not None:
        library_of(http_client)
    return http_client


def check_base_url(base_url: str) -> str:
    """Refuse what is no address, by a `ValueError` without it: it may hold a password."""
    base_url = base_url.strip()
    if any(c.isspace() or not c.isprintable() for c in base_url):
        raise ValueError("base_url: expected an address without white space in it")
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("base_url: expected an address that begins with http:// or https://")
    return base_url.rstrip("/")


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Refuse values that are not printable ASCII, by a `ValueError` that does not show them."""
    for name, value in headers.items():
        if not fits_header(value):
            raise ValueError(f"header {name!r}: expected a value of printable ASCII characters")
    return dict(headers)
