"""Connections that are lost behind any byte of an answer, and what is asked for again then.

Of an answer that is cut a client has the events that came whole: as many for each byte as
`wholes_at` counts. Whatever it holds of them, what it asks for next has to bring it to where one is
that lost nothing. So each number of events is tried that some byte leaves it with.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from flowtrio import AgentEvent, ServerLimits
from flowtrio.protocols._ai_sdk._mapper import UIMessageMapper
from flowtrio.protocols._ai_sdk._requests import read_chat
from flowtrio.protocols._durable_streams import _Live, _Place
from flowtrio.protocols._openai._responses import ResponseMapper
from flowtrio.protocols._openai._stored import _Again, _Numbered
from flowtrio.serving.http._segments import Segment, Waits
from flowtrio.wire._sse import SSEDecoder
from flowtrio.wire._sse import encode_json_event as encode_chunk
from tests.support.site import as_events

from .agui import Client, Told, bare, flaws_in, read_body, reader, segment
from .logs import log_of, waits_of
from .test_openai_chat import CLIENT_TOOLS

NAMES = (
    *("plain", "thinks", "strange_text", "nested", "begins_anew_with_calls", "cancelled_in_text"),
    *("approved_and_denied", "asks_in_a_tool", "other_side", "model_fails"),
)
"""Short logs that tell of each kind of thing that may be cut."""


def wholes_at(body: bytes) -> list[int]:
    """For each number of bytes that came, how many events a client has."""
    decoder, counts = SSEDecoder(), [0]
    for place in range(len(body)):
        came = [event for event in decoder.receive_data(body[place : place + 1]) if event.data]
        counts.append(counts[-1] + len(came))
    return counts


def cuts_of(body: bytes, whole: int) -> Iterator[int]:
    """The numbers of events that some byte leaves a client with, all but all of them."""
    counts = wholes_at(body)

    assert counts[-1] == whole
    assert sorted(set(counts)) == [*range(whole + 1)], "each event comes alone"
    yield from range(whole)


def stretches(log: Sequence[AgentEvent]) -> list[tuple[int, int]]:
    """Where an answer begins, behind an event, and where it ends: before people had decided."""
    waits, places = Waits(), [-1]
    for event in log:
        was_waiting, asked = waits.for_people, {*waits.approvals, *waits.questions}
        waits.feed(event)
        if was_waiting and not waits.asks_for(asked):
            places.append(event.seq - 1)
    return [*itertools.pairwise([*places, log[-1].seq])]


def test_a_byte_that_is_missing_leaves_out_one_event() -> None:
    assert wholes_at(b"data: 1\n\ndata: 2\n\n") == [*[0] * 9, *[1] * 9, 2]


# AG-UI: the same request is sent again, by a client that holds a part


def agui_faults(log: Sequence[AgentEvent], keeps: bool = True) -> list[str]:
    """Where a client is not set right; one that does not tell what it holds, as a planted bug."""
    faults, held = [], Client()
    for after, end in stretches(log):

        def ask(client: Client, after: int = after, end: int = end) -> bytes:
            holds = client.messages if keeps else []
            return segment(log, reader("run", holds), after).feed(log[: end + 1])

        body = ask(held)
        told, whole = read_body(body), copy_of(held)
        whole.take(told)
        for count in cuts_of(body, len(told)):
            client = copy_of(held)
            client.take(told[:count])
            again = read_body(ask(client))
            client.take(again)
            if flaws_in(again) or by_id(client) != by_id(whole):
                faults.append(f"{after} to {end}, {count} events")
        held = whole
    return faults


def copy_of(client: Client) -> Client:
    made = Client()
    made.messages = json.loads(json.dumps(client.messages))
    return made


def by_id(client: Client) -> list[Told]:
    return sorted(bare(client.messages), key=lambda message: str(message["id"]))


@pytest.mark.parametrize("name", NAMES)
def test_an_agui_client_that_asks_again_holds_what_it_would_have_held(name: str) -> None:
    assert agui_faults(log_of(name)) == []


def test_an_agui_client_of_which_nobody_knows_what_it_holds_is_noticed() -> None:
    assert agui_faults(log_of("plain"), keeps=False)


# OpenAI's Responses: the events behind the last one that came


def response_of(log: Sequence[AgentEvent], after: int, end: int, behind: int, kind: Any) -> bytes:
    """A response that is told again, as it stands in the end."""
    mapper = ResponseMapper(run_id=log[0].run_id, model="m", client_tools=CLIENT_TOOLS)
    return _Again(
        mapper=mapper,
        encode=kind(behind).encode,
        after=after,
        until=None if end == log[-1].seq else end,
        shows_errors=True,
    ).feed(log)


def response_faults(log: Sequence[AgentEvent], kind: Any = _Numbered) -> list[str]:
    faults = []
    for after, end in stretches(log):
        mapper = ResponseMapper(run_id=log[0].run_id, model="m", client_tools=CLIENT_TOOLS)
        told = Segment(mapper=mapper, encode=_Numbered().encode, after=after, shows_errors=True)
        body = told.feed(log[: after + 1]) + told.feed(log[after + 1 : end + 1])
        items = read_body(body)
        for count in cuts_of(body, len(items)):
            rest = read_body(response_of(log, after, end, count - 1, kind))
            if rest != items[count:]:
                faults.append(f"{after} to {end}, {count} events")
    return faults


@pytest.mark.parametrize("name", NAMES)
def test_a_response_goes_on_behind_the_last_event_that_came(name: str) -> None:
    assert response_faults(log_of(name)) == []


class OffByOne(_Numbered):
    """A planted bug: the last event that came is told once more."""

    def encode(self, item: dict[str, Any]) -> bytes:
        self.behind -= 1
        told = super().encode(item)
        self.behind += 1
        return told


def test_an_event_that_comes_twice_is_noticed() -> None:
    assert response_faults(log_of("plain"), OffByOne)


# The AI SDK: the answer from its beginning, whose message takes the place of what is there


def message_of(log: Sequence[AgentEvent], **options: Any) -> Segment[Any]:
    mapper = UIMessageMapper(log[0].run_id)
    return Segment(mapper=mapper, encode=encode_chunk, shows_errors=True, **options)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_told_again_from_its_beginning_wherever_its_run_has_come_to(name: str) -> None:
    log = log_of(name)
    whole = message_of(log, pauses=False).feed(log)
    for at in range(log[-1].seq):
        again = message_of(log, settled=at - 1)
        body = again.feed(log[: at + 1])
        if again.is_paused:
            assert shown_of(read_body(body)).seq == at
        else:
            assert body + again.feed(log[at + 1 :]) == whole


def shown_of(chunks: Sequence[dict[str, Any]]) -> Any:
    """What a page that holds so many chunks says of the answer."""
    metadata: dict[str, Any] = {}
    for chunk in chunks:
        # Deeply, as the AI SDK joins them.
        told = chunk.get("messageMetadata", {}).get("flowtrio", {})
        metadata = {**metadata, **told}
    start = chunks[0]["messageId"]
    message = {"id": start, "role": "assistant", "metadata": {"flowtrio": metadata}, "parts": []}
    return read_chat({"id": "c", "messages": [message]}, ServerLimits()).shown


@pytest.mark.parametrize("name", [name for name in NAMES if waits_of(log_of(name))])
def test_an_answer_is_not_gone_on_with_by_a_page_that_has_not_read_its_end(name: str) -> None:
    log = log_of(name)
    end = stretches(log)[0][1]
    told = message_of(log)
    body = told.feed(log[: end + 1])
    chunks = read_body(body)
    # Behind no event there is nothing that could be gone on with.
    places = [shown_of(chunks[:count]).seq for count in cuts_of(body, len(chunks)) if count]

    assert told.is_paused
    assert set(places) == {None}
    assert shown_of(chunks).seq == end


# Durable Streams: on from the last place that was told


@pytest.mark.parametrize("name", NAMES)
async def test_a_durable_stream_is_read_on_from_the_last_control_event(name: str) -> None:
    log = log_of(name)

    def ask(first: int, size: int = 3) -> bytes:
        place = _Place(len(log), is_closed=True)
        told = _Live(first - 1, place, 1e9, {"stream-cursor": "1"}, shows_errors=True)
        rest = log[first:]
        pieces = [rest[n : n + size] for n in range(0, len(rest), size)]
        return told.begin() + b"".join(map(told.feed, pieces))

    body = ask(0)
    for count in sorted(set(wholes_at(body))):
        first, held = place_behind(body, count)
        _, rest = place_behind(ask(first), None)

        assert as_events([*held, *rest]) == log


def place_behind(body: bytes, count: int | None) -> tuple[int, list[Told]]:
    """The offset that the first so many events tell, and the items before it."""
    first, held, coming = 0, list[Told](), list[Told]()
    events = [event for event in SSEDecoder().receive_data(body) if event.data]
    for event in events[:count]:
        if event.event == "data":
            coming += json.loads(event.data)
        else:
            first = int(json.loads(event.data)["streamNextOffset"])
            held, coming = [*held, *coming], []
    return first, held
