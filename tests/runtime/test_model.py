"""Turns: how what a model says becomes a message, whatever it says and however it stops."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from flowtrio import (
    Agent,
    Chunk,
    Completion,
    EventStream,
    EventType,
    FallbackClient,
    Limits,
    ProviderError,
    RunContext,
    StreamEngine,
    ToolCall,
    Usage,
    tool,
)
from flowtrio._core._chunks import ToolArgs
from flowtrio._core._exceptions import LocalProtocolError, RemoteProtocolError
from flowtrio._core._limits import ModelLimits
from flowtrio.testing import CUT, ScriptedModel, check_events
from tests.runtime._programs import agent_of, calling, error_of, only, outcomes, play, runner

T = EventType


@tool
async def look() -> str:
    """Look."""
    return "seen"


def args(index: int, name: str, text: str, id: str = "") -> Chunk:
    return Chunk(tool_args=[ToolArgs(index, id, name, text)])


async def test_reasoning_and_text_of_all_alphabets() -> None:
    model = ScriptedModel([Chunk(reasoning="Hm"), Chunk(content="Gr"), Chunk(content="üße\ud800")])

    played = await play(runner(model))

    assert [data["chunk"] for data in only(played.log, T.REASONING_CHUNK)] == ["Hm"]
    assert await played.stream.result() == "Grüße\ufffd"


async def test_a_character_that_a_client_cut_in_two_is_one() -> None:
    first, second = Chunk(content="a \ud83d"), Chunk(content="\ude00b")
    model = ScriptedModel([first, second, Chunk(content="c \ud83d"), Chunk(content="plain")])

    played = await play(runner(model))

    assert await played.stream.result() == "a 😀bc \ufffdplain"


async def test_parts_are_told_as_they_are() -> None:
    cited = {"type": "citation", "url": "https://example.org"}
    strange = {"type": "server_tool_result", "id": "never called", "result": 1}
    model = ScriptedModel([Chunk(content="x", parts=[cited]), Chunk(parts=[strange])])

    played = await play(runner(model))

    assert [data["part"] for data in only(played.log, T.MESSAGE_PART)] == [cited, strange]


async def test_a_refusal_is_what_the_conversation_keeps() -> None:
    model = ScriptedModel([Chunk(parts=[{"type": "refusal", "text": "I will not."}])])

    played = await play(runner(model))

    assert played.stream.messages[-1]["content"] == "I will not."


@pytest.mark.parametrize(
    ("result", "outcome", "error"),
    [
        ({"result": [1]}, "ok", None),
        ({"error": "too many"}, "error", "too many"),
        ({"error": ""}, "error", "failed"),
    ],
)
async def test_calls_that_the_provider_runs_are_brackets_in_the_message(
    result: dict[str, Any], outcome: str, error: str | None
) -> None:
    call = {"type": "server_tool_call", "id": "s1", "name": "search", "arguments": {"q": "x"}}
    ended = {"type": "server_tool_result", "id": "s1", **result}
    model = ScriptedModel([Chunk(parts=[call]), Chunk(parts=[ended]), "found"])

    played = await play(runner(model))

    [start] = only(played.log, T.TOOL_CALL_START)
    [end] = only(played.log, T.TOOL_CALL_END)
    assert (start["provider_executed"], start["arguments"]) == (True, {"q": "x"})
    assert (end["outcome"], end["error"], end["result"]) == (outcome, error, result.get("result"))


async def test_a_reset_takes_back_all_that_the_message_had() -> None:
    call = {"type": "server_tool_call", "id": "s1", "name": "search"}
    model = ScriptedModel(
        [
            Chunk(content="wrong", reasoning="so", parts=[{"type": "refusal", "text": "no"}, call]),
            args(0, "look", "{", "p1"),
            Chunk(reset="another host"),
            "right",
        ]
    )

    played = await play(runner(model, look))

    assert outcomes(played.log) == {"search": "cancelled", "look": "cancelled"}
    types = [event.type for event in played.log]
    reset = types.index(T.MESSAGE_RESET)
    assert types[reset - 2 : reset] == [T.TOOL_CALL_END] * 2
    assert await played.stream.result() == "right"
    assert played.stream.messages[-1]["content"] == "right"


async def test_a_reset_may_come_first() -> None:
    played = await play(runner(ScriptedModel([Chunk(reset="again"), "right"])))

    assert await played.stream.result() == "right"


async def test_a_call_that_the_model_takes_back_is_closed() -> None:
    final = Chunk(is_final=True, finish_reason="stop", raw_finish_reason="stop")
    model = ScriptedModel([args(0, "look", "{}", "p1"), "never mind", final])

    played = await play(runner(model, look))

    assert outcomes(played.log) == {"look": "cancelled"}
    assert await played.stream.result() == "never mind"


async def test_arguments_may_come_before_their_name_and_without_an_id() -> None:
    call = ToolCall("", "look", {})
    final = Chunk(
        is_final=True, tool_calls=[call], finish_reason="tool_calls", raw_finish_reason="x"
    )
    model = ScriptedModel([args(0, "", "{"), args(0, "look", ""), args(0, "", "}"), final], "fine")

    played = await play(runner(model, look))

    assert "".join(data["delta"] for data in only(played.log, T.TOOL_CALL_ARGS)) == "{}"
    assert outcomes(played.log) == {"look": "ok"}
    assert model.requests[1].messages[-1]["tool_call_id"]


async def test_calls_that_were_never_written_are_run_all_the_same() -> None:
    wanted = [ToolCall("a", "look", {}), ToolCall("b", "look", {})]
    final = Chunk(is_final=True, tool_calls=wanted, finish_reason=None, raw_finish_reason="odd")
    model = ScriptedModel([args(0, "other", "{}", "zz"), final], "fine")

    played = await play(runner(model, look))

    assert len(only(played.log, T.TOOL_CALL_START)) == 2
    assert only(played.log, T.MESSAGE_COMPLETE)[0]["finish_reason"] == "tool_calls"
    assert outcomes(played.log)["other"] == "cancelled"


async def test_what_a_model_does_not_tell_is_counted_from_below() -> None:
    final = Chunk(is_final=True, finish_reason=None, raw_finish_reason="odd")
    played = await play(runner(ScriptedModel(["word " * 20, Chunk(reasoning="x" * 80), final])))

    [complete] = only(played.log, T.MESSAGE_COMPLETE)
    usage = only(played.log, T.DONE)[0]["usage"]
    assert (complete["finish_reason"], complete["usage"]) == ("stop", None)
    assert usage["quality"] == "lower_bound"
    assert usage["completion_tokens"] >= 20
    assert usage["reasoning_tokens"] >= 10


class Plain:
    """A foreign client: a coroutine that gives an iterator which cannot be closed."""

    def __init__(self, *chunks: Chunk) -> None:
        self.chunks = list(chunks)

    async def stream_completion(self, messages: Any, **options: Any) -> AsyncIterator[Chunk]:
        return self

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Chunk:
        await trio.lowlevel.checkpoint()
        if not self.chunks:
            raise StopAsyncIteration
        return self.chunks.pop(0)


async def test_a_client_may_be_a_coroutine_that_gives_a_plain_iterator() -> None:
    final = Chunk(content="!", is_final=True, finish_reason="stop", raw_finish_reason="stop")

    played = await play(runner(Plain(Chunk(content="hi"), final)))

    assert await played.stream.result() == "hi!"


# Asked by an agent


async def test_an_agent_asks_a_model_of_its_own() -> None:
    model = ScriptedModel([Chunk(reasoning="hm"), "hello", ToolCall("p", "look", {})])
    spec = {"type": "function", "function": {"name": "ready", "parameters": {}}}

    async def body(ctx: RunContext) -> Any:
        completion = await ctx.model(
            [{"role": "user", "content": "hi"}], model, tools=[look, spec], temperature=0
        )
        assert isinstance(completion, Completion)
        return [completion.reasoning, completion.content, completion.tool_calls[0].name]

    played = await play(agent_of(body))

    assert await played.stream.result() == ["hm", "hello", "look"]
    [request] = model.requests
    assert [given["function"]["name"] for given in request.tools] == ["look", "ready"]
    assert request.options == {"temperature": 0}
    # Running the calls is up to the agent, so they are none of the run's.
    assert only(played.log, T.TOOL_CALL_ARGS) == []


async def test_an_agent_without_a_model_is_told() -> None:
    async def body(ctx: RunContext) -> None:
        await ctx.model([{"role": "user", "content": "hi"}])

    with pytest.raises(BaseException, match="no model of its own"):
        await (await play(agent_of(body))).stream.result()


async def test_an_agent_may_go_on_when_its_model_is_cut() -> None:
    call = {"type": "server_tool_call", "id": "s1", "name": "search"}
    model = ScriptedModel(["half", Chunk(parts=[call]), args(0, "look", "{"), CUT])

    async def body(ctx: RunContext) -> str:
        with pytest.raises(RemoteProtocolError):
            await ctx.model([{"role": "user", "content": "hi"}], model)
        return "without"

    played = await play(agent_of(body))

    assert await played.stream.result() == "without"
    assert only(played.log, T.MESSAGE_COMPLETE)[0]["finish_reason"] == "error"
    assert outcomes(played.log) == {"search": "cancelled"}


async def test_a_call_that_has_ended_asks_no_model(autojump_clock: Any) -> None:
    model = ScriptedModel()
    refused: list[BaseException] = []

    @tool(timeout=1)
    async def late(ctx: RunContext) -> None:
        """Ask in its cleanup."""
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                try:
                    await ctx.model([{"role": "user", "content": "hi"}], model)
                except trio.ClosedResourceError as exc:
                    refused.append(exc)
                # What it still says is discarded, also what fails.
                async with ctx.message() as out:
                    await out.write("late")
                with contextlib.suppress(LookupError):
                    async with ctx.message() as out:
                        raise LookupError

    played = await play(runner(calling("late"), late))

    assert outcomes(played.log) == {"late": "timeout"}
    assert len(refused) == 1
    assert model.requests == []
    assert played.stream.statistics().late_events >= 2


async def test_a_slow_model_is_seen_by_the_watch_once_and_again(autojump_clock: Any) -> None:
    # Each gap is within its limit, and together they are longer.
    model = ScriptedModel([20, "a", 20, "b", Chunk(reasoning="c"), 20, "d"])

    played = await play(runner(model))

    assert await played.stream.result() == "abd"


async def test_what_a_nested_agent_costs_is_counted_in_all_around_it() -> None:
    nested = runner(ScriptedModel(["x", Usage(prompt_tokens=3, completion_tokens=4)]), name="n")

    async def body(ctx: RunContext) -> str:
        return str(await ctx.delegate(nested, "go"))

    played = await play(agent_of(body))

    assert only(played.log, T.AGENT_END)[0]["usage"]["completion_tokens"] == 4
    assert only(played.log, T.DONE)[0]["usage"]["prompt_tokens"] == 3


def test_local_errors_are_ours() -> None:
    assert not issubclass(LocalProtocolError, RemoteProtocolError)


async def test_reading_while_leaving(autojump_clock: Any) -> None:
    """A model whose iterator is slow to close gets the grace, and no more."""
    closed: list[float] = []

    class Slow:
        async def stream_completion(self, messages: Any, **options: Any) -> AsyncIterator[Chunk]:
            try:
                yield Chunk(content="x")
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                closed.append(trio.current_time())

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.MESSAGE_CHUNK:
                stream.cancel()

    played = await play(runner(Slow()), reader=reader)

    assert played.status == "cancelled"
    assert len(closed) == 1


async def test_a_reply_that_goes_on_when_its_call_has_ended_says_nothing_more(
    autojump_clock: Any,
) -> None:
    model = ScriptedModel(["before", 5, Chunk(reset="again"), "after", Chunk(content="größer")])

    @tool(timeout=2)
    async def deaf(ctx: RunContext) -> None:
        """Ask, and listen to nobody."""
        with trio.CancelScope(shield=True):
            await ctx.model([{"role": "user", "content": "hi"}], model)

    played = await play(runner(calling("deaf"), deaf))

    assert outcomes(played.log) == {"deaf": "timeout"}
    messages = [data["content"] for data in only(played.log, T.MESSAGE_COMPLETE)]
    assert messages == ["", "before", "fine"]
    assert only(played.log, T.MESSAGE_RESET) == []


async def test_what_a_provider_wants_back_is_carried_and_in_no_event() -> None:
    call = ToolCall("p1", "look", {}, carry={"signature": "canary-call"})
    final = Chunk(
        is_final=True,
        tool_calls=[call],
        finish_reason="tool_calls",
        raw_finish_reason="x",
        carry={"thinking": "canary-turn"},
    )
    model = ScriptedModel([final], "fine")

    played = await play(runner(model, look))

    said = model.requests[1].messages[1]
    assert said["flowtrio"] == {"carry": {"thinking": "canary-turn"}}
    assert said["tool_calls"][0]["flowtrio"] == {"carry": {"signature": "canary-call"}}
    assert "canary" not in str(played.log)


async def test_a_model_that_calls_for_ever_is_stopped() -> None:
    model = ScriptedModel(*[[ToolCall(f"p{n}", "look", {})] for n in range(3)])
    agent = runner(ScriptedModel(), look).replace(llm_client=model)

    played = await play(agent, limits=Limits(turns=3))

    [error] = only(played.log, T.ERROR)
    assert (error["source"], error["limit"]) == ("limit", "turns")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("\ud800", {}),
        ("", {}),
        ("f", {"x": "\ud83d"}),
        ("f", {"\ud83d": 1}),
        ("f", {"x": float("nan")}),
        ("f", {"x": object()}),
        ("f", {"x": 1 << 20_000}),
    ],
    ids=["name", "unnamed", "surrogate", "key", "nan", "object", "large"],
)
async def test_a_call_that_is_no_json_is_one_that_does_not_parse(name: str, arguments: Any) -> None:
    """Of a client that is not ours, whose calls nobody has decoded strictly."""
    ran: list[Any] = []

    @tool
    async def f(x: Any) -> None:
        ran.append(x)

    class Foreign:
        async def stream_completion(self, messages: Any, **options: Any) -> AsyncIterator[Chunk]:
            calls = [ToolCall(id="1", name=name, arguments=arguments)]
            yield Chunk(is_final=True, tool_calls=[] if len(messages) > 1 else calls)

    stream = StreamEngine().stream(Agent(llm_client=Foreign(), tools=[f]), "go")
    async with stream:
        log = [event async for event in stream]

    check_events(log)
    assert [e.data["outcome"] for e in log if e.type is EventType.TOOL_CALL_END] == ["error"]
    assert log[-1].data["status"] == "completed"
    assert ran == []
    json.dumps(stream.messages, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"model": 5}, "TypeError: Chunk.model: expected a str or None, got int"),
        (
            {"usage": Usage(prompt_tokens=-5)},
            "ValueError: Usage.prompt_tokens: expected 0 to 10**15, got -5",
        ),
        ({"usage": {}}, "TypeError: Chunk.usage: expected a Usage or None, got dict"),
    ],
)
async def test_a_foreign_client_that_tells_no_model_or_usage_is_an_error(
    told: dict[str, Any], words: str
) -> None:
    played = await play(runner(ScriptedModel(["x", Chunk(is_final=True, **told)])))

    check_events(played.log)
    [error] = only(played.log, T.ERROR)
    assert (error["error"], error["code"], error["source"]) == (words, "model_failed", "model")
    [complete] = only(played.log, T.MESSAGE_COMPLETE)
    assert (complete["content"], complete["model"]) == ("x", None)


async def test_a_models_name_is_text() -> None:
    played = await play(runner(ScriptedModel([Chunk(is_final=True, model="m\ud800")])))

    [complete] = only(played.log, T.MESSAGE_COMPLETE)
    assert complete["model"] == "m\ufffd"


# Who was asked, and how long it took


class Named(ScriptedModel):
    """A model that says whose it is."""

    provider, model = "openai", "gpt-4o-mini"


ORIGIN = ("provider", "requested_model", "duration", "first_token")


def origins(log: list[Any]) -> list[tuple[Any, ...]]:
    return [tuple(data[key] for key in ORIGIN) for data in only(log, T.MESSAGE_COMPLETE)]


@pytest.mark.parametrize(
    "first",
    [
        "text",
        Chunk(reasoning="Hm"),
        args(0, "look", "{}"),
        Chunk(parts=[{"type": "citation"}]),
    ],
)
async def test_a_message_tells_who_was_asked_and_how_long_it_took(
    first: Any, autojump_clock: trio.testing.MockClock
) -> None:
    model = Named([1.0, Chunk(), 0.5, first, 0.5, "more", 1.0])

    played = await play(runner(model))

    assert origins(played.log) == [("openai", "gpt-4o-mini", 3.0, 1.5)]


async def test_a_reply_of_calls_alone_has_its_first_token_with_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    final = Chunk(is_final=True, tool_calls=[ToolCall("p1", "look", {})])

    played = await play(runner(Named([1.0, final], [2.0]), look))

    assert [(whole, first) for _, _, whole, first in origins(played.log)] == [
        (1.0, 1.0),
        (2.0, None),
    ]


async def test_a_reply_that_is_cut_short_tells_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def act(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.MESSAGE_CHUNK:
                await trio.sleep(1)
                stream.cancel()

    played = await play(runner(Named([1.0, "half", 60.0])), reader=act)

    assert origins(played.log) == [("openai", "gpt-4o-mini", 2.0, 1.0)]


async def test_the_model_that_a_request_names_is_the_one_that_was_asked() -> None:
    async def body(ctx: RunContext) -> None:
        await ctx.model([{"role": "user", "content": "x"}], Named("a"), model="gpt-4o")

    played = await play(agent_of(body))

    assert origins(played.log)[0][:2] == ("openai", "gpt-4o")


@pytest.mark.parametrize("odd", [None, "", 7, object()])
async def test_a_foreign_client_may_say_anything_or_nothing(odd: Any) -> None:
    class Odd(ScriptedModel):
        provider = model = odd

    played = await play(runner(Odd("a")))

    assert origins(played.log)[0][:2] == (None, None)


async def test_a_client_that_cannot_say_who_it_is_fails_its_own_run() -> None:
    class Broken(ScriptedModel):
        @property
        def provider(self) -> str:
            raise RuntimeError("no")

    played = await play(runner(Broken("a")))

    assert error_of(played.log)["source"] == "model"


async def test_what_a_name_holds_beside_its_text_is_not_told() -> None:
    class Name(str):
        __slots__ = ()

    class Odd(ScriptedModel):
        provider, model = Name("mine"), Name("\ud800")

    played = await play(runner(Odd("a")))

    [data] = only(played.log, T.MESSAGE_COMPLETE)
    assert (type(data["provider"]), data["provider"]) == (str, "mine")
    assert data["requested_model"] == "\ufffd"


async def test_the_model_that_answers_for_another_is_told() -> None:
    class Other(ScriptedModel):
        provider, model = "anthropic", "claude"

    refused = ProviderError("no", code="overloaded", retryable=True)
    model = FallbackClient([Named(["Wro", refused]), FallbackClient([Other("right")])])

    played = await play(runner(model))

    assert origins(played.log)[0][:2] == ("anthropic", "claude")


async def test_who_answered_is_not_told_by_who_was_asked_first() -> None:
    refused = ProviderError("no", code="overloaded", retryable=True)
    model = FallbackClient([Named(["Wro", refused]), ScriptedModel("right")])

    played = await play(runner(model))

    assert origins(played.log)[0][:2] == (None, None)


class Thinking:
    """A model that says what it is given; numbers are pings, so many seconds after what was before.

    With *tells* its iterator says when it heard one, else they are chunks of nothing.
    """

    limits = ModelLimits(first_token=6, gap=3, content=10)

    def __init__(self, *steps: str | int, tells: bool) -> None:
        self.steps, self.tells = list(steps), tells
        self.heard_at = -math.inf

    def stream_completion(self, messages: Any, **options: Any) -> Any:
        return self

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Chunk:
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, str):
                return Chunk(content=step)
            await trio.sleep(step)
            if not self.tells:
                return Chunk()
            self.heard_at = trio.current_time()
        return Chunk(is_final=True)


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize(
    ("steps", "limit", "told"),
    [
        (["a", 2, 2, 2, 2, "b", 2, 2, 2, 2], None, ""),
        ([2, 2, "a"], None, ""),
        (
            ["a", 2, 2, 2, 2, 2, 2],
            "content",
            "said nothing for 10 s, pings only (content)",
        ),
        ([2, 2, 2, 2], "first_token", "said nothing for 6 s, pings only (first_token)"),
        ([9], "first_token", "sent nothing for 6 s (first_token)"),
        (["a", 2, 4], "gap", "sent nothing for 3 s (gap)"),
    ],
)
async def test_a_host_that_pings_is_alive_and_its_model_may_not_be(
    autojump_clock: Any, tells: bool, steps: list[Any], limit: str | None, told: str
) -> None:
    played = await play(runner(Thinking(*steps, tells=tells)))

    errors = only(played.log, T.ERROR)
    if limit is None:
        assert errors == []
    else:
        [error] = errors
        assert (error["deadline"], error["error"]) == (limit, f"the model {told}")
        assert error["retryable"]
