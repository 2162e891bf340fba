"""What an AG-UI client asks: a request of AG-UI 1.0, read as far as it is used.

All of it is a client's word. What a client holds of the conversation is echoed to it where it is
set right, and else only its newest part is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import attrs
import msgspec

from flowtrio._core._events import RUN_ID
from flowtrio._core._history import read_history
from flowtrio._core._limits import ServerLimits
from flowtrio._core._parts import UserMessage
from flowtrio.abc import Message
from flowtrio.serving._access import Refused
from flowtrio.wire._sent_parts import SentFile, SentImage, SentPart, SentText, read_sent

from ._held import Told
from ._mapper import Recipient

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_RUN_ID: Final = re.compile(RUN_ID)


class _Camel(msgspec.Struct, frozen=True, rename="camel"):
    """Unknown keys are left alone: later versions have more."""


class FrontEndTool(_Camel, frozen=True):
    """A tool that the front end runs."""

    name: str
    description: str
    parameters: Any = None


class Resume(_Camel, frozen=True):
    """An answer to an interrupt."""

    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Any = None


class _Function(_Camel, frozen=True):
    name: str
    arguments: str


class _Call(_Camel, frozen=True):
    id: str
    function: _Function


class _Source(_Camel, frozen=True):
    type: Literal["data", "url", "file"]
    value: str
    mime_type: str | None = None


class _Part(_Camel, frozen=True):
    type: Literal["text", "image", "audio", "video", "document"]
    text: str = ""
    source: _Source | None = None


class Spoken(_Camel, frozen=True):
    """A message, as far as it is read."""

    id: str
    role: Literal["developer", "system", "assistant", "user", "tool", "activity", "reasoning"]
    content: str | list[_Part] | dict[str, Any] | None = None
    tool_calls: list[_Call] = []
    tool_call_id: str = ""
    error: str | None = None


class _Input(_Camel, frozen=True):
    thread_id: _Name
    run_id: _Name
    messages: list[dict[str, Any]]
    protocol_version: str | None = None
    state: Any = None
    tools: list[FrontEndTool] | None = None
    context: list[Any] | None = None
    forwarded_props: Any = None
    resume: list[Resume] | None = None


@attrs.frozen
class Asked:
    """A request that was read."""

    given: _Input
    spoken: list[Spoken]

    @property
    def thread_id(self) -> str:
        """The conversation."""
        return self.given.thread_id

    @property
    def run_id(self) -> str:
        """The client's id as one of ours: the same, wherever it can be."""
        theirs = self.given.run_id
        if _RUN_ID.fullmatch(theirs):
            return theirs
        return hashlib.sha256(theirs.encode()).hexdigest()

    @property
    def resume(self) -> Sequence[Resume]:
        """What it answers."""
        return self.given.resume or ()

    @property
    def tools(self) -> Sequence[FrontEndTool]:
        """The front end's tools."""
        return self.given.tools or ()

    @property
    def results(self) -> dict[str, Spoken]:
        """The results that it gives behind what the user said last, by call id."""
        found: dict[str, Spoken] = {}
        for message in reversed(self.spoken):
            if message.role == "user":
                break
            if message.role == "tool":
                found[message.tool_call_id] = message
        return found

    @property
    def app(self) -> Told:
        """What else it gives to the agent."""
        given = self.given
        return {
            "state": given.state,
            "context": given.context or [],
            "forwardedProps": given.forwarded_props,
        }

    @property
    def reader(self) -> Recipient:
        """Whom the run is told to."""
        given = self.given
        major = (given.protocol_version or "0").partition(".")[0]
        return Recipient(
            thread_id=given.thread_id,
            run_id=given.run_id,
            messages=[m for m in given.messages if m["role"] != "activity"],
            is_old=major == "0",
        )

    @property
    def _before(self) -> list[Spoken]:
        """What was said before the run: one that is asked for again has said something itself."""
        return [m for m in self.spoken if not m.id.startswith(f"{self.run_id}:")]

    def said(self, limits: ServerLimits) -> UserMessage:
        """What the user says; `Refused` if that is not what comes last, or cannot be taken."""
        spoken = self._before
        if not spoken or spoken[-1].role != "user":
            error = "messages: expected the user's at the end, or resume, or results of calls"
            raise Refused(400, error, "bad_messages")
        said = _read(spoken[-1], limits)
        if not said.text and not said.parts:
            raise Refused(400, "messages: the user's has neither text nor parts", "bad_messages")
        return said

    def history(self, limits: ServerLimits) -> list[Message]:
        """The client's conversation, without its last message; `Refused` if it is none."""
        roles = ("system", "developer", "user", "assistant", "tool")
        messages = [_as_history(m, limits) for m in self._before[:-1] if m.role in roles]
        try:
            return read_history(messages, "messages")
        except (TypeError, ValueError) as exc:
            raise Refused(400, str(exc), "bad_messages") from None


def read_input(body: Told) -> Asked:
    """Read a request; `Refused` tells where it is none, not what it says."""
    try:
        given = msgspec.convert(body, _Input)
        spoken = msgspec.convert(given.messages, list[Spoken])
    except msgspec.ValidationError as exc:
        raise Refused(400, f"expected a RunAgentInput of AG-UI 1.0: {exc}", "bad_input") from None
    return Asked(given, spoken)


def text_of(message: Spoken) -> str:
    """A message's text."""
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content if isinstance(message.content, str) else ""


def _read(message: Spoken, limits: ServerLimits) -> UserMessage:
    content = message.content
    try:
        if isinstance(content, list):
            return read_sent("", [_sent(part) for part in content], limits)
        return read_sent(text_of(message), (), limits)
    except (TypeError, ValueError) as exc:
        raise Refused(400, f"messages: {exc}", "bad_parts") from None


def _sent(part: _Part) -> SentPart:
    if part.type == "text":
        return SentText(part.text)
    source = part.source
    if source is None or source.type == "file":
        raise ValueError(f"{part.type}: expected a source of type data or url")
    kind = SentImage if part.type == "image" else SentFile
    data, url = (source.value, None) if source.type == "data" else (None, source.value)
    return kind(data=data, url=url, media_type=source.mime_type)


def _as_history(message: Spoken, limits: ServerLimits) -> Message:
    match message.role:
        case "user":
            return {"role": "user", "content": _read(message, limits).content}
        case "tool":
            content = text_of(message)
            return {"role": "tool", "tool_call_id": message.tool_call_id, "content": content}
        case "assistant" if message.tool_calls:
            calls = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
                for call in message.tool_calls
            ]
            said = {"role": "assistant", "content": text_of(message) or None}
            return {**said, "tool_calls": calls}
        case role:
            return {"role": role, "content": text_of(message)}
