"""Runs read by asyncio tasks: every way out, and what is alive behind it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from flowtrio import (
    Agent,
    AgentStatus,
    EventStream,
    EventType,
    Orchestrator,
    RunCancelled,
    RunContext,
    RunFailed,
    StreamEngine,
    ToolCall,
)
from flowtrio._run import _asyncio, _thread
from flowtrio.aio import Bridge
from flowtrio.testing import ScriptedModel, check_events

from .programs import ENGINE, Waits, is_chunk, talk


def run(program: Callable[[], Awaitable[Any]]) -> Any:
    """Run an asyncio program that must not take long."""

    async def bounded() -> Any:
        async with asyncio.timeout(120):
            return await program()

    return asyncio.run(bounded())


def _flowtrio_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "flowtrio"]


# Reading


def test_a_stream_is_read_through_a_bridge_as_under_trio() -> None:
    async def main() -> None:
        async with Bridge() as bridge:
            async with bridge.stream(lambda: ENGINE.stream(talk, "hi")) as events:
                seen = [event async for event in events]
                assert await events.result() == "done"
            assert events.status is AgentStatus.COMPLETED

        check_events(seen)
        assert [e.data["chunk"] for e in seen if is_chunk(e)] == [f"{n} " for n in range(1000)]
        assert _flowtrio_threads() == []

    run(main)


def test_a_bare_stream_is_read_as_it_stands() -> None:
    async def main() -> None:
        stream = ENGINE.stream(talk, "hi")
        check_events([event async for event in stream])

        assert stream.messages[-1]["content"] == "done"
        assert stream.statistics().undelivered == 0
        with pytest.raises(RuntimeError, match="can't iterate run"):
            aiter(stream)
        with pytest.raises(trio.EndOfChannel):
            await stream.receive_batch()

    run(main)


def test_a_stream_is_entered_as_it_stands_and_read_in_batches() -> None:
    async def main() -> None:
        seen = []
        async with ENGINE.stream(talk, "hi") as stream:
            with pytest.raises(trio.EndOfChannel):
                while True:
                    seen += await stream.receive_batch()

        check_events(seen)

    run(main)


def test_a_result_is_awaited_without_reading() -> None:
    async def main() -> None:
        assert await ENGINE.stream(talk, "hi").result() == "done"
        assert await Orchestrator(agents=[talk]).process("hi") == "done"

        async def fail(ctx: RunContext, message: str) -> None:
            raise ValueError("no")

        with pytest.raises(RunFailed) as caught:
            await ENGINE.stream(fail, "hi").result()
        assert isinstance(caught.value.__cause__, ValueError)

    run(main)


def test_a_result_is_awaited_while_another_task_reads() -> None:
    async def main() -> None:
        async with ENGINE.stream(Waits(), "hi") as stream:

            async def read() -> None:
                async for _ in stream:
                    pass

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(read())
                await asyncio.sleep(0.01)
                with pytest.raises(trio.BusyResourceError):
                    await anext(stream)
                result = tasks.create_task(_expect_cancelled(stream))
                await asyncio.sleep(0.01)
                assert not result.done()
                assert stream.cancel("enough")

    run(main)


async def _expect_cancelled(stream: EventStream[Any]) -> None:
    with pytest.raises(RunCancelled):
        await stream.result()


def test_reads_that_are_polled_lose_nothing() -> None:
    async def slow(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            for number in range(60):
                await trio.sleep(0.002 * (number % 3))
                await out.write(f"{number} ")

    async def main() -> None:
        seen = []
        timeouts = 0
        async with ENGINE.stream(slow, "hi") as stream:
            while not seen or seen[-1].type is not EventType.DONE:
                try:
                    seen.append(await asyncio.wait_for(anext(stream), 0.001))
                except TimeoutError:
                    timeouts += 1

        check_events(seen)
        assert timeouts

    run(main)


def test_a_reader_that_stops_holds_the_run_back() -> None:
    written = []

    async def eager(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            for number in range(10_000):
                await out.write("x")
                written.append(number)

    async def main() -> None:
        buffer = StreamEngine().limits.buffer
        async with ENGINE.stream(eager, "hi") as stream:
            async for event in stream:
                if is_chunk(event):
                    break
            before = -1
            while len(written) != before:
                before = len(written)
                await asyncio.sleep(0.02)

        # A batch in hand, one before it, one in the channel.
        assert len(written) <= 3 * buffer

    run(main)


def test_many_runs_are_read_at_once() -> None:
    async def main() -> None:
        async with Bridge() as bridge:

            async def one() -> None:
                async with bridge.stream(lambda: ENGINE.stream(talk, "hi")) as events:
                    check_events([event async for event in events])

            await asyncio.gather(*[one() for _ in range(8)])

    run(main)


def test_context_variables_go_with_a_run_and_a_call() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

    async def tell(ctx: RunContext, message: str) -> str:
        return who.get()

    async def told() -> str:
        return who.get()

    async def main() -> None:
        who.set("Ada")
        assert await ENGINE.stream(tell, "hi").result() == "Ada"
        async with Bridge() as bridge:
            assert await bridge.call(told) == "Ada"
            there = bridge.function(told)

            async def ask(ctx: RunContext, message: str) -> str:
                who.set("Bob")
                return await there()

            assert await ENGINE.stream(ask, "hi").result() == "Bob"

    run(main)


# Leaving


async def _break(bridge: Bridge, stream: Callable[[], EventStream[Any]]) -> None:
    async with bridge.stream(stream) as events:
        async for event in events:
            if is_chunk(event):
                break


async def _raise(bridge: Bridge, stream: Callable[[], EventStream[Any]]) -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with bridge.stream(stream) as events:
            async for event in events:
                if is_chunk(event):
                    raise error
    assert caught.value is error


async def _time_out(bridge: Bridge, stream: Callable[[], EventStream[Any]]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            async with bridge.stream(stream) as events:
                async for _ in events:
                    pass


async def _cancel(bridge: Bridge, stream: Callable[[], EventStream[Any]]) -> None:
    has_begun = asyncio.Event()

    async def read() -> None:
        async with bridge.stream(stream) as events:
            async for event in events:
                if is_chunk(event):
                    has_begun.set()

    task = asyncio.create_task(read())
    await has_begun.wait()
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def _cancel_at_once(bridge: Bridge, stream: Callable[[], EventStream[Any]]) -> None:
    async def read() -> None:
        async with bridge.stream(stream) as events:
            await events.result()

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _cancel_twice(bridge: Bridge, stream: Callable[[], EventStream[Any]]) -> None:
    async def read() -> None:
        async with bridge.stream(stream) as events:
            async for event in events:
                if is_chunk(event):
                    break

    task = asyncio.create_task(read())
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.001)
    with pytest.raises(asyncio.CancelledError):
        await task


async def _close(bridge: Bridge, stream: Callable[[], EventStream[Any]]) -> None:
    async with bridge.stream(stream) as events:
        await anext(events)
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        with pytest.raises(RunCancelled):
            await events.result()


async def _close_bare(bridge: Bridge, stream: Callable[[], EventStream[Any]]) -> None:
    events = stream()
    async for event in events:
        if is_chunk(event):
            break
    await events.aclose()


async def _cancel_bare(bridge: Bridge, stream: Callable[[], EventStream[Any]]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            async for _ in stream():
                pass


async def _control(bridge: Bridge, stream: Callable[[], EventStream[Any]]) -> None:
    async with bridge.stream(stream) as events:
        async for event in events:
            if is_chunk(event):
                assert events.cancel("enough")
        assert events.status is AgentStatus.CANCELLED


WAYS = [
    *(_break, _raise, _time_out, _cancel, _cancel_at_once, _cancel_twice),
    *(_close, _close_bare, _cancel_bare, _control),
]


@pytest.mark.parametrize("leave", WAYS)
def test_nothing_is_alive_whichever_way_a_stream_was_left(
    leave: Callable[[Bridge, Callable[[], EventStream[Any]]], Awaitable[None]],
) -> None:
    async def main() -> None:
        waits = Waits()
        async with Bridge() as bridge:
            await leave(bridge, lambda: ENGINE.stream(waits, "hi"))

            assert waits.ended == len(waits.threads)
            assert len(_thread._shared[0].jobs) == 1  # the bridge

    run(main)


def test_a_bare_stream_that_is_dropped_cancels_its_run() -> None:
    async def main() -> None:
        waits = Waits()
        async for event in ENGINE.stream(waits, "hi"):
            if is_chunk(event):
                break
        gc.collect()
        while not waits.ended:
            await asyncio.sleep(0.001)

    run(main)


def test_a_stream_that_was_never_begun_is_closed_and_dropped_without_a_thread() -> None:
    async def main() -> None:
        stream = ENGINE.stream(talk, "hi")
        assert stream.cancel("no need")
        del stream

        assert _thread._shared == []

    run(main)


def test_a_run_that_is_cancelled_before_it_begins_has_its_log() -> None:
    async def main() -> None:
        stream = ENGINE.stream(talk, "hi")
        assert stream.cancel("no need")
        seen = [event async for event in stream]

        check_events(seen)
        assert stream.status is AgentStatus.CANCELLED

    run(main)


def test_controls_work_from_the_loop_from_other_threads_and_inside_the_run() -> None:
    async def main() -> None:
        told: list[Any] = []
        streams: list[EventStream[Any]] = []

        async def ask(ctx: RunContext, message: str) -> str:
            told.append(len(streams[0].messages))
            told.append(streams[0].approve("nothing"))
            answer = await ctx.ask("well?")
            told.append(answer)
            streams[0].cancel("inside")
            await trio.sleep_forever()

        async with Bridge() as bridge:
            streams.append(ENGINE.stream(ask, "hi"))
            async with bridge.stream(lambda: streams[0]) as events:
                async for event in events:
                    if event.type is EventType.INPUT_REQUIRED:
                        key = event.data["request_id"]
                        assert await asyncio.to_thread(events.answer, key, "yes")
                        assert not events.answer(key, "again")
            assert told == [1, False, "yes"]
            assert events.status is AgentStatus.CANCELLED
        # The thread is gone.
        assert not events.cancel()
        assert events.messages[0]["content"] == "hi"

    run(main)


# The bridge


def test_a_bridge_that_is_left_ends_what_other_tasks_do_by_it() -> None:
    async def main() -> None:
        waits = Waits()

        async def read(bridge: Bridge) -> None:
            async with bridge.stream(lambda: ENGINE.stream(waits, "hi")) as events:
                async for _ in events:
                    pass

        async with Bridge() as bridge:
            tasks = [
                asyncio.create_task(read(bridge)),
                asyncio.create_task(bridge.call(trio.sleep_forever)),
            ]
            while not waits.threads:
                await asyncio.sleep(0.001)
        found = await asyncio.gather(*tasks, return_exceptions=True)

        assert [type(error) for error in found] == [_thread.ThreadEnded, _thread.ThreadEnded]
        assert waits.ended == 1
        assert _flowtrio_threads() == []
        with pytest.raises(RuntimeError, match="the bridge is not open"):
            await bridge.call(trio.sleep, 0)
        with pytest.raises(RuntimeError, match="can't open a bridge twice"):
            await bridge.__aenter__()

    run(main)


def test_what_is_called_gives_its_value_raises_its_error_and_is_cancelled() -> None:
    async def double(number: int) -> int:
        await trio.sleep(0)
        return 2 * number

    async def fail() -> None:
        raise ExceptionGroup("both", [ValueError("a"), KeyError("b")])

    ended = []

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(1)

    async def main() -> None:
        async with Bridge() as bridge:
            assert await bridge.call(double, 21) == 42
            with pytest.raises(ExceptionGroup, match="both"):
                await bridge.call(fail)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await bridge.call(wait)
            assert ended == [1]

    run(main)


def test_an_orchestrator_is_opened_and_its_hosted_runs_are_followed() -> None:
    async def main() -> None:
        async with Bridge() as bridge:
            orchestrator = await bridge.enter(Orchestrator(agents=[talk]))
            run_id = await bridge.call(orchestrator.start, "hi")
            async with bridge.stream(lambda: orchestrator.attach(run_id)) as follower:
                assert not follower.is_over
                first = [await anext(follower), *await follower.receive_batch()]
                rest = [event async for event in follower]
            check_events([*first, *rest])
            assert follower.is_over
            assert follower.seq == rest[-1].seq

            again = orchestrator.attach(run_id, after=first[-1].seq)
            assert [event async for event in again] == rest
            with pytest.raises(trio.EndOfChannel):
                await again.receive_batch()
            await again.aclose()
            for _ in range(2):
                with pytest.raises(LookupError, match="no run 'nobody'"):
                    await anext(orchestrator.attach("nobody"))
            async with orchestrator.attach(run_id, after=rest[-1].seq) as over:
                assert over.is_over

    run(main)


def test_a_follower_may_be_polled_and_dropped_and_its_run_goes_on() -> None:
    waits = Waits()

    async def main() -> None:
        async with Bridge() as bridge:
            orchestrator = await bridge.enter(Orchestrator(agents=[waits]))
            run_id = await bridge.call(orchestrator.start, "hi")
            follower = orchestrator.attach(run_id)
            seen = []
            while not (seen and is_chunk(seen[-1])):
                seen.append(await anext(follower))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(follower), 0.01)
            assert follower.is_live
            del follower
            async with bridge.stream(lambda: orchestrator.attach(run_id)) as other:
                assert await anext(other) == seen[0]
                other.close()
                with pytest.raises(trio.ClosedResourceError):
                    await anext(other)
            assert waits.ended == 0
            assert orchestrator.attach(run_id).cancel()

    run(main)
    assert waits.ended == 1


def test_what_cannot_be_opened_says_why_and_what_takes_too_long_is_cancelled() -> None:
    class Opens:
        def __init__(
            self, error: Exception | None = None, at_exit: Exception | None = None
        ) -> None:
            self.error, self.at_exit, self.is_open = error, at_exit, False

        async def __aenter__(self) -> str:
            if self.error is not None:
                raise self.error
            if self.at_exit is None:
                await trio.sleep_forever()
            self.is_open = True
            return "open"

        async def __aexit__(self, *_: object) -> None:
            self.is_open = False
            if self.at_exit is not None:
                raise self.at_exit

    async def main() -> None:
        with pytest.raises(ValueError, match="at exit"):
            async with Bridge() as bridge:
                with pytest.raises(KeyError):
                    await bridge.enter(Opens(KeyError("no")))
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await bridge.enter(Opens())
                manager = Opens(at_exit=ValueError("at exit"))
                assert await bridge.enter(manager) == "open"
                assert manager.is_open
        assert _flowtrio_threads() == []

    run(main)


def test_a_bridge_is_cancelled_while_it_opens_and_while_it_is_left() -> None:
    async def enter_and_leave(opened: asyncio.Event) -> None:
        async with Bridge():
            opened.set()

    async def main() -> None:
        opening = asyncio.create_task(enter_and_leave(asyncio.Event()))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert _flowtrio_threads() == []

        opened = asyncio.Event()
        leaving = asyncio.create_task(enter_and_leave(opened))
        await opened.wait()
        while not leaving.done():
            leaving.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert _flowtrio_threads() == []

    run(main)


def test_two_tasks_do_not_read_one_follower() -> None:
    async def main() -> None:
        async with Bridge() as bridge:
            orchestrator = await bridge.enter(Orchestrator(agents=[Waits()]))
            run_id = await bridge.call(orchestrator.start, "hi")
            async with bridge.stream(lambda: orchestrator.attach(run_id)) as follower:
                while not is_chunk(await anext(follower)):
                    pass
                reading = asyncio.ensure_future(anext(follower))
                await asyncio.sleep(0)
                with pytest.raises(trio.BusyResourceError):
                    await anext(follower)
                reading.cancel()

    run(main)


# asyncio functions


def test_an_asyncio_function_is_a_tool() -> None:
    ended = []

    async def weather(city: str) -> str:
        """Tell the weather."""
        await asyncio.sleep(0.001)
        if city == "Atlantis":
            raise LookupError("sunk")
        if city == "Nowhere":
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.001)
                ended.append(city)
        assert asyncio.current_task() is not None
        return f"{city}: sunny"

    async def main() -> None:
        async with Bridge() as bridge:
            calls = [
                ToolCall(id=city, name="weather", arguments={"city": city})
                for city in ("Rome", "Atlantis", "Nowhere")
            ]
            cities: dict[str, str] = {}
            model = ScriptedModel(calls, "so be it")
            agent: Agent[Any] = Agent(llm_client=model, tools=[bridge.function(weather)])
            ends = {}
            async with bridge.stream(lambda: ENGINE.stream(agent, "hi")) as events:
                async for event in events:
                    if event.type is EventType.TOOL_CALL_START:
                        cities[event.data["call_id"]] = event.data["arguments"]["city"]
                    if event.type is EventType.TOOL_CALL_END:
                        ends[cities.pop(event.data["call_id"])] = event.data
                        if len(ends) == 2:
                            assert events.cancel_tool(*cities)
                assert await events.result() == "so be it"

        assert ends["Rome"]["result"] == "Rome: sunny"
        assert ends["Atlantis"]["outcome"] == "error"
        assert ends["Nowhere"]["outcome"] == "cancelled"
        assert ended == ["Nowhere"]

    run(main)


def test_an_asyncio_function_that_ends_in_spite_of_a_cancellation_has_its_result() -> None:
    begun = threading.Event()

    async def stubborn() -> str:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "all the same"
        raise AssertionError

    async def ask(fn: Callable[[], Awaitable[str]]) -> str:
        async def cancel() -> None:
            await trio.to_thread.run_sync(begun.wait, 60)
            scope.cancel()

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel)
                return await fn()
        raise AssertionError

    async def main() -> None:
        async with Bridge() as bridge:
            assert await bridge.call(ask, bridge.function(stubborn)) == "all the same"

    run(main)


def test_an_asyncio_function_whose_task_somebody_else_cancels_is_an_error() -> None:
    async def give_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async def main() -> None:
        async with Bridge() as bridge:
            with pytest.raises(RuntimeError, match="cancelled by somebody else"):
                await bridge.call(bridge.function(give_up))

    run(main)


def test_an_asyncio_function_of_a_loop_that_is_closed_is_an_error() -> None:
    async def nothing() -> None:
        pass

    async def make() -> Callable[[], Awaitable[None]]:
        async with Bridge() as bridge:
            return bridge.function(nothing)

    async def main(fn: Callable[[], Awaitable[None]]) -> None:
        async with Bridge() as bridge:
            with pytest.raises(RuntimeError, match="the asyncio loop is closed"):
                await bridge.call(fn)

    fn = run(make)
    run(lambda: main(fn))


def test_an_asyncio_function_is_given_up_when_its_loop_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_asyncio, "LOOK", 0.01)
    loop = asyncio.new_event_loop()

    async def wait() -> None:
        loop.call_soon(loop.stop)
        await asyncio.sleep(3600)

    def serve() -> None:
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve)
            with pytest.raises(RuntimeError, match="was closed before its function had ended"):
                await _asyncio.call_asyncio(loop, wait)

    trio.run(main)


# Loops


def test_many_loops_in_one_process_share_the_thread() -> None:
    threads: list[int] = []

    async def main() -> None:
        waits = Waits()
        async with Bridge() as bridge:
            await _break(bridge, lambda: ENGINE.stream(waits, "hi"))
            await asyncio.sleep(0.05)
        threads.extend(waits.threads)

    loops = [threading.Thread(target=run, args=(main,)) for _ in range(4)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()

    assert len(threads) == 4
    assert _flowtrio_threads() == []


def test_a_bridge_of_each_loop_has_a_thread_again() -> None:
    async def main() -> None:
        async with Bridge() as bridge:
            await _break(bridge, lambda: ENGINE.stream(Waits(), "hi"))

    for _ in range(3):
        run(main)
        assert _flowtrio_threads() == []


def test_a_stream_is_not_read_in_another_loop_than_its_own() -> None:
    stream = ENGINE.stream(Waits(), "hi")

    async def begin() -> None:
        await anext(stream)
        await anext(stream)

    async def go_on() -> None:
        with pytest.raises(RuntimeError, match="in another loop"):
            while True:
                await anext(stream)

    run(begin)
    with pytest.warns(ResourceWarning, match="never left"):
        run(go_on)


def test_a_loop_that_is_closed_with_a_stream_open_is_told_and_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_thread, "LOOK", 0.01)
    waits = Waits()
    stream = ENGINE.stream(waits, "hi")

    async def begin() -> None:
        await stream.__aenter__()
        while not is_chunk(await anext(stream)):
            pass

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run(begin)
        while not waits.ended:
            time.sleep(0.001)

    assert [str(w.message) for w in told if w.category is ResourceWarning] == [
        f"flowtrio run {stream.run_id} was never left"
    ]


def test_a_loop_that_is_closed_with_a_bridge_open_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_thread, "LOOK", 0.01)
    bridge = Bridge()

    async def begin() -> None:
        await bridge.__aenter__()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run(begin)
        while _thread._shared:
            time.sleep(0.001)

    assert "a flowtrio Bridge was never left" in {str(w.message) for w in told}


def test_a_task_that_is_dropped_with_its_loop_ends_its_run() -> None:
    waits = Waits()

    async def read() -> None:
        async with Bridge() as bridge:
            async with bridge.stream(lambda: ENGINE.stream(waits, "hi")) as events:
                async for _ in events:
                    pass

    loop = asyncio.new_event_loop()
    task = loop.create_task(read())
    while not waits.threads:
        loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del task, loop
        # The thread is let go of before what it does has ended.
        while _thread._shared or not waits.ended:
            time.sleep(0.001)
            gc.collect()

    assert "a flowtrio Bridge was never left" in {str(w.message) for w in told}


# Neither


def test_a_stream_is_not_read_in_plain_code() -> None:
    stream = ENGINE.stream(talk, "hi")
    with pytest.raises(RuntimeError, match="under Trio or asyncio"):
        stream.__anext__().send(None)

    async def main() -> None:
        told = asyncio.get_running_loop().create_future()

        def callback() -> None:
            with pytest.raises(RuntimeError, match="under Trio or asyncio"):
                stream.__anext__().send(None)
            told.set_result(None)

        # In the loop, but in no task.
        asyncio.get_running_loop().call_soon(callback)
        await told

    run(main)
