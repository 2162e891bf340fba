"""Runs on a server: started once, followed through lost connections, given up in clear words."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket
import trustme

from flowtrio import Agent, DemoClient, RunContext
from flowtrio._core._events import AgentEvent
from flowtrio._core._failures import leaves
from flowtrio._remote import RemoteError, RemoteRun, RemoteSource
from flowtrio.testing import check_events
from tests.support.fake_server import Connection, open_fake_server
from tests.support.ws_peer import open_server
from tests.testing.test_checks import Log, answers, asks_for_approval

AT_ONCE = (0.0, 0.0)


def log_of(run_id: str, make: Callable[[], Log] = answers) -> list[dict[str, Any]]:
    return [{**event, "run_id": run_id} for event in make()]


async def read(source: RemoteSource, message: str = "hello") -> list[AgentEvent]:
    async with source.start(message) as run:
        return [event async for event in run]


async def refused(source: RemoteSource) -> RemoteError:
    """What reading a run is refused with."""
    error: Any = None
    try:
        await read(source)
    except* RemoteError as group:
        error = next(leaves(group))
    assert error is not None
    return error


async def test_a_run_on_a_real_server_is_read_to_its_end() -> None:
    async def agent(ctx: RunContext, message: str) -> str:
        colour = await ctx.ask("Colour?")
        if not await ctx.approve("paint", {"colour": colour}):
            return "not painted"
        if not await ctx.approve("dry", {}):
            await ctx.status("waiting for ever")
            await trio.sleep_forever()
        return "dry"

    events = []
    async with open_server(agent) as served:
        async with RemoteSource(served.url).start("hello") as run:
            async for event in run:
                events.append(event)
                if event.type == "input_required":
                    assert run.answer(event.data["request_id"], "blue")
                elif event.type == "approval_required":
                    if event.data["tool_name"] == "paint":
                        assert run.approve(event.data["call_id"])
                    else:
                        assert run.deny(event.data["call_id"], "later")
                elif event.data.get("reason") == "waiting for ever":
                    assert run.cancel("enough")
                    assert not run.cancel("enough")

    check_events(events)
    assert (events[-1].data["status"], events[-1].data["reason"]) == ("cancelled", "enough")


async def test_runs_of_one_source_are_one_conversation() -> None:
    async with open_server(Agent(llm_client=DemoClient(delay=0))) as served:
        source = RemoteSource(served.url)
        first, second = [await read(source) for _ in range(2)]

    assert first[0].data["session_id"] == second[0].data["session_id"]
    assert first[0].run_id != second[0].run_id


async def test_a_lost_connection_goes_on_after_the_last_event_seen() -> None:
    commands = []

    async def begin(peer: Connection) -> None:
        commands.append(await peer.take())
        await peer.accept(commands[0])
        await peer.give(*log_of(commands[0]["run_id"])[:3])

    async def resume(peer: Connection) -> None:
        commands.append(await peer.take())
        await peer.accept(commands[1])
        # One too many, and one of a kind that came later.
        await peer.give(*log_of(commands[0]["run_id"])[2:4], {"type": "mood", "seq": 99})
        await peer.give(*log_of(commands[0]["run_id"])[4:])
        await trio.sleep_forever()

    async with open_fake_server(begin, resume) as url:
        events = await read(RemoteSource(url, delays=AT_ONCE))

    check_events(events)
    run_id = commands[0]["run_id"]
    assert (commands[0]["type"], commands[0]["message"]) == ("message", "hello")
    assert commands[1] == {
        "type": "resume",
        "run_id": run_id,
        "after": 2,
        "ref": 0,
        "mode": "events",
    }


async def test_a_start_without_a_reply_is_sent_again_under_the_same_id() -> None:
    commands = []

    async def lose(peer: Connection) -> None:
        commands.append(await peer.take())

    async def answer(peer: Connection) -> None:
        commands.append(await peer.take())
        await peer.accept(commands[1])
        await peer.give(*log_of(commands[1]["run_id"]))
        await trio.sleep_forever()

    async with open_fake_server(lose, answer) as url:
        check_events(await read(RemoteSource(url, delays=AT_ONCE)))

    assert commands[0] == commands[1]


async def test_a_command_without_a_reply_is_sent_again() -> None:
    taken = []

    async def lose(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        await peer.give(*log_of(command["run_id"], asks_for_approval)[:5])
        taken.append(await peer.take())

    async def take(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        taken.append(await peer.take())
        await peer.give({"type": "rejected", "ref": taken[1]["ref"], "code": "x", "error": "y"})
        await peer.give(*log_of(command["run_id"], asks_for_approval)[5:])
        await trio.sleep_forever()

    events = []
    async with open_fake_server(lose, take) as url:
        async with RemoteSource(url, delays=AT_ONCE).start("hello") as run:
            async for event in run:
                events.append(event)
                if event.seq == 4:
                    run.approve("c1")

    check_events(events)
    assert taken[0] == taken[1]
    assert taken[0]["call_id"] == "c1"


async def test_a_run_that_cannot_be_resumed_is_given_up() -> None:
    async def begin(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        await peer.give(*log_of(command["run_id"])[:3])

    async def reject(peer: Connection) -> None:
        command = await peer.take()
        reply = {"ref": command["ref"], "code": "not_resumable", "error": "no logs are kept"}
        await peer.give({"type": "rejected", **reply})
        await trio.sleep_forever()

    async with open_fake_server(begin, reject) as url:
        error = await refused(RemoteSource(url, delays=AT_ONCE))

    assert (str(error), error.has_begun) == (
        f"lost {url}: not_resumable: no logs are kept",
        True,
    )


async def test_a_server_that_stays_away_is_given_up_after_the_last_attempt() -> None:
    async def begin(peer: Connection) -> None:
        await peer.accept(await peer.take())

    async def hang_up(peer: Connection) -> None:
        pass

    async with open_fake_server(begin, hang_up, hang_up) as url:
        error = await refused(RemoteSource(url, delays=AT_ONCE))

    assert (str(error), error.has_begun) == (f"lost {url}: the connection was lost", True)


async def test_a_server_that_is_busy_for_a_while_is_tried_again() -> None:
    """Refused once the run has begun, by its port or by 503, is not refused for good."""

    async def begin(peer: Connection) -> None:
        await peer.accept(await peer.take())

    async with open_fake_server(begin, 503, 403) as url:
        error = await refused(RemoteSource(url, delays=AT_ONCE))

    assert str(error) == f"lost {url}: the server answers 403"


async def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    error = await refused(RemoteSource("ws://127.0.0.1:1/chat"))

    assert str(error).startswith("can't reach ws://127.0.0.1:1/chat: ")
    assert "onnection refused" in str(error)
    assert not error.has_begun


async def test_a_wrong_token_is_told_with_the_remedy_and_never_shown() -> None:
    async with open_server(Agent(llm_client=DemoClient(delay=0)), token="good") as served:
        source = RemoteSource(served.url, token="bad-secret")
        error = await refused(source)
        assert await read(RemoteSource(served.url, token="good"))

    assert str(error).endswith("the server answers 401 (--token is missing or wrong)")
    assert "bad-secret" not in repr(source)


async def test_what_is_no_websocket_server_is_told() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"220 mail ready\r\n\r\n")

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, answer, 0)
            port = listeners[0].socket.getsockname()[1]
            error = await refused(RemoteSource(f"ws://127.0.0.1:{port}/"))
            nursery.cancel_scope.cancel()

    assert "it does not answer as a WebSocket server" in str(error)


async def test_a_server_that_does_not_answer_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("flowtrio._remote._CONNECT", 0.2)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, hang, 0)
            port = listeners[0].socket.getsockname()[1]
            error = await refused(RemoteSource(f"ws://127.0.0.1:{port}/"))
            nursery.cancel_scope.cancel()

    assert str(error).endswith("no answer within 0.2 s")


async def test_wss_asks_for_a_certificate_that_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    agent = Agent(llm_client=DemoClient(delay=0))
    async with open_server(agent, ssl_context=context) as served:
        source = RemoteSource(served.url.replace("ws:", "wss:"))
        error = await refused(source)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        check_events(await read(source))

    assert "certificate" in str(error)
    assert not error.has_begun


async def test_what_cannot_be_sent_any_more_is_the_readers_business() -> None:
    class Closed:
        async def send_message(self, text: str) -> None:
            raise trio_websocket.ConnectionClosed(None)

    run = RemoteRun(RemoteSource("ws://127.0.0.1:1/"), "hello", "s1")
    run.cancel()
    await run._write(Closed())

    assert run._pending, "it is to be sent again"


@asynccontextmanager
async def open_dropping_proxy(port: int, *allowed: int) -> AsyncIterator[int]:
    """A proxy that drops its connections, each after so many bytes from the server."""
    left = list(allowed)

    async def forward(source: trio.SocketStream, sink: trio.SocketStream, most: float) -> None:
        async for data in source:
            most -= len(data)
            if most < 0:
                break
            await sink.send_all(data)

    async def handle(client: trio.SocketStream) -> None:
        most = left.pop(0) if left else float("inf")
        server = await trio.open_tcp_stream("127.0.0.1", port)
        async with server, trio.open_nursery() as nursery:

            async def one_way(*arguments: Any) -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await forward(*arguments)
                nursery.cancel_scope.cancel()

            nursery.start_soon(one_way, client, server, float("inf"))
            nursery.start_soon(one_way, server, client, most)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
        assert not left, "the connection was dropped less often than planned"


async def test_a_run_on_a_real_server_goes_on_through_dropped_connections() -> None:
    agent = Agent(llm_client=DemoClient(delay=0.005), tools=[])
    async with open_server(agent) as served:
        async with open_dropping_proxy(served.port, 1500, 2500) as port:
            source = RemoteSource(f"ws://127.0.0.1:{port}/chat", delays=(0.0, 0.05, 0.2, 1.0))
            events = await read(source)

    check_events(events)
    assert events[-1].data["status"] == "completed"
