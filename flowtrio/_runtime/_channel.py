"""The ordered channel: a queue, and credits that pause whoever fills it.

A *credit* is the right to have one undelivered event. There are ``buffer`` of them. Whoever emits
takes one, waiting in line when none is left; the reader gives it back when it takes the event.

Closers do not wait. What closes a bracket may be put without a credit in hand: the count of credits
then goes below zero, and nobody gets a new one before the reader has worked that off. As no bracket
can be opened without a credit, at most ``buffer`` events plus one closer for each open bracket are
ever undelivered.

The queue is a deque and not a `trio.MemorySendChannel`: there is one reader, the waiting is ours
anyway, and a deque costs about a sixth less for each event.
"""

from __future__ import annotations

from collections import deque

import trio
from trio.lowlevel import Abort, Task, current_task, wait_task_rescheduled

from flowtrio._core._events import AgentEvent


class EventChannel:
    """Events on their way from a run to its one reader."""

    __slots__ = ("_buffer", "_reader", "credits", "emitters", "is_closed", "queue")

    def __init__(self, buffer: float) -> None:
        self._buffer = buffer
        self.queue: deque[AgentEvent] = deque()
        """Events put and not yet taken. To be read by the reader only, and taken by `take`."""
        self._reader: Task | None = None
        self.emitters: dict[Task, None] = {}
        """Who waits for a credit, in line; truthy while anybody does."""
        self.credits: float = buffer
        """Events that may be put now; below zero while closers are owed for."""
        self.is_closed: bool = False
        """Whether the last event was put."""

    # The writers' end

    async def wait_for_credit(self) -> None:
        """Wait in line for a credit; it is taken when this returns.

        After `release` it returns at once, credit or not: the caller looks at its run's state.
        """
        task = current_task()
        self.emitters[task] = None

        def abort(_: object) -> Abort:
            del self.emitters[task]
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def give_back(self, credits: int = 1) -> None:
        """Return credits: their events were taken, or refused."""
        self.credits += credits
        # Waking is dear (7 µs), so it is done for half a buffer at a time.
        if self.emitters and self.credits * 2 >= self._buffer:
            while self.emitters and self.credits > 0:
                self.credits -= 1
                self._wake_emitter()

    def put(self, event: AgentEvent) -> None:
        """Append an event and wake the reader."""
        self.queue.append(event)
        if self._reader is not None:
            self._wake_reader()

    def release(self) -> None:
        """Wake every emitter that waits: no more credits will be given."""
        while self.emitters:
            self._wake_emitter()

    def close(self) -> None:
        """Say that the last event was put, in the step that put it; it can still be taken."""
        self.is_closed = True

    def _wake_emitter(self) -> None:
        task = next(iter(self.emitters))
        del self.emitters[task]
        trio.lowlevel.reschedule(task)

    # The reader's end

    async def wait_ready(self) -> None:
        """Wait until an event can be taken.

        Raises:
          trio.EndOfChannel: the last event was taken.

        """
        while not self.queue:
            if self.is_closed:
                raise trio.EndOfChannel
            self._reader = current_task()
            await wait_task_rescheduled(self._abort)

    def take(self) -> AgentEvent:
        """Take the oldest event. There has to be one."""
        event = self.queue.popleft()
        self.give_back()
        return event

    def take_all(self) -> list[AgentEvent]:
        """Take all that is there."""
        events = list(self.queue)
        if events:
            self.queue.clear()
            self.give_back(len(events))
        return events

    def _abort(self, _: object) -> Abort:
        self._reader = None
        return Abort.SUCCEEDED

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        assert reader is not None
        trio.lowlevel.reschedule(reader)
