"""The way to a server: scripts are called, messages are posted, and what is pushed is told.

All that a store needs of a client is `Link`; another one could stand in its place. This one is
Valkey's own, GLIDE, which works under Trio, and has four traps that are kept from everybody here:

* **A call that is under way when the connection is lost may get another's answer**: in 600
  connections cut at any byte, with 5 subscriptions, 130 of 2,400 calls were answered by the
  confirmation of a subscription; with none, none were. So calls have a connection of their own,
  where nothing is ever subscribed, and subscriptions are asked for on another one, whose answers
  nobody reads.
* **Connecting blocks the whole loop**, seconds where nobody answers: so it is put off to the first
  call, which waits as calls do.
* **One Trio loop of a process at a time**: of two, both hang. The second one is refused.
* **A call that is cancelled may happen after one that was made later.** Whoever repeats something
  names it, so that it is done once.

Answers and pushes come on different connections, in any order: who puts both together goes by the
numbers of events, never by arrival.
"""

from __future__ import annotations

import logging
import re
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import attrs
import trio

from flowtrio._core._telling import tell

from ._url import Place

if TYPE_CHECKING:
    from glide import GlideClient

    from ._scripts import Script

OnPush: TypeAlias = Callable[[bytes, bytes], object]
"""Called with a channel and what was posted there."""
Argument: TypeAlias = "str | bytes"

_PATIENCE: Final = 30_000
"""Milliseconds that GLIDE waits for an answer; by default 250, which a busy machine passes."""
_MOST_IN_FLIGHT: Final = 100_000
_RESUBSCRIBE: Final = 250
"""Milliseconds after which subscriptions that a lost connection had are asked for again."""


class Unreachable(OSError):
    """The server cannot be asked now: nobody knows whether it has done what it was asked."""


class Refused(RuntimeError):
    """The server does not do what it was asked; its own word says why, ``OOM`` for one."""

    def __init__(self, word: str) -> None:
        super().__init__(f"the server refused: {word}")
        self.word = word


class Link(Protocol):
    """What a store needs of a client. Its calls may be cancelled at any time."""

    async def call(self, script: Script, arguments: Sequence[Argument]) -> Any:
        """Run a script once.

        Raises:
          Unreachable: nobody knows whether it was run.
          Refused: it was not, or not to its end.

        """
        ...

    async def post(self, channel: str, data: bytes) -> int:
        """Tell those who have subscribed to a channel; gives how many connections they have."""
        ...

    async def subscribe(self, channels: Iterable[str]) -> None:
        """Have what is posted to channels told from now on; after a lost connection too."""
        ...

    async def unsubscribe(self, channels: Iterable[str]) -> None:
        """Have it told no more, soon."""
        ...

    async def aclose(self) -> None:
        """Close; what is under way fails."""
        ...


@attrs.define(eq=False)
class GlideLink:
    """A `Link` by GLIDE, with two connections, each made when it is needed."""

    place: Place
    on_push: OnPush
    _calls: GlideClient | None = attrs.field(default=None, init=False)
    _pushes: GlideClient | None = attrs.field(default=None, init=False)
    _opening: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    async def call(self, script: Script, arguments: Sequence[Argument]) -> Any:
        """See `Link`."""
        keys: list[Argument] = ["1", self.place.prefix, *arguments]
        client = await self._for_calls()
        try:
            return await _ask(client, ["EVALSHA", script.sha, *keys])
        except Refused as exc:
            if exc.word != "NOSCRIPT":
                raise
        return await _ask(client, ["EVAL", script.text, *keys])

    async def post(self, channel: str, data: bytes) -> int:
        """See `Link`."""
        count: int = await _ask(await self._for_calls(), ["PUBLISH", channel, data])
        return count

    async def subscribe(self, channels: Iterable[str]) -> None:
        """See `Link`."""
        async with self._opening:
            client = self._pushes = self._pushes or await self._open(self._pushed)
        with _Translated():
            await client.subscribe(set(channels), _PATIENCE)

    async def unsubscribe(self, channels: Iterable[str]) -> None:
        """See `Link`."""
        if self._pushes is not None:
            with _Translated():
                await self._pushes.unsubscribe_lazy(set(channels))

    async def aclose(self) -> None:
        """See `Link`."""
        self._is_closed = True
        for client in (self._calls, self._pushes):
            if client is not None:
                await client.close()
        _users.pop(self, None)

    async def _for_calls(self) -> GlideClient:
        if self._calls is None:
            async with self._opening:
                self._calls = self._calls or await self._open(None)
        return self._calls

    async def _open(self, pushed: Callable[[Any, Any], None] | None) -> GlideClient:
        if self._is_closed:
            raise trio.ClosedResourceError("this store was closed")
        _enter_loop(self)
        try:
            from glide import GlideClient
        except ModuleNotFoundError as exc:
            raise ModuleNotFoundError(
                f"RedisStore and RedisConversations need {exc.name!r}: pip install "
                "'flowtrio[redis]'",
                name=exc.name,
            ) from None
        with _Translated():
            return await GlideClient.create(_configuration(self.place, pushed))

    def _pushed(self, message: Any, context: Any) -> None:
        try:
            self.on_push(message.channel, message.message)
        except Exception as exc:
            # What is raised here would be GLIDE's to tell, in a log of its own.
            tell(logging.ERROR, "what was pushed by the store could not be taken", exc=exc)


