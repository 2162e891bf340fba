"""A reply as an iterator of chunks, which may be left at any time.

Between two chunks no scope is open and no task runs, so there is nothing to close but the
connection: by ``aclose``, by a read that fails or is cancelled, or, where the iterator is dropped,
by a task of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import trio
from trio.lowlevel import checkpoint_if_cancelled

from flowtrio._core._chunks import Chunk
from flowtrio._core._limits import ModelLimits

from ._exchange import Exchange
from ._here import check_trio
from ._host import ModelHost
from ._request import HostRequest


def stream_reply(
    host: ModelHost,
    request: HostRequest,
    model: str = "",
    extra_body: Mapping[str, Any] | None = None,
) -> CompletionStream:
    """Make a reply's iterator; nothing is sent before its first step."""
    exchange = Exchange(host, request, model=model, extra_body=extra_body or {})
    return CompletionStream(exchange, host.limits)


class CompletionStream(AsyncIterator[Chunk], trio.abc.AsyncResource):
    """One reply on its way: an iterator of chunks, the last one with ``is_final``.

    Nothing is sent before the first step. May be left at any time, by ``break`` too; ``aclose`` and
    ``async with`` close the connection before they return, a dropped iterator as soon as Trio runs.
    One task may read at a time. After an error, or a read that was cancelled, it is closed.
    """

    __slots__ = ("__weakref__", "_exchange", "_is_reading", "_token", "limits")

    def __init__(self, exchange: Exchange, limits: ModelLimits | None) -> None:
        self._exchange = exchange
        self._is_reading = False
        self._token: trio.lowlevel.TrioToken | None = None
        self.limits: ModelLimits | None = limits
        """Bounds of each wait for the host; None where the caller watches, as a run does."""

    def __aiter__(self) -> Self:
        """Give the stream itself."""
        return self

    async def __anext__(self) -> Chunk:
        """Give the next chunk.

        Raises:
          ProviderError: the host refused or failed, in the stream too.
          RemoteProtocolError: the stream is malformed, or ended before its finish mark.
          DeadlineExceeded: one of the limits passed: ``connect first_token gap content``.
          trio.ClosedResourceError: it was closed, or a read failed before.

        """
        exchange = self._exchange
        if self._token is None:
            check_trio()
            self._token = trio.lowlevel.current_trio_token()
        try:
            await checkpoint_if_cancelled()
        except BaseException:
            # A cancellation may well strike between two reads: it ends the reply all the same.
            if not self._is_reading:
                await exchange.close()
            raise
        if exchange.chunks:
            return exchange.chunks.popleft()
        if self._is_reading:
            raise trio.BusyResourceError("another task is reading this reply")
        if exchange.is_over:
            await exchange.close()
            raise StopAsyncIteration
        if exchange.is_closed:
            raise trio.ClosedResourceError("can't read on: this reply was closed before its end")
        self._is_reading = True
        try:
            if self.limits is None:
                while not exchange.chunks:
                    await exchange.advance()
            else:
                await self._read_within(self.limits)
        except BaseException:
            await exchange.close()
            raise
        finally:
            self._is_reading = False
        return exchange.chunks.popleft()

    async def _read_within(self, limits: ModelLimits) -> None:
        """Read until something is said."""
        exchange, since = self._exchange, trio.current_time()
        is_watched = exchange.has_spoken and limits.gap <= limits.content
        if is_watched and (wait := exchange.watched(limits.gap)) is not None:
            # For every token: without a scope, which would cost more than all the rest.
            wait.since = since
            try:
                await exchange.advance()
            finally:
                wait.since = None
        while not exchange.chunks:
            if exchange.has_spoken:
                limit, due = limits.due(since, exchange.heard_at)
            else:
                limit, due = "first_token", since + limits.first_token
            heard_at = exchange.heard_at
            with trio.move_on_at(due) as scope:
                await exchange.advance()
            if scope.cancelled_caught:
                raise limits.stalled(limit, pings=limit != "gap" and heard_at > since)
            if exchange.heard_at == heard_at:
                # A head, or a wait before another request: no ping.
                since = trio.current_time()

    @property
    def heard_at(self) -> float:
        """When the host last sent something that said nothing, on Trio's clock: it is alive."""
        return self._exchange.heard_at

    async def aclose(self) -> None:
        """Close the reply and its connection; does nothing the second time."""
        self._exchange.chunks.clear()
        await self._exchange.close()

    def __del__(self) -> None:
        # Any thread, any time: nothing may be done here but to leave word for the loop.
        exchange = self._exchange
        if self._token is not None and not exchange.is_closed:
            # After the loop ended, its keeper has closed the connection.
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(_close_soon, exchange)


def _close_soon(exchange: Exchange) -> None:
    trio.lowlevel.spawn_system_task(_close_quietly, exchange, name="flowtrio: leave a reply")


async def _close_quietly(exchange: Exchange) -> None:
    with contextlib.suppress(Exception):
        await exchange.close()
