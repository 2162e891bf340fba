"""One tool call, from its arguments to its END.

::

    decode ── fails ──────────────────────────────► END error
      │
    approval needed? ── denied, nobody answers ───► END denied, timeout
      │
    wait for a place ── START ── execute ─────────► END ok, error
                                    │
              timeout, cancel_tool ─┴─ at once ───► END timeout, cancelled

Whoever ends a call early does so in one synchronous step, `ActiveCall.end_now`: what the tool has
open is closed, END is recorded, and only then is its scope cancelled. So a tool that cleans up
slowly, or never listens, holds up neither the reader nor its siblings' results.
"""

from __future__ import annotations

import logging
import math
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import attrs
import trio
from trio.lowlevel import RunVar, checkpoint, checkpoint_if_cancelled

from flowtrio._core._events import EventType
from flowtrio._core._failures import describe, leaves
from flowtrio._core._telling import tell
from flowtrio._core._values import copy_json

from ._body import encode_result
from ._frame import Frame, FrameTimer
from ._pending import Approved, Denied, Pending
from ._places import Places, Ticket
from ._threads import call_in_thread
from ._tools import Tool

if TYPE_CHECKING:
    from ._run import Run

_tool_places: RunVar[WeakKeyDictionary[Tool[..., Any], Places]] = RunVar("flowtrio_tool_places")


@attrs.frozen
class CallEnd:
    """How a call ended."""

    outcome: str
    value: Any = None
    """What the tool returned, as it returned it."""
    error: str | None = None
    exc: BaseException | None = None
    """What the tool raised."""


class _Plan:
    """What a call is to do: a tool, its arguments, and the places that it needs for that."""

    __slots__ = ("arguments", "asks", "exc", "is_begun", "keywords", "places", "ticket", "tool")

    def __init__(
        self, tool: Tool[..., Any], arguments: dict[str, Any], places: tuple[Places, ...]
    ) -> None:
        self.tool = tool
        self.arguments = arguments
        self.places = places
        self.ticket: Ticket | None = None
        self.is_begun = False
        """Whether its START was waited for already; see `ActiveCall.begin`."""
        self.keywords: dict[str, Any] = {}
        self.asks = False
        """Whether a person has to approve it."""
        self.exc: Exception | None = None
        """Why the arguments do not fit."""
        try:
            self.keywords = self.decode()
            asks = tool.needs_approval
            self.asks = bool(asks(copy_json(arguments)) if callable(asks) else asks)
        except Exception as exc:
            self.exc = exc

    def decode(self) -> dict[str, Any]:
        """The function's keyword arguments, which are its own to change."""
        return self.tool.decode(copy_json(self.arguments))

    def line_up(self) -> Ticket:
        """Stand in line for the places, or take them; see `Ticket`."""
        if self.ticket is None:
            self.ticket = Ticket(self.places)
        return self.ticket

    def give_back(self) -> None:
        """Make room for others."""
        if self.ticket is not None:
            self.ticket.give_back()


