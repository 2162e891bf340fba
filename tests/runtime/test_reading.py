"""Readers: how much may wait for them, and that nothing is lost however they read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from flowtrio import Chunk, EventType, Limits, StreamEngine, StreamMode
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import Endless, play, runner

T = EventType


def rss() -> int:
    """Resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Counting:
    """A model that counts to *total*, one chunk a number, without a pause."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.said = 0

    async def stream_completion(
        self, messages: Any, tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """Count."""
        for number in range(self.total):
            self.said = number + 1
            yield Chunk(content=f"{number} ")
        yield Chunk(is_final=True, finish_reason="stop", raw_finish_reason="stop")


@pytest.mark.parametrize("buffer", [1, 8, 64])
async def test_a_paused_reader_holds_the_model_back(buffer: int, autojump_clock: Any) -> None:
    model = Counting(100_000)
    async with StreamEngine().stream(runner(model), "go", limits=Limits(buffer=buffer)) as stream:
        first = await anext(stream)
        await trio.sleep(60)
        waiting = stream.statistics().undelivered
        said = model.said

        assert first.type is T.RUN_START
        # L6: the buffer, and one event each for what is owed at the end.
        assert waiting <= buffer + 2
        assert said <= buffer + 2


async def test_a_paused_reader_of_a_million_tokens_costs_no_memory_and_loses_none(
    autojump_clock: Any,
) -> None:
    total = 1_000_000
    model = Counting(total)
    expected = 0
    async with StreamEngine(limits=Limits(run=1e9)).stream(runner(model), "go") as stream:
        for _ in range(50):
            await anext(stream)
        before = rss()
        await trio.sleep(60)
        assert stream.statistics().undelivered <= 64 + 2
        assert rss() - before <= 8 * 1024 * 1024
        async for event in stream:
            if event.type is T.MESSAGE_CHUNK:
                number = int(event.data["chunk"])
                assert expected in (0, number)
                expected = number + 1
    assert expected == total


async def test_two_tasks_may_not_read_one_stream() -> None:
    async with (
        StreamEngine().stream(runner(Endless(gap=10)), "go") as stream,
        trio.open_nursery() as nursery,
    ):

        async def drain() -> None:
            async for _ in stream:
                pass

        nursery.start_soon(drain)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await anext(stream)
        nursery.cancel_scope.cancel()


async def test_a_stream_is_read_once() -> None:
    stream = StreamEngine().stream(runner(ScriptedModel("hello")), "go")
    assert [event async for event in stream][-1].type is T.DONE

    with pytest.raises(RuntimeError, match="can't start run"):
        async with stream:
            pass


async def test_a_read_that_is_cancelled_loses_nothing(autojump_clock: Any) -> None:
    log: list[Any] = []
    model = ScriptedModel([word for n in range(20) for word in (f"{n} ", 0.3)])
    async with StreamEngine().stream(runner(model), "go") as stream:
        while not log or log[-1].type is not T.DONE:
            with trio.move_on_after(0.1):
                log.append(await anext(stream))

    assert [event.seq for event in log] == list(range(len(log)))


@pytest.mark.parametrize("mode", list(StreamMode))
async def test_each_mode_is_a_view_of_the_same_log(mode: StreamMode) -> None:
    model = ScriptedModel(["one ", "two"])
    whole = (await play(runner(ScriptedModel(["one ", "two"])))).log

    async with StreamEngine().stream(runner(model), "go", mode=mode) as stream:
        seen = [event async for event in stream]

    assert seen[-1].type is T.DONE
    if mode is StreamMode.EVENTS:
        assert [event.type for event in seen] == [event.type for event in whole]
    else:
        assert len(seen) <= len(whole)
        assert [event.seq for event in seen] == sorted({event.seq for event in seen})


async def test_the_result_may_be_asked_for_again_after_the_block() -> None:
    async with StreamEngine().stream(runner(ScriptedModel("hello")), "go") as stream:
        assert await stream.result() == "hello"
    assert await stream.result() == "hello"


def test_a_stream_needs_trio() -> None:
    stream = StreamEngine().stream(runner(ScriptedModel("hello")), "go")

    with pytest.raises(RuntimeError, match=r"expected a call inside trio.run"):
        stream.__anext__().send(None)


@pytest.mark.parametrize("run_id", ["", "a b", "x" * 65, "ä", "a/b"])
def test_a_run_id_is_url_safe(run_id: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 64"):
        StreamEngine().stream(runner(ScriptedModel()), "go", run_id=run_id)


@pytest.mark.parametrize("message", [None, 1, b"go"])
def test_a_message_is_a_text(message: Any) -> None:
    with pytest.raises(TypeError, match="expected a str"):
        StreamEngine().stream(runner(ScriptedModel()), message)
