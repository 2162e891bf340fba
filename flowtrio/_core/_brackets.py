"""What is open in a run, and what was: the state that the law of events is about.

Calls, nested agents, questions and messages are opened by one event and closed by exactly one
other. Each identifier is used once in a run.
"""

from __future__ import annotations

import enum
from collections.abc import Container
from io import StringIO
from typing import Any, NoReturn, TypeAlias

import attrs

from ._events import ROOT, AgentStatus, EventType
from ._exceptions import LocalProtocolError
from ._nothing import NOTHING

_S = AgentStatus


class CallPhase(enum.Enum):
    """How far an open call has come."""

    WRITTEN = enum.auto()
    """The model is writing, or has written, its arguments."""
    ASKED = enum.auto()
    """It waits for a person."""
    STARTED = enum.auto()
    """It runs."""


@attrs.define(eq=False)
class OpenCall:
    """A call without its TOOL_CALL_END."""

    key: str
    agent: str
    tool_name: str
    message_id: str | None
    phase: CallPhase


@attrs.define(eq=False)
class OpenAgent:
    """A nested agent without its AGENT_END."""

    key: str
    call_id: str | None

    @property
    def agent(self) -> str:
        """Its path: the envelope of both its events."""
        return self.key


@attrs.define(eq=False)
class OpenQuestion:
    """A question without its INPUT_RESOLVED."""

    key: str
    agent: str


@attrs.define(eq=False)
class OpenMessage:
    """A message without its MESSAGE_COMPLETE."""

    key: str
    agent: str
    text: StringIO
    """Its chunks since the last MESSAGE_RESET."""


Bracket: TypeAlias = OpenCall | OpenAgent | OpenQuestion | OpenMessage


class Brackets:
    """What is open, every name there was, and the steps that the rules share.

    A refusal changes nothing here.
    """

    __slots__ = (
        "_agents",
        "_asked",
        "_calls",
        "_messages",
        "_questions",
        "_used",
        "count",
        "is_done",
        "status",
    )

    def __init__(self) -> None:
        self.count: int = 0
        """How many events were accepted; the next one's sequence number."""
        self.status: AgentStatus | None = None
        """The run's status; None before RUN_START."""
        self.is_done: bool = False
        """Whether DONE was accepted."""
        self._asked = 0
        self._calls: dict[str, OpenCall] = NOTHING
        self._agents: dict[str, OpenAgent] = NOTHING
        self._questions: dict[str, OpenQuestion] = NOTHING
        self._messages: dict[str, OpenMessage] = NOTHING
        self._used: dict[str, tuple[str, str] | None] = NOTHING
        """Every key there was; of a complete message its agent and its finish reason."""

    # What is open

    def derived_status(self) -> AgentStatus:
        """The status that a live run has to have: waiting exactly while somebody is asked."""
        if self._questions:
            return _S.WAITING_FOR_INPUT
        if self._asked:
            return _S.WAITING_FOR_APPROVAL
        return _S.RUNNING

    def open_brackets(self, only: Container[str] | None = None) -> list[Bracket]:
        """What is open, in closing order.

        Calls in the order they were opened, nested agents last opened first, questions, messages.

        Args:
          only: Keys to consider; None for all.

        """
        if not (self._calls or self._agents or self._questions or self._messages):
            return []
        brackets: list[Bracket] = [
            *self._calls.values(),
            *reversed(self._agents.values()),
            *self._questions.values(),
            *self._messages.values(),
        ]
        if only is None:
            return brackets
        return [bracket for bracket in brackets if bracket.key in only]

    def is_open(self, bracket: Bracket) -> bool:
        """Whether *bracket*, which was open, still is."""
        kept = (self._calls, self._agents, self._questions, self._messages)
        return any(brackets.get(bracket.key) is bracket for brackets in kept)

    def open_call(self, call_id: str) -> OpenCall | None:
        """The open call of this id, or None."""
        return self._calls.get(call_id)

    def open_message(self, message_id: str) -> OpenMessage | None:
        """The open message of this id, or None."""
        return self._messages.get(message_id)

    def calls_of(self, message_id: str) -> list[OpenCall]:
        """The open calls that belong to a message, in the order they were opened."""
        return [call for call in self._calls.values() if call.message_id == message_id]

    def is_new(self, key: str) -> bool:
        """Whether no event told of what *key* names."""
        return key not in self._used

    def abandon(self) -> None:
        """Forget all that is open, unclosed: the last resort of one who cannot close it."""
        self._calls, self._agents, self._questions, self._messages = {}, {}, {}, {}
        self._asked = 0

    # Shared steps

    def _use(self, key: str, told: tuple[str, str] | None = None) -> None:
        """Keep that *key* is a name, which nothing else may have from now on; and what it told."""
        if self._used is NOTHING:
            self._calls, self._agents, self._questions, self._messages = {}, {}, {}, {}
            self._used = {}
        self._used[key] = told

    def _message(self, type: EventType, message_id: str, agent: str) -> OpenMessage:
        message = self._messages.get(message_id)
        if message is None:
            return self._open_message(type, message_id, agent)
        if message.agent != agent:
            self._refuse(type, f"{message_id} belongs to {message.agent}", "L3")
        self._must_speak(type, agent)
        return message

    def _open_message(self, type: str, message_id: str, agent: str) -> OpenMessage:
        self._must_be_new(type, message_id)
        self._must_speak(type, agent)
        self._use(message_id)
        message = self._messages[message_id] = OpenMessage(message_id, agent, StringIO())
        return message

    def _open_call(
        self, data: dict[str, Any], agent: str, message_id: str | None, phase: CallPhase
    ) -> None:
        call_id = data["call_id"]
        self._use(call_id)
        self._calls[call_id] = OpenCall(call_id, agent, data["tool_name"], message_id, phase)

    def _must_be_root(self, type: EventType, agent: str) -> None:
        if agent != ROOT:
            self._refuse(type, f"it belongs to {ROOT}, not to {agent!r}", "L2")

    def _must_speak(self, type: str, agent: str) -> None:
        if agent != ROOT and agent not in self._agents:
            self._refuse(type, f"agent {agent!r} is not running", "L3")

    def _must_be_new(self, type: str, key: str) -> None:
        if key in self._used:
            self._refuse(type, f"{key} was used before", "L3")

    def _must_own(self, type: EventType, call: OpenCall, data: dict[str, Any], agent: str) -> None:
        if call.agent != agent or call.tool_name != data["tool_name"]:
            self._refuse(type, f"{call.key} is {call.tool_name!r} of {call.agent}", "L3")

    def _refuse(self, type: str, why: str, law: str) -> NoReturn:
        what = type.upper() if isinstance(type, EventType) else type
        state = "done" if self.is_done else self.status or "not started"
        raise LocalProtocolError(
            f"can't emit {what} when run={state} (seq {self.count}): {why}", law=law
        )
