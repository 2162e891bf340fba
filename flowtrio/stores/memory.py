"""Conversations and logs of hosted runs in memory, bounded in every direction."""

from __future__ import annotations

import builtins
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs
import trio

from flowtrio.abc import ListedRun
from flowtrio.stores._turns import whole_turns as whole_turns

from ._parts import Chunks, compact, size_of
from ._rules import check_append, check_place, described, header_after, read_place, refuse_unknown
from ._turns import turns_within

if TYPE_CHECKING:
    from flowtrio._core._events import AgentEvent
    from flowtrio.abc import Message, RunHeader


@attrs.frozen
class _Conversation:
    messages: tuple[Message, ...]
    used_at: float
    size: int
    """Bytes as JSON."""


@attrs.define(eq=False, kw_only=True)
class MemoryConversations:
    """A `flowtrio.abc.ConversationStore` that forgets with its process.

    The longest unused conversations are forgotten first.
    """

    max_messages: int = 200
    """Messages kept of one conversation; the oldest turns are dropped whole."""
    max_idle: float = 24 * 3600
    """Seconds after which an unused conversation is forgotten; ``math.inf`` for never."""
    max_sessions: int = 10_000
    """Conversations kept."""
    max_bytes: int = 16 * 1024 * 1024
    """Bytes kept of one conversation, as JSON; the oldest turns are dropped whole."""
    max_total_bytes: int = 256 * 1024 * 1024
    """Bytes kept of all conversations."""
    clock: Callable[[], float] = time.monotonic
    """Seconds, for ``max_idle``."""
    _conversations: OrderedDict[tuple[str, str], _Conversation] = attrs.field(
        factory=OrderedDict, init=False, repr=False
    )
    _told: OrderedDict[tuple[str, str], dict[str, Any]] = attrs.field(
        factory=OrderedDict, init=False, repr=False
    )
    _bytes: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        """Conversations kept."""
        return len(self._conversations)

    async def load(self, tenant_id: str, session_id: str) -> list[Message]:
        """See `flowtrio.abc.ConversationStore`."""
        return self.load_nowait(tenant_id, session_id)

    def load_nowait(self, tenant_id: str, session_id: str) -> list[Message]:
        """The same as `load`, which never waits."""
        self._expire()
        conversation = self._conversations.get((tenant_id, session_id))
        return [] if conversation is None else list(conversation.messages)

    async def save(self, tenant_id: str, session_id: str, messages: Sequence[Message]) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        self.save_nowait(tenant_id, session_id, messages)

    def save_nowait(self, tenant_id: str, session_id: str, messages: Sequence[Message]) -> None:
        """The same as `save`, which never waits."""
        key = (tenant_id, session_id)
        self._forget(key)
        kept, size = turns_within(messages, self.max_messages, self.max_bytes)
        self._conversations[key] = _Conversation(tuple(kept), self.clock(), size)
        self._bytes += size
        self._expire()

    async def delete(self, tenant_id: str, session_id: str) -> None:
        """See `flowtrio.abc.ConversationStore`."""
        self._forget((tenant_id, session_id))
        self._told.pop((tenant_id, session_id), None)

    async def describe(self, tenant_id: str, session_id: str, told: Mapping[str, Any]) -> None:
        """See `flowtrio.abc.DescribedConversations`."""
        key = (tenant_id, session_id)
        self._told[key] = described(self._told.pop(key, {}), told)
        while len(self._told) > self.max_sessions:
            self._told.popitem(last=False)

    async def descriptions(self, tenant_id: str) -> dict[str, dict[str, Any]]:
        """See `flowtrio.abc.DescribedConversations`."""
        return {
            session: told for (tenant, session), told in self._told.items() if tenant == tenant_id
        }

    def _forget(self, key: tuple[str, str]) -> None:
        if conversation := self._conversations.pop(key, None):
            self._bytes -= conversation.size

    def _expire(self) -> None:
        oldest = self.clock() - self.max_idle if self.max_idle < math.inf else -math.inf
        while self._conversations:
            key, conversation = next(iter(self._conversations.items()))
            is_too_much = (
                len(self._conversations) > self.max_sessions or self._bytes > self.max_total_bytes
            )
            if not is_too_much and conversation.used_at >= oldest:
                return
            self._forget(key)
            self._told.pop(key, None)


