"""A store that fails, at each of its methods: what the clients of a server are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from flowtrio import MemoryConversations, MemoryStore, Orchestrator, RunContext
from flowtrio._core._events import ROOT, AgentEvent, EventType
from flowtrio.abc import EventStore, RunHeader
from flowtrio.asgi import create_app
from flowtrio.testing import check_events
from tests.support.asgi import Message, exchange
from tests.support.ws_peer import connect, open_server

CANARY = "/canary/path"
METHODS = ("create", "append", "read", "wait_past", "header", "list", "delete", "expire")
CONVERSATIONS = ("load", "save", "delete")


class Faults:
    """Which methods fail; wraps the store that it stands before."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.fail: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.store, name)

        async def call(*args: Any, **keys: Any) -> Any:
            if name in self.fail:
                raise OSError(CANARY)
            return await method(*args, **keys)

        return call


@attrs.define(eq=False)
class Place:
    """An orchestrator on stores that may fail, with a run that has ended and one elsewhere."""

    store: Any
    conversations: Any
    orchestrator: Orchestrator

    @classmethod
    async def make(cls) -> Place:
        store, conversations = Faults(MemoryStore()), Faults(MemoryConversations())
        given: Any = store
        orchestrator = Orchestrator(agents=[talk], store=given, conversations=conversations)
        async with orchestrator:
            run_id = await orchestrator.start("hi", session_id="s", run_id="ended")
            async with orchestrator.attach(run_id) as stream:
                async for _ in stream:
                    pass
        await _begin_elsewhere(given)
        again = Orchestrator(agents=[talk], store=given, conversations=conversations)
        return cls(store, conversations, again)


async def _begin_elsewhere(store: EventStore) -> None:
    names = {"session_id": "s", "agent": "a", "message": "hi", "owner": "another process"}
    header = RunHeader(tenant_id="default", run_id="elsewhere", created_at=1.0, **names)
    await store.create(header)
    start = {
        "message": "hi",
        "session_id": "s",
        "agent": "a",
        "parent_run_id": None,
        "schema": 1,
    }
    event = AgentEvent(EventType.RUN_START, start, 0, "elsewhere", ROOT, 1.0)
    await store.append("default", "elsewhere", -1, [event])


async def talk(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        await out.write("said")
    return message


REQUESTS: dict[str, dict[str, Any]] = {
    "start": {"path": "/chat/stream", "query_string": b"message=hi&session_id=s&run_id=new"},
    "ended": {"path": "/runs/ended/events"},
    "elsewhere": {"path": "/runs/elsewhere/events"},
    "session": {"path": "/sessions/s"},
    "forget": {"path": "/sessions/s", "method": "DELETE"},
}

REFUSED = {
    "read": {"ended", "elsewhere"},
    "header": {"ended", "elsewhere"},
    "list": {"session"},
    "delete": {"forget"},
    "conversations load": {"session"},
    "conversations delete": {"forget"},
}
"""Which requests are refused for the sake of which method; the others are answered."""

ENDED = {"create", "append", "conversations load", "conversations save"}
"""Methods without which a run fails, which is told in its events."""


def frames_of(sent: list[Message]) -> list[dict[str, Any]]:
    """The frames of an answer in SSE."""
    body = b"".join(m["body"] for m in sent[1:]).decode()
    blocks = [block for block in body.split("\n\n") if "data: " in block]
    frames = [json.loads(block.partition("data: ")[2]) for block in blocks]
    ids = ["id: " in block for block in blocks]
    assert ids == ["seq" in frame for frame in frames]
    return frames


def as_events(frames: list[dict[str, Any]]) -> list[AgentEvent]:
    return [AgentEvent(**{**f, "type": EventType(f["type"])}) for f in frames if "seq" in f]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "method", [*METHODS, *(f"conversations {method}" for method in CONVERSATIONS)]
)
async def test_over_http_each_answer_tells_it_and_none_is_bare(
    method: str, debug: bool, autojump_clock: Any
) -> None:
    seen = {}
    for name, request in REQUESTS.items():
        if name == "elsewhere" and method not in ("wait_past", "read", "header"):
            continue  # Its log never ends.
        place = await Place.make()
        part, _, called = method.rpartition(" ")
        (place.conversations if part else place.store).fail.add(called)
        app = create_app(place.orchestrator, debug=debug)
        async with place.orchestrator:
            seen[name] = await exchange(app, **request)

    for name, sent in seen.items():
        head = sent[0]
        told = str(sent[1:])
        assert sent[-1].get("more_body", False) is False
        if name in REFUSED.get(method, ()):
            body = json.loads(sent[1]["body"])
            assert (head["status"], set(body)) == (503, {"code", "error"})
            assert body["code"] == "store_failed"
            assert body["error"] == f"the store failed: OSError{': ' + CANARY if debug else ''}"
        elif name == "elsewhere":
            *events, rejected = frames_of(sent)
            assert [event["type"] for event in events] == ["run_start"]
            assert (rejected["type"], rejected["ref"]) == ("rejected", None)
            assert rejected["code"] == "store_failed"
        elif name in ("start", "ended"):
            events = as_events(frames_of(sent))
            check_events(events)
            codes = [e.data["code"] for e in events if e.type is EventType.ERROR]
            is_failed = name == "start" and method in ENDED
            assert codes == (["store_failed"] if is_failed else [])
        else:
            assert head["status"] in (200, 204)
        if not debug:
            assert CANARY not in told


