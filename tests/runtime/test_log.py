"""The gate: credits, refusals, and who waits for the reader while a run ends."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from flowtrio import EventStream, EventType, Limits, RunContext, StreamEngine, tool
from flowtrio._core._exceptions import LocalProtocolError
from flowtrio._core._transcript import Transcript
from flowtrio._run._controls import run_of
from flowtrio._run._log import EventLog
from tests.runtime._programs import (
    agent_of,
    check_ended,
    only,
    play,
)

T = EventType


@attrs.frozen
class Speaker:
    """Who emits, as far as a log asks."""

    agent: str = "root"
    is_closed: bool = False


ROOT = Speaker()


def log_of_a_run() -> EventLog:
    """That of one with room for eight events, which has not begun."""

    async def agent(ctx: RunContext, message: str) -> None:
        raise AssertionError

    return run_of(StreamEngine(limits=Limits(buffer=8)).stream(agent, "hi")).log


async def test_a_refused_event_gives_its_credit_back(autojump_clock: Any) -> None:
    refused: list[BaseException] = []

    async def body(ctx: RunContext) -> str:
        async with ctx.message() as out:
            await out.write("said")
        # Ten times as many as there are credits.
        for _ in range(40):
            try:
                await out.write("too late")
            except LocalProtocolError as exc:
                refused.append(exc)
        return "done"

    played = await play(agent_of(body), limits=Limits(buffer=4))

    assert len(refused) == 40
    assert await played.stream.result() == "done"


@pytest.mark.parametrize("way", ["reads on", "cancels"])
async def test_a_status_waits_for_the_reader_like_everything(way: str, autojump_clock: Any) -> None:
    async def body(ctx: RunContext) -> None:
        # Two say the same: the second has nothing to tell when its turn comes.
        ctx.start_soon(ctx.status, "packing")
        ctx.start_soon(ctx.status, "packing")
        ctx.start_soon(ctx.status, "sending")

    log: list[Any] = []
    async with StreamEngine().stream(agent_of(body), "go", limits=Limits(buffer=1)) as stream:
        log.append(await anext(stream))
        await trio.sleep(1)
        assert stream.statistics().parked_emitters >= 1
        if way == "cancels":
            assert stream.cancel()
        log += [event async for event in stream]
    played = await check_ended(stream, log)

    reasons = [data["reason"] for data in only(played.log, T.STATE_CHANGE)]
    if way == "cancels":
        assert "packing" not in reasons
    else:
        assert sorted(filter(None, reasons)) in (
            ["packing", "sending"],
            ["packing", "packing", "sending"],
        )
        assert ("packing", "packing") not in list(itertools.pairwise(reasons))


async def test_what_a_nested_agent_of_ones_own_says_is_in_nobodys_conversation() -> None:
    @tool
    async def look() -> str:
        """Look."""
        return "seen"

    from flowtrio.testing import ScriptedModel

    async def nested(ctx: RunContext, message: str) -> str:
        async with ctx.message() as out:
            await out.write("to myself")
        await ctx.model([{"role": "user", "content": "hi"}], ScriptedModel("thought"))
        return str(await ctx.call(look))

    told: list[str] = []

    async def body(ctx: RunContext) -> None:
        told.append(await ctx.delegate(nested, "go"))

    played = await play(agent_of(body))

    assert told == ["seen"]
    assert [message["role"] for message in played.stream.messages] == ["user"]


async def forever(ctx: RunContext, message: str) -> None:
    await trio.sleep_forever()


async def test_a_host_that_breaks_tells_so() -> None:
    """A bug of ours, planted: it ends the run as an error of source internal, and no loop."""

    def broken() -> None:
        raise ZeroDivisionError("planted")

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if len(log) == 2:
                stream._run.clock.call_at(trio.current_time(), broken)

    played = await play(forever, reader=reader)

    [error] = only(played.log, T.ERROR)
    assert (error["source"], error["error"]) == ("internal", "ZeroDivisionError: planted")


async def test_a_host_that_breaks_at_the_end_ends_its_run_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("flowtrio._run._host.Host._wait_for_tasks", broken)
    stream = StreamEngine().stream(forever, "go")
    await anext(stream)
    stream.cancel()
    log = [event async for event in stream]

    assert log[-1].type is T.DONE
    assert "a run's host failed" in caplog.text


@pytest.mark.parametrize("place", ["in its turn", "in the end"])
async def test_a_conversation_that_fails_leaves_the_log_whole(
    place: str, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """No closing event is lost by what is done with it beside the log."""

    def fail(*args: Any) -> None:
        raise RuntimeError("a bug of ours")

    async def body(ctx: RunContext) -> None:
        async with ctx.message() as out:
            await out.write("said")
            if place == "in the end":
                ctx._frame.run.cancel("enough")
                await trio.sleep_forever()

    monkeypatch.setattr(Transcript, "note_message", fail)
    played = await play(agent_of(body), limits=Limits(buffer=4))

    await check_ended(played.stream, played.log)
    assert [e.type for e in played.log].count(T.MESSAGE_COMPLETE) == 1
    status = played.log[-1].data["status"]
    assert status == ("error" if place == "in its turn" else "cancelled")
    assert "a bug of ours" in caplog.text


async def test_a_clock_that_fails_leaves_the_log_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of_a_run()
    log.start(lambda: 0.0)

    class Broken:
        def current_time(self) -> float:
            raise RuntimeError("no time")

    monkeypatch.setattr(log, "_clock", Broken())
    with pytest.raises(RuntimeError):
        await log.emit(T.RUN_START, {}, ROOT)

    assert (log.channel.credits, log.law.count, log.channel.undelivered) == (8, 0, 0)


async def test_an_event_that_is_in_the_channel_has_cost_its_credit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where what is done with it beside the log fails."""

    def fail(log: EventLog, event: Any) -> None:
        raise RuntimeError("a bug of ours")

    data = {
        "message": "hi",
        "session_id": None,
        "agent": "a",
        "parent_run_id": None,
        "schema": 1,
    }
    log = log_of_a_run()
    log.start(lambda: 0.0)
    monkeypatch.setattr(EventLog, "_note", fail)
    with pytest.raises(RuntimeError):
        await log.emit(T.RUN_START, data, ROOT)

    assert (log.channel.credits, log.law.count, log.channel.undelivered) == (7, 1, 1)


async def test_the_end_of_a_call_whose_agent_has_ended_is_not_told_again() -> None:
    log = log_of_a_run()
    log.start(lambda: 0.0)

    log.record_end({"call_id": "c1"}, Speaker(is_closed=True))

    assert (log.late_events, log.law.count) == (1, 0)
