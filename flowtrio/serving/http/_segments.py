"""A run told in somebody else's protocol: an answer that ends where the run waits for people.

Interfaces for chats ask, are answered, and ask again; in none of their protocols does an answer
stay open while somebody thinks. So one of our runs is several of theirs, its *segments*: one ends
at DONE, or as soon as all that goes on in the run waits for people. The next request brings what
they decided, and its answer goes on from there. The run itself is never begun again.

What stands open at the beginning of a segment is known from what went before. So a mapper is fed
the log from its beginning, always; what it gives for events that the reader has seen already is
thrown away. Whether everything waits is read from the log too; silence has to follow only since a
log does not tell what is about to begin.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar

import attrs

from flowtrio._agents._client_tool import asks_for_result
from flowtrio._core._events import AgentEvent, EventType
from flowtrio.serving.commands._clients import Refusal
from flowtrio.serving.commands._conceal import conceal
from flowtrio.wire._sse import encode_comment

from ._answers import SSE_HEADERS, Answer

MOMENT: Final = 0.05
"""Seconds after which an answer that may end does, if nothing has come that goes on: what is asked
at once, or comes of one decision, as the calls of one reply do, need not stand in one batch."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Mapper(Protocol[T_co]):
    """A log told in other words: a value without I/O, fed each event in order from the first."""

    @abstractmethod
    def feed(self, event: AgentEvent) -> Iterable[T_co]:
        """What *event* is in the protocol: maybe nothing, or several things."""

    @abstractmethod
    def resume(self) -> Iterable[T_co]:
        """What stands at the beginning of a segment that goes on with a run."""

    @abstractmethod
    def pause(self, waits: Waits) -> Iterable[T_co]:
        """What stands at the end of a segment whose run waits for people, as *waits* tells."""

    @abstractmethod
    def fail(self, code: str, error: str) -> Iterable[T_co]:
        """What is told where the log cannot be read on."""


@attrs.define(eq=False)
class Waits:
    """What a run waits for, and what else goes on in it, as its log tells."""

    is_attended: bool = True
    """Whether there are people: else only calls of tools that the other side runs are waited for,
    and what people would be asked is over before they could be."""
    approvals: dict[str, AgentEvent] = attrs.field(factory=dict, init=False)
    """The calls that wait for a person, each with its APPROVAL_REQUIRED, by call id."""
    questions: dict[str, AgentEvent] = attrs.field(factory=dict, init=False)
    """The questions that are open, each with its INPUT_REQUIRED, by request id; those that
    calls ask in the order in which the calls began, others behind them."""
    _open: dict[str, str | None] = attrs.field(factory=dict, init=False)
    """The calls that run, each with the one inside which it was made, and the messages."""

    def feed(self, event: AgentEvent) -> None:
        """Take the log's next event."""
        data = event.data
        match event.type:
            case EventType.APPROVAL_REQUIRED if self.is_attended:
                self.approvals[data["call_id"]] = event
            case EventType.TOOL_CALL_START:
                self.approvals.pop(data["call_id"], None)
                self._open[data["call_id"]] = data["parent_call_id"]
            case EventType.TOOL_CALL_END:
                self.approvals.pop(data["call_id"], None)
                self._open.pop(data["call_id"], None)
            case EventType.INPUT_REQUIRED if self.is_attended or asks_for_result(data):
                self.questions[data["request_id"]] = event
                # Calls of one reply begin in the model's order, and ask in any.
                begun = [*self._open]
                in_order = sorted(self.questions.items(), key=lambda item: _place(begun, item[1]))
                self.questions = dict(in_order)
            case EventType.INPUT_RESOLVED:
                self.questions.pop(data["request_id"], None)
            case (
                EventType.MESSAGE_CHUNK
                | EventType.REASONING_CHUNK
                | EventType.MESSAGE_PART
                | EventType.TOOL_CALL_ARGS
            ):
                self._open[data["message_id"]] = None
            case EventType.MESSAGE_COMPLETE:
                self._open.pop(data["message_id"], None)

    @property
    def for_people(self) -> bool:
        """Whether somebody is asked, and all that is open waits for the answer."""
        if not (self.approvals or self.questions):
            return False
        asking = [event.data.get("call_id") for event in self.questions.values()]
        asking += [event.data["parent_call_id"] for event in self.approvals.values()]
        return self._open.keys() <= self._with_outer(asking)

    def asks_for(self, ids: Iterable[str]) -> bool:
        """Whether the log still tells that one of these calls or requests waits."""
        return any(key in self.approvals or key in self.questions for key in ids)

    def _with_outer(self, call_ids: Iterable[str | None]) -> set[str]:
        """Calls, and those inside which they were made."""
        found: set[str] = set()
        for call_id in call_ids:
            while call_id is not None and call_id not in found:
                found.add(call_id)
                call_id = self._open.get(call_id)
        return found


