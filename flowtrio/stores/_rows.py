"""The rows of runs in an SQLite file; each query is given a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

from flowtrio._core._events import AgentStatus
from flowtrio.abc import RunHeader
from flowtrio.wire._json import encode_json

from ._rules import described, refuse_unknown

FIELDS: Final = tuple(
    field.name for field in attrs.fields(RunHeader) if field.name not in ("parts", "asked")
)
"""What a run's row has of its header. Its parts may be large, and are read once at most; what else
was asked for is for no other process."""
COLUMNS: Final = ", ".join(FIELDS)


def read_header(row: tuple[Any, ...]) -> RunHeader:
    """The header that a row's columns are."""
    values = dict(zip(FIELDS, row, strict=True))
    status = values["status"]
    values["status"] = None if status is None else AgentStatus(status)
    values["is_remembered"] = bool(values["is_remembered"])
    return RunHeader(**values)


def find_run(db: sqlite3.Connection, tenant_id: str, run_id: str) -> tuple[int, int, RunHeader]:
    """Give a run's number, its last event's, and its header."""
    text = f"SELECT run, last, {COLUMNS} FROM runs WHERE tenant_id = ? AND run_id = ?"
    row = db.execute(text, (tenant_id, run_id)).fetchone()
    return refuse_unknown(run_id) if row is None else (row[0], row[1], read_header(row[2:]))


def insert_events(
    db: sqlite3.Connection, rows: list[tuple[int, int, bytes]], header: RunHeader, run: int
) -> None:
    """Add events behind a run's last, and note what became of it."""
    db.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
    db.execute(
        "UPDATE runs SET last = ?, ended_at = ?, status = ? WHERE run = ?",
        (rows[-1][1], header.ended_at, header.status, run),
    )
    if header.ended_at is not None:
        db.execute("DELETE FROM parts WHERE run = ?", [run])


def where_of(tenant_id: str, **keys: str | None) -> tuple[str, list[Any]]:
    """A condition of these keys, and its values."""
    given = {"tenant_id": tenant_id, **{k: value for k, value in keys.items() if value is not None}}
    return " AND ".join(f"{name} = ?" for name in given), list(given.values())


def describe(
    db: sqlite3.Connection, tenant_id: str, session_id: str, told: Mapping[str, Any]
) -> None:
    """Keep what is told of a conversation beside what was told before."""
    key = (tenant_id, session_id)
    text = "SELECT told FROM descriptions WHERE tenant_id = ? AND session_id = ?"
    row = db.execute(text, key).fetchone()
    whole = described({} if row is None else msgspec.json.decode(row[0]), told)
    db.execute("INSERT OR REPLACE INTO descriptions VALUES (?, ?, ?)", (*key, encode_json(whole)))


def descriptions_of(db: sqlite3.Connection, tenant_id: str) -> dict[str, dict[str, Any]]:
    """What is told of a tenant's conversations."""
    text = "SELECT session_id, told FROM descriptions WHERE tenant_id = ?"
    return {session: msgspec.json.decode(told) for session, told in db.execute(text, [tenant_id])}


def delete_conversation(db: sqlite3.Connection, tenant_id: str, session_id: str) -> None:
    """Delete what was said in a conversation, and what is told of it."""
    for table in ("conversations", "descriptions"):
        text = f"DELETE FROM {table} WHERE tenant_id = ? AND session_id = ?"
        db.execute(text, (tenant_id, session_id))


def expire_conversations(db: sqlite3.Connection, oldest: float) -> None:
    """Delete conversations that were used before, and what is told of those that are gone."""
    db.execute("DELETE FROM conversations WHERE used_at < ?", [oldest])
    key = "tenant_id = d.tenant_id AND session_id = d.session_id"
    # One whose first run goes on is not saved yet.
    rest = [
        f"NOT EXISTS (SELECT 1 FROM {table} WHERE {key})" for table in ("conversations", "runs")
    ]
    db.execute(f"DELETE FROM descriptions AS d WHERE {' AND '.join(rest)}")


def delete_runs(db: sqlite3.Connection, where: str, values: list[Any]) -> int:
    """Delete runs with all that belongs to them; gives how many."""
    for table in ("events", "parts"):
        which = f"run IN (SELECT run FROM runs WHERE {where})"
        db.execute(f"DELETE FROM {table} WHERE {which}", values)
    return db.execute(f"DELETE FROM runs WHERE {where}", values).rowcount
