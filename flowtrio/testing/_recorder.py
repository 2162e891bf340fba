"""`RunRecorder`: reads runs for a test, and keeps their logs for the case that it fails."""

from __future__ import annotations

from flowtrio._core._events import AgentEvent
from flowtrio._run._stream import EventStream

from ._checks import check_events
from ._replay import keep


class RunRecorder:
    """Keeps the events that a test reads.

    Under pytest the log of a test that fails is written to a file with a timeline beside it.
    """

    def __init__(self) -> None:
        self.events: list[AgentEvent] = []
        """What was read of the last run."""

    def keep(self, event: AgentEvent) -> AgentEvent:
        """Keep one event, for tests with a loop of their own; gives it back."""
        if event.seq == 0 or not self.events:
            self.events = []
            keep(self.events)
        self.events.append(event)
        return event

    async def read(self, stream: EventStream) -> list[AgentEvent]:
        """Read a run to its end in a block of its own, check the laws, and give its log.

        Raises:
          LawBroken: the log is not lawful.

        """
        async with stream:
            async for event in stream:
                self.keep(event)
        check_events(self.events)
        return self.events
