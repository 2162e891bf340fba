"""Lines that break at any byte, and the patience with them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import flowtrio
from flowtrio import (
    AgentEvent,
    MemoryStore,
    Orchestrator,
    RunContext,
    SQLiteStore,
)
from flowtrio.testing import check_events
from flowtrio.transports._reconnect import Backoff
from tests.support.fake_server import Connection, open_fake_server
from tests.support.remote import connected, log_of, talks, until_chunk
from tests.support.ws_peer import Served, open_server
from tests.transports.test_websocket import waits

# A line that breaks


@attrs.define(eq=False)
class Line:
    """A port that leads to a server, through connections that break after so many bytes."""

    port: int
    dice: random.Random
    most_bytes: int
    breaks_left: int = 0
    """How many of the next connections break; the others hold."""
    _connections: set[trio.SocketStream] = attrs.field(factory=set)

    async def carry(self, near: trio.SocketStream) -> None:
        """Carry one connection, until it breaks or ends."""
        budget = None
        if self.breaks_left > 0:
            self.breaks_left -= 1
            budget = self.dice.randrange(self.most_bytes)
        far = await trio.open_tcp_stream("127.0.0.1", self.port)
        left = [budget]
        self._connections |= {near, far}
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, near, far, left, nursery.cancel_scope)
                nursery.start_soon(self._pump, far, near, left, nursery.cancel_scope)
        finally:
            self._connections -= {near, far}
            for stream in self.dice.sample([near, far], 2):
                stream.socket.close()

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, left: list[int | None], scope: Any
    ) -> None:
        try:
            while data := await source.receive_some(4096):
                budget = left[0]
                if budget is not None:
                    data, left[0] = data[:budget], max(budget - len(data), 0)
                await sink.send_all(data)
                if left[0] == 0:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def line_to(served: Served, seed: int, breaks: int, most: int) -> AsyncIterator[Any]:
    line = Line(served.port, random.Random(seed), most, breaks)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, line.carry, 0)
        line_port = listeners[0].socket.getsockname()[1]
        yield line, f"ws://127.0.0.1:{line_port}/chat"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_every_reader_ends_with_the_log_wherever_lines_break(
    kind: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowtrio.transports._reconnect._FIRST_DELAY", 0.01)
    monkeypatch.setattr("flowtrio.transports._reconnect._LONGEST_DELAY", 0.05)
    started: list[str] = []

    async def agent(ctx: RunContext, message: str) -> str:
        started.append(ctx.run_id)
        return await talks(ctx, message)

    store = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / "runs.db")
    orchestrator = Orchestrator(agents=[agent], store=store)
    logs: dict[str, list[AgentEvent]] = {}

    async def read(remote: Any, number: int) -> None:
        async with remote.process_stream("60", run_id=f"r{number}") as stream:
            logs[stream.run_id] = [event async for event in stream]

    async with open_server(orchestrator) as served:
        # Short budgets break handshakes and commands too, long ones the events.
        async with line_to(served, seed, 0, [400, 2000, 20_000][seed % 3]) as (line, url):
            async with flowtrio.connect(url, patience=30) as remote:
                line.breaks_left = 6
                for stream in list(line._connections):
                    await trio.aclose_forcefully(stream)
                async with trio.open_nursery() as nursery:
                    for number in range(3):
                        nursery.start_soon(read, remote, number)
        stored = {name: await store.read("default", name, -1, 10_000) for name in logs}
    if isinstance(store, SQLiteStore):
        await store.aclose()

    assert sorted(started) == ["r0", "r1", "r2"]
    for name, log in logs.items():
        check_events(log)
        assert log == list(stored[name])


# Coming back


async def test_a_lost_connection_goes_on_after_the_last_event_seen() -> None:
    commands = []

    async def begin(peer: Connection) -> None:
        commands.append(await peer.take())
        await peer.accept(commands[0])
        await peer.give(*log_of(commands[0])[:3])

    async def resume(peer: Connection) -> None:
        commands.append(await peer.take())
        await peer.accept(commands[1])
        # One too many, one of another run, and a reply that nobody waits for.
        await peer.give(*log_of(commands[0])[2:4], {"type": "accepted", "ref": 99})
        await peer.give({**log_of(commands[0])[4], "run_id": "other"})
        await peer.give(*log_of(commands[0])[4:])
        await trio.sleep_forever()

    async with open_fake_server(begin, resume) as url, flowtrio.connect(url) as remote:
        check_events([event async for event in remote.process_stream("hello")])

    start, again = commands
    assert (start["type"], start["message"]) == ("message", "hello")
    assert again == {
        **{"type": "resume", "run_id": start["run_id"], "after": 2, "mode": "events"},
        "ref": again["ref"],
    }


async def test_a_server_that_is_busy_is_tried_again_and_one_that_refuses_is_not() -> None:
    async def begin(peer: Connection) -> None:
        await peer.accept(await peer.take())

    async with open_fake_server(begin, 503, 403) as url, flowtrio.connect(url) as remote:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await remote.process("hello")
        with pytest.raises(trio.BrokenResourceError):
            await remote.process("again")

    assert str(caught.value) == f"lost {url}: the server answers 403"


async def test_when_the_server_stays_away_the_reader_is_told() -> None:
    async with open_server(waits) as served:
        async with connected(served, patience=0.3) as remote:
            async with remote.process_stream("a") as stream:
                await until_chunk(stream)
                served.scope.cancel()
                seen = [event async for event in stream]
                assert seen[-1].data["status"] == "error"
            with pytest.raises(trio.BrokenResourceError, match="lost ws://"):
                while True:
                    await remote.process("again")


async def test_attempts_come_more_slowly_until_patience_is_over(autojump_clock: Any) -> None:
    backoff = Backoff(patience=60)
    attempts = [trio.current_time()]
    while not backoff.is_over:
        await backoff.wait()
        attempts.append(trio.current_time())
    pauses = [late - early for early, late in pairwise(attempts)]
    backoff.begin_anew()
    assert not backoff.is_over
    await backoff.wait()

    assert 0.05 <= pauses[0] <= 0.1
    assert all(pause <= 5 for pause in pauses)
    assert pauses[-1] >= 2.5
    assert 60 < attempts[-1] - attempts[0] <= 65
    assert trio.current_time() - attempts[-1] <= 0.1
