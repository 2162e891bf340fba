"""The client over the network, on lines that break at any byte."""

from __future__ import annotations

import base64
import hashlib
import random
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme

import flowtrio
from flowtrio import (
    AgentEvent,
    LimitExceeded,
    MemoryStore,
    Orchestrator,
    RemoteProtocolError,
    ReplayGap,
    RunCancelled,
    RunContext,
    RunFailed,
    SQLiteStore,
    project,
)
from flowtrio.testing import check_events
from tests.support.fake_server import Connection, open_fake_server
from tests.support.ws_peer import Served, open_server
from tests.testing.test_checks import answers, asks_for_approval
from tests.transports.test_websocket import approving_agent, echo, waits


async def talks(ctx: RunContext, message: str) -> str:
    """Say many words, in turns of some at once."""
    async with ctx.message() as out:
        for number in range(int(message)):
            await out.write(f"word {number} ")
            if number % 7 == 0:
                await trio.sleep(0.001)
    return message


async def fails(ctx: RunContext, message: str) -> None:
    """Fail."""
    raise ValueError("no")


# A line that breaks


@attrs.define(eq=False)
class Line:
    """A port that leads to a server, through connections that break after so many bytes."""

    port: int
    dice: random.Random
    most_bytes: int
    breaks_left: int = 0
    """How many of the next connections break; the others hold."""
    _connections: set[trio.SocketStream] = attrs.field(factory=set)

    async def carry(self, near: trio.SocketStream) -> None:
        """Carry one connection, until it breaks or ends."""
        budget = None
        if self.breaks_left > 0:
            self.breaks_left -= 1
            budget = self.dice.randrange(self.most_bytes)
        far = await trio.open_tcp_stream("127.0.0.1", self.port)
        left = [budget]
        self._connections |= {near, far}
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, near, far, left, nursery.cancel_scope)
                nursery.start_soon(self._pump, far, near, left, nursery.cancel_scope)
        finally:
            self._connections -= {near, far}
            for stream in self.dice.sample([near, far], 2):
                stream.socket.close()

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, left: list[int | None], scope: Any
    ) -> None:
        try:
            while data := await source.receive_some(4096):
                budget = left[0]
                if budget is not None:
                    data, left[0] = data[:budget], max(budget - len(data), 0)
                await sink.send_all(data)
                if left[0] == 0:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def line_to(served: Served, seed: int, breaks: int, most: int) -> AsyncIterator[Any]:
    line = Line(served.port, random.Random(seed), most, breaks)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, line.carry, 0)
        line_port = listeners[0].socket.getsockname()[1]
        yield line, f"ws://127.0.0.1:{line_port}/chat"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(served: Served, **options: Any) -> AsyncIterator[Any]:
    async with flowtrio.connect(served.url, **options) as remote:
        yield remote


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_every_reader_ends_with_the_log_wherever_lines_break(
    kind: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowtrio.transports import _connect

    monkeypatch.setattr(_connect, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(_connect, "_LONGEST_DELAY", 0.05)
    started: list[str] = []

    async def agent(ctx: RunContext, message: str) -> str:
        started.append(ctx.run_id)
        return await talks(ctx, message)

    store = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / "runs.db")
    orchestrator = Orchestrator(agents=[agent], store=store)
    logs: dict[str, list[AgentEvent]] = {}

    async def read(remote: Any, number: int) -> None:
        async with remote.process_stream("60", run_id=f"r{number}") as stream:
            logs[stream.run_id] = [event async for event in stream]

    async with open_server(orchestrator) as served:
        # Short budgets break handshakes and commands too, long ones the events.
        async with line_to(served, seed, 0, [400, 2000, 20_000][seed % 3]) as (line, url):
            async with flowtrio.connect(url, patience=30) as remote:
                line.breaks_left = 6
                for stream in list(line._connections):
                    await trio.aclose_forcefully(stream)
                async with trio.open_nursery() as nursery:
                    for number in range(3):
                        nursery.start_soon(read, remote, number)
        stored = {name: await store.read("default", name, -1, 10_000) for name in logs}
    if isinstance(store, SQLiteStore):
        await store.aclose()

    assert sorted(started) == ["r0", "r1", "r2"]
    for name, log in logs.items():
        check_events(log)
        assert log == list(stored[name])


# Like a stream in process


async def test_a_run_over_the_network_reads_like_one_in_process() -> None:
    async with open_server(echo) as served, connected(served) as remote:
        async with remote.process_stream("hello") as stream:
            events = [event async for event in stream]
        assert stream.status == "completed"
        bare = [event async for event in remote.process_stream("hello")]
        assert await remote.process("hello") == "hello"
        batches: list[AgentEvent] = []
        stream = remote.process_stream("hello")
        with pytest.raises(trio.EndOfChannel):
            while True:
                batches += await stream.receive_batch()

    for log in (events, bare, batches):
        check_events(log)


async def test_a_conversation_goes_on_in_its_session() -> None:
    async with open_server(echo) as served, connected(served) as remote:
        assert await remote.process("one", session_id="s") == "one"
        assert await remote.process("two", session_id="s") == "one two"
        assert await remote.process("three") == "three"


@pytest.mark.parametrize("mode", ["values", "updates", "messages"])
async def test_modes_are_those_of_the_log(mode: str) -> None:
    async with open_server(talks) as served, connected(served) as remote:
        async with remote.process_stream("9", mode=mode) as stream:
            seen = [event async for event in stream]
        whole = [event async for event in remote.attach(stream.run_id)]

    assert seen == list(project(mode, whole))


async def test_leaving_a_run_cancels_it_and_leaving_an_attached_one_does_not() -> None:
    orchestrator = Orchestrator(agents=[waits])
    async with open_server(orchestrator) as served, connected(served) as remote:
        async with remote.process_stream("a", run_id="r") as stream:
            await _until_chunk(stream)
            async with connected(served) as other, other.attach("r") as follower:
                await _until_chunk(follower)
            assert orchestrator.attach("r").is_live
        header = await orchestrator.store.header("default", "r")

    assert stream.status == "cancelled"
    assert header is not None
    assert header.status == "cancelled"


async def _until_chunk(stream: Any) -> None:
    async for event in stream:
        if event.type == "message_chunk":
            return


async def test_people_decide_over_the_network_from_any_thread() -> None:
    async with open_server(approving_agent()) as served, connected(served) as remote:
        async with remote.process_stream("pay") as stream:
            outcomes = []
            async for event in stream:
                if event.type == "approval_required":
                    assert stream.status in ("running", "waiting_for_approval")
                    await trio.to_thread.run_sync(stream.approve, event.data["call_id"])
                if event.type == "tool_call_end":
                    outcomes.append(event.data["outcome"])
            assert not stream.cancel()

    assert outcomes == ["ok"]


async def test_a_question_is_answered_and_a_run_cancelled() -> None:
    async def asks(ctx: RunContext, message: str) -> str:
        answer = await ctx.ask("Where?")
        await ctx.custom("answered", answer)
        await trio.sleep_forever()
        return answer

    async with open_server(asks) as served, connected(served) as remote:
        async with remote.process_stream("go") as stream:
            async for event in stream:
                if event.type == "input_required":
                    stream.answer(event.data["request_id"], "Paris")
                if event.type == "custom":
                    assert event.data["value"] == "Paris"
                    stream.cancel("enough")
            with pytest.raises(RunCancelled, match="enough"):
                await stream.result()


async def test_a_result_that_is_none_says_why() -> None:
    async with open_server(fails) as served, connected(served) as remote:
        with pytest.raises(RunFailed) as caught:
            await remote.process("go")

    assert caught.value.error["source"] == "agent"
    # Exception texts stay on the server.
    assert "no" not in caught.value.error["error"].split()


# What is refused


async def test_what_a_server_refuses_is_raised_where_it_is_read() -> None:
    orchestrator = Orchestrator(agents=[talks], runs_per_tenant=1, store=MemoryStore(max_events=10))
    async with open_server(orchestrator) as served, connected(served) as remote:
        with pytest.raises(LookupError):
            await remote.attach("unknown").receive_batch()
        async with remote.process_stream("100000", run_id="r") as stream:
            await stream.receive_batch()
            with pytest.raises(LimitExceeded) as caught:
                await remote.process("1")
            assert caught.value.code == "tenant_busy"
            with pytest.raises(RuntimeError, match="read here already"):
                await remote.attach("r").receive_batch()
        with pytest.raises(ReplayGap):
            await remote.attach("r").receive_batch()


async def test_a_reader_that_begins_behind_the_end_is_at_its_end() -> None:
    async with open_server(echo) as served, connected(served) as remote:
        log = [event async for event in remote.process_stream("hello", run_id="r")]
        async with remote.attach("r", after=log[-1].seq) as stream:
            assert [event async for event in stream] == []
            assert not stream.cancel()
        with pytest.raises(trio.EndOfChannel):
            await remote.attach("r", after=log[-1].seq).receive_batch()
        with pytest.raises(LookupError, match="attach from an earlier place"):
            await remote.attach("r", after=log[-1].seq).result()
        with pytest.raises(ReplayGap):
            await remote.attach("r", after=log[-1].seq + 1).receive_batch()
        assert await remote.attach("r", after=log[-2].seq).result() == "hello"


async def test_a_run_that_has_ended_is_read_again_under_its_id() -> None:
    async with open_server(echo) as served, connected(served) as remote:
        logs = [[e async for e in remote.process_stream("hello", run_id="r")] for _ in range(2)]

    check_events(logs[0])
    assert logs[0] == logs[1]


async def test_a_wrong_token_or_no_server_is_told_at_once() -> None:
    async with open_server(echo, token="right") as served:
        async with connected(served, token="right") as remote:
            assert await remote.process("hi") == "hi"
        with pytest.raises(ConnectionError, match="answers 401") as caught:
            async with connected(served, token="wrong-secret"):
                raise AssertionError("not reached")
        assert "wrong-secret" not in str(caught.value)
    with pytest.raises(ConnectionError, match=r"can't reach .*onnection refused"):
        async with connected(served):
            raise AssertionError("not reached")


@pytest.mark.parametrize("url", ["ftp://host", "host:80", "ws://"])
async def test_an_address_has_to_be_one(url: str) -> None:
    with pytest.raises(ValueError, match="expected ws"):
        async with flowtrio.connect(url):
            raise AssertionError("not reached")


async def test_when_the_server_stays_away_the_reader_is_told() -> None:
    async with open_server(waits) as served:
        async with connected(served, patience=0.3) as remote:
            async with remote.process_stream("a") as stream:
                await _until_chunk(stream)
                served.scope.cancel()
                seen = [event async for event in stream]
                assert seen[-1].data["status"] == "error"
            with pytest.raises(trio.BrokenResourceError, match="lost ws://"):
                while True:
                    await remote.process("again")


async def test_what_the_body_raises_leaves_as_it_is() -> None:
    async with open_server(echo) as served:
        with pytest.raises(KeyError):
            async with connected(served):
                raise KeyError("mine")


# Servers that are none, or not ours


@asynccontextmanager
async def answering(answer: Any) -> AsyncIterator[str]:
    """The address of a TCP server."""
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, answer, 0)
            yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
            nursery.cancel_scope.cancel()


