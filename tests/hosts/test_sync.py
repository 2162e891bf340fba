"""Runs that are read by plain code."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import pytest
import trio

from flowtrio import EventType, Orchestrator, RunContext, RunFailed, StreamEngine, sync
from flowtrio._run import _thread
from flowtrio.testing import check_events

engine = StreamEngine()
ended: list[str] = []


async def writes(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        for letter in message:
            await out.write(letter)
    return message


async def waits(ctx: RunContext, message: str) -> None:
    try:
        async with ctx.message() as out:
            await out.write("x")
            await trio.sleep_forever()
    finally:
        ended.append(message)


async def interrupts(ctx: RunContext, message: str) -> None:
    raise KeyboardInterrupt


def is_idle() -> bool:
    return not any(thread.jobs for thread in _thread._shared)


def test_a_run_is_read_without_a_loop() -> None:
    with sync.stream(engine, writes, "a" * 300) as events:
        read = list(events)

        assert events.result() == "a" * 300
        assert events.status == "completed"
        assert events.run_id == read[0].run_id

    check_events(read)
    assert is_idle()


def test_a_run_of_an_orchestrator_and_its_result_alone() -> None:
    orchestrator = Orchestrator(agents=[writes])
    with sync.stream(orchestrator, None, "hello", tenant_id="t") as events:
        assert events.result() == "hello"

    async def fails(ctx: RunContext, message: str) -> None:
        raise LookupError(message)

    with sync.stream(engine, fails, "no") as events, pytest.raises(RunFailed, match="no"):
        events.result()


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_leaving_ends_the_run(error: Any) -> None:
    ended.clear()

    def read() -> None:
        with sync.stream(engine, waits, "hi") as events:
            for event in events:
                if event.type is EventType.MESSAGE_CHUNK:
                    if error is not None:
                        raise error
                    break

    with nullcontext() if error is None else pytest.raises(error):
        read()

    assert ended == ["hi"]
    assert is_idle()


def test_controls_reach_the_run() -> None:
    async def asks(ctx: RunContext, message: str) -> str:
        return await ctx.ask("Where to?")

    with sync.stream(engine, asks, "hi") as events:
        for event in events:
            if event.type is EventType.INPUT_REQUIRED:
                assert events.answer(event.data["request_id"], "Rome")
        assert events.result() == "Rome"


def test_a_ctrl_c_inside_the_run_is_raised_by_its_reader() -> None:
    with pytest.raises(KeyboardInterrupt), sync.stream(engine, interrupts, "hi") as events:
        for _ in events:
            pass


def test_it_works_beside_a_running_loop_and_is_refused_under_trio() -> None:
    def read() -> Any:
        with sync.stream(engine, writes, "hi") as events:
            return events.result()

    async def main() -> Any:
        return read()

    assert asyncio.run(main()) == "hi"
    with pytest.raises(RuntimeError, match="would block this Trio loop"):
        trio.run(main)


def test_ctrl_c_in_a_script_ends_the_run_first() -> None:
    program = """
import trio
from flowtrio import StreamEngine, sync
async def agent(ctx, message):
    try:
        async with ctx.message() as out:
            await out.write("x")
            await trio.sleep_forever()
    finally:
        print("ended", flush=True)
with sync.stream(StreamEngine(), agent, "hi") as events:
    for event in events:
        print(event.type, flush=True)
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while "message_chunk" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        try:
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()

    assert rest.endswith("ended\n")
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "ResourceWarning" not in errors
