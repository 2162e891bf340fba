"""The seam of HTTP answers: a run's log as what one reader is sent, whatever the protocol.

An answer is a value without I/O. It is fed the log in its order, batch by batch, and gives bytes;
who sends them, pauses for a slow client, keeps a quiet connection open and notices that a client
has left is `_following`. So each form of an answer is a small module of its own: here those of
flowtrio's own events, in `_segments` those that other people's protocols are made of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs

from flowtrio._core._events import AgentEvent
from flowtrio.serving.commands._clients import Refusal
from flowtrio.serving.commands._showing import Showing
from flowtrio.wire._frames import encode_events, encode_rejected
from flowtrio.wire._sse import encode_comment, encode_event

_RETRY: Final = 1000
"""Milliseconds after which an EventSource comes back."""
SSE_HEADERS: Final = {"content-type": "text/event-stream", "x-accel-buffering": "no"}
_LINES: Final = {"content-type": "application/x-ndjson", "x-accel-buffering": "no"}


class Answer(ABC):
    """What a log is sent as, or only fed to; from `start` on, in order."""

    __slots__ = ()

    after: int = -1
    """The last event that the reader has seen, by its number; -1 for none."""
    start: int = -1
    """The place behind which the log has to be fed: -1 where all before it matters."""
    headers: Mapping[str, str] = MappingProxyType({})
    """The answer's own headers."""
    is_only_here: bool = False
    """Whether its reader has no way to ask another process for the rest of it."""
    is_over: bool
    """Whether it has ended before its log has, such as where the run waits for people."""

    def begin(self) -> bytes:
        """What stands before all."""
        return b""

    @abstractmethod
    def feed(self, batch: Sequence[AgentEvent]) -> bytes:
        """Take the log's next events; gives what the reader gets of them, maybe nothing."""

    def quiet(self) -> bytes:
        """A sign of life that says nothing."""
        return b""

    def fail(self, refusal: Refusal) -> bytes:
        """The log cannot be read on; its status is told already."""
        return b""

    def end(self) -> bytes:
        """The log has ended."""
        return b""


@attrs.define(eq=False)
class _Shown(Answer):
    """Events of the log as they are, in one of the modes."""

    _showing: Showing
    is_over: bool = attrs.field(default=False, init=False)
    after: int = attrs.field(init=False)
    start: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.after, self.start = self._showing.after, self._showing.start


@attrs.define(eq=False)
class EventsAnswer(_Shown):
    """Server-Sent Events, each with its place as its id."""

    headers: Mapping[str, str] = attrs.field(default=SSE_HEADERS, init=False)

    def begin(self) -> bytes:
        """See `Answer`."""
        return f"retry: {_RETRY}\n\n".encode()

    def feed(self, batch: Sequence[AgentEvent]) -> bytes:
        """See `Answer`."""
        events = self._showing.show(batch)
        texts = encode_events(events, is_batch=False)
        return b"".join(
            encode_event(text, id=f"{event.run_id}:{event.seq}")
            for event, text in zip(events, texts, strict=True)
        )

    def quiet(self) -> bytes:
        """See `Answer`."""
        return encode_comment("still here")

    def fail(self, refusal: Refusal) -> bytes:
        """See `Answer`: the frame that a WebSocket would get."""
        return encode_event(encode_rejected(None, *refusal))


@attrs.define(eq=False)
class LinesAnswer(_Shown):
    """Lines of JSON, one an event."""

    headers: Mapping[str, str] = attrs.field(default=_LINES, init=False)

    def feed(self, batch: Sequence[AgentEvent]) -> bytes:
        """See `Answer`."""
        events = self._showing.show(batch)
        return "".join(f"{text}\n" for text in encode_events(events, is_batch=False)).encode()

    def quiet(self) -> bytes:
        """See `Answer`."""
        return b"\n"

    def fail(self, refusal: Refusal) -> bytes:
        """See `Answer`: the frame that a WebSocket would get."""
        return f"{encode_rejected(None, *refusal)}\n".encode()
