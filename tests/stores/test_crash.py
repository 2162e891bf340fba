"""A server process that is killed, again and again, on one file.

The environment variable ``FLOWTRIO_CRASHES`` says how often (``nox -s soak`` does it a hundred
times); each time somewhere else.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from flowtrio import Orchestrator, RunContext, SQLiteConversations, SQLiteStore, tool
from flowtrio.testing import check_events

CRASHES = int(os.environ.get("FLOWTRIO_CRASHES", "5"))
SESSIONS = ("a", "b", "c")


@tool
async def look_up(word: str) -> str:
    """Look a word up."""
    await trio.sleep(0.003)
    return word.upper()


async def answers(ctx: RunContext, message: str) -> list[str]:
    """Call tools and talk; give what the user has said so far."""
    async with trio.open_nursery() as nursery:
        for word in ("one", "two"):
            nursery.start_soon(_look_up, ctx, word)
        async with ctx.message() as out:
            for number in range(20):
                await out.write(f"{number} ")
                await trio.sleep(0.001)
    return [*(m["content"] for m in ctx.history if m["role"] == "user"), message]


async def _look_up(ctx: RunContext, word: str) -> None:
    await ctx.call(look_up, word=word)


async def serve(path: str, first: int) -> None:
    """Answer messages in all sessions until killed, and tell of each that is answered."""
    async with SQLiteStore(path) as store, SQLiteConversations(path) as conversations:
        orchestrator = Orchestrator(agents=[answers], store=store, conversations=conversations)
        async with orchestrator, trio.open_nursery() as nursery:
            for session_id in SESSIONS:
                nursery.start_soon(_talk, orchestrator, session_id, first)


async def _talk(orchestrator: Orchestrator, session_id: str, number: int) -> None:
    while True:
        run_id = await orchestrator.start(f"{number}", session_id=session_id)
        async with orchestrator.attach(run_id) as stream:
            async for _ in stream:
                pass
        print(session_id, number, run_id, flush=True)
        number += 1


@contextmanager
def _served(path: Path, first: int) -> Iterator[Any]:
    command = [sys.executable, "-c", _PROGRAM, str(path), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


_PROGRAM = """
import sys, trio
from tests.stores.test_crash import serve
trio.run(serve, sys.argv[1], int(sys.argv[2]))
"""


async def test_after_a_kill_all_runs_have_ended_and_conversations_go_on(tmp_path: Path) -> None:
    path, dice = tmp_path / "runs.db", random.Random(6)
    told: dict[str, list[str]] = {session_id: [] for session_id in SESSIONS}
    runs: set[str] = set()
    for crash in range(CRASHES):
        with _served(path, 1000 * crash) as process:
            lines = [process.stdout.readline() for _ in range(dice.randint(1, 8))]
            time.sleep(dice.uniform(0, 0.03))
            process.kill()
            lines += process.stdout.readlines()
        for line in lines:
            session_id, number, run_id = line.split()
            told[session_id].append(number)
            runs.add(run_id)
        statuses = await _check(path, told, runs)
        assert "completed" in statuses

    assert "error" in statuses, "no run was ever cut off: the kills came too late"


async def _check(path: Path, told: dict[str, list[str]], runs: set[str]) -> set[str]:
    """Look at everything that is kept, and talk on in each session."""
    statuses = set()
    async with SQLiteStore(path) as store, SQLiteConversations(path) as conversations:
        headers = await store.list("default")
        assert runs <= {header.run_id for header in headers}
        for header in headers:
            log = await store.read("default", header.run_id, -1, 10_000)
            check_events(log)
            statuses.add(str(header.status))
            if header.run_id in runs:
                assert header.status == "completed"
        orchestrator = Orchestrator(agents=[answers], conversations=conversations)
        for session_id, numbers in told.items():
            knows = await orchestrator.process("and now", session_id=session_id)
            kept = [n for n in knows if n in set(numbers)]
            # Old turns are dropped whole where a conversation is longer than is kept.
            assert len(kept) >= min(len(numbers), 60)
            assert kept == numbers[len(numbers) - len(kept) :]
    return statuses