async def refused(url: str, **options: Any) -> str:
    with pytest.raises(ConnectionError) as caught:
        async with flowtrio.connect(url, **options):
            raise AssertionError("not reached")
    return str(caught.value)


@pytest.mark.parametrize("answer", [b"220 mail ready\r\n\r\n", b""])
async def test_what_is_no_websocket_server_is_told(answer: bytes) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    async with answering(handle) as url:
        words = await refused(url)

    assert words == f"can't reach {url}chat: it does not answer as a WebSocket server"


async def test_a_server_that_does_not_answer_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("flowtrio.transports._connect._HANDSHAKE", 0.2)
    async with answering(hang) as url:
        words = await refused(url)

    assert words.endswith("no answer within 0.2 s")


async def test_wss_asks_for_a_certificate_that_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with open_server(echo, ssl_context=context) as served:
        url = served.url.replace("ws:", "wss:")
        words = await refused(url)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        async with flowtrio.connect(url) as remote:
            assert await remote.process("hi") == "hi"

    assert words.startswith(f"can't reach {url}: ")
    assert "certificate verify failed" in words


async def test_what_may_be_secret_in_an_address_is_not_told() -> None:
    words = await refused("http://ann:canary@127.0.0.1:1/chat?token=canary")

    assert words.startswith("can't reach ws://127.0.0.1:1/chat: ")
    assert "canary" not in words


