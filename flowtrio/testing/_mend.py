"""A `Law` that goes on after a break.

The gate of a run refuses an illegal event, and that is all. A reader of a whole log wants to know
of every break, and of each one once: the TOOL_CALL_END whose START is lost is a break, the hundred
events after it are not. So a refused event is *mended*: what it lacks is supplied, or it is left
out, whichever lets the rest of the log stand as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO
from typing import Any, Final, assert_never

from flowtrio._core._brackets import (
    Bracket,
    CallPhase,
    OpenAgent,
    OpenCall,
    OpenMessage,
    OpenQuestion,
)
from flowtrio._core._events import ROOT, AgentStatus, EventType
from flowtrio._core._exceptions import LocalProtocolError
from flowtrio._core._law import TERMINAL, TRANSITIONS, Law

_S = AgentStatus
_T = EventType

_CLOSERS: Final = {
    _T.TOOL_CALL_END: "call_id",
    _T.AGENT_END: "agent",
    _T.INPUT_RESOLVED: "request_id",
    _T.MESSAGE_COMPLETE: "message_id",
}


def names_in(type: EventType, data: dict[str, Any]) -> set[str]:
    """The calls, messages, questions and nested agents that an event is about."""
    keys = ["message_id", "request_id"]
    if type is not _T.INPUT_REQUIRED:
        # There it is the call that asks.
        keys.append("call_id")
    if type in (_T.AGENT_START, _T.AGENT_END):
        keys.append("agent")
    return {data[key] for key in keys if isinstance(data.get(key), str)}


class MendingLaw:
    """Walks a log as `Law` does, and mends what `Law` refuses."""

    def __init__(self) -> None:
        self.law = Law()
        """The law as it stands; a fresh one after a run that seems to go on after its end."""
        self.mended: set[str] = set()
        """Names of which a break was seen: what else is wrong with them may follow from it."""
        self._told: str | None = None

    def step(
        self, type: EventType, data: dict[str, Any], agent: str, seq: int
    ) -> LocalProtocolError | None:
        """Take an event; gives the refusal if it was illegal, after mending it."""
        self.law.count = seq
        if type is _T.STATE_CHANGE and self._is_explained(data):
            return None
        try:
            self.law.step(type, data, agent)
        except LocalProtocolError as refusal:
            self._mend(type, data, agent)
            self.mended |= names_in(type, data)
            return refusal
        return None

    def _is_explained(self, data: dict[str, Any]) -> bool:
        """Whether a STATE_CHANGE differs from the law only because an earlier break was mended."""
        new = data["new_status"]
        if new in TERMINAL:
            self._close_all(self.law.open_brackets(only=self.mended))
        continues, self._told = data["old_status"] == self._told, new
        if not continues or data["old_status"] == self.law.status:
            return False
        self._move(new, data["reason"])
        return True

    def _mend(self, type: EventType, data: dict[str, Any], agent: str) -> None:
        if self.law.status is None:
            self._try(_T.RUN_START, {}, ROOT)
        match type:
            case _T.RUN_START:
                pass
            case _T.STATE_CHANGE:
                self._move(data["new_status"], data["reason"])
            case _T.ERROR:
                self._move(_S.ERROR)
                self._try(type, data, ROOT)
            case _T.DONE:
                self._move(data["status"])
                self._try(_T.ERROR, {}, ROOT)
                self._try(type, {**data, "events": self.law.count + 1}, ROOT)
            case _:
                self._mend_live(type, data, agent)

    def _mend_live(self, type: EventType, data: dict[str, Any], agent: str) -> None:
        if self.law.status in TERMINAL and names_in(type, data) & self.mended:
            return
        self._wake()
        if type in _CLOSERS:
            self._close_all(self.law.open_brackets(only={data[_CLOSERS[type]]}))
            return
        if type is _T.AGENT_START:
            self._start_agents(agent.rpartition("/")[0])
            data = {**data, "call_id": None}
        else:
            self._start_agents(agent)
        if type is _T.TOOL_CALL_START and not data["provider_executed"]:
            self._complete(data["message_id"], agent)
        if type is _T.MESSAGE_RESET:
            self._close_all(self.law.calls_of(data["message_id"]))
        self._try(type, data, agent)

    # Moving the run

    def _wake(self) -> None:
        if self.law.status in TERMINAL:
            self.law = Law()
            self._try(_T.RUN_START, {}, ROOT)
        if self.law.status is _S.INITIALIZING:
            self._change(_S.RUNNING)

    def _move(self, new: str, reason: str | None = None) -> None:
        if self.law.status == new:
            return
        if self.law.status in TERMINAL:
            self._wake()
        brackets = self.law.open_brackets()
        self._close_all([bracket for bracket in brackets if _bars(bracket, new)])
        if self.law.status is not None and new not in TRANSITIONS[self.law.status]:
            self._change(_S.RUNNING)
        self._change(new, reason)

    def _change(self, new: str, reason: str | None = None) -> None:
        data = {"old_status": self.law.status, "new_status": new, "reason": reason}
        self._try(_T.STATE_CHANGE, data, ROOT)

    # Opening and closing

    def _start_agents(self, path: str) -> None:
        names = path.split("/")
        for length in range(2, len(names) + 1):
            ancestor = "/".join(names[:length])
            if self._try(_T.AGENT_START, {"agent": ancestor, "call_id": None}, ancestor):
                self.mended.add(ancestor)

    def _complete(self, message_id: str | None, agent: str) -> None:
        """Have a message completed whose calls start."""
        if message_id is None:
            return
        message = self.law.open_message(message_id)
        if message is None:
            self._close_all([OpenMessage(message_id, agent, StringIO())])
        else:
            self._close_all([message])

    def _close_all(self, brackets: Iterable[Bracket]) -> None:
        for bracket in brackets:
            self.mended.add(bracket.key)
            self._try(*_closer(bracket), bracket.agent)

    def _try(self, type: EventType, data: dict[str, Any], agent: str) -> bool:
        try:
            self.law.step(type, data, agent)
        except LocalProtocolError:
            return False
        return True


def _bars(bracket: Bracket, new: str) -> bool:
    """Whether the run cannot be in status *new* while this is open."""
    match bracket:
        case OpenQuestion():
            return new != _S.WAITING_FOR_INPUT
        case OpenCall(phase=CallPhase.ASKED):
            return new == _S.RUNNING or new in TERMINAL
        case _:
            return new in TERMINAL


def _closer(bracket: Bracket) -> tuple[EventType, dict[str, Any]]:
    data: dict[str, Any]
    match bracket:
        case OpenCall():
            data = {"call_id": bracket.key, "tool_name": bracket.tool_name, "outcome": "cancelled"}
            return _T.TOOL_CALL_END, data
        case OpenAgent():
            data = {"agent": bracket.key, "call_id": bracket.call_id, "outcome": "cancelled"}
            return _T.AGENT_END, data
        case OpenQuestion():
            return _T.INPUT_RESOLVED, {"request_id": bracket.key}
        case OpenMessage():
            data = {"message_id": bracket.key, "content": bracket.text.getvalue()}
            return _T.MESSAGE_COMPLETE, {**data, "finish_reason": "tool_calls"}
        case _ as never:
            assert_never(never)
