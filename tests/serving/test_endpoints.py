"""What is done at each address, with real clients."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from flowtrio import (
    Agent,
    MemoryStore,
    Orchestrator,
    RunContext,
    ServerLimits,
    ToolCall,
    tool,
)
from flowtrio.abc import Caller
from flowtrio.asgi import create_app
from flowtrio.testing import ScriptedModel, check_events
from tests.support.asgi import exchange
from tests.support.site import Talker, as_events, site, talk


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_message_is_answered_by_the_runs_whole_log(method: str) -> None:
    asked = {"message": "hi", "run_id": "r-1", "session_id": "s"}
    options: dict[str, Any] = {"params": asked} if method == "GET" else {"json": asked}
    async with site() as s:
        events, ids = await s.follow(method, "/chat/stream", **options)

    check_events(as_events(events))
    assert ids == [f"r-1:{seq}" for seq in range(len(events))]
    assert events[0]["data"]["message"] == "hi"
    assert events[-1]["data"]["result"] == "hi"


@pytest.mark.parametrize(
    "odd",
    [
        *("r-1", "r-1:", ":3", "r-1:x", "r-1:-1", "r-1:1.5", "r-1:1e3", "3", "*", "r-1:0x3"),
        *("r-1:\xb2", "\xff\xfe", "r-1:" + "9" * 5000, "other:3"),
    ],
)
@pytest.mark.parametrize("path", ["/chat/stream?message=a&run_id=r-1", "/runs/r-1/events"])
async def test_an_odd_last_event_id_is_told_and_starts_nothing(odd: str, path: str) -> None:
    agent = Talker()
    async with site(agent) as s:
        refused = await s.http.get(path, headers={"last-event-id": odd.encode("latin-1")})  # type: ignore[dict-item]

    assert (refused.status_code, agent.begun) == (400, 0)
    assert "Last-Event-ID" in refused.json()["error"]


async def test_an_empty_last_event_id_says_that_nothing_was_seen() -> None:
    async with site() as s:
        events, _ = await s.follow("GET", "/chat/stream?message=a", headers={"last-event-id": ""})

    check_events(as_events(events))


async def test_starting_twice_runs_once() -> None:
    agent = Talker()
    async with site(agent) as s:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(
                    partial(s.follow, "POST", "/chat/stream", json={"message": "a", "run_id": "x"})
                )
            while not agent.begun:
                await trio.sleep(0.01)
            await s.http.post("/runs/x/cancel")

    assert agent.begun == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_another_message_under_a_runs_id_is_409(method: str) -> None:
    def asked(message: str) -> dict[str, Any]:
        query = {"message": message, "run_id": "x"}
        return {"params": query} if method == "GET" else {"json": query}

    async with site() as s:
        log, _ = await s.follow(method, "/chat/stream", **asked("1"))
        refused = await s.http.request(method, "/chat/stream", **asked("2"))
        again, _ = await s.follow(method, "/chat/stream", **asked("1"))

    assert (refused.status_code, refused.json()["code"]) == (409, "run_exists")
    assert again == log


async def test_requests_that_race_to_start_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a server keeps of a run that is over, it would wait for when it stops."""
    gate = trio.Event()
    gate.set()

    class Slow(MemoryStore):
        async def create(self, header: Any) -> bool:
            await gate.wait()
            return await super().create(header)

    orchestrator = Orchestrator(agents=[talk], store=Slow())
    async with site(orchestrator=orchestrator) as s, trio.open_nursery() as nursery:
        hosting = s.app._hosting

        async def start() -> str:
            async with hosting.starting("default", "60", None, "r") as started:
                return str(started.run_id)

        await s.follow("GET", "/chat/stream", params={"message": "60", "run_id": "r"})
        gate = trio.Event()

        @asynccontextmanager
        async def come_late(*_: Any, **__: Any) -> AsyncIterator[Any]:
            # We have heard that there is such a run, and meanwhile another one asks the same.
            monkeypatch.undo()
            nursery.start_soon(start)
            while not orchestrator.attach("r").is_live:
                await trio.lowlevel.checkpoint()
            yield SimpleNamespace(run_id="r")

        monkeypatch.setattr(Orchestrator, "_starting", come_late)
        assert await start() == "r"
        gate.set()

    assert not hosting._hosted