async def test_a_run_is_cancelled_once() -> None:
    async with open_server(waits) as served, connected(served) as remote:
        async with remote.process_stream("a") as stream:
            await _until_chunk(stream)
            assert stream.cancel("enough")
            assert not stream.cancel("again")
            with pytest.raises(RunCancelled, match="enough"):
                await stream.result()


# Against servers that a test plays


def log_of(command: dict[str, Any], make: Any = answers) -> list[dict[str, Any]]:
    return [{**event, "run_id": command["run_id"]} for event in make()]


async def test_a_lost_connection_goes_on_after_the_last_event_seen() -> None:
    commands = []

    async def begin(peer: Connection) -> None:
        commands.append(await peer.take())
        await peer.accept(commands[0])
        await peer.give(*log_of(commands[0])[:3])

    async def resume(peer: Connection) -> None:
        commands.append(await peer.take())
        await peer.accept(commands[1])
        # One too many, one of another run, and a reply that nobody waits for.
        await peer.give(*log_of(commands[0])[2:4], {"type": "accepted", "ref": 99})
        await peer.give({**log_of(commands[0])[4], "run_id": "other"})
        await peer.give(*log_of(commands[0])[4:])
        await trio.sleep_forever()

    async with open_fake_server(begin, resume) as url, flowtrio.connect(url) as remote:
        check_events([event async for event in remote.process_stream("hello")])

    start, again = commands
    assert (start["type"], start["message"]) == ("message", "hello")
    assert again == {
        **{"type": "resume", "run_id": start["run_id"], "after": 2, "mode": "events"},
        "ref": again["ref"],
    }


