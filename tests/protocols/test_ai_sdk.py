"""The AI SDK's protocol over HTTP: asking, answering, going on, telling again, refusing."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from flowtrio import Agent, Orchestrator, RunContext, tool
from flowtrio.protocols import AISDKProtocol
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import call
from tests.serving.test_protocol import two_approvals
from tests.support.site import Site, Talker, site, talk

CHAT = "/ai-sdk/chat"
PNG = "data:image/png;base64,iVBORw0KGgo="


def user(*texts: str, id: str = "u1", **parts: Any) -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text} for text in texts]}


def body(*messages: dict[str, Any], id: str = "chat", **more: Any) -> dict[str, Any]:
    return {"id": id, "messages": list(messages), "trigger": "submit-message", **more}


def read(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of an answer."""
    assert response.status_code == 200, response.text
    assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
    *lines, end, _ = response.text.split("\n\n")
    assert end == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines if not line.startswith(":")]


async def ask(s: Site, *messages: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return read(await s.http.post(CHAT, json=body(*messages, **more)))


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")


def answered(chunks: list[dict[str, Any]], **decisions: bool) -> dict[str, Any]:
    """The message that a page has of an answer, with what its user decided."""
    told = {k: v for c in chunks for k, v in _told(c).items()}
    start = next(chunk for chunk in chunks if chunk["type"] == "start")
    parts = [
        {
            "type": "tool-any",
            "toolCallId": f"{told['runId']}:{call_id}",
            "state": "approval-responded",
            "approval": {"id": f"{told['runId']}:{call_id}", "approved": approved},
        }
        for call_id, approved in decisions.items()
    ]
    metadata = {"flowtrio": told}
    return {"id": start["messageId"], "role": "assistant", "parts": parts, "metadata": metadata}


def _told(chunk: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = chunk.get("messageMetadata", {}).get("flowtrio", {})
    return told


async def read_and(response: httpx.Response, act: Callable[[str], Awaitable[None]]) -> str:
    """Read an answer to its end; *act* once something was said."""
    seen, has_acted = "", False
    async for piece in response.aiter_text():
        seen += piece
        if '"one"' in seen and not has_acted:
            has_acted = True
            await act(seen)
    return seen


def types(chunks: list[dict[str, Any]]) -> list[str]:
    return [chunk["type"] for chunk in chunks if chunk["type"] != "data-status"]


async def test_a_message_is_answered_and_its_conversation_is_the_chats() -> None:
    async with site(protocols=[AISDKProtocol()]) as s:
        chunks = await ask(s, user("hi"))
        conversation = await s.http.get("/sessions/chat")

    start, *_, finish = chunks
    told = _told(start)
    assert start["messageId"] == told["runId"]
    assert (told["sessionId"], told["agent"]) == ("chat", "talk")
    assert text_of(chunks) == "hello world"
    assert types(chunks) == [
        *("start", "start-step", "text-start", *["text-delta"] * 3, "text-end", "finish-step"),
        "finish",
    ]
    assert finish["finishReason"] == "stop"
    assert _told(finish)["status"] == "completed"
    assert conversation.json()["messages"][0] == {"role": "user", "content": "hi"}


async def test_an_answer_goes_on_under_its_id_when_people_have_decided() -> None:
    async with site(two_approvals, protocols=[AISDKProtocol()]) as s:
        first = await ask(s, user("hi"))
        second = await ask(s, user("hi"), answered(first, c2=True))
        third = await ask(s, user("hi"), answered([*first, *second], c1=False))

    run_id = first[0]["messageId"]
    assert [chunk["messageId"] for chunk in (first[0], second[0], third[0])] == [run_id] * 3
    waiting = [_told(chunks[-1])["waitingFor"] for chunks in (first, second)]
    assert waiting == [
        [{"type": "approval", "id": f"{run_id}:c1"}, {"type": "approval", "id": f"{run_id}:c2"}],
        [{"type": "approval", "id": f"{run_id}:c1"}],
    ]
    assert text_of(second) in ("a is done", "b is done")
    assert "tool-output-available" in types(second)
    assert types(third)[1:3] == ["tool-approval-response", "tool-output-denied"]
    assert third[-1]["finishReason"] == "stop"
    assert _told(third[-1])["waitingFor"] is None


async def asks_twice(ctx: RunContext, message: str) -> str:
    """Has a call open while it asks."""

    @tool
    async def choose(ctx: RunContext) -> str:
        """Ask."""
        async with ctx.message() as out:
            await out.write("So, ")
        return await ctx.ask("Which colour?")

    colour = await ctx.call(choose)
    number = await ctx.ask("How many?", int)
    async with ctx.message() as out:
        await out.write(f"{number} {colour}")
    return "done"


async def test_a_users_message_answers_the_question_that_waits_in_another_message() -> None:
    async with site(asks_twice, protocols=[AISDKProtocol()]) as s:
        first = await ask(s, user("hi"))
        second = await ask(s, user("hi"), answered(first), user("blue", id="u2"))
        bad = await s.http.post(CHAT, json=body(answered(second), user("many", id="u3")))
        third = await ask(s, user("3", id="u4"))

    run_id = first[0]["messageId"]
    seq = _told(first[-1])["seq"]
    assert second[0]["messageId"] == f"{run_id}:{seq}"
    assert types(second)[:3] == ["start", "start-step", "tool-input-available"]
    assert {"tool-output-available", "data-question"} <= set(types(second))
    questions = [chunk["data"] for chunk in first + second if chunk["type"] == "data-question"]
    assert [(asked["prompt"], asked["state"]) for asked in questions] == [
        ("Which colour?", "open"),
        ("Which colour?", "answered"),
        ("How many?", "open"),
    ]
    assert (bad.status_code, bad.json()["code"]) == (400, "bad_answer")
    assert text_of(third) == "3 blue"


@pytest.mark.parametrize("given", ["output", "error"])
async def test_a_tool_that_the_page_runs_gets_its_result_from_the_page(given: str) -> None:
    model = ScriptedModel([call("where"), call("look")], "There.")

    @tool
    async def look() -> str:
        """Look."""
        return "seen"

    agent = Agent(llm_client=model, tools=[look])
    where = {"where": {"description": "Where the user is.", "inputSchema": {"type": "object"}}}
    async with site(agent, protocols=[AISDKProtocol(client_tools=True)]) as s:
        first = await ask(s, user("hi"), tools=where)
        shown = answered(first)
        result = {"state": "output-available", "output": {"city": "Rome"}}
        if given == "error":
            result = {"state": "output-error", "errorText": "no permission"}
        call_id = f"{shown['id']}:c1"
        shown["parts"] = [{"type": "tool-where", "toolCallId": call_id, **result}]
        second = await ask(s, user("hi"), shown)

    assert _told(first[-1])["waitingFor"] == [{"type": "tool", "id": call_id}]
    assert "data-question" not in types(first) + types(second)
    told = {chunk.get("toolCallId"): chunk for chunk in second if "tool-output" in chunk["type"]}
    if given == "output":
        assert told[call_id]["output"] == {"city": "Rome"}
    else:
        assert told[call_id]["errorText"] == "no permission"
    assert text_of(second) == "There."


async def test_a_page_brings_no_tools_of_its_own_unless_it_may() -> None:
    where = {"where": {"inputSchema": {"type": "object"}}}
    bad = {"where": {"inputSchema": {"type": "nothing"}}}
    async with site(protocols=[AISDKProtocol()]) as s:
        refused = await s.http.post(CHAT, json=body(user("hi"), tools=where))
    async with site(protocols=[AISDKProtocol(client_tools=True)]) as s:
        unfit = await s.http.post(CHAT, json=body(user("hi"), tools=bad))

    assert (refused.status_code, refused.json()["code"]) == (400, "no_client_tools")
    assert (unfit.status_code, unfit.json()["code"]) == (400, "bad_tools")


async def test_files_of_the_users_are_said_to_the_agent() -> None:
    got: list[Any] = []

    async def look(ctx: RunContext, message: Any) -> str:
        got.append(list(ctx.messages[-1]["content"]))
        return "seen"

    said = user("What is this?")
    said["parts"] += [
        {"type": "file", "mediaType": "image/png", "url": PNG, "filename": "a.png"},
        {"type": "file", "mediaType": "application/pdf", "url": "https://example.org/a.pdf"},
        {"type": "data-page", "data": {}},
    ]
    async with site(look, protocols=[AISDKProtocol()]) as s:
        chunks = await ask(s, said)
        unfit = []
        for part in (
            {"type": "file", "mediaType": "image/png", "url": "data:image/png,plain"},
            {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,no!"},
            {"type": "file", "mediaType": "application/x-odd", "url": "https://example.org/odd"},
            {"type": "file", "url": 1},
        ):
            unfit.append(await s.http.post(CHAT, json=body({**said, "parts": [part]})))

    assert text_of(chunks) == "seen"
    assert [part["type"] for part in got[0]] == ["text", "image_url", "file"]
    assert [answer.status_code for answer in unfit] == [400] * 4


async def test_the_answer_of_a_run_that_goes_on_is_told_again_from_its_beginning() -> None:
    talker, replayed = Talker(), list[str]()
    async with site(talker, protocols=[AISDKProtocol()]) as s:
        nothing = await s.http.get(f"{CHAT}/chat/stream")

        async def stop(seen: str) -> None:
            run_id = json.loads(seen.split("\n\n")[0][6:])["messageId"]
            await s.http.post(f"/runs/{run_id}/cancel", json={"reason": "stop"})

        async def tell_again(seen: str) -> None:
            async with s.http.stream("GET", f"{CHAT}/chat/stream") as again:
                replayed.append(await read_and(again, stop))

        async with s.http.stream("POST", CHAT, json=body(user("hi"))) as response:
            seen = await read_and(response, tell_again)
        run_id = json.loads(seen.split("\n\n")[0][6:])["messageId"]
        over = await s.http.get(f"{CHAT}/chat/stream")
        ended = await s.http.get(f"{CHAT}/chat/stream", params={"message": run_id})
        for_the_user = await s.http.get(f"{CHAT}/chat/stream", params={"message": "u1"})
        elsewhere = await s.http.get(f"{CHAT}/other/stream", params={"message": run_id})

    assert nothing.status_code == over.status_code == elsewhere.status_code == 204
    assert replayed == [seen]
    chunks = read(ended)
    assert read(for_the_user) == chunks
    assert (chunks[-2]["type"], chunks[-1]) == (
        "message-metadata",
        {"type": "abort", "reason": "stop"},
    )
    assert talker.ended.is_set()


async def test_a_run_that_waits_is_told_again_to_where_it_waits() -> None:
    async with site(asks_twice, protocols=[AISDKProtocol()]) as s:
        first = await ask(s, user("hi"))
        second = await ask(s, user("hi"), answered(first), user("blue", id="u2"))
        again = read(await s.http.get(f"{CHAT}/chat/stream"))

    assert again == second


async def test_what_was_decided_already_is_told_to_a_page_that_is_behind() -> None:
    async with site(two_approvals, protocols=[AISDKProtocol()]) as s:
        first = await ask(s, user("hi"))
        decided = answered(first, c1=True, c2=True)
        second = await ask(s, decided)
        late = await ask(s, decided)
        run_id = first[0]["messageId"]
        again = read(await s.http.get(f"{CHAT}/chat/stream", params={"message": run_id}))

    assert late == second
    assert text_of(again) == text_of(second)
    assert types(again).count("finish") == 1


async def test_a_page_that_is_behind_a_run_that_waits_is_told_so_far() -> None:
    async with site(two_approvals, protocols=[AISDKProtocol()]) as s:
        first = await ask(s, user("hi"))
        second = await ask(s, answered(first, c1=True))
        behind = await ask(s, answered(first, c1=True))
        nothing = await s.http.post(CHAT, json=body(answered([*first, *second], c1=True)))

    assert behind == second
    assert (nothing.status_code, nothing.json()["code"]) == (409, "undecided")


async def test_an_answer_that_was_cut_is_to_be_resumed_before_it_goes_on() -> None:
    async with site(two_approvals, protocols=[AISDKProtocol()]) as s:
        first = await ask(s, user("hi"))
        cut = await s.http.post(CHAT, json=body(answered(first[:-1], c1=True)))

    assert (cut.status_code, cut.json()["code"]) == (409, "answer_is_cut")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"messages": [user("hi")]}, "id"),
        (body(id=""), "id"),
        (body(), "messages"),
        (body({"role": "system", "parts": []}), "role user or assistant"),
        (body(user(" ")), "a text that is not empty"),
        (body({"role": "user"}), "a text that is not empty"),
        (body({"role": "user", "parts": [{"type": "text"}]}), "expected its text"),
        (body({"role": "assistant", "id": "not ours!"}), "the id of one that was answered here"),
        (body(user("hi"), tools=[]), "tools"),
    ],
)
async def test_a_request_that_is_none_is_refused_with_what_was_expected(
    given: dict[str, Any], words: str
) -> None:
    async with site(protocols=[AISDKProtocol()]) as s:
        refused = await s.http.post(CHAT, json=given)

    assert refused.status_code == 400
    assert words in refused.json()["error"]


