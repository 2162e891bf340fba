"""The plugin: fixtures, what a failed test leaves behind, and how that is played again.

Most tests here start a pytest of their own, since that is what has to work.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import DidNotReproduce

from flowtrio import Agent, Chunk, EventType, RunContext, StreamEngine, Usage
from flowtrio.testing import (
    Fault,
    LawBroken,
    Reader,
    RunRecorder,
    Schedule,
    ScriptedModel,
    SimulatedModel,
    check_events,
    simulate,
)
from flowtrio.testing._hypothesis import current_example, drawn_for
from flowtrio.testing._pytest import replaying, tell
from flowtrio.testing._replay import Case, Played, Replay, forced, recent, replayed
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
    assert re.search(r"choice \d+: .*pay \(c2\) ran before .*look \(c1\)", first)
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


TWO_TURNS = """
from pathlib import Path
from flowtrio import Agent, DemoClient, ToolCall, tool
from flowtrio.testing import Reader, SimulatedModel, readers, simulate
from hypothesis import Phase, given, settings, strategies as st

SETTINGS = settings(
    derandomize=True, database=None, max_examples=400, deadline=None, phases=[Phase.generate]
)

@tool(needs_approval=True)
def ship(item: str) -> str:
    return item

model = SimulatedModel([[ToolCall("1", "ship", {"item": "lamp"})], "sent"] * 2)
shop = Agent(llm_client=model, tools=[ship])

def talk(first, second):
    with Path("bodies").open("a") as file:
        file.write("x")
    asked = simulate(shop, "one", reader=first)
    asked_again = simulate(shop, "two", history=asked.messages, reader=second)
    return len(asked.calls("ship")), len(asked_again.calls("ship"))

def test_plain():
    assert talk(Reader(approves=False), Reader()) != (0, 1)

def test_loop():
    for number in range(9):
        assert talk(Reader(approves=number != 5), Reader()) != (0, 1)

@SETTINGS
@given(st.integers(), readers(), readers())
def test_drawn(number, first, second):
    assert number < 1000 or talk(first, second) != (0, 1)

class TestOfClass:
    @SETTINGS
    @given(st.data())
    def test_asking(self, data):
        first, second = data.draw(readers()), data.draw(readers())
        assert talk(first, second) != (0, 1) or data.draw(st.integers()) < 1000
"""


@pytest.mark.parametrize(
    ("test", "bodies"),
    [("test_plain", 1), ("test_loop", 6), ("test_drawn", 1), ("TestOfClass::test_asking", 1)],
)
def test_a_replay_plays_every_run_of_a_body_in_order_and_the_body_once(
    tmp_path: Path, test: str, bodies: int
) -> None:
    path = tmp_path / "test_two.py"
    path.write_text(TWO_TURNS)
    first = run_pytest(tmp_path, f"test_two.py::{test}")
    command = re.search(r"replay: +python -m (pytest .*)", first)
    assert command is not None, first

    (tmp_path / "bodies").unlink()
    arguments = shlex.split(command[1])[1:]
    again = run_pytest(tmp_path, *arguments)

    assert "1 failed" in again, again
    assert "(0, 1) != (0, 1)" in again
    assert (tmp_path / "bodies").read_text() == "x" * bodies

    # When the fault is mended the same command says so.
    path.write_text(TWO_TURNS.replace("!= (0, 1)", "!= (0, 2)"))
    assert "1 passed" in run_pytest(tmp_path, *arguments)


OWN_READER = """
import attrs

from flowtrio import Agent
from flowtrio.testing import Reader, ScriptedModel, simulate


@attrs.frozen(kw_only=True)
class Impatient(Reader):
    told: object = attrs.field(factory=object)

    def _react(self, stream, type, data, started):
        stream.cancel("I have seen enough")


def test_it():
    run = simulate(Agent(llm_client=ScriptedModel("hm")), "go", reader=Impatient())
    assert run.status == "completed"
"""


def test_a_reader_of_the_tests_own_is_the_tests_in_a_replay_too(tmp_path: Path) -> None:
    (tmp_path / "test_reader.py").write_text(OWN_READER)
    first = run_pytest(tmp_path)
    command = re.search(r"replay: +python -m (pytest .*)", first)

    assert "INTERNALERROR" not in first
    assert command is not None
    again = run_pytest(tmp_path, *shlex.split(command[1])[1:])
    assert "assert 'cancelled' == 'completed'" in again


def test_a_replay_that_does_not_fit_the_test_says_so(tmp_path: Path) -> None:
    path = tmp_path / "test_two.py"
    path.write_text(TWO_TURNS)
    printed = run_pytest(tmp_path, "test_two.py::test_plain")
    command = re.search(r"replay: +python -m (pytest .*)", printed)
    assert command is not None
    arguments = shlex.split(command[1])[1:]

    path.write_text("from flowtrio.testing import simulate\n" + ONE_TURN)
    once = run_pytest(tmp_path, *arguments)

    assert "only 1 of 2 runs were replayed, since this test has not called" in once
    assert "flowtrio.testing.simulate more often. Name the test" in once


ONE_TURN = """
async def hello(ctx, message):
    return message

