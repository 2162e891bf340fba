"""What other agent frameworks get wrong when a tool fails or a reader leaves, one test each.

All against a model's host on a real socket; what holds after each of them is said once, in
`open_case`.
"""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest
import trio
import trio.testing

from flowtrio import AgentEvent, EventStream, EventType, Limits, StreamEngine, tool
from tests.regressions._case import Case, open_case, stops_at
from tests.runtime._programs import outcomes
from tests.support.model_server import (
    ModelServer,
    calls,
    chooses,
    counts,
    open_model_server,
    says,
    talks_for_ever,
)

T = EventType
FINE = says("all ", "fine")


def turn(*names: str) -> Any:
    """An answer that calls tools without arguments."""
    return calls(*((name, {}) for name in names))


# Tools that fail


async def test_one_of_four_parallel_tools_raises() -> None:
    async with open_case(turn("a", "bad", "b", "c"), FINE) as case:
        tools = [case.diary.sleeper(name, 0.02) for name in "abc"]
        bad = case.diary.failing("bad", ValueError("planted"))
        await case.play(case.agent(*tools, bad))

        assert case.done["status"] == "completed"
        assert outcomes(case.log) == {"a": "ok", "bad": "error", "b": "ok", "c": "ok"}
        # Told in the order of the calls, and the failure as what it is.
        told = [result["content"] for result in case.results()]
        assert ["ValueError: planted" in content for content in told] == [False, True, False, False]


async def test_two_errors_in_one_tick() -> None:
    async with open_case(turn("one", "two")) as case:
        ready, both = trio.Event(), trio.Event()
        waiting: list[str] = []

        def fails(name: str, exc: Exception) -> Any:
            async def body() -> None:
                waiting.append(name)
                if len(waiting) == 2:
                    ready.set()
                await both.wait()
                raise exc

            return case.diary.tool(name, body, fatal=True)

        async def trigger() -> None:
            # By a third one, so that both wake in the same step and neither can be cancelled.
            await ready.wait()
            both.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trigger)
            await case.play(case.agent(fails("one", ValueError("1")), fails("two", KeyError("2"))))

        assert case.done["status"] == "error"
        assert case.error["source"] == "tool"
        causes = {cause["type"] for cause in case.error["causes"]}
        assert {"ValueError", "KeyError"} <= causes | {case.error["error"].partition(":")[0]}
        assert sorted(outcomes(case.log)) == ["one", "two"]


async def test_a_base_exception_in_a_tool() -> None:
    class Halt(BaseException):
        pass

    async with open_case(turn("halt", "other")) as case:
        tools = [case.diary.failing("halt", Halt()), case.diary.tool("other", trio.sleep_forever)]
        await case.play(case.agent(*tools))

        assert outcomes(case.log) == {"halt": "error", "other": "cancelled"}
        assert case.error["source"] == "tool"


async def test_a_keyboard_interrupt_in_a_tool() -> None:
    async with open_case(turn("stop", "other")) as case:
        stop = case.diary.failing("stop", KeyboardInterrupt())
        other = case.diary.tool("other", trio.sleep_forever)
        with pytest.raises(KeyboardInterrupt):
            await case.play(case.agent(stop, other))

        assert outcomes(case.log) == {"stop": "error", "other": "cancelled"}
        assert case.done["status"] == "error"


async def test_a_tool_that_never_returns_under_a_deadline() -> None:
    async with open_case(turn("never", "quick")) as case:
        tools = [
            case.diary.tool("never", trio.sleep_forever),
            case.diary.tool("quick", trio.lowlevel.checkpoint),
        ]
        await case.play(case.agent(*tools), limits=Limits(run=1))

        assert outcomes(case.log) == {"never": "cancelled", "quick": "ok"}
        assert (case.error["source"], case.error["deadline"]) == ("deadline", "run")


async def test_eight_parallel_tools_with_random_sleeps() -> None:
    names = [f"t{number}" for number in range(8)]
    seconds = random.Random(8)
    async with open_case(turn(*names), FINE) as case:
        tools = [case.diary.sleeper(name, seconds.uniform(0, 0.05)) for name in names]
        await case.play(case.agent(*tools))

        assert outcomes(case.log) == dict.fromkeys(names, "ok")
        asked = case.server.exchanges[1].body["messages"][1]["tool_calls"]
        assert [call["function"]["name"] for call in asked] == names
        # However they ended, the results are told in the order of the calls.
        assert [r["tool_call_id"] for r in case.results()] == [call["id"] for call in asked]


