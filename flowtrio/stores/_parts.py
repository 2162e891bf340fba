"""Events that are kept in little room: neighbouring chunks of a message are one part of a log."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

import msgspec

from flowtrio._core._events import AgentEvent, EventType

_CHUNK: Final = EventType.MESSAGE_CHUNK
_ENVELOPE: Final = 140
"""Bytes of a chunk's event as JSON beside its text and its names."""

_encoder = msgspec.json.Encoder()


class Chunks(msgspec.Struct, gc=False):
    """Several chunks of one message, one behind the other."""

    first: AgentEvent
    """Their first event, which has all that they have in common."""
    texts: tuple[str, ...]
    times: tuple[float, ...]
    """The timestamp of each."""
    start: int = 0
    """How many of them were dropped."""

    def __len__(self) -> int:
        return len(self.texts) - self.start

    def size(self, start: int, stop: int) -> int:
        """About the bytes of some of them as events in JSON."""
        texts = "".join(self.texts[start:stop])
        return len(texts.encode()) + (stop - start) * _envelope(self.first)

    def events(self) -> list[AgentEvent]:
        """Events that are equal to those that were appended."""
        first, start = self.first, self.start
        run_id, agent, message_id = first.run_id, first.agent, first.data["message_id"]
        return [
            AgentEvent(_CHUNK, {"chunk": text, "message_id": message_id}, seq, run_id, agent, time)
            for seq, text, time in zip(
                range(first.seq + start, first.seq + len(self.texts)),
                self.texts[start:],
                self.times[start:],
                strict=True,
            )
        ]


def compact(events: Sequence[AgentEvent]) -> list[AgentEvent | Chunks]:
    """Events with neighbouring chunks of one message put together."""
    parts: list[AgentEvent | Chunks] = []
    place, end = 0, len(events)
    while place < end:
        first = events[place]
        together = _chunks_at(events, place) if first.type is _CHUNK else []
        if len(together) > 1:
            texts = tuple([event.data["chunk"] for event in together])
            parts.append(Chunks(first, texts, tuple([event.timestamp for event in together])))
            place += len(together)
        else:
            # Alone, an event is the smallest that there is.
            parts.append(first)
            place += 1
    return parts


def _chunks_at(events: Sequence[AgentEvent], place: int) -> list[AgentEvent]:
    """The chunks of one message that begin at *place*."""
    first = events[place]
    run_id, agent, message_id = first.run_id, first.agent, first.data["message_id"]
    together = []
    for event in islice(events, place, None):
        data = event.data
        if (
            event.type is not _CHUNK
            or data["message_id"] != message_id
            or event.agent != agent
            or event.run_id != run_id
            or len(data) != 2
        ):
            break
        together.append(event)
    return together


def size_of(part: AgentEvent | Chunks) -> int:
    if isinstance(part, Chunks):
        return part.size(0, len(part.texts))
    if part.type is _CHUNK:
        return len(part.data["chunk"].encode()) + _envelope(part)
    return len(_encoder.encode(part))


def _envelope(chunk: AgentEvent) -> int:
    return len(chunk.run_id) + len(chunk.agent) + _ENVELOPE
