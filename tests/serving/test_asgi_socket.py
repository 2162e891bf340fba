"""One WebSocket under ASGI, without a server."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from flowtrio import Orchestrator, RunContext, ServerLimits
from flowtrio.asgi import create_app
from tests.support.asgi import exchange

CONNECT = {"type": "websocket.connect"}


async def talk(ctx: RunContext, message: str) -> str:
    return message


async def test_a_client_that_takes_nothing_is_left(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Orchestrator(agents=[talk]), limits=ServerLimits(send=3))

    async def take(message: Any) -> None:
        if message["type"] == "websocket.send":
            await trio.sleep_forever()

    told = [CONNECT, {"type": "websocket.receive", "text": "hi"}]
    with caplog.at_level(logging.INFO, "flowtrio"):
        sent = await exchange(app, "/chat", kind="websocket", told=told, take=take)

    assert [message["type"] for message in sent] == ["websocket.accept"]
    assert trio.current_time() >= 3
    assert "a client took nothing for 3" in caplog.text


async def test_a_ping_is_answered(autojump_clock: Any) -> None:
    sent = []

    async def take(message: Any) -> None:
        sent.append(message)

    told = [CONNECT, {"type": "websocket.receive", "text": '{"type": "ping", "ref": 1}'}]
    app = create_app(Orchestrator(agents=[talk]))
    with trio.move_on_after(1):
        await exchange(app, "/chat", kind="websocket", told=told, take=take)

    assert [json.loads(message["text"]) for message in sent if "text" in message] == [
        {"type": "accepted", "ref": 1, "run_id": None}
    ]


async def test_a_client_that_takes_something_too_late_is_told(autojump_clock: Any) -> None:
    """Where a server shields its sends, as Hypercorn does; else it would tell 1011, a failure."""
    app = create_app(Orchestrator(agents=[talk]), limits=ServerLimits(send=3))

    async def take(message: Any) -> None:
        if message["type"] == "websocket.send":
            with trio.CancelScope(shield=True):
                await trio.sleep(4)

    told = [CONNECT, {"type": "websocket.receive", "text": "hi"}]
    sent = await exchange(app, "/chat", kind="websocket", told=told, take=take)

    types = [message["type"] for message in sent]
    assert types == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[-1]["code"] == 1013


async def test_a_client_that_leaves_in_the_midst_of_a_send_is_told_nothing() -> None:
    app = create_app(Orchestrator(agents=[talk]))
    is_sending = trio.Event()

    async def take(message: Any) -> None:
        if message["type"] == "websocket.send":
            is_sending.set()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()

    told = [
        CONNECT,
        {"type": "websocket.receive", "text": "hi"},
        is_sending,
        {"type": "websocket.disconnect", "code": 1001},
    ]
    sent = await exchange(app, "/chat", kind="websocket", told=told, take=take)

    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send"]


async def test_a_goodbye_is_whole_though_the_server_says_in_its_midst_that_all_is_over() -> None:
    """As Hypercorn does: what it does behind that, such as closing the connection, is not cut."""
    app = create_app(Orchestrator(agents=[talk]))
    is_over = trio.Event()
    sent: list[Any] = []

    async def receive() -> Any:
        if not sent:
            return {"type": "websocket.connect"}
        if len(sent) == 1:
            return {"type": "websocket.receive", "bytes": b"x"}
        raise AssertionError("nobody reads behind a refusal")

    async def send(message: Any) -> None:
        if message["type"] == "websocket.close":
            is_over.set()
            await trio.testing.wait_all_tasks_blocked()
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/chat",
        "server": None,
        "headers": [(b"host", b"localhost")],
    }
    await app(scope, receive, send)

    assert sent[-1] == {"type": "websocket.close", "code": 1003, "reason": "expected text"}


async def test_draining_closes_though_the_reader_is_told_of_it_first() -> None:
    app = create_app(Orchestrator(agents=[talk]), drain=0.01)
    disconnected = trio.Event()
    is_accepted = trio.Event()
    sent: list[Any] = []

    async def receive() -> Any:
        if not is_accepted.is_set():
            return CONNECT
        await disconnected.wait()
        return {"type": "websocket.disconnect", "code": 1012}

    async def send(message: Any) -> None:
        if message["type"] == "websocket.accept":
            is_accepted.set()
        elif message["type"] == "websocket.close":
            disconnected.set()
            await trio.testing.wait_all_tasks_blocked()
        sent.append(message)

    scope = {"type": "websocket", "path": "/chat", "server": None, "headers": [(b"host", b"x")]}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, scope, receive, send)
        await is_accepted.wait()
        await trio.testing.wait_all_tasks_blocked()
        await app.drain()

    assert sent[-1]["code"] == 1012


async def test_a_draining_application_takes_no_more() -> None:
    app = create_app(Orchestrator(agents=[talk]), drain=0.01)
    await app.drain()
    [closed] = await exchange(app, "/chat", kind="websocket", told=[CONNECT])
    extended = {"websocket.http.response": {}}
    start, body = await exchange(
        app, "/chat", kind="websocket", told=[CONNECT], extensions=extended
    )

    assert closed == {
        "type": "websocket.close",
        "code": 1008,
        "reason": "the server is shutting down",
    }
    assert (start["status"], body["body"]) == (503, b"the server is shutting down")


@pytest.mark.parametrize("subprotocols", [[], ["flowtrio.v1"]])
async def test_a_send_that_no_cancellation_reaches_holds_no_run(
    subprotocols: list[str], autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As Hypercorn's, to a client that takes nothing and does not go."""
    ended, released = trio.Event(), trio.Event()

    async def waits(ctx: RunContext, message: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    orchestrator = Orchestrator(agents=[waits])
    app = create_app(orchestrator, limits=ServerLimits(send=3), resume_window=5)

    async def take(message: Any) -> None:
        if message["type"] == "websocket.send":
            with trio.CancelScope(shield=True):
                await released.wait()

    told = [CONNECT, {"type": "websocket.receive", "text": "hi"}]
    serve = partial(exchange, app, "/chat", kind="websocket", told=told, take=take)
    with caplog.at_level(logging.INFO, "flowtrio"):
        async with orchestrator, trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve, subprotocols=subprotocols))
            with trio.fail_after(9):
                await ended.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert not orchestrator._recorder.runs
            assert not app._hosting.runs
            assert not app._hosting.sessions
            assert trio.current_time() == pytest.approx(8 if subprotocols else 3)
            released.set()

    assert "a client took nothing for 3 s" in caplog.text
