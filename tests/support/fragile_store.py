"""A store that fails on demand: it raises, takes for ever, or loses its newest entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import attrs
import trio

from flowtrio import AgentEvent, MemoryStore
from flowtrio.abc import RunHeader

FAULTS = ("raises", "raises late", "hangs", "hangs late", "group")
"""What may become of a call: whether it has happened then, the caller cannot know."""

FaultOf: TypeAlias = Callable[[int, str, str | None], str | None]
"""What happens to a call, by its number, the method's name and the run."""


class FragileStore(MemoryStore):
    """A store whose calls fail as they are told to; while nothing is asked for, a good one."""

    def __init__(self, fault_of: FaultOf = lambda *call: None) -> None:
        super().__init__()
        self.fault_of = fault_of
        self.calls = 0
        self.asked: list[str] = []

    async def _do(self, name: str, do: Any, *args: Any, **options: Any) -> Any:
        run_id = args[0].run_id if name == "create" else [*args[1:], options.get("run_id")][0]
        fault = self.fault_of(self.calls, name, run_id)
        self.calls += 1
        self.asked.append(name)
        happens = fault is None or fault.endswith("late")
        value = await do(*args, **options) if happens else None
        if fault is None:
            return value
        if fault.startswith("hangs"):
            await trio.sleep_forever()
        if fault == "group":
            raise ExceptionGroup("of a nursery of its own", [OSError("no store"), ValueError("x")])
        raise OSError("no store")

    async def create(self, header: RunHeader) -> bool:
        made: bool = await self._do("create", super().create, header)
        return made

    async def append(
        self,
        tenant_id: str,
        run_id: str,
        after: int,
        events: Sequence[AgentEvent],
        owner: str | None = None,
    ) -> None:
        append = partial(super().append, owner=owner)
        await self._do("append", append, tenant_id, run_id, after, events)

    async def read(self, *args: Any) -> Sequence[AgentEvent]:
        found: Sequence[AgentEvent] = await self._do("read", super().read, *args)
        return found

    async def wait_past(self, *args: Any) -> int:
        last: int = await self._do("wait_past", super().wait_past, *args)
        return last

    async def header(self, *args: Any) -> RunHeader | None:
        header: RunHeader | None = await self._do("header", super().header, *args)
        return header

    async def delete(self, *args: Any, **options: Any) -> int:
        count: int = await self._do("delete", super().delete, *args, **options)
        return count

    def stored(self, run_id: str, tenant_id: str = "default") -> list[AgentEvent]:
        """A run's log as it is, without asking."""
        return self._logs[tenant_id, run_id].read(-1, 1_000_000)

    def keep_only(self, run_id: str, count: int, *more: AgentEvent) -> None:
        """Have a log lose all behind its first events; *more* then stand in their place."""
        self.cut(run_id, [*self.stored(run_id)[:count], *more])

    def cut(self, run_id: str, kept: Sequence[AgentEvent]) -> None:
        """Have a log be these events only."""
        log = self._logs["default", run_id]
        self._events -= log.count - len(kept)
        log.header = attrs.evolve(log.header, ended_at=None, status=None)
        log.parts.clear()
        log.count, log.size, log.last = 0, 0, -1
        if kept:
            log.append(kept)

    def lose(self, count: int) -> None:
        """Lose the newest entries of each log that has no end."""
        for (_, run_id), log in self._logs.items():
            if log.header.ended_at is None and log.count:
                self.keep_only(run_id, max(log.count - count, 0))
