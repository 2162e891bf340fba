"""What a run's log says of its conversation, for a run whose process is gone.

A run that ends keeps its conversation by itself. One that was cut off did not come to it, but its
log has nearly all: the user's message, what the root agent said, its calls and their results. They
are put into a `Transcript` as the run itself would have done, so the same rules hold: partial text
is kept and marked, and every call has a result.

What no event carries is lost: the providers' own ids and their private parts, the images and files
that tools gave or that the user sent while the run went on, a call of which no event told its
message (it never started, and its arguments were not shown), and what was asked of an `Agent` that
the body called. What such agents said at the same time stands in the order in which
it was said, not one after the other. A call that waits for a person, or was denied, does not tell
who made it: right behind a reply that asks for calls it is taken for one of that reply's.

Logs of the first schema do not tell an agent's own words from a tool's either: there, what was said
while a call of a reply was running is taken for the tool's, anything else for the agent's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
import msgspec

from ._chunks import ToolCall
from ._events import ROOT, AgentEvent, AgentStatus, EventType
from ._parts import UserMessage
from ._transcript import Reply, Transcript

_T = EventType

_OF_MESSAGES: Final = frozenset(
    {
        *(_T.MESSAGE_CHUNK, _T.REASONING_CHUNK, _T.MESSAGE_PART, _T.MESSAGE_RESET),
        *(_T.TOOL_CALL_ARGS, _T.MESSAGE_COMPLETE),
    }
)
"""Events that a message consists of."""
_KEPT: Final = _OF_MESSAGES | {
    *(_T.APPROVAL_REQUIRED, _T.TOOL_CALL_START, _T.TOOL_CALL_END, _T.USER_MESSAGE, _T.DONE)
}
_CHUNKS: Final = frozenset({_T.MESSAGE_CHUNK, _T.REASONING_CHUNK})


@attrs.define(eq=False)
class _Call:
    """A call as its events tell of it."""

    name: str
    message_id: str
    """The reply that made it."""
    written: list[str] = attrs.Factory(list)
    arguments: dict[str, Any] | None = None

    def to_tool_call(self) -> ToolCall:
        arguments = self.arguments
        if arguments is None:
            arguments = _parse("".join(self.written))
        return ToolCall(id="", name=self.name, arguments=arguments)


class Said:
    """Walks a whole log, and gives the run's part of its conversation."""

    def __init__(self, parts: Sequence[dict[str, Any]] = ()) -> None:
        """Begin.

        Args:
          parts: The content of the user's message, where that is more than the text in the log.

        """
        self._parts = list(parts)
        self._start: AgentEvent | None = None
        self._events: list[AgentEvent] = []
        self._begun: set[str] = set()

    def add(self, event: AgentEvent) -> None:
        """Take the log's next event, from RUN_START on."""
        if event.type is _T.RUN_START:
            self._start = event
        if event.agent != ROOT or event.type not in _KEPT:
            return
        if event.type in _CHUNKS:
            # Their text is in MESSAGE_COMPLETE too: the first one tells when the message began.
            if event.data["message_id"] in self._begun:
                return
            self._begun.add(event.data["message_id"])
        self._events.append(event)

    def messages(self) -> list[dict[str, Any]]:
        """The user's message, and what followed; without what was said before."""
        assert self._start is not None
        start = self._start
        transcript = Transcript((), self._message_of(start.data), start.run_id)
        calls = self._calls()
        replies: dict[str, Reply] = {}
        inside: set[str] = set()
        running: set[str] = set()
        for event in self._events:
            data = event.data
            if event.type in _OF_MESSAGES:
                if (message_id := data["message_id"]) not in replies:
                    replies[message_id] = Reply(message_id)
                    if running:
                        inside.add(message_id)
                reply = replies[message_id]
                _note_reply(reply, event)
                if event.type is _T.MESSAGE_COMPLETE:
                    # The key is None for an agent's own words; the first schema has no such key.
                    if data.get("parent_call_id", message_id in inside or None) is None:
                        transcript.expect(reply)
                    reply.calls = [(id, calls[id].to_tool_call()) for id in _of(calls, message_id)]
                    transcript.note_message(data)
            elif event.type is _T.TOOL_CALL_END:
                running.discard(data["call_id"])
                transcript.note_result(data)
            elif event.type is _T.USER_MESSAGE:
                transcript.hear(UserMessage(data["message"], data["message"]))
            elif event.type is _T.DONE:
                if data["status"] == AgentStatus.COMPLETED:
                    transcript.answer(data["result"])
            elif event.type is _T.TOOL_CALL_START and data["call_id"] in calls:
                running.add(data["call_id"])
        return transcript.messages()

    def _message_of(self, data: dict[str, Any]) -> UserMessage:
        text = data["message"]
        return UserMessage(text, self._parts or text, tuple(data.get("parts") or ()))

    def _calls(self) -> dict[str, _Call]:
        """The calls that the agent's replies made: by our id, in order."""
        calls: dict[str, _Call] = {}
        asking: str | None = None
        for event in self._events:
            data = event.data
            match event.type:
                case _T.TOOL_CALL_ARGS:
                    call = _Call(data["tool_name"], data["message_id"])
                    calls.setdefault(data["call_id"], call).written.append(data["delta"])
                case _T.MESSAGE_RESET:
                    for call_id in _of(calls, data["message_id"]):
                        del calls[call_id]
                case _T.MESSAGE_COMPLETE:
                    is_asking = data["finish_reason"] == "tool_calls"
                    asking = data["message_id"] if is_asking else None
                case _T.TOOL_CALL_START if data["message_id"] is None or data["provider_executed"]:
                    # The agent's own doing, or the provider's: no part of what the model said.
                    calls.pop(data["call_id"], None)
                case _T.APPROVAL_REQUIRED | _T.TOOL_CALL_START:
                    # An approval does not say whose call it is: then it is the last reply's.
                    message_id = data.get("message_id") or asking
                    if message_id is not None:
                        call = calls.setdefault(
                            data["call_id"], _Call(data["tool_name"], message_id)
                        )
                        call.arguments = data["arguments"]
                case _:
                    pass
        return calls


def _note_reply(reply: Reply, event: AgentEvent) -> None:
    data = event.data
    if event.type is _T.MESSAGE_RESET:
        reply.refusal = ""
    elif event.type is _T.MESSAGE_PART and data["part"].get("type") == "refusal":
        reply.refusal += data["part"].get("text") or ""


def _of(calls: dict[str, _Call], message_id: str) -> list[str]:
    """The ids of a message's calls, in the order in which the model made them."""
    ids = [id for id, call in calls.items() if call.message_id == message_id]
    return sorted(ids, key=lambda id: (len(id), id))


def _parse(text: str) -> dict[str, Any] | None:
    try:
        arguments = msgspec.json.decode(text)
    except ValueError:
        return None
    return arguments if isinstance(arguments, dict) else None
