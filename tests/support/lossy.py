"""A server of which a frame is lost on the way, as by a proxy that counts wrongly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from flowtrio import Orchestrator, RunContext
from flowtrio.asgi import create_app
from tests.support.worker import serving

WORDS = ("one", "two", "three")
"""What the agent says, a frame each; in every mode something else comes behind each."""


@attrs.define(eq=False)
class Lossy:
    """An application; the first that it sends with *mark* in it is lost."""

    app: Any
    mark: str
    has_lost: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        async def pass_on(message: MutableMapping[str, Any]) -> None:
            said = message.get("text") or message.get("body", b"").decode()
            # A reply has no `seq`.
            if self.mark in said and '"seq"' in said and not self.has_lost.is_set():
                self.has_lost.set()
            else:
                await send(message)

        # Not the page's files, which have all kinds of words in them.
        is_run = str(scope.get("path", "")).startswith("/chat")
        await self.app(scope, receive, pass_on if is_run else send)


def lossy(mark: str) -> Lossy:
    """An agent that says `WORDS` and waits where one of them is to be lost until it is."""

    async def agent(ctx: RunContext, message: str) -> str:
        for word in WORDS:
            await ctx.status(word)
            async with ctx.message() as out:
                await out.write(word)
            if word == mark:
                await lost.has_lost.wait()
        return "done"

    lost = Lossy(create_app(Orchestrator(agents=[agent]), drain=0.2), mark)
    return lost


@asynccontextmanager
async def open_lossy(mark: str) -> AsyncIterator[str]:
    """Serve it; gives its address."""
    with trio.fail_after(40):
        async with serving(lossy(mark)) as url:
            yield url
