"""What a body opens with its own words: a message, and a question to the user."""

from __future__ import annotations

from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import trio
from trio.lowlevel import checkpoint

from flowtrio._core._closing import UNASKED
from flowtrio._core._events import EventType
from flowtrio._core._exceptions import DeadlineExceeded, InputDeclined, LocalProtocolError
from flowtrio._core._values import check_json, clean_text, copy_json
from flowtrio._run._pending import Answered, Decision, Declined, Pending, Unfit

if TYPE_CHECKING:
    from flowtrio._run._frame import Frame

    from ._answers import AnswerForm

_CHUNK: Final = EventType.MESSAGE_CHUNK


class MessageWriter:
    """Writes one message of an agent. Made by `RunContext.message`."""

    __slots__ = ("_finish_reason", "_message_id", "_thread", "owner")

    _thread: int
    """Where it was begun, 0 before: a third of the price of asking for the Trio loop."""
    owner: Frame
    _message_id: str
    _finish_reason: str

    @classmethod
    def _of(cls, frame: Frame, message_id: str) -> MessageWriter:
        writer = cls.__new__(cls)
        writer.owner, writer._message_id, writer._finish_reason = frame, message_id, "cancelled"
        writer._thread = 0
        return writer

    async def __aenter__(self) -> Self:
        """Begin, once there is room for an event: the end of the message will need it."""
        frame, log = self.owner, self.owner.run.log
        frame.check_here("begin a message")
        self._thread = get_ident()
        if await log.wait_for_room(frame):
            log.law.begin_message(self._message_id, frame.agent)
            log.opened.add(self._message_id, self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, at once where the block was left by an exception."""
        log = self.owner.run.log
        try:
            if exc is None:
                await self._complete()
        finally:
            # Nothing is left to do where it is complete.
            if isinstance(exc, Exception):
                self._finish_reason = "error"
            log.close((self._message_id,))
            log.opened.forget(self._message_id)

    async def write(self, text: str) -> None:
        """Say a piece of the message."""
        frame = self.owner
        if get_ident() != self._thread:
            self._check_here()
        if type(text) is not str or not text.isascii():
            text = plain_text(text, "text")
        data = {"chunk": text, "message_id": self._message_id}
        await frame.run.log.emit(_CHUNK, data, frame)

    async def part(self, kind: str, /, **data: Any) -> None:
        """Add what is no text, such as a citation: MESSAGE_PART with ``{"type": kind, **data}``.

        Raises:
          ValueError: *data* is no JSON, or larger than ``Limits.result_bytes``.

        """
        frame = self.owner
        self._check_here()
        part = check_json(
            {**data, "type": plain_text(kind, "kind", frame)},
            "part",
            limit_bytes=frame.run.limits.result_bytes,
        )
        await frame.emit(EventType.MESSAGE_PART, {"message_id": self._message_id, "part": part})

    def _check_here(self) -> None:
        """Refuse to write in another Trio loop, and before the block that ends the message."""
        self.owner.check_here("write a message")
        if not self._thread:
            raise LocalProtocolError(
                f"can't write message {self._message_id} before it was begun: expected "
                "async with ctx.message() as out"
            )

    async def _complete(self) -> None:
        message = self.owner.run.log.law.open_message(self._message_id)
        await self.owner.emit(
            EventType.MESSAGE_COMPLETE,
            {
                "message_id": self._message_id,
                "content": "" if message is None else message.text.getvalue(),
                "finish_reason": "stop",
                "usage": None,
                **UNASKED,
                "parent_call_id": self.owner.enclosing_call,
            },
        )

    def closing(self) -> dict[str, Any]:
        """See `OpenThing`."""
        call_id = self.owner.enclosing_call
        return {"finish_reason": self._finish_reason, "parent_call_id": call_id}


class Question:
    """One question to the user, from asking to its answer."""

    def __init__(self, frame: Frame, request_id: str, form: AnswerForm) -> None:
        self.owner = frame
        self.pending = Pending.question(self._take)
        self._request_id = request_id
        self._form = form
        self._text: str | None = None
        self._value: Any = None
        self._is_closed = False

    async def ask(self, prompt: str) -> Any:
        """See `RunContext.ask`."""
        frame, run = self.owner, self.owner.run
        seconds = run.limits.input
        with frame.bracket(self._request_id, self):
            data = {
                "request_id": self._request_id,
                "prompt": prompt,
                "call_id": frame.enclosing_call,
                "schema": copy_json(self._form.schema),
            }
            if await frame.emit(EventType.INPUT_REQUIRED, data) is None:
                raise frame.closed("ask the user")
            await run.log.set_status(frame)
            if run.is_unattended or not (run.has_people or self._form.is_for_programs):
                self.pending.abandon()
            with frame.waiting_for_person(), trio.move_on_after(seconds):
                await self.pending.wait()
            # What was decided stands, also while its event waits for the reader.
            self.pending.abandon()
            if self._is_closed:
                await checkpoint()
                raise frame.closed(f"wait for the answer to {self._request_id}")
            data = {"request_id": self._request_id, "outcome": "timeout", "text": None}
            if await frame.emit(EventType.INPUT_RESOLVED, {**data, **self._told()}) is None:
                raise frame.closed(f"wait for the answer to {self._request_id}")
        await run.log.set_status(frame)
        return self._result(seconds)

    def _take(self, decision: Decision) -> None:
        """A person answers, or declines to."""
        if isinstance(decision, Answered):
            try:
                self._text, self._value = self._form.read(decision.given)
            except ValueError as exc:
                raise Unfit(f"answer to {self._request_id}: {exc}") from exc

    def _told(self) -> dict[str, Any]:
        match self.pending.decision:
            case Answered():
                return {"outcome": "answered", "text": self._text}
            case Declined():
                return {"outcome": "declined"}
            case _:
                return {}

    def _result(self, seconds: float) -> Any:
        match self.pending.decision:
            case Answered():
                return self._value
            case Declined(reason):
                raise InputDeclined(
                    f"the user declined to answer question {self._request_id}"
                    + (f": {reason}" if reason else ""),
                    request_id=self._request_id,
                    reason=reason,
                )
            case _:
                raise DeadlineExceeded(
                    f"question {self._request_id} got no answer within {seconds} s",
                    deadline="input",
                )

    def closing(self) -> dict[str, Any]:
        """See `OpenThing`."""
        self._is_closed = True
        self.pending.abandon()
        # Whoever decided was told that it took effect.
        return self._told()


def plain_text(value: str, what: str, frame: Frame | None = None) -> str:
    """Plain text for an event, of ``Limits.result_bytes`` at most where *frame* is given."""
    if not isinstance(value, str):
        raise TypeError(f"{what}: expected a str, got {type(value).__name__}")
    if frame is not None:
        frame.run.info.check_length(value, what)
    if type(value) is str and value.isascii():
        return value
    # Events hold plain text: an enum's member, say, is one that is more.
    return clean_text(str.__str__(value))
