"""What conversations are called: by a person, by the agent, by their first words."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import MemoryConversations, Orchestrator, RunContext
from tests.serving.test_branches import branch, say
from tests.support.site import Site, site


async def agent(ctx: RunContext, message: str) -> str:
    if message.startswith("call it"):
        await ctx.custom("title", message.removeprefix("call it"))
    await ctx.custom("other", "nothing")
    await ctx.custom("title", {"no": "text"})
    return message


async def titles(s: Site) -> dict[str, str]:
    items = (await s.http.get("/sessions")).json()["items"]
    return {item["session_id"]: item["title"] for item in items}


async def name(s: Site, title: Any, session_id: str = "s", **headers: str) -> Any:
    return await s.http.patch(f"/sessions/{session_id}", json={"title": title}, headers=headers)


async def test_a_person_gives_a_title_and_takes_it_back() -> None:
    async with site(agent) as s:
        await say(s, "Two days in\nLisbon")
        before = await titles(s)
        answer = await name(s, f"  Summer\n{'x' * 200}")
        named = await titles(s)
        whole = (await s.http.get("/sessions/s")).json()
        back = (await name(s, None)).json()

        assert before == {"s": "Two days in Lisbon"}
        assert answer.status_code == 200
        assert named == {"s": answer.json()["title"]} == {"s": f"Summer {'x' * 113}"}
        assert whole["title"] == named["s"]
        assert back == {"session_id": "s", "title": "Two days in Lisbon", "branched_from": None}


async def test_an_agent_gives_one_and_a_persons_stands_before_it() -> None:
    async with site(agent) as s:
        await say(s, "call it  Lisbon in May ")
        by_agent = await titles(s)
        await name(s, "Mine")
        await say(s, "call it Porto")
        by_person = await titles(s)
        await name(s, "")

        assert by_agent == {"s": "Lisbon in May"}
        assert by_person == {"s": "Mine"}
        assert await titles(s) == {"s": "Porto"}


async def test_a_branch_says_where_it_came_from_and_forgets_it_with_itself() -> None:
    async with site(agent) as s:
        for text in ("one", "two", "three"):
            await say(s, text)
        made = (await branch(s, 2, "two")).json()
        branch_id, origin = made["session_id"], {"session_id": "s", "turn": 1}
        await say(s, "four", branch_id)
        items = (await s.http.get("/sessions")).json()["items"]
        whole = (await s.http.get(f"/sessions/{branch_id}")).json()
        await name(s, "Four", branch_id)
        await s.http.delete(f"/sessions/{branch_id}")
        after = (await s.http.get(f"/sessions/{branch_id}")).json()

        assert made["branched_from"] == whole["branched_from"] == origin
        assert {item["session_id"]: item["branched_from"] for item in items} == {
            "s": None,
            branch_id: origin,
        }
        assert (after["title"], after["branched_from"]) == (None, None)


async def test_what_is_no_name_or_of_no_conversation_is_refused() -> None:
    async with site(agent) as s:
        await say(s, "one")
        wrong = [
            await name(s, 7),
            await s.http.patch("/sessions/s", content=b"{"),
            await s.http.patch("/sessions/s", json={"name": "x"}),
        ]
        unknown = await name(s, "x", "unknown")
        elsewhere = await name(s, "x", **{"sec-fetch-site": "cross-site"})

        assert [answer.status_code for answer in wrong] == [400, 400, 400]
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_session")
        assert elsewhere.status_code == 403
        assert await titles(s) == {"s": "one"}


class Plain:
    """Conversations that keep what was said, and nothing beside it."""

    def __init__(self) -> None:
        inner = MemoryConversations()
        self.load, self.save, self.delete = inner.load, inner.save, inner.delete


class Failing(MemoryConversations):
    async def describe(self, *given: Any) -> None:
        raise OSError("no room")


async def test_a_store_that_keeps_no_titles_says_so() -> None:
    async with site(orchestrator=Orchestrator(agents=[agent], conversations=Plain())) as s:
        await say(s, "call it Lisbon")
        refused = await name(s, "x")

        assert (refused.status_code, refused.json()["code"]) == (501, "not_kept")
        assert await titles(s) == {"s": "call it Lisbon"}


async def test_a_title_that_cannot_be_kept_fails_no_run(caplog: pytest.LogCaptureFixture) -> None:
    async with site(orchestrator=Orchestrator(agents=[agent], conversations=Failing())) as s:
        await say(s, "call it Lisbon")
        [run] = (await s.http.get("/runs")).json()["items"]

        assert run["status"] == "completed"
        assert "title was not kept" in caplog.text