async def test_controls_reach_the_run_and_unknown_runs_are_told() -> None:
    async def asks(ctx: RunContext, message: str) -> Any:
        return [await ctx.approve("pay", {"euros": 3}), await ctx.ask("How many?")]

    async with site(asks) as s, trio.open_nursery() as nursery:
        seen: list[Any] = []

        async def follow() -> None:
            events, _ = await s.follow("GET", "/chat/stream?message=a&run_id=x")
            seen.extend(events)

        nursery.start_soon(follow)
        for control, keys, needed in (
            ("approve", {"call_id": "c1"}, "waiting_for_approval"),
            ("answer", {"request_id": "q1", "text": "two"}, "waiting_for_input"),
        ):
            with trio.fail_after(10):
                while True:
                    hosted = s.orchestrator._recorder.find("default", "x")
                    if hosted is not None and hosted.stream.status == needed:
                        break
                    await trio.sleep(0.01)
            taken = await s.http.post(f"/runs/x/{control}", json=keys)
            assert taken.json() == {"type": "accepted", "ref": None, "run_id": "x"}
        while not seen:
            await trio.sleep(0.01)
        late = await s.http.post("/runs/x/cancel")
        wrong = [
            await s.http.post("/runs/x/approve", json={"call": 1}),
            await s.http.post("/runs/x/approve", content=b"[1]"),
            await s.http.post("/runs/x/approve", content=b"{"),
            await s.http.post("/runs/x/approve", json={"run_id": "y", "call_id": "c"}),
        ]

    assert seen[-1]["data"]["result"] == [True, "two"]
    assert (late.status_code, late.json()["code"]) == (404, "unknown_run")
    assert [(r.status_code, r.json()["code"]) for r in wrong] == [(400, "bad_frame")] * 4


NOTHING = {"messages": [], "runs": [], "title": None, "branched_from": None}
"""What is told of a conversation that there is not."""


async def test_conversations_can_be_read_and_forgotten() -> None:
    model = ScriptedModel("first", "second")
    async with site(Agent(llm_client=model)) as s:
        for text in ("one", "two"):
            await s.follow("POST", "/chat/stream", json={"message": text, "session_id": "s 1"})
        said = (await s.http.get("/sessions/s%201")).json()
        gone = await s.http.delete("/sessions/s%201")
        after = (await s.http.get("/sessions/s%201")).json()

    assert [m["content"] for m in said["messages"]] == ["one", "first", "two", "second"]
    assert [run["status"] for run in said["runs"]] == ["completed", "completed"]
    assert gone.status_code == 204
    assert after == {**NOTHING, "session_id": "s 1"}


async def test_what_is_under_way_in_a_forgotten_conversation_is_cancelled() -> None:
    async def agent(ctx: RunContext, message: str) -> None:
        await trio.sleep_forever()

    told: dict[str, Any] = {}

    async with site(agent) as s, trio.open_nursery() as nursery:

        async def ask(run_id: str) -> None:
            body = {"message": "hello", "session_id": "s", "run_id": run_id}
            told[run_id] = await s.follow("POST", "/chat/stream", json=body)

        nursery.start_soon(ask, "first")
        nursery.start_soon(ask, "in-line")
        while len((await s.http.get("/sessions/s")).json()["runs"]) < 2:
            await trio.sleep(0.01)
        gone = await s.http.delete("/sessions/s")
        after = (await s.http.get("/sessions/s")).json()

    assert gone.status_code == 204
    assert after == {**NOTHING, "session_id": "s"}
    ends = [events[-1]["data"]["status"] for events, _ in told.values()]
    assert ends == ["cancelled"] * 2


@pytest.mark.parametrize("debug", [False, True])
async def test_conversations_do_not_tell_what_a_tool_raised(debug: bool) -> None:
    @tool
    async def fails() -> str:
        """Fail."""
        raise ValueError("canary")

    model = ScriptedModel([ToolCall(id="1", name="fails", arguments={})], "sorry")
    async with site(Agent(llm_client=model, tools=[fails]), debug=debug) as s:
        await s.follow("POST", "/chat/stream", json={"message": "go", "session_id": "s"})
        said = (await s.http.get("/sessions/s")).json()["messages"]

    assert said[2]["content"] == ("error: ValueError: canary" if debug else "error: ValueError")


