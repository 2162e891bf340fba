"""SSE readers whose connections drop at any byte, and who come back with their Last-Event-ID."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import h11
import pytest
import trio

from flowtrio import AgentEvent, MemoryStore, Orchestrator, RunContext, SQLiteStore
from flowtrio.testing import check_events, find_violations
from flowtrio.transports import _endpoints
from flowtrio.wire._sse import SSEDecoder
from tests.support.remote import talks
from tests.transports.test_asgi import Site, as_events, site


@attrs.define(eq=False)
class EventSource:
    """What a browser's EventSource does, on connections that it drops after so many bytes."""

    port: int
    path: str
    budgets: list[int] = attrs.Factory(list)
    """Bytes after which the next connections drop; those behind them hold."""
    frames: list[dict[str, Any]] = attrs.Factory(list)
    last_id: str | None = None

    @classmethod
    def of(cls, served: Site, run_id: str, budgets: list[int]) -> EventSource:
        """A reader of a run, which the first reader starts."""
        port = urlsplit(served.url).port
        assert port is not None
        return cls(port, f"/chat/stream?message=60&run_id={run_id}", budgets)

    async def read(self) -> None:
        """Read until the server says that nothing is left."""
        while not await self._read_once():
            pass

    async def _read_once(self) -> bool:
        """Read over one connection, until it drops or ends; give whether nothing is left."""
        budget = self.budgets.pop(0) if self.budgets else None
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        try:
            return await self._exchange(stream, budget)
        except trio.BrokenResourceError:
            return False
        finally:
            await trio.aclose_forcefully(stream)

    async def _exchange(self, stream: trio.SocketStream, budget: int | None) -> bool:
        http, decoder = h11.Connection(h11.CLIENT), SSEDecoder()
        request = http.send(self._request())
        assert request is not None
        await stream.send_all(request[:budget])
        left = None if budget is None else budget - len(request)
        while True:
            match http.next_event():
                case h11.NEED_DATA:
                    if left is not None and left <= 0:
                        return False
                    data = await stream.receive_some(4096)
                    http.receive_data(data[:left])
                    left = None if left is None else left - len(data)
                    if not data:
                        return False
                case h11.Response(status_code=204):
                    return True
                case h11.Response(status_code=status):
                    assert status == 200
                case h11.Data(data=data):
                    for event in decoder.receive_data(bytes(data)):
                        if event.data:
                            self.frames.append(json.loads(event.data))
                            self.last_id = event.id
                case _:
                    return False  # the end of an answer; the log goes on, or 204 follows

    def _request(self) -> h11.Request:
        headers = [("Host", f"127.0.0.1:{self.port}"), ("Accept", "text/event-stream")]
        if self.last_id is not None:
            headers.append(("Last-Event-ID", self.last_id))
        return h11.Request(method="GET", target=self.path, headers=headers)


@attrs.define
class Outcome:
    """What came of one round."""

    started: list[str]
    readers: dict[str, list[EventSource]]
    stored: dict[str, Sequence[AgentEvent]]


async def play(store: Any, seed: int, most_bytes: int) -> Outcome:
    """Have two runs read by two readers each, all of whom drop their connections."""
    started: list[str] = []
    dice = random.Random(seed)

    async def agent(ctx: RunContext, message: str) -> str:
        started.append(ctx.run_id)
        return await talks(ctx, message)

    readers: dict[str, list[EventSource]] = {"r0": [], "r1": []}
    async with site(orchestrator=Orchestrator(agents=[agent], store=store)) as s:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for name in ("r0", "r1", "r0", "r1"):
                    budgets = [dice.randrange(most_bytes) for _ in range(8)]
                    readers[name].append(EventSource.of(s, name, budgets))
                    nursery.start_soon(readers[name][-1].read)
        stored = {name: await store.read("default", name, -1, 10_000) for name in readers}
    return Outcome(started, readers, stored)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_every_reader_ends_with_the_log_wherever_it_is_dropped(
    kind: str, seed: int, tmp_path: Path
) -> None:
    # Short budgets drop requests and heads too, long ones the events.
    most_bytes = [600, 3000, 20_000][seed % 3]
    if kind == "memory":
        outcome = await play(MemoryStore(), seed, most_bytes)
    else:
        async with SQLiteStore(tmp_path / "runs.db") as store:
            outcome = await play(store, seed, most_bytes)

    assert sorted(outcome.started) == ["r0", "r1"]
    for name, readers in outcome.readers.items():
        check_events(list(outcome.stored[name]))
        for reader in readers:
            assert as_events(reader.frames) == list(outcome.stored[name])


async def test_requests_that_race_to_start_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a server keeps of a run that is over, it would wait for when it stops."""
    gate = trio.Event()
    gate.set()

    class Slow(MemoryStore):
        async def create(self, header: Any) -> bool:
            await gate.wait()
            return await super().create(header)

    orchestrator = Orchestrator(agents=[talks], store=Slow())
    async with site(orchestrator=orchestrator) as s, trio.open_nursery() as nursery:
        hosting = s.app._hosting
        start = (hosting.start, "default", "60", None, "r")
        await EventSource.of(s, "r", []).read()
        gate = trio.Event()

        async def come_late(*_: Any) -> str:
            # We have heard that there is such a run, and meanwhile another one asks the same.
            monkeypatch.undo()
            nursery.start_soon(*start)
            while not orchestrator.attach("r").is_live:
                await trio.lowlevel.checkpoint()
            return "r"

        monkeypatch.setattr(Orchestrator, "_start_in", come_late)
        assert await hosting.start(*start[1:]) == "r"
        gate.set()

    assert not hosting._hosted


@pytest.mark.parametrize("shift", [-1, 0, 1])
async def test_a_server_that_takes_the_place_wrongly_would_be_noticed(
    shift: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: what comes after a drop begins one too early, or one too late."""
    honest, shifts = _endpoints._last_event_id, [shift]

    def shifted(request: Any) -> tuple[str, int] | None:
        place = honest(request)
        return None if place is None else (place[0], place[1] + (shifts.pop() if shifts else 0))

    async with site(talks) as s:
        whole, dropped = EventSource.of(s, "r", []), EventSource.of(s, "r", [4000])
        await whole.read()
        monkeypatch.setattr(_endpoints, "_last_event_id", shifted)
        await dropped.read()

    assert not shifts
    assert (dropped.frames == whole.frames) == (shift == 0)
    assert bool(find_violations(as_events(dropped.frames))) == (shift != 0)
