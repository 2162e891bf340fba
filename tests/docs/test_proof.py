"""The page about the proof shows what the proof really finds, and counts what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowtrio.testing import CUT, Reader
from tests.proof.bugs import BUGS, Bug
from tests.proof.judge import problems_of
from tests.proof.worlds import World
from tests.test_laws import PLANTED, SHRUNK

PAGE = (Path(__file__).parents[2] / "docs" / "proof.md").read_text("utf-8")
SHOWN = dict(re.findall(r"```text\n(World\(.*\))\n\n(.*)\n```", PAGE))


def test_the_page_counts_the_planted_bugs() -> None:
    assert f"| {len(BUGS)}, one or more for each law |" in PAGE
    assert f"| bugs planted in the log of a real run | {len(PLANTED)} |" in PAGE
    assert len(SHOWN) == len(SHRUNK)


@pytest.mark.parametrize("bug", [bug for bug in BUGS if str(bug) in SHRUNK], ids=str)
def test_a_counter_example_on_the_page_is_one(bug: Bug) -> None:
    from flowtrio import ToolCall

    names = {"World": World, "Reader": Reader, "CUT": CUT, "ToolCall": ToolCall}
    [(source, told)] = [
        (source, told) for source, told in SHOWN.items() if eval(source, names) == SHRUNK[str(bug)]
    ]
    with bug.planted():
        problems = problems_of(_with_tools(eval(source, names)))

    assert any(_plain(problem) == told for problem in problems), problems


def _with_tools(world: World) -> World:
    import attrs

    return attrs.evolve(world, tools={"a": ("returns", 0.0)})


def _plain(problem: str) -> str:
    """A problem without what the law's object says of its own situation."""
    return re.sub(r"can't emit \w+ when run=\w+ \(seq \d+\): ", "", problem)
