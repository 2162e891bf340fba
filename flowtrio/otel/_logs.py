"""Log records, told which run and which span they were written in."""

from __future__ import annotations

import logging

from opentelemetry import trace

from flowtrio._core._telling import log_keys


class LogFilter(logging.Filter):
    """Gives records ``run_id``, ``trace_id`` and ``span_id``, where they were written in a run.

    For handlers, ``handler.addFilter(LogFilter())``: those of an application's own lines too. Where
    a span is the current one outside a run, its ids are given. Nothing is kept back, and what a
    record has already stays as it is. flowtrio's own lines about a run need no filter.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        told = vars(record)
        for name, value in self._keys().items():
            told.setdefault(name, value)
        return True

    def _keys(self) -> dict[str, object]:
        keys = dict(log_keys())
        current = trace.get_current_span().get_span_context()
        return {**keys, **ids_of(current)} if current.is_valid else keys


def ids_of(span: trace.SpanContext) -> dict[str, str]:
    """The ids of a span, as lines carry them."""
    return {
        "trace_id": trace.format_trace_id(span.trace_id),
        "span_id": trace.format_span_id(span.span_id),
    }
