"""Responses over HTTP: they are started, gone on with, read again, and cancelled.

::

    POST /v1/responses               a run of a conversation that the server holds
    GET  /v1/responses/{id}          as it stands; as a stream, from any place
    GET  /v1/responses/{id}/input_items
    POST /v1/responses/{id}/cancel
    DELETE /v1/responses/{id}

A response is the segment of a run that its id names: ``resp_<run_id>``, or for those that go on
with it ``resp_<run_id>:<place>``. So nothing is kept of it but the run's log.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs

from flowtrio._core._events import AgentEvent
from flowtrio.serving._access import Refused
from flowtrio.serving.commands._clients import Refusal, asking_the_store
from flowtrio.serving.http._protocol import Visit
from flowtrio.serving.http._request import refused
from flowtrio.serving.http._segments import Segment, Waits
from flowtrio.wire._frames import AnswerCommand, ApproveCommand, CancelCommand, DenyCommand
from flowtrio.wire._sse import encode_json_event

from ._chat import Item
from ._input import ResponseRequest, read_response
from ._past import Past, page_of
from ._requests import Options, check_model
from ._responses import ResponseMapper

_WHOLE_LOG: Final = 2**53
_OWN_SESSION: Final = "resp_"
"""How the conversations are named that are made for responses; nobody else knows their names."""


@attrs.define(eq=False)
class _Numbered:
    """Numbers the events of a response; gives those behind a number."""

    behind: int = -1
    _next: int = attrs.field(default=0, init=False)

    def encode(self, item: Item) -> bytes:
        """An event with its number."""
        number, self._next = self._next, self._next + 1
        if number <= self.behind:
            return b""
        told = {**item, "sequence_number": number}
        return encode_json_event(told, event=item["type"])


@attrs.define(eq=False, kw_only=True)
class _Again(Segment[Item]):
    """A segment that is told again: it ends where it did, or is left where the log has come to."""

    until: int | None = None
    """Where it ended; None where it has not."""
    stop: int = _WHOLE_LOG

    def feed(self, batch: Sequence[AgentEvent]) -> bytes:
        """See `Answer`."""
        place = self.stop if self.until is None else self.until
        pieces = super().feed([event for event in batch if event.seq <= place])
        if batch[-1].seq >= place and not self.is_over:
            self.is_over = True
            if self.until is not None:
                pieces += b"".join(map(self.encode, self.mapper.pause(self.waits)))
        return pieces


@attrs.frozen
class Responses:
    """Answers at the addresses of Responses."""

    _protocol: Options

    async def create(self, visit: Visit) -> None:
        """Start a run, or go on with one that waits."""
        options = self._protocol
        request = read_response(
            await visit.read_json(),
            visit.hosting.limits,
            roles=options.roles,
            settings=options.settings,
        )
        check_model(request.model, visit.agents)
        if request.message is None:
            await self._go_on(visit, request)
        else:
            await self._begin(visit, request)

    async def _begin(self, visit: Visit, request: ResponseRequest) -> None:
        session_id, history = await self._conversation(visit, request)
        mapper: list[ResponseMapper] = []
        numbered = _Numbered()

        def answer(run_id: str) -> Segment[Item]:
            names = frozenset(tool.name for tool in request.tools)
            mapper.append(self._mapper(run_id, request.model, names, request))
            stops = 0 if request.is_background and not request.is_streamed else _WHOLE_LOG
            return _Again(mapper=mapper[0], encode=numbered.encode, waits=self._waits(), stop=stops)

        given: dict[str, Any] = {"resume_window": math.inf} if request.is_background else {}
        if history is not None:
            given["history"] = history
        assert request.message is not None
        _, refusal = await visit.answer(
            request.message,
            answer,
            session_id=session_id,
            agent=request.model,
            attended=self._protocol.approvals,
            is_whole=not request.is_streamed,
            tools=request.tools,
            model_settings=request.settings,
            **given,
        )
        if not request.is_streamed:
            await _send(visit, mapper[0], refusal)

    async def _conversation(self, visit: Visit, request: ResponseRequest) -> Any:
        """The conversation that a run is of, or the history of one that is of none."""
        if request.previous is None:
            if not request.is_stored:
                return None, request.history
            session_id = f"{_OWN_SESSION}{secrets.token_urlsafe(16)}"
            if request.history:
                with asking_the_store():
                    conversations = visit.hosting.orchestrator.conversations
                    await conversations.save(visit.tenant_id, session_id, [*request.history])
            return session_id, None
        if request.history:
            words = "previous_response_id: expected nothing but the user's words in input with it"
            raise Refused(400, words, "invalid_value")
        run_id, _ = _place_of(request.previous)
        header = await visit.header_of(run_id)
        if header is None or header.session_id is None or not header.is_remembered:
            words = "previous_response_id: no response of this id is kept"
            raise Refused(400, words, "previous_response_not_found")
        with asking_the_store():
            store = visit.hosting.orchestrator.store
            headers = await store.list(visit.tenant_id, header.session_id)
        if headers and headers[-1].run_id != run_id:
            words = "previous_response_id: expected the newest response of its conversation"
            raise Refused(400, words, "invalid_value")
        return header.session_id, None

    async def _go_on(self, visit: Visit, request: ResponseRequest) -> None:
        """Tell a run what it waits for, and what follows."""
        first = [*request.answers, *request.decisions][0].removeprefix("mcpr_")
        run_id = first.rpartition(":")[0]
        async with AsyncExitStack() as held:
            held.enter_context(visit.seated(run_id))
            past = Past(await visit.last_of(run_id), waits=self._waits())
            if refusal := await visit.gather(run_id, past):
                raise refused(refusal)
            place = await visit.last_of(run_id)
            decided = await _decide(visit, run_id, past.waits, request)
            names = past.client_tools | visit.tools_of(run_id)
            mapper = self._mapper(run_id, request.model, names, request)
            segment = Segment(
                mapper=mapper,
                encode=_Numbered().encode,
                after=place,
                decided=decided,
                waits=self._waits(),
            )
            if request.is_streamed:
                return await visit.follow(run_id, segment, held)
            refusal = await visit.gather(run_id, segment, held)
        await _send(visit, mapper, refusal)

    async def read(self, visit: Visit, response_id: str) -> None:
        """Give a response as it stands, or all of it as a stream."""
        run_id, after = _place_of(response_id)
        query = visit.request.query
        behind = query.get("starting_after", "-1")
        if not behind.removeprefix("-").isdecimal() or len(behind) > 15:
            raise Refused(400, "starting_after: expected the number of an event", "invalid_value")
        await self._tell(visit, run_id, after, query.get("stream") == "true", int(behind))

    async def input_items(self, visit: Visit, response_id: str) -> None:
        """List what a response was given, newest first unless it is asked for otherwise."""
        run_id, after = _place_of(response_id)
        past = await self._past_of(visit, run_id, await _last_of(visit, run_id))
        page = page_of(past.given_behind(after), visit.request.query)
        await visit.exchange.answer_json(200, page)

    async def cancel(self, visit: Visit, response_id: str) -> None:
        """Cancel a response's run; give the response as it ends."""
        visit.check_site()
        run_id, after = _place_of(response_id)
        await visit.last_of(run_id)
        await visit.control(run_id, CancelCommand(run_id=run_id))
        await self._tell(visit, run_id, after, False, -1, waits=True)

    async def delete(self, visit: Visit, response_id: str) -> None:
        """Forget a response, all others of its run, and with its last run the conversation."""
        visit.check_site()
        run_id, _ = _place_of(response_id)
        header = await visit.header_of(run_id)
        if header is None or not await visit.forget_run(run_id):
            raise _unknown()
        session_id = header.session_id or ""
        # Others have a name of their own, and are somebody's else than a response's.
        if session_id.startswith(_OWN_SESSION) and not await visit.runs_of(session_id):
            await visit.forget_session(session_id)
        told = {"id": response_id, "object": "response", "deleted": True}
        await visit.exchange.answer_json(200, told)

    async def _past_of(self, visit: Visit, run_id: str, last: int) -> Past:
        """What a run's log tells up to an event."""
        if await visit.header_of(run_id) is None:
            raise _unknown()
        past = Past(last, waits=self._waits())
        if last >= 0 and (refusal := await visit.gather(run_id, past)):
            raise Refused(503, refusal.error, refusal.code)
        return past

    async def _tell(
        self,
        visit: Visit,
        run_id: str,
        after: int,
        is_streamed: bool,
        behind: int,
        *,
        waits: bool = False,
    ) -> None:
        header = await visit.header_of(run_id)
        if header is None:
            raise _unknown()
        last = _WHOLE_LOG if waits else await _last_of(visit, run_id)
        past = await self._past_of(visit, run_id, last)
        names = past.client_tools | visit.tools_of(run_id)
        mapper = self._mapper(run_id, header.agent, names, None)
        segment = _Again(
            mapper=mapper,
            encode=_Numbered(behind).encode,
            after=after,
            waits=self._waits(),
            until=past.end_behind(after),
            stop=_WHOLE_LOG if is_streamed else last,
        )
        if is_streamed:
            return await visit.follow(run_id, segment)
        refusal = await visit.gather(run_id, segment)
        await _send(visit, mapper, refusal)

    def _waits(self) -> Waits:
        return Waits(is_attended=self._protocol.approvals)

    def _mapper(
        self, run_id: str, model: str, names: Collection[str], request: ResponseRequest | None
    ) -> ResponseMapper:
        return ResponseMapper(
            run_id=run_id,
            model=model,
            client_tools=frozenset(names),
            is_held=self._protocol.hold,
            shows_tools=self._protocol.show_tools,
            previous=None if request is None else request.previous,
        )


