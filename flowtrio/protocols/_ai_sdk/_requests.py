"""What a page of the AI SDK asks for: its newest message, and what was decided in the one before.

A page sends all its messages, and may send only the last two: the conversation is the server's, so
nothing else is read. What stands in them was written by the page, and may be hostile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import attrs
import msgspec

from flowtrio._core._events import RUN_ID
from flowtrio._core._limits import ServerLimits
from flowtrio._core._media import data_url
from flowtrio._core._parts import UserMessage
from flowtrio.serving._access import Refused
from flowtrio.wire._sent_parts import SentFile, SentImage, SentPart, SentText, read_sent

_MESSAGE_ID: Final = re.compile(rf"({RUN_ID})(?::([0-9]{{1,15}}))?")


class _Tool(msgspec.Struct, frozen=True):
    """A tool that the page runs."""

    inputSchema: dict[str, Any]
    description: str = ""


class _Body(msgspec.Struct, frozen=True):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    messages: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    agent: str | None = None
    tools: dict[str, _Tool] = msgspec.field(default_factory=dict)


@attrs.frozen
class Decision:
    """What was decided of a call: by a person, or by a page that has run it."""

    call_id: str
    approved: bool | None = None
    """Whether it may begin; None for a result."""
    reason: str | None = None
    """Of a person, or why the page gives no result."""
    output: Any = None
    """What the page gives as its result."""
    has_output: bool = False


@attrs.frozen
class Shown:
    """An answer that a page has."""

    run_id: str
    begin: int
    """The event behind which it begins, by its number; -1 for the run's first."""
    seq: int | None
    """The last event that it tells, if it has come to an end; None if it was cut."""
    decisions: tuple[Decision, ...]


@attrs.frozen
class ChatRequest:
    """What a page asks for."""

    session_id: str
    said: UserMessage | None
    """What its user says; None where it only decides something."""
    shown: Shown | None
    """The last answer that it has."""
    agent: str | None
    tools: Mapping[str, _Tool]


def read_chat(body: dict[str, Any], limits: ServerLimits) -> ChatRequest:
    """Read the body of a request; `Refused` says what was expected."""
    try:
        given = msgspec.convert(body, _Body)
    except msgspec.ValidationError as exc:
        raise Refused(400, f"the request's body: {exc}") from None
    last = given.messages[-1]
    match last.get("role"):
        case "assistant":
            said = None
        case "user":
            said = _read_said(last, limits)
        case _:
            raise Refused(400, "the last message: expected one of role user or assistant")
    shown = next((m for m in reversed(given.messages) if m.get("role") == "assistant"), None)
    answer = None if shown is None else _read_shown(shown)
    if said is None and answer is None:
        raise Refused(400, "the last message: expected the id of one that was answered here")
    return ChatRequest(given.id, said, answer, given.agent, given.tools)


def read_message_id(text: Any) -> tuple[str, int] | None:
    """The run of a message's id, and where it begins; None where the id is another's."""
    found = _MESSAGE_ID.fullmatch(text) if isinstance(text, str) else None
    return None if found is None else (found[1], -1 if found[2] is None else int(found[2]))


# What the user says


def _read_said(message: dict[str, Any], limits: ServerLimits) -> UserMessage:
    parts = [
        part for number, given in enumerate(_parts(message)) if (part := _read_part(given, number))
    ]
    if not any(not isinstance(part, SentText) or part.text.strip() for part in parts):
        raise Refused(400, "the last message: expected a text that is not empty, or a file")
    try:
        if len(parts) == 1 and isinstance(parts[0], SentText):
            return read_sent(parts[0].text, (), limits)
        return read_sent("", parts, limits)
    except ValueError as exc:
        raise Refused(400, f"the last message: {exc}", "bad_parts") from None


def _read_part(part: dict[str, Any], number: int) -> SentPart | None:
    """A part as it is sent to us; None for one that only the page knows."""
    match part:
        case {"type": "text", "text": str(text)}:
            return SentText(text)
        case {"type": "file", "url": str(url), "mediaType": str(kind)}:
            name = part.get("filename")
            sent = SentImage if kind.startswith("image/") else SentFile
            try:
                held = data_url(url)
            except ValueError as exc:
                raise Refused(400, f"parts[{number}]: {exc}", "bad_parts") from None
            address = {"url": url} if held is None else {"data": held[1]}
            return sent(**address, media_type=kind, name=name if isinstance(name, str) else None)
        case {"type": "text" | "file"}:
            raise Refused(400, f"parts[{number}]: expected its text, or its url and mediaType")
        case _:
            return None


def _parts(message: dict[str, Any]) -> Sequence[dict[str, Any]]:
    parts = message.get("parts")
    return [p for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []


# What was decided


def _read_shown(message: dict[str, Any]) -> Shown | None:
    """An answer of ours; None for a message that is none."""
    place = read_message_id(message.get("id"))
    if place is None:
        return None
    run_id, begin = place
    match message.get("metadata"):
        case {"flowtrio": {"seq": int(seq)}} if not isinstance(seq, bool) and seq >= begin:
            end: int | None = seq
        case _:
            end = None
    decisions = [_read_decision(part, f"{run_id}:") for part in _parts(message)]
    return Shown(run_id, begin, end, tuple(d for d in decisions if d is not None))


def _read_decision(part: dict[str, Any], prefix: str) -> Decision | None:
    id = part.get("toolCallId")
    if not isinstance(id, str) or not id.startswith(prefix):
        return None
    call_id = id.removeprefix(prefix)
    match part:
        case {"state": "approval-responded", "approval": {"approved": bool(approved)}}:
            return Decision(call_id, approved, _text(part["approval"].get("reason")))
        case {"state": "output-available"}:
            return Decision(call_id, output=part.get("output"), has_output=True)
        case {"state": "output-error"}:
            return Decision(call_id, reason=_text(part.get("errorText")))
        case _:
            return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
