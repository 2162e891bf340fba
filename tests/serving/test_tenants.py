"""What is another tenant's is answered, byte for byte, like what never was."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import pytest
import trio

from flowtrio import RunContext, ServerLimits
from flowtrio.protocols import (
    AGUIProtocol,
    AISDKProtocol,
    DurableStreamsProtocol,
    OpenAIProtocol,
)
from flowtrio.serving.commands._session import Session
from flowtrio.serving.http import _routes
from flowtrio.serving.http._routes import Routes
from flowtrio.wire._frames import CONTROLS
from tests.support.front_door import open_door
from tests.support.ws_peer import Peer, Served, connect, open_server, raw, read_all

MINE, THEIRS, NOBODYS = "run-of-mine", "run-of-hers", "run-nowhere"
"""Ids of one length, so that answers can be compared that repeat them."""


def authenticate(request: Any) -> str | None:
    name: str | None = request.headers.get("x-user")
    return name or None


async def agent(ctx: RunContext, message: str) -> str:
    """Wait for a person where asked to, else say it back."""
    async with ctx.message() as out:
        await out.write(message)
    if message == "wait":
        return await ctx.ask("How many?")
    return message


@asynccontextmanager
async def opened(door: str, **options: Any) -> AsyncIterator[Served]:
    """A server in which Ann has one run that waits and one that has ended."""
    opens: Any = open_server if door == "listener" else open_door
    limits = ServerLimits(runs_per_connection=50)
    rules = {"authenticate": authenticate, "limits": limits, **options}
    async with opens(agent, **rules) as served:
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


# Every address of the application

REQUESTS: dict[str, list[tuple[str, str, bytes]]] = {
    "/runs/*/events": [
        ("GET", "/runs/RUN/events", b""),
        ("GET", "/runs/RUN/events?after=3", b""),
        ("GET", "/runs/RUN/events?after=100000", b""),
        ("GET", "/runs/RUN/events?mode=values", b""),
    ],
    "/runs/*/*": [
        ("POST", "/runs/RUN/cancel", b""),
        ("POST", "/runs/RUN/cancel_tool", b'{"call_id": "c1"}'),
        ("POST", "/runs/RUN/approve", b'{"call_id": "c1"}'),
        ("POST", "/runs/RUN/deny", b'{"call_id": "c1"}'),
        ("POST", "/runs/RUN/answer", b'{"request_id": "q1", "text": "7"}'),
        ("POST", "/runs/RUN/dismiss", b'{"request_id": "q1"}'),
        ("POST", "/runs/RUN/post", b'{"message": "more"}'),
    ],
    "/runs": [("GET", "/runs", b"")],
    "/sessions": [("GET", "/sessions", b"")],
    "/sessions/*": [
        ("GET", "/sessions/SESSION", b""),
        ("PATCH", "/sessions/SESSION", b'{"title": "mine"}'),
        ("DELETE", "/sessions/SESSION", b""),
    ],
    "/sessions/*/branch": [
        ("POST", "/sessions/SESSION/branch", b'{"back": 1, "message": "wait"}'),
    ],
    "/sessions/*/parts/*": [("GET", "/sessions/SESSION/parts/0", b"")],
    "/v1/responses/*": [
        ("GET", "/v1/responses/RUN", b""),
        ("DELETE", "/v1/responses/RUN", b""),
    ],
    "/v1/responses/*/input_items": [("GET", "/v1/responses/RUN/input_items", b"")],
    "/v1/responses/*/cancel": [("POST", "/v1/responses/RUN/cancel", b"{}")],
    "/v1/responses": [
        ("POST", "/v1/responses", b'{"input": "more", "previous_response_id": "RUN"}'),
    ],
    "/ai-sdk/chat/*/stream": [("GET", "/ai-sdk/chat/SESSION/stream", b"")],
    "/streams/*": [("GET", "/streams/RUN", b""), ("HEAD", "/streams/RUN", b"")],
}
"""What can be asked for about a run or a conversation, by the address."""

OPERATORS = ("/operator/runs", "/operator/inbox")

OF_NOBODY = {
    "/chat/stream": "starts a run of one's own; going on with another's is tested below",
    "/metrics": "tells of all together",
    "/health": "tells of nobody",
    "/ready": "tells of nobody",
    "/ag-ui": "starts a run of one's own",
    "/ag-ui/*": "starts a run of one's own",
    "/ai-sdk/chat": "starts a run of one's own",
    "/v1/models": "tells of agents",
    "/v1/models/*": "tells of agents",
    "/v1/chat/completions": "starts a run of one's own",
}
"""Addresses without anything of another tenant's, and why."""


