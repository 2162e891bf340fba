"""The operator's view: the runs of all tenants, what they wait for, and what is done to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from flowtrio import (
    Agent,
    AgentEvent,
    EventType,
    MemoryStore,
    Orchestrator,
    RunContext,
    ServerLimits,
    ToolCall,
    tool,
)
from flowtrio.abc import Caller, RunHeader
from flowtrio.serving.commands._clients import Hosting
from flowtrio.serving.http import _operator, _overview
from flowtrio.testing import ScriptedModel
from tests.support.site import Site, site

OPERATOR = {"authorization": "Bearer op-token"}
ANN, BOB = {"x-user": "ann"}, {"x-user": "bob"}


def who(request: Any) -> Any:
    name: str | None = request.headers.get("x-user")
    return Caller("staff", is_operator=True) if name == "chief" else name


async def agent(ctx: RunContext, message: str) -> str:
    if message == "ask":
        return await ctx.ask("How many?", {"type": "integer"})
    if message == "approve":
        return str(await ctx.approve("book", {"price": 7}))
    if message == "fail":
        raise ValueError("secret words")
    return message


@asynccontextmanager
async def opened(agent: Any = agent, **options: Any) -> AsyncIterator[Site]:
    rules = {"authenticate": who, "operator_token": "op-token", "drain": 0}
    async with site(agent, **{**rules, **options}) as s:
        yield s


async def say(s: Site, user: dict[str, str], message: str, run_id: str) -> None:
    body = {"message": message, "run_id": run_id, "session_id": "s"}
    await s.follow("POST", "/chat/stream", json=body, headers=user)


@asynccontextmanager
async def waiting(s: Site, *asked: tuple[dict[str, str], str, str]) -> AsyncIterator[None]:
    """Runs that wait for a person, for as long as the block lasts."""
    async with trio.open_nursery() as nursery:
        for count, (user, message, run_id) in enumerate(asked, 1):
            nursery.start_soon(say, s, user, message, run_id)
            while (await get(s, "/operator/inbox"))["total"] < count:
                await trio.sleep(0.01)
        yield
        nursery.cancel_scope.cancel()


async def get(s: Site, path: str, **params: str) -> dict[str, Any]:
    answer = await s.http.get(path, params=params, headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def ids(s: Site, **params: str) -> list[str]:
    return [item["run_id"] for item in (await get(s, "/operator/runs", **params))["items"]]


# The list


async def test_runs_of_all_tenants_are_listed_with_how_they_went() -> None:
    async with opened() as s:
        await say(s, ANN, "hi", "r1")
        await say(s, BOB, "fail", "r2")
        async with waiting(s, (ANN, "approve", "r3")):
            page = await get(s, "/operator/runs")

    three, two, one = page["items"]
    assert page["next"] is None
    assert (one["tenant_id"], one["run_id"], one["status"], one["code"]) == (
        *("ann", "r1", "completed", None),
    )
    assert one["usage"]["prompt_tokens"] == 0
    assert (two["tenant_id"], two["status"], two["code"]) == ("bob", "error", "agent_failed")
    assert two["message"] == "fail"
    assert three["ended_at"] is None
    assert three["status"] == "waiting_for_approval"
    assert three["waiting"] == {"approvals": 1, "questions": 0}


async def test_runs_are_found_by_what_they_are() -> None:
    async with opened() as s:
        await say(s, ANN, "hi", "r1")
        [first] = (await get(s, "/operator/runs"))["items"]
        await trio.sleep(0.01)
        await say(s, BOB, "fail", "r2")
        middle = repr(first["created_at"] + 0.005)
        async with waiting(s, (ANN, "ask", "r3")):
            found = {
                name: await ids(s, **{key: value})
                for name, key, value in [
                    ("failed", "status", "error"),
                    ("ended", "status", "error,completed"),
                    ("live", "status", "running,waiting_for_input"),
                    ("mixed", "status", "completed,waiting_for_input"),
                    ("running", "status", "running"),
                    ("ann's", "tenant", "ann"),
                    ("nobody's", "tenant", "nobody"),
                    ("agent's", "agent", "agent"),
                    ("other's", "agent", "x"),
                    ("coded", "code", "agent_failed"),
                    ("since", "since", middle),
                    ("until", "until", middle),
                ]
            }

    assert found == {
        "failed": ["r2"],
        "ended": ["r2", "r1"],
        "live": ["r3"],
        "mixed": ["r3", "r1"],
        "running": [],
        "ann's": ["r3", "r1"],
        "nobody's": [],
        "agent's": ["r3", "r2", "r1"],
        "other's": [],
        "coded": ["r2"],
        "since": ["r3", "r2"],
        "until": ["r1"],
    }


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("status", text) for text in ("x", "error,x")),
        *(("since", text) for text in ("", "x", "nan", "inf")),
        *(("until", text) for text in ("x", "-inf")),
        *(("limit", text) for text in ("0", "x", "201")),
        *(("before", text) for text in ("x", "1:a", "-1")),
    ],
)
async def test_a_question_that_cannot_be_read_is_refused(key: str, text: str) -> None:
    async with opened() as s:
        answer = await s.http.get("/operator/runs", params={key: text}, headers=OPERATOR)

    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{key}: expected")


async def test_pages_have_each_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of the runs is wanted, and however many the store gives at once."""
    monkeypatch.setattr(_operator, "_AT_ONCE", 3)
    monkeypatch.setattr(_operator, "_LOOKED_AT", 6)
    async with opened() as s:
        for number in range(10):
            await say(s, ANN if number % 3 else BOB, "hi", f"r{number}")
        found = {}
        for tenant in ("ann", "bob"):
            for limit in ("1", "2", "3", "5", "50"):
                params, pages, runs = {"tenant": tenant, "limit": limit}, 0, []
                while pages == 0 or "before" in params:
                    page = await get(s, "/operator/runs", **params)
                    runs += [item["run_id"] for item in page["items"]]
                    params.pop("before", None)
                    if page["next"] is not None:
                        params["before"] = page["next"]
                    pages += 1
                found[tenant, limit] = runs
        all_of_them = (await get(s, "/operator/runs"))["items"]

    assert len(all_of_them) == 6, "no more are looked at for one page"
    for (tenant, _), runs in found.items():
        numbers = [n for n in reversed(range(10)) if bool(n % 3) == (tenant == "ann")]
        assert runs == [f"r{number}" for number in numbers]


