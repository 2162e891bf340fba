"""`every_fault` strikes a run at each place where it can be struck, once."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from flowtrio import Agent, Limits, RunContext, ToolCall, ToolFailed, tool
from flowtrio.testing import (
    Fault,
    Reader,
    Schedule,
    ScriptedModel,
    SimulatedModel,
    SimulatedRun,
    every_fault,
    simulate,
)


class Ledger:
    """What was moved, and what is marked as refunded."""

    def __init__(self) -> None:
        self.moved: list[str] = []
        self.marked: set[str] = set()

    async def move(self, order: str, wait: Any) -> None:
        """Move the money."""
        await wait()
        self.moved.append(order)

    async def mark(self, order: str, wait: Any) -> None:
        """Mark the order as refunded."""
        await wait()
        self.marked.add(order)


async def _slowly() -> None:
    await trio.sleep(0.1)


async def _at_once() -> None:
    await trio.sleep(0)


async def _by_event() -> None:
    event = trio.Event()
    trio.lowlevel.spawn_system_task(_set, event)
    await event.wait()


async def _set(event: trio.Event) -> None:
    event.set()


WAITS = [_slowly, _at_once, trio.lowlevel.checkpoint, _by_event]

CALLS_IT = SimulatedModel(
    [
        [ToolCall("p1", "look_up", {"order": "7"})],
        [ToolCall("p2", "refund", {"order": "7"})],
        "It is on its way.",
    ]
)


@tool
async def look_up(order: str) -> str:
    """Look an order up."""
    await trio.sleep(0.2)
    return order


def tried_again_by_its_tool(wait: Any) -> Any:
    @tool(retries=2)
    async def refund(ctx: RunContext, order: str) -> str:
        """Refund an order."""
        if order not in ctx.app.marked:
            await ctx.app.move(order, wait)
            await ctx.app.mark(order, wait)
        return "refunded"

    return Agent(llm_client=CALLS_IT, tools=[look_up, refund])


def tried_again_by_its_agent(wait: Any) -> Any:
    @tool
    async def move(ctx: RunContext, order: str) -> None:
        """Move the money."""
        await ctx.app.move(order, wait)

    @tool
    async def mark(ctx: RunContext, order: str) -> None:
        """Mark it."""
        await ctx.app.mark(order, wait)

    async def refund(ctx: RunContext, order: str) -> None:
        for _ in range(3):
            try:
                await ctx.call(move, order=order)
                await ctx.call(mark, order=order)
            except ToolFailed:
                continue
            return

    return refund


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("make", [tried_again_by_its_tool, tried_again_by_its_agent])
def test_a_double_refund_is_found_within_twenty_runs(make: Any, wait: Any) -> None:
    runs = itertools.islice(every_fault(make(wait), "7", app=Ledger), 20)
    run = next(run for run in runs if len(run.app.moved) > 1)

    assert run.app.moved == ["7", "7"]
    [fault] = run.struck
    assert fault.kind == "fail"
    assert f"struck by {fault}" in run.timeline()

    # And it is this fault that does it.
    again = simulate(make(wait), "7", app=Ledger(), faults=[fault])
    assert len(again.app.moved) == 2


def runs_of(kinds: Any, **options: Any) -> list[SimulatedRun]:
    agent = tried_again_by_its_tool(_at_once)
    return list(every_fault(agent, "7", app=Ledger, kinds=kinds, **options))


def test_each_place_is_struck_once_and_each_run_is_lawful() -> None:
    agent = tried_again_by_its_tool(_at_once)
    first, *others = every_fault(agent, "7", app=Ledger)
    struck = [fault for run in others for fault in run.struck]
    kinds = Counter(fault.kind for fault in struck)

    assert (first.struck, first.status, first.app.moved) == ([], "completed", ["7"])
    assert struck == first.places()
    assert len(set(struck)) == len(struck)
    assert list(kinds) == ["fail", "cancel_tool", "delay", "cancel", "cut_off"]
    # look_up waits once, refund twice, and either can fail before it begins.
    assert (kinds["fail"], kinds["cancel_tool"], kinds["delay"]) == (5, 5, 2)
    assert kinds["cancel"] == kinds["cut_off"] > 20
    assert len({id(run.app) for run in (first, *others)}) == len(struck) + 1
    for run in others:
        run.check()
    ends = {(run.struck[0].kind, run.status) for run in others}
    assert {("fail", "completed"), ("delay", "completed"), ("cancel", "cancelled")} <= ends


def test_kinds_are_struck_in_their_order_and_one_may_be_named_alone() -> None:
    assert [run.struck for run in runs_of("delay")] == [
        [],
        [Fault("delay", call=0, seconds=5)],
        [Fault("delay", call=1, seconds=5)],
    ]
    struck = [run.struck[0].kind for run in runs_of(["cancel_tool", "fail"])[1:]]
    assert struck == ["cancel_tool"] * 5 + ["fail"] * 5


def test_it_takes_what_simulate_takes() -> None:
    says = {"role": "user", "content": "before"}
    model = SimulatedModel([[ToolCall("p", "look_up", {"order": "7"})], "looked"])
    options = {"schedule": iter([0, 1]), "history": [says], "model": model}
    runs = runs_of("fail", **options, reader=Reader(breaks=99), limits=Limits(buffer=1))

    assert [run.struck for run in runs] == [[], [Fault("fail")], [Fault("fail", 1)]]
    assert [run.result for run in runs] == ["looked"] * 3
    assert all(run.schedule == Schedule([0, 1]) and says in run.messages for run in runs)


def test_runs_are_made_as_they_are_asked_for() -> None:
    made: list[Ledger] = []

    def make() -> Ledger:
        made.append(Ledger())
        return made[-1]

    runs = every_fault(tried_again_by_its_tool(_slowly), "7", app=make)
    assert made == []
    assert next(runs).app is made[0]
    assert len(made) == 1


# Where it says that it finds nothing


def test_a_run_without_a_place_is_told() -> None:
    async def says(ctx: RunContext, message: str) -> str:
        return message

    runs = every_fault(says, "hi", kinds=("fail", "delay"))
    assert next(runs).result == "hi"
    with pytest.raises(AssertionError, match="no place for fail, delay: the run ended without"):
        next(runs)


def test_a_model_that_answers_another_time_otherwise_is_told() -> None:
    model = ScriptedModel([ToolCall("p", "look_up", {"order": "7"})], "done")
    agent = Agent(llm_client=model, tools=[look_up])
    with pytest.raises(AssertionError, match=r"^Fault\('fail'\) struck nothing: the run did not"):
        list(every_fault(agent, "7", kinds="fail"))


def test_a_state_that_outlives_the_run_is_told() -> None:
    ledger = Ledger()
    with pytest.raises(AssertionError, match=r"struck nothing: .* what its tools use by app="):
        list(every_fault(tried_again_by_its_tool(_slowly), "7", app=lambda: ledger))


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"app": Ledger()}, TypeError, r"every_fault\(app=Ledger\): expected a function"),
        ({"kinds": "explode"}, ValueError, r"Fault\('explode'\): expected one of fail, "),
        ({"kinds": ()}, ValueError, r"every_fault\(kinds=\(\)\): expected some of fail, "),
    ],
)
def test_what_is_wrong_is_told_when_it_is_called(
    options: dict[str, Any], error: Any, told: str
) -> None:
    with pytest.raises(error, match=told):
        every_fault(look_up.fn, "7", **options)


# Places


def test_a_fault_strikes_in_a_checkpoint_of_the_tool_and_in_none_of_ours() -> None:
    @tool
    async def mixed(ctx: RunContext) -> str:
        """Wait in several ways."""
        await ctx.progress("ours")
        lock = trio.Lock()
        async with lock:
            await trio.sleep(0)
        assert not lock.locked()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return "done"

    agent = Agent(llm_client=SimulatedModel([[ToolCall("p", "mixed", {})]]), tools=[mixed])
    runs = list(every_fault(agent, "go", kinds="fail"))
    outcomes = [[call.outcome for call in run.calls()] for run in runs]

    assert outcomes == [["ok"], ["error"], ["error"]]


async def _steps() -> AsyncIterator[int]:
    yield 1
    await trio.lowlevel.checkpoint()
    yield 2


@asynccontextmanager
async def _block() -> AsyncIterator[None]:
    await trio.lowlevel.checkpoint()
    try:
        yield
    finally:
        await trio.lowlevel.checkpoint()


def test_a_fault_strikes_in_a_checkpoint_below_an_asynchronous_generator() -> None:
    @tool
    async def mixed() -> str:
        """Wait in generators."""
        async for _ in _steps():
            pass
        async with _block():
            pass
        with pytest.raises(LookupError):
            async with _block():
                raise LookupError
        return "done"

    agent = Agent(llm_client=SimulatedModel([[ToolCall("p", "mixed", {})]]), tools=[mixed])
    runs = list(every_fault(agent, "go", kinds="fail"))
    outcomes = [[call.outcome for call in run.calls()] for run in runs]

    # Undisturbed; at its beginning; in the loop; four times entering or leaving a block.
    assert outcomes == [["ok"], *[["error"]] * 6]


def test_a_failure_that_nothing_waits_for_is_no_strike() -> None:
    run = simulate(tried_again_by_its_tool(_slowly), "7", app=Ledger(), faults=[Fault("fail", 9)])

    assert run.struck == []
    assert "struck by" not in run.timeline()


# What strikes nothing is not told as struck


@pytest.mark.parametrize("kind", ["cancel", "cut_off"])
def test_what_comes_when_the_run_has_begun_to_end_is_no_strike(kind: str) -> None:
    def run(step: int) -> SimulatedRun:
        agent = tried_again_by_its_tool(_slowly)
        return simulate(agent, "7", app=Ledger(), faults=[Fault(kind, step)])

    places = simulate(tried_again_by_its_tool(_slowly), "7", app=Ledger()).places(kind)
    last = places[-1].at

    assert [fault.at for fault in places] == list(range(1, last + 1))
    assert run(last).struck == [Fault(kind, last)]
    for late in range(last + 1, last + 9):
        assert (run(late).struck, run(late).status) == ([], "completed")


def test_who_leaves_before_it_meets_its_cancellation_was_not_cut_off() -> None:
    async def says(ctx: RunContext, message: str) -> str:
        async with ctx.message() as out:
            await out.write("a")
        await trio.sleep(1)
        return "b"

    reader = Reader(times_out=0.5)
    struck = [run.struck for run in every_fault(says, "go", kinds="cut_off", reader=reader)]
    kept = Reader(breaks=4)
    left = [run.struck for run in every_fault(says, "go", kinds="cut_off", reader=kept)]

    assert struck[0] == left[0] == []
    assert all(len(faults) == 1 for faults in (*struck[1:], *left[1:]))
    cut = simulate(says, "go", reader=kept, faults=[Fault("cut_off", 1), Fault("cut_off", 2)])
    assert cut.struck == [Fault("cut_off", 1)]


async def _refusing() -> None:
    """A wait that nothing gets out of."""
    task = trio.lowlevel.current_task()
    trio.lowlevel.spawn_system_task(_wake, task)
    await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)


async def _wake(task: trio.lowlevel.Task) -> None:
    trio.lowlevel.reschedule(task)


def test_a_failure_that_a_wait_refuses_strikes_at_the_next_one_or_not_at_all() -> None:
    @tool
    async def waits() -> str:
        """Wait twice for what refuses, and once for what does not."""
        await _refusing()
        await trio.sleep(1)
        await _refusing()
        return "done"

    agent = Agent(llm_client=SimulatedModel([[ToolCall("p", "waits", {})]]), tools=[waits])
    runs = list(every_fault(agent, "go", kinds="fail"))
    last = simulate(agent, "go", faults=[Fault("fail", 3)])

    assert [run.struck for run in runs] == [[], *[[Fault("fail", at)] for at in (0, 1, 2)]]
    assert [call.error for run in runs for call in run.calls()] == [
        None,
        *(f"SimulatedFailure: drawn for wait {at}" for at in (0, 1, 2)),
    ]
    assert (last.struck, last.calls()[0].outcome) == ([], "ok")


def test_a_delay_strikes_only_where_time_passes() -> None:
    delay = Fault("delay", call=1, seconds=3)
    agent = tried_again_by_its_tool(_slowly)
    cancels = simulate(agent, "7", app=Ledger(), faults=[delay]).places("cancel")
    runs = [simulate(agent, "7", app=Ledger(), faults=[cancel, delay]) for cancel in cancels]
    begun = {delay in run.struck: len(run.calls("refund")) for run in runs}

    assert begun == {False: 1, True: 1}
    for run in runs:
        for call in run.calls("refund"):
            times = [run.events[seq].timestamp for seq in (call.started, call.ended)]
            assert (delay in run.struck) == (times[1] - times[0] > 0.2), (run.timeline(), times)


def test_the_cancelling_of_a_call_that_has_ended_is_no_strike() -> None:
    @tool(timeout=1)
    async def slow() -> str:
        """Take long, and longer to clean up."""
        try:
            await trio.sleep(5)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
        return "never"

    agent = Agent(llm_client=SimulatedModel([[ToolCall("p", "slow", {})]]), tools=[slow])
    runs = list(every_fault(agent, "go", kinds="cancel_tool"))
    late = simulate(agent, "go", faults=[Fault("cancel_tool", 2)])

    assert [run.calls()[0].outcome for run in runs] == ["timeout", "cancelled", "cancelled"]
    assert late.struck == []
    assert late.calls()[0].outcome == "timeout"
