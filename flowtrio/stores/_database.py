"""One SQLite file, opened once in this process and used by one thread.

Everything is done in that thread, in the order in which it was asked for::

    tasks ─ jobs ─ thread ─┬─ writes: together in one transaction, at most one every 5 ms
                           └─ reads: at once, of what is committed

A commit costs forty times as much as an event in it, so writes that come soon after a commit wait
for each other (a *group commit*); the first one after a pause does not wait. Reads have a
connection of their own: in write-ahead mode it sees whole transactions only, so nobody reads what
is not yet kept.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import trio

try:
    import fcntl
except ModuleNotFoundError:  # pragma: no cover - Windows: there a second process is trusted
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")

VERSION: Final = 5
"""Of the tables, as ``PRAGMA user_version``."""
GROUP_SECONDS: Final = 0.005
"""Time between two commits, at least."""
GROUP_EVENTS: Final = 100
"""Writes that do not wait any longer."""
_LOCK_SECONDS: Final = 2.0
"""How long another one who holds the file is waited for."""

_SCHEMA: Final = """
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    session_id TEXT,
    agent TEXT NOT NULL,
    message TEXT NOT NULL,
    digest TEXT,
    created_at REAL NOT NULL,
    ended_at REAL,
    status TEXT,
    owner TEXT,
    last INTEGER NOT NULL DEFAULT -1,
    is_remembered INTEGER NOT NULL DEFAULT 0,
    untold INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant_id, run_id)
);
CREATE INDEX runs_of_session ON runs (tenant_id, session_id);
CREATE INDEX runs_of_tenant ON runs (tenant_id);
CREATE INDEX runs_by_end ON runs (ended_at);
CREATE TABLE events (
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    event BLOB NOT NULL,
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE TABLE parts (
    run INTEGER PRIMARY KEY,
    content BLOB NOT NULL
);
CREATE TABLE conversations (
    tenant_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    messages BLOB NOT NULL,
    used_at REAL NOT NULL,
    PRIMARY KEY (tenant_id, session_id)
) WITHOUT ROWID;
"""

_DESCRIPTIONS: Final = """
CREATE TABLE descriptions (
    tenant_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    told BLOB NOT NULL,
    PRIMARY KEY (tenant_id, session_id)
) WITHOUT ROWID;
"""

_STEPS: Final = {
    1: """
ALTER TABLE runs ADD COLUMN is_remembered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN untold INTEGER NOT NULL DEFAULT 0;
""",
    2: """
ALTER TABLE runs ADD COLUMN digest TEXT;
CREATE TABLE parts (run INTEGER PRIMARY KEY, content BLOB NOT NULL);
""",
    3: """
CREATE INDEX runs_of_tenant ON runs (tenant_id);
""",
    4: _DESCRIPTIONS,
}
"""What makes the tables of one version those of the next."""

Query: TypeAlias = "Callable[[sqlite3.Connection], T]"
"""What is done with a connection; may raise what its caller is to be told."""


@attrs.define(eq=False)
class _Job:
    query: Query[Any]
    weight: int
    """Events that it writes; 0 for a read."""
    reply: Callable[[Any, BaseException | None], None]


class Database:
    """A file of flowtrio's tables. Get it by `open_database`; safe in any task and thread."""

    def __init__(self, path: str, prepare: Query[None]) -> None:
        self.path = path
        self._prepare = prepare
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._users = 0
        self._is_closed = False
        self.oldest_conversation: Callable[[], float] | None = None
        """Gives the time before which conversations are forgotten; None where none are kept."""
        weakref.finalize(self, self._jobs.put, None)

    async def read(self, query: Query[T]) -> T:
        """Do what changes nothing."""
        value: T = await self._ask(query, 0)
        return value

    async def write(self, query: Query[T], weight: int = 1) -> T:
        """Do what changes something; it is kept when this returns.

        A query that raises has to have changed nothing. `sqlite3.Error` fails all that was to be
        committed together, and nothing of it has happened.
        """
        value: T = await self._ask(query, weight)
        return value

    async def release(self) -> None:
        """One of those who opened it needs it no more; after the last one the file is free."""
        with _opening:
            self._users -= 1
            if self._users > 0 or self._is_closed:
                return await trio.lowlevel.checkpoint()
            self._is_closed = True
            _open.pop(self.path, None)
            self._jobs.put(None)
        if self._thread is not None:
            await trio.to_thread.run_sync(self._thread.join)
        return None

    async def _ask(self, query: Query[Any], weight: int) -> Any:
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()
        answers: list[tuple[Any, BaseException | None]] = []

        def reply(value: Any, error: BaseException | None) -> None:
            answers.append((value, error))
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        with _opening:
            if self._is_closed:
                raise trio.ClosedResourceError("this store was closed")
            self._jobs.put(_Job(query, weight, reply))
            if self._thread is None:
                worker = _Worker(self.path, self._jobs, self._prepare)
                self._thread = threading.Thread(target=worker.work, name="flowtrio", daemon=True)
                self._thread.start()
        await done.wait()
        [(value, error)] = answers
        if error is not None:
            # Raised anew: one failed commit may be told to many tasks.
            raise type(error)(*error.args) if isinstance(error, sqlite3.Error) else error
        return value


_open: weakref.WeakValueDictionary[str, Database] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def open_database(path: str | os.PathLike[str], prepare: Query[None]) -> Database:
    """The database of a file, the same for all who ask in this process.

    Args:
      path: The file; made where there is none, at the first use.
      prepare: What is done with it before anything else.

    """
    place = os.path.realpath(path)
    with _opening:
        database = _open.get(place)
        if database is None:
            database = _open[place] = Database(place, prepare)
        database._users += 1
        return database


@attrs.define(eq=False)
class _Worker:
    """What the thread does. It knows the queue and not the database, so that may be dropped."""

    path: str
    jobs: queue.SimpleQueue[_Job | None]
    prepare: Query[None]
    _committed_at: float = attrs.field(default=-1.0, init=False)
    _is_stopping: bool = attrs.field(default=False, init=False)

    def work(self) -> None:
        """Do jobs until told to stop."""
        try:
            with (
                _lock_file(self.path),
                closing(self._connect()) as writer,
                closing(self._connect()) as reader,
            ):
                _make_tables(writer)
                _in_transaction(writer, self.prepare)
                while not self._is_stopping:
                    if (job := self.jobs.get()) is None:
                        return
                    self._do(job, writer, reader)
        except Exception as exc:
            self._refuse_all(exc)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing by it; a machine without power the last moments.
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _do(self, job: _Job, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        if not job.weight:
            return _answer(job, reader)
        group, weight = [job], job.weight
        deadline = self._committed_at + GROUP_SECONDS
        while weight < GROUP_EVENTS and (left := deadline - time.monotonic()) > 0:
            try:
                more = self.jobs.get(timeout=left)
            except queue.Empty:
                break
            if more is None:
                self._is_stopping = True
                break
            if more.weight:
                group.append(more)
                weight += more.weight
            else:
                _answer(more, reader)
        self._commit(group, writer)
        self._committed_at = time.monotonic()

    @staticmethod
    def _commit(group: list[_Job], writer: sqlite3.Connection) -> None:
        answers: list[tuple[_Job, Any, BaseException | None]] = []

        def run_all(connection: sqlite3.Connection) -> None:
            for job in group:
                try:
                    answers.append((job, job.query(connection), None))
                except sqlite3.Error:
                    raise
                except Exception as exc:
                    answers.append((job, None, exc))

        try:
            _in_transaction(writer, run_all)
        except Exception as exc:
            answers = [(job, None, exc) for job in group]
        for job, value, error in answers:
            job.reply(value, error)

    def _refuse_all(self, exc: Exception) -> None:
        """The file cannot be used: say so to everybody, until told to stop."""
        while (job := self.jobs.get()) is not None:
            job.reply(None, exc)


def _answer(job: _Job, reader: sqlite3.Connection) -> None:
    try:
        value = job.query(reader)
    except Exception as exc:
        job.reply(None, exc)
    else:
        job.reply(value, None)


def _in_transaction(connection: sqlite3.Connection, query: Query[None]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        query(connection)
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled it back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make_tables(connection: sqlite3.Connection) -> None:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    if version == 0:
        script = _SCHEMA + _DESCRIPTIONS
    elif version in _STEPS:
        script = "".join(_STEPS[step] for step in range(version, VERSION))
    else:
        raise ValueError(f"the file is of version {version}: expected {VERSION}")
    statements = [s for s in script.split(";") if s.strip()]

    def change(connection: sqlite3.Connection) -> None:
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")

    _in_transaction(connection, change)


@contextmanager
def _lock_file(path: str) -> Iterator[None]:
    """Hold the file for this process, which has to be the only one: it ends the runs of others.

    The lock is the operating system's, so that of a killed process is gone with it.
    """
    with Path(f"{path}.lock").open("a") as file:
        if fcntl is not None:
            patience = time.monotonic() + _LOCK_SECONDS
            while not _try_lock(file.fileno()):
                if time.monotonic() > patience:
                    raise BlockingIOError("the file of the store is open in another process")
                time.sleep(0.05)
        yield


def _try_lock(number: int) -> bool:
    assert fcntl is not None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
