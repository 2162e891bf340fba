"""Programs of Node, which find the packages that other people's protocols are judged by."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

MODULES = "FLOWTRIO_NODE_MODULES"
"""The variable that names the folder of packages."""


def modules_of_node() -> str:
    """The folder of packages; a test is skipped where there is none, but fails in CI."""
    modules = os.environ.get(MODULES)
    if modules is None or shutil.which("node") is None:
        said = f"no Node with packages, in {MODULES} (`nox -s verifiers` brings them)"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return modules


def make_place(folder: Path, *scripts: Path) -> Path:
    """Copy scripts to where they find the packages."""
    modules = modules_of_node()
    for script in scripts:
        shutil.copy(script, folder)
    (folder / "node_modules").symlink_to(modules, target_is_directory=True)
    return folder


def run_node(
    place: Path, script: str, *arguments: str, said: str = "", seconds: float = 300
) -> str:
    """Run a script to its end with *said* to read; give what it wrote."""
    ran = try_program(place, "node", script, *arguments, said=said, seconds=seconds)
    assert ran.returncode == 0, (ran.stdout[-4000:], ran.stderr[-4000:])
    return ran.stdout


def try_program(
    place: Path, *command: str, said: str = "", seconds: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, however that is."""
    return subprocess.run(
        command,
        cwd=place,
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env={**os.environ, **environment},
    )


@attrs.define
class Node:
    """A program that answers each line of JSON with one."""

    _process: subprocess.Popen[str]

    def ask(self, to: str, **what: Any) -> Any:
        """Have it do something, and give what it says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"to": to, **what}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"{self._process.args} has ended"
        return json.loads(answer)


@contextmanager
def running(script: Path) -> Iterator[Node]:
    """Run a script that is told what to do, and finds the packages by itself."""
    modules_of_node()
    command = ["node", str(script)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            yield Node(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=30)
