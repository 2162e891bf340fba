"""Agents that the hosts' tests read."""

from __future__ import annotations

import threading
from typing import Any

import attrs
import trio

from flowtrio import AgentEvent, EventType, RunContext, StreamEngine

ENGINE = StreamEngine()


async def talk(ctx: RunContext, message: str) -> str:
    """Say a thousand words."""
    async with ctx.message() as out:
        for number in range(1000):
            await out.write(f"{number} ")
    return "done"


@attrs.define
class Waits:
    """Says one word, waits for ever, and takes its time to clean up."""

    cleanup: float = 0.01
    threads: list[int] = attrs.Factory(list)
    ended: int = 0

    async def __call__(self, ctx: RunContext, message: str) -> str:
        """See the class."""
        self.threads.append(threading.get_ident())
        async with ctx.message() as out:
            await out.write("x")
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.cleanup)
                self.ended += 1
        raise AssertionError


def is_chunk(event: AgentEvent[Any]) -> bool:
    """Whether it is a word."""
    return event.type is EventType.MESSAGE_CHUNK
