"""What flowtrio asks of those who hear of runs for operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from flowtrio._core._events import AgentEvent

from ._agents import AroundAgent, AroundTool


class Telemetry(Protocol):
    """Hears what runs record, as they do; one value for all runs of an engine."""

    def observe(self, event: AgentEvent, /) -> None:
        """Hear of one event; all but MESSAGE_CHUNK, REASONING_CHUNK, TOOL_CALL_ARGS, TOOL_PROGRESS.

        Called in the step that records it, for closers too, whichever way the reader left; so it
        should take no time. RUN_START is heard in the task that starts the run. The event is a
        copy. What this raises is logged, and the run that it was told of goes on without it.
        """
        ...


class TelemetryPerRun(Telemetry, Protocol):
    """A `Telemetry` that keeps something of each run; its own ``observe`` is not called."""

    def of_run(self, run_id: str, tenant_id: str, /) -> Telemetry:
        """Make what hears one run: a `Telemetry`, or a `RunTelemetry`."""
        ...


class RunTelemetry(Telemetry, Protocol):
    """A `Telemetry` of one run that also stands around what the run does, outermost."""

    @property
    def log_keys(self) -> Mapping[str, str]:
        """What lines about the run carry beside its ``run_id``; asked after RUN_START."""
        ...

    @property
    def around_agent(self) -> AroundAgent:
        """Stands around each of the run's agents; a method is one."""
        ...

    @property
    def around_tool(self) -> AroundTool:
        """Stands around each of the run's tools; a method is one."""
        ...
