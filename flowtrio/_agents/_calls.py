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
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import attrs
import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from flowtrio._core._events import EventType
from flowtrio._core._exceptions import ToolDenied
from flowtrio._core._failures import describe, leaves
from flowtrio._core._parts import content_of_result
from flowtrio._core._telling import tell
from flowtrio._core._values import clean_text, copy_json
from flowtrio._run._body import encode_result
from flowtrio._run._frame import Frame, FrameTimer
from flowtrio._run._pending import Approved, Denied, Pending

from ._plan import Plan, edit, error_id
from ._tools import Tool

if TYPE_CHECKING:
    from flowtrio._run._run import Run


@attrs.define(eq=False)
class CallEnd:
    """How a call ended."""

    outcome: str
    value: Any = None
    """What the tool returned, as it returned it."""
    error: str | None = None
    exc: BaseException | None = None
    """What the tool raised."""


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
        self._plan: Plan | None = None
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
        return self._start_nowait(plan)

    def _start_nowait(self, plan: Plan) -> bool:
        log = self.run.log
        if not log.has_room(self.frame):
            return False
        log.opened.add(self.call_id, self)
        data = _start_data(self, plan.arguments)
        log.emit_nowait(EventType.TOOL_CALL_START, data, self.frame)
        plan.is_begun = True
        return True

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
        return _end_of(self)

    def _planned(self, tool: Tool[..., Any], arguments: dict[str, Any]) -> Plan:
        if self._plan is None:
            self._plan = Plan(tool, arguments, self.owner.places)
        return self._plan

    async def refuse(self, error: str) -> CallEnd:
        """End a call whose arguments are no JSON object, or whose tool does not exist."""
        with self:
            await self._finish("error", error=error)
        return _end_of(self)

    async def approve(self, arguments: dict[str, Any]) -> bool:
        """Ask a person; there is no tool to run."""
        with self:
            if await self._is_approved(arguments) and await self._start(arguments):
                await self._finish("ok", value=True, result=True)
        return _end_of(self).outcome == "ok"

    # The way through

    async def _execute(self, plan: Plan) -> None:
        if plan.exc is not None:
            outcome, error = _told(plan.exc)
            return await self._finish(outcome, error=error, exc=plan.exc)
        if plan.asks and not await self._is_approved(plan.arguments):
            return None
        ticket = plan.line_up()
        if not ticket.has_places:
            await ticket.wait()
        if plan.is_begun:
            # By another task; and this one may have been cancelled since.
            await checkpoint_if_cancelled()
        else:
            await self._start(plan.arguments)
        return None if self.ended is not None else await self._work(plan)

    async def _work(self, plan: Plan) -> None:
        tool = plan.tool
        timeout = self.run.limits.tool if tool.timeout is None else tool.timeout
        self.frame.timer = timer = FrameTimer(self.run, timeout, self._late)
        try:
            value = await plan.run(self.frame)
            result = _encode_result(self, value)
        except BaseException as exc:
            return await self._failed(tool, exc)
        finally:
            timer.stop()
            # It leads back here: see `Host.host` on what waits for the garbage collector.
            self.frame.timer = None
        await self._finish("ok", value=value, result=result)

    async def _failed(self, tool: Tool[..., Any], exc: BaseException) -> None:
        errors = [leaf for leaf in leaves(exc) if not isinstance(leaf, trio.Cancelled)]
        if not errors:
            raise exc
        if self.ended is not None or self.run.is_closing:
            # It was told to stop, and broke while it did.
            for late in errors:
                if isinstance(late, Exception):
                    self.run.note_error(late, "tool")
                    words = "tool cleanup failed (%s)"
                    tell(logging.WARNING, words, error_id(self.frame), exc=late)
                else:
                    self.run.fail(late, "tool")
            return await checkpoint()
        first = next((e for e in errors if not isinstance(e, Exception)), errors[0])
        is_whole = len(errors) > 1 and isinstance(first, Exception)
        outcome, error = _told(exc if is_whole else first)
        if (tool.fatal and outcome == "error") or not isinstance(first, Exception):
            self.end_now("error", error)
            self.run.fail(first, "tool")
            return await checkpoint()
        tell(logging.WARNING, "tool %s failed (%s)", self.tool_name, error_id(self.frame), exc=exc)
        await self._finish(outcome, error=error, exc=exc)

    # Approval

    async def _is_approved(self, arguments: dict[str, Any]) -> bool:
        run, seconds = self.run, self.run.limits.approval
        self.pending = pending = Pending.approval(partial(edit, self._plan))
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
            if run.is_unattended or not run.has_people:
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
        data = _start_data(self, arguments)
        # By its own frame: it may be ended while this waits for the reader.
        if await self.frame.emit(EventType.TOOL_CALL_START, data) is None:
            return self._gone()
        if self._was_asked:
            await self.run.log.set_status(self.owner)
        return True

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
        self.frame.close()
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
        told = self.ended or self._decide(_cut_off(self), None)
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


def _encode_result(call: ActiveCall, value: Any) -> Any:
    """What the tool returned, as JSON; its images are shown to the model that asked for them."""
    result = encode_result(value, call.run.limits.result_bytes)
    if result is value:
        return result  # No part is JSON as it stands.
    shown = content_of_result(value, result)
    if shown is not None and call.ended is None:
        call.run.log.transcripts.show(call.call_id, shown)
    return result


def _told(exc: BaseException) -> tuple[str, str]:
    """How a call ends that raised this, and what is told of it."""
    if isinstance(exc, ToolDenied):
        return "denied", clean_text(exc.reason)
    return "error", describe(exc)


def _start_data(call: ActiveCall, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "call_id": call.call_id,
        "tool_name": call.tool_name,
        "arguments": copy_json(arguments),
        "message_id": call.message_id,
        "provider_executed": False,
        "parent_call_id": call.owner.enclosing_call,
    }


def _cut_off(call: ActiveCall) -> CallEnd:
    """How a call ends with what it is in: whoever denied it was told that this took effect."""
    decision = None if call.pending is None else call.pending.decision
    if isinstance(decision, Denied):
        return CallEnd("denied", None, decision.reason)
    return CallEnd("cancelled")


def _end_of(call: ActiveCall) -> CallEnd:
    assert call.end is not None
    return call.end
