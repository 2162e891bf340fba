"""npm's aimock: Azure's and Ollama's protocols, and the others a second time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from flowtrio import (
    Agent,
    AnthropicClient,
    AzureOpenAIClient,
    EventType,
    GeminiClient,
    OllamaClient,
    OpenAIClient,
    ProviderError,
    StreamEngine,
    tool,
)
from flowtrio.testing import check_events
from tests.foreign.servers import HERE, aimock


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with aimock(HERE / "aimock.json") as address:
        yield address


PROTOCOLS: dict[str, Callable[[str], Any]] = {
    "chat": lambda url: OpenAIClient(api_key="sk", model="gpt-4o", base_url=f"{url}/v1"),
    "responses": lambda url: OpenAIClient(
        api_key="sk", model="gpt-4o", base_url=f"{url}/v1", api="responses"
    ),
    "azure": lambda url: AzureOpenAIClient(api_key="sk", model="gpt-4o", azure_endpoint=url),
    "anthropic": lambda url: AnthropicClient(api_key="sk", model="claude-test", base_url=url),
    "gemini": lambda url: GeminiClient(api_key="sk", model="gemini-2.5-flash", base_url=url),
    "ollama": lambda url: OllamaClient(model="llama3.2", base_url=url),
}


@pytest.fixture(params=PROTOCOLS.values(), ids=PROTOCOLS)
def client(request: pytest.FixtureRequest, url: str) -> Any:
    client = request.param(url)
    client._host.jitter = lambda: 0.0
    return client


@tool
async def look(at: str) -> str:
    """Look."""
    return f"{at} is sunny"


async def run(client: Any, message: str) -> list[Any]:
    """The events of a whole run, which obey the laws."""
    with trio.fail_after(60):
        async with (
            client,
            StreamEngine().stream(Agent(llm_client=client, tools=[look]), message) as stream,
        ):
            events = [event async for event in stream]
    check_events(events)
    return events


async def test_text_comes_in_pieces(client: Any) -> None:
    events = await run(client, "greet me")
    chunks = [e.data["chunk"] for e in events if e.type is EventType.MESSAGE_CHUNK]

    assert len(chunks) > 1
    assert "".join(chunks) == "Good day to you, whoever you are: Grüße, 你好 and 😀."
    assert events[-1].data["status"] == "completed"


async def test_parallel_tools_run_and_their_results_are_taken(client: Any) -> None:
    events = await run(client, "the sky in Paris")
    results = [e.data["result"] for e in events if e.type is EventType.TOOL_CALL_END]

    assert sorted(results) == ["Paris is sunny", "Rome is sunny"]
    assert events[-1].data["result"] == "Sunny in both."


async def test_a_whole_answer_is_read(client: Any) -> None:
    with trio.fail_after(60):
        async with client:
            question = [{"role": "user", "content": "greet me"}]
            completion = await client.complete(question, stream=False)

    assert completion.content.startswith("Good day")
    assert completion.finish_reason == "stop"


async def test_a_refusal_is_told(client: Any) -> None:
    with trio.fail_after(60), pytest.raises(ProviderError) as caught:
        async with client:
            await client.complete([{"role": "user", "content": "too many"}])

    assert (caught.value.code, caught.value.status) == ("rate_limited", 429)
