"""Logs of hosted runs, and conversations, in one SQLite file.

They outlast their process, however it ends. One process at a time may use a file: whoever opens it
ends the runs that the one before left unfinished.
"""

from __future__ import annotations

import builtins
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
import trio

from flowtrio._core._events import ROOT, SCHEMA, AgentEvent, AgentStatus, EventType
from flowtrio._core._interrupted import missing_end
from flowtrio.abc import RunHeader
from flowtrio.wire._json import encode_json

from ._database import Database, open_database
from ._rules import check_append, check_place, header_after, refuse_unknown
from .memory import whole_turns

if TYPE_CHECKING:
    from flowtrio.abc import Message

_LOOK_AGAIN: Final = 0.5
"""Seconds after which a waiting reader looks for what somebody else may have written."""
_EXPIRE_EVERY: Final = 60.0
"""Seconds between two looks for what is too old."""
_EVENT: Final = msgspec.json.Decoder(AgentEvent)


@attrs.define(eq=False, init=False)
class SQLiteStore:
    """A `flowtrio.abc.EventStore` in a file, which outlasts its process.

    What was appended survives a killed process; a machine that loses its power may lose the last
    moments. At opening, a run that was cut off gets the end that it had no time for: what is open
    is closed, then ERROR ``interrupted`` and DONE. A log is never cut at its front: it is kept
    whole, or forgotten.

    May share its file with `SQLiteConversations`. Opened at its first use, which may be in Trio
    only; ``async with`` closes it.
    """

    keep: float | None
    """Seconds that a run is kept after its end; None for ever."""
    clock: Callable[[], float]
    """UTC, seconds."""
    _database: Database
    _news: dict[tuple[str, str], trio.Event]
    _expired_at: float

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if keep is not None and not keep > 0:
            raise ValueError(f"SQLiteStore(keep={keep!r}): expected a number above 0, or None")
        self.keep = keep
        self.clock = clock
        self._database = open_database(path, end_cut_runs)
        self._news = {}
        self._expired_at = -_EXPIRE_EVERY

    async def __aenter__(self) -> SQLiteStore:
        """Do nothing yet: the file is opened at its first use."""
        return self

    async def __aexit__(self, *args: object) -> None:
        """See `aclose`."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the file, if nobody else in this process uses it."""
        await self._database.release()

    async def create(self, header: RunHeader) -> bool:
        """See `flowtrio.abc.EventStore`."""
        await self._expire_now_and_then()

        def query(db: sqlite3.Connection) -> bool:
            row = attrs.asdict(header)
            names = ", ".join(row)
            places = ", ".join("?" for _ in row)
            text = f"INSERT OR IGNORE INTO runs ({names}) VALUES ({places})"
            return db.execute(text, list(row.values())).rowcount == 1

        return await self._database.write(query)

    async def append(
        self, tenant_id: str, run_id: str, after: int, events: Sequence[AgentEvent]
    ) -> None:
        """See `flowtrio.abc.EventStore`."""
        encoded = [(event.seq, encode_json(event)) for event in events]

        def query(db: sqlite3.Connection) -> None:
            run, last, header = _find(db, tenant_id, run_id)
            check_append(header, last, after, events)
            rows = [(run, seq, event) for seq, event in encoded]
            _insert(db, rows, header_after(header, events[-1]), run)

        await self._database.write(query, max(len(events), 1))
        self._tell((tenant_id, run_id))

    async def read(
        self, tenant_id: str, run_id: str, after: int, limit: int
    ) -> Sequence[AgentEvent]:
        """See `flowtrio.abc.EventStore`."""

        def query(db: sqlite3.Connection) -> list[bytes]:
            run, last, _ = _find(db, tenant_id, run_id)
            check_place(run_id, after, 0, last)
            text = "SELECT event FROM events WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?"
            return [event for (event,) in db.execute(text, (run, after, limit))]

        return [_EVENT.decode(event) for event in await self._database.read(query)]

    async def wait_past(self, tenant_id: str, run_id: str, seq: int) -> int:
        """See `flowtrio.abc.EventStore`."""
        key = (tenant_id, run_id)
        while True:
            # Had before looking, so that what comes in between is not missed.
            news = self._news.setdefault(key, trio.Event())
            _, last, header = await self._database.read(lambda db: _find(db, *key))
            if last > seq or header.ended_at is not None:
                self._tell(key)
                return last
            with trio.move_on_after(_LOOK_AGAIN):
                await news.wait()

    async def header(self, tenant_id: str, run_id: str) -> RunHeader | None:
        """See `flowtrio.abc.EventStore`."""

        def query(db: sqlite3.Connection) -> RunHeader | None:
            try:
                return _find(db, tenant_id, run_id)[2]
            except LookupError:
                return None

        return await self._database.read(query)

    async def list(self, tenant_id: str, session_id: str | None = None) -> builtins.list[RunHeader]:
        """See `flowtrio.abc.EventStore`."""
        where, values = _where(tenant_id, session_id=session_id)

        def query(db: sqlite3.Connection) -> builtins.list[RunHeader]:
            rows = db.execute(f"SELECT {_COLUMNS} FROM runs WHERE {where} ORDER BY run", values)
            return [_header(row) for row in rows]

        return await self._database.read(query)

    async def delete(
        self, tenant_id: str, *, run_id: str | None = None, session_id: str | None = None
    ) -> int:
        """See `flowtrio.abc.EventStore`."""
        where, values = _where(tenant_id, run_id=run_id, session_id=session_id)
        deleted = await self._database.write(lambda db: _delete(db, where, values))
        for key in list(self._news):
            self._tell(key)
        return deleted

    async def expire(self, before: float) -> int:
        """See `flowtrio.abc.EventStore`."""
        return await self._database.write(lambda db: _delete(db, "ended_at < ?", [before]))

    def _tell(self, key: tuple[str, str]) -> None:
        """Wake those who wait for news of a run."""
        news = self._news.pop(key, None)
        if news is not None:
            news.set()

    async def _expire_now_and_then(self) -> None:
        now = self.clock()
        if self.keep is not None and abs(now - self._expired_at) >= _EXPIRE_EVERY:
            self._expired_at = now
            await self.expire(now - self.keep)


