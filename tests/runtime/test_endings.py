"""However a run ends, its log ends the same way: all closed, ERROR if it failed, one DONE."""

from __future__ import annotations

import gc
import random
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import trio
import trio.testing

from flowtrio import (
    Chunk,
    DeadlineExceeded,
    EventStream,
    EventType,
    Limits,
    Orchestrator,
    RunContext,
    RunFailed,
    StreamEngine,
    ToolFailed,
    tool,
)
from flowtrio._run._run import Run
from flowtrio.testing import ScriptedModel, check_events
from tests.runtime._programs import (
    Diary,
    Endless,
    agent_of,
    calling,
    done_of,
    error_of,
    only,
    outcomes,
    play,
    runner,
    tasks,
)

T = EventType


@pytest.fixture
def diary() -> Diary:
    return Diary()


# Ends that come in one moment


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("form", ["block", "bare"])
@pytest.mark.parametrize("run", [60, 600], ids=["two", "one"])
async def test_a_model_limit_and_the_end_from_outside_in_one_tick(
    seed: int, form: str, run: float, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is awake for its alarm when the cancellation comes, in either order of the tasks."""
    # In Trio's own way of shuffling, which is all that chance is used for.
    monkeypatch.setattr(trio._core._run, "_r", random.Random(seed))
    log: list[Any] = []
    stream = StreamEngine(limits=Limits(run=run)).stream(agent_of(asks_a_silent_model), "go")
    with trio.move_on_after(60):
        async with stream if form == "block" else nullcontext():
            async for event in stream:
                log.append(event)
    with suppress(trio.EndOfChannel):
        log += await stream.receive_batch()

    check_events(log)
    assert log[-1].data["status"] == ("cancelled" if log[-2].type is not T.ERROR else "error")
    if log[-2].type is T.ERROR:
        assert log[-2].data["source"] == "deadline"


async def asks_a_silent_model(ctx: RunContext) -> None:
    class Silent:
        async def stream_completion(self, messages: Any, **options: Any) -> AsyncIterator[Chunk]:
            await trio.sleep_forever()
            yield Chunk()

    await ctx.model([], client=Silent())


# What a tool may do to its run


async def test_a_tool_that_raises_stops_nobody_else(diary: Diary, autojump_clock: Any) -> None:
    tools = [diary.failing("bad", ValueError("no")), *(diary.sleeper(n, 2) for n in "abc")]

    played = await play(runner(calling("bad", "a", "b", "c"), *tools))

    assert played.status == "completed"
    assert outcomes(played.log) == {"bad": "error", "a": "ok", "b": "ok", "c": "ok"}


async def test_a_fatal_tool_ends_its_siblings(diary: Diary, autojump_clock: Any) -> None:
    tools = [diary.failing("bad", ValueError("no"), fatal=True), diary.sleeper("a", 20)]

    played = await play(runner(calling("bad", "a"), *tools))

    assert played.status == "error"
    assert outcomes(played.log) == {"bad": "error", "a": "cancelled"}
    assert diary.running == []


async def test_two_errors_in_one_tick_give_one_error_and_its_causes(diary: Diary) -> None:
    tools = [
        diary.failing("one", ValueError("first"), fatal=True),
        diary.failing("two", KeyError("second"), fatal=True),
    ]

    played = await play(runner(calling("one", "two"), *tools))

    assert played.status == "error"
    assert len(only(played.log, T.ERROR)) == 1


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_in_a_tool_ends_the_run_and_reaches_the_caller(
    diary: Diary, interrupt: type[BaseException]
) -> None:
    log: list[Any] = []
    model = calling("stop", "a")
    agent = runner(model, diary.failing("stop", interrupt()), diary.sleeper("a"))

    with pytest.raises(interrupt):
        async with StreamEngine().stream(agent, "go") as stream:
            async for event in stream:
                log.append(event)

    check_events(log)
    assert done_of(log)["status"] == "error"
    assert diary.running == []


async def test_a_base_exception_of_ones_own_ends_the_run(diary: Diary) -> None:
    class Halt(BaseException):
        pass

    played = await play(runner(calling("stop"), diary.failing("stop", Halt())))

    assert played.status == "error"
    assert outcomes(played.log) == {"stop": "error"}


async def test_a_tool_that_never_returns_ends_with_the_run(
    diary: Diary, autojump_clock: Any
) -> None:
    played = await play(runner(calling("long"), diary.sleeper("long", 1e9)), limits=Limits(run=1.0))

    assert played.status == "error"
    assert outcomes(played.log) == {"long": "cancelled"}
    assert "deadline" in error_of(played.log)["code"]


async def test_a_tool_that_outlasts_its_own_timeout_ends_alone(
    diary: Diary, autojump_clock: Any
) -> None:
    tools = [diary.tool("late", lambda: trio.sleep(50), timeout=1), diary.sleeper("a", 2)]

    played = await play(runner(calling("late", "a"), *tools))

    assert played.status == "completed"
    assert outcomes(played.log) == {"late": "timeout", "a": "ok"}


async def test_what_a_cancelled_tool_still_cleans_up_is_awaited(
    diary: Diary, autojump_clock: Any
) -> None:
    async def leave(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START:
                break

    played = await play(runner(calling("tidy"), diary.tidy("tidy", 0.5)), reader=leave)

    assert played.status == "cancelled"
    assert diary.running == []


async def test_a_tool_that_ignores_its_cancel_is_waited_for(
    diary: Diary, autojump_clock: Any
) -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)

    async def press_stop(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START:
                assert stream.cancel("enough")
                assert not stream.cancel("again")

    played = await play(runner(calling("deaf"), diary.tool("deaf", stubborn)), reader=press_stop)

    assert played.status == "cancelled"
    assert outcomes(played.log) == {"deaf": "cancelled"}
    assert diary.running == []


@pytest.mark.parametrize("abandon", [False, True])
async def test_a_thread_may_outlive_its_call(abandon: bool) -> None:
    returned: list[bool] = []

    @tool(timeout=0.02, abandon=abandon)
    def block() -> str:
        time.sleep(0.1)
        returned.append(True)
        return "too late"

    played = await play(runner(calling("block"), block))

    assert outcomes(played.log) == {"block": "timeout"}
    assert played.status == "completed"
    # One that is not abandoned is part of its run: nothing of it is alive after the block.
    assert returned == [] if abandon else [True]
    while not returned:
        await trio.sleep(0.01)


async def test_a_stream_in_a_tool_is_a_run_of_its_own(autojump_clock: Any) -> None:
    seen: list[Any] = []

    async def inner() -> str:
        async for event in StreamEngine().stream(runner(ScriptedModel("deep")), "in"):
            seen.append(event)
        return "done"

    played = await play(runner(calling("inner"), tool(name="inner")(inner)))

    assert played.status == "completed"
    check_events(seen)
    assert seen[0].data["parent_run_id"] == played.stream.run_id


# What a model may do to its run


async def test_a_model_that_is_cut_fails_the_run() -> None:
    from flowtrio.testing import CUT

    played = await play(runner(ScriptedModel(["half a", CUT])))

    assert played.status == "error"
    assert error_of(played.log)["source"] == "model"


async def test_a_failed_run_tells_its_reason_through_the_result() -> None:
    cause = ValueError("no such thing")

    async def broken(ctx: Any, message: str) -> None:
        raise cause

    with pytest.raises(RunFailed) as caught:
        async with StreamEngine().stream(broken, "go") as stream:
            await stream.result()

    assert caught.value.__cause__ is cause


# How a reader may leave


async def _break(stream: EventStream) -> None:
    async for _ in stream:
        break


async def _raise(stream: EventStream) -> None:
    async for _ in stream:
        raise LookupError("of the reader's own")


async def _time_out(stream: EventStream) -> None:
    with trio.move_on_after(1.5):
        async for _ in stream:
            pass


LEAVING = [_break, _raise, _time_out]


@pytest.mark.parametrize("leave", LEAVING)
async def test_a_block_that_is_left_leaves_nothing_alive(
    leave: Callable[[EventStream], Awaitable[None]], autojump_clock: Any
) -> None:
    model = Endless(gap=0.1)
    before = tasks()
    stream = StreamEngine().stream(runner(model), "go")

    # The body's exception leaves as it came, in no group.
    with pytest.raises(LookupError) if leave is _raise else nullcontext():
        async with stream:
            await leave(stream)

    assert tasks() <= before
    assert stream.status == "cancelled"
    assert model.is_closed or not model.said


@pytest.mark.parametrize("leave", LEAVING)
async def test_a_bare_iterator_that_is_dropped_cancels_its_run(
    leave: Callable[[EventStream], Awaitable[None]], autojump_clock: Any
) -> None:
    model = Endless(gap=0.1)
    before = tasks()

    async with StreamEngine() as engine:
        stream = engine.stream(runner(model), "go")
        with pytest.raises(LookupError) if leave is _raise else nullcontext():
            await leave(stream)
        run = stream._run
        del stream
        gc.collect()
        with trio.fail_after(1):
            await run.wait_joined()

    assert run.log.status == "cancelled"
    assert tasks() <= before


async def test_an_iterator_may_be_dropped_in_another_thread() -> None:
    # On the real clock: a virtual one would jump to the run's deadline while the thread works.
    held = [StreamEngine().stream(runner(Endless(gap=0.01)), "go")]
    await anext(held[0])
    run = held[0]._run

    await trio.to_thread.run_sync(held.clear)

    with trio.fail_after(1):
        await run.wait_joined()
    assert run.log.status == "cancelled"


def test_an_iterator_may_be_dropped_after_the_loop_has_ended() -> None:
    async def main() -> Any:
        stream = StreamEngine().stream(runner(Endless(gap=0.01)), "go")
        await anext(stream)
        return stream

    stream = trio.run(main)

    assert stream.status == "cancelled"
    del stream
    gc.collect()  # warnings and unraisable exceptions are errors here


# Order at the end


async def test_all_that_is_open_is_closed_before_the_terminal_events(
    diary: Diary, autojump_clock: Any
) -> None:
    async def body(ctx: Any) -> None:
        async with ctx.message() as out:
            await out.write("I was just")
            ctx.start_soon(ctx.call, diary.sleeper("a", 50))
            await trio.sleep(1)
            raise ValueError("planted")

    played = await play(agent_of(body))

    types = [event.type for event in played.log]
    assert types[-3:] == [T.STATE_CHANGE, T.ERROR, T.DONE]
    assert set(types[-5:-3]) == {T.TOOL_CALL_END, T.MESSAGE_COMPLETE}
    assert done_of(played.log)["status"] == "error"


async def test_a_log_whose_end_is_missing_is_refused(diary: Diary) -> None:
    """The planted bugs that the checks above would catch."""
    played = await play(runner(calling("a"), diary.tool("a", lambda: trio.sleep(0))))
    log = played.log

    ends = [event for event in log if event.type is T.TOOL_CALL_END]
    for broken in (log[:-1], [*log, log[-1]], [event for event in log if event not in ends]):
        with pytest.raises(AssertionError):
            check_events(broken)


async def test_done_comes_with_the_last_word_where_nothing_is_left_to_clean_up() -> None:
    """Each wake-up of a reader, and of who sends on what he reads, costs as much as many tokens."""

    async def agent(ctx: RunContext) -> None:
        async with ctx.message() as out:
            await out.write("word")

    batches = []
    async with StreamEngine().stream(agent_of(agent), "go") as stream:
        with suppress(trio.EndOfChannel):
            while True:
                batches.append(await stream.receive_batch())

    assert {T.MESSAGE_CHUNK, T.MESSAGE_COMPLETE, T.DONE} <= {e.type for e in batches[-1]}


async def says_nothing(ctx: RunContext, message: str) -> str:
    return message


async def does_all(ctx: RunContext, message: str) -> None:
    @tool
    async def reports(ctx: RunContext) -> None:
        await ctx.progress(1)

    async with ctx.message() as out:
        await out.write("word")
    await ctx.call(reports)
    await ctx.model([{"role": "user", "content": "go"}], ScriptedModel("fine"))
    await ctx.delegate(says_nothing, "go")
    await ctx.approve("it")
    ctx.start_soon(trio.sleep, 0)
    with suppress(DeadlineExceeded):
        await ctx.ask("what?")


@pytest.mark.parametrize("places", [1, 8])
@pytest.mark.parametrize("is_hosted", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: says_nothing,
        lambda: runner(ScriptedModel("fine")),
        lambda: runner(calling("a", "a", "b"), Diary().sleeper("a"), Diary().sleeper("b")),
        lambda: does_all,
    ],
    ids=["nothing", "a model", "calls", "all"],
)
async def test_a_run_that_nobody_has_any_more_leaves_nothing_to_the_collector(
    make: Callable[[], Any], is_hosted: bool, places: int, autojump_clock: Any
) -> None:
    agent, limits = make(), Limits(input=1, approval=1, parallel_tools=places)

    async def run_one(orchestrator: Orchestrator) -> weakref.ref[Run]:
        if not is_hosted:
            async with orchestrator.process_stream("go") as stream:
                [event async for event in stream]
            return weakref.ref(stream._run)
        run_id = await orchestrator.start("go")
        run = weakref.ref(orchestrator._recorder.runs["default", run_id].stream._run)
        async with orchestrator.attach(run_id) as follower:
            [event async for event in follower]
        return run

    async with Orchestrator(agents=[agent], limits=limits) as orchestrator:
        gc.disable()
        try:
            run = await run_one(orchestrator)
            await trio.testing.wait_all_tasks_blocked()
            left = run()
        finally:
            gc.enable()

    assert left is None


class Mute(Exception):
    """It fails where it is asked what it is about."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("fatal", [True, False])
def test_an_exception_without_words_ends_a_run_like_any_other(fatal: bool) -> None:
    @tool(fatal=fatal)
    async def fails() -> None:
        raise Mute

    async def agent(ctx: RunContext) -> None:
        try:
            await ctx.call(fails)
        except ToolFailed:
            raise Mute from None

    # By Trio itself: pytest-trio takes a test that a stray Cancelled ended for one that passed.
    played = trio.run(play, agent_of(agent))

    check_events(played.log)
    assert error_of(played.log)["error"] == "Mute"
    assert outcomes(played.log) == {"fails": "error"}
