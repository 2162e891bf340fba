"""A stream that is read in the Trio thread for a reader elsewhere, a batch at a time.

::

    run ─ channel ─▶ Pump, in the Trio thread ─ deliver(batch) ─▶ the reader's own loop or thread
                       ◀──────────── go_on ────────────────────── it took the batch

One batch at a time is under way, with one wake-up of the other side. The run's own credits hold
back whoever writes: the reader has at most a batch in hand, one before it and one in the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from flowtrio._core._events import AgentEvent

from ._thread import TrioThread


class Pump:
    """Reads one stream; `run` is its job in the Trio thread."""

    __slots__ = ("_deliver", "_goes_on", "_make", "_opened", "_reading", "_thread")

    def __init__(
        self,
        thread: TrioThread,
        make: Callable[[], AbstractAsyncContextManager[Any]],
        opened: Callable[[], None],
        deliver: Callable[[list[AgentEvent]], None],
    ) -> None:
        """Make it; nothing happens yet.

        Args:
          thread: Where it will run.
          make: Gives the stream, there: one that is entered, and read with ``receive_batch``.
          opened: Called once it is entered.
          deliver: Given each batch; what it raises ends the reading.

        """
        self._thread = thread
        self._make = make
        self._opened = opened
        self._deliver = deliver
        self._reading = trio.CancelScope()
        self._goes_on = trio.Event()

    async def run(self) -> None:
        """Read until the stream ends or its reader leaves; then leave the stream's block."""
        async with self._make() as stream:
            self._opened()
            with self._reading:
                while True:
                    try:
                        batch = await stream.receive_batch()
                    except trio.EndOfChannel:
                        return
                    self._goes_on = trio.Event()
                    self._deliver(batch)
                    await self._goes_on.wait()

    def go_on(self) -> None:
        """Read the next batch: the last one was taken. From any thread."""
        self._thread.post(self._take_up)

    def leave(self) -> None:
        """Read nothing more, and leave the stream's block. From any thread."""
        self._thread.post(self._reading.cancel)

    def _take_up(self) -> None:
        self._goes_on.set()
