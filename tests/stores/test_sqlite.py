"""The stores in a file: what they keep, refuse, and make of what was cut off."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import trio

from flowtrio import Orchestrator, RunContext, RunExists, SQLiteConversations, SQLiteStore
from flowtrio._core._events import ROOT, AgentEvent, EventType
from flowtrio._hosting import _unsettled
from flowtrio.abc import RunHeader
from flowtrio.stores import _database, sqlite
from flowtrio.testing import check_events
from tests.runtime._programs import done_of, error_of

T = EventType


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def echo(ctx: RunContext, message: str) -> str:
    """Say what was said before, and what is said now."""
    said = [m["content"] for m in ctx.history if m["role"] == "user"]
    async with ctx.message() as out:
        for word in [*said, message]:
            await out.write(f"{word} ")
    return " ".join([*said, message])


async def read(orchestrator: Orchestrator, run_id: str, **options: Any) -> list[AgentEvent]:
    async with orchestrator.attach(run_id, **options) as stream:
        return [event async for event in stream]


def header(run_id: str = "r", tenant_id: str = "t", **keys: Any) -> RunHeader:
    given: dict[str, Any] = {"session_id": "s", "agent": "a", "message": "m", "created_at": 5.0}
    return RunHeader(tenant_id=tenant_id, run_id=run_id, **{**given, **keys})


def begun(run_id: str = "r") -> list[AgentEvent]:
    start = {
        "message": "m",
        "session_id": "s",
        "agent": "a",
        "parent_run_id": None,
        "schema": 1,
    }
    change = {"old_status": "initializing", "new_status": "running", "reason": None}
    return [
        AgentEvent(T.RUN_START, start, 0, run_id, ROOT, 5.0),
        AgentEvent(T.STATE_CHANGE, change, 1, run_id, ROOT, 6.0),
        AgentEvent(T.MESSAGE_CHUNK, {"chunk": "half a ", "message_id": "m1"}, 2, run_id, ROOT, 7.0),
    ]


# Runs and conversations outlast their process


async def test_finished_runs_and_conversations_are_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteStore(path) as store, SQLiteConversations(path) as conversations:
        async with Orchestrator(
            agents=[echo], store=store, conversations=conversations
        ) as orchestrator:
            run_id = await orchestrator.start("one", session_id="s")
            before = await read(orchestrator, run_id)

    async with SQLiteStore(path) as store, SQLiteConversations(path) as conversations:
        async with Orchestrator(
            agents=[echo], store=store, conversations=conversations
        ) as orchestrator:
            assert await read(orchestrator, run_id) == before
            assert await read(orchestrator, run_id, after=2) == before[3:]
            again = await orchestrator.start("one", session_id="s", run_id=run_id)
            assert await read(orchestrator, again) == before
            with pytest.raises(RunExists):
                await orchestrator.start("other", session_id="s", run_id=run_id)
            second = await orchestrator.start("two", session_id="s")
            assert done_of(await read(orchestrator, second))["result"] == "one two"
    check_events(before)


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
async def test_a_run_that_was_cut_off_reads_as_ended(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteStore(path) as store:
        await store.create(header())
        if kept:
            await store.append("t", "r", -1, begun()[:kept])
    async with SQLiteStore(path) as store, Orchestrator(agents=[echo], store=store) as orchestrator:
        events = await read(orchestrator, "r", tenant_id="t")
        found = await store.header("t", "r")

    check_events(events)
    assert events[:kept] == begun()[:kept]
    assert error_of(events)["code"] == "interrupted"
    assert found is not None
    assert found.status == "error"
    assert found.ended_at == events[-1].timestamp


async def test_opening_leaves_what_ended_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    for _ in range(3):
        async with SQLiteStore(path) as store:
            await store.create(header())
            log = await store.read("t", "r", -1, 100)
    async with SQLiteStore(path) as store:
        assert await store.read("t", "r", -1, 100) == log


# What was said in a run that was cut off


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


USER = {"role": "user", "content": "m"}
HALF = {"role": "assistant", "content": "half a ", "flowtrio": {"partial": True}}
BEFORE = [{"role": "user", "content": "before"}, {"role": "assistant", "content": "yes"}]


async def cut(path: Path, *runs: RunHeader, kept: int = 3, saved: Any = BEFORE) -> None:
    """Leave runs without an end in a file, in a conversation with something in it."""
    async with SQLiteStore(path) as store, SQLiteConversations(path) as conversations:
        if saved:
            await conversations.save("t", "s", saved)
        for run in runs or [header(is_remembered=True)]:
            await store.create(run)
            if kept:
                await store.append(run.tenant_id, run.run_id, -1, begun(run.run_id)[:kept])


async def loaded(path: Path, tenant_id: str = "t", session_id: str = "s") -> list[Any]:
    async with SQLiteConversations(path) as conversations:
        return await conversations.load(tenant_id, session_id)


@pytest.mark.parametrize(
    ("kept", "said"), [(0, [USER]), (1, [USER]), (2, [USER]), (3, [USER, HALF])]
)
async def test_what_was_said_in_a_run_that_was_cut_off_is_remembered_once(
    kept: int, said: list[Any], path: Path
) -> None:
    await cut(path, kept=kept)

    for _ in range(3):
        assert await loaded(path) == [*BEFORE, *said]


PARTS = [
    {"type": "text", "text": "m"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
]


@pytest.mark.parametrize("kept", [0, 3])
async def test_what_was_sent_to_a_run_that_was_cut_off_is_remembered_with_its_images(
    kept: int, path: Path
) -> None:
    run = header(is_remembered=True, parts=PARTS, digest="d")
    await cut(path, run, kept=kept)
    (_, _, user, *_), stored = await loaded(path), _count(path, "parts")
    async with SQLiteStore(path) as store:
        [start, *_] = await store.read("t", "r", -1, 10)
        found = await store.header("t", "r")

    assert user == {"role": "user", "content": PARTS}
    assert stored == 0
    assert found is not None
    assert (found.parts, found.digest) == ((), "d")
    told = {"kind": "image", "media_type": "image/png", "bytes": 8, "name": None}
    assert start.data.get("parts") == (None if kept else [told])


async def test_a_runs_parts_are_kept_until_it_ends_or_is_forgotten(path: Path) -> None:
    async with SQLiteStore(path) as store, SQLiteConversations(path):
        for name in ("a", "b", "c"):
            await store.create(header(name, is_remembered=True, parts=PARTS))
        await store.create(header("one-off", parts=PARTS))
        await store.create(header("text", is_remembered=True))
        before = _count(path, "parts")
        done = AgentEvent(T.DONE, {"status": "completed"}, 0, "a", ROOT, 6.0)
        await store.append("t", "a", -1, [done])
        after_end = _count(path, "parts")
        await store.delete("t", run_id="b")

        assert (before, after_end, _count(path, "parts")) == (3, 2, 1)


def _count(path: Path, table: str) -> int:
    with sqlite3.connect(path) as connection:
        [count] = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
    connection.close()
    return int(count)


async def test_a_conversation_may_begin_with_a_run_that_was_cut_off(path: Path) -> None:
    await cut(path, saved=())

    assert await loaded(path) == [USER, HALF]


async def test_runs_in_line_are_remembered_in_their_order(path: Path) -> None:
    runs = [header(name, message=name, is_remembered=True) for name in ("z", "b", "a")]
    await cut(path, *runs, kept=0)

    assert [m["content"] for m in await loaded(path)] == ["before", "yes", "z", "b", "a"]


async def test_tenants_and_sessions_are_kept_apart(path: Path) -> None:
    await cut(
        path,
        header("r", "other", is_remembered=True),
        header("q", session_id="z", is_remembered=True),
    )

    assert await loaded(path) == BEFORE
    assert await loaded(path, "other") == await loaded(path, "t", "z") == [USER, HALF]


async def test_a_message_without_a_session_is_not_remembered(path: Path) -> None:
    await cut(path, header())

    assert await loaded(path) == BEFORE


async def test_a_run_whose_conversation_was_saved_is_not_told_again(path: Path) -> None:
    """The process died between the last save and the log's DONE."""
    await cut_after_saving(path)

    assert await loaded(path) == [*BEFORE, USER]


