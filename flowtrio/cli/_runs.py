"""``flowtrio runs``: the runs of a server, listed, shown, followed, cancelled and taken away.

Who brings an operator's token sees those of all tenants, everybody else his own. What a server says
is not trusted with the terminal.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import trio

from flowtrio._core._events import AgentEvent, EventType
from flowtrio.pictures._text import text_timeline

from ._chat import CANCELLED, COMPLETED, FAILED, STATUSES, EventScreen
from ._load import UsageError
from ._options import duration, whole_number
from ._screen import PlainScreen, Screen, printable

if TYPE_CHECKING:
    from ._remote_runs import Server

_TOKENS: Final = ("FLOWTRIO_OPERATOR_TOKEN", "FLOWTRIO_TOKEN")
"""Where a token stands, the first one that does."""
_DEFAULT: Final = "(default: %(default)s)"
_QUIET: Final = 1.0
"""Seconds without an event after which a run that goes on has told all that it has."""
_OF_OPERATORS: Final = ("status", "agent", "code", "since")
"""Options of the list that only operators have."""


# The command


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add what ``runs`` takes."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, (run, words) in _VERBS.items():
        verb = verbs.add_parser(name, help=words)
        verb.set_defaults(run=partial(_run, run))
        option = verb.add_argument
        if name != "list":
            option("run_id", metavar="RUN", help="its id")
        option(
            "--url",
            metavar="http://…",
            default=None,
            help="the server (default: FLOWTRIO_URL "
            "from the environment, or http://127.0.0.1:8000/)",
        )
        option(
            "--token", help=f"for the server (default: {' or '.join(_TOKENS)} from the environment)"
        )
        option("--tenant", help="whose, for operators")
        if name == "list":
            option("--status", help="one or several, with commas between them")
            option("--agent", help="who answers")
            option("--code", help="why it failed")
            option("--since", metavar="TIME", help="begun within: 7d, 12h, 30m, 45s")
            option("--limit", type=whole_number, default=20, metavar="N", help=_DEFAULT)
            option("--json", action="store_true", help="as JSON lines")
        if name == "cancel":
            option("--reason", help="told in the run's DONE")
        if name == "log":
            option("-o", "--output", metavar="FILE", default="-", help="(default: standard output)")
        if name == "follow":
            option("--events", action="store_true", help="write the events as JSON lines")


_Verb: TypeAlias = "Callable[[Server, argparse.Namespace], Awaitable[int]]"


def _run(verb: _Verb, options: argparse.Namespace) -> int:
    status = CANCELLED
    try:
        status = trio.run(_with_server, verb, options)
    except* KeyboardInterrupt:
        pass  # Whoever follows a run, or waits for one, has seen enough.
    return status


async def _with_server(verb: _Verb, options: argparse.Namespace) -> int:
    from ._remote_runs import open_server

    url = options.url or os.environ.get("FLOWTRIO_URL") or "http://127.0.0.1:8000/"
    token = options.token or next(filter(None, map(os.environ.get, _TOKENS)), None)
    async with open_server(url, token, options.tenant) as server:
        return await verb(server, options)


async def _list(server: Server, options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in _OF_OPERATORS}
    wanted = {name: value for name, value in given.items() if value is not None}
    if "since" in wanted:
        try:
            wanted["since"] = repr(time.time() - duration(wanted["since"]))
        except argparse.ArgumentTypeError as exc:
            raise UsageError(f"--since: {exc}") from None
    entries = await server.runs(wanted, options.limit)
    if options.json:
        for entry in entries:
            print(json.dumps(entry))
        return COMPLETED
    for line in table(entries):
        print(line)
    return COMPLETED


async def _show(server: Server, options: argparse.Namespace) -> int:
    events = await _told(server, options.run_id)
    print(printable(text_timeline(events)))
    if events and events[-1]["type"] != EventType.DONE:
        print(f"it goes on: flowtrio runs follow {options.run_id}")
    return COMPLETED


async def _follow(server: Server, options: argparse.Namespace) -> int:
    screen: Screen = EventScreen() if options.events else PlainScreen()
    status = FAILED
    with screen:
        async with aclosing(server.events(options.run_id)) as events:
            async for event in events:
                screen.show(msgspec.convert(event, AgentEvent))
                if event["type"] == EventType.DONE:
                    status = STATUSES.get(event["data"]["status"], FAILED)
    return status


async def _cancel(server: Server, options: argparse.Namespace) -> int:
    await server.cancel(options.run_id, options.reason)
    print(f"{options.run_id}: told to end")
    return COMPLETED


async def _log(server: Server, options: argparse.Namespace) -> int:
    text = "".join(f"{json.dumps(event)}\n" for event in await _told(server, options.run_id))
    write_text(options.output, text)
    return COMPLETED


def write_text(name: str, text: str) -> None:
    """Write to a file, ``-`` for standard output; `UsageError` where that cannot be."""
    if name == "-":
        sys.stdout.write(text)
        return
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise UsageError(f"can't write {name}: {exc.strerror}") from None


async def _told(server: Server, run_id: str) -> list[dict[str, Any]]:
    """A run's events; of one that goes on, those that it has told by now."""
    found: list[dict[str, Any]] = []
    with trio.CancelScope() as scope:
        async with aclosing(server.events(run_id)) as events:
            async for event in events:
                found.append(event)
                scope.deadline = trio.current_time() + _QUIET
    return found


_VERBS: Final = {
    "list": (_list, "the newest runs"),
    "show": (_show, "a run's timeline, as text"),
    "follow": (_follow, "what a run says, until it ends"),
    "cancel": (_cancel, "end a run"),
    "log": (_log, "a run's events, as JSON lines"),
}


# The list


def table(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Runs as lines: each column as wide as it has to be, and the message what is left."""
    has_tenants = any("tenant_id" in entry for entry in entries)
    rows = [_row(entry, has_tenants=has_tenants) for entry in entries]
    heads = ["began", "status", *(["tenant"] if has_tenants else []), "run", "agent", "took"]
    heads += ["cost", "message"]
    rows.insert(0, heads)
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(entry: Mapping[str, Any], *, has_tenants: bool) -> list[str]:
    began = datetime.datetime.fromtimestamp(entry["created_at"]).astimezone()
    ended = entry.get("ended_at")
    took = "" if ended is None else f"{ended - entry['created_at']:.1f} s"
    status = entry.get("status") or "live"
    if entry.get("code"):
        status = f"{status} ({entry['code']})"
    usage = entry.get("usage") or {}
    cells = [f"{began:%Y-%m-%d %H:%M}", status]
    cells += [entry.get("tenant_id", "")] if has_tenants else []
    cells += [entry["run_id"], entry["agent"], took, usage.get("cost") or "", entry["message"]]
    return [printable(str(cell)).replace("\n", " ") for cell in cells]
