"""Faults: what strikes a run, and when, drawn beforehand."""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from functools import partial
from typing import Any, Final, NoReturn

import attrs
import outcome
import trio
from trio.lowlevel import Abort, checkpoint

from ._code import AsCode
from ._models import SimulatedFailure

OF_TOOLS: Final = ("fail", "cancel_tool", "delay")
OF_RUNS: Final = ("cancel", "cut_off")
KINDS: Final = (*OF_TOOLS, *OF_RUNS)

_DELAY: Final = 5.0
"""Seconds of a delay that is made up for a place."""


def _check_kind(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in KINDS:
        raise ValueError(f"Fault({value!r}): expected one of {', '.join(KINDS)}")


def _check_place(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"Fault({attribute.name}={value!r}): expected a whole number from 0")


@attrs.frozen(repr=False)
class Fault(AsCode):
    """Something that strikes at a moment of a run.

    ======================  ===================================================================
    ``"cancel"``            the run is cancelled before its scheduler's step *at*
    ``"cut_off"``           so is the scope around the reader's block
    ``"delay"``             the function of tool call *call* begins *seconds* later
    ``"fail"``              it raises: before it begins (*at* 0), or where it waits for the *at*-th
                            time
    ``"cancel_tool"``       the call is cancelled at that place
    ======================  ===================================================================
    """

    kind: str = attrs.field(validator=_check_kind)
    """What happens; see above."""
    at: int = attrs.field(default=0, validator=_check_place)
    """When: a step of the scheduler, or a wait of the tool."""
    call: int = attrs.field(default=0, validator=_check_place)
    """Which execution of a tool, counted from 0 over the whole run; a retry counts anew."""
    seconds: float = 0.0
    """How long, for a delay."""


@attrs.frozen
class Places:
    """Where faults can strike a run, as it went."""

    steps: int
    """Steps of the scheduler before the run began to end; nothing cancels it later."""
    waits: list[list[int]]
    """For each execution of a tool, those of its waits that a failure can come out of, and 0."""

    def faults(self, kinds: Iterable[str]) -> Iterator[Fault]:
        """One fault for each place, kind by kind."""
        for kind in kinds:
            if kind in OF_RUNS:
                yield from (Fault(kind, step) for step in range(1, self.steps + 1))
            elif kind == "delay":
                yield from (Fault(kind, 0, call, _DELAY) for call in range(len(self.waits)))
            else:
                for call, waits in enumerate(self.waits):
                    yield from (Fault(kind, wait, call) for wait in waits)


class Striker(trio.abc.Instrument):
    """Counts the steps of Trio's scheduler and calls what is due; ends a run that goes on and on.

    An instrument may not raise, and what is called here does not.
    """

    def __init__(self, limit: int) -> None:
        self.steps = 0
        self.scope = trio.CancelScope()
        """Around the whole simulation."""
        self.watch: Callable[[], object] = lambda: None
        """Called before each step."""
        self._limit = limit
        self._due: dict[int, list[Callable[[], object]]] = {}

    def strike_at(self, step: int, action: Callable[[], object]) -> None:
        """Have *action* called before a step, the first of all if it has passed already."""
        self._due.setdefault(max(step, self.steps + 1), []).append(action)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        self.steps += 1
        self.watch()
        for action in self._due.pop(self.steps, ()):
            action()
        if self.steps == self._limit:
            self.scope.cancel(reason="the simulation has no end")


@attrs.define(eq=False)
class Log:
    """What became of a run's faults."""

    came: list[Fault] = attrs.Factory(list)
    """Those whose moment came."""
    struck: list[Fault] = attrs.Factory(list)
    """Those of them that took effect."""


class ToolFaults:
    """Strikes the tools of one run."""

    def __init__(self, faults: Iterable[Fault], striker: Striker, log: Log) -> None:
        self._striker = striker
        self._log = log
        self._faults: dict[int, list[Fault]] = {}
        for fault in faults:
            if fault.kind in OF_TOOLS:
                self._faults.setdefault(fault.call, []).append(fault)
        self.waits: list[list[int]] = []
        """See `Places`."""

    async def run(
        self, fn: Callable[[], Coroutine[Any, Any, Any]], cancel: Callable[[], bool]
    ) -> Any:
        """Run a tool's function with what was drawn for it.

        *cancel* cancels its call, and tells whether it did.
        """
        faults = self._faults.get(len(self.waits), ())
        waits: list[int] = []
        self.waits.append(waits)
        for fault in faults:
            if fault.kind == "delay":
                await self._delay(fault)
        drawn = [fault for fault in faults if fault.kind != "delay"]
        strikes = _Strikes(drawn, partial(self._cancel, cancel), waits, self._log)
        strikes.strike(can_fail=True)
        # At later places the task is about to wait, and Trio does not know that yet: so the control
        # is called before the next step of any task, as somebody else's would be.
        strikes.cancel = lambda fault: self._striker.strike_at(
            self._striker.steps + 1, partial(self._cancel, cancel, fault)
        )
        if strikes.due is not None:
            strikes.fail()
        return await _driven(fn(), strikes)

    async def _delay(self, fault: Fault) -> None:
        self._log.came.append(fault)
        begun = trio.current_time()
        try:
            await trio.sleep(fault.seconds)
        finally:
            if trio.current_time() > begun:
                self._log.struck.append(fault)

    def _cancel(self, cancel: Callable[[], bool], fault: Fault) -> None:
        if cancel():
            self._log.struck.append(fault)


class _Strikes:
    """Counts the waits of one execution; 0 is its beginning."""

    def __init__(
        self,
        faults: list[Fault],
        cancel: Callable[[Fault], object],
        waits: list[int],
        log: Log,
    ) -> None:
        self._faults = faults
        self.cancel = cancel
        self._waits = waits
        self._log = log
        self._count = 0
        self.due: Fault | None = None
        """The failure that is to come out of this wait, or of the next that lets it."""

    def strike(self, *, can_fail: bool) -> None:
        if can_fail:
            self._waits.append(self._count)
        for fault in self._faults:
            if fault.at == self._count:
                self._log.came.append(fault)
                if fault.kind == "cancel_tool":
                    self.cancel(fault)
                else:
                    self.due = fault
        self._count += 1

    def fail(self) -> NoReturn:
        fault, self.due = self.due, None
        assert fault is not None
        self._log.struck.append(fault)
        raise SimulatedFailure(f"drawn for wait {fault.at}")


def _waits_in_checkpoint(coro: Coroutine[Any, Any, Any]) -> bool:
    """Whether a coroutine waits in `trio.lowlevel.checkpoint`, and not in one that we call."""
    frames = list(_frames(coro))
    if not any(frame.f_code is checkpoint.__code__ for frame in frames):
        return False
    modules = [f"{frame.f_globals['__name__']}." for frame in frames]
    callers = [module for module in modules if not module.startswith("trio.")]
    return not callers[-1].startswith("flowtrio.")


def _frames(awaited: object) -> Iterator[types.FrameType]:
    """The frames of a coroutine that waits, and of what it awaits, from the outside."""
    while True:
        if isinstance(awaited, types.CoroutineType):
            frame, waits_for = awaited.cr_frame, awaited.cr_await
        elif isinstance(awaited, types.AsyncGeneratorType):
            frame, waits_for = awaited.ag_frame, awaited.ag_await
        elif type(awaited).__name__ in _STEPS:
            awaited = next(filter(_has_frame, gc.get_referents(awaited)), None)
            continue
        else:
            return
        if frame is None:
            return
        yield frame
        awaited = waits_for


_STEPS: Final = frozenset({"async_generator_asend", "async_generator_athrow", "coroutine_wrapper"})
"""What Python puts between a coroutine and an asynchronous generator that it steps, as
``@asynccontextmanager`` does, or another one; they show whom they step to the collector alone."""


def _has_frame(value: object) -> bool:
    return isinstance(value, types.CoroutineType | types.AsyncGeneratorType)


@types.coroutine
def _driven(coro: Coroutine[Any, Any, Any], strikes: _Strikes) -> Generator[Any, Any, Any]:
    """Await *coro*, and raise in it where it waits if that was drawn.

    Whatever a task waits for gives Trio a function that takes it out of there again. That is called
    as Trio does to cancel a task, so nobody is left to be woken. A checkpoint is no such wait: it
    fails when it is over. Where the function refuses, or what is waited for may not fail, the
    failure strikes at the next wait.
    """
    try:
        trap = coro.send(None)
        while True:
            abort = getattr(trap, "abort_func", None)
            is_checkpoint = abort is None and _waits_in_checkpoint(coro)
            strikes.strike(can_fail=is_checkpoint or abort is not None)
            if strikes.due and abort and abort(strikes.fail) is Abort.SUCCEEDED:
                answer = outcome.capture(strikes.fail)
            else:
                answer = yield trap
                if strikes.due and is_checkpoint:
                    answer = outcome.capture(strikes.fail)
            trap = coro.send(answer)
    except StopIteration as stop:
        return stop.value
    finally:
        coro.close()