@attrs.define(eq=False, init=False)
class SQLiteConversations:
    """A `flowtrio.abc.ConversationStore` in a file, which outlasts its process.

    May share its file with `SQLiteStore`.
    """

    max_messages: int
    """Messages kept of one conversation; the oldest turns are dropped whole."""
    keep: float | None
    """Seconds that a conversation is kept after its last message; None for ever."""
    clock: Callable[[], float]
    """UTC, seconds."""
    _database: Database
    _expired_at: float

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_messages: int = 200,
        keep: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if keep is not None and not keep > 0:
            raise ValueError(
                f"SQLiteConversations(keep={keep!r}): expected a number above 0, or None"
            )
        self.max_messages = max_messages
        self.keep = keep
        self.clock = clock
        self._database = open_database(path, end_cut_runs)
        self._expired_at = -_EXPIRE_EVERY

    async def __aenter__(self) -> SQLiteConversations:
        """Do nothing yet: the file is opened at its first use."""
        return self

    async def __aexit__(self, *args: object) -> None:
        """See `aclose`."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the file, if nobody else in this process uses it."""
        await self._database.release()

    async def load(self, tenant_id: str, session_id: str) -> list[Message]:
        """See `flowtrio.abc.ConversationStore`."""
        oldest = 0.0 if self.keep is None else self.clock() - self.keep
        text = (
            "SELECT messages FROM conversations "
            "WHERE tenant_id = ? AND session_id = ? AND used_at >= ?"
        )
        values = (tenant_id, session_id, oldest)
        row = await self._database.read(lambda db: db.execute(text, values).fetchone())
        messages: list[Message] = [] if row is None else msgspec.json.decode(row[0])
        return messages

    async def save(self, tenant_id: str, session_id: str, messages: Sequence[Message]) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        now = self.clock()
        encoded = encode_json(whole_turns(messages, self.max_messages))
        oldest: float | None = None
        if self.keep is not None and abs(now - self._expired_at) >= _EXPIRE_EVERY:
            self._expired_at = now
            oldest = now - self.keep

        def query(db: sqlite3.Connection) -> None:
            if oldest is not None:
                db.execute("DELETE FROM conversations WHERE used_at < ?", [oldest])
            text = "INSERT OR REPLACE INTO conversations VALUES (?, ?, ?, ?)"
            db.execute(text, (tenant_id, session_id, encoded, now))

        await self._database.write(query)

    async def delete(self, tenant_id: str, session_id: str) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        text = "DELETE FROM conversations WHERE tenant_id = ? AND session_id = ?"
        await self._database.write(lambda db: db.execute(text, (tenant_id, session_id)))


