"""A redis-server of our own, for the tests of what is stored there."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest

_UP_WITHIN: Final = 20.0
_ENTRY: Final = b"\r\nXADD\r\n"
_NUMBER: Final = re.compile(rb"\r\nXADD\r\n\$\d+\r\n[^\r]+\r\n\$\d+\r\n(\d+)-0\r\n")
_TRANSACTION: Final = b"*1\r\n$5\r\nMULTI\r\n"


def find_redis() -> str:
    """Its path; where there is none, the test is skipped and says so, and in CI it fails."""
    if path := shutil.which("redis-server"):
        return path
    said = "no redis-server on this machine: apt-get install redis-server (`nox -s tests` does it)"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


@attrs.define(eq=False)
class RedisServer:
    """One that runs, on a Unix socket in a folder of its own, and on a port where it has one."""

    folder: Path
    settings: tuple[str, ...]
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _count: int = 0

    @property
    def socket(self) -> Path:
        """Where it is asked."""
        return self.folder / "redis.sock"

    def url(self, **query: str) -> str:
        """A URL with a prefix that nobody else has."""
        self._count += 1
        given = {"prefix": f"ft{self._count}:", **query}
        return f"unix://{self.socket}?" + "&".join(f"{k}={v}" for k, v in given.items())

    def start(self) -> None:
        """Start it, again with what it has kept, and wait until it is up."""
        self.spawn()
        assert self._process is not None
        deadline = time.monotonic() + _UP_WITHIN
        while self.ask("PING") != b"+PONG\r\n":
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("redis-server did not come up")
            time.sleep(0.01)

    def spawn(self) -> None:
        """Start it, and do not wait."""
        command = [find_redis(), "--port", str(self.port), "--unixsocket", str(self.socket)]
        command += ["--dir", str(self.folder), "--save", "", "--daemonize", "no"]
        command += ["--loglevel", "warning", *self.settings]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def ask(self, line: str) -> bytes:
        """Ask by a connection of its own; nothing where nobody answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            try:
                connection.connect(str(self.socket))
                connection.sendall(line.encode() + b"\r\n")
                return connection.recv(65536)
            except OSError:
                return b""

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end("kill")

    @property
    def _log(self) -> Path:
        [path] = (self.folder / "appendonlydir").glob("*.incr.aof")
        return path

    def entries(self) -> list[int]:
        """The numbers of all entries of logs that were written, in their order."""
        return [int(number) for number in _NUMBER.findall(self._log.read_bytes())]

    def roll_back(self, entries: int) -> int:
        """Kill it, and start it as it was before so many of the newest entries of its logs.

        It is as if a replica had taken its place that lagged, or a second of an ``everysec`` were
        gone: with these entries goes all that was changed since, leases, claims and ends too.

        Returns:
          How many entries that were; fewer where there were no more.

        """
        self.kill()
        written = self._log.read_bytes()
        lost = 0
        end = cut = len(written)
        while lost < entries and (end := written.rfind(_ENTRY, 0, end)) >= 0:
            lost += 1
            # What a script changes is one transaction.
            cut = written.rfind(_TRANSACTION, 0, end)
        self._log.write_bytes(written[:cut])
        self.start()
        return lost

    def stop(self) -> None:
        """End it in order."""
        self._end("terminate")

    def _end(self, how: str) -> None:
        if self._process is not None:
            getattr(self._process, how)()
            self._process.wait()
            self._process = None


@contextmanager
def redis_server(*settings: str, port: int = 0) -> Iterator[RedisServer]:
    """A server in a folder of its own, up to the end of the block."""
    # Paths of sockets are short; pytest's folders are not.
    with tempfile.TemporaryDirectory(prefix="ft-redis-") as folder:
        server = RedisServer(Path(folder), settings, port)
        server.start()
        try:
            yield server
        finally:
            server.stop()