async def test_busy_tenants_are_429() -> None:
    agent = Talker()
    orchestrator = Orchestrator(agents=[agent], runs_per_tenant=1)
    async with site(orchestrator=orchestrator, resume_window=0.01) as s:
        async with s.http.stream("GET", "/chat/stream?message=a"):
            busy = await s.http.get("/chat/stream?message=b")

    assert (busy.status_code, busy.json()["code"]) == (429, "tenant_busy")


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/chat/stream", {}, 400),
        ("GET", "/chat/stream?message=", {}, 400),
        ("GET", "/chat/stream?message=a&mode=loud", {}, 400),
        ("GET", "/chat/stream?message=a&run_id=a%0Ab", {}, 400),
        ("POST", "/chat/stream", {"content": b"message=a"}, 415),
        ("POST", "/chat/stream", {"json": {"message": "a", "x": 1}}, 400),
        ("POST", "/chat/stream", {"json": {"message": "a" * 3000}}, 413),
        ("POST", "/chat/stream", {"json": {"message": [[[[[[]]]]]]}}, 400),
        ("PUT", "/chat/stream", {}, 405),
        ("POST", "/runs/x/events", {}, 405),
        ("POST", "/runs/x/explode", {}, 404),
        ("GET", "/nothing", {}, 404),
        ("GET", "/../flowtrio.js/..%2fx", {}, 404),
        ("POST", "/metrics", {}, 405),
    ],
)
async def test_nonsense_is_refused_and_starts_nothing(
    method: str, path: str, options: Any, status: int
) -> None:
    agent = Talker()
    async with site(agent, limits=ServerLimits(message=2048, json_depth=4)) as s:
        response = await s.http.request(method, path, **options)

    assert response.status_code == status
    assert set(response.json()) == {"code", "error"}
    assert agent.begun == 0


async def test_tenants_do_not_see_each_other() -> None:
    def who(request: Any) -> str | None:
        name: str | None = request.headers.get("x-user")
        if name == "broken":
            raise RuntimeError("secret of ours")
        return name

    def of(name: str) -> dict[str, str]:
        return {"x-user": name}

    async with site(authenticate=who) as s:
        await s.follow("GET", "/chat/stream?message=a&run_id=x&session_id=s", headers=of("ann"))
        other = await s.http.get("/runs/x/events", headers=of("bob"))
        unknown = await s.http.get("/runs/y/events", headers=of("bob"))
        session = await s.http.get("/sessions/s", headers=of("bob"))
        nobody = await s.http.get("/runs/x/events")
        broken = await s.http.get("/runs/x/events", headers=of("broken"))
        own, _ = await s.follow("GET", "/chat/stream?message=b&run_id=x", headers=of("bob"))

    assert (other.status_code, other.json()) == (unknown.status_code, unknown.json())
    assert session.json()["messages"] == []
    assert nobody.status_code == 401
    assert broken.status_code == 500
    assert "secret" not in broken.text
    assert own[0]["data"]["message"] == "b"