async def test_a_fast_tools_end_is_seen_while_a_slow_one_runs() -> None:
    async with open_case(turn("slow", "fast"), FINE) as case:
        seen = trio.Event()
        tools = [
            case.diary.tool("slow", seen.wait),
            case.diary.tool("fast", trio.lowlevel.checkpoint),
        ]
        # It would never end, if the reader were shown the fast one's end only behind it.
        await case.play(case.agent(*tools), stops_at(T.TOOL_CALL_END, lambda stream: seen.set()))

        assert [end["tool_name"] for end in case.data(T.TOOL_CALL_END)] == ["fast", "slow"]


# Readers that leave


async def test_break_while_text_streams() -> None:
    async with open_case(talks_for_ever()) as case:
        await case.play(case.agent(), stops_at(T.MESSAGE_CHUNK))

        assert case.stream is not None
        assert case.stream.status == "cancelled"
        with trio.fail_after(5):
            await case.server.wait_left()
        assert case.server.exchanges[0].left_at is not None


async def test_break_while_tools_run() -> None:
    async with open_case(turn("a", "b")) as case:
        tools = [case.diary.tool(name, trio.sleep_forever) for name in "ab"]
        await case.play(case.agent(*tools), stops_at(T.TOOL_CALL_START))

        # Nobody calls the tools again, or asks the model what to do now.
        assert len(case.server.exchanges) == 1
        assert len(case.diary.lines) in (0, 2, 4)


async def test_the_consumers_timeout_in_mid_tool() -> None:
    async with open_case(turn("never")) as case:
        never = case.diary.tool("never", trio.sleep_forever)
        with trio.CancelScope() as scope:
            due = stops_at(
                T.TOOL_CALL_START, lambda _: setattr(scope, "deadline", trio.current_time())
            )
            await case.play(case.agent(never), due)

        assert scope.cancelled_caught
        assert case.stream is not None
        assert case.stream.status == "cancelled"


async def test_slow_cleanup_is_awaited_by_the_block() -> None:
    async with open_case(turn("tidy")) as case:
        await case.play(case.agent(case.diary.tidy("tidy", 0.3)), stops_at(T.TOOL_CALL_START))

        assert case.diary.running == []
        assert case.stream is not None
        assert case.stream.status == "cancelled"


async def test_a_cancel_that_is_ignored_longer_than_the_grace() -> None:
    async with open_case(turn("deaf")) as case:
        release = trio.Event()

        async def deaf() -> None:
            with trio.CancelScope(shield=True):
                await release.wait()

        async def reader(stream: EventStream, log: list[AgentEvent]) -> None:
            async for event in stream:
                log.append(event)
                if event.type is T.TOOL_CALL_START:
                    stream.cancel("enough")
            # DONE came without it; the block waits for it all the same.
            assert case.diary.running == ["deaf"]
            release.set()

        await case.play(case.agent(case.diary.tool("deaf", deaf)), reader, limits=Limits(grace=0.1))

        assert case.error["code"] == "cleanup_timeout"
        assert len(case.done["leftover"]) == 1
        assert outcomes(case.log) == {"deaf": "cancelled"}


@pytest.mark.parametrize("is_open", [True, False], ids=["engine", "system"])
async def test_break_then_collect(is_open: bool) -> None:
    async with open_case(turn("never", "talks"), talks_for_ever()) as case:
        cancelled = trio.Event()

        async def body() -> None:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()

        tools = [case.diary.tool(name, body) for name in ("never", "talks")]
        engine = StreamEngine()

        async def leave() -> None:
            async for event in engine.stream(case.agent(*tools), "go"):
                case.log.append(event)
                if event.type is T.TOOL_CALL_START and len(case.diary.running) == 2:
                    break
                if event.type is T.TOOL_CALL_START:
                    await trio.testing.wait_all_tasks_blocked()

        async def joined() -> None:
            gc.collect()
            with trio.fail_after(5):
                await cancelled.wait()
                while case.diary.running:
                    await trio.lowlevel.checkpoint()

        if is_open:
            async with engine:
                await leave()
                await joined()
        else:
            await leave()
            await joined()
        assert len(case.server.exchanges) == 1


