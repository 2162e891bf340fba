"""Who may run: one run at a time in a conversation, so many at a time of a tenant."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs
import trio

from flowtrio._core._exceptions import LimitExceeded

from ._bringing import has_all_of

if TYPE_CHECKING:
    from flowtrio._core._limits import Limits
    from flowtrio._run._run import Run

OnBusy: TypeAlias = Literal["queue", "reject", "cancel", "post"]


@attrs.define(eq=False)
class _Place:
    """A run in line; its turn comes when those before it have left."""

    run: Run
    is_posted: bool = False
    """Whether its message was said to the run before it, so that its turn never comes."""
    turn: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False, kw_only=True)
class Sessions:
    """The conversations that are in use, each with a line of runs."""

    on_busy: OnBusy
    queue_length: int
    queue_wait: float
    runs_per_tenant: int | None
    limits: Limits
    """Those of runs that bring none."""
    app: Any
    """What runs have that bring none."""
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

    def line_up(self, run: Run) -> None:
        """Put *run* in its conversation's line, until its DONE.

        Raises:
          LimitExceeded: the conversation is busy, and waiting is not wanted; code ``session_busy``.

        """
        key = _key(run)
        line = self._lines.setdefault(key, deque())
        if any(place.run.token is not run.token for place in line):
            # Who waits in one Trio loop cannot be woken, nor cancelled, by a task of another.
            raise LimitExceeded(
                f"session {key[1]!r} is busy in another Trio loop of this process",
                limit="queue",
                code="session_busy",
            )
        is_posted = self._is_posted(line, run)
        if not is_posted:
            self._check(line, key[1])
        line.append(_Place(run, is_posted))
        run.when_done(lambda: self._leave(key, run))

    async def wait_for_turn(self, run: Run) -> None:
        """Wait until the conversation is for *run* alone.

        Raises:
          LimitExceeded: it stayed busy for too long; code ``session_busy``.

        """
        line = self._lines[_key(run)]
        if line[0].run is run:
            return
        place = next(place for place in line if place.run is run)
        run.clock.pause()
        try:
            with trio.move_on_after(self.queue_wait):
                await place.turn.wait()
        finally:
            run.clock.resume()
        if line[0] is not place:
            raise LimitExceeded(
                f"session {run.info.session_id!r} stayed busy for {self.queue_wait} s",
                limit="queue",
                code="session_busy",
            )

    async def clear(self, tenant_id: str, session_id: str, reason: str) -> None:
        """Cancel a conversation's runs, also those that come meanwhile; wait for their DONE."""
        while line := self._lines.get((tenant_id, session_id)):
            runs = [place.run for place in line]
            for run in runs:
                run.cancel(reason)
            for run in runs:
                await run.wait_done()

    def _leave(self, key: tuple[str, str], run: Run) -> None:
        line = self._lines[key]
        line.remove(next(place for place in line if place.run is run))
        if line:
            line[0].turn.set()
        else:
            del self._lines[key]

    def _is_posted(self, line: deque[_Place], run: Run) -> bool:
        """Have the run before it take the message, where that is wanted and it can."""
        waiting = [place.run for place in line if not place.is_posted]
        # Behind another one that waits, it would be said before that one's message.
        if self.on_busy != "post" or len(waiting) != 1:
            return False
        [before] = waiting
        is_for_it = before.info.agent_name == run.info.agent_name
        if not is_for_it or not has_all_of(before.info, run.info, self.limits, self.app):
            return False
        if not before.inbox.post(run.info.said, interrupt=False):
            return False
        return run.cancel(f"its message was posted to run {before.info.run_id}")

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


def _key(run: Run) -> tuple[str, str]:
    assert run.info.session_id is not None
    return run.info.tenant_id, run.info.session_id
