"""One run: its nursery, its clock and its end.

The *host* task owns the run's nursery and does nothing in it but wait: for the run's deadline and
alarms, for a cancellation from outside, and at the end for the nursery to empty. The agent's body
and everything it starts are the host's children::

    home nursery (the caller's, an engine's, an outer run's, or Trio's system nursery)
      host                     waits; supervises; records the end
        body                   the agent
          ...                  its tools, nested agents
        ...                    its background tasks, and threads that outlive their call

A run ends in two steps. `Run.close` is synchronous: it records the first reason and the closers of
all that is open, wakes every emitter that waits for a credit and cancels the nursery. From then on
nobody else records anything. `Run._finish` records the terminal STATE_CHANGE, ERROR and DONE once
the nursery is empty, or when cleanup has outlasted the grace.

A cancellation from outside, and the run's own deadline, reach the run's tasks and the host in the
same step of Trio's scheduler. The host waits in `wait_task_rescheduled`, whose abort function runs
inside that step: so `close` has happened before any task of the run sees its `Cancelled`. Only
where the host is awake in that moment, for an alarm, has it not: then the first of both that runs
on, the host or a task that ends by its `Cancelled`, does it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio
from trio.lowlevel import (
    Abort,
    cancel_shielded_checkpoint,
    current_task,
    enable_ki_protection,
    wait_task_rescheduled,
)

from flowtrio._core._chunks import Usage
from flowtrio._core._events import ROOT, SCHEMA, AgentStatus, EventType
from flowtrio._core._exceptions import (
    DeadlineExceeded,
    LimitExceeded,
)
from flowtrio._core._failures import Failure, cut_text, leaves
from flowtrio._core._telling import tell
from flowtrio._core._transcript import Transcript

from ._agent import as_awaitable
from ._calls import ActiveCall
from ._context import RunContext
from ._ending import Ending, tell_operators
from ._frame import NO_USAGE, Alarm, Frame
from ._log import EventLog
from ._tools import encode_result

if TYPE_CHECKING:
    from flowtrio._core._limits import Limits
    from flowtrio._core._prices import PriceTable
    from flowtrio.abc import AgentLike

    from ._pending import Decision, Pending
    from ._simulation import Simulation

current_run: ContextVar[Run | None] = ContextVar("flowtrio_run", default=None)
"""The run that the current task belongs to."""


class Admission(Protocol):
    """Who lets a run begin."""

    def reserve(self, run: Run) -> None:
        """Let *run* in or put it in line, in the step of its RUN_START; or refuse it by raising."""
        ...

    def hold(self, run: Run) -> AbstractAsyncContextManager[None]:
        """Entered before the agent starts: waits for the run's turn, and sets the conversation."""
        ...


@attrs.frozen(kw_only=True)
class RunInfo:
    """What identifies a run and what it was asked; fixed from its beginning."""

    run_id: str
    message: str
    agent_name: str
    limits: Limits
    history: Sequence[dict[str, Any]]
    app: Any
    tenant_id: str
    session_id: str | None
    parent_run_id: str | None
    wall_clock: Callable[[], float]
    schedule_every: int
    simulation: Simulation | None
    prices: PriceTable | None