class ActiveCall:
    """A call that has no END yet, or whose tool is still cleaning up."""

    __slots__ = (
        "_plan",
        "_was_asked",
        "call_id",
        "end",
        "ended",
        "frame",
        "message_id",
        "owner",
        "pending",
        "run",
        "scope",
        "tool_name",
    )

    def __init__(self, frame: Frame, call_id: str, tool_name: str, message_id: str | None) -> None:
        self.run: Run = frame.run
        self.owner = frame
        self.frame = Frame(
            frame.run,
            frame,
            frame.agent,
            call_id=call_id,
            tool_name=tool_name,
        )
        self.call_id = call_id
        self.tool_name = tool_name
        self.message_id = message_id
        self.scope = trio.CancelScope()
        self.ended: dict[str, Any] | None = None
        """What its END tells, once that is decided."""
        self.end: CallEnd | None = None
        """The same for whoever made the call."""
        self.pending: Pending | None = None
        """While a person is asked."""
        self._plan: _Plan | None = None
        self._was_asked = False
        """Whether a person was asked: then the run's status moves with this call."""

    def __enter__(self) -> None:
        """Be known to `cancel_tool`, and leave no bracket open whatever happens."""
        log = self.run.log
        if log.opened.get(self.call_id) is not self:
            log.opened.add(self.call_id, self)
        self.scope.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """End the call, if it was left before its END."""
        is_caught = False
        try:
            is_caught = bool(self.scope.__exit__(exc_type, exc, traceback))
        finally:
            if exc is not None and not is_caught:
                # Some scope around this call: the run goes on without it, or is closing itself.
                self.end_now("cancelled")
            self._leave()
        return is_caught

    def _leave(self) -> None:
        log = self.run.log
        self.frame.leave()
        # Its END may be decided and not recorded: the wait for the reader was cut short.
        if log.opened.get(self.call_id) is self:
            log.close((self.call_id,))
            log.opened.forget(self.call_id)

    def begin_nowait(self, tool: Tool[..., Any], arguments: dict[str, Any]) -> bool:
        """Start already, if nothing has to be waited for; `execute` goes on.

        For calls of one reply: begun one after the other, they start in their order. False if it
        is only the reader that has to be waited for, see `begin`.
        """
        plan = self._planned(tool, arguments)
        if plan.exc is not None or plan.asks:
            return True
        ticket = plan.line_up()
        if not ticket.has_places:
            # Woken together, they would start in any order.
            ticket.on_grant = lambda: self._start_nowait(plan)
            return True
        if not self.run.log.has_room(self.frame):
            return False
        self._start_nowait(plan)
        return True

    def _start_nowait(self, plan: _Plan) -> None:
        log = self.run.log
        if log.has_room(self.frame):
            log.opened.add(self.call_id, self)
            data = self._start_data(plan.arguments)
            log.emit_nowait(EventType.TOOL_CALL_START, data, self.frame)
            plan.is_begun = True

    async def begin(self, tool: Tool[..., Any], arguments: dict[str, Any]) -> None:
        """The same, waiting for the reader."""
        plan = self._planned(tool, arguments)
        self.run.log.opened.add(self.call_id, self)
        await self._start(plan.arguments)
        plan.is_begun = True

    async def execute(self, tool: Tool[..., Any], arguments: dict[str, Any]) -> CallEnd:
        """Run *tool* on decoded JSON *arguments*, which nobody else may hold."""
        plan = self._planned(tool, arguments)
        try:
            with self:
                await self._execute(plan)
        finally:
            plan.give_back()
        return self._told()

    def _planned(self, tool: Tool[..., Any], arguments: dict[str, Any]) -> _Plan:
        if self._plan is None:
            places = (self.owner.places, *_places_of(tool))
            self._plan = _Plan(tool, arguments, places)
        return self._plan

    async def refuse(self, error: str) -> CallEnd:
        """End a call whose arguments are no JSON object, or whose tool does not exist."""
        with self:
            await self._finish("error", error=error)
        return self._told()

    async def approve(self, arguments: dict[str, Any]) -> bool:
        """Ask a person; there is no tool to run."""
        with self:
            if await self._is_approved(arguments) and await self._start(arguments):
                await self._finish("ok", value=True, result=True)
        return self._told().outcome == "ok"

    def _told(self) -> CallEnd:
        assert self.end is not None
        return self.end

    # The way through

    async def _execute(self, plan: _Plan) -> None:
        if plan.exc is not None:
            return await self._finish("error", error=describe(plan.exc), exc=plan.exc)
        if plan.asks and not await self._is_approved(plan.arguments):
            return None
        await plan.line_up().wait()
        if plan.is_begun:
            # By another task; and this one may have been cancelled since.
            await checkpoint_if_cancelled()
        else:
            await self._start(plan.arguments)
        if self.ended is None:
            await self._work(plan)
        return None

    async def _work(self, plan: _Plan) -> None:
        tool = plan.tool
        timeout = self.run.limits.tool if tool.timeout is None else tool.timeout
        self.frame.timer = timer = FrameTimer(self.run, timeout, self._late)
        try:
            value = await self._attempt(plan)
            result = encode_result(value, self.run.limits.result_bytes)
        except BaseException as exc:
            return await self._failed(tool, exc)
        finally:
            timer.stop()
            # It leads back here: see `Host.host` on what waits for the garbage collector.
            self.frame.timer = None
        await self._finish("ok", value=value, result=result)

    async def _attempt(self, plan: _Plan) -> Any:
        keywords = plan.keywords
        for _ in range(plan.tool.retries):
            try:
                return await self._invoke(plan.tool, keywords)
            except Exception as exc:
                text = "tool %s failed and is tried again (%s)"
                tell(logging.WARNING, text, self.tool_name, self._error_id, exc=exc)
                await checkpoint()
            # The function may have changed those that it got.
            keywords = plan.decode()
        return await self._invoke(plan.tool, keywords)

    async def _invoke(self, tool: Tool[..., Any], keywords: dict[str, Any]) -> Any:
        if tool.context_parameter is None:
            return await self._run_function(tool, keywords)
        keywords = {**keywords, tool.context_parameter: self.frame.make_context(self.frame)}
        return await self.frame.run_body(self._run_function, tool, keywords)

    async def _run_function(self, tool: Tool[..., Any], keywords: dict[str, Any]) -> Any:
        simulation = self.run.info.simulation
        if simulation is not None:
            return await simulation.run_tool(self.call_id, tool, keywords)
        if tool.is_async:
            return await tool.fn(**keywords)
        name = f"tool {self.tool_name} ({self.call_id})"
        return await call_in_thread(self.run, tool, keywords, name)

    async def _failed(self, tool: Tool[..., Any], exc: BaseException) -> None:
        errors = [leaf for leaf in leaves(exc) if not isinstance(leaf, trio.Cancelled)]
        if not errors:
            raise exc
        if self.ended is not None or self.run.is_closing:
            # It was told to stop, and broke while it did.
            for late in errors:
                if isinstance(late, Exception):
                    self.run.note_error(late, "tool")
                    tell(logging.WARNING, "tool cleanup failed (%s)", self._error_id, exc=late)
                else:
                    self.run.fail(late, "tool")
            return await checkpoint()
        first = next((e for e in errors if not isinstance(e, Exception)), errors[0])
        error = describe(first if len(errors) == 1 or not isinstance(first, Exception) else exc)
        if tool.fatal or not isinstance(first, Exception):
            self.end_now("error", error)
            self.run.fail(first, "tool")
            return await checkpoint()
        tell(logging.WARNING, "tool %s failed (%s)", self.tool_name, self._error_id, exc=exc)
        await self._finish("error", error=error, exc=exc)

    @property
    def _error_id(self) -> str:
        return f"{self.run.info.run_id}:{self.call_id}"

    # Approval

    async def _is_approved(self, arguments: dict[str, Any]) -> bool:
        run, seconds = self.run, self.run.limits.approval
        self.pending = pending = Pending.approval()
        self._was_asked = True
        try:
            asked = await self.frame.emit(
                EventType.APPROVAL_REQUIRED,
                {
                    "call_id": self.call_id,
                    "tool_name": self.tool_name,
                    "arguments": copy_json(arguments),
                    "deadline": None if seconds == math.inf else float(seconds),
                    "parent_call_id": self.owner.enclosing_call,
                },
            )
            if asked is None:
                return self._gone()
            await run.log.set_status(self.owner)
            if run.is_unattended:
                pending.abandon()
            with self.owner.waiting_for_person(), trio.move_on_after(seconds):
                await pending.wait()
        finally:
            self.pending = None
        match pending.decision:
            case Approved():
                return True
            case Denied(reason):
                await self._finish("denied", error=reason)
            case _:
                await self._finish("timeout", error=f"nobody answered within {seconds} s")
        return False

    # Events

    async def _start(self, arguments: dict[str, Any]) -> bool:
        """Tell that the call runs; False if nobody can be told any more, so that it may not."""
        data = self._start_data(arguments)
        # By its own frame: it may be ended while this waits for the reader.
        if await self.frame.emit(EventType.TOOL_CALL_START, data) is None:
            return self._gone()
        if self._was_asked:
            await self.run.log.set_status(self.owner)
        return True

    def _start_data(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            "call_id": self.call_id,
            "tool_name": self.tool_name,
            "arguments": copy_json(arguments),
            "message_id": self.message_id,
            "provider_executed": False,
            "parent_call_id": self.owner.enclosing_call,
        }

    def _gone(self) -> bool:
        """Who made this call was ended, and this call with it."""
        if self.end is None:
            self._decide(CallEnd("cancelled"), None)
        return False

    async def _finish(
        self,
        outcome: str,
        *,
        value: Any = None,
        result: Any = None,
        error: str | None = None,
        exc: BaseException | None = None,
    ) -> None:
        """End in good order."""
        if self.ended is not None:
            return
        self.frame.leave()
        log = self.run.log
        # Its END stands from here on, whatever becomes of what is waited for: see _leave.
        told = self._decide(CallEnd(outcome, value, error, exc), result)
        data = {"call_id": self.call_id, "tool_name": self.tool_name, **told}
        if log.law.open_call(self.call_id) is None:
            # Nothing was said of this call yet: its END waits for room, as an opening does.
            await self.owner.emit(EventType.TOOL_CALL_END, data)
        else:
            await log.pause()
            log.record_end(data, self.owner)
        if self._was_asked:
            await log.set_status(self.owner)

    def end_now(self, outcome: str, error: str | None = None) -> bool:
        """End early, at once: True if that took effect."""
        if self.ended is not None or self.run.is_closing:
            return False
        self._decide(CallEnd(outcome, None, error), None)
        self.frame.close()
        self.run.log.close((self.call_id,))
        return True

    def closing(self) -> dict[str, Any]:
        """See `OpenThing`."""
        told = self.ended or self._decide(CallEnd("cancelled"), None)
        self.frame.mark_closed()
        self.scope.cancel(reason=f"call {self.call_id}: {told['outcome']}")
        return told

    def _decide(self, end: CallEnd, result: Any) -> dict[str, Any]:
        self.end = end
        self.ended = told = {
            "outcome": end.outcome,
            "result": result,
            "error": end.error,
            "duration": self.run.log.seconds_since(self.call_id),
        }
        return told

    def _late(self) -> None:
        assert self.frame.timer is not None
        self.end_now("timeout", f"took longer than {self.frame.timer.seconds} s")


def _places_of(tool: Tool[..., Any]) -> tuple[Places, ...]:
    """Places for all calls of one tool in this Trio loop, where it says how many."""
    if tool.concurrency is None:
        return ()
    try:
        places = _tool_places.get()
    except LookupError:
        places = WeakKeyDictionary()
        _tool_places.set(places)
    if tool not in places:
        places[tool] = Places(tool.concurrency)
    return (places[tool],)
