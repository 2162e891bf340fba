"""The WebSocket server with clients that behave: what they send, and what they get."""

from __future__ import annotations

import gc
import logging
import ssl
from collections import Counter
from typing import Any

import h11
import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from flowtrio import (
    Agent,
    DemoClient,
    Limits,
    Orchestrator,
    RunContext,
    ServerLimits,
    ToolCall,
    serve_websocket,
    tool,
)
from flowtrio.serving._head import Head
from flowtrio.serving.sockets.websocket import _PIECE, _address, _pieces
from flowtrio.testing import ScriptedModel, check_events
from tests.support.ws_peer import (
    Served,
    connect,
    frame,
    handshake,
    open_server,
    read_all,
    read_until,
    upgraded,
)


async def echo(ctx: RunContext, message: str) -> str:
    """Say what was said before, and what is said now."""
    said = [m["content"] for m in ctx.history if m["role"] == "user"]
    async with ctx.message() as out:
        for word in [*said, message]:
            await out.write(f"{word} ")
    return " ".join([*said, message])


async def waits(ctx: RunContext, message: str) -> None:
    """Say a word and wait for a cancellation."""
    async with ctx.message() as out:
        await out.write("waiting")
        await trio.sleep_forever()


def events_of(frames: list[dict[str, Any]], run_id: str | None = None) -> list[dict[str, Any]]:
    return [f for f in frames if "seq" in f and run_id in (None, f["run_id"])]


def text_of(frames: list[dict[str, Any]]) -> str:
    return "".join(f["data"]["chunk"] for f in frames if f["type"] == "message_chunk")


# One run


async def test_a_text_is_answered_by_a_run() -> None:
    async with open_server(echo) as served, connect(served) as peer:
        reply, *events = await peer.ask("hello")

    assert reply == {"type": "accepted", "ref": None, "run_id": events[0]["run_id"]}
    check_events(events)
    assert text_of(events) == "hello "
    assert events[-1]["data"]["result"] == "hello"


async def test_an_idle_connection_keeps_nothing_of_its_beginning() -> None:
    """Idle ones are what a server has most of; the serving bench tells their size."""

    def kept() -> Counter[str]:
        gc.collect()
        kinds = (Head, trio.WouldBlock, h11.Connection)
        return Counter(type(it).__name__ for it in gc.get_objects() if type(it) in kinds)

    before = kept()
    async with open_server(echo) as served, connect(served), connect(served):
        await wait_all_tasks_blocked(0.05)
        # The two clients of this process have a parser each.
        assert kept() - before == Counter({"Connection": 2})


async def test_the_main_job_over_the_wire() -> None:
    """The demonstration with its parallel tools, in order and spread over time."""
    from flowtrio.cli._demo import demo_agent

    begun = trio.current_time()
    async with open_server(demo_agent(DemoClient(delay=0.005))) as served, connect(served) as peer:
        await peer.send("Book a flight to Paris")
        frames, times = [], []
        while not frames or frames[-1]["type"] != "done":
            frames.append(await peer.receive())
            times.append(trio.current_time() - begun)

    events = frames[1:]
    check_events(events)
    types = Counter(event["type"] for event in events)
    assert events[0]["type"] == "run_start"
    assert types["state_change"] >= 2
    assert types["message_chunk"] > 20
    starts = [e["seq"] for e in events if e["type"] == "tool_call_start"]
    ends = [e["seq"] for e in events if e["type"] == "tool_call_end"]
    assert len(starts) == 2
    assert max(starts) < min(ends)
    assert times[-1] - times[0] > 0.3


async def test_a_command_has_its_ref_run_and_mode() -> None:
    async with open_server(echo) as served, connect(served) as peer:
        reply, *events = await peer.ask(
            type="message", message="hi", ref=7, run_id="my-run", mode="messages"
        )

    assert reply == {"type": "accepted", "ref": 7, "run_id": "my-run"}
    assert {event["type"] for event in events} == {"message_chunk", "message_complete", "done"}
    assert {event["run_id"] for event in events} == {"my-run"}


async def test_the_servers_own_mode_is_the_orchestrators() -> None:
    orchestrator = Orchestrator(agents=[echo], mode="messages")
    async with open_server(orchestrator) as served, connect(served) as peer:
        quiet = await peer.ask("hi")
        full = await peer.ask(type="message", message="hi", mode="events")

    assert "run_start" not in {frame["type"] for frame in quiet}
    check_events(events_of(full))


