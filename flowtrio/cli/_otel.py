"""``--otel``: where traces and metrics of what is served go, by OpenTelemetry's own variables.

The SDK reads most of them itself: names and attributes of the service, sampling, intervals, the
collector's address and headers. Which exporter is meant is read here.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from flowtrio._core._telling import tell

from ._load import UsageError

if TYPE_CHECKING:
    from flowtrio.otel import OpenTelemetry

FLUSH: Final = 2.0
"""Seconds that what is not sent yet gets at the end."""
_EXPORTERS: Final = ("otlp", "console", "none")
_PROTOCOL: Final = "http/protobuf"


@asynccontextmanager
async def open_telemetry(*, is_wanted: bool) -> AsyncIterator[OpenTelemetry | None]:
    """Have telemetry for the block, None where it is not wanted; what is left is sent at its end.

    Where the process has a provider of traces already, such as below ``opentelemetry-instrument``,
    it is that one's.

    Raises:
      UsageError: something is missing, or a variable means what is not there.

    """
    if not is_wanted:
        yield None
        return
    try:
        from flowtrio.otel import LogFilter, OpenTelemetry

        ends = _configure(os.environ)
    except ImportError as exc:
        raise UsageError(f"--otel needs {exc.name!r}: pip install 'flowtrio[otel]'") from None
    for handler in logging.getLogger().handlers:
        handler.addFilter(LogFilter())
    try:
        yield OpenTelemetry()
    finally:
        await end_all(ends)


async def end_all(ends: list[Callable[[], object]]) -> None:
    """Call all of *ends* in threads, and wait for them, not for ever."""
    with trio.move_on_after(FLUSH, shield=True) as scope:
        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(_end, end)
    if scope.cancelled_caught:
        words = "traces and metrics are left that could not be sent in %g s"
        tell(logging.WARNING, words, FLUSH)


async def _end(end: Callable[[], object]) -> None:
    try:
        await trio.to_thread.run_sync(end, abandon_on_cancel=True)
    except Exception as exc:
        tell(logging.WARNING, "traces and metrics could not be sent", exc=exc)


def _configure(environment: Mapping[str, str]) -> list[Callable[[], object]]:
    """Make the process's providers, unless it has them; gives what ends them."""
    from opentelemetry import metrics, trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return []
    tracers, meters = make_providers(environment)
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)
    return [tracers.shutdown, meters.shutdown]


def make_providers(environment: Mapping[str, str]) -> tuple[Any, Any]:
    """Make the providers of traces and of metrics that the environment asks for."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    traces, measures = _exporter(environment, "TRACES"), _exporter(environment, "METRICS")
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "flowtrio"}))
    # Their own ends, when Python ends, would wait for half a minute.
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    if traces != "none":
        exporter = OTLPSpanExporter() if traces == "otlp" else ConsoleSpanExporter(out=sys.stdout)
        tracers.add_span_processor(BatchSpanProcessor(exporter))
    readers = []
    if measures != "none":
        sink = OTLPMetricExporter() if measures == "otlp" else ConsoleMetricExporter(sys.stdout)
        readers.append(PeriodicExportingMetricReader(sink))
    return tracers, MeterProvider(readers, resource, shutdown_on_exit=False)


def _exporter(environment: Mapping[str, str], signal: str) -> str:
    """Which exporter is meant for *signal*; that of OTLP speaks over HTTP."""
    name = f"OTEL_{signal}_EXPORTER"
    exporter = environment.get(name) or "otlp"
    if exporter not in _EXPORTERS:
        raise UsageError(f"{name}={exporter}: expected one of {', '.join(_EXPORTERS)}")
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(name) or _PROTOCOL
        if exporter == "otlp" and protocol != _PROTOCOL:
            raise UsageError(f"{name}={protocol}: expected {_PROTOCOL}")
    return exporter
