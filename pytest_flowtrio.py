"""flowtrio's plugin for pytest: three fixtures, and what a failed test leaves behind.

A module of its own beside the package, and lazy: pytest loads it in every project of the
environment, and nobody who does not use flowtrio should pay for importing it, nor should its
modules be imported before a coverage measurement begins.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flowtrio import StreamEngine
    from flowtrio.testing import RunRecorder

_REPLAY = "flowtrio.testing._replay"


def pytest_addoption(parser: pytest.Parser) -> None:
    """See pytest."""
    parser.getgroup("flowtrio").addoption(
        "--flowtrio-replay",
        metavar="FILE",
        help="run a failed test once, and have flowtrio.testing.simulate play what it played then",
    )


def pytest_configure(config: pytest.Config) -> None:
    """See pytest."""
    name = config.getoption("--flowtrio-replay")
    if name is not None:
        from flowtrio.testing._replay import Replay, forced

        try:
            forced[:] = [Replay.from_json(Path(name).read_bytes())]
        except (OSError, ValueError, TypeError, KeyError) as exc:
            raise pytest.UsageError(
                f"--flowtrio-replay {name}: no such run, or no file of one: {exc}"
            ) from None


def pytest_unconfigure() -> None:
    """See pytest."""
    if (replay := sys.modules.get(_REPLAY)) is not None:
        replay.forced.clear()


def pytest_runtest_setup() -> None:
    """See pytest."""
    if (replay := sys.modules.get(_REPLAY)) is not None:
        replay.recent.clear()
        replay.replayed.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """See pytest."""
    replay = sys.modules.get(_REPLAY)
    if replay is None or not replay.forced:
        return (yield)
    from flowtrio.testing._pytest import replaying

    with replaying(item, replay.forced[0]):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """See pytest."""
    report = yield
    replay = sys.modules.get(_REPLAY)
    if report.when == "call" and report.failed and replay is not None and replay.recent:
        from flowtrio.testing._pytest import tell

        report.sections.append(("flowtrio", tell(item, replay.recent[-1])))
    return report


@pytest.fixture
def stream_engine() -> StreamEngine:
    """A `flowtrio.StreamEngine` whose runs are called ``run0``, ``run1`` and so on."""
    from flowtrio import StreamEngine

    numbers = itertools.count()
    return StreamEngine(make_run_id=lambda: f"run{next(numbers)}")


@pytest.fixture
def scripted_model() -> Iterator[Any]:
    """Makes a `flowtrio.testing.ScriptedModel` of turns; checked when the test has ended."""
    from flowtrio.testing import ScriptedModel

    made = []

    def make(*turns: Any) -> ScriptedModel:
        made.append(ScriptedModel(*turns))
        return made[-1]

    yield make
    for model in made:
        model.check()


@pytest.fixture
def run_recorder() -> RunRecorder:
    """A `flowtrio.testing.RunRecorder`: what it read is written down when the test fails."""
    from flowtrio.testing import RunRecorder

    return RunRecorder()
