"""What only `AnthropicClient` does in a run; see `test_native` for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio

from flowtrio import Agent, AnthropicClient, EventType, ModelLimits, StreamEngine, Usage, tool
from flowtrio._core._exceptions import DeadlineExceeded
from flowtrio.clients._reading import MAX_CONTINUATIONS
from flowtrio.testing import check_events
from tests.support.model_server import Answer, Exchange, open_model_server, sends

THOUGHT = {"type": "thinking", "thinking": "I look.", "signature": "c2lnbmF0dXJl"}
HIDDEN = {"type": "redacted_thinking", "data": "aGlkZGVu"}
SEARCH = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "sky"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "s1",
    "content": [
        {"type": "web_search_result", "url": "http://a", "title": "A", "encrypted_content": "eA=="}
    ],
}
CALL = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "Paris"}}
REFUSED = {"stop_reason": "refusal", "stop_details": {"explanation": "Not that."}}


def says(*blocks: dict[str, Any], **delta: Any) -> Answer:
    """Answer with whole blocks."""
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"model": "m-1", "usage": {"input_tokens": 1}}}
    ]
    for index, block in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn", **delta}})
    events.append({"type": "message_stop"})
    return sends(*(f"data: {json.dumps(event)}\n\n".encode() for event in events))


def whole(*blocks: dict[str, Any], **rest: Any) -> Answer:
    """Answer with a message that is not streamed."""
    message = {"type": "message", "content": blocks, "usage": {"input_tokens": 1}, **rest}
    return sends(json.dumps(message).encode(), content_type="application/json")


@tool
async def look(at: str) -> str:
    """Look."""
    return f"{at} is sunny"


async def run(*answers: Answer) -> tuple[list[Any], list[Any]]:
    """A run's events, and the bodies of its requests."""
    async with open_model_server(answers) as server:
        url = server.url.removesuffix("/v1")
        async with AnthropicClient(model="m", base_url=url) as client:
            agent = Agent(llm_client=client, tools=[look])
            async with StreamEngine().stream(agent, "hello") as stream:
                events = [event async for event in stream]
    check_events(events)
    return events, [exchange.body for exchange in server.exchanges]


async def test_what_is_signed_or_encrypted_goes_back_unchanged_and_is_in_no_event() -> None:
    blocks = [THOUGHT, HIDDEN, SEARCH, FOUND, CALL]
    text = {"type": "text", "text": "Sunny."}
    events, bodies = await run(says(*blocks, stop_reason="tool_use"), says(text))

    assert bodies[1]["messages"][1] == {"role": "assistant", "content": blocks}
    assert bodies[1]["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "t1", "content": "Paris is sunny"}
    ]
    told = repr(events)
    assert all(secret not in told for secret in ("c2lnbmF0dXJl", "aGlkZGVu", "eA=="))
    assert events[-1].data["result"] == "Sunny."


async def test_what_runs_at_anthropic_is_told_and_not_run_here() -> None:
    events, _ = await run(says(SEARCH, FOUND, {"type": "text", "text": "Blue."}))
    starts = [event.data for event in events if event.type is EventType.TOOL_CALL_START]
    ends = [event.data for event in events if event.type is EventType.TOOL_CALL_END]

    assert [(s["tool_name"], s["arguments"], s["provider_executed"]) for s in starts] == [
        ("web_search", {"query": "sky"}, True)
    ]
    assert [end["outcome"] for end in ends] == ["ok"]


async def test_a_refusal_is_told_as_one() -> None:
    events, _ = await run(says(**REFUSED))
    parts = [event.data["part"] for event in events if event.type is EventType.MESSAGE_PART]
    complete = next(event for event in events if event.type is EventType.MESSAGE_COMPLETE)

    assert parts == [{"type": "refusal", "text": "Not that."}]
    assert complete.data["finish_reason"] == "content_filter"


@pytest.mark.parametrize("instructions", ["Be brief.", "Be kind."])
@pytest.mark.parametrize("streams", [True, False])
async def test_thoughts_go_back_in_later_runs_of_the_same_agent(
    instructions: str, streams: bool
) -> None:
    """And are left out where its system prompt has changed: their signature would be refused."""
    text = {"type": "text", "text": "Sunny."}
    answer = says if streams else whole
    answers = [answer(THOUGHT, CALL, stop_reason="tool_use"), answer(HIDDEN, text), says(text)]
    if not streams:
        answers[1] = whole(HIDDEN, text, stop_reason="end_turn")
    history: list[dict[str, Any]] = []
    async with open_model_server(answers) as server:
        url = server.url.removesuffix("/v1")
        async with AnthropicClient(model="m", base_url=url) as client:
            agent = Agent(llm_client=client, tools=[look], instructions="Be brief.")
            for asked in (agent, agent.replace(instructions=instructions)):
                async with StreamEngine().stream(asked, "hello", history=history) as stream:
                    await stream.result()
                history = json.loads(json.dumps(stream.messages))

    body = server.exchanges[-1].body
    sent = [block for message in body["messages"] for block in message["content"]]
    assert (THOUGHT in sent, HIDDEN in sent) == ((instructions == "Be brief."),) * 2
    assert CALL in sent


