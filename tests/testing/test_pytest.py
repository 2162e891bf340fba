"""The plugin: fixtures, what a failed test leaves behind, and how that is played again.

Most tests here start a pytest of their own, since that is what has to work.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowtrio import EventType, StreamEngine
from flowtrio.testing import (
    LawBroken,
    Reader,
    RunRecorder,
    Schedule,
    ScriptedModel,
    check_events,
    simulate,
)
from flowtrio.testing._pytest import tell
from flowtrio.testing._replay import Case, Played, forced, recent
from tests.support.races import RACE

PROJECT = Path(__file__).parents[2]


def run_pytest(folder: Path, *arguments: str) -> str:
    """What pytest prints in a project of its own; our plugin comes by its entry point."""
    # A configuration of its own: temporary folders may lie below a project that has one.
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:anyio", "-q"]
    env = {"PYTHONPATH": str(PROJECT), "PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": ""}
    done = subprocess.run(
        [*command, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )
    return done.stdout + done.stderr


def test_a_race_is_found_shrunk_written_down_and_played_again(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(RACE)
    first = run_pytest(tmp_path)

    assert "1 failed" in first
    # Zeros, and one choice that is none.
    assert re.search(r"schedule=Schedule\(\[(0, )+[123]\]\)", first)
    assert re.search(r"choice \d+: .*pay ran before .*look", first)
    command = re.search(r"replay: +python -m (pytest .*)", first)
    assert command is not None

    again = run_pytest(tmp_path, *shlex.split(command[1])[1:])
    assert "1 failed" in again
    assert re.findall("choice .*", again) == re.findall("choice .*", first)


def test_the_log_of_a_failed_test_can_be_checked(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(RACE)
    printed = run_pytest(tmp_path)
    log = re.search(r"log: +(.*)", printed)
    assert log is not None
    lines = (tmp_path / log[1]).read_text("utf-8").splitlines()

    check_events([json.loads(line) for line in lines])


FIXTURES = """
import pytest, trio
from flowtrio import Agent

def test_engine(stream_engine, scripted_model, run_recorder):
    model = scripted_model("hello")
    async def main():
        stream = stream_engine.stream(Agent(llm_client=model), "hi")
        events = await run_recorder.read(stream)
        assert events[0].run_id == "run0"
    trio.run(main)

def test_broken(stream_engine, run_recorder):
    async def agent(ctx, message):
        await ctx.status("at work")
    async def main():
        await run_recorder.read(stream_engine.stream(agent, "hi"))
    trio.run(main)
    assert False

def test_unused(scripted_model):
    scripted_model("never asked")

def test_plain():
    assert False
"""


def test_the_fixtures_need_no_configuration_and_only_failures_of_runs_are_told(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_own.py").write_text(FIXTURES)
    printed = run_pytest(tmp_path)

    assert "2 failed, 2 passed, 1 error" in printed
    assert printed.count("timeline: ") == 1
    assert "running: at work" in printed
    assert "replay:   python -m pytest test_own.py::test_broken\n" in printed
    assert "1 turn was not asked for" in printed


def test_a_project_without_flowtrio_does_not_pay_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_other():\n"
        "    assert not {'flowtrio', 'trio', 'hypothesis'} & set(sys.modules)\n"
        "def test_fails():\n"
        "    assert False\n"
    )
    printed = run_pytest(tmp_path, "-p", "no:hypothesispytest", "-p", "no:trio", "-p", "no:cov")

    assert "1 failed, 1 passed" in printed
    assert "flowtrio" not in printed.replace(str(tmp_path), "")


def test_a_file_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[]")
    for name in ("missing.json", "bad.json"):
        printed = run_pytest(tmp_path, f"--flowtrio-replay={name}")
        assert f"--flowtrio-replay {name}: no such run" in printed


def test_a_replay_of_a_test_that_simulates_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(RACE + "\ndef test_other():\n    pass\n")
    case = Case(reader=Reader(), faults=(), schedule=Schedule(), model=None)
    (tmp_path / "case.json").write_bytes(case.to_json())
    printed = run_pytest(tmp_path, "--flowtrio-replay=case.json")

    assert "1 failed, 1 passed" in printed
    assert "FAILED test_shop.py::test_other" in printed
    assert "--flowtrio-replay case.json: nothing was replayed, since this test" in printed


# The parts, in this process


class FakeItem:
    """As much of a test as the report needs."""

    nodeid = "tests/test_a.py::test_b[x y]"

    def __init__(self, folder: Path | None) -> None:
        self.config = self
        self.invocation_params = self
        self.dir = folder or Path("/nowhere")
        if folder is not None:
            self.cache = self

    def mkdir(self, name: str) -> Path:
        """See pytest's cache."""
        path = self.dir / name
        path.mkdir(exist_ok=True)
        return path


