"""`FallbackClient`: the next model where one fails, in mid-stream too."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from flowtrio import (
    Agent,
    Chunk,
    DeadlineExceeded,
    EventType,
    FallbackClient,
    ModelLimits,
    ProviderError,
    RemoteProtocolError,
    RunFailed,
    StreamEngine,
    ToolCall,
    tool,
)
from flowtrio.testing import CUT, ScriptedModel, check_events, check_llm_client

ASKED: Any = [{"role": "user", "content": "hello"}]


def refused(code: str = "rate_limited") -> ProviderError:
    return ProviderError(f"the host refused: {code}", status=429, code=code, retryable=True)


async def read(client: Any, **options: Any) -> list[Chunk]:
    async with client.stream_completion(ASKED, **options) as reply:
        return [chunk async for chunk in reply]


async def test_the_first_client_answers_alone_where_it_can() -> None:
    with ScriptedModel("first") as one:
        client = FallbackClient([one, ScriptedModel()])

        assert (await client.complete(ASKED)).content == "first"

    assert client.statistics().replies == (1, 0)
    assert client.statistics().failures == (0, 0)


async def test_a_refusal_before_the_first_token_is_not_seen() -> None:
    with ScriptedModel([refused()]) as one, ScriptedModel("second") as two:
        client = FallbackClient([one, two])
        chunks = await read(client)

    assert [chunk.reset for chunk in chunks] == [None, None]
    assert chunks[0].content == "second"
    assert client.statistics().replies == (1, 1)
    assert client.statistics().failures == (1, 0)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (refused("overloaded"), "overloaded"),
        (RemoteProtocolError("bad", code="bad_stream"), "bad_stream"),
        (DeadlineExceeded("late", deadline="gap"), "gap"),
        (CUT, "stream_cut"),
    ],
    ids=["provider", "protocol", "deadline", "cut"],
)
async def test_a_failure_in_mid_stream_resets_and_goes_on(failure: Any, code: str) -> None:
    with ScriptedModel(["half", failure]) as one, ScriptedModel("whole") as two:
        client = FallbackClient([one, two])
        chunks = await read(client)

    assert [chunk.content for chunk in chunks] == ["half", "", "whole", ""]
    assert chunks[1].reset == f"model 1 of 2 failed: {code}"
    assert (await FallbackClient([ScriptedModel("x")]).complete(ASKED)).content == "x"


async def test_a_run_tells_the_reset_and_keeps_only_the_whole_answer() -> None:
    call = ToolCall("p1", "look", {"word": "a"})

    @tool
    async def look(word: str) -> str:
        """Look it up."""
        return word

    one = ScriptedModel(["half", call, CUT], [refused()])
    two = ScriptedModel([call], "the answer")
    agent = Agent(llm_client=FallbackClient([one, two]), tools=[look])
    async with StreamEngine().stream(agent, "hello") as stream:
        events = [event async for event in stream]

    check_events(events)
    assert [e.type for e in events].count(EventType.MESSAGE_RESET) == 1
    assert [e.data["tool_name"] for e in events if e.type is EventType.TOOL_CALL_START] == ["look"]
    assert await stream.result() == "the answer"
    assert [m.get("content") for m in stream.messages] == ["hello", None, "a", "the answer"]


async def test_when_all_fail_their_failures_are_the_causes() -> None:
    client = FallbackClient([ScriptedModel([refused("one")]), ScriptedModel([refused("two")])])

    with pytest.raises(ProviderError, match=r"all 2 models failed, the last one: .*two") as caught:
        await client.complete(ASKED)

    assert (caught.value.code, caught.value.retryable) == ("two", True)
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert [str(e) for e in caught.value.__cause__.exceptions] == [
        "the host refused: one",
        "the host refused: two",
    ]


async def test_a_run_that_fails_everywhere_names_every_cause() -> None:
    client = FallbackClient([ScriptedModel([refused("one")]), ScriptedModel([refused("two")])])
    stream = StreamEngine().stream(Agent(llm_client=client), "hello")

    with pytest.raises(RunFailed) as caught:
        await stream.result()

    error = caught.value.error
    assert (error["source"], error["code"]) == ("model", "two")
    assert [cause["error"] for cause in error["causes"]] == [
        "the host refused: one",
        "the host refused: two",
    ]


async def test_a_single_client_fails_with_its_own_error() -> None:
    with pytest.raises(ProviderError, match=r"^the host refused: only$"):
        await FallbackClient([ScriptedModel([refused("only")])]).complete(ASKED)


async def test_a_bug_of_a_client_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        await FallbackClient([ScriptedModel([KeyError("bug")]), ScriptedModel("x")]).complete(ASKED)


@attrs.define
class Plain:
    """Somebody's client: an async generator, awaited for, with limits of its own."""

    steps: list[Any]
    limits: ModelLimits = attrs.Factory(ModelLimits)

    async def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
        async def reply() -> Any:
            for step in self.steps:
                if isinstance(step, float):
                    await trio.sleep(step)
                else:
                    yield step

        return reply()