async def test_values_mode_sends_snapshots() -> None:
    async with open_server(echo) as served, connect(served) as peer:
        frames = await peer.ask(type="message", message="hi", mode="values")

    events = events_of(frames)
    [said] = [event for event in events if event["type"] == "message_complete"]
    assert "message_chunk" not in {event["type"] for event in events}
    assert all("state" in event["data"] for event in events)
    assert said["data"]["content"] == "hi "


async def test_a_batch_is_an_array_and_replies_stand_alone() -> None:
    async def talks(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            for _ in range(50):
                await out.write("word ")

    async with (
        open_server(talks) as served,
        connect(served, subprotocols=["other", "flowtrio.batch.v1", "flowtrio.v1"]) as peer,
    ):
        assert peer.connection.subprotocol == "flowtrio.batch.v1"
        await peer.send("go")
        reply = await peer.receive()
        events: list[Any] = []
        frames = 0
        while not events or events[-1]["type"] != "done":
            events += await peer.receive()
            frames += 1

    assert reply["type"] == "accepted"
    check_events(events)
    assert len(events) > 50
    assert frames < len(events) / 4


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], None),
        (["other"], None),
        (["flowtrio.v1"], "flowtrio.v1"),
        (["x", "flowtrio.v1", "flowtrio.batch.v1"], "flowtrio.v1"),
        (["flowtrio.token.abc", "flowtrio.v1"], "flowtrio.v1"),
    ],
)
async def test_the_first_subprotocol_that_both_speak(
    offered: list[str], chosen: str | None
) -> None:
    async with open_server(echo) as served, connect(served, subprotocols=offered) as peer:
        assert peer.connection.subprotocol == chosen


@pytest.mark.parametrize("path", ["/", "/chat", "/ws", "/chat?x=1"])
async def test_paths(path: str) -> None:
    async with open_server(echo) as served, connect(served, path=path) as peer:
        assert text_of(await peer.ask("hi")) == "hi "


# Conversations


async def test_a_connection_is_a_conversation() -> None:
    async with open_server(echo) as served:
        async with connect(served) as peer, connect(served) as other:
            assert text_of(await peer.ask("one")) == "one "
            assert text_of(await peer.ask("two")) == "one two "
            assert text_of(await other.ask("three")) == "three "


async def test_a_session_is_found_again_by_its_name() -> None:
    async with open_server(echo) as served:
        for expected in ("a ", "a a "):
            async with connect(served) as peer:
                frames = await peer.ask(type="message", message="a", session_id="s")
                assert text_of(frames) == expected


async def test_tenants_share_nothing() -> None:
    def authenticate(request: Any) -> str | None:
        return request.headers.get("x-user")

    async with open_server(echo, authenticate=authenticate) as served:
        async with (
            connect(served, headers=[("x-user", "ann")]) as ann,
            connect(served, headers=[("x-user", "bob")]) as bob,
        ):
            said = {"type": "message", "message": "a", "session_id": "s", "run_id": "r"}
            assert text_of(await ann.ask(**said)) == "a "
            assert text_of(await bob.ask(**said)) == "a "


async def test_messages_of_one_session_wait_for_each_other() -> None:
    async with open_server(echo) as served, connect(served) as peer:
        await peer.send(type="message", message="a", run_id="first")
        await peer.send(type="message", message="b", run_id="second")
        frames = await peer.until("done", run_id="second")

    for run_id in ("first", "second"):
        check_events(events_of(frames, run_id))
    assert text_of(events_of(frames, "second")) == "a b "


async def test_sessions_of_one_connection_run_side_by_side() -> None:
    meet = [trio.Event(), trio.Event()]

    async def agent(ctx: RunContext, message: str) -> None:
        meet[int(message)].set()
        await meet[1 - int(message)].wait()

    async with open_server(agent) as served, connect(served) as peer:
        for number in "01":
            await peer.send(type="message", message=number, session_id=number)
        with trio.fail_after(5):
            frames = await peer.until("done") + await peer.until("done")

    assert len({frame["run_id"] for frame in frames}) == 2


