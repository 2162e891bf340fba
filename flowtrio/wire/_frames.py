"""The frames between a server and its clients: commands in, events and replies out.

The same JSON on every transport. What a client sends is data, and may be hostile: nothing here
raises anything but `BadFrame`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, get_args

import msgspec

from flowtrio._core._events import NO_DOTS, RUN_ID, AgentEvent, StreamMode
from flowtrio._core._limits import ServerLimits
from flowtrio._core._parts import UserMessage

from ._json import NestedTooDeeply, check_depth, decode_json, is_json_object
from ._sent_parts import SentPart, read_sent

SUBPROTOCOL: Final = "flowtrio.v1"
"""One event a frame."""
BATCH_SUBPROTOCOL: Final = "flowtrio.batch.v1"
"""All events that are ready in one frame."""
LINKED: Final = "linked"
"""``1`` in the query of an address: each event names the one before it.

The query is that of a connection: a server that does not know this takes the same commands."""

Ref: TypeAlias = str | int | None
"""A client's own name for a command, given back in its reply."""

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_RunId = Annotated[str, msgspec.Meta(pattern=rf"\A{RUN_ID}\Z")]
_SessionId = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=rf"\A{NO_DOTS}")]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class BadFrame(Exception):
    """A client's frame is none of those it may send; told to it as ``rejected``."""

    def __init__(self, code: str, error: str, ref: Ref = None) -> None:
        super().__init__(error)
        self.code = code
        self.error = error
        self.ref = ref


class TooLarge(Exception):
    """A client's message is larger than it may be; none but one with parts may be so large."""


class _Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    type: str = "message"
    ref: Ref = None


class _Said(_Command, frozen=True, kw_only=True):
    message: str
    """May be empty where there are parts."""
    parts: tuple[SentPart, ...] = ()


class MessageCommand(_Said, frozen=True):
    """Start a run, or attach to the one of this ``run_id``."""

    run_id: _RunId | None = None
    session_id: _SessionId | None = None
    mode: StreamMode | None = None


class PingCommand(_Command, frozen=True):
    """Ask whether anybody is there: pages do not see the pings of WebSocket itself."""


class CancelCommand(_Command, frozen=True):
    """Cancel a run."""

    run_id: _Text
    reason: str | None = None


class CancelToolCommand(_Command, frozen=True):
    """Cancel one call."""

    run_id: _Text
    call_id: _Text


class ApproveCommand(_Command, frozen=True):
    """Let a call that waits for a person begin."""

    run_id: _Text
    call_id: _Text
    arguments: dict[str, Any] | None = None
    """Instead of its own."""
    reason: str | None = None


class DenyCommand(_Command, frozen=True):
    """Refuse a call that waits for a person."""

    run_id: _Text
    call_id: _Text
    reason: str | None = None


class AnswerCommand(_Command, frozen=True):
    """Answer a question."""

    run_id: _Text
    request_id: _Text
    text: Any
    """A text, or another JSON value where the question tells a schema."""


class DismissCommand(_Command, frozen=True):
    """Decline to answer a question."""

    run_id: _Text
    request_id: _Text
    reason: str | None = None


class _Post(_Said, frozen=True, kw_only=True):
    interrupt: bool = False
    post_id: _Name | None = None
    """A client's own: what is sent again under it was said once."""
    """Whether the reply that is being written is cut."""


class PostCommand(_Post, frozen=True, kw_only=True):
    """Say something to the model while a run goes on."""

    run_id: _Text


class ResumeCommand(_Command, frozen=True):
    """Follow a run from a place in its log."""

    run_id: _RunId
    after: Annotated[int, msgspec.Meta(ge=-1, le=2**53)]
    mode: StreamMode | None = None
    snapshot: bool | Literal["log"] = False
    """Whether all up to now is told as one event; *after* is -1 then.

    With the state, or as ``log`` with the compacted log before it.
    """


