"""Hypercorn's trio worker in this process, so that a test can say what happens after what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import hypercorn
import hypercorn.trio
import trio


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an application until the block ends; gives its address, ``http://host:port``.

    What Hypercorn has to say is not shown: handlers that end by their client's leaving are told as
    errors.
    """
    config = hypercorn.Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 1
    config.errorlog = config.accesslog = None
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        serve = partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait)
        [url] = await nursery.start(serve)
        try:
            yield str(url)
        finally:
            stop.set()
