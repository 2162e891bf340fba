"""What a layout consists of: moments and columns for the order, lanes for what lasts."""

from __future__ import annotations

import math
from typing import Any, Final

import attrs

from flowtrio._core._events import EventType

_WIDEST: Final = 6.0
"""Columns of one event that a column of many pieces takes at most."""


@attrs.define(eq=False)
class Column:
    """One place in the order: an event, or the pieces between two."""

    first: int
    """Place of its first event among those given."""
    seq: int | None
    time: float | None
    """Seconds since the log's first event."""
    is_merged: bool = False
    count: int = 1

    @property
    def weight(self) -> float:
        """Its width, where that of a single event is 1."""
        return min(_WIDEST, 1 + math.log2(self.count))


@attrs.define(eq=False)
class Bar:
    """Something that lasts, from its first column to its last."""

    row: int
    start: int
    end: int
    tone: str
    """What it is, or how it ended: the name of its colour."""
    text: str
    title: str
    is_open: bool = False
    """Whether the log ends before it does."""


@attrs.frozen
class Mark:
    """Something that takes no time."""

    row: int
    column: int
    kind: str
    title: str


@attrs.define(eq=False)
class Lane:
    """A line of the picture: the run, a model, a tool, an agent, an agent's questions."""

    name: str
    depth: int
    kind: str
    bars: list[Bar] = attrs.Factory(list)
    streaks: dict[tuple[int, int, str], int] = attrs.Factory(dict)
    marks: list[Mark] = attrs.Factory(list)
    rows: list[bool] = attrs.Factory(list)
    """Its rows, and whether something stands in each; more than one where things overlap."""


def take_place(places: list[bool]) -> int:
    """Occupy the first place that is free."""
    place = places.index(False) if False in places else len(places)
    places[place : place + 1] = [True]
    return place


@attrs.define(eq=False)
class Moment:
    """One event, and what it is about."""

    envelope: dict[str, Any]
    type: EventType | None
    data: dict[str, Any]
    agent: str
    time: float | None
    """Seconds since the log's first event."""
    rail: int | None = None
    """A number for what it is about, which nothing else has meanwhile; None where that is not
    open."""
    opens: bool = False
    closes: bool = False


@attrs.frozen
class Layout:
    """A whole log."""

    moments: list[Moment]
    columns: list[Column]
    lanes: list[Lane]
    run_id: str
    message: str
    status: str
    """How the run ended; empty where it did not."""
