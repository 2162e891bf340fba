"""The connection to one server: made when the block is entered, and again when it was lost.

One task holds it, whoever uses it: what the SDK opens for a connection has to be closed by the
task that opened it. A server that has died is noticed where it is asked for something; then whoever
asked wants a new connection, and all who want one at once share one attempt.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import attrs
import trio
from mcp import Client

from flowtrio._core._failures import describe, leaves
from flowtrio._core._telling import tell

_GRACE = 5
"""Seconds for taking leave of a server."""


@attrs.define(eq=False)
class _Attempt:
    """One attempt to connect, and all who wait for it."""

    done: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None


class Link:
    """A connection that may be lost."""

    def __init__(self, make: Callable[[], Client], label: str, seconds: float) -> None:
        self._make = make
        self._label = label
        self._seconds = seconds
        self.client: Client | None = None
        """None while there is no connection."""
        self._attempt: _Attempt | None = None
        self._news = trio.Event()
        self._is_closing = False

    async def run(self) -> None:
        """Hold connections, one after the other, until the link is closed."""
        try:
            while not self._is_closing:
                if self._attempt is None:
                    await self._wait_for_news()
                else:
                    await self._hold(self._attempt)
        finally:
            # Nobody connects any more, nor waits for it.
            self._is_closing = True
            if self._attempt is not None:
                self._settle(self._attempt, ConnectionError("the connection was closed"))

    async def connect(self) -> None:
        """Make the first connection; a `ConnectionError` says why there is none to be had."""
        attempt = self._want()
        await attempt.done.wait()
        if attempt.error is not None:
            raise ConnectionError(
                f"can't connect to the MCP server {self._label}: {describe(attempt.error)}"
            ) from attempt.error

    async def renewed(self, lost: Client | None) -> Client | None:
        """Give the connection that comes after *lost*; None where none can be made now."""
        if self.client is lost and not self._is_closing:
            await self._want().done.wait()
        return None if self.client is lost else self.client

    def close(self) -> None:
        """Take leave of the server."""
        self._is_closing = True
        self._news.set()

    def _want(self) -> _Attempt:
        if self._attempt is None:
            self._attempt = _Attempt()
            self._news.set()
        return self._attempt

    async def _wait_for_news(self) -> None:
        await self._news.wait()
        self._news = trio.Event()

    async def _hold(self, attempt: _Attempt) -> None:
        """Connect, and stay so until somebody wants another connection."""
        self._news = trio.Event()
        try:
            with trio.CancelScope(deadline=trio.current_time() + self._seconds) as scope:
                async with self._make() as client:
                    scope.deadline = math.inf
                    self.client = client
                    self._settle(attempt, None)
                    await self._wait_for_news()
                    self.client = None
                    scope.deadline = trio.current_time() + _GRACE
        except BaseException as exc:
            self.client = None
            error = _first(exc)
            if not isinstance(error, Exception):
                raise error from None
            if attempt.done.is_set():
                tell(logging.WARNING, "lost the MCP server %s", self._label, exc=error)
            self._settle(attempt, error)
        finally:
            self._settle(attempt, TimeoutError(f"no answer within {self._seconds} s"))

    def _settle(self, attempt: _Attempt, error: Exception | None) -> None:
        if not attempt.done.is_set():
            attempt.error = error
            self._attempt = None
            attempt.done.set()
            if error is not None:
                tell(logging.WARNING, "can't connect to the MCP server %s", self._label, exc=error)


def _first(exc: BaseException) -> BaseException:
    """What to make of a group: a cancellation, if there is one in it, else its first exception."""
    found = list(leaves(exc))
    others = [leaf for leaf in found if not isinstance(leaf, Exception)]
    return (others or found)[0]
