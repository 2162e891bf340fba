"""A run's log as the AI SDK's UI message stream, version 1.

An answer is one assistant message of theirs. It ends where the run waits for people, since a page
decides nothing while it is streaming; and goes on, under the same id, in the answer to the request
that brings what they decided. What the user writes as the answer to a question stands between two
messages, so there another one begins, which is to know all calls that are open.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec

from flowtrio._core._events import ROOT, AgentEvent, EventType
from flowtrio.serving.http._segments import Waits

from ._calls import Calls, UIChunk
from ._parts import Piece, told_part
from ._steps import Steps

_T: Final = EventType
_REASONS: Final = {
    None: "stop",
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
}


def metadata(**told: Any) -> dict[str, Any]:
    """What a message tells of its run, beside its parts."""
    return {"messageMetadata": {"flowtrio": told}}


@attrs.define(eq=False)
class UIMessageMapper:
    """A run's log, in the words of one assistant message. See `Mapper`."""

    run_id: str
    begin: int = -1
    """The event behind which the message begins, by its number; -1 for the run's first."""
    is_raw: bool = False
    """Whether each event is told as it is too, in a part that no message keeps."""
    _opening: dict[str, Any] = attrs.field(factory=dict, init=False)
    """What the message tells of its run from the beginning."""
    _seq: int = attrs.field(default=-1, init=False)
    _has_begun: bool = attrs.field(
        default=attrs.Factory(lambda self: self.begin < 0, takes_self=True), init=False
    )
    _calls: Calls = attrs.field(
        default=attrs.Factory(lambda self: Calls(self.run_id), takes_self=True), init=False
    )
    _steps: Steps = attrs.field(
        default=attrs.Factory(lambda self: Steps(self._calls), takes_self=True), init=False
    )
    _pieces: dict[str, Piece] = attrs.field(factory=dict, init=False)
    """What is being said, by the message of the model's."""
    _agents: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False)
    """What is told of nested agents, by their paths."""
    _questions: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False)
    """What is told of open questions, by their ids."""
    _has_spoken: bool = attrs.field(default=False, init=False)
    _finish_reason: str | None = attrs.field(default=None, init=False)
    _error: dict[str, Any] = attrs.field(factory=dict, init=False)

    @property
    def message_id(self) -> str:
        """The message's id in its conversation."""
        return self.run_id if self.begin < 0 else f"{self.run_id}:{self.begin}"

    # The mapper

    def feed(self, event: AgentEvent) -> list[UIChunk]:
        """See `Mapper`."""
        self._seq = event.seq
        told = [] if self._has_begun or event.seq <= self.begin else self._begin_message()
        if self.is_raw:
            raw = msgspec.to_builtins(event)
            told.append({"type": "data-flowtrio", "data": raw, "transient": True})
        told += self._tell(event)
        return told if self._has_begun else []

    def resume(self) -> list[UIChunk]:
        """See `Mapper`: what the page knows of the last wait is over."""
        return [self._start(seq=None, waitingFor=None)] if self._has_begun else []

    def pause(self, waits: Waits) -> list[UIChunk]:
        """See `Mapper`."""
        waiting = [
            *({"type": "approval", "id": self._calls.id_of(call)} for call in waits.approvals),
            *(self._waiting(event.data) for event in waits.questions.values()),
        ]
        is_said = all(one["type"] == "question" for one in waiting)
        told = metadata(seq=self._seq, waitingFor=waiting)
        finish = {"type": "finish", "finishReason": "tool-calls", **told}
        return [*(self._steps.leave() if is_said else self._steps.end()), finish]

    def fail(self, code: str, error: str) -> list[UIChunk]:
        """See `Mapper`."""
        return [
            {"type": "message-metadata", **metadata(code=code)},
            {"type": "error", "errorText": error},
            {"type": "finish", "finishReason": "error"},
        ]

    def _waiting(self, question: dict[str, Any]) -> dict[str, Any]:
        call_id = question["call_id"]
        if self._calls.is_elsewhere(call_id):
            return {"type": "tool", "id": self._calls.id_of(call_id)}
        return {"type": "question", "id": self._id(question["request_id"])}

    def _id(self, own: str) -> str:
        return f"{self.run_id}:{own}"

    def _start(self, **told: Any) -> UIChunk:
        return {"type": "start", "messageId": self.message_id, **metadata(**self._opening, **told)}

    def _begin_message(self) -> list[UIChunk]:
        """Another message than the one before: it has nothing of what that one has."""
        self._has_begun = True
        self._pieces.clear()
        return [self._start(), *self._steps.begin_anew(), *self._calls.announce()]

    def _data(self, name: str, id: str | None, data: Any) -> list[UIChunk]:
        """A part that is the same as an earlier one of its id."""
        told = {"type": f"data-{name}", **({} if id is None else {"id": id}), "data": data}
        return [*self._steps.enter(None), told]

    def _tell(self, event: AgentEvent) -> list[UIChunk]:
        data = event.data
        if event.type is _T.ERROR:
            self._error = data
        match event.type:
            case _T.RUN_START:
                told = {"runId": self.run_id, "sessionId": data["session_id"]}
                self._opening = {**told, "agent": data["agent"]}
                return [self._start()]
            case _T.MESSAGE_CHUNK | _T.REASONING_CHUNK | _T.MESSAGE_PART | _T.MESSAGE_RESET:
                if event.agent != ROOT:
                    return self._tell_nested(event)
                return self._tell_message(event)
            case _T.MESSAGE_COMPLETE:
                return self._complete(event)
            case (
                _T.TOOL_CALL_ARGS
                | _T.TOOL_CALL_START
                | _T.APPROVAL_REQUIRED
                | _T.TOOL_CALL_END
                | _T.TOOL_PROGRESS
            ):
                return self._tell_call(event)
            case _T.AGENT_START | _T.AGENT_END:
                return self._tell_agent(event)
            case _T.INPUT_REQUIRED | _T.INPUT_RESOLVED:
                return self._tell_question(event)
            case _T.STATE_CHANGE:
                told = {"status": data["new_status"], "reason": data["reason"]}
                return [{"type": "data-status", "data": told, "transient": True}]
            case _T.USER_MESSAGE:
                told = {"text": data["message"], "parts": data["parts"]}
                return self._data("user-message", self._id(str(event.seq)), told)
            case _T.CUSTOM:
                return self._data(data["name"], None, data["value"])
            case _T.DONE:
                return self._end(event)
            case _:
                # An ERROR is told with DONE; of what else there may be a page has no word.
                return []

    # What the agent says

    def _tell_message(self, event: AgentEvent) -> list[UIChunk]:
        data, message_id = event.data, event.data["message_id"]
        match event.type:
            case _T.MESSAGE_CHUNK:
                return self._say(event, "text", data["chunk"])
            case _T.REASONING_CHUNK:
                return self._say(event, "reasoning", data["chunk"])
            case _T.MESSAGE_RESET:
                return self._reset(message_id, data["reason"])
            case _ if data["part"].get("type") == "refusal":
                return self._say(event, "refusal", str(data["part"].get("text") or ""))
            case _:
                told = told_part(data["part"], self._id(str(event.seq)))
                return [*self._steps.enter(message_id), told]

    def _say(self, event: AgentEvent, kind: str, text: str) -> list[UIChunk]:
        message_id = event.data["message_id"]
        told, piece = self._steps.enter(message_id), self._pieces.get(message_id)
        if piece is None or piece.kind != kind:
            if piece is not None:
                told.append(piece.end())
            piece = Piece(self._id(f"{message_id}:{event.seq}"), kind)
            self._pieces[message_id] = piece
            told.append(piece.begin())
        return [*told, piece.say(text)]

    def _reset(self, message_id: str, reason: str) -> list[UIChunk]:
        """Take a message of the model's back: its step, or what can be had of it."""
        if not self._steps.knows(message_id):
            return []
        piece = self._pieces.pop(message_id, None)
        if self._steps.holds_only(message_id):
            return [{"type": "reset-step"}]
        ended = [] if piece is None else [piece.retract()]
        told = {"messageId": self._id(message_id), "reason": reason}
        return [*ended, *self._data("reset", None, told)]

    def _complete(self, event: AgentEvent) -> list[UIChunk]:
        data = event.data
        if event.agent != ROOT:
            said = self._agents[event.agent]
            said["text"] = "\n\n".join(filter(None, [said["text"], data["content"]]))
            return self._data("agent", self._id(event.agent), dict(said))
        self._has_spoken = self._has_spoken or bool(data["content"])
        self._finish_reason = data["finish_reason"]
        piece = self._pieces.pop(data["message_id"], None)
        return [] if piece is None else [piece.end()]

    # Calls, nested agents, questions

    def _tell_call(self, event: AgentEvent) -> list[UIChunk]:
        data, calls = event.data, self._calls
        call_id = data["call_id"]
        if event.type is _T.TOOL_PROGRESS:
            id = calls.id_of(call_id)
            return self._data("tool-progress", id, {"toolCallId": id, "progress": data["progress"]})
        before: list[UIChunk] = []
        if not calls.knows(call_id):
            owner = data.get("message_id") if event.agent == ROOT else None
            before = self._steps.enter_call(owner, call_id)
        match event.type:
            case _T.TOOL_CALL_ARGS:
                return before + calls.write(event)
            case _T.APPROVAL_REQUIRED:
                return before + calls.ask(event)
            case _T.TOOL_CALL_START:
                return before + calls.start(event)
            case _:
                return before + calls.end(event)

    def _tell_nested(self, event: AgentEvent) -> list[UIChunk]:
        """What a nested agent says, while it says it; `_complete` tells its text as a whole."""
        data = event.data
        told: dict[str, Any] = {"agent": event.agent, "messageId": self._id(data["message_id"])}
        match event.type:
            case _T.MESSAGE_CHUNK:
                told.update(kind="text", delta=data["chunk"])
            case _T.REASONING_CHUNK:
                told.update(kind="reasoning", delta=data["chunk"])
            case _T.MESSAGE_PART:
                told.update(kind="part", part=data["part"])
            case _:
                told.update(kind="reset", reason=data["reason"])
        return [{"type": "data-agent-delta", "data": told, "transient": True}]

    def _tell_agent(self, event: AgentEvent) -> list[UIChunk]:
        data, path = event.data, event.data["agent"]
        call_id = data["call_id"]
        if event.type is _T.AGENT_START:
            call = None if call_id is None else self._calls.id_of(call_id)
            self._agents[path] = {"agent": path, "toolCallId": call, "state": "running", "text": ""}
        else:
            ended = {"state": data["outcome"], "result": data["result"], "error": data["error"]}
            self._agents[path].update(ended)
        return self._data("agent", self._id(path), dict(self._agents[path]))

    def _tell_question(self, event: AgentEvent) -> list[UIChunk]:
        data, id = event.data, self._id(event.data["request_id"])
        if event.type is _T.INPUT_REQUIRED:
            if self._calls.expect(event):
                return []
            call_id = data["call_id"]
            asked = {"prompt": data["prompt"], "schema": data["schema"]}
            call = None if call_id is None else self._calls.id_of(call_id)
            self._questions[id] = {**asked, "toolCallId": call}
            return self._data("question", id, {**self._questions[id], "state": "open"})
        if id not in self._questions:
            return []
        told = {**self._questions.pop(id), "state": data["outcome"], "text": data["text"]}
        return self._data("question", id, told)

    # The end

    def _end(self, event: AgentEvent) -> list[UIChunk]:
        data = event.data
        keys = ("status", "reason", "result", "usage", "duration")
        told = metadata(seq=event.seq, waitingFor=None, **{key: data[key] for key in keys})
        ended = [*self._say_result(data), *self._steps.leave()]
        match data["status"]:
            case "completed":
                reason = _REASONS.get(self._finish_reason, "other")
                return [*ended, {"type": "finish", "finishReason": reason, **told}]
            case "cancelled":
                words = {"reason": data["reason"]} if data["reason"] else {}
                return [*ended, {"type": "message-metadata", **told}, {"type": "abort", **words}]
            case _:
                error = {"type": "error", "errorText": self._error["error"]}
                failed = {"type": "finish", "finishReason": "error"}
                return [*ended, {"type": "message-metadata", **told}, error, failed]

    def _say_result(self, data: dict[str, Any]) -> list[UIChunk]:
        """What the agent returned, where it has said nothing."""
        result = data["result"]
        if self._has_spoken or result in (None, ""):
            return []
        text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
        piece = Piece(self._id("result"), "text")
        return [*self._steps.enter("result"), piece.begin(), piece.say(text), piece.end()]
