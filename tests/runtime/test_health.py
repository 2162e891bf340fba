"""Whether the stores work is asked of them once something failed, and told."""

from __future__ import annotations

import json
import logging
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from flowtrio import MemoryConversations, MemoryStore, Orchestrator, RunContext
from tests.runtime._programs import error_of
from tests.support.command import serving, talk
from tests.support.fragile_store import FragileStore


async def echo(ctx: RunContext, message: str) -> str:
    return message


class Conversations(MemoryConversations):
    """Conversations that fail as they are told to."""

    def __init__(self, does_fail: Callable[[], Any]) -> None:
        super().__init__()
        self.does_fail = does_fail

    async def save(self, *args: Any) -> None:
        if self.does_fail():
            raise OSError("no space left in /secret/place")
        await super().save(*args)


async def answer(orchestrator: Orchestrator) -> Any:
    run_id = await orchestrator.start("hello", session_id="s")
    async with orchestrator.attach(run_id) as stream:
        return [event async for event in stream]


@pytest.mark.parametrize("what", ["create", "append", "conversations"])
async def test_what_fails_runs_is_told_until_it_works_again(
    what: str, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    is_full = False

    def fault_of(number: int, name: str, run_id: Any) -> str | None:
        return "raises" if is_full and name == what else None

    store = FragileStore(fault_of)
    conversations = Conversations(lambda: is_full and what == "conversations")
    async with Orchestrator(
        agents=[echo], store=store, conversations=conversations
    ) as orchestrator:
        check = orchestrator._health.check
        await answer(orchestrator)
        asked = len(store.asked)

        assert await check() is None
        assert len(store.asked) == asked, "nobody is asked while all is well"
        is_full = True
        assert error_of(await answer(orchestrator))["code"] == "store_failed"
        for _ in range(3):
            assert isinstance(await check(), OSError)
        await trio.sleep(2)
        assert isinstance(await check(), OSError)
        is_full = False
        await trio.sleep(2)
        assert await check() is None
        assert await check() is None
        await answer(orchestrator)

    told = [record.getMessage() for record in caplog.records if "ready" in record.getMessage()]
    assert told == [
        "not ready: the stores take nothing from runs",
        "ready again: the stores take what they are given",
    ]
    assert not [key for key in store._logs if key[0] != "default"], "the trials are gone"


async def test_one_run_whose_store_fails_is_no_reason(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fails = iter([True])
    conversations = Conversations(lambda: next(fails, False))
    async with Orchestrator(agents=[echo], conversations=conversations) as orchestrator:
        await answer(orchestrator)

        assert await orchestrator._health.check() is None
    assert "ready" not in caplog.text


async def test_a_store_that_hangs_is_waited_for_no_longer_than_a_trial_takes(
    autojump_clock: Any,
) -> None:
    store = FragileStore(lambda number, name, run_id: "hangs" if name != "header" else None)
    async with Orchestrator(agents=[echo], store=store) as orchestrator:
        orchestrator._health.note(OSError())
        began = trio.current_time()

        assert isinstance(await orchestrator._health.check(), trio.TooSlowError)
        assert trio.current_time() - began <= 10
        orchestrator._health.note(KeyboardInterrupt())
        assert isinstance(orchestrator._health.fault, trio.TooSlowError)


@pytest.mark.parametrize("how", ["raise", "hang"])
async def test_conversations_that_fail_leave_no_log_of_a_trial_behind(
    how: str, autojump_clock: Any
) -> None:
    class Bad(MemoryConversations):
        async def save(self, *args: Any) -> None:
            raise OSError

        async def delete(self, *args: Any) -> None:
            if how == "hang":
                await trio.sleep_forever()
            raise OSError

    store = MemoryStore()
    async with Orchestrator(agents=[echo], store=store, conversations=Bad()) as orchestrator:
        orchestrator._health.note(OSError())
        began = trio.current_time()

        assert await orchestrator._health.check() is not None
        assert trio.current_time() - began <= 10
    assert not store._logs


async def test_a_trial_is_made_for_all_who_ask_within_a_second(autojump_clock: Any) -> None:
    store = FragileStore(lambda number, name, run_id: "raises" if name == "create" else None)
    async with Orchestrator(agents=[echo], store=store) as orchestrator:
        check = orchestrator._health.check
        orchestrator._health.note(OSError())
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(check)
        await trio.sleep(0.9)
        await check()
        assert store.asked.count("create") == 1
        await trio.sleep(0.2)
        await check()
        assert store.asked.count("create") == 2


def test_a_trial_of_another_loop_is_none() -> None:
    store = FragileStore(lambda number, name, run_id: "raises" if name == "create" else None)
    orchestrator = Orchestrator(agents=[echo], store=store)
    orchestrator._health.note(OSError())

    async def check() -> Exception | None:
        async with orchestrator:
            return await orchestrator._health.check()

    # The clocks of loops begin anywhere.
    assert trio.run(check, clock=trio.testing.MockClock(rate=1)) is not None
    store.fault_of = lambda *call: None
    late = trio.testing.MockClock(rate=1)
    orchestrator._health._tried_at += 1000

    assert trio.run(check, clock=late) is None


@contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """No file of the process can grow."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))


def test_a_full_disk_is_told_while_it_is_full(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'runs.db'}"
    with serving("--store", store, "--log-format", "json") as served:
        ready = f"{served.page}ready"
        talk(served.socket, json.dumps({"type": "message", "message": "hi", "run_id": "r1"}))
        before = httpx.get(ready)
        with full_disk(served.process.pid):
            message = {"type": "message", "message": "hi", "run_id": "r2"}
            frames = talk(served.socket, json.dumps(message))
            full = httpx.get(ready)
        for _ in range(40):
            after = httpx.get(ready)
            if after.status_code == 200:
                break
            trio.run(trio.sleep, 0.1)
        _, log = served.end(signal.SIGTERM)

    assert (before.status_code, full.status_code, after.status_code) == (200, 503, 200)
    assert full.json()["status"] == "store_failed"
    assert full.json()["reason"].startswith("the store failed: ")
    assert frames[-1]["data"]["status"] == "error"
    assert str(tmp_path) not in full.text + json.dumps(frames)
    lines = [json.loads(line) for line in log.splitlines()]
    levels = {line["message"]: line["level"] for line in lines}
    assert levels["not ready: the stores take nothing from runs"] == "ERROR"
    assert (
        logging.getLevelName(logging.WARNING)
        == levels["ready again: the stores take what they are given"]
    )