@pytest.mark.parametrize(("before", "name"), [((), "first_token"), (("half",), "gap")])
async def test_a_stall_is_a_failure_by_the_clients_own_limits(
    before: tuple[str, ...], name: str, autojump_clock: MockClock
) -> None:
    limits = ModelLimits(first_token=2, gap=1)
    one: Any = Plain([*(Chunk(content=text) for text in before), 1000.0], limits)
    two: Any = Plain([Chunk(content="whole"), Chunk(is_final=True)])
    client = FallbackClient([one, two])

    # Also inside a run, whose own watch must not end what the next client can still answer.
    agent = Agent(llm_client=client)
    async with StreamEngine().stream(agent, "hello") as stream:
        events = [event async for event in stream]

    check_events(events)
    assert await stream.result() == "whole"
    assert trio.current_time() < 3
    resets = [e.data["reason"] for e in events if e.type is EventType.MESSAGE_RESET]
    assert resets == [f"model 1 of 2 failed: {name}"] * len(before)


@pytest.mark.parametrize("how", ["at once", "awaited", "hangs"])
async def test_a_client_that_fails_before_it_gives_a_reply_is_left_too(
    how: str, autojump_clock: MockClock
) -> None:
    class Early:
        def stream_completion(self, messages: Any, **options: Any) -> Any:
            if how == "at once":
                raise refused()
            return self.later()

        async def later(self) -> Any:
            if how == "hangs":
                await trio.sleep_forever()
            raise refused()

    with ScriptedModel("second") as two:
        client = FallbackClient([Early(), two])
        with trio.fail_after(100):
            chunks = await read(client)

    assert [chunk.content for chunk in chunks] == ["second", ""]
    assert client.statistics().failures == (1, 0)


async def test_closing_closes_the_reply_and_the_clients() -> None:
    closed = []

    class Closing(ScriptedModel):
        async def aclose(self) -> None:
            closed.append(self)

    one, two = Closing(["a", "b"]), ScriptedModel()
    async with FallbackClient([one, two]) as client:
        reply = client.stream_completion(ASKED)
        await anext(reply)
        assert one.open_replies == 1
        await reply.aclose()

        assert one.open_replies == 0
        with pytest.raises(StopAsyncIteration):
            await anext(reply)

    assert closed == [one]


async def test_tools_and_options_go_to_every_client() -> None:
    spec: Any = {"type": "function", "function": {"name": "f", "parameters": {}}}
    one, two = ScriptedModel([refused()]), ScriptedModel("x")

    await FallbackClient([one, two]).complete(ASKED, [spec], temperature=0)

    for model in (one, two):
        assert model.requests[0].tools == [spec]
        assert model.requests[0].options == {"temperature": 0}


def test_what_is_no_client_is_refused() -> None:
    nothing: Any = object()

    with pytest.raises(ValueError, match="expected at least one client"):
        FallbackClient([])
    with pytest.raises(TypeError, match="object has no stream_completion"):
        FallbackClient([nothing])
    assert repr(FallbackClient([ScriptedModel()])).startswith("<FallbackClient [<ScriptedModel")


async def test_it_is_a_client_like_any_other() -> None:
    class Failing:
        def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
            return ScriptedModel(["half", CUT]).stream_completion(messages)

    class Answering:
        def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
            return ScriptedModel("whole").stream_completion(messages)

    def make() -> Any:
        return FallbackClient([Failing(), Answering()])

    await check_llm_client(make)


async def test_a_reply_that_keeps_its_own_limits_is_not_limited_twice(
    autojump_clock: MockClock,
) -> None:
    class Limited:
        """A client whose replies watch over themselves, as ours over HTTP do."""

        limits = ModelLimits(first_token=1)

        def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
            reply: Any = ScriptedModel([5, "late, and allowed"]).stream_completion(messages)
            reply.limits = self.limits
            return reply

    client = FallbackClient([Limited(), ScriptedModel("never asked")])

    assert (await client.complete(ASKED)).content == "late, and allowed"
    assert client.statistics().failures == (0, 0)


async def test_a_reply_names_the_client_that_is_being_asked_and_nobody_before() -> None:
    class Named(ScriptedModel):
        provider, model = "openai", "gpt-4o-mini"

    reply = FallbackClient([FallbackClient([Named("yes")])]).stream_completion(ASKED)
    before = (reply.provider, reply.model)
    async with reply:
        await anext(reply)

        assert before == (None, None)
        assert (reply.provider, reply.model) == ("openai", "gpt-4o-mini")


async def test_a_reply_tells_when_the_host_that_is_asked_was_last_heard() -> None:
    class Reply:
        heard_at: Any = 2.5

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Chunk:
            return Chunk(content="x")

    class Heard:
        def stream_completion(self, messages: Any, **options: Any) -> Any:
            return Reply()

    reply = FallbackClient([FallbackClient([Heard()])]).stream_completion(ASKED)
    before = reply.heard_at
    await anext(reply)

    assert (before, reply.heard_at) == (None, 2.5)

    Reply.heard_at = "odd"
    assert reply.heard_at is None
