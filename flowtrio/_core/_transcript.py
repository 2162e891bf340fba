"""The conversation that a run leaves behind, valid however it ended.

It is not written by the agent but read off the run's own log: a reply joins the conversation with
its MESSAGE_COMPLETE, a result with its TOOL_CALL_END. So it always agrees with what the reader saw,
also when a run was cut off and its agent never came to write anything.

A result belongs to its call, whatever else was said before the call ended: it stands directly
behind the message that asked for it. A call that was not run says so; that it was cancelled it says
only where its END did.

An `Agent` that is called by a body has a part of its own in the body's conversation. It is asked
what the body asks it, and its part joins the whole when it ends: the parts of two that work at once
do not interleave.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import attrs
import msgspec

from ._chunks import ToolCall
from ._fit import (
    NO_TEXT,
    CallIds,
    Entry,
    Message,
    digest,
    fit_name,
    is_blank,
    result_message,
    withheld,
)
from ._parts import UserMessage
from ._values import check_json, copy_json

_NOT_ENDED: Final = "error: this call has not ended yet"


@attrs.define(eq=False)
class Reply:
    """One model reply on its way into the conversation."""

    message_id: str
    calls: list[tuple[str, ToolCall]] = attrs.Factory(list)
    """Of each call: our id, and the call."""
    carry: dict[str, Any] | None = None
    """What the provider wants back."""
    refusal: str = ""
    """What the model said instead of an answer."""


@attrs.define(eq=False)
class _Book:
    """What a conversation and its parts share."""

    run_id: str
    ids: CallIds
    name: str = attrs.field(
        default=attrs.Factory(lambda book: digest(book.run_id), takes_self=True), init=False
    )
    """The run's, short enough for an id."""
    expected: dict[str, tuple[Transcript, Reply]] = attrs.Factory(dict)
    """Replies that have no MESSAGE_COMPLETE yet, and where they belong."""
    open: dict[str, Entry] = attrs.Factory(dict)
    """Calls that have no TOOL_CALL_END yet, by our id."""
    asked: dict[str, dict[str, Any]] = attrs.Factory(dict)
    """The arguments of which a person was asked, by call."""


_NO_ENTRIES: Final = cast("list[Entry]", ())
"""Of those that nothing was said in yet; see `_nothing`."""


