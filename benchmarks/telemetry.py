"""What telemetry costs for each token: runs that are traced and measured, against others.

Traced as a server's are: with OpenTelemetry's SDK, a batch processor whose exporter takes all and
keeps nothing, and metrics. Telemetry hears of no token: what it costs is paid for each run, reply
and call, nearly all of it to the SDK, as the last line tells: there the same spans and measures are
made by hand, with nothing to find out. So the target is for runs as long as those that a token's
cost is measured by, and what a run pays is told for shorter ones, and for one token alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, set_span_in_context

from flowtrio import AgentEvent, EventType, StreamEngine
from flowtrio.otel import OpenTelemetry

from ._measure import Row, Stopwatch, compare, interleave, median
from .tokens import speaker

TARGET = 1.05
ANSWER = 1_000
"""Tokens of an answer of a page."""


class Nowhere(SpanExporter):
    """Takes spans, and keeps none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter`."""
        return SpanExportResult.SUCCESS


class Bare:
    """The SDK alone: what a run of one reply is told as, and nothing but that."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        self._tracer, meter = tracers.get_tracer("bare"), meters.get_meter("bare")
        self._agents = meter.create_histogram("agents", "s", "Time an agent took.")
        self._chats = meter.create_histogram("chats", "s", "Time a reply took.")
        self._firsts = meter.create_histogram("firsts", "s", "Time to the first chunk.")

    def observe(self, event: AgentEvent) -> None:
        """See `flowtrio.abc.Telemetry`."""
        now = round(event.timestamp * 1e9)
        if event.type is EventType.RUN_START:
            agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "assistant"}
            run = {"flowtrio.run.id": event.run_id, "flowtrio.tenant.id": "default"}
            self._began, self._agent = event.timestamp, agent
            self._root = self._tracer.start_span(
                "invoke_agent assistant",
                Context(),
                SpanKind.INTERNAL,
                {**agent, **run},
                start_time=now,
            )
            self._inside = set_span_in_context(self._root, Context())
        elif event.type is EventType.MESSAGE_COMPLETE:
            first, chat = event.data["first_token"], {"gen_ai.operation.name": "chat"}
            more = {
                "gen_ai.request.stream": True,
                "gen_ai.response.finish_reasons": ("stop",),
                "gen_ai.response.time_to_first_chunk": first,
            }
            span = self._tracer.start_span(
                "chat", self._inside, SpanKind.CLIENT, {**chat, **more}, start_time=now
            )
            span.end(now)
            inside = set_span_in_context(span, Context())
            self._chats.record(event.data["duration"], chat, inside)
            self._firsts.record(first, chat, inside)
        elif event.type is EventType.DONE:
            self._root.set_attribute("flowtrio.outcome", "completed")
            self._root.end(now)
            self._agents.record(event.timestamp - self._began, self._agent, self._inside)


async def runs_side(engine: StreamEngine, tokens: int, runs: int) -> float:
    """CPU seconds for each token of so many runs, one after the other."""
    agent, seen = speaker(tokens), 0
    watch = Stopwatch()
    for _ in range(runs):
        async with engine.stream(agent, "go") as stream:
            async for event in stream:
                if event.type is EventType.MESSAGE_CHUNK:
                    seen += 1
    spent = watch.seconds_each(tokens * runs)
    assert seen == tokens * runs, f"{seen} tokens came of {tokens * runs}"
    return spent


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    traced = OpenTelemetry(tracer_provider=tracers, meter_provider=meters)
    bare, without = StreamEngine(telemetry=Bare(tracers, meters)), StreamEngine()
    found: list[Row] = []
    for tokens, name, against, target in (
        (40 * ANSWER, "token of 40,000, traced / not", without, TARGET),
        (ANSWER, f"token of {ANSWER:,}, traced / not", without, None),
        (1, "run of one token, traced / not", without, None),
        (1, "run of one token, traced / by the SDK alone", bare, None),
    ):
        runs = max(1, (4_000 if quick else 40_000) // max(tokens, 100))
        taken = interleave(
            3 if quick else 9,
            ours=_side(StreamEngine(telemetry=traced), tokens, runs),
            theirs=_side(against, tokens, runs),
        )
        found.append(compare(name, taken["ours"], taken["theirs"], target=target, best=median))
    tracers.shutdown()
    return found


def _side(engine: StreamEngine, tokens: int, runs: int) -> Callable[[], float]:
    return partial(trio.run, runs_side, engine, tokens, runs)
