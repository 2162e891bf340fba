"""Runs for plain code, scripts and notebooks: ``with stream(engine, agent, message) as events``."""

from __future__ import annotations

import contextvars
import queue
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import outcome
import trio

from flowtrio._core._events import AgentEvent
from flowtrio._core._util import publish as _publish
from flowtrio._run._controls import run_of
from flowtrio._run._elsewhere import OneRun
from flowtrio._run._pump import Pump
from flowtrio._run._thread import ThreadEnded, TrioThread, hold, release

if TYPE_CHECKING:
    from flowtrio._hosting._engine import StreamEngine
    from flowtrio._hosting._orchestrator import Orchestrator
    from flowtrio._run._stream import EventStream
    from flowtrio.abc import AgentLike


class Events(OneRun, Iterator[AgentEvent]):
    """One run's events, read by plain code, and the run's controls. Made by `stream`."""

    __slots__ = ("_ended", "_is_told", "_pump", "_queue", "_ready")

    def __init__(self, thread: TrioThread, stream: EventStream[Any]) -> None:
        self._run = run_of(stream)
        self._lives_in(thread)
        self._ready: deque[AgentEvent] = deque()
        self._queue: queue.SimpleQueue[list[AgentEvent] | outcome.Outcome[Any]]
        self._queue = queue.SimpleQueue()
        self._ended: outcome.Outcome[Any] | None = None
        self._is_told = False
        self._pump = Pump(thread, lambda: stream, lambda: None, self._queue.put)
        thread.start(self._pump.run, _Reader(self._queue), contextvars.copy_context(), self._name)

    def __iter__(self) -> Iterator[AgentEvent]:
        """Iterate over the events that were not yet given."""
        return self

    def __next__(self) -> AgentEvent:
        """Give the next event, waiting for it."""
        while not self._ready:
            if self._ended is not None:
                self._tell()
                raise StopIteration
            self._take()
        return self._ready.popleft()

    def result(self) -> Any:
        """Wait for the end of the run and give what the agent returned; see `EventStream.result`.

        Raises:
          RunFailed: the run failed; ``__cause__`` is the reason.
          RunCancelled: the run was cancelled.

        """
        self._in_loop(self._leave_unattended)
        for _ in self:
            pass
        return self._run.result()

    def _take(self) -> None:
        """Wait for what comes next."""
        item = self._queue.get()
        if isinstance(item, list):
            self._ready.extend(item)
            with suppress(ThreadEnded):
                self._pump.go_on()
        else:
            self._ended = item

    def _tell(self) -> None:
        """Raise what ended the reading, once: a Ctrl-C that struck inside the run."""
        if self._ended is not None and not self._is_told:
            self._is_told = True
            self._ended.unwrap()

    def _leave(self) -> None:
        """Leave the run, and wait until nothing of it is alive."""
        with suppress(ThreadEnded):
            self._pump.leave()
        while self._ended is None:
            self._take()
        self._ready.clear()


class _Reader:
    """Whom the reading's job tells of its end."""

    def __init__(self, queue: queue.SimpleQueue[list[AgentEvent] | outcome.Outcome[Any]]) -> None:
        self._queue = queue

    def end(self, result: outcome.Outcome[Any]) -> None:
        self._queue.put(result)

    def is_gone(self) -> bool:
        # A thread ends with its blocks left.
        return False

    def give_up(self) -> None: ...


@contextmanager
def stream(
    engine: StreamEngine | Orchestrator, agent: AgentLike | None, message: str, **options: Any
) -> Iterator[Events]:
    """Read a run without any event loop, in a ``with`` block.

    The run lives in the process's Trio thread. When the block is left it is cancelled, if it has
    not ended, and nothing of it is alive. Works in a notebook too, beside its running loop.

    Args:
      engine: A `StreamEngine`, or an `Orchestrator`, which chooses the agent itself.
      agent: As `StreamEngine.stream` takes it; None with an orchestrator.
      message: What the user says.
      options: As `StreamEngine.stream` and `Orchestrator.process_stream` take them.

    Raises:
      RuntimeError: it is called under Trio, whose loop it would block.

    """
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "flowtrio.sync would block this Trio loop: expected async with engine.stream(...)"
        )
    given: Any = engine
    made = (
        given.process_stream(message, **options)
        if agent is None
        else given.stream(agent, message, **options)
    )
    thread = hold()
    try:
        events = Events(thread, made)
        try:
            yield events
        finally:
            events._leave()
        events._tell()
    finally:
        if release(thread):
            thread.join()


_publish(__name__, [Events, stream])
__all__ = ["Events", "stream"]
