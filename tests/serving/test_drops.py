"""Readers whose connections drop at any byte, by either side or in between, and who come back.

A *round* is drawn from a seed: two runs with parallel tools and nested agents on one orchestrator,
three servers before it, and readers of all kinds, several of each run,
each on a line of its own that drops its next connections (`tests.support.lines`). In the end each
reader has to have exactly the log that the store has, and every tool has to have run once.

The environment variable ``FLOWTRIO_DROPS`` says how many drops there are to be, at least, in both
stores together (``nox -s soak`` has a thousand); drops that were drawn and did not happen, since
the connection was over before, do not count.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import attrs
import msgspec
import pytest
import trio

from flowtrio import (
    Agent,
    DemoClient,
    Limits,
    MemoryStore,
    Orchestrator,
    RunContext,
    ServerLimits,
    SQLiteStore,
    tool,
)
from flowtrio._hosting import _cursor, _follower
from flowtrio.abc import EventStore
from flowtrio.remote import _commands, _remote_stream
from flowtrio.serving.commands import _clients as _hosting
from flowtrio.serving.commands import _session
from flowtrio.serving.http import _answers, _endpoints
from flowtrio.testing import find_violations
from tests.support.front_door import open_door
from tests.support.lines import HOWS, Drop, Line, Net, draw_drop, open_lines
from tests.support.readers import SUBPROTOCOLS, ClientReader, HTTPReader, Reader, SocketReader
from tests.support.site import site
from tests.support.ws_peer import open_server

DROPS = int(os.environ.get("FLOWTRIO_DROPS", "100"))
TRANSPORTS = ("websocket", "front websocket", "front sse", "asgi websocket", "asgi sse")
"""Where: at `serve_websocket`; at the HTTP address of ``flowtrio serve``, whose front reads each
request's head; at `create_app` on Hypercorn's own worker."""
SECONDS = 40
"""That a round may take; many times what it does."""


# What is read


@attrs.define(eq=False)
class World:
    """An orchestrator whose runs tell what was done in them, by the message that they answer."""

    store: EventStore
    dice: Random
    words: int = 40
    agent: Any = None
    """Who answers, if not we."""
    patience: float = 0.25
    """Seconds that a reader has to take what is sent, and that a run waits for one that is mute."""
    started: Counter[str] = attrs.Factory(Counter)
    ran: Counter[tuple[str, str]] = attrs.Factory(Counter)

    def orchestrator(self) -> Orchestrator:
        """Make it; a small buffer has readers fall back to the store soon."""
        limits = Limits(buffer=self.dice.choice((4, 64)))
        return Orchestrator(agents=[self.agent or self._answer], store=self.store, limits=limits)

    async def _answer(self, ctx: RunContext, message: str) -> str:
        self.started[message] += 1
        look = self._tool("look", message)
        async with trio.open_nursery() as nursery:
            for place in range(3):
                nursery.start_soon(_call, ctx, look, f"place {place}")
            nursery.start_soon(ctx.delegate, self._helper, message)
            await self._say(ctx)
        if self.words > 10:
            tools = [self._tool(name, message) for name in ("search", "book")]
            agent = Agent(llm_client=DemoClient(delay=0.0005), tools=tools, name="demo")
            await ctx.delegate(agent, "Book a flight")
        return message

    async def _helper(self, ctx: RunContext, message: str) -> str:
        await self._say(ctx)
        await _call(ctx, self._tool("help", message), "help")
        return "hélp"

    async def _say(self, ctx: RunContext) -> None:
        async with ctx.message() as out:
            for number in range(self.words):
                await out.write(f"wörd {number} ")
                if number % 3 == 0:
                    await trio.sleep(self.dice.choice((0, 0.001, 0.02)))
            # Longer than the short and the middle form of a frame's length.
            await out.write("long " * self.dice.choice((0, 100, 14_000)))

    def _tool(self, name: str, message: str) -> Any:
        async def work(word: str) -> str:
            """Work a little."""
            self.ran[message, f"{name} {word}"] += 1
            await trio.sleep(self.dice.random() * 0.02)
            return word.upper()

        return tool(name=name)(work)


async def _call(ctx: RunContext, fn: Any, word: str) -> None:
    await ctx.call(fn, word=word)


@attrs.define(eq=False)
class Servers:
    """Both servers of one orchestrator, by transport."""

    ports: dict[str, int]


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[Servers]:
    """Serve it at three addresses, in the ways in which people do."""
    orchestrator = world.orchestrator()
    limits = ServerLimits(send=world.patience)
    # What is read there has a limit of its own.
    options: dict[str, Any] = {"seconds": math.inf, "limits": limits}
    async with orchestrator, open_server(orchestrator, **options) as served:
        async with open_door(orchestrator, resume_window=60, **options) as door:
            async with site(orchestrator=orchestrator, limits=limits) as s:
                port = urlsplit(s.url).port
                assert port is not None
                ports = (served.port, door.port, door.port, port, port)
                yield Servers(dict(zip(TRANSPORTS, ports, strict=True)))


# A round


@attrs.frozen
class Outcome:
    """What came of a round."""

    world: World
    readers: list[Reader]
    stored: dict[str, list[dict[str, Any]]]
    known: list[str]
    is_over: bool

    def faults(self) -> list[str]:
        """What is wrong, in sentences; empty where nothing is."""
        found = [fault for reader in self.readers for fault in reader.faults]
        if not self.is_over:
            late = [type(reader).__name__ for reader in self.readers if not reader.is_over]
            found.append(f"not read to the end in {SECONDS} s: {late}")
        if self.known != sorted(self.stored):
            found.append(f"the store knows runs {self.known}")
        for run_id, stored in self.stored.items():
            found += self._faults_of(run_id, stored)
        return found

    def _faults_of(self, run_id: str, stored: list[dict[str, Any]]) -> list[str]:
        world = self.world
        found = [f"{run_id}: {violation}" for violation in find_violations(stored)]
        if not stored or stored[-1]["data"].get("status") != "completed":
            found.append(f"{run_id} is not completed")
        if world.started[run_id] != 1:
            found.append(f"{run_id} was started {world.started[run_id]} times")
        ran = {what: n for (message, what), n in world.ran.items() if message == run_id}
        if set(ran.values()) != {1}:
            found.append(f"tools of {run_id} ran {ran}")
        for reader in self.readers:
            if run_id in reader.logs and list(reader.logs[run_id].values()) != stored:
                seqs = list(reader.logs[run_id])
                found.append(f"{type(reader).__name__} has of {run_id} {len(seqs)} events: {seqs}")
        return found


async def play(net: Net, store: EventStore, seed: int, seconds: float = SECONDS) -> Outcome:
    """Play the round of a seed."""
    world = World(store, Random(seed))
    async with serving(world) as servers:
        readers = draw_readers(net, servers, Random(seed))
        return await read_all(net, world, readers, seconds)


async def read_all(
    net: Net, world: World, readers: list[Reader], seconds: float = SECONDS
) -> Outcome:
    """Have all readers read at once, to their end."""
    with trio.move_on_after(seconds) as reading:
        async with open_lines(net, *(reader.line for reader in readers)):
            async with trio.open_nursery() as nursery:
                for reader in readers:
                    nursery.start_soon(reader.read)
    known = sorted(header.run_id for header in await world.store.list("default"))
    run_ids = sorted({run_id for reader in readers for run_id in reader.run_ids})
    stored = {}
    for run_id in run_ids:
        log = await world.store.read("default", run_id, -1, 10_000) if run_id in known else ()
        stored[run_id] = [msgspec.to_builtins(event) for event in log]
    return Outcome(world, readers, stored, known, not reading.cancelled_caught)


def draw_readers(net: Net, servers: Servers, dice: Random) -> list[Reader]:
    """Draw who reads: some of each kind, so that each run has several."""
    both, sse = ["a", "b"], ("front sse", "asgi sse")

    def basics(transport: str, run_ids: list[str]) -> dict[str, Any]:
        drops = deque(draw_drop(dice, transport) for _ in range(dice.randrange(3, 10)))
        line = Line(net, servers.ports[transport], drops, dice)
        piece, pause = dice.choice(((65536, 0), (65536, 0.005), (300, 0), (2000, 0.002)))
        own = Random(dice.random())
        # Some come when all is over.
        pace = {"piece": piece, "pause": pause, "late": dice.choice((0, 0, 0.05, 0.5))}
        return {"line": line, "run_ids": run_ids, "dice": own, **pace}

    sockets = [
        SocketReader(
            **basics(transport, dice.choice((both, ["a"]))), subprotocols=dice.choice(SUBPROTOCOLS)
        )
        for transport in (dice.choice(("websocket", "front websocket")), "asgi websocket")
    ]
    http = [
        HTTPReader(**basics(dice.choice(sse), ["a"])),
        HTTPReader(
            **basics(dice.choice(sse), ["b"]),
            posts=True,
            wants_lines=dice.random() < 0.5,
        ),
    ]
    client = ClientReader(**basics(dice.choice([t for t in TRANSPORTS if "web" in t]), both))
    return [*sockets, *http, client]


@asynccontextmanager
async def storing(kind: str, path: Path) -> AsyncIterator[Callable[[], EventStore]]:
    """Give what makes an empty store."""
    stores: list[SQLiteStore] = []

    def make() -> EventStore:
        if kind == "memory":
            return MemoryStore()
        stores.append(SQLiteStore(path / f"{len(stores)}.db"))
        return stores[-1]

    try:
        yield make
    finally:
        for store in stores:
            await store.aclose()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_every_reader_ends_with_the_log_wherever_it_is_dropped(
    kind: str, tmp_path: Path
) -> None:
    net, wanted, rounds = Net(), (DROPS + 1) // 2, 0
    async with storing(kind, tmp_path) as make:
        with net.installed():
            # Where none happens any more, or none of one kind, this ends too.
            while rounds < wanted and not (net.tally.total() >= wanted and has_all_kinds(net)):
                seed = rounds + 1_000_000 * (kind == "sqlite")
                found = (await play(net, make(), seed)).faults()
                assert not found, f"round of seed {seed}"
                rounds += 1

    print(f"\n{kind}: {rounds} rounds, {net.tally.total()} drops: {told(net)}")
    assert net.tally.total() >= wanted
    assert has_all_kinds(net), "seen every transport, and everybody drop in every way"


def has_all_kinds(net: Net) -> bool:
    kinds = {(who, how) for who, hows in HOWS.items() for how in hows}
    return {kind[0] for kind in net.tally} == set(TRANSPORTS) and {
        kind[1:] for kind in net.tally
    } == kinds


def told(net: Net) -> str:
    return ", ".join(f"{' '.join(kind)} {n}" for kind, n in sorted(net.tally.items()))


# Starting


STARTERS: dict[str, tuple[str, Callable[..., Reader]]] = {
    "websocket": ("websocket", SocketReader),
    "batch": ("websocket", partial(SocketReader, subprotocols=SUBPROTOCOLS[2])),
    "client": ("websocket", ClientReader),
    "asgi websocket": ("asgi websocket", SocketReader),
    "front sse": ("front sse", HTTPReader),
    "front post": ("front sse", partial(HTTPReader, posts=True)),
    "asgi sse": ("asgi sse", HTTPReader),
    "asgi post": ("asgi sse", partial(HTTPReader, posts=True)),
}
AT_ONCE = 12
FIRST_BYTES = 400
"""Of what a server says: its part of the handshake or head, that the start was accepted, events."""


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("name", STARTERS)
async def test_a_start_that_is_dropped_at_any_byte_starts_once(
    name: str, kind: str, tmp_path: Path
) -> None:
    """At every few bytes of what starts a run and is said to that, or with 1,000 drops at each."""
    net, dice, played = Net(), Random(name), 0
    async with storing(kind, tmp_path) as make:
        with net.installed():
            world = World(make(), dice, words=4, patience=10)
            async with serving(world) as servers:
                drops = draw_starts(name, await measure_start(net, servers, name), dice)
                while played < len(drops):
                    some = drops[played : played + AT_ONCE]
                    found = await play_starts(net, world, servers, name, played, some)
                    assert not found, some
                    played += len(some)
            known = await world.store.list("default")

    print(f"\n{name}, {kind}: {net.tally.total()} starts dropped")
    assert net.tally.total() == len(drops)
    assert len(known) == len(world.started) == len(drops) + 1


async def play_starts(
    net: Net,
    world: World,
    servers: Servers,
    name: str,
    first: int,
    drops: list[Drop],
    seconds: float = SECONDS,
) -> list[str]:
    """Have a run started for each of the drops, their numbers from *first* on; gives the faults."""
    readers = [
        reader
        for number, drop in enumerate(drops, first)
        for reader in make_starters(net, servers, name, number, drop)
    ]
    outcome = await read_all(net, world, readers, seconds)
    # The runs of those before are known too.
    return attrs.evolve(outcome, known=sorted(outcome.stored)).faults()


def draw_starts(name: str, length: int, dice: Random) -> list[Drop]:
    """A drop at every few bytes of both ways."""
    step = 1 if DROPS >= 1000 else 32
    transport = STARTERS[name][0]
    places = [("up", place) for place in range(0, length + 1, step)]
    places += [("down", place) for place in range(0, FIRST_BYTES, step)]
    kinds = itertools.cycle(itertools.product(HOWS, ("close", "reset")))
    return [
        Drop(transport, who, how, way, place)
        for (who, how), (way, place) in zip(kinds, dice.sample(places, len(places)), strict=False)
    ]


def make_starters(
    net: Net, servers: Servers, name: str, number: int, drop: Drop | None
) -> list[Reader]:
    """Who starts a run and is dropped, and for every other run somebody who starts it too."""
    transport, make = STARTERS[name]
    run_id, readers = f"run-{number:04}", []
    for drops in ([drop] if drop else [], [])[: 1 + number % 2]:
        line = Line(net, servers.ports[transport], deque(drops), Random(number))
        readers.append(make(line=line, run_ids=[run_id], dice=Random(number)))
    return readers


async def measure_start(net: Net, servers: Servers, name: str) -> int:
    """How many bytes start a run."""
    [reader] = make_starters(net, servers, name, 9998, None)
    async with open_lines(net, reader.line):
        await reader.read()
    return reader.line.ends[0].sent


# Reading slowly


async def test_who_reads_slowly_is_not_dropped() -> None:
    """Though all that is ready, and one event too, take longer than it has for a piece."""

    async def talks(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            for _ in range(150):
                await out.write("long " * 2000)

    net, dice = Net(), Random(0)
    world = World(MemoryStore(), dice, agent=talks, patience=1)
    with net.installed():
        async with serving(world) as servers:
            line = Line(net, servers.ports["websocket"], deque(), dice)
            make = partial(SocketReader, line=line, run_ids=["a"], dice=dice)
            fast, slow = make(), make(subprotocols=SUBPROTOCOLS[2], piece=10_000, pause=0.01)
            with trio.fail_after(SECONDS):
                async with open_lines(net, line):
                    await fast.read()
                    await slow.read()

    assert slow.logs == fast.logs
    assert len(line.ends) == 2


# Bugs that are planted


def resumes_late(patch: pytest.MonkeyPatch) -> None:
    """A WebSocket session goes on one too late."""
    honest = _session.Session._begin_to_follow

    async def follow(self: Any, ref: Any, run_id: str, showing: Any) -> None:
        showing.after += showing.after >= 0
        await honest(self, ref, run_id, showing)

    patch.setattr(_session.Session, "_begin_to_follow", follow)


def resumes_shifted(patch: pytest.MonkeyPatch, shift: int) -> None:
    """An EventSource's place is taken wrongly."""
    honest = _endpoints._last_event_id

    def shifted(request: Any) -> tuple[str, int] | None:
        place = honest(request)
        return place and (place[0], place[1] + shift)

    patch.setattr(_endpoints, "_last_event_id", shifted)


