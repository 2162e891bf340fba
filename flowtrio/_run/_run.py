"""One run: what is known of it, what may be done to it, and its end.

Everybody who has to do with a run holds this: the frames inside it, its host, its stream, and those
who host it for others. It runs nothing by itself; `_host` does.

A run ends in two steps. `Run.close` is synchronous: it records the first reason and the closers of
all that is open, wakes every emitter that waits for a credit and cancels the nursery. From then on
nobody else records anything. `Run.finish` records the terminal STATE_CHANGE, ERROR and DONE once
the nursery is empty, or when cleanup has outlasted the grace.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Protocol, cast

import attrs
import trio
from trio.lowlevel import current_task, enable_ki_protection

from flowtrio._core._chunks import Usage
from flowtrio._core._events import ROOT, AgentStatus
from flowtrio._core._exceptions import DeadlineExceeded, LimitExceeded
from flowtrio._core._failures import Failure, leaves
from flowtrio._core._limits import Limits
from flowtrio._core._telling import inside, tell

from ._clock import RunClock
from ._ending import Ending, blamed, end_events, tell_operators
from ._inbox import Inbox
from ._info import RunInfo
from ._log import EventLog
from ._visits import Visit, is_below, visiting

NO_USAGE: Final = Usage()
_CUT_OFF: Final = Ending(AgentStatus.CANCELLED, "cancelled from outside")
_MOST_NOTED = 16
"""Errors that are kept beside the one that ends a run; more are no causes that anybody reads."""

current_run: ContextVar[Run | None] = cast("ContextVar[Run | None]", inside)
"""The run that the current task belongs to."""


class Root(Protocol):
    """The root body's frame, as far as its run has to know it."""

    def mark_closed(self) -> None:
        """Let nothing more be said from here or inside."""
        ...


