"""The metrics of runs: instruments of one version of the conventions, and what they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from opentelemetry.context import Context
from opentelemetry.metrics import Meter

from ._names import SECONDS, TOKENS, Conventions, Metric, Quantity

Attributes: TypeAlias = Mapping[str, Any]


class Measures:
    """Records what was measured with each instrument that is for it."""

    def __init__(self, meter: Meter, conventions: Conventions) -> None:
        made: dict[str, Callable[..., None]] = {}
        self._by_quantity: dict[Quantity, list[tuple[Mapping[str, str], Callable[..., None]]]] = {}
        for metric in conventions.metrics:
            record = made.get(metric.name) or _make(meter, metric)
            made[metric.name] = record
            self._by_quantity.setdefault(metric.of, []).append((metric.attributes, record))

    def record(
        self, quantity: Quantity, value: float, attributes: Attributes, span: Context
    ) -> None:
        """Record *value*, which was measured in *span*."""
        for further, record in self._by_quantity.get(quantity, ()):
            record(value, {**attributes, **further} if further else attributes, context=span)


def _make(meter: Meter, metric: Metric) -> Callable[..., None]:
    name, unit, description = metric.name, metric.unit, metric.description
    if metric.is_counter:
        return meter.create_counter(name, unit, description).add
    bounds = SECONDS if unit == "s" else TOKENS
    create = partial(meter.create_histogram, explicit_bucket_boundaries_advisory=bounds)
    return create(name, unit, description).record
