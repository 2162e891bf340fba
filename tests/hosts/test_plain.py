"""Runs read by plain code: scripts, notebooks, threads."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import flowtrio.sync
from flowtrio import (
    AgentStatus,
    EventType,
    Orchestrator,
    RunCancelled,
    RunContext,
    RunFailed,
)
from flowtrio._run import _thread
from flowtrio.testing import check_events

from .programs import ENGINE, Waits, is_chunk, talk


def test_a_run_is_read_in_a_script() -> None:
    with flowtrio.sync.stream(ENGINE, talk, "hi") as events:
        check_events(list(events))
        assert events.result() == "done"
        assert list(events) == []

    assert events.status is AgentStatus.COMPLETED
    assert events.messages[-1]["content"] == "done"
    assert _thread._shared == []


def test_an_orchestrator_answers_a_script_with_its_options() -> None:
    orchestrator = Orchestrator(agents=[talk])
    with flowtrio.sync.stream(orchestrator, None, "hi", session_id="s", run_id="r") as events:
        assert events.result() == "done"
        assert events.run_id == "r"


def test_a_run_that_fails_says_so_in_its_result() -> None:
    async def fail(ctx: RunContext, message: str) -> None:
        raise ValueError("no")

    with flowtrio.sync.stream(ENGINE, fail, "hi") as events:
        with pytest.raises(RunFailed):
            events.result()


def test_nothing_is_alive_when_the_block_was_left() -> None:
    waits = Waits()
    with flowtrio.sync.stream(ENGINE, waits, "hi") as events:
        for event in events:
            if is_chunk(event):
                break
    with pytest.raises(KeyError):
        with flowtrio.sync.stream(ENGINE, waits, "hi") as events:
            for event in events:
                if is_chunk(event):
                    raise KeyError("mine")
    with flowtrio.sync.stream(ENGINE, waits, "hi"):
        pass

    assert waits.ended == len(waits.threads) >= 2
    assert _thread._shared == []
    assert list(events) == []
    with pytest.raises(RunCancelled):
        events.result()


def test_controls_reach_the_run() -> None:
    async def ask(ctx: RunContext, message: str) -> str:
        return await ctx.ask("well?")

    with flowtrio.sync.stream(ENGINE, ask, "hi") as events:
        for event in events:
            if event.type is EventType.INPUT_REQUIRED:
                assert events.answer(event.data["request_id"], "fine")
        assert events.result() == "fine"


def test_it_works_beside_a_running_loop_as_in_a_notebook() -> None:
    async def cell() -> str:
        with flowtrio.sync.stream(ENGINE, talk, "hi") as events:
            return str(events.result())

    assert asyncio.run(cell()) == "done"


def test_it_works_in_many_threads_at_once() -> None:
    results: list[Any] = []

    def read() -> None:
        with flowtrio.sync.stream(ENGINE, talk, "hi") as events:
            results.append(events.result())

    threads = [threading.Thread(target=read) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == ["done"] * 5


async def test_it_is_refused_under_trio() -> None:
    with pytest.raises(RuntimeError, match="would block this Trio loop"):
        with flowtrio.sync.stream(ENGINE, talk, "hi"):
            pass


def test_an_exit_inside_the_run_is_raised_by_its_reader_once() -> None:
    async def leave(ctx: RunContext, message: str) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        with flowtrio.sync.stream(ENGINE, leave, "hi") as events:
            for _ in events:
                pass
    with pytest.raises(SystemExit):
        with flowtrio.sync.stream(ENGINE, leave, "hi") as events:
            while events.status is not AgentStatus.ERROR:
                time.sleep(0.001)
    with flowtrio.sync.stream(ENGINE, leave, "hi") as events:
        with pytest.raises(SystemExit):
            list(events)
        assert list(events) == []


def test_a_thread_that_ends_releases_its_readers() -> None:
    with flowtrio.sync.stream(ENGINE, Waits(), "hi") as events:
        next(events)
        _thread._shared[0].stop()
        with pytest.raises(_thread.ThreadEnded):
            for _ in events:
                pass
        assert not events.cancel()


SCRIPT = """
import sys, trio, flowtrio.sync
from flowtrio import StreamEngine

async def wait(ctx, message):
    async with ctx.message() as out:
        await out.write("x")
        try:
            await trio.sleep_forever()
        finally:
            print("cleaned up", flush=True)

{program}
"""
SYNC = """
with flowtrio.sync.stream(StreamEngine(), wait, "hi") as events:
    for event in events:
        if event.type == "message_chunk":
            print("ready", flush=True)
"""
ASYNCIO = """
import asyncio

async def main():
    async for event in StreamEngine().stream(wait, "hi"):
        if event.type == "message_chunk":
            print("ready", flush=True)

asyncio.run(main())
"""
BRIDGE = """
import asyncio
from flowtrio.aio import Bridge

async def main():
    async with Bridge() as bridge:
        async with bridge.stream(lambda: StreamEngine().stream(wait, "hi")) as events:
            async for event in events:
                if event.type == "message_chunk":
                    print("ready", flush=True)

asyncio.run(main())
"""
LEFT = """
events = flowtrio.sync.stream(StreamEngine(), wait, "hi")
for event in events.__enter__():
    if event.type == "message_chunk":
        print("ready", flush=True)
        break
"""


@contextmanager
def _start(program: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT.format(program=program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # Of one that does not end, the block would wait for the end.


@pytest.mark.parametrize("program", [SYNC, ASYNCIO, BRIDGE], ids=["sync", "asyncio", "bridge"])
def test_ctrl_c_ends_the_run_and_then_the_program(program: str) -> None:
    with _start(program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert out == "cleaned up\n"
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "Exception ignored" not in err
    assert process.returncode in (-signal.SIGINT, 130)


def test_a_run_that_is_left_at_the_end_of_the_process_is_ended() -> None:
    with _start(LEFT) as process:
        out, err = process.communicate(timeout=60)

    assert (out, err) == ("ready\ncleaned up\n", "")
    assert process.returncode == 0


FORK = """
import os
with flowtrio.sync.stream(StreamEngine(), wait, "hi") as events:
    for event in events:
        if event.type == "message_chunk":
            break
    child = os.fork()
    if not child:
        try:
            events.cancel()
        except RuntimeError as exc:
            print("told:", exc, flush=True)
        async def answer(ctx, message):
            return "answered"
        with flowtrio.sync.stream(StreamEngine(), answer, "hi") as more:
            print(more.result(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
print("parent", events.status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_process_that_is_forked_is_told_and_has_a_thread_of_its_own() -> None:
    with _start(FORK) as process:
        out, err = process.communicate(timeout=60)

    lines = out.splitlines()
    assert lines[0].startswith("told: this process was forked")
    assert lines[1:] == ["answered", "cleaned up", "parent cancelled"]
    assert err == ""
