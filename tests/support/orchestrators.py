"""Orchestrators that share a store, in one process and in virtual time; some are killed.

A *process* is an orchestrator with what it sees of the store. Killed, it sees nothing any more,
whatever it still tries: so nothing that it cleans up is of any use. Cut off, it sees nothing for a
while, and then all that it tried happens late; and the store may be away, for all of them. What
must hold is judged from outside: by the logs, the conversations, what readers saw, how often each
run was executed, and how long it had nobody.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from flowtrio import AgentEvent, EventType, Orchestrator, ReplayGap, RunContext
from flowtrio.testing import LeasedStore
from flowtrio.testing._leased_place import SharedPlace
from flowtrio.testing._leased_store import LeasedConversations

from .judging import judge_runs, turns_of_runs
from .lapses import Lapses

TENANT: Final = "default"
TTL: Final = 10.0
_METHODS: Final = (
    *("create", "append", "read", "wait_past", "header", "list", "delete", "expire", "enqueue"),
    *(
        "claim",
        "take",
        "line",
        "renew",
        "leave",
        "lost",
        "owned",
        "overdue",
        "close",
        "send",
        "follow",
    ),
    *("followers", "statistics"),
)
_OF_CONVERSATIONS: Final = ("load", "save", "save_after", "delete")


class Sight:
    """Whether a process sees the store."""

    def __init__(self) -> None:
        self.is_dead = False
        self.back_at = 0.0

    @property
    def is_lost(self) -> bool:
        return self.is_dead or trio.current_time() < self.back_at

    async def wait(self) -> None:
        """Wait until the store can be seen."""
        while self.is_lost:
            if self.is_dead:
                await trio.sleep_forever()
            await trio.sleep_until(self.back_at)


class SeenConversations(LeasedConversations):
    """As a process sees them."""

    sight: Sight


class SeenStore(LeasedStore):
    """As a process sees it."""

    def __init__(self, store: LeasedStore, kind: type[SharedPlace] | None = None) -> None:
        super().__init__()
        self.sight = Sight()
        self._place = store._place
        seen = SeenConversations(store._place)
        seen.sight = self.sight
        self.conversations = seen

    async def listen(self, channel: str, callback: Callable[[bytes], object]) -> Any:
        await self.sight.wait()

        def hear(data: bytes) -> None:
            if not self.sight.is_lost:
                callback(data)

        return await super().listen(channel, hear)


def _seen(kind: type[Any], name: str) -> Any:
    async def call(self: Any, *args: Any, **options: Any) -> Any:
        await self.sight.wait()
        value = await getattr(kind, name)(self, *args, **options)
        await self.sight.wait()
        return value

    return call


for _name in _METHODS:
    setattr(SeenStore, _name, _seen(LeasedStore, _name))
for _name in _OF_CONVERSATIONS:
    setattr(SeenConversations, _name, _seen(LeasedConversations, _name))


@attrs.define(eq=False)
class Process:
    """One process: its orchestrator, as long as it lives."""

    store: SeenStore
    orchestrator: Orchestrator
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def kill(self) -> None:
        """End it as a kill -9 would: nothing that it does from now on is seen by others."""
        self.store.sight.is_dead = True
        self.scope.cancel()

    @property
    def is_alive(self) -> bool:
        return not self.store.sight.is_dead


@attrs.define(eq=False)
class World:
    """Processes that share a store, made from a seed."""

    seed: int
    kind: type[SharedPlace] = SharedPlace
    roles: tuple[str, str] = ("gateway", "worker")
    workers: int = 2
    gateways: int = 2
    runs: int = 8
    kills: int = 3
    cuts: int = 2
    outages: int = 0
    """How often the store is away."""
    cancels: float = 0.15
    options: dict[str, Any] = attrs.field(factory=dict)
    executed: Counter[str] = attrs.field(factory=Counter)
    troubled: bool = False
    seen: dict[str, list[AgentEvent]] = attrs.field(factory=dict)
    cancelled: set[str] = attrs.field(factory=set)
    """Runs of which a cancellation was accepted."""
    away_until: float = 0.0
    """Until when the store is away."""
    processes: list[Process] = attrs.field(factory=list)
    lapses: Lapses = attrs.field(factory=lambda: Lapses(TTL))
    store: LeasedStore = attrs.field(init=False)
    rng: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = LeasedStore()
        self.store._place = self.store.conversations._place = self.kind(self.store._place.clock)
        self.rng = random.Random(self.seed)
        if self.seed % 2:
            self.roles = ("both", "both")

    @property
    def place(self) -> SharedPlace:
        """What the store has."""
        return self.store._place

    async def play(self) -> list[str]:
        """Have it go on until every run has ended; gives what did not hold, as sentences."""
        with trio.move_on_after(600) as whole:
            async with trio.open_nursery() as nursery:
                for role, count in zip(self.roles, (self.gateways, self.workers), strict=True):
                    for _ in range(count):
                        nursery.start_soon(self.live, role, nursery)
                nursery.start_soon(self.watch)
                await trio.sleep(1)
                async with trio.open_nursery() as clients:
                    for number in range(self.runs):
                        clients.start_soon(self.start, f"r{number}")
                    clients.start_soon(self.trouble)
                # Whoever is cut off may have to let go of something.
                await trio.sleep(3 * TTL)
                nursery.cancel_scope.cancel()
        late = ["not all runs have ended"] if whole.cancelled_caught else []
        return [*late, *self.lapses.told(), *self.judge()]

    async def live(self, role: str, nursery: trio.Nursery) -> None:
        """One process; killed, another one takes its place."""
        store = SeenStore(self.store)
        store.sight.back_at = self.away_until
        orchestrator = Orchestrator(
            agents=[self.agent],
            store=store,
            conversations=store.conversations,
            role=role,
            lease=TTL,
            queue_wait=500,
            **self.options,
        )
        process = Process(store, orchestrator)
        try:
            with process.scope:
                async with orchestrator:
                    self.processes.append(process)
                    await trio.sleep_forever()
        finally:
            if process in self.processes:
                self.processes.remove(process)
        if not process.is_alive:
            nursery.start_soon(self.live, role, nursery)

    async def watch(self) -> None:
        """Look on for ever: which runs have nobody."""
        while True:
            lapsed = [
                run.header.run_id
                for run in self.place.unended()
                if run.header.owner is not None and not self.place.lives(run.header.owner)
            ]
            is_attended = any(not process.store.sight.is_lost for process in self.processes)
            self.lapses.look(trio.current_time(), lapsed if is_attended else None)
            await trio.sleep(0.1)

    async def agent(self, ctx: RunContext, message: str) -> str:
        """Say some words."""
        self.executed[ctx.run_id] += 1
        async with ctx.message() as out:
            for number in range(self.rng.randrange(1, 12)):
                await trio.sleep(self.rng.random() * 2)
                await out.write(f"{number} ")
        return "fine"

    async def trouble(self) -> None:
        """Kill some, cut some off, and have the store away for all."""
        what = ["kill"] * self.kills + ["cut"] * self.cuts + ["outage"] * self.outages
        self.rng.shuffle(what)
        for each in what:
            await trio.sleep(self.rng.random() * 15)
            self.troubled = True
            if each == "kill":
                self.one().kill()
            elif each == "cut":
                self.cut(self.one(), TTL * (0.3 + self.rng.random() * 3))
            else:
                self.away_until = trio.current_time() + TTL * self.rng.random() * 1.5
                for process in self.processes:
                    self.cut(process, self.away_until - trio.current_time())

    def cut(self, process: Process, seconds: float) -> None:
        """Have a process see nothing for a while."""
        sight = process.store.sight
        sight.back_at = max(sight.back_at, trio.current_time() + seconds)

    def one(self, role: str | None = None) -> Process:
        found = [p for p in self.processes if role in (None, p.orchestrator.role)]
        return self.rng.choice(found)

    # Clients

    async def start(self, run_id: str) -> None:
        """Start a run, by two gateways at once or one after another, and read it to its end."""
        await trio.sleep(self.rng.random() * 20)
        session = self.rng.choice(["a", "b", None])
        async with trio.open_nursery() as nursery:
            for _ in range(self.rng.choice([1, 1, 2])):
                nursery.start_soon(self.start_at_last, run_id, session)
        async with trio.open_nursery() as nursery:
            for _ in range(self.rng.choice([1, 2])):
                nursery.start_soon(self.read, run_id)
            if self.rng.random() < self.cancels:
                nursery.start_soon(self.cancel, run_id)

    async def start_at_last(self, run_id: str, session: str | None) -> None:
        """Start it until somebody says that it was."""
        while True:
            await trio.sleep(0.1)
            if not (gateways := self.gateways_alive()):
                continue
            gateway = self.rng.choice(gateways)
            with trio.move_on_after(5):
                try:
                    await gateway.orchestrator.start(run_id, TENANT, session, run_id)
                except (trio.TooSlowError, RuntimeError):
                    continue
                return

    def gateways_alive(self) -> list[Process]:
        return [p for p in self.processes if p.orchestrator.role == self.roles[0]]

    async def cancel(self, run_id: str) -> None:
        await trio.sleep(self.rng.random() * 10)
        while gateways := self.gateways_alive():
            gateway = self.rng.choice(gateways)
            with trio.move_on_after(8):
                try:
                    done = await gateway.orchestrator.command(run_id, "cancel", reason="enough")
                except trio.TooSlowError:
                    continue
                if done:
                    self.cancelled.add(run_id)
                return

    async def read(self, run_id: str) -> None:
        """Read a run to its end, by one gateway after another."""
        log: list[AgentEvent] = []
        while not log or log[-1].type is not EventType.DONE:
            await trio.sleep(0.01)
            if not (gateways := self.gateways_alive()):
                continue
            gateway = self.rng.choice(gateways)
            after = log[-1].seq if log else -1
            with trio.move_on_after(self.rng.random() * 30):
                try:
                    async with gateway.orchestrator.attach(run_id, after) as follower:
                        async for event in follower:
                            log.append(event)
                except trio.TooSlowError:
                    continue
                except (LookupError, ReplayGap) as gap:
                    self.seen[f"{run_id} {gap}"] = log
                    return
        known = self.seen.setdefault(run_id, log)
        if known != log:
            self.seen[f"{run_id} as others did not see it"] = log

    # What must hold

    def judge(self) -> list[str]:
        """What does not, as sentences."""
        found = [f"{name}: read" for name in self.seen if name not in self.executed_or_ended()]
        found += judge_runs(self.place, self.executed, self.seen)
        for run in self.place.runs.values():
            run_id = run.header.run_id
            done = run.events[-1].data if run.events else {}
            if done.get("status") == "error" and not self.troubled:
                found.append(f"{run_id} failed though nobody was gone: {done['reason']}")
            if run_id in self.cancelled and done.get("status") == "completed":
                found.append(f"{run_id} was cancelled, and completed")
        if len(self.place.runs) != self.runs:
            found.append(f"{len(self.place.runs)} runs of {self.runs} are there")
        return found + list(self.judge_conversations())

    def executed_or_ended(self) -> set[str]:
        return {run.header.run_id for run in self.place.runs.values()}

    def judge_conversations(self) -> list[str]:
        """Each turn is in its conversation once; of a run that nobody began there is none."""
        found = []
        for run, turns in turns_of_runs(self.place):
            run_id = run.header.run_id
            status = run.events[-1].data.get("status") if run.events else None
            began = self.executed[run_id] > 0 or status != "cancelled"
            if turns > 1 or (began and turns != 1):
                found.append(f"{run_id} is {turns} times in its conversation")
        return found