def _configuration(place: Place, pushed: Callable[[Any, Any], None] | None) -> Any:
    import glide

    glide.Logger.init(glide.LogLevel.OFF)
    tls = None
    if place.has_tls and place.ca is not None:
        tls = glide.TlsAdvancedConfiguration(root_pem_cacerts=Path(place.ca).read_bytes())
    credentials = None
    if place.password is not None:
        credentials = glide.ServerCredentials(password=place.password, username=place.user)
    subscriptions = None
    if pushed is not None:
        kind = glide.GlideClientConfiguration.PubSubSubscriptions
        subscriptions = kind(channels_and_patterns={}, callback=pushed, context=None)
    if place.socket is None:
        address = glide.NodeAddress(place.host, place.port)
    else:
        address = glide.NodeAddress(unix_socket_path=place.socket)
    return glide.GlideClientConfiguration(
        [address],
        use_tls=place.has_tls,
        credentials=credentials,
        database_id=place.database,
        request_timeout=_PATIENCE,
        inflight_requests_limit=_MOST_IN_FLIGHT,
        lazy_connect=True,
        reconnect_strategy=glide.BackoffStrategy(5, 20, 2, jitter_percent=20),
        pubsub_subscriptions=subscriptions,
        advanced_config=glide.AdvancedGlideClientConfiguration(
            connection_timeout=5000,
            tls_config=tls,
            pubsub_reconciliation_interval=_RESUBSCRIBE,
        ),
    )


async def _ask(client: GlideClient, command: list[Argument]) -> Any:
    with _Translated():
        return await client.custom_command(list(command))


class _Translated:
    """GLIDE's exceptions become those of a `Link`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if exc is None:
            return
        import glide

        if isinstance(exc, glide.ConnectionError | glide.TimeoutError):
            raise Unreachable(f"the server cannot be reached: {type(exc).__name__}") from exc
        if isinstance(exc, glide.ClosingError):
            raise trio.ClosedResourceError("this store was closed") from exc
        if isinstance(exc, glide.RequestError):
            word = _word_of(str(exc))
            if word in _NOT_NOW:
                raise Unreachable(f"the server is not up yet: {word}") from exc
            raise Refused(word) from exc


_NOT_UP: Final = "no connection"
_NOT_NOW: Final = frozenset({_NOT_UP, "LOADING", "BUSY", "MASTERDOWN", "READONLY", "TRYAGAIN"})
_ERROR: Final = re.compile(r"(?:An error was signalled by the server: - )?(\w+)")
_NO_CONNECTION: Final = "connect failed"
"""What GLIDE says of a first connection that was not made, whatever the reason."""
_FOR_GOOD: Final = {
    **{word: word for word in ("NOAUTH", "WRONGPASS", "NOPERM", "certificate")},
    "refused to switch database": "it has no such database",
}
"""Reasons that are the same tomorrow, and how they are told.

Not that one side speaks TLS alone: such a connection is reset, or nobody answers, as where a server
is not up.
"""
_NAMED: Final = {
    "NoScriptError": "NOSCRIPT",
    "BusyLoadingError": "LOADING",
    "MasterDownError": "MASTERDOWN",
    "ReadOnly": "READONLY",
    "TryAgain": "TRYAGAIN",
}
"""GLIDE's names for some of the server's words."""


def _word_of(text: str) -> str:
    """The first word of an error of the server's: what follows may have what it was given."""
    if _NO_CONNECTION in text:
        return next((word for said, word in _FOR_GOOD.items() if said in text), _NOT_UP)
    found = _ERROR.match(text)
    word = found[1] if found else "an error"
    return _NAMED.get(word, word)


# GLIDE has one pipe for all answers of a process, which one Trio loop reads.


_users: weakref.WeakKeyDictionary[GlideLink, trio.lowlevel.TrioToken] = weakref.WeakKeyDictionary()


def _enter_loop(link: GlideLink) -> None:
    own = trio.lowlevel.current_trio_token()
    for token in list(_users.values()):
        if token is not own and _is_running(token):
            raise RuntimeError(
                "can't open this store: another Trio loop of this process has one open, and GLIDE "
                "serves one loop at a time"
            )
    _users[link] = own


def _is_running(token: trio.lowlevel.TrioToken) -> bool:
    try:
        token.run_sync_soon(lambda: None, idempotent=True)
    except trio.RunFinishedError:
        return False
    return True
