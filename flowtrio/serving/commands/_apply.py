"""What a client's control does to a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, assert_never

import trio

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
    from flowtrio._hosting._orchestrator import Orchestrator
    from flowtrio._run._stream import EventStream


async def apply_anywhere(
    orchestrator: Orchestrator, tenant_id: str, command: Control, limits: ServerLimits
) -> None:
    """Do to a run in another process what a control asks.

    Raises:
      BadFrame: as of `apply`; or there is no such run under way, or who runs it does not reply.

    """
    name, arguments = _told(command, limits)
    try:
        took_effect = await orchestrator.command(
            command.run_id, name, tenant_id=tenant_id, **arguments
        )
    except ValueError as exc:
        code = _UNFIT_CODES.get(name, "bad_frame")
        raise BadFrame(code, str(exc), command.ref) from None
    except trio.TooSlowError:
        error = "who runs this run did not reply: ask again"
        raise BadFrame("no_reply", error, command.ref) from None
    if not took_effect:
        header = None
        if took_effect is not None:
            header = await orchestrator.store.header(tenant_id, command.run_id)
        if header is None or header.ended_at is not None:
            raise BadFrame("unknown_run", "no run of this id is under way", command.ref)
    if not took_effect and name == "post":
        raise BadFrame("no_next_reply", _NO_REPLY, command.ref)


_UNFIT_CODES = {"approve": "bad_arguments", "answer": "bad_answer"}
_NO_REPLY: Final = "no reply of the model follows that could take it"


def _told(command: Control, limits: ServerLimits) -> tuple[str, dict[str, Any]]:
    """A control's name and arguments, for `Orchestrator.command`."""
    match command:
        case CancelCommand():
            return "cancel", {"reason": command.reason or "the client cancelled"}
        case CancelToolCommand():
            return "cancel_tool", {"call_id": command.call_id}
        case ApproveCommand():
            return "approve", {"call_id": command.call_id, "arguments": command.arguments}
        case DenyCommand():
            return "deny", {"call_id": command.call_id, "reason": command.reason}
        case AnswerCommand():
            return "answer", {"request_id": command.request_id, "value": command.text}
        case DismissCommand():
            return "dismiss", {"request_id": command.request_id, "reason": command.reason}
        case PostCommand():
            _check_post(command)
            return "post", {
                "message": said_by(command, limits),
                "interrupt": command.interrupt,
                "post_id": command.post_id,
            }
        case _:
            assert_never(command)


def _check_post(command: PostCommand) -> None:
    if not command.message.strip() and not command.parts:
        error = "post: expected a text that is not empty, or parts"
        raise BadFrame("bad_frame", error, command.ref)


def apply(stream: EventStream | Follower, command: Control, limits: ServerLimits) -> None:
    """Do to a run what a control asks; whether it took effect is seen in the events.

    Raises:
      BadFrame: what the client gave does not fit, or no reply follows that could take it; nothing
        is changed.

    """
    name, arguments = _told(command, limits)
    try:
        took_effect = getattr(stream, name)(**arguments)
    except ValueError as exc:
        if name not in _UNFIT_CODES:
            raise
        raise BadFrame(_UNFIT_CODES[name], str(exc), command.ref) from None
    if not took_effect and name == "post":
        raise BadFrame("no_next_reply", _NO_REPLY, command.ref)
