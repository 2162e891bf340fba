"""Mock hosts that others wrote, each a process of its own on loopback."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent

_PATIENCE: Final = 60.0
"""Seconds for a server to answer for the first time."""


@contextmanager
def llmock() -> Iterator[str]:
    """PyPI's llmock; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        fd = listener.fileno()
        command = [sys.executable, "-m", "uvicorn", "llmock.main:app", "--fd", str(fd)]
        with _process([*command, "--log-level", "warning"], fds=(fd,)) as process:
            deadline = time.monotonic() + _PATIENCE
            # The socket takes the request before the program is there to answer it.
            with urllib.request.urlopen(f"{url}/health", timeout=deadline - time.monotonic()):
                assert process.poll() is None
            yield url


@contextmanager
def aimock(fixtures: Path) -> Iterator[str]:
    """npm's aimock, installed beside this file; gives its address."""
    program = HERE / "node_modules" / "@copilotkit" / "aimock"
    if not program.is_dir():
        _npm_install()
    command = ["node", str(HERE / "node_modules" / ".bin" / "llmock"), "--port", "0", "--strict"]
    with _process([*command, "--fixtures", str(fixtures)]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(rb"listening on (http://\S+)", line):
                yield found[1].decode()
                return
        raise AssertionError(f"aimock ended with {process.wait()} instead of listening")


def _npm_install() -> None:
    npm = shutil.which("npm")
    if npm is None:
        return _do_without("npm is not installed")
    command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--prefix", HERE]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    if done.returncode:
        _do_without(f"npm install failed: {done.stderr.decode(errors='replace')[-500:]}")


def _do_without(reason: str) -> None:
    """Skip the test that asks, but never where nobody would see it."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def _process(command: list[str], fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=fds,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # Where `node` is a script that starts the real one, both hold the pipe's end.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