async def cut_after_saving(path: Path) -> None:
    async with SQLiteStore(path) as store, SQLiteConversations(path) as conversations:
        await store.create(header(is_remembered=True))
        await store.append("t", "r", -1, begun())
        await conversations.save_after("t", "s", "r", [*BEFORE, USER])


async def test_a_save_that_forgot_its_run_would_be_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: the conversation is saved, and the run stays untold."""
    save = SQLiteConversations.save
    monkeypatch.setattr(
        SQLiteConversations, "save_after", lambda self, t, s, run, said: save(self, t, s, said)
    )
    await cut_after_saving(path)

    assert await loaded(path) != [*BEFORE, USER]


async def test_a_recovery_that_is_cut_off_itself_begins_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [header(name, is_remembered=True) for name in ("one", "two")]
    await cut(path, *runs, kept=0)
    add, calls = sqlite._add_to_conversation, []

    def die(*args: Any) -> None:
        calls.append(args)
        add(*args)
        if len(calls) == 2:
            raise sqlite3.OperationalError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "_add_to_conversation", die)
        with pytest.raises(sqlite3.OperationalError):
            await loaded(path)

    assert await loaded(path) == [*BEFORE, USER, USER]


async def test_a_conversation_that_was_forgotten_is_not_remembered_by_a_run(path: Path) -> None:
    clock = Clock()
    async with (
        SQLiteStore(path, clock=clock) as store,
        SQLiteConversations(path, keep=100, clock=clock) as conversations,
    ):
        await conversations.save("t", "s", BEFORE)
        clock.now += 101
        await store.create(header(is_remembered=True, created_at=clock.now))

    assert await loaded(path) == [USER]


async def test_a_store_without_conversations_keeps_none(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.create(header(is_remembered=True))

    assert await loaded(path) == []


async def test_a_file_of_the_version_before_still_opens(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        for statement in VERSION_1.split(";"):
            connection.execute(statement)
    connection.close()
    async with SQLiteStore(path) as store:
        found = await store.header("t", "r")
        log = await store.read("t", "r", -1, 10)
        await store.create(header("new", is_remembered=True))
    with sqlite3.connect(path) as connection:
        [version] = connection.execute("PRAGMA user_version").fetchone()
    connection.close()

    assert found is not None
    assert (found.status, found.is_remembered) == ("error", False)
    check_events(log)
    assert version == _database.VERSION
    assert await loaded(path) == [USER]


VERSION_1 = """
CREATE TABLE runs (
    run INTEGER PRIMARY KEY, tenant_id TEXT NOT NULL, run_id TEXT NOT NULL, session_id TEXT,
    agent TEXT NOT NULL, message TEXT NOT NULL, created_at REAL NOT NULL, ended_at REAL,
    status TEXT, owner TEXT, last INTEGER NOT NULL DEFAULT -1, UNIQUE (tenant_id, run_id)
);
CREATE INDEX runs_of_session ON runs (tenant_id, session_id);
CREATE INDEX runs_by_end ON runs (ended_at);
CREATE TABLE events (
    run INTEGER NOT NULL, seq INTEGER NOT NULL, event BLOB NOT NULL, PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE TABLE conversations (
    tenant_id TEXT NOT NULL, session_id TEXT NOT NULL, messages BLOB NOT NULL,
    used_at REAL NOT NULL, PRIMARY KEY (tenant_id, session_id)
) WITHOUT ROWID;
INSERT INTO runs (tenant_id, run_id, session_id, agent, message, created_at)
VALUES ('t', 'r', 's', 'a', 'old', 5.0);
INSERT INTO conversations VALUES ('t', 's', '[{"role":"user","content":"m"}]', 5.0);
PRAGMA user_version = 1
"""


async def test_an_orchestrator_tells_which_run_it_saves_after(path: Path) -> None:
    async def saved(ctx: RunContext, message: str) -> str:
        return message

    async with SQLiteStore(path) as store, SQLiteConversations(path) as conversations:
        async with Orchestrator(
            agents=[saved], store=store, conversations=conversations
        ) as orchestrator:
            run_id = await orchestrator.start("hi", session_id="s")
            await read(orchestrator, run_id)
            alone = await orchestrator.start("alone")
            await read(orchestrator, alone)
        remembered = [await store.header("default", name) for name in (run_id, alone)]
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT untold FROM runs").fetchall()
    connection.close()

    assert [h is not None and h.is_remembered for h in remembered] == [True, False]
    assert rows == [(0,), (0,)]


# Forgetting


async def test_runs_are_forgotten_when_they_are_too_old(tmp_path: Path) -> None:
    clock = Clock()
    async with SQLiteStore(tmp_path / "a.db", keep=100, clock=clock) as store:
        await _store_ended(store, "old", clock.now)
        clock.now += 90
        await _store_ended(store, "new", clock.now)
        assert await store.header("t", "old") is not None
        clock.now += 90
        await store.create(header("another"))

        assert await store.header("t", "old") is None
        assert await store.header("t", "new") is not None


async def _store_ended(store: SQLiteStore, run_id: str, when: float) -> None:
    await store.create(header(run_id))
    data = {"status": "completed"}
    await store.append("t", run_id, -1, [AgentEvent(T.DONE, data, 0, run_id, ROOT, when)])


async def test_a_conversation_is_kept_whole_bounded_and_for_its_time(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "a.db"
    async with SQLiteConversations(path, max_messages=4, keep=100, clock=clock) as store:
        turns = [{"role": role, "content": f"é{n}"} for n in range(3) for role in ("user", "x")]
        await store.save("t", "s", turns)
        assert await store.load("t", "s") == turns[2:]
        assert await store.load("u", "s") == await store.load("t", "z") == []
        await store.save("t", "gone", turns[:2])
        await store.delete("t", "gone")
        assert await store.load("t", "gone") == []
        clock.now += 101
        assert await store.load("t", "s") == []
        await store.save("t", "new", turns[:2])
    with sqlite3.connect(path) as connection:
        [count] = connection.execute("SELECT COUNT(*) FROM conversations").fetchone()
    connection.close()

    assert count == 1


async def test_a_conversation_has_no_more_bytes_than_it_may(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "x" * 100} for _ in range(5)]
    async with SQLiteConversations(tmp_path / "a.db", max_bytes=300) as store:
        await store.save("t", "s", turns)

        assert await store.load("t", "s") == turns[3:]
        await store.save("t", "s", [{"role": "user", "content": "x" * 400}])
        assert await store.load("t", "s") == []


@pytest.mark.parametrize("kind", [SQLiteStore, SQLiteConversations])
def test_keep_has_to_be_a_time(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep=0"):
        kind(tmp_path / "a.db", keep=0)


# What goes wrong


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that cannot grow beyond some 100 KB."""
    connect = sqlite3.connect

    def connect_small(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options)
        connection.execute("PRAGMA max_page_count = 25")
        return connection

    monkeypatch.setattr(_database.sqlite3, "connect", connect_small)


async def test_a_full_disk_ends_the_run_and_leaves_a_log_that_can_be_read(
    small_disk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gushes(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            for number in range(100_000):
                await out.write(f"{number} " * 10)

    path = tmp_path / "runs.db"
    async with (
        SQLiteStore(path) as store,
        Orchestrator(agents=[gushes], store=store) as orchestrator,
    ):
        run_id = await orchestrator.start("hi")
        live = await read(orchestrator, run_id)
        stored = await store.read("default", run_id, -1, 100_000)
    monkeypatch.undo()
    async with SQLiteStore(path) as store:
        recovered = await store.read("default", run_id, -1, 100_000)

    check_events(live)
    assert error_of(live)["code"] == "store_failed"
    assert 10 < len(stored) < len(live)
    assert list(stored) == live[: len(stored)]
    check_events(recovered)
    assert list(stored) == list(recovered)[: len(stored)]


async def test_once_there_is_room_again_such_a_log_gets_its_end(
    small_disk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gushes(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            for number in range(100_000):
                await out.write(f"{number} " * 10)

    def make_room(db: sqlite3.Connection) -> None:
        db.execute("PRAGMA max_page_count = 10000")

    monkeypatch.setattr(_unsettled, "_MEND_AFTER", 0.01)
    async with (
        SQLiteStore(tmp_path / "runs.db") as store,
        Orchestrator(agents=[gushes], store=store) as orchestrator,
    ):
        run_id = await orchestrator.start("hi")
        live = await read(orchestrator, run_id)
        await store._database.write(make_room)
        with trio.fail_after(10):
            while await store.wait_past("default", run_id, -1) < live[-1].seq:
                await trio.sleep(0.01)
        stored = await store.read("default", run_id, -1, 100_000)

    check_events(live)
    assert list(stored) == live


async def test_one_bad_append_does_not_spoil_those_of_its_group(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "a.db") as store:
        names = [f"r{number}" for number in range(20)]
        for name in names:
            await store.create(header(name))
        refused: list[str] = []

        async def append(name: str) -> None:
            after = -1 if int(name[1:]) % 2 else 7
            events = [AgentEvent(T.CUSTOM, {"a": 1}, after + 1, name, ROOT, 1.0)]
            try:
                await store.append("t", name, after, events)
            except Exception:
                refused.append(name)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(append, name)
        lengths = [len(await store.read("t", name, -1, 10)) for name in names]

    assert sorted(refused) == sorted(names[::2])
    assert lengths == [0, 1] * 10


async def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    async with SQLiteStore(path) as store:
        for _ in range(2):
            with pytest.raises(ValueError, match="version 99: expected 5"):
                await store.create(header())


async def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_text("no database, but a text that is long enough for one" * 100)
    async with SQLiteStore(path) as store:
        with pytest.raises(sqlite3.DatabaseError):
            await store.create(header())


async def test_a_file_that_another_process_uses_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(_database, "_LOCK_SECONDS", 0.1)
    path = tmp_path / "a.db"
    with open(f"{path}.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        async with SQLiteStore(path) as store:
            with pytest.raises(BlockingIOError):
                await store.create(header())


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")
    await store.create(header())
    await store.aclose()

    with pytest.raises(trio.ClosedResourceError):
        await store.create(header())


async def test_a_store_that_is_dropped_frees_its_file(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")
    await store.create(header())
    del store
    async with SQLiteStore(tmp_path / "a.db") as again:
        assert await again.header("t", "r") is not None


async def test_two_stores_of_one_file_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with SQLiteStore(path) as one, SQLiteStore(path) as two:
        await one.create(header())
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(two.wait_past, "t", "r", -1)
                await one.append("t", "r", -1, begun())


async def test_a_store_that_is_never_used_makes_no_file(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "a.db"):
        pass

    assert list(tmp_path.iterdir()) == []


async def test_closing_waits_for_no_more_writes_and_keeps_those_that_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    store = SQLiteStore(path)
    await store.create(header())
    # So long would a write wait for others to share its commit.
    monkeypatch.setattr(_database, "GROUP_SECONDS", 1000)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.append, "t", "r", -1, begun())
            await trio.testing.wait_all_tasks_blocked()
            await store.aclose()
    with sqlite3.connect(path) as connection:
        [count] = connection.execute("SELECT COUNT(*) FROM events").fetchone()
    connection.close()

    assert count == len(begun())


async def test_where_files_cannot_be_locked_a_store_works_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_database, "fcntl", None)
    async with SQLiteStore(tmp_path / "a.db") as store:
        assert await store.create(header())


async def test_what_the_database_refuses_is_rolled_back(tmp_path: Path) -> None:
    database = _database.open_database(str(tmp_path / "a.db"), lambda connection: None)

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM runs")
        connection.execute("INSERT INTO nowhere VALUES (1)")

    async with SQLiteStore(tmp_path / "a.db") as store:
        await store.create(header())
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            await database.write(spoil)
        assert await store.header("t", "r") is not None
    await database.release()