def follows_late(patch: pytest.MonkeyPatch) -> None:
    """A follower takes its seat one too late, where others have read before."""
    honest = _follower.Follower._attach

    async def attach(self: Any) -> None:
        await honest(self)
        self._seat.seq += self._seat.seq > 0

    patch.setattr(_follower.Follower, "_attach", attach)


def loses_from_the_store(patch: pytest.MonkeyPatch) -> None:
    """What is read from the store, by those who lag, lacks its first event."""
    honest = _cursor.Cursor.read

    async def read(self: Any, seq: int) -> Any:
        events = await honest(self, seq)
        return events[1:] if len(events) > 1 else events

    patch.setattr(_cursor.Cursor, "read", read)


def forgets_that_it_started(patch: pytest.MonkeyPatch) -> None:
    """A server takes each start for the first."""
    honest = _hosting.Hosting.starting

    @asynccontextmanager
    async def starting(
        self: Any, tenant_id: str, message: str, session_id: Any, run_id: str | None, **options: Any
    ) -> AsyncIterator[Any]:
        if run_id is not None and await self.is_known(tenant_id, run_id):
            async with honest(self, tenant_id, message, None, None, **options):
                pass
        async with honest(self, tenant_id, message, session_id, run_id, **options) as started:
            yield started

    patch.setattr(_hosting.Hosting, "starting", starting)