async def test_a_busy_session_refuses_with_its_code() -> None:
    orchestrator = Orchestrator(agents=[waits], on_busy="reject")
    async with open_server(orchestrator) as served, connect(served) as peer:
        await peer.send(type="message", message="a", run_id="first")
        await peer.until("message_chunk")
        await peer.send(type="message", message="b", run_id="second", ref="x")
        refused = (await peer.until("rejected"))[-1]
        await peer.send(type="cancel", run_id="first")
        await peer.until("done", run_id="first")

    assert (refused["ref"], refused["code"]) == ("x", "session_busy")


async def test_a_busy_tenant_is_refused_and_served_again() -> None:
    orchestrator = Orchestrator(agents=[waits], runs_per_tenant=1)
    async with open_server(orchestrator) as served, connect(served) as peer:
        await peer.send(type="message", message="a", session_id="1", run_id="first")
        await peer.until("message_chunk")
        await peer.send(type="message", message="b", session_id="2", run_id="again")
        assert (await peer.until("rejected"))[-1]["code"] == "tenant_busy"
        await peer.send(type="cancel", run_id="first")
        await peer.until("done")
        # A refused start leaves nothing behind: the same id may be used again.
        await peer.send(type="message", message="b", session_id="2", run_id="again")
        assert (await peer.receive())["type"] == "accepted"


# Starting twice


async def test_starting_twice_is_starting_once() -> None:
    started = 0

    async def agent(ctx: RunContext, message: str) -> None:
        nonlocal started
        started += 1
        await trio.sleep(0.02)

    async with open_server(agent) as served, connect(served) as peer:
        for ref in (1, 2):
            await peer.send(type="message", message="a", run_id="r", ref=ref)
        frames = await peer.until("done")
        await peer.send(type="message", message="a", run_id="r", ref=3)
        late = await peer.receive()

    replies = [frame["ref"] for frame in frames if frame["type"] == "accepted"]
    assert replies == [1, 2]
    assert late == {"type": "accepted", "ref": 3, "run_id": "r"}
    assert started == 1
    check_events(events_of(frames))


@pytest.mark.parametrize("is_own", [False, True])
async def test_another_message_under_a_runs_id_is_rejected(is_own: bool) -> None:
    async with open_server(waits) as served, connect(served) as peer, connect(served) as other:
        await peer.send(type="message", message="a", **({} if is_own else {"run_id": "r"}))
        run_id = (await peer.receive())["run_id"]
        await peer.until("message_chunk")
        for each in (peer, other):
            await each.send(type="message", message="b", run_id=run_id, ref=1)
            rejected = await each.receive()

            assert (rejected["type"], rejected["ref"]) == ("rejected", 1)
            assert rejected["code"] == "run_exists"
        await peer.send(type="message", message="a", run_id=run_id, ref=2)

        assert await peer.receive() == {"type": "accepted", "ref": 2, "run_id": run_id}
        await peer.send(type="cancel", run_id=run_id)
        frames = await peer.until("done")

    assert [f["type"] for f in frames if f["type"] in ("run_start", "message_complete")] == [
        "message_complete"
    ]


async def test_a_connection_has_so_many_runs() -> None:
    limits = ServerLimits(runs_per_connection=2)
    async with open_server(waits, limits=limits) as served, connect(served) as peer:
        for number in range(3):
            await peer.send(type="message", message="a", session_id=str(number), ref=number)
        frames = await peer.until("rejected")

    assert (frames[-1]["ref"], frames[-1]["code"]) == (2, "too_many_runs")


# Controls


async def test_cancelling_ends_a_run_in_good_order() -> None:
    async with open_server(waits) as served, connect(served) as peer:
        await peer.send(type="message", message="a", run_id="r")
        frames = await peer.until("message_chunk")
        await peer.send(type="cancel", run_id="r", reason="enough", ref="c")
        frames += await peer.until("done")
        await peer.send(type="cancel", run_id="r", ref="late")
        late = await peer.until("rejected")

    events = events_of(frames)
    check_events(events)
    assert events[-1]["data"]["status"] == "cancelled"
    assert events[-1]["data"]["reason"] == "enough"
    assert {"type": "accepted", "ref": "c", "run_id": "r"} in frames + late
    assert (late[-1]["ref"], late[-1]["code"]) == ("late", "unknown_run")


