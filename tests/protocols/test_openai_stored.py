"""Responses of a served application, by OpenAI's own library."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest
import trio

from flowtrio import Agent, RunContext, tool
from flowtrio.testing import FunctionModel, ScriptedModel
from tests.runtime._programs import Diary, call
from tests.support.site import Talker

from .test_openai_served import PNG, served

pytestmark = pytest.mark.filterwarnings(
    "ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning"
)

WHERE: Any = {
    "type": "function",
    "name": "where",
    "description": "Where the user is.",
    "parameters": {"type": "object", "properties": {"exactly": {"type": "boolean"}}},
    "strict": False,
}

DONE = {"status": "completed"}


def said_to(model: Any) -> list[Any]:
    return [m["content"] for m in model.requests[-1].messages]


async def test_a_response_comes_whole_or_streamed_and_the_next_goes_on() -> None:
    model = FunctionModel(lambda request: ["Answer ", str(len(request.messages))])
    async with served(Agent(llm_client=model, name="a")) as (_, client):
        first = await client.responses.create(model="a", input="One.")
        async with client.responses.stream(
            model="a", input=[{"role": "user", "content": "Two."}], previous_response_id=first.id
        ) as events:
            second = await events.get_final_response()
        with pytest.raises(openai.BadRequestError) as old:
            await client.responses.create(model="a", input="x", previous_response_id=first.id)
        with pytest.raises(openai.BadRequestError) as unknown:
            await client.responses.create(model="a", input="x", previous_response_id="resp_x")
        seen = said_to(model)
        again = await client.responses.retrieve(second.id)

    assert (first.output_text, second.output_text) == ("Answer 1", "Answer 3")
    assert seen == ["One.", "Answer 1", "Two."]
    assert "expected the newest" in old.value.message
    assert unknown.value.code == "previous_response_not_found"
    assert (again.id, again.output_text, again.status) == (second.id, "Answer 3", "completed")


async def test_the_newest_response_is_the_one_that_came_last_whatever_clocks_say() -> None:
    """Another process that answered before may be a minute ahead."""
    model = FunctionModel(lambda request: ["Answer ", str(len(request.messages))])
    async with served(Agent(llm_client=model, name="a")) as (s, client):
        first = await client.responses.create(model="a", input="One.")
        s.orchestrator._engine.wall_clock = lambda: time.time() - 60
        second = await client.responses.create(
            model="a", input="Two.", previous_response_id=first.id
        )
        third = await client.responses.create(
            model="a", input="Three.", previous_response_id=second.id
        )
        with pytest.raises(openai.BadRequestError):
            await client.responses.create(model="a", input="x", previous_response_id=first.id)

    assert third.output_text == "Answer 5"


async def test_a_conversation_may_be_brought_along_kept_or_not() -> None:
    model = FunctionModel(lambda request: "Yes.")
    before: Any = [
        {"role": "developer", "content": "Be rude."},
        {"role": "user", "content": "One."},
        {"role": "assistant", "content": [{"type": "output_text", "text": "First."}]},
        {"type": "reasoning", "id": "r", "summary": []},
        {"role": "user", "content": [{"type": "input_text", "text": "Two."}]},
        {"role": "user", "content": "Three."},
    ]
    async with served(Agent(llm_client=model, name="a")) as (_, client):
        kept = await client.responses.create(model="a", input=before)
        seen = said_to(model)
        await client.responses.create(model="a", input="Four.", previous_response_id=kept.id)
        later = said_to(model)
        lost = await client.responses.create(model="a", input=before, store=False)
        with pytest.raises(openai.BadRequestError):
            await client.responses.create(model="a", input="x", previous_response_id=lost.id)

    assert seen == ["One.", "First.", "Two.\nThree."]
    assert later == ["One.", "First.", "Two.\nThree.", "Yes.", "Four."]


async def test_the_clients_tools_are_run_by_the_client_in_one_run() -> None:
    diary = Diary()
    ours = diary.tool("look", lambda: trio.sleep(0))
    model = ScriptedModel(["Where? ", call("where", exactly=True), call("look")], "There.")
    async with served(Agent(llm_client=model, tools=[ours], name="a")) as (_, client):
        first = await client.responses.create(model="a", input="Find me.", tools=[WHERE])
        [asked] = [item for item in first.output if item.type == "function_call"]
        given: Any = {"type": "function_call_output", "call_id": asked.call_id, "output": "home"}
        waiting = await client.responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError) as wrong:
            other = {**given, "call_id": f"{asked.call_id}9"}
            await client.responses.create(model="a", input=[other])
        async with client.responses.stream(
            model="a", input=[given], previous_response_id=first.id, tools=[WHERE]
        ) as events:
            second = await events.get_final_response()
        earlier = await client.responses.retrieve(first.id)
        later = await client.responses.retrieve(second.id)

    assert json.loads(asked.arguments) == {"exactly": True}
    assert [item.type for item in first.output] == ["message", "mcp_call", "function_call"]
    assert second.output_text == later.output_text == "There."
    assert waiting.output == earlier.output == first.output
    assert wrong.value.code == "tool_call_not_found"
    assert diary.lines == ["look began", "look ended"]


async def test_a_stream_is_told_again_from_any_place() -> None:
    model = FunctionModel(lambda request: ["one ", "two ", "three"])
    async with served(Agent(llm_client=model, name="a")) as (_, client):
        stream = await client.responses.create(model="a", input="hi", stream=True)
        events = [event async for event in stream]
        response_id = events[0].response.id  # type: ignore[union-attr]
        tails = []
        for place in range(len(events)):
            rest = await client.responses.retrieve(response_id, stream=True, starting_after=place)
            tails.append([event async for event in rest])
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve("resp_other")
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve("other")

    assert [event.sequence_number for event in events] == [*range(len(events))]
    for place, tail in enumerate(tails):
        assert tail == events[place + 1 :]


async def test_a_stream_that_was_lost_in_mid_answer_is_taken_up_where_it_was() -> None:
    agent = Talker()
    async with served(agent) as (_, client):
        lost: list[Any] = []
        first: Any = await client.responses.create(
            model="talker", input="hi", stream=True, background=True
        )
        async for event in first:
            lost.append(event)
            if event.type == "response.output_text.delta":
                break
        await first.close()
        response_id, place = lost[0].response.id, lost[-2].sequence_number
        rest: Any = await client.responses.retrieve(response_id, stream=True, starting_after=place)
        found = []
        async for event in rest:
            found.append(event)
            if len(found) == 1:
                await client.responses.cancel(response_id)

    assert found[0] == lost[-1]
    numbers = [event.sequence_number for event in [*lost[:-1], *found]]
    assert numbers == [*range(len(numbers))]
    assert found[-1].response.status == "cancelled"
    assert agent.begun == 1


async def test_who_asks_for_a_background_gets_an_answer_at_once_and_may_cancel() -> None:
    agent = Talker()
    async with served(agent) as (_, client):
        begun = await client.responses.create(model="talker", input="hi", background=True)
        with trio.fail_after(5):
            while not (await client.responses.retrieve(begun.id)).output:
                await trio.lowlevel.checkpoint()
        ended = await client.responses.cancel(begun.id)

    assert (begun.status, ended.status) == ("in_progress", "cancelled")
    assert ended.output_text == "one"
    assert agent.begun == 1
    assert agent.ended.is_set()


def input_of(items: Any) -> list[Any]:
    """Items without their ids."""
    return [{k: v for k, v in item.to_dict().items() if k != "id"} for item in items]


async def test_what_a_response_was_given_is_listed() -> None:
    @tool(needs_approval=True)
    async def pay(ctx: RunContext) -> str:
        """Pay."""
        return "paid"

    model = ScriptedModel(
        [call("pay"), call("pay")], [call("where", exactly=True)], "There.", "Again."
    )
    agent = Agent(llm_client=model, tools=[pay], name="a")
    png = {"type": "input_image", "image_url": PNG, "detail": "low"}
    said: Any = [{"role": "user", "content": [{"type": "input_text", "text": "Go."}, png]}]
    listed = []
    async with served(agent, {"approvals": True}) as (s, client):
        first = await client.responses.create(model="a", input=said, tools=[WHERE])
        decisions: Any = [
            {"type": "mcp_approval_response", "approval_request_id": item.id, "approve": not n}
            for n, item in enumerate(first.output)
        ]
        second = await client.responses.create(
            model="a", input=decisions, previous_response_id=first.id, tools=[WHERE]
        )
        [asked] = [item for item in second.output if item.type == "function_call"]
        given: Any = {"type": "function_call_output", "call_id": asked.call_id, "output": "home"}
        third = await client.responses.create(
            model="a", input=[given], previous_response_id=second.id, tools=[WHERE]
        )
        for response in (first, second, third):
            items = client.responses.input_items.list(response.id, order="asc", limit=1)
            listed.append([item async for item in items])
        newest = await client.responses.input_items.list(second.id)
        again = [await client.responses.retrieve(r.id) for r in (first, second, third)]
        unfit = [
            await s.http.get(f"/v1/responses/{first.id}/input_items?{query}")
            for query in ("order=x", "limit=0", "limit=1e9", "limit=101", "after=x")
        ]
        nothing = await s.http.get("/v1/responses/resp_x/input_items")

    image = {"type": "input_image", "detail": "auto"}
    content = [{"type": "input_text", "text": "Go."}, image]
    message = {"type": "message", "role": "user", "content": content, "status": "completed"}
    assert [r.output for r in again] == [r.output for r in (first, second, third)]
    asked_first, *rest = [input_of(items) for items in listed]
    assert asked_first == [message]
    assert sorted(rest[0], key=str) == sorted(decisions, key=str)
    assert rest[1] == [{**given, **DONE}]
    assert input_of(newest.data) == rest[0][::-1]
    assert [answer.status_code for answer in unfit] == [400] * 5
    assert nothing.status_code == 404


async def test_a_response_is_deleted_and_with_the_last_one_its_conversation() -> None:
    model = FunctionModel(lambda request: "Yes.")
    async with served(Agent(llm_client=model, name="a")) as (s, client):
        first = await client.responses.create(model="a", input="One.")
        second = await client.responses.create(
            model="a", input="Two.", previous_response_id=first.id
        )
        [session] = (await s.http.get("/sessions")).json()["items"]
        address = f"/sessions/{session['session_id']}"
        await client.responses.delete(first.id)
        half = (await s.http.get(address)).json()["messages"]
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.delete(first.id)
        told = await s.http.delete(f"/v1/responses/{second.id}")
        whole = (await s.http.get(address)).json()
        foreign = [
            await s.http.request(method, path, headers={"sec-fetch-site": "cross-site"})
            for method, path in (
                ("DELETE", f"/v1/responses/{second.id}"),
                ("POST", f"/v1/responses/{second.id}/cancel"),
            )
        ]

    assert [m["content"] for m in half] == ["One.", "Yes.", "Two.", "Yes."]
    assert told.json() == {"id": second.id, "object": "response", "deleted": True}
    assert (whole["messages"], whole["runs"]) == ([], [])
    assert [answer.status_code for answer in foreign] == [403, 403]


async def test_a_response_that_goes_on_is_cancelled_before_it_is_deleted() -> None:
    agent = Talker()
    async with served(agent) as (s, client):
        begun = await client.responses.create(model="talker", input="hi", background=True)
        await client.responses.delete(begun.id)
        runs = (await s.http.get("/runs")).json()["items"]

    assert runs == []
    assert agent.ended.is_set() or not agent.begun


async def test_a_run_that_is_not_of_responses_takes_no_conversation_along() -> None:
    async with served() as (s, client):
        body = {"message": "hi", "run_id": "r", "session_id": "mine"}
        await s.follow("POST", "/chat/stream", json=body)
        await client.responses.delete("resp_r")
        kept = (await s.http.get("/sessions/mine")).json()

    assert (kept["messages"][0]["content"], kept["runs"]) == ("hi", [])


async def test_approvals_are_asked_for_where_that_is_wanted() -> None:
    @tool(needs_approval=True)
    async def pay(ctx: RunContext, to: str) -> str:
        """Pay."""
        return f"paid {to}"

    model = FunctionModel(
        lambda request: (
            [call("pay", to="a")] if len(request.messages) == 1 else str(said_to(model)[-1])
        )
    )
    agent = Agent(llm_client=model, tools=[pay], name="a")
    results = []
    async with served(agent, {"approvals": True}) as (_, client):
        for is_approved in (True, False):
            first = await client.responses.create(model="a", input="hi")
            [asked] = first.output
            decision: Any = {
                "type": "mcp_approval_response",
                "approval_request_id": asked.id,
                "approve": is_approved,
            }
            last = await client.responses.create(
                model="a", input=[decision], previous_response_id=first.id
            )
            results.append((asked.type, last.output[0].to_dict()["status"]))
    async with served(agent) as (_, client):
        denied = await client.responses.create(model="a", input="hi")

    assert results == [("mcp_approval_request", "completed"), ("mcp_approval_request", "failed")]
    assert denied.output[0].to_dict()["status"] == "failed"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": 1}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "odd"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"previous_response_id": 1}, "previous_response_id"),
        ({"text": {"format": {"type": "json_object"}}}, "text"),
        ({"conversation": "c"}, "conversation"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    ],
)
async def test_what_cannot_be_done_is_refused_and_named(fields: Any, param: str) -> None:
    async with served() as (s, _):
        answer = await s.http.post("/v1/responses", json={"model": "talk", "input": "x", **fields})

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


async def test_an_agent_or_a_place_that_is_not_there_is_refused() -> None:
    async with served() as (s, client):
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.responses.create(model="other", input="hi")
        response = await client.responses.create(model="talk", input="hi")
        place = await s.http.get(f"/v1/responses/{response.id}?starting_after=x")
        other = await s.http.post("/v1/responses/resp_x/cancel", json={})

    assert unknown.value.code == "model_not_found"
    assert (place.status_code, other.status_code) == (400, 404)