async def test_an_agent_is_asked_for_by_its_name() -> None:
    orchestrator = Orchestrator(agents=[talk, two_approvals], route=lambda message, ctx: "talk")
    async with site(orchestrator=orchestrator, protocols=[AISDKProtocol()]) as s:
        chunks = await ask(s, user("hi"), agent="talk")
        unknown = await s.http.post(CHAT, json=body(user("hi"), agent="nobody"))

    assert _told(chunks[0])["agent"] == "talk"
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_agent")
    assert "two_approvals" in unknown.json()["error"]


async def test_other_tenants_chats_are_not_seen() -> None:
    tenants = {"Bearer a": "a", "Bearer b": "b"}

    async def who(request: Any) -> str | None:
        return tenants.get(request.headers.get("authorization", ""))

    async with site(two_approvals, protocols=[AISDKProtocol()], authenticate=who) as s:
        s.http.headers["authorization"] = "Bearer a"
        first = await ask(s, user("hi"))
        s.http.headers["authorization"] = "Bearer b"
        decided = await s.http.post(CHAT, json=body(answered(first, c1=True)))
        told = await s.http.get(f"{CHAT}/chat/stream", params={"message": first[0]["messageId"]})

    assert (decided.status_code, decided.json()["code"]) == (404, "unknown_run")
    assert told.status_code == 204


