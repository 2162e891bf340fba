"""Engines and streams: opened and closed, in order and out of it, from every thread."""

from __future__ import annotations

import gc
import signal
import threading
from typing import Any

import pytest
import trio
import trio.testing

from flowtrio import (
    EventType,
    Limits,
    RunCancelled,
    RunContext,
    RunFailed,
    StreamEngine,
    StreamMode,
)
from flowtrio.testing import ScriptedModel, check_events
from tests.runtime._programs import Endless, agent_of, error_of, only, play, runner

T = EventType


async def forever(ctx: RunContext, message: str) -> None:
    await trio.sleep_forever()


async def test_an_engine_is_opened_once_at_a_time() -> None:
    engine = StreamEngine()
    async with engine:
        assert engine.is_open
        with pytest.raises(RuntimeError, match="twice at once"):
            async with engine:
                pass
    assert not engine.is_open
    async with engine:
        pass


def test_an_engine_opens_under_trio() -> None:
    with pytest.raises(RuntimeError, match=r"expected a call inside trio.run"):
        StreamEngine().__aenter__().send(None)


async def test_closing_an_engine_cancels_its_runs_and_joins_them(autojump_clock: Any) -> None:
    ended: list[float] = []

    async def tidy(ctx: RunContext, message: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            ended.append(trio.current_time())

    async with StreamEngine() as engine:
        stream = engine.stream(tidy, "go")
        await anext(stream)
        await anext(stream)

    assert len(ended) == 1
    assert stream.status == "cancelled"
    assert [event.type async for event in stream][-1] is T.DONE


async def test_each_run_of_an_engine_is_told_that_it_was_closed() -> None:
    """Those in its nursery, those of blocks elsewhere, and one that has hardly begun."""
    said: list[Any] = []

    async def waits(ctx: RunContext, message: str) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        engine = StreamEngine()

        async def read(task_status: trio.TaskStatus[None]) -> None:
            async with engine.stream(waits, "in a block") as stream:
                assert [await anext(stream), await anext(stream)]
                task_status.started()
                said.extend([event async for event in stream])

        async with engine:
            await nursery.start(read)
            bare = [engine.stream(waits, "bare") for _ in range(3)]
            for stream in bare[:2]:
                assert [await anext(stream), await anext(stream)]
            assert await anext(bare[2])
        for stream in bare:
            said.extend([event async for event in stream])

    reasons = [event.data["reason"] for event in said if event.type == "done"]
    assert reasons == ["the engine was closed"] * 4


async def test_the_exception_of_an_engines_block_leaves_bare(autojump_clock: Any) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with StreamEngine() as engine:
            await anext(engine.stream(forever, "go"))
            raise LookupError("mine")


async def test_a_cancellation_around_an_engine_leaves_bare(autojump_clock: Any) -> None:
    with trio.move_on_after(1) as scope:
        async with StreamEngine() as engine:
            stream = engine.stream(forever, "go")
            await anext(stream)
            await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize("way", ["cancel", "aclose"])
async def test_a_stream_that_was_ended_before_it_began_begins_no_agent(way: str) -> None:
    began: list[str] = []

    async def agent(ctx: RunContext, message: str) -> None:
        began.append(message)

    stream = StreamEngine().stream(agent, "go")
    if way == "cancel":
        assert stream.cancel("too late")
        assert not stream.cancel("again")
    else:
        await stream.aclose()
    log = [event async for event in stream]

    check_events(log)
    assert began == []
    assert [event.type for event in log] == [T.RUN_START, T.STATE_CHANGE, T.DONE]
    assert log[-1].data["status"] == "cancelled"


async def test_closing_a_bare_stream_waits_for_its_run(autojump_clock: Any) -> None:
    stream = StreamEngine().stream(runner(Endless(gap=1)), "go")
    await anext(stream)

    await stream.aclose()
    await stream.aclose()

    assert stream._run.is_joined
    with pytest.raises(RunCancelled):
        await stream.result()


async def test_a_bare_reader_that_is_cancelled_has_left(autojump_clock: Any) -> None:
    model = Endless(gap=0.1)
    stream = StreamEngine().stream(runner(model), "go")
    with trio.move_on_after(0.95):
        async for _ in stream:
            pass
    assert stream._run.is_joined

    # Also one that is cancelled while events are ready.
    stream = StreamEngine().stream(runner(ScriptedModel("one")), "go")
    await anext(stream)
    await trio.testing.wait_all_tasks_blocked()
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(stream)
    assert stream._run.is_joined


async def test_batches_show_what_the_mode_shows() -> None:
    model = ScriptedModel(["a", "b", "c"])
    seen: list[Any] = []
    async with StreamEngine().stream(runner(model), "go", mode=StreamMode.VALUES) as stream:
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.EndOfChannel):
            while True:
                seen += await stream.receive_batch()

    assert T.MESSAGE_CHUNK not in [event.type for event in seen]
    assert seen[-1].type is T.DONE
    assert all("state" in event.data for event in seen)
    assert stream.mode is StreamMode.VALUES


async def test_the_result_may_be_awaited_beside_the_reader(autojump_clock: Any) -> None:
    results: list[Any] = []
    async with StreamEngine().stream(runner(ScriptedModel([1, "a", 1, "b"])), "go") as stream:

        async def wait() -> None:
            await trio.sleep(0.5)
            results.append(await stream.result())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            log = [event async for event in stream]

    assert results == ["ab"]
    check_events(log)


