"""Gaps between chunks are counted one by one, however many come together."""

from __future__ import annotations

import pytest

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._hosting._meter import Meter


def chunks(*times: float) -> list[AgentEvent]:
    data = {"chunk": "a", "message_id": "m1"}
    return [AgentEvent(EventType.MESSAGE_CHUNK, data, 1, "r", "root", time) for time in times]


@pytest.mark.parametrize("cut", range(6))
def test_a_batch_counts_as_much_as_its_events_alone(cut: int) -> None:
    times = (10.0, 10.001, 10.002, 12.0, 12.003)
    meter = Meter()
    last = meter.note(7.0, False, chunks(*times[:cut]))
    last = meter.note(last, cut > 0, chunks(*times[cut:]))

    assert last == times[-1]
    assert meter.first_token.total == pytest.approx(3.0)
    assert sum(meter.first_token.counts) == 1
    assert meter.gaps.total == pytest.approx(2.003)
    assert meter.gaps.counts[0] == 3
    assert sum(meter.gaps.counts) == 4


def test_what_is_no_chunk_counts_nothing() -> None:
    meter = Meter()
    event = AgentEvent(EventType.CUSTOM, {"name": "n", "value": 1}, 1, "r", "root", 9.0)

    assert meter.note(7.0, False, [event]) == 7.0
    assert sum(meter.first_token.counts) == sum(meter.gaps.counts) == 0