# Queries: each is given a connection in the database's thread


_FIELDS: Final = tuple(field.name for field in attrs.fields(RunHeader))
_COLUMNS: Final = ", ".join(_FIELDS)


def _header(row: tuple[Any, ...]) -> RunHeader:
    values = dict(zip(_FIELDS, row, strict=True))
    status = values["status"]
    return RunHeader(**{**values, "status": None if status is None else AgentStatus(status)})


def _find(db: sqlite3.Connection, tenant_id: str, run_id: str) -> tuple[int, int, RunHeader]:
    """Give a run's number, its last event's, and its header."""
    text = f"SELECT run, last, {_COLUMNS} FROM runs WHERE tenant_id = ? AND run_id = ?"
    row = db.execute(text, (tenant_id, run_id)).fetchone()
    return refuse_unknown(run_id) if row is None else (row[0], row[1], _header(row[2:]))


def _insert(
    db: sqlite3.Connection, rows: list[tuple[int, int, bytes]], header: RunHeader, run: int
) -> None:
    db.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
    db.execute(
        "UPDATE runs SET last = ?, ended_at = ?, status = ? WHERE run = ?",
        (rows[-1][1], header.ended_at, header.status, run),
    )


def _where(tenant_id: str, **keys: str | None) -> tuple[str, list[Any]]:
    given = {"tenant_id": tenant_id, **{k: value for k, value in keys.items() if value is not None}}
    return " AND ".join(f"{name} = ?" for name in given), list(given.values())


def _delete(db: sqlite3.Connection, where: str, values: list[Any]) -> int:
    db.execute(f"DELETE FROM events WHERE run IN (SELECT run FROM runs WHERE {where})", values)
    return db.execute(f"DELETE FROM runs WHERE {where}", values).rowcount


# Opening


def end_cut_runs(db: sqlite3.Connection) -> None:
    """End the logs of runs whose process is gone."""
    text = f"SELECT run, last, {_COLUMNS} FROM runs WHERE ended_at IS NULL"
    for run, last, *row in db.execute(text).fetchall():
        header = _header(tuple(row))
        stored = db.execute("SELECT event FROM events WHERE run = ? ORDER BY seq", [run])
        events = (_EVENT.decode(event) for (event,) in stored)
        missing = missing_end(events, _start_of(header))
        assert missing[0].seq == last + 1
        rows = [(run, event.seq, encode_json(event)) for event in missing]
        _insert(db, rows, header_after(header, missing[-1]), run)


def _start_of(header: RunHeader) -> AgentEvent:
    data = {
        "message": header.message,
        "session_id": header.session_id,
        "agent": header.agent,
        "parent_run_id": None,
        "schema": SCHEMA,
    }
    return AgentEvent(EventType.RUN_START, data, 0, header.run_id, ROOT, header.created_at)
