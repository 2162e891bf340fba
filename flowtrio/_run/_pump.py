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

_LOOK = 1.0
"""Seconds after which a wait for a reader looks whether there is one."""


class Pump:
    """Reads one stream; `run` is its job in the Trio thread."""

    __slots__ = ("_deliver", "_goes_on", "_is_gone", "_make", "_opened", "_reading", "_thread")

    def __init__(
        self,
        thread: TrioThread,
        make: Callable[[], AbstractAsyncContextManager[Any]],
        opened: Callable[[Any], None],
        deliver: Callable[[list[AgentEvent]], None],
        is_gone: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make it; nothing happens yet.

        Args:
          thread: Where it will run.
          make: Gives the stream, there: one that is entered, and read with ``receive_batch``.
          opened: Told the stream once it is entered.
          deliver: Given each batch; what it raises ends the reading.
          is_gone: Whether the reader went without a word, looked at now and then.

        """
        self._thread = thread
        self._make = make
        self._opened = opened
        self._deliver = deliver
        self._is_gone = is_gone
        self._reading = trio.CancelScope()
        self._goes_on = trio.Event()

    async def run(self) -> None:
        """Read until the stream ends or its reader leaves; then leave the stream's block."""
        async with self._make() as stream:
            self._opened(stream)
            with self._reading:
                while True:
                    try:
                        batch = await stream.receive_batch()
                    except trio.EndOfChannel:
                        return
                    self._goes_on = trio.Event()
                    self._deliver(batch)
                    if not await self._may_go_on():
                        return

    async def _may_go_on(self) -> bool:
        """Wait until the last batch was taken; False if nobody is there to take it."""
        while not self._goes_on.is_set():
            with trio.move_on_after(_LOOK):
                await self._goes_on.wait()
            if self._is_gone():
                return False
        return True

    def go_on(self) -> None:
        """Read the next batch: the last one was taken. From any thread."""
        self._thread.post(self._take_up)

    def leave(self) -> None:
        """Read nothing more, and leave the stream's block. From any thread."""
        self._thread.post(self._reading.cancel)

    def _take_up(self) -> None:
        self._goes_on.set()
