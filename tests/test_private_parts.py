"""Where flowtrio uses what other libraries keep to themselves, and whether that is still there.

Each place is listed here, and nowhere else may be any. A release that moves such a part fails a
test of this file before it fails a user: read what the part did in the release before, find what
does it now, change the one module that is named, and raise the bound in pyproject.toml.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio
import trio.testing
from trio_websocket import WebSocketConnection
from wsproto import ConnectionType, WSConnection

import flowtrio
from flowtrio.clients._host import places_of

PACKAGE: Final = Path(flowtrio.__file__).parent
PROJECT: Final = PACKAGE.parent / "pyproject.toml"


@attrs.frozen
class Use:
    """Private parts of a library, and who uses them."""

    library: str
    modules: frozenset[str]
    parts: frozenset[str]
    bound: str | None
    """The first release that nobody has tried; None for a library that users share with others."""


USES: Final = (
    Use(
        "trio-websocket",
        frozenset({"flowtrio.serving.sockets._framing", "flowtrio.remote._line"}),
        frozenset(
            {
                *("_abort_web_socket", "_close_reason", "_get_request"),
                *("_handle_close_connection_event", "_handle_message_event", "_open_handshake"),
                *("_reader_running", "_reader_task", "_recv_channel", "_send", "_stream"),
                *("_stream_lock", "_wsproto"),
            }
        ),
        "0.13",
    ),
    Use(
        "hypercorn",
        frozenset({"flowtrio.serving.http._front"}),
        frozenset({"TCPServer", "WorkerContext", "ConnectionState", "wrap_app"}),
        "0.19",
    ),
    Use(
        "httpx",
        frozenset({"flowtrio.clients._host"}),
        frozenset({"_transport", "_mounts", "_pool", "_max_connections"}),
        None,
    ),
    Use(
        "trio",
        frozenset({"flowtrio.testing._schedule", "flowtrio.testing._scripted"}),
        frozenset({"_r", "_ALLOW_DETERMINISTIC_SCHEDULING", "_parent_waiting_in_aexit"}),
        None,
    ),
)
PARTS: Final = {use.library: use.parts for use in USES}
BOUNDED: Final = {use.library: use.bound for use in USES if use.bound} | {"wsproto": "1.4"}
"""wsproto's state is read and its frames are written by hand, through trio-websocket's."""

ADVICE: Final = "see the beginning of tests/test_private_parts.py"


def modules() -> dict[str, str]:
    """The source of each module of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path.read_text("utf-8")
    return found


SOURCES: Final = modules()
OURS: Final = {
    node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else node.attr
    for source in SOURCES.values()
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    or (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
}
"""Names that flowtrio gives itself."""


def private_names(source: str) -> Iterator[str]:
    """Names that begin with one underscore, and that are asked of something."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            yield node.attr


async def connection() -> Any:
    """One of trio-websocket's, as ours inherits from it."""
    ours, _ = trio.testing.memory_stream_pair()
    return WebSocketConnection(ours, WSConnection(ConnectionType.SERVER))


# They are where the list says, and nowhere else


@pytest.mark.parametrize("use", USES, ids=lambda use: use.library)
def test_private_parts_are_used_where_the_list_says(use: Use) -> None:
    used = {name for name in use.modules if any(part in SOURCES[name] for part in use.parts)}

    assert used == use.modules
    for part in use.parts:
        assert any(part in SOURCES[name] for name in use.modules), f"{part} is used no more"


def find_strays(module: str, source: str) -> set[str]:
    """Private parts of other libraries in a module that the list does not name for them."""
    listed = {part for use in USES if module in use.modules for part in use.parts}
    all_parts = {part for use in USES for part in use.parts if part.startswith("_")}
    return (set(private_names(source)) & (all_parts - OURS)) - listed


@pytest.mark.parametrize("module", SOURCES)
def test_no_other_module_uses_them(module: str) -> None:
    assert find_strays(module, SOURCES[module]) == set()


def test_a_planted_use_is_found() -> None:
    planted = "def f(connection):\n    return connection._wsproto.state"

    assert find_strays("flowtrio.serving._planted", planted) == {"_wsproto"}


# They are still there


async def test_trio_websocket_has_what_is_used_of_it() -> None:
    there = await connection()
    missing = {part for part in PARTS["trio-websocket"] if not hasattr(there, part)}
    hooks = [there._reader_task, there._send, there._handle_close_connection_event]

    assert missing == set(), ADVICE
    assert all(inspect.iscoroutinefunction(hook) for hook in hooks), ADVICE


def test_hypercorn_has_what_is_used_of_it() -> None:
    server = importlib.import_module("hypercorn.trio.tcp_server").TCPServer
    context = importlib.import_module("hypercorn.trio.worker_context").WorkerContext
    wrap = importlib.import_module("hypercorn.utils").wrap_app

    assert list(inspect.signature(server).parameters) == [
        *("app", "config", "context", "state", "stream")
    ], ADVICE
    assert list(inspect.signature(context).parameters) == ["max_requests"], ADVICE
    assert inspect.iscoroutinefunction(context(None).terminated.set), ADVICE
    assert list(inspect.signature(wrap).parameters) == ["app", "wsgi_max_body_size", "mode"], ADVICE


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
async def test_httpx_has_what_is_used_of_it(library: str) -> None:
    module = importlib.import_module(library)
    async with module.AsyncClient(limits=module.Limits(max_connections=7)) as client:
        assert places_of(client) == 7, ADVICE
        assert isinstance(client._mounts, dict), ADVICE


async def test_trio_has_what_is_used_of_it() -> None:
    scheduler = importlib.import_module("trio._core._run")
    waits: list[bool] = []

    async def look() -> None:
        waits.append(nursery._parent_waiting_in_aexit)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(look)

    assert waits == [False, True], ADVICE
    of_nursery = {"_parent_waiting_in_aexit"}
    assert all(hasattr(scheduler, part) for part in PARTS["trio"] - of_nursery), ADVICE
    assert callable(scheduler._r.shuffle), ADVICE


# Nobody gets a release that was not tried


@pytest.mark.parametrize("library", BOUNDED)
def test_a_library_with_private_parts_has_an_upper_bound(library: str) -> None:
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    asked = [each for each in [*project["dependencies"], *extras] if each.startswith(library)]

    assert asked
    assert all(each.endswith(f",<{BOUNDED[library]}") for each in asked)
    assert importlib.metadata.version(library) < BOUNDED[library]
