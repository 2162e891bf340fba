"""Files that earlier versions wrote: each loads, is followed, and ends what was cut off in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowtrio import Orchestrator, SQLiteConversations, SQLiteStore
from flowtrio._core._events import SCHEMA, AgentEvent, StreamMode
from flowtrio.testing import check_events
from tests.runtime._programs import done_of, error_of
from tests.stores.test_sqlite import echo, read

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.sql"))
ENDED = {"go": "completed", "fail": "error", "cancel": "cancelled"}
CUT = ("cut", "waits")


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file as an earlier version left it."""
    path = tmp_path / "runs.db"
    connection = sqlite3.connect(path)
    connection.executescript(request.param.read_text(encoding="utf-8"))
    connection.close()
    return path


def written(path: Path) -> dict[str, list[AgentEvent]]:
    """The logs that are in a file, by run, without any code of the store's."""
    connection = sqlite3.connect(path)
    text = "SELECT run_id, event FROM runs LEFT JOIN events USING (run) ORDER BY run, seq"
    logs: dict[str, list[AgentEvent]] = {}
    for run_id, event in connection.execute(text):
        log = logs.setdefault(run_id, [])
        if event is not None:
            log.append(msgspec.json.decode(event, type=AgentEvent))
    connection.close()
    return logs


def test_there_is_a_golden_file_of_each_earlier_version_of_the_log() -> None:
    assert [path.stem for path in GOLDEN][: SCHEMA - 1] == [f"schema-{n}" for n in range(1, SCHEMA)]


async def test_what_had_ended_is_followed_as_it_was(path: Path) -> None:
    before = written(path)
    async with SQLiteStore(path) as store, Orchestrator(agents=[echo], store=store) as orchestrator:
        for run_id, status in ENDED.items():
            log = before[run_id]
            assert await read(orchestrator, run_id) == log
            for after in (0, len(log) // 2, len(log) - 1):
                assert await read(orchestrator, run_id, after=after) == log[after + 1 :]
            for mode in StreamMode:
                assert (await read(orchestrator, run_id, mode=mode))[-1].type == "done"
            check_events(log)
            assert done_of(log)["status"] == status


@pytest.mark.parametrize("run_id", CUT)
async def test_what_was_cut_off_gets_its_end(run_id: str, path: Path) -> None:
    before = written(path)
    async with SQLiteStore(path) as store, Orchestrator(agents=[echo], store=store) as orchestrator:
        log = await read(orchestrator, run_id)

    check_events(log)
    assert log[: len(before[run_id])] == before[run_id]
    assert error_of(log)["code"] == "interrupted"


async def test_its_conversations_go_on(path: Path) -> None:
    async with (
        SQLiteStore(path) as store,
        SQLiteConversations(path) as conversations,
        Orchestrator(agents=[echo], store=store, conversations=conversations) as orchestrator,
    ):
        said = [await users(conversations, session_id) for session_id in ("ended", "cut")]
        for session_id, earlier in (("ended", "go fail cancel"), ("cut", "cut waits")):
            await orchestrator.start("next", session_id=session_id, run_id=session_id * 2)
            log = await read(orchestrator, session_id * 2)
            assert done_of(log)["result"] == f"{earlier} next"
        cut = await conversations.load("default", "cut")

    assert said == [["go", "fail", "cancel"], ["cut", "waits"]]
    assert cut[1]["content"] == "half a "
    assert cut[1]["flowtrio"] == {"partial": True}


async def users(conversations: SQLiteConversations, session_id: str) -> list[Any]:
    messages = await conversations.load("default", session_id)
    return [message["content"] for message in messages if message["role"] == "user"]
