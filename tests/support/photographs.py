"""A shared store as it was a moment ago: for stores that come back without their newest entries."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from flowtrio.testing._leased_place import SharedPlace


def photograph(place: SharedPlace) -> Callable[[], None]:
    """Remember what is there; what is given makes it so again, but for who listens."""
    runs = {
        key: (run.header, run.waits_since, run.is_told, list(run.events))
        for key, run in place.runs.items()
    }
    queue, lines = deque(place.queue), {key: list(line) for key, line in place.lines.items()}
    said = {key: list(messages) for key, messages in place.said.items()}
    leases, claims = dict(place.leases), dict(place.claims)

    def restore() -> None:
        for key in place.runs.keys() - runs.keys():
            del place.runs[key]
        for key, (header, waits_since, is_told, events) in runs.items():
            run = place.runs[key]
            run.header, run.waits_since, run.is_told = header, waits_since, is_told
            run.events[:] = events
        place.queue, place.lines, place.said = queue, lines, said
        place.leases, place.claims = leases, claims

    return restore
