"""What a host wants back goes to that host alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import attrs
import pytest

from flowtrio import (
    Agent,
    AzureOpenAIClient,
    Chunk,
    DashScopeClient,
    FallbackClient,
    OpenAIClient,
    StreamEngine,
    tool,
)
from flowtrio.clients._carry import for_origin, origin_of, tagged
from flowtrio.testing import check_events
from tests.support.fake_host import DONE, FINISH, Answer, FakeHost, event, speaks, streams
from tests.support.model_server import open_model_server, refuses
from tests.support.responses import answers, call, message, reasoning

KEY = "sk-canary-4719"
HELLO = [{"role": "user", "content": "hello"}]


@tool
async def look(at: int) -> str:
    """Look."""
    return "found"


def said(carry: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "x", "flowtrio": {"carry": carry, "partial": True}}


def test_a_final_chunk_names_its_origin_where_it_carries_something() -> None:
    final = Chunk(is_final=True, carry={"openai_chat": {"a": 1}})

    assert tagged(final, "here").carry == {"openai_chat": {"a": 1}, "origin": "here"}
    assert tagged(Chunk(is_final=True), "here").carry is None


def test_only_what_came_from_elsewhere_stays_behind() -> None:
    mine, others = said({"openai_chat": {}, "origin": "me"}), said({"x": 1, "origin": "you"})
    kept = [mine, said({"x": 1}), said(None), {"role": "user", "flowtrio": None}, HELLO[0]]

    assert for_origin([*kept, others], "me") == [*kept, said(None)]
    assert others == said({"x": 1, "origin": "you"})


def test_an_origin_tells_nothing_of_an_address_but_which_it_is() -> None:
    first = origin_of("https://gateway.example/token-4711/openai")

    assert first == origin_of("https://gateway.example/token-4711/openai")
    assert first != origin_of("https://gateway.example/token-4711/azure")
    assert len(first) == 16
    assert "4711" not in first


async def test_encrypted_reasoning_goes_to_its_own_host_alone() -> None:
    """In one run: OpenAI calls a tool, then fails; Azure answers; OpenAI answers the next turn."""
    thought = answers(reasoning("Hm.", "sealed-by-one"), call("look", {"at": 1}))
    down = refuses(400, {"error": {"message": "down"}})
    second = answers(reasoning("Ah.", "sealed-by-two"), message("from two"))
    async with (
        open_model_server([thought, down, answers(message("from one"))]) as one,
        open_model_server([second]) as two,
        OpenAIClient(api_key=KEY, model="m", base_url=one.url, api="responses") as openai,
        AzureOpenAIClient(api_key=KEY, model="d", base_url=two.url, api="responses") as azure,
    ):
        agent = Agent(llm_client=FallbackClient([openai, azure]), tools=[look])
        results, history = [], ()
        for question in ("hello", "and?"):
            async with StreamEngine().stream(agent, question, history=history) as stream:
                events = [event async for event in stream]
            check_events(events)
            results.append(events[-1].data["result"])
            history = stream.messages

    assert results == ["from two", "from one"]
    [at_azure] = two.exchanges
    assert "sealed" not in json.dumps(at_azure.body)
    assert [item.get("type", item.get("role")) for item in at_azure.body["input"]] == [
        *("user", "function_call", "function_call_output")
    ]
    again = json.dumps(one.exchanges[-1].body)
    assert "sealed-by-one" in again
    assert "sealed-by-two" not in again
    assert "from two" in again
    assert all("origin" not in json.dumps(x.body) for x in [*one.exchanges, *two.exchanges])


def thinks() -> Answer:
    """Answer with a call, and with thoughts that are wanted back with it."""
    function = {"name": "look", "arguments": '{"at": 1}'}
    written = {"index": 0, "id": "call_1", "type": "function", "function": function}
    delta = {"reasoning_content": "Hm.", "tool_calls": [written]}
    return streams(event({"choices": [{"index": 0, "delta": delta}]}), FINISH, DONE)


MAKERS: dict[str, Callable[..., Any]] = {
    "openai": OpenAIClient,
    "azure": AzureOpenAIClient,
    "dashscope": DashScopeClient,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
async def test_each_client_of_the_protocol_tells_its_own_from_others(
    make: Callable[..., Any], library: ModuleType
) -> None:
    fake = FakeHost(library, [thinks(), *[speaks("a")] * 3])
    given = {"api_key": KEY, "model": "m", "http_client": fake.http_client()}
    one = make(base_url="https://one.example", **given)
    two = make(base_url="https://two.example", **given)
    completion = await one.complete(HELLO)
    [tool_call] = completion.tool_calls
    function = {"name": tool_call.name, "arguments": tool_call.raw}
    turn = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": tool_call.id, "type": "function", "function": function}],
        "flowtrio": {"carry": completion.carry},
    }
    history = [*HELLO, turn, {"role": "tool", "tool_call_id": tool_call.id, "content": "found"}]
    for client in (one, two, one):
        await client.complete(history)

    sent = [asked.body["messages"][1].get("reasoning_content") for asked in fake.asked[1:]]
    assert sent == ["Hm.", None, "Hm."]
    assert all(
        asked.body["messages"][1]["tool_calls"][0]["id"] == "call_1" for asked in fake.asked[1:]
    )


@attrs.frozen
class Place:
    """Where a server stands, and whether its ids are of nine letters and digits."""

    base_url: str
    is_mistral: bool


@pytest.mark.parametrize(
    "place",
    [
        Place("https://api.mistral.ai/v1", True),
        Place("https://mistral.ai", True),
        Place("https://api.notmistral.ai/v1", False),
        Place("https://mistral.ai.example/v1", False),
        Place("https://api.openai.com/v1", False),
    ],
    ids=lambda place: place.base_url,
)
async def test_call_ids_change_at_mistral_alone(place: Place, library: ModuleType) -> None:
    fake = FakeHost(library, [speaks("a")])
    client = OpenAIClient(
        api_key=KEY, model="m", base_url=place.base_url, http_client=fake.http_client()
    )
    calls = [{"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": ""}}]
    turn = {"role": "assistant", "content": None, "tool_calls": calls}
    await client.complete(
        [*HELLO, turn, {"role": "tool", "tool_call_id": "toolu_1", "content": ""}]
    )

    [asked] = fake.asked
    ids = {
        asked.body["messages"][1]["tool_calls"][0]["id"],
        asked.body["messages"][2]["tool_call_id"],
    }
    assert len(ids) == 1
    assert (ids != {"toolu_1"}) is place.is_mistral
