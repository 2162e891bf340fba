"""Telemetry: who hears of a run's events as they are recorded, and can neither change nor end it.

Whatever a listener does or raises costs it its run, and the run nothing.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, Final, cast

import attrs

from flowtrio._core._events import AgentEvent
from flowtrio._core._telling import tell
from flowtrio._core._values import copy_json, told

from ._hooks import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from flowtrio.abc import RunTelemetry, Telemetry, TelemetryPerRun

_AROUND: Final = ("around_agent", "around_tool", "log_keys")
"""What a telemetry has that does more than hear."""
_TAKEN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "run_id"}
"""What no telemetry can name a key of a line."""


def check_telemetry(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Refuse what nothing can be told."""
    observe = getattr(value, "observe", None)
    is_fit = callable(observe) and not isinstance(value, type)
    if value is not None and (not is_fit or inspect.iscoroutinefunction(observe)):
        raise TypeError(
            f"{type(instance).__name__}({attribute.name}={told(value)}): expected an object with "
            "a plain def observe(event)"
        )


class Observer:
    """Tells one run's events to its telemetry."""

    __slots__ = ("_around", "_run_id", "_telemetry")

    def __init__(self, telemetry: Telemetry, run_id: str, tenant_id: str) -> None:
        self._run_id = run_id
        self._telemetry: Telemetry | None = None
        self._around: RunTelemetry | None = None
        """The same, where it does more than hear."""
        try:
            # By hand: Python takes as long to check a protocol as a tracer to make a span.
            if hasattr(telemetry, "of_run"):
                telemetry = cast("TelemetryPerRun", telemetry).of_run(run_id, tenant_id)
            if all(hasattr(telemetry, name) for name in _AROUND):
                self._around = cast("RunTelemetry", telemetry)
            self._telemetry = telemetry
        except BaseException as exc:
            self._switch_off(exc)

    def hear(self, event: AgentEvent) -> None:
        """Tell of *event*, in the step that recorded it."""
        if self._telemetry is None:
            return
        try:
            self._telemetry.observe(
                AgentEvent(
                    event.type,
                    # The log's is the reader's, and maybe a store's.
                    copy_json(event.data),
                    event.seq,
                    event.run_id,
                    event.agent,
                    event.timestamp,
                )
            )
        except BaseException as exc:
            self._switch_off(exc)

    def _switch_off(self, exc: BaseException) -> None:
        self._telemetry = None
        text = "run %s: its telemetry failed, and is told no more of it"
        tell(logging.ERROR, text, self._run_id, exc=exc)

    @property
    def hooks(self) -> Hooks:
        """What it has stand around the run's agents and tools."""
        around = self._around
        if around is None:
            return NO_HOOKS
        return Hooks(tool=(around.around_tool,), agent=around.around_agent)

    @property
    def log_keys(self) -> dict[str, str]:
        """What it adds to the lines that are written of the run."""
        if self._around is None:
            return {}
        try:
            given = dict(self._around.log_keys)
        except BaseException as exc:
            self._around = None
            self._switch_off(exc)
            return {}
        return {
            name: value
            for name, value in given.items()
            if isinstance(name, str) and isinstance(value, str) and name not in _TAKEN
        }
