"""What a run says at once is stored at once, and what it says bit by bit is not kept back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import trio

from flowtrio import AgentEvent, Limits, MemoryStore, Orchestrator, RunContext
from flowtrio._run import _stream
from flowtrio.testing import LawBroken, check_events

WORDS = 1000


async def gushes(ctx: RunContext, message: str) -> None:
    async with ctx.message() as out:
        for number in range(WORDS):
            await out.write(f"{number} ")


@attrs.define(eq=False, kw_only=True)
class CountingStore(MemoryStore):
    """Notes how many events came at a time."""

    sizes: list[int] = attrs.field(factory=list)

    def append_nowait(self, *args: Any) -> None:
        """See `MemoryStore`."""
        self.sizes.append(len(args[3]))
        super().append_nowait(*args)


async def run_to_its_end(orchestrator: Orchestrator, message: str = "go") -> list[AgentEvent]:
    async with orchestrator.attach(await orchestrator.start(message)) as follower:
        return [event async for event in follower]


async def test_what_is_said_for_want_of_room_is_stored_together() -> None:
    store = CountingStore()
    async with Orchestrator(agents=[gushes], store=store) as orchestrator:
        events = await run_to_its_end(orchestrator)

    check_events(events)
    assert sum(store.sizes) == len(events) == WORDS + 5
    # By what a run may say without its reader it would be sixteen.
    assert len(store.sizes) <= 5
    assert max(store.sizes) < _stream._MOST + Limits().buffer + 2


@pytest.mark.parametrize("buffer", [1, 31])
async def test_a_run_that_may_say_little_ahead_is_not_waited_for(buffer: int) -> None:
    store = CountingStore()
    limits = Limits(buffer=buffer)
    async with Orchestrator(agents=[gushes], store=store, limits=limits) as orchestrator:
        check_events(await run_to_its_end(orchestrator))

    # What opened or closes something comes beside it.
    assert max(store.sizes) <= 2 * buffer + 3


async def test_a_word_is_seen_before_the_next_is_thought_of() -> None:
    heard = trio.Event()

    async def speaks(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            # As many as make the recorder wait for more of them.
            for _ in range(_stream._MANY):
                await out.write("word ")
            await heard.wait()

    with trio.fail_after(20):
        async with Orchestrator(agents=[speaks]) as orchestrator:
            run_id = await orchestrator.start("go")
            async with orchestrator.attach(run_id) as follower:
                async for event in follower:
                    if event.seq > _stream._MANY:
                        heard.set()

    assert follower.is_over


async def test_a_reader_that_is_up_to_date_never_has_to_ask_the_store() -> None:
    class Unread(MemoryStore):
        async def read(self, *_: Any) -> Sequence[AgentEvent]:
            """See `MemoryStore`."""
            raise AssertionError("it is asked for")

    async with Orchestrator(agents=[gushes], store=Unread()) as orchestrator:
        run_id = await orchestrator.start("go")
        [hosted] = orchestrator._recorder.runs.values()
        async with orchestrator.attach(run_id) as follower:
            check_events([event async for event in follower])

    # Two lags that he may have missed, and behind them what is gathered at once.
    assert hosted.kept >= 2 * hosted.lag + _stream._MOST


@pytest.mark.parametrize("turns", range(12))
async def test_what_is_in_the_recorders_hands_is_stored_though_all_is_cancelled(
    turns: int,
) -> None:
    store = MemoryStore()
    with trio.CancelScope() as scope:
        async with Orchestrator(agents=[gushes], store=store) as orchestrator:
            run_id = await orchestrator.start("go")
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            scope.cancel()
            await trio.sleep_forever()

    events = await store.read("default", run_id, -1, 10_000)
    check_events(list(events))
    assert events[-1].data["status"] == "cancelled"


async def test_a_planted_unshielded_wait_loses_what_was_received(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bug beside it: the same list of moments finds it."""
    monkeypatch.setattr(_stream, "cancel_shielded_checkpoint", trio.lowlevel.checkpoint)
    with pytest.raises(LawBroken, match="run_start"):
        for turns in range(12):
            await test_what_is_in_the_recorders_hands_is_stored_though_all_is_cancelled(turns)
