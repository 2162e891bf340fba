"""Limits, reading and leaving, on hosts without sockets: `test_openai` has those."""

from __future__ import annotations

import gc
import math
from collections.abc import Awaitable, Callable, Sequence
from types import ModuleType

import attrs
import pytest
import trio
from trio.testing import MockClock

from flowtrio import Agent, EventType, OpenAIClient, StreamEngine
from flowtrio._core._exceptions import DeadlineExceeded, RemoteProtocolError
from flowtrio._core._limits import ModelLimits
from flowtrio.clients._stream import CompletionStream
from tests.support.exchanges import Make, Setting, read
from tests.support.fake_host import (
    DONE,
    FINISH,
    USAGE,
    Answer,
    FakeHost,
    Step,
    answers,
    delta,
    fails,
    refuses,
    speaks,
    streams,
    whole,
)

# Limits


@pytest.mark.parametrize(
    ("answer", "name", "seconds"),
    [
        (Answer(delay=math.inf), "first_token", 6),
        (streams(math.inf), "first_token", 6),
        (streams(delta("a"), math.inf), "gap", 3),
        (streams(delta("a"), 2.9, delta("b"), 3.1, DONE), "gap", 5.9),
    ],
    ids=["head", "body", "second", "third"],
)
async def test_waiting_for_the_host_is_limited(
    autojump_clock: MockClock, make: Make, answer: Answer, name: str, seconds: float
) -> None:
    setting = make(answer, limits=ModelLimits(first_token=6, gap=3))
    begun = trio.current_time()
    _, error, _ = await read(setting.ask())

    assert isinstance(error, DeadlineExceeded)
    assert error.deadline == name
    assert (
        str(error) == f"the model sent nothing for {6 if name == 'first_token' else 3} s ({name})"
    )
    assert trio.current_time() - begun == pytest.approx(seconds)
    setting.check_left()


async def test_a_model_that_thinks_is_waited_for(autojump_clock: MockClock, make: Make) -> None:
    setting = make(
        Answer(delay=5, steps=[5, delta("a"), 2, delta("b"), 2, DONE]),
        limits=ModelLimits(first_token=6, gap=3),
    )

    assert await setting.text() == "ab"


PING = b": ping\n\n"
PINGS: list[Step] = [2, PING] * 20


@pytest.mark.parametrize(
    ("steps", "text", "told", "seconds"),
    [
        ([delta("a"), *[2, PING] * 4, 1, delta("b"), FINISH, DONE], "ab", None, 9),
        ([delta("a"), *PINGS], "a", "said nothing for 10 s, pings only (content)", 10),
        ([delta("a"), 2, delta("b"), *PINGS], "ab", "said nothing for 10 s, pings only", 12),
        ([delta("a"), PING, math.inf], "a", "sent nothing for 3 s (gap)", 3),
        ([delta("a"), 2, PING, math.inf], "a", "sent nothing for 3 s (gap)", 5),
        ([*PINGS], "", "said nothing for 6 s, pings only (first_token)", 6),
        ([2, PING, 3, delta("a"), FINISH, DONE], "a", None, 5),
        ([math.inf], "", "sent nothing for 6 s (first_token)", 6),
        ([delta("a"), *[b"data: ", 2] * 20], "a", "said nothing for 10 s, pings only", 10),
    ],
)
async def test_a_host_that_pings_is_alive_and_its_model_may_not_be(
    autojump_clock: MockClock,
    make: Make,
    steps: list[Step],
    text: str,
    told: str | None,
    seconds: float,
) -> None:
    setting = make(streams(*steps), limits=ModelLimits(first_token=6, gap=3, content=10))
    begun = trio.current_time()
    said, error, _ = await read(setting.ask())

    assert said == text
    assert error is None if told is None else told in str(error)
    assert trio.current_time() - begun == pytest.approx(seconds, abs=0.1)
    setting.check_left()


