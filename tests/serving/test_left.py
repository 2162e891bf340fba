"""A server whose `send` raises for a client that has gone, as ASGI tells it to."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import Orchestrator, RunContext
from flowtrio.asgi import create_app
from flowtrio.serving.http import _request
from tests.support.asgi import Message, exchange

CASES: dict[str, dict[str, Any]] = {
    "sse": {"path": "/chat/stream", "query_string": b"message=hi"},
    "answer": {"path": "/sessions/s"},
    "refusal": {"path": "/nothing"},
    "websocket": {
        "path": "/chat",
        "kind": "websocket",
        "told": [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hi"}],
    },
    "goodbye": {
        "path": "/chat",
        "kind": "websocket",
        "told": [{"type": "websocket.connect"}, {"type": "websocket.receive", "bytes": b"hi"}],
    },
    "denial": {
        "path": "/other",
        "kind": "websocket",
        "told": [{"type": "websocket.connect"}],
        "extensions": {"websocket.http.response": {}},
    },
}


async def talk(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        for number in range(5):
            await out.write(f"{number} ")
    return message


async def leave_at(case: str, place: int) -> int:
    """Have the client gone at the message of this number; gives how many were sent before."""
    sent = 0

    async def take(message: Message) -> None:
        nonlocal sent
        if sent == place:
            raise BrokenPipeError("the client has gone")
        sent += 1

    orchestrator = Orchestrator(agents=[talk])
    async with orchestrator:
        app = create_app(orchestrator, resume_window=0, drain=0)
        await exchange(app, **CASES[case], take=take)
        assert app._hosting.connections == 0
    return sent


@pytest.mark.parametrize("case", CASES)
async def test_a_client_that_has_gone_is_no_error_wherever_it_goes(
    case: str, autojump_clock: Any
) -> None:
    for place in range(4):
        assert await leave_at(case, place) <= place


async def test_a_planted_silence_is_found(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server raises goes through as it is."""
    monkeypatch.setattr("flowtrio.serving.http.asgi.telling_who_left", lambda send: send)

    with pytest.raises(BaseException) as raised:
        await leave_at("sse", 2)

    assert _request.Left not in {type(raised.value)}
    assert isinstance(raised.value, ExceptionGroup | BrokenPipeError)
