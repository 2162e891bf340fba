"""Whatever a store does and whenever: logs end, are one, and nobody waits for ever.

The store's faults are drawn beforehand, with the moments at which it loses its newest entries. When
it is whole again, so is every log, and equal to what each follower read.
"""

from __future__ import annotations

import logging
from typing import Any

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from flowtrio import AgentEvent, Orchestrator, ReplayGap
from flowtrio._hosting._hosted import HostedRun
from flowtrio._hosting._mending import LostTooMuch, Mender
from flowtrio._hosting._unsettled import Unsettled
from flowtrio.testing import LawBroken, check_events
from tests.runtime.test_recorder import talks
from tests.support.fragile_store import FAULTS, FragileStore

CALLS = 60
"""Calls of the store for which a fault may be drawn."""
RUNS = ("one", "two", "three")


@attrs.frozen
class Trouble:
    """What a store does to its users."""

    faults: tuple[str | None, ...] = ()
    """What becomes of its calls, in order."""
    losses: tuple[tuple[float, int], ...] = ()
    """When it loses how many of each log's newest entries."""
    comes: tuple[tuple[float, int], ...] = ((0.0, 0), (2.25, 0), (6.5, 1))
    """When somebody comes to follow, and where: here, or in another process."""


@attrs.define
class Seen:
    """What one follower read of one run."""

    run_id: str
    events: list[AgentEvent] = attrs.field(factory=list)
    is_gap: bool = False


async def _follow(orchestrator: Orchestrator, seen: Seen) -> None:
    """Follow to the end, and come back where the store fails."""
    while not seen.events or seen.events[-1].type != "done":
        after = seen.events[-1].seq if seen.events else -1
        try:
            async with orchestrator.attach(seen.run_id, after) as stream:
                async for event in stream:
                    seen.events.append(event)
        except ReplayGap:
            seen.is_gap = True
            return
        except (OSError, LookupError, trio.TooSlowError, ExceptionGroup):
            await trio.sleep(1)


async def _live_through(trouble: Trouble, within: float) -> tuple[FragileStore, list[Seen]]:
    """Have runs, followers and a store in trouble, until it is well again for long enough."""
    faults = trouble.faults

    def fault_of(call: int, name: str, run_id: str | None) -> str | None:
        return faults[call] if call < len(faults) else None

    store = FragileStore(fault_of)
    here = Orchestrator(agents=[talks], store=store)
    elsewhere = Orchestrator(agents=[talks], store=store)
    sights: list[Seen] = []

    async def come(when: float, where: Orchestrator, run_id: str) -> None:
        await trio.sleep(when)
        sights.append(seen := Seen(run_id))
        await _follow(where, seen)

    async def lose(when: float, count: int) -> None:
        await trio.sleep(when)
        store.lose(count)

    with trio.fail_after(within):
        async with here, trio.open_nursery() as nursery:
            for run_id, session_id in zip(RUNS, ("s", "s", "z"), strict=True):
                nursery.start_soon(here.start, "4", "default", session_id, run_id)
                for when, place in trouble.comes:
                    nursery.start_soon(come, when, (here, elsewhere)[place], run_id)
            for when, count in trouble.losses:
                nursery.start_soon(lose, when, count)
        async with here:
            store.fault_of = lambda *call: None
            await here.start("1", session_id="s", run_id="next")
            sights.append(seen := Seen("next"))
            await _follow(here, seen)
            assert seen.events[-1].data["status"] == "completed"
    return store, sights


def _judge(trouble: Trouble, within: float = 3600) -> None:
    """Live through it: each stored log is whole, and what everybody read of it."""
    logging.disable(logging.CRITICAL)
    try:
        clock = MockClock(autojump_threshold=0)
        store, sights = trio.run(_live_through, trouble, within, clock=clock)
    finally:
        logging.disable(logging.NOTSET)
    logs = {run_id: store.stored(run_id) for _, run_id in store._logs}
    for log in logs.values():
        check_events(log)
    for seen in sights:
        log = logs[seen.run_id]
        assert seen.events == log[: len(seen.events)]
        # Whoever comes while something is lost is told, and may come again.
        assert seen.events[-1].type == "done" or (seen.is_gap and trouble.losses)


faults = st.lists(st.sampled_from([None, None, None, *FAULTS]), max_size=CALLS).map(tuple)
losses = st.lists(st.tuples(st.floats(0, 8), st.integers(1, 6)), max_size=3).map(tuple)


@given(trouble=st.builds(Trouble, faults, losses))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_when_the_store_is_whole_again_so_is_every_log(trouble: Trouble) -> None:
    _judge(trouble)


TROUBLES = (
    Trouble(losses=((2.5, 3),)),
    Trouble(losses=((2.5, 3), (3.5, 6))),
    Trouble(faults=((None,) * 8 + ("raises", "raises late") * 6)),
    Trouble(faults=((None,) * 8 + ("hangs", "hangs late") * 6)),
    Trouble(faults=("raises",) * 6),
    Trouble(faults=("raises late",) * 20),
)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_these_troubles_are_lived_through(trouble: Trouble) -> None:
    _judge(trouble)


# Planted bugs, each noticed in one of these


async def _mends_never(self: Unsettled, hosted: HostedRun) -> None:
    await trio.lowlevel.checkpoint()


async def _closes_what_it_could_complete(self: Mender, stored: int) -> None:
    await trio.lowlevel.checkpoint()
    raise LostTooMuch


async def _appends_on_a_guess(self: Mender, stored: int) -> int:
    await trio.lowlevel.checkpoint()
    return stored


async def _begins_nothing(self: Mender) -> None:
    await trio.lowlevel.checkpoint()


async def _settles_for_nothing(self: Unsettled, hosted: HostedRun, mender: Mender) -> None:
    await trio.lowlevel.checkpoint()


BUGS = (
    (Unsettled, "go_on", _mends_never),
    (Unsettled, "_settle", _settles_for_nothing),
    (Mender, "complete", _closes_what_it_could_complete),
    (Mender, "_find_end", _appends_on_a_guess),
    (Mender, "create", _begins_nothing),
)


@pytest.mark.parametrize(("owner", "method", "wrong"), BUGS)
def test_a_planted_bug_is_noticed(
    owner: type, method: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, wrong)

    with pytest.raises((AssertionError, LawBroken, trio.TooSlowError, KeyError)):
        for trouble in TROUBLES:
            _judge(trouble, within=200)
