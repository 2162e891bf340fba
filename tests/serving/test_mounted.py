"""Below a path of another application, as the guide shows it for each framework."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import pytest
import trio
from websockets.sync.client import connect

from flowtrio import AgentEvent, EventType, Orchestrator, RunContext
from flowtrio.page._files import read_page
from flowtrio.testing import check_events
from tests.support.blocks import marked_block
from tests.support.leaving import Endless, check_ends_within_a_second
from tests.support.worker import serving

pytestmark = pytest.mark.parametrize("framework", ["fastapi", "starlette", "quart"])


async def talk(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        for word in ("hello", " ", "world"):
            await out.write(word)
    return message


@attrs.define
class Mounted:
    """The guide's application."""

    orchestrator: Orchestrator
    agents: Any
    app: Any

    @classmethod
    def of(cls, framework: str, agent: Any) -> Mounted:
        program: dict[str, Any] = {"agent": agent, "__name__": "guide"}
        exec(marked_block("serving", framework), program)
        return cls(program["orchestrator"], program["agents"], program["app"])


@asynccontextmanager
async def site(mounted: Mounted) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(mounted.app) as url, httpx.AsyncClient(base_url=url, timeout=20) as http:
        yield http


def events_of(text: str) -> list[AgentEvent]:
    """The events of an answer in SSE."""
    frames = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    return [AgentEvent(**{**frame, "type": EventType(frame["type"])}) for frame in frames]


async def test_every_address_is_below_the_path(framework: str) -> None:
    async with site(Mounted.of(framework, talk)) as http:
        page = await http.get("/agents", follow_redirects=True)
        files = {name: await http.get(f"/agents/{name}") for name in read_page()}
        asked = {"message": "hi", "run_id": "r-1", "session_id": "s/1"}
        told = await http.get("/agents/chat/stream", params=asked)
        posted = await http.post("/agents/chat/stream", json={"message": "hi"})
        later = await http.get("/agents/chat/stream", headers={"last-event-id": "r-1:3"})
        followed = await http.get("/agents/runs/r-1/events?after=3")
        late = await http.post("/agents/runs/r-1/cancel")
        session = await http.get("/agents/sessions/s%2F1")
        metrics = await http.get("/agents/metrics")
        health = [await http.get(f"/agents/{name}") for name in ("health", "ready")]
        outside = [await http.get(path) for path in ("/", "/health", "/chat/stream?message=a")]

    assert page.url.path == "/agents/"
    assert page.text == read_page()["index.html"].body.decode()
    for name, file in read_page().items():
        assert (files[name].status_code, files[name].content) == (200, file.body), name
    for answer in (told, posted):
        check_events(events_of(answer.text))
    assert events_of(later.text) == events_of(followed.text) == events_of(told.text)[4:]
    assert (late.status_code, late.json()["code"]) == (404, "unknown_run")
    assert [run["run_id"] for run in session.json()["runs"]] == ["r-1"]
    assert 'flowtrio_runs_total{outcome="completed"} 2' in metrics.text
    assert [answer.json() for answer in health] == [{"status": "ok"}, {"status": "ready"}]
    # What is not below it is the framework's.
    assert [answer.status_code for answer in outside] == [404] * 3
    assert not any("http_404" in answer.text for answer in outside)


async def test_a_websocket_talks_and_resumes_below_the_path(framework: str) -> None:
    def talk_twice(url: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        with connect(url, subprotocols=["flowtrio.v1"]) as websocket:
            websocket.send(json.dumps({"type": "message", "message": "hi", "run_id": "r"}))
            first = read_run(websocket)
        with connect(url, subprotocols=["flowtrio.v1"]) as websocket:
            websocket.send(json.dumps({"type": "resume", "run_id": "r", "after": 2}))
            return first, read_run(websocket)

    def read_run(websocket: Any) -> list[dict[str, Any]]:
        frames = [json.loads(websocket.recv(timeout=20))]
        while frames[-1]["type"] != "done":
            frames.append(json.loads(websocket.recv(timeout=20)))
        assert frames[0]["type"] == "accepted"
        return frames[1:]

    async with serving(Mounted.of(framework, talk).app) as url:
        address = f"{url.replace('http', 'ws')}/agents/chat"
        first, later = await trio.to_thread.run_sync(talk_twice, address)

    assert [frame["seq"] for frame in first] == list(range(len(first)))
    assert later == first[3:]


async def test_the_lifespan_opens_the_orchestrator_and_ends_runs_in_good_order(
    framework: str,
) -> None:
    agent = Endless()
    mounted = Mounted.of(framework, agent)
    # The guide's has the default, which is long for a run that does not end.
    mounted.agents._drain = 0.05
    async with site(mounted) as http:
        was_open = mounted.orchestrator.is_open
        with trio.CancelScope() as leaving:
            async with http.stream("GET", "/agents/chat/stream?message=a&run_id=r") as answer:
                async for piece in answer.aiter_text():
                    if "message_chunk" in piece:
                        leaving.cancel()
        await agent.wait_begun()

        assert not agent.ended.is_set()

    events = await mounted.orchestrator.store.read("default", "r", -1, 100)

    assert was_open, "it was the first request that opened it"
    assert not mounted.orchestrator.is_open
    check_events(events)
    assert events[-2].data["code"] == "shutdown"


async def test_a_client_that_leaves_cancels_its_run(framework: str) -> None:
    def talk_and_leave(url: str) -> None:
        with connect(url) as websocket:
            websocket.send("hello")
            while json.loads(websocket.recv(timeout=20))["type"] != "message_chunk":
                pass

    agent = Endless()
    async with serving(Mounted.of(framework, agent).app) as url:
        address = f"{url.replace('http', 'ws')}/agents/chat"
        await trio.to_thread.run_sync(talk_and_leave, address)
        await check_ends_within_a_second(agent, trio.current_time())
