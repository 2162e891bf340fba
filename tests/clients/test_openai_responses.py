"""`OpenAIClient(api="responses")` on real sockets: what is sent, and what comes of it in a run."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming

from flowtrio import Agent, EventType, OpenAIClient, ProviderError, StreamEngine, tool
from flowtrio.testing import check_events
from tests.support.model_server import open_model_server, refuses, sends
from tests.support.responses import answers, call, events, message, reasoning, response, sse
from tests.support.sdk_types import check_typed

KEY = "sk-canary-4712"
HELLO = [{"role": "user", "content": "hello"}]


def client_of(server: Any, **options: Any) -> OpenAIClient:
    return OpenAIClient(api_key=KEY, model="gpt-5", base_url=server.url, api="responses", **options)


async def test_a_request_is_what_openai_expects() -> None:
    async with open_model_server([answers(message("hello"))]) as server:
        async with client_of(server, temperature=0) as client:
            completion = await client.complete(HELLO)

    [exchange] = server.exchanges
    assert completion.content == "hello"
    assert completion.usage is not None
    assert completion.usage.cached_tokens == 4
    assert exchange.path == "/v1/responses"
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.body == {
        "model": "gpt-5",
        "input": [{"role": "user", "content": "hello"}],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "stream": True,
        "temperature": 0,
    }


async def test_a_whole_answer_says_the_same() -> None:
    answer = answers(reasoning("Think."), message("hello"), call("look", {"at": 1}))
    async with open_model_server([answer]) as server, client_of(server) as client:
        streamed = await client.complete(HELLO)
        whole = await client.complete(HELLO, stream=False)

    assert "stream" not in server.exchanges[1].body
    assert whole == streamed
    assert whole.reasoning == "Think."


async def test_a_server_that_refuses_to_stream_is_asked_once_more() -> None:
    refusal = refuses(400, {"error": {"message": "streaming is not supported"}})
    async with open_model_server([refusal, answers(message("hello"))]) as server:
        async with client_of(server) as client, StreamEngine() as engine:
            async with engine.stream(Agent(llm_client=client), "hello") as stream:
                told = [event async for event in stream]

    check_events(told)
    assert [event.type for event in told[-4:]] == [
        EventType.MESSAGE_CHUNK,
        EventType.MESSAGE_COMPLETE,
        EventType.STATE_CHANGE,
        EventType.DONE,
    ]
    assert [exchange.body.get("stream") for exchange in server.exchanges] == [True, None]


async def test_a_conversation_with_tools_sends_back_what_the_model_thought() -> None:
    @tool
    async def look(at: str) -> str:
        """Look at a place."""
        return f"sunny in {at}"

    thought = reasoning("I look at both.")
    calls = [call("look", {"at": "Paris"}, "call_1"), call("look", {"at": "Rome"}, "call_2")]
    turns = [answers(thought, *calls), answers(message("Sunny in both."))]
    async with open_model_server(turns) as server, client_of(server) as client:
        async with StreamEngine().stream(Agent(llm_client=client, tools=[look]), "hello") as stream:
            told = [event async for event in stream]

    check_events(told)
    assert told[-1].data["result"] == "Sunny in both."
    assert "gAAA-sealed" not in repr(told)
    for exchange in server.exchanges:
        check_typed(ResponseCreateParamsStreaming, exchange.body)
    outputs = [
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny in Paris"},
        {"type": "function_call_output", "call_id": "call_2", "output": "sunny in Rome"},
    ]
    assert server.exchanges[1].body["input"] == [
        {"role": "user", "content": "hello"},
        *response(thought, *calls)["output"],
        *outputs,
    ]


async def test_a_failure_in_mid_stream_is_told_with_the_providers_words() -> None:
    error = {"code": "server_error", "message": f"sorry, {KEY}"}
    failed = {"type": "response.failed", "response": response(status="failed", error=error)}
    begun = list(events(message("hello")))[:3]
    async with open_model_server([sends(sse(*begun, failed))]) as server:
        async with client_of(server) as client:
            with pytest.raises(ProviderError) as caught:
                await client.complete(HELLO)

    assert caught.value.retryable
    assert caught.value.detail is not None
    assert caught.value.detail["words"] == "sorry, ***"


async def test_what_a_model_says_beside_text_is_in_the_log() -> None:
    search = {"type": "web_search_call", "status": "completed", "action": {"query": "sun"}}
    image = {"type": "image_generation_call", "status": "completed", "result": "AAAA"}
    cited = [{"type": "url_citation", "url": "https://a.example", "title": "A"}]
    text = {"type": "output_text", "text": "Sunny.", "annotations": cited}
    answer = answers(reasoning("Hm."), search, image, message("Sunny.", content=[text]))
    async with open_model_server([answer]) as server, client_of(server) as client:
        agent = Agent(llm_client=client)
        async with StreamEngine().stream(agent, "hello") as stream:
            told = [event async for event in stream]
        async with StreamEngine().stream(agent, "again", history=stream.messages) as second:
            await second.result()

    check_events(told)
    starts = [event.data for event in told if event.type is EventType.TOOL_CALL_START]
    ends = [event.data for event in told if event.type is EventType.TOOL_CALL_END]
    assert [(start["tool_name"], start["arguments"]) for start in starts] == [
        ("web_search", {"query": "sun"}),
        ("image_generation", {}),
    ]
    assert all(start["provider_executed"] for start in starts)
    assert [end["outcome"] for end in ends] == ["ok", "ok"]
    parts = [event.data["part"] for event in told if event.type is EventType.MESSAGE_PART]
    assert parts == [
        {"type": "file", "mime_type": "image/png", "data": "AAAA"},
        {"type": "citation", "url": "https://a.example", "title": "A"},
    ]
    # All of it goes back as it came.
    assert (
        server.exchanges[1].body["input"][1:5]
        == response(reasoning("Hm."), search, image, message("Sunny.", content=[text]))["output"]
    )


async def test_a_refusal_is_the_reply_in_the_conversation() -> None:
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "I won't."}]}
    async with open_model_server([answers(refusal)]) as server, client_of(server) as client:
        async with StreamEngine().stream(Agent(llm_client=client), "hello") as stream:
            told = [event async for event in stream]

    check_events(told)
    parts = [event.data["part"] for event in told if event.type is EventType.MESSAGE_PART]
    assert parts == [{"type": "refusal", "text": "I won't."}]
    assert stream.messages[-1]["content"] == "I won't."


async def test_an_answer_of_a_type_is_asked_for_by_its_schema_and_once_again() -> None:
    turns = [answers(message('{"result": "many"}')), answers(message('{"result": 3}'))]
    async with open_model_server(turns) as server, client_of(server) as client:
        async with StreamEngine().stream(Agent(llm_client=client, output=int), "hello") as stream:
            assert await stream.result() == 3

    form = server.exchanges[0].body["text"]["format"]
    assert (form["type"], form["name"]) == ("json_schema", "int")
    assert form["schema"]["properties"] == {"result": {"type": "integer"}}
    assert len(server.exchanges) == 2
    for exchange in server.exchanges:
        check_typed(ResponseCreateParamsStreaming, exchange.body)
