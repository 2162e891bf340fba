"""The ways in which the tests' server is reached."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from flowtrio import AgentEvent, StreamEngine
from flowtrio.mcp import McpTools, mcp_tools
from flowtrio.testing import check_events, check_messages
from tests.mcp._server import make

COMMAND = [sys.executable, "-m", "tests.mcp._server"]
WAYS = [(where, mode) for where in ("here", "http", "process") for mode in ("legacy", "auto")]


async def serve_http(
    server: Any, port: int = 0, *, task_status: trio.TaskStatus[tuple[str, trio.CancelScope]]
) -> None:
    """Serve over streamable HTTP until the scope is cancelled; gives the address and the scope."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    config.graceful_timeout = 0.1
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            start = partial(serve, server.streamable_http_app(), config, mode="asgi")
            [address] = await nursery.start(start)
            task_status.started((f"{address}/mcp", scope))


@asynccontextmanager
async def reached(way: tuple[str, str], **options: Any) -> AsyncIterator[McpTools]:
    """The tools of the tests' server, in one of the ways."""
    where, mode = way
    match where:
        case "here":
            async with mcp_tools(make(), mode=mode, **options) as tools:
                yield tools
        case "http":
            async with trio.open_nursery() as nursery:
                url, scope = await nursery.start(serve_http, make())
                async with mcp_tools(url, mode=mode, **options) as tools:
                    yield tools
                scope.cancel()
        case _:
            async with mcp_tools(COMMAND, mode=mode, **options) as tools:
                yield tools


async def run(agent: Any, message: str = "go", **options: Any) -> list[AgentEvent]:
    """The log of a run beside which a server has tasks of its own, checked."""
    async with StreamEngine().stream(agent, message, **options) as stream:
        log = [event async for event in stream]
    check_events(log)
    check_messages(stream.messages)
    return log