class Transcript:
    """One agent's conversation: what it was given, and what followed.

    The *history* is one that `read_history` gave, and is not changed.
    """

    def __init__(self, history: Sequence[Message], message: UserMessage, run_id: str) -> None:
        self.history: Sequence[Message] = history
        self.message = message
        """What it is asked."""
        self._run_id = run_id
        self._shared: _Book | None = None
        self._caller: Transcript | None = None
        self._entries: list[Entry] = _NO_ENTRIES
        self._parts: tuple[Transcript, ...] = ()
        """The parts that are under way, in the order in which they began."""
        self._is_withheld = False
        """Whether a provider withheld its answer: then nothing of this may be sent again."""
        self._goes_on = False
        """Whether the user said something behind that: what was before it is marked by itself."""
        self._has_spoken = False
        self._last_text: str | None = None
        """The last message that was whole."""

    @property
    def _asked(self) -> Message | None:
        """What it is asked, as a message; None where that goes on from results of tools."""
        return None if _goes_on(self.history, self.message) else _asked(self.message)

    @property
    def _book(self) -> _Book:
        # Made when it is needed: most runs that idle have nothing in it.
        if self._shared is None:
            said = self.history
            used = [call["id"] for message in said for call in message.get("tool_calls") or ()]
            self._shared = _Book(self._run_id, CallIds(used))
        return self._shared

    # Its parts

    def begin(self, message: UserMessage, *, is_told: bool) -> Transcript:
        """Begin a part: the conversation of an `Agent` that is asked *message* here.

        Args:
          message: What it is asked. The text of what is asked here means all of that: a body is
            given no more of it.
          is_told: Whether the part joins the whole. What is said inside a tool does not: there only
            the call's result counts.

        """
        if message.content == self.message.text:
            message = self.message
        part = Transcript(self.history, message, self._run_id)
        part._shared = self._book
        if is_told:
            part._caller = self
            self._parts += (part,)
        return part

    def end(self) -> None:
        """The part has ended, and joins the whole."""
        if (caller := self._caller) is not None:
            caller._parts = tuple(part for part in caller._parts if part is not self)
            for entry in self._as_part(caller):
                caller._append(entry)

    def _as_part(self, caller: Transcript) -> list[Entry]:
        if self._asked == caller._asked:
            # The user's own message, passed on, is there already.
            if self._is_withheld:
                caller._withhold()
                if self._goes_on:
                    caller._go_on()
            return self._entries
        if not self._entries:
            return []
        message = self._asked
        asked = [] if message is None else [Entry(message)]
        for entry in asked if self._goes_on else [*asked, *self._entries]:
            entry.is_withheld = entry.is_withheld or self._is_withheld
        return [*asked, *self._entries]

    # What is said

    def expect(self, reply: Reply) -> None:
        """Take *reply* into the conversation when its MESSAGE_COMPLETE is recorded."""
        self._book.expected[reply.message_id] = (self, reply)

    def say(self, role: str, text: str) -> None:
        """Append a message of our own."""
        self._append(Entry(_said(role, text)))

    def hear(self, said: UserMessage) -> None:
        """The user said something while the agent was at work."""
        if self._is_withheld:
            self._go_on()
        self._append(Entry(_asked(said)))

    def _withhold(self) -> None:
        """A provider withheld its answer to all that was said so far."""
        self._is_withheld, self._goes_on = True, False

    def _go_on(self) -> None:
        """What comes next is no part of what was withheld, and a model may be asked it."""
        for entry in self._entries:
            entry.is_withheld = True
        self._goes_on = True

    def answer(self, value: Any) -> None:
        """The agent's body returned *value*, which is JSON: its answer, unless it said that."""
        if isinstance(value, str):
            if not is_blank(value) and value != self._last_text:
                self.say("assistant", value)
        elif value is not None and not self._has_spoken:
            self.say("assistant", _to_text(value))

    # What the log tells, of this conversation or of a part of it

    def note_message(self, data: dict[str, Any]) -> None:
        """A MESSAGE_COMPLETE of this agent was recorded."""
        expected = self._book.expected.pop(data["message_id"], None)
        if expected is not None:
            transcript, reply = expected
            transcript._take(reply, data)

    def note_approval(self, data: dict[str, Any]) -> None:
        """A call of this agent's waits for a person."""
        if (entry := self._book.open.get(data["call_id"])) is not None:
            entry.results[data["call_id"]] = _NOT_ENDED
            self._book.asked[data["call_id"]] = data["arguments"]

    def note_start(self, data: dict[str, Any]) -> None:
        """A call of this agent's has started, maybe with arguments that a person gave it."""
        book, call_id = self._book, data["call_id"]
        if (entry := book.open.get(call_id)) is not None:
            entry.results[call_id] = _NOT_ENDED
            asked = book.asked.pop(call_id, None)
            if asked is not None and asked != data["arguments"]:
                entry.edit(call_id, _to_text(data["arguments"]))

    def note_result(
        self, data: dict[str, Any], shown: Sequence[dict[str, Any]] | None = None
    ) -> None:
        """A TOOL_CALL_END of this agent was recorded.

        Args:
          data: The event's.
          shown: What the model is shown of the result, where that is more than its text.

        """
        book, call_id = self._book, data["call_id"]
        book.asked.pop(call_id, None)
        if (entry := book.open.pop(call_id, None)) is not None:
            id = entry.calls[call_id]
            result = result_text(data) if shown is None else result_message(id, list(shown))
            entry.results[call_id] = result

    def _take(self, reply: Reply, data: dict[str, Any]) -> None:
        if data["finish_reason"] == "content_filter":
            self._withhold()
            return
        is_partial = data["finish_reason"] in ("cancelled", "error")
        text: str | None = data["content"] or reply.refusal
        calls = [] if is_partial else reply.calls
        if text and not is_blank(text):
            self._note_text(text, is_partial=is_partial)
        elif calls:
            text = None
        else:
            return
        entry = Entry(_said("assistant", text))
        if calls:
            entry.message["tool_calls"] = [self._enter(entry, *call) for call in calls]
        private: dict[str, Any] = {"partial": True} if is_partial else {}
        if not is_partial and (carry := _fit_carry(reply.carry)) is not None:
            private["carry"] = carry
        if private:
            entry.message["flowtrio"] = private
        self._append(entry)

    def _append(self, entry: Entry) -> None:
        if not self._entries:
            self._entries = []
        self._entries.append(entry)

    def _note_text(self, text: str, *, is_partial: bool) -> None:
        transcript: Transcript | None = self
        while transcript is not None:
            transcript._has_spoken = True
            if not is_partial:
                transcript._last_text = text
            transcript = transcript._caller

    def _enter(self, entry: Entry, call_id: str, call: ToolCall) -> dict[str, Any]:
        """Expect a call's result, and give the call as it stands in the message."""
        book = self._book
        entry.calls[call_id] = id = book.ids.take(call.id, f"call_{book.name}_{call_id}")
        book.open[call_id] = entry
        # A provider may refuse a conversation whose arguments do not parse, so those become empty.
        function = {"name": fit_name(call.name), "arguments": _to_text(call.arguments or {})}
        entered: dict[str, Any] = {"id": id, "type": "function", "function": function}
        if (carry := _fit_carry(call.carry)) is not None:
            entered["flowtrio"] = {"carry": carry}
        return entered

    # What it comes to

    def messages(self) -> list[Message]:
        """The conversation so far, the caller's own copy. Each call has a result.

        A turn whose answer was withheld is marked with ``flowtrio: {"withheld": True}``: it stands
        here for people, and goes into no later request; see `without_withheld`.
        """
        message = self._asked
        asked = [] if message is None else [copy_json(message)]
        told = [*asked, *self._told()]
        if self._is_withheld:
            marked = len(asked) if self._goes_on else len(told)
            told[:marked] = map(withheld, told[:marked])
        return [*copy_json(list(self.history)), *told]

    def _told(self) -> Iterator[Message]:
        for entry in self._entries:
            yield from entry.told()
        for part in self._parts:
            for entry in part._as_part(self):
                yield from entry.told()


