"""A chat in a terminal of the test's own, whose screen can be read: `pyte` behind a pty."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pyte

from tests.support.command import FLOWTRIO, environment


class Screen(pyte.HistoryScreen):
    """What a terminal shows; what scrolled off its top is kept, and its questions get no answer."""

    _read: tuple[object, list[str]] = (None, [])
    """The history that was read, and its lines: what has scrolled off does not change any more."""

    def scrolled_off(self) -> list[str]:
        """The lines above the first."""
        top = self.history.top
        lines = self._read[1] if self._read[0] is top and len(self._read[1]) <= len(top) else []
        for line in itertools.islice(top, len(lines), None):
            lines.append("".join(line[x].data for x in range(self.columns)).rstrip())
        self._read = (top, lines)
        return lines


@attrs.define(eq=False)
class Terminal:
    """A command and the terminal that it runs in."""

    process: subprocess.Popen[bytes]
    master: int
    screen: Screen
    stream: pyte.ByteStream
    _found: list[Any]
    """The terminal's attributes before the command began."""
    raw: bytes = b""
    """All that the command wrote."""

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without the empty ones at its end."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def everything(self) -> list[str]:
        """The lines of the screen, and those that scrolled off its top."""
        return [*self.screen.scrolled_off(), *self.lines]

    @property
    def cursor_line(self) -> str:
        """The line in which the cursor stands."""
        line = self.screen.buffer[self.screen.cursor.y]
        return "".join(line[x].data for x in range(self.screen.columns)).rstrip()

    @property
    def is_as_found(self) -> bool:
        """Whether the terminal's attributes are those that the command found."""
        return termios.tcgetattr(self.master) == self._found

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.master, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Have the terminal be of another size."""
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, is_reached: Callable[[Terminal], Any], seconds: float = 60) -> None:
        """Read until the screen shows something."""
        deadline = time.monotonic() + seconds
        while not is_reached(self):
            left = deadline - time.monotonic()
            ready = select.select([self.master], [], [], max(left, 0))[0]
            assert ready, f"this is all after {seconds} s: {self.lines}"
            assert self._read(), f"the command has ended: {self.lines}"

    def until_prompt(self) -> None:
        """Read until the cursor stands behind an empty prompt, and nothing more comes."""
        self.until(lambda t: t.cursor_line == ">" and t.is_quiet())

    def is_quiet(self) -> bool:
        """Whether the command writes nothing for a moment."""
        return not select.select([self.master], [], [], 0.05)[0]

    def end(self) -> int:
        """Read to the end; gives the exit status."""
        while self._read():
            pass
        return self.process.wait(20)

    def _read(self) -> bool:
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:  # Linux's word for the other side's end.
            data = b""
        self.raw += data
        self.stream.feed(data)
        return bool(data)


@contextmanager
def open_terminal(
    *arguments: str, rows: int = 30, columns: int = 100, **variables: str
) -> Iterator[Terminal]:
    """Run ``flowtrio`` with *arguments* in a terminal of its own."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    found = termios.tcgetattr(master)
    process = subprocess.Popen(
        [*FLOWTRIO, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=take_terminal,
        env={**environment(), "TERM": "xterm", **variables},
    )
    os.close(slave)
    screen = Screen(columns, rows, history=100_000)
    try:
        yield Terminal(process, master, screen, pyte.ByteStream(screen), found)
    finally:
        process.kill()
        process.wait()
        os.close(master)
