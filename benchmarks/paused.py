"""What a reader that pauses costs in memory, while a model has a million tokens to say.

The reader stops for a while at several places of the stream, and then reads on to the end. Told is
how many events were undelivered at most, and how much the process grew during all the pauses
together. All tokens have to arrive, in order.

The same measurement without the limit, ``Limits(buffer=math.inf)``, stands beside it: it shows that
a run that does not pause its model would be noticed here. How much that one grows depends only on
how long the reader pauses.

Each side has a process of its own, since memory that was used once and is free hides growth.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from typing import Any

import attrs
import trio

from flowtrio import Agent, Chunk, EventType, Limits, StreamEngine

from ._measure import CAN_TELL_RESIDENT, Row, in_fresh_process, resident_bytes

MIB = 1024 * 1024
GROWTH_LIMIT = 8
"""MiB that the process may grow while the reader pauses."""
BUFFER = 64
SPARE = 4
"""Undelivered events beyond the buffer: the open message's closer, and three for the end."""
PAUSES = 10
SECONDS = 0.1
"""Of each pause: a model that is not held back says some ten thousand tokens in it."""


class Counter:
    """A model that counts, as fast as it is asked."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    async def stream_completion(
        self, messages: Sequence[Any], tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """See `flowtrio.abc.LLMClient`."""
        for number in range(self.tokens):
            yield Chunk(content=f"{number} ")
        yield Chunk(is_final=True, finish_reason="stop")


@attrs.define
class Seen:
    """What the reader found out."""

    tokens: int = 0
    undelivered: int = 0
    """The most at any one time."""
    growth: int = 0
    """Bytes, in all pauses together."""


async def read_with_pauses(tokens: int, buffer: float) -> Seen:
    """Read a whole run, with pauses, and check what comes."""
    agent: Agent[str] = Agent(llm_client=Counter(tokens))
    limits = Limits(buffer=buffer)  # type: ignore[arg-type]  # inf is allowed
    pause_at = {tokens * number // PAUSES for number in range(PAUSES)}
    seen, text, seq = Seen(), sha256(), 0
    async with StreamEngine(limits=limits).stream(agent, "count") as stream:
        async for event in stream:
            assert event.seq == seq, f"event {event.seq} came in the place of {seq}"
            seq += 1
            if event.type is EventType.MESSAGE_CHUNK:
                assert event.data["chunk"] == f"{seen.tokens} "
                text.update(event.data["chunk"].encode())
                if seen.tokens in pause_at:
                    before = resident_bytes()
                    await trio.sleep(SECONDS)
                    # What one pause gives back must not hide what another takes.
                    seen.growth += max(0, resident_bytes() - before)
                seen.tokens += 1
            elif event.type is EventType.MESSAGE_COMPLETE:
                assert sha256(event.data["content"].encode()).digest() == text.digest()
            seen.undelivered = max(seen.undelivered, stream.statistics().undelivered)
    assert seen.tokens == tokens, f"{seen.tokens} tokens came of {tokens}"
    return seen


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    if not CAN_TELL_RESIDENT:
        return []
    tokens = 50_000 if quick else 1_000_000
    ours, boundless = (in_fresh_process("paused", tokens, size) for size in (BUFFER, math.inf))
    return [
        Row(
            subject=f"paused reader of {tokens:,}, growth / no buffer",
            ours=ours["growth"] / MIB,
            theirs=boundless["growth"] / MIB,
            limit=GROWTH_LIMIT,
            unit="MiB",
        ),
        Row(
            subject=f"paused reader of {tokens:,}, undelivered / no buffer",
            ours=ours["undelivered"],
            theirs=boundless["undelivered"],
            limit=BUFFER + SPARE,
            unit="events",
        ),
    ]


def main(tokens: str, buffer: str) -> None:
    """Measure one side in this process, and print it as JSON."""
    seen = trio.run(read_with_pauses, int(tokens), math.inf if buffer == "inf" else int(buffer))
    print(json.dumps(attrs.asdict(seen)))


if __name__ == "__main__":
    main(*sys.argv[1:])
