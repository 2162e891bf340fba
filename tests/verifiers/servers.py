"""Servers in processes of their own, for clients in others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@contextmanager
def serving(name: str, *arguments: str) -> Iterator[list[str]]:
    """A module of this folder that tells its addresses, and ends with its standard input."""
    command = [sys.executable, "-m", f"tests.verifiers.{name}", *arguments]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=ROOT, **pipes) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()
        process.communicate("", timeout=60)
