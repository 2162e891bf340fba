"""A short run of the chaos, with real processes and a real store; and that its judge sees."""

from __future__ import annotations

import gc
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from flowtrio import AgentEvent, EventType, RedisStore
from flowtrio._core._interrupted import cancelled_end
from flowtrio.abc._stores import opening_of
from flowtrio.testing._stored import header_of
from tests.support.lapses import Lapses
from tests.support.redis_server import RedisServer, redis_server

from .__main__ import play
from .answers import Deeds, Word, judge_answers
from .clients import Clients, Run
from .judge import _judge_conversation, _judge_run, judge_keys
from .lookout import lapsed_runs
from .processes import LEASE, Processes

SECONDS = 20
CLIENTS = 6


# trio-websocket leaves the socket of a handshake that failed to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_is_lost_whatever_befalls_the_processes(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as redis:
        outcome = trio.run(play, redis, tmp_path, seed, SECONDS, CLIENTS)
    gc.collect()
    print(outcome.told())

    assert outcome.wrong == [], f"seed {seed}"
    assert outcome.runs > CLIENTS
    # Each takes as long as the machine lets it.
    assert sum(outcome.troubles.values()) >= 3


# The judge


def log_of(run_id: str) -> list[Any]:
    """A short whole log."""
    return cancelled_end(opening_of(header_of(run_id)), "stop")


def as_seen(log: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "type": str(e.type),
            "data": e.data,
            "seq": e.seq,
            "run_id": e.run_id,
            "agent": e.agent,
            "timestamp": e.timestamp,
        }
        for e in log
    ]


def test_a_log_that_is_lost_cut_or_seen_otherwise_is_found() -> None:
    log = log_of("r")
    run = Run("r", None, "m", logs=[as_seen(log)], is_told=True)

    assert _judge_run(run, log) == []
    assert "lost" in _judge_run(run, [])[0]
    assert any("without DONE" in each for each in _judge_run(run, log[:-1]))
    run.logs = [as_seen(log[:-1])]
    assert "something else" in _judge_run(run, log)[0]
    assert _judge_run(Run("r", None, "m"), []) == []


@pytest.mark.parametrize("count", [0, 2])
def test_a_turn_that_is_lost_or_doubled_is_found(count: int) -> None:
    run = Run("r", "s", "m", is_told=True)
    clients = Clients(None, random.Random(0), 0.0, runs=[run])  # type: ignore[arg-type]
    turn = {"role": "user", "content": "m"}

    assert _judge_conversation(clients, "s", [turn], Counter(r=1), {}) == []
    [found] = _judge_conversation(clients, "s", [turn] * count, Counter(r=1), {})
    assert f"{count} times" in found


def answered(outcome: str | None, text: str | None, status: str = "completed") -> list[AgentEvent]:
    """What a log has of an approval and of a question."""
    told: list[tuple[EventType, dict[str, Any]]] = []
    if outcome is not None:
        told.append((EventType.APPROVAL_REQUIRED, {"call_id": "c1"}))
        told.append((EventType.TOOL_CALL_END, {"call_id": "c1", "outcome": outcome}))
    if text is not None:
        told.append((EventType.INPUT_RESOLVED, {"text": text}))
    told.append((EventType.DONE, {"status": status}))
    return [AgentEvent(kind, data, n, "r", "root", 0.0) for n, (kind, data) in enumerate(told)]


YES, NO = Word("approve", None, 1, 2), Word("deny", None, 1, 2)
LATE_YES, LATE_NO = Word("approve", None, 3, 4), Word("deny", None, 3, 4)
UNHEARD = Word("approve", None, 1)
THERE, ALSO = Word("answer", "there", 1, 2), Word("answer", "also there", 1.5, 2)


@pytest.mark.parametrize(
    ("log", "words", "deeds"),
    [
        (answered("ok", None), [YES, LATE_NO], Deeds(1, 1)),
        (answered("denied", None), [NO, LATE_YES], Deeds(1)),
        (answered("ok", "there"), [YES, LATE_YES, THERE], Deeds(1, 1, ["there"])),
        # Of those that crossed each other, and of whom nobody told anything, each may be first.
        (answered("ok", None), [YES, NO], Deeds(1, 1)),
        (answered("denied", None), [YES, NO], Deeds(1)),
        (answered("ok", None), [UNHEARD], Deeds(1, 1)),
        (answered(None, "also there"), [THERE, ALSO], Deeds(1, 0, ["also there"])),
        # Its process was gone before it could, or before it could say so.
        (answered("cancelled", None, "error"), [YES], Deeds(1)),
        (answered("cancelled", None, "error"), [YES], Deeds(1, 1)),
        (answered(None, "there", "error"), [THERE], Deeds(1)),
    ],
)
def test_what_was_said_and_heard_once_is_right(
    log: list[AgentEvent], words: list[Word], deeds: Deeds
) -> None:
    assert judge_answers(log, words, deeds) == []