async def test_a_run_inside_a_tool() -> None:
    def choose(body: Any) -> Any:
        last = body["messages"][-1]
        if last["role"] == "user":
            return turn("inner") if last["content"] == "go" else talks_for_ever()
        return FINE

    async with open_case(chooses(choose)) as case:
        seen: list[AgentEvent] = []

        async def inner() -> str:
            async for event in StreamEngine().stream(case.agent(), "deep"):
                seen.append(event)
                if event.type is T.MESSAGE_CHUNK:
                    break
            return "left"

        await case.play(case.agent(case.diary.tool("inner", inner)))

        assert case.done["status"] == "completed"
        assert outcomes(case.log) == {"inner": "ok"}
        assert case.stream is not None
        assert seen[0].data["parent_run_id"] == case.stream.run_id


# Readers that are slow


async def test_a_paused_consumer_pauses_the_models_socket() -> None:
    total, size = 8_000, 2_000
    async with open_case(counts(total, size)) as case:

        async def reader(stream: EventStream, log: list[AgentEvent]) -> None:
            log.append(await anext(stream))
            # All that is between us and the host is full, and nobody moves.
            await trio.testing.wait_all_tasks_blocked(0.2)
            assert stream.statistics().undelivered <= 64 + 3
            [exchange] = case.server.exchanges
            assert exchange.sent < total
            async for event in stream:
                log.append(event)

        await case.play(case.agent(), reader)

        assert _numbers(case) == list(range(total))


async def test_a_slow_consumer_of_20000_tokens() -> None:
    total = 20_000
    async with open_case(counts(total)) as case:

        async def reader(stream: EventStream, log: list[AgentEvent]) -> None:
            async for event in stream:
                log.append(event)
                assert stream.statistics().undelivered <= 64 + 3
                if event.seq % 10 == 0:
                    await trio.lowlevel.checkpoint()

        await case.play(case.agent(), reader)

        assert _numbers(case) == list(range(total))


def _numbers(case: Case) -> list[int]:
    return [int(data["chunk"]) for data in case.data(T.MESSAGE_CHUNK)]


# That the conditions can fail


async def test_what_is_left_behind_is_noticed() -> None:
    """Beside the cases: a task, a connection and a side effect that outlive their case."""

    @tool
    async def plain() -> str:
        """Nothing."""
        return "x"

    async def leaves_a_task(case: Case) -> None:
        trio.lowlevel.spawn_system_task(trio.sleep, 0.3)

    async def writes_later(case: Case) -> None:
        async def write() -> None:
            await trio.testing.wait_all_tasks_blocked()
            case.diary.lines.append("late")

        trio.lowlevel.spawn_system_task(write)

    async def forgets_done(case: Case) -> None:
        case.log = case.log[:-1]

    for plant in (leaves_a_task, writes_later, forgets_done):
        with pytest.raises((AssertionError, BaseExceptionGroup)) as caught:
            async with open_case(FINE) as case:
                await case.play(case.agent(plain))
                await plant(case)
        group = caught.value
        while isinstance(group, BaseExceptionGroup):
            [group] = group.exceptions
        assert isinstance(group, AssertionError)


async def test_a_connection_that_is_kept_is_noticed() -> None:
    async with _held_server() as server:
        assert server.open_connections == 1
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.05):
            await server.wait_left()


@pytest.fixture(autouse=True)
def _collected() -> None:
    """Descriptors of earlier tests are not to be closed while ours are counted."""
    gc.collect()


def _port(server: ModelServer) -> int:
    return int(server.url.split(":")[2].split("/")[0])


class _held_server:
    """A model's host to which somebody keeps a connection."""

    async def __aenter__(self) -> ModelServer:
        self._manager = open_model_server([FINE])
        server = await self._manager.__aenter__()
        self._stream = await trio.open_tcp_stream("127.0.0.1", _port(server))
        while not server.open_connections:
            await trio.lowlevel.checkpoint()
        return server

    async def __aexit__(self, *exc: Any) -> None:
        await self._stream.aclose()
        await self._manager.__aexit__(*exc)
