"""AG-UI 1.0: what front ends such as CopilotKit's speak.

An AG-UI run ends where people are waited for, and the next one brings what they decided. Each is a
segment of one run of ours. A request that comes again, since its connection was lost, is told the
same segment again, and what the client holds of it is set right first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from flowtrio._agents._client_tool import ClientTool
from flowtrio.abc import RunHeader
from flowtrio.serving._access import Refused
from flowtrio.serving.http._answers import SSE_HEADERS
from flowtrio.serving.http._protocol import ProtocolRoute, Visit
from flowtrio.serving.http._segments import Segment
from flowtrio.wire._frames import BadFrame, CancelCommand
from flowtrio.wire._sse import encode_json_event

from ._decisions import Decisions, Scan, Unfit, pending
from ._held import Told
from ._input import Asked, read_input
from ._mapper import AGUIMapper

_PATH: Final = "/ag-ui"


@attrs.frozen(kw_only=True)
class AGUIProtocol:
    """AG-UI 1.0 at ``POST /ag-ui``, and ``POST /ag-ui/{agent}`` for one of several agents.

    A ``threadId`` is a conversation, which is kept here: of ``messages`` only what the user said
    last is read. What a client sends beside it is its own word, and most of it is off by default.
    """

    client_tools: bool = False
    """Whether agents may call the front end's ``tools``. Their descriptions reach the model."""
    client_history: bool = False
    """Whether ``messages`` are the conversation, and none is kept here: a client can put words into
    everybody's mouth, the system's too."""
    app: Callable[[dict[str, Any]], Any] | None = None
    """Gives a run's ``ctx.app`` of ``state``, ``context`` and ``forwardedProps``, as JSON. By
    default it is just that, where the orchestrator has no `app` of its own."""
    resume_window: float | None = None
    """Seconds that a run goes on without a reader, by default the server's. With 0 it is cancelled
    when a client aborts, and also when its connection is lost; not while it waits for people."""
    raw: bool = False
    """Whether each of flowtrio's events stands beside what it is told as, in ``rawEvent``, or in a
    ``RAW`` event of its own: nothing of the log is lost then."""

    def __attrs_post_init__(self) -> None:
        if self.client_tools:
            ClientTool("probe", "Tells at once whether jsonschema is there.", {"type": "object"})

    @property
    def routes(self) -> Sequence[ProtocolRoute]:
        """See `HTTPProtocol`."""
        return [
            ProtocolRoute("POST", _PATH, self._answer),
            ProtocolRoute("POST", f"{_PATH}/{{}}", self._answer),
        ]

    def refuse(self, status: int, code: str, error: str) -> Told:
        """See `HTTPProtocol`."""
        return _error(code, error)

    async def _answer(self, visit: Visit, agent: str | None = None) -> None:
        asked = read_input(await visit.read_json())
        if agent is not None and agent not in visit.agents:
            raise Refused(404, "there is no agent of this name", "unknown_agent")
        try:
            if not await self._resume(visit, asked):
                await self._start(visit, asked, agent)
        except Unfit as exc:
            told = encode_json_event(_error(exc.code, exc.error))
            await visit.exchange.answer(200, told, SSE_HEADERS)

    # A run that waits

    async def _resume(self, visit: Visit, asked: Asked) -> bool:
        """Go on with a run; False if the request decides nothing."""
        decisions = Decisions.of(asked.resume, asked.results)
        if decisions is None or not self._is_of(await visit.header_of(decisions.run_id), asked):
            if asked.resume:
                raise Unfit("unknown_run", "resume: the thread has no run of these interrupts")
            return False
        run_id = decisions.run_id
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(visit.seated(run_id))
            scan = await _scan(visit, run_id)
            if not decisions.check(scan):
                return False
            commands, place = decisions.commands(scan), decisions.place_in(scan)
            if commands:
                place = await _decide(visit, run_id, commands, place)
            assert place is not None  # something was asked, so it waits or is settled
            segment = self._segment(visit, asked, run_id, place, decided=commands.keys())
            await visit.follow(run_id, segment, stack)
        return True

    def _is_of(self, header: RunHeader | None, asked: Asked) -> bool:
        """Whether a run is of the thread that is asked for."""
        return header is not None and (self.client_history or header.session_id == asked.thread_id)

    # A new run

    async def _start(self, visit: Visit, asked: Asked, agent: str | None) -> None:
        """Start a run; or tell one again that was started by the same request."""
        limits = visit.hosting.limits
        said, run_id = asked.said(limits), asked.run_id
        header = await visit.header_of(run_id)
        if header is None:
            await self._check_waiting(visit, asked)
        elif not self._is_of(header, asked):
            raise Refused(409, "there is a run of this id in another thread", "run_exists")
        await visit.answer(
            said,
            lambda run_id: self._segment(visit, asked, run_id),
            session_id=None if self.client_history else asked.thread_id,
            run_id=run_id,
            agent=agent,
            app=self._app(visit, asked),
            history=asked.history(limits) if self.client_history else None,
            tools=_tools(asked) if self.client_tools else (),
            resume_window=self.resume_window,
        )

    async def _check_waiting(self, visit: Visit, asked: Asked) -> None:
        """What people are asked in a thread comes first; who does not run calls has gone on."""
        live = await visit.live_run_of(asked.thread_id)
        if live is None:
            return
        with visit.seated(live):
            scan = await _scan(visit, live)
        if scan.interrupts:
            raise pending(live, scan.interrupts)
        if scan.waits.for_people:
            with contextlib.suppress(Refused):
                await visit.control(live, CancelCommand(run_id=live, reason="the user went on"))

    def _app(self, visit: Visit, asked: Asked) -> Any:
        if self.app is not None:
            return self.app(asked.app)
        return asked.app if visit.hosting.orchestrator.app is None else None

    def _segment(
        self, visit: Visit, asked: Asked, run_id: str, after: int = -1, **options: Any
    ) -> Segment[Told]:
        return Segment(
            mapper=AGUIMapper(run_id, asked.reader, self.raw),
            encode=encode_json_event,
            after=after,
            shows_errors=visit.hosting.debug,
            **options,
        )


async def _scan(visit: Visit, run_id: str) -> Scan:
    """Read what people were asked in a run, up to what it has told by now."""
    try:
        until: int | None = await visit.last_of(run_id)
    except Refused:
        until = None
    scan = Scan(until)
    refusal = await visit.gather(run_id, scan)
    if refusal is not None:
        raise Unfit(refusal.code, refusal.error)
    return scan


async def _decide(visit: Visit, run_id: str, commands: dict[str, Any], place: int | None) -> int:
    """Do what was decided, in one step; give the place behind which it is told."""
    try:
        last = await visit.last_of(run_id)
        for command in commands.values():
            await visit.control(run_id, command)
    except (Refused, BadFrame) as exc:
        code = "bad_resume" if isinstance(exc, BadFrame) else exc.code
        raise Unfit(code, f"resume: {exc}") from None
    return last if place is None else min(last, place)


def _tools(asked: Asked) -> list[Any]:
    try:
        return [
            ClientTool(tool.name, tool.description, tool.parameters or {"type": "object"})
            for tool in asked.tools
        ]
    except (TypeError, ValueError) as exc:
        raise Refused(400, f"tools: {exc}", "bad_tools") from None


def _error(code: str, error: str) -> Told:
    return {"type": "RUN_ERROR", "message": error, "code": code}
