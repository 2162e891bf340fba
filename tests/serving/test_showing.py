"""What a remote reader is shown, and how it notices that an event was lost on the way."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio_websocket import open_websocket_url

from flowtrio import AgentEvent, StreamMode, project
from flowtrio.abc import Request
from flowtrio.serving.commands._showing import Showing, asks_for_links
from flowtrio.wire._frames import encode_events
from tests.support.site import Site, as_events, read_run, site, talk
from tests.support.ws_peer import connect, open_server
from tests.testing.test_checks import asks_for_approval

LOG = as_events(asks_for_approval())
SIX = ["type", "data", "seq", "run_id", "agent", "timestamp"]


def show(showing: Showing, log: Sequence[AgentEvent], cuts: set[int]) -> list[dict[str, Any]]:
    """The frames of a log that comes in batches."""
    places = [0, *sorted(cuts), len(log)]
    batches = [log[a:b] for a, b in itertools.pairwise(places) if a < b]
    texts = [
        text for batch in batches for text in encode_events(showing.show(batch), is_batch=False)
    ]
    return [json.loads(text) for text in texts]


@given(
    mode=st.sampled_from(StreamMode),
    cuts=st.sets(st.integers(0, len(LOG))),
    others=st.sets(st.integers(0, len(LOG))),
    data=st.data(),
)
def test_each_event_names_the_one_before_it_wherever_reading_began(
    mode: StreamMode, cuts: set[int], others: set[int], data: st.DataObject
) -> None:
    whole = show(Showing(mode, -1, is_linked=True, is_whole=True), LOG, cuts)
    place = data.draw(st.sampled_from([-1, *(frame["seq"] for frame in whole)]))
    resumed = Showing(mode, place, is_linked=True, is_whole=True)
    tail = show(resumed, LOG[resumed.start + 1 :], others)
    plain = show(Showing(mode, -1, is_linked=False, is_whole=True), LOG, cuts)

    seqs = [frame["seq"] for frame in whole]
    assert [frame["after"] for frame in whole] == [-1, *seqs[:-1]]
    assert tail == [frame for frame in whole if frame["seq"] > place]
    assert plain == [{key: frame[key] for key in SIX} for frame in whole]
    assert as_events(plain) == list(project(mode, LOG))


def test_a_place_that_the_mode_does_not_show_is_given_back_as_it_came() -> None:
    tail = show(Showing(StreamMode.MESSAGES, 1, is_linked=True, is_whole=True), LOG[2:], set())

    assert tail[0]["after"] == 1
    assert tail[0]["seq"] == 2


@pytest.mark.parametrize(
    ("query", "asks"), [({}, False), ({"linked": "1"}, True), ({"linked": "0"}, False)]
)
def test_a_link_has_to_be_asked_for(query: dict[str, str], asks: bool) -> None:
    request = Request(path="/chat", headers={}, cookies={}, query=query, client=None)

    assert asks_for_links(request) is asks


START = {"type": "message", "message": "go", "mode": "messages"}


async def _read_socket(s: Site, query: str, *protocols: str) -> list[dict[str, Any]]:
    url = f"{s.url.replace('http:', 'ws:')}/chat{query}"
    async with open_websocket_url(url, subprotocols=list(protocols)) as ws:
        await ws.send_message(json.dumps(START))
        return await read_run(ws)


@pytest.mark.parametrize("query", ["", "?linked=1"])
async def test_events_are_linked_on_every_transport_where_that_is_asked_for(query: str) -> None:
    keys = [*SIX, "after"] if query else SIX
    lines = {"accept": "application/x-ndjson"}
    async with site() as s:
        body = {"message": "go", "mode": "messages", "run_id": "r"}
        logs = [
            await _read_socket(s, query),
            await _read_socket(s, query, "flowtrio.v1"),
            await _read_socket(s, query, "flowtrio.batch.v1"),
            (await s.follow("POST", f"/chat/stream{query}", json=body))[0],
        ]
        of_r = httpx.QueryParams(query.removeprefix("?")).set("mode", "messages")
        logs.append((await s.follow("GET", "/runs/r/events", params=of_r))[0])
        answer = await s.http.get("/runs/r/events", params=of_r, headers=lines)
        logs.append([json.loads(line) for line in answer.text.splitlines() if line])

    async with open_server(talk) as served, connect(served, path=f"/chat{query}") as peer:
        logs.append((await peer.ask(**START))[1:])

    for log in logs:
        assert [list(frame) for frame in log] == [keys] * len(log)
        if query:
            assert [frame["after"] for frame in log] == [-1, *(frame["seq"] for frame in log[:-1])]
    assert logs[3] == logs[4] == logs[5]