def measured(text: str) -> dict[str, float]:
    """What is told, by name and labels."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    return {name: float(value) for name, value in lines}


async def test_metrics_count_runs_events_followers_and_times() -> None:
    async with site() as s:
        events, _ = await s.follow("GET", "/chat/stream?message=a")
        agent_metrics = await s.http.get("/metrics")

    lines = measured(agent_metrics.text)
    assert agent_metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert lines['flowtrio_runs_total{outcome="completed"}'] == 1
    assert lines["flowtrio_events_total"] == len(events)
    assert lines["flowtrio_runs_running"] == 0
    assert lines["flowtrio_first_token_seconds_count"] == 1
    assert lines["flowtrio_chunk_gap_seconds_count"] == 2
    assert lines['flowtrio_chunk_gap_seconds_bucket{le="+Inf"}'] == 2


async def test_metrics_tell_what_models_and_tools_did() -> None:
    @tool
    def fails(n: int) -> None:
        """Fail."""
        raise ValueError("secret words")

    class Model(ScriptedModel):
        model = "m"

    away = RuntimeError("away")
    model = Model(["Well, ", ToolCall("1", "fails", {"n": 1})], "sorry", [away])
    prices = {"m": {"prompt": "1", "completion": "2"}}
    agent = Agent(llm_client=model, tools=[fails])
    async with site(orchestrator=Orchestrator(agents=[agent], prices=prices)) as s:
        await s.follow("GET", "/chat/stream?message=a")
        await s.follow("GET", "/chat/stream?message=b")
        lines = measured((await s.http.get("/metrics")).text)
        openmetrics = await s.http.get(
            "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
        )

    assert lines['flowtrio_model_tokens_total{kind="prompt",model="m"}'] == 20
    assert lines['flowtrio_model_tokens_total{kind="completion",model="m"}'] == 10
    assert lines['flowtrio_model_cost_total{model="m"}'] == pytest.approx(0.00004)
    assert lines['flowtrio_model_replies_total{finish_reason="stop",model="m"}'] == 1
    assert lines['flowtrio_model_replies_total{finish_reason="tool_calls",model="m"}'] == 1
    assert lines['flowtrio_model_first_token_seconds_count{model="m"}'] == 2
    assert lines['flowtrio_tool_calls_total{outcome="error",tool="fails"}'] == 1
    assert lines['flowtrio_tool_seconds_count{tool="fails"}'] == 1
    assert lines['flowtrio_run_errors_total{code="model_failed",source="model"}'] == 1
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")
    assert "secret" not in openmetrics.text


async def test_metrics_name_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "flowtrio.serving._metrics", raising=False)
    answer = await exchange(create_app(Orchestrator(agents=[talk])), "/metrics")

    assert answer[0]["status"] == 501
    assert b"pip install 'flowtrio[server]'" in answer[1]["body"]


async def test_metrics_are_for_loopback_where_there_is_no_token() -> None:
    app = create_app(Orchestrator(agents=[talk]))
    near = await exchange(app, "/metrics")
    far = await exchange(app, "/metrics", client=("192.0.2.7", 5))

    assert (near[0]["status"], far[0]["status"]) == (200, 403)


async def test_metrics_are_for_operators_where_there_are_tenants() -> None:
    async def status(tenant: Any) -> int:
        app = create_app(Orchestrator(agents=[talk]), authenticate=lambda request: tenant)
        return int((await exchange(app, "/metrics"))[0]["status"])

    assert await status("ann") == 403
    assert await status(Caller("ann", is_operator=True)) == 200


async def test_a_client_that_leaves_within_its_request_starts_nothing() -> None:
    agent = Talker()
    sent = await exchange(
        create_app(Orchestrator(agents=[agent])),
        "/chat/stream",
        method="POST",
        headers=[("content-type", "application/json")],
        told=[{"type": "http.disconnect"}],
    )

    assert (sent, agent.begun) == ([], 0)


async def test_a_draining_application_goes_on_with_runs_that_are_there(autojump_clock: Any) -> None:
    agent = Talker()
    orchestrator = Orchestrator(agents=[agent])
    app = create_app(orchestrator)
    asked: dict[str, Any] = {"query_string": b"message=a&run_id=x"}
    command = json.dumps({"type": "message", "message": "a", "run_id": "x"})
    opening = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": command}]
    sent: list[Any] = []

    async def take(message: Any) -> None:
        app._hosting.is_draining = True
        sent.append(message)

    async with orchestrator, trio.open_nursery() as nursery:
        nursery.start_soon(partial(exchange, app, "/chat/stream", **asked))
        await trio.testing.wait_all_tasks_blocked()
        chat = partial(exchange, app, "/chat", kind="websocket", told=opening, take=take)
        nursery.start_soon(chat)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(partial(exchange, app, "/chat/stream", take=take, **asked))
        await trio.testing.wait_all_tasks_blocked()
        orchestrator.attach("x").cancel()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert [m["status"] for m in sent if m["type"] == "http.response.start"] == [200]
    texts = [json.loads(m["text"])["type"] for m in sent if "text" in m]
    assert (texts[0], texts[-1], agent.begun) == ("accepted", "done", 1)
