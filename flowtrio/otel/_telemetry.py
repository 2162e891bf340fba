"""`OpenTelemetry`: what an engine is given, so that each of its runs has a trace."""

from __future__ import annotations

from typing import Final

from opentelemetry import metrics, trace

from flowtrio._core._events import AgentEvent, EventType

from ._measures import Measures
from ._names import CONVENTIONS, NEWEST
from ._spans import RunSpans

_SCOPE: Final = "flowtrio"


class OpenTelemetry:
    """Makes a trace of each run, and measures; a `flowtrio.abc.Telemetry`.

    ``StreamEngine(telemetry=OpenTelemetry())``. A run is a span ``invoke_agent``, as each agent
    that it delegates to; in them stand ``chat``, one for each reply of a model, and
    ``execute_tool``. The span that is current where a run is started is the parent; what an agent
    and a tool do has their span for the current one. Without an SDK nothing is recorded.

    Args:
      tracer_provider: Makes the spans; OpenTelemetry's global one by default.
      meter_provider: Makes the instruments; likewise.
      content: Whether what users, models and tools said is recorded too. It may be personal.
      conventions: Version of the conventions that metrics are named by: ``0.1.0``, or ``1.41.0``
        for dashboards that are older.

    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        content: bool = False,
        conventions: str = NEWEST,
    ) -> None:
        if conventions not in CONVENTIONS:
            raise ValueError(
                f"conventions={conventions!r}: expected one of {', '.join(CONVENTIONS)}"
            )
        names = CONVENTIONS[conventions]
        url = names.schema_url
        self._tracer = trace.get_tracer(_SCOPE, None, tracer_provider, url)
        meter = metrics.get_meter(_SCOPE, "", meter_provider, url)
        self._measures = Measures(meter, names)
        self._content = content
        self._runs: dict[str, RunSpans] = {}

    def of_run(self, run_id: str, tenant_id: str, /) -> RunSpans:
        """See `flowtrio.abc.TelemetryPerRun`."""
        return RunSpans(self._tracer, self._measures, run_id, tenant_id, has_content=self._content)

    def observe(self, event: AgentEvent, /) -> None:
        """Hear of an event of a run that was recorded elsewhere, such as one from a store.

        Give it the events of whole logs, in their order; several runs may be mixed.
        """
        if event.type is EventType.RUN_START:
            self._runs[event.run_id] = self.of_run(event.run_id, "default")
        run = self._runs.get(event.run_id)
        if run is not None:
            run.observe(event)
        if event.type is EventType.DONE:
            self._runs.pop(event.run_id, None)
