"""What stands around tools and models: it may replace, ask again, refuse, and fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio

from flowtrio import (
    Agent,
    AgentEvent,
    Chunk,
    Completion,
    EventType,
    Limits,
    LocalProtocolError,
    ModelRequest,
    Orchestrator,
    ProviderError,
    RunContext,
    RunFailed,
    StreamEngine,
    ToolCall,
    ToolDenied,
    ToolFailed,
    Usage,
    tool,
)
from flowtrio.testing import FunctionModel, ScriptedModel, check_events

T = EventType


@tool
async def double(x: int) -> int:
    if x < 0:
        raise ValueError("below 0")
    return x + x


CALL = ToolCall(id="a", name="double", arguments={"x": 2})


async def log_of(agent: Any, **options: Any) -> list[AgentEvent]:
    async with StreamEngine(**options).stream(agent, "Hi") as stream:
        log = [event async for event in stream]
    check_events(log)
    return log


def of(log: list[AgentEvent], type: EventType) -> list[dict[str, Any]]:
    return [event.data for event in log if event.type is type]


# Tools


async def test_hooks_stand_one_in_another_the_engines_outermost() -> None:
    order = []

    def named(name: str) -> Any:
        async def around(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
            order.append(f"{name} {call.name} {call.arguments} {call.id == ctx.call_id}")
            value = await proceed()
            order.append(f"{name} {ctx.attempt}")
            return value * 10

        return around

    agent = Agent(llm_client=ScriptedModel([CALL], "ok"), tools=[double], around_tool=named("in"))
    log = await log_of(agent, around_tool=named("out"))

    assert order == ["out double {'x': 2} True", "in double {'x': 2} True", "in 1", "out 1"]
    assert [end["result"] for end in of(log, T.TOOL_CALL_END)] == [400]


async def test_a_hook_cannot_change_what_the_tool_is_called_with() -> None:
    async def around(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        assert call.arguments is not None
        call.arguments["x"] = 99
        return await proceed()

    agent = Agent(llm_client=ScriptedModel([CALL], "ok"), tools=[double])
    log = await log_of(agent, around_tool=around)

    assert of(log, T.TOOL_CALL_END)[0]["result"] == 4


async def test_proceeding_again_counts_as_tries_do_and_keeps_the_idempotency_key() -> None:
    seen: list[tuple[int | None, str | None]] = []

    @tool(retries=1)
    async def shaky(ctx: RunContext, items: list[int]) -> int:
        seen.append((ctx.attempt, ctx.idempotency_key))
        items.append(1)
        if len(seen) < 3:
            raise ValueError("again")
        return len(items)

    async def around(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        try:
            return await proceed()
        except ValueError:
            return await proceed()

    async def body(ctx: RunContext, message: str) -> Any:
        assert (ctx.attempt, ctx.call_id, ctx.tool_name, ctx.idempotency_key) == (None,) * 4
        return await ctx.call(shaky, items=[])

    log = await log_of(body, around_tool=around)

    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert len({key for _, key in seen}) == 1
    assert len(seen[0][1] or "") == 40
    assert of(log, T.DONE)[0]["result"] == 1


@pytest.mark.parametrize("where", ["around", "tool", "needs_approval"])
async def test_a_tool_that_is_denied_ends_so_and_the_model_is_told_why(where: str) -> None:
    def deny(*args: Any) -> bool:
        raise ToolDenied("not on Sundays")

    @tool(needs_approval=deny if where == "needs_approval" else False, retries=3)
    async def pay() -> None:
        assert where == "tool"
        deny()

    async def around(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        return deny() if where == "around" else await proceed()

    model = ScriptedModel([ToolCall(id="a", name="pay", arguments={})], "ok")
    log = await log_of(Agent(llm_client=model, tools=[pay], around_tool=around))
    [end] = of(log, T.TOOL_CALL_END)

    assert (end["outcome"], end["error"]) == ("denied", "not on Sundays")
    assert "denied: not on Sundays" in model.requests[1].messages[-1]["content"]


async def test_what_a_hook_raises_is_told_as_if_the_tool_had_raised_it() -> None:
    async def around(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        raise RuntimeError("the cache is away")

    async def body(ctx: RunContext, message: str) -> Any:
        with pytest.raises(ToolFailed) as failed:
            await ctx.call(double, x=1)
        return failed.value.outcome

    log = await log_of(body, around_tool=around)

    assert of(log, T.TOOL_CALL_END)[0]["error"] == "RuntimeError: the cache is away"
    assert of(log, T.DONE)[0]["result"] == "error"


async def test_a_tools_time_holds_for_what_stands_around_it(autojump_clock: Any) -> None:
    @tool(timeout=2)
    async def quick() -> int:
        return 1

    async def around(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        await trio.sleep(3)
        return await proceed()

    agent = Agent(
        llm_client=ScriptedModel([ToolCall(id="a", name="quick", arguments={})], "ok"),
        tools=[quick],
    )
    log = await log_of(agent, around_tool=around)

    assert of(log, T.TOOL_CALL_END)[0]["outcome"] == "timeout"


async def test_two_cannot_proceed_at_once_and_none_after_the_call() -> None:
    kept: list[Callable[[], Awaitable[Any]]] = []
    refused = []

    @tool
    async def wait() -> int:
        await trio.testing.wait_all_tasks_blocked()
        return 1

    async def around(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        kept.append(proceed)

        async def too() -> None:
            with pytest.raises(LocalProtocolError, match="another proceed"):
                await proceed()
            refused.append(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(too)
            nursery.start_soon(too)
            return await proceed()

    async def body(ctx: RunContext, message: str) -> Any:
        value = await ctx.call(wait)
        with pytest.raises(trio.ClosedResourceError, match="has ended"):
            await kept[0]()
        return value

    log = await log_of(body, around_tool=around)

    assert of(log, T.DONE)[0]["status"] == "completed"
    assert refused == [1, 1]


# Models


async def test_a_reply_that_is_given_on_is_told_as_without_a_hook() -> None:
    requests = []

    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        requests.append(request)
        reply: Completion = await proceed(request)
        return reply

    model = ScriptedModel([CALL], "four")
    log = await log_of(Agent(llm_client=model, tools=[double], instructions="Be brief."),
                       around_model=around)  # fmt: skip
    plain = await log_of(
        Agent(llm_client=ScriptedModel([CALL], "four"), tools=[double], instructions="Be brief.")
    )

    assert [event.type for event in log] == [event.type for event in plain]
    assert [request.messages[0]["role"] for request in requests] == ["system", "system"]
    assert requests[0].tools[0]["function"]["name"] == "double"


async def test_what_is_asked_may_be_replaced() -> None:
    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        asked = request.replace(
            messages=[{"role": "user", "content": "Other"}],
            tools=[double],
            model_settings={"temperature": 0},
        )
        reply: Completion = await proceed(asked)
        return reply

    model = ScriptedModel("ok")
    await log_of(Agent(llm_client=model), around_model=around)
    [request] = model.requests

    assert request.messages == [{"role": "user", "content": "Other"}]
    assert request.tools[0]["function"]["name"] == "double"
    assert request.options["temperature"] == 0


async def test_a_reply_that_is_replaced_is_told_and_remembered_as_the_new_one() -> None:
    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        reply = await proceed(request)
        return attrs.evolve(reply, content=reply.content.replace("secret", "***"), tool_calls=[])

    model = ScriptedModel(["the ", "secret", Usage(prompt_tokens=7, completion_tokens=3)])
    engine = StreamEngine(around_model=around)
    async with engine.stream(Agent(llm_client=model), "Hi") as stream:
        log = [event async for event in stream]
    check_events(log)

    assert [event.type for event in log][2:-2] == [
        *(T.MESSAGE_CHUNK, T.MESSAGE_CHUNK, T.MESSAGE_RESET, T.MESSAGE_CHUNK, T.MESSAGE_COMPLETE)
    ]
    assert of(log, T.MESSAGE_RESET)[0]["reason"] == "replaced"
    assert of(log, T.MESSAGE_COMPLETE)[0]["content"] == "the ***"
    assert of(log, T.DONE)[0]["usage"]["prompt_tokens"] == 7
    assert of(log, T.DONE)[0]["usage"]["completion_tokens"] == 3
    assert stream.messages[-1] == {"role": "assistant", "content": "the ***"}


async def test_a_hook_may_answer_alone_and_that_costs_nothing() -> None:
    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        return Completion(content="cached", finish_reason="stop", usage=Usage(prompt_tokens=9))

    model = ScriptedModel("never")
    log = await log_of(Agent(llm_client=model), around_model=around)

    assert not model.requests
    assert not of(log, T.MESSAGE_RESET)
    assert of(log, T.DONE)[0]["result"] == "cached"
    assert of(log, T.DONE)[0]["usage"]["prompt_tokens"] == 0


async def test_a_model_may_be_asked_again_and_all_that_was_spent_counts() -> None:
    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        try:
            first = await proceed(request)
        except ProviderError:
            first = await proceed(request)
        assert first.content == "one"
        reply: Completion = await proceed(request)
        return reply

    model = ScriptedModel(
        ["ze", ProviderError("busy")],
        ["one", Usage(prompt_tokens=5)],
        ["two", Usage(prompt_tokens=6)],
    )
    log = await log_of(Agent(llm_client=model), around_model=around)

    assert [reset["reason"] for reset in of(log, T.MESSAGE_RESET)] == ["again", "again"]
    assert of(log, T.DONE)[0]["result"] == "two"
    assert of(log, T.DONE)[0]["usage"]["prompt_tokens"] == 11


@pytest.mark.parametrize("begins", ["", "so far"])
async def test_a_hook_may_answer_for_a_model_that_failed(begins: str) -> None:
    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        with pytest.raises(ProviderError):
            await proceed(request)
        return Completion(content="Sorry.")

    steps = [begins] if begins else []
    model = ScriptedModel([*steps, ProviderError("busy")])
    log = await log_of(Agent(llm_client=model), around_model=around)

    assert len(of(log, T.MESSAGE_RESET)) == len(steps)
    assert of(log, T.DONE)[0]["result"] == "Sorry."


async def test_calls_of_a_reply_that_replaces_another_are_run() -> None:
    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        reply: Completion = await proceed(request)
        return reply if ctx.messages[-1]["role"] == "tool" else Completion(tool_calls=[CALL])

    log = await log_of(
        Agent(llm_client=ScriptedModel("hm", "four"), tools=[double]), around_model=around
    )

    assert of(log, T.TOOL_CALL_END)[0]["result"] == 4
    assert of(log, T.DONE)[0]["result"] == "four"


async def test_what_a_hook_raises_or_gives_wrongly_is_told_as_the_models_failure() -> None:
    async def breaks(ctx: RunContext, request: ModelRequest, proceed: Any) -> Any:
        raise ValueError("a guardrail")

    async def gives_text(ctx: RunContext, request: ModelRequest, proceed: Any) -> Any:
        return "text"

    async def asks_text(ctx: RunContext, request: ModelRequest, proceed: Any) -> Any:
        return await proceed("text")

    hooks: list[tuple[Any, str]] = [
        (breaks, "ValueError: a guardrail"),
        (gives_text, "TypeError: around_model gave str: expected a Completion"),
        (asks_text, "TypeError: proceed: expected a ModelRequest, got str"),
    ]
    for hook, error in hooks:
        log = await log_of(Agent(llm_client=ScriptedModel("hm")), around_model=hook)
        [told] = of(log, T.ERROR)

        assert (told["source"], told["error"]) == ("model", error)


async def test_a_hook_may_ask_a_model_itself_with_nothing_around_that() -> None:
    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        await ctx.model([{"role": "user", "content": "Is that allowed?"}])
        reply: Completion = await proceed(request)
        return reply

    model = FunctionModel(lambda request: [Chunk(content="yes")])
    log = await log_of(Agent(llm_client=model), around_model=around)

    assert len(of(log, T.MESSAGE_COMPLETE)) == 2


async def test_an_agents_own_hooks_are_not_those_of_the_agents_it_delegates_to() -> None:
    asked = []

    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        asked.append(ctx.agent)
        reply: Completion = await proceed(request)
        return reply

    inner = Agent(llm_client=ScriptedModel("in"), name="inner")

    @tool
    async def pass_on(ctx: RunContext) -> str:
        return await ctx.delegate(inner, "Hi")

    call = ToolCall(id="a", name="pass_on", arguments={})
    agent = Agent(llm_client=ScriptedModel([call], "out"), tools=[pass_on], around_model=around)
    await log_of(agent)

    assert asked == ["root", "root"]


async def test_an_orchestrators_hooks_stand_around_its_runs() -> None:
    async def around_tool(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        return 1 + await proceed()

    async def around_model(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        reply: Completion = await proceed(request)
        return attrs.evolve(reply, content=f"{reply.content}{request.messages[-1]['content']}")

    orchestrator = Orchestrator(
        llm_client=ScriptedModel([CALL], "is "),
        tools=[double],
        around_tool=around_tool,
        around_model=around_model,
    )

    assert await orchestrator.process("Hi") == "is 5"


async def test_a_run_that_ends_ends_what_stands_around_its_model() -> None:
    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        await proceed(request)
        await trio.sleep_forever()
        raise AssertionError

    agent = Agent(llm_client=ScriptedModel("hm"))
    async with StreamEngine(around_model=around).stream(agent, "Hi") as stream:
        log = []
        async for event in stream:
            log.append(event)
            if event.type is T.MESSAGE_CHUNK:
                await trio.testing.wait_all_tasks_blocked()
                stream.cancel("enough")
    check_events(log)

    assert of(log, T.MESSAGE_COMPLETE)[0]["finish_reason"] == "cancelled"


async def test_what_has_ended_is_not_asked_again() -> None:
    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        await proceed(request)
        with trio.CancelScope(shield=True):
            try:
                await trio.sleep_forever() if False else await trio.sleep(2)
            finally:
                reply: Completion = await proceed(request)
        return reply

    @tool(timeout=1)
    async def think(ctx: RunContext) -> str:
        return (await ctx.model([{"role": "user", "content": "?"}])).content

    call = ToolCall(id="a", name="think", arguments={})

    async def only_inside(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        if ctx.call_id is None:
            reply: Completion = await proceed(request)
            return reply
        return await around(ctx, request, proceed)

    model = ScriptedModel([call], "thought", "over")
    log = await log_of(Agent(llm_client=model, tools=[think]), around_model=only_inside)

    assert of(log, T.TOOL_CALL_END)[0]["outcome"] == "timeout"


def test_what_cannot_be_awaited_around_something_is_refused_when_it_is_given() -> None:
    given: Any = 3

    with pytest.raises(TypeError, match=r"StreamEngine\(around_tool=int\)"):
        StreamEngine(around_tool=given)

    with pytest.raises(TypeError, match=r"Agent\(around_model=int\)"):
        Agent(llm_client=ScriptedModel("x"), around_model=given)


async def test_usage_is_what_was_spent_so_far() -> None:
    async def body(ctx: RunContext, message: str) -> int:
        model = ScriptedModel(["a", Usage(prompt_tokens=4)])
        await ctx.model([{"role": "user", "content": "?"}], model)
        return ctx.usage.prompt_tokens

    log = await log_of(body)

    assert of(log, T.DONE)[0]["result"] == 4


async def test_a_run_that_failed_by_a_hook_says_so() -> None:
    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Any:
        raise ValueError("no")

    with pytest.raises(RunFailed, match="ValueError: no"):
        await (
            StreamEngine(around_model=around)
            .stream(Agent(llm_client=ScriptedModel("x")), "Hi")
            .result()
        )


# What a hook does itself


async def test_what_models_say_to_a_hook_is_told_and_joins_no_conversation() -> None:
    async def shorten(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        summary = await ctx.model([{"role": "user", "content": "Summarise."}])
        asked = [{"role": "system", "content": summary.content}, request.messages[-1]]
        reply: Completion = await proceed(request.replace(messages=asked))
        return reply

    model = ScriptedModel(["brief", Usage(completion_tokens=3)], "fine")
    agent = Agent(llm_client=model, around_model=shorten)
    async with StreamEngine().stream(agent, "Hi") as stream:
        log = [event async for event in stream]
    check_events(log)

    assert model.requests[1].messages[0]["content"] == "brief"
    assert [(m["role"], m["content"]) for m in stream.messages] == [
        ("user", "Hi"),
        ("assistant", "fine"),
    ]
    told = [event.agent for event in log if event.type is T.MESSAGE_COMPLETE]
    assert told == ["root/shorten", "root"]
    assert of(log, T.AGENT_END)[0]["result"] == "brief"
    assert of(log, T.DONE)[0]["usage"]["completion_tokens"] >= 3


async def test_an_agent_that_a_hook_calls_joins_no_conversation_either() -> None:
    judge = Agent(llm_client=ScriptedModel("harmless"), name="judge")

    async def guard(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        assert await judge(ctx, "Is that harmless?") == "harmless"
        reply: Completion = await proceed(request)
        return reply

    agent = Agent(llm_client=ScriptedModel("fine"), around_model=guard)
    async with StreamEngine().stream(agent, "Hi") as stream:
        log = [event async for event in stream]
    check_events(log)

    assert [m["content"] for m in stream.messages] == ["Hi", "fine"]
    assert [e.agent for e in log if e.type is T.MESSAGE_COMPLETE] == ["root/judge", "root"]


async def test_a_hook_says_something_in_the_conversation_where_it_speaks_itself() -> None:
    async def greet(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        async with ctx.message() as out:
            await out.write("One moment.")
        reply: Completion = await proceed(request)
        return reply

    agent = Agent(llm_client=ScriptedModel("fine"), around_model=greet)
    async with StreamEngine().stream(agent, "Hi") as stream:
        await stream.result()

    assert [m["content"] for m in stream.messages] == ["Hi", "One moment.", "fine"]


@pytest.mark.parametrize("how", ["asks", "delegates"])
async def test_what_a_hook_asks_does_not_come_back_to_it(how: str) -> None:
    visits = []

    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        visits.append(ctx.agent)
        assert len(visits) == 1
        if how == "asks":
            await ctx.model(request.messages)
        else:
            await ctx.delegate(Agent(llm_client=ScriptedModel("brief"), name="other"), "Summarise.")
        reply: Completion = await proceed(request)
        return reply

    model = FunctionModel(lambda request: "fine")
    log = await log_of(Agent(llm_client=model), around_model=around)

    assert of(log, T.DONE)[0]["result"] == "fine"


async def test_what_a_hook_calls_does_not_come_back_to_it() -> None:
    visits = []

    async def around(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        visits.append(call.id)
        assert len(visits) == 1
        return await ctx.call(double, x=5) + await proceed()

    agent = Agent(llm_client=ScriptedModel([CALL], "ok"), tools=[double])
    log = await log_of(agent, around_tool=around)

    assert [end["result"] for end in of(log, T.TOOL_CALL_END)] == [10, 14]


async def test_what_stands_outside_a_hook_stands_around_what_it_does() -> None:
    seen: list[tuple[str, Any]] = []

    async def redact(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        asked = [{**m, "content": m["content"].replace("4711", "****")} for m in request.messages]
        reply: Completion = await proceed(request.replace(messages=asked))
        return reply

    async def audit(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        seen.append((call.name, ctx.agent))
        return await proceed()

    async def shorten(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        await ctx.model([{"role": "user", "content": "Summarise 4711."}])
        reply: Completion = await proceed(request)
        return reply

    async def twice(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        await ctx.call(double, x=1)
        return await proceed()

    model = ScriptedModel("brief", [CALL], "brief", "ok")
    agent = Agent(llm_client=model, tools=[double], around_model=shorten, around_tool=twice)
    await log_of(agent, around_model=redact, around_tool=audit)

    assert model.requests[0].messages[-1]["content"] == "Summarise ****."
    assert seen == [("double", "root"), ("double", "root")]


async def test_no_model_is_asked_again_once_the_run_has_ended(autojump_clock: Any) -> None:
    async def around(ctx: RunContext, request: ModelRequest, proceed: Any) -> Completion:
        with trio.CancelScope(shield=True):
            await proceed(request)
            with pytest.raises(trio.ClosedResourceError, match="ask a model"):
                await proceed(request)
        raise AssertionError("cancelled here")

    model = ScriptedModel("Hello", "Hello")
    agent = Agent(llm_client=model)
    async with StreamEngine(around_model=around).stream(
        agent, "Hi", limits=Limits(buffer=1)
    ) as stream:
        # Its MESSAGE_RESET waits for the reader, who leaves.
        await anext(stream)
        await anext(stream)
        await trio.testing.wait_all_tasks_blocked()

    assert len(model.requests) == 1
