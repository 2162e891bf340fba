"""The ASGI application on Hypercorn's trio worker, with real clients."""

from __future__ import annotations

import gc
import json
import logging
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing
import trio_websocket
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from flowtrio import (
    Agent,
    AgentEvent,
    EventType,
    MemoryStore,
    Orchestrator,
    RunContext,
    ServerLimits,
    ToolCall,
    project,
    tool,
)
from flowtrio.asgi import create_app
from flowtrio.testing import ScriptedModel, check_events
from flowtrio.wire._sse import SSEDecoder
from tests.support.asgi import exchange
from tests.support.worker import serving

TOKEN = "canary-token"


@attrs.define
class Site:
    """A served application."""

    url: str
    orchestrator: Orchestrator
    app: Any
    http: httpx.AsyncClient

    async def follow(
        self, method: str, path: str, **options: Any
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Events and ids of an answer in SSE, read to its end."""
        events, ids = [], []
        async with self.http.stream(method, path, **options) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"] == "text/event-stream"
            assert response.headers["x-accel-buffering"] == "no"
            decoder = SSEDecoder()
            async for piece in response.aiter_bytes():
                for event in decoder.receive_data(piece):
                    if event.data:
                        events.append(json.loads(event.data))
                        ids.append(event.id)
        return events, ids


async def talk(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        for word in ("hello", " ", "world"):
            await out.write(word)
    return message


class Talker:
    """An agent that goes on until it is told to stop, and notes how it ended."""

    name = "talker"

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.begun = 0

    async def __call__(self, ctx: RunContext, message: str) -> str:
        self.begun += 1
        try:
            async with ctx.message() as out:
                await out.write("one")
                await trio.sleep_forever()
        finally:
            self.ended.set()
        return ""


@asynccontextmanager
async def site(agent: Any = talk, orchestrator: Any = None, **options: Any) -> AsyncIterator[Site]:
    orchestrator = orchestrator or Orchestrator(agents=[agent])
    app = create_app(orchestrator, **options)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=20) as http:
        yield Site(url, orchestrator, app, http)


def as_events(frames: list[dict[str, Any]]) -> list[AgentEvent]:
    return [AgentEvent(**{**frame, "type": EventType(frame["type"])}) for frame in frames]


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


async def test_an_event_source_goes_on_where_it_was_and_is_told_when_all_is_over() -> None:
    async with site() as s:
        events, ids = await s.follow("GET", "/chat/stream", params={"message": "hi"})
        for place in range(len(events) - 1):
            again, _ = await s.follow(
                "GET",
                "/chat/stream",
                params={"message": "hi"},
                headers={"last-event-id": ids[place]},
            )
            assert again == events[place + 1 :]
        over = await s.http.get("/chat/stream?message=hi", headers={"last-event-id": ids[-1]})
        gone = await s.http.get("/chat/stream?message=hi", headers={"last-event-id": "other:3"})

    assert (over.status_code, over.content) == (204, b"")
    assert (gone.status_code, gone.json()["code"]) == (404, "unknown_run")


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
        start = (hosting.start, "default", "60", None, "r")
        await s.follow("GET", "/chat/stream", params={"message": "60", "run_id": "r"})
        gate = trio.Event()

        async def come_late(*_: Any) -> str:
            # We have heard that there is such a run, and meanwhile another one asks the same.
            monkeypatch.undo()
            nursery.start_soon(*start)
            while not orchestrator.attach("r").is_live:
                await trio.lowlevel.checkpoint()
            return "r"

        monkeypatch.setattr(Orchestrator, "_start_in", come_late)
        assert await hosting.start(*start[1:]) == "r"
        gate.set()

    assert not hosting._hosted


async def test_a_run_can_be_followed_from_any_place_in_lines_or_modes() -> None:
    async with site() as s:
        events, _ = await s.follow("GET", "/chat/stream", params={"message": "a", "run_id": "x"})
        later, _ = await s.follow("GET", "/runs/x/events", params={"after": "3"})
        lines = await s.http.get("/runs/x/events", headers={"accept": "application/x-ndjson"})
        values, _ = await s.follow("GET", "/runs/x/events", params={"mode": "values"})
        tail, _ = await s.follow("GET", "/runs/x/events", params={"mode": "values", "after": "3"})
        bad = [
            await s.http.get(f"/runs/x/events?{q}") for q in ("mode=loud", "after=x", "after=-2")
        ]
        ahead = await s.http.get("/runs/x/events?after=1000")

    assert later == events[4:]
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in lines.text.splitlines() if line] == events
    expected = [event.data for event in project("values", as_events(events))]
    assert [event["data"] for event in values] == expected
    assert tail == [event for event in values if event["seq"] > 3]
    assert [response.status_code for response in bad] == [400, 400, 400]
    assert (ahead.status_code, ahead.json()["code"]) == (410, "replay_gap")


async def test_a_client_that_leaves_has_its_window_and_then_its_run_is_cancelled() -> None:
    agent = Talker()
    async with site(agent, resume_window=0.1) as s:
        # Left by cancellation: httpx leaves its own generators behind on a break.
        with trio.CancelScope() as leaving:
            async with s.http.stream("GET", "/chat/stream?message=a&run_id=x") as response:
                async for _ in response.aiter_bytes():
                    if agent.begun:
                        leaving.cancel()
        with trio.fail_after(5):
            await agent.ended.wait()
        events, _ = await s.follow("GET", "/runs/x/events")

    check_events(as_events(events))
    assert events[-1]["data"]["status"] == "cancelled"
    assert "no reader came back within 0.1 s" in events[-1]["data"]["reason"]


async def test_without_a_window_a_client_that_stays_gets_all_and_one_that_leaves_cancels() -> None:
    agent = Talker()
    orchestrator = Orchestrator(agents=[talk, agent], route=lambda message, ctx: message)
    async with site(orchestrator=orchestrator, resume_window=0) as s:
        for _ in range(20):
            events, _ = await s.follow("GET", "/chat/stream?message=talk")
            assert events[-1]["data"]["status"] == "completed"
        with trio.CancelScope() as leaving:
            async with s.http.stream("GET", "/chat/stream?message=talker") as response:
                async for _ in response.aiter_bytes():
                    if agent.begun:
                        leaving.cancel()
        with trio.fail_after(5):
            await agent.ended.wait()


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
    assert after == {"session_id": "s 1", "messages": [], "runs": []}


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


async def test_another_site_starts_nothing() -> None:
    agent = Talker()
    async with site(agent, origins=["https://friend.example"]) as s:
        image = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
        evil = {"origin": "https://evil.example"}
        rebound = {"host": "evil.example"}
        neighbour = {**image, "sec-fetch-site": "same-site"}
        for headers in (image, evil, rebound, {**image, **evil}, neighbour):
            for method in ("GET", "POST"):
                response = await s.http.request(
                    method, "/chat/stream?message=a", headers=headers, json={"message": "a"}
                )
                assert response.status_code == 403, headers
        posted = await s.http.post("/runs/x/cancel", headers=image)
        erased = await s.http.delete("/sessions/x", headers=image)

    assert (posted.status_code, erased.status_code) == (403, 403)
    assert agent.begun == 0


async def test_allowed_origins_may_read_and_others_get_no_such_headers() -> None:
    friend = {"origin": "https://friend.example", "sec-fetch-site": "cross-site"}
    async with site(origins=["https://friend.example"]) as s:
        asked = await s.http.options("/chat/stream", headers=friend)
        other = await s.http.options("/chat/stream", headers={"origin": "https://evil.example"})
        answer = await s.http.get("/chat/stream?message=a", headers=friend)
        own = await s.http.get("/health")

    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "https://friend.example"
    assert "last-event-id" in asked.headers["access-control-allow-headers"]
    assert other.status_code == 403
    assert "access-control-allow-origin" not in other.headers
    assert answer.status_code == 200
    assert answer.headers["vary"] == "origin"
    assert "access-control-allow-origin" not in own.headers


async def test_a_token_is_asked_for_everywhere_but_at_the_page() -> None:
    agent = Talker()
    bearer = {"authorization": f"Bearer {TOKEN}"}
    async with site(agent, token=TOKEN, resume_window=0.01) as s:
        for path in ("/chat/stream?message=a", "/runs/x/events", "/sessions/x", "/metrics"):
            for headers in ({}, {"authorization": "Bearer wrong"}):
                refused = await s.http.get(path, headers=headers)
                assert refused.status_code == 401, path
                assert refused.headers["www-authenticate"] == "Bearer"
                assert TOKEN not in refused.text
        assert (await s.http.get("/runs/x/events", headers=bearer)).status_code == 404
        assert (await s.http.get(f"/runs/x/events?token={TOKEN}")).status_code == 404
        assert (await s.http.get("/metrics", headers=bearer)).status_code == 200
        for path in ("/", "/app.js", "/health", "/ready"):
            assert (await s.http.get(path)).status_code == 200

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


async def test_the_page_and_its_files_come_under_a_strict_policy() -> None:
    async with site() as s:
        page = await s.http.get("/")
        script = await s.http.get("/flowtrio.js")
        same = await s.http.get("/flowtrio.js", headers={"if-none-match": script.headers["etag"]})
        head = await s.http.head("/flowtrio.js")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["x-content-type-options"] == "nosniff"
    assert (same.status_code, same.content) == (304, b"")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(script.content))


async def test_metrics_count_runs_events_followers_and_times() -> None:
    async with site() as s:
        events, _ = await s.follow("GET", "/chat/stream?message=a")
        agent_metrics = await s.http.get("/metrics")

    lines = dict(line.rsplit(" ", 1) for line in agent_metrics.text.splitlines() if line[0] != "#")
    assert agent_metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert lines['flowtrio_runs_total{outcome="completed"}'] == "1"
    assert lines["flowtrio_events_total"] == str(len(events))
    assert lines["flowtrio_runs_running"] == "0"
    assert lines["flowtrio_first_token_seconds_count"] == "1"
    assert lines["flowtrio_chunk_gap_seconds_count"] == "2"
    assert lines['flowtrio_chunk_gap_seconds_bucket{le="+Inf"}'] == "2"


async def test_connections_are_limited() -> None:
    async with site(Talker(), limits=ServerLimits(connections=1), resume_window=0.01) as s:
        async with s.http.stream("GET", "/chat/stream?message=a"):
            full = await s.http.get("/chat/stream?message=b")

    assert (full.status_code, full.json()["code"]) == (503, "http_503")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answers_end_closes_the_connection_where_it_was_asked_to(version: str) -> None:
    """As nginx asks: it speaks HTTP/1.0, where the end of the connection is that of the answer."""
    async with site() as s:
        stream = await trio.open_tcp_stream("127.0.0.1", int(s.url.rpartition(":")[2]))
        async with stream:
            await stream.send_all(
                f"GET /chat/stream?message=a HTTP/{version}\r\nhost: localhost\r\n"
                "connection: close\r\n\r\n".encode()
            )
            with trio.fail_after(20):
                body = b"".join([piece async for piece in stream])

    assert b'"done"' in body


async def test_a_connection_is_used_again_after_a_stream() -> None:
    async with site() as s:
        stream = await trio.open_tcp_stream("127.0.0.1", int(s.url.rpartition(":")[2]))
        async with stream:
            for _ in range(3):
                await stream.send_all(
                    b"GET /chat/stream?message=a HTTP/1.1\r\nhost: localhost\r\n\r\n"
                )
                body = b""
                with trio.fail_after(20):
                    while not body.endswith(b"0\r\n\r\n"):
                        body += await stream.receive_some()
                assert b'"done"' in body


async def test_a_quiet_stream_is_kept_open_by_comments() -> None:
    async with site(Talker(), limits=ServerLimits(ping_interval=0.02), resume_window=0.01) as s:
        text = b""
        with trio.CancelScope() as leaving:
            async with s.http.stream("GET", "/chat/stream?message=a") as response:
                async for piece in response.aiter_bytes():
                    text += piece
                    if text.count(b": still here") >= 2:
                        leaving.cancel()

    assert text.startswith(b"retry: 1000\n\n")
    assert b"event:" not in text


# WebSocket


@asynccontextmanager
async def socket(s: Site, *protocols: str, path: str = "/chat", **headers: str) -> Any:
    url = s.url.replace("http://", "ws://") + path
    extra = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    opened = trio_websocket.open_websocket_url(
        url, subprotocols=protocols or None, extra_headers=extra
    )
    async with opened as ws:
        try:
            yield ws
        finally:
            # Where the server closed, this client leaves its socket to the collector.
            await ws.aclose()
            await trio.aclose_forcefully(ws._stream)


async def read_run(ws: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] != "done":
        frame = json.loads(await ws.get_message())
        if isinstance(frame, list):
            events += frame
        elif frame["type"] not in ("accepted", "rejected"):
            events.append(frame)
    return events


@pytest.mark.parametrize("protocols", [(), ("flowtrio.v1",), ("flowtrio.batch.v1",)])
async def test_a_websocket_speaks_the_same_frames(protocols: tuple[str, ...]) -> None:
    async with site() as s, socket(s, *protocols) as ws:
        await ws.send_message("hi")
        events = await read_run(ws)
        assert ws.subprotocol == (protocols[0] if protocols else None)

    check_events(as_events(events))


async def test_a_websocket_resumes_what_sse_began() -> None:
    async with site() as s:
        events, _ = await s.follow("GET", "/chat/stream?message=a&run_id=x")
        async with socket(s, "flowtrio.v1") as ws:
            await ws.send_message('{"type": "resume", "run_id": "x", "after": 2}')
            assert json.loads(await ws.get_message())["type"] == "accepted"
            assert await read_run(ws) == events[3:]


@pytest.mark.parametrize("mode", ["events", "values"])
async def test_whoever_has_seen_the_end_of_a_run_is_told_so_on_every_way(mode: str) -> None:
    async with site() as s:
        events, ids = await s.follow("GET", "/chat/stream?message=a&run_id=x")
        last = events[-1]["seq"]
        async with socket(s, "flowtrio.v1") as ws:
            for after in (last, last + 1):
                resume = {"type": "resume", "run_id": "x", "after": after, "mode": mode}
                await ws.send_message(json.dumps(resume))
            over, ahead = [json.loads(await ws.get_message()) for _ in range(2)]
        path = f"/runs/x/events?mode={mode}&after="
        statuses = [(await s.http.get(path + str(seq))).status_code for seq in (last, last + 1)]
        again = await s.http.get(f"/chat/stream?mode={mode}", headers={"last-event-id": ids[-1]})

    assert over == {"type": "accepted", "ref": None, "run_id": "x", "is_over": True}
    assert (ahead["type"], ahead["code"]) == ("rejected", "replay_gap")
    assert statuses == [204, 410]
    assert again.status_code == 204


@pytest.mark.parametrize(
    ("sent", "code"), [(b"bytes", 1003), ("x" * 300, 1009), ('{"type": "no"}', 1008)]
)
async def test_what_a_websocket_may_not_send_closes_it(sent: Any, code: int) -> None:
    limits = ServerLimits(message=200, bad_messages=1)
    async with site(limits=limits) as s, socket(s) as ws:
        await ws.send_message(sent)
        with pytest.raises(trio_websocket.ConnectionClosed):
            while True:
                await ws.get_message()

    assert ws.closed.code == code


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/chat", {}, 401), ("/other", {}, 404), ("/chat", {"origin": "https://evil.example"}, 403)],
)
async def test_a_websocket_is_refused_with_a_status(
    path: str, headers: dict[str, str], status: int
) -> None:
    handshake = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with site(token=TOKEN) as s:
        refused = await s.http.get(path, headers={**handshake, **headers})
        async with socket(s, f"flowtrio.token.{TOKEN}", "flowtrio.v1") as ws:
            assert ws.subprotocol == "flowtrio.v1"

    assert refused.status_code == status


async def test_a_websocket_client_that_leaves_cancels_its_run_at_once() -> None:
    agent = Talker()
    async with site(agent) as s:
        async with socket(s) as ws:
            await ws.send_message("hi")
            while not agent.begun:
                await trio.sleep(0.01)
        with trio.fail_after(5):
            await agent.ended.wait()


async def test_draining_ends_runs_and_says_goodbye() -> None:
    agent = Talker()
    async with site(agent, drain=0.05) as s, socket(s) as ws:
        await ws.send_message("hi")
        events: list[dict[str, Any]] = []
        async with trio.open_nursery() as nursery:
            while not agent.begun:
                await trio.sleep(0.01)
            nursery.start_soon(s.app.drain)
            with pytest.raises(trio_websocket.ConnectionClosed):
                while True:
                    events.append(json.loads(await ws.get_message()))
        ready = await s.http.get("/ready")
        late = await s.http.get("/chat/stream?message=b")

    assert events[-2]["data"]["code"] == "shutdown"
    assert events[-1]["type"] == "done"
    assert ws.closed.code == 1012
    assert (ready.status_code, late.status_code) == (503, 503)


# Mounted


async def test_mounted_in_starlette_without_its_lifespan() -> None:
    agent = Talker()
    app = create_app(Orchestrator(agents=[talk]))
    async with serving(Starlette(routes=[Mount("/agents", app)])) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            answer = await http.get("/agents/chat/stream?message=a")
            page = await http.get("/agents", follow_redirects=True)

    assert answer.status_code == 200
    assert b'"done"' in answer.content
    assert page.url.path == "/agents/"
    assert agent.begun == 0


async def test_mounted_in_fastapi_with_its_lifespan_chained() -> None:
    orchestrator = Orchestrator(agents=[talk])
    flow = create_app(orchestrator)
    app = FastAPI(lifespan=flow.lifespan)
    app.mount("/agents", flow)

    @app.get("/own")
    async def own() -> bool:
        return orchestrator.is_open

    async with serving(app) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/own")).json() is True
        assert b'"done"' in (await http.get("/agents/chat/stream?message=a")).content

    assert not orchestrator.is_open


# Without a server


async def test_an_address_open_to_others_needs_a_token() -> None:
    async def ask(**options: Any) -> int:
        app = create_app(Orchestrator(agents=[talk]), **options)
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/runs/x/events",
            "headers": [(b"host", b"agents.example")],
            "server": ("192.0.2.1", 80),
            "scheme": "http",
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return int(sent[0]["status"])

    assert await ask() == 403
    assert await ask(token=TOKEN) == 401
    assert await ask(insecure=True) == 404


async def test_an_unknown_scope_is_refused() -> None:
    async def never() -> Any:
        raise AssertionError

    with pytest.raises(RuntimeError, match="ASGI scope 'push'"):
        await create_app(Orchestrator(agents=[talk]))({"type": "push"}, never, never)


def test_wrong_options_are_refused() -> None:
    orchestrator = Orchestrator(agents=[talk])

    with pytest.raises(ValueError, match="not both"):
        create_app(orchestrator, token="a", authenticate=lambda request: "b")
    with pytest.raises(ValueError, match="scheme://host"):
        create_app(orchestrator, origins=["friend.example"])


async def test_an_application_leaves_an_orchestrator_open_that_it_found_open() -> None:
    orchestrator = Orchestrator(agents=[talk])
    async with orchestrator:
        async with create_app(orchestrator).lifespan():
            pass
        assert orchestrator.is_open


async def test_two_first_requests_open_the_orchestrator_once() -> None:
    orchestrator = Orchestrator(agents=[talk])
    app = create_app(orchestrator)
    answers: list[Any] = []

    async def ask() -> None:
        answers.append((await exchange(app, "/ready"))[0]["status"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)

    assert answers == [200, 200]
    assert orchestrator.is_open


async def test_an_orchestrator_that_cannot_be_opened_is_told_instead_of_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Orchestrator):
        async def __aenter__(self) -> Any:
            raise OSError("no such store")

    app = create_app(Broken(agents=[talk]))
    with trio.fail_after(20):
        health = await exchange(app, "/health")
        with pytest.raises(RuntimeError, match="expected an open orchestrator"):
            await exchange(app, "/chat/stream", query_string=b"message=a")

    assert health[0]["status"] == 200
    assert "no such store" in caplog.text


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


async def test_where_it_is_mounted_the_page_is_below_a_slash() -> None:
    app = create_app(Orchestrator(agents=[talk]))
    [start, _] = await exchange(app, "/base/agents", root_path="/base/agents")

    assert start["status"] == 307
    assert (b"location", b"agents/") in start["headers"]


async def test_metrics_are_for_loopback_where_there_is_no_token() -> None:
    app = create_app(Orchestrator(agents=[talk]))
    near = await exchange(app, "/metrics")
    far = await exchange(app, "/metrics", client=("192.0.2.7", 5))

    assert (near[0]["status"], far[0]["status"]) == (200, 403)


async def test_a_batch_of_which_a_mode_shows_nothing_sends_nothing(autojump_clock: Any) -> None:
    async def slow(ctx: RunContext, message: str) -> str:
        await trio.sleep(1)
        return message

    app = create_app(Orchestrator(agents=[slow]))
    sent = await exchange(app, "/chat/stream", query_string=b"message=a&mode=messages")
    bodies = [message["body"] for message in sent[1:]]

    assert bodies[0] == b"retry: 1000\n\n"
    assert b'"done"' in bodies[1]
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert len(bodies) == 3


async def test_an_answer_that_nobody_takes_is_cut_and_not_ended(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def take(message: Any) -> None:
        if message.get("body", b"").startswith(b"id:"):
            await trio.sleep_forever()

    app = create_app(Orchestrator(agents=[talk]), limits=ServerLimits(send=3))
    with caplog.at_level(logging.INFO, "flowtrio"):
        sent = await exchange(app, "/chat/stream", query_string=b"message=a", take=take)

    assert all(message.get("more_body", True) for message in sent)
    assert "a client took nothing for 3" in caplog.text


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


# Clients that take nothing


@pytest.mark.parametrize("path", ["/health", "/nothing", "/sessions/s", "/runs/x/events", "/page"])
async def test_a_client_that_takes_no_answer_is_left(
    path: str, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Orchestrator(agents=[talk]), limits=ServerLimits(send=3))

    async def take(message: Any) -> None:
        await trio.sleep_forever()

    with caplog.at_level(logging.INFO, "flowtrio"):
        assert await exchange(app, path, take=take) == []

    assert trio.current_time() == 3
    assert "a client took nothing for 3 s" in caplog.text


async def _stuck(type_: str, agent: Any, **scope: Any) -> tuple[list[float], list[Any]]:
    """Have a client take nothing of one kind, where no cancellation reaches what is being sent.

    Gives when the run ended, and whether anything of it is still held then.
    """
    orchestrator = Orchestrator(agents=[agent])
    limits = ServerLimits(send=3, connections=1)
    app = create_app(orchestrator, limits=limits, resume_window=5, drain=0)
    released = trio.Event()

    async def take(message: Any) -> None:
        if message["type"] == type_:
            with trio.CancelScope(shield=True):
                await released.wait()

    ask = partial(exchange, app, "/chat/stream", query_string=b"message=a&run_id=x", take=take)
    async with orchestrator, trio.open_nursery() as nursery:
        nursery.start_soon(partial(ask, **scope))
        await trio.testing.wait_all_tasks_blocked()
        hosted = weakref.ref(orchestrator._recorder.runs["default", "x"])
        await agent.ended.wait()
        times = [trio.current_time()]
        while orchestrator._recorder.runs:
            await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        held = [hosted(), app._hosting._readers or None, *orchestrator._recorder.runs]
        await app.drain()
        times.append(trio.current_time())
        released.set()
    return times, held


@pytest.mark.parametrize("type_", ["http.response.start", "http.response.body"])
async def test_a_send_that_no_cancellation_reaches_holds_no_run(
    type_: str, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As Hypercorn's, to a client that takes nothing and does not go."""
    with caplog.at_level(logging.INFO, "flowtrio"):
        times, held = await _stuck(type_, Talker())

    # The send's deadline, then the resume window.
    assert times == [8, 8]
    assert held == [None, None]
    assert caplog.text.count("a client took nothing for 3 s") == 1


async def test_a_client_that_leaves_what_it_does_not_take_has_left(autojump_clock: Any) -> None:
    left = {"type": "http.disconnect"}
    told = [{"type": "http.request", "body": b""}, left]
    times, held = await _stuck("http.response.body", Talker(), told=told)

    assert times == [5, 5]
    assert held == [None, None]


async def test_hypercorn_holds_no_run_for_a_client_that_takes_nothing() -> None:
    """All fits into one send, and the run says no more: no follower falls behind."""

    class Large(Talker):
        async def __call__(self, ctx: RunContext, message: str) -> str:
            async with ctx.message() as out:
                await out.write("x" * 30_000_000)
            return await super().__call__(ctx, message)

    agent = Large()
    async with site(agent, limits=ServerLimits(send=0.5), resume_window=0.1) as s:
        port = int(s.url.rpartition(":")[2].strip("/"))
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            request = "GET /chat/stream?message=a HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await stream.send_all(request.encode())
            with trio.fail_after(20):
                await agent.ended.wait()
                while s.orchestrator._recorder.runs:
                    await trio.sleep(0.01)
            other = await s.http.get("/health")

    assert other.status_code == 200


async def test_an_answer_that_is_taken_slowly_is_whole(autojump_clock: Any) -> None:
    """Its limit is for each piece: a batch that takes longer would only have to come again."""

    async def talks(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            await out.write("x" * 500_000)

    async def take(message: Any) -> None:
        await trio.sleep(len(message.get("body", b"")) / 40_000)

    app = create_app(Orchestrator(agents=[talks]), limits=ServerLimits(send=3))
    sent = await exchange(app, "/chat/stream", query_string=b"message=a", take=take)

    body = b"".join(message.get("body", b"") for message in sent)
    assert body.count(b"data: ") == body.count(b"id: ") > 3
    assert sent[-1]["more_body"] is False
    assert trio.current_time() > 12
