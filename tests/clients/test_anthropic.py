"""What only `AnthropicClient` does in a run; see `test_native` for the rest."""

from __future__ import annotations

import json
from typing import Any

from flowtrio import Agent, AnthropicClient, EventType, StreamEngine, tool
from flowtrio.testing import check_events
from tests.support.model_server import Answer, open_model_server, sends

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
