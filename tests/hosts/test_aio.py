"""Runs that are read in asyncio tasks: nothing is lost, and nothing stays alive behind them."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio import (
    Agent,
    EventType,
    Limits,
    LocalProtocolError,
    Orchestrator,
    RunContext,
    RunFailed,
    StreamEngine,
    ToolCall,
)
from flowtrio._run import _thread
from flowtrio.aio import Bridge
from flowtrio.testing import ScriptedModel, check_events
from tests.support.command import without_haste

engine = StreamEngine()
EXITS = int(os.environ.get("FLOWTRIO_EXITS", "60"))


class Agents:
    """Agents that note what becomes of them."""

    def __init__(self) -> None:
        self.alive = 0
        self.written = 0

    async def waits(self, ctx: RunContext, message: str) -> str:
        """Say a word and wait; cleaning up takes a moment."""
        self.alive += 1
        try:
            async with ctx.message() as out:
                await out.write("x")
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.001)
            self.alive -= 1

    async def writes(self, ctx: RunContext, message: str) -> str:
        """Say as many words as the message has letters."""
        async with ctx.message() as out:
            for letter in message:
                await out.write(letter)
                self.written += 1
        return "done"

    async def fails(self, ctx: RunContext, message: str) -> str:
        """Raise."""
        raise LookupError("nothing there")


@pytest.fixture
def agents() -> Agents:
    return Agents()


def is_idle() -> bool:
    """Whether the Trio thread has nothing to do."""
    return not any(thread.jobs for thread in _thread._shared)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


def run(main: Callable[[], Awaitable[Any]], new_loop: Any = None) -> Any:
    """Run in an asyncio loop of its own, with asyncio's own checks."""
    with asyncio.Runner(debug=True, loop_factory=new_loop) as runner:
        value = runner.run(main())  # type: ignore[arg-type]

    assert is_idle()
    return value


# Reading


def test_a_stream_is_read_in_an_asyncio_task_as_it_stands(agents: Agents) -> None:
    async def main() -> list[Any]:
        return [event async for event in engine.stream(agents.writes, "a" * 500)]

    events = run(main)

    check_events(events)
    assert [event.seq for event in events] == list(range(505))


def test_batches_and_single_events_are_one_log(agents: Agents) -> None:
    async def main() -> list[Any]:
        async with engine.stream(agents.writes, "a" * 300) as stream:
            events = [await anext(stream)]
            with suppress(trio.EndOfChannel):
                while True:
                    events += await stream.receive_batch()
            assert [event async for event in stream] == []
        return events

    check_events(run(main))


def test_a_reader_holds_its_writer_back(agents: Agents) -> None:
    async def main() -> None:
        stream = engine.stream(agents.writes, "a" * 5000, limits=Limits(buffer=16))
        async with stream:
            await anext(stream)
            await asyncio.sleep(0.2)
            # A batch in hand, one before it and one in the channel, each of at most a buffer.
            assert agents.written <= 3 * 16
            assert len([event async for event in stream]) == 5004

    run(main)


