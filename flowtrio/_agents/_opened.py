"""What a body opens with its own words: a message, and a question to the user."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import trio
from trio.lowlevel import checkpoint

from flowtrio._core._closing import UNASKED
from flowtrio._core._events import EventType
from flowtrio._core._exceptions import DeadlineExceeded
from flowtrio._core._values import clean_text
from flowtrio._run._pending import Answered, Pending

if TYPE_CHECKING:
    from flowtrio._run._frame import Frame

_CHUNK: Final = EventType.MESSAGE_CHUNK


class MessageWriter:
    """Writes one message of an agent. Made by `RunContext.message`."""

    __slots__ = ("_finish_reason", "_message_id", "owner")

    owner: Frame
    _message_id: str
    _finish_reason: str

    @classmethod
    def _of(cls, frame: Frame, message_id: str) -> MessageWriter:
        writer = cls.__new__(cls)
        writer.owner, writer._message_id, writer._finish_reason = frame, message_id, "cancelled"
        return writer

    async def __aenter__(self) -> Self:
        """Begin, once there is room for an event: the end of the message will need it."""
        frame, log = self.owner, self.owner.run.log
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
        data = {"chunk": plain_text(text, "text"), "message_id": self._message_id}
        await frame.run.log.emit(_CHUNK, data, frame)

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

    def __init__(self, frame: Frame, request_id: str) -> None:
        self.owner = frame
        self.pending = Pending.question()
        self._request_id = request_id
        self._is_closed = False

    async def ask(self, prompt: str) -> str:
        """See `RunContext.ask`."""
        frame, run = self.owner, self.owner.run
        seconds = run.limits.input
        with frame.bracket(self._request_id, self):
            data = {
                "request_id": self._request_id,
                "prompt": prompt,
                "call_id": frame.enclosing_call,
                "schema": None,
            }
            if await frame.emit(EventType.INPUT_REQUIRED, data) is None:
                raise frame.closed("ask the user")
            await run.log.set_status(frame)
            if run.is_unattended:
                self.pending.abandon()
            with frame.waiting_for_person(), trio.move_on_after(seconds):
                await self.pending.wait()
            # What was decided stands, also while its event waits for the reader.
            self.pending.abandon()
            if self._is_closed:
                await checkpoint()
                raise frame.closed(f"wait for the answer to {self._request_id}")
            decision = self.pending.decision
            text = decision.text if isinstance(decision, Answered) else None
            outcome = "timeout" if text is None else "answered"
            data = {"request_id": self._request_id, "outcome": outcome, "text": text}
            if await frame.emit(EventType.INPUT_RESOLVED, data) is None:
                raise frame.closed(f"wait for the answer to {self._request_id}")
        await run.log.set_status(frame)
        if text is None:
            raise DeadlineExceeded(
                f"question {self._request_id} got no answer within {seconds} s", deadline="input"
            )
        return text

    def closing(self) -> dict[str, Any]:
        """See `OpenThing`."""
        self._is_closed = True
        self.pending.abandon()
        decision = self.pending.decision
        if isinstance(decision, Answered):
            # Whoever answered was told that it took effect.
            return {"outcome": "answered", "text": decision.text}
        return {}


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
