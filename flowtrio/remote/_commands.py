"""What is asked of a server, and who hears what it says.

A command waits here until there is a line, and until it was replied to; a line that is made again
begins with all that its server has to know. Nothing is done twice by that: a run is started under
an id of our own choice, and starting the same again attaches to it; what is posted has a name, by
which the run knows it again; every other command may be repeated; events that come twice are told
by their numbers.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Protocol, TypeAlias

import attrs
import msgspec
import trio

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._exceptions import (
    LimitExceeded,
    RemoteProtocolError,
    ReplayGap,
    RunExists,
)

logger: logging.Logger = logging.getLogger("flowtrio")

Command: TypeAlias = dict[str, Any]


class Listener(Protocol):
    """A stream of a run there, as its connection uses it."""

    run_id: str
    _last: int
    """The newest event that it has, or asked to begin behind; -1 for none."""

    def _opening(self) -> Command:
        """What makes a connection send its events, from where it is."""
        ...

    def _resuming(self) -> Command:
        """The same, for a run that there is already."""
        ...

    def _misses(self, event: AgentEvent, after: int | None) -> bool:
        """Whether something is missing before an event; *after* is the one before it, if told."""
        ...

    async def _take(self, event: AgentEvent) -> None:
        """Take an event, unless it was there before; waits while too many were not read."""
        ...

    def _end(self) -> None:
        """No event will come any more."""
        ...

    def _fail(self, failure: Exception) -> None:
        """Have reading raise this behind what came before."""
        ...


@attrs.define(eq=False)
class _Pending:
    """A command without a reply."""

    command: Command
    stream: Listener | None
    """Whose beginning it is; None for a control."""


class Commands:
    """The streams of one connection, and the commands that were not replied to."""

    def __init__(self) -> None:
        self._streams: dict[str, Listener] = {}
        self._pending: dict[int, _Pending] = {}
        self._unsent: deque[int] = deque()
        self._last_ref = 0
        self._asked_for: set[str] = set()
        """The runs whose events this line's server was asked for, and sends, read or not."""
        self._accepted: set[str] = set()
        """The runs whose stream began on this line. What came before was for one that has left."""
        self._work = trio.Event()
        self._failure: Exception | None = None

    # The streams' side

    def add(self, stream: Listener) -> None:
        """Have a run started or resumed, and its events given to *stream*.

        Raises:
          RuntimeError: there is a stream of this run already.
          trio.BrokenResourceError: the server was given up.

        """
        if self._failure is not None:
            raise self._failure
        if stream.run_id in self._streams:
            raise RuntimeError(f"run {stream.run_id!r} is read here already")
        self._streams[stream.run_id] = stream
        # Started again, it would go on where it is, and what was before that would be missing.
        goes_on = stream.run_id in self._asked_for
        self.ask(stream._resuming() if goes_on else stream._opening(), stream)

    def ask(self, command: Command, stream: Listener | None = None) -> None:
        """Have a command sent, now or when there is a line again."""
        self._last_ref += 1
        self._pending[self._last_ref] = _Pending(command, stream)
        self._unsent.append(self._last_ref)
        self._work.set()

    def forget(self, stream: Listener) -> None:
        """Give a stream no more events."""
        if self._streams.get(stream.run_id) is stream:
            del self._streams[stream.run_id]
            self._accepted.discard(stream.run_id)

    # The line's side

    def begin_anew(self) -> None:
        """Put in line what a new line has to know: streams where they are, then controls."""
        controls = [p.command for p in self._pending.values() if p.stream is None]
        self._pending.clear()
        self._unsent.clear()
        self._asked_for.clear()
        self._accepted.clear()
        for stream in self._streams.values():
            self.ask(stream._opening(), stream)
        for command in controls:
            self.ask(command)

    async def next(self) -> Command:
        """Wait for a command that is to be sent."""
        while not self._unsent:
            self._work = trio.Event()
            await self._work.wait()
        ref = self._unsent.popleft()
        pending = self._pending[ref]
        if pending.stream is not None:
            self._asked_for.add(pending.stream.run_id)
        return {**pending.command, "ref": ref}

    async def take(self, frame: dict[str, Any]) -> None:
        """Give an event to its stream, or a reply to whom it is for; may raise one of `LOST`."""
        if "seq" not in frame:
            return self._take_reply(frame)
        event = _convert(frame)
        stream = self._streams[event.run_id] if event.run_id in self._accepted else None
        if stream is not None and stream._misses(event, frame.get("after")):
            # What else was sent by then is of no use: it begins anew with the reply.
            self._accepted.discard(event.run_id)
            return self.ask(stream._resuming(), stream)
        if event.type is EventType.DONE:
            self._asked_for.discard(event.run_id)
        if stream is not None:
            await stream._take(event)
        return None

    def _take_reply(self, frame: dict[str, Any]) -> None:
        pending = self._pending.pop(frame.get("ref") or 0, None)
        stream = pending.stream if pending is not None else None
        if frame.get("type") != "rejected":
            if stream is not None:
                self._begin(stream, is_over=bool(frame.get("is_over")))
            return
        code, error = str(frame.get("code")), str(frame.get("error"))
        if code == "shutting_down" or frame.get("ref") is None:
            # The server goes, or has lost our place: say anew where we are, and hear the reason.
            raise trio.BrokenResourceError(f"the server says {code}")
        if stream is not None:
            self._asked_for.discard(stream.run_id)
            stream._fail(_refusal(stream, code, error))

    def _begin(self, stream: Listener, *, is_over: bool) -> None:
        """A stream's events come from here on; none, where the run is over."""
        if is_over:
            self._asked_for.discard(stream.run_id)
        if self._streams.get(stream.run_id) is not stream:
            return  # It has left meanwhile.
        self._accepted.add(stream.run_id)
        if is_over:
            stream._end()

    def give_up_largest(self) -> bool:
        """Send that command no more which is the largest of those that were sent; tell its reader.

        Returns:
          Whether there was any.

        """
        sent = [ref for ref in self._pending if ref not in self._unsent]
        if not sent:
            return False
        size = {ref: len(msgspec.json.encode(self._pending[ref].command)) for ref in sent}
        given_up = self._pending.pop(max(sent, key=size.__getitem__))
        error = "the message is larger than the server takes"
        if given_up.stream is not None:
            self._asked_for.discard(given_up.stream.run_id)
            given_up.stream._fail(RemoteProtocolError(error, code="too_large"))
        else:
            kind, run_id = given_up.command["type"], given_up.command["run_id"]
            logger.warning("%s for run %s was given up: %s", kind, run_id, error)
        return True

    def give_up(self, failure: Exception) -> None:
        """Have this raised to all streams, and to those that come."""
        self._failure = failure
        for stream in list(self._streams.values()):
            stream._fail(failure)


def _convert(frame: dict[str, Any]) -> AgentEvent:
    try:
        return msgspec.convert(frame, AgentEvent)
    except msgspec.ValidationError as exc:
        raise trio.BrokenResourceError(f"the server sent an event that is none: {exc}") from None


def _refusal(stream: Listener, code: str, error: str) -> Exception:
    match code:
        case "session_busy" | "tenant_busy":
            return LimitExceeded(error, limit=code.removesuffix("_busy"), code=code)
        case "rate_limited" | "spend_limited":
            name = "starts_per_minute" if code == "rate_limited" else "spend_per_day"
            return LimitExceeded(error, limit=name, code=code)
        case "too_many_runs":
            return LimitExceeded(error, limit="runs_per_connection", code=code)
        case "unknown_run" | "not_resumable" | "store_failed":
            return LookupError(error)
        case "run_exists":
            return RunExists(error, run_id=stream.run_id)
        case "replay_gap":
            return ReplayGap(error, run_id=stream.run_id, after=stream._last, oldest=None)
        case _:
            return RemoteProtocolError(f"the server refused: {error}", code=code)