def test_reads_that_time_out_lose_nothing(agents: Agents) -> None:
    async def pauses(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            for _ in range(20):
                await out.write("x")
                await trio.sleep(0.004)

    async def main() -> list[Any]:
        events = []
        async with engine.stream(pauses, "hi") as stream:
            while not events or events[-1].type is not EventType.DONE:
                with suppress(TimeoutError):
                    events.append(await asyncio.wait_for(anext(stream), 0.003))
        return events

    check_events(run(main))


def test_a_result_is_given_without_reading_and_again(agents: Agents) -> None:
    async def main() -> None:
        stream = engine.stream(agents.writes, "a" * 500)
        assert await stream.result() == "done"
        assert await stream.result() == "done"
        assert stream.messages[-2]["content"] == "a" * 500
        async with engine.stream(agents.fails, "hi") as failing:
            with pytest.raises(RunFailed, match="nothing there") as caught:
                await failing.result()
        assert isinstance(caught.value.__cause__, LookupError)

    run(main)


def test_a_stream_is_begun_once(agents: Agents) -> None:
    async def main() -> None:
        stream = engine.stream(agents.writes, "a")
        assert len([event async for event in stream]) == 6
        with pytest.raises(RuntimeError, match="read to the end before"):
            aiter(stream)
        with pytest.raises(RuntimeError, match="was iterated before"):
            await stream.__aenter__()

    run(main)


def test_two_tasks_cannot_read_at_once(agents: Agents) -> None:
    async def main() -> None:
        async with engine.stream(agents.waits, "hi") as stream:
            async for event in stream:
                if event.type is EventType.MESSAGE_CHUNK:
                    break
            reading = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            with pytest.raises(trio.BusyResourceError):
                await anext(stream)
            reading.cancel()

    run(main)


# Leaving


async def _breaks(stream: Any) -> None:
    async with stream:
        async for event in stream:
            if event.type is EventType.MESSAGE_CHUNK:
                break


async def _raises(stream: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with stream:
            async for event in stream:
                if event.type is EventType.MESSAGE_CHUNK:
                    raise ZeroDivisionError


async def _times_out(stream: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), stream:
            async for _ in stream:
                pass


async def _is_cancelled(stream: Any) -> None:
    async def read() -> None:
        async with stream:
            async for _ in stream:
                pass

    task = asyncio.create_task(read())
    await until(lambda: stream.status == "running")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _closes(stream: Any) -> None:
    await anext(stream)
    await stream.aclose()
    await stream.aclose()


async def _bare_read_is_cancelled(stream: Any) -> None:
    async def read() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(read())
    await until(lambda: stream.status == "running")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _is_blocked(stream: Any) -> None:
    async with stream:
        await anext(stream)
        time.sleep(0.02)


WAYS = [
    _breaks,
    _raises,
    _times_out,
    _is_cancelled,
    _closes,
    _bare_read_is_cancelled,
    _is_blocked,
]


@pytest.mark.parametrize("leave", WAYS)
def test_whoever_leaves_leaves_nothing_alive(leave: Any, agents: Agents) -> None:
    async def main() -> None:
        stream = engine.stream(agents.waits, "hi")
        await leave(stream)
        assert agents.alive == 0
        assert stream.status == "cancelled"

    run(main)


def test_a_stream_that_is_dropped_is_left(agents: Agents) -> None:
    async def main() -> None:
        async for event in engine.stream(agents.waits, "hi"):
            if event.type is EventType.MESSAGE_CHUNK:
                break
        assert agents.alive == 1
        del event
        gc.collect()
        await until(lambda: agents.alive == 0 and is_idle())

    run(main)


def test_what_cannot_be_entered_is_told_where_it_is_entered() -> None:
    class Broken(Orchestrator):
        async def __aenter__(self) -> Any:
            raise LookupError("no")

    async def main() -> None:
        async with Bridge() as bridge:
            with pytest.raises(LookupError):
                await bridge.enter(Broken(agents=[Agents().fails]))

    run(main)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@settings(max_examples=EXITS)
@given(st.lists(st.tuples(st.sampled_from(WAYS), st.integers(0, 3)), min_size=1, max_size=4))
def test_random_exits_at_once_leave_nothing(new_loop: Any, exits: list[tuple[Any, int]]) -> None:
    agents = Agents()

    async def one(leave: Any, delay: int) -> None:
        await asyncio.sleep(delay / 1000)
        stream = engine.stream(agents.waits, "hi", limits=Limits(buffer=2))
        await leave(stream)
        assert stream.status == "cancelled"
        assert stream.statistics().open_brackets == 0

    async def main() -> None:
        await asyncio.gather(*(one(*each) for each in exits))
        assert agents.alive == 0

    run(main, new_loop)


# A bridge


def test_a_bridge_opens_what_wants_trio_and_calls_it(agents: Agents) -> None:
    async def main() -> None:
        async with Bridge() as bridge:
            orchestrator = await bridge.enter(Orchestrator(agents=[agents.writes]))
            run_id = await bridge.call(orchestrator.start, "abc")
            async with bridge.stream(lambda: orchestrator.attach(run_id)) as events:
                check_events([event async for event in events])
        assert not orchestrator.is_open

    run(main)


def test_a_call_that_is_cancelled_has_ended(agents: Agents) -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("waits")

    async def main() -> None:
        async with Bridge() as bridge:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await bridge.call(waits)
            assert ended == ["waits"]
            with pytest.raises(ZeroDivisionError):
                await bridge.call(raises)

    async def raises() -> None:
        raise ZeroDivisionError

    run(main)


def test_a_bridge_is_opened_once_and_used_while_it_is_open() -> None:
    async def main() -> None:
        bridge = Bridge()
        with pytest.raises(RuntimeError, match="is not open"):
            await bridge.call(trio.sleep, 0)
        async with bridge:
            with pytest.raises(RuntimeError, match="twice"):
                await bridge.__aenter__()
        with pytest.raises(RuntimeError, match="is not open"):
            bridge.function(asyncio.sleep)

    run(main)


def test_a_bridge_that_is_dropped_warns() -> None:
    async def main() -> None:
        await Bridge().__aenter__()

    def leave_it() -> None:
        asyncio.run(main())
        gc.collect()

    with pytest.warns(ResourceWarning, match="never left"):
        leave_it()


def test_loops_in_several_threads_share_the_one_trio_thread(agents: Agents) -> None:
    names: set[int] = set()

    async def notes(ctx: RunContext, message: str) -> None:
        names.add(threading.get_ident())

    def other() -> None:
        async def main() -> None:
            async with Bridge() as bridge, bridge.stream(lambda: engine.stream(notes, "x")) as s:
                await s.result()

        asyncio.run(main())

    threads = [threading.Thread(target=other) for _ in range(5)]
    with_bridge = _thread.hold()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _thread.release(with_bridge)

    assert len(names) == 1


# Tools of asyncio


def call_of(name: str) -> list[Any]:
    return [ToolCall(id="1", name=name, arguments={"city": "Rome"})]


async def log_with(tool: Callable[..., Any], read: Any = None) -> list[Any]:
    events = []
    async with Bridge() as bridge:
        agent = Agent(
            llm_client=ScriptedModel(call_of(tool.__name__), ["ok"]), tools=[bridge.function(tool)]
        )
        async with bridge.stream(lambda: engine.stream(agent, "hi")) as stream:
            async for event in stream:
                events.append(event)
                if event.type is EventType.TOOL_CALL_START and read is not None:
                    await read(stream, event.data["call_id"])
    return events


def end_of(events: list[Any]) -> tuple[str, Any]:
    [end] = [event for event in events if event.type is EventType.TOOL_CALL_END]
    return end.data["outcome"], end.data["result"] or end.data["error"]


def test_an_asyncio_function_is_a_tool_with_its_signature() -> None:
    async def weather(city: str) -> str:
        """Tell the weather."""
        await asyncio.sleep(0.001)
        return f"sunny in {city}"

    async def breaks(city: str) -> str:
        raise LookupError(city)

    assert end_of(run(lambda: log_with(weather))) == ("ok", "sunny in Rome")
    assert end_of(run(lambda: log_with(breaks)))[0] == "error"


def test_ending_a_call_ends_its_asyncio_task() -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    async def waits(city: str) -> str:
        begun.set()
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(city)
        raise AssertionError

    async def cancel(stream: Any, call_id: str) -> None:
        await begun.wait()
        stream.cancel_tool(call_id)

    assert end_of(run(lambda: log_with(waits, cancel)))[0] == "cancelled"
    assert ended == ["Rome"]


def test_an_asyncio_task_that_somebody_else_cancels_is_an_error() -> None:
    async def gives_up(city: str) -> str:
        raise asyncio.CancelledError

    outcome, error = end_of(run(lambda: log_with(gives_up)))

    assert outcome == "error"
    assert "somebody else" in error


# Controls, and what goes wrong


def test_controls_reach_the_run(agents: Agents) -> None:
    async def asks(ctx: RunContext, message: str) -> str:
        return await ctx.ask("Where to?")

    async def main() -> None:
        async with engine.stream(asks, "hi") as stream:
            async for event in stream:
                if event.type is EventType.INPUT_REQUIRED:
                    assert stream.answer(event.data["request_id"], "Rome")
                    assert not stream.answer(event.data["request_id"], "again")
            assert await stream.result() == "Rome"
        unread = engine.stream(agents.waits, "hi")
        assert unread.cancel("no more")
        assert [event.type async for event in unread][-1] is EventType.DONE
        assert not unread.cancel()

    run(main)


def test_a_ctrl_c_inside_the_run_is_raised_by_its_reader() -> None:
    async def interrupted(ctx: RunContext, message: str) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        with pytest.raises(KeyboardInterrupt):
            async with engine.stream(interrupted, "hi") as stream:
                async for _ in stream:
                    pass

    run(main)


def test_what_needs_trio_or_asyncio_says_so_elsewhere(agents: Agents) -> None:
    stream = engine.stream(agents.writes, "a")
    with pytest.raises(RuntimeError, match="under Trio or asyncio"):
        anext(stream).send(None)


def test_a_loop_that_is_closed_under_its_reader_leaves_the_run(
    agents: Agents, recwarn: pytest.WarningsRecorder
) -> None:
    async def main() -> Any:
        stream = engine.stream(agents.writes, "a" * 1000, limits=Limits(buffer=4))
        await anext(stream)
        return stream

    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(main())
    loop.close()
    stream.cancel()
    deadline = time.monotonic() + 60
    while not is_idle():
        assert time.monotonic() < deadline
        time.sleep(0.005)

    assert stream.status == "cancelled"


def in_another_process(program: str, *options: str) -> str:
    command = [sys.executable, "-X", "dev", "-W", "error", *options, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert without_haste(done.stderr) == ""
    return done.stdout


def test_a_bridge_leaves_no_thread_behind() -> None:
    program = """
import asyncio, threading
from flowtrio import StreamEngine
from flowtrio.aio import Bridge
async def agent(ctx, message): return message
async def main():
    async with Bridge() as bridge:
        async with bridge.stream(lambda: StreamEngine().stream(agent, "hi")) as stream:
            print(await stream.result())
    print([thread.name for thread in threading.enumerate()])
asyncio.run(main())
"""

    assert in_another_process(program) == "hi\n['MainThread']\n"


def test_a_process_that_forks_has_a_thread_of_its_own() -> None:
    program = """
import asyncio, os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from flowtrio import StreamEngine
from flowtrio._run._thread import hold
async def agent(ctx, message): return message
async def read():
    return await StreamEngine().stream(agent, "hi").result()
print(asyncio.run(read()), flush=True)
old = hold()
if os.fork() == 0:
    try:
        old.post(print)
    except RuntimeError as exc:
        print("forked after" in str(exc), flush=True)
    print(asyncio.run(read()), flush=True)
    os._exit(0)
os.wait()
"""

    assert in_another_process(program) == "hi\nTrue\nhi\n"


def test_uvloop_is_a_loop_like_others() -> None:
    program = """
import asyncio, uvloop
from flowtrio import StreamEngine
async def agent(ctx, message):
    async with ctx.message() as out:
        for _ in range(500): await out.write("x")
async def main():
    return len([event async for event in StreamEngine().stream(agent, "hi")])
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    print(runner.run(main()))
"""

    assert in_another_process(program) == "505\n"


def test_a_tool_of_a_loop_that_is_closed_says_so() -> None:
    async def main() -> Any:
        async with Bridge() as bridge:
            return bridge.function(asyncio.sleep)

    function = asyncio.run(main())
    with pytest.raises(RuntimeError, match="loop is closed"):
        trio.run(function, 0)
    with pytest.raises((LocalProtocolError, RuntimeError)):
        trio.run(function, 0)