def approving_agent() -> Agent[str]:
    @tool(needs_approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    turns = ScriptedModel([ToolCall("p1", "pay", {"amount": 3})], "thanks")
    return Agent(llm_client=turns, tools=[pay])


@pytest.mark.parametrize(
    ("command", "outcome"),
    [("approve", "ok"), ("deny", "denied"), ("cancel_tool", "cancelled")],
)
async def test_people_decide_over_the_wire(command: str, outcome: str) -> None:
    async with open_server(approving_agent()) as served, connect(served) as peer:
        await peer.send("pay")
        frames = await peer.until("approval_required")
        asked = frames[-1]
        await peer.send(
            type=command, run_id=asked["run_id"], call_id=asked["data"]["call_id"], ref=1
        )
        frames += await peer.until("done")

    events = events_of(frames)
    check_events(events)
    [ended] = [event for event in events if event["type"] == "tool_call_end"]
    assert ended["data"]["outcome"] == outcome
    assert {"type": "accepted", "ref": 1, "run_id": asked["run_id"]} in frames


async def test_a_question_is_answered_over_the_wire() -> None:
    async def asks(ctx: RunContext, message: str) -> str:
        return await ctx.ask("Where?")

    async with open_server(asks) as served, connect(served) as peer:
        await peer.send("go")
        asked = (await peer.until("input_required"))[-1]
        await peer.send(
            type="answer",
            run_id=asked["run_id"],
            request_id=asked["data"]["request_id"],
            text="Paris",
        )
        frames = await peer.until("done")

    assert frames[-1]["data"]["result"] == "Paris"


async def test_another_tenants_run_is_unknown() -> None:
    def authenticate(request: Any) -> str | None:
        return request.query.get("user")

    async with open_server(waits, authenticate=authenticate) as served:
        async with (
            connect(served, path="/chat?user=ann") as ann,
            connect(served, path="/chat?user=bob") as bob,
        ):
            await ann.send(type="message", message="a", run_id="r")
            await ann.until("message_chunk")
            await bob.send(type="cancel", run_id="r", ref=1)
            reply = await bob.receive()

    assert (reply["type"], reply["code"]) == ("rejected", "unknown_run")


async def test_a_ping_is_answered_also_in_the_midst_of_a_run() -> None:
    async with open_server(waits) as served, connect(served) as peer:
        await peer.send(type="ping", ref="a")
        assert await peer.receive() == {"type": "accepted", "ref": "a", "run_id": None}
        await peer.send("go")
        await peer.until("message_chunk")
        await peer.send(type="ping")
        assert await peer.receive() == {"type": "accepted", "ref": None, "run_id": None}


async def test_bad_frames_are_told_and_nothing_stops() -> None:
    async with open_server(echo) as served, connect(served) as peer:
        for sent, code in (
            ("", "bad_frame"),
            ('{"type": "dance", "ref": 1}', "unknown_type"),
            ('{"type": "message"}', "bad_frame"),
            ('{"type": "ping", "run_id": "r"}', "bad_frame"),
            ('{"type": "message", "message": "a", "run_id": "a\\n"}', "bad_frame"),
        ):
            await peer.send(sent)
            assert (await peer.receive())["code"] == code
        assert text_of(await peer.ask("still here")) == "still here "


# Leaving


async def test_a_client_that_leaves_cancels_its_runs() -> None:
    left = trio.Event()

    async def agent(ctx: RunContext, message: str) -> None:
        try:
            await ctx.custom("begun")
            await trio.sleep_forever()
        finally:
            left.set()

    async with open_server(agent) as served:
        for is_polite in (True, False):
            left = trio.Event()
            async with connect(served) as peer:
                await peer.send("go")
                await peer.until("custom")
                if not is_polite:
                    await trio.aclose_forcefully(peer.connection._stream)
            with trio.fail_after(20):
                await left.wait()


async def test_a_shutdown_lets_runs_end_and_says_goodbye() -> None:
    may_end = trio.Event()

    async def short(ctx: RunContext, message: str) -> str:
        await ctx.custom("begun")
        await may_end.wait()
        return "in time"

    async with open_server(short, drain=30) as served, connect(served) as peer:
        await peer.send("go")
        await peer.until("custom")
        served.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(type="message", message="too late", ref=9)
        [refused] = await peer.until("rejected")
        may_end.set()
        frames = await peer.until("done")
        code = await peer.closed()

    assert (refused["ref"], refused["code"]) == (9, "shutting_down")
    assert frames[-1]["data"]["result"] == "in time"
    assert code == (1012, "the server is shutting down")


async def test_a_shutdown_ends_runs_that_do_not() -> None:
    async with open_server(waits, drain=0.1) as served, connect(served) as peer:
        await peer.send("go")
        frames = await peer.until("message_chunk")
        served.scope.cancel()
        frames += await peer.until("done")
        code, _ = await peer.closed()

    events = events_of(frames)
    check_events(events)
    assert events[-2]["type"] == "error"
    assert events[-2]["data"]["code"] == "shutdown"
    assert code == 1012


async def test_an_idle_server_stops_at_once() -> None:
    async with open_server(echo, drain=60) as served, connect(served):
        begun = trio.current_time()
        served.scope.cancel()
    assert trio.current_time() - begun < 5


# Slowness


async def test_a_slow_reader_slows_its_run_alone() -> None:
    said = Counter[str]()

    async def talks(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            for _ in range(3000):
                await out.write("x" * 1000)
                said[message] += 1

    async with open_server(talks, limits=ServerLimits(send=60)) as served:
        async with connect(served) as slow, connect(served) as fast:
            await slow.send("slow")
            with trio.fail_after(30):
                await fast.ask("fast")
            assert said["fast"] == 3000
            assert said["slow"] < 3000
            with trio.fail_after(30):
                frames = await slow.until("done")
    check_events(events_of(frames))


async def test_a_reader_that_takes_nothing_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    left = trio.Event()

    async def talks(ctx: RunContext, message: str) -> None:
        try:
            async with ctx.message() as out:
                while True:
                    await out.write("x" * 10_000)
        finally:
            left.set()

    caplog.set_level(logging.INFO, "flowtrio")
    async with open_server(talks, limits=ServerLimits(send=0.2)) as served:
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)
        async with stream:
            await upgraded(served, stream)
            await stream.send_all(frame(b"go"))
            with trio.fail_after(5):
                await left.wait()
    assert "a client took nothing for 0.2 s" in caplog.text


CLOSE = frame((1000).to_bytes(2, "big"), opcode=8)


@pytest.mark.parametrize("start", [b"go", b'{"type": "message", "message": "go", "run_id": "r"}'])
@pytest.mark.parametrize("more", [b"", frame(b'{"type": "cancel", "run_id": "other"}')])
async def test_a_client_that_closes_lets_its_runs_go_though_it_reads_nothing(
    start: bytes, more: bytes
) -> None:
    """Also where the server is about to reply to another command of it."""
    left = trio.Event()

    async def talks(ctx: RunContext, message: str) -> None:
        try:
            async with ctx.message() as out:
                while True:
                    await out.write("x" * 10_000)
        finally:
            left.set()

    limits = ServerLimits(send=60, close=0.1)
    async with open_server(talks, limits=limits, resume_window=0.1) as served:
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)
        async with stream:
            await upgraded(served, stream)
            await stream.send_all(frame(start))
            # Until neither side's buffer takes any more.
            await trio.sleep(0.5)
            assert not left.is_set()
            await stream.send_all(more + CLOSE)
            with trio.fail_after(5):
                await left.wait()
            await read_all(stream)