@attrs.define(eq=False)
class Run:
    """One agent run, from RUN_START to DONE."""

    info: RunInfo
    limits: Limits = attrs.field(init=False)
    log: EventLog = attrs.field(init=False)
    clock: RunClock = attrs.field(init=False)
    root: Root = attrs.field(init=False)  # the root body's frame, until the run is joined
    usage: Usage = attrs.field(default=NO_USAGE, init=False)
    requests: int = attrs.field(default=0, init=False)  # how often its agents asked models
    refusal: LimitExceeded | None = attrs.field(default=None, init=False)  # why it was not let in
    is_unattended: bool = attrs.field(default=False, init=False)
    """Whether there is nobody to ask: approvals are denied and questions time out at once."""
    has_people: bool = attrs.field(default=True, init=False)  # else only programs answer, for tools
    is_joined: bool = attrs.field(default=False, init=False)  # nothing of it is alive any more
    is_cut_off: bool = attrs.field(default=False, init=False)  # by who around it was cancelled
    interrupt: BaseException | None = attrs.field(default=None, init=False)
    """A KeyboardInterrupt or SystemExit that the consumer has still to be told of."""
    token: trio.lowlevel.TrioToken | None = attrs.field(default=None, init=False)
    nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    started_at: float = attrs.field(default=0.0, init=False)
    alive: int = attrs.field(default=0, init=False)  # its tasks, and those that visit it
    background: int = attrs.field(default=0, init=False)  # those that the root body waits for
    outer: Run | None = attrs.field(default=None, init=False)  # the one whose end waits for this
    visits: tuple[Visit, ...] = attrs.field(default=(), init=False)  # to it, and to runs inside
    asked_to_end: Ending | None = attrs.field(default=None, init=False)  # as soon as it begins
    _inbox: Inbox | None = attrs.field(default=None, init=False)
    _ending: Ending | None = attrs.field(default=None, init=False)
    _also: tuple[tuple[BaseException, str], ...] = attrs.field(default=(), init=False)
    _waiters: trio.Event | None = attrs.field(default=None, init=False)
    _when_done: tuple[Callable[[], None], ...] = attrs.field(default=(), init=False)

    def __attrs_post_init__(self) -> None:
        info = self.info
        self.limits = info.limits
        self.log = EventLog(info)
        self.clock = RunClock(info.limits.run)

    @property
    def is_closing(self) -> bool:
        """Whether its end has begun."""
        return self.log.is_closing

    @property
    def is_done(self) -> bool:
        """Whether DONE is recorded."""
        return self.log.law.is_done

    @property
    def inbox(self) -> Inbox:
        """What the user says while it goes on."""
        if self._inbox is None:  # Made for whoever asks: most runs that idle need none.
            self._inbox = Inbox(is_closed=self.is_closing)
        return self._inbox

    # Its tasks

    def spawn(self, fn: Callable[..., Awaitable[Any]], *args: Any, name: str) -> None:
        """Start a task of the run. What it raises ends the run."""
        assert self.nursery is not None
        self.nursery.start_soon(self._guard, fn, *args, name=name)
        self.alive += 1

    @property
    def takes_guests(self) -> bool:
        """Whether another run can be hosted in this one's nursery."""
        return self.nursery is not None and self.alive > 0 and not self.is_done

    async def _guard(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            await fn(*args)
        except BaseException as exc:
            # Cancelled ends here too: the host has one of its own where it came from outside.
            self.fail(exc, "agent")
        finally:
            self.task_ended()

    def task_ended(self, *, is_own: bool = True) -> None:
        """A task of the run ends, in its last step; or a visit to it does."""
        if is_own and trio.current_effective_deadline() == -math.inf:
            # The host was awake when this came, and has not heard of it yet.
            self.close_from_outside()
        self.alive -= 1
        if not self.alive:
            if not self.is_closing:  # By a Cancelled that was kept, and raised again later.
                self.fail(RuntimeError("the agent ended by a stale Cancelled"), "agent")
            self.finish(leftover=[])
            self.clock.wake_host()

    @contextmanager
    def visited(self) -> Iterator[None]:
        """Wait for the block too before this run ends, where the current task is none of its own.

        A context may be handed to a task outside. What that does with it is reached by the run's
        end as everything is, through what it opened; and is a part of the run, so it is waited for.
        """
        task = current_task()
        if self.waits_for(task):
            yield
            return
        self.alive += 1
        try:
            with visiting(self, task):
                yield
        finally:
            self.task_ended(is_own=False)

    def waits_for(self, task: trio.lowlevel.Task) -> bool:
        """Whether the run's end waits for *task*: one of its own, or one that visits it now."""
        return is_below(task, self.nursery) or any(v.includes(task) for v in self.visits)

    # Closing

    @enable_ki_protection
    def close(self, ending: Ending, *, is_cancelled: bool = False) -> bool:
        """Begin the end at once; True if *ending* is why. *is_cancelled*: its tasks are already."""
        log = self.log
        if log.is_closing:
            return False
        if log.law.status is None:
            is_first = self.asked_to_end is None
            self.asked_to_end = self.asked_to_end or ending
            return is_first
        self._ending = first = self.asked_to_end or ending
        log.is_closing = True
        self.root.mark_closed()
        try:
            log.close_all()
            if self._inbox is not None:
                self._inbox.hear_the_rest(log)
        except Exception as exc:
            self._break(exc)
        if log.channel.emitters:
            log.channel.release()
        if self.nursery is not None and not is_cancelled:
            self.nursery.cancel_scope.cancel(reason=f"run {self.info.run_id}: {first.status}")
        self.clock.wake_host()
        return first is ending

    def _break(self, exc: BaseException) -> None:
        """A bug of ours struck where nothing may fail: it costs this run, and nobody else."""
        tell(logging.ERROR, "run %s: its end failed", self.info.run_id, exc=exc)
        self.log.law.abandon()
        failure = Failure(error=type(exc).__name__, code="internal_failed", source="internal")
        self._ending = Ending(AgentStatus.ERROR, failure.code, failure, exc)

    def cancel(self, reason: str | None) -> bool:
        """End the run on purpose."""
        return self.close(Ending(AgentStatus.CANCELLED, reason))

    def end_with_error(self, code: str, source: str, error: str) -> bool:
        """End the run because of something that is no exception."""
        failure = Failure(error=error, code=code, source=source)
        return self.close(Ending(AgentStatus.ERROR, code, failure))

    def close_from_outside(self) -> None:
        """Begin the end that our deadline, or somebody around us, asks for; if nobody else did."""
        if self.is_closing:
            return
        assert self.nursery is not None
        if self.nursery.cancel_scope.cancel_called:
            self.fail(
                DeadlineExceeded(f"the run took longer than {self.limits.run} s", deadline="run"),
                "deadline",
            )
        else:
            self.is_cut_off = self.close(_CUT_OFF, is_cancelled=True)

    def fail(self, exc: BaseException, source: str) -> None:
        """End the run because of an exception, or note it if the run is ending already.

        Groups are opened; the first exception is the reason, the others join its causes.
        """
        for error in leaves(exc):
            if isinstance(error, trio.Cancelled):
                continue
            if isinstance(error, KeyboardInterrupt | SystemExit):
                self.interrupt = self.interrupt or error
            who = blamed(error, self.info.run_id) or source
            if not self.close(Ending.by_exception(error, who)):
                self.note_error(error, who)

    def note_error(self, exc: BaseException, source: str) -> None:
        """Keep an exception that did not end the run, for the causes of the one that does."""
        if (self._ending is None or exc is not self._ending.exc) and len(self._also) < _MOST_NOTED:
            self._also += ((exc, source),)

    @enable_ki_protection
    def finish(self, leftover: Sequence[str]) -> None:
        """Record the terminal STATE_CHANGE, ERROR and DONE; nothing of it may fail.

        After the grace *leftover* names the tasks that are still alive.
        """
        log = self.log
        if log.law.is_done:
            return
        if self._ending is None:
            self._break(RuntimeError("the run ended without a reason"))
        assert self._ending is not None
        if leftover:
            self._overrun(Ending.by_overrun(leftover, self.limits.grace))
        duration = log.now() - self.started_at
        try:
            self._record_end(duration, leftover)
        except Exception as exc:
            self._break(exc)
            self._record_end(duration, leftover)
        log.channel.close()
        self.wake_waiters()
        for fn in self._when_done:
            self._call(fn)
        tell_operators(self.info, self._ending, duration, log.law.count, self.usage)

    def _overrun(self, overrun: Ending) -> None:
        """Cleanup outlasted the grace: that is an error, if there is none yet."""
        assert self._ending is not None
        assert overrun.exc is not None
        if self._ending.failure is None:
            self._ending = overrun
        else:
            self.note_error(overrun.exc, "internal")

    def _record_end(self, duration: float, leftover: Sequence[str]) -> None:
        assert self._ending is not None
        # All that might fail is done first: then all of it is recorded, or nothing.
        end = end_events(self._ending, self._also, self.log, self.usage, duration, leftover)
        for type, data in end:
            self.log.record_last(type, data)

    def join(self) -> None:
        """Nothing of the run is alive any more: let go of what leads back here."""
        self.is_joined, self.outer = True, None
        self.wake_waiters()
        self._when_done = ()
        del self.root

    def _call(self, fn: Callable[[], None]) -> None:
        """Tell somebody of the end, who may fail."""
        try:
            fn()
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt | SystemExit):
                self.interrupt = self.interrupt or exc
            tell(logging.ERROR, "run %s: telling its end failed", self.info.run_id, exc=exc)

    # What the outside may ask and do

    def begin_conversation(self, history: Sequence[dict[str, Any]]) -> None:
        """Set what was said before, where that was not known when the run was made."""
        self.log.transcripts.begin(history)

    def messages(self) -> list[dict[str, Any]]:
        """The root agent's conversation as far as it went, valid as the next run's history."""
        return self.log.transcripts[ROOT].messages()

    def leave_unattended(self) -> None:
        """Nobody is there to ask any more: what waits for a person goes on without one."""
        self.is_unattended = True
        self.log.opened.abandon()

    def when_done(self, fn: Callable[[], None]) -> None:
        """Call *fn* once DONE is recorded, in the same step; now, if it is."""
        if self.is_done:
            self._call(fn)
        else:
            self._when_done += (fn,)

    async def wait_done(self) -> None:
        """Wait until DONE is recorded."""
        while not self.is_done:
            await self.wait_for_news()

    async def wait_joined(self) -> None:
        """Wait until nothing of the run is alive any more."""
        while not self.is_joined:
            await self.wait_for_news()

    async def wait_for_news(self) -> None:
        """Wait until a task has ended that somebody may wait for, or the run has."""
        # One event for all that may be waited for, made when somebody waits: most runs need none.
        if self._waiters is None:
            self._waiters = trio.Event()
        await self._waiters.wait()

    def wake_waiters(self) -> None:
        """Have those look again who wait for something of this run."""
        if self._waiters is not None:
            self._waiters.set()
            self._waiters = None

    def result(self) -> Any:
        """What the agent returned; the run has ended."""
        ending = self._ending
        assert ending is not None
        if ending.status is AgentStatus.COMPLETED:
            return ending.value
        told = {"messages": self.messages(), "usage": self.usage.to_dict()}
        raise ending.as_exception(self.info.run_id, self._also, told) from ending.exc
