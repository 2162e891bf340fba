"""Logs of hosted runs, and conversations, in one SQLite file.

They outlast their process, however it ends. One process at a time may use a file: whoever opens it
ends the runs that the one before left unfinished, and adds what they said to their conversations.
A run is *untold* until its conversation was saved with its part; both are noted in one transaction,
so nothing is added twice.
"""

from __future__ import annotations

import builtins
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
import trio

from flowtrio._core._events import AgentEvent
from flowtrio._core._interrupted import missing_end
from flowtrio._core._said import Said
from flowtrio.abc import ListedRun, RunHeader
from flowtrio.abc._stores import opening_of
from flowtrio.wire._json import encode_json

from ._database import Database, open_database
from ._rows import (
    COLUMNS,
    FIELDS,
    delete_conversation,
    delete_runs,
    describe,
    descriptions_of,
    expire_conversations,
    find_run,
    insert_events,
    read_header,
    where_of,
)
from ._rules import check_append, check_place, header_after, read_place
from ._turns import turns_within, whole_turns

if TYPE_CHECKING:
    from flowtrio.abc import Message

_LOOK_AGAIN: Final = 0.5
"""Seconds after which a waiting reader looks for what somebody else may have written."""
_EXPIRE_EVERY: Final = 60.0
"""Seconds between two looks for what is too old."""
_MOST_RECOVERED: Final = 10_000
"""Messages of a conversation to which those of a cut run are added; the next run keeps fewer."""
_NO_END: Final = 2**63 - 1
"""More than any run's number."""
_EVENT: Final = msgspec.json.Decoder(AgentEvent)


