"""A store that several processes share, in memory: for tests of what divides work among them.

Before and behind each step stands a checkpoint: so a call that is cancelled has happened or has
not, and explored schedules see both.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar

import attrs
import trio
from trio.lowlevel import checkpoint

from flowtrio._core._events import AgentEvent
from flowtrio.abc import ListedRun, Listening, Message, RunHeader, SharedStatistics
from flowtrio.stores._rules import check_place

from ._leased_place import SharedPlace

P = ParamSpec("P")
T = TypeVar("T")


class LeasedStore:
    """A `flowtrio.abc.SharedStore` in memory, without bounds: for tests.

    Each object is what one process sees, and ``beside`` gives what another one does. A process is
    killed by cancelling all that it does.
    """

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        """Make what the first process sees.

        Args:
          clock: Seconds, for leases.

        """
        self._place = SharedPlace(clock)
        self.conversations: LeasedConversations = LeasedConversations(self._place)
        """What was said, in the same place."""

    def beside(self) -> LeasedStore:
        """Give what another process sees of the same place."""
        other = LeasedStore()
        other._place = self._place
        other.conversations = LeasedConversations(self._place)
        return other

    # As any store

    async def create(self, header: RunHeader) -> bool:
        """See `flowtrio.abc.EventStore`."""
        return await _at_once(self._place.create, header)

    async def append(
        self,
        tenant_id: str,
        run_id: str,
        after: int,
        events: Sequence[AgentEvent],
        owner: str | None = None,
    ) -> None:
        """See `flowtrio.abc.EventStore`."""
        await _at_once(self._place.append, tenant_id, run_id, after, events, owner)

    async def read(
        self, tenant_id: str, run_id: str, after: int, limit: int
    ) -> Sequence[AgentEvent]:
        """See `flowtrio.abc.EventStore`."""
        await checkpoint()
        run = self._place.get(tenant_id, run_id)
        check_place(run_id, after, 0, run.last)
        return run.events[after + 1 : after + 1 + limit]

    async def wait_past(self, tenant_id: str, run_id: str, seq: int) -> int:
        """See `flowtrio.abc.EventStore`."""
        await checkpoint()
        while True:
            run = self._place.get(tenant_id, run_id)
            if run.last > seq or run.has_ended:
                return run.last
            await run.news.park()

    async def header(self, tenant_id: str, run_id: str) -> RunHeader | None:
        """See `flowtrio.abc.EventStore`."""
        await checkpoint()
        run = self._place.runs.get((tenant_id, run_id))
        return None if run is None else _shown(run.header)

    async def list(self, tenant_id: str, session_id: str | None = None) -> builtins.list[RunHeader]:
        """See `flowtrio.abc.EventStore`."""
        await checkpoint()
        headers = [run.header for run in self._place.runs.values()]
        return [
            _shown(header)
            for header in headers
            if header.tenant_id == tenant_id and session_id in (None, header.session_id)
        ]

    async def newest(
        self, tenant_id: str | None, *, before: str | None = None, limit: int
    ) -> builtins.list[ListedRun]:
        """See `flowtrio.abc.EventStore`."""
        await checkpoint()
        runs = self._place.newest(tenant_id, before, limit)
        return [ListedRun(_shown(run.header), str(run.number)) for run in runs]

    async def live(self) -> builtins.list[RunHeader]:
        """See `flowtrio.abc.EventStore`."""
        await checkpoint()
        return [_shown(run.header) for run in self._place.unended()]

    async def delete(
        self, tenant_id: str, *, run_id: str | None = None, session_id: str | None = None
    ) -> int:
        """See `flowtrio.abc.EventStore`."""
        await checkpoint()
        return self._place.forget(
            lambda header: (
                header.tenant_id == tenant_id
                and run_id in (None, header.run_id)
                and session_id in (None, header.session_id)
            )
        )

    async def expire(self, before: float) -> int:
        """See `flowtrio.abc.EventStore`."""
        await checkpoint()
        return self._place.forget(
            lambda header: header.ended_at is not None and header.ended_at < before
        )

    # As one that is shared

    async def enqueue(
        self, header: RunHeader, *, queue_length: float, runs_per_tenant: float | None
    ) -> bool:
        """See `flowtrio.abc.SharedStore`."""
        return await _at_once(self._place.enqueue, header, queue_length, runs_per_tenant)

    async def claim(self, owner: str, ttl: float) -> RunHeader | None:
        """See `flowtrio.abc.SharedStore`."""
        header = await _at_once(self._place.claim, owner, ttl)
        self._place.claims.pop(owner, None)
        return header

    async def take(self, tenant_id: str, run_id: str, owner: str) -> bool:
        """See `flowtrio.abc.SharedStore`."""
        return await _at_once(self._place.take, tenant_id, run_id, owner)

    async def line(self, tenant_id: str, session_id: str) -> Sequence[str]:
        """See `flowtrio.abc.SharedStore`."""
        await checkpoint()
        return [run_id for _, run_id in self._place.lines.get((tenant_id, session_id), ())]

    async def renew(self, owner: str, ttl: float) -> bool:
        """See `flowtrio.abc.SharedStore`."""
        return await _at_once(self._place.renew, owner, ttl)

    async def leave(self, owner: str) -> None:
        """See `flowtrio.abc.SharedStore`."""
        await _at_once(self._place.leave, owner)

    async def lost(self, limit: int = 100) -> Sequence[RunHeader]:
        """See `flowtrio.abc.SharedStore`."""
        await checkpoint()
        return self._place.lost()[:limit]

    async def owned(self, owner: str) -> Mapping[tuple[str, str], int]:
        """See `flowtrio.abc.SharedStore`."""
        await checkpoint()
        return self._place.owned(owner)

    async def overdue(self, seconds: float, limit: int = 100) -> Sequence[RunHeader]:
        """See `flowtrio.abc.SharedStore`."""
        await checkpoint()
        return self._place.overdue(seconds)[:limit]

    async def close(
        self,
        header: RunHeader,
        after: int,
        events: Sequence[AgentEvent],
        said: Sequence[Message] | None = None,
        by: str | None = None,
    ) -> None:
        """See `flowtrio.abc.SharedStore`."""
        await _at_once(self._place.close, header, after, events, said, by)

    async def send(self, channel: str, data: bytes) -> int:
        """See `flowtrio.abc.SharedStore`."""
        await checkpoint()
        return self._place.send(channel, data)

    async def listen(self, channel: str, callback: Callable[[bytes], object]) -> Listening:
        """See `flowtrio.abc.SharedStore`."""
        await checkpoint()
        return self._place.listen(channel, self, callback)

    async def follow(self, tenant_id: str, run_id: str) -> Listening:
        """See `flowtrio.abc.SharedStore`."""
        await checkpoint()
        return self._place.listen(_news_of(tenant_id, run_id), self, lambda data: None)

    async def followers(self, tenant_id: str, run_id: str) -> int:
        """See `flowtrio.abc.SharedStore`."""
        await checkpoint()
        return self._place.processes(_news_of(tenant_id, run_id))

    async def statistics(self) -> SharedStatistics:
        """See `flowtrio.abc.SharedStore`."""
        await checkpoint()
        return self._place.statistics()


class LeasedConversations:
    """The `flowtrio.abc.RecoverableConversations` of a `LeasedStore`."""

    def __init__(self, place: SharedPlace) -> None:
        self._place = place

    async def load(self, tenant_id: str, session_id: str) -> list[Message]:
        """See `flowtrio.abc.ConversationStore`."""
        await checkpoint()
        return list(self._place.said.get((tenant_id, session_id), ()))

    async def save(self, tenant_id: str, session_id: str, messages: Sequence[Message]) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        await checkpoint()
        self._place.save(tenant_id, session_id, messages)

    async def save_after(
        self,
        tenant_id: str,
        session_id: str,
        run_id: str,
        messages: Sequence[Message],
        owner: str | None = None,
    ) -> None:
        """See `flowtrio.abc.RecoverableConversations`."""
        await _at_once(self._place.save_after, tenant_id, session_id, run_id, messages, owner)

    async def delete(self, tenant_id: str, session_id: str) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        await checkpoint()
        self._place.said.pop((tenant_id, session_id), None)


async def _at_once(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Take a step, between two checkpoints."""
    await checkpoint()
    value = step(*args, **kwargs)
    await checkpoint()
    return value


def _news_of(tenant_id: str, run_id: str) -> str:
    return f"news:{len(tenant_id)}:{tenant_id}:{run_id}"


def _shown(header: RunHeader) -> RunHeader:
    """What those see who neither run nor close it."""
    return attrs.evolve(header, parts=(), asked=None)
