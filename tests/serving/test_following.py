"""A log as the body of an answer, and the clients that leave it or take nothing."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import math
import weakref
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from flowtrio import (
    Orchestrator,
    RunContext,
    ServerLimits,
    project,
)
from flowtrio.asgi import create_app
from flowtrio.testing import check_events
from tests.support.asgi import exchange
from tests.support.site import Talker, as_events, site, talk


async def test_an_event_source_goes_on_where_it_was_and_is_told_when_all_is_over() -> None:
    async with site() as s:
        events, ids = await s.follow("GET", "/chat/stream", params={"message": "hi"})
        for place in range(len(events) - 1):
            again, _ = await s.follow(
                "GET",
                "/chat/stream",
                params={"message": "hi"},
                headers={"last-event-id": ids[place]},
            )
            assert again == events[place + 1 :]
        over = await s.http.get("/chat/stream?message=hi", headers={"last-event-id": ids[-1]})
        gone = await s.http.get("/chat/stream?message=hi", headers={"last-event-id": "other:3"})

    assert (over.status_code, over.content) == (204, b"")
    assert (gone.status_code, gone.json()["code"]) == (404, "unknown_run")


async def test_a_run_can_be_followed_from_any_place_in_lines_or_modes() -> None:
    async with site() as s:
        events, _ = await s.follow("GET", "/chat/stream", params={"message": "a", "run_id": "x"})
        later, _ = await s.follow("GET", "/runs/x/events", params={"after": "3"})
        lines = await s.http.get("/runs/x/events", headers={"accept": "application/x-ndjson"})
        values, _ = await s.follow("GET", "/runs/x/events", params={"mode": "values"})
        tail, _ = await s.follow("GET", "/runs/x/events", params={"mode": "values", "after": "3"})
        bad = [
            await s.http.get(f"/runs/x/events?{q}") for q in ("mode=loud", "after=x", "after=-2")
        ]
        ahead = await s.http.get("/runs/x/events?after=1000")

    assert later == events[4:]
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in lines.text.splitlines() if line] == events
    expected = [event.data for event in project("values", as_events(events))]
    assert [event["data"] for event in values] == expected
    assert tail == [event for event in values if event["seq"] > 3]
    assert [response.status_code for response in bad] == [400, 400, 400]
    assert (ahead.status_code, ahead.json()["code"]) == (410, "replay_gap")


async def test_a_client_that_leaves_has_its_window_and_then_its_run_is_cancelled() -> None:
    agent = Talker()
    async with site(agent, resume_window=0.1) as s:
        # Left by cancellation: httpx leaves its own generators behind on a break.
        with trio.CancelScope() as leaving:
            async with s.http.stream("GET", "/chat/stream?message=a&run_id=x") as response:
                async for _ in response.aiter_bytes():
                    if agent.begun:
                        leaving.cancel()
        with trio.fail_after(5):
            await agent.ended.wait()
        events, _ = await s.follow("GET", "/runs/x/events")

    check_events(as_events(events))
    assert events[-1]["data"]["status"] == "cancelled"
    assert "no reader came back within 0.1 s" in events[-1]["data"]["reason"]


async def test_without_a_window_a_client_that_stays_gets_all_and_one_that_leaves_cancels() -> None:
    agent = Talker()
    orchestrator = Orchestrator(agents=[talk, agent], route=lambda message, ctx: message)
    async with site(orchestrator=orchestrator, resume_window=0) as s:
        for _ in range(20):
            events, _ = await s.follow("GET", "/chat/stream?message=talk")
            assert events[-1]["data"]["status"] == "completed"
        with trio.CancelScope() as leaving:
            async with s.http.stream("GET", "/chat/stream?message=talker") as response:
                async for _ in response.aiter_bytes():
                    if agent.begun:
                        leaving.cancel()
        with trio.fail_after(5):
            await agent.ended.wait()


async def test_connections_are_limited() -> None:
    async with site(Talker(), limits=ServerLimits(connections=1), resume_window=0.01) as s:
        async with s.http.stream("GET", "/chat/stream?message=a"):
            full = await s.http.get("/chat/stream?message=b")

    assert (full.status_code, full.json()["code"]) == (503, "http_503")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answers_end_closes_the_connection_where_it_was_asked_to(version: str) -> None:
    """As nginx asks: it speaks HTTP/1.0, where the end of the connection is that of the answer."""
    async with site() as s:
        stream = await trio.open_tcp_stream("127.0.0.1", int(s.url.rpartition(":")[2]))
        async with stream:
            await stream.send_all(
                f"GET /chat/stream?message=a HTTP/{version}\r\nhost: localhost\r\n"
                "connection: close\r\n\r\n".encode()
            )
            with trio.fail_after(20):
                body = b"".join([piece async for piece in stream])

    assert b'"done"' in body


async def test_a_connection_is_used_again_after_a_stream() -> None:
    async with site() as s:
        stream = await trio.open_tcp_stream("127.0.0.1", int(s.url.rpartition(":")[2]))
        async with stream:
            for _ in range(3):
                await stream.send_all(
                    b"GET /chat/stream?message=a HTTP/1.1\r\nhost: localhost\r\n\r\n"
                )
                body = b""
                with trio.fail_after(20):
                    while not body.endswith(b"0\r\n\r\n"):
                        body += await stream.receive_some()
                assert b'"done"' in body


async def test_a_quiet_stream_is_kept_open_by_comments() -> None:
    async with site(Talker(), limits=ServerLimits(ping_interval=0.02), resume_window=0.01) as s:
        text = b""
        with trio.CancelScope() as leaving:
            async with s.http.stream("GET", "/chat/stream?message=a") as response:
                async for piece in response.aiter_bytes():
                    text += piece
                    if text.count(b": still here") >= 2:
                        leaving.cancel()

    assert text.startswith(b"retry: 1000\n\n")
    assert b"event:" not in text


@pytest.mark.parametrize("limits", [ServerLimits(), ServerLimits(ping_interval=math.inf)])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_comments_come_in_their_time_whatever_the_view_hides(
    autojump_clock: Any, limits: ServerLimits, accept: str
) -> None:
    """A reader takes a connection for dead that is silent for longer."""

    async def busy(ctx: RunContext, message: str) -> str:
        for _ in range(50):
            await trio.sleep(1)
            await ctx.custom("beat", None)
        return message

    times = []

    async def take(message: Any) -> None:
        times.append(trio.current_time())

    app = create_app(Orchestrator(agents=[busy]), limits=limits)
    query = b"message=a&mode=messages"
    await exchange(app, "/chat/stream", take=take, query_string=query, headers=[("accept", accept)])
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]

    assert max(gaps) == pytest.approx(15)
    assert len(times) < 10


async def test_a_batch_of_which_a_mode_shows_nothing_sends_nothing(autojump_clock: Any) -> None:
    async def slow(ctx: RunContext, message: str) -> str:
        await trio.sleep(1)
        return message

    app = create_app(Orchestrator(agents=[slow]))
    sent = await exchange(app, "/chat/stream", query_string=b"message=a&mode=messages")
    bodies = [message["body"] for message in sent[1:]]

    assert bodies[0] == b"retry: 1000\n\n"
    assert b'"done"' in bodies[1]
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert len(bodies) == 3


async def test_an_answer_that_nobody_takes_is_cut_and_not_ended(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def take(message: Any) -> None:
        if message.get("body", b"").startswith(b"id:"):
            await trio.sleep_forever()

    app = create_app(Orchestrator(agents=[talk]), limits=ServerLimits(send=3))
    with caplog.at_level(logging.INFO, "flowtrio"):
        sent = await exchange(app, "/chat/stream", query_string=b"message=a", take=take)

    assert all(message.get("more_body", True) for message in sent)
    assert "a client took nothing for 3" in caplog.text


@pytest.mark.parametrize("path", ["/health", "/nothing", "/sessions/s", "/runs/x/events", "/page"])
async def test_a_client_that_takes_no_answer_is_left(
    path: str, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Orchestrator(agents=[talk]), limits=ServerLimits(send=3))

    async def take(message: Any) -> None:
        await trio.sleep_forever()

    with caplog.at_level(logging.INFO, "flowtrio"):
        assert await exchange(app, path, take=take) == []

    assert trio.current_time() == 3
    assert "a client took nothing for 3 s" in caplog.text


async def _stuck(type_: str, agent: Any, **scope: Any) -> tuple[list[float], list[Any]]:
    """Have a client take nothing of one kind, where no cancellation reaches what is being sent.

    Gives when the run ended, and whether anything of it is still held then.
    """
    orchestrator = Orchestrator(agents=[agent])
    limits = ServerLimits(send=3, connections=1)
    app = create_app(orchestrator, limits=limits, resume_window=5, drain=0)
    released = trio.Event()

    async def take(message: Any) -> None:
        if message["type"] == type_:
            with trio.CancelScope(shield=True):
                await released.wait()

    ask = partial(exchange, app, "/chat/stream", query_string=b"message=a&run_id=x", take=take)
    async with orchestrator, trio.open_nursery() as nursery:
        nursery.start_soon(partial(ask, **scope))
        await trio.testing.wait_all_tasks_blocked()
        hosted = weakref.ref(orchestrator._recorder.runs["default", "x"])
        await agent.ended.wait()
        times = [trio.current_time()]
        while orchestrator._recorder.runs:
            await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        held = [hosted(), app._hosting._readers or None, *orchestrator._recorder.runs]
        await app.drain()
        times.append(trio.current_time())
        released.set()
    return times, held


@pytest.mark.parametrize("type_", ["http.response.start", "http.response.body"])
async def test_a_send_that_no_cancellation_reaches_holds_no_run(
    type_: str, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As Hypercorn's, to a client that takes nothing and does not go."""
    with caplog.at_level(logging.INFO, "flowtrio"):
        times, held = await _stuck(type_, Talker())

    # The send's deadline, then the resume window.
    assert times == [8, 8]
    assert held == [None, None]
    assert caplog.text.count("a client took nothing for 3 s") == 1


