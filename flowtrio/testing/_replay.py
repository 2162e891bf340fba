"""What a simulation was made of, as a file: so that a failure can be played again."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import attrs
import msgspec

from ._faults import Fault
from ._models import SimulatedModel, turns_from_json, turns_to_json
from ._readers import Reader
from ._schedule import Schedule


@attrs.frozen(kw_only=True)
class Case:
    """All that was drawn for one simulation."""

    reader: Reader
    faults: tuple[Fault, ...]
    schedule: Schedule
    model: SimulatedModel | None
    """None where the test has a model of its own."""

    def to_json(self) -> bytes:
        """Write it down; a model whose turns have no such form is left out."""
        try:
            turns = None if self.model is None else turns_to_json(self.model.turns)
        except TypeError:
            turns = None
        value = {
            "reader": attrs.asdict(self.reader),
            "faults": [attrs.asdict(fault) for fault in self.faults],
            "schedule": self.schedule.choices,
            "model": turns,
        }
        return msgspec.json.format(msgspec.json.encode(value))

    @classmethod
    def from_json(cls, text: bytes) -> Case:
        """Read what `to_json` wrote."""
        value: dict[str, Any] = msgspec.json.decode(text)
        turns = value["model"]
        return cls(
            reader=Reader(**value["reader"]),
            faults=tuple(Fault(**fault) for fault in value["faults"]),
            schedule=Schedule(value["schedule"]),
            model=None if turns is None else SimulatedModel(turns_from_json(turns)),
        )


@attrs.define
class Played:
    """A run whose log is kept for the report of a test that fails."""

    events: list[Any]
    case: Case | None = None
    notes: list[str] = attrs.Factory(list)


recent: Final[deque[Played]] = deque(maxlen=1)
"""The last run of the running test: after shrinking, a property test plays its smallest again."""

forced: Final[list[Case]] = []
"""The case that every simulation is to play instead of its own; empty for none."""

replayed: Final[deque[Case]] = deque(maxlen=1)
"""The forced case, once the running test has played it."""