async def test_live_runs_are_paged_too() -> None:
    async with opened() as s, waiting(s, (ANN, "ask", "r1"), (BOB, "ask", "r2")):
        first = await get(s, "/operator/runs", status="waiting_for_input", limit="1")
        second = await get(
            s, "/operator/runs", status="waiting_for_input", limit="1", before=first["next"]
        )

    pages = [first["items"], second["items"]]
    assert [[item["run_id"] for item in items] for items in pages] == [["r2"], ["r1"]]
    assert second["next"] is None


async def test_what_a_run_has_spent_is_told_while_it_goes_on() -> None:
    @tool(needs_approval=True)
    def book(price: int) -> int:
        """Book it."""
        return price

    call = ToolCall("x", "book", {"price": 7})
    model = ScriptedModel(["Well, ", call])
    async with opened(Agent(llm_client=model, tools=[book])) as s:
        async with waiting(s, (ANN, "go", "r1")):
            [entry] = (await get(s, "/operator/runs"))["items"]
            [asked] = (await get(s, "/operator/inbox"))["items"]

    assert entry["usage"]["completion_tokens"] > 0
    assert (asked["tool_name"], asked["arguments"]) == ("book", {"price": 7})


# The inbox


async def test_the_inbox_has_what_all_runs_ask_the_longest_wait_first() -> None:
    async with opened() as s:
        async with waiting(s, (BOB, "approve", "r1"), (ANN, "ask", "r2")):
            inbox = await get(s, "/operator/inbox")
            one = await get(s, "/operator/inbox", limit="1")
            approved = await s.http.post(
                "/runs/r1/approve?tenant=bob", json={"call_id": "c1"}, headers=OPERATOR
            )
            answered = await s.http.post(
                "/runs/r2/answer?tenant=ann",
                json={"request_id": "q1", "text": 3},
                headers=OPERATOR,
            )
            ended = [
                await s.follow("GET", f"/runs/{run}/events", headers=user)
                for run, user in (("r1", BOB), ("r2", ANN))
            ]
            after = await get(s, "/operator/inbox")

    approval, question = inbox["items"]
    assert {**approval, "since": 0} == {
        "kind": "approval",
        "tenant_id": "bob",
        "run_id": "r1",
        "session_id": "s",
        "agent": "agent",
        "asked_by": "root",
        "call_id": "c1",
        "tool_name": "book",
        "arguments": {"price": 7},
        "deadline": 300,
        "request_id": None,
        "prompt": None,
        "schema": None,
        "since": 0,
    }
    assert (question["tenant_id"], question["prompt"]) == ("ann", "How many?")
    assert (question["request_id"], question["schema"]) == ("q1", {"type": "integer"})
    assert approval["since"] <= question["since"]
    assert (one["items"], one["total"]) == ([approval], 2)
    assert (approved.status_code, answered.status_code) == (200, 200)
    assert [events[-1]["data"]["result"] for events, _ in ended] == ["True", 3]
    assert after == {"items": [], "total": 0}