@pytest.mark.parametrize(
    ("log", "words", "deeds", "found"),
    [
        (answered("ok", None), [YES], Deeds(1, 2), "made 2 times"),
        (answered("cancelled", None, "error"), [YES], Deeds(1, 2), "made 2 times"),
        (answered("denied", None), [YES, LATE_NO], Deeds(1), "was not made"),
        (answered("ok", None), [], Deeds(1, 1), "nobody approved"),
        (answered("ok", None), [NO, LATE_YES], Deeds(1, 1), "was denied"),
        (answered("denied", None), [YES], Deeds(1, 1), "the log tells"),
        (answered(None, "there"), [THERE], Deeds(1, 0, ["there", "there"]), "2 answers"),
        (answered(None, "there"), [THERE], Deeds(1), "has not reached"),
        (answered(None, "here"), [THERE], Deeds(1, 0, ["here"]), "nobody had answered"),
        (answered(None, "here"), [THERE], Deeds(1, 0, ["there"]), "another answer"),
    ],
)
def test_what_was_said_and_not_heard_so_is_found(
    log: list[AgentEvent], words: list[Word], deeds: Deeds, found: str
) -> None:
    assert any(found in each for each in judge_answers(log, words, deeds))


def test_where_a_store_may_lose_only_what_began_anew_is_told_otherwise() -> None:
    log = log_of("r")
    run = Run("r", None, "m", logs=[as_seen(log[:-1])], is_told=True)

    assert _judge_run(run, log, is_anew=True) == []
    assert _judge_run(run, log) != []
    assert _judge_run(run, [], is_anew=True) == []
    assert _judge_run(run, log[:-1], is_anew=True) != []


def test_a_run_that_has_nobody_for_too_long_is_found() -> None:
    lapses = Lapses(lease=2)
    for second in (0, 1, 2, 3):
        lapses.look(second, ["r", "s"] if second < 3 else ["r"])
    assert (lapses.longest, lapses.told()) == (3, [])
    lapses.look(4.5, ["r"])
    [found] = lapses.told()
    assert "r had nobody for 4.5 s" in found


def test_what_nobody_can_do_is_not_counted() -> None:
    lapses = Lapses(lease=2)
    for second in range(20):
        # No store, or no process, from the 2nd second to the 15th.
        lapses.look(second, None if 2 <= second < 15 else ["r"])
    assert lapses.told() == []
    lapses.look(20, ["r"])
    assert len(lapses.told()) == 1


async def test_who_asks_the_store_alone_sees_what_has_nobody() -> None:
    with redis_server() as redis:
        async with RedisStore(redis.url()) as store:
            prefix = store._server.place.prefix
            for run_id in ("r", "s"):
                await store.enqueue(header_of(run_id), queue_length=9, runs_per_tenant=None)
            await store.claim("w", 60)
            assert await lapsed_runs(redis.socket, prefix) == []
            await store.renew("w", 0.001)
            await trio.sleep(0.01)
            assert await lapsed_runs(redis.socket, prefix) == ["r|t"]
        redis.kill()
        assert await lapsed_runs(redis.socket, prefix) is None


async def test_a_key_that_is_left_is_found() -> None:
    with redis_server() as redis:
        assert isinstance(redis, RedisServer)
        processes = Processes(redis, Path(), random.Random(0), redis.url())
        clients = Clients(processes, random.Random(0), 0.0)
        assert judge_keys(clients) == []
        async with RedisStore(processes.url) as store:
            await store.enqueue(header_of("r"), queue_length=1, runs_per_tenant=None)
            assert any("live:" in each for each in judge_keys(clients))
            await store.renew("w", LEASE)
            assert not any("w:" in each for each in judge_keys(clients))
            await store.renew("v", 60)
            assert any("w:v" in each for each in judge_keys(clients))