# Paused turns

PAUSED = {"stop_reason": "pause_turn"}
TEXT = {"type": "text", "text": "Blue."}


async def test_a_paused_turn_goes_on_as_the_same_message() -> None:
    said = {"type": "text", "text": "I search. "}
    events, bodies = await run(says(said, SEARCH, **PAUSED), says(FOUND, **PAUSED), says(TEXT))

    asked = bodies[0]["messages"]
    assert bodies[1]["messages"] == [*asked, {"role": "assistant", "content": [said, SEARCH]}]
    assert bodies[2]["messages"] == [
        *asked,
        {"role": "assistant", "content": [said, SEARCH, FOUND]},
    ]
    assert all({**body, "messages": asked} == bodies[0] for body in bodies)
    [complete] = [event for event in events if event.type is EventType.MESSAGE_COMPLETE]
    assert complete.data["content"] == events[-1].data["result"] == "I search. Blue."
    assert (complete.data["finish_reason"], complete.data["usage"]["prompt_tokens"]) == ("stop", 3)
    assert events[-1].data["usage"]["prompt_tokens"] == 3
    assert [
        (event.data["tool_name"], event.data["outcome"])
        for event in events
        if event.type is EventType.TOOL_CALL_END
    ] == [("web_search", "ok")]


async def test_a_turn_that_was_paused_goes_back_whole_with_its_results() -> None:
    _, bodies = await run(
        says(THOUGHT, SEARCH, container={"id": "box"}, **PAUSED),
        says(FOUND, CALL, stop_reason="tool_use"),
        says(TEXT),
    )

    assert [body.get("container") for body in bodies] == [None, "box", "box"]
    assert bodies[2]["messages"][1]["content"] == [THOUGHT, SEARCH, FOUND, CALL]
    assert bodies[2]["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "t1", "content": "Paris is sunny"}
    ]


async def test_a_paused_turn_that_waits_for_our_results_gets_them_first() -> None:
    _, bodies = await run(says(SEARCH, CALL, **PAUSED), says(FOUND, TEXT))

    assert bodies[1]["messages"][1]["content"] == [SEARCH, CALL]
    assert bodies[1]["messages"][2]["content"][0]["type"] == "tool_result"


async def test_a_turn_that_is_always_paused_ends_as_one_that_became_too_long() -> None:
    events, bodies = await run(says(TEXT, **PAUSED))

    assert len(bodies) == 1 + MAX_CONTINUATIONS
    assert bodies[-1]["messages"][-1]["content"] == [TEXT] * MAX_CONTINUATIONS
    [complete] = [event for event in events if event.type is EventType.MESSAGE_COMPLETE]
    assert complete.data["finish_reason"] == "length"
    assert complete.data["content"] == "Blue." * len(bodies)


async def test_a_pause_with_nothing_to_send_back_ends_the_turn() -> None:
    events, bodies = await run(says(**PAUSED))

    assert len(bodies) == 1
    assert events[-1].data["status"] == "completed"


@pytest.mark.parametrize(("answer", "streams"), [(says, True), (whole, False)])
async def test_a_reply_goes_on_over_the_same_connection(
    answer: Callable[..., Answer], streams: bool
) -> None:
    answers = [answer(SEARCH, **PAUSED), answer(FOUND, TEXT, stop_reason="end_turn")]
    async with open_model_server(answers) as server:
        url = server.url.removesuffix("/v1")
        async with AnthropicClient(model="m", base_url=url) as client:
            asked = [{"role": "user", "content": "hello"}]
            completion = await client.complete(asked, stream=streams)

    # Tokens of the prompt alone are no measure of an answer.
    usage = Usage(prompt_tokens=2, quality="lower_bound")
    assert (completion.content, completion.usage) == ("Blue.", usage)
    assert server.exchanges[1].body["messages"][1]["content"] == [SEARCH]
    assert all(("stream" in exchange.body) is streams for exchange in server.exchanges)
    assert completion.carry == {"anthropic": {"content": [SEARCH, FOUND, TEXT]}}
    assert server.connections == 1


async def test_a_turn_that_goes_on_and_is_cut_is_an_error() -> None:
    events, _ = await run(says(TEXT, **PAUSED), sends(b"data: {}\n\n"))

    assert events[-2].data["code"] == "empty_reply"
    assert events[-1].data["status"] == "error"


async def test_a_host_that_is_silent_when_a_turn_goes_on_is_not_waited_for_for_ever() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.wait_left()

    async with open_model_server([says(TEXT, **PAUSED), silent]) as server:
        url = server.url.removesuffix("/v1")
        limits = ModelLimits(gap=0.2)
        async with AnthropicClient(model="m", base_url=url, limits=limits) as client:
            with trio.fail_after(20), pytest.raises(DeadlineExceeded, match=r"0\.2 s \(gap\)"):
                await client.complete([{"role": "user", "content": "hello"}])
            assert client.statistics().open_replies == 0
        await server.wait_left()
