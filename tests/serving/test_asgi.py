"""The ASGI application as a whole: its WebSocket, its life, and where it is mounted."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio
import trio.testing
import trio_websocket
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from flowtrio import (
    Orchestrator,
    ServerLimits,
)
from flowtrio.asgi import create_app
from flowtrio.testing import check_events
from tests.support.asgi import exchange
from tests.support.site import TOKEN, Talker, as_events, read_run, site, socket, talk
from tests.support.worker import serving


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