async def test_commands_without_a_reply_are_sent_again() -> None:
    taken = []

    async def lose_the_start(peer: Connection) -> None:
        taken.append(await peer.take())

    async def lose_the_control(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        taken.append(command)
        await peer.give(*log_of(command, asks_for_approval)[:5])
        taken.append(await peer.take())

    async def take(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        taken.append(await peer.take())
        await peer.give({"type": "rejected", "ref": taken[3]["ref"], "code": "x", "error": "y"})
        await peer.give(*log_of(command, asks_for_approval)[5:])
        await trio.sleep_forever()

    events = []
    scripts = (lose_the_start, lose_the_control, take)
    async with open_fake_server(*scripts) as url, flowtrio.connect(url) as remote:
        async with remote.process_stream("hello") as run:
            async for event in run:
                events.append(event)
                if event.seq == 4:
                    assert run.approve("c1")

    check_events(events)
    first, second, third, fourth = [{**command, "ref": 0} for command in taken]
    assert first == second
    assert third == fourth
    assert (third["type"], third["call_id"]) == ("approve", "c1")


@pytest.mark.parametrize(
    "nonsense", ["no JSON", "[1]", '{"type": "mood", "seq": 3, "run_id": "r", "data": {}}']
)
async def test_what_is_no_frame_is_a_lost_connection(nonsense: str) -> None:
    async def speak(peer: Connection) -> None:
        await peer.accept(await peer.take())
        await peer.connection.send_message(nonsense)
        await trio.sleep_forever()

    async def answer(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        await peer.give(*log_of(command))
        await trio.sleep_forever()

    async with open_fake_server(speak, answer) as url, flowtrio.connect(url) as remote:
        check_events([event async for event in remote.process_stream("hello", run_id="r")])


async def test_a_server_that_is_busy_is_tried_again_and_one_that_refuses_is_not() -> None:
    async def begin(peer: Connection) -> None:
        await peer.accept(await peer.take())

    async with open_fake_server(begin, 503, 403) as url, flowtrio.connect(url) as remote:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await remote.process("hello")
        with pytest.raises(trio.BrokenResourceError):
            await remote.process("again")

    assert str(caught.value) == f"lost {url}: the server answers 403"


def refuse_with(code: str, refs: Any = lambda ref: ref) -> Any:
    async def refuse(peer: Connection) -> None:
        reply = {"ref": refs((await peer.take())["ref"]), "code": code, "error": "not today"}
        await peer.give({"type": "rejected", **reply})
        await trio.sleep_forever()

    return refuse


async def answer_all(peer: Connection) -> None:
    await peer.accept(command := await peer.take())
    await peer.give(*log_of(command))
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("code", "ref"), [("shutting_down", lambda ref: ref), ("not_resumable", lambda ref: None)]
)
async def test_a_server_that_goes_or_lost_our_place_is_asked_again(code: str, ref: Any) -> None:
    refuse = refuse_with(code, ref)
    async with open_fake_server(refuse, answer_all) as url, flowtrio.connect(url) as remote:
        check_events([event async for event in remote.process_stream("hello")])


async def test_too_many_runs_are_a_limit() -> None:
    refuse = refuse_with("too_many_runs")
    async with open_fake_server(refuse) as url, flowtrio.connect(url) as remote:
        with pytest.raises(LimitExceeded) as caught:
            await remote.process("hello")

    assert caught.value.limit == "runs_per_connection"


async def test_a_connection_that_answers_no_ping_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowtrio.transports._connect._PING", 0.2)
    taken = 0

    async def fall_silent(stream: trio.SocketStream) -> None:
        nonlocal taken
        taken += 1
        if taken > 1:
            again.set()
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        [key] = [
            line.partition(b":")[2].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        ]
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        await trio.sleep_forever()

    again = trio.Event()
    async with answering(fall_silent) as url, flowtrio.connect(url):
        await again.wait()

    assert taken > 1


_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


# How a stream is used


async def test_a_stream_is_used_once_by_one_reader_until_it_is_closed() -> None:
    async with open_server(waits) as served, connected(served) as remote:
        stream = remote.process_stream("a", run_id="r")
        assert repr(stream) == "<RemoteStream run='r' status='initializing'>"
        assert not stream.cancel(), "it has not begun"
        async with stream:
            with pytest.raises(RuntimeError, match="used before"):
                await stream.__aenter__()
            await _until_chunk(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_batch)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await anext(stream)
                nursery.cancel_scope.cancel()
        attached = remote.attach("other")
        await attached.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await anext(attached)


async def test_a_slow_reader_pauses_the_connection_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowtrio.transports._connect._BUFFER", 2)
    async with open_server(talks) as served, connected(served) as remote:
        events = []
        async with remote.process_stream("30") as stream:
            async for event in stream:
                events.append(event)
                await trio.testing.wait_all_tasks_blocked()
                assert len(stream._queue) <= 2

    check_events(events)


async def test_calls_are_denied_and_cancelled_over_the_network() -> None:
    @flowtrio.tool
    async def hang() -> None:
        """Hang."""
        await trio.sleep_forever()

    async def agent(ctx: RunContext, message: str) -> str:
        assert not await ctx.approve("pay", {})
        with pytest.raises(flowtrio.ToolFailed):
            await ctx.call(hang)
        return "done"

    outcomes = []
    async with open_server(agent) as served, connected(served) as remote:
        async with remote.process_stream("go") as stream:
            async for event in stream:
                if event.type == "approval_required":
                    assert stream.deny(event.data["call_id"], "no")
                if event.type == "tool_call_start":
                    assert stream.cancel_tool(event.data["call_id"])
                if event.type == "tool_call_end":
                    outcomes.append(event.data["outcome"])

    assert outcomes == ["denied", "cancelled"]


def test_when_all_is_over_nobody_hears_a_control() -> None:
    async def main() -> Any:
        async with open_server(waits) as served, connected(served) as remote:
            stream = remote.process_stream("a")
            await _until_chunk(stream)
            return stream

    stream = trio.run(main)
    heard: list[bool] = []
    thread = threading.Thread(target=lambda: heard.append(stream.cancel()))
    thread.start()
    thread.join()

    assert heard == [False]


async def test_an_unknown_refusal_is_told_with_its_code() -> None:
    async def refuse(peer: Connection) -> None:
        reply = {"ref": (await peer.take())["ref"], "code": "mood", "error": "not today"}
        await peer.give({"type": "rejected", **reply})
        await trio.sleep_forever()

    async with open_fake_server(refuse) as url, flowtrio.connect(url) as remote:
        with pytest.raises(RemoteProtocolError, match="not today") as caught:
            await remote.process("hello")

    assert caught.value.code == "mood"
