"""``flowtrio serve --otel``: traces and metrics go where OpenTelemetry's variables say."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
import pytest
import trio
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from flowtrio import Agent, DemoClient, Orchestrator
from flowtrio.cli._load import UsageError, make_orchestrator
from flowtrio.cli._main import main
from flowtrio.cli._otel import FLUSH, end_all, make_providers, open_telemetry
from tests.otel.traced import traced
from tests.support.command import serving, talk


@attrs.define
class Collector:
    """What takes what is exported."""

    url: str
    spans: list[Any] = attrs.Factory(list)
    metrics: list[str] = attrs.Factory(list)
    resources: set[str] = attrs.Factory(set)
    answers: bool = True
    left: threading.Event = attrs.Factory(threading.Event)

    def take(self, path: str, body: bytes) -> None:
        """Read one request."""
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self._take_resource(resource.resource)
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
        else:
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self._take_resource(resource.resource)
                for scope in resource.scope_metrics:
                    self.metrics.extend(metric.name for metric in scope.metrics)

    def _take_resource(self, resource: Any) -> None:
        told = {item.key: item.value.string_value for item in resource.attributes}
        self.resources.add(told["service.name"])


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector at an address of its own; it may be told not to answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if not collector.answers:
                collector.left.wait(60)
                return
            import gzip

            is_packed = self.headers.get("content-encoding") == "gzip"
            collector.take(self.path, gzip.decompress(body) if is_packed else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        collector.left.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_served_run_is_exported_by_the_servers_end_and_its_line_tells_of_the_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with serving("--otel", "--no-http", "--log-format", "json") as served:
            frames = talk(served.socket, "Book a flight to Paris")
            status, errors = served.end(signal.SIGTERM)
        names = sorted(span.name for span in collector.spans)
        [root] = [span for span in collector.spans if not span.parent_span_id]
        lines = [json.loads(line) for line in errors.splitlines()]
        [line] = [line for line in lines if line.get("status") == "completed"]

    assert status == 0
    assert {name.split()[0] for name in names} == {"invoke_agent", "chat", "execute_tool"}
    assert {span.trace_id for span in collector.spans} == {root.trace_id}
    assert collector.resources == {"flowtrio"}
    assert "gen_ai.invoke_agent.duration" in collector.metrics
    assert line["run_id"] == frames[0]["run_id"]
    assert (line["trace_id"], line["span_id"]) == (root.trace_id.hex(), root.span_id.hex())


def test_a_collector_that_never_answers_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with collecting() as collector:
        collector.answers = False
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
        with serving("--otel", "--no-http") as served:
            talk(served.socket, "Book a flight to Paris")
            served.process.send_signal(signal.SIGTERM)
            # What is logged says that it was given up; by itself the SDK would go on for thirty.
            _, errors = served.process.communicate(timeout=60)

    assert served.process.returncode == 0
    assert "traces and metrics are left that could not be sent in 2 s" in errors


async def test_waiting_for_what_is_not_sent_blocks_nobody_and_has_an_end(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, ticks = threading.Event(), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.sleep(0.5)
            ticks += 1

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await end_all([stuck.wait])
            nursery.cancel_scope.cancel()
    finally:
        stuck.set()

    assert trio.current_time() >= FLUSH
    assert ticks >= 3
    [record] = caplog.records
    assert record.getMessage() == "traces and metrics are left that could not be sent in 2 s"


async def test_one_that_cannot_be_ended_is_told_of_and_the_others_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = []

    def fails() -> None:
        raise ValueError("no collector")

    await end_all([fails, lambda: ended.append(1)])

    assert ended == [1]
    assert [r.getMessage() for r in caplog.records] == ["traces and metrics could not be sent"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin: expected one of otlp"),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, "OTEL_METRICS_EXPORTER=prometheus: expected"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: expected http/protobuf",
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json: expected http/protobuf",
        ),
    ],
)
def test_what_a_variable_means_that_is_not_there_is_told_in_one_line(
    variables: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert main(["serve", "--no-http", "--ws-port", "0", "--otel"]) == 2
    assert f"flowtrio: {words}" in capsys.readouterr().err


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    assert main(["serve", "--no-http", "--ws-port", "0", "--otel"]) == 2
    err = capsys.readouterr().err
    assert "flowtrio: --otel needs 'opentelemetry.sdk.trace': pip install 'flowtrio[otel]'" in err


@pytest.mark.parametrize("kind", ["console", "none", "otlp"])
def test_exporters_are_chosen_by_name(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    tracers, meters = make_providers({"OTEL_TRACES_EXPORTER": kind, "OTEL_METRICS_EXPORTER": kind})
    if kind != "otlp":
        tracers.get_tracer("x").start_span("spoken of").end()
    tracers.shutdown()
    meters.shutdown()

    assert ("spoken of" in capsys.readouterr().out) == (kind == "console")
    assert tracers.resource.attributes["service.name"] == "shop"


async def test_a_provider_that_the_process_has_is_taken_and_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = traced()
    provider = made.telemetry._tracer  # Whatever is no proxy.
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    monkeypatch.setattr("flowtrio.otel._telemetry.trace.get_tracer", lambda *args: made.tracer)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])
    async with open_telemetry(is_wanted=True) as telemetry:
        assert telemetry is not None
        orchestrator = Orchestrator(llm_client=DemoClient(), telemetry=telemetry)
        await orchestrator.process("Hi")

    assert made.spans("invoke_agent")
    assert len(root.handlers[0].filters) == 1
    async with open_telemetry(is_wanted=False) as telemetry:
        assert telemetry is None


def test_an_orchestrator_of_ones_own_has_telemetry_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = Orchestrator(agents=[Agent(llm_client=DemoClient())])
    monkeypatch.setattr("flowtrio.cli._load.make_served", lambda name: served)

    with pytest.raises(UsageError, match="is an orchestrator: --otel does not apply to it"):
        make_orchestrator(None, "mine:served", telemetry=traced().telemetry)
