"""`check_llm_client`: our clients pass it, and each planted bug is caught."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from flowtrio import Chunk, Completion, DemoClient, OpenAIClient, ToolArgs, ToolCall, Usage, tool
from flowtrio.testing import RecordingClient, check_llm_client
from tests.support.model_server import Exchange, open_model_server, says

FINAL = Chunk(is_final=True, finish_reason="stop")


@attrs.define
class Plain:
    """A client that gives these chunks, time and again."""

    chunks: list[Any]
    complete_gives: Completion | None = None

    async def stream_completion(
        self, messages: Any, tools: Any = None, **options: Any
    ) -> AsyncIterator[Any]:
        for chunk in self.chunks:
            await trio.lowlevel.checkpoint()
            yield chunk


def making(client: Any) -> Any:
    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        yield client

    return make


@tool
async def look(word: str) -> str:
    """Look it up."""
    return word


async def test_the_demonstration_passes(tmp_path: Any) -> None:
    await check_llm_client(making(DemoClient(delay=0)))
    await check_llm_client(making(DemoClient(delay=0)), tools=[look.spec()])
    await check_llm_client(making(RecordingClient(DemoClient(delay=0), tmp_path / "r.jsonl")))


async def test_our_client_over_http_passes() -> None:
    async def answer(exchange: Exchange) -> None:
        if "tools" not in exchange.body:
            await says("hel", "lo")(exchange)
            return
        function = {"name": "look", "arguments": '{"word": "x"}'}
        await exchange.send_delta({"tool_calls": [{"index": 0, "id": "c", "function": function}]})
        await exchange.finish("tool_calls")

    async with open_model_server([answer] * 200) as server:

        def make() -> OpenAIClient:
            return OpenAIClient(api_key="sk-canary", model="m", base_url=server.url)

        await check_llm_client(make, secret="sk-canary")
        await check_llm_client(make, tools=[look.spec()], secret="sk-canary", steps=5)


async def test_a_plain_generator_passes() -> None:
    await check_llm_client(making(Plain([Chunk(content="x"), FINAL])))
    await check_llm_client(making(Plain([Chunk(reset="again", usage=Usage(), model="m"), FINAL])))


BUGS: dict[str, tuple[list[Any], str]] = {
    "no final chunk": ([Chunk(content="x")], "ends with a final chunk"),
    "no chunk": ([], "ends with a final chunk"),
    "goes on after the end": ([FINAL, Chunk(content="x"), FINAL], "nothing follows the final"),
    "content is None": ([Chunk(content=None), FINAL], "content is a str"),  # type: ignore[arg-type]
    "reasoning is None": ([Chunk(reasoning=None), FINAL], "reasoning is a str"),  # type: ignore[arg-type]
    "an empty reset": ([Chunk(reset=""), FINAL], "reset is None or a reason"),
    "no chunk at all": (["x", FINAL], "gives Chunks, not str"),
    "an index that is none": (
        [Chunk(tool_args=[ToolArgs("0", "", "f", "")]), FINAL],  # type: ignore[arg-type]
        "int index",
    ),
    "a part without a type": ([Chunk(parts=[{}]), FINAL], "parts are dicts with a type"),
    "usage too early": ([Chunk(content="x", usage=Usage()), FINAL], "with the final chunk only"),
    "usage of another type with a reset": (
        [Chunk(reset="again", usage={}), FINAL],  # type: ignore[arg-type]
        "expected a Usage or None, got dict",
    ),
    "a word of its own": (
        [Chunk(is_final=True, finish_reason="end_turn")],  # type: ignore[arg-type]
        "finish_reason is None or one of stop",
    ),
    "usage as a dict": ([Chunk(is_final=True, usage={})], "expected a Usage or None, got dict"),  # type: ignore[arg-type]
    "usage below nothing": (
        [Chunk(is_final=True, usage=Usage(cached_tokens=-1))],
        r"Usage.cached_tokens: expected 0 to 10\*\*15, got -1",
    ),
    "a model that is no name": (
        [Chunk(is_final=True, model=7)],  # type: ignore[arg-type]
        "Chunk.model: expected a str or None, got int",
    ),
    "calls as a tuple": ([Chunk(is_final=True, tool_calls=())], "tool_calls is a list"),  # type: ignore[arg-type]
    "calls as dicts": ([Chunk(is_final=True, tool_calls=[{}])], "tool_calls are ToolCalls"),  # type: ignore[list-item]
    "arguments as text": (
        [Chunk(is_final=True, tool_calls=[ToolCall("a", "f", "{}")])],  # type: ignore[arg-type]
        "arguments are a dict",
    ),
    "arguments lost": (
        [Chunk(is_final=True, tool_calls=[ToolCall("a", "f", None)])],
        "arguments are a dict, or None with the text in raw",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
async def test_a_planted_bug_in_the_chunks_is_caught(bug: str) -> None:
    chunks, words = BUGS[bug]

    with pytest.raises(AssertionError, match=words):
        await check_llm_client(making(Plain(chunks)))


async def test_a_tool_that_was_not_offered_is_caught() -> None:
    called = Chunk(is_final=True, tool_calls=[ToolCall("a", "other", {})])
    for chunk in (FINAL, called):
        with pytest.raises(AssertionError, match="calls the tools it is offered"):
            await check_llm_client(making(Plain([chunk])), tools=[look.spec()])


async def test_a_completion_of_its_own_is_caught() -> None:
    class Odd(Plain):
        async def complete(self, messages: Any, tools: Any = None) -> Completion:
            return Completion()

    with pytest.raises(AssertionError, match="what the chunks of a reply fold into"):
        await check_llm_client(making(Odd([Chunk(content="x"), FINAL])))


class Iterator:
    """A reply that is no generator."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.chunks = [Chunk(content="x"), Chunk(content="y"), FINAL]
        self.is_closed = False

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Chunk:
        await trio.lowlevel.checkpoint()
        if not self.chunks:
            raise StopAsyncIteration
        return self.chunks.pop(0)

    async def aclose(self) -> None:
        self.is_closed = True


