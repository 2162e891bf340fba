"""The processes of a cluster: a real store, gateways and workers, and what befalls them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import httpx
import trio

from flowtrio.stores.redis._url import read_url
from tests.support.lapses import Lapses
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer

from .lookout import lapsed_runs

LEASE: Final = 2.0
"""Seconds without a sign of life after which a process counts as gone."""
_OUT_OF_MEMORY: Final = 1.0
_LOOK_EVERY: Final = 0.1
_MOST_LOST: Final = 40
"""Entries of all logs together."""
_HERE: Final = Path(__file__).parents[2]


@attrs.define(eq=False)
class Process:
    """A place for one process after another."""

    role: str
    url: str
    folder: Path
    name: str
    port: int = attrs.field(factory=free_port)
    running: subprocess.Popen[bytes] | None = None
    is_troubled: bool = False
    is_ready: bool = False
    """Whether it was ready once, and was not told to end since."""
    is_frozen: bool = False

    @property
    def can_reap(self) -> bool:
        """Whether it sees to runs that have nobody."""
        return self.is_ready and not self.is_frozen

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the next one."""
        command = [
            *(sys.executable, "-m", "flowtrio", "serve", "--agent", "tests.chaos.agent:agent"),
            *("--store", self.url, "--role", self.role, "--lease", str(LEASE), "--no-ws"),
            *("--port", str(self.port), "--drain", "3", "--resume-window", "60"),
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": str(_HERE),
            "CHAOS_MARKS": str(self.folder / "marks"),
        }
        log = (self.folder / f"{self.name}.log").open("ab")
        with log:
            self.running = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, env=environment, cwd=_HERE
            )

    async def watch(self) -> None:
        """Note for ever when it is ready first."""
        while True:
            await trio.sleep(0.1)
            running = self.running
            if running is not None and not self.is_ready and await self.wait_ready():
                self.is_ready = self.running is running and not self.is_troubled

    async def wait_ready(self) -> bool:
        """Wait for a while until it has its lease; False if that takes too long."""
        async with httpx.AsyncClient(timeout=1) as http:
            for _ in range(600):
                with suppress(httpx.HTTPError):
                    if (await http.get(f"{self.address}/ready")).status_code == 200:
                        return True
                await trio.sleep(0.1)
        return False

    def send(self, number: int) -> None:
        if self.running is not None:
            self.running.send_signal(number)

    async def end(self, number: int) -> int:
        """Send a signal, and wait for the end; gives the exit status."""
        assert self.running is not None
        self.is_ready = False
        self.running.send_signal(number)
        status = await trio.to_thread.run_sync(self.running.wait)
        self.running = None
        return status


@attrs.define(eq=False)
class Processes:
    """All of them."""

    redis: RedisServer
    folder: Path
    rng: random.Random
    url: str
    gateways: list[Process] = attrs.field(init=False)
    workers: list[Process] = attrs.field(init=False)
    troubles: Counter[str] = attrs.field(factory=Counter)
    losses: int = 0
    """How often the store has lost its newest entries."""
    wrong: list[str] = attrs.field(factory=list)
    """What processes did that they must not."""
    lapses: Lapses = attrs.field(factory=lambda: Lapses(LEASE))
    """How long runs had nobody."""

    def __attrs_post_init__(self) -> None:
        def make(role: str) -> list[Process]:
            return [Process(role, self.url, self.folder, f"{role}{n}") for n in range(2)]

        self.gateways, self.workers = make("gateway"), make("worker")

    async def start(self) -> None:
        """Start all, and wait until they are ready: that takes long on a busy machine."""
        for each in self.all:
            each.start()
        async with trio.open_nursery() as nursery:
            for each in self.all:
                nursery.start_soon(each.wait_ready)

    @property
    def all(self) -> list[Process]:
        """Gateways and workers."""
        return [*self.gateways, *self.workers]

    async def watch(self) -> None:
        """Look on for ever: who is ready, and which runs have nobody."""
        async with trio.open_nursery() as nursery:
            for each in self.all:
                nursery.start_soon(each.watch)
            while True:
                lapsed = await lapsed_runs(self.redis.socket, read_url(self.url).prefix)
                is_attended = any(each.can_reap for each in self.all)
                self.lapses.look(time.monotonic(), lapsed if is_attended else None)
                await trio.sleep(_LOOK_EVERY)

    async def trouble(self, until: float, kinds: tuple[str, ...]) -> None:
        """Have something befall them every second or two."""
        while time.monotonic() < until:
            await trio.sleep(0.3 + self.rng.random() * 1.5)
            kind = self.rng.choice(kinds)
            self.troubles[kind] += 1
            if kind.startswith("redis"):
                await getattr(self, kind.replace(" ", "_"))()
                continue
            places = self.gateways if "gateway" in kind else self.workers
            process = self.rng.choice(places)
            if process.running is None or process.is_troubled:
                continue
            process.is_troubled = True
            try:
                await getattr(self, kind.replace(" ", "_"))(process)
            finally:
                process.is_troubled = False

    async def kill_worker(self, process: Process) -> None:
        await process.end(signal.SIGKILL)
        await trio.sleep(self.rng.random())
        process.start()

    kill_gateway = kill_worker

    async def stop_worker(self, process: Process) -> None:
        """It drains, and says so by its exit status."""
        if not await process.wait_ready():
            return
        status = await process.end(signal.SIGTERM)
        if status != 0:
            self.wrong.append(f"{process.name} ended with status {status} when told to stop")
        process.start()

    async def freeze_worker(self, process: Process) -> None:
        process.is_frozen = True
        process.send(signal.SIGSTOP)
        await trio.sleep(LEASE * (0.5 + 2 * self.rng.random()))
        process.send(signal.SIGCONT)
        process.is_frozen = False

    async def redis_killed(self) -> None:
        await trio.to_thread.run_sync(self.redis.kill)
        await trio.sleep(self.rng.random() * 0.5)
        await trio.to_thread.run_sync(self.redis.start)

    async def redis_rolled_back(self) -> None:
        self.losses += 1
        await trio.to_thread.run_sync(self.redis.roll_back, self.rng.randrange(1, _MOST_LOST))

    async def redis_full(self) -> None:
        self.redis.ask("CONFIG SET maxmemory 1")
        await trio.sleep(_OUT_OF_MEMORY)
        self.redis.ask("CONFIG SET maxmemory 0")

    async def end(self) -> None:
        """End all in order."""
        async with trio.open_nursery() as nursery:
            for each in self.all:
                if each.running is not None:
                    nursery.start_soon(each.end, signal.SIGTERM)

    def kill(self) -> None:
        """Leave nothing behind."""
        for each in self.all:
            if each.running is not None:
                each.running.kill()
                each.running.wait()


LOSSES: Final = ("redis rolled back", "redis rolled back", "redis killed", "kill gateway")
"""What befalls a cluster whose store loses what it had acknowledged, as a replica does that lagged.
No worker is killed: what that one knew would be gone for good."""
KINDS: Final = (
    *("kill worker", "kill worker", "kill gateway", "stop worker", "freeze worker"),
    *("redis killed", "redis full"),
)
