"""A run's log: the gate through which all its events go.

Check the law, stamp the sequence number, put into the channel: one step without any await in
between, so the order of the stamps is the order of the channel, whoever emits. Two ways lead to it.
`EventLog.emit` takes a credit first, and waits for it; `EventLog.record` is for closing events and
owes its credit.

Beside the log stands what the closing events need to know of what is open: who opened it, and when.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from flowtrio._core._events import ROOT, AgentEvent, AgentStatus, EventType
from flowtrio._core._law import Law
from flowtrio._core._transcript import Transcript

from ._channel import EventChannel

if TYPE_CHECKING:
    from ._frame import Frame
    from ._model import Turn

logger = logging.getLogger("flowtrio")
_CHUNK: Final = EventType.MESSAGE_CHUNK

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


class EventLog:
    """The events of one run, from RUN_START to DONE."""

    __slots__ = (
        "_clock",
        "_ids",
        "_opened_at",
        "_schedule_every",
        "_until_schedule",
        "_wall_offset",
        "agents",
        "channel",
        "is_closing",
        "late_events",
        "law",
        "owners",
        "run_id",
        "transcripts",
        "turns",
    )

    def __init__(self, run_id: str, buffer: float, schedule_every: int) -> None:
        self.run_id: str = run_id
        self.law: Law = Law()
        self.channel: EventChannel = EventChannel(buffer)
        self.is_closing: bool = False
        """Whether nobody but the run's closer may record any more."""
        self.late_events: int = 0
        """Events discarded because the run, or who emitted them, was ending."""
        self.transcripts: dict[str, Transcript] = {}
        """The conversations of the run's agents, by path."""
        self.owners: dict[str, Frame] = {}
        """Which frame opened what is open, by key."""
        self.agents: dict[str, Frame] = {}
        """The frames of the nested agents that run, by path."""
        self.turns: dict[str, Turn] = {}
        """The model replies that are under way, by message."""
        self._opened_at: dict[str, float] = {}
        self._ids: dict[str, int] = {}
        self._schedule_every = schedule_every
        self._until_schedule = schedule_every

    def start(self, wall_clock: Callable[[], float]) -> None:
        """Set the clocks; in Trio, before the first event."""
        # Asked directly, the clock costs a third of trio.current_time().
        self._clock = trio.lowlevel.current_clock()
        self._wall_offset = wall_clock() - self._clock.current_time()

    # The two ways in

    @enable_ki_protection
    async def emit(self, type: EventType, data: dict[str, Any], agent: str) -> AgentEvent | None:
        """Record an event when there is room for it.

        Always a cancel point; a schedule point when it waits and at least every 64 events of the
        run. Either records the event or leaves the run unchanged.

        Returns:
          The event; None if it was discarded because the run is closing.

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
        if channel.credits > 0 and not channel.emitters and not self.is_closing:
            channel.credits -= 1
        elif not await self._wait_for_credit():
            self.discard(type)
            return None
        try:
            event = self._put(type, data, agent)
        except BaseException:
            channel.give_back()
            raise
        if type is not _CHUNK:
            self._note(event)
        return event

    def record(self, type: EventType, data: dict[str, Any], agent: str) -> AgentEvent | None:
        """Record a closing event at once, owing its credit; discarded if the run is closing."""
        if self.is_closing:
            self.discard(type)
            return None
        self.channel.credits -= 1
        return self._record_or_give_back(type, data, agent)

    def discard(self, type: EventType) -> None:
        """Take no notice of an event that comes too late."""
        if self.law.is_done:
            raise trio.ClosedResourceError(
                f"can't emit {type.upper()} when run={self.law.status} (run {self.run_id!r})"
            )
        self.late_events += 1

    async def _wait_for_credit(self) -> bool:
        """Wait in line for a credit; False if the run is closing and none is needed any more."""
        if not self.is_closing:
            await self.channel.wait_for_credit()
            # That was a schedule point, and another one soon would cut the reader's batches short.
            self._until_schedule = self._schedule_every
        if not self.is_closing:
            return True
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
    def record_closing(self, type: EventType, data: dict[str, Any], agent: str) -> AgentEvent:
        """Record an event whatever credits there are: for the run's closer."""
        event = self._put(type, data, agent)
        try:
            self._note(event)
        except Exception:
            # A bug of ours. The end has to be recorded all the same, and nobody is there to tell.
            logger.exception("run %s: %s is not in its conversation", self.run_id, type)
        return event

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
        data, agent = event.data, event.agent
        match event.type:
            case EventType.TOOL_CALL_START:
                self._opened_at[data["call_id"]] = self._clock.current_time()
            case EventType.AGENT_START:
                self._opened_at[agent] = self._clock.current_time()
            case EventType.MESSAGE_COMPLETE:
                self._forget(data["message_id"])
                self.turns.pop(data["message_id"], None)
                if transcript := self.transcripts.get(agent):
                    transcript.note_message(data)
            case EventType.TOOL_CALL_END:
                self._forget(data["call_id"])
                if transcript := self.transcripts.get(agent):
                    transcript.note_result(data)
            case EventType.AGENT_END:
                self._forget(agent)
                self.transcripts.pop(agent, None)
                self.agents.pop(agent, None)
            case EventType.INPUT_RESOLVED:
                self._forget(data["request_id"])
            case _:
                pass

    def _forget(self, key: str) -> None:
        self.owners.pop(key, None)
        self._opened_at.pop(key, None)

    # Status

    @property
    def status(self) -> AgentStatus:
        """What the run is doing."""
        return self.law.status or AgentStatus.INITIALIZING

    @enable_ki_protection
    async def set_status(self, reason: str | None = None) -> None:
        """Emit the STATE_CHANGE that what is open, or a new reason, makes necessary, if any."""
        await checkpoint_if_cancelled()
        data = self._status_data(reason)
        if data is None:
            return
        channel = self.channel
        if channel.credits > 0 and not channel.emitters and not self.is_closing:
            channel.credits -= 1
        elif not await self._wait_for_credit():
            self.discard(EventType.STATE_CHANGE)
            return
        else:
            # What is open may have changed while this waited, and the answer with it.
            data = self._status_data(reason)
        if data is None:
            channel.give_back()
        else:
            self._record_or_give_back(EventType.STATE_CHANGE, data, ROOT)

    def set_status_nowait(self, reason: str | None = None) -> None:
        """Record the same at once, owing its credit."""
        data = self._status_data(reason)
        if data is not None and not self.is_closing:
            self.record(EventType.STATE_CHANGE, data, ROOT)

    def _status_data(self, reason: str | None) -> dict[str, Any] | None:
        law = self.law
        if law.status is None or law.is_done:
            return None
        new = law.derived_status()
        if new is law.status and (reason is None or reason == law.reason):
            return None
        return {"old_status": str(law.status), "new_status": str(new), "reason": reason}

    # Names and times

    def new_id(self, letter: str) -> str:
        """The run's next identifier of this kind: ``m1``, ``c1``, ``q1``."""
        number = self._ids.get(letter, 0) + 1
        self._ids[letter] = number
        return f"{letter}{number}"

    def new_path(self, parent: str, name: str) -> str:
        """A path of its own for a nested agent: ``root/researcher``, then ``root/researcher#2``."""
        path = f"{parent}/{name.replace('/', '_').replace('#', '_') or 'agent'}"
        number = self._ids.get(path, 0) + 1
        self._ids[path] = number
        return path if number == 1 else f"{path}#{number}"

    def now(self) -> float:
        """Trio's clock."""
        return self._clock.current_time()

    def trio_time(self, event: AgentEvent) -> float:
        """When *event* was recorded, by Trio's clock."""
        return event.timestamp - self._wall_offset

    def seconds_since(self, key: str) -> float | None:
        """How long a call or nested agent has been running; None if it never started."""
        opened_at = self._opened_at.get(key)
        return None if opened_at is None else self.now() - opened_at

    def statistics(self) -> RunStatistics:
        """See `EventStream.statistics`."""
        return RunStatistics(
            events=self.law.count,
            undelivered=len(self.channel.queue),
            credits=self.channel.credits,
            parked_emitters=len(self.channel.emitters),
            late_events=self.late_events,
            open_brackets=len(self.law.open_brackets()),
        )
