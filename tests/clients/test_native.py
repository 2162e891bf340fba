"""`AnthropicClient`, `GeminiClient`, `OllamaClient` on real sockets, each in its own protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from flowtrio import (
    Agent,
    AnthropicClient,
    EventType,
    GeminiClient,
    OllamaClient,
    ProviderError,
    StreamEngine,
    tool,
)
from flowtrio.clients._ollama import read_host
from flowtrio.testing import check_events
from tests.support import native_hosts
from tests.support.model_server import (
    Answer,
    ModelServer,
    open_model_server,
    refuses,
    resets,
    sends,
)

KEY = "sk-canary-4711"
HELLO = [{"role": "user", "content": "hello"}]


@attrs.frozen
class Protocol:
    """A client, and how its host answers."""

    client: Callable[..., Any]
    answers: Callable[..., Answer]
    path: str
    whole_path: str
    headers: dict[str, str]
    content_type: str = "text/event-stream"

    def to(self, server: ModelServer, **options: Any) -> Any:
        """A client of this server, which stands at an address without a version."""
        url = server.url.removesuffix("/v1")
        return self.client(api_key=KEY, model="m/1", base_url=url, **options)


PROTOCOLS = {
    "anthropic": Protocol(
        AnthropicClient,
        native_hosts.anthropic_answers,
        "/v1/messages",
        "/v1/messages",
        {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
    ),
    "gemini": Protocol(
        GeminiClient,
        native_hosts.gemini_answers,
        "/v1beta/models/m%2F1:streamGenerateContent?alt=sse",
        "/v1beta/models/m%2F1:generateContent",
        {"x-goog-api-key": KEY},
    ),
    "ollama": Protocol(
        OllamaClient,
        native_hosts.ollama_answers,
        "/api/chat",
        "/api/chat",
        {"authorization": f"Bearer {KEY}"},
        "application/x-ndjson",
    ),
}


@pytest.fixture(params=PROTOCOLS.values(), ids=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return request.param


async def test_a_request_goes_where_and_as_the_provider_expects(protocol: Protocol) -> None:
    async with open_model_server([protocol.answers()]) as server, protocol.to(server) as client:
        completion = await client.complete(HELLO)

    [exchange] = server.exchanges
    assert exchange.path == protocol.path
    assert protocol.headers.items() <= exchange.headers.items()
    assert KEY not in repr(exchange.body) + exchange.path
    assert completion.content == "Good day"
    assert (completion.finish_reason, completion.model) == ("stop", "m-1")
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (7, 3)


async def test_an_answer_may_be_asked_for_whole(protocol: Protocol) -> None:
    answer = protocol.answers(whole=True)
    async with open_model_server([answer]) as server, protocol.to(server) as client:
        completion = await client.complete(HELLO, stream=False)

    assert server.exchanges[0].path == protocol.whole_path
    assert not server.exchanges[0].body.get("stream")
    assert completion.content == "Good day"


async def test_a_host_that_cannot_stream_is_asked_without(protocol: Protocol) -> None:
    answers = [refuses(405), protocol.answers(whole=True)]
    async with open_model_server(answers) as server, protocol.to(server) as client:
        assert (await client.complete(HELLO)).content == "Good day"

    assert [exchange.path for exchange in server.exchanges] == [
        protocol.path,
        protocol.whole_path,
    ]


@tool
async def look(at: str) -> str:
    """Look."""
    return f"{at} is sunny"


async def test_an_agent_runs_its_tools_and_gives_their_results_back(protocol: Protocol) -> None:
    answers = [protocol.answers(calls=True), protocol.answers()]
    async with open_model_server(answers) as server, protocol.to(server) as client:
        agent = Agent(llm_client=client, tools=[look], instructions="Be brief.")
        async with StreamEngine().stream(agent, "hello") as stream:
            events = [event async for event in stream]
            result = await stream.result()

    check_events(events)
    assert result == "Good day"
    ends = [event.data for event in events if event.type is EventType.TOOL_CALL_END]
    assert [(end["tool_name"], end["result"]) for end in ends] == [("look", "Paris is sunny")]
    assert events[-1].data["usage"]["prompt_tokens"] == 14
    second = repr(server.exchanges[1].body)
    assert "Paris is sunny" in second
    assert "Be brief." in second
    assert "flowtrio" not in second


async def test_a_key_is_in_no_event_error_or_log(
    protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    refusal = refuses(401, {"error": {"message": f"wrong {KEY}", "code": 401}})
    async with open_model_server([refusal]) as server, protocol.to(server) as client:
        async with StreamEngine().stream(Agent(llm_client=client), "hello") as stream:
            events = [event async for event in stream]
        with pytest.raises(ProviderError) as caught:
            await client.complete(HELLO)

    check_events(events)
    assert caught.value.code == events[-2].data["code"] == "unauthorized"
    seen = [repr(events), caplog.text, repr(client), repr(caught.value.detail), repr(caught.value)]
    assert KEY not in "".join(seen)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(resets, "connection_failed"), (sends(), "empty_reply"), (refuses(529), "server_error")],
    ids=["reset", "empty", "overloaded"],
)
async def test_failures_are_told(protocol: Protocol, answer: Answer, code: str) -> None:
    if code == "empty_reply":
        answer = sends(content_type=protocol.content_type)
    async with open_model_server([answer]) as server, protocol.to(server) as client:
        client._host.jitter = lambda: 0.0
        with trio.fail_after(5), pytest.raises(Exception) as caught:
            await client.complete(HELLO)

    assert getattr(caught.value, "code", None) == code


async def test_the_socket_is_closed_when_a_reply_is_left(protocol: Protocol) -> None:
    async def answer(exchange: Any) -> None:
        await exchange.send_head(content_type=protocol.content_type)
        await exchange.wait_left()

    async with open_model_server([answer]) as server, protocol.to(server) as client:
        with trio.move_on_after(0.2):
            await client.complete(HELLO)
        with trio.fail_after(5):
            while server.exchanges[-1].left_at is None:
                await trio.sleep(0.001)
        assert client.statistics().open_replies == 0


# What the environment names


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in ("ANTHROPIC", "GOOGLE", "GEMINI", "GOOGLE_GEMINI", "OLLAMA"):
        for what in ("API_KEY", "BASE_URL", "HOST"):
            monkeypatch.delenv(f"{provider}_{what}", raising=False)


def test_anthropics_key_and_address_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    client = AnthropicClient(model="m", betas=["a", "b"], api_version="2026-10-21")
    assert client._host.base_url == "https://api.anthropic.com"
    assert client._host.headers == {
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "a,b",
        "x-api-key": KEY,
    }
    assert KEY not in repr(client)

    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://models.example/")
    assert AnthropicClient(model="m")._host.base_url == "http://models.example"


@pytest.mark.parametrize("names", [("GEMINI_API_KEY",), ("GOOGLE_API_KEY", "GEMINI_API_KEY")])
def test_geminis_key_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    for name in names:
        monkeypatch.setenv(name, f"{KEY}-{name}")
    client = GeminiClient(model="m")

    assert client._host.headers == {"x-goog-api-key": f"{KEY}-{names[0]}"}
    assert client._host.base_url == "https://generativelanguage.googleapis.com"
    assert KEY not in repr(client)

    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://models.example/")
    assert GeminiClient(model="m")._host.base_url == "http://models.example"


@pytest.mark.parametrize(
    ("client", "name"),
    [(AnthropicClient, "ANTHROPIC_API_KEY"), (GeminiClient, "GEMINI_API_KEY")],
)
def test_a_missing_key_is_told_at_once(client: Callable[..., Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"expected api_key=\.\.\. or {name}"):
        client(model="m")

    headers = client(model="m", base_url="http://localhost:1")._host.headers
    assert headers.keys() <= {"anthropic-version"}


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (" 10.0.0.1:80 ", "http://10.0.0.1:80"),
        (":5000", "http://127.0.0.1:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("https://models.example/ollama/", "https://models.example:443/ollama"),
        ("http://models.example", "http://models.example:80"),
    ],
)
def test_ollamas_host_is_read_as_its_own_programs_read_it(
    monkeypatch: pytest.MonkeyPatch, text: str, url: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", text)
    client = OllamaClient(model="m")

    assert read_host(text) == client._host.base_url == url
    assert client._host.headers == {}


def test_ollamas_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", KEY)
    client = OllamaClient(model="m")

    assert client._host.headers == {"authorization": f"Bearer {KEY}"}
    assert KEY not in repr(client)


# What is said beside text, and what goes back


def anthropic_thinks(calls: bool) -> Answer:
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"},
        {"type": "redacted_thinking", "data": "c2VhbGVk"},
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "sun"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "srv_1",
            "content": [
                {
                    "type": "web_search_result",
                    "url": "https://sun.example",
                    "title": "Sun",
                    "encrypted_content": "c2VhcmNo",
                }
            ],
        },
        {
            "type": "text",
            "text": "It shines.",
            "citations": [
                {
                    "type": "web_search_result_location",
                    "url": "https://sun.example",
                    "title": "Sun",
                    "cited_text": "shines",
                    "encrypted_index": "aW5kZXg",
                }
            ],
        },
        {"type": "container_upload", "file_id": "file_1"},
    ]
    if calls:
        blocks.append({"type": "tool_use", "id": "t_1", "name": "look", "input": {"at": "Paris"}})
    reason = "tool_use" if calls else "end_turn"
    body = {"type": "message", "model": "m-1", "content": blocks, "stop_reason": reason}
    return sends(json.dumps(body).encode(), content_type="application/json")


def gemini_thinks(calls: bool) -> Answer:
    parts: list[dict[str, Any]] = [
        {"text": "Hm.", "thought": True},
        {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"text": "It shines.", "thoughtSignature": "c2lnbmVk"},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
    ]
    if calls:
        call = {"name": "look", "args": {"at": "Paris"}}
        parts.append({"functionCall": call, "thoughtSignature": "c2VhbGVk"})
    source = {"web": {"uri": "https://sun.example", "title": "Sun"}}
    candidate = {
        "content": {"role": "model", "parts": parts},
        "finishReason": "STOP",
        "groundingMetadata": {"groundingChunks": [source]},
    }
    body = {"candidates": [candidate], "modelVersion": "m-1"}
    return sends(json.dumps(body).encode(), content_type="application/json")


@pytest.mark.parametrize(
    ("name", "thinks", "signed"),
    [
        ("anthropic", anthropic_thinks, ["c2lnbmVk", "c2VhbGVk", "c2VhcmNo", "aW5kZXg"]),
        ("gemini", gemini_thinks, ["c2lnbmVk", "c2VhbGVk"]),
    ],
)
async def test_what_is_said_beside_text_is_told_and_what_was_signed_goes_back(
    name: str, thinks: Callable[[bool], Answer], signed: list[str]
) -> None:
    answers = [thinks(True), thinks(False)]
    async with open_model_server(answers) as server, PROTOCOLS[name].to(server) as client:
        agent = Agent(llm_client=client, tools=[look])
        async with StreamEngine().stream(agent, "hello") as stream:
            events = [event async for event in stream]

    check_events(events)
    assert events[-1].data["status"] == "completed"
    first = [event for event in events if event.data.get("message_id") in (None, "m1")]
    parts = [e.data["part"] for e in first if e.type is EventType.MESSAGE_PART]
    assert {part["type"] for part in parts} == {"citation", "file"}
    [citation] = [part for part in parts if part["type"] == "citation"]
    assert (citation["url"], citation["title"]) == ("https://sun.example", "Sun")
    [began] = [e.data for e in first if e.data.get("provider_executed")]
    ended = {e.data["call_id"]: e.data for e in events if e.type is EventType.TOOL_CALL_END}
    assert ended[began["call_id"]]["outcome"] == "ok"
    thoughts = [e.data["chunk"] for e in first if e.type is EventType.REASONING_CHUNK]
    assert thoughts == ["Hm."]
    second = json.dumps(server.exchanges[1].body)
    for text in signed:
        assert second.count(f'"{text}"') == 1
        assert text not in repr(events)


async def test_a_refusal_is_told() -> None:
    body = {"type": "message", "model": "m-1", "content": [], "stop_reason": "refusal"}
    answer = sends(json.dumps(body).encode(), content_type="application/json")
    async with open_model_server([answer]) as server:
        async with PROTOCOLS["anthropic"].to(server) as client:
            async with StreamEngine().stream(Agent(llm_client=client), "hello") as stream:
                events = [event async for event in stream]

    check_events(events)
    [whole] = [event.data for event in events if event.type is EventType.MESSAGE_COMPLETE]
    assert whole["finish_reason"] == "content_filter"