Control: TypeAlias = (
    CancelCommand
    | CancelToolCommand
    | ApproveCommand
    | DenyCommand
    | AnswerCommand
    | DismissCommand
    | PostCommand
)
"""A command about a run that is under way."""
Command: TypeAlias = MessageCommand | ResumeCommand | PingCommand | Control

_COMMANDS: Final[dict[str, type[Any]]] = {
    "message": MessageCommand,
    "cancel": CancelCommand,
    "cancel_tool": CancelToolCommand,
    "approve": ApproveCommand,
    "deny": DenyCommand,
    "answer": AnswerCommand,
    "dismiss": DismissCommand,
    "post": PostCommand,
    "resume": ResumeCommand,
    "ping": PingCommand,
}
CONTROLS: Final = tuple(name for name, kind in _COMMANDS.items() if kind in get_args(Control))
"""The types of commands about a run that is under way: what can be posted to one over HTTP."""


def decode_command(text: str, max_depth: int) -> Command:
    """Read one text from a client; a `BadFrame` for one that it may not send.

    A text that is not a JSON object with a string ``type`` is a message.
    """
    try:
        value = decode_json(text)
        check_depth(value, max_depth)
    except NestedTooDeeply:
        if text.lstrip().startswith("{"):
            raise BadFrame("bad_frame", f"JSON nested deeper than {max_depth}") from None
        value = None
    except ValueError:
        if is_json_object(text):
            raise BadFrame("bad_frame", "JSON with a number out of range") from None
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        if not text.strip():
            raise BadFrame("bad_frame", "expected a text that is not empty")
        return MessageCommand(type="message", message=text)
    return _convert(value)


def decode_request(type: str, body: bytes | dict[str, Any], max_depth: int, **keys: str) -> Command:
    """Read a command that came as a request of its own; a `BadFrame` if it is none.

    Its type and *keys* are from the address, and the body, a JSON object of the others, cannot have
    them; it is encoded or not, and may be empty.
    """
    try:
        value = body if isinstance(body, dict) else decode_json(body or b"{}")
        check_depth(value, max_depth)
    except ValueError:
        raise BadFrame("bad_frame", "expected a JSON object in the request's body") from None
    if not isinstance(value, dict):
        raise BadFrame("bad_frame", "expected a JSON object in the request's body")
    if both := sorted({"type", *keys} & value.keys()):
        raise BadFrame("bad_frame", f"the address has {', '.join(both)}, the body may not")
    return _convert({**value, **keys, "type": type})


def _convert(value: dict[str, Any]) -> Command:
    ref = value.get("ref")
    ref = ref if isinstance(ref, str | int) and not isinstance(ref, bool) else None
    kind = _COMMANDS.get(value["type"])
    if kind is None:
        known = ", ".join(_COMMANDS)
        raise BadFrame("unknown_type", f"unknown type, expected one of {known}", ref)
    try:
        command: Command = msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise BadFrame("bad_frame", f"{value['type']}: {_words(exc)}", ref) from None
    if isinstance(command, MessageCommand):
        _check_said(command)
    if isinstance(command, ResumeCommand) and command.snapshot and command.after >= 0:
        raise BadFrame("bad_frame", f"resume: {NO_PLACE}", ref)
    return command


def _check_said(command: MessageCommand) -> None:
    if not command.message and not command.parts:
        error = "Expected `str` of length >= 1 - at `$.message`, as there are no parts"
        raise BadFrame("bad_frame", f"message: {error}", command.ref)


class _Kind(msgspec.Struct, frozen=True):
    type: str = "message"


NO_PLACE: Final = "a snapshot is of all that was said, and `after` has to be -1"
_large_kind: Final = msgspec.json.Decoder(_Kind)
_Large: TypeAlias = MessageCommand | PostCommand


