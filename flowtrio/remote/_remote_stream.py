"""One run on a server, read like an `EventStream`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, Self

import trio

from flowtrio._core._events import AgentEvent, AgentStatus, EventType, StreamMode
from flowtrio._core._exceptions import RunCancelled, RunFailed

from ._remote_controls import RemoteControls

if TYPE_CHECKING:
    from ._commands import Command, Commands

_CLEANUP: Final = 5.0
"""Seconds that leaving waits for the server to end what it was told to."""
_BUFFER: Final = 1024
"""Events of a stream that were received and not yet read, before the connection is paused."""


class RemoteStream(RemoteControls, AsyncIterator[AgentEvent]):
    """One run on a server, with the interface of `EventStream`.

    Made by `Remote.process_stream`, then leaving it cancels the run; or by `Remote.attach`, then
    leaving it does nothing. The controls are sent, and sent again after a drop; whether they took
    effect is seen in the events.
    """

    def __init__(
        self,
        commands: Commands,
        run_id: str,
        mode: StreamMode,
        after: int,
        start: Command | None,
        *,
        snapshot: bool = False,
    ) -> None:
        self.run_id = run_id
        """The run's id."""
        self.mode = mode
        """Which view of the log this stream gives."""
        self.status = AgentStatus.INITIALIZING
        """What the run is doing, as far as its events say."""
        self._commands = commands
        self._start = start
        self._wants_snapshot = snapshot
        """Until it has come."""
        self._last = after
        self._has_events = False
        self._queue: deque[AgentEvent] = deque()
        self._news = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._failure: Exception | None = None
        self._last_event: AgentEvent | None = None
        self._error: dict[str, Any] | None = None
        self._has_begun = False
        self._is_done = False
        self._is_cancelled = False
        self._is_closed = False
        self._is_reading = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread: int | None = None

    def __repr__(self) -> str:
        return f"<RemoteStream run={self.run_id!r} status={str(self.status)!r}>"

    # What the connection does with it; see `Listener`

    def _opening(self) -> Command:
        if self._start is not None and not self._has_events:
            return {**self._start, "run_id": self.run_id, "mode": str(self.mode)}
        return self._resuming()

    def _resuming(self) -> Command:
        keys: Command = {"run_id": self.run_id, "mode": str(self.mode)}
        if self._wants_snapshot:
            keys["snapshot"] = True
        return {"type": "resume", "after": self._last, **keys}

    def _misses(self, event: AgentEvent, after: object) -> bool:
        if isinstance(after, int):
            return after > self._last
        if self._wants_snapshot:
            return False  # It stands for all before it.
        return self.mode is StreamMode.EVENTS and event.seq > self._last + 1

    async def _take(self, event: AgentEvent) -> None:
        if event.seq <= self._last or self._is_closed:
            return
        while len(self._queue) >= _BUFFER and not self._is_closed:
            await self._room.park()
        self._last = event.seq
        self._has_events = True
        self._last_event = event
        if self._wants_snapshot and "state" in event.data:
            self._wants_snapshot = False
            self.status = AgentStatus(event.data["state"]["status"])
            self._error = event.data["state"]["error"]
        match event.type:
            case EventType.STATE_CHANGE:
                self.status = AgentStatus(event.data["new_status"])
            case EventType.ERROR:
                self._error = event.data
            case EventType.DONE:
                self.status = AgentStatus(event.data["status"])
                self._end()
            case _:
                pass
        self._queue.append(event)
        self._news.unpark_all()

    def _end(self) -> None:
        self._is_done = True
        self._commands.forget(self)
        self._news.unpark_all()

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._commands.forget(self)
        self._news.unpark_all()

    # The two ways in

    def _begin(self) -> None:
        self._has_begun = True
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._commands.add(self)

    async def __aenter__(self) -> Self:
        """Start the run, or attach to it."""
        if self._has_begun:
            raise RuntimeError(
                f"can't start run {self.run_id!r} again: this stream was used before"
            )
        await trio.lowlevel.checkpoint()
        self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave; a run that this stream started is cancelled, and has a while to end."""
        await self.aclose()

    async def aclose(self) -> None:
        """Leave; a run that this stream started is cancelled, and has a while to end."""
        if self._has_begun and self._start is not None and self._goes_on:
            self.cancel("the reader left")
            within = trio.current_time() + _CLEANUP
            with trio.CancelScope(shield=True, deadline=within):
                while self._goes_on:
                    self._queue.clear()
                    self._room.unpark_all()
                    await self._news.park()
        self._is_closed = True
        self._room.unpark_all()
        self._news.unpark_all()
        self._commands.forget(self)
        await trio.lowlevel.checkpoint()

    @property
    def _goes_on(self) -> bool:
        return not self._is_done and self._failure is None

    # Reading

    def __aiter__(self) -> Self:
        """Iterate; outside a block the first step starts the run, or attaches to it."""
        return self

    async def __anext__(self) -> AgentEvent:
        """Give the next event."""
        try:
            await self._wait()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        event = self._queue.popleft()
        self._room.unpark_all()
        return event

    async def receive_batch(self) -> list[AgentEvent]:
        """Wait for an event, and give it with all that are ready after it.

        Raises:
          trio.EndOfChannel: DONE was given before.
          LimitExceeded: the server refused to start the run (``code`` says why).
          RunExists: it has a run of this id that answers another message.
          LookupError: the server knows no such run.
          ReplayGap: the server has lost the events that come next.
          trio.BrokenResourceError: the connection was lost, for longer than its patience.

        """
        await self._wait()
        batch = list(self._queue)
        self._queue.clear()
        self._room.unpark_all()
        return batch

    async def _wait(self) -> None:
        """Wait until an event is ready."""
        if self._is_reading:
            raise trio.BusyResourceError(f"another task is reading run {self.run_id!r}")
        self._is_reading = True
        try:
            await trio.lowlevel.checkpoint()
            if not self._has_begun:
                self._begin()
            while not self._queue:
                if self._is_done:
                    raise trio.EndOfChannel
                if self._failure is not None:
                    raise self._failure
                if self._is_closed:
                    raise trio.ClosedResourceError("this stream was closed")
                await self._news.park()
        finally:
            self._is_reading = False

    async def result(self) -> Any:
        """Read the rest of the events away and give what the agent returned, as JSON.

        Raises:
          RunFailed: the run failed.
          RunCancelled: the run was cancelled.
          LookupError: this reader began behind DONE, which has the result; or see `receive_batch`.
          Exception: the run cannot be read to its end; see `receive_batch`.

        """
        try:
            while True:
                await self.receive_batch()
        except trio.EndOfChannel:
            pass
        if self._last_event is None:
            raise LookupError(
                f"run {self.run_id!r} had ended by seq {self._last}, where this reader began: "
                "attach from an earlier place for its result"
            )
        data = self._last_event.data
        if data["status"] == "completed":
            return data["result"]
        known: dict[str, Any] = {
            "run_id": self.run_id,
            "messages": [],
            "usage": data["usage"],
        }
        if self._error is None:
            reason = data["reason"] or "no reason given"
            raise RunCancelled(f"run {self.run_id!r} was cancelled: {reason}", **known)
        raise RunFailed(
            f"run {self.run_id!r} failed: {self._error['error']}", error=self._error, **known
        )

    def _control(self, type: str, **keys: Any) -> bool:
        """Send a command; True if the run goes on as far as we know."""
        if self._token is None or not self._goes_on or self._is_closed:
            return False
        command = {"type": type, "run_id": self.run_id, **keys}
        if threading.get_ident() == self._thread:
            self._commands.ask(command)
        else:
            try:
                self._token.run_sync_soon(self._commands.ask, command)
            except trio.RunFinishedError:
                return False
        return True
