"""The seam at which runs are simulated: what a run takes from outside, in one object.

A run meets the world in five places: the clock on the wall, the ids that nobody can guess, the
scheduler's choice of who goes next, the models it asks, and the functions of its tools. Where an
engine is given a `Simulation`, its runs, and all runs that are started inside them by whatever
engine, go through that object instead. `flowtrio.testing.simulate` is the one who has such objects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from flowtrio.abc import LLMClient


class Function(Protocol):
    """A tool's function; see `flowtrio.Tool`."""

    @property
    def fn(self) -> Callable[..., Any]:
        """The function."""
        ...

    @property
    def name(self) -> str:
        """What the model calls it."""
        ...

    @property
    def is_async(self) -> bool:
        """Whether it runs in the run's own task."""
        ...


class Simulation(Protocol):
    """What a simulated run meets in the place of the world."""

    schedule_every: int
    """Events of a run between two schedule points."""

    def wall_clock(self) -> float:
        """UTC in seconds."""
        ...

    def make_run_id(self) -> str:
        """Give the id of a run that was not given one."""
        ...

    def client(self, client: LLMClient) -> LLMClient:
        """The model that is asked where an agent would ask *client*."""
        ...

    async def run_tool(self, call_id: str, tool: Function, arguments: dict[str, Any]) -> Any:
        """Run a tool's function, in the task of its call, and give what it returns."""
        ...