async def test_a_content_limit_below_that_of_silence_comes_first(
    autojump_clock: MockClock, make: Make
) -> None:
    limits = ModelLimits(gap=9, content=4)
    _, error, _ = await read(make(streams(delta("a"), math.inf), limits=limits).ask())

    assert str(error) == "the model sent nothing for 4 s (content)"


async def test_a_slow_reader_is_no_slow_model(autojump_clock: MockClock, make: Make) -> None:
    setting = make(speaks("a", "b"), limits=ModelLimits(first_token=6, gap=3))
    words = []
    async for chunk in setting.ask():
        words.append(chunk.content)
        await trio.sleep(60)

    assert "".join(words) == "ab"


async def test_a_caller_that_watches_itself_switches_the_limits_off(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(Answer(delay=100, steps=[100, delta("a"), 100, FINISH, DONE]))
    stream = setting.ask()
    assert stream.limits == ModelLimits()
    stream.limits = None
    text, error, _ = await read(stream)

    assert (text, error) == ("a", None)


async def test_a_connection_that_is_not_made_in_time_is_told_by_name(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(fails("ConnectTimeout", delay=4), limits=ModelLimits(connect=4))
    error = await setting.fails(DeadlineExceeded)

    assert error.deadline == "connect"
    assert str(error) == "no connection to the model's host models.example within 4 s (connect)"
    assert setting.fake.asked[0].timeout["connect"] == 4
    assert len(setting.fake.asked) == 1


# Reading


async def test_a_reply_that_is_over_stays_over(autojump_clock: MockClock, make: Make) -> None:
    stream = make(speaks("a")).ask()
    assert [chunk.is_final async for chunk in stream] == [False, True]

    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_reply_has_one_reader_at_a_time(autojump_clock: MockClock, make: Make) -> None:
    setting = make(streams(1, delta("a"), DONE))
    stream = setting.ask()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, stream)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await anext(stream)
        # Nor does a second one that is cancelled close it under the first.
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)

    setting.check_left()


@pytest.mark.parametrize("kind", ["failed", "closed", "cancelled"])
async def test_a_reply_that_ended_early_is_closed(
    autojump_clock: MockClock, make: Make, kind: str
) -> None:
    setting = make(streams(delta("a") + delta("b"), *(["ReadError"] if kind == "failed" else [9])))
    stream = setting.ask()
    assert (await anext(stream)).content == "a"
    if kind == "closed":
        await stream.aclose()
    else:
        await anext(stream)
        with trio.move_on_after(1), pytest.raises(RemoteProtocolError):
            await anext(stream)

    with pytest.raises(trio.ClosedResourceError, match="closed before its end"):
        await anext(stream)
    await stream.aclose()
    setting.check_left()


async def test_reading_can_always_be_cancelled(autojump_clock: MockClock, make: Make) -> None:
    """Chunks that lie ready included: else a reader of many could not be stopped."""
    setting = make(streams(delta("a") + delta("b"), DONE))
    stream = setting.ask()
    await anext(stream)
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(stream)

    assert scope.cancelled_caught
    assert (await anext(stream)).content == "b"
    await stream.aclose()


async def test_leaving_a_block_closes_the_reply(autojump_clock: MockClock, make: Make) -> None:
    setting = make(streams(delta("a"), math.inf))
    async with setting.ask() as stream:
        assert (await anext(stream)).content == "a"
        assert setting.fake.open_bodies == 1

    setting.check_left()


async def steps_of(setting: Setting) -> str:
    """A reply with everything that may happen on its way."""
    async with setting.ask() as stream:
        return "".join([chunk.content async for chunk in stream])


WAYS = (
    [refuses(503), fails("ConnectError"), speaks("a", "b")],
    [refuses(400, "cannot stream"), answers(whole("ab"))],
    [streams("ReadError"), streams(delta("a"), 1, delta("b"), 1, FINISH, 1, USAGE, 1, DONE, 1)],
)


