"""A hostile telemetry: what it does at some of the events that it hears.

One is ``("telemetry", acts)``, each act ``(number, what)``: the number of the event at which it is
done, counted from the first that is heard. It raises, changes what it was told, takes its time, or
calls a control of the very run whose event is being recorded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from . import odd

if TYPE_CHECKING:
    from .world import Watch, World

NAP = 0.001
"""Seconds, real ones: who is that slow holds up all, and has to change nothing."""


@attrs.define(eq=False)
class HostileTelemetry:
    """Hears the first run of a world, and does what *acts* say."""

    world: World
    acts: tuple[tuple[int, Any], ...]
    heard: int = attrs.field(default=0, init=False)

    @property
    def watch(self) -> Watch:
        return self.world.watches[0]

    def of_run(self, run_id: str, tenant_id: str) -> Any:
        """See `flowtrio.abc.TelemetryPerRun`."""
        if any(what == ("refuse",) for _, what in self.acts):
            self.world.telemetry["refused"] += 1
            raise ValueError("planned")
        return self

    def observe(self, event: Any) -> None:
        """See `flowtrio.abc.Telemetry`."""
        self.world.hear(event)
        number, self.heard = self.heard, self.heard + 1
        for at, what in self.acts:
            if at == number:
                self._act(what, event)

    def _act(self, what: Any, event: Any) -> None:
        from .world import _wreck

        self.world.telemetry[str(what[0])] += 1
        match what:
            case ("raise", failure):
                if None not in self.world.told:  # Else it raised in what it did while it was told.
                    self.world.told.append(None)
                raise odd.FAILURES[failure]()
            case ("wreck",):
                _wreck(event.data)
            case ("nap",):
                time.sleep(NAP)
            case ("refuse" | "no keys",):
                pass
            case ("control" | "post", *_):
                self.world.click(self.watch, what)
            case _:
                raise AssertionError(what)

    # Around what the run does it is as good as gold: what hooks do there, `hooks` does.

    async def around_agent(self, ctx: Any, proceed: Any) -> Any:
        """See `flowtrio.abc.AroundAgent`."""
        return await proceed()

    async def around_tool(self, ctx: Any, call: Any, proceed: Any) -> Any:
        """See `flowtrio.abc.AroundTool`."""
        return await proceed()

    @property
    def log_keys(self) -> Mapping[str, str]:
        """See `flowtrio.abc.RunTelemetry`."""
        if ("no keys",) in [what for _, what in self.acts]:
            self.world.telemetry["has no keys"] += 1
            self.world.told.append(None)
            raise ValueError("planned")
        return {"trace_id": "t", "run_id": "another"}