class Run:
    """One agent run, from RUN_START to DONE. Made by `EventStream`; has no public constructor."""

    __slots__ = (
        "__weakref__",
        "_admission",
        "_agent",
        "_alarm_scope",
        "_alarms",
        "_alive",
        "_also",
        "_asked_to_end",
        "_background",
        "_ending",
        "_home",
        "_host",
        "_is_cut_off",
        "_started_at",
        "_time_left",
        "_visitors",
        "_waiters",
        "_waiting_people",
        "_when_done",
        "info",
        "interrupt",
        "is_joined",
        "is_unattended",
        "limits",
        "log",
        "nursery",
        "refusal",
        "root",
        "token",
        "usage",
    )

    def __init__(self, info: RunInfo, agent: AgentLike, admission: Admission | None) -> None:
        self.info: RunInfo = info
        self.limits: Limits = info.limits
        self.log: EventLog = EventLog(info.run_id, info.limits.buffer, info.schedule_every)
        self.log.transcripts[ROOT] = Transcript(info.history, info.message, info.run_id)
        self.is_unattended: bool = False
        """Whether there is nobody to ask: approvals are denied and questions time out at once."""
        self.is_joined: bool = False
        """Whether nothing of the run is alive any more."""
        self.interrupt: BaseException | None = None
        """A KeyboardInterrupt or SystemExit that the consumer has still to be told of."""
        self.token: trio.lowlevel.TrioToken | None = None
        self.nursery: trio.Nursery | None = None
        self.root: Frame = Frame(self, None, ROOT, transcript=self.log.transcripts[ROOT])
        """The root agent's frame."""
        self.usage: Usage = NO_USAGE
        self.refusal: LimitExceeded | None = None
        """Why the run was not let in, from its first event on."""
        self._agent = agent
        self._admission = admission
        self._background = 0
        self._ending: Ending | None = None
        self._asked_to_end: Ending | None = None
        self._also: tuple[tuple[BaseException, str], ...] = ()
        self._started_at = 0.0
        self._alarms: dict[Alarm, None] | None = None
        self._alarm_scope: trio.CancelScope | None = None
        self._waiting_people = 0
        self._time_left: float = info.limits.run
        self._alive = 0
        self._is_cut_off = False
        self._home: dict[Run, None] = {}
        self._host: trio.lowlevel.Task | None = None
        self._visitors: tuple[trio.lowlevel.Task, ...] = ()
        self._waiters: trio.Event | None = None
        self._when_done: tuple[Callable[[], None], ...] = ()

    @property
    def is_closing(self) -> bool:
        """Whether its end has begun."""
        return self.log.is_closing

    @property
    def is_done(self) -> bool:
        """Whether DONE is recorded."""
        return self.log.law.is_done

    # Beginning

    def start(self, spawn: Callable[..., Any], home: dict[Run, None]) -> None:
        """Record RUN_START and spawn the host: ``spawn(host, name=...)``.

        The run is in *home* from now on until it is joined.
        """
        info, log = self.info, self.log
        self.token = trio.lowlevel.current_trio_token()
        self._started_at = trio.current_time()
        log.start(info.wall_clock)
        log.record_closing(
            EventType.RUN_START,
            {
                "message": info.message,
                "parts": [],
                "session_id": info.session_id,
                "agent": info.agent_name,
                "parent_run_id": info.parent_run_id,
                "schema": SCHEMA,
            },
            ROOT,
        )
        log.channel.credits -= 1
        self._home = home
        home[self] = None
        if self._asked_to_end is not None:
            self.close(self._asked_to_end)
        try:
            if self._admission is not None and not self.is_closing:
                self._admission.reserve(self)
        except LimitExceeded as exc:
            self.refusal = exc
        except Exception as exc:
            self.fail(exc, "internal")
        try:
            spawn(self.host, name=f"flowtrio run {info.run_id}")
        except Exception as exc:
            # Such as a nursery that takes nobody in any more. What began has its end all the same.
            self.fail(exc, "internal")
            self._end()

    @enable_ki_protection
    async def host(self) -> None:
        """Own the run's nursery and see it to its end."""
        current_run.set(self)
        cancelled: trio.Cancelled | None = None
        try:
            async with trio.open_nursery() as self.nursery:
                if self.is_closing:
                    self.nursery.cancel_scope.cancel(reason="the run ended before it began")
                else:
                    self._arm_deadline()
                self.spawn(self._run_body, name=f"agent {self.info.agent_name}")
                try:
                    await self._supervise()
                except trio.Cancelled as exc:
                    # An alarm that rang in the same moment hid from _abort what this is.
                    self._close_from_outside()
                    # Our own nursery's, unless the outside came first.
                    cancelled = exc if self._is_cut_off else None
                except BaseException as exc:
                    # A bug of ours, told as one before the nursery's tasks see a Cancelled.
                    self.fail(exc, "internal")
                await self._wait_for_tasks()
        except BaseException as exc:
            # The same, too late to be told; it may not leave a system task.
            self.fail(exc, "internal")
            tell(logging.ERROR, "a run's host failed (%s)", self.info.run_id, exc=exc)
        finally:
            self._end()
            # As `_end` does, this lets go what leads back here. So the run goes when nobody has it
            # any more, and its some eighty objects do not wait for the garbage collector, whose
            # work is a part of each token's cost.
            current_run.set(None)
        if cancelled is not None:
            raise cancelled

    def _end(self) -> None:
        """Nothing of the run is alive any more."""
        self._finish(leftover=[])
        self.is_joined = True
        self._home.pop(self, None)
        self._wake_waiters()
        self._when_done = ()
        del self.root

    async def _run_body(self) -> None:
        if self.is_closing:
            # It ended before it began, and has no place in any line.
            return
        if self.refusal is not None:
            raise self.refusal
        if self._admission is not None:
            return await self._run_admitted(self._admission)
        await self.log.set_status(self.root)
        # Without a function around it: what a run waits in is kept, and walked by the collector.
        self.close(await self._answer(await self._ask_agent()))

    async def _run_admitted(self, admission: Admission) -> None:
        async with admission.hold(self):
            try:
                await self.log.set_status(self.root)
                ending = await self._answer(await self._ask_agent())
            except BaseException as exc:
                # Whoever admitted the run finds its conversation as it ended.
                self.fail(exc, "agent")
                raise
        self.close(ending)

    def _ask_agent(self) -> Awaitable[Any]:
        return as_awaitable(self._agent(RunContext._of(self.root), self.info.message))

    async def _answer(self, value: Any) -> Ending:
        """Let the root agent's background tasks end: then *value* is its answer."""
        while self._background:
            await self._wait_for_news()
        result = encode_result(value, self.limits.result_bytes)
        # A question that was left by a scope of the agent's own may have left its status behind.
        await self.log.set_status(self.root)
        self.root.leave()
        if not self.is_closing:
            self.root.transcript.answer(result)
        return Ending(AgentStatus.COMPLETED, value=value, result=result)

    def spawn(self, fn: Callable[..., Awaitable[Any]], *args: Any, name: str) -> None:
        """Start a task of the run. What it raises ends the run."""
        assert self.nursery is not None
        self.nursery.start_soon(self._guard, fn, *args, name=name)
        self._alive += 1

    @property
    def takes_guests(self) -> bool:
        """Whether another run can be hosted in this one's nursery."""
        return self.nursery is not None and self._alive > 0 and not self.is_done

    async def _guard(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            await fn(*args)
        except BaseException as exc:
            # Cancelled ends here too: the host has one of its own where it came from outside.
            self.fail(exc, "agent")
        finally:
            if trio.current_effective_deadline() == -math.inf:
                # The host was awake when this came, and has not heard of it yet.
                self._close_from_outside()
            self._task_ended()

    def _task_ended(self) -> None:
        self._alive -= 1
        if not self._alive:
            if not self.is_closing:
                # Only a Cancelled that was kept and raised again later gets a run here.
                self.fail(RuntimeError("the agent ended by a stale Cancelled"), "agent")
            self._finish(leftover=[])
            self._wake_host()

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
        self._alive += 1
        self._visitors += (task,)
        try:
            yield
        finally:
            self._visitors = tuple(other for other in self._visitors if other is not task)
            self._task_ended()

    def waits_for(self, task: trio.lowlevel.Task) -> bool:
        """Whether the run's end waits for *task*: one of its own, or one that visits it now."""
        return self._holds(task) or task in self._visitors

    def _holds(self, task: trio.lowlevel.Task) -> bool:
        """Whether *task* is below this run's host."""
        nursery = task.parent_nursery
        while nursery is not None and nursery is not self.nursery:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None

    # Background tasks of the root agent: tasks of the run, counted

    def start_background(self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        """Start a task that the root agent's body waits for before it ends."""
        self._background += 1
        self.spawn(self._run_background, fn, args, name=getattr(fn, "__name__", "background"))

    async def _run_background(self, fn: Callable[..., Awaitable[Any]], args: Any) -> None:
        try:
            await fn(*args)
        finally:
            self._background -= 1
            self._wake_waiters()

    # Closing

    @enable_ki_protection
    def close(self, ending: Ending) -> bool:
        """Begin the end, in one synchronous step. True if *ending* is the first reason."""
        log = self.log
        if log.is_closing:
            return False
        if log.law.status is None:
            is_first = self._asked_to_end is None
            self._asked_to_end = self._asked_to_end or ending
            return is_first
        self._ending = ending
        log.is_closing = True
        self.root.mark_closed()
        try:
            log.close_all()
        except Exception as exc:
            self._break(exc)
        if log.channel.emitters:
            log.channel.release()
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel(reason=f"run {self.info.run_id}: {ending.status}")
        self._wake_host()
        return True

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

    def fail(self, exc: BaseException, source: str) -> None:
        """End the run because of an exception, or note it if the run is ending already.

        Groups are opened; the first exception is the reason, the others join its causes.
        """
        for error in leaves(exc):
            if isinstance(error, trio.Cancelled):
                continue
            if isinstance(error, KeyboardInterrupt | SystemExit):
                self.interrupt = self.interrupt or error
            who = _blamed(error, self.info.run_id) or source
            if not self.close(Ending.by_exception(error, who)):
                self.note_error(error, who)

    def note_error(self, exc: BaseException, source: str) -> None:
        """Keep an exception that did not end the run, for the causes of the one that does."""
        if (self._ending is None or exc is not self._ending.exc) and len(self._also) < _MOST_NOTED:
            self._also += ((exc, source),)

    @contextmanager
    def blaming(self, source: str) -> Iterator[None]:
        """Whatever the block raises was raised by *source*."""
        try:
            yield
        except Exception as exc:
            self.blame(exc, source)
            raise

    def blame(self, exc: BaseException, source: str) -> None:
        """Remember who raised *exc*, wherever it will be caught.

        With the exception itself: most are handled, and the run would keep them for nothing.
        """
        for error in leaves(exc):
            with suppress(Exception):
                error.__flowtrio__ = (self.info.run_id, source)  # type: ignore[attr-defined]

    @enable_ki_protection
    def _finish(self, leftover: list[str]) -> None:
        """Record the terminal STATE_CHANGE, ERROR and DONE; nothing of it may fail."""
        log = self.log
        if log.law.is_done:
            return
        if self._ending is None:
            self._break(RuntimeError("the run ended without a reason"))
        assert self._ending is not None
        if leftover:
            self._ending = self._overrun(self._ending, leftover)
        duration = trio.current_time() - self._started_at
        try:
            self._record_end(self._ending, duration, leftover)
        except Exception as exc:
            self._break(exc)
            self._record_end(self._ending, duration, leftover)
        log.channel.close()
        self._wake_waiters()
        for fn in self._when_done:
            self._call(fn)
        tell_operators(self.info, self._ending, duration, log.law.count, self.usage)

    def _record_end(self, ending: Ending, duration: float, leftover: list[str]) -> None:
        log, status = self.log, str(ending.status)
        change = {"old_status": str(log.status), "new_status": status, "reason": ending.reason}
        end = [(EventType.STATE_CHANGE, change)]
        if ending.failure is not None:
            end.append((EventType.ERROR, ending.error_data(self._also)))
        done = {
            "status": status,
            "reason": ending.reason,
            "result": ending.result,
            "usage": self.usage.to_dict(),
            "events": log.law.count + len(end) + 1,
            "duration": duration,
            "leftover": leftover,
        }
        # All that might fail has been done: now all of it is recorded, or nothing.
        for type, data in [*end, (EventType.DONE, done)]:
            log.record_last(type, data)

    def _call(self, fn: Callable[[], None]) -> None:
        """Tell somebody of the end, who may fail."""
        try:
            fn()
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt | SystemExit):
                self.interrupt = self.interrupt or exc
            tell(logging.ERROR, "run %s: telling its end failed", self.info.run_id, exc=exc)

    def _overrun(self, ending: Ending, leftover: list[str]) -> Ending:
        """Cleanup outlasted the grace: that is an error, if there is none yet."""
        overrun = Ending.by_overrun(leftover, self.limits.grace)
        if ending.failure is None:
            return overrun
        assert overrun.exc is not None
        self.note_error(overrun.exc, "internal")
        return ending

    # The host's waiting

    async def _supervise(self) -> None:
        """Ring the run's alarms until it is closing."""
        while not self.is_closing:
            if self._alarms:
                # An alarm is rare in a run that idles, so the scope for it is made only here.
                when = min(alarm.when for alarm in self._alarms)
                with trio.CancelScope(deadline=when) as self._alarm_scope:
                    await self._sleep(self._abort)
                self._alarm_scope = None
                self._ring(trio.current_time())
            else:
                await self._sleep(self._abort)

    def _ring(self, now: float) -> None:
        for alarm in list(self._alarms or ()):
            if alarm.when <= now:
                self.forget(alarm)
                alarm.ring()

    def _abort(self, _: object) -> Abort:
        """The host is being cancelled: by an alarm, our deadline, our nursery, or the outside."""
        self._host = None
        if self._alarm_scope is None or not self._alarm_scope.cancel_called:
            self._close_from_outside()
        return Abort.SUCCEEDED

    def _close_from_outside(self) -> None:
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
            self._is_cut_off = self.cancel("cancelled from outside")

    async def _wait_for_tasks(self) -> None:
        """Wait until the run's tasks have ended; after the grace, record the end without them."""
        if self._alive:
            # Tasks that have nothing to clean up end in the step that told us to.
            await cancel_shielded_checkpoint()
        if not self._alive:
            return
        await self._wait_shielded(trio.current_time() + self.limits.grace)
        if self._alive:
            assert self.nursery is not None
            visitors = [task.name for task in self._visitors]
            # Named by whoever started them, and DONE is JSON.
            names = [cut_text(name) for name in (*_names_of_leaves(self.nursery), *visitors)]
            self._finish(leftover=sorted(names))
            # The nursery would wait for its own, and for none of the visitors.
            await self._wait_shielded(math.inf)

    async def _wait_shielded(self, until: float) -> None:
        with trio.CancelScope(shield=True, deadline=until):
            while self._alive:
                await self._sleep(self._abort_wait)

    def _abort_wait(self, _: object) -> Abort:
        self._host = None
        return Abort.SUCCEEDED

    def _sleep(self, abort: Callable[[Any], Abort]) -> Awaitable[Any]:
        """Wait until the host is woken: to be awaited at once."""
        self._host = current_task()
        return wait_task_rescheduled(abort)  # noqa: ASYNC105 - the caller awaits it

    def _wake_host(self) -> None:
        if self._host is not None:
            host, self._host = self._host, None
            trio.lowlevel.reschedule(host)

    # Alarms and the run's deadline

    def call_at(self, when: float, ring: Callable[[], None]) -> Alarm:
        """Have *ring* called by the host at *when*, unless the run is closing by then."""
        alarm = Alarm(when, ring)
        self.set_alarm(alarm)
        return alarm

    def set_alarm(self, alarm: Alarm) -> None:
        """Have *alarm* rung when it is due; see `call_at`."""
        if self._alarms is None:
            # Made when it is first needed: most runs that idle have none.
            self._alarms = {}
        self._alarms[alarm] = None
        if self._alarm_scope is None:
            self._wake_host()
        elif alarm.when < self._alarm_scope.deadline:
            self._alarm_scope.deadline = alarm.when

    def forget(self, alarm: Alarm) -> None:
        """Do not ring *alarm* any more."""
        assert self._alarms is not None
        self._alarms.pop(alarm, None)

    def _arm_deadline(self) -> None:
        assert self.nursery is not None
        self.nursery.cancel_scope.deadline = trio.current_time() + self._time_left

    def pause_deadline(self) -> None:
        """Stop the run's clock: a person is being waited for."""
        self._waiting_people += 1
        if self._waiting_people == 1 and self.nursery is not None:
            self._time_left = self.nursery.cancel_scope.deadline - trio.current_time()
            self.nursery.cancel_scope.deadline = math.inf

    def resume_deadline(self) -> None:
        """Let the run's clock go on, once nobody is waited for."""
        self._waiting_people -= 1
        if not self._waiting_people:
            self._arm_deadline()

    # What the outside may ask and do

    def begin_conversation(self, history: Sequence[dict[str, Any]]) -> None:
        """Set what was said before, where that was not known when the run was made."""
        transcript = Transcript(history, self.info.message, self.info.run_id)
        self.log.transcripts[ROOT] = self.root.transcript = transcript

    def messages(self) -> list[dict[str, Any]]:
        """The root agent's conversation as far as it went, valid as the next run's history."""
        return self.log.transcripts[ROOT].messages()

    def control(self, fn: Callable[[], bool]) -> bool:
        """Do what somebody outside asks for; nothing of it may reach the loop, or be waited for."""
        try:
            return fn()
        except Exception as exc:
            self.fail(exc, "internal")
            return False

    def check_length(self, text: str, what: str) -> None:
        """Refuse a text that no event may hold.

        Raises:
          ValueError: it is longer than ``Limits.result_bytes``.

        """
        # A character takes a byte at least.
        if len(text) > self.limits.result_bytes:
            raise ValueError(
                f"{what}: has {len(text)} characters, more than "
                f"result_bytes={self.limits.result_bytes}"
            )

    def cancel_tool(self, call_id: str) -> bool:
        """End one call with outcome ``cancelled``."""
        call = self.log.opened.get(call_id)
        return isinstance(call, ActiveCall) and call.end_now("cancelled")

    def decide(self, key: str, decision: Decision) -> bool:
        """Take a person's decision about what is open."""
        pending: Pending | None = getattr(self.log.opened.get(key), "pending", None)
        return pending is not None and not self.is_closing and pending.decide(decision)

    def leave_unattended(self) -> None:
        """Nobody is there to ask any more: what waits for a person goes on without one."""
        self.is_unattended = True
        for thing in self.log.opened.values():
            pending: Pending | None = getattr(thing, "pending", None)
            if pending is not None:
                pending.abandon()

    def when_done(self, fn: Callable[[], None]) -> None:
        """Call *fn* once DONE is recorded, in the same step; now, if it is."""
        if self.is_done:
            self._call(fn)
        else:
            self._when_done += (fn,)

    async def wait_done(self) -> None:
        """Wait until DONE is recorded."""
        while not self.is_done:
            await self._wait_for_news()

    async def wait_joined(self) -> None:
        """Wait until nothing of the run is alive any more."""
        while not self.is_joined:
            await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        # One event for all that may be waited for, made when somebody waits: most runs need none.
        if self._waiters is None:
            self._waiters = trio.Event()
        await self._waiters.wait()

    def _wake_waiters(self) -> None:
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


_MOST_NOTED = 16
"""Errors that are kept beside the one that ends a run; more are no causes that anybody reads."""


def _blamed(exc: BaseException, run_id: str) -> str | None:
    """Who raised *exc* in this run, where that was remembered; see `Run.blame`."""
    blamed = getattr(exc, "__flowtrio__", None)
    return blamed[1] if isinstance(blamed, tuple) and blamed[0] == run_id else None


def _names_of_leaves(nursery: trio.Nursery) -> list[str]:
    """Names of the tasks below *nursery* that have no children of their own."""
    names = []
    for task in nursery.child_tasks:
        below = [name for child in task.child_nurseries for name in _names_of_leaves(child)]
        names += below or [task.name]
    return names
