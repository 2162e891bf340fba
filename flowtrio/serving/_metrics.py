"""Metrics in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from flowtrio._hosting._meter import Histogram
    from flowtrio._hosting._service import Service

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_OUTCOMES: Final = ("completed", "error", "cancelled")


def encode_metrics(service: Service, connections: int) -> bytes:
    """All of them; names and labels hold nothing of what was said, nor whose it was."""
    return ("\n".join(_lines(service, connections)) + "\n").encode()


def _lines(service: Service, connections: int) -> Iterator[str]:
    meter, recorder = service.meter, service.recorder
    yield from _head("flowtrio_runs_total", "counter", "Runs that ended, by outcome.")
    for outcome in _OUTCOMES:
        yield f'flowtrio_runs_total{{outcome="{outcome}"}} {meter.outcomes.get(outcome, 0)}'
    yield from _gauge("flowtrio_runs_running", "Runs under way.", meter.running)
    yield from _gauge("flowtrio_runs_hosted", "Hosted runs under way.", len(recorder.runs))
    followers = sum(hosted.seats for hosted in recorder.runs.values())
    yield from _gauge("flowtrio_followers", "Readers attached to hosted runs.", followers)
    yield from _gauge("flowtrio_connections", "Streaming connections of clients.", connections)
    yield from _counter("flowtrio_events_total", "Events of the runs that ended.", meter.events)
    failures = meter.store_failures
    yield from _counter("flowtrio_store_failures_total", "Runs whose store failed.", failures)
    yield from _histogram(
        "flowtrio_first_token_seconds",
        "From the start of a hosted run to its first chunk.",
        meter.first_token,
    )
    yield from _histogram(
        "flowtrio_chunk_gap_seconds", "Between two chunks of a hosted run.", meter.gaps
    )


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _gauge(name: str, text: str, value: int) -> Iterator[str]:
    yield from _head(name, "gauge", text)
    yield f"{name} {value}"


def _counter(name: str, text: str, value: int) -> Iterator[str]:
    yield from _head(name, "counter", text)
    yield f"{name} {value}"


def _histogram(name: str, text: str, histogram: Histogram) -> Iterator[str]:
    yield from _head(name, "histogram", text)
    count = 0
    for bound, here in zip((*histogram.bounds, None), histogram.counts, strict=True):
        count += here
        label = "+Inf" if bound is None else f"{bound:g}"
        yield f'{name}_bucket{{le="{label}"}} {count}'
    yield f"{name}_sum {histogram.total:.6f}"
    yield f"{name}_count {count}"
