"""A provider that keeps every span, begun or ended, and what has to hold of a run's trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import attrs
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as RecordingSpan
from opentelemetry.sdk.trace.sampling import Sampler

from flowtrio import AgentEvent, EventType
from flowtrio.otel import OpenTelemetry

T = EventType

WORDS: Final = frozenset(
    {
        *("invoke_agent", "chat", "execute_tool", "function", "extension", "_OTHER"),
        *("ok", "error", "timeout", "cancelled", "denied", "completed"),
        *("stop", "length", "tool_calls", "content_filter"),
    }
)
"""What a trace says by itself."""
CONTENT: Final = frozenset(
    {
        *("gen_ai.input.messages", "gen_ai.output.messages"),
        *("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
    }
)


NOWHERE: Final = Resource.get_empty()


class Kept(SpanProcessor):
    """Keeps the spans that were begun, and those that have ended."""

    def __init__(self) -> None:
        self.begun: list[ReadableSpan] = []
        self.ended: list[ReadableSpan] = []

    def on_start(self, span: RecordingSpan, parent_context: Any = None) -> None:
        """See `SpanProcessor`."""
        self.begun.append(span)

    def on_end(self, span: ReadableSpan) -> None:
        """See `SpanProcessor`."""
        self.ended.append(span)


@attrs.define
class Traced:
    """Telemetry, and what it made."""

    telemetry: OpenTelemetry
    kept: Kept
    tracer: Any
    reader: InMemoryMetricReader

    def spans(self, prefix: str = "") -> list[ReadableSpan]:
        """Those that have ended, by the beginning of their name."""
        return [span for span in self.kept.ended if span.name.startswith(prefix)]

    def span(self, prefix: str) -> ReadableSpan:
        """The only one of such a name."""
        [span] = self.spans(prefix)
        return span

    def parent(self, span: ReadableSpan) -> ReadableSpan | None:
        """What it stands in, if that was made here."""
        for other in self.kept.ended:
            if span.parent is not None and other.context.span_id == span.parent.span_id:
                return other
        return None

    def parents(self, prefix: str) -> list[str | None]:
        """The names of what all of such a name stand in."""
        found = [self.parent(span) for span in self.spans(prefix)]
        return [None if parent is None else parent.name for parent in found]

    def measured(self) -> dict[str, list[tuple[float, dict[str, Any]]]]:
        """What was measured, by metric: the sums, with their attributes."""
        found: dict[str, list[tuple[float, dict[str, Any]]]] = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        value: Any = getattr(point, "sum", getattr(point, "value", None))
                        told = (value, dict(point.attributes))
                        found.setdefault(metric.name, []).append(told)
        return found


def traced(sampler: Sampler | None = None, **options: Any) -> Traced:
    """Telemetry with providers of its own."""
    kept = Kept()
    provider = TracerProvider(sampler, resource=NOWHERE, shutdown_on_exit=False)
    provider.add_span_processor(kept)
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], NOWHERE, shutdown_on_exit=False)
    telemetry = OpenTelemetry(tracer_provider=provider, meter_provider=meters, **options)
    return Traced(telemetry, kept, provider.get_tracer("a test"), reader)


def find_faults(kept: Kept, events: Sequence[AgentEvent], names: Iterable[str] = ()) -> list[str]:
    """What is wrong with the trace of one run that stands alone; *names* may be in it."""
    return [*find_breaks(kept), *_uncounted(kept, events), *_spoken(kept, names)]


def find_breaks(kept: Kept) -> list[str]:
    """Spans that did not end once, or are not of one piece, whatever the run was."""
    return [*_unended(kept), *_torn(kept)]


def _unended(kept: Kept) -> Iterator[str]:
    ended = [span.context.span_id for span in kept.ended]
    for span in kept.begun:
        if ended.count(span.context.span_id) != 1:
            yield f"{span.name}: ended {ended.count(span.context.span_id)} times"


def _torn(kept: Kept) -> Iterator[str]:
    by_id = {span.context.span_id: span for span in kept.begun}
    if len({span.context.trace_id for span in kept.begun}) != 1:
        yield "there is not one trace"
    roots = [span.name for span in kept.begun if span.parent is None]
    if len(roots) != 1 or not roots[0].startswith("invoke_agent"):
        yield f"the roots are {roots}"
    for span in kept.begun:
        if span.parent is not None:
            parent = by_id.get(span.parent.span_id)
            if parent is None:
                yield f"{span.name}: an orphan"
            elif span.start_time < parent.start_time:  # type: ignore[operator]
                yield f"{span.name}: begins before {parent.name}"


def _uncounted(kept: Kept, events: Sequence[AgentEvent]) -> Iterator[str]:
    def count(prefix: str) -> int:
        return sum(span.name.startswith(prefix) for span in kept.begun)

    types = [event.type for event in events]
    asked = [e for e in events if e.type is T.MESSAGE_COMPLETE and e.data["duration"] is not None]
    for prefix, expected in (
        ("invoke_agent", 1 + types.count(T.AGENT_START)),
        ("execute_tool", types.count(T.TOOL_CALL_START)),
        ("chat", len(asked)),
    ):
        if count(prefix) != expected:
            yield f"{prefix}: {count(prefix)} spans, expected {expected}"


def _spoken(kept: Kept, names: Iterable[str]) -> Iterator[str]:
    known = WORDS | set(names)
    for span in kept.ended:
        for key, value in (span.attributes or {}).items():
            if key in CONTENT:
                yield f"{span.name}: has {key}"
            told = value if isinstance(value, tuple) else (value,)
            for text in told:
                if isinstance(text, str) and text not in known:
                    yield f"{span.name}: {key} is {text!r}"
        if span.status.description is not None:
            yield f"{span.name}: its status has words"
        if span.events:
            yield f"{span.name}: it has events"


@contextmanager
def loud_detach() -> Iterator[list[str]]:
    """What OpenTelemetry logs of contexts that it failed to detach."""
    import logging

    heard: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logger, handler = logging.getLogger("opentelemetry.context"), Handler()
    logger.addHandler(handler)
    try:
        yield heard
    finally:
        logger.removeHandler(handler)
