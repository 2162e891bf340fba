"""Going on from somewhere in a conversation: what is copied, and what is refused."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from flowtrio import Agent, ServerLimits
from flowtrio.testing import ScriptedModel
from tests.serving.test_parts import PNG, SENT
from tests.support.site import Site, site


async def say(s: Site, message: str, session_id: str = "s", **keys: Any) -> None:
    body = {"message": message, "session_id": session_id, **keys}
    await s.follow("POST", "/chat/stream", json=body)


async def branch(s: Site, back: int, message: str, **headers: str) -> httpx.Response:
    body = {"back": back, "message": message}
    return await s.http.post("/sessions/s/branch", json=body, headers=headers)


async def said(s: Site, session_id: str) -> list[str]:
    messages = (await s.http.get(f"/sessions/{session_id}")).json()["messages"]
    return [message["content"] for message in messages]


async def test_a_branch_has_what_was_said_before_and_the_other_stays() -> None:
    model = ScriptedModel("1", "2", "3", "4")
    async with site(Agent(llm_client=model)) as s:
        for text in ("one", "two", "three"):
            await say(s, text)
        answer = await branch(s, 2, "two")
        branch_id = answer.json()["session_id"]
        before = await said(s, branch_id)
        await say(s, "four", branch_id)

        assert answer.status_code == 201
        assert before == ["one", "1"]
        assert await said(s, branch_id) == ["one", "1", "four", "4"]
        assert await said(s, "s") == ["one", "1", "two", "2", "three", "3"]


async def test_before_the_first_message_there_is_nothing() -> None:
    async with site(Agent(llm_client=ScriptedModel("1"))) as s:
        await say(s, "one")
        answer = await branch(s, 1, "one")

        assert answer.status_code == 201
        assert await said(s, answer.json()["session_id"]) == []


async def test_images_go_along_and_a_message_is_known_by_its_text() -> None:
    async with site(Agent(llm_client=ScriptedModel("1", "2"))) as s:
        for text in ("look", "and here"):
            await say(s, text, parts=[SENT])
        answer = await branch(s, 1, "and here")
        place = f"/sessions/{answer.json()['session_id']}/parts"

        assert (await s.http.get(f"{place}/0")).content == PNG
        assert (await s.http.get(f"{place}/1")).status_code == 404


@pytest.mark.parametrize(("back", "message"), [(1, "one"), (3, "one"), (2, "two")])
async def test_a_message_that_is_not_there_is_told(back: int, message: str) -> None:
    async with site(Agent(llm_client=ScriptedModel("1", "2"))) as s:
        for text in ("one", "two"):
            await say(s, text)
        answer = await branch(s, back, message)

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_message")


async def test_a_request_that_is_none_is_refused() -> None:
    limits = ServerLimits(message=1000)
    async with site(Agent(llm_client=ScriptedModel()), limits=limits) as s:
        bodies: list[Any] = [
            {"back": 0, "message": "a"},
            {"back": 1},
            {"back": 1, "message": "a", "junk": 1},
            [],
        ]
        refused = [await s.http.post("/sessions/s/branch", json=body) for body in bodies]
        refused.append(await s.http.post("/sessions/s/branch", content=b"{"))
        large = await branch(s, 1, "x" * 2000)
        wrong = await s.http.get("/sessions/s/branch")
        elsewhere = await branch(s, 1, "a", **{"sec-fetch-site": "cross-site"})

    assert {answer.status_code for answer in refused} == {400}
    assert (large.status_code, wrong.status_code, elsewhere.status_code) == (413, 405, 403)