def pieces_of(pattern: ast.pattern) -> Iterator[list[str]]:
    """The addresses that a case stands for, in pieces."""
    match pattern:
        case ast.MatchOr(patterns=patterns):
            for each in patterns:
                yield from pieces_of(each)
        case ast.MatchSequence(patterns=patterns):
            yield from (list(row) for row in product(*map(names_of, patterns)))


def names_of(pattern: ast.pattern) -> list[str]:
    match pattern:
        case ast.MatchOr(patterns=patterns):
            return [name for each in patterns for name in names_of(each)]
        case ast.MatchValue(value=ast.Constant(value=str(name))):
            return [name]
        case _:
            return ["*"]


def addresses() -> set[str]:
    """All that the application answers, its protocols included; read from the source."""
    found = {
        re.sub(r"{[^}]*}", "*", route.path) for protocol in PROTOCOLS for route in protocol.routes
    }
    for method, root in ((Routes._answer, ""), (Routes._answer_operator, "/operator")):
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
        for case in (node for node in ast.walk(tree) if isinstance(node, ast.match_case)):
            if isinstance(case.pattern, ast.MatchSequence):
                found |= {"/".join([root, *each]) for each in pieces_of(case.pattern.patterns[0])}
    return {path for path in found if not path.endswith("/")} - {"/runs//*", "/sessions//*"}


PROTOCOLS = (
    AGUIProtocol(),
    AISDKProtocol(),
    DurableStreamsProtocol(),
    OpenAIProtocol(),
)


def test_every_address_stands_in_the_table() -> None:
    assert addresses() == {*REQUESTS, *OPERATORS, *OF_NOBODY}


def test_every_command_on_a_run_stands_in_the_table() -> None:
    named = {path.rpartition("/")[2] for _, path, _ in REQUESTS["/runs/*/*"]}

    assert named == set(CONTROLS)


async def answers(
    served: Served, user: str, more: str = "", among: Iterable[str] = REQUESTS
) -> dict[str, tuple[bytes, bytes]]:
    """What *user* is answered about Ann's and about nobody's, with *more* in the query."""
    found = {}
    for method, path, body in (each for address in among for each in REQUESTS[address]):
        told = []
        for run, name in ((THEIRS, "s-of-hers"), (NOBODYS, "s-nowhere")):
            asked = path.replace("RUN", run).replace("SESSION", name)
            asked += more and f"{'&' if '?' in asked else '?'}{more}"
            given = body.replace(b"RUN", run.encode())
            answer = await ask(served, user, method, asked, given)
            told.append(answer.replace(run.encode(), b"RUN").replace(name.encode(), b"SESSION"))
        found[f"{method} {path}"] = (told[0], told[1])
    return found


def apart(found: dict[str, tuple[bytes, bytes]]) -> list[str]:
    """The requests that are answered otherwise where there is something of another tenant's."""
    return [name for name, (others, unknown) in found.items() if others != unknown]


async def test_requests_for_what_is_another_tenants() -> None:
    async with opened("http", protocols=PROTOCOLS, operator_token="op") as served:
        found = await answers(served, "bob")
        named = await answers(served, "bob", "tenant=ann")
        lists = [await ask(served, "bob", "GET", path) for path in ("/runs", "/sessions")]
        still = await ask(served, "ann", "GET", "/sessions/s-of-hers")

    assert apart(found) == []
    assert apart(named) == []
    ours = {name: told for name, (told, _) in named.items() if re.match("[A-Z]+ /(run|ses)", name)}
    assert [name for name, told in ours.items() if b" 404 " not in told] == []
    assert THEIRS.encode() in still, "nothing of hers was forgotten"
    assert all(b"hers" not in told for told in lists)


async def test_a_route_that_forgot_whose_it_is_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: whoever asks is taken for Ann."""
    monkeypatch.setattr(_routes, "_tenant", lambda exchange, caller: "ann")
    async with opened("http") as served:
        found = apart(await answers(served, "bob", among=["/runs/*/*", "/sessions/*"]))

    assert "POST /runs/RUN/cancel" in found
    assert "GET /sessions/SESSION" in found


async def test_the_operators_view_is_refused_to_tenants() -> None:
    async with opened("http", operator_token="op") as served:
        for path in OPERATORS:
            refused = await ask(served, "bob", "GET", path)
            assert b" 403 " in refused
            assert b"hers" not in refused
            assert b" 401 " in await ask(served, "", "GET", path)
            assert b"hers" in await ask(served, "bob", "GET", f"{path}?token=op")


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
