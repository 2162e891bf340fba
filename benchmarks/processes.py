"""What ``--processes 2`` costs: a server's CPU time for each event, and who has its connections.

Two servers share nothing but the machine, each on a redis-server of its own: one process, and two
at one address. The same clients connect to both, in turn, start a run each and read it to its end.
The CPU time is that of all of a server's processes, as Linux counts it.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import httpx
import trio
import trio_websocket

from flowtrio import RunContext

from ._measure import ROOT, Row, compare, interleave
from .stores import redis

SHARE = 0.4
"""Of the connections, that each of two processes takes at least."""
RATIO = 1.15
"""CPU time for an event by two processes, as a multiple of one's."""
WORDS = 50
PAUSE = 0.02
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_UP_WITHIN = 60
_WAITS = 0.1


async def talk(ctx: RunContext, message: str) -> None:
    """Say as many words as a model of 50 tokens a second does in one."""
    async with ctx.message() as out:
        for number in range(WORDS):
            await trio.sleep(PAUSE)
            await out.write(f"{number} ")


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def children_of(pid: int) -> list[int]:
    """The processes that one has started, in any of its threads."""
    told = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(each) for line in told for each in line.split()]


@attrs.frozen
class Server:
    """A server, of one process or of a parent and its children."""

    pid: int
    port: int
    ws_port: int

    @property
    def serving(self) -> list[int]:
        """The processes that serve."""
        return children_of(self.pid) or [self.pid]

    def cpu_time(self) -> float:
        """Seconds of all its processes, so far."""
        seconds = 0.0
        for pid in {self.pid, *self.serving}:
            # Behind the name in parentheses come the fields from the third on.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            seconds += (int(fields[11]) + int(fields[12])) * _TICK
        return seconds

    def connections(self) -> list[int]:
        """How many WebSocket connections each of those that serve has."""
        table = Path("/proc/net/tcp").read_text()
        # Local address, remote address, state 1 (established), …, the socket's inode.
        found = re.findall(
            rf": 0100007F:{self.ws_port:04X} \S+ 01 (?:\S+ +){{5}}(\d+)", table, re.MULTILINE
        )
        sockets = {f"socket:[{inode}]" for inode in found}
        return [
            sum(os.readlink(fd) in sockets for fd in Path(f"/proc/{pid}/fd").iterdir())
            for pid in self.serving
        ]


@contextmanager
def serving(url: str, processes: int) -> Iterator[Server]:
    """Have a server, up to the end of the block."""
    ports = free_port(), free_port()
    command = [sys.executable, "-m", "flowtrio", "serve", "--agent", "benchmarks.processes:talk"]
    command += ["--store", url, "--processes", str(processes), "--port", str(ports[0])]
    command += ["--ws-port", str(ports[1])]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet) as process:
        try:
            yield Server(process.pid, *ports)
        finally:
            process.terminate()


async def wait_ready(server: Server, processes: int) -> None:
    """Wait until each of its processes has a lease."""
    with trio.fail_after(_UP_WITHIN):
        async with httpx.AsyncClient() as http:
            while True:
                try:
                    told = (await http.get(f"http://127.0.0.1:{server.port}/ready")).json()
                except httpx.HTTPError:
                    told = {}
                if told.get("processes", 0) >= processes:
                    return
                await trio.sleep(_WAITS)


@attrs.define
class Measured:
    """What was seen of one server."""

    server: Server
    connections: int
    shares: list[float] = attrs.field(factory=list)
    """The smallest share of the connections that one of its processes had, each time."""

    async def measure(self) -> float:
        """CPU time for each event, in seconds."""
        events, begun = 0, trio.Event()

        async def read(task_status: trio.TaskStatus[None]) -> None:
            nonlocal events
            url = f"ws://127.0.0.1:{self.server.ws_port}/chat"
            opening = trio_websocket.open_websocket_url(url, subprotocols=["flowtrio.v1"])
            async with opening as connection:
                task_status.started()
                await begun.wait()
                # They come one by one.
                await trio.sleep(random.random() * WORDS * PAUSE)
                await connection.send_message(json.dumps({"type": "message", "message": "hi"}))
                kind = ""
                while kind != "done":
                    told = json.loads(await connection.get_message())
                    kind = told["type"]
                    events += "seq" in told

        async with trio.open_nursery() as nursery:
            for _ in range(self.connections):
                await nursery.start(read)
            of_each = self.server.connections()
            assert sum(of_each) == self.connections, of_each
            self.shares.append(min(of_each) / sum(of_each))
            before = self.server.cpu_time()
            begun.set()
        return (self.server.cpu_time() - before) / events


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    connections, rounds = (40, 1) if quick else (200, 3)
    settings = ("--appendonly", "yes", "--appendfsync", "everysec")
    if sys.platform != "linux":
        print("processes are counted as Linux counts them: nothing is measured here")
        return []
    with redis(*settings) as alone, redis(*settings) as shared:
        if alone is None or shared is None:
            print("no redis-server on this machine: no processes share anything")
            return []
        with serving(shared, 2) as two, serving(alone, 1) as one:
            trio.run(wait_ready, two, 2)
            trio.run(wait_ready, one, 1)
            many, single = Measured(two, connections), Measured(one, connections)
            taken = interleave(
                rounds,
                two=lambda: trio.run(many.measure),
                one=lambda: trio.run(single.measure),
            )
    return [
        compare(
            f"CPU time of an event, {connections} runs, two processes / one",
            taken["two"],
            taken["one"],
            target=RATIO,
        ),
        Row(
            subject=f"the larger share of {connections} connections of two processes / the smaller",
            ours=1 - min(many.shares),
            theirs=min(many.shares),
            target=(1 - SHARE) / SHARE,
            unit="",
        ),
    ]
