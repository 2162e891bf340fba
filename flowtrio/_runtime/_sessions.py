"""Who may run: one run at a time in a conversation, so many at a time of a tenant."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs
import trio

from flowtrio._core._exceptions import LimitExceeded

if TYPE_CHECKING:
    from ._run import Run

OnBusy: TypeAlias = Literal["queue", "reject", "cancel"]


@attrs.define(eq=False)
class _Place:
    """A run in line; its turn comes when those before it have left."""

    run: Run
    turn: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False, kw_only=True)
class Sessions:
    """The conversations that are in use, each with a line of runs."""

    on_busy: OnBusy
    queue_length: int
    queue_wait: float
    runs_per_tenant: int | None
    _lines: dict[tuple[str, str], deque[_Place]] = attrs.field(factory=dict, init=False)
    _tenants: dict[str, int] = attrs.field(factory=dict, init=False)

    def count(self, run: Run) -> None:
        """Count *run* as one of its tenant's, until its DONE.

        Raises:
          LimitExceeded: the tenant has as many as it may; code ``tenant_busy``.

        """
        tenant_id = run.info.tenant_id
        count = self._tenants.get(tenant_id, 0)
        if self.runs_per_tenant is not None and count >= self.runs_per_tenant:
            raise LimitExceeded(
                f"tenant {tenant_id!r} has {count} runs, as many as it may have at once",
                limit="runs_per_tenant",
                code="tenant_busy",
            )
        self._tenants[tenant_id] = count + 1
        run.when_done(lambda: self._uncount(tenant_id))

    def _uncount(self, tenant_id: str) -> None:
        self._tenants[tenant_id] -= 1
        if not self._tenants[tenant_id]:
            del self._tenants[tenant_id]

    async def wait_for_turn(self, run: Run, session_id: str) -> None:
        """Have the conversation for *run* alone, until its DONE.

        Raises:
          LimitExceeded: it is busy, and waiting is not wanted or took too long; code
          ``session_busy``.

        """
        key = (run.info.tenant_id, session_id)
        line = self._lines.setdefault(key, deque())
        self._check(line, session_id)
        place = _Place(run)
        line.append(place)
        run.when_done(lambda: self._leave(key, place))
        if line[0] is not place:
            await self._wait(line, place, session_id)

    def _leave(self, key: tuple[str, str], place: _Place) -> None:
        line = self._lines[key]
        line.remove(place)
        if line:
            line[0].turn.set()
        else:
            del self._lines[key]

    def _check(self, line: deque[_Place], session_id: str) -> None:
        if self.on_busy == "cancel":
            for earlier in line:
                earlier.run.cancel("a newer message came in the same conversation")
        elif line and (self.on_busy == "reject" or len(line) > self.queue_length):
            raise LimitExceeded(
                f"session {session_id!r} is busy with {len(line)} runs",
                limit="session" if self.on_busy == "reject" else "queue",
                code="session_busy",
            )

    async def _wait(self, line: deque[_Place], place: _Place, session_id: str) -> None:
        place.run.pause_deadline()
        try:
            with trio.move_on_after(self.queue_wait):
                await place.turn.wait()
        finally:
            place.run.resume_deadline()
        if line[0] is not place:
            raise LimitExceeded(
                f"session {session_id!r} stayed busy for {self.queue_wait} s",
                limit="queue",
                code="session_busy",
            )
