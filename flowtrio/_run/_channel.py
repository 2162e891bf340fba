"""The ordered channel: a memory channel, and credits that pause whoever fills it.

A *credit* is the right to have one undelivered event. There are ``buffer`` of them. Whoever emits
takes one, waiting in line when none is left; the reader gives it back when it takes the event.

Closers do not wait. What closes a bracket may be put without a credit in hand: the count of credits
then goes below zero, and nobody gets a new one before the reader has worked that off. As no bracket
can be opened without a credit, at most ``buffer`` events plus one closer for each open bracket are
ever undelivered.

So the channel itself has no bound, and nobody ever waits in its ``send``: an event is stamped and
sent in one step, which a bounded channel could not promise (a sender that is cancelled while it
waits would leave a gap), and the end of a run is recorded whoever reads.
"""

from __future__ import annotations

import math
from typing import Protocol

import outcome
import trio
from trio.lowlevel import Abort, Task, current_task, wait_task_rescheduled

from flowtrio._core._events import AgentEvent
from flowtrio._core._nothing import NOTHING


class Speaker(Protocol):
    """Who emits: an agent's body or a call."""

    @property
    def agent(self) -> str:
        """Path of the agent in whose name it speaks."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether it was ended: what it still says is discarded."""
        ...


class EventChannel:
    """Events on their way from a run to its one reader."""

    __slots__ = ("_buffer", "_receive", "_send", "credits", "emitters")

    def __init__(self, buffer: float) -> None:
        self._buffer = buffer
        self._send: trio.MemorySendChannel[AgentEvent]
        self._receive: trio.MemoryReceiveChannel[AgentEvent]
        # Written as open_memory_channel[AgentEvent], each run would wait for typing's machinery.
        self._send, self._receive = trio.open_memory_channel(math.inf)
        self.emitters: dict[Task, Speaker] = NOTHING
        """Who waits for a credit, in line; truthy while anybody does."""
        self.credits: float = buffer
        """Events that may be put now; below zero while closers are owed for."""

    @property
    def undelivered(self) -> int:
        """Events put and not yet taken."""
        return self._receive.statistics().current_buffer_used

    # The writers' end

    async def wait_for_credit(self, speaker: Speaker) -> bool:
        """Wait in line for a credit; False if none is needed any more, see `release`."""
        task = current_task()
        if self.emitters is NOTHING:
            self.emitters = {}
        self.emitters[task] = speaker

        def abort(_: object) -> Abort:
            del self.emitters[task]
            return Abort.SUCCEEDED

        has_credit: bool = await wait_task_rescheduled(abort)
        return has_credit

    def give_back(self, credits: int = 1) -> None:
        """Return credits: their events were taken, or refused."""
        self.credits += credits
        # Waking is dear (7 µs), so it is done for half a buffer at a time.
        if self.emitters and self.credits * 2 >= self._buffer:
            while self.emitters and self.credits > 0:
                self.credits -= 1
                self._wake(next(iter(self.emitters)), True)

    def put(self, event: AgentEvent) -> None:
        """Append an event and wake the reader."""
        self._send.send_nowait(event)

    def release(self) -> None:
        """Wake those of the waiting emitters that were ended: what they would say is discarded."""
        for task in [task for task, speaker in self.emitters.items() if speaker.is_closed]:
            self._wake(task, False)

    def close(self) -> None:
        """Say that the last event was put, in the step that put it; it can still be taken."""
        self._send.close()

    def _wake(self, task: Task, has_credit: bool) -> None:
        del self.emitters[task]
        trio.lowlevel.reschedule(task, outcome.Value(has_credit))

    # The reader's end

    async def take(self) -> AgentEvent:
        """Take the oldest event, waiting for one.

        Raises:
          trio.EndOfChannel: the last event was taken.

        """
        event = await self._receive.receive()
        self.give_back()
        return event

    def take_nowait(self) -> AgentEvent:
        """Take the oldest event.

        Raises:
          trio.WouldBlock: there is none yet.
          trio.EndOfChannel: the last event was taken.

        """
        event = self._receive.receive_nowait()
        self.give_back()
        return event

    def take_ready(self) -> AgentEvent | None:
        """Take the oldest event; None where there is none yet.

        For who waits then: behind an ``except``, an exception and its frames would be kept.

        Raises:
          trio.EndOfChannel: the last event was taken.

        """
        try:
            return self.take_nowait()
        except trio.WouldBlock:
            return None

    def take_all(self) -> list[AgentEvent]:
        """Take all that is there."""
        take = self._receive.receive_nowait
        events = [take() for _ in range(self.undelivered)]
        if events:
            self.give_back(len(events))
        return events
