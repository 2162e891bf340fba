"""The legal order of a run's events: two tables, and an object that walks them.

A run is a sequence of events. What may come next depends on two things only:

*The status.* `TRANSITIONS` says which STATE_CHANGE may follow which. A run starts with RUN_START,
is ``initializing`` until its first STATE_CHANGE, and says everything else while it is *live*:
between that STATE_CHANGE and the terminal one. After the terminal one only ERROR (if it failed) and
DONE follow. ``waiting_for_input`` and ``waiting_for_approval`` are not choices but consequences:
they hold exactly while a question, or else an approval, is open.

*The brackets.* Calls, nested agents, questions and messages are opened by one event and closed by
exactly one other. Each identifier is used once in a run. `Law.open_brackets` gives what is open in
the order in which it has to be closed when a run ends early::

    message   (CHUNK | REASONING | PART | RESET)* COMPLETE
    call      ARGS* [APPROVAL_REQUIRED] (START PROGRESS* END | END)
    agent     AGENT_START AGENT_END
    question  INPUT_REQUIRED INPUT_RESOLVED

The `Law` object refuses an illegal event with `LocalProtocolError` *and is not changed by it*. It
does no I/O, knows no time and does not look at values it does not need: shapes of data are the
business of `flowtrio.testing.find_violations`.
"""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any, ClassVar, Final, TypeAlias

from ._brackets import CallPhase, OpenAgent, OpenQuestion
from ._call_rules import OUTCOMES, CallRules
from ._events import ROOT, SCHEMA, AgentStatus, EventType

_S = AgentStatus
_T = EventType
_CHUNK: Final = EventType.MESSAGE_CHUNK

TRANSITIONS: Final[dict[AgentStatus, frozenset[AgentStatus]]] = {
    _S.INITIALIZING: frozenset({_S.RUNNING, _S.ERROR, _S.CANCELLED}),
    _S.RUNNING: frozenset(
        {
            _S.RUNNING,
            _S.WAITING_FOR_INPUT,
            _S.WAITING_FOR_APPROVAL,
            _S.COMPLETED,
            _S.ERROR,
            _S.CANCELLED,
        }
    ),
    _S.WAITING_FOR_INPUT: frozenset(
        {_S.RUNNING, _S.WAITING_FOR_INPUT, _S.WAITING_FOR_APPROVAL, _S.ERROR, _S.CANCELLED}
    ),
    _S.WAITING_FOR_APPROVAL: frozenset(
        {_S.RUNNING, _S.WAITING_FOR_INPUT, _S.WAITING_FOR_APPROVAL, _S.ERROR, _S.CANCELLED}
    ),
    _S.COMPLETED: frozenset(),
    _S.ERROR: frozenset(),
    _S.CANCELLED: frozenset(),
}
"""Which status may follow which. Staying in a status needs a new ``reason``."""

_MEMBERS: Final = {status: status for status in TRANSITIONS}
"""The statuses by their texts: a log that was read has those, and calling the enum is slower."""

TERMINAL: Final = frozenset({_S.COMPLETED, _S.ERROR, _S.CANCELLED})
"""The statuses that end a run."""

OF_THE_RUN: Final = frozenset({_T.RUN_START, _T.STATE_CHANGE, _T.ERROR, _T.DONE})
"""The run's own events: they may come when it is not live, and are in no conversation."""