async def test_a_client_that_leaves_what_it_does_not_take_has_left(autojump_clock: Any) -> None:
    left = {"type": "http.disconnect"}
    told = [{"type": "http.request", "body": b""}, left]
    times, held = await _stuck("http.response.body", Talker(), told=told)

    assert times == [5, 5]
    assert held == [None, None]


async def test_an_answer_that_is_taken_slowly_is_whole(autojump_clock: Any) -> None:
    """Its limit is for each piece: a batch that takes longer would only have to come again."""

    async def talks(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            await out.write("x" * 500_000)

    async def take(message: Any) -> None:
        await trio.sleep(len(message.get("body", b"")) / 40_000)

    app = create_app(Orchestrator(agents=[talks]), limits=ServerLimits(send=3))
    sent = await exchange(app, "/chat/stream", query_string=b"message=a", take=take)

    body = b"".join(message.get("body", b"") for message in sent)
    assert body.count(b"data: ") == body.count(b"id: ") > 3
    assert sent[-1]["more_body"] is False
    assert trio.current_time() > 12


async def test_hypercorn_holds_no_run_for_a_client_that_takes_nothing() -> None:
    """All fits into one send, and the run says no more: no follower falls behind."""

    class Large(Talker):
        async def __call__(self, ctx: RunContext, message: str) -> str:
            async with ctx.message() as out:
                await out.write("x" * 30_000_000)
            return await super().__call__(ctx, message)

    agent = Large()
    async with site(agent, limits=ServerLimits(send=0.5), resume_window=0.1) as s:
        port = int(s.url.rpartition(":")[2].strip("/"))
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            request = "GET /chat/stream?message=a HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await stream.send_all(request.encode())
            with trio.fail_after(20):
                await agent.ended.wait()
                while s.orchestrator._recorder.runs:
                    await trio.sleep(0.01)
            other = await s.http.get("/health")

    assert other.status_code == 200
