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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from flowtrio import (
    Agent,
    Chunk,
    EventType,
    Orchestrator,
    RunContext,
    SQLiteConversations,
    SQLiteStore,
    ToolCall,
    tool,
)
from flowtrio._core._events import ROOT, AgentEvent
from flowtrio.testing import check_events
from flowtrio.testing._requests import check_messages

CRASHES = int(os.environ.get("FLOWTRIO_CRASHES", "5"))
SESSIONS = ("a", "b", "model")
AND_NOW = "and now"
PIECES = 20


@tool
async def look_up(word: str) -> str:
    """Look a word up."""
    await trio.sleep(0.003)
    return word.upper()


async def answers(ctx: RunContext, message: str) -> str:
    """Call tools and talk; give what the user has said so far."""
    if ctx.session_id == "model":
        return str(await modelled(ctx, message))
    async with trio.open_nursery() as nursery:
        for word in ("one", "two"):
            nursery.start_soon(_look_up, ctx, word)
        async with ctx.message() as out:
            for number in range(PIECES):
                await out.write(f"{number} ")
                await trio.sleep(0.001)
    return ",".join([*(m["content"] for m in ctx.history if m["role"] == "user"), message])


async def _look_up(ctx: RunContext, word: str) -> None:
    await ctx.call(look_up, word=word)


class Model:
    """Calls two tools, then says what the user has said so far, and takes nothing invalid."""

    async def stream_completion(self, messages: Any, *args: Any, **options: Any) -> Any:
        """Give one reply."""
        check_messages(messages)
        if messages[-1]["role"] == "user":
            calls = [ToolCall(word, "look_up", {"word": word}) for word in ("one", "two")]
            yield Chunk(content="looking ")
            await trio.sleep(0.003)
            yield Chunk(is_final=True, tool_calls=calls)
            return
        text = ",".join(m["content"] for m in messages if m["role"] == "user")
        step = -(-len(text) // PIECES)
        for place in range(0, len(text), step):
            yield Chunk(content=text[place : place + step])
            await trio.sleep(0.001)
        yield Chunk(is_final=True)


modelled = Agent(llm_client=Model(), tools=[look_up])


async def serve(path: str, first: int) -> None:
    """Answer messages in all sessions until killed, and tell of each that is taken and answered."""
    async with SQLiteStore(path) as store, SQLiteConversations(path) as conversations:
        orchestrator = Orchestrator(agents=[answers], store=store, conversations=conversations)
        async with orchestrator, trio.open_nursery() as nursery:
            for session_id in SESSIONS:
                nursery.start_soon(_talk, orchestrator, session_id, first)


async def _talk(orchestrator: Orchestrator, session_id: str, number: int) -> None:
    while True:
        run_id = await orchestrator.start(f"{number}", session_id=session_id)
        print("started", session_id, number, run_id, flush=True)
        async with orchestrator.attach(run_id) as stream:
            async for _ in stream:
                pass
        print("answered", session_id, number, run_id, flush=True)
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
    told: dict[str, set[str]] = {"started": set(), "answered": set()}
    cut = 0
    for crash in range(CRASHES):
        with _served(path, 1000 * crash) as process:
            lines = [process.stdout.readline() for _ in range(dice.randint(1, 16))]
            time.sleep(dice.uniform(0, 0.03))
            process.kill()
            lines += process.stdout.readlines()
        for line in lines:
            what, _, _, run_id = line.split()
            told[what].add(run_id)
        cut += await _check(path, told)

    assert told["answered"]
    assert cut > CRASHES / 2, "hardly a run was ever cut off in the midst: the kills came too late"


async def _check(path: Path, told: dict[str, set[str]]) -> int:
    """Look at all that is kept, and talk on in each session; gives how many runs were cut off.

    Those count that had come to say something.
    """
    cut = 0
    async with SQLiteStore(path) as store, SQLiteConversations(path) as conversations:
        headers = await store.list("default")
        logs = {h.run_id: await store.read("default", h.run_id, -1, 10_000) for h in headers}
        assert told["started"] <= logs.keys()
        for header in headers:
            check_events(logs[header.run_id])
            if header.run_id in told["answered"]:
                assert header.status == "completed"
        orchestrator = Orchestrator(agents=[answers], conversations=conversations)
        for session_id in SESSIONS:
            runs = [header for header in headers if header.session_id == session_id]
            kept = await conversations.load("default", session_id)
            check_messages(kept)
            said = {h.message: (str(h.status), _said_in(logs[h.run_id])) for h in runs}
            cut += _compare(kept, said)
            result = await orchestrator.process(AND_NOW, session_id=session_id)
            known = [text for text in result.split(",") if text != AND_NOW]
            # Old turns are dropped whole where a conversation is longer than is kept.
            assert len(known) >= min(len(runs), 20)
            assert known == [header.message for header in runs][len(runs) - len(known) :]
    return cut


def _said_in(log: Sequence[AgentEvent]) -> list[str]:
    """The texts that the agent said in a run, or returned."""
    complete = [e for e in log if e.type is EventType.MESSAGE_COMPLETE and e.agent == ROOT]
    texts = [event.data["content"] for event in complete if event.data["content"]]
    result = log[-1].data["result"]
    return texts if result in (None, *texts[-1:]) else [*texts, result]


def _compare(kept: list[dict[str, Any]], said: dict[str, tuple[str, list[str]]]) -> int:
    """Compare a conversation with the logs of its runs; gives how many have a text cut off."""
    turns: list[list[dict[str, Any]]] = []
    for message in kept:
        if message["role"] == "user":
            turns.append([])
        turns[-1].append(message)
    partial = 0
    for user, *rest in turns:
        if user["content"] == AND_NOW:
            continue
        status, texts = said[user["content"]]
        told = [m["content"] for m in rest if m["role"] == "assistant" and m["content"]]
        # A run that had just ended may have been saved before the last of its log was.
        assert told == texts if status == "completed" else "".join(told).startswith("".join(texts))
        is_partial = [bool(m.get("flowtrio", {}).get("partial")) for m in rest]
        assert not (status == "completed" and any(is_partial))
        partial += any(is_partial)
    return partial
