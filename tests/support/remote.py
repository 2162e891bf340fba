"""Clients over the network, and servers that are none of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import flowtrio
from flowtrio import (
    RunContext,
)
from tests.support.ws_peer import Served
from tests.testing.test_checks import answers


async def talks(ctx: RunContext, message: str) -> str:
    """Say many words, in turns of some at once."""
    async with ctx.message() as out:
        for number in range(int(message)):
            await out.write(f"word {number} ")
            if number % 7 == 0:
                await trio.sleep(0.001)
    return message


@asynccontextmanager
async def connected(served: Served, **options: Any) -> AsyncIterator[Any]:
    async with flowtrio.connect(served.url, **options) as remote:
        yield remote


async def until_chunk(stream: Any) -> None:
    async for event in stream:
        if event.type == "message_chunk":
            return


def log_of(command: dict[str, Any], make: Any = answers) -> list[dict[str, Any]]:
    return [{**event, "run_id": command["run_id"]} for event in make()]


@asynccontextmanager
async def answering(answer: Any) -> AsyncIterator[str]:
    """The address of a TCP server."""
    with trio.fail_after(180):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, answer, 0)
            yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
            nursery.cancel_scope.cancel()


async def refused(url: str, **options: Any) -> str:
    with pytest.raises(ConnectionError) as caught:
        async with flowtrio.connect(url, **options):
            raise AssertionError("not reached")
    return str(caught.value)
