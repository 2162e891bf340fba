"""The page's modules that need no page, in Node's own test runner."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MODULES = Path(__file__).parent / "modules"


def find_node() -> str:
    """Node's path; a test is skipped without one, but in CI it fails."""
    path = shutil.which("node") or shutil.which("nodejs")
    if path is not None:
        return path
    said = "no Node on this machine (`nox -s browser` brings one)"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


@pytest.mark.parametrize("path", sorted(MODULES.glob("*.mjs")), ids=lambda path: path.name)
def test_a_module_does_what_it_says(path: Path) -> None:
    ran = subprocess.run(
        [find_node(), "--test", "--test-reporter=tap", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# fail 0" in ran.stdout
    assert "# pass 0" not in ran.stdout
