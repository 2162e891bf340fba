"""A served application, and clients for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import trio
import trio.testing
import trio_websocket

from flowtrio import (
    AgentEvent,
    EventType,
    Orchestrator,
    RunContext,
)
from flowtrio.asgi import create_app
from flowtrio.wire._sse import SSEDecoder
from tests.support.worker import serving

TOKEN = "canary-token"


@attrs.define
class Site:
    """A served application."""

    url: str
    orchestrator: Orchestrator
    app: Any
    http: httpx.AsyncClient

    async def follow(
        self, method: str, path: str, **options: Any
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Events and ids of an answer in SSE, read to its end."""
        events, ids = [], []
        async with self.http.stream(method, path, **options) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"] == "text/event-stream"
            assert response.headers["x-accel-buffering"] == "no"
            decoder = SSEDecoder()
            async for piece in response.aiter_bytes():
                for event in decoder.receive_data(piece):
                    if event.data:
                        events.append(json.loads(event.data))
                        ids.append(event.id)
        return events, ids


async def talk(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        for word in ("hello", " ", "world"):
            await out.write(word)
    return message


class Talker:
    """An agent that goes on until it is told to stop, and notes how it ended."""

    name = "talker"

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.begun = 0

    async def __call__(self, ctx: RunContext, message: str) -> str:
        self.begun += 1
        try:
            async with ctx.message() as out:
                await out.write("one")
                await trio.sleep_forever()
        finally:
            self.ended.set()
        return ""


@asynccontextmanager
async def site(agent: Any = talk, orchestrator: Any = None, **options: Any) -> AsyncIterator[Site]:
    orchestrator = orchestrator or Orchestrator(agents=[agent])
    app = create_app(orchestrator, **options)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=20) as http:
        yield Site(url, orchestrator, app, http)


def as_events(frames: list[dict[str, Any]]) -> list[AgentEvent]:
    return [AgentEvent(**{**frame, "type": EventType(frame["type"])}) for frame in frames]


@asynccontextmanager
async def socket(s: Site, *protocols: str, path: str = "/chat", **headers: str) -> Any:
    url = s.url.replace("http://", "ws://") + path
    extra = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    opened = trio_websocket.open_websocket_url(
        url, subprotocols=protocols or None, extra_headers=extra
    )
    async with opened as ws:
        try:
            yield ws
        finally:
            # Where the server closed, this client leaves its socket to the collector.
            await ws.aclose()
            await trio.aclose_forcefully(ws._stream)


async def read_run(ws: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] != "done":
        frame = json.loads(await ws.get_message())
        if isinstance(frame, list):
            events += frame
        elif frame["type"] not in ("accepted", "rejected"):
            events.append(frame)
    return events
