"""A run's log as a Durable Stream: offsets, closure, long-polls and Server-Sent Events."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio

from flowtrio import RunContext
from flowtrio.protocols import DurableStreamsProtocol
from flowtrio.testing import check_events
from flowtrio.wire._sse import SSEDecoder
from tests.support.site import Site, Talker, as_events, site

PROTOCOLS = [DurableStreamsProtocol(long_poll=0.2)]


async def talk(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        for word in message.split():
            await out.write(word)
    return message


async def start(s: Site, run_id: str = "r") -> list[dict[str, Any]]:
    events, _ = await s.follow("POST", "/chat/stream", json={"message": "a b c", "run_id": run_id})
    return events


def sse(text: bytes) -> list[tuple[str, Any]]:
    return [(e.event, json.loads(e.data)) for e in SSEDecoder().receive_data(text) if e.data]


async def test_an_ended_run_is_a_closed_stream_that_is_read_from_any_offset() -> None:
    async with site(talk, protocols=PROTOCOLS) as s:
        events = await start(s)
        head = await s.http.head("/streams/r")
        whole = await s.http.get("/streams/r")
        tails = [await s.http.get(f"/streams/r?offset={n:016}") for n in range(len(events) + 1)]
        now = await s.http.get("/streams/r?offset=now")

    end = f"{len(events):016}"
    check_events(as_events(whole.json()))
    assert whole.json() == events
    assert head.headers["stream-next-offset"] == end
    assert (head.headers["stream-closed"], head.headers["cache-control"]) == ("true", "no-store")
    assert [tail.json() for tail in tails] == [events[n:] for n in range(len(events) + 1)]
    for answer in (whole, *tails, now):
        assert answer.headers["stream-next-offset"] == end
        assert answer.headers["stream-up-to-date"] == "true"
        assert answer.headers["stream-closed"] == "true"
    assert now.json() == []
    assert "etag" not in now.headers
    assert whole.headers["cache-control"].startswith("private")
    assert whole.headers["cross-origin-resource-policy"] == "same-origin"


async def test_what_a_client_has_already_is_not_sent_again() -> None:
    async with site(talk, protocols=PROTOCOLS) as s:
        await start(s)
        etag = (await s.http.get("/streams/r?offset=-1")).headers["etag"]
        again = await s.http.get("/streams/r?offset=-1", headers={"if-none-match": etag})
        other = await s.http.get("/streams/r?offset=3", headers={"if-none-match": etag})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    assert other.status_code == 200


async def test_a_run_that_goes_on_is_open_and_its_end_is_waited_for() -> None:
    agent = Talker()
    async with site(agent, protocols=PROTOCOLS, resume_window=60) as s:
        async with s.http.stream("POST", "/chat/stream", json={"message": "x", "run_id": "r"}):
            while not agent.begun:
                await trio.sleep(0.01)
            await trio.sleep(0.05)
            open_ = await s.http.get("/streams/r")
            offset = open_.headers["stream-next-offset"]
            nothing = await s.http.get(f"/streams/r?offset={offset}&live=long-poll&cursor=1")
            at_once = await s.http.get("/streams/r?offset=-1&live=long-poll&cursor=1")
            answers: list[httpx.Response] = []

            async def poll() -> None:
                address = f"/streams/r?offset={offset}&live=long-poll"
                while not answers or answers[-1].status_code == 204:
                    answers.append(await s.http.get(address))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(poll)
                await s.http.post("/runs/r/cancel")
        ended = await s.http.get("/streams/r?offset=-1&live=sse")
        closed = await s.http.get(
            f"/streams/r?offset={ended_at(ended)}&live=long-poll", params=None
        )

    assert "stream-closed" not in open_.headers
    assert "stream-closed" not in nothing.headers
    assert nothing.status_code == 204
    assert nothing.headers["stream-next-offset"] == offset
    assert int(nothing.headers["stream-cursor"]) > 1
    assert at_once.json() == open_.json()
    assert int(at_once.headers["stream-cursor"]) > 1
    assert answers[-1].json()[0]["seq"] == int(offset)
    assert (closed.status_code, closed.headers["stream-closed"]) == (204, "true")


def ended_at(answer: httpx.Response) -> str:
    offset: str = sse(answer.content)[-1][1]["streamNextOffset"]
    return offset


async def test_server_sent_events_have_a_control_event_behind_each_piece() -> None:
    async with site(talk, protocols=PROTOCOLS) as s:
        events = await start(s)
        told = sse((await s.http.get("/streams/r?offset=-1&live=sse")).content)
        tail = sse((await s.http.get(f"/streams/r?live=sse&offset={3:016}")).content)
        over = sse((await s.http.get(f"/streams/r?live=sse&offset={len(events):016}")).content)

    assert [event for kind, data in told if kind == "data" for event in data] == events
    assert [event for kind, data in tail if kind == "data" for event in data] == events[3:]
    assert [kind for kind, _ in told] == ["data", "control"] * (len(told) // 2)
    end = {"streamNextOffset": f"{len(events):016}", "streamClosed": True}
    assert told[-1] == tail[-1] == ("control", end)
    assert over == [("control", end)]


async def test_a_connection_ends_when_its_time_is_over_and_the_client_comes_back() -> None:
    agent = Talker()
    protocol = DurableStreamsProtocol(connection=0)
    async with site(agent, protocols=[protocol], resume_window=60) as s:
        async with s.http.stream("POST", "/chat/stream", json={"message": "x", "run_id": "r"}):
            while not agent.begun:
                await trio.sleep(0.01)
            with trio.fail_after(10):
                told = sse((await s.http.get("/streams/r?offset=-1&live=sse")).content)
            await s.http.post("/runs/r/cancel")

    assert [kind for kind, _ in told] == ["data", "control"]
    assert "streamClosed" not in told[-1][1]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/streams/other", 404),
        ("HEAD", "/streams/other", 404),
        ("GET", "/streams/r?offset=x", 400),
        ("GET", "/streams/r?offset=1e3", 400),
        ("GET", "/streams/r?offset=-1&live=loud", 400),
        ("GET", "/streams/r?live=sse", 400),
        ("GET", "/streams/r?live=long-poll", 400),
        ("GET", "/streams/r?offset=0000000000009999", 410),
        ("PUT", "/streams/r", 405),
        ("POST", "/streams/r", 405),
        ("DELETE", "/streams/r", 405),
    ],
)
async def test_what_is_not_there_or_not_done_is_refused(
    method: str, path: str, status: int
) -> None:
    async with site(talk, protocols=PROTOCOLS) as s:
        await start(s)
        answer = await s.http.request(method, path)

    assert answer.status_code == status


async def test_texts_of_exceptions_are_concealed() -> None:
    async def breaks(ctx: RunContext, message: str) -> None:
        raise ValueError("secret place")

    async with site(breaks, protocols=PROTOCOLS) as s:
        await start(s)
        whole = await s.http.get("/streams/r")
        live = await s.http.get("/streams/r?offset=-1&live=sse")

    assert "ValueError" in whole.text
    assert "secret" not in whole.text + live.text