async def _hello(ctx: Any, message: str) -> str:
    return "hello"


async def _chatty(ctx: Any, message: str) -> None:
    for number in range(50):
        await ctx.status(str(number))


def test_a_report_names_three_files_as_they_are_typed(tmp_path: Path) -> None:
    simulate(_hello, "hi", schedule=1)
    text = tell(FakeItem(tmp_path), recent[-1])  # type: ignore[arg-type]

    assert "run 'hi'" in text
    assert "log:      flowtrio/tests_test_a.py_test_b_x_y_.jsonl" in text
    assert "replay:   python -m pytest 'tests/test_a.py::test_b[x y]' --flowtrio-replay=" in text
    [case] = tmp_path.glob("flowtrio/*.json")
    assert recent[-1].case is not None
    assert Case.from_json(case.read_bytes()).schedule == recent[-1].case.schedule


def test_without_a_cache_the_files_go_elsewhere_and_long_timelines_only_there() -> None:
    simulate(_chatty, "hi")
    text = tell(FakeItem(None), recent[-1])  # type: ignore[arg-type]
    [name] = re.findall(r"timeline: (.*)", text)

    assert "running: 7" not in text
    assert "running: 7" in Path(name).read_text("utf-8")


def test_a_case_that_is_forced_is_played_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowtrio.testing import Fault, SimulatedModel

    case = Case(
        reader=Reader(),
        faults=(Fault("cancel", 3),),
        schedule=Schedule(),
        model=SimulatedModel(["forced"]),
    )
    forced.append(Case.from_json(case.to_json()))
    try:
        assert simulate(_hello, "hi").status == "cancelled"
    finally:
        forced.clear()
    assert simulate(_hello, "hi").status == "completed"


def test_a_forced_case_without_a_model_leaves_the_tests_own() -> None:
    from flowtrio import Agent

    forced.append(Case(reader=Reader(), faults=(), schedule=Schedule(), model=None))
    try:
        assert simulate(Agent(llm_client=ScriptedModel("mine")), "hi").result == "mine"
    finally:
        forced.clear()


async def test_a_recorder_keeps_what_a_loop_of_ones_own_reads() -> None:
    recorder = RunRecorder()
    for number in range(2):
        async with StreamEngine().stream(_hello, f"hi {number}") as stream:
            async for event in stream:
                assert recorder.keep(event) is event

    assert recorder.events[0].data["message"] == "hi 1"
    assert recent[-1] == Played(recorder.events)
    text = tell(FakeItem(None), recent[-1])  # type: ignore[arg-type]
    assert text.endswith("replay:   python -m pytest 'tests/test_a.py::test_b[x y]'")
    events = await recorder.read(StreamEngine().stream(_hello, "hi"))
    assert events is recorder.events
    assert recorder.events[-1].type is EventType.DONE


async def test_a_recorder_checks_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = RunRecorder()
    monkeypatch.setattr(recorder, "keep", lambda event: None)
    with pytest.raises(LawBroken, match="the log ends without DONE"):
        await recorder.read(StreamEngine().stream(_hello, "hi"))


def test_a_model_of_ones_own_is_not_written_down() -> None:
    from flowtrio import Agent, Chunk, Usage
    from flowtrio.testing import SimulatedModel

    simulate(Agent(llm_client=ScriptedModel("a")), "hi")
    assert recent[-1].case is not None
    assert recent[-1].case.model is None
    for step in (Usage(), Chunk(content="x"), ValueError("x")):
        model = SimulatedModel([[step]])
        case = attrs_evolve(recent[-1].case, model=model)
        assert Case.from_json(case.to_json()).model is None


def attrs_evolve(case: Case, **changes: Any) -> Case:
    """The case with a model."""
    import attrs

    return attrs.evolve(case, **changes)