def result_text(data: dict[str, Any]) -> str:
    """What the model is told of an ended call: its result, or what went wrong."""
    if data["outcome"] == "ok":
        result = data["result"]
        return result if isinstance(result, str) else _to_text(result)
    error = data["error"]
    match data["outcome"]:
        case "denied":
            return f"error: the call was denied{f': {error}' if error else ''}"
        case "cancelled":
            return f"error: the call was cancelled{f': {error}' if error else ''}"
        case outcome:
            return f"error: {error or outcome}"


def _goes_on(history: Sequence[Message], message: UserMessage) -> bool:
    """Whether nothing is said behind results of tools, which the model is to go on from."""
    return bool(history) and history[-1]["role"] == "tool" and message.content == ""


def _asked(message: UserMessage) -> Message:
    content = message.content
    is_empty = isinstance(content, str) and is_blank(content)
    return {"role": "user", "content": NO_TEXT if is_empty else content}


def _said(role: str, text: str | None) -> Message:
    return {"role": role, "content": text}


def _fit_carry(carry: Any) -> Any:
    """What goes back, if a conversation can keep it: a client of one's own may give anything."""
    try:
        fit = None if carry is None else check_json(carry, "carry")
    except (TypeError, ValueError):
        return None
    return fit if isinstance(fit, dict) else None


def _to_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