def test_plain():
    simulate(hello, "hi")
"""


def test_a_replay_of_a_test_that_draws_something_else_by_now_says_so(tmp_path: Path) -> None:
    path = tmp_path / "test_two.py"
    path.write_text(TWO_TURNS)
    printed = run_pytest(tmp_path, "test_two.py::test_drawn")
    command = re.search(r"replay: +python -m (pytest .*)", printed)
    assert command is not None

    drawn = "readers())\ndef test_drawn(number, first, second)"
    more = (
        "readers(), st.lists(st.integers(), min_size=9))\ndef test_drawn(number, first, second, _)"
    )
    path.write_text(TWO_TURNS.replace(drawn, more))
    again = run_pytest(tmp_path, *shlex.split(command[1])[1:])

    assert "DidNotReproduce: The shape of the test data has changed" in again


EXPLICIT = """
import pytest
from flowtrio.testing import Reader, readers, simulate
from hypothesis import example, given

async def asks(ctx, message):
    return await ctx.ask("Which?")

@pytest.fixture(scope="module")
def greeted():
    return simulate(asks, "hello", reader=Reader(answers="fixture")).result

@example(number=3, reader=Reader(answers="blue"))
@example(number=4, reader=Reader(answers="red"))
@given(number=..., reader=readers())
def test_explicit(greeted, number: int, reader):
    assert greeted == "fixture"
    assert (number, simulate(asks, "hi", reader=reader).result) != (4, "red")
"""


def test_a_replay_of_an_explicit_example_leaves_fixtures_alone(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(EXPLICIT)
    first = run_pytest(tmp_path)
    command = re.search(r"replay: +python -m (pytest .*)", first)
    assert command is not None, first
    again = run_pytest(tmp_path, *shlex.split(command[1])[1:])

    assert "(4, 'red') != (4, 'red')" in first
    assert "(4, 'red') != (4, 'red')" in again


EXAMPLE = """
from hypothesis import example, given, strategies as st
from flowtrio.testing import simulate

async def hello(ctx, message):
    return message

runs = []

@example(number=3)
@given(number=st.integers(5, 50))
def test_explicit(number):
    runs.append(number)
    print("run", number)
    assert simulate(hello, "hi").result != "hi" or FIXED
"""


def test_a_replay_of_an_explicit_example_does_not_search(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(EXAMPLE + "\nFIXED = False\n")
    first = run_pytest(tmp_path)
    command = re.search(r"replay: +python -m (pytest .*)", first)
    assert command is not None, first
    (tmp_path / "test_it.py").write_text(EXAMPLE + "\nFIXED = True\n")
    again = run_pytest(tmp_path, "-s", *shlex.split(command[1])[1:])

    assert re.findall(r"run (\d+)", again) == ["3"]
    assert "1 passed" in again


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
    (tmp_path / "case.json").write_bytes(Replay([CASE], "").to_json())
    printed = run_pytest(tmp_path, "--flowtrio-replay=case.json")

    assert "1 failed, 1 passed" in printed
    assert "FAILED test_shop.py::test_other" in printed
    assert "--flowtrio-replay case.json: nothing was replayed, since this test" in printed


# The parts, in this process

CASE = Case(reader=Reader(), faults=(), schedule=Schedule(), model=None)


class FakeItem:
    """As much of a test as the report needs."""

    nodeid = "tests/test_a.py::test_b[x y]"

    def __init__(self, folder: Path | None) -> None:
        self.config = self
        self.invocation_params = self
        self.dir = folder or Path("/nowhere")
        if folder is not None:
            self.cache = self

    def getoption(self, name: str) -> str:
        """See pytest's configuration."""
        return f"the file of {name}"

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
    assert Replay.from_json(case.read_bytes()) == Replay(recent[-1].cases)


def test_without_a_cache_the_files_go_elsewhere_and_long_timelines_only_there() -> None:
    simulate(_chatty, "hi")
    text = tell(FakeItem(None), recent[-1])  # type: ignore[arg-type]
    [name] = re.findall(r"timeline: (.*)", text)

    assert "running: 7" not in text
    assert "running: 7" in Path(name).read_text("utf-8")


