"""A server as a store uses it: calls that are repeated until they are answered, and channels."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from flowtrio._core._telling import tell

from ._link import Argument, GlideLink, Link, Unreachable
from ._log_scripts import GREET
from ._scripts import Script
from ._url import Place, read_url
from ._work_scripts import LISTENERS

_PATIENCE: Final = 30.0
"""Seconds for which a call is made again that nobody answers; whoever calls may have less."""
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0
_OLDEST: Final = 7
"""Version of Redis; Valkey begins with it."""

MakeLink = Callable[[Place, Callable[[bytes, bytes], object]], Link]


def new_call() -> str:
    """A name for a call that changes something, so that it is done once."""
    return secrets.token_hex(8)


@attrs.define(eq=False)
class Listener:
    """Somebody who listens to a channel."""

    server: Server
    channel: str
    callback: Callable[[bytes], object]

    def close(self) -> None:
        """See `flowtrio.abc.Listening`."""
        self.server.close_listener(self)


@attrs.define(eq=False)
class _Channel:
    listeners: list[Listener] = attrs.field(factory=list)
    is_open: bool = False
    """Whether what is told there comes here."""
    lock: trio.Lock = attrs.field(factory=trio.Lock)


class Server:
    """A server, by one link that is made at its first use."""

    def __init__(self, url: str, make_link: MakeLink = GlideLink) -> None:
        self.place = read_url(url)
        self._link = make_link(self.place, self._pushed)
        self._channels: dict[str, _Channel] = {}
        self._is_known = False

    async def aclose(self) -> None:
        """Close the link."""
        await self._link.aclose()

    async def call(self, script: Script, *arguments: Argument | int) -> Any:
        """Run a script, again where nobody knows whether it was run.

        Raises:
          Unreachable: the server did not answer for half a minute.
          Refused: it refused, for want of memory for one.

        """
        if not self._is_known:
            await self._greet()
        return await self._call(script, arguments)

    async def _call(self, script: Script, arguments: tuple[Argument | int, ...]) -> Any:
        given = [str(each) if isinstance(each, int) else each for each in arguments]
        deadline = trio.current_time() + _PATIENCE
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._link.call(script, given)
            except Unreachable:
                if trio.current_time() + pause > deadline:
                    raise
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _greet(self) -> None:
        told = await self._call(GREET, ())
        facts = dict(
            line.split(":", 1)
            for part in told
            for line in part.decode("utf-8", "replace").splitlines()
            if ":" in line
        )
        version = facts.get("redis_version", "0")
        if int(version.split(".")[0]) < _OLDEST:
            raise RuntimeError(f"the server is Redis {version}: expected 7.0, or Valkey")
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise RuntimeError(
                f"the server forgets what it has no room for (maxmemory-policy {policy}): "
                "expected noeviction"
            )
        self._is_known = True

    # Channels

    async def post(self, channel: str, data: bytes) -> int:
        """Tell who listens; gives how many processes do."""
        if not self._is_known:
            await self._greet()
        return await self._link.post(self.place.prefix + channel, data)

    async def listen(self, channel: str, callback: Callable[[bytes], object]) -> Listener:
        """Have *callback* called with what is told from now on."""
        found = self._channels.setdefault(channel, _Channel())
        listener = Listener(self, channel, callback)
        found.listeners.append(listener)
        try:
            async with found.lock:
                if not found.is_open:
                    await self._link.subscribe([self.place.prefix + channel])
                    found.is_open = True
        except BaseException:
            listener.close()
            raise
        return listener

    def close_listener(self, listener: Listener) -> None:
        """Call that one no more."""
        found = self._channels.get(listener.channel)
        if found is None or listener not in found.listeners:
            return
        found.listeners.remove(listener)
        if not found.listeners:
            # Whoever comes next begins anew, and behind this.
            trio.lowlevel.spawn_system_task(self._leave, listener.channel, found)

    async def _leave(self, channel: str, found: _Channel) -> None:
        async with found.lock:
            if found.listeners:
                return
            found.is_open = False
            try:
                await self._link.unsubscribe([self.place.prefix + channel])
            except (OSError, trio.ClosedResourceError) as exc:
                tell(logging.DEBUG, "channel %r is not left: %s", channel, exc)
            if not found.listeners and self._channels.get(channel) is found:
                del self._channels[channel]

    async def listeners(self, channel: str) -> int:
        """How many processes listen."""
        count: int = await self.call(LISTENERS, channel)
        return count

    def _pushed(self, channel: bytes, data: bytes) -> None:
        name = channel.decode("utf-8", "replace").removeprefix(self.place.prefix)
        found = self._channels.get(name)
        for listener in list(found.listeners if found is not None else ()):
            try:
                listener.callback(data)
            except Exception as exc:
                tell(logging.ERROR, "what listens to channel %r failed", name, exc=exc)
