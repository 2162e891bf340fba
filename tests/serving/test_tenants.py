"""What is another tenant's is answered, byte for byte, like what never was."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from flowtrio import RunContext, ServerLimits
from flowtrio.serving.commands._session import Session
from tests.support.front_door import open_door
from tests.support.ws_peer import Peer, Served, connect, open_server, raw, read_all

MINE, THEIRS, NOBODYS = "run-of-mine", "run-of-hers", "run-nowhere"
"""Ids of one length, so that answers can be compared that repeat them."""


def authenticate(request: Any) -> str | None:
    name: str | None = request.headers.get("x-user")
    return name


async def agent(ctx: RunContext, message: str) -> str:
    """Wait for a person where asked to, else say it back."""
    async with ctx.message() as out:
        await out.write(message)
    if message == "wait":
        return await ctx.ask("How many?")
    return message


@asynccontextmanager
async def opened(door: str) -> AsyncIterator[Served]:
    """A server in which Ann has one run that waits and one that has ended."""
    opens: Any = open_server if door == "listener" else open_door
    limits = ServerLimits(runs_per_connection=50)
    async with opens(agent, authenticate=authenticate, limits=limits) as served:
        async with connect(served, headers=[("x-user", "ann")]) as ann:
            await ann.send(type="message", message="wait", run_id=THEIRS, session_id="s-of-hers")
            await ann.until("input_required")
            yield served


COMMANDS: list[dict[str, Any]] = [
    {"type": "cancel"},
    {"type": "cancel_tool", "call_id": "c1"},
    {"type": "approve", "call_id": "c1"},
    {"type": "deny", "call_id": "c1"},
    {"type": "answer", "request_id": "q1", "text": "7"},
    {"type": "resume", "after": -1},
    {"type": "resume", "after": 3},
    {"type": "resume", "after": 1000},
]


async def told(peer: Peer, run_id: str) -> list[str]:
    """What each command on a run is answered, the id aside."""
    answers = []
    for command in COMMANDS:
        await peer.send({**command, "run_id": run_id, "ref": 1})
        with trio.fail_after(10):
            text = await peer.connection.get_message()
        answers.append(text.replace(run_id, "RUN"))
    return answers


@pytest.mark.parametrize("door", ["listener", "http"])
async def test_commands_on_another_tenants_run(door: str) -> None:
    async with opened(door) as served, connect(served, headers=[("x-user", "bob")]) as bob:
        others, unknown = await told(bob, THEIRS), await told(bob, NOBODYS)

    assert others == unknown
    assert {json.loads(text)["code"] for text in others} == {"unknown_run"}


@pytest.mark.parametrize("door", ["listener", "http"])
async def test_another_tenants_run_is_no_obstacle_to_ones_own(door: str) -> None:
    """Ids are each tenant's own, and so are conversations."""
    async with opened(door) as served, connect(served, headers=[("x-user", "bob")]) as bob:
        keys = {"type": "message", "message": "hi", "session_id": "s-of-hers"}
        for run_id in (THEIRS, NOBODYS):
            [accepted, *events] = await bob.ask(**keys, run_id=run_id)
            assert (accepted["type"], events[0]["data"]["message"]) == ("accepted", "hi")
            assert events[-1]["data"]["result"] == "hi"


async def test_a_server_that_told_them_apart_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: a refusal that knows more than it should say."""
    honest = Session._reject

    async def telling(self: Session, ref: Any, code: str, error: str) -> None:
        known = {run_id for _, run_id in self.hosting.orchestrator._recorder.runs}
        await honest(self, ref, code, error + "!" * len(known & {THEIRS}) * is_hers)

    async with opened("listener") as served, connect(served, headers=[("x-user", "bob")]) as bob:
        monkeypatch.setattr(Session, "_reject", telling)
        is_hers = True
        others = await told(bob, THEIRS)
        is_hers = False
        assert await told(bob, NOBODYS) != others


async def ask(served: Served, user: str, method: str, path: str, body: bytes = b"") -> bytes:
    head = [
        *(f"{method} {path} HTTP/1.1", "host: localhost", f"x-user: {user}"),
        *("content-type: application/json", f"content-length: {len(body)}", "", ""),
    ]
    async with raw(served) as stream:
        await stream.send_all("\r\n".join(head).encode() + body)
        answer = await read_all(stream)
    return re.sub(rb"(?i)date: [^\r]*\r\n", b"", answer)


REQUESTS = [
    ("GET", "/runs/RUN/events", b""),
    ("GET", "/runs/RUN/events?after=3", b""),
    ("GET", "/runs/RUN/events?after=100000", b""),
    ("GET", "/runs/RUN/events?mode=values", b""),
    ("POST", "/runs/RUN/cancel", b""),
    ("POST", "/runs/RUN/cancel_tool", b'{"call_id": "c1"}'),
    ("POST", "/runs/RUN/approve", b'{"call_id": "c1"}'),
    ("POST", "/runs/RUN/answer", b'{"request_id": "q1", "text": "7"}'),
    ("GET", "/sessions/SESSION", b""),
    ("DELETE", "/sessions/SESSION", b""),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_requests_for_what_is_another_tenants(method: str, path: str, body: bytes) -> None:
    async with opened("http") as served:
        others, unknown = [
            (
                await ask(
                    served, "bob", method, path.replace("RUN", run).replace("SESSION", name), body
                )
            )
            .replace(run.encode(), b"RUN")
            .replace(name.encode(), b"SESSION")
            for run, name in ((THEIRS, "s-of-hers"), (NOBODYS, "s-nowhere"))
        ]
        still = await ask(served, "ann", "GET", "/sessions/s-of-hers")

    assert others == unknown
    assert THEIRS.encode() in still, "nothing of hers was forgotten"


async def test_an_event_source_of_another_tenant_is_told_nothing() -> None:
    async with opened("http") as served:
        answers = []
        for run_id in (THEIRS, NOBODYS):
            request = "GET /chat/stream?message=a HTTP/1.1\r\nhost: localhost\r\nx-user: bob\r\n"
            async with raw(served) as stream:
                await stream.send_all(f"{request}last-event-id: {run_id}:2\r\n\r\n".encode())
                answers.append(re.sub(rb"(?i)date: [^\r]*\r\n", b"", await read_all(stream)))

    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 404 ")
