"""What an AG-UI request decides in a run that waits: which calls may run, what was answered.

A request may come twice, when the connection of its answer was lost. What it decided then is
settled in the log, and its segment begins before that; so it is told the same again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from flowtrio._core._events import AgentEvent, EventType
from flowtrio.serving.http._answers import Answer
from flowtrio.serving.http._segments import Waits
from flowtrio.wire._frames import (
    AnswerCommand,
    ApproveCommand,
    Control,
    DenyCommand,
    DismissCommand,
)

from ._input import Resume, Spoken, text_of
from ._interrupts import is_for_client, pending_calls, questions_of


class Unfit(Exception):
    """What was decided cannot be done; told as the end of the AG-UI run."""

    def __init__(self, code: str, error: str) -> None:
        super().__init__(error)
        self.code = code
        self.error = error


@attrs.define(eq=False)
class Scan(Answer):
    """What a log says of all that people were asked."""

    until: int | None
    """The last event that is read; None for DONE."""
    waits: Waits = attrs.field(factory=Waits, init=False)
    settled: dict[str, int] = attrs.field(factory=dict, init=False)
    """What does not wait any more, by call or request id: the first event that told so."""
    client_calls: dict[str, str] = attrs.field(factory=dict, init=False)
    """The requests for results of the front end's tools, by call id."""
    is_over: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.is_over = self.until == -1

    @property
    def interrupts(self) -> list[str]:
        """What people are asked, by call or request id."""
        return [*self.waits.approvals, *questions_of(self.waits)]

    def feed(self, batch: Sequence[AgentEvent]) -> bytes:
        """See `Answer`."""
        for event in batch:
            before = [*self.waits.approvals, *self.waits.questions]
            self.waits.feed(event)
            for key in before:
                if not self.waits.asks_for([key]):
                    self.settled.setdefault(key, event.seq)
            if event.type is EventType.INPUT_REQUIRED and is_for_client(event):
                self.client_calls[event.data["call_id"]] = event.data["request_id"]
            self.is_over = self.is_over or event.seq == self.until
        return b""


@attrs.frozen
class Decisions:
    """What a request decides in one run, by our call and request ids."""

    run_id: str
    resume: Mapping[str, Resume]
    results: Mapping[str, Spoken]

    @classmethod
    def of(cls, resume: Sequence[Resume], results: Mapping[str, Spoken]) -> Decisions | None:
        """Read them; None where nothing is decided in a run of ours, `Unfit` if in several."""
        named = [answer.interrupt_id for answer in resume] or list(results)[:1]
        runs = {key.partition(":")[0] for key in named}
        if len(runs) > 1:
            raise Unfit("bad_resume", "resume: has interrupts of several runs")
        for run_id in runs:
            if run_id:
                return cls(
                    run_id,
                    {a.interrupt_id.partition(":")[2]: a for a in resume},
                    {
                        key.partition(":")[2]: message
                        for key, message in results.items()
                        if key.startswith(f"{run_id}:")
                    },
                )
        return None

    def place_in(self, scan: Scan) -> int | None:
        """The event behind which the segment of what is settled of them begins; None for none."""
        found = [scan.settled[key] - 1 for key in self._keys(scan) if key in scan.settled]
        return min(found, default=None)

    def _keys(self, scan: Scan) -> Iterator[str]:
        yield from self.resume
        for call_id in self.results:
            if call_id in scan.client_calls:
                yield scan.client_calls[call_id]

    def check(self, scan: Scan) -> bool:
        """Whether something of it was asked.

        An interrupt that is left out is no fault: it may have come behind what the client was told
        last, and is told again at the next pause.

        Raises:
          Unfit: an interrupt is none of the run's.

        """
        asked = {*scan.settled, *scan.interrupts}
        unknown = [key for key in self.resume if key not in asked]
        if unknown:
            raise Unfit("unknown_interrupt", f"resume: the run has no interrupt {unknown[0]!r}")
        return bool(self.resume) or any(call_id in scan.client_calls for call_id in self.results)

    def commands(self, scan: Scan) -> dict[str, Control]:
        """What is to be done about what still waits, by our call and request ids.

        What can be refused comes first: a value that a question's schema does not allow, arguments
        that a tool does not take.

        Raises:
          Unfit: a payload is not what was asked for.

        """
        found: dict[str, Control] = {}
        for key, given in self.resume.items():
            if key in scan.waits.approvals:
                found[key] = self._decide(key, given)
            elif key in scan.waits.questions:
                found[key] = self._answer(scan.waits.questions[key], given)
        waiting = pending_calls(scan.waits)
        for call_id, message in self.results.items():
            if call_id in waiting:
                found[waiting[call_id]] = self._give(waiting[call_id], message)
        return dict(sorted(found.items(), key=lambda item: not _may_be_refused(item[1])))

    def _decide(self, call_id: str, given: Resume) -> Control:
        if given.status == "cancelled":
            reason: Any = "the user gave no answer"
            return DenyCommand(run_id=self.run_id, call_id=call_id, reason=reason)
        payload = given.payload
        if isinstance(payload, bool):
            payload = {"approved": payload}
        match payload:
            case {"approved": True, **more}:
                edited = more.get("editedArgs")
                if edited is None or isinstance(edited, dict):
                    return ApproveCommand(run_id=self.run_id, call_id=call_id, arguments=edited)
            case {"approved": False, **more}:
                reason = more.get("reason")
                if reason is None or isinstance(reason, str):
                    return DenyCommand(run_id=self.run_id, call_id=call_id, reason=reason)
        expected = "{approved: true or false, reason?: a text, editedArgs?: an object}"
        raise Unfit("bad_resume", f"resume: payload: expected {expected}")

    def _answer(self, question: AgentEvent, given: Resume) -> Control:
        request_id = question.data["request_id"]
        if given.status == "cancelled":
            return DismissCommand(run_id=self.run_id, request_id=request_id)
        payload = given.payload
        text = payload["text"] if isinstance(payload, dict) and "text" in payload else payload
        if question.data["schema"] is None and not isinstance(text, str):
            raise Unfit("bad_resume", "resume: payload: expected {text: a text}")
        return AnswerCommand(run_id=self.run_id, request_id=request_id, text=text)

    def _give(self, request_id: str, message: Spoken) -> Control:
        if message.error is not None:
            reason = message.error
            return DismissCommand(run_id=self.run_id, request_id=request_id, reason=reason)
        return AnswerCommand(run_id=self.run_id, request_id=request_id, text=text_of(message))


def _may_be_refused(command: Control) -> bool:
    return isinstance(command, AnswerCommand) or getattr(command, "arguments", None) is not None


def pending(run_id: str, keys: Sequence[str]) -> Unfit:
    """What waits has to be answered first."""
    names = ", ".join(f"{run_id}:{key}" for key in keys)
    return Unfit("interrupts_pending", f"expected resume to answer all interrupts: {names}")