async def test_a_frame_that_comes_with_the_handshake_is_taken_at_once() -> None:
    async with open_server(echo) as served:
        for split in (None, 10, -3):
            stream = await trio.open_tcp_stream("127.0.0.1", served.port)
            async with stream:
                data = handshake(served) + frame(b"one") + frame(b"two")
                await stream.send_all(data[:split])
                if split is not None:
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    await stream.send_all(data[split:])
                await read_until(stream, b'"result":"one two"')


async def test_a_client_that_answers_no_ping_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowtrio")
    limits = ServerLimits(ping_interval=0.1, ping_timeout=0.1)
    async with open_server(echo, limits=limits) as served:
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)
        async with stream:
            await upgraded(served, stream)
            data = await read_all(stream)
    assert data[:1] == b"\x89"
    assert "a client answered no ping for 0.1 s" in caplog.text


async def test_pings_keep_a_quiet_client() -> None:
    limits = ServerLimits(ping_interval=0.05, ping_timeout=10)
    async with open_server(echo, limits=limits) as served, connect(served) as peer:
        await trio.sleep(0.3)
        assert text_of(await peer.ask("hi")) == "hi "


# What is told, and to whom


async def failing(ctx: RunContext, message: str) -> None:
    raise ZeroDivisionError("customer 4711 at /srv/db")