@attrs.define
class Leaky:
    """A client whose replies are never really closed."""

    def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
        return Iterator(self)


async def test_a_reply_that_goes_on_when_closed_is_caught() -> None:
    with pytest.raises(AssertionError, match="a reply that was closed gives no more chunks"):
        await check_llm_client(making(Leaky()))


@attrs.define
class Losing:
    """A client that loses a slot when a request is cancelled, as some pools do."""

    slots: int = 1

    async def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
        while not self.slots:
            await trio.sleep(1)
        self.slots -= 1
        await trio.lowlevel.checkpoint()
        yield Chunk(content="x")
        yield FINAL
        self.slots += 1


async def test_a_client_that_loses_slots_is_caught(autojump_clock: MockClock) -> None:
    with pytest.raises(AssertionError, match="took longer than 60 s"):
        await check_llm_client(making(Losing()))


async def fails_and_is_collected(client: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        await check_llm_client(making(client))
    gc.collect()


async def test_what_gives_no_iterator_is_caught() -> None:
    class Awaited:
        async def stream_completion(self, messages: Any, tools: Any = None) -> Any:
            return Iterator(self)

    with pytest.warns(RuntimeWarning, match="never awaited"):
        await fails_and_is_collected(Awaited(), "gives an asynchronous iterator")


async def test_a_secret_in_the_repr_is_caught() -> None:
    @attrs.define
    class Telling(Plain):
        key: str = "sk-canary"

    with pytest.raises(AssertionError, match="the secret is seen"):
        await check_llm_client(making(Telling([FINAL])), secret="sk-canary")


async def test_a_reply_that_cannot_be_closed_passes() -> None:
    class Unclosable:
        """A plain iterator: whoever asked closes a reply where it has an aclose."""

        def __init__(self) -> None:
            self.chunks = [Chunk(content="x"), FINAL]

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Chunk:
            await trio.lowlevel.checkpoint()
            if not self.chunks:
                raise StopAsyncIteration
            return self.chunks.pop(0)

    class Client:
        def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
            return Unclosable()

    await check_llm_client(making(Client()))
