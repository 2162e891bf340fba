"""Plain tools in worker threads, and how many of a tool run at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio

from flowtrio import EventStream, EventType, Limits, RunContext, tool
from flowtrio._agents import _threads
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import calling, calls, error_of, only, outcomes, play, runner

T = EventType


async def test_a_plain_tool_runs_beside_the_loop_and_may_use_its_context() -> None:
    where: list[int] = []

    @tool
    def plain(ctx: RunContext) -> str:
        """Tell where it runs."""
        where.append(threading.get_ident())
        trio.from_thread.run(ctx.progress, 0.5)
        return ctx.agent

    played = await play(runner(calling("plain"), plain))

    assert only(played.log, T.TOOL_CALL_END)[0]["result"] == "root"
    assert where != [threading.get_ident()]
    assert [data["progress"] for data in only(played.log, T.TOOL_PROGRESS)] == [0.5]


@pytest.mark.parametrize("abandon", [False, True])
async def test_what_a_plain_tool_raises_is_its_calls_error(abandon: bool) -> None:
    @tool(abandon=abandon)
    def plain() -> None:
        """Fail."""
        raise ValueError("planted")

    played = await play(runner(calling("plain"), plain))

    assert only(played.log, T.TOOL_CALL_END)[0]["error"] == "ValueError: planted"
    assert played.status == "completed"


@pytest.mark.parametrize("exc", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_in_a_thread_reaches_the_caller(exc: type[BaseException]) -> None:
    @tool
    def plain() -> None:
        """Be interrupted."""
        raise exc

    with pytest.raises(exc):
        await play(runner(calling("plain"), plain))


async def test_a_call_that_was_cancelled_before_its_thread_began_never_begins() -> None:
    began: list[str] = []
    release = threading.Event()

    @tool(timeout=10)
    def holds() -> None:
        """Hold a thread."""
        release.wait()

    @tool
    def waits() -> None:
        """Wait for a thread."""
        began.append("waits")

    limiter = trio.CapacityLimiter(1)
    _threads._threads.set(limiter)

    async def reader(stream: EventStream, log: list[Any]) -> None:
        started: dict[str, str] = {}
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START:
                started[event.data["tool_name"]] = event.data["call_id"]
                if len(started) == 2:
                    assert stream.cancel("enough")
                    release.set()

    played = await play(runner(calling("holds", "waits"), holds, waits), reader=reader)

    assert outcomes(played.log) == {"holds": "cancelled", "waits": "cancelled"}
    # One of the two had the only thread, and only that one may have begun.
    assert len(began) <= 1
    assert limiter.borrowed_tokens == 0


async def test_as_many_of_a_tool_run_at_once_as_it_says(autojump_clock: Any) -> None:
    running = most = 0

    @tool(concurrency=2)
    async def narrow() -> None:
        """Count how many there are."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    names = ["narrow"] * 5
    played = await play(runner(ScriptedModel(calls(*names), calls(*names[:1]), "fine"), narrow))

    assert most == 2
    assert len(only(played.log, T.TOOL_CALL_END)) == 6


async def test_calls_beyond_the_places_queue_and_their_clocks_start_with_them(
    autojump_clock: Any,
) -> None:
    @tool(timeout=3)
    async def slow() -> None:
        """Take two of three seconds."""
        await trio.sleep(2)

    model = ScriptedModel(calls(*["slow"] * 6), "fine")
    played = await play(runner(model, slow), limits=Limits(parallel_tools=2))

    assert {data["outcome"] for data in only(played.log, T.TOOL_CALL_END)} == {"ok"}


async def test_a_tool_that_breaks_while_it_is_stopped_joins_the_causes(autojump_clock: Any) -> None:
    @tool
    async def untidy() -> None:
        """Fail in its cleanup."""
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in cleanup")

    played = await play(runner(calling("untidy"), untidy), limits=Limits(run=1))

    assert outcomes(played.log) == {"untidy": "cancelled"}
    assert error_of(played.log)["deadline"] == "run"
    assert "ValueError" in [cause["type"] for cause in error_of(played.log)["causes"]]


async def test_an_interrupt_in_the_cleanup_of_a_stopped_tool_is_not_lost(
    autojump_clock: Any,
) -> None:
    @tool(timeout=1)
    async def untidy() -> None:
        """Be interrupted in its cleanup."""
        try:
            await trio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await play(runner(calling("untidy"), untidy))


async def test_approval_may_depend_on_the_arguments() -> None:
    from flowtrio import ToolCall

    @tool(needs_approval=lambda arguments: arguments["amount"] > 10)
    async def pay(amount: int) -> int:
        """Pay."""
        return amount

    model = ScriptedModel(
        [ToolCall("a", "pay", {"amount": 5}), ToolCall("b", "pay", {"amount": 50})], "fine"
    )

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.APPROVAL_REQUIRED:
                assert event.data["arguments"] == {"amount": 50}
                assert stream.deny(event.data["call_id"], "too much")

    played = await play(runner(model, pay), reader=reader)

    ends = {data["call_id"]: data["outcome"] for data in only(played.log, T.TOOL_CALL_END)}
    assert sorted(ends.values()) == ["denied", "ok"]
    assert "too much" in model.requests[1].messages[-1]["content"]


async def test_an_approval_rule_that_fails_ends_the_call() -> None:
    @tool(needs_approval=lambda arguments: 1 / 0 > 0)
    async def pay() -> None:
        """Pay."""

    played = await play(runner(calling("pay"), pay))

    assert only(played.log, T.TOOL_CALL_END)[0]["error"].startswith("ZeroDivisionError")
    assert only(played.log, T.APPROVAL_REQUIRED) == []


async def test_a_result_that_is_too_large_is_an_error() -> None:
    @tool
    async def large() -> str:
        """Say much."""
        return "x" * 100

    played = await play(runner(calling("large"), large), limits=Limits(result_bytes=50))

    assert "more than result_bytes=50" in only(played.log, T.TOOL_CALL_END)[0]["error"]


async def test_arguments_that_are_no_object_are_refused() -> None:
    from flowtrio import ToolCall

    @tool
    async def plain() -> None:
        """Do nothing."""

    model = ScriptedModel([ToolCall("a", "plain", None, raw="[1")], "fine")
    played = await play(runner(model, plain))

    assert only(played.log, T.TOOL_CALL_END)[0]["error"] == "the arguments are not a JSON object"
    assert only(played.log, T.TOOL_CALL_START) == []


async def test_what_a_call_returns_after_its_end_is_not_told(autojump_clock: Any) -> None:
    @tool(timeout=1)
    async def deaf() -> str:
        """Return all the same."""
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        return "too late"

    model = calling("deaf")
    played = await play(runner(model, deaf))

    assert outcomes(played.log) == {"deaf": "timeout"}
    assert "too late" not in str(model.requests[1].messages)


async def test_a_thread_that_cannot_be_had_is_the_calls_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def none_left(*args: Any, **options: Any) -> None:
        raise RuntimeError("can't start new thread")

    @tool
    def plain() -> str:
        """Return at once."""
        return "never"

    monkeypatch.setattr("flowtrio._agents._threads.trio.to_thread.run_sync", none_left)
    played = await play(runner(calling("plain"), plain))

    [end] = only(played.log, T.TOOL_CALL_END)
    assert (end["outcome"], end["error"]) == ("error", "RuntimeError: can't start new thread")
