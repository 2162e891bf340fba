"""The HTTP address of `flowtrio serve`, in this process."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from flowtrio import Orchestrator, ServerLimits
from flowtrio.asgi import create_app
from flowtrio.cli._serve import Serving, make_config
from flowtrio.serving._access import Access
from flowtrio.serving.http._front import serve_front
from tests.support.ws_peer import Served


@asynccontextmanager
async def open_door(
    agent: Any,
    *,
    seconds: float = 40,
    resume_window: float = 0.2,
    limits: ServerLimits | None = None,
    ssl_context: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    """Serve an agent, or an open orchestrator, for as long as the block lasts."""
    opened: Any = contextlib.nullcontext(agent)
    if not isinstance(agent, Orchestrator):
        opened = Orchestrator(agents=[agent])
    limits = ServerLimits() if limits is None else limits
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    scope = trio.CancelScope()

    async def until() -> None:
        with scope:
            await trio.sleep_forever()

    given = {key: value for key, value in options.items() if key != "protocols"}
    rules = {"token": None, "origins": (), "authenticate": None, **given}
    # No test takes this long, whatever hangs.
    with trio.fail_after(seconds):
        async with opened as orchestrator, trio.open_nursery() as nursery:
            front = partial(
                serve_front,
                create_app(
                    orchestrator, limits=limits, resume_window=resume_window, drain=0.2, **options
                ),
                listeners,
                make_config(Serving(limits=limits)),
                access=Access.of(host="127.0.0.1", insecure=False, **rules),
                ssl_context=ssl_context,
                until=until,
            )
            await nursery.start(front)
            yield Served(listeners[0].socket.getsockname()[1], scope)
            scope.cancel()
