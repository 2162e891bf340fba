"""A run's log: the gate through which all its events go.

Check the law, stamp the sequence number, put into the channel: one step without any await in
between, so the order of the stamps is the order of the channel, whoever emits. Two ways lead to it.
`EventLog.emit` takes a credit first, and waits for it; `EventLog.close` is for what is open, see
`_open`, and owes its credit.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from flowtrio._core._closing import closing_event
from flowtrio._core._events import ROOT, AgentEvent, AgentStatus, EventType
from flowtrio._core._law import OF_THE_RUN, Law
from flowtrio._core._telling import tell

from ._channel import EventChannel
from ._conversations import Conversations
from ._open import OpenThings

if TYPE_CHECKING:
    from ._channel import Speaker
    from ._info import RunInfo
    from ._telemetry import Observer

_CHUNK: Final = EventType.MESSAGE_CHUNK
_UNNOTED: Final = frozenset(
    {EventType.REASONING_CHUNK, EventType.TOOL_CALL_ARGS, EventType.TOOL_PROGRESS}
)
"""Others of which there may be many, and that nothing later needs: see `_note`."""

SCHEDULE_EVERY = 64
"""Events of a run between two schedule points of its emitters."""


@attrs.frozen(kw_only=True)
class RunStatistics:
    """A snapshot for debugging; never used for logic."""

    events: int
    """Events recorded."""
    undelivered: int
    """Events recorded and not yet read."""
    credits: float
    """Events that may be recorded before the producers have to wait."""
    parked_emitters: int
    """Tasks that wait for the reader."""
    late_events: int
    """Events discarded because the run, or who emitted them, was ending."""
    open_brackets: int
    """Calls, nested agents, questions and messages without their closing event."""

    @classmethod
    def of(cls, log: EventLog) -> RunStatistics:
        """What *log* is like now."""
        return cls(
            events=log.law.count,
            undelivered=log.channel.undelivered,
            credits=log.channel.credits,
            parked_emitters=len(log.channel.emitters),
            late_events=log.late_events,
            open_brackets=len(log.law.open_brackets()),
        )


class EventLog:
    """The events of one run, from RUN_START to DONE."""

    __slots__ = (
        "_clock",
        "_opened",
        "_schedule_every",
        "_until_schedule",
        "_wall_offset",
        "channel",
        "is_closing",
        "late_events",
        "law",
        "observer",
        "run_id",
        "transcripts",
    )

    def __init__(self, info: RunInfo) -> None:
        self.run_id: str = info.run_id
        self.observer: Observer | None = info.observer
        """Who hears of what is recorded, the pieces of messages and calls aside."""
        self.law: Law = Law()
        self.channel: EventChannel = EventChannel(info.limits.buffer)
        self.is_closing: bool = False
        """Whether nobody but the run's closer may record any more."""
        self.late_events: int = 0
        """Events discarded because the run, or who emitted them, was ending."""
        self.transcripts: Conversations = Conversations(info)
        """The conversations of the run's agents."""
        self._opened: OpenThings | None = None
        self._schedule_every = self._until_schedule = info.schedule_every

    @property
    def opened(self) -> OpenThings:
        """What is open, or about to be; made for whoever asks first, as most idle without any."""
        things = self._opened = self._opened or OpenThings(self.run_id)
        return things

    def start(self, wall_clock: Callable[[], float]) -> None:
        """Set the clocks; in Trio, before the first event."""
        # Asked directly, the clock costs a third of trio.current_time().
        self._clock = trio.lowlevel.current_clock()
        self._wall_offset = _read(wall_clock) - self._clock.current_time()

    # The two ways in

    @enable_ki_protection
    async def emit(self, type: EventType, data: dict[str, Any], by: Speaker) -> AgentEvent | None:
        """Record an event when there is room for it.

        Always a cancel point; a schedule point when it waits and at least every 64 events of the
        run. Either records the event or leaves the run unchanged.

        Returns:
          The event; None if it was discarded because the run, or who speaks, was ended.

        Raises:
          LocalProtocolError: the event is illegal here.
          trio.ClosedResourceError: the run has ended.

        """
        # The first half of _take_credit stands here again: for every token, a call less.
        self._until_schedule -= 1
        if self._until_schedule > 0:
            await checkpoint_if_cancelled()
        else:
            self._until_schedule = self._schedule_every
            await checkpoint()
        channel = self.channel
        if channel.credits > 0 and not channel.emitters and not by.is_closed:
            channel.credits -= 1
        elif not await self._take_credit(by):
            self.discard(type)
            return None
        try:
            event = self._put(type, data, by.agent)
        except BaseException:
            channel.give_back()
            raise
        if type is not _CHUNK and type not in _UNNOTED:
            self._note(event)
        return event

    def has_room(self, by: Speaker) -> bool:
        """Whether *by* could emit now without waiting, and without a schedule point being due."""
        channel = self.channel
        is_free = channel.credits > 0 and not channel.emitters and not by.is_closed
        return is_free and self._until_schedule > 1

    def emit_nowait(self, type: EventType, data: dict[str, Any], by: Speaker) -> None:
        """Emit where there is room."""
        self._until_schedule -= 1
        self.channel.credits -= 1
        self._record_or_give_back(type, data, by.agent)

    async def wait_for_room(self, by: Speaker) -> bool:
        """Wait until an event could be recorded, and keep nothing of that; False if *by* has ended.

        For what is opened without an event of its own: its closer will owe a credit, and without
        this wait nothing would bound how many do.
        """
        has_credit = await self._take_credit(by)
        if has_credit:
            self.channel.give_back()
        return has_credit

    def discard(self, type: EventType) -> None:
        """Take no notice of an event that comes too late."""
        if self.law.is_done:
            raise trio.ClosedResourceError(
                f"can't emit {type.upper()} when run={self.law.status} (run {self.run_id!r})"
            )
        self.late_events += 1

    async def _take_credit(self, by: Speaker) -> bool:
        """Take a credit, waiting in line; False if *by* was ended, and none is needed any more."""
        channel = self.channel
        if by.is_closed:
            await checkpoint_if_cancelled()
            return False
        if channel.credits > 0 and not channel.emitters:
            channel.credits -= 1
            return True
        has_credit = await channel.wait_for_credit(by)
        # That was a schedule point, and another one soon would cut the reader's batches short.
        self._until_schedule = self._schedule_every
        if not _is_over(by):
            return True
        if has_credit:
            channel.give_back()
        await checkpoint_if_cancelled()
        return False

    # The gate

    @enable_ki_protection
    def _record_or_give_back(self, type: EventType, data: dict[str, Any], agent: str) -> AgentEvent:
        try:
            event = self._put(type, data, agent)
        except BaseException:
            self.channel.give_back()
            raise
        self._note(event)
        return event

    @enable_ki_protection
    def record_closing(self, type: EventType, data: dict[str, Any], agent: str) -> None:
        """Record an event whatever credits there are: for the run's closer."""
        event = self._put(type, data, agent)
        try:
            self._note(event)
        except Exception as exc:
            # A bug of ours. The end has to be recorded all the same, and nobody is there to tell.
            text = "run %s: %s is not in its conversation"
            tell(logging.ERROR, text, self.run_id, type, exc=exc)

    def record_last(self, type: EventType, data: dict[str, Any]) -> None:
        """Record one of the events that end the run, whatever the law says of it.

        It says nothing, or there is a bug of ours; but who waits for DONE would wait for ever.
        """
        try:
            self.record_closing(type, data, ROOT)
        except Exception as exc:
            tell(logging.ERROR, "run %s: its end is not lawful", self.run_id, exc=exc)
            self.law.count += 1
            self.law.is_done = type is EventType.DONE
            now = self._clock.current_time() + self._wall_offset
            event = AgentEvent(type, data, self.law.count - 1, self.run_id, ROOT, now)
            self.channel.put(event)
            if self.observer is not None:
                self.observer.hear(event)

    def _put(self, type: EventType, data: dict[str, Any], agent: str) -> AgentEvent:
        """Check the law, stamp, put: the gate of all. To be called with Ctrl-C held off.

        Either the law refuses, and nothing has changed; or the event is in the channel. Whatever
        else might fail stands before the law's step, or comes after this.
        """
        now = self._clock.current_time()
        law = self.law
        seq = law.count
        law.step(type, data, agent)
        event = AgentEvent(type, data, seq, self.run_id, agent, now + self._wall_offset)
        self.channel.put(event)
        return event

    def _note(self, event: AgentEvent) -> None:
        """Keep what later events and the conversation need of this one, in the same step."""
        if event.type not in OF_THE_RUN:
            self.opened.note(event, self._clock)
            self.transcripts.note(event)
        if self.observer is not None:
            # Last, since whoever hears of it may end a call, or the run, there and then.
            self.observer.hear(event)

    # Closers

    async def pause(self) -> None:
        """Be the cancel point that emitting is, and now and then a schedule point."""
        self._until_schedule -= 1
        if self._until_schedule > 0:
            await checkpoint_if_cancelled()
        else:
            self._until_schedule = self._schedule_every
            await checkpoint()

    def record_end(self, data: dict[str, Any], by: Speaker) -> None:
        """Record the END of an open call at once and owing its credit, as all closers do.

        A call's START has waited for the reader. Would its END too, every call of a reply had to be
        woken once more, and one that is ended early in that wait would have two ends to choose of.
        """
        if by.is_closed:
            self.discard(EventType.TOOL_CALL_END)
            return
        self.channel.credits -= 1
        self._record_or_give_back(EventType.TOOL_CALL_END, data, by.agent)

    def close(self, only: Container[str]) -> None:
        """Close some of what is open, at once and owing the credits; the run goes on."""
        if self.is_closing:
            return
        # Asked of each in its turn: one may be closed by whoever hears of another one's end.
        for bracket in filter(self.law.is_open, self.law.open_brackets(only)):
            type, data = closing_event(bracket, self.opened.ask(bracket.key))
            self.channel.credits -= 1
            self._record_or_give_back(type, data, bracket.agent)
        self.opened.stop(only)
        self.set_status_nowait()

    def close_ended(self) -> None:
        """Close what belongs to frames that were ended."""
        self.close(self.opened.ended())

    def close_all(self) -> None:
        """Close everything: for the run's closer."""
        for bracket in self.law.open_brackets():
            type, data = closing_event(bracket, self.opened.ask(bracket.key))
            self.record_closing(type, data, bracket.agent)
        if self._opened is not None:
            self._opened.stop()

    # Status

    @property
    def status(self) -> AgentStatus:
        """What the run is doing."""
        return self.law.status or AgentStatus.INITIALIZING

    @enable_ki_protection
    async def set_status(self, by: Speaker, reason: str | None = None) -> None:
        """Emit the STATE_CHANGE that what is open, or a new reason, makes necessary, if any."""
        await checkpoint_if_cancelled()
        if self._status_data(reason) is None and not by.is_closed:
            return
        if not await self._take_credit(by):
            self.discard(EventType.STATE_CHANGE)
            return
        # What is open may have changed while this waited, and the answer with it.
        data = self._status_data(reason)
        if data is None:
            self.channel.give_back()
        else:
            self._record_or_give_back(EventType.STATE_CHANGE, data, ROOT)

    def set_status_nowait(self) -> None:
        """Record what is open as the status, at once, owing the credit."""
        data = self._status_data(None)
        if data is not None and not self.is_closing:
            self.channel.credits -= 1
            self._record_or_give_back(EventType.STATE_CHANGE, data, ROOT)

    def _status_data(self, reason: str | None) -> dict[str, Any] | None:
        law = self.law
        if law.status is None or law.is_done:
            return None
        new = law.derived_status()
        if new is law.status and (reason is None or reason == law.reason):
            return None
        return {"old_status": str(law.status), "new_status": str(new), "reason": reason}

    # Times

    def now(self) -> float:
        """Trio's clock."""
        return self._clock.current_time()

    def trio_time(self, event: AgentEvent) -> float:
        """When *event* was recorded, by Trio's clock."""
        return event.timestamp - self._wall_offset

    def seconds_since(self, key: str) -> float | None:
        """How long a call or nested agent has been running; None if it never started."""
        since = self.opened.since(key)
        return None if since is None else self.now() - since


def _is_over(by: Speaker) -> bool:
    # Asked anew after a wait: type checkers would keep the answer from before it.
    return by.is_closed


def _read(wall_clock: Callable[[], float]) -> float:
    """The time by a clock that may be anybody's; by the system's where that has none to tell."""
    try:
        now = float(wall_clock())
    except BaseException as exc:
        tell(logging.ERROR, "the wall clock failed", exc=exc)
        return time.time()
    return now if math.isfinite(now) else time.time()
