"""What a client's control does to a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from flowtrio.wire._frames import (
    AnswerCommand,
    ApproveCommand,
    BadFrame,
    CancelCommand,
    CancelToolCommand,
    Control,
    DenyCommand,
    DismissCommand,
    PostCommand,
    said_by,
)

if TYPE_CHECKING:
    from flowtrio._core._limits import ServerLimits
    from flowtrio._hosting._follower import Follower
    from flowtrio._run._stream import EventStream


def apply(stream: EventStream | Follower, command: Control, limits: ServerLimits) -> None:
    """Do to a run what a control asks; whether it took effect is seen in the events.

    Raises:
      BadFrame: what the client gave does not fit, or no reply follows that could take it; nothing
        is changed.

    """
    match command:
        case CancelCommand():
            stream.cancel(command.reason or "the client cancelled")
        case CancelToolCommand():
            stream.cancel_tool(command.call_id)
        case ApproveCommand():
            try:
                stream.approve(command.call_id, command.arguments)
            except ValueError as exc:
                raise BadFrame("bad_arguments", str(exc), command.ref) from None
        case DenyCommand():
            stream.deny(command.call_id, command.reason)
        case AnswerCommand():
            try:
                stream.answer(command.request_id, command.text)
            except ValueError as exc:
                raise BadFrame("bad_answer", str(exc), command.ref) from None
        case DismissCommand():
            stream.dismiss(command.request_id, command.reason)
        case PostCommand():
            if not command.message.strip() and not command.parts:
                error = "post: expected a text that is not empty, or parts"
                raise BadFrame("bad_frame", error, command.ref)
            if not stream.post(said_by(command, limits), command.interrupt):
                error = "no reply of the model follows that could take it"
                raise BadFrame("no_next_reply", error, command.ref)
        case _:
            assert_never(command)
