"""Durable Streams 1.0, as far as it reads: a run's log as a stream of JSON events.

An *offset* names a place behind an event: the number of the next one, padded so that offsets sort
as texts. A client reads on from the offset that it was told, as often as it likes and from as many
places; the log is the same for all. What is written comes from runs alone, so nothing can be put
there from outside.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from flowtrio._core._events import AgentEvent, EventType
from flowtrio.serving._access import Refused
from flowtrio.serving.commands._clients import Refusal, asking_the_store
from flowtrio.serving.commands._conceal import conceal_all
from flowtrio.serving.http._answers import Answer
from flowtrio.serving.http._protocol import ProtocolRoute, Visit, unknown_run
from flowtrio.serving.http._request import refused
from flowtrio.wire._frames import encode_events
from flowtrio.wire._sse import encode_comment, encode_event, encode_json_event

_OFFSET: Final = re.compile(r"[0-9]{1,16}")
_JSON: Final = "application/json"
_COMMON: Final = {
    # What a page of another origin may read, if it may read anything.
    "access-control-expose-headers": "etag, stream-next-offset, stream-up-to-date, stream-closed, "
    "stream-cursor",
    "cross-origin-resource-policy": "same-origin",
}


@attrs.frozen
class _Place:
    """Where a log ends now."""

    tail: int
    """Number of the next event that will be recorded."""
    is_closed: bool
    """Whether there will be none."""


@attrs.frozen(kw_only=True)
class DurableStreamsProtocol:
    """Logs of runs as Durable Streams: for ``create_app(protocols=[DurableStreamsProtocol()])``.

    ``GET`` and ``HEAD /streams/{run_id}``: from any offset, as a whole, by long-poll, or as
    Server-Sent Events. Streams are read here and not written.

    Args:
      long_poll: Seconds that a long-poll waits at most.
      connection: Seconds after which Server-Sent Events end; clients then come back.

    """

    long_poll: float = 20
    connection: float = 60

    @property
    def routes(self) -> Sequence[ProtocolRoute]:
        """See `HTTPProtocol`."""
        return [
            ProtocolRoute("GET", "/streams/{}", self._read),
            ProtocolRoute("HEAD", "/streams/{}", self._tell),
        ]

    def refuse(self, status: int, code: str, error: str) -> Any:
        """See `HTTPProtocol`."""
        return {"code": code, "error": error}

    async def _tell(self, visit: Visit, run_id: str) -> None:
        place = await _place_of(visit, run_id)
        headers = {"content-type": _JSON, **_next(place.tail, place)}
        await visit.exchange.answer(200, headers=headers)

    async def _read(self, visit: Visit, run_id: str) -> None:
        query = visit.request.query
        place = await _place_of(visit, run_id)
        live, offset = query.get("live"), query.get("offset")
        if offset is None and live is not None:
            raise Refused(400, "offset: expected one, to read on live from")
        first = _first("-1" if offset is None else offset, place)
        match live:
            case None:
                await _catch_up(visit, run_id, first, place)
            case "long-poll":
                await self._long_poll(visit, run_id, first, place)
            case "sse":
                await self._stream(visit, run_id, first, place)
            case _:
                raise Refused(400, "live: expected long-poll or sse")

    async def _long_poll(self, visit: Visit, run_id: str, first: int, place: _Place) -> None:
        if first < place.tail:
            return await _catch_up(visit, run_id, first, place, cursor=True)
        if not place.is_closed:
            waited = _Batch(first - 1)
            with trio.move_on_after(self.long_poll):
                refusal = await visit.gather(run_id, waited)
                _check(refusal)
            if waited.events:
                return await _answer(visit, run_id, first, waited.events, cursor=True)
            place = _Place(first, is_closed=False)
        headers = {**_next(first, place), **_cursor(visit)}
        return await visit.exchange.answer(204, headers=headers)

    async def _stream(self, visit: Visit, run_id: str, first: int, place: _Place) -> None:
        until = trio.current_time() + self.connection
        told = _Live(first - 1, place, until, _cursor(visit), shows_errors=visit.hosting.debug)
        if first >= place.tail and place.is_closed:
            return await visit.exchange.answer(200, told.begin(), told.headers)
        return await visit.follow(run_id, told)


async def _place_of(visit: Visit, run_id: str) -> _Place:
    """Where a run's log ends; `Refused` if there is none, or another tenant's."""
    hosted = visit.hosting.service.recorder.find(visit.tenant_id, run_id)
    if hosted is not None:
        await hosted.has_begun.wait()
        if not (hosted.is_void or hosted.has_never_begun):
            return _Place(hosted.last + 1, hosted.has_done)
    header = await visit.header_of(run_id)
    if header is None:
        raise unknown_run()
    with asking_the_store():
        store = visit.hosting.orchestrator.store
        tail = 1 + await store.wait_past(visit.tenant_id, run_id, -1)
    return _Place(tail, is_closed=header.ended_at is not None)


def _first(offset: str, place: _Place) -> int:
    """The number of the first event that is asked for."""
    if offset == "now":
        return place.tail
    if offset == "-1":
        return 0
    if not _OFFSET.fullmatch(offset):
        raise Refused(400, "offset: expected one that was told, -1 or now")
    if int(offset) > place.tail:
        raise Refused(410, "offset: the stream does not go so far", "replay_gap")
    return int(offset)


async def _catch_up(
    visit: Visit, run_id: str, first: int, place: _Place, *, cursor: bool = False
) -> None:
    """Answer with what is there."""
    if first >= place.tail:
        return await _answer(visit, run_id, first, (), place=place)
    read = _Batch(first - 1)
    _check(await visit.gather(run_id, read))
    return await _answer(visit, run_id, first, read.events, place=place, cursor=cursor)


async def _answer(
    visit: Visit,
    run_id: str,
    first: int,
    events: Sequence[AgentEvent],
    *,
    place: _Place | None = None,
    cursor: bool = False,
) -> None:
    following = events[-1].seq + 1 if events else first
    is_closed = (
        events[-1].type is EventType.DONE if events else place is not None and place.is_closed
    )
    if place is None or following >= place.tail:
        place = _Place(following, is_closed)
    headers = {**_next(following, place), **(_cursor(visit) if cursor else {})}
    if visit.request.query.get("offset") != "now":
        closed = ":closed" if "stream-closed" in headers else ""
        headers["etag"] = etag = f'"{run_id}:{first}:{following}{closed}"'
        headers["cache-control"] = "private, no-cache"
        if etag in map(str.strip, visit.request.headers.get("if-none-match", "").split(",")):
            return await visit.exchange.answer(304, headers=headers)
    body = _array(events if visit.hosting.debug else conceal_all(events))
    return await visit.exchange.answer(200, body, {"content-type": _JSON, **headers})


def _next(following: int, place: _Place) -> dict[str, str]:
    """The headers that say where to read on."""
    headers = {"stream-next-offset": _offset(following), **_COMMON}
    if following >= place.tail:
        headers["stream-up-to-date"] = "true"
        if place.is_closed:
            headers["stream-closed"] = "true"
    return headers


def _offset(number: int) -> str:
    return f"{number:016}"


def _cursor(visit: Visit) -> dict[str, str]:
    """What makes the address of the next request another one for caches between us."""
    given = visit.request.query.get("cursor", "")
    now = int(time.time()) // 20
    if given.isascii() and given.isdecimal() and len(given) < 16:
        now = max(now, int(given) + 1)
    return {"stream-cursor": str(now)}


def _array(events: Sequence[AgentEvent]) -> bytes:
    return f"[{','.join(encode_events(events, is_batch=False))}]".encode()


def _check(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise refused(refusal)


@attrs.define(eq=False)
class _Batch(Answer):
    """Takes the first events that there are, and is over; see `Answer`."""

    after: int
    events: Sequence[AgentEvent] = ()
    is_over: bool = attrs.field(default=False, init=False)
    start: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.start = self.after

    def feed(self, batch: Sequence[AgentEvent]) -> bytes:
        """See `Answer`."""
        self.events, self.is_over = batch, True
        return b""


@attrs.define(eq=False)
class _Live(Answer):
    """The events that come, and behind each piece of them where it ends; see `Answer`.

    Where the log cannot be read on it ends without a word: its reader comes back, and is told by
    the status.
    """

    after: int
    _place: _Place
    _until: float
    _cursor: dict[str, str]
    shows_errors: bool
    headers: Mapping[str, str] = attrs.field(init=False)
    is_over: bool = attrs.field(default=False, init=False)
    start: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.start = self.after
        self.headers = {
            "content-type": "text/event-stream",
            "cache-control": "no-cache, no-store",
            "x-accel-buffering": "no",
            "stream-next-offset": _offset(self.after + 1),
            **_COMMON,
        }

    def begin(self) -> bytes:
        """See `Answer`: where nothing has to be told first, that all is up to date."""
        if self.after + 1 < self._place.tail:
            return b""
        return self._control(self.after + 1, self._place.is_closed)

    def feed(self, batch: Sequence[AgentEvent]) -> bytes:
        """See `Answer`."""
        last = batch[-1]
        is_closed = last.type is EventType.DONE
        self.is_over = is_closed or trio.current_time() >= self._until
        events = batch if self.shows_errors else conceal_all(batch)
        data = encode_event(_array(events).decode(), event="data")
        return data + self._control(last.seq + 1, is_closed)

    def _control(self, following: int, is_closed: bool) -> bytes:
        told: dict[str, Any] = {"streamNextOffset": _offset(following)}
        if is_closed:
            told["streamClosed"] = True
        else:
            told["streamCursor"] = self._cursor["stream-cursor"]
            if following >= self._place.tail:
                told["upToDate"] = True
        return encode_json_event(told, event="control")

    def quiet(self) -> bytes:
        """See `Answer`; an end without a word, so that the client comes back."""
        self.is_over = trio.current_time() >= self._until
        return encode_comment("still here")
