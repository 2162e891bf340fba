"""What 64 tool calls of one model reply cost, when the tools answer at once.

Ours is a whole run: a reply with the calls, their STARTs and ENDs, and a second reply that ends it.
It is held against a nursery of as many tasks that send their results through a memory channel to a
reader: no events, no limits, no conversation. The last row is a run of one reply without any call,
divided among as many, so that what a run costs can be told from what its calls cost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import trio

from flowtrio import Agent, Chunk, EventType, Limits, StreamEngine, ToolCall

from ._measure import Row, Stopwatch, compare, interleave, median

TARGET = 3
CALLS = 64


async def echo(number: int) -> int:
    """Give the number back."""
    return number


class Caller:
    """A model that makes its calls in its first reply, and answers in the second."""

    def __init__(self, calls: int) -> None:
        self.calls = [
            ToolCall(id=f"p{number}", name="echo", arguments={"number": number})
            for number in range(calls)
        ]

    async def stream_completion(
        self, messages: Sequence[Any], tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """See `flowtrio.abc.LLMClient`."""
        if messages[-1]["role"] == "user":
            yield Chunk(is_final=True, tool_calls=self.calls, finish_reason="tool_calls")
        else:
            yield Chunk(content="done")
            yield Chunk(is_final=True, finish_reason="stop")


class Silent:
    """A model that calls nothing."""

    async def stream_completion(
        self, messages: Sequence[Any], tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """See `flowtrio.abc.LLMClient`."""
        yield Chunk(content="done")
        yield Chunk(is_final=True, finish_reason="stop")


async def engine_side(agent: Agent[str], calls: int, runs: int) -> float:
    """CPU seconds for each of `CALLS`, made or not."""
    engine = StreamEngine(limits=Limits(parallel_tools=CALLS))
    watch = Stopwatch()
    for _ in range(runs):
        total = 0
        async with engine.stream(agent, "go") as stream:
            async for event in stream:
                if event.type is EventType.TOOL_CALL_END:
                    assert event.data["outcome"] == "ok"
                    total += event.data["result"]
        assert total == sum(range(calls)), f"the results of {calls} calls add up to {total}"
    return watch.seconds_each(runs * CALLS)


async def send_result(send: trio.MemorySendChannel[int], number: int) -> None:
    async with send:
        await send.send(await echo(number))


async def bare_side(runs: int) -> float:
    """CPU seconds for each task of a nursery that sends one result."""
    watch = Stopwatch()
    for _ in range(runs):
        total = 0
        send, receive = trio.open_memory_channel[int](CALLS)
        async with trio.open_nursery() as nursery, receive:
            for number in range(CALLS):
                nursery.start_soon(send_result, send.clone(), number)
            send.close()
            async for result in receive:
                total += result
        assert total == sum(range(CALLS))
    return watch.seconds_each(runs * CALLS)


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    runs, rounds = (10, 3) if quick else (60, 7)
    caller: Agent[str] = Agent(llm_client=Caller(CALLS), tools=[echo])
    silent: Agent[str] = Agent(llm_client=Silent(), tools=[echo])
    taken = interleave(
        rounds,
        ours=partial(trio.run, engine_side, caller, CALLS, runs),
        bare=partial(trio.run, bare_side, runs),
        silent=partial(trio.run, engine_side, silent, 0, runs),
    )
    return [
        compare(
            f"call, {CALLS} at once / nursery + channel",
            taken["ours"],
            taken["bare"],
            target=TARGET,
            best=median,
        ),
        compare(f"run of no call, a {CALLS}th of it / the same", taken["silent"], taken["bare"]),
    ]