def decode_large(text: str) -> _Large:
    """Read a text that is larger than one without parts may be: so it has some, or is too large.

    What else it may hold is not even made, and its depth is that of what is said.

    Raises:
      BadFrame: it has wrong keys.
      TooLarge: nothing with parts is said by it.

    """
    try:
        name = _large_kind.decode(text).type
    except (ValueError, RecursionError):
        raise TooLarge from None
    if name == "message":
        return _decode_large(text, MessageCommand, name)
    if name == "post":
        return _decode_large(text, PostCommand, name)
    raise TooLarge


def decode_large_request(type: str, body: bytes, **keys: str) -> _Large:
    """The same for a ``message`` or ``post`` of its own request; see `decode_request`."""
    if type == "message":
        return _decode_large(body, MessageCommand, type)
    post = _decode_large(body, _Post, type)
    return PostCommand(**{**msgspec.structs.asdict(post), **keys, "type": type})


_SaidT = TypeVar("_SaidT", bound=_Said)


def _decode_large(text: str | bytes, kind: type[_SaidT], name: str) -> _SaidT:
    try:
        said = msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as exc:
        raise BadFrame("bad_frame", f"{name}: {_words(exc)}") from None
    except (ValueError, RecursionError):
        raise TooLarge from None
    if not said.parts:
        raise TooLarge
    return said


def said_by(command: MessageCommand | PostCommand, limits: ServerLimits) -> UserMessage:
    """What a client says; a `BadFrame` where its parts are none, or more than the server takes."""
    try:
        return read_sent(command.message, command.parts, limits)
    except ValueError as exc:
        raise BadFrame("bad_parts", str(exc), command.ref) from None


def _words(exc: msgspec.ValidationError) -> str:
    """What was wrong, for people: where msgspec tells a pattern, what it means."""
    text = str(exc)
    for place, expected in _EXPECTED.items():
        if text.endswith(place):
            return f"expected {expected} - at {place}"
    return text


_EXPECTED: Final = {
    "`$.mode`": f"one of {', '.join(StreamMode)}",
    "`$.run_id`": "1 to 64 of the characters A-Z a-z 0-9 _ . ~ -",
}


class LinkedEvent(AgentEvent, frozen=True, gc=False):
    """An event for a reader who wants to notice that one was lost on the way."""

    after: int
    """The ``seq`` of the one that this reader was sent before it, or where it began to read."""


def link(events: Iterable[AgentEvent], after: int) -> Sequence[LinkedEvent]:
    """Have each of *events* name the one before it; the first names *after*."""
    linked = []
    for e in events:
        linked.append(
            LinkedEvent(e.type, e.data, e.seq, e.run_id, e.agent, e.timestamp, after=after)
        )
        after = e.seq
    return linked


_encoder = msgspec.json.Encoder()

_ARRAY: Final = 64 * 1024
"""Characters of an array with more than one event: what is cut in its midst has to come again."""


def encode_events(events: Iterable[AgentEvent], *, is_batch: bool) -> list[str]:
    """Frames of events: one each, or all in one JSON array, or in several where that is large."""
    if is_batch:
        together = list(events)
        return _encode_arrays(together) if together else []
    return [_encoder.encode(event).decode() for event in events]


def _encode_arrays(events: list[AgentEvent]) -> list[str]:
    # At once: each call costs as much as half an event.
    text = _encoder.encode(events).decode()
    if len(text) <= _ARRAY or len(events) == 1:
        return [text]
    middle = len(events) // 2
    return [*_encode_arrays(events[:middle]), *_encode_arrays(events[middle:])]


def encode_accepted(ref: Ref, run_id: str | None, *, is_over: bool = False) -> str:
    """The reply to a command that was taken; *is_over* says that no event will follow it."""
    reply: dict[str, Any] = {"type": "accepted", "ref": ref, "run_id": run_id}
    if is_over:
        reply["is_over"] = True
    return _encoder.encode(reply).decode()


def encode_rejected(ref: Ref, code: str, error: str) -> str:
    """The reply to a command that was not."""
    reply = {"type": "rejected", "ref": ref, "code": code, "error": error}
    return _encoder.encode(reply).decode()
