"""What is said to one client, in order, on its way to the one who writes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Self

import attrs
import trio


@attrs.frozen
class Goodbye:
    """The last that is said to a client: why its connection is closed."""

    code: int
    """Of RFC 6455, section 7.4."""
    reason: str


class Outgoing(AsyncIterator[list[str] | Goodbye]):
    """Texts, and one goodbye behind them. One task takes from here, and nobody else sends."""

    __slots__ = ("_held", "_receive", "_send")

    def __init__(self) -> None:
        # No buffer: what was not handed over waits in its run, where it counts.
        self._send, self._receive = trio.open_memory_channel[list[str] | Goodbye](0)
        self._held: tuple[str, ...] = ()

    # Who has something to say

    async def say_with_next(self, text: str) -> None:
        """Have a text go with what is said next: for one behind which something is known to come.

        What goes at once is written at once, and a write costs as much as a dozen of events. It is
        held only while the writer waits: then whoever speaks next does not wait, and cannot be
        cancelled with this in his hands.
        """
        if self._send.statistics().tasks_waiting_receive:
            self._held += (text,)
        else:
            await self.say([text])

    @property
    def is_holding(self) -> bool:
        """Whether a text waits for what is said next."""
        return bool(self._held)

    async def say(self, texts: list[str]) -> None:
        """Hand texts over, waiting until they are taken."""
        if self._held:
            texts, self._held = [*self._held, *texts], ()
        try:
            # Taken, by who waits to send it, without a further schedule point: he has to run before
            # he takes anything again.
            self._send.send_nowait(texts)
        except trio.WouldBlock:
            await self._send.send(texts)

    async def say_goodbye(self, code: int, reason: str) -> None:
        """Close the connection, behind all that was handed over before."""
        if self._held:
            await self.say([])
        await self._send.send(Goodbye(code, reason))

    # Who writes it

    def take_ready(self) -> list[str] | Goodbye | None:
        """What is to be sent, if somebody waits to hand it over."""
        try:
            return self._receive.receive_nowait()
        except trio.WouldBlock:
            return None

    def receive(self) -> Awaitable[list[str] | Goodbye]:
        """Wait for what is to be sent."""
        # Not a coroutine around another: idle connections stand here.
        return self._receive.receive()

    def __aiter__(self) -> Self:
        """Give one after the other."""
        return self

    async def __anext__(self) -> list[str] | Goodbye:
        """Wait for the next; there is always one more."""
        return await self.receive()
