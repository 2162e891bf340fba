"""Every protocol that PyPI's llmock speaks, and every fault that it knows."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import trio

from flowtrio import (
    Agent,
    AnthropicClient,
    EventType,
    GeminiClient,
    ModelLimits,
    OpenAIClient,
    StreamEngine,
    tool,
)
from flowtrio.testing import check_events
from tests.foreign.servers import llmock


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with llmock() as address:
        yield address


@attrs.frozen
class Mock:
    """The server, and a client of one of its protocols."""

    url: str
    make: Callable[..., Any]

    def client(self, **options: Any) -> Any:
        client = self.make(self.url, **options)
        client._host.jitter = lambda: 0.0
        return client

    def will(self, *behaviors: dict[str, Any]) -> None:
        """Queue what the server does with the next requests."""
        self._post("/_llmock/reset", {})
        if behaviors:
            self._post("/_llmock/scenario", {"behaviors": behaviors})

    def _post(self, path: str, payload: Any) -> None:
        request = urllib.request.Request(self.url + path, json.dumps(payload).encode())
        with urllib.request.urlopen(request, timeout=30):
            pass


PROTOCOLS: dict[str, Callable[..., Any]] = {
    "chat": lambda url, **o: OpenAIClient(api_key="sk", model="m", base_url=f"{url}/v1", **o),
    "responses": lambda url, **o: OpenAIClient(
        api_key="sk", model="m", base_url=f"{url}/v1", api="responses", **o
    ),
    "anthropic": lambda url, **o: AnthropicClient(
        api_key="sk", model="m", base_url=f"{url}/anthropic", **o
    ),
    "gemini": lambda url, **o: GeminiClient(api_key="sk", model="m", base_url=f"{url}/gemini", **o),
}


@pytest.fixture(params=PROTOCOLS.values(), ids=PROTOCOLS)
def mock(request: pytest.FixtureRequest, url: str) -> Mock:
    return Mock(url, request.param)


@tool
async def look(at: str) -> str:
    """Look."""
    return f"{at} is sunny"


async def run(mock: Mock, message: str = "hello", **options: Any) -> list[Any]:
    """The events of a whole run, which obey the laws however it ends."""
    with trio.fail_after(60):
        async with mock.client(**options) as client:
            agent = Agent(llm_client=client, tools=[look], instructions="Be brief.")
            async with StreamEngine().stream(agent, message) as stream:
                events = [event async for event in stream]
    check_events(events)
    return events


def text_of(events: list[Any]) -> str:
    return "".join(e.data["chunk"] for e in events if e.type is EventType.MESSAGE_CHUNK)


async def test_text_comes_in_pieces(mock: Mock) -> None:
    mock.will({"type": "reply", "text": "one two three four five"})
    events = await run(mock)

    assert text_of(events) == events[-1].data["result"] == "one two three four five"
    assert sum(event.type is EventType.MESSAGE_CHUNK for event in events) > 1
    assert events[-1].data["usage"]["quality"] == "measured"
    assert events[-1].data["usage"]["completion_tokens"] > 0


async def test_tools_run_and_their_results_are_taken(mock: Mock) -> None:
    calls = [{"name": "look", "arguments": {"at": at}} for at in ("Paris", "Rome")]
    mock.will({"type": "reply", "tool_calls": calls}, {"type": "reply", "text": "Sunny."})
    events = await run(mock)

    results = [e.data["result"] for e in events if e.type is EventType.TOOL_CALL_END]
    assert sorted(results) == ["Paris is sunny", "Rome is sunny"]
    assert events[-1].data["result"] == "Sunny."


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_request_refused_for_a_while_is_sent_again(mock: Mock, status: int) -> None:
    fail = {"type": "fail", "status": status, "retry_after": 0.05, "times": 2}
    mock.will(fail, {"type": "reply", "text": "at last"})
    with trio.fail_after(60):
        async with mock.client() as client:
            assert (await client.complete([{"role": "user", "content": "hello"}])).content
            assert client.statistics().retries == 2


@pytest.mark.parametrize(
    ("status", "code"), [(429, "rate_limited"), (500, "server_error"), (401, "unauthorized")]
)
async def test_a_request_refused_for_good_is_one_error(mock: Mock, status: int, code: str) -> None:
    mock.will({"type": "fail", "status": status, "retry_after": 0.05, "times": 9})
    events = await run(mock)

    assert events[-2].type is EventType.ERROR
    assert (events[-2].data["code"], events[-2].data["source"]) == (code, "model")
    assert events[-2].data["detail"]["status"] == status
    assert events[-1].data["status"] == "error"


CUT = ("stream_cut", "bad_stream", "connection_failed", "empty_reply")
LONG = " ".join(f"word{n}" for n in range(40))


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_is_spoilt_is_one_error_and_no_short_answer(
    mock: Mock, kind: str
) -> None:
    fault = {"type": "stream_fault", "kind": kind, "after_chunks": 4, "times": 9}
    mock.will(fault, {"type": "reply", "text": LONG, "times": 9})
    events = await run(mock)

    assert events[-2].type is EventType.ERROR
    assert events[-2].data["code"] in CUT
    assert len(text_of(events)) < len(LONG)


async def test_a_stream_that_stalls_ends_by_the_clients_limit(mock: Mock) -> None:
    fault = {"type": "stream_fault", "kind": "stall", "after_chunks": 4, "stall_seconds": 50}
    mock.will(fault, {"type": "reply", "text": LONG})
    events = await run(mock, limits=ModelLimits(first_token=0.5, gap=0.5))

    assert events[-2].type is EventType.ERROR
    assert events[-2].data["code"] == "deadline_exceeded"
    assert events[-2].data["deadline"] in ("first_token", "gap")
