"""Telemetry: it hears of what is recorded, of all but the pieces, and costs the run nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio

from flowtrio import (
    Agent,
    AgentEvent,
    Chunk,
    EventStream,
    EventType,
    Orchestrator,
    RunContext,
    StreamEngine,
    ToolCall,
    tool,
)
from flowtrio._core._telling import log_keys, tell
from flowtrio._run._controls import run_of
from flowtrio.testing import ScriptedModel, check_events

T = EventType
PIECES = {T.MESSAGE_CHUNK, T.REASONING_CHUNK, T.TOOL_CALL_ARGS, T.TOOL_PROGRESS}


class Listener:
    """Keeps what it hears of."""

    def __init__(self) -> None:
        self.heard: list[AgentEvent] = []

    def observe(self, event: AgentEvent) -> None:
        self.heard.append(event)

    @property
    def types(self) -> list[EventType]:
        return [event.type for event in self.heard]


@tool
async def look(ctx: RunContext, items: list[int]) -> list[int]:
    """Look something up."""
    await ctx.progress({"percent": 50})
    return items


@tool
async def wait() -> None:
    """Wait for ever."""
    await trio.sleep_forever()


def agent_of(*turns: Any, **options: Any) -> Agent:
    return Agent(llm_client=ScriptedModel(*turns), tools=[look, wait], **options)


LOOKS = [Chunk(reasoning="hm"), "well", ToolCall("a", "look", {"items": [1]})]
WAITS = [ToolCall("a", "wait", {}), ToolCall("b", "wait", {})]


async def test_it_hears_of_all_but_the_pieces_in_the_logs_order() -> None:
    listener = Listener()
    async with StreamEngine(telemetry=listener).stream(agent_of(LOOKS, "done"), "Hi") as stream:
        log = [event async for event in stream]

    assert listener.heard == [event for event in log if event.type not in PIECES]
    assert {event.type for event in log} >= PIECES


@pytest.mark.parametrize("how", ["break", "cancel", "a scope", "never read"])
async def test_it_hears_of_the_closers_whichever_way_the_reader_left(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    listener = Listener()
    with trio.move_on_after(1):
        async with StreamEngine(telemetry=listener).stream(agent_of(WAITS), "Hi") as stream:
            await trio.sleep(0.5)
            while how != "never read":
                event = await anext(stream)
                if event.type is T.TOOL_CALL_START and how == "break":
                    break
                if event.type is T.TOOL_CALL_START and how == "cancel":
                    stream.cancel()
                    break

    assert listener.types[-2:] == [T.STATE_CHANGE, T.DONE]
    assert listener.types.count(T.TOOL_CALL_END) == listener.types.count(T.TOOL_CALL_START) == 2


async def test_it_hears_of_an_event_in_the_step_that_records_it() -> None:
    """Whoever reads an event finds that the telemetry knows of it, and of none that is later."""
    listener = Listener()
    agent = agent_of(LOOKS, "done")
    async with StreamEngine(telemetry=listener).stream(agent, "Hi") as stream:
        await trio.testing.wait_all_tasks_blocked()
        undelivered = stream.statistics().events
        newest = [event.seq for event in listener.heard]
        async for _ in stream:
            pass

    assert newest
    assert max(newest) == undelivered - 1


async def test_what_it_does_to_an_event_reaches_nobody() -> None:
    class Vandal:
        def observe(self, event: AgentEvent) -> None:
            for value in event.data.values():
                if isinstance(value, dict):
                    value.clear()
            event.data.clear()

    async with StreamEngine(telemetry=Vandal()).stream(agent_of(LOOKS, "done"), "Hi") as stream:
        log = [event async for event in stream]

    check_events(log)
    assert [e.data["result"] for e in log if e.type is T.TOOL_CALL_END] == [[1]]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("at", [T.RUN_START, T.TOOL_CALL_START, T.TOOL_CALL_END, T.DONE])
async def test_one_that_raises_is_told_of_once_and_hears_no_more_of_that_run(
    at: EventType, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Raises(Listener):
        def observe(self, event: AgentEvent) -> None:
            super().observe(event)
            if event.type is at:
                raise error

    listener = Raises()
    engine = StreamEngine(telemetry=listener)
    for _ in range(2):
        caplog.clear()
        async with engine.stream(agent_of(LOOKS, "done"), "Hi") as stream:
            log = [event async for event in stream]
        told = [record for record in caplog.records if "telemetry" in record.getMessage()]

        check_events(log)
        assert log[-1].data["status"] == "completed"
        assert [record.levelno for record in told] == [logging.ERROR]
        assert vars(told[0])["run_id"] == stream.run_id
        assert [e.type for e in listener.heard if e.run_id == stream.run_id][-1] is at


ACTS: dict[str, Callable[[EventStream], object]] = {
    "cancel": lambda stream: stream.cancel("heard"),
    "cancel one": lambda stream: stream.cancel_tool("c3"),
    "cancel all": lambda stream: [stream.cancel_tool(f"c{n}") for n in range(1, 5)],
}


async def log_of_acting(at: EventType, act: Callable[[EventStream], object]) -> list[AgentEvent]:
    """The log of a run in which a call ends early that makes three; and somebody who hears of it
    acts there and then."""
    streams: list[EventStream] = []

    class Acts:
        def observe(self, event: AgentEvent) -> None:
            if event.type is at and streams:
                act(streams[0])

    @tool
    async def several(ctx: RunContext) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ctx.call, wait)

    async def agent(ctx: RunContext, message: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.call, several)
            await trio.sleep(1)
            streams[0].cancel_tool("c1")

    async with StreamEngine(telemetry=Acts()).stream(agent, "Hi") as stream:
        streams.append(stream)
        return [event async for event in stream]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("at", [T.TOOL_CALL_START, T.TOOL_CALL_END, T.STATE_CHANGE, T.ERROR])
async def test_one_may_end_a_call_or_the_run_in_the_very_step(
    at: EventType, act: str, autojump_clock: trio.testing.MockClock
) -> None:
    log = await log_of_acting(at, ACTS[act])

    check_events(log)
    assert log[-1].data["leftover"] == []
    if act == "cancel" and at in (T.TOOL_CALL_START, T.TOOL_CALL_END):
        assert log[-1].data["reason"] == "heard"


@pytest.mark.parametrize("earlier", [None, "earlier"])
async def test_a_run_that_ends_as_it_begins_has_one_reason(earlier: str | None) -> None:
    took: list[bool] = []

    class Cancels:
        def observe(self, event: AgentEvent) -> None:
            if event.type is T.RUN_START:
                took.append(stream.cancel("heard"))

    stream = StreamEngine(telemetry=Cancels()).stream(agent_of("hi"), "Hi")
    if earlier is not None:
        assert stream.cancel(earlier)
    log = [event async for event in stream]

    check_events(log)
    assert took == [earlier is None]
    assert [event.type for event in log] == [T.RUN_START, T.STATE_CHANGE, T.DONE]
    assert log[-1].data["reason"] == (earlier or "heard")


@pytest.mark.parametrize(
    ("is_planted", "code"), [(False, "agent_failed"), (True, "internal_failed")]
)
async def test_what_is_closed_is_not_closed_again_by_whoever_began_to(
    is_planted: bool,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The planted bug does not ask again whether it is still open."""
    if is_planted:
        monkeypatch.setattr("flowtrio._core._brackets.Brackets.is_open", lambda self, other: True)
    log = await log_of_acting(T.TOOL_CALL_END, ACTS["cancel all"])

    assert log[-1].data["reason"] == code