@attrs.define(eq=False)
class _Log:
    """One run's events: a ring that loses its oldest.

    A server keeps events by the million, and nearly all are chunks. Of those that come together,
    only texts and times are kept, in what the garbage collector does not look into: looking at each
    would cost it more than making the events did. Who reads them gets events that are equal.
    """

    header: RunHeader
    number: int
    """Which one it is of all that were created."""
    parts: deque[AgentEvent | Chunks] = attrs.field(factory=deque)
    """The events that are kept, in order."""
    count: int = 0
    """How many these are."""
    size: int = 0
    """Their bytes as JSON; of chunks about as many, since those come for every token."""
    last: int = -1
    news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def oldest(self) -> int:
        return self.last + 1 - self.count

    def append(self, events: Sequence[AgentEvent]) -> int:
        """Keep events, all or none; gives their bytes."""
        parts = compact(events)
        size = sum([size_of(part) for part in parts])
        self.parts += parts
        self.count += len(events)
        self.size += size
        self.last = events[-1].seq
        return size

    def read(self, after: int, limit: int) -> list[AgentEvent]:
        """The events behind *after*, at most *limit* of them."""
        missing = self.last - after
        behind: list[AgentEvent | Chunks] = []
        # From the end, as most readers are near it.
        for part in reversed(self.parts):
            if missing <= 0:
                break
            behind.append(part)
            missing -= len(part) if isinstance(part, Chunks) else 1
        first = max(0, -missing)
        events: list[AgentEvent] = []
        while behind and len(events) < first + limit:
            part = behind.pop()
            events += part.events() if isinstance(part, Chunks) else [part]
        return events[first : first + limit]

    def drop_oldest(self) -> int:
        """Lose one event; gives its bytes."""
        part = self.parts[0]
        if isinstance(part, Chunks):
            size = part.size(part.start, part.start + 1)
            part.start += 1
            if part.start == len(part.texts):
                self.parts.popleft()
        else:
            size = size_of(self.parts.popleft())
        self.count -= 1
        self.size -= size
        return size


