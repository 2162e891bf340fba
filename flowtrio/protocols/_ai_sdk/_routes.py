"""The AI SDK's chats (`useChat`), spoken by a server: UI message stream, version 1.

``POST /ai-sdk/chat`` asks, or brings what people decided; ``GET /ai-sdk/chat/{id}/stream`` tells
the newest answer again, from its beginning. The conversation is the server's, under the chat's id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs

from flowtrio._agents._client_tool import ClientTool, asks_for_result
from flowtrio._agents._tools import Tool
from flowtrio._core._events import AgentEvent
from flowtrio.serving._access import Refused
from flowtrio.serving.http._answers import SSE_HEADERS
from flowtrio.serving.http._protocol import ProtocolRoute, Visit
from flowtrio.serving.http._request import refused
from flowtrio.serving.http._segments import Segment, Standing
from flowtrio.wire._frames import (
    AnswerCommand,
    ApproveCommand,
    Control,
    DenyCommand,
    DismissCommand,
)
from flowtrio.wire._sse import encode_event, encode_json_event

from ._calls import UIChunk
from ._mapper import UIMessageMapper
from ._requests import ChatRequest, Decision, Shown, read_chat, read_message_id

_HEADERS: Final = {**SSE_HEADERS, "x-vercel-ai-ui-message-stream": "v1"}
_END: Final = encode_event("[DONE]")
_MOST_BEGINS: Final = 1000


@attrs.define(eq=False)
class _Survey(Standing):
    """What a run waits for at the end of its log, as far as that is known when it is read."""

    def feed(self, batch: Sequence[AgentEvent]) -> bytes:
        """See `Answer`."""
        self.last = max(self.last, batch[-1].seq)
        return super().feed(batch)

    def controls(self, run_id: str, decisions: Sequence[Decision]) -> Iterator[Control]:
        """What decisions do to the run, as far as it waits for them."""
        asked = {
            event.data["call_id"]: request_id
            for request_id, event in self.waits.questions.items()
            if asks_for_result(event.data)
        }
        for made in decisions:
            call_id, reason = made.call_id, made.reason
            if made.approved is not None:
                if call_id in self.waits.approvals:
                    kind = ApproveCommand if made.approved else DenyCommand
                    yield kind(run_id=run_id, call_id=call_id, reason=reason)
            elif (request_id := asked.get(call_id)) is None:
                continue
            elif made.has_output:
                yield AnswerCommand(run_id=run_id, request_id=request_id, text=made.output)
            else:
                yield DismissCommand(run_id=run_id, request_id=request_id, reason=reason)

    @property
    def question(self) -> str | None:
        """The first question that a person has not answered."""
        questions = self.waits.questions.items()
        return next((id for id, event in questions if not asks_for_result(event.data)), None)


@attrs.define(eq=False)
class AISDKProtocol:
    """The AI SDK's UI message streams, for `create_app`.

    Args:
      client_tools: Whether a page may bring tools of its own, which it runs: ``tools`` in the body
        of its request, each by its name with its ``description`` and ``inputSchema``. What it says
        of them, and what they give, is the page's word.
      raw: Whether each event of the run is told as it is too, in transient parts `data-flowtrio`.

    """

    client_tools: bool = attrs.field(default=False, kw_only=True)
    raw: bool = attrs.field(default=False, kw_only=True)
    _begins: dict[tuple[str, str], int] = attrs.field(factory=dict, init=False, repr=False)
    """Where the newest answer of a run begins, of those that have several; by tenant and run."""

    @property
    def routes(self) -> Sequence[ProtocolRoute]:
        """See `HTTPProtocol`."""
        return [
            ProtocolRoute("POST", "/ai-sdk/chat", self._chat),
            ProtocolRoute("GET", "/ai-sdk/chat/{}/stream", self._stream),
        ]

    def refuse(self, status: int, code: str, error: str) -> Any:
        """See `HTTPProtocol`: a page's error has it as its message."""
        return {"code": code, "error": error}

    async def _chat(self, visit: Visit) -> None:
        request = read_chat(await visit.read_json(), visit.hosting.limits)
        if request.said is None:
            assert request.shown is not None
            await self._go_on(visit, request.shown)
        elif not await self._answer_question(visit, request):
            await self._start(visit, request)

    async def _start(self, visit: Visit, request: ChatRequest) -> None:
        assert request.said is not None
        if request.agent is not None and request.agent not in visit.agents:
            known = ", ".join(visit.agents)
            raise Refused(404, f"agent: expected one of {known}", "unknown_agent")
        await visit.answer(
            request.said,
            lambda run_id: self._segment(visit, run_id),
            session_id=request.session_id,
            agent=request.agent,
            tools=self._tools(request),
        )

    def _tools(self, request: ChatRequest) -> list[Tool[..., Any]]:
        if request.tools and not self.client_tools:
            error = "tools: a page brings none here, expected AISDKProtocol(client_tools=True)"
            raise Refused(400, error, "no_client_tools")
        try:
            return [
                ClientTool(name, tool.description or name, tool.inputSchema)
                for name, tool in request.tools.items()
            ]
        except ValueError as exc:
            raise Refused(400, f"tools: {exc}", "bad_tools") from None

    def _segment(
        self,
        visit: Visit,
        run_id: str,
        *,
        begin: int = -1,
        after: int = -1,
        settled: int | None = -1,
    ) -> Segment[UIChunk]:
        """An answer whose message begins behind an event, from *after* on, which the page has.

        Nothing waits any more at *settled*; None where nothing will wait.
        """
        mapper = UIMessageMapper(run_id, begin, self.raw)
        return Segment(
            mapper=mapper,
            encode=encode_json_event,
            after=after,
            pauses=settled is not None,
            settled=-1 if settled is None else settled,
            shows_errors=visit.hosting.debug,
            headers=_HEADERS,
            tail=_END,
        )

    # A run that waits

    async def _survey(self, visit: Visit, run_id: str) -> _Survey:
        """What a run that goes on here waits for, all that is known of it read."""
        survey = _Survey(await visit.last_of(run_id))
        if survey.last >= 0 and (refusal := await visit.gather(run_id, survey)):
            raise refused(refusal)
        return survey

    async def _decide(self, visit: Visit, survey: _Survey, shown: Shown) -> int:
        """Do what was decided to its run, if that still goes on; give for how many calls."""
        if not await visit.is_live(shown.run_id):
            return 0
        controls = list(survey.controls(shown.run_id, shown.decisions))
        for control in controls:
            await visit.control(shown.run_id, control)
        return len(controls)

    async def _go_on(self, visit: Visit, shown: Shown) -> None:
        """Bring what was decided, and go on with the answer that asked."""
        if shown.seq is None:
            error = "the page has not read this answer to its end: expected it to be resumed first"
            raise Refused(409, error, "answer_is_cut")
        run_id, settled, held = shown.run_id, None, AsyncExitStack()
        async with held:
            held.enter_context(visit.seated(run_id))
            if await visit.is_live(run_id):
                survey = await self._survey(visit, run_id)
                decided = await self._decide(visit, survey, shown)
                if not decided and survey.waits.for_people and survey.last <= shown.seq:
                    raise Refused(409, "nothing was decided that the run waits for", "undecided")
                settled = survey.last if decided else survey.last - 1
            segment = self._segment(
                visit, run_id, begin=shown.begin, after=shown.seq, settled=settled
            )
            await visit.follow(run_id, segment, held)

    async def _answer_question(self, visit: Visit, request: ChatRequest) -> bool:
        """Take what the user says as an answer, if the run waits for one; give whether it did."""
        assert request.said is not None
        shown = request.shown
        if shown is not None and await visit.is_live(shown.run_id):
            run_id: str | None = shown.run_id
        else:
            run_id, shown = await visit.live_run_of(request.session_id), None
        if run_id is None:
            return False
        async with AsyncExitStack() as held:
            held.enter_context(visit.seated(run_id))
            survey = await self._survey(visit, run_id)
            if shown is not None:
                await self._decide(visit, survey, shown)
            if (question := survey.question) is None:
                return False
            answer = AnswerCommand(run_id=run_id, request_id=question, text=request.said.text)
            await visit.control(run_id, answer)
            begin = survey.last
            if shown is not None and shown.seq is not None:
                begin = min(begin, shown.seq)
            self._note_begin(visit, run_id, begin)
            segment = self._segment(visit, run_id, begin=begin, after=begin, settled=survey.last)
            await visit.follow(run_id, segment, held)
        return True

    def _note_begin(self, visit: Visit, run_id: str, begin: int) -> None:
        self._begins[visit.tenant_id, run_id] = begin
        if len(self._begins) > _MOST_BEGINS:
            del self._begins[next(iter(self._begins))]

    # Telling an answer again

    async def _stream(self, visit: Visit, session_id: str) -> None:
        """Tell the newest answer from its beginning.

        That of the run that goes on; for a page that says by ``message`` which message it has last,
        also that of one that has ended meanwhile.
        """
        run_id, begin = await visit.live_run_of(session_id), None
        message = visit.request.query.get("message")
        place = read_message_id(message)
        if run_id is None and message is not None:
            known = [header.run_id for header in await visit.runs_of(session_id)]
            if place is not None and place[0] in known:
                run_id, begin = place
            elif known:
                run_id = known[-1]
        if run_id is None:
            return await visit.exchange.answer(204)
        if begin is None:
            begin = self._begins.get((visit.tenant_id, run_id), -1)
            if place is not None and place[0] == run_id:
                # Its newest message may have begun at another process.
                begin = max(begin, place[1])
        settled = await visit.last_of(run_id) - 1 if await visit.is_live(run_id) else None
        segment = self._segment(visit, run_id, begin=begin, settled=settled)
        return await visit.follow(run_id, segment)
