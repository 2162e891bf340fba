"""What an append costs the process that runs a run: alone, and ten events at once.

On Redis the price is mostly GLIDE's. So the same script is asked of GLIDE by hand, with what was
encoded beforehand, and what our own part adds to that is held to a figure. Beside it stand the
stores that have no server. The server itself is another process, whose time does not count.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import trio

from flowtrio import AgentEvent, EventType, MemoryStore, RedisStore, SQLiteStore
from flowtrio.abc import EventStore, RunHeader
from flowtrio.stores.redis._log_scripts import APPEND
from flowtrio.wire._json import encode_json

from ._measure import MICROSECONDS, Row, Stopwatch, interleave

ALONE, IN_TENS = 60, 10
"""Microseconds that our part of an append may add, alone; and for an event of ten."""

_numbers = count()


@contextmanager
def redis(*settings: str) -> Iterator[str | None]:
    """A server of our own, with these settings; gives its URL, or None where none is installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ft-redis-") as folder:
        socket = Path(folder) / "s"
        command = [program, "--port", "0", "--unixsocket", str(socket), "--dir", folder]
        process = subprocess.Popen([*command, "--save", "", *settings], stdout=subprocess.DEVNULL)
        try:
            while not socket.exists() and process.poll() is None:
                time.sleep(0.01)
            yield f"unix://{socket}"
        finally:
            process.terminate()
            process.wait()


def batches(run_id: str, total: int, size: int) -> Iterator[list[AgentEvent]]:
    """Chunks as a model gives them, so many at once."""
    for first in range(0, total, size):
        yield [
            AgentEvent(
                EventType.MESSAGE_CHUNK,
                {"chunk": " word", "message_id": "m1"},
                seq,
                run_id,
                "root",
                1000.0 + seq,
            )
            for seq in range(first, first + size)
        ]


async def begin(store: EventStore) -> str:
    """Begin a log that nobody has."""
    run_id = f"r{next(_numbers)}"
    await store.create(
        RunHeader(
            tenant_id="t", run_id=run_id, session_id="s", agent="a", message="", created_at=1.0
        )
    )
    return run_id


async def store_side(make: Callable[[], Any], total: int, size: int) -> float:
    """CPU seconds that a store's append takes for each event."""
    store = make()
    run_id = await begin(store)
    made = list(batches(run_id, total, size))
    watch = Stopwatch()
    for events in made:
        await store.append("t", run_id, events[0].seq - 1, events)
    spent = watch.seconds_each(total)
    if hasattr(store, "aclose"):
        await store.aclose()
    return spent


async def glide_side(url: str, total: int, size: int) -> float:
    """CPU seconds that GLIDE alone takes for the same."""
    store = RedisStore(url)
    run_id = await begin(store)
    link: Any = store._server._link
    client = await link._for_calls()
    given: list[Sequence[str | bytes]] = [
        (f"{run_id}|t", str(each[0].seq - 1), "", str(size), f"c{each[0].seq}", encode_json(each))
        for each in batches(run_id, total, size)
    ]
    fixed = ["EVALSHA", APPEND.sha, "1", "ft:"]
    await link.call(APPEND, ["unknown", "-1", "", "1", "c", b"[]", "", ""])
    watch = Stopwatch()
    for each in given:
        await client.custom_command([*fixed, *each, "", ""])
    spent = watch.seconds_each(total)
    assert len(await store.read("t", run_id, -1, total + 1)) == total
    await store.aclose()
    return spent


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, redis() as url:
        for size, limit in ((1, ALONE), (10, IN_TENS)):
            total = (500 if quick else 2000) * (1 if size == 1 else 4)
            found += _rows(Path(folder), url, total, size, limit, 2 if quick else 5)
    return found


def _rows(
    folder: Path, url: str | None, total: int, size: int, limit: float, rounds: int
) -> list[Row]:
    sides: dict[str, Callable[[], Awaitable[float]]] = {
        "memory": partial(store_side, MemoryStore, total, size),
        "sqlite": partial(
            store_side, lambda: SQLiteStore(folder / f"{next(_numbers)}.db"), total, size
        ),
    }
    if url is None:
        print("no redis-server on this machine: what is stored there is not measured")
    else:
        sides["redis"] = partial(store_side, lambda: RedisStore(url), total, size)
        sides["glide"] = partial(glide_side, url, total, size)
    taken = interleave(rounds, **{name: partial(trio.run, side) for name, side in sides.items()})
    best = {name: min(seconds) * MICROSECONDS for name, seconds in taken.items()}
    how = "alone" if size == 1 else f"of {size} at once"
    more = [name for name in ("sqlite", "redis") if name in best]
    found = [
        Row(subject=f"event {how}, {name} / memory", ours=best[name], theirs=best["memory"])
        for name in more
    ]
    if url is not None:
        found.append(
            Row(
                subject=f"event {how}, redis beside GLIDE's own",
                ours=best["redis"] - best["glide"],
                theirs=best["glide"],
                limit=limit,
            )
        )
    return found
