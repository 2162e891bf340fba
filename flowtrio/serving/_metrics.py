"""Metrics for Prometheus, by its own client: loaded by whoever asks for them.

Nothing is counted by the client: a meter of ours counts, since one process may have several
orchestrators, and runs without the client too. What it has is told as families of one registry,
made for each answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from flowtrio._hosting._cluster import Cluster
    from flowtrio._hosting._histogram import Histogram
    from flowtrio._hosting._service import Service
    from flowtrio.abc import SharedStatistics

_OUTCOMES = ("completed", "error", "cancelled")


def encode_metrics(
    service: Service, connections: int, accepted: str, shared: SharedStatistics | None = None
) -> tuple[bytes, str]:
    """All of them, and their media type; they hold nothing of what was said, nor whose it was.

    Args:
      service: What is measured.
      connections: Streaming connections of clients.
      accepted: The types that whoever asks can read.
      shared: What the store holds, where processes share it and it says so.

    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(service, connections, shared))
    encode, media_type = choose_encoder(accepted)
    return encode(registry), media_type


class _Collected(Collector):
    """What the client asks for families."""

    def __init__(self, service: Service, connections: int, shared: SharedStatistics | None) -> None:
        self._service = service
        self._shared = shared
        self._connections = connections

    def describe(self) -> Iterable[Metric]:
        """Nothing is checked before it is asked for."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families, in their order."""
        meter, recorder = self._service.meter, self._service.recorder
        outcomes = [((name,), meter.outcomes.get(name, 0)) for name in _OUTCOMES]
        yield _counter("flowtrio_runs", "Runs that ended, by outcome.", outcomes, "outcome")
        yield _gauge("flowtrio_runs_running", "Runs under way.", meter.running)
        yield _gauge("flowtrio_runs_hosted", "Hosted runs under way.", len(recorder.runs))
        followers = sum(hosted.seats for hosted in recorder.runs.values())
        yield _gauge("flowtrio_followers", "Readers attached to hosted runs.", followers)
        words = "Streaming connections of clients."
        yield _gauge("flowtrio_connections", words, self._connections)
        yield _counter("flowtrio_events", "Events of the runs that ended.", [((), meter.events)])
        words = "Runs whose store failed."
        yield _counter("flowtrio_store_failures", words, [((), meter.store_failures)])
        words = "From the start of a hosted run to its first chunk."
        yield _histogram("flowtrio_first_token_seconds", words, [((), meter.first_token)])
        words = "Between two chunks of a hosted run."
        yield _histogram("flowtrio_chunk_gap_seconds", words, [((), meter.gaps)])
        yield from self._labelled()
        if self._service.cluster is not None:
            yield from self._of_cluster(self._service.cluster)

    def _labelled(self) -> Iterator[Metric]:
        """What hosted runs did, by what did it."""
        labelled = self._service.meter.labelled
        words = "Tokens of models; cached ones are of prompts, reasoning is of completions."
        yield _counter("flowtrio_model_tokens", words, labelled.tokens.items(), "model", "kind")
        costs = [((model,), float(cost)) for model, cost in labelled.costs.items()]
        words = "Cost of models, in the currency of the prices."
        yield _counter("flowtrio_model_cost", words, costs, "model")
        words = "Replies of models, by why they ended."
        yield _counter(
            "flowtrio_model_replies", words, labelled.replies.items(), "model", "finish_reason"
        )
        firsts = [((model,), times) for model, times in labelled.first_tokens.items()]
        words = "From a request to the first token of the reply."
        yield _histogram("flowtrio_model_first_token_seconds", words, firsts, "model")
        words = "Calls of tools, by outcome."
        yield _counter("flowtrio_tool_calls", words, labelled.calls.items(), "tool", "outcome")
        times = [((tool,), times) for tool, times in labelled.call_times.items()]
        yield _histogram("flowtrio_tool_seconds", "Times of calls of tools.", times, "tool")
        words = "Runs that failed, by code and source."
        yield _counter("flowtrio_run_errors", words, labelled.errors.items(), "code", "source")

    def _of_cluster(self, cluster: Cluster) -> Iterator[Metric]:
        """What this process, and all that share its store, are about."""
        meter = self._service.meter
        left = max(0.0, cluster.lease.held_until - trio.current_time())
        yield _gauge("flowtrio_lease_seconds", "Until the lease of this process is gone.", left)
        words = "Runs of processes that are gone, to which an end was given here."
        yield _counter("flowtrio_runs_reaped", words, [((), meter.reaped)])
        words = "Runs that ended here because another process had taken their place."
        yield _counter("flowtrio_runs_fenced", words, [((), meter.fenced)])
        words = "Logs of which the store had lost something, put right here."
        yield _counter("flowtrio_runs_healed", words, [((), meter.healed)])
        if (shared := self._shared) is None:
            return
        words = "Runs that may be claimed, by any process."
        yield _gauge("flowtrio_cluster_runs_queued", words, shared.queued)
        words = "Runs that wait behind another one of their conversation."
        yield _gauge("flowtrio_cluster_runs_in_line", words, shared.in_line)
        yield _gauge("flowtrio_cluster_runs_owned", "Runs of all processes.", shared.owned)
        yield _gauge("flowtrio_cluster_processes", "Processes with a lease.", shared.processes)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _counter(
    name: str, words: str, values: Iterable[tuple[Sequence[str], float]], *labels: str
) -> Metric:
    family = CounterMetricFamily(name, words, labels=labels)
    for given, value in values:
        family.add_metric(given, value)
    return family


def _histogram(
    name: str, words: str, values: Iterable[tuple[Sequence[str], Histogram]], *labels: str
) -> Metric:
    family = HistogramMetricFamily(name, words, labels=labels)
    for given, histogram in values:
        buckets, count = list[tuple[str, float]](), 0
        for bound, here in zip((*histogram.bounds, None), histogram.counts, strict=True):
            count += here
            buckets.append(("+Inf" if bound is None else f"{bound:g}", count))
        family.add_metric(given, buckets, sum_value=histogram.total)
    return family
