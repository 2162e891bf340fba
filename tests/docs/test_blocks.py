"""Every ``python`` block of the documents runs.

A block is a program of its own: it gets the names of `prelude` and nothing from the blocks before
it. One with ``await`` or ``async for`` at its top level runs under Trio; one without runs as it is,
and may call ``trio.run``. Time is virtual in both. Blocks of another kind (``text``, ``sh``) are
not run.

What a block prints may stand below it, in a block after a line ``<!-- output -->``. It is
compared line by line; ``...`` stands for any text.
"""

from __future__ import annotations

import ast
import doctest
import functools
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from flowtrio import Agent, DemoClient, StreamEngine, tool

PROJECT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
LONGEST = 3600
"""Seconds, of virtual time, after which a block counts as hanging."""


@attrs.frozen
class Block:
    """One fenced block and where it stands."""

    path: Path
    line: int
    """Of its first line of code, from 1."""
    kind: str
    source: str
    output: str | None = None
    """What it is said to print."""
    is_client: bool = False
    """Whether it talks to a server that runs; see `tests.docs.test_clients`."""

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}"


def blocks_in(path: Path, text: str) -> list[Block]:
    """The fenced blocks of a document; a block of output belongs to the one before it."""
    lines = text.splitlines()
    found: list[Block] = []
    for block in _fenced(path, text):
        if "<!-- output -->" in lines[max(0, block.line - 3) : block.line - 2]:
            found[-1] = attrs.evolve(found[-1], output=block.source)
        else:
            mark = lines[block.line - 3] if block.line > 2 else ""
            found.append(attrs.evolve(block, is_client=mark.startswith("<!-- client")))
    return found


def _fenced(path: Path, text: str) -> Iterator[Block]:
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if opening := FENCE.match(line):
            body = []
            for _, inner in lines:
                if inner.strip().startswith(opening["fence"]):
                    break
                body.append(inner.removeprefix(opening["indent"]))
            else:
                raise ValueError(f"{path.name}:{number}: the block has no end")
            yield Block(path, number + 1, opening["info"].strip(), "\n".join(body) + "\n")


def documents() -> list[Path]:
    """Everything that people read."""
    docs = PROJECT / "docs"
    found = [path for path in docs.rglob("*.md") if "_build" not in path.parts]
    return [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted(found)]


def prelude() -> dict[str, Any]:
    """The names that a block may use without saying where they come from."""

    @tool
    async def forecast(city: str, days: int = 3) -> list[str]:
        """Weather forecast for a city, one line a day."""
        return [f"{city}, day {day}: sunny" for day in range(days)]

    client = DemoClient()
    return {
        "__name__": "block",
        "client": client,
        "forecast": forecast,
        "agent": Agent(llm_client=client, tools=[forecast]),
        "engine": StreamEngine(),
        "message": "What is the weather like in Paris?",
    }


def run(block: Block) -> None:
    """Run a block as a program; tracebacks name its place in the document."""
    source = "\n" * (block.line - 1) + block.source
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, str(block.path), "exec", flags=flags, dont_inherit=True)
    program = types.FunctionType(code, prelude())
    if code.co_flags & inspect.CO_COROUTINE:
        trio.run(_run_async, program)
    else:
        program()


async def _run_async(program: Any) -> None:
    with trio.fail_after(LONGEST):
        await program()


@pytest.fixture(autouse=True)
def _virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No block waits for real, nor for a key."""
    original = trio.run

    def run_quickly(*args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("clock", MockClock(autojump_threshold=0))
        return original(*args, **kwargs)

    monkeypatch.setattr(trio, "run", functools.wraps(original)(run_quickly))
    monkeypatch.setenv("OPENAI_API_KEY", "no-key")


FOUND = [block for path in documents() for block in blocks_in(path, path.read_text("utf-8"))]
PYTHON = [block for block in FOUND if block.kind == "python"]


CLIENTS = [block for block in PYTHON if block.is_client]
OFFLINE = [
    block
    for block in PYTHON
    if not block.is_client
    and (block.path.parent.name != "providers" or block.path.name == "index.md")
]
"""Those that ask no model's host; see `tests.docs.test_providers` for the others."""


@pytest.mark.parametrize("block", OFFLINE, ids=str)
def test_a_block_of_the_documents_runs(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    run(block)
    if block.output is not None:
        check_output(block.output, capsys.readouterr().out)


def check_output(expected: str, got: str) -> None:
    """Compare what a document says is printed with what was printed."""
    lines = "".join(f"{line.rstrip()}\n" for line in got.splitlines())
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.REPORT_NDIFF
    if not checker.check_output(expected, lines, flags):
        example = doctest.Example("", expected)
        raise AssertionError(checker.output_difference(example, lines, flags))


@pytest.mark.parametrize("name", ["README.md", "index.md", "design.md"])
def test_blocks_are_found_in_the_documents_that_people_read_first(name: str) -> None:
    assert [block for block in PYTHON if block.path.name == name]


def test_no_block_is_left_out_by_a_word_that_looks_like_python() -> None:
    kinds = {block.kind for block in FOUND}

    assert {kind for kind in kinds if kind.lower().startswith("py")} == {"python"}


# What is wrong is noticed


def _one(source: str) -> Block:
    [block] = blocks_in(Path("planted.md"), f"Text.\n\n```python\n{source}\n```\n")
    return block


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("print('a'", SyntaxError),
        ("nobody_said_what_this_is", NameError),
        ("from flowtrio import Agents", ImportError),
        ("await trio.sleep(0)", NameError),
        ("assert message == 'Hello'", AssertionError),
        ("async for event in engine.stream(agent):\n    print(event)", TypeError),
        ("import trio\nasync def main():\n    1 / 0\ntrio.run(main)", ZeroDivisionError),
        ("import trio\nawait trio.sleep_forever()", trio.TooSlowError),
    ],
)
def test_a_wrong_block_is_noticed(source: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(_one(source))


def test_an_error_is_told_with_its_line_in_the_document() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run(_one("x = 1\n1 / 0"))
    last = caught.traceback[-1]

    assert (str(last.path).endswith("planted.md"), last.lineno + 1) == (True, 5)


def test_a_block_sees_nothing_of_the_one_before_it() -> None:
    run(_one("message = 'changed'"))
    run(_one("assert message.startswith('What is')"))


def test_blocks_end_at_their_own_fence_and_lose_their_indent() -> None:
    text = "* a\n\n  ```python\n  x = 1\n  ```\n\n````text\n```\nnot python\n```\n````\n"
    found = [(block.kind, block.source) for block in blocks_in(Path("a.md"), text)]

    assert found == [("python", "x = 1\n"), ("text", "```\nnot python\n```\n")]


def test_a_block_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"a\.md:1: the block has no end"):
        blocks_in(Path("a.md"), "```python\nx = 1\n")


def test_output_belongs_to_the_block_above_it() -> None:
    text = "```python\nprint(1)\n```\n\n<!-- output -->\n```text\n1\n```\n\n```text\n2\n```\n"
    found = [(block.kind, block.output) for block in blocks_in(Path("a.md"), text)]

    assert found == [("python", "1\n"), ("text", None)]


@pytest.mark.parametrize("expected", ["a b\n", "a\n...\n", "...d\n", "a b\n...\nc d\n"])
def test_output_that_differs_is_noticed(expected: str) -> None:
    got = "a b\nin between\nc d\n"
    fits = {"...d\n", "a b\n...\nc d\n"}
    if expected in fits:
        return check_output(expected, got)
    with pytest.raises(AssertionError):
        check_output(expected, got)
