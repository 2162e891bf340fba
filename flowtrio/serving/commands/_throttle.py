"""How often, and for how much: what one address asks, and what one tenant starts and spends.

A *rate* is a bucket of as many tokens as there may be in a minute, which fills evenly: so a burst
is let in, and what goes on for longer has the rate. What tenants spend is read from the logs of
their runs, which outlast this process and are the same for all that share a store; only runs that
live with a connection have none, and are counted here.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import attrs
import trio

from flowtrio._core._chunks import MONEY, Usage
from flowtrio._core._exceptions import ReplayGap
from flowtrio._core._telling import tell
from flowtrio._hosting._service import Service
from flowtrio._run._controls import run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowtrio._core._events import AgentEvent
    from flowtrio._hosting._orchestrator import Orchestrator
    from flowtrio._run._stream import EventStream
    from flowtrio.abc import EventStore, RunHeader

_MINUTE: Final = 60.0
DAY: Final = 86_400.0
"""Seconds in which a tenant may spend what it may."""
_BUCKETS: Final = 10_000
"""Addresses, and tenants, that are remembered: of more, those that were quiet for longest are not.
"""
_AT_ONCE: Final = 200
_MOST_RUNS: Final = 10_000
"""Runs of one tenant that are looked at, and of all tenants whose costs are remembered."""


@attrs.define(eq=False)
class Rate:
    """How often each of many may do something."""

    _buckets: OrderedDict[str, tuple[float, float]] = attrs.field(factory=OrderedDict, init=False)
    """Tokens that were left, and when; by whose they are."""

    def take(self, name: str, per_minute: float) -> float:
        """Take one token; gives the seconds until there is one, where there is none."""
        if per_minute == math.inf:
            return 0
        most, now = max(1.0, per_minute), trio.current_time()
        left, then = self._buckets.pop(name, (most, now))
        left = min(most, left + (now - then) * per_minute / _MINUTE)
        wait = 0.0 if left >= 1 else (1 - left) * _MINUTE / per_minute
        self._buckets[name] = (left if wait else left - 1, now)
        while len(self._buckets) > _BUCKETS:
            self._buckets.popitem(last=False)
        return wait


@attrs.define(eq=False)
class Throttle:
    """What those have done whom an orchestrator serves, by whatever listener of this process."""

    requests: Rate = attrs.field(factory=Rate, init=False)
    """Of addresses."""
    starts: Rate = attrs.field(factory=Rate, init=False)
    """Of tenants."""
    clock: Callable[[], float] = time.time
    """UTC, seconds: what runs' times are told by."""
    _costs: OrderedDict[tuple[str, str, float], Decimal] = attrs.field(
        factory=OrderedDict, init=False
    )
    """Of runs that have ended."""
    _unlogged: deque[tuple[str, float, Decimal]] = attrs.field(
        factory=lambda: deque(maxlen=_MOST_RUNS), init=False
    )
    """Whose a run without a log was, when it ended, and its cost."""
    _is_told: bool = attrs.field(default=False, init=False)
    """Whether operators know that some runs have no cost."""

    def note(self, tenant_id: str, stream: EventStream) -> None:
        """A run that has no log has ended."""
        cost = self._cost_of(stream.run_id, run_of(stream).usage)
        if cost:
            self._unlogged.append((tenant_id, self.clock(), cost))

    async def wait_to_spend(
        self, orchestrator: Orchestrator, tenant_id: str, most: Decimal
    ) -> float:
        """The seconds until a tenant may spend again; 0 where it may.

        Counted are the runs that began within a day, those that go on by what they have spent.
        """
        now = self.clock()
        costs = [
            (when, cost)
            for owner, when, cost in self._unlogged
            if owner == tenant_id and now - when < DAY
        ]
        store, place, count = orchestrator.store, None, 0
        while count < _MOST_RUNS:
            runs = await store.newest(tenant_id, before=place, limit=_AT_ONCE)
            recent = [run.header for run in runs if now - run.header.created_at < DAY]
            costs += [(h.created_at, await self._read(orchestrator, h)) for h in recent]
            if len(runs) < _AT_ONCE or not recent:
                break
            place, count = runs[-1].place, count + len(runs)
        return _until_less(costs, most, now)

    async def _read(self, orchestrator: Orchestrator, header: RunHeader) -> Decimal:
        """What a run has cost, as far as it is known here."""
        hosted = Service(orchestrator).recorder.runs.get((header.tenant_id, header.run_id))
        if hosted is not None:
            return self._cost_of(header.run_id, run_of(hosted.stream).usage)
        if header.ended_at is None:
            return Decimal(0)  # Another process runs it.
        key = (header.tenant_id, header.run_id, header.created_at)
        if key not in self._costs:
            events = await read_end(orchestrator.store, header)
            usage = Usage(**events[-1].data["usage"]) if events else Usage()
            self._costs[key] = self._cost_of(header.run_id, usage)
            while len(self._costs) > _MOST_RUNS:
                self._costs.popitem(last=False)
        return self._costs[key]

    def _cost_of(self, run_id: str, usage: Usage) -> Decimal:
        if usage.cost is not None:
            return Decimal(usage.cost)
        if (usage.prompt_tokens or usage.completion_tokens) and not self._is_told:
            self._is_told = True
            words = "run %s tells no cost: without prices= of all its models, it counts for nothing"
            tell(logging.WARNING, words, run_id)
        return Decimal(0)


async def read_end(store: EventStore, header: RunHeader) -> Sequence[AgentEvent]:
    """The last two events of a run that has ended: an ERROR, if any, stands before DONE.

    Nothing where they are not kept, or the run was forgotten meanwhile.
    """
    try:
        last = await store.wait_past(header.tenant_id, header.run_id, -1)
        return await store.read(header.tenant_id, header.run_id, max(-1, last - 2), 2)
    except (LookupError, ReplayGap):
        return ()


def _until_less(costs: list[tuple[float, Decimal]], most: Decimal, now: float) -> float:
    """Seconds until what was spent within a day is less than *most*."""
    left, wait = _total(cost for _, cost in costs), 0.0
    for when, cost in sorted(costs):
        if left < most:
            break
        left, wait = MONEY.subtract(left, cost), max(wait, when + DAY - now)
    return wait


def _total(costs: Iterator[Decimal]) -> Decimal:
    total = Decimal(0)
    for cost in costs:
        total = MONEY.add(total, cost)
    return total


def address_of(client: str) -> str:
    """Whom an address stands for: of IPv6, who has one has all of a network."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is not None:
            return str(mapped)
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


_throttles: WeakKeyDictionary[Orchestrator, Throttle] = WeakKeyDictionary()


def throttle_of(orchestrator: Orchestrator) -> Throttle:
    """The one of an orchestrator, which several listeners may serve."""
    throttle = _throttles.get(orchestrator)
    if throttle is None:
        throttle = _throttles[orchestrator] = Throttle()
    return throttle
