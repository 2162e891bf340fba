"""``prices=``: what a run costs, however it ends, its nested agents included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from flowtrio import (
    Agent,
    AgentEvent,
    Chunk,
    DeadlineExceeded,
    EventType,
    FallbackClient,
    Limits,
    Orchestrator,
    ProviderError,
    RemoteProtocolError,
    RunContext,
    StreamEngine,
    Usage,
)
from flowtrio.testing import ScriptedModel, check_events
from flowtrio.wire._errors import stream_error

PRICES = {"scripted": {"prompt": "1", "completion": "2"}}


class Named(ScriptedModel):
    """A scripted model that has a name."""

    model = "scripted"


async def log_of(stream: Any) -> list[AgentEvent]:
    async with stream:
        events = [event async for event in stream]
    check_events(events)
    return events


def usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion)


async def test_a_run_costs_the_sum_of_its_turns_and_nested_agents() -> None:
    inner = Agent(llm_client=Named(["inner", usage(1_000_000, 0)]), name="inner")
    outer = Named(["outer", usage(0, 1_000_000)], ["again", usage(500_000, 0)])

    async def agent(ctx: RunContext, message: str) -> str:
        await ctx.model([{"role": "user", "content": message}], client=outer)
        await ctx.delegate(inner, "go")
        return (await ctx.model([{"role": "user", "content": message}], client=outer)).content

    events = await log_of(StreamEngine(prices=PRICES).stream(agent, "hello"))

    assert events[-1].data["usage"]["cost"] == "3.5"
    [ended] = [e for e in events if e.type is EventType.AGENT_END]
    assert ended.data["usage"]["cost"] == "1"
    told = [e.data["usage"]["cost"] for e in events if e.type is EventType.MESSAGE_COMPLETE]
    assert told == ["2", "1", "0.5"]


async def test_a_cancelled_run_costs_at_least_what_was_seen() -> None:
    agent = Agent(llm_client=Named(["0123456789abcdef", 1000]))

    async with StreamEngine(prices=PRICES).stream(agent, "hello") as stream:
        events = []
        async for event in stream:
            events.append(event)
            if event.type is EventType.MESSAGE_CHUNK:
                stream.cancel()

    check_events(events)
    told = events[-1].data["usage"]
    assert told["quality"] == "lower_bound"
    assert told["completion_tokens"] == 2
    assert told["cost"] == "0.000004"


async def test_a_model_without_a_price_makes_the_cost_unknown() -> None:
    other = ScriptedModel(["unknown", usage(1, 1)])
    known = Named(["known", usage(1, 1)])

    async def agent(ctx: RunContext, message: str) -> None:
        for client in (known, other):
            await ctx.model([{"role": "user", "content": message}], client=client)

    events = await log_of(StreamEngine(prices=PRICES).stream(agent, "hello"))

    assert events[-1].data["usage"]["cost"] is None


async def test_an_orchestrator_takes_prices_too() -> None:
    orchestrator = Orchestrator(
        llm_client=Named(["hello", usage(1_000_000, 0)]),
        prices=PRICES,  # type: ignore[arg-type]
    )

    events = await log_of(orchestrator.process_stream("hello"))

    assert events[-1].data["usage"]["cost"] == "1"


async def test_without_prices_there_is_no_cost() -> None:
    events = await log_of(
        StreamEngine().stream(Agent(llm_client=Named(["hello", usage(1, 1)])), "hello")
    )

    assert events[-1].data["usage"]["cost"] is None


# Several models in line

TWO_PRICES = {"big": {"prompt": "100", "completion": "1000"}, "small": PRICES["scripted"]}
CUT_OFF = RemoteProtocolError("the model's stream ended", code="stream_cut")
BUSY = ProviderError("the host refused", status=503, code="overloaded")


class Says:
    """A model that has a name, answers by a longer one, and may fail."""

    told: Usage | None = usage(1000, 100)

    def __init__(self, model: str, said: str = "", fails: Exception | None = None) -> None:
        self.model = model
        self.said = said
        self.fails = fails

    async def stream_completion(
        self, messages: Any, tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        if self.said:
            yield Chunk(content=self.said)
        if self.fails is not None:
            raise self.fails
        name = f"{self.model}-2026-08-01"
        yield Chunk(is_final=True, finish_reason="stop", usage=self.told, model=name)


@pytest.mark.parametrize("buffer", range(1, 6))
async def test_what_was_said_before_a_reset_counts_once_whenever_the_run_ends(
    buffer: int, autojump_clock: Any
) -> None:
    """With some of these buffers the reset waits for the reader."""

    class Again:
        async def stream_completion(self, messages: Any, **options: Any) -> Any:
            yield Chunk(reasoning="y" * 40)
            yield Chunk(content="x" * 80)
            yield Chunk(reset="again")
            await trio.sleep_forever()

    stream = StreamEngine(limits=Limits(buffer=buffer)).stream(Agent(llm_client=Again()), "hello")
    async with stream:
        await trio.sleep(1)
        assert stream.cancel()
        events = [event async for event in stream]

    told = events[-1].data["usage"]
    said = "".join(e.data.get("chunk", "") for e in events)
    reasoning = "".join(e.data["chunk"] for e in events if e.type is EventType.REASONING_CHUNK)
    assert told["completion_tokens"] == len(said) // 8
    assert told["reasoning_tokens"] == len(reasoning) // 8


@pytest.mark.parametrize("name", ["small", "small-2026-08-01"])
async def test_behind_a_fallback_the_price_is_that_of_the_model_that_answered(name: str) -> None:
    prices = {"big": TWO_PRICES["big"], name: TWO_PRICES["small"]}
    client = FallbackClient([Says("big", fails=BUSY), FallbackClient([Says("small", "Hello")])])
    events = await log_of(StreamEngine(prices=prices).stream(Agent(llm_client=client), "hello"))

    told = events[-1].data["usage"]
    assert (told["cost"], told["quality"]) == ("0.0012", "measured")


async def test_an_attempt_that_failed_costs_at_least_what_it_said_at_its_own_price() -> None:
    client = FallbackClient([Says("big", "x" * 80, CUT_OFF), Says("small", "Hello")])
    stream = StreamEngine(prices=TWO_PRICES).stream(Agent(llm_client=client), "hello")
    events = await log_of(stream)

    [complete] = [e for e in events if e.type is EventType.MESSAGE_COMPLETE]
    told = events[-1].data["usage"]
    assert told == complete.data["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == (1000, 110)
    # 10 tokens at 1000, and 1000 at 1 and 100 at 2.
    assert (told["cost"], told["quality"]) == ("0.0112", "lower_bound")


async def test_where_all_attempts_failed_each_counts() -> None:
    client = FallbackClient([Says("big", "x" * 80, CUT_OFF), Says("small", "y" * 16, CUT_OFF)])
    stream = StreamEngine(prices=TWO_PRICES).stream(Agent(llm_client=client), "hello")
    events = await log_of(stream)

    told = events[-1].data["usage"]
    assert (told["completion_tokens"], told["quality"]) == (12, "lower_bound")
    assert told["cost"] == "0.010004"


@pytest.mark.parametrize(
    ("failure", "quality"),
    [
        (BUSY, "measured"),
        (DeadlineExceeded("no connection", deadline="connect"), "measured"),
        (DeadlineExceeded("nothing was sent", deadline="first_token"), "lower_bound"),
        (CUT_OFF, "lower_bound"),
        (ProviderError("no answer came", code="connection_failed"), "measured"),
        (stream_error({"message": "out of memory"}), "lower_bound"),
        (stream_error({"code": 429}), "lower_bound"),
    ],
)
async def test_a_model_that_worked_and_said_nothing_leaves_a_lower_bound(
    failure: Exception, quality: str
) -> None:
    client = FallbackClient([Says("big", fails=failure), Says("small", "Hello")])
    completion = await client.complete([{"role": "user", "content": "hello"}])

    assert completion.usage is not None
    assert (completion.usage.completion_tokens, completion.usage.quality) == (100, quality)


@pytest.mark.parametrize(("failure", "quality"), [(BUSY, "measured"), (CUT_OFF, "lower_bound")])
async def test_several_that_failed_together_have_worked_if_one_of_them_has(
    failure: Exception, quality: str
) -> None:
    inner = FallbackClient([Says("big", fails=failure), Says("big", fails=BUSY)])
    completion = await FallbackClient([inner, Says("small", "Hello")]).complete([])

    assert completion.usage is not None
    assert completion.usage.quality == quality


class Withholds(Says):
    """A model whose host counts a reply that it then withholds."""

    told = usage(90_000, 500)

    async def stream_completion(
        self, messages: Any, tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        async with aclosing(super().stream_completion(messages, tools, **options)) as reply:
            async for chunk in reply:
                is_final = chunk.is_final
                yield replace(chunk, finish_reason="content_filter") if is_final else chunk


@pytest.mark.parametrize("said", ["", "x" * 80])
@pytest.mark.parametrize("is_nested", [False, True])
async def test_a_withheld_reply_costs_what_its_host_told_at_its_own_price(
    said: str, is_nested: bool
) -> None:
    first: Any = Withholds("big", said)
    client = FallbackClient([FallbackClient([first]) if is_nested else first, Says("small", "Hi")])
    stream = StreamEngine(prices=TWO_PRICES).stream(Agent(llm_client=client), "hello")
    events = await log_of(stream)
    completion = await client.complete([{"role": "user", "content": "hello"}])

    [complete] = [e for e in events if e.type is EventType.MESSAGE_COMPLETE]
    told = events[-1].data["usage"]
    assert told == complete.data["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == (91_000, 600)
    # 90,000 tokens at 100 and 500 at 1000; 1000 at 1 and 100 at 2.
    assert (told["cost"], told["quality"]) == ("9.5012", "measured")
    assert completion.usage == usage(91_000, 600)


async def test_a_withheld_reply_counts_where_the_next_model_fails() -> None:
    client = FallbackClient([Withholds("big"), Says("small", fails=BUSY)])
    events = await log_of(StreamEngine().stream(Agent(llm_client=client), "hello"))

    told = events[-1].data["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == (90_000, 500)


async def test_what_a_host_told_of_a_reset_in_its_last_chunk_counts_once() -> None:
    class Last:
        async def stream_completion(self, messages: Any, **options: Any) -> Any:
            yield Chunk(content="x" * 80)
            yield Chunk(reset="again", content="y", is_final=True, usage=usage(1000, 100))

    agent = Agent(llm_client=Last())
    events = await log_of(StreamEngine().stream(agent, "hello"))

    told = events[-1].data["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == (1000, 110)


async def test_a_usage_of_a_reset_that_is_none_ends_the_run() -> None:
    class Odd:
        async def stream_completion(self, messages: Any, **options: Any) -> Any:
            yield Chunk(reset="again", usage="x")  # type: ignore[arg-type]

    events = await log_of(StreamEngine().stream(Agent(llm_client=Odd()), "hello"))

    [error] = [e for e in events if e.type is EventType.ERROR]
    assert "expected a Usage or None, got str" in error.data["error"]


async def test_a_reply_that_tells_no_usage_has_none_behind_a_fallback_either() -> None:
    mute = Says("small", "x")
    mute.told = None
    client = FallbackClient([Says("big", "half", CUT_OFF), mute])

    assert (await client.complete([{"role": "user", "content": "hello"}])).usage is None