# What is done to another tenant's run


async def test_an_operator_follows_and_cancels_anybodys_run() -> None:
    async with opened() as s, waiting(s, (ANN, "ask", "r1")):
        unnamed = await s.http.post("/runs/r1/cancel", headers=OPERATOR)
        cancelled = await s.http.post("/runs/r1/cancel?tenant=ann", headers=OPERATOR)
        events, _ = await s.follow("GET", "/runs/r1/events?tenant=ann", headers=OPERATOR)
        said = (await s.http.get("/sessions/s?tenant=ann", headers=OPERATOR)).json()
        own = (await s.http.get("/sessions/s?tenant=ann", headers=ANN)).json()

    assert (unnamed.status_code, cancelled.status_code) == (404, 200)
    assert events[-1]["data"]["status"] == "cancelled"
    assert said == own
    assert said["messages"][0]["content"] == "ask"


async def test_authenticate_may_say_who_is_an_operator() -> None:
    async with opened() as s:
        await say(s, ANN, "hi", "r1")
        answers = [
            await s.http.get("/operator/runs", headers={"x-user": name})
            for name in ("chief", "ann")
        ]

    assert [answer.status_code for answer in answers] == [200, 403]
    assert answers[1].json()["code"] == "not_operator"


# What is read of the logs


def counting(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is read of which run, and behind which place."""
    asked: list[tuple[str, int]] = []
    honest = MemoryStore.read

    async def read(self: MemoryStore, tenant: str, run: str, after: int, limit: int) -> Any:
        asked.append((run, after))
        return await honest(self, tenant, run, after, limit)

    monkeypatch.setattr(MemoryStore, "read", read)
    return asked


async def test_a_log_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as s:
        await say(s, ANN, "hi", "r1")
        async with waiting(s, (ANN, "ask", "r2")):
            await get(s, "/operator/runs")
            asked = counting(monkeypatch)
            for _ in range(3):
                await get(s, "/operator/runs")
                await get(s, "/operator/inbox")

    assert asked == []


async def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_overview, "_KNOWN", 2)
    async with opened() as s:
        for number in range(4):
            await say(s, ANN, "hi", f"r{number}")
        for _ in range(2):
            assert len(await ids(s)) == 4
        known = s.app._routes._operator._overview._known

    assert len(known) == 2


def header(run_id: str = "r") -> RunHeader:
    return RunHeader(
        tenant_id="t", run_id=run_id, session_id=None, agent="a", message="m", created_at=1.0
    )


def event(type: EventType, seq: int, **data: Any) -> AgentEvent:
    return AgentEvent(type, data, seq, "r", "root", float(seq))


USAGE = {
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens"), 0),
    **{"quality": "measured", "cost": None},
}


async def looked(store: MemoryStore, *headers: RunHeader) -> list[_overview.Glance]:
    async with Orchestrator(agents=[agent], store=store) as orchestrator:
        overview = _overview.Overview(Hosting(orchestrator, ServerLimits()))
        return [await overview.look(each) for each in headers]


async def test_a_log_whose_beginning_is_gone_is_read_from_there_on() -> None:
    store = MemoryStore(max_events=2)
    await store.create(header())
    states = ("running", "waiting_for_input", "running", "error")
    for seq, status in enumerate(states):
        change = event(EventType.STATE_CHANGE, seq, old_status="", new_status=status, reason=None)
        await store.append("t", "r", seq - 1, [change])
    [glance] = await looked(store, header())

    assert (glance.status, glance.last) == ("error", 3)


async def test_a_log_of_which_nothing_is_kept_tells_nothing() -> None:
    store = MemoryStore()
    await store.create(header())
    change = event(EventType.STATE_CHANGE, 0, old_status="", new_status="running", reason=None)
    await store.append("t", "r", -1, [change])
    store._logs["t", "r"].drop_oldest()
    [glance] = await looked(store, header())

    assert (glance.status, glance.last) == ("initializing", -1)


async def test_who_looks_at_once_reads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    await store.create(header())
    await store.append("t", "r", -1, [event(EventType.DONE, 0, status="completed", usage=USAGE)])
    ended = await store.header("t", "r")
    assert ended is not None
    asked = counting(monkeypatch)
    async with Orchestrator(agents=[agent], store=store) as orchestrator:
        overview = _overview.Overview(Hosting(orchestrator, ServerLimits()))
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(overview.look, ended)

    assert len(asked) == 1


async def test_a_run_that_is_forgotten_meanwhile_is_no_failure() -> None:
    glances = await looked(MemoryStore(), header())

    assert glances[0].status == "initializing"


async def test_of_an_ended_run_whose_log_is_gone_its_header_tells() -> None:
    store = MemoryStore(max_events=1)
    done = event(EventType.DONE, 0, status="completed", usage=USAGE)
    await store.create(header())
    await store.append("t", "r", -1, [done])
    store._logs["t", "r"].drop_oldest()
    ended = await store.header("t", "r")
    assert ended is not None
    [glance] = await looked(store, ended)

    assert (glance.status, glance.ended_at) == ("completed", 0.0)


async def test_who_only_looks_keeps_no_run_alive() -> None:
    async def forever(ctx: RunContext, message: str) -> str:
        await trio.sleep_forever()
        return ""

    async with opened(forever, resume_window=0.3) as s:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(say, s, ANN, "x", "r1"))
            while not await ids(s):
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            while await ids(s, status="running"):
                await trio.sleep(0.05)
        [entry] = (await get(s, "/operator/runs"))["items"]

    assert entry["status"] == "cancelled"


async def test_a_store_that_fails_is_told_as_such() -> None:
    class Failing(MemoryStore):
        async def newest(self, *args: Any, **keys: Any) -> Any:
            raise OSError("at a secret place")

    async with opened(orchestrator=Orchestrator(agents=[agent], store=Failing())) as s:
        answer = await s.http.get("/operator/runs", headers=OPERATOR)

    assert (answer.status_code, answer.json()["code"]) == (503, "store_failed")
    assert "secret" not in answer.text
