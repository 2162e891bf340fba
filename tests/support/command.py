"""The command line in processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from websockets.sync.client import connect

from flowtrio.cli._protocols import PROTOCOLS

FLOWTRIO = [sys.executable, "-m", "flowtrio"]


def run(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*FLOWTRIO, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )


@attrs.frozen
class Server:
    """A `flowtrio serve` that has told its addresses."""

    process: subprocess.Popen[str]
    lines: list[str]
    """What it printed."""

    @property
    def page(self) -> str:
        """Address of the page, ``http://host:port/``."""
        return next(line for line in self.lines if line.startswith("http"))

    @property
    def socket(self) -> str:
        """Address of the WebSocket listener."""
        return next(line for line in self.lines if line.startswith("ws"))

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal and wait; gives the exit status and standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@contextmanager
def serving(*arguments: str, cwd: Path | None = None, log: Path | None = None) -> Iterator[Server]:
    """A server on any ports, from its first address to the block's end.

    What it logs goes into a pipe, or into a file where it is more than a pipe holds.
    """
    with log.open("w") if log is not None else contextlib.nullcontext() as file:
        process = subprocess.Popen(
            [*FLOWTRIO, "serve", "--port", "0", "--ws-port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if file is None else file,
            text=True,
            env=environment(),
            cwd=cwd,
        )
    expected = 1 if "--no-http" in arguments else 2 if "--no-ws" in arguments else 3
    if "--no-http" not in arguments and "--protocols" not in arguments:
        expected += len(PROTOCOLS)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(expected)]
        assert all(lines), process.communicate(timeout=60)[1]
        yield Server(process, lines)
    finally:
        process.kill()
        process.communicate()


def press_ctrl_c(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Press Ctrl-C until a program ends, as a person does who sees nothing happen.

    One that waits for a KeyboardInterrupt may miss it: Python throws away what is raised where
    nobody can be told, as in a weak reference's callback (each import has one), and says so.

    Returns:
        What it printed, and standard error.
    """
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=3)
    raise AssertionError("Ctrl-C did not end it: expected its end within a minute")


def talk(url: str, text: str, **options: Any) -> list[dict[str, Any]]:
    """One run, by the `websockets` package."""
    with connect(url, **options) as peer:
        peer.send(text)
        frames = [json.loads(peer.recv(timeout=20))]
        while frames[-1]["type"] != "done":
            frames.append(json.loads(peer.recv(timeout=20)))
    return frames


def children_of(pid: int) -> set[int]:
    """The processes that a process has started, and of which it has not asked how they ended."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # Its thread has ended; another one has its children.
            found.update(map(int, path.read_text().split()))
    return found


def without_haste(told: str) -> str:
    """What a program in development mode said, without asyncio's remarks on a busy machine.

    It tells there of each step that took longer than a tenth of a second.
    """
    lines = told.splitlines(keepends=True)
    return "".join(
        line for line in lines if not re.match("Executing <.* took [0-9.]+ seconds", line)
    )


def environment() -> dict[str, str]:
    """Ours, without what would change a command; a server may be started in any folder."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FLOWTRIO_") and name not in ("COLUMNS", "LINES")
    }
    root = str(Path(__file__).parents[2])
    return {**ours, "PYTHONPATH": os.pathsep.join([root, ours.get("PYTHONPATH", "")])}