def _place(begun: Sequence[str], asked: AgentEvent) -> int:
    call_id = asked.data["call_id"]
    return begun.index(call_id) if call_id in begun else len(begun)


@attrs.define(eq=False)
class Standing(Answer):
    """What a run waits for at one place of its log: an answer that is only fed."""

    last: int
    """The place: an event's number."""
    waits: Waits = attrs.field(factory=Waits)
    is_over: bool = attrs.field(default=False, init=False)

    def feed(self, batch: Sequence[AgentEvent]) -> bytes:
        """See `Answer`."""
        for event in batch:
            if event.seq <= self.last:
                self.waits.feed(event)
        self.is_over = batch[-1].seq >= self.last
        return b""


@attrs.define(eq=False, kw_only=True)
class Segment(Answer, Generic[T]):
    """A log, or what follows in it after a pause, in the words of a mapper."""

    mapper: Mapper[T]
    encode: Callable[[T], bytes]
    """Gives the bytes of what the mapper gives."""
    after: int = -1
    """The last event that the reader has seen, by its number; -1 for none."""
    shows_errors: bool = False
    """Whether the texts of the application's own exceptions are shown."""
    pauses: bool = True
    """Whether it ends where the run waits for people."""
    decided: Collection[str] = ()
    """What its request has decided, by call or request id: until the log tells what became of all
    of it, the run does not wait for people."""
    settled: int = -1
    """The last event, by its number, at which nothing waits any more: where the log before it tells
    of a wait, that is over. For one that is told again, or whose reader has fallen behind."""
    headers: Mapping[str, str] = SSE_HEADERS
    is_only_here: bool = False
    """Whether its reader has no way to ask another process for the rest of it."""
    tail: bytes = b""
    """What stands behind all, however it ends."""
    waits: Waits = attrs.field(factory=Waits)
    is_over: bool = attrs.field(default=False, init=False)
    is_paused: bool = attrs.field(default=False, init=False)
    """Whether it has ended since the run waits for people."""
    last: int = attrs.field(default=-1, init=False)
    """The newest event that was fed, by its number."""
    _has_begun: bool = attrs.field(default=False, init=False)
    _ahead: Waits = attrs.field(
        default=attrs.Factory(lambda self: attrs.evolve(self.waits), takes_self=True), init=False
    )
    """What waits behind what it may be fed next."""
    _watched: int = attrs.field(default=-1, init=False)
    """The newest event of which it is known what waits, by its number."""

    def feed(self, batch: Sequence[AgentEvent]) -> bytes:
        """See `Answer`."""
        pieces: list[bytes] = []
        for event in batch:
            if event.seq > self.after and not self._has_begun:
                self._has_begun = True
                if self.after >= 0:
                    pieces += map(self.encode, self.mapper.resume())
            told = self.mapper.feed(event if self.shows_errors else conceal(event))
            if event.seq > self.after:
                pieces += map(self.encode, told)
            self.waits.feed(event)
            self.last = event.seq
        # Not within a batch: what stands behind it in the log did not wait.
        if self._ends(self.waits, self.last):
            self.is_over = self.is_paused = True
            pieces += map(self.encode, self.mapper.pause(self.waits))
            pieces.append(self.tail)
        return b"".join(pieces)

    def may_end(self, batch: Sequence[AgentEvent]) -> bool:
        """Whether it would end behind *batch*, which it is fed later, maybe with more."""
        for event in batch:
            if event.seq > self._watched:
                self._ahead.feed(event)
                self._watched = event.seq
        return self._ends(self._ahead, self._watched)

    def _ends(self, waits: Waits, last: int) -> bool:
        is_waiting = waits.for_people and not waits.asks_for(self.decided)
        return self.pauses and last > max(self.after, self.settled) and is_waiting

    def quiet(self) -> bytes:
        """See `Answer`."""
        return encode_comment("still here")

    def fail(self, refusal: Refusal) -> bytes:
        """See `Answer`."""
        return b"".join([*map(self.encode, self.mapper.fail(*refusal)), self.tail])

    def end(self) -> bytes:
        """See `Answer`."""
        return self.tail
