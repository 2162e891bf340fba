"""What an event costs a reader under asyncio, or in plain code, against one under Trio.

All three read the same run of one model in its structured form. Elsewhere its events cross from the
Trio thread in batches. Then a deadline of a run, while the loop of its reader is blocked: the run
has a loop of its own, and ends in time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

import trio

import flowtrio.sync
from flowtrio import AgentEvent, EventType, Limits, RunContext, StreamEngine
from flowtrio.abc import AgentLike
from flowtrio.aio import Bridge

from ._measure import Row, Stopwatch, compare, interleave
from .tokens import engine_side, speaker

TARGET = 1.5
DEADLINE = 0.2
BLOCKED = 0.6
LATEST = 50
"""Milliseconds by which a run may miss its deadline."""


async def asyncio_side(agent: AgentLike, tokens: int) -> float:
    """CPU seconds for each token that an asyncio task reads."""
    seen = 0
    engine = StreamEngine()
    async with Bridge() as bridge:
        watch = Stopwatch()
        async with bridge.stream(lambda: engine.stream(agent, "go")) as stream:
            async for event in stream:
                if event.type is EventType.MESSAGE_CHUNK:
                    seen += 1
        spent = watch.seconds_each(tokens)
    assert seen == tokens, f"{seen} tokens came of {tokens}"
    return spent


def plain_side(agent: AgentLike, tokens: int) -> float:
    """CPU seconds for each token that plain code reads."""
    seen = 0
    watch = Stopwatch()
    with flowtrio.sync.stream(StreamEngine(), agent, "go") as events:
        for event in events:
            if event.type is EventType.MESSAGE_CHUNK:
                seen += 1
    spent = watch.seconds_each(tokens)
    assert seen == tokens, f"{seen} tokens came of {tokens}"
    return spent


async def late_end() -> float:
    """Seconds by which a run misses its deadline whose reader's loop is blocked."""
    ended: list[float] = []

    async def wait(ctx: RunContext, message: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(time.monotonic())

    engine = StreamEngine(limits=Limits(run=DEADLINE))
    events: list[AgentEvent] = []
    async with Bridge() as bridge:
        begun = time.monotonic()
        async with bridge.stream(lambda: engine.stream(wait, "go")) as stream:
            events.append(await anext(stream))
            time.sleep(BLOCKED)  # noqa: ASYNC251
            async for event in stream:
                events.append(event)
    assert events[-1].data["status"] == "error"
    return ended[0] - begun - DEADLINE


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    tokens, rounds = (4_000, 3) if quick else (20_000, 7)
    agent = speaker(tokens)
    sides: dict[str, Callable[[], float]] = {
        "native": partial(trio.run, engine_side, agent, tokens),
        "asyncio": lambda: asyncio.run(asyncio_side(agent, tokens)),
        "plain": partial(plain_side, agent, tokens),
    }
    taken = interleave(rounds, **sides)
    # That the deadline was exceeded is what is asked for.
    logging.getLogger("flowtrio").addHandler(logging.NullHandler())
    missed = max(asyncio.run(late_end()) for _ in range(1 if quick else 5)) * 1000
    return [
        compare(
            "event, asyncio through a bridge / Trio",
            taken["asyncio"],
            taken["native"],
            target=TARGET,
        ),
        compare(
            "event, plain code / Trio",
            taken["plain"],
            taken["native"],
            target=TARGET,
        ),
        Row(
            subject="deadline missed while the reader's loop is blocked",
            ours=missed,
            theirs=(BLOCKED - DEADLINE) * 1000,
            limit=LATEST,
            unit="ms",
        ),
    ]
