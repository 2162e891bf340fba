"""The host of a run: the task that owns its nursery, waits, and sees it to its end.

It does nothing in the nursery but wait: for the run's deadline and alarms, for a cancellation from
outside, and at the end for the nursery to empty. The body and everything that it starts are the
host's children::

    home nursery (the caller's, an engine's, an outer run's, or Trio's system nursery)
      host                     waits; supervises
        body                   the agent
          ...                  its tools, nested agents
        ...                    its background tasks, and threads that outlive their call

A cancellation from outside, and the run's own deadline, reach the run's tasks and the host in the
same step of Trio's scheduler. The host waits in `wait_task_rescheduled`, whose abort function runs
inside that step: so `Run.close` has happened before any task of the run sees its `Cancelled`. Only
where the host is awake in that moment, for an alarm, has it not: then the first of both that runs
on, the host or a task that ends by its `Cancelled`, does it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import trio
from trio.lowlevel import Abort, cancel_shielded_checkpoint, enable_ki_protection

from flowtrio._core._events import ROOT, SCHEMA, AgentStatus, EventType
from flowtrio._core._exceptions import LimitExceeded
from flowtrio._core._failures import cut_text
from flowtrio._core._telling import tell
from flowtrio._core._values import copy_json

from ._body import ask_agent, encode_result
from ._ending import Ending
from ._frame import Frame
from ._run import Run, current_run

if TYPE_CHECKING:
    from flowtrio.abc import AgentLike


class Admission(Protocol):
    """Who lets a run begin."""

    def reserve(self, run: Run) -> None:
        """Let *run* in or put it in line, in the step of its RUN_START; or refuse it by raising."""
        ...

    async def let_in(self, run: Run) -> Callable[[], Awaitable[None]] | None:
        """Wait for the run's turn, and set its conversation; before its agent starts.

        Returns:
          What keeps the conversation as it ended; None where it is not remembered.

        """
        ...


class Host:
    """Runs the body of one run, from RUN_START until nothing of it is alive."""

    __slots__ = ("_admission", "_body", "_home", "root", "run")

    def __init__(
        self,
        run: Run,
        body: AgentLike,
        make_context: Callable[[Frame], Any],
        admission: Admission | None,
    ) -> None:
        self.run: Run = run
        self.root: Frame = Frame(run, None, ROOT, make_context=make_context)
        """The body's frame."""
        run.root = self.root
        self._body = body
        self._admission = admission
        self._home: dict[Run, None] = {}

    # Beginning

    def start(self, spawn: Callable[..., Any], home: dict[Run, None]) -> None:
        """Record RUN_START and spawn the host: ``spawn(host, name=...)``.

        The run is in *home* from now on until it is joined.
        """
        run, info, log = self.run, self.run.info, self.run.log
        run.token = trio.lowlevel.current_trio_token()
        log.start(info.wall_clock)
        run.started_at = log.now()
        log.record_closing(
            EventType.RUN_START,
            {
                "message": info.message,
                "parts": copy_json(list(info.said.media)) if info.said.media else [],
                "session_id": info.session_id,
                "agent": info.agent_name,
                "parent_run_id": info.parent_run_id,
                "schema": SCHEMA,
            },
            ROOT,
        )
        log.channel.credits -= 1
        self._home = home
        home[run] = None
        if run.asked_to_end is not None:
            run.close(run.asked_to_end)
        try:
            if self._admission is not None and not run.is_closing:
                self._admission.reserve(run)
        except LimitExceeded as exc:
            run.refusal = exc
        except Exception as exc:
            run.fail(exc, "internal")
        try:
            spawn(self.host, name=f"flowtrio run {info.run_id}")
        except Exception as exc:
            # Such as a nursery that takes nobody in any more. What began has its end all the same.
            run.fail(exc, "internal")
            self._end()

    @enable_ki_protection
    async def host(self) -> None:
        """Own the run's nursery and see it to its end."""
        run = self.run
        current_run.set(run)
        cancelled: trio.Cancelled | None = None
        try:
            async with trio.open_nursery() as run.nursery:
                if run.is_closing:
                    run.nursery.cancel_scope.cancel(reason="the run ended before it began")
                else:
                    run.clock.start(run.nursery.cancel_scope)
                run.nursery.start_soon(self._run_body, name=f"agent {run.info.agent_name}")
                run.alive += 1
                try:
                    # Without functions around it: what a run idles in is kept for all that time,
                    # and walked by the garbage collector.
                    while not run.is_closing:
                        if run.clock.has_alarms:
                            await run.clock.wait_for_alarm(self)
                        else:
                            await run.clock.sleep(self)
                except trio.Cancelled as exc:
                    # An alarm that rang in the same moment hid from `__call__` what this is.
                    run.close_from_outside()
                    # Our own nursery's, unless the outside came first.
                    cancelled = exc if run.is_cut_off else None
                except BaseException as exc:
                    # A bug of ours, told as one before the nursery's tasks see a Cancelled.
                    run.fail(exc, "internal")
                await self._wait_for_tasks()
        except BaseException as exc:
            # The same, too late to be told; it may not leave a system task.
            run.fail(exc, "internal")
            tell(logging.ERROR, "a run's host failed (%s)", run.info.run_id, exc=exc)
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
        run = self.run
        run.finish(leftover=[])
        self._home.pop(run, None)
        run.join()
        del self.root

    async def _run_body(self) -> None:
        """The run's first task; see `Run.spawn` for the others."""
        run = self.run
        try:
            if run.is_closing:
                # It ended before it began, and has no place in any line.
                return
            if run.refusal is not None:
                raise run.refusal
            if self._admission is not None:
                return await self._run_admitted(self._admission)
            await run.log.set_status(self.root)
            # As in `host`, without functions around it.
            ending = await self._answer(await self._ask_agent())
            run.close(ending, is_cancelled=run.alive == 1)
        except trio.Cancelled:
            # No reason for anything: whoever cancelled this has told his.
            pass
        except BaseException as exc:
            run.fail(exc, "agent")
        finally:
            run.task_ended()

    async def _run_admitted(self, admission: Admission) -> None:
        run = self.run
        keep = await admission.let_in(run)
        try:
            await run.log.set_status(self.root)
            ending = await self._answer(await self._ask_agent())
        except BaseException as exc:
            # Whoever admitted the run finds its conversation as it ended.
            run.fail(exc, "agent")
            raise
        finally:
            if keep is not None:
                await keep()
        # Where nobody is left but this, there is nobody to cancel.
        run.close(ending, is_cancelled=run.alive == 1)

    def _ask_agent(self) -> Awaitable[Any]:
        return ask_agent(self.root, self._body, self.run.info.message)

    async def _answer(self, value: Any) -> Ending:
        """Let the root agent's background tasks end: then *value* is its answer."""
        run = self.run
        while run.background:
            await run.wait_for_news()
        result = encode_result(value, run.limits.result_bytes)
        # A question that was left by a scope of the agent's own may have left its status behind.
        await run.log.set_status(self.root)
        self.root.leave()
        if not run.is_closing:
            self.root.transcript.answer(result)
        return Ending(AgentStatus.COMPLETED, value=value, result=result)

    # Waiting

    def __call__(self, _: object) -> Abort:
        """The host is being cancelled: by an alarm, our deadline, our nursery, or the outside.

        It is the abort function of its wait itself: a method of that would be one object more that
        is kept while a run idles.
        """
        run = self.run
        host = run.clock.leave()
        if not run.clock.is_due:
            run.close_from_outside()
            if not run.is_cut_off:
                # It is woken as by any other news: a Cancelled would be made for nobody.
                trio.lowlevel.reschedule(host)
                return Abort.FAILED
        return Abort.SUCCEEDED

    async def _wait_for_tasks(self) -> None:
        """Wait until the run's tasks have ended; after the grace, record the end without them."""
        run = self.run
        if run.alive:
            # Tasks that have nothing to clean up end in the step that told us to.
            await cancel_shielded_checkpoint()
        if not run.alive:
            return
        await self._wait_shielded(trio.current_time() + run.limits.grace)
        if run.alive:
            assert run.nursery is not None
            # Named by whoever started them, and DONE is JSON.
            visitors = [visit.task.name for visit in run.visits]
            names = [cut_text(name) for name in (*_names_of_leaves(run.nursery), *visitors)]
            run.finish(leftover=sorted(names))
            # The nursery waits for its own, and for none of the visitors. They get as long again,
            # not for ever: one that is not ours may wait for what comes only behind this run.
            await self._wait_shielded(trio.current_time() + run.limits.grace)

    async def _wait_shielded(self, until: float) -> None:
        with trio.CancelScope(shield=True, deadline=until):
            while self.run.alive:
                await self.run.clock.sleep(self._abort_wait)

    def _abort_wait(self, _: object) -> Abort:
        self.run.clock.leave()
        return Abort.SUCCEEDED


def _names_of_leaves(nursery: trio.Nursery) -> list[str]:
    """Names of the tasks below *nursery* that have no children of their own."""
    names = []
    for task in nursery.child_tasks:
        below = [name for child in task.child_nurseries for name in _names_of_leaves(child)]
        names += below or [task.name]
    return names
