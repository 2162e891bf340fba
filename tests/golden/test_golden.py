"""Logs of every schema load for ever: as they were written, by everything that reads logs.

The files are written by ``python -m tests.golden``, each by the code of its own schema, and never
again. What reads logs is a row of a table below; who adds another reader adds a row.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
import pytest

from flowtrio import AgentEvent, EventType, MemoryStore, Orchestrator, StreamMode, project
from flowtrio._core._events import ADDED_KEYS, DATA_KEYS, SCHEMA
from flowtrio._core._interrupted import missing_end
from flowtrio._core._said import Said
from flowtrio.abc import EventStore, RunHeader
from flowtrio.cli._check import LAWFUL, check_file
from flowtrio.pictures._lanes import lay_out
from flowtrio.pictures._svg import draw_timeline
from flowtrio.pictures._text import text_timeline
from flowtrio.stores.sqlite import SQLiteStore
from flowtrio.testing import LawBroken, check_events, check_messages, find_violations
from flowtrio.wire._frames import encode_events
from tests.golden.__main__ import PROGRAMS
from tests.runtime._programs import agent_of
from tests.support.remote import connected
from tests.support.ws_peer import open_server

T = EventType
HERE: Final = Path(__file__).parent
SCHEMAS: Final = (1, SCHEMA)
CONCEALED: Final = ("error", "causes", "detail")
FIRST_TYPES: Final = {
    *("message_chunk", "message_complete", "state_change", "tool_call_start", "tool_call_end"),
    *("error", "done", "run_start", "agent_start", "agent_end", "reasoning_chunk", "message_part"),
    *("message_reset", "tool_call_args", "tool_progress", "approval_required", "input_required"),
    *("input_resolved", "custom"),
}
"""What schema 1 could say; the newest can say what there is."""
NEWER: Final = {"steered"}
"""Programs that schema 1 has no words for."""


@attrs.frozen
class Golden:
    """One file."""

    schema: int
    path: Path

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]

    def events(self) -> list[AgentEvent]:
        return [msgspec.convert(event, AgentEvent) for event in self.lines()]

    def whole(self) -> list[AgentEvent]:
        """Its events, with the end that a cut log gets."""
        events = self.events()
        return [*events, *missing_end(events, events[0])]

    @property
    def is_cut(self) -> bool:
        return self.path.stem == "interrupted"


FILES: Final = [
    Golden(schema, path)
    for schema in SCHEMAS
    for path in sorted((HERE / f"schema-{schema}").glob("*.jsonl"))
]

golden = pytest.mark.parametrize(
    "file", FILES, ids=[f"{file.schema} {file.path.stem}" for file in FILES]
)


def told_keys(event: AgentEvent, schema: int) -> set[str]:
    added = ADDED_KEYS.get(event.type, frozenset()) if schema == 1 else frozenset()
    return set(DATA_KEYS[event.type]) - added


def test_each_schema_has_a_file_of_each_program_and_they_tell_every_type() -> None:
    names = {program.__name__ for program in PROGRAMS} | {"interrupted"}
    for schema in SCHEMAS:
        files = [file for file in FILES if file.schema == schema]

        assert names - (NEWER if schema == 1 else set()) <= {file.path.stem for file in files}
        types = FIRST_TYPES if schema == 1 else set(map(str, T))
        assert types == {event["type"] for file in files for event in file.lines()}


@golden
def test_a_golden_log_is_of_its_schema_and_lawful(file: Golden) -> None:
    assert file.lines()[0]["data"]["schema"] == file.schema
    assert find_violations(file.lines(), whole=not file.is_cut) == []
    assert find_violations(file.events(), whole=not file.is_cut) == []
    for event in file.events():
        assert set(event.data) == told_keys(event, file.schema)


# What reads a log


def modes(file: Golden) -> None:
    log = file.whole()
    for mode in StreamMode:
        *_, last = project(mode, log)

        assert last.type is T.DONE
    assert last.seq == len(log) - 1
    *_, values = project(StreamMode.VALUES, log)
    assert values.data["state"]["status"] == log[-1].data["status"]


def pictures(file: Golden) -> None:
    text = text_timeline(file.lines())

    assert len(text.splitlines()) > 5
    assert ET.fromstring(draw_timeline(file.lines())).tag.endswith("svg")
    assert lay_out(file.events()).lanes


def frames(file: Golden) -> None:
    log = file.events()
    decode = msgspec.json.Decoder(list[AgentEvent]).decode

    assert [e for frame in encode_events(log, is_batch=True) for e in decode(frame)] == log
    assert len(encode_events(log, is_batch=False)) == len(log)


def conversation(file: Golden) -> None:
    said = Said()
    for event in file.whole():
        said.add(event)
    messages = said.messages()

    check_messages(messages)
    assert messages[0]["content"] == file.events()[0].data["message"]


def every_cut(file: Golden) -> None:
    """Wherever it is cut, the end it gets is of its own schema."""
    log = file.events()
    for place in range(1, len(log)):
        end = missing_end(log[:place], log[0])
        check_events([*log[:place], *end])
        for event in end:
            assert set(event.data) == told_keys(event, file.schema)


@golden
@pytest.mark.parametrize(
    "read", [modes, pictures, frames, conversation, every_cut], ids=lambda read: read.__name__
)
def test_a_golden_log_is_read(file: Golden, read: Callable[[Golden], None]) -> None:
    read(file)


@golden
def test_the_command_line_takes_it(file: Golden, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(msgspec.json.encode(file.whole()))

    assert check_file(str(path)) == LAWFUL


# What keeps a log


def header_of(log: list[AgentEvent]) -> RunHeader:
    start = log[0]
    return RunHeader(
        tenant_id="default",
        run_id=start.run_id,
        session_id="s1",
        agent=start.data["agent"],
        message=start.data["message"],
        created_at=start.timestamp,
    )


async def keep(store: EventStore, log: list[AgentEvent]) -> None:
    """Store a log in two pieces."""
    assert await store.create(header_of(log))
    half = len(log) // 2
    for after, piece in ((-1, log[:half]), (half - 1, log[half:])):
        await store.append("default", log[0].run_id, after, piece)


@golden
async def test_stores_keep_it(file: Golden, tmp_path: Path) -> None:
    log, run_id = file.events(), file.events()[0].run_id
    memory = MemoryStore()
    await keep(memory, log)
    async with SQLiteStore(tmp_path / "runs.db") as sqlite:
        await keep(sqlite, log)

        for store in (memory, sqlite):
            assert list(await store.read("default", run_id, -1, limit=1000)) == log
    async with SQLiteStore(tmp_path / "runs.db") as sqlite:
        # Where its end was missing, the store that opens it again has added that.
        whole = list(await sqlite.read("default", run_id, -1, limit=1000))

    assert whole == file.whole()
    check_events(whole)


@golden
async def test_it_is_followed_over_the_network(file: Golden) -> None:
    log, store = file.whole(), MemoryStore()
    await keep(store, log)
    orchestrator = Orchestrator(agents=[agent_of(_nothing)], store=store)

    async with open_server(orchestrator) as served, connected(served) as remote:
        followed = [event async for event in remote.attach(log[0].run_id)]

    # Servers conceal what errors say, and nothing else.
    assert [described(event) for event in followed] == [described(event) for event in log]


def described(event: AgentEvent) -> Any:
    data = event.data.items()
    return event.seq, event.type, event.agent, [k if k in CONCEALED else (k, v) for k, v in data]


async def _nothing(ctx: Any) -> None:
    """Say nothing."""


# A log of one schema is held to it


def changed(file: Golden, change: Callable[[str, dict[str, Any]], None]) -> list[dict[str, Any]]:
    log = [dict(event, data=dict(event["data"])) for event in file.lines()]
    for event in log:
        change(event["type"], event["data"])
    return log


def reasons(log: Iterable[dict[str, Any]]) -> list[str]:
    return [violation.reason for violation in find_violations(log)]


NESTED: Final = {file.schema: file for file in FILES if file.path.stem == "nested"}


@pytest.mark.parametrize(("schema", "other"), [(1, 2), (2, 1)])
def test_a_log_that_says_another_schema_than_it_has_is_told_once(schema: int, other: int) -> None:
    def change(type: str, data: dict[str, Any]) -> None:
        if type == "run_start":
            data["schema"] = other

    assert reasons(changed(NESTED[schema], change)) == [
        f"data['schema'] is wrong: Invalid enum value {other}"
    ]


@pytest.mark.parametrize("schema", [True, 3, "2", None, [], 2.0])
def test_a_log_that_says_no_schema_that_there_is_is_refused(schema: Any) -> None:
    def change(type: str, data: dict[str, Any]) -> None:
        if type == "run_start":
            data["schema"] = schema

    [reason] = reasons(changed(NESTED[2], change))
    assert reason.startswith("data['schema'] is wrong")


@pytest.mark.parametrize("type", ADDED_KEYS)
def test_one_event_of_another_schema_does_not_belong_into_a_log(type: EventType) -> None:
    for schema in SCHEMAS:
        done = []

        def change(of: str, data: dict[str, Any], schema: int = schema, done: Any = done) -> None:
            if of == type and not done:
                done.append(of)
                for key in ADDED_KEYS[type]:
                    if schema == 1:
                        data[key] = None
                    else:
                        del data[key]

        [file] = (f for f in FILES if (f.schema, f.path.stem) == (schema, "questions"))
        if type is T.MESSAGE_COMPLETE:
            file = NESTED[schema]
        expected = "is unknown" if schema == 1 else "is missing"
        told = reasons(changed(file, change))
        assert sorted(told) == sorted(f"data[{key!r}] {expected}" for key in ADDED_KEYS[type])


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_part_without_run_start_has_the_schema_that_it_looks_like(schema: int) -> None:
    found = find_violations(NESTED[schema].lines()[1:], whole=False)

    assert {violation.law for violation in found} == {"L1", "L2"}


def test_an_old_log_with_an_end_of_the_new_schema_would_be_noticed() -> None:
    """The planted bug: an end that does not ask which schema the log has."""
    [cut] = (file for file in FILES if file.schema == 1 and file.is_cut)
    start = NESTED[2].events()[0]
    place = next(i for i, e in enumerate(cut.events()) if e.type is T.MESSAGE_CHUNK) + 1
    log = cut.events()[:place]
    new_end = missing_end([start, *log[1:]], start)

    check_events([*log, *missing_end(log, log[0])])
    with pytest.raises(LawBroken, match="is unknown"):
        check_events(
            [*log, *(msgspec.structs.replace(event, run_id=log[0].run_id) for event in new_end)]
        )