@pytest.mark.parametrize("wrong", [object(), Listener, "otel", lambda event: None])
def test_what_cannot_hear_is_refused_where_it_is_given(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"telemetry=.*: expected an object with a plain def"):
        StreamEngine(telemetry=wrong)
    with pytest.raises(TypeError, match="expected an object with a plain def"):
        Orchestrator(llm_client=ScriptedModel(), telemetry=wrong)


def test_what_would_have_to_be_awaited_is_refused() -> None:
    class Waits:
        async def observe(self, event: AgentEvent) -> None:
            """Never run."""

    with pytest.raises(TypeError, match="expected an object with a plain def"):
        StreamEngine(telemetry=Waits())  # type: ignore[arg-type]


# One for each run


class OfRun(Listener):
    def __init__(self, keys: Any, error: BaseException | None = None) -> None:
        super().__init__()
        self.keys, self.error = keys, error
        self.around: list[str] = []

    @property
    def log_keys(self) -> Mapping[str, str]:
        if self.error is not None and self.heard:
            raise self.error
        return self.keys  # type: ignore[no-any-return]

    async def around_agent(self, ctx: RunContext, proceed: Any) -> Any:
        self.around.append(ctx.agent)
        return await proceed()

    async def around_tool(self, ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        self.around.append(f"{call.name} {call.id}")
        return await proceed()


class PerRun(Listener):
    def __init__(self, keys: Any = None, error: BaseException | None = None) -> None:
        super().__init__()
        self.keys, self.error = {} if keys is None else keys, error
        self.runs: dict[tuple[str, str], OfRun] = {}

    def of_run(self, run_id: str, tenant_id: str) -> OfRun:
        self.runs[tenant_id, run_id] = OfRun(self.keys, self.error)
        return self.runs[tenant_id, run_id]


async def test_one_that_is_asked_for_each_run_keeps_equal_ids_of_two_tenants_apart() -> None:
    telemetry = PerRun()
    async with (
        Orchestrator(llm_client=ScriptedModel("a", "b"), telemetry=telemetry) as orchestrator,
        orchestrator.process_stream("Hi", "left", run_id="r") as one,
        orchestrator.process_stream("Hi", "right", run_id="r") as other,
    ):
        logs = [[event async for event in one], [event async for event in other]]

    assert telemetry.heard == []
    assert list(telemetry.runs) == [("left", "r"), ("right", "r")]
    for log, run in zip(logs, telemetry.runs.values(), strict=True):
        assert run.heard == [event for event in log if event.type not in PIECES]


async def test_it_stands_around_agents_and_tools_and_outermost() -> None:
    telemetry = PerRun()
    order = []

    async def around(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        order.append(list(telemetry.runs["default", ctx.run_id].around))
        return await proceed()

    async def outer(ctx: RunContext, message: str) -> Any:
        return await ctx.delegate(agent_of(LOOKS, "done", name="inner"), message)

    engine = StreamEngine(telemetry=telemetry, around_tool=around)
    async with engine.stream(outer, "Hi") as stream:
        assert await stream.result() == "done"

    [run] = telemetry.runs.values()
    assert run.around == ["root", "root/inner", "look c1"]
    assert order == [run.around]


async def test_a_run_that_nobody_can_be_made_for_goes_on_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Breaks(Listener):
        def of_run(self, run_id: str, tenant_id: str) -> Listener:
            raise ValueError("none left")

    async with StreamEngine(telemetry=Breaks()).stream(agent_of("done"), "Hi") as stream:
        assert await stream.result() == "done"

    assert [record.levelno for record in caplog.records if "telemetry" in record.msg] == [40]


# Lines


async def test_lines_of_a_run_and_of_its_code_carry_its_id_and_what_telemetry_adds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @tool
    async def breaks() -> None:
        tell(logging.WARNING, "a client has words")
        raise ValueError("no")

    given = {"trace_id": "t", "message": "m", "run_id": "x", "levelname": "y", "n": 3, 4: "4"}
    agent = Agent(llm_client=ScriptedModel([ToolCall("a", "breaks", {})], "done"), tools=[breaks])
    caplog.set_level(logging.INFO, "flowtrio")
    engine = StreamEngine(telemetry=PerRun(given))
    async with engine.stream(agent, "Hi", run_id="r") as stream:
        await stream.result()
    records = [vars(record) for record in caplog.records if record.name == "flowtrio"]

    assert [record["msg"].split()[0] for record in records] == ["a", "tool", "run"]
    assert [(record["run_id"], record["trace_id"]) for record in records] == [("r", "t")] * 3
    assert not any("n" in record for record in records)


async def test_lines_inside_a_run_carry_its_id_without_any_telemetry(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def agent(ctx: RunContext, message: str) -> None:
        tell(logging.WARNING, "inside", keys={"more": 1})
        tell(logging.WARNING, "run %s: of another run", "other")

    async with StreamEngine().stream(agent, "Hi", run_id="r") as stream:
        await stream.result()
    tell(logging.WARNING, "outside")
    inside, other, outside = (vars(record) for record in caplog.records)

    assert (inside["run_id"], inside["more"]) == ("r", 1)
    assert other["run_id"] == "other"
    assert "run_id" not in outside
    assert log_keys() == {}


async def test_keys_that_cannot_be_told_are_left_out_and_switch_it_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def agent(ctx: RunContext, message: str) -> str:
        tell(logging.WARNING, "a line")
        return "done"

    telemetry = PerRun(error=ValueError("no keys"))
    async with StreamEngine(telemetry=telemetry).stream(agent, "Hi") as stream:
        assert await stream.result() == "done"

    [run] = telemetry.runs.values()
    assert run.types == [T.RUN_START, T.STATE_CHANGE]
    assert [r.levelno for r in caplog.records if "telemetry" in r.getMessage()] == [40]


def test_an_end_that_is_not_lawful_is_heard_of_too() -> None:
    """Which takes a bug of ours; but whoever waits for the end would wait for ever."""
    listener = Listener()

    async def agent(ctx: RunContext, message: str) -> None:
        raise AssertionError

    log = run_of(StreamEngine(telemetry=listener).stream(agent, "hi")).log

    async def main() -> None:
        log.start(lambda: 0.0)
        log.record_last(T.DONE, {"status": "completed"})

    trio.run(main)

    assert listener.types == [T.DONE]
