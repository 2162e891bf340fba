"""A tenant's conversations and runs: listed, a page at a time, and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import AgentStatus, MemoryStore, RunContext
from flowtrio.abc import RunHeader
from flowtrio.serving._access import Refused
from flowtrio.serving.http import _endpoints
from flowtrio.serving.http._lists import list_runs, list_sessions, page_of
from tests.support.site import Site, site


def header(number: int, session_id: str | None = "s", **keys: Any) -> RunHeader:
    given = {"message": f"message {number}", "created_at": float(number), "is_remembered": True}
    return RunHeader(
        tenant_id="t", run_id=f"r{number}", session_id=session_id, agent="a", **{**given, **keys}
    )


# What is told


def test_a_conversation_is_what_its_runs_tell_of_it() -> None:
    ended = {"ended_at": 9.0, "status": AgentStatus.COMPLETED}
    headers = [
        header(1, "one", message="  Two days\nin Lisbon  ", **ended),
        header(2, "two"),
        header(3, "one"),
        header(4, None),
        header(5, "forgotten", is_remembered=False),
    ]

    origin = {"session_id": "one", "turn": 1}

    assert list_sessions(headers, {"two": {"title": "Two", "branched_from": origin}}) == [
        {
            "session_id": "one",
            "message": "Two days in Lisbon",
            "title": "Two days in Lisbon",
            "branched_from": None,
            "created_at": 1.0,
            "updated_at": 9.0,
            "runs": 2,
            "status": None,
        },
        {
            "session_id": "two",
            "message": "message 2",
            "title": "Two",
            "branched_from": origin,
            "created_at": 2.0,
            "updated_at": 2.0,
            "runs": 1,
            "status": None,
        },
    ]


def test_a_long_message_is_a_title_of_its_first_words() -> None:
    [session] = list_sessions([header(1, message="word " * 10_000)], {})

    assert session["title"] == f"{'word ' * 15}word…"


def test_a_run_tells_how_it_ended_and_its_conversation_where_that_is_kept() -> None:
    headers = [header(1, status=AgentStatus.ERROR, ended_at=2.0), header(2, is_remembered=False)]
    [one, two] = list_runs(headers)

    assert one == {
        "run_id": "r1",
        "session_id": "s",
        "agent": "a",
        "message": "message 1",
        "created_at": 1.0,
        "ended_at": 2.0,
        "status": "error",
    }
    assert (two["session_id"], two["status"]) == (None, None)


# Pages


def pages(headers: list[RunHeader], limit: str) -> list[list[str]]:
    """All pages, one after another."""
    found, query = [], {"limit": limit}
    while True:
        page = page_of(list_runs(headers), "created_at", "run_id", query)
        found.append([entry["run_id"] for entry in page["items"]])
        if page["next"] is None:
            return found
        query["before"] = page["next"]


def test_pages_have_each_once_and_the_newest_first() -> None:
    headers = [header(number) for number in range(5)]

    assert pages(headers, "2") == [["r4", "r3"], ["r2", "r1"], ["r0"]]
    assert pages(headers, "5") == [["r4", "r3", "r2", "r1", "r0"]]
    assert pages([], "5") == [[]]


def test_what_began_at_the_same_moment_is_told_apart_by_its_name() -> None:
    headers = [header(number, created_at=0.1 + 0.2) for number in range(5)]

    assert pages(headers, "2") == [["r4", "r3"], ["r2", "r1"], ["r0"]]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("limit", text) for text in ("0", "201", "-1", "x", "", "1.5", "٣", "9" * 5000)),
        *(("before", text) for text in ("", "x", "x:y", "1", "nan:s")),
    ],
)
def test_a_query_that_cannot_be_read_is_refused(key: str, text: str) -> None:
    with pytest.raises(Refused, match=f"{key}: expected"):
        page_of([], "created_at", "run_id", {key: text})


# Over the network


async def echo(ctx: RunContext, message: str) -> str:
    return message


async def say(s: Site, message: str, session_id: str | None, **headers: str) -> None:
    body = {"message": message, "session_id": session_id}
    await s.follow("POST", "/chat/stream", json=body, headers=headers)


async def test_conversations_and_runs_are_listed_and_read_page_by_page() -> None:
    async with site(echo) as s:
        for message, session_id in [("one", "a"), ("two", "b"), ("three", "a"), ("four", None)]:
            await say(s, message, session_id)
        sessions = (await s.http.get("/sessions")).json()
        first = (await s.http.get("/sessions?limit=1")).json()
        second = (await s.http.get("/sessions", params={"before": first["next"]})).json()
        runs = (await s.http.get("/runs")).json()
        kept = (await s.http.get("/sessions/a")).json()["runs"]
        wrong = await s.http.get("/runs?limit=x")

    titles = [(e["session_id"], e["title"], e["runs"]) for e in sessions["items"]]
    assert titles == [("a", "one", 2), ("b", "two", 1)]
    assert first["items"] + second["items"] == sessions["items"]
    assert second["next"] is None
    assert [run["message"] for run in runs["items"]] == ["four", "three", "two", "one"]
    assert {run["status"] for run in runs["items"]} == {"completed"}
    assert [run["message"] for run in kept] == ["one", "three"]
    assert wrong.status_code == 400


async def test_another_tenants_are_not_among_them() -> None:
    def who(request: Any) -> str | None:
        name: str | None = request.headers.get("x-user")
        return name

    async with site(echo, authenticate=who) as s:
        await say(s, "secret", "hers", **{"x-user": "ann"})
        bob = {"x-user": "bob"}
        found = [(await s.http.get(path, headers=bob)).json() for path in ("/sessions", "/runs")]
        nobody = [(await s.http.get(path)).status_code for path in ("/sessions", "/runs")]
        hers = (await s.http.get("/sessions", headers={"x-user": "ann"})).json()

    assert found == [{"items": [], "next": None}] * 2
    assert nobody == [401, 401]
    assert [entry["title"] for entry in hers["items"]] == ["secret"]


async def test_runs_are_read_page_by_page_and_no_more_of_them_than_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    honest = MemoryStore.newest

    async def newest(self: MemoryStore, tenant_id: Any, *, before: Any = None, limit: int) -> Any:
        asked.append(limit)
        return await honest(self, tenant_id, before=before, limit=limit)

    monkeypatch.setattr(MemoryStore, "newest", newest)
    async with site(echo) as s:
        for number in range(5):
            await say(s, f"{number}", None)
        found, params = [], {"limit": "2"}
        while params.get("before") != "None":
            page = (await s.http.get("/runs", params=params)).json()
            found.append([run["message"] for run in page["items"]])
            params["before"] = str(page["next"])
        odd = [(await s.http.get("/runs", params={"before": t})).status_code for t in ("x", "1:r")]

    assert found == [["4", "3"], ["2", "1"], ["0"]]
    assert asked[:3] == [3, 3, 3]
    assert odd == [400, 400]


async def test_conversations_are_those_of_the_newest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many runs a tenant has had, so many are looked at."""
    monkeypatch.setattr(_endpoints, "_AT_ONCE", 2)
    monkeypatch.setattr(_endpoints, "_MOST_RUNS", 4)
    async with site(echo) as s:
        for number in range(6):
            await say(s, f"{number}", f"s{number}")
        listed = (await s.http.get("/sessions")).json()["items"]

    assert [entry["session_id"] for entry in listed] == ["s5", "s4", "s3", "s2"]