@attrs.define(eq=False, kw_only=True)
class MemoryStore:
    """A `flowtrio.abc.EventStore` that forgets with its process.

    Each log is a ring: a run that says more than fits loses its oldest events, and a follower that
    needs them gets `ReplayGap`. Where all logs together are too many or too large, runs that ended
    are forgotten, the longest ended first; then the oldest events of whoever appends. Sizes are
    those of the events as JSON.
    """

    max_events: int = 10_000
    """Events kept of one run."""
    max_bytes: int = 16 * 1024 * 1024
    """Bytes kept of one run."""
    max_total_events: int = 1_000_000
    """Events kept of all runs."""
    max_total_bytes: int = 256 * 1024 * 1024
    """Bytes kept of all runs."""
    max_ended_runs: int = 10_000
    """Runs kept that have ended; those that go on are bounded by who starts them."""
    _logs: dict[tuple[str, str], _Log] = attrs.field(factory=dict, init=False, repr=False)
    _ended: OrderedDict[tuple[str, str], None] = attrs.field(
        factory=OrderedDict, init=False, repr=False
    )
    _created: int = attrs.field(default=0, init=False)
    _events: int = attrs.field(default=0, init=False)
    _bytes: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        """Runs kept."""
        return len(self._logs)

    async def create(self, header: RunHeader) -> bool:
        """See `flowtrio.abc.EventStore`."""
        await trio.lowlevel.checkpoint()
        return self.create_nowait(header)

    def create_nowait(self, header: RunHeader) -> bool:
        """The same as `create`, which never waits."""
        key = (header.tenant_id, header.run_id)
        if key in self._logs:
            return False
        self._created += 1
        if header.parts or header.asked is not None:
            # Nothing is recovered from here, and nobody would count its bytes.
            header = attrs.evolve(header, parts=(), asked=None)
        self._logs[key] = _Log(header, self._created)
        return True

    async def append(
        self,
        tenant_id: str,
        run_id: str,
        after: int,
        events: Sequence[AgentEvent],
        owner: str | None = None,
    ) -> None:
        """See `flowtrio.abc.EventStore`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.append_nowait(tenant_id, run_id, after, events, owner)

    def append_nowait(
        self,
        tenant_id: str,
        run_id: str,
        after: int,
        events: Sequence[AgentEvent],
        owner: str | None = None,
    ) -> None:
        """The same as `append`, which never waits."""
        log = self._get(tenant_id, run_id)
        check_append(log.header, log.last, after, events, owner)
        self._bytes += log.append(events)
        self._events += len(events)
        log.header = header_after(log.header, events[-1])
        if log.header.ended_at is not None:
            self._ended[tenant_id, run_id] = None
        self._make_room(log)
        log.news.unpark_all()

    async def read(
        self, tenant_id: str, run_id: str, after: int, limit: int
    ) -> Sequence[AgentEvent]:
        """See `flowtrio.abc.EventStore`."""
        await trio.lowlevel.checkpoint()
        log = self._get(tenant_id, run_id)
        check_place(run_id, after, log.oldest, log.last)
        return log.read(after, limit)

    async def wait_past(self, tenant_id: str, run_id: str, seq: int) -> int:
        """See `flowtrio.abc.EventStore`."""
        await trio.lowlevel.checkpoint()
        while True:
            log = self._get(tenant_id, run_id)
            if log.last > seq or log.header.ended_at is not None:
                return log.last
            await log.news.park()

    async def header(self, tenant_id: str, run_id: str) -> RunHeader | None:
        """See `flowtrio.abc.EventStore`."""
        await trio.lowlevel.checkpoint()
        log = self._logs.get((tenant_id, run_id))
        return None if log is None else log.header

    async def list(self, tenant_id: str, session_id: str | None = None) -> builtins.list[RunHeader]:
        """See `flowtrio.abc.EventStore`."""
        await trio.lowlevel.checkpoint()
        return [
            log.header
            for (tenant, _), log in self._logs.items()
            if tenant == tenant_id and session_id in (None, log.header.session_id)
        ]

    async def newest(
        self, tenant_id: str | None, *, before: str | None = None, limit: int
    ) -> builtins.list[ListedRun]:
        """See `flowtrio.abc.EventStore`."""
        await trio.lowlevel.checkpoint()
        end = self._created + 1 if before is None else read_place(before)
        found = (
            ListedRun(log.header, str(log.number))
            for log in reversed(self._logs.values())
            if log.number < end and tenant_id in (None, log.header.tenant_id)
        )
        return builtins.list(islice(found, limit))

    async def live(self) -> builtins.list[RunHeader]:
        """See `flowtrio.abc.EventStore`."""
        await trio.lowlevel.checkpoint()
        return [log.header for key, log in self._logs.items() if key not in self._ended]

    async def delete(
        self, tenant_id: str, *, run_id: str | None = None, session_id: str | None = None
    ) -> int:
        """See `flowtrio.abc.EventStore`."""
        await trio.lowlevel.checkpoint()
        keys = [
            (tenant, run)
            for (tenant, run), log in self._logs.items()
            if tenant == tenant_id
            and run_id in (None, run)
            and session_id in (None, log.header.session_id)
        ]
        return self._forget(keys)

    async def expire(self, before: float) -> int:
        """See `flowtrio.abc.EventStore`."""
        await trio.lowlevel.checkpoint()
        ended = [(key, self._logs[key].header.ended_at) for key in self._ended]
        return self._forget([key for key, at in ended if at is not None and at < before])

    def _get(self, tenant_id: str, run_id: str) -> _Log:
        log = self._logs.get((tenant_id, run_id))
        return refuse_unknown(run_id) if log is None else log

    def _make_room(self, log: _Log) -> None:
        while log.count > self.max_events or log.size > self.max_bytes:
            self._drop_oldest(log)
        while self._is_full and self._ended:
            self._forget([next(iter(self._ended))])
        while self._is_full and log.count:
            self._drop_oldest(log)

    @property
    def _is_full(self) -> bool:
        return (
            self._events > self.max_total_events
            or self._bytes > self.max_total_bytes
            or len(self._ended) > self.max_ended_runs
        )

    def _drop_oldest(self, log: _Log) -> None:
        self._bytes -= log.drop_oldest()
        self._events -= 1

    def _forget(self, keys: Sequence[tuple[str, str]]) -> int:
        for key in keys:
            log = self._logs.pop(key)
            self._ended.pop(key, None)
            self._events -= log.count
            self._bytes -= log.size
            log.news.unpark_all()
        return len(keys)
