"""What is wrong with a test itself does not pass."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import tracing

PLANTED = """
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st


async def stray():
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            return exc


async def test_planted_alone():
    raise await stray()


async def test_planted_in_a_group():
    raise BaseExceptionGroup("", [await stray()])


async def test_planted_in_a_fixtures_nursery(nursery):
    nursery.cancel_scope.cancel()
    await trio.sleep(1)


class TestPlanted:
    async def test_planted_in_a_class(self):
        raise await stray()


@pytest.mark.parametrize("number", [1, 2])
@settings(max_examples=5)
@given(st.integers())
async def test_planted_in_an_example(number, example):
    raise await stray()


@pytest.mark.parametrize("number", [1, 2])
@settings(max_examples=5)
@given(st.integers())
async def test_sound_examples(number, example):
    await trio.lowlevel.checkpoint()


async def test_sound_with_a_scope_of_its_own():
    with trio.move_on_after(0) as scope:
        await trio.sleep(1)
    assert scope.cancelled_caught


async def test_sound_with_a_fixture(nursery, autojump_clock):
    nursery.start_soon(trio.sleep_forever)


async def test_sound_and_skipped():
    pytest.skip("no reason")


def test_sound_without_trio():
    pass
"""


def test_a_test_that_a_stray_cancellation_ends_fails(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n", encoding="utf-8")
    (tmp_path / "test_planted.py").write_text(PLANTED, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:anyio", "-p", "no:cacheprovider", "-rA"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    outcomes = [line.split()[:2] for line in done.stdout.splitlines() if "::test_" in line]
    found = {
        word: [name for told, name in outcomes if told == word] for word in ("PASSED", "FAILED")
    }

    assert len(found["FAILED"]) == 6, done.stdout
    assert all("planted_" in name.partition("::")[2] for name in found["FAILED"])
    assert len(found["PASSED"]) == 5
    assert all("sound_" in name for name in found["PASSED"])
    assert done.stdout.count("the test did not reach its end") >= 6


# Coverage of properties


class Tracer:
    """What a session with coverage has, and what is asked of it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stop(self) -> None:
        self.said.append("stop")

    def start(self) -> None:
        self.said.append("start")


@pytest.mark.parametrize("examples", [1, tracing.TRACED - 1, tracing.TRACED, 3 * tracing.TRACED])
def test_a_property_is_traced_at_first_and_whatever_follows_it_too(
    examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer, seen = Tracer(), []

    @settings(max_examples=examples)
    @given(st.integers())
    def is_property(number: int) -> None:
        seen.append(list(tracer.said))

    monkeypatch.setattr(tracing, "coverage_of_session", lambda: tracer)
    item = SimpleNamespace(obj=is_property)
    with tracing.traced_at_first(item):
        is_property()

    assert len(seen) == examples
    assert seen.count([]) == min(examples, tracing.TRACED - 1)
    assert tracer.said == ([] if examples < tracing.TRACED else ["stop", "start"])

    with tracing.traced_at_first(SimpleNamespace(obj=len)):
        assert tracer.said[-1:] != ["stop"]


def test_ctrl_c_works_where_a_shell_has_put_the_tests_into_the_background() -> None:
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import tests.conftest; "
        "signal.raise_signal(signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
