"""`DemoClient`: what it says, and that it says the same again."""

from __future__ import annotations

from typing import Any, Literal

import attrs
import pytest
import trio
from trio.testing import MockClock

from flowtrio import Agent, Completion, DemoClient, StreamEngine, tool
from flowtrio.testing import check_events, check_messages


@tool
async def search_flights(city: str, passengers: int = 1) -> str:
    """Search."""
    return f"a flight to {city}"


@tool
async def search_hotels(city: str, stars: Literal["three", "five"]) -> str:
    """Search."""
    return f"a hotel with {stars} stars in {city}"


@tool
async def book(city: str) -> str:
    """Book."""
    return f"booked {city}"


SPECS: Any = [made.spec() for made in (search_flights, search_hotels, book)]


async def ask(text: str, tools: Any = (), *, seed: int = 0, **options: Any) -> Completion:
    client = DemoClient(seed=seed, delay=0)
    return await client.complete([{"role": "user", "content": text}], tools, **options)


async def test_without_tools_it_says_what_it_is() -> None:
    completion = await ask("Good morning")

    assert completion.content.startswith('You said: "Good morning".')
    assert completion.finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 2


async def test_it_calls_the_first_two_tools_at_once() -> None:
    completion = await ask("A trip to Rome, five stars", SPECS)

    assert [(call.name, call.arguments) for call in completion.tool_calls] == [
        ("search_flights", {"city": "Rome"}),
        ("search_hotels", {"city": "Rome", "stars": "five"}),
    ]
    assert completion.finish_reason == "tool_calls"


async def test_a_whole_conversation_calls_each_tool_once() -> None:
    agent = Agent(llm_client=DemoClient(delay=0), tools=[search_flights, search_hotels, book])
    async with StreamEngine() as engine:
        async with engine.stream(agent, "To Rome. I approve of it.") as stream:
            events = [event async for event in stream]

    check_events(events)
    check_messages(stream.messages)
    called = [event.data["tool_name"] for event in events if event.type == "tool_call_start"]
    assert sorted(called) == ["book", "search_flights", "search_hotels"]
    assert 'search_flights says "a flight to Rome"' in await stream.result()


async def test_what_is_to_be_approved_is_called_by_that_word_alone() -> None:
    agent = Agent(llm_client=DemoClient(delay=0), tools=[search_flights, search_hotels, book])
    async with StreamEngine() as engine:
        async with engine.stream(agent, "To Rome.") as stream:
            events = [event async for event in stream]

    called = [event.data["tool_name"] for event in events if event.type == "tool_call_start"]
    assert sorted(called) == ["search_flights", "search_hotels"]


async def test_the_same_seed_says_the_same() -> None:
    first, again, other = [await ask("Somewhere", SPECS, seed=seed) for seed in (1, 1, 2)]

    assert first == again
    assert [call.id for call in first.tool_calls] != [call.id for call in other.tool_calls]


async def test_chunks_come_one_delay_apart(autojump_clock: MockClock) -> None:
    begun, times = trio.current_time(), []
    async for _ in DemoClient(delay=0.5).stream_completion([{"role": "user", "content": "hi"}]):
        times.append(trio.current_time() - begun)

    assert times == [0.5 * number for number in range(1, len(times) + 1)]
    assert len(times) > 20


async def test_leaving_forgets_the_rest() -> None:
    async with DemoClient(delay=0).stream_completion([{"role": "user", "content": "hi"}]) as reply:
        await anext(reply)
    with pytest.raises(StopAsyncIteration):
        await anext(reply)


@attrs.frozen
class Leg:
    """One flight."""

    to: str
    seats: int
    kind: Literal["day", "night"]


@attrs.frozen
class Trip:
    """A journey."""

    legs: list[Leg]
    is_paid: bool
    note: str | None


async def test_structured_output_fits_its_schema() -> None:
    agent = Agent(llm_client=DemoClient(delay=0), output=Trip)
    async with StreamEngine() as engine:
        trip = await engine.stream(agent, "A night flight to Oslo").result()

    assert isinstance(trip, Trip)
    assert [(leg.to, leg.kind) for leg in trip.legs] == [("Oslo", "night")]


async def test_contents_in_parts_are_read() -> None:
    parts = [{"type": "text", "text": "over to Oslo"}, {"type": "image_url", "image_url": {}}]
    completion = await DemoClient(delay=0).complete([{"role": "user", "content": parts}], SPECS)

    assert completion.tool_calls[0].arguments == {"city": "Oslo"}


async def test_an_empty_conversation_is_answered() -> None:
    assert (await DemoClient(delay=0).complete([])).content.startswith('You said: "".')


async def test_arguments_fit_schemas_that_were_written_by_hand() -> None:
    properties = {"kind": {"const": "fast"}, "nothing": {"type": "null"}}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    spec: Any = {"name": "go", "description": "Go.", "parameters": parameters}
    completion = await ask("go", [{"type": "function", "function": spec}])

    assert completion.tool_calls[0].arguments == {"kind": "fast", "nothing": None}


def test_it_says_what_it_is_made_of() -> None:
    assert repr(DemoClient(seed=7, delay=0)) == "<DemoClient seed=7 delay=0>"