class Law(CallRules):
    """Walks one run's events and refuses the first illegal one, every time."""

    __slots__ = ("_failed", "_live", "reason")

    count: int
    status: AgentStatus | None

    def __init__(self) -> None:
        super().__init__()
        self.reason: str | None = None
        """The reason of the last STATE_CHANGE."""
        self._live = False
        self._failed = False

    def begin_message(self, message_id: str, agent: str) -> None:
        """Expect a MESSAGE_COMPLETE for *message_id*, whether or not it gets other events.

        A model turn is a message from the moment the model is asked.
        """
        if not self._live:
            self._refuse("a message", "the run is not live", "L2")
        self._open_message("a message", message_id, agent)

    # The one way in

    def step(self, type: EventType, data: dict[str, Any], agent: str) -> None:
        """Accept an event, or refuse it and stay as before.

        Raises:
          LocalProtocolError: the event is illegal here; ``law`` names the law.

        """
        if type is _CHUNK and self._live:
            # Once for every token, so without a further call; `_chunk` refuses, or opens a message.
            message = self._messages.get(data["message_id"])
            if message is not None and message.agent == agent and agent == ROOT:
                message.text.write(data["chunk"])
                self.count += 1
                return
        if not self._live and type not in OF_THE_RUN:
            law = "L4" if type is _T.STATE_CHANGE else "L2"
            self._refuse(type, "only RUN_START, STATE_CHANGE, ERROR and DONE are legal there", law)
        self._RULES[type](self, data, agent)
        self.count += 1

    # The run itself

    def _run_start(self, data: dict[str, Any], agent: str) -> None:
        if self.status is not None:
            self._refuse(_T.RUN_START, "a run starts once, with its first event", "L2")
        self._must_be_root(_T.RUN_START, agent)
        self.status = _S.INITIALIZING
        self._schema = data.get("schema", SCHEMA)

    def _state_change(self, data: dict[str, Any], agent: str) -> None:
        self._must_be_root(_T.STATE_CHANGE, agent)
        old, new, reason = data["old_status"], data["new_status"], data["reason"]
        status = self.status
        if status is None:
            self._refuse(_T.STATE_CHANGE, "RUN_START has to come first", "L2")
        if old != status:
            self._refuse(_T.STATE_CHANGE, f"old_status is {old!r}", "L4")
        if new not in TRANSITIONS[status]:
            self._refuse(_T.STATE_CHANGE, f"new_status {new!r} is not in the table", "L4")
        new = _MEMBERS[new]
        if new in TERMINAL:
            if brackets := self.open_brackets():
                names = ", ".join(bracket.key for bracket in brackets)
                self._refuse(_T.STATE_CHANGE, f"{names} have to be closed before {new}", "L3")
        elif new is not self.derived_status():
            self._refuse(
                _T.STATE_CHANGE, f"what is open makes the status {self.derived_status()}", "L4"
            )
        elif new is status and (reason is None or reason == self.reason):
            self._refuse(_T.STATE_CHANGE, f"staying {new} needs a new reason", "L4")
        self.status = new
        self.reason = reason
        self._live = new not in TERMINAL

    def _error(self, data: dict[str, Any], agent: str) -> None:
        self._must_be_root(_T.ERROR, agent)
        if self.status is not _S.ERROR or self.is_done:
            self._refuse(_T.ERROR, "it follows the STATE_CHANGE to error", "L2")
        if self._failed:
            self._refuse(_T.ERROR, "a failed run has exactly one", "L2")
        self._failed = True

    def _done(self, data: dict[str, Any], agent: str) -> None:
        self._must_be_root(_T.DONE, agent)
        if self.is_done:
            self._refuse(_T.DONE, "a run ends once", "L2")
        if self.status not in TERMINAL:
            self._refuse(_T.DONE, "it follows the terminal STATE_CHANGE", "L4")
        if data["status"] != self.status:
            self._refuse(_T.DONE, f"its status is {data['status']!r}", "L4")
        if self.status is _S.ERROR and not self._failed:
            self._refuse(_T.DONE, "a failed run has ERROR directly before it", "L2")
        if data["events"] != self.count + 1:
            self._refuse(_T.DONE, f"it counts {data['events']!r} events", "L1")
        self.is_done = True

    # Messages

    def _chunk(self, data: dict[str, Any], agent: str) -> None:
        message = self._messages.get(data["message_id"])
        if message is None:
            message = self._open_message(_T.MESSAGE_CHUNK, data["message_id"], agent)
        elif message.agent != agent or (agent != ROOT and agent not in self._agents):
            self._refuse(_T.MESSAGE_CHUNK, f"{message.key} belongs to {message.agent}", "L3")
        message.text.write(data["chunk"])

    def _piece(self, type: EventType, data: dict[str, Any], agent: str) -> None:
        self._message(type, data["message_id"], agent)

    def _reset(self, data: dict[str, Any], agent: str) -> None:
        message_id = data["message_id"]
        if calls := self.calls_of(message_id):
            names = ", ".join(call.key for call in calls)
            self._refuse(_T.MESSAGE_RESET, f"{names} have to be closed before it", "L3")
        self._message(_T.MESSAGE_RESET, message_id, agent).text = StringIO()

    def _complete(self, data: dict[str, Any], agent: str) -> None:
        message_id = data["message_id"]
        message = self._messages.get(message_id)
        if message is None:
            self._must_be_new(_T.MESSAGE_COMPLETE, message_id)
            # A turn that said nothing before its agent was ended early is closed after the agent.
            if agent not in self._used or data["finish_reason"] not in ("cancelled", "error"):
                self._must_speak(_T.MESSAGE_COMPLETE, agent)
        elif message.agent != agent:
            self._refuse(_T.MESSAGE_COMPLETE, f"{message.key} belongs to {message.agent}", "L3")
        text = "" if message is None else message.text.getvalue()
        if data["content"] != text:
            self._refuse(
                _T.MESSAGE_COMPLETE,
                f"content of {message_id} has {len(data['content'])} characters, its chunks "
                f"{len(text)}, or they differ",
                "L3",
            )
        if message is not None:
            del self._messages[message_id]
        self._use(message_id, (agent, data["finish_reason"]))

    # Nested agents, questions, the application's own

    def _agent_start(self, data: dict[str, Any], agent: str) -> None:
        path, call_id = data["agent"], data["call_id"]
        if path != agent:
            self._refuse(_T.AGENT_START, f"its envelope says {agent!r}, its data {path!r}", "L3")
        parent, slash, name = path.rpartition("/")
        if not slash or not name:
            self._refuse(_T.AGENT_START, f"{path!r} is not the path of a nested agent", "L3")
        self._must_speak(_T.AGENT_START, parent)
        self._must_be_new(_T.AGENT_START, path)
        if call_id is not None:
            call = self._calls.get(call_id)
            if call is None or call.phase is not CallPhase.STARTED:
                self._refuse(_T.AGENT_START, f"{call_id} is not running", "L3")
        self._use(path)
        self._agents[path] = OpenAgent(path, call_id)

    def _agent_end(self, data: dict[str, Any], agent: str) -> None:
        path, outcome = data["agent"], data["outcome"]
        if path != agent:
            self._refuse(_T.AGENT_END, f"its envelope says {agent!r}, its data {path!r}", "L3")
        if outcome not in OUTCOMES:
            self._refuse(_T.AGENT_END, f"outcome {outcome!r} is not one of them", "L3")
        bracket = self._agents.get(path)
        if bracket is None:
            self._refuse(_T.AGENT_END, f"{path!r} is not open", "L3")
        if bracket.call_id != data["call_id"]:
            self._refuse(_T.AGENT_END, f"{path!r} began in call {bracket.call_id}", "L3")
        del self._agents[path]

    def _question(self, data: dict[str, Any], agent: str) -> None:
        self._must_be_new(_T.INPUT_REQUIRED, data["request_id"])
        self._must_speak(_T.INPUT_REQUIRED, agent)
        self._use(data["request_id"])
        self._questions[data["request_id"]] = OpenQuestion(data["request_id"], agent)

    def _answer(self, data: dict[str, Any], agent: str) -> None:
        request_id = data["request_id"]
        question = self._questions.get(request_id)
        if question is None:
            self._refuse(_T.INPUT_RESOLVED, f"{request_id} is not open", "L3")
        if question.agent != agent:
            self._refuse(_T.INPUT_RESOLVED, f"{request_id} belongs to {question.agent}", "L3")
        del self._questions[request_id]

    def _user_message(self, data: dict[str, Any], agent: str) -> None:
        self._must_be_root(_T.USER_MESSAGE, agent)

    def _custom(self, data: dict[str, Any], agent: str) -> None:
        self._must_speak(_T.CUSTOM, agent)

    _Rule: TypeAlias = Callable[["Law", dict[str, Any], str], None]
    _RULES: ClassVar[dict[EventType, _Rule]] = {
        _T.RUN_START: _run_start,
        _T.STATE_CHANGE: _state_change,
        _T.ERROR: _error,
        _T.DONE: _done,
        _T.MESSAGE_CHUNK: _chunk,
        _T.REASONING_CHUNK: lambda self, data, agent: self._piece(_T.REASONING_CHUNK, data, agent),
        _T.MESSAGE_PART: lambda self, data, agent: self._piece(_T.MESSAGE_PART, data, agent),
        _T.MESSAGE_RESET: _reset,
        _T.MESSAGE_COMPLETE: _complete,
        _T.TOOL_CALL_ARGS: CallRules._args,
        _T.APPROVAL_REQUIRED: CallRules._approval,
        _T.TOOL_CALL_START: CallRules._start,
        _T.TOOL_PROGRESS: CallRules._progress,
        _T.TOOL_CALL_END: CallRules._end,
        _T.AGENT_START: _agent_start,
        _T.AGENT_END: _agent_end,
        _T.INPUT_REQUIRED: _question,
        _T.INPUT_RESOLVED: _answer,
        _T.USER_MESSAGE: _user_message,
        _T.CUSTOM: _custom,
    }
