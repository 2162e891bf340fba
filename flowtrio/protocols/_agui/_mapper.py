"""A run's log in the events of AG-UI 1.0.

Nothing may be open when an AG-UI run ends: no text, no arguments, no reasoning, no step and no
subagent, which is what a nested agent is here. So the mapper remembers what is open, closes it at
a pause and opens it again in the next segment, under the same ids. These are ours, behind the
run's, since they have to be unique in a conversation.

The last event tells whether the run failed and what it cost, so an ERROR waits for its DONE.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs
import msgspec

from flowtrio._core._events import ROOT, AgentEvent, AgentStatus, EventType
from flowtrio.serving.http._segments import Waits

from ._held import HeldMessages, Told, content_of
from ._interrupts import interrupts_of, is_for_client, pending_calls
from ._patch import is_patch
from ._said import Ids, Saying, custom, ours

VERSION: Final = "1.0"


@attrs.frozen(kw_only=True)
class Recipient:
    """Who a run is told to: one request of a client."""

    thread_id: str
    run_id: str
    """The client's own id for what it asks; a run of ours may have several, one a segment."""
    messages: list[Told]
    """What it holds of the conversation."""
    is_old: bool = False
    """Whether it is older than 1.0, and takes a run that was cancelled for a success."""


@attrs.define(eq=False)
class AGUIMapper:
    """See `Mapper`."""

    run_id: str
    """Our id."""
    reader: Recipient
    raw: bool = False
    """Whether each event of the log stands beside what it is told as."""
    _ids: Ids = attrs.field(init=False)
    _saying: Saying = attrs.field(init=False)
    _held: HeldMessages = attrs.field(init=False)
    _theirs: list[Told] = attrs.field(init=False)
    """What the client holds of this run."""
    _agents: dict[str, Told] = attrs.field(factory=dict, init=False)
    """How each subagent that runs was told, by its path."""
    _steps: dict[str, str] = attrs.field(factory=dict, init=False)
    """The step that is open, by the agent's path."""
    _last: str | None = attrs.field(default=None, init=False)
    """The root's last message."""
    _error: dict[str, Any] | None = attrs.field(default=None, init=False)
    _time: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._ids = Ids(self.run_id)
        self._theirs = []
        given: list[Told] = []
        for message in self.reader.messages:
            is_ours = message["id"].startswith(self._ids.of(""))
            (self._theirs if is_ours else given).append(message)
        results = (m.get("toolCallId", "") for m in given if m["role"] == "tool")
        self._saying = Saying(self._ids, frozenset(results))
        self._held = HeldMessages(given)

    def feed(self, event: AgentEvent) -> list[Told]:
        """See `Mapper`."""
        self._time = int(event.timestamp * 1000)
        told = self._stamp(self._tell(event))
        if self.raw:
            given = msgspec.to_builtins(event)
            if told:
                told[0]["rawEvent"] = given
            else:
                told = self._stamp([{"type": "RAW", "event": given, "source": "flowtrio"}])
        return told

    def resume(self) -> list[Told]:
        """See `Mapper`: what was open is opened again."""
        return self._stamp(self._reopen())

    def pause(self, waits: Waits) -> list[Told]:
        """See `Mapper`: what is open is closed, and the run ends with what is waited for."""
        return self._stamp(self._interrupt(waits))

    def fail(self, code: str, error: str) -> list[Told]:
        """See `Mapper`."""
        return self._stamp([{"type": "RUN_ERROR", "message": error, "code": code}])

    def _stamp(self, told: Iterable[Told]) -> list[Told]:
        stamped = []
        for event in told:
            event["timestamp"] = self._time
            self._held.apply(event)
            stamped.append(event)
        return stamped

    def _tell(self, event: AgentEvent) -> Iterator[Told]:
        data, tag, saying = event.data, self._ids.tag(event.agent), self._saying
        if event.type is EventType.ERROR:
            self._error = data
        match event.type:
            case EventType.RUN_START:
                yield from self._begin()
            case EventType.MESSAGE_CHUNK:
                yield from saying.say(data["message_id"], data["chunk"], tag)
            case EventType.REASONING_CHUNK:
                yield from saying.reason(data["message_id"], data["chunk"], tag)
            case EventType.MESSAGE_PART:
                yield from self._part(data, tag)
            case EventType.TOOL_CALL_ARGS:
                yield from saying.write(data, tag)
            case EventType.MESSAGE_COMPLETE:
                self._note_said(event)
                yield from saying.complete(data, tag)
            case EventType.MESSAGE_RESET:
                yield from self._retract(data, tag)
            case EventType.TOOL_CALL_START:
                yield from saying.announce(data, tag)
            case EventType.APPROVAL_REQUIRED:
                yield from saying.announce(data, tag)
                yield custom("approval_required", self._shown(data, "call_id"), tag)
            case EventType.TOOL_PROGRESS:
                yield saying.progress(data, tag)
            case EventType.TOOL_CALL_END:
                yield from saying.end_call(data, tag)
            case EventType.AGENT_START:
                yield self._begin_agent(event.agent, data)
            case EventType.AGENT_END:
                yield from self._end_agent(event.agent, data)
            case EventType.STATE_CHANGE:
                yield from self._step(event)
            case EventType.INPUT_REQUIRED:
                if not is_for_client(event):
                    yield custom("input_required", self._shown(data, "request_id"), tag)
            case EventType.INPUT_RESOLVED:
                yield custom("input_resolved", self._shown(data, "request_id"), tag)
            case EventType.USER_MESSAGE:
                yield from saying.text(f"u{event.seq}", data["message"], "user")
            case EventType.CUSTOM:
                yield _own(data["name"], data["value"], tag)
            case EventType.DONE:
                yield from self._finish(data)
            case _:
                # An ERROR is told with DONE; of what else there may be AG-UI has no word.
                pass

    # Beginning

    def _begin(self) -> Iterator[Told]:
        yield {
            "type": "RUN_STARTED",
            "threadId": self.reader.thread_id,
            "runId": self.reader.run_id,
            "protocolVersion": VERSION,
            "metadata": ours({"runId": self.run_id}),
        }
        yield from self._correct()

    def _correct(self) -> Iterator[Told]:
        """Set right what the client holds of this run, where it had lost its connection.

        Reasoning is taken back by sending it empty: a client keeps what it is not sent.
        """
        known = {m["id"]: content_of(m) for m in self._held.said()}
        if known != {m["id"]: content_of(m) for m in self._theirs}:
            # With the rest of what it is: whose it is may not change.
            emptied = [
                {**m, "content": ""}
                for m in self._theirs
                if m["role"] == "reasoning" and m["id"] not in known
            ]
            yield {"type": "MESSAGES_SNAPSHOT", "messages": [*self._held.all(), *emptied]}

    def _reopen(self) -> Iterator[Told]:
        yield from self._begin()
        yield from map(dict, self._agents.values())
        for path, step in self._steps.items():
            yield {"type": "STEP_STARTED", "stepName": step, **self._ids.tag(path)}
        yield from self._saying.reopen()

    # What is said

    def _part(self, data: dict[str, Any], tag: Told) -> Iterator[Told]:
        part = data["part"]
        if part.get("type") == "refusal" and isinstance(part.get("text"), str):
            yield from self._saying.say(data["message_id"], part["text"], tag)
        else:
            yield custom("message_part", self._shown(data, "message_id"), tag)

    def _note_said(self, event: AgentEvent) -> None:
        if event.agent == ROOT and event.data["parent_call_id"] is None and event.data["content"]:
            self._last = event.data["content"]

    def _retract(self, data: dict[str, Any], tag: Told) -> Iterator[Told]:
        message_id = data["message_id"]
        reasonings = yield from self._saying.retract(message_id, tag)
        self._held.retract(self._ids.of(message_id), reasonings)
        yield {"type": "MESSAGES_SNAPSHOT", "messages": self._held.all()}
        yield custom("message_reset", self._shown(data, "message_id"), tag)

    def _shown(self, data: dict[str, Any], key: str) -> Told:
        """An event's data, with the id that it is known by here."""
        return {**data, key: self._ids.of(data[key])}

    # Agents and steps

    def _begin_agent(self, path: str, data: dict[str, Any]) -> Told:
        outer, _, name = path.rpartition("/")
        told = {"type": "SUBAGENT_STARTED", **self._ids.tag(path), "name": name.partition("#")[0]}
        if outer != ROOT:
            told["parentSubagentRunId"] = self._ids.of(outer)
        if data["call_id"] is not None:
            told["parentToolCallId"] = self._ids.of(data["call_id"])
        self._agents[path] = told
        return dict(told)

    def _end_agent(self, path: str, data: dict[str, Any]) -> Iterator[Told]:
        yield from self._end_step(path)
        del self._agents[path]
        tag, outcome = self._ids.tag(path), data["outcome"]
        if outcome == "ok":
            result = {} if data["result"] is None else {"result": data["result"]}
            yield {"type": "SUBAGENT_FINISHED", **tag, **result, "outcome": {"type": "success"}}
        else:
            message = data["error"] or f"the agent ended: {outcome}"
            yield {"type": "SUBAGENT_ERROR", **tag, "message": message, "code": outcome}

    def _step(self, event: AgentEvent) -> Iterator[Told]:
        name, path = event.data["reason"], event.agent
        if name is not None and event.data["new_status"] == AgentStatus.RUNNING:
            yield from self._end_step(path)
            self._steps[path] = name
            yield {"type": "STEP_STARTED", "stepName": name, **self._ids.tag(path)}

    def _end_step(self, path: str) -> Iterator[Told]:
        name = self._steps.pop(path, None)
        if name is not None:
            yield {"type": "STEP_FINISHED", "stepName": name, **self._ids.tag(path)}

    def _end_steps(self) -> Iterator[Told]:
        for path in list(self._steps):
            yield from self._end_step(path)

    # Ends

    def _interrupt(self, waits: Waits) -> Iterator[Told]:
        yield from self._saying.close()
        yield from self._end_steps()
        in_order = self._saying.in_order
        interrupts = interrupts_of(waits, self._ids, in_order(waits.approvals))
        for path in reversed(self._agents):
            tag = self._ids.tag(path)
            inside = [i["id"] for i in interrupts if tag.items() <= i.items()]
            outcome = {"type": "suspended", "interruptIds": inside}
            yield {"type": "SUBAGENT_FINISHED", **tag, "outcome": outcome}
        if interrupts:
            yield self._end({"type": "interrupt", "interrupts": interrupts})
        else:
            pending = [self._ids.of(call_id) for call_id in in_order(pending_calls(waits))]
            yield self._end({"type": "success", "pendingToolCallIds": pending})

    def _finish(self, data: dict[str, Any]) -> Iterator[Told]:
        usage = _usage(data["usage"])
        if self._error is not None:
            code = {"message": self._error["error"], "code": self._error["code"]}
            yield {"type": "RUN_ERROR", **code, **usage}
            return
        yield from self._end_steps()
        is_done = data["status"] == AgentStatus.COMPLETED
        if is_done:
            yield from self._answer(data["result"])
        elif self.reader.is_old:
            message = data["reason"] or "the run was cancelled"
            yield {"type": "RUN_ERROR", "message": message, "code": "cancelled", **usage}
            return
        result = {"result": data["result"]} if is_done and data["result"] is not None else {}
        shown = {key: data[key] for key in ("reason", "duration", "leftover")}
        outcome = {"type": "success" if is_done else "cancelled"}
        yield {**self._end(outcome), **result, **usage, "metadata": ours(shown)}

    def _answer(self, result: Any) -> Iterator[Told]:
        """Say the result as the conversation has it, unless the root's messages have said it."""
        if isinstance(result, str):
            text = "" if result == self._last else result
        else:
            is_said = result is None or self._last is not None
            text = "" if is_said else msgspec.json.encode(result).decode()
        if text:
            yield from self._saying.text("result", text, "assistant")

    def _end(self, outcome: Told) -> Told:
        reader = self.reader
        of = {"threadId": reader.thread_id, "runId": reader.run_id}
        return {"type": "RUN_FINISHED", **of, "outcome": outcome}


def _own(name: str, value: Any, tag: Told) -> Told:
    """An event of the application's own; some names are for the client's state."""
    if name == "agui.state_snapshot":
        return {"type": "STATE_SNAPSHOT", "snapshot": value, **tag}
    if name == "agui.state_delta" and is_patch(value):
        return {"type": "STATE_DELTA", "delta": value, **tag}
    return {"type": "CUSTOM", "name": name, "value": value, **tag}


def _usage(usage: dict[str, Any]) -> Told:
    asked, answered = usage["prompt_tokens"], usage["completion_tokens"]
    return {
        "usage": [
            {
                "inputTokens": asked,
                "outputTokens": answered,
                "totalTokens": asked + answered,
                "reasoningTokens": usage["reasoning_tokens"],
                "cachedInputTokens": usage["cached_tokens"],
            }
        ]
    }