@pytest.fixture
def force() -> Iterator[Callable[..., None]]:
    """Have simulations play some cases."""
    yield lambda *cases: forced.append(Replay.from_json(Replay(cases).to_json()))
    forced.clear()
    replayed.clear()
    recent.clear()


def test_cases_that_are_forced_are_played_instead_in_order(force: Any) -> None:
    recent.clear()
    force(attrs.evolve(CASE, faults=(Fault("cancel", 3),)), CASE)

    statuses = [simulate(_hello, "hi", faults=[Fault("cut_off", 3)]).status for _ in range(3)]
    assert statuses == ["cancelled", "completed", "cancelled"]
    assert len(replayed) == 2


def test_a_forced_model_takes_the_place_of_the_one_that_was_drawn_only(force: Any) -> None:
    async def trip(ctx: RunContext, message: str) -> list[str]:
        others = Agent(llm_client=ScriptedModel("mine"), name="other")
        return [await ctx.delegate(others, message), await root(ctx, message)]

    root = Agent(llm_client=SimulatedModel(["drawn"]))
    force(*[attrs.evolve(CASE, model=SimulatedModel(["forced"]))] * 3)

    recent.clear()
    assert simulate(root, "hi").result == "forced"
    assert simulate(trip, "hi").result == ["mine", "drawn"]
    assert simulate(trip, "hi", model=SimulatedModel(["all"])).result == ["forced", "forced"]


def test_a_forced_case_without_a_model_leaves_the_tests_own(force: Any) -> None:
    force(CASE)
    assert simulate(Agent(llm_client=ScriptedModel("mine")), "hi").result == "mine"


def test_outside_a_test_only_the_last_run_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(_hello, "hi")
    simulate(_hello, "hi")
    assert len(recent[-1].cases) == 2

    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    simulate(_hello, "hi")
    assert len(recent[-1].cases) == 1


@settings(max_examples=5)
@given(st.integers())
def test_each_example_of_a_property_begins_anew(number: int) -> None:
    simulate(_hello, str(number))
    simulate(_hello, str(number))

    assert len(recent[-1].cases) == 2
    assert drawn_for(recent[-1].example)


class FakeTest(FakeItem):
    """A test of Hypothesis that fails for large numbers until it is mended."""

    def __init__(self) -> None:
        super().__init__(None)
        self.seen: list[int] = []
        self.drawn = ""
        self.limit = 1000
        self.text = st.just("")
        self.obj = self.make()

    def make(self) -> Any:
        @settings(database=None, derandomize=True, phases=[Phase.generate], deadline=None)
        @given(st.integers(), self.text)
        def obj(number: int, text: str) -> None:
            self.seen.append(number)
            self.drawn = drawn_for(current_example()) or ""
            simulate(_hello, "hi")
            assert number < self.limit

        return obj


def test_what_was_drawn_is_drawn_again_and_the_body_runs_once(force: Any) -> None:
    test: Any = FakeTest()
    with pytest.raises(AssertionError):
        test.obj()
    replay, number = Replay([CASE], test.drawn), test.seen[-1]
    forced.append(replay)

    test.seen.clear()
    with pytest.raises(AssertionError), replaying(test, replay):
        test.obj()
    assert test.seen == [number]
    assert replayed == [CASE]

    test.limit = number + 1
    with replaying(test, replay):
        test.obj()
    assert test.seen == [number] * 2

    test.text = st.text(min_size=9)
    test.obj = test.make()
    with pytest.raises(DidNotReproduce), replaying(test, replay):
        test.obj()


def test_a_test_that_passes_without_playing_all_is_told(force: Any) -> None:
    recent.clear()
    item: Any = FakeItem(None)
    force(CASE, CASE)
    told = "the file of --flowtrio-replay: "
    with pytest.raises(pytest.fail.Exception, match=f"{told}nothing was replayed, since"):
        with replaying(item, forced[0]):
            pass
    with pytest.raises(pytest.fail.Exception, match=r"only 1 of 2 runs .* more often"):
        with replaying(item, forced[0]):
            simulate(_hello, "hi")


def test_a_hypothesis_without_its_private_parts_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert drawn_for(object()) == ""
    assert drawn_for(None) is None
    monkeypatch.delitem(sys.modules, "hypothesis.control")
    assert current_example() is None


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
    simulate(Agent(llm_client=ScriptedModel("a")), "hi")
    assert recent[-1].cases[-1].model is None
    for step in (Usage(), Chunk(content="x"), ValueError("x")):
        case = attrs.evolve(CASE, model=SimulatedModel([[step]]))
        assert Case.from_data(case.to_data()).model is None
