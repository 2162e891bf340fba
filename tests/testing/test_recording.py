"""Recording and replaying model replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from flowtrio import (
    Agent,
    Chunk,
    DeadlineExceeded,
    DemoClient,
    ProviderError,
    RemoteProtocolError,
    StreamEngine,
    tool,
)
from flowtrio.testing import CUT, RecordingClient, ReplayClient, ScriptedModel, check_events

ASKED: Any = [{"role": "user", "content": "hello"}]


@tool
async def forecast(city: str) -> str:
    """Weather."""
    return f"{city}: sunny"


@tool
async def hotels(city: str) -> str:
    """Hotels."""
    return f"{city}: full"


async def events_of(client: Any) -> list[Any]:
    agent = Agent(llm_client=client, tools=[forecast, hotels])
    async with StreamEngine().stream(agent, "Paris?") as stream:
        events = [event async for event in stream]
    check_events(events)
    # Tools that run at once start in any order, and a recording is nobody's.
    others = ("duration", "first_token", "provider", "requested_model")
    said = [(str(e.type), {k: v for k, v in e.data.items() if k not in others}) for e in events]
    return sorted((type, str(data)) for type, data in said)


async def test_a_replayed_run_says_what_the_recorded_one_said(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    recorded = await events_of(RecordingClient(DemoClient(delay=0), path))

    replayed = ReplayClient(path)
    assert await events_of(replayed) == recorded
    assert repr(replayed) == f"<ReplayClient path={str(path)!r} left=0>"


async def test_equal_requests_are_replayed_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    client = RecordingClient(ScriptedModel("one", "two"), path)
    for _ in range(2):
        await client.complete(ASKED)

    replay = ReplayClient(path)
    assert [(await replay.complete(ASKED)).content for _ in range(2)] == ["one", "two"]
    with pytest.raises(AssertionError, match=r"no reply is left in two\.jsonl"):
        replay.stream_completion(ASKED)


@pytest.mark.parametrize(
    ("messages", "tools", "words"),
    [
        ([*ASKED, *ASKED], None, "2 messages, the next one has 1"),
        ([{"role": "user", "content": "bye"}], None, r"messages\[0\] differs"),
        (ASKED, [forecast.spec()], "1 tools, the next one has 0"),
    ],
)
async def test_what_was_not_recorded_is_refused(
    messages: Any, tools: Any, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "one.jsonl"
    await RecordingClient(ScriptedModel("one"), path).complete(ASKED)

    with pytest.raises(AssertionError, match=words):
        ReplayClient(path).stream_completion(messages, tools)


FAILURES = [
    ProviderError("no", status=429, code="rate_limited", retry_after=2.5, retryable=True),
    RemoteProtocolError("bad", code="bad_stream", detail={"status": 200}),
    DeadlineExceeded("late", deadline="gap"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda exc: type(exc).__name__)
async def test_failures_are_replayed_with_all_they_say(failure: Any, tmp_path: Path) -> None:
    path = tmp_path / "failed.jsonl"
    client = RecordingClient(ScriptedModel(["half", failure]), path)
    with pytest.raises(type(failure)):
        await client.complete(ASKED)

    with pytest.raises(type(failure)) as caught:
        await ReplayClient(path).complete(ASKED)

    assert str(caught.value) == str(failure)
    assert vars(caught.value) == vars(failure)


async def test_other_failures_are_replayed_by_name(tmp_path: Path) -> None:
    path = tmp_path / "bug.jsonl"
    with pytest.raises(KeyError):
        await RecordingClient(ScriptedModel([KeyError("bug")]), path).complete(ASKED)

    with pytest.raises(RuntimeError, match="KeyError: 'bug'"):
        await ReplayClient(path).complete(ASKED)


async def test_a_cut_stays_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    with pytest.raises(RemoteProtocolError, match="without its finish mark"):
        await RecordingClient(ScriptedModel(["half", CUT]), path).complete(ASKED)

    with pytest.raises(RemoteProtocolError, match="without its finish mark"):
        await ReplayClient(path).complete(ASKED)


async def test_a_reply_that_is_left_early_is_written_as_far_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "left.jsonl"
    client = RecordingClient(ScriptedModel(["a", "b"], "c"), path)
    async with client.stream_completion(ASKED) as reply:
        await anext(reply)
    async with client.stream_completion(ASKED):
        pass  # nothing came, so there is nothing to write

    replay = ReplayClient(path).stream_completion(ASKED)
    assert [chunk.content async for chunk in replay] == ["a"]
    assert len(path.read_bytes().splitlines()) == 1


async def test_a_reply_can_take_the_time_it_took(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "slow.jsonl"
    await RecordingClient(ScriptedModel([2, "a", 3, "b"]), path).complete(ASKED)

    begin = trio.current_time()
    await ReplayClient(path).complete(ASKED)
    assert trio.current_time() - begin < 0.01
    await ReplayClient(path, timed=True).complete(ASKED)
    assert trio.current_time() - begin == pytest.approx(5)


async def test_a_replayed_reply_can_be_left(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    await RecordingClient(ScriptedModel("one"), path).complete(ASKED)
    reply = ReplayClient(path).stream_completion(ASKED)

    await reply.aclose()

    assert [chunk async for chunk in reply] == []


async def test_a_recorder_shows_the_limits_and_the_model_of_its_client(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    client = RecordingClient(DemoClient(), path)

    assert client.model == "demo"
    assert client.limits is None
    assert repr(client) == f"<RecordingClient <DemoClient seed=0 delay=0.03> path={str(path)!r}>"


async def test_somebodys_generator_can_be_recorded(tmp_path: Path) -> None:
    class Plain:
        async def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
            yield Chunk(content="x")
            yield Chunk(is_final=True)

    class Iterator:
        """An iterator that cannot be closed."""

        def __init__(self) -> None:
            self.chunks = [Chunk(content="y"), Chunk(is_final=True)]

        def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
            return self

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Chunk:
            await trio.lowlevel.checkpoint()
            return self.chunks.pop(0)

    path = tmp_path / "plain.jsonl"
    assert (await RecordingClient(Plain(), path).complete(ASKED)).content == "x"
    assert (await RecordingClient(Iterator(), path).complete(ASKED)).content == "y"
    assert (await ReplayClient(path).complete(ASKED)).content == "x"


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.jsonl"
    path.write_text('\n{"messages": 3}\n')

    with pytest.raises(ValueError, match=r"no\.jsonl:2: expected a recorded reply"):
        ReplayClient(path)
