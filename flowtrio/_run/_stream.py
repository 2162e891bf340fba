"""`EventStream`: one run as its reader sees it, and the two ways in.

*Structured*: ``async with engine.stream(agent, message) as stream``. The host runs in a nursery
that the block opens in the caller's task, so nothing of the run is alive when the block has been
left.

*Bare*: ``async for event in engine.stream(agent, message)``. No nursery may be held across the
steps of an iteration, so the host runs in a nursery that already exists: that of the run it is
started in, else of the open engine, else Trio's system nursery. An iterator that is dropped cancels
its run.

*Hosted*: a recorder reads it, see `start_in`.

*Elsewhere*: either of the first two in an asyncio task. The run lives in the process's Trio thread,
where a stream of its own is read for this one; see `_reading`.

The stream knows its run, never the other way round: so dropping the stream is noticed.
"""

from __future__ import annotations

import contextlib
import contextvars
import enum
import signal
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self

import trio
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
)

from flowtrio._core._events import AgentEvent, EventType, StreamMode
from flowtrio._core._failures import leaves
from flowtrio._core._modes import View

from ._elsewhere import OneRun, is_elsewhere, read_elsewhere
from ._log import SCHEDULE_EVERY
from ._loops import is_here
from ._run import current_run

if TYPE_CHECKING:
    from ._home import Home
    from ._host import Host
    from ._reading import Reading
    from ._run import Run


