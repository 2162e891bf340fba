"""What is said and called in a run, in the events of AG-UI: messages, reasoning, calls.

A message's calls are written while it is, and their arguments are whole when it is complete. A
call's result comes whenever it comes, as a message of its own.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Iterator
from typing import Any

import attrs
import msgspec

from flowtrio._core._events import ROOT
from flowtrio._core._transcript import result_text

from ._held import Told


@attrs.frozen
class Ids:
    """Our ids, as they are unique in a conversation."""

    run_id: str

    def of(self, ours: str) -> str:
        """The id of something in the run."""
        return f"{self.run_id}:{ours}"

    def tag(self, path: str) -> Told:
        """Whose an event is: nothing for the root, else its invocation."""
        return {} if path == ROOT else {"subagentRunId": self.of(path)}


def ours(value: Told) -> Told:
    """What no field of AG-UI tells."""
    return {"flowtrio": value}


def custom(name: str, value: Any, tag: Told) -> Told:
    """An event of flowtrio's own."""
    return {"type": "CUSTOM", "name": f"flowtrio.{name}", "value": value, **tag}


@attrs.define(eq=False)
class _Message:
    """A message that is open."""

    tag: Told
    is_text_open: bool = False
    reasoning: str | None = None
    """The reasoning that is open, by id."""
    reasonings: list[str] = attrs.field(factory=list)
    """All of it."""
    calls: list[str] = attrs.field(factory=list)
    """Its calls whose arguments are open."""


@attrs.define(eq=False)
class _Call:
    """A call that was told and has not ended."""

    tag: Told
    name: str
    message_id: str | None