@pytest.mark.parametrize("debug", [False, True])
async def test_the_applications_errors_are_told_by_type_and_id(
    debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server(failing, debug=debug) as served, connect(served) as peer:
        frames = await peer.ask(type="message", message="go", run_id="r")

    check_events(events_of(frames))
    [error] = [frame["data"] for frame in frames if frame["type"] == "error"]
    assert ("4711" in str(frames)) is debug
    assert error["error"] == (
        "ZeroDivisionError: customer 4711 at /srv/db" if debug else "ZeroDivisionError (r)"
    )
    assert "customer 4711" in caplog.text
    assert "Traceback" in caplog.text


async def test_operators_get_one_line_a_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowtrio")
    async with open_server(echo) as served, connect(served) as peer:
        await peer.ask(type="message", message="secret words", run_id="r-1", session_id="s-1")

    lines = [r.getMessage() for r in caplog.records if "run r-1" in r.getMessage()]
    assert len(lines) == 1
    assert "tenant=default session=s-1" in lines[0]
    assert "status=completed" in lines[0]
    assert "secret words" not in caplog.text


async def test_a_clients_names_forge_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowtrio")
    session = "s status=error\n2026 ERROR flowtrio: forged"
    async with open_server(echo) as served, connect(served) as peer:
        await peer.ask(type="message", message="hi", session_id=session, run_id="r")

    [line] = [r.getMessage() for r in caplog.records if "run r " in r.getMessage()]
    assert "\n" not in line
    assert f"session={session!r} " in line


# Options


async def test_tls(tmp_path: Any) -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    async with open_server(echo, ssl_context=server_context) as served:
        async with connect(served, ssl_context=client_context) as peer:
            assert text_of(await peer.ask("hi")) == "hi "


async def test_a_server_on_an_open_orchestrator_leaves_it_open() -> None:
    async with Orchestrator(agents=[echo]) as orchestrator:
        async with open_server(orchestrator) as served, connect(served) as peer:
            await peer.ask("hi")
        assert orchestrator.is_open
    async with open_server(orchestrator):
        assert orchestrator.is_open
    assert not orchestrator.is_open


async def test_a_port_in_use_is_an_oserror() -> None:
    async with open_server(echo) as served:
        with pytest.raises(OSError):
            await serve_websocket(Orchestrator(agents=[echo]), "127.0.0.1", served.port)


@pytest.mark.parametrize(
    "options",
    [
        {"host": "0.0.0.0"},
        {"token": "a", "authenticate": lambda request: "x"},
        {"token": ""},
        {"origins": ["example.com"]},
    ],
)
async def test_options_that_contradict_are_refused_before_listening(options: Any) -> None:
    options = {"host": "127.0.0.1", "port": 0, **options}
    with pytest.raises(ValueError, match="expected"):
        await serve_websocket(Orchestrator(agents=[echo]), **options)


async def test_many_clients_at_once() -> None:
    async def one(served: Served, number: int, done: list[int]) -> None:
        async with connect(served) as peer:
            for turn in range(3):
                frames = await peer.ask(f"m{number}")
                check_events(events_of(frames))
                assert text_of(frames) == f"m{number} " * (turn + 1)
        done.append(number)

    done: list[int] = []
    async with open_server(echo) as served:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, served, number, done)

    assert sorted(done) == list(range(50))


async def test_nothing_is_left_of_a_connection() -> None:
    async with open_server(Orchestrator(agents=[echo], limits=Limits(run=60))) as served:
        async with connect(served) as peer:
            await peer.ask("hi")
        await trio.testing.wait_all_tasks_blocked(0.05)
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(5):
            async with connect(served) as peer:
                await peer.ask("hi")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert trio.lowlevel.current_statistics().tasks_living == before


def test_texts_are_written_in_pieces_of_a_size() -> None:
    large, small = "x" * _PIECE, "y"

    assert list(_pieces([small, small])) == [[small, small]]
    assert list(_pieces([small, large, small])) == [[small, large], [small]]
    assert list(_pieces([large, small, large])) == [[large], [small, large]]
    assert list(_pieces([])) == []


async def test_a_client_that_has_gone_has_no_address() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname())
        async with client, await listener.accept() as served:
            assert _address(served) == "127.0.0.1"
        assert _address(served) is None
