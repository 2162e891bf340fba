"""What a test has simulated, as a file: so that a failure can be played again.

A test's body may simulate more than one run, so what is kept is the list of their cases, in order.
Under Hypothesis the body itself runs many times; each time the list begins anew.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import attrs
import msgspec

from ._faults import Fault
from ._hypothesis import current_example
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

    def to_data(self) -> dict[str, Any]:
        """Write it down as JSON values; a model whose turns have no such form is left out.

        Of a reader of the test's own, the test itself has what it adds.
        """
        try:
            turns = None if self.model is None else turns_to_json(self.model.turns)
        except TypeError:
            turns = None
        return {
            "reader": {
                field.name: getattr(self.reader, field.name) for field in attrs.fields(Reader)
            },
            "faults": [attrs.asdict(fault) for fault in self.faults],
            "schedule": self.schedule.choices,
            "model": turns,
        }

    @classmethod
    def from_data(cls, value: dict[str, Any]) -> Case:
        """Read what `to_data` gave."""
        turns = value["model"]
        return cls(
            reader=Reader(**value["reader"]),
            faults=tuple(Fault(**fault) for fault in value["faults"]),
            schedule=Schedule(value["schedule"]),
            model=None if turns is None else SimulatedModel(turns_from_json(turns)),
        )


@attrs.frozen
class Replay:
    """What a failed test is played again from."""

    cases: Sequence[Case]
    """Of all simulations of its body, in order."""
    drawn: str | None = None
    """What Hypothesis drew for the body, see `drawn_for`; None if it is no test of Hypothesis."""

    def to_json(self) -> bytes:
        """Write it down, one case a line."""
        cases = b",\n".join(msgspec.json.encode(case.to_data()) for case in self.cases)
        return b'{"drawn":%s,"cases":[\n%s\n]}\n' % (msgspec.json.encode(self.drawn), cases)

    @classmethod
    def from_json(cls, text: bytes) -> Replay:
        """Read what `to_json` wrote."""
        value: dict[str, Any] = msgspec.json.decode(text)
        return cls([Case.from_data(case) for case in value["cases"]], value["drawn"])


@attrs.define
class Played:
    """A run whose log is kept for the report of a test that fails."""

    events: list[Any]
    cases: list[Case] = attrs.Factory(list)
    """Of all that the test's body has simulated so far; this run's is the last."""
    notes: list[str] = attrs.Factory(list)
    example: Any = None
    """The running of the body that it belongs to, where Hypothesis runs it."""


recent: Final[deque[Played]] = deque(maxlen=1)
"""The last run of the running test: after shrinking, a property test plays its smallest again."""

forced: Final[list[Replay]] = []
"""The replay whose cases simulations are to play instead of their own; empty for none."""

replayed: Final[list[Case]] = []
"""The forced cases that the running body of a test has played."""


def keep(events: list[Any], case: Case | None = None) -> Played:
    """Keep a run for the report of a test that fails: its log, as far as it is read, and its case.

    Where a replay is forced, its case stands in the place of the one that was drawn.
    """
    example = current_example()
    # Without a test, as in a loop over a million seeds, nobody asks for what was before.
    is_next = recent and recent[-1].example is example and "PYTEST_CURRENT_TEST" in os.environ
    cases = recent[-1].cases if is_next else []
    if case is not None:
        forced = _forced(len(cases), in_example=example is not None)
        if forced is not None and type(case.reader) is not Reader:
            forced = attrs.evolve(forced, reader=case.reader)
        cases.append(forced or case)
    recent.append(Played(events, cases, example=example))
    return recent[-1]


def _forced(place: int, *, in_example: bool) -> Case | None:
    """The case that the body's simulation number *place* is to play; None for its own."""
    for replay in forced:
        # A fixture of a property test may simulate too, before anything is drawn.
        if place < len(replay.cases) and in_example == (replay.drawn is not None):
            replayed[place:] = [replay.cases[place]]
            return replay.cases[place]
    return None