@attrs.define(eq=False, init=False)
class SQLiteStore(trio.abc.AsyncResource):
    """A `flowtrio.abc.EventStore` in a file, which outlasts its process.

    What was appended survives a killed process; a machine that loses its power may lose the last
    moments. At opening, a run that was cut off gets the end that it had no time for: what is open
    is closed, then ERROR ``interrupted`` and DONE. A log is never cut at its front: it is kept
    whole, or forgotten.

    May share its file with `SQLiteConversations`, which then get what such a run's user and agent
    had said. Opened at its first use, which may be in Trio
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

    async def aclose(self) -> None:
        """Close the file, if nobody else in this process uses it."""
        await self._database.release()

    async def create(self, header: RunHeader) -> bool:
        """See `flowtrio.abc.EventStore`."""
        await self._expire_now_and_then()

        oldest = self._database.oldest_conversation if header.is_remembered else None
        forget_before = None if oldest is None else oldest()

        def query(db: sqlite3.Connection) -> bool:
            row = {name: getattr(header, name) for name in FIELDS}
            row["untold"] = forget_before is not None
            names = ", ".join(row)
            places = ", ".join("?" for _ in row)
            text = f"INSERT OR IGNORE INTO runs ({names}) VALUES ({places})"
            added = db.execute(text, list(row.values()))
            is_new = added.rowcount == 1
            if is_new and row["untold"] and header.parts:
                content = encode_json(header.parts)
                db.execute("INSERT INTO parts VALUES (?, ?)", (added.lastrowid, content))
            if is_new and forget_before is not None:
                # What is forgotten is not remembered by a run that is added to it later.
                where = "tenant_id = ? AND session_id = ? AND used_at < ?"
                key = (header.tenant_id, header.session_id, forget_before)
                db.execute(f"DELETE FROM conversations WHERE {where}", key)
            return is_new

        return await self._database.write(query)

    async def append(
        self,
        tenant_id: str,
        run_id: str,
        after: int,
        events: Sequence[AgentEvent],
        owner: str | None = None,
    ) -> None:
        """See `flowtrio.abc.EventStore`."""
        encoded = [(event.seq, encode_json(event)) for event in events]

        def query(db: sqlite3.Connection) -> None:
            run, last, header = find_run(db, tenant_id, run_id)
            check_append(header, last, after, events, owner)
            rows = [(run, seq, event) for seq, event in encoded]
            insert_events(db, rows, header_after(header, events[-1]), run)

        await self._database.write(query, max(len(events), 1))
        self._tell((tenant_id, run_id))

    async def read(
        self, tenant_id: str, run_id: str, after: int, limit: int
    ) -> Sequence[AgentEvent]:
        """See `flowtrio.abc.EventStore`."""

        def query(db: sqlite3.Connection) -> list[bytes]:
            run, last, _ = find_run(db, tenant_id, run_id)
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
            _, last, header = await self._database.read(lambda db: find_run(db, *key))
            if last > seq or header.ended_at is not None:
                self._tell(key)
                return last
            with trio.move_on_after(_LOOK_AGAIN):
                await news.wait()

    async def header(self, tenant_id: str, run_id: str) -> RunHeader | None:
        """See `flowtrio.abc.EventStore`."""

        def query(db: sqlite3.Connection) -> RunHeader | None:
            try:
                return find_run(db, tenant_id, run_id)[2]
            except LookupError:
                return None

        return await self._database.read(query)

    async def list(self, tenant_id: str, session_id: str | None = None) -> builtins.list[RunHeader]:
        """See `flowtrio.abc.EventStore`."""
        where, values = where_of(tenant_id, session_id=session_id)

        def query(db: sqlite3.Connection) -> builtins.list[RunHeader]:
            rows = db.execute(f"SELECT {COLUMNS} FROM runs WHERE {where} ORDER BY run", values)
            return [read_header(row) for row in rows]

        return await self._database.read(query)

    async def newest(
        self, tenant_id: str | None, *, before: str | None = None, limit: int
    ) -> builtins.list[ListedRun]:
        """See `flowtrio.abc.EventStore`."""
        end = _NO_END if before is None else read_place(before)
        where, values = ("1", []) if tenant_id is None else where_of(tenant_id)

        def query(db: sqlite3.Connection) -> builtins.list[ListedRun]:
            text = (
                f"SELECT run, {COLUMNS} FROM runs WHERE {where} AND run < ? "
                "ORDER BY run DESC LIMIT ?"
            )
            rows = db.execute(text, [*values, end, limit])
            return [ListedRun(read_header(row[1:]), str(row[0])) for row in rows]

        return await self._database.read(query)

    async def live(self) -> builtins.list[RunHeader]:
        """See `flowtrio.abc.EventStore`."""

        def query(db: sqlite3.Connection) -> builtins.list[RunHeader]:
            rows = db.execute(f"SELECT {COLUMNS} FROM runs WHERE ended_at IS NULL ORDER BY run")
            return [read_header(row) for row in rows]

        return await self._database.read(query)

    async def delete(
        self, tenant_id: str, *, run_id: str | None = None, session_id: str | None = None
    ) -> int:
        """See `flowtrio.abc.EventStore`."""
        where, values = where_of(tenant_id, run_id=run_id, session_id=session_id)
        deleted = await self._database.write(lambda db: delete_runs(db, where, values))
        for key in list(self._news):
            self._tell(key)
        return deleted

    async def expire(self, before: float) -> int:
        """See `flowtrio.abc.EventStore`."""
        return await self._database.write(lambda db: delete_runs(db, "ended_at < ?", [before]))

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
class SQLiteConversations(trio.abc.AsyncResource):
    """A `flowtrio.abc.ConversationStore` in a file, which outlasts its process.

    May share its file with `SQLiteStore`: then a hosted run that was cut off with its process is
    in its conversation too, as far as it came.
    """

    max_messages: int
    """Messages kept of one conversation; the oldest turns are dropped whole."""
    max_bytes: int
    """Bytes kept of one conversation, as JSON; the oldest turns are dropped whole."""
    keep: float | None
    """Seconds that a conversation is kept after its last message; None for ever."""
    clock: Callable[[], float]
    """UTC, seconds."""
    _database: Database
    _oldest: Callable[[], float]
    _expired_at: float

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_messages: int = 200,
        max_bytes: int = 16 * 1024 * 1024,
        keep: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if keep is not None and not keep > 0:
            raise ValueError(
                f"SQLiteConversations(keep={keep!r}): expected a number above 0, or None"
            )
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.keep = keep
        self.clock = clock
        self._database = open_database(path, end_cut_runs)
        self._database.oldest_conversation = _oldest_by(keep, clock)
        self._oldest = self._database.oldest_conversation
        self._expired_at = -_EXPIRE_EVERY

    async def aclose(self) -> None:
        """Close the file, if nobody else in this process uses it."""
        await self._database.release()

    async def load(self, tenant_id: str, session_id: str) -> list[Message]:
        """See `flowtrio.abc.ConversationStore`."""
        key, oldest = (tenant_id, session_id), self._oldest()
        messages, _ = await self._database.read(lambda db: _conversation(db, *key, oldest))
        return messages

    async def save(self, tenant_id: str, session_id: str, messages: Sequence[Message]) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        await self._save(tenant_id, session_id, None, messages)

    async def save_after(
        self,
        tenant_id: str,
        session_id: str,
        run_id: str,
        messages: Sequence[Message],
        owner: str | None = None,
    ) -> None:
        """See `flowtrio.abc.RecoverableConversations`; this process has the file, and owns all."""
        await self._save(tenant_id, session_id, run_id, messages)

    async def _save(
        self, tenant_id: str, session_id: str, run_id: str | None, messages: Sequence[Message]
    ) -> None:
        now = self.clock()
        encoded = encode_json(turns_within(messages, self.max_messages, self.max_bytes)[0])
        oldest: float | None = None
        if self.keep is not None and abs(now - self._expired_at) >= _EXPIRE_EVERY:
            self._expired_at = now
            oldest = now - self.keep

        def query(db: sqlite3.Connection) -> None:
            if oldest is not None:
                expire_conversations(db, oldest)
            _replace(db, tenant_id, session_id, encoded, now)
            if run_id is not None:
                text = "UPDATE runs SET untold = 0 WHERE tenant_id = ? AND run_id = ?"
                db.execute(text, (tenant_id, run_id))

        await self._database.write(query)

    async def delete(self, tenant_id: str, session_id: str) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        await self._database.write(lambda db: delete_conversation(db, tenant_id, session_id))

    async def describe(self, tenant_id: str, session_id: str, told: Mapping[str, Any]) -> None:
        """See `flowtrio.abc.DescribedConversations`."""
        await self._database.write(lambda db: describe(db, tenant_id, session_id, told))

    async def descriptions(self, tenant_id: str) -> dict[str, dict[str, Any]]:
        """See `flowtrio.abc.DescribedConversations`."""
        return await self._database.read(lambda db: descriptions_of(db, tenant_id))


# Queries: each is given a connection in the database's thread


def _conversation(
    db: sqlite3.Connection, tenant_id: str, session_id: str, oldest: float
) -> tuple[list[Message], float]:
    """Give what was said, and when last; nothing where that was before *oldest*."""
    text = (
        "SELECT messages, used_at FROM conversations "
        "WHERE tenant_id = ? AND session_id = ? AND used_at >= ?"
    )
    row = db.execute(text, (tenant_id, session_id, oldest)).fetchone()
    return ([], oldest) if row is None else (msgspec.json.decode(row[0]), row[1])


def _replace(
    db: sqlite3.Connection, tenant_id: str, session_id: str, messages: bytes, used_at: float
) -> None:
    text = "INSERT OR REPLACE INTO conversations VALUES (?, ?, ?, ?)"
    db.execute(text, (tenant_id, session_id, messages, used_at))


def _oldest_by(keep: float | None, clock: Callable[[], float]) -> Callable[[], float]:
    # A function that holds no store: one that is dropped has to free its file.
    return (lambda: 0.0) if keep is None else (lambda: clock() - keep)


# Opening


def end_cut_runs(db: sqlite3.Connection) -> None:
    """End the logs of runs whose process is gone, and keep what was said in them.

    In the order in which they were started: of one conversation only the first can have come to
    say something, the others were in its line.
    """
    text = f"SELECT run, last, untold, {COLUMNS} FROM runs WHERE ended_at IS NULL ORDER BY run"
    for run, last, untold, *row in db.execute(text).fetchall():
        content = db.execute("SELECT content FROM parts WHERE run = ?", [run]).fetchone()
        parts = [] if content is None else msgspec.json.decode(content[0])
        header, said = read_header(tuple(row)), Said(parts)
        stored = db.execute("SELECT event FROM events WHERE run = ? ORDER BY seq", [run])
        missing = missing_end(_told_to(said, stored), opening_of(attrs.evolve(header, parts=parts)))
        assert missing[0].seq == last + 1
        rows = [(run, event.seq, encode_json(event)) for event in missing]
        insert_events(db, rows, header_after(header, missing[-1]), run)
        if untold:
            for event in missing:
                said.add(event)
            _add_to_conversation(db, header, said.messages(), missing[-1].timestamp)
            db.execute("UPDATE runs SET untold = 0 WHERE run = ?", [run])


def _told_to(said: Said, stored: Iterable[tuple[bytes]]) -> Iterator[AgentEvent]:
    for (encoded,) in stored:
        event = _EVENT.decode(encoded)
        said.add(event)
        yield event


def _add_to_conversation(
    db: sqlite3.Connection, header: RunHeader, said: list[Message], when: float
) -> None:
    assert header.session_id is not None
    key = (header.tenant_id, header.session_id)
    before, used_at = _conversation(db, *key, 0.0)
    messages = whole_turns([*before, *said], _MOST_RECOVERED)
    _replace(db, *key, encode_json(messages), max(used_at, when))