def starts_anew_what_is_over(patch: pytest.MonkeyPatch) -> None:
    """A store begins a log that it has once more."""
    honest = MemoryStore.create_nowait

    def create(self: Any, header: Any) -> bool:
        self._forget([key for key in self._logs if key == (header.tenant_id, header.run_id)])
        return honest(self, header)

    patch.setattr(MemoryStore, "create_nowait", create)


def names_the_wrong_place(patch: pytest.MonkeyPatch) -> None:
    """An event's id in SSE is that of the next."""
    honest = _answers.encode_event

    def encode(text: str, id: str) -> bytes:
        run_id, _, seq = id.rpartition(":")
        return honest(text, id=f"{run_id}:{int(seq) + 1}")

    patch.setattr(_answers, "encode_event", encode)


def client_resumes_late(patch: pytest.MonkeyPatch) -> None:
    """Our client says that it has seen one more than it has, and looks for no gap."""
    honest = _remote_stream.RemoteStream._opening

    def opening(self: Any) -> dict[str, Any]:
        command = honest(self)
        return {**command, "after": command["after"] + 1} if "after" in command else command

    patch.setattr(_remote_stream.RemoteStream, "_opening", opening)
    patch.setattr(_remote_stream.RemoteStream, "_misses", lambda *_: False)


