"""`RunInfo`: what identifies a run, what it was asked, and the world that it runs in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ._hooks import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from flowtrio._core._limits import Limits
    from flowtrio._core._parts import UserMessage
    from flowtrio._core._prices import PriceTable

    from ._simulation import Simulation
    from ._telemetry import Observer


class RunInfo(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What identifies a run and what it was asked; fixed from its beginning."""

    run_id: str
    said: UserMessage
    """What the user says."""
    agent_name: str
    limits: Limits
    history: Sequence[dict[str, Any]]
    app: Any
    tenant_id: str
    session_id: str | None
    parent_run_id: str | None
    wall_clock: Callable[[], float]
    schedule_every: int
    simulation: Simulation | None
    prices: PriceTable | None
    hooks: Hooks = NO_HOOKS
    observer: Observer | None = None
    """Who hears of its events as they are recorded."""
    given: object | None = None
    """What its root agent is given for this run alone; kept here for `_agents`."""

    @property
    def log_keys(self) -> dict[str, str]:
        """What lines carry by name that are written of it, or by its code."""
        keys = {} if self.observer is None else self.observer.log_keys
        return {"run_id": self.run_id, **keys}

    @property
    def message(self) -> str:
        """The text of what the user says."""
        return self.said.text

    def check_length(self, text: str, what: str) -> None:
        """Refuse a text that no event may hold.

        Raises:
          ValueError: it is longer than ``Limits.result_bytes``.

        """
        # A character takes a byte at least.
        if len(text) > self.limits.result_bytes:
            raise ValueError(
                f"{what}: has {len(text)} characters, more than "
                f"result_bytes={self.limits.result_bytes}"
            )
