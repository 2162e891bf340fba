"""The documents' clients that are other people's: each is run against ``flowtrio serve``.

A ``python`` block after a line ``<!-- client -->`` is a program that finds a server at
``http://127.0.0.1:8000``: one of the demonstration agent, or after ``<!-- client: name -->`` one of
the agent in the block after ``<!-- served: name -->`` of the same document.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_blocks import CLIENTS, Block, blocks_in, check_output
from tests.support.command import environment, serving, without_haste

ADDRESS = "http://127.0.0.1:8000"
STRICT = ("-X", "dev", "-W", "error")


def served_by(block: Block) -> tuple[str, str] | None:
    """The name and the source of the agent that a client talks to; None for the demonstration."""
    text = block.path.read_text("utf-8")
    mark = text.splitlines()[block.line - 3]
    named = re.fullmatch(r"<!-- client: (\w+) -->", mark)
    if named is None:
        assert mark == "<!-- client -->"
        return None
    _, found, rest = text.partition(f"<!-- served: {named[1]} -->\n```python\n")
    assert found, f"{block}: no block is marked 'served: {named[1]}'"
    return named[1], rest.partition("```")[0]


@pytest.mark.parametrize("block", CLIENTS, ids=str)
def test_a_client_of_the_documents_talks_to_a_server(block: Block, tmp_path: Path) -> None:
    chosen: tuple[str, ...] = ()
    if (agent := served_by(block)) is not None:
        (tmp_path / f"{agent[0]}.py").write_text(agent[1], "utf-8")
        chosen = ("--agent", f"{agent[0]}:agent")
    with serving(*chosen, cwd=tmp_path) as server:
        assert ADDRESS in block.source
        source = block.source.replace(ADDRESS, server.page.removesuffix("/"))
        done = subprocess.run(
            [sys.executable, *STRICT, "-c", source],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(),
            check=False,
        )

    assert (done.returncode, without_haste(done.stderr)) == (0, "")
    assert done.stdout
    if block.output is not None:
        check_output(block.output, f"{done.stdout}\n")


def test_there_are_clients_and_the_first_screen_has_one() -> None:
    assert {"README.md", "openai-server.md"} <= {block.path.name for block in CLIENTS}


def test_a_mark_makes_a_client_of_the_block_below_it() -> None:
    text = "<!-- client: a -->\n```python\n1\n```\n\n```python\n2\n```\n"

    assert [block.is_client for block in blocks_in(Path("a.md"), text)] == [True, False]
