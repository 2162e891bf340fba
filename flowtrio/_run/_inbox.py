"""What the user says while a run goes on, until somebody takes it to the model.

A message is taken only where there is a next reply to take it to. So it is accepted exactly while
somebody listens: a turn loop, until it decides that the last reply was its answer, in the same step
in which it finds nothing here; and a body that has asked a model before, which may do so again.
What is still here when the run's end begins is told there, and stands in the conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import enable_ki_protection

from flowtrio._core._events import ROOT, EventType
from flowtrio._core._values import copy_json

if TYPE_CHECKING:
    from flowtrio._core._parts import UserMessage
    from flowtrio._core._transcript import Transcript

    from ._channel import Speaker
    from ._log import EventLog

_MOST_WAITING = 64
"""Messages that wait to be taken: each is owed an event, and the log is bounded."""


class Inbox:
    """The messages to one run that were not taken yet."""

    __slots__ = ("body_listens", "is_closed", "listeners", "post_ids", "replies", "waiting")

    def __init__(self, *, is_closed: bool) -> None:
        self.waiting: tuple[UserMessage, ...] = ()
        """What is to be taken, in order."""
        self.listeners: tuple[Transcript, ...] = ()
        """The conversations of those who will take it before their next reply."""
        self.body_listens: bool = False
        """Whether the root's body asks a model by itself, as far as it has shown."""
        self.is_closed: bool = is_closed
        """Whether the run's end has begun."""
        self.replies: tuple[trio.CancelScope, ...] = ()
        """Around each reply that is being written."""

        self.post_ids: tuple[str, ...] = ()
        """Names of messages that were taken in, of those that have one."""

    def post(self, said: UserMessage, *, interrupt: bool, post_id: str | None = None) -> bool:
        """Take in a message; False where nobody would take it to a model."""
        if post_id in self.post_ids:
            # Whoever sent it lost the answer, and sends it again.
            return True
        is_open = (self.listeners or self.body_listens) and not self.is_closed
        if not is_open or len(self.waiting) >= _MOST_WAITING:
            return False
        self.waiting += (said,)
        if post_id is not None:
            self.post_ids += (post_id,)
        if interrupt and self.replies:
            # Of several at once one is to hear it: the others would be asked again for nothing.
            self.replies[-1].cancel(reason="the user says something")
        return True

    def hear(self, log: EventLog, transcript: Transcript, by: Speaker) -> UserMessage:
        """Take the first that waits into the log, where there is room, and into *transcript*."""
        return self._hear(log, transcript, lambda type, data: log.emit_nowait(type, data, by))

    def hear_the_rest(self, log: EventLog) -> None:
        """What nobody came to take is told at the end: whoever said it was told that it is."""
        self.is_closed = True
        transcript = [log.transcripts[ROOT], *self.listeners][-1]
        while self.waiting:
            self._hear(log, transcript, lambda type, data: log.record_closing(type, data, ROOT))

    @enable_ki_protection
    def _hear(
        self,
        log: EventLog,
        transcript: Transcript,
        record: Callable[[EventType, dict[str, Any]], object],
    ) -> UserMessage:
        said, *others = self.waiting
        self.waiting = tuple(others)
        log.transcripts.hear(transcript, said)
        record(EventType.USER_MESSAGE, {"message": said.text, "parts": copy_json(list(said.media))})
        return said
