"""A simulated run is a function of what it is given, whatever that is."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from hypothesis import Phase, example, find, given, settings
from hypothesis import strategies as st

from flowtrio import (
    Agent,
    AgentEvent,
    DemoClient,
    EventType,
    Limits,
    OllamaClient,
    RunCancelled,
    RunContext,
    RunFailed,
    StreamEngine,
    ToolCall,
    tool,
)
from flowtrio.testing import (
    CUT,
    Fault,
    Reader,
    RealWorld,
    Schedule,
    ScriptedModel,
    SimulatedModel,
    SimulatedRun,
    check_events,
    faults,
    models,
    readers,
    schedules,
    simulate,
)

T = EventType


@tool
async def check_stock(ctx: RunContext, item: str) -> int:
    """Look into the stock."""
    await ctx.progress(item)
    return 3


@tool
async def charge(amount: int) -> str:
    """Charge the customer."""
    await trio.sleep(0.1)
    return f"charged {amount}"


@tool(needs_approval=True)
def ship(item: str) -> str:
    """Send it, in a plain function."""
    return f"sent {item}"


SHOP = Agent(llm_client=DemoClient(), tools=[check_stock, charge, ship])

BUYS = SimulatedModel(
    [
        [
            "Let me see",
            0.5,
            ToolCall("p1", "check_stock", {"item": "lamp"}),
            ToolCall("p2", "charge", {"amount": 20}),
            ToolCall("p3", "ship", {"item": "lamp"}),
        ],
        "thanks",
    ]
)


def buy(**options: Any) -> SimulatedRun:
    """Simulate a purchase, and check all laws."""
    run = simulate(SHOP, "buy 2", model=BUYS, **options)
    run.check()
    return run


def test_a_run_is_simulated_to_its_end() -> None:
    run = buy()

    assert (run.status, run.result, run.error) == ("completed", "thanks", None)
    assert [(call.name, call.outcome, call.result) for call in run.calls()] == [
        ("check_stock", "ok", 3),
        ("charge", "ok", "charged 20"),
        ("ship", "ok", "sent lamp"),
    ]
    assert str(run.calls("charge")[0]).startswith("charge (c2, seq ")
    assert run.messages[-1]["content"] == "thanks"
    assert (run.schedule, run.deviations, run.left_alive) == (Schedule(), [], [])


@settings(max_examples=100)
@given(models(SHOP.tools), readers(), faults(), schedules())
def test_the_same_drawing_gives_the_same_log(
    model: SimulatedModel, reader: Reader, strikes: list[Fault], schedule: Schedule
) -> None:
    def once() -> list[AgentEvent]:
        agent = SHOP.replace(llm_client=model)
        return simulate(agent, "buy 2", reader=reader, faults=strikes, schedule=schedule).events

    assert once() == once()


@settings(max_examples=150)
@given(models(SHOP.tools), readers(), faults(), schedules())
def test_whatever_is_drawn_the_laws_hold(
    model: SimulatedModel, reader: Reader, strikes: list[Fault], schedule: Schedule
) -> None:
    run = simulate(
        SHOP.replace(llm_client=model), "buy 2", reader=reader, faults=strikes, schedule=schedule
    )
    run.check()


async def crowd(ctx: RunContext, message: str) -> None:
    """Three that speak at once."""

    async def speak(name: str) -> None:
        for number in range(2):
            await ctx.custom(f"{name}{number}")

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(speak, name)


def test_a_seed_is_a_schedule_and_schedules_make_different_logs() -> None:
    runs = [simulate(crowd, "go", schedule=seed) for seed in range(60)]
    logs = {" ".join(e.data["name"] for e in run.events if "name" in e.data) for run in runs}

    assert buy(schedule=3).events == buy(schedule=Schedule.from_seed(3)).events
    assert len(logs) > 15


def test_a_played_schedule_gives_the_same_log_again() -> None:
    run = buy(schedule=11)

    assert run.deviations
    assert buy(schedule=run.schedule).events == run.events
    assert buy(schedule=list(run.schedule.choices)).events == run.events


# Program 6 of the design: a property of one's own agent


class FakeDb:
    """What the shop keeps."""


@given(model=models(tools=SHOP.tools), reader=readers(), schedule=schedules())
def test_a_property_of_ones_own_agent_is_stated_in_a_few_lines(
    model: SimulatedModel, reader: Reader, schedule: Schedule
) -> None:
    shop = SHOP
    run = simulate(
        shop.replace(llm_client=model),
        "buy 2",
        reader=reader,
        schedule=schedule,
        app={"db": FakeDb()},
    )
    check_events(run.events)
    for shipped in run.calls("ship"):
        assert reader.approves is True, run.timeline()
        assert shipped.outcome in ("ok", "cancelled"), run.timeline()


@tool
async def count(item: str) -> int:
    """Count what is there."""
    return 3


async def hasty(ctx: RunContext, message: str) -> None:
    """Charges as soon as the stock was asked for, not when it is known."""
    asked = trio.Event()

    async def look() -> None:
        asked.set()
        await ctx.call(count, item="lamp")

    async def pay() -> None:
        await asked.wait()
        await ctx.call(charge, amount=20)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(pay)


def is_hasty(run: SimulatedRun) -> bool:
    """Whether it charged before the stock was known."""
    return not all(
        any(look.ended_ok_before(paid) for look in run.calls("count"))
        for paid in run.calls("charge")
    )


def test_a_race_that_spawn_order_hides_is_found_and_shrinks_to_one_choice() -> None:
    assert not is_hasty(simulate(hasty, "buy"))

    schedule = find(
        schedules(),
        lambda schedule: is_hasty(simulate(hasty, "buy", schedule=schedule)),
        settings=settings(max_examples=500, phases=[Phase.generate, Phase.shrink]),
    )

    assert len([choice for choice in schedule.choices if choice]) <= 3
    run = simulate(hasty, "buy", schedule=schedule)
    assert [d.choice for d in run.deviations] == [i for i, c in enumerate(schedule.choices) if c]
    assert str(run.deviations[-1]) in run.timeline()


def test_a_choice_between_calls_of_one_function_names_the_calls() -> None:
    async def counts(ctx: RunContext, message: str) -> None:
        async def look(item: str) -> None:
            await ctx.call(count, item=item)

        async with trio.open_nursery() as nursery:
            for item in ("lamp", "chair"):
                nursery.start_soon(look, item, name="look")

    runs = [simulate(counts, "go", schedule=seed) for seed in range(100)]
    told = [str(deviation) for run in runs for deviation in run.deviations]
    between = [line for line in told if line.count("look") == 2]

    assert between
    assert all("look (c1)" in line and "look (c2)" in line for line in between)


# Models


def test_a_model_takes_the_place_of_every_agents_own() -> None:
    visa = Agent(llm_client=DemoClient(), name="visa")

    async def trip(ctx: RunContext, message: str) -> list[str]:
        completion = await ctx.model([{"role": "user", "content": "hi"}], client=DemoClient())
        return [await ctx.delegate(visa, message), completion.content]

    run = simulate(trip, "Rome", model=SimulatedModel(["yes"]))
    run.check()

    assert run.result == ["yes", "yes"]


def test_an_agent_keeps_its_own_model_where_none_is_given() -> None:
    with ScriptedModel("hello") as model:
        assert simulate(Agent(llm_client=model), "hi").result == "hello"


def test_a_cut_stream_is_an_error_and_its_reason_is_told() -> None:
    run = simulate(SHOP, "buy", model=SimulatedModel([["so", CUT]]))
    run.check()

    assert run.status == "error"
    assert isinstance(run.error, RunFailed)
    assert run.result is None


# Faults


def test_a_cancelled_run_has_no_result() -> None:
    run = buy(faults=[Fault("cancel", 20)])

    assert isinstance(run.error, RunCancelled)
    assert run.status == "cancelled"


@pytest.mark.parametrize("kind", ["cancel", "cut_off"])
@pytest.mark.parametrize("is_bare", [False, True])
def test_a_run_that_is_struck_at_any_step_is_lawful(kind: str, is_bare: bool) -> None:
    ends = [
        buy(faults=[Fault(kind, step)], reader=Reader(is_bare=is_bare)) for step in range(0, 120, 4)
    ]

    assert {run.status for run in ends} == {"cancelled", "completed"}
    assert len({len(run.events) for run in ends}) > 10


def test_a_tool_fails_where_it_waits() -> None:
    outcomes = [
        [call.outcome for call in buy(faults=[Fault("fail", wait, call=1)]).calls("charge")]
        for wait in range(4)
    ]

    # Before it begins, while it sleeps, and no more.
    assert outcomes == [["error"], ["error"], ["ok"], ["ok"]]


def test_a_tool_is_late_and_one_call_is_cancelled() -> None:
    late = buy(faults=[Fault("delay", call=0, seconds=7)])
    cancelled = buy(faults=[Fault("cancel_tool", 0, call=1)])

    assert late.calls("charge")[0].ended < late.calls("check_stock")[0].ended
    assert {c.name: c.outcome for c in cancelled.calls()} == {
        "check_stock": "ok",
        "charge": "cancelled",
        "ship": "ok",
    }


# Plain tools, threads and sockets


def test_a_plain_tool_runs_in_the_task() -> None:
    import threading

    @tool
    def where() -> str:
        """Tell the thread."""
        return str(threading.get_ident())

    agent = Agent(llm_client=DemoClient(), tools=[where])
    run = simulate(agent, "hi", model=SimulatedModel([[ToolCall("p", "where", {})]]))

    assert [call.result for call in run.calls()] == [str(threading.get_ident())]


async def _thread(ctx: RunContext, message: str) -> None:
    await trio.to_thread.run_sync(lambda: None)


async def _socket(ctx: RunContext, message: str) -> None:
    await trio.open_tcp_stream("127.0.0.1", 9)


async def _name(ctx: RunContext, message: str) -> None:
    await trio.socket.getaddrinfo("example.invalid", 80)


async def _reverse(ctx: RunContext, message: str) -> None:
    await trio.socket.getnameinfo(("127.0.0.1", 80), 0)


async def _raw(ctx: RunContext, message: str) -> None:
    trio.socket.socket()


@pytest.mark.parametrize(
    ("agent", "what"),
    [
        (_thread, "a worker thread"),
        (_socket, "a socket"),
        (_raw, "a socket"),
        (_name, "a host's address"),
        (_reverse, "a host's name"),
        (Agent(llm_client=OllamaClient(model="m", base_url="http://127.0.0.1:9")), "a socket"),
    ],
)
def test_the_real_world_is_refused(agent: Any, what: str) -> None:
    with pytest.raises(RealWorld, match=f"asked for {what}, whose time nobody can foresee"):
        simulate(agent, "hi")


def test_the_loops_of_other_threads_keep_their_threads() -> None:
    import threading

    found: list[int] = []

    def other() -> None:
        found.append(trio.run(trio.to_thread.run_sync, lambda: 3))

    async def agent(ctx: RunContext, message: str) -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    simulate(agent, "hi").check()

    assert found == [3]


def test_threads_work_again_afterwards() -> None:
    with pytest.raises(RealWorld):
        simulate(_thread, "hi")

    assert trio.run(trio.to_thread.run_sync, lambda: 3) == 3


# What a run starts


def test_a_run_inside_is_simulated_too() -> None:
    async def outer(ctx: RunContext, message: str) -> list[str]:
        async with StreamEngine().stream(SHOP, message) as stream:
            inner = [event async for event in stream]
        check_events(inner)
        return [inner[0].run_id, inner[-1].data["status"]]

    run = simulate(outer, "go", model=BUYS, limits=Limits(approval=1))
    run.check()

    assert run.events[0].run_id == "run0"
    assert run.result == ["run1", "completed"]


# Runs without an end, and wrong uses


async def _waits(ctx: RunContext, message: str) -> None:
    await trio.sleep_forever()


async def _spins(ctx: RunContext, message: str) -> None:
    while True:
        await trio.lowlevel.checkpoint()


def test_a_run_that_waits_for_ever_is_told() -> None:
    from math import inf

    with pytest.raises(AssertionError, match=r"the run has no end: .* 2 events read"):
        simulate(_waits, "hi", limits=Limits(run=inf))


def test_a_run_that_spins_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtrio.testing._simulate.MOST_STEPS", 5000)
    with pytest.raises(AssertionError, match=r"the run has no end: 50.. steps"):
        simulate(_spins, "hi")


async def test_inside_a_loop_it_says_where_to_call_it() -> None:
    with pytest.raises(RuntimeError, match="call it from a plain def"):
        simulate(SHOP, "hi")


def test_a_run_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        simulate(SHOP, "buy", model=SimulatedModel([["so", CUT]]))

    assert caplog.records == []
    assert logging.getLogger("flowtrio").disabled is False


# Readers


@settings(max_examples=60)
@example(Reader(polls=0.2, pause=0.3))
@given(readers())
def test_every_reader_leaves_a_whole_log(reader: Reader) -> None:
    run = buy(reader=reader)

    assert run.events[-1].type is T.DONE
    assert [event.seq for event in run.events] == list(range(len(run.events)))


def test_a_person_may_refuse_or_say_nothing() -> None:
    def shipped(**options: Any) -> list[str]:
        run = buy(reader=Reader(**options))
        ends = [event.data for event in run.events if event.type is T.TOOL_CALL_END]
        return [end["outcome"] for end in ends if end["tool_name"] == "ship"]

    assert shipped() == ["ok"]
    assert shipped(approves=False) == ["denied"]
    assert shipped(approves=None) == ["timeout"]
    assert buy(reader=Reader(approves=False)).calls("ship") == []


def test_questions_are_answered_or_not() -> None:
    async def asks(ctx: RunContext, message: str) -> str:
        return await ctx.ask("Which one?")

    assert simulate(asks, "hi", reader=Reader(answers="red")).result == "red"
    silent = simulate(asks, "hi", reader=Reader(answers=None))
    assert silent.events[-2].data["deadline"] == "input"


def test_one_tool_is_cancelled_by_the_reader() -> None:
    run = buy(reader=Reader(cancels_tool=2))

    assert [call.outcome for call in run.calls()] == ["ok", "cancelled", "ok"]


@pytest.mark.parametrize(
    "reader",
    [
        Reader(breaks=5),
        Reader(raises=5),
        Reader(cancels=5),
        Reader(times_out=0.2),
        Reader(breaks=5, is_bare=True),
        Reader(raises=5, is_bare=True),
        Reader(times_out=0.2, is_bare=True),
    ],
)
def test_a_reader_that_leaves_ends_the_run(reader: Reader) -> None:
    assert buy(reader=reader).status == "cancelled"


# What a run left alive is told


def test_a_task_that_outlives_the_run_breaks_a_law() -> None:
    async def leaky(ctx: RunContext, message: str) -> None:
        trio.lowlevel.spawn_system_task(trio.sleep_forever, name="a leak")

    run = simulate(leaky, "hi")
    with pytest.raises(AssertionError, match="L5 is broken: alive after the end: a leak"):
        run.check()


def test_calls_are_compared() -> None:
    run = buy()
    [look], [paid] = run.calls("check_stock"), run.calls("charge")

    assert look.started_before(paid)
    assert look.overlaps(paid)
    assert not look.ended_ok_before(paid)
    [sent] = run.calls("ship")
    assert look.ended_before(sent)
    assert look.ended_ok_before(sent)
    assert not look.overlaps(sent)
    assert repr(run) == f"<SimulatedRun completed events={len(run.events)}>"


@given(st.integers(0, 10_000))
def test_a_long_list_of_choices_is_told_in_short(seed: int) -> None:
    run = buy(schedule=seed)
    lines = run.timeline().splitlines()

    if len(run.deviations) > 12:
        assert lines[-1] == f"and {len(run.deviations) - 12} more choices"