@pytest.mark.parametrize("kind", ["text/event-stream", "application/x-ndjson"])
async def test_an_answer_that_has_begun_says_why_it_ends(kind: str) -> None:
    place = await Place.make()
    place.store.fail.add("wait_past")
    async with place.orchestrator:
        sent = await exchange(
            create_app(place.orchestrator), "/runs/elsewhere/events", headers=[("accept", kind)]
        )

    last = b"".join(m["body"] for m in sent[1:]).decode().strip().splitlines()[-1]
    assert json.loads(last.removeprefix("data: ")) == {
        "type": "rejected",
        "ref": None,
        "code": "store_failed",
        "error": "the store failed: OSError",
    }
    assert sent[-1]["more_body"] is False


async def test_a_run_that_is_deleted_or_lost_in_mid_answer_is_told(autojump_clock: Any) -> None:
    for method, error, code in (
        ("wait_past", LookupError("gone"), "unknown_run"),
        ("wait_past", None, "store_failed"),
    ):
        place = await Place.make()
        place.store.fail.add(method)
        if error is not None:

            async def lose(*args: Any, error: Exception = error) -> int:
                raise error

            place.store.fail.clear()
            place.store.store = _With(place.store.store, lose)
        async with place.orchestrator:
            sent = await exchange(create_app(place.orchestrator), "/runs/elsewhere/events")
        assert frames_of(sent)[-1]["code"] == code


@attrs.define(eq=False)
class _With:
    """A store with another ``wait_past``."""

    store: Any
    wait_past: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


async def test_a_draining_server_that_cannot_look_says_so() -> None:
    place = await Place.make()
    app = create_app(place.orchestrator, drain=0)
    async with place.orchestrator:
        await app.drain()
        place.store.fail.add("header")
        sent = await exchange(app, **REQUESTS["start"])
        unknown = await exchange(app, "/chat/stream", query_string=b"message=hi")

    assert (sent[0]["status"], json.loads(sent[1]["body"])["code"]) == (503, "store_failed")
    assert (unknown[0]["status"], json.loads(unknown[1]["body"])["code"]) == (503, "http_503")


@pytest.mark.parametrize(
    "method", [*METHODS, *(f"conversations {method}" for method in CONVERSATIONS)]
)
async def test_over_a_websocket_it_is_told_and_the_connection_goes_on(method: str) -> None:
    place = await Place.make()
    part, _, called = method.rpartition(" ")
    failing = (place.conversations if part else place.store).fail
    async with open_server(place.orchestrator) as served, connect(served) as peer:
        failing.add(called)
        await peer.send(type="resume", run_id="ended", after=0, ref="ended")
        resumed = [await peer.receive()]
        if resumed[0]["type"] == "accepted":
            resumed += await peer.until("done")
        started = await peer.ask(type="message", message="hi", session_id="s", run_id="new")
        await peer.send(type="resume", run_id="elsewhere", after=-1, ref="elsewhere")
        elsewhere = [await peer.receive()]
        if method == "wait_past":
            elsewhere += await peer.until("rejected")
        failing.clear()
        again = await peer.ask(type="message", message="hi", session_id="z")

    is_refused = "ended" in REFUSED.get(method, ())
    for frames in (resumed, elsewhere[:1]):
        assert frames[0].get("code") == ("store_failed" if is_refused else None)
    if method == "wait_past":
        assert (elsewhere[-1]["ref"], elsewhere[-1]["code"]) == (None, "store_failed")
    events = as_events(started)
    check_events(events)
    codes = [e.data["code"] for e in events if e.type is EventType.ERROR]
    assert codes == (["store_failed"] if method in ENDED else [])
    assert again[-1]["data"]["status"] == "completed"
    assert CANARY not in str([resumed, started, elsewhere])


async def test_a_draining_socket_that_cannot_look_says_so(autojump_clock: Any) -> None:
    place = await Place.make()
    app = create_app(place.orchestrator)
    place.store.fail.add("header")
    sent: list[Any] = []

    async def take(message: Message) -> None:
        app._hosting.is_draining = True
        sent.append(message)

    asked = json.dumps({"type": "message", "message": "hi", "run_id": "other", "ref": 1})
    told = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": asked}]
    async with place.orchestrator:
        with trio.move_on_after(1):
            await exchange(app, "/chat", kind="websocket", told=told, take=take)

    [reply] = [json.loads(message["text"]) for message in sent if "text" in message]
    assert (reply["ref"], reply["code"]) == (1, "store_failed")
