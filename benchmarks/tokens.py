"""What the engine costs for each token, against a memory channel with as many producers.

Ours is a whole run read by ``async for`` in its structured form: model, turn loop, log, reader. It
is held against the *awaited* channel (``await send(item)``, read by ``async for``, buffer 64), and
against the cheapest thing Trio has: ``send_nowait`` and ``receive_nowait``, with a checkpoint for
every 64 items on each side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio

from flowtrio import Agent, Chunk, EventType, RunContext, StreamEngine
from flowtrio.abc import AgentLike

from ._measure import Row, Stopwatch, compare, interleave

TARGET = 0.45
TARGET_OF_DELEGATES = 0.48
PRODUCERS = 8
BUFFER = 64
TEXT = "token "


class Babbler:
    """A model that says the same word again and again, as fast as it is asked."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    async def stream_completion(
        self, messages: Sequence[Any], tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """See `flowtrio.abc.LLMClient`."""
        for _ in range(self.tokens):
            yield Chunk(content=TEXT)
        yield Chunk(is_final=True, finish_reason="stop")


def speaker(tokens: int) -> AgentLike:
    """One model."""
    return Agent(llm_client=Babbler(tokens))


def writers(tokens: int) -> AgentLike:
    """A body whose tasks each write a message of their own."""

    async def write(ctx: RunContext) -> None:
        async with ctx.message() as out:
            for _ in range(tokens // PRODUCERS):
                await out.write(TEXT)

    async def agent(ctx: RunContext, message: str) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(PRODUCERS):
                nursery.start_soon(write, ctx)

    return agent


def delegates(tokens: int) -> AgentLike:
    """A body that hands its message to several agents at once."""
    inner = speaker(tokens // PRODUCERS)

    async def agent(ctx: RunContext, message: str) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(PRODUCERS):
                nursery.start_soon(ctx.delegate, inner, message)

    return agent


# The sides


async def engine_side(agent: AgentLike, tokens: int) -> float:
    """CPU seconds for each token of a run."""
    seen = 0
    watch = Stopwatch()
    async with StreamEngine().stream(agent, "go") as stream:
        async for event in stream:
            if event.type is EventType.MESSAGE_CHUNK:
                seen += 1
    spent = watch.seconds_each(tokens)
    assert seen == tokens, f"{seen} tokens came of {tokens}"
    return spent


async def send_awaited(send: trio.MemorySendChannel[str], items: int) -> None:
    async with send:
        for _ in range(items):
            await send.send(TEXT)


async def awaited_side(producers: int, items: int) -> float:
    """CPU seconds for each item of an awaited channel."""
    send, receive = trio.open_memory_channel[str](BUFFER)
    seen = 0
    watch = Stopwatch()
    async with trio.open_nursery() as nursery, receive:
        for _ in range(producers):
            nursery.start_soon(send_awaited, send.clone(), items // producers)
        send.close()
        async for _ in receive:
            seen += 1
    spent = watch.seconds_each(items)
    assert seen == items, f"{seen} items came of {items}"
    return spent


async def send_nowait(send: trio.MemorySendChannel[str], items: int) -> None:
    async with send:
        for number in range(items):
            try:
                send.send_nowait(TEXT)
            except trio.WouldBlock:
                await send.send(TEXT)
            if number % BUFFER == BUFFER - 1:
                await trio.lowlevel.checkpoint()


async def nowait_side(producers: int, items: int) -> float:
    """CPU seconds for each item where hardly any is waited for."""
    send, receive = trio.open_memory_channel[str](BUFFER)
    seen = 0
    watch = Stopwatch()
    async with trio.open_nursery() as nursery, receive:
        for _ in range(producers):
            nursery.start_soon(send_nowait, send.clone(), items // producers)
        send.close()
        while seen < items:
            try:
                receive.receive_nowait()
            except trio.WouldBlock:
                await receive.receive()
            seen += 1
            if seen % BUFFER == 0:
                await trio.lowlevel.checkpoint()
    return watch.seconds_each(items)


# The rows


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    tokens, rounds = (4_000, 3) if quick else (40_000, 7)
    found: list[Row] = []
    for producers, kind, agent, target in (
        (1, "1 model", speaker(tokens), TARGET),
        (PRODUCERS, "8 tasks that write", writers(tokens), TARGET),
        (PRODUCERS, "8 delegated agents", delegates(tokens), TARGET_OF_DELEGATES),
    ):
        taken = interleave(
            rounds,
            ours=_side(engine_side, agent, tokens),
            awaited=_side(awaited_side, producers, tokens),
            nowait=_side(nowait_side, producers, tokens),
        )
        name = f"token, {kind}"
        ours = taken["ours"]
        found += [
            compare(f"{name} / awaited channel", ours, taken["awaited"], target=target),
            compare(f"{name} / send_nowait", ours, taken["nowait"]),
        ]
    return found


def _side(fn: Callable[..., Awaitable[float]], *args: Any) -> Callable[[], float]:
    return partial(trio.run, fn, *args)
