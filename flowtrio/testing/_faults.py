"""Faults: what strikes a run, and when, drawn beforehand."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any, Final, NoReturn

import attrs
import outcome
import trio
from trio.lowlevel import Abort

from ._code import AsCode
from ._models import SimulatedFailure

OF_RUNS: Final = ("cancel", "cut_off")
OF_TOOLS: Final = ("delay", "fail", "cancel_tool")
KINDS: Final = (*OF_RUNS, *OF_TOOLS)


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


class Striker(trio.abc.Instrument):
    """Counts the steps of Trio's scheduler and calls what is due; ends a run that goes on and on.

    An instrument may not raise, and what is called here does not.
    """

    def __init__(self, limit: int) -> None:
        self.steps = 0
        self.is_endless = False
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
            self.is_endless = True
            self.scope.cancel(reason="the simulation has no end")


class ToolFaults:
    """Strikes the tools of one run."""

    def __init__(self, faults: Iterable[Fault], striker: Striker) -> None:
        self._striker = striker
        self._faults: dict[int, list[Fault]] = {}
        for fault in faults:
            if fault.kind in OF_TOOLS:
                self._faults.setdefault(fault.call, []).append(fault)
        self._executed = 0

    async def run(
        self, fn: Callable[[], Coroutine[Any, Any, Any]], cancel: Callable[[], object]
    ) -> Any:
        """Run a tool's function with what was drawn for it; *cancel* cancels its call."""
        faults = self._faults.get(self._executed, ())
        self._executed += 1
        if not faults:
            return await fn()
        for fault in faults:
            if fault.kind == "delay":
                await trio.sleep(fault.seconds)
        struck = _Struck([fault for fault in faults if fault.kind != "delay"], cancel)
        struck.strike()
        # At later places the task is about to wait, and Trio does not know that yet: so the control
        # is called before the next step of any task, as somebody else's would be.
        struck.cancel = lambda: self._striker.strike_at(self._striker.steps + 1, cancel)
        if struck.error is not None:
            raise struck.error
        return await _driven(fn(), struck)


class _Struck:
    """Counts the waits of one execution; 0 is its beginning."""

    def __init__(self, faults: list[Fault], cancel: Callable[[], object]) -> None:
        self._faults = faults
        self.cancel = cancel
        self._waits = 0
        self.error: SimulatedFailure | None = None

    def strike(self) -> None:
        for fault in self._faults:
            if fault.at == self._waits:
                if fault.kind == "cancel_tool":
                    self.cancel()
                else:
                    self.error = SimulatedFailure(f"drawn for wait {fault.at}")
        self._waits += 1

    def fail(self) -> NoReturn:
        error, self.error = self.error, None
        assert error is not None
        raise error

    def leave(self, trap: object) -> bool:
        """Leave what is waited for, if a failure is due and that can be left."""
        abort = getattr(trap, "abort_func", None)
        return self.error is not None and abort is not None and abort(self.fail) is Abort.SUCCEEDED


@types.coroutine
def _driven(coro: Coroutine[Any, Any, Any], struck: _Struck) -> Generator[Any, Any, Any]:
    """Await *coro*, and raise in it where it waits if that was drawn.

    Whatever a task waits for gives Trio a function that takes it out of there again. That is called
    as Trio does to cancel a task, so nobody is left to be woken; where it refuses, or what is
    waited for is only the task's next step, the failure strikes at the next wait.
    """
    try:
        trap = coro.send(None)
        while True:
            struck.strike()
            answer = outcome.capture(struck.fail) if struck.leave(trap) else (yield trap)
            trap = coro.send(answer)
    except StopIteration as stop:
        return stop.value
    finally:
        coro.close()