def client_repeats(patch: pytest.MonkeyPatch) -> None:
    """Our client asks for its last event once more, and gives it twice."""
    honest, take = _remote_stream.RemoteStream._opening, _remote_stream.RemoteStream._take

    def opening(self: Any) -> dict[str, Any]:
        command = honest(self)
        return {**command, "after": command["after"] - 1} if "after" in command else command

    async def take_all(self: Any, event: Any) -> None:
        self._last = min(self._last, event.seq - 1)
        await take(self, event)

    patch.setattr(_remote_stream.RemoteStream, "_opening", opening)
    patch.setattr(_remote_stream.RemoteStream, "_take", take_all)


def client_asks_once(patch: pytest.MonkeyPatch) -> None:
    """Our client takes what it wrote for what was read: a start that was lost is not repeated."""
    honest = _commands.Commands.begin_anew

    def begin_anew(self: Any) -> None:
        written = [p.stream for ref, p in self._pending.items() if ref not in self._unsent]
        kept = self._streams
        self._streams = {name: s for name, s in kept.items() if s not in written}
        honest(self)
        self._streams = kept

    patch.setattr(_commands.Commands, "begin_anew", begin_anew)


MISPLACED = r"seq \d+ of . is not \d+"

BUGS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "resumes_late": (resumes_late, MISPLACED),
    "sse_late": (partial(resumes_shifted, shift=1), MISPLACED),
    "sse_early": (partial(resumes_shifted, shift=-1), MISPLACED),
    "follows_late": (follows_late, MISPLACED),
    "loses_from_the_store": (loses_from_the_store, MISPLACED),
    "forgets_that_it_started": (forgets_that_it_started, "the store knows runs"),
    "starts_anew_what_is_over": (starts_anew_what_is_over, "was started [2-9] times"),
    "names_the_wrong_place": (names_the_wrong_place, "is no place of"),
    "client_resumes_late": (client_resumes_late, MISPLACED),
    "client_repeats": (client_repeats, MISPLACED),
}