@attrs.define(eq=False)
class Saying:
    """The messages and calls of one run."""

    ids: Ids
    answered: frozenset[str]
    """Calls whose results the client gave, by its id: it has them."""
    _messages: dict[str, _Message] = attrs.field(factory=dict, init=False)
    _calls: dict[str, _Call] = attrs.field(factory=dict, init=False)

    # Messages

    def say(self, message_id: str, text: str, tag: Told) -> Iterator[Told]:
        """A piece of a text."""
        message = self._open(message_id, tag)
        yield from self._end_reasoning(message)
        if not message.is_text_open:
            message.is_text_open = True
            yield self._start_text(message_id, message.tag)
        of = self._of(message_id)
        yield {"type": "TEXT_MESSAGE_CONTENT", **of, "delta": text, **message.tag}

    def text(self, message_id: str, text: str, role: str) -> Iterator[Told]:
        """A whole text, of the root's or the user's."""
        of = self._of(message_id)
        yield self._start_text(message_id, {}, role)
        yield {"type": "TEXT_MESSAGE_CONTENT", **of, "delta": text}
        yield {"type": "TEXT_MESSAGE_END", **of}

    def reason(self, message_id: str, text: str, tag: Told) -> Iterator[Told]:
        """A piece of reasoning; what comes after other content is another one."""
        message = self._open(message_id, tag)
        if message.reasoning is None:
            message.reasoning = self.ids.of(f"{message_id}:r{len(message.reasonings) + 1}")
            message.reasonings.append(message.reasoning)
            yield from self._start_reasoning(message)
        of = {"messageId": message.reasoning, **message.tag}
        yield {"type": "REASONING_MESSAGE_CONTENT", "delta": text, **of}

    def complete(self, data: dict[str, Any], tag: Told) -> Iterator[Told]:
        """A message is whole, and what is written of its calls with it."""
        message_id = data["message_id"]
        message = self._messages.pop(message_id, _Message(tag))
        shown = {
            "finishReason": data["finish_reason"],
            "usage": data["usage"],
            "model": data["model"],
        }
        yield from self._close(message_id, message, metadata=ours(shown))

    def retract(self, message_id: str, tag: Told) -> Generator[Told, None, list[str]]:
        """Close what is taken back; its calls have ended.

        Gives the ids of its reasoning, which goes on to be counted.
        """
        message = self._open(message_id, tag)
        yield from self._close(message_id, message)
        return message.reasonings

    def _open(self, message_id: str, tag: Told) -> _Message:
        if message_id not in self._messages:
            self._messages[message_id] = _Message(tag)
        return self._messages[message_id]

    def _of(self, message_id: str) -> Told:
        return {"messageId": self.ids.of(message_id)}

    def _start_text(self, message_id: str, tag: Told, role: str = "assistant") -> Told:
        return {"type": "TEXT_MESSAGE_START", **self._of(message_id), "role": role, **tag}

    def _start_reasoning(self, message: _Message) -> Iterator[Told]:
        of = {"messageId": message.reasoning, **message.tag}
        yield {"type": "REASONING_START", **of}
        yield {"type": "REASONING_MESSAGE_START", "role": "reasoning", **of}

    def _end_reasoning(self, message: _Message) -> Iterator[Told]:
        if message.reasoning is not None:
            of = {"messageId": message.reasoning, **message.tag}
            message.reasoning = None
            yield {"type": "REASONING_MESSAGE_END", **of}
            yield {"type": "REASONING_END", **of}

    def _close(self, message_id: str, message: _Message, **more: Any) -> Iterator[Told]:
        yield from self._end_reasoning(message)
        for call_id in list(message.calls):
            yield self._end_arguments(call_id, message)
        if message.is_text_open:
            message.is_text_open = False
            yield {"type": "TEXT_MESSAGE_END", **self._of(message_id), **message.tag, **more}

    # Calls

    def write(self, data: dict[str, Any], tag: Told) -> Iterator[Told]:
        """A piece of a call's arguments."""
        call_id, message = data["call_id"], self._open(data["message_id"], tag)
        yield from self._end_reasoning(message)
        if call_id not in self._calls:
            message.calls.append(call_id)
            yield self._start_call(call_id, data["tool_name"], data["message_id"], message.tag)
        of = {"toolCallId": self.ids.of(call_id), **message.tag}
        yield {"type": "TOOL_CALL_ARGS", "delta": data["delta"], **of}

    def announce(self, data: dict[str, Any], tag: Told) -> Iterator[Told]:
        """A call runs, or waits for a person: tell it, unless it was written; it is whole now."""
        call_id = data["call_id"]
        if call_id in self._calls:
            yield from self._end_writing(call_id)
            return
        yield self._start_call(call_id, data["tool_name"], data.get("message_id"), tag)
        of = {"toolCallId": self.ids.of(call_id), **tag}
        if data.get("arguments") is not None:
            arguments = msgspec.json.encode(data["arguments"]).decode()
            yield {"type": "TOOL_CALL_ARGS", "delta": arguments, **of}
        yield {"type": "TOOL_CALL_END", **of}

    def progress(self, data: dict[str, Any], tag: Told) -> Told:
        """A call reports."""
        call_id = self.ids.of(data["call_id"])
        content = {
            "toolCallId": call_id,
            "toolName": data["tool_name"],
            "progress": data["progress"],
        }
        return {
            "type": "ACTIVITY_SNAPSHOT",
            "messageId": f"{call_id}:progress",
            "activityType": "flowtrio.tool_progress",
            "content": content,
            **tag,
        }

    def end_call(self, data: dict[str, Any], tag: Told) -> Iterator[Told]:
        """A call has ended; one of which nothing was told yet is told now."""
        call_id = data["call_id"]
        if call_id not in self._calls:
            yield from self.announce(data, tag)
        yield from self._end_writing(call_id)
        call = self._calls.pop(call_id)
        key = self.ids.of(call_id)
        if key not in self.answered:
            shown = {key: data[key] for key in ("outcome", "error", "duration")}
            yield {
                "type": "TOOL_CALL_RESULT",
                "messageId": f"{key}:result",
                "toolCallId": key,
                "role": "tool",
                "content": result_text(data),
                "metadata": ours(shown),
                **call.tag,
            }

    def _start_call(self, call_id: str, name: str, message_id: str | None, tag: Told) -> Told:
        self._calls[call_id] = _Call(tag, name, message_id)
        parent = {} if message_id is None else {"parentMessageId": self.ids.of(message_id)}
        of = {"toolCallId": self.ids.of(call_id), "toolCallName": name, **parent, **tag}
        return {"type": "TOOL_CALL_START", **of}

    def _end_arguments(self, call_id: str, message: _Message) -> Told:
        message.calls.remove(call_id)
        return {"type": "TOOL_CALL_END", "toolCallId": self.ids.of(call_id), **message.tag}

    def _end_writing(self, call_id: str) -> Iterator[Told]:
        message = self._messages.get(self._calls[call_id].message_id or "")
        if message is not None and call_id in message.calls:
            yield self._end_arguments(call_id, message)

    def in_order(self, call_ids: Container[str]) -> list[str]:
        """Some of the calls that have not ended, as they were made."""
        return [call_id for call_id in self._calls if call_id in call_ids]

    # Segments

    def close(self) -> Iterator[Told]:
        """Close all that is open."""
        for message_id, message in self._messages.items():
            yield from self._close(message_id, message)

    def reopen(self) -> Iterator[Told]:
        """Open again what is open."""
        for message_id, message in self._messages.items():
            if message.reasoning is not None:
                yield from self._start_reasoning(message)
            if message.is_text_open:
                yield self._start_text(message_id, message.tag)
            for call_id in message.calls:
                call = self._calls[call_id]
                yield self._start_call(call_id, call.name, call.message_id, call.tag)
