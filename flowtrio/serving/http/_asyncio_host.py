"""The application under an asyncio server, such as uvicorn: its requests are served in Trio's.

The server calls in its own loop; the application, with the orchestrator and all its runs, lives in
the process's Trio thread. What the application receives and sends crosses to the server and back,
one message at a time, so the server's own pushing back reaches the run's reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from flowtrio._run._asyncio import Entered, Room, call_asyncio, call_trio
from flowtrio._run._thread import hold

from ._request import Receive, Scope, Send


def _room() -> Room:
    # As long as the process: the clients of models keep their connections between requests.
    return Room(hold(keep=True))


async def serve_elsewhere(
    app: Callable[[Scope, Receive, Send], Awaitable[None]],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Serve one connection of an asyncio server in the Trio thread.

    Where the server cancels this, the connection's work is cancelled, and has ended when that is
    raised.
    """
    loop = asyncio.get_running_loop()

    async def received() -> MutableMapping[str, Any]:
        return await call_asyncio(loop, receive)

    async def sent(message: MutableMapping[str, Any]) -> None:
        await call_asyncio(loop, send, message)

    await call_trio(_room(), app, scope, received, sent, name="flowtrio connection")


@asynccontextmanager
async def live_elsewhere(
    make: Callable[[], AbstractAsyncContextManager[None]],
) -> AsyncIterator[None]:
    """Hold the application's life open in the Trio thread, for a lifespan under asyncio."""
    async with Entered(_room(), make, "a flowtrio application"):
        yield
