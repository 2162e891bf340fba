"""Where the lines come from that a chat asks for."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import attrs
import trio


class Lines(Protocol):
    """Where the lines come from that are asked for."""

    async def ask(self, prompt: str, *, is_fresh: bool = False) -> str | None:
        """Ask on standard error, so that a redirected output stays clean; None at the end.

        To a question that *is_fresh*, a line that was typed before it is no answer.
        """
        ...

    async def overhear(
        self, prompt: str, paused: Callable[[], AbstractContextManager[object]]
    ) -> str | None:
        """Wait until somebody types without being asked, and ask them then; None for nothing.

        Nothing else is to be shown while they type: *paused* is entered for that.
        """
        ...

    def release(self) -> None:
        """Leave the terminal as it was found, at once."""
        ...


@attrs.define(eq=False)
class Keyboard:
    """Lines that a pipe brings, or that a person types whose terminal cannot edit them."""

    fd: int = 0
    """Standard input. It is read here and nowhere else, as its lines come: a thread that waited for
    one could not be woken when the chat ends."""
    _typed: bytes = b""
    _lock: trio.Lock = attrs.Factory(trio.Lock)

    async def ask(self, prompt: str, *, is_fresh: bool = False) -> str | None:
        """See `Lines`."""
        async with self._lock:
            if is_fresh and os.isatty(self.fd):
                termios.tcflush(self.fd, termios.TCIFLUSH)
                self._typed = b""
            sys.stderr.write(prompt)
            sys.stderr.flush()
            try:
                return await self._read_line()
            except trio.Cancelled:
                # Nobody answers any more: what is shown next begins on a line of its own.
                sys.stderr.write("\n")
                sys.stderr.flush()
                raise

    async def overhear(
        self, prompt: str, paused: Callable[[], AbstractContextManager[object]]
    ) -> str | None:
        """See `Lines`; each line of a pipe is a message of its own, and waits for its turn."""
        await trio.sleep_forever()

    def release(self) -> None:
        """See `Lines`: it is as it was."""

    async def _read_line(self) -> str | None:
        while b"\n" not in self._typed:
            # Files are always readable, and refuse to be waited for.
            with contextlib.suppress(PermissionError):
                await trio.lowlevel.wait_readable(self.fd)
            if not (data := os.read(self.fd, 1 << 16)):
                line, self._typed = self._typed, b""
                return line.decode("utf-8", "replace") if line else None
            self._typed += data
        line, _, self._typed = self._typed.partition(b"\n")
        return line.decode("utf-8", "replace")