@pytest.mark.parametrize("bug", BUGS)
async def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who waits in vain does not wait long.
    monkeypatch.setattr(_remote_stream, "_CLEANUP", 0.1)
    plant, words = BUGS[bug]
    plant(monkeypatch)
    net, seed, found = Net(), 0, list[str]()
    with net.installed():
        while not found and seed < 12:
            faults = (await play(net, MemoryStore(), seed, seconds=4)).faults()
            found = [fault for fault in faults if re.search(words, fault)]
            seed += 1

    print(f"\n{bug}: noticed in round {seed - 1}: {found[:1]}")
    assert found


@pytest.mark.parametrize(
    ("bug", "name"), [(client_asks_once, "client"), (forgets_that_it_started, "asgi sse")]
)
async def test_a_planted_bug_of_starting_is_noticed(
    bug: Callable[..., None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_remote_stream, "_CLEANUP", 0.1)
    net, world = Net(), World(MemoryStore(), Random(0), words=4, patience=10)
    with net.installed():
        async with serving(world) as servers:
            length = await measure_start(net, servers, name)
            bug(monkeypatch)
            last = [Drop(STARTERS[name][0], "client", "close", "up", length)] * 2
            found = await play_starts(net, world, servers, name, 0, last, seconds=4)
            known = await world.store.list("default")

    assert found or len(known) > 3