async def _send(visit: Visit, mapper: ResponseMapper, refusal: Refusal | None) -> None:
    """Send a response as a whole: one that failed says so in its status."""
    if refusal is not None:
        raise Refused(503, refusal.error, refusal.code)
    await visit.exchange.answer_json(200, mapper.response())


def _place_of(response_id: str) -> tuple[str, int]:
    """The run that a response is of, and the place in its log behind which it begins."""
    run_id, _, place = response_id.removeprefix("resp_").partition(":")
    is_place = not place or (place.isdecimal() and len(place) < 16)
    if not response_id.startswith("resp_") or not run_id or not is_place:
        raise _unknown()
    return run_id, int(place or -1)


async def _last_of(visit: Visit, run_id: str) -> int:
    """The newest event of a run that goes on, its first one if it is to begin; else all its log."""
    if not await visit.is_live(run_id):
        return _WHOLE_LOG
    return max(await visit.last_of(run_id), 0)


def _unknown() -> Refused:
    return Refused(404, "no response of this id is known", "response_not_found")


async def _decide(visit: Visit, run_id: str, waits: Waits, request: ResponseRequest) -> list[str]:
    """Give a run what it waits for; give that by the ids in its log. `Refused` if it is nothing."""
    decided = []
    for request_id, event in waits.questions.items():
        text = request.answers.get(f"{run_id}:{event.data['call_id']}")
        if text is not None:
            answer = AnswerCommand(run_id=run_id, request_id=request_id, text=text)
            await visit.control(run_id, answer)
            decided.append(request_id)
    for call_id in waits.approvals:
        said = request.decisions.get(f"mcpr_{run_id}:{call_id}")
        if said is not None:
            kind = ApproveCommand if said[0] else DenyCommand
            await visit.control(run_id, kind(run_id=run_id, call_id=call_id, reason=said[1]))
            decided.append(call_id)
    if not decided:
        raise Refused(400, "input: no call of these ids waits", "tool_call_not_found")
    return decided