if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # Only type checkers know defaults before Python 3.13.
    R = TypeVar("R", default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R")


_MANY: Final = SCHEDULE_EVERY // 2
"""Events at once behind which more may wait for room; see `receive_gathered`."""
_MOST: Final = 4 * SCHEDULE_EVERY
"""Events of a batch to which no more are gathered."""


class _Form(enum.Enum):
    NEW = enum.auto()
    BLOCK = enum.auto()
    BARE = enum.auto()
    HOSTED = enum.auto()


class EventStream(OneRun, AsyncIterator[AgentEvent], Generic[R]):
    """One run's events in their one order, and the run's controls. Made by `StreamEngine.stream`.

    Does nothing until it is entered or iterated, and can be either, once. One task may read at a
    time; a read that is cancelled loses no event. The controls (`cancel`, `cancel_tool`, `approve`,
    `deny`, `answer`) are synchronous, idempotent and may be called from any thread; they tell
    whether they took effect.
    """

    __slots__ = (
        "__weakref__",
        "_away",
        "_form",
        "_home",
        "_host",
        "_is_reading",
        "_is_spent",
        "_manager",
        "_mode",
        "_until_schedule",
        "_view",
    )

    def __init__(self, host: Host, mode: StreamMode, home: Home) -> None:
        self._run = host.run
        self._host = host
        self._home = home
        self._mode = mode
        self._view = None if mode is StreamMode.EVENTS else View(mode)
        self._form = _Form.NEW
        self._is_reading = False
        self._is_spent = False
        """Whether its reader was told that no more will come."""
        self._until_schedule = 0
        self._thread = self._place = None
        self._manager: Any = None
        self._away: Reading | None = None
        """Who reads the run in the Trio thread, where this is read in an asyncio task."""

    def __repr__(self) -> str:
        return f"<EventStream run={self.run_id!r} status={str(self.status)!r}>"

    @property
    def mode(self) -> StreamMode:
        """Which view of the log this stream gives."""
        return self._mode

    # The structured way in

    if not TYPE_CHECKING:

        def __enter__(self) -> None:
            raise TypeError("a stream is entered with 'async with', not with 'with'")

        def __exit__(self, *_: object) -> None:
            raise AssertionError("never entered")

        def __iter__(self) -> None:
            raise TypeError("a stream is read with 'async for', not with 'for'")

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        """Start the run in a nursery of the caller's task."""
        # Ctrl-C between the nursery's opening and the block would leave it to nobody.
        self._begin(_Form.BLOCK)
        if self._away is not None:
            await self._away.wait_opened()
            return self
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        self._run.outer = _outer_run(of_block=True)
        self._host.start(nursery.start_soon, self._home.runs)
        return self

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel the run if it has not ended, and wait until all of it has."""
        cancelled: BaseException | None = None
        try:
            if self._away is not None:
                await self._away.leave()
            else:
                self._run.cancel("the reader left")
                # Our nursery has no part in the body's exception: that leaves as it came.
                await self._manager.__aexit__(None, None, None)
        except BaseException as error:
            cancelled = next(leaves(error))
        self._tell_interrupt()
        if exc is None and cancelled is not None:
            raise cancelled

    # The bare way in

    def __aiter__(self) -> Self:
        """Iterate; outside a block the first step starts the run.

        Raises:
          RuntimeError: outside a block, the run was read to its end before.

        """
        if self._is_spent and self._form is _Form.BARE:
            raise RuntimeError(
                f"can't iterate run {self.run_id!r} again: its events were read to the end before"
            )
        return self

    @enable_ki_protection
    async def __anext__(self) -> AgentEvent:
        """Give the next event that the mode shows."""
        is_empty = False
        if self._until_schedule > 1 and not self._is_reading and self._view is None:
            # The usual case, for every token, without a further call: see _receive.
            self._until_schedule -= 1
            try:
                await checkpoint_if_cancelled()
                return self._run.log.channel.take_nowait()
            except trio.Cancelled:
                await self._reading_cancelled()
                raise
            except (trio.WouldBlock, trio.EndOfChannel):
                is_empty = True
        try:
            return await self._receive(is_empty=is_empty)
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def receive_batch(self) -> list[AgentEvent]:
        """Wait for an event, and give it with all that are ready after it.

        Raises:
          trio.EndOfChannel: DONE was given before.

        """
        batch = [await self._receive()]
        if self._away is not None:
            return batch + self._away.take_ready()
        events, view = self._run.log.channel.take_all(), self._view
        batch += events if view is None else view.see_all(events)
        return batch

    async def aclose(self) -> None:
        """Cancel the run if it has not ended, and wait until all of it has.

        Raises:
          RuntimeError: this is called from inside the run, which would wait for itself.

        """
        if self._form is _Form.NEW:
            self._run.cancel("the stream was closed")
            return await checkpoint()
        self._check_here("wait for the end")
        if self._away is not None:
            return await self._away.leave()
        if self._is_inside:
            raise RuntimeError(
                f"can't wait for the end of run {self.run_id!r} inside it: expected "
                "stream.cancel() here, or aclose() in a task of somebody else"
            )
        self._run.cancel("the reader left")
        await self._join()
        self._tell_interrupt()
        return None

    def __del__(self) -> None:
        # Any thread, at any time: nothing may be done here but to leave word for the loop.
        run = getattr(self, "_run", None)
        if run is None:
            # Of a stream that was never made.
            return
        if self._away is not None:
            self._away.abandon()
        elif self._form is _Form.BARE and (not run.is_done or run.interrupt is not None):
            assert run.token is not None
            with contextlib.suppress(trio.RunFinishedError):
                run.token.run_sync_soon(_orphan, run)

    def _begin(self, form: _Form) -> None:
        if self._form is not _Form.NEW:
            how = "entered" if self._form is _Form.BLOCK else "iterated"
            raise RuntimeError(
                f"can't start run {self.run_id!r} again: its stream was {how} before"
            )
        if is_elsewhere("stream"):
            host, mode, home = self._host, self._mode, self._home
            self._away = read_elsewhere(lambda: EventStream(host, mode, home), self._name)
            self._lives_in(self._away.thread)
            # Before the run begins, whose tools may have this stream.
            self._form = form
            self._away.begin()
        else:
            self._until_schedule = self._run.info.schedule_every
            self._thread, self._form = threading.get_ident(), form

    def _start_bare(self) -> None:
        self._begin(_Form.BARE)
        if self._away is None:
            outer = self._run.outer = _outer_run()
            self._host.start(_find_place(outer, self._home), self._home.runs)

    # Reading

    @enable_ki_protection
    async def _receive(self, *, is_empty: bool = False) -> AgentEvent:
        """Wait for the next event that the mode shows; *is_empty* says that none is ready."""
        if self._form is _Form.NEW:
            self._start_bare()
        if self._is_reading:
            raise trio.BusyResourceError(f"another task is reading run {self.run_id!r}")
        if self._away is not None:
            return await self._receive_elsewhere(self._away)
        if threading.get_ident() != self._thread:
            self._check_here("read")
        self._is_reading = True
        channel, view = self._run.log.channel, self._view
        try:
            if not is_empty:
                self._until_schedule -= 1
                if self._until_schedule > 0:
                    await checkpoint_if_cancelled()
                else:
                    self._until_schedule = self._run.info.schedule_every
                    await checkpoint()
            while True:
                event = (None if is_empty else channel.take_ready()) or await channel.take()
                if view is None:
                    return event
                if (seen := view.see(event)) is not None:
                    return seen
        except trio.EndOfChannel:
            self._is_spent = True
            if self._form is _Form.BARE:
                await self._join()
            self._tell_interrupt()
            raise
        except trio.Cancelled:
            await self._reading_cancelled()
            raise
        finally:
            self._is_reading = False

    async def _receive_elsewhere(self, away: Reading) -> AgentEvent:
        self._is_reading = True
        try:
            return await away.receive()
        except trio.EndOfChannel:
            self._is_spent = True
            raise
        except BaseException:
            if self._form is _Form.BARE:
                # See _reading_cancelled.
                await away.leave_quietly()
            raise
        finally:
            self._is_reading = False

    async def _reading_cancelled(self) -> None:
        if self._form is _Form.BARE:
            # An iteration that is cancelled is not resumed by anybody: this is the reader leaving.
            self._run.cancel("the reader was cancelled")
            await self._join()

    async def _join(self) -> None:
        """Wait until nothing of the run is alive, whatever happens outside."""
        if self._run.is_joined or self._is_inside:
            # Whoever reads a run inside it would wait for himself.
            return
        with trio.CancelScope(shield=True):
            await self._run.wait_joined()

    # The result

    async def result(self) -> R:
        """Wait for the end of the run and give what the agent returned.

        Where nobody is reading, this reads the events away, and nobody can be asked any more:
        approvals are denied, questions time out at once. May be called after the block too, and
        more than once.

        Raises:
          RunFailed: the run failed; ``__cause__`` is the reason.
          RunCancelled: the run was cancelled.

        """
        if self._form is not _Form.NEW:
            self._check_here("wait for the result")
        if not self._is_reading:
            self._in_loop(self._leave_unattended)
            with contextlib.suppress(trio.EndOfChannel):
                while True:
                    await self._receive()
        if not self._run.is_done:
            wait = self._run.wait_done
            await (wait() if self._away is None else self._away.call(wait))
        value: R = self._run.result()
        return value


def start_in(nursery: trio.Nursery, stream: EventStream) -> None:
    """Start a stream's run in a nursery that outlives it; whoever does has to call `aclose`.

    A read that is cancelled is no leaving here, as in a block.
    """
    stream._begin(_Form.HOSTED)
    stream._run.outer = _outer_run(of_block=True)
    stream._host.start(nursery.start_soon, stream._home.runs)


async def receive_gathered(stream: EventStream, *, begins: bool) -> list[AgentEvent]:
    """Receive a batch, with what the run says in the next turns of the scheduler.

    For who does something with each batch that costs as much as a dozen of events. A run that says
    little is not waited for: only one that *begins*, and one that has said so much that it may wait
    for its reader. So what a model says bit by bit is never kept back.

    Raises:
      trio.EndOfChannel: DONE was given before.

    """
    batch = await stream.receive_batch()
    channel = stream._run.log.channel
    # It has to be hosted, and its body started. After that, who waits for room is woken in one.
    turns, count = (3, _MANY) if begins else (2, len(batch))
    while count >= _MANY and len(batch) < _MOST and batch[-1].type is not EventType.DONE:
        for _ in range(turns):
            # Shielded, as what was received would be lost.
            await cancel_shielded_checkpoint()
        more = channel.take_all()
        batch += more
        turns, count = 2, len(more)
    return batch


def _outer_run(*, of_block: bool = False) -> Run | None:
    """The run that hosts what the current task starts, or waits for its block."""
    outer = current_run.get()
    if outer is None or not outer.takes_guests or not is_here(outer.token):
        return None
    is_waited_for = not of_block or outer.waits_for(trio.lowlevel.current_task())
    return outer if is_waited_for else None


def _find_place(outer: Run | None, home: Home) -> Callable[..., Any]:
    """How to spawn the host of a bare run."""
    if outer is not None:
        return outer.spawn
    if (nursery := home.nursery_here) is not None:
        return nursery.start_soon
    return partial(trio.lowlevel.spawn_system_task, context=contextvars.copy_context())


def _orphan(run: Run) -> None:
    """The reader dropped its iterator."""
    run.cancel("the reader left")
    run.when_done(lambda: _redeliver_interrupt(run))


def _redeliver_interrupt(run: Run) -> None:
    """Ctrl-C struck inside a run whose reader is gone: have it strike again."""
    interrupt, run.interrupt = run.interrupt, None
    if interrupt is not None:
        signal.raise_signal(signal.SIGINT)
