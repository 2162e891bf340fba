"""Traces: which span stands in which, what it says of what, and how it ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import trio
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from flowtrio import (
    Agent,
    AgentEvent,
    Chunk,
    EventType,
    Limits,
    Orchestrator,
    RunContext,
    RunFailed,
    StreamEngine,
    ToolCall,
    ToolDenied,
    Usage,
    tool,
)
from flowtrio.otel import OpenTelemetry
from flowtrio.testing import ScriptedModel, check_events

from .traced import Traced, find_breaks, find_faults, loud_detach, traced

T = EventType


class Model(ScriptedModel):
    """A scripted model that has a name and a host."""

    provider = "openai"
    model = "gpt-5"


@tool
async def look(city: str) -> str:
    """Look something up."""
    await trio.sleep(1)
    return f"sunny in {city}"


@tool
async def wait() -> None:
    """Wait for ever."""
    await trio.sleep_forever()


@tool
async def breaks() -> None:
    """Break."""
    raise ZeroDivisionError("secret words")


def looks(*cities: str) -> list[ToolCall]:
    return [ToolCall(f"p{city}", "look", {"city": city}) for city in cities]


def agent_of(*turns: Any, **options: Any) -> Agent:
    return Agent(llm_client=Model(*turns), tools=[look, wait, breaks], **options)


async def log_of(agent: Any, made: Traced, **options: Any) -> list[AgentEvent]:
    async with StreamEngine(telemetry=made.telemetry).stream(agent, "Hi", **options) as stream:
        log = [event async for event in stream]
    check_events(log)
    return log


def attributes(span: Any) -> dict[str, Any]:
    return dict(span.attributes)


@pytest.fixture
def made() -> Traced:
    return traced()


# What stands in what


async def test_a_run_is_one_trace_of_an_agent_its_replies_and_its_calls(
    made: Traced, autojump_clock: trio.testing.MockClock
) -> None:
    log = await log_of(agent_of(looks("Rome", "Oslo"), "fine", name="guide"), made)

    assert [span.name for span in made.spans()] == [
        *("chat gpt-5", "execute_tool look", "execute_tool look", "chat gpt-5"),
        "invoke_agent guide",
    ]
    assert set(made.parents("chat") + made.parents("execute")) == {"invoke_agent guide"}
    assert made.span("invoke_agent").parent is None
    said = {"look", "guide", "c1", "c2", "openai", "gpt-5", "default", log[0].run_id}
    assert find_faults(made.kept, log, said) == []
    kinds = {span.name.split()[0]: span.kind for span in made.spans()}
    assert kinds == {
        "invoke_agent": SpanKind.INTERNAL,
        "chat": SpanKind.CLIENT,
        "execute_tool": SpanKind.INTERNAL,
    }


async def test_what_is_current_where_a_run_is_started_is_its_parent(made: Traced) -> None:
    with made.tracer.start_as_current_span("request"):
        await log_of(agent_of("fine"), made)
        async for _ in StreamEngine(telemetry=made.telemetry).stream(agent_of("bare"), "Hi"):
            pass

    assert made.parents("invoke_agent") == ["request", "request"]


async def test_that_holds_for_hosted_runs_whoever_reads_them(made: Traced) -> None:
    async with Orchestrator(llm_client=Model("fine"), telemetry=made.telemetry) as orchestrator:
        with made.tracer.start_as_current_span("request"):
            run_id = await orchestrator.start("Hi", session_id="s")
        async for _ in orchestrator.attach(run_id):
            pass

    assert made.parents("invoke_agent") == ["request"]
    assert attributes(made.span("invoke_agent")) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "assistant",
        "gen_ai.conversation.id": "s",
        "flowtrio.run.id": run_id,
        "flowtrio.tenant.id": "default",
        "flowtrio.outcome": "completed",
    }


async def test_nested_agents_stand_in_the_call_that_delegated_and_their_work_in_them(
    made: Traced, autojump_clock: trio.testing.MockClock
) -> None:
    inner = agent_of(looks("Rome"), "well", name="inner")

    @tool
    async def ask(ctx: RunContext) -> str:
        """Ask somebody else."""
        return str(await ctx.delegate(inner, "?"))

    outer = Agent(llm_client=Model([ToolCall("a", "ask", {})], "so"), tools=[ask], name="outer")
    await log_of(outer, made)

    assert made.parents("invoke_agent inner") == ["execute_tool ask"]
    assert made.parents("execute_tool ask") == ["invoke_agent outer"]
    assert made.parents("execute_tool look") == ["invoke_agent inner"]
    assert (
        sorted(map(str, made.parents("chat")))
        == ["invoke_agent inner"] * 2 + ["invoke_agent outer"] * 2
    )


async def test_agents_at_once_keep_apart_what_is_theirs(
    made: Traced, autojump_clock: trio.testing.MockClock
) -> None:
    async def body(ctx: RunContext, message: str) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(4):
                inner = agent_of(looks("Rome"), "well", name=f"n{number}")
                nursery.start_soon(ctx.delegate, inner, "?")

    await log_of(body, made)
    for number in range(4):
        [own] = made.spans(f"invoke_agent n{number}")
        inside = [span for span in made.spans() if made.parent(span) is own]

        assert sorted(span.name for span in inside) == [
            *("chat gpt-5", "chat gpt-5", "execute_tool look")
        ]
    assert made.parents("invoke_agent n") == ["invoke_agent body"] * 4


async def test_calls_and_models_inside_a_tool_stand_in_its_call(
    made: Traced, autojump_clock: trio.testing.MockClock
) -> None:
    client = Model("hm", "hm")

    @tool
    async def research(ctx: RunContext) -> str:
        """Look around."""
        await ctx.call(look, city="Rome")
        return (await ctx.model([{"role": "user", "content": "?"}], client=client)).content

    async def body(ctx: RunContext, message: str) -> str:
        await ctx.call(research)
        async with ctx.message() as out:
            await out.write("no model said this")
        return (await ctx.model([{"role": "user", "content": "?"}], client=client)).content

    await log_of(body, made)

    assert made.parents("execute_tool look") == ["execute_tool research"]
    assert made.parents("chat") == ["execute_tool research", "invoke_agent body"]
    assert made.parents("execute_tool research") == ["invoke_agent body"]


class Searches:
    """A model whose provider looks something up for it; and a second time without an answer."""

    provider = "anthropic"
    model = "claude"

    async def stream_completion(
        self, messages: Sequence[Any], tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """See `flowtrio.abc.LLMClient`."""
        for key in ("s1", "s2"):
            part = {"type": "server_tool_call", "id": key, "name": "web_search", "input": {}}
            yield Chunk(parts=[part])
            await trio.sleep(1)
        yield Chunk(parts=[{"type": "server_tool_result", "id": "s1", "content": []}])
        yield Chunk(content="found")
        yield Chunk(is_final=True, finish_reason="stop")


async def test_what_a_provider_runs_stands_in_the_reply_that_it_is_for(
    made: Traced, autojump_clock: trio.testing.MockClock
) -> None:
    log = await log_of(Agent(llm_client=Searches()), made)
    chat = made.span("chat claude")

    assert made.parents("execute_tool") == ["chat claude", "chat claude"]
    assert {attributes(s)["gen_ai.tool.type"] for s in made.spans("execute_tool")} == {"extension"}
    for span, start in zip(
        made.spans("execute_tool"), [e for e in log if e.type is T.TOOL_CALL_START], strict=True
    ):
        assert chat.start_time <= span.start_time == round(start.timestamp * 1e9)


async def test_a_reply_has_begun_before_its_calls_though_its_end_waits_for_a_slow_reader(
    made: Traced, autojump_clock: trio.testing.MockClock
) -> None:
    engine = StreamEngine(telemetry=made.telemetry, limits=Limits(buffer=1))
    async with engine.stream(Agent(llm_client=Searches()), "Hi") as stream:
        async for event in stream:
            if event.type is T.TOOL_CALL_END:
                await trio.sleep(9)

    assert find_breaks(made.kept) == []
    assert made.parents("execute_tool") == ["chat claude", "chat claude"]


async def test_a_run_inside_a_run_stands_where_it_was_started(made: Traced) -> None:
    engine = StreamEngine(telemetry=made.telemetry)

    @tool
    async def start() -> str:
        """Start a run."""
        async with engine.stream(agent_of("in a tool", name="second"), "?") as stream:
            return str(await stream.result())

    async def body(ctx: RunContext, message: str) -> str:
        await ctx.call(start)
        async with engine.stream(agent_of("in a body", name="third"), "?") as stream:
            return str(await stream.result())

    await log_of(body, made)

    assert made.parents("invoke_agent second") == ["execute_tool start"]
    assert made.parents("invoke_agent third") == ["invoke_agent body"]
    assert len({span.context.trace_id for span in made.spans()}) == 1


# What the application does


async def test_spans_of_a_tool_and_of_a_body_stand_in_the_very_spans_that_are_exported(
    made: Traced,
) -> None:
    seen = {}

    def own(name: str) -> None:
        seen[name] = trace.get_current_span().get_span_context().span_id
        with made.tracer.start_as_current_span(f"own {name}"):
            pass

    async def later(name: str) -> None:
        await trio.lowlevel.checkpoint()
        own(name)

    @tool
    async def work(ctx: RunContext, name: str) -> None:
        """Work."""
        await trio.testing.wait_all_tasks_blocked()
        own(name)
        ctx.start_soon(later, f"{name} in the background")

    async def body(ctx: RunContext, message: str) -> None:
        own("body")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ctx.call(work, name="a"))
            nursery.start_soon(lambda: ctx.call(work, name="b"))
        ctx.start_soon(later, "body in the background")
        await trio.to_thread.run_sync(own, "body in a thread")

    await log_of(body, made)
    calls = {span.context.span_id for span in made.spans("execute_tool work")}
    agent = made.span("invoke_agent").context.span_id

    assert {seen["a"], seen["b"]} == calls
    assert len(calls) == 2
    for name in "a", "b":
        assert seen[name] == seen[f"{name} in the background"]
    assert {value for name, value in seen.items() if name.startswith("body")} == {agent}
    assert made.parents("own body") == ["invoke_agent body"] * 3


async def test_a_plain_tool_works_inside_its_span_in_its_thread(made: Traced) -> None:
    @tool
    def work() -> None:
        """Work in a thread."""
        with made.tracer.start_as_current_span("own"):
            pass

    @tool(abandon=True)
    def other() -> None:
        """Work in a thread that may be left."""
        with made.tracer.start_as_current_span("own"):
            pass

    async def body(ctx: RunContext, message: str) -> None:
        await ctx.call(work)
        await ctx.call(other)

    await log_of(body, made)

    assert made.parents("own") == ["execute_tool work", "execute_tool other"]


@pytest.mark.parametrize("how", ["break", "cancel", "cancel_tool", "timeout", "outer", "error"])
async def test_contexts_are_detached_whichever_way_a_run_is_left(
    made: Traced, how: str, autojump_clock: trio.testing.MockClock
) -> None:
    before = trace.get_current_span()
    inside = []

    @tool
    async def stuck() -> None:
        """Wait for ever, and clean up."""
        try:
            await trio.sleep_forever()
        finally:
            inside.append(trace.get_current_span().get_span_context().span_id)

    calls = [ToolCall("a", "stuck", {}), ToolCall("b", "stuck", {})]
    agent = Agent(llm_client=Model(calls, "fine"), tools=[stuck])
    engine = StreamEngine(
        telemetry=made.telemetry, limits=Limits(tool=2 if how == "timeout" else 9)
    )
    with loud_detach() as heard, trio.move_on_after(3):
        try:
            async with engine.stream(agent, "Hi") as stream:
                async for event in stream:
                    if event.type is T.TOOL_CALL_START and event.data["call_id"] == "c2":
                        await trio.sleep(1)
                        if how == "break":
                            break
                        if how == "cancel":
                            stream.cancel()
                        if how == "cancel_tool":
                            stream.cancel_tool("c1")
                        if how == "error":
                            raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    assert heard == []
    assert trace.get_current_span() is before
    assert sorted(inside) == sorted(s.context.span_id for s in made.spans("execute_tool stuck"))
    assert len(made.kept.begun) == len(made.kept.ended)
    outcomes = {attributes(s)["flowtrio.outcome"] for s in made.spans("execute_tool")}
    assert outcomes == {"timeout"} if how == "timeout" else "cancelled" in outcomes


# How things ended


async def test_a_tool_that_raises_is_an_error_of_its_type_without_its_words(made: Traced) -> None:
    await log_of(agent_of([ToolCall("a", "breaks", {})], "fine"), made)
    span = made.span("execute_tool breaks")

    assert attributes(span)["error.type"] == "ZeroDivisionError"
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in span.to_json()


async def test_a_run_that_fails_is_an_error_of_its_code(made: Traced) -> None:
    async def body(ctx: RunContext, message: str) -> None:
        await ctx.delegate(inner, message)

    async def inner(ctx: RunContext, message: str) -> None:
        raise ZeroDivisionError("secret words")

    await log_of(body, made)
    root, nested = made.span("invoke_agent body"), made.span("invoke_agent inner")

    assert attributes(root)["error.type"] == "agent_failed"
    assert attributes(nested)["error.type"] == "ZeroDivisionError"
    assert root.status.status_code is nested.status.status_code is StatusCode.ERROR
    assert "secret" not in root.to_json() + nested.to_json()


async def test_what_is_cancelled_says_so_and_is_nobodys_error(made: Traced) -> None:
    async with StreamEngine(telemetry=made.telemetry).stream(
        agent_of([ToolCall("a", "wait", {})]), "Hi"
    ) as stream:
        async for event in stream:
            if event.type is T.TOOL_CALL_START:
                stream.cancel("by hand")
    spans = [made.span("invoke_agent"), made.span("execute_tool")]

    assert [attributes(span)["error.type"] for span in spans] == ["cancelled"] * 2
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}


async def test_a_reply_that_breaks_is_an_error_that_has_no_word(made: Traced) -> None:
    class Breaks(Model):
        async def stream_completion(self, *args: Any, **options: Any) -> AsyncIterator[Chunk]:
            yield Chunk(content="half a ")
            raise OSError("gone")

    with pytest.raises(RunFailed):
        async with StreamEngine(telemetry=made.telemetry).stream(
            Agent(llm_client=Breaks()), "Hi"
        ) as stream:
            await stream.result()
    span = made.span("chat")

    assert attributes(span)["error.type"] == "_OTHER"
    assert attributes(span)["gen_ai.response.finish_reasons"] == ("error",)
    assert span.status.status_code is StatusCode.ERROR


async def test_calls_that_never_started_have_no_span_whatever_they_are_called(
    made: Traced,
) -> None:
    def deny(*args: Any) -> bool:
        raise ToolDenied("no")

    @tool(needs_approval=deny)
    async def pay() -> None:
        """Pay."""

    calls = [ToolCall("a", "my_secret_words", {}), ToolCall("b", "pay", {})]
    await log_of(Agent(llm_client=Model(calls, "fine"), tools=[pay]), made)

    assert made.spans("execute_tool") == []


# What is said of a reply


async def test_a_reply_tells_who_was_asked_what_it_cost_and_how_long_it_took(
    made: Traced, autojump_clock: trio.testing.MockClock
) -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=3, reasoning_tokens=2)
    turn = [
        2.0,
        "well",
        1.0,
        Chunk(is_final=True, finish_reason="stop", usage=usage, model="gpt-5-1"),
    ]
    log = await log_of(agent_of(turn), made)
    span = made.span("chat")
    [told] = [event for event in log if event.type is T.MESSAGE_COMPLETE]

    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "gpt-5-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 2.0,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 2,
    }
    assert span.end_time == round(told.timestamp * 1e9)
    assert span.end_time - span.start_time == pytest.approx(3e9, abs=1000)


async def test_what_was_not_measured_is_not_told(
    made: Traced, autojump_clock: trio.testing.MockClock
) -> None:
    async with StreamEngine(telemetry=made.telemetry).stream(
        agent_of(["well", 5.0, "and"]), "Hi"
    ) as stream:
        async for event in stream:
            if event.type is T.MESSAGE_CHUNK:
                break
    log = [event async for event in stream]

    assert [e.data["usage"]["quality"] for e in log if e.type is T.MESSAGE_COMPLETE] == [
        "lower_bound"
    ]
    assert not any("usage" in name for name in attributes(made.span("chat")))
    assert not any("tokens" in name for name in made.measured())


async def test_metrics_have_the_names_of_the_newest_conventions(
    made: Traced, autojump_clock: trio.testing.MockClock
) -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=3, reasoning_tokens=2)
    turn = [2.0, "well", Chunk(is_final=True, finish_reason="stop", usage=usage)]
    calls = [*looks("Rome"), ToolCall("x", "breaks", {})]
    await log_of(agent_of(calls, turn, name="guide"), made)
    chat = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
    }
    of_all = {**chat, "gen_ai.token.modality": "unknown"}
    measured = made.measured()
    tools = {
        told["gen_ai.tool.name"]: (value, told)
        for value, told in measured.pop("gen_ai.execute_tool.duration")
    }

    assert tools["look"][0] == pytest.approx(1.0, abs=1e-6)
    assert "error.type" not in tools["look"][1]
    assert tools["breaks"][1]["error.type"] == "ZeroDivisionError"
    assert {name: [told for _, told in points] for name, points in measured.items()} == {
        "gen_ai.invoke_agent.duration": [
            {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "guide"}
        ],
        "gen_ai.client.inference.duration": [chat],
        "gen_ai.client.inference.time_to_first_chunk": [chat],
        "gen_ai.client.inference.usage.input_tokens": [of_all],
        "gen_ai.client.inference.usage.output_tokens": [of_all],
        "gen_ai.client.inference.usage.cache_read.input_tokens": [of_all],
        "gen_ai.client.inference.usage.reasoning.output_tokens": [of_all],
        "gen_ai.client.inference.operation.input_tokens": [chat],
        "gen_ai.client.inference.operation.output_tokens": [chat],
    }
    # The scripted model's own count for its first turn is among them.
    assert measured["gen_ai.client.inference.usage.input_tokens"][0][0] == 10 + 10
    assert measured["gen_ai.client.inference.duration"][0][0] == pytest.approx(2.0, abs=1e-6)


async def test_metrics_can_have_the_names_of_before() -> None:
    made = traced(conventions="1.41.0")
    usage = Usage(prompt_tokens=10, completion_tokens=4)
    await log_of(agent_of(["well", Chunk(is_final=True, finish_reason="stop", usage=usage)]), made)
    measured = made.measured()
    spent = {
        told["gen_ai.token.type"]: value for value, told in measured["gen_ai.client.token.usage"]
    }

    assert spent == {"input": 10, "output": 4}
    assert set(measured) == {
        *("gen_ai.client.operation.duration", "gen_ai.client.operation.time_to_first_chunk"),
        "gen_ai.client.token.usage",
    }


def test_a_version_that_is_not_known_is_told_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"conventions='2': expected one of 0.1.0, 1.41.0"):
        OpenTelemetry(conventions="2")


# Content


async def test_content_is_told_where_it_is_asked_for() -> None:
    made = traced(content=True)

    async def body(ctx: RunContext, message: str) -> dict[str, str]:
        await ctx.call(look, city="Rome")
        await ctx.model([{"role": "user", "content": "?"}], client=Model("well"))
        await ctx.delegate(inner, "?")
        return {"told": "all"}

    async def inner(ctx: RunContext, message: str) -> str:
        return "inside"

    await log_of(body, made)
    root = attributes(made.span("invoke_agent body"))
    call, chat = attributes(made.span("execute_tool")), attributes(made.span("chat"))

    def text(value: str) -> tuple[str, str]:
        [message] = json.loads(value)
        [part] = message["parts"]
        return message["role"], part["content"]

    assert text(root["gen_ai.input.messages"]) == ("user", "Hi")
    assert text(root["gen_ai.output.messages"]) == ("assistant", '{"told": "all"}')
    assert json.loads(call["gen_ai.tool.call.arguments"]) == {"city": "Rome"}
    assert json.loads(call["gen_ai.tool.call.result"]) == "sunny in Rome"
    assert text(chat["gen_ai.output.messages"]) == ("assistant", "well")
    assert json.loads(chat["gen_ai.output.messages"])[0]["finish_reason"] == "stop"
    inside = attributes(made.span("invoke_agent inner"))
    assert text(inside["gen_ai.output.messages"]) == ("assistant", "inside")


async def test_with_content_an_error_has_its_words() -> None:
    made = traced(content=True)
    await log_of(agent_of([ToolCall("a", "breaks", {})], "fine"), made)

    assert made.span("execute_tool").status.description == "ZeroDivisionError: secret words"


async def test_of_what_is_not_sampled_no_words_are_written(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    from flowtrio.otel import _spans

    def failing(*said: Any) -> str:
        raise ValueError("nobody would read this")

    monkeypatch.setattr(_spans, "messages", failing)
    monkeypatch.setattr(_spans, "as_json", failing)
    unsampled = traced(content=True, sampler=ALWAYS_OFF)
    await log_of(agent_of(looks("Rome"), "fine"), unsampled)

    assert (unsampled.kept.begun, caplog.messages) == ([], [])
    assert "gen_ai.execute_tool.duration" in unsampled.measured()

    # Of what is sampled they are.
    await log_of(agent_of("fine"), traced(content=True))
    assert any("its telemetry failed" in line for line in caplog.messages)


# Logs from elsewhere, faults, and what it needs


async def test_the_log_of_a_run_that_went_on_elsewhere_makes_the_same_trace(
    made: Traced, autojump_clock: trio.testing.MockClock
) -> None:
    agent = agent_of(looks("Rome", "Oslo"), "fine", name="guide")
    log, other = await log_of(agent, made), traced()
    for event in [*log[5:], *log]:
        # What comes before the beginning of a run belongs to none.
        other.telemetry.observe(event)

    assert other.telemetry._runs == {}
    assert [(s.name, s.start_time, s.end_time) for s in other.spans()] == [
        (s.name, s.start_time, s.end_time) for s in made.spans()
    ]


@pytest.mark.parametrize("at", list(T))
async def test_a_fault_of_ours_leaves_no_span_open_and_costs_the_run_nothing(
    made: Traced, at: EventType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowtrio.otel import _spans

    hear = _spans.RunSpans._hear

    def failing(self: Any, event: AgentEvent) -> None:
        if event.type is at:
            raise ValueError("a bug")
        hear(self, event)

    monkeypatch.setattr(_spans.RunSpans, "_hear", failing)

    async def body(ctx: RunContext, message: str) -> Any:
        return await ctx.delegate(agent_of([ToolCall("a", "breaks", {})], "fine"), message)

    await log_of(body, made)

    assert len(made.kept.begun) == len(made.kept.ended)


def test_it_needs_no_more_than_opentelemetrys_interface() -> None:
    program = (
        "import sys\n"
        "for name in ('opentelemetry.sdk', 'opentelemetry.exporter', 'opentelemetry.semconv'):\n"
        "    sys.modules[name] = None\n"
        "from flowtrio import StreamEngine\n"
        "from flowtrio.otel import OpenTelemetry\n"
        "StreamEngine(telemetry=OpenTelemetry())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_the_extra_it_says_what_to_install() -> None:
    program = "import sys\nsys.modules['opentelemetry'] = None\nimport flowtrio.otel\n"
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)

    assert "pip install 'flowtrio[otel]'" in done.stderr
