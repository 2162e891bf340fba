"""The law of calls: written by a model, asked about, started, ended.

One call::

call      ARGS* [APPROVAL_REQUIRED] (START PROGRESS* END | END)
"""

from __future__ import annotations

from typing import Any, Final, get_args

from ._brackets import Brackets, CallPhase
from ._events import SCHEMA, EventType, Outcome

_T = EventType

UNFIT_TO_RUN: Final = {
    "length": "the reply was cut before this call was whole",
    "content_filter": "the reply was withheld",
}
"""Why the calls of a reply do not run, by its finish reason."""

OUTCOMES: Final = frozenset(get_args(Outcome))
"""How a call may end."""


class CallRules(Brackets):
    """The rules for events of calls."""

    __slots__ = ("_schema",)

    def __init__(self) -> None:
        super().__init__()
        self._schema: Any = SCHEMA
        """The log's: runs of the first one did execute the calls of a cut reply."""

    def _args(self, data: dict[str, Any], agent: str) -> None:
        call_id, message_id = data["call_id"], data["message_id"]
        call = self._calls.get(call_id)
        if call is None:
            self._must_be_new(_T.TOOL_CALL_ARGS, call_id)
            if call_id == message_id:
                self._refuse(_T.TOOL_CALL_ARGS, f"{call_id} names a message too", "L3")
        else:
            self._must_own(_T.TOOL_CALL_ARGS, call, data, agent)
            if call.phase is not CallPhase.WRITTEN:
                self._refuse(_T.TOOL_CALL_ARGS, f"{call_id} is {call.phase.name}", "L3")
            if call.message_id != message_id:
                self._refuse(
                    _T.TOOL_CALL_ARGS, f"{call_id} belongs to message {call.message_id}", "L3"
                )
        self._message(_T.TOOL_CALL_ARGS, message_id, agent)
        if call is None:
            self._open_call(data, agent, message_id, CallPhase.WRITTEN)

    def _approval(self, data: dict[str, Any], agent: str) -> None:
        call = self._calls.get(data["call_id"])
        if call is None:
            self._must_be_new(_T.APPROVAL_REQUIRED, data["call_id"])
            self._must_speak(_T.APPROVAL_REQUIRED, agent)
            self._open_call(data, agent, None, CallPhase.ASKED)
        else:
            self._must_own(_T.APPROVAL_REQUIRED, call, data, agent)
            if call.phase is not CallPhase.WRITTEN:
                self._refuse(_T.APPROVAL_REQUIRED, f"{call.key} is {call.phase.name}", "L3")
            if call.message_id in self._messages:
                self._refuse(
                    _T.APPROVAL_REQUIRED, f"message {call.message_id} is not complete", "L10"
                )
            call.phase = CallPhase.ASKED
        self._asked += 1

    def _start(self, data: dict[str, Any], agent: str) -> None:
        call_id, message_id = data["call_id"], data["message_id"]
        call = self._calls.get(call_id)
        if call is None:
            self._must_be_new(_T.TOOL_CALL_START, call_id)
            self._must_speak(_T.TOOL_CALL_START, agent)
        else:
            self._must_own(_T.TOOL_CALL_START, call, data, agent)
            if call.phase is CallPhase.STARTED:
                self._refuse(_T.TOOL_CALL_START, f"{call_id} has started", "L3")
            if call.message_id not in (None, message_id):
                self._refuse(
                    _T.TOOL_CALL_START, f"{call_id} belongs to message {call.message_id}", "L3"
                )
        if data["provider_executed"]:
            self._must_be_inside(call_id, message_id, agent)
        elif message_id is not None:
            self._must_be_ready(message_id, agent)
        if call is None:
            self._open_call(data, agent, message_id, CallPhase.STARTED)
        else:
            self._asked -= call.phase is CallPhase.ASKED
            call.phase = CallPhase.STARTED
            call.message_id = message_id

    def _must_be_inside(self, call_id: str, message_id: str | None, agent: str) -> None:
        """The provider's own tools run while their message is written; it may begin with one."""
        if message_id is None or call_id == message_id:
            self._refuse(_T.TOOL_CALL_START, f"{call_id} is inside no message", "L3")
        self._message(_T.TOOL_CALL_START, message_id, agent)

    def _must_be_ready(self, message_id: str, agent: str) -> None:
        """Our tools start after the finish mark of the message that asked for them."""
        owner, finish_reason = self._used.get(message_id) or (agent, None)
        if owner != agent:
            self._refuse(_T.TOOL_CALL_START, f"{message_id} belongs to {owner}", "L3")
        if finish_reason is None:
            self._refuse(_T.TOOL_CALL_START, f"message {message_id} is not complete", "L10")
        if finish_reason in ("error", "cancelled"):
            self._refuse(_T.TOOL_CALL_START, f"message {message_id} has no finish mark", "L10")
        if self._schema != 1 and (why := UNFIT_TO_RUN.get(finish_reason)) is not None:
            self._refuse(_T.TOOL_CALL_START, f"message {message_id}: {why}", "L10")

    def _progress(self, data: dict[str, Any], agent: str) -> None:
        call = self._calls.get(data["call_id"])
        if call is None or call.phase is not CallPhase.STARTED:
            self._refuse(_T.TOOL_PROGRESS, f"{data['call_id']} is not running", "L3")
        self._must_own(_T.TOOL_PROGRESS, call, data, agent)
        self._must_speak(_T.TOOL_PROGRESS, agent)

    def _end(self, data: dict[str, Any], agent: str) -> None:
        call_id, outcome = data["call_id"], data["outcome"]
        if outcome not in OUTCOMES:
            self._refuse(_T.TOOL_CALL_END, f"outcome {outcome!r} is not one of them", "L3")
        call = self._calls.get(call_id)
        if call is None:
            self._must_be_new(_T.TOOL_CALL_END, call_id)
            self._must_speak(_T.TOOL_CALL_END, agent)
        else:
            self._must_own(_T.TOOL_CALL_END, call, data, agent)
        started = call is not None and call.phase is CallPhase.STARTED
        if outcome == "timeout" and (call is None or call.phase is CallPhase.WRITTEN):
            self._refuse(_T.TOOL_CALL_END, f"{call_id} neither started nor waited", "L3")
        if outcome == "ok" and not started:
            self._refuse(_T.TOOL_CALL_END, f"{call_id} ended ok but never started", "L3")
        if call is None:
            self._use(call_id)
        else:
            self._asked -= call.phase is CallPhase.ASKED
            del self._calls[call_id]
