"""Ctrl-C ends a program by `KeyboardInterrupt`, wherever it strikes; what is noticed is planted."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

from flowtrio import EventStream, MemoryStore, Orchestrator, RunContext, StreamEngine
from flowtrio.testing import check_events
from tests.interrupts import (
    CLEAN,
    GROUP,
    HANGS,
    INTERNAL,
    OTHER,
    PATIENCE,
    SWALLOWED,
    Program,
    ours,
    outcome_of,
    strike,
    strike_many,
)

TRIALS = 60


def test_ctrl_c_at_random_moments_ends_nearly_all_programs_cleanly() -> None:
    counted = Counter(trial.outcome for trial in strike_many(ours, TRIALS))

    # Chance is real here: one in a hundred is not, by what Python and Trio do themselves.
    assert counted[CLEAN] >= 0.9 * TRIALS, counted


# Planted


async def swallows() -> None:
    with suppress(KeyboardInterrupt, trio.Cancelled):
        for _ in range(1000):
            await trio.lowlevel.checkpoint()


async def replaces() -> None:
    try:
        for _ in range(1000):
            await trio.lowlevel.checkpoint()
    except KeyboardInterrupt:
        raise ValueError from None


async def does_not_listen() -> None:
    with suppress(KeyboardInterrupt):
        for _ in range(1000):
            await trio.lowlevel.checkpoint()
        return
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


@pytest.mark.parametrize(
    ("program", "outcome"),
    [(swallows, SWALLOWED), (replaces, OTHER), (does_not_listen, HANGS)],
)
def test_a_program_that_takes_ctrl_c_otherwise_is_noticed(program: Program, outcome: str) -> None:
    # One that goes on ends by itself, in its time.
    patience = 3 if outcome == HANGS else PATIENCE
    assert strike(program, 0.01, patience=patience).outcome == outcome


def test_what_an_exception_came_to_is_told_apart() -> None:
    interrupt, other = KeyboardInterrupt(), ValueError()

    assert outcome_of(interrupt) == CLEAN
    assert outcome_of(BaseExceptionGroup("", [interrupt])) == GROUP
    assert outcome_of(BaseExceptionGroup("", [interrupt, other])) == OTHER
    assert outcome_of(other) == OTHER
    assert outcome_of(trio.TrioInternalError()) == INTERNAL


# The smallest programs that did not end by it


class StrikingManager:
    """A nursery's manager in whose entering Ctrl-C strikes, when the nursery is open."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        nursery = await self._manager.__aenter__()
        signal.raise_signal(signal.SIGINT)
        return nursery

    async def __aexit__(self, *exc_info: Any) -> Any:
        return await self._manager.__aexit__(*exc_info)


@pytest.mark.parametrize(
    "open_it",
    [
        lambda: StreamEngine().stream(says_nothing, "go"),
        lambda: StreamEngine(),
        lambda: Orchestrator(agents=[says_nothing]),
    ],
    ids=["stream", "engine", "orchestrator"],
)
def test_ctrl_c_strikes_behind_the_entering_and_not_within(
    open_it: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nursery = trio.open_nursery
    struck: list[bool] = []

    def open_nursery() -> Any:
        struck.append(True)
        return nursery() if struck[1:] else StrikingManager(nursery())

    async def main() -> None:
        monkeypatch.setattr(trio, "open_nursery", open_nursery)
        async with open_it():
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)


async def says_nothing(ctx: RunContext, message: str) -> None:
    await trio.lowlevel.checkpoint()


async def is_struck(ctx: RunContext, message: str) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("raises", [False, True], ids=["that is cancelled", "that raises"])
async def test_ctrl_c_in_a_hosted_run_leaves_the_block_of_one(raises: bool) -> None:
    async def main() -> None:
        async with Orchestrator(agents=[is_struck]) as orchestrator:
            await orchestrator.start("go")
            try:
                await trio.sleep_forever()
            finally:
                if raises:
                    raise ValueError

    with pytest.raises(KeyboardInterrupt):
        await main()


class StruckStore(MemoryStore):
    """A store in which Ctrl-C strikes while it takes a run's first events."""

    is_struck = False

    def append_nowait(self, tenant_id: str, run_id: str, after: int, events: Any) -> None:
        if not self.is_struck:
            self.is_struck = True
            signal.raise_signal(signal.SIGINT)
        super().append_nowait(tenant_id, run_id, after, events)


def test_ctrl_c_in_the_recorder_costs_no_log() -> None:
    store = StruckStore()

    async def main() -> None:
        async with Orchestrator(agents=[says_nothing], store=store) as orchestrator:
            await orchestrator.start("go", run_id="r")
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    check_events(trio.run(store.read, "default", "r", -1, 100))


async def test_an_exception_of_the_blocks_own_leaves_it_as_it_came() -> None:
    with pytest.raises(ValueError, match="own"):
        async with StreamEngine() as engine:
            stream: EventStream[Any] = engine.stream(says_nothing, "go")
            await anext(stream)
            raise ValueError("own")
