"""The logs by which adapters are tested: lawful, the same each time, and of every kind."""

from __future__ import annotations

from collections import Counter

import pytest

from flowtrio import EventType
from flowtrio.testing import check_events

from .logs import FEW_SEEDS, NAMES, any_log, log_of, waits_of


def test_each_is_lawful_and_the_hand_written_tell_every_type_of_event() -> None:
    seen = set()
    for name in NAMES:
        check_events(log_of(name))
        seen |= {event.type for event in log_of(name)}

    assert seen == set(EventType)


def test_they_end_in_every_way() -> None:
    logs = [any_log(name) for name in [*NAMES, *map(str, FEW_SEEDS)]]
    endings = Counter(log[-1].data["status"] for log in logs)
    codes = {e.data["code"] for log in logs for e in log if e.type is EventType.ERROR}
    outcomes = {e.data["outcome"] for log in logs for e in log if e.type is EventType.TOOL_CALL_END}

    assert min(endings[status] for status in ("completed", "error", "cancelled")) >= 10
    assert len(codes) >= 8
    assert outcomes == {"ok", "error", "timeout", "cancelled", "denied"}
    assert sum(bool(waits_of(log)) for log in logs) >= 8


@pytest.mark.parametrize(
    ("name", "waits"),
    [("two_at_once", 2), ("other_side", 2), ("approved_and_denied", 3), ("plain", 0)],
)
def test_a_log_tells_where_it_waits(name: str, waits: int) -> None:
    assert len(waits_of(log_of(name))) == waits
