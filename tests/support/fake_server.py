"""A WebSocket server that plays connections one after another, as a test writes them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio_websocket


@attrs.define(eq=False)
class Connection:
    """One client's connection."""

    connection: Any

    async def take(self) -> dict[str, Any]:
        """The next command."""
        return json.loads(await self.connection.get_message())

    async def give(self, *frames: dict[str, Any]) -> None:
        """Send frames, one each."""
        for frame in frames:
            await self.connection.send_message(json.dumps(frame))

    async def accept(self, command: dict[str, Any]) -> None:
        """Reply to a command."""
        reply = {"type": "accepted", "ref": command["ref"], "run_id": command["run_id"]}
        await self.give(reply)


Script = Callable[[Connection], Awaitable[None]] | int
"""What happens on a connection, or the status that refuses it."""


@asynccontextmanager
async def open_fake_server(*scripts: Script) -> AsyncIterator[str]:
    """Play each script on a connection of its own, then close it; give the address."""
    waiting = list(scripts)

    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        script = waiting.pop(0)
        if isinstance(script, int):
            return await request.reject(script)
        connection = await request.accept(subprotocol="flowtrio.v1")
        await script(Connection(connection))
        await connection.aclose()
        return None

    with trio.fail_after(180):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                trio_websocket.serve_websocket, handle, "127.0.0.1", 0, None
            )
            yield f"ws://127.0.0.1:{server.port}/chat"
            assert not waiting, f"{len(waiting)} connections were not opened"
            nursery.cancel_scope.cancel()
