"""Several processes that divide runs among them by a store, as plain as can be; some are killed.

A *worker* claims runs, records a prepared log for each in its own time, saves the conversation and
reaps those who are gone. It may be killed (all that it does is cancelled), or frozen beyond its
lease, and then goes on as if nothing had been. What must hold is judged from outside: by the logs,
the conversations, what readers saw, and how often each run was executed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

import attrs
import msgspec
import trio

from flowtrio import AgentEvent, EventType, Fenced, LocalProtocolError
from flowtrio._hosting._mending import Mender, Refused
from flowtrio._hosting._reaping import close_lost, end_waiting
from flowtrio.abc import RunHeader
from flowtrio.testing import LeasedStore
from flowtrio.testing._leased_place import SharedPlace

from .judging import judge_runs, turns_of_runs

TTL: Final = 10.0
TENANT: Final = "t"


class Process:
    """What one process sees of the store; while it is frozen, nothing comes or goes."""

    def __init__(self, store: LeasedStore) -> None:
        self.store = store
        self.conversations = store.conversations
        self.frozen_until = 0.0

    def __getattr__(self, name: str) -> Any:
        return self.slow(getattr(self.store, name))

    def slow(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            await trio.sleep_until(max(self.frozen_until, trio.current_time()))
            value = await method(*args, **options)
            await trio.sleep_until(max(self.frozen_until, trio.current_time()))
            return value

        return call


@attrs.define(eq=False)
class Cluster:
    """One world, made from a seed."""

    seed: int
    log: Sequence[AgentEvent]
    """What each run tells, from its RUN_START to its DONE."""
    kind: type[SharedPlace] = SharedPlace
    workers: int = 3
    runs: int = 8
    kills: int = 2
    freezes: int = 2
    losses: int = 0
    """How often the store loses the newest entries of all logs."""
    executed: Counter[str] = attrs.field(factory=Counter)
    troubled: set[str] = attrs.field(factory=set)
    """Processes that were killed or frozen."""
    seen: dict[str, list[AgentEvent]] = attrs.field(factory=dict)
    """What a reader of each run saw."""
    gone: set[str] = attrs.field(factory=set)
    """Runs that were cancelled before anybody ran them."""
    store: LeasedStore = attrs.field(init=False)
    rng: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = LeasedStore()
        self.store._place = self.store.conversations._place = self.kind(self.store._place.clock)
        self.rng = random.Random(self.seed)

    @property
    def place(self) -> SharedPlace:
        """What the store has."""
        return self.store._place

    async def play(self) -> list[str]:
        """Have it go on until every run has ended; gives what did not hold, as sentences."""
        with trio.move_on_after(400) as whole:
            async with trio.open_nursery() as nursery:
                for number in range(self.workers):
                    nursery.start_soon(self.work_for_ever, number)
                async with trio.open_nursery() as readers:
                    for number in range(self.runs):
                        readers.start_soon(self.start, f"r{number}")
                    for _ in range(self.losses):
                        readers.start_soon(self.lose)
                nursery.cancel_scope.cancel()
        return [*(["not all runs have ended"] if whole.cancelled_caught else []), *self.judge()]

    # Gateways

    async def start(self, run_id: str) -> None:
        """Two gateways start a run, one reader follows it."""
        await trio.sleep(self.rng.random() * 20)
        session = self.rng.choice(["a", "b", None])
        header = RunHeader(
            tenant_id=TENANT,
            run_id=run_id,
            session_id=session,
            agent="a",
            message=run_id,
            created_at=1.0,
            is_remembered=session is not None,
        )
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(self.enqueue, header)
        if self.rng.random() < 0.15:
            await trio.sleep(self.rng.random() * 5)
            await self.store.renew("gateway", 1e6)
            if await end_waiting(self.store, header, "gateway", "stop button"):
                self.gone.add(run_id)
        await self.read(run_id)

    async def enqueue(self, header: RunHeader) -> None:
        await self.store.beside().enqueue(header, queue_length=100, runs_per_tenant=None)

    async def read(self, run_id: str) -> None:
        store = self.store.beside()
        log = self.seen[run_id] = []
        while not log or log[-1].type is not EventType.DONE:
            last = await store.wait_past(TENANT, run_id, len(log) - 1)
            if last < len(log):
                return  # It has ended before what was seen.
            if self.place.get(TENANT, run_id).last >= len(log):
                log += await store.read(TENANT, run_id, len(log) - 1, 3)
            else:
                await trio.sleep(0.01)

    async def lose(self) -> None:
        """The store comes back without its newest entries."""
        await trio.sleep(self.rng.random() * 40)
        for run in self.place.unended():
            kept = max(len(run.events) - self.rng.randrange(1, 6), 0)
            del run.events[kept:]

    # Workers

    async def work_for_ever(self, number: int) -> None:
        """Work; when killed, another one begins."""
        kills = [self.rng.random() * 60 for _ in range(self.kills)]
        for life, seconds in enumerate([*kills, 1e9]):
            with trio.move_on_after(seconds):
                await self.work(f"w{number}.{life}")
            if seconds < 1e9:
                self.troubled.add(f"w{number}.{life}")
            await trio.sleep(self.rng.random() * 5)

    async def work(self, name: str) -> None:
        process = Process(self.store.beside())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.freeze, process, name)
            nursery.start_soon(self.reap, process)
            for number in count():
                await self.work_as(f"{name}.{number}", process)

    async def work_as(self, owner: str, process: Process) -> None:
        """Work until the lease was gone; then others may have closed what is run here."""
        await process.renew(owner, TTL)
        async with trio.open_nursery() as runs:
            runs.start_soon(self.claim, process, owner, runs)
            while await process.renew(owner, TTL):
                await trio.sleep(TTL / 3)
            self.troubled.add(owner)
            runs.cancel_scope.cancel()
        await process.leave(owner)

    async def freeze(self, process: Process, owner: str) -> None:
        for _ in range(self.freezes):
            await trio.sleep(self.rng.random() * 40)
            if self.rng.random() < 0.7:
                self.troubled.add(owner)
                process.frozen_until = trio.current_time() + TTL * (0.5 + self.rng.random() * 7)
                await trio.sleep_until(process.frozen_until)

    async def claim(self, process: Process, owner: str, runs: trio.Nursery) -> None:
        while True:
            header = await process.claim(owner, TTL)
            if header is None:
                await trio.sleep(0.5)
            else:
                runs.start_soon(self.run, process, owner, header)

    async def run(self, process: Process, owner: str, header: RunHeader) -> None:
        """Execute a run: record its log, and keep its turn."""
        self.executed[header.run_id] += 1
        session = header.session_id
        conversations = process.conversations
        before = await process.slow(conversations.load)(TENANT, session) if session else []
        log = [
            msgspec.structs.replace(event, run_id=header.run_id, data={**event.data})
            for event in self.log
        ]
        log[0].data["message"] = header.run_id
        log[0].data["session_id"] = session
        stored = -1
        while stored < len(log) - 1:
            await trio.sleep(self.rng.random() * 2)
            batch = log[stored + 1 : stored + 1 + self.rng.randrange(1, 5)]
            try:
                if batch[-1].type is EventType.DONE and session:
                    turn = [{"role": "user", "content": header.run_id}]
                    said = [*before, *turn, {"role": "assistant", "content": "fine"}]
                    await trio.sleep(self.rng.random() * 4)
                    save = process.slow(conversations.save_after)
                    await save(TENANT, session, header.run_id, said, owner)
                    await trio.sleep(self.rng.random() * 4)
                await process.append(TENANT, header.run_id, stored, batch, owner)
            except Fenced:
                return
            except LocalProtocolError:
                # The store has lost something: offer it again.
                known = log[: batch[-1].seq + 1]
                try:
                    await Mender(process, header, known).complete(stored)  # type: ignore[arg-type]
                except Refused:
                    return
            stored = batch[-1].seq

    async def reap(self, process: Process) -> None:
        while True:
            await trio.sleep(TTL / 2 * (0.8 + self.rng.random() * 0.4))
            for header in await process.lost():
                await close_lost(process, header)  # type: ignore[arg-type]

    # What must hold

    def judge(self) -> list[str]:
        """What does not, as sentences."""
        found = list(judge_runs(self.place, self.executed, self.seen))
        for run in self.place.runs.values():
            run_id = run.header.run_id
            status = run.events[-1].data.get("status") if run.events else None
            if status == "error" and not self.troubled:
                found.append(f"{run_id} was interrupted though nobody was gone")
        return found + list(self.judge_conversations())

    def judge_conversations(self) -> list[str]:
        """Each turn is in its conversation once; of a run that began nothing it may be missing."""
        found = []
        for run, turns in turns_of_runs(self.place):
            run_id = run.header.run_id
            if turns != (0 if run_id in self.gone else 1):
                found.append(f"{run_id} is {turns} times in its conversation")
        return found