def test_a_control_from_another_thread_after_the_loop_ended_takes_no_effect() -> None:
    async def main() -> Any:
        stream = StreamEngine().stream(forever, "go")
        await anext(stream)
        return stream

    stream = trio.run(main)
    took_effect: list[bool] = []
    thread = threading.Thread(target=lambda: took_effect.append(stream.cancel("late")))
    thread.start()
    thread.join()

    assert took_effect == [False]


def test_an_interrupt_in_a_run_whose_reader_is_gone_strikes_again() -> None:
    async def interrupted(ctx: RunContext, message: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    async def main() -> None:
        stream = StreamEngine().stream(interrupted, "go")
        while str(stream.status) != "running":
            await anext(stream)
        await trio.testing.wait_all_tasks_blocked()
        del stream
        gc.collect()
        await trio.sleep(5)
        raise AssertionError("not interrupted")

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)


async def test_an_interrupt_is_told_by_leaving_if_not_by_reading(autojump_clock: Any) -> None:
    async def interrupted(ctx: RunContext, message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with StreamEngine().stream(interrupted, "go") as stream:
            await trio.sleep(1)

    log = []
    with pytest.raises(trio.EndOfChannel):
        while True:
            log += await stream.receive_batch()
    check_events(log)
    assert error_of(log)["code"] == "interrupted"


async def test_an_overrun_of_the_grace_joins_the_causes_of_the_error(autojump_clock: Any) -> None:
    async def deaf(ctx: RunContext) -> None:
        async def stubborn() -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(20)

        ctx.start_soon(stubborn)
        await trio.sleep(1)
        raise ValueError("planted")

    played = await play(agent_of(deaf), limits=Limits(grace=2))

    error = error_of(played.log)
    assert error["error"] == "ValueError: planted"
    assert "DeadlineExceeded" in [cause["type"] for cause in error["causes"]]
    [done] = only(played.log, T.DONE)
    assert done["leftover"] == ["stubborn"]


async def test_what_ended_after_its_run_may_say_nothing_more(autojump_clock: Any) -> None:
    refused: list[BaseException] = []

    async def deaf(ctx: RunContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await ctx.custom("late")
                await ctx.status("late")
                await trio.sleep(20)
                for verb in (ctx.custom, ctx.status):
                    try:
                        await verb("too late")
                    except trio.ClosedResourceError as exc:
                        refused.append(exc)

    played = await play(agent_of(deaf), limits=Limits(run=1, grace=2))

    assert played.status == "error"
    assert only(played.log, T.CUSTOM) == []
    assert len(refused) >= 1


async def test_a_cancelled_that_was_kept_and_raised_again_is_an_error(autojump_clock: Any) -> None:
    async def stale(ctx: RunContext) -> None:
        kept: list[BaseException] = []
        with trio.move_on_after(1):
            try:
                await trio.sleep_forever()
            except trio.Cancelled as exc:
                kept.append(exc)
                raise
        raise kept[0]

    played = await play(agent_of(stale))

    assert "stale Cancelled" in error_of(played.log)["error"]


async def test_a_failed_run_has_all_that_is_known_in_its_exception(autojump_clock: Any) -> None:
    async def broken(ctx: RunContext) -> None:
        raise ExceptionGroup("two", [ValueError("one"), KeyError("two")])

    played = await play(agent_of(broken))

    with pytest.raises(RunFailed) as caught:
        await played.stream.result()
    assert isinstance(caught.value.__cause__, ValueError)
    assert [cause["type"] for cause in error_of(played.log)["causes"]] == ["KeyError"]


async def test_a_stopped_emitter_gives_its_credit_back(autojump_clock: Any) -> None:
    """An agent that is refused an event with the buffer full does not stop the run for good."""

    async def body(ctx: RunContext) -> str:
        for _ in range(50):
            with pytest.raises(ValueError):
                await ctx.custom("bad", float("nan"))
            with trio.move_on_after(0.1):
                await ctx.custom("good")
        return "done"

    played = await play(agent_of(body), limits=Limits(buffer=1))

    assert await played.stream.result() == "done"


async def test_leaving_a_block_whose_surroundings_are_cancelled_is_cancelled(
    autojump_clock: Any,
) -> None:
    with trio.CancelScope() as scope:
        async with StreamEngine().stream(forever, "go") as stream:
            await anext(stream)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert stream.status == "cancelled"


async def test_an_engine_waits_for_runs_of_other_tasks_until_it_is_cancelled(
    autojump_clock: Any,
) -> None:
    async def slow(ctx: RunContext, message: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(4)

    engine = StreamEngine()

    async def read() -> None:
        async with engine.stream(slow, "go") as stream:
            async for _ in stream:
                pass

    async with trio.open_nursery() as nursery:
        begun = trio.current_time()
        with trio.move_on_after(3) as scope:
            async with engine:
                nursery.start_soon(read)
                await trio.sleep(1)
        assert scope.cancelled_caught
        assert trio.current_time() == begun + 3
    assert trio.current_time() == begun + 5


async def test_many_may_wait_for_one_result(autojump_clock: Any) -> None:
    results: list[Any] = []
    async with StreamEngine().stream(runner(ScriptedModel([2, "a"])), "go") as stream:

        async def wait() -> None:
            await trio.sleep(1)
            results.append(await stream.result())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            log = [event async for event in stream]

    assert results == ["a", "a"]
    check_events(log)


def test_an_interrupt_that_nobody_read_strikes_when_the_stream_is_dropped() -> None:
    async def interrupted(ctx: RunContext, message: str) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        stream = StreamEngine().stream(interrupted, "go")
        await anext(stream)
        await trio.testing.wait_all_tasks_blocked()
        assert stream.status == "error"
        del stream
        gc.collect()
        await trio.sleep(5)
        raise AssertionError("not interrupted")

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
