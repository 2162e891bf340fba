"""What runs are doing, from their logs: at a glance, and without a seat at any of them.

Who only looks keeps no run from being left: so logs are read from the store, and not followed. Of a
run that goes on, the whole log is read once, and from then on what is new; of one that has ended,
its last two events tell enough.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

from flowtrio._core._chunks import Usage
from flowtrio._core._events import AgentEvent, AgentStatus, EventType
from flowtrio._core._exceptions import ReplayGap
from flowtrio.serving.commands._clients import Hosting, asking_the_store
from flowtrio.serving.commands._throttle import read_end

from ._segments import Waits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowtrio.abc import RunHeader

_KNOWN: Final = 10_000
"""Runs of which is kept what was read."""
_AT_ONCE: Final = 1_000
"""Events that are read at once."""

_Key: TypeAlias = tuple[str, str, float]
"""Tenant, run and when it was created: another one may have its id later."""


@attrs.define(eq=False)
class Glance:
    """What a run's log tells, as far as it was read."""

    status: str = AgentStatus.INITIALIZING
    code: str | None = attrs.field(default=None, init=False)
    """Why it failed; None where it has not."""
    usage: Usage = attrs.field(factory=Usage, init=False)
    """What it has spent."""
    ended_at: float | None = None
    waits: Waits = attrs.field(factory=Waits, init=False)
    """What it waits for."""
    last: int = attrs.field(default=-1, init=False)
    """The last event that was read, by its number."""
    is_settled: bool = attrs.field(default=False, init=False)
    """Whether nothing more will come."""
    lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Held by who reads on."""

    def add(self, event: AgentEvent) -> None:
        """Take the log's next event."""
        data = event.data
        self.last = event.seq
        self.waits.feed(event)
        match event.type:
            case EventType.STATE_CHANGE:
                self.status = data["new_status"]
            case EventType.MESSAGE_COMPLETE:
                if data["usage"] is not None:
                    self.usage += Usage(**data["usage"])
            case EventType.ERROR:
                self.code = data["code"]
            case EventType.DONE:
                self.status, self.usage = data["status"], Usage(**data["usage"])
                self.ended_at, self.is_settled = event.timestamp, True


@attrs.define(eq=False)
class Overview:
    """What is known of runs, of all tenants."""

    _hosting: Hosting
    _known: OrderedDict[_Key, Glance] = attrs.field(factory=OrderedDict, init=False)

    async def look(self, header: RunHeader) -> Glance:
        """Read what is new in a run's log.

        Raises:
          StoreFailed: the store did.

        """
        key = (header.tenant_id, header.run_id, header.created_at)
        glance = self._known.setdefault(key, Glance())
        self._known.move_to_end(key)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        if not glance.is_settled:
            async with glance.lock:
                with asking_the_store():
                    await self._read(header, glance)
        return glance

    async def _read(self, header: RunHeader, glance: Glance) -> None:
        try:
            if header.ended_at is None:
                await self._read_on(header, glance)
            elif not glance.is_settled:
                await self._read_end(header, glance)
        except LookupError:
            pass  # It was forgotten meanwhile.

    async def _read_on(self, header: RunHeader, glance: Glance) -> None:
        hosted = self._hosting.service.recorder.runs.get((header.tenant_id, header.run_id))
        if hosted is not None and hosted.stored <= glance.last:
            return
        is_more = True
        while is_more:
            try:
                events = await self._events(header, glance.last, _AT_ONCE)
            except ReplayGap as gap:
                if gap.oldest is None or gap.oldest <= glance.last + 1:
                    return
                glance.last = gap.oldest - 1
                continue
            for event in events:
                glance.add(event)
            is_more = len(events) == _AT_ONCE

    async def _read_end(self, header: RunHeader, glance: Glance) -> None:
        glance.waits = Waits()
        for event in await read_end(self._hosting.orchestrator.store, header):
            glance.add(event)
        glance.status, glance.ended_at = str(header.status), header.ended_at
        glance.is_settled = True

    async def _events(self, header: RunHeader, after: int, limit: int) -> Sequence[AgentEvent]:
        store = self._hosting.orchestrator.store
        return await store.read(header.tenant_id, header.run_id, after, limit)