async def test_a_failure_is_told_without_the_applications_own_words() -> None:
    async def fails(ctx: RunContext, message: str) -> None:
        raise RuntimeError("secret")

    async with site(fails, protocols=[AISDKProtocol()]) as s:
        chunks = await ask(s, user("hi"))
    async with site(fails, protocols=[AISDKProtocol()], debug=True) as s:
        shown = await ask(s, user("hi"))

    *_, metadata, error, finish = chunks
    assert _told(metadata)["status"] == "error"
    assert error["errorText"].startswith("RuntimeError (")
    assert "secret" in shown[-2]["errorText"]
    assert finish == {"type": "finish", "finishReason": "error"}


async def test_each_event_is_told_as_it_is_where_that_is_asked_for() -> None:
    async with site(protocols=[AISDKProtocol(raw=True)]) as s:
        chunks = await ask(s, user("hi"))
        run_id = chunks[1]["messageId"] if "messageId" in chunks[1] else chunks[0]["messageId"]
        log, _ = await s.follow("GET", f"/runs/{run_id}/events")

    raw = [chunk["data"] for chunk in chunks if chunk["type"] == "data-flowtrio"]
    assert raw == log


async def test_only_the_newest_places_of_answers_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowtrio.protocols._ai_sdk._routes._MOST_BEGINS", 1)
    protocol = AISDKProtocol()
    async with site(asks_twice, protocols=[protocol]) as s:
        for name in ("a", "b"):
            first = await ask(s, user("hi"), id=name)
            await ask(s, answered(first), user("blue", id="u2"), id=name)

    assert len(protocol._begins) == 1