async def run_cancelled(body: Callable[[], Awaitable[str]], step: int) -> str | None:
    """Run *body*, cancelled before its task's n-th step; gives its result if it came to that."""
    task, count = trio.lowlevel.current_task(), 0
    scope = trio.CancelScope()

    class Cancel(trio.abc.Instrument):
        def before_task_step(self, stepped: trio.lowlevel.Task) -> None:
            nonlocal count
            count += stepped is task
            if count == step:
                scope.cancel()

    cancel = Cancel()
    trio.lowlevel.add_instrument(cancel)
    result = None
    try:
        with scope:
            result = await body()
    finally:
        trio.lowlevel.remove_instrument(cancel)
    return result


@pytest.mark.parametrize("way", WAYS, ids=["retries", "whole", "slow"])
async def test_a_reply_can_be_cancelled_at_each_of_its_steps(
    autojump_clock: MockClock, make: Make, way: Sequence[Answer]
) -> None:
    cancelled = 0
    for step in range(1, 1000):
        setting = make(*way)
        result = await run_cancelled(lambda setting=setting: steps_of(setting), step)
        setting.check_left()
        if result is not None:
            break
        cancelled += 1

    assert result == "ab"
    assert cancelled > 5


# Leaving without a word


async def test_a_reply_that_is_dropped_is_closed(autojump_clock: MockClock, make: Make) -> None:
    setting = make(streams(delta("a"), math.inf))
    async for _ in setting.ask():
        break
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()

    setting.check_left()


async def test_a_reply_may_be_dropped_in_another_thread(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(delta("a"), math.inf))
    holder = [setting.ask()]
    await anext(holder[0])
    await trio.to_thread.run_sync(holder.clear)
    await trio.testing.wait_all_tasks_blocked()

    setting.check_left()


async def test_a_reply_that_was_not_begun_may_be_dropped(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(speaks("a"))
    setting.ask()
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()

    assert setting.fake.asked == []


async def test_a_reply_that_is_over_may_be_dropped(autojump_clock: MockClock, make: Make) -> None:
    setting = make(speaks("a"))
    stream = setting.ask()
    await read(stream)
    with trio.testing.assert_no_checkpoints():
        del stream
        gc.collect()

    setting.check_left()


async def test_nothing_that_goes_wrong_in_leaving_gets_out(
    autojump_clock: MockClock, make: Make
) -> None:
    """An exception of a system task would end the whole program."""
    setting = make(streams(delta("a"), math.inf))
    stream = setting.ask()
    await anext(stream)

    async def aclose() -> None:
        raise OSError("gone")

    stream._exchange._response.aclose = aclose
    del stream
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()

    setting.check_left()


async def test_a_connection_that_does_not_close_is_left(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(delta("a"), math.inf))
    stream = setting.ask()
    await anext(stream)
    stream._exchange._response.aclose = trio.sleep_forever
    begun = trio.current_time()
    await stream.aclose()

    assert trio.current_time() - begun == 1
    setting.check_left()


@attrs.frozen
class Left:
    """Something to leave in a loop that ends."""

    stream: CompletionStream
    setting: Setting


@pytest.mark.filterwarnings("default")
def test_a_reply_may_be_dropped_after_its_loop(make: Make) -> None:
    async def begin() -> Left:
        setting = make(streams(delta("a"), 1))
        stream = setting.ask()
        await anext(stream)
        return Left(stream, setting)

    left = trio.run(begin, clock=MockClock(autojump_threshold=0))
    assert not left.stream._exchange.is_closed
    left.setting.check_left()
    del left
    gc.collect()


async def test_a_run_hears_the_pings_of_its_models_host(
    autojump_clock: MockClock, library: ModuleType
) -> None:
    fake = FakeHost(library, [streams(delta("a"), *PINGS[:8], delta("b"), *PINGS)])
    client = OpenAIClient(
        api_key="k",
        model="m",
        http_client=fake.http_client(),
        limits=ModelLimits(first_token=6, gap=3, content=10),
    )
    async with StreamEngine().stream(Agent(llm_client=client), "hi") as stream:
        events = [event async for event in stream]

    error = next(event.data for event in events if event.type is EventType.ERROR)
    assert error["error"] == "the model said nothing for 10 s, pings only (content)"
    assert error["deadline"] == "content"
