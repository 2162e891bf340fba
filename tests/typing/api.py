"""Code as users write it. It is never run: type checkers read it, and have to agree with it.

`assert_type` says what a checker has to infer. A line that has to be refused ends in an ignore that
names its error, which a strict checker reports where the line is accepted after all.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, assert_never, assert_type

import attrs
import trio

import flowtrio
from flowtrio import (
    Agent,
    AgentEvent,
    AgentStatus,
    Chunk,
    Completion,
    DemoClient,
    EventStream,
    EventType,
    Image,
    Limits,
    MemoryConversations,
    ModelLimits,
    OpenAIClient,
    Orchestrator,
    RunCancelled,
    RunContext,
    RunFailed,
    ServerLimits,
    StreamEngine,
    StreamMode,
    Text,
    Tool,
    ToolCall,
    ToolFailed,
    project,
    serve_websocket,
    tool,
)
from flowtrio.abc import (
    AgentLike,
    Authenticate,
    ConversationStore,
    LLMClient,
    Message,
    Request,
    RunTelemetry,
    Telemetry,
    TelemetryPerRun,
    Toolset,
    ToolSpec,
)
from flowtrio.mcp import McpTools, mcp_server, mcp_tools, serve_mcp
from flowtrio.otel import LogFilter, OpenTelemetry
from flowtrio.testing import (
    FunctionModel,
    ScriptedModel,
    SimulatedRun,
    Violation,
    check_events,
    every_fault,
    find_violations,
)

# Tools: bare, with options, plain, with the context


@tool
async def forecast(city: str, days: int = 3) -> list[str]:
    """Weather forecast for a city, one line a day."""
    return [f"{city}, day {day}: sunny" for day in range(days)]


@tool(name="fetch", timeout=20, retries=2, concurrency=4)
async def download(ctx: RunContext, url: str) -> int:
    """Download a file; gives its size in bytes."""
    await ctx.progress({"url": url})
    return 0


@tool(needs_approval=True, fatal=True)
def pay(amount: float) -> str:
    """Pay."""
    return f"paid {amount}"


@tool(needs_approval=lambda arguments: arguments["amount"] > 100, abandon=True)
def refund(amount: float) -> None:
    """Pay back."""


async def calls_to_tools_keep_their_types() -> None:
    assert_type(await forecast("Paris"), list[str])
    assert_type(pay(amount=3.5), str)
    assert_type(forecast.parameters, dict[str, Any])
    await forecast(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pay()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


every_tool: list[Tool[..., Any]] = [forecast, download, pay, refund]

# Models


class Echo:
    """A client of one's own: any object with this one method."""

    async def stream_completion(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """Say what was said."""
        yield Chunk(content=str(messages[-1]["content"]))
        yield Chunk(
            is_final=True,
            finish_reason="tool_calls",
            tool_calls=[ToolCall(id="1", name="forecast", arguments={"city": "Paris"})],
        )


models: list[LLMClient] = [
    Echo(),
    DemoClient(seed=7),
    OpenAIClient(model="gpt-4o-mini", limits=ModelLimits(gap=math.inf), temperature=0),
    ScriptedModel("Hello"),
    FunctionModel(lambda request: str(request.messages[-1]["content"])),
]
not_a_model: LLMClient = object()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


async def a_client_alone() -> None:
    async with OpenAIClient(model="gpt-4o-mini", base_url="http://127.0.0.1:8000/v1") as client:
        completion = await client.complete([{"role": "user", "content": "Hello"}])
        assert_type(completion, Completion)
        async for chunk in client.stream_completion([{"role": "user", "content": "Hello"}]):
            assert_type(chunk, Chunk)


# Agents


@attrs.frozen
class Trip:
    """What an agent has to answer."""

    city: str
    nights: int


talker = Agent(llm_client=Echo(), tools=[forecast, pay], instructions="Be brief.", name="talker")
planner = Agent(llm_client=Echo(), output=Trip)
assert_type(planner, Agent[Trip])
assert_type(planner.replace(llm_client=DemoClient()), Agent[Trip])
assert_type(talker, Agent[str])
assert_type(Agent(llm_client=Echo(), output=Trip | None), Agent[Trip | None])
assert_type(
    Agent(llm_client=Echo(), output=Annotated[list[Trip], "At most three."]), Agent[list[Trip]]
)


async def concierge(ctx: RunContext, message: str) -> dict[str, bool]:
    """An agent of one's own: any async function, plain Trio inside."""
    await ctx.status("searching")
    found: dict[str, list[str]] = {}

    async def look(city: str) -> None:
        found[city] = await ctx.call(forecast, city=city, days=1)

    async with trio.open_nursery() as nursery:
        for city in ("Paris", "Rome"):
            nursery.start_soon(look, city)
    if not await ctx.approve("book", {"city": message}):
        return {"booked": False}
    name = await ctx.ask("Whose name?")
    assert_type(name, str)
    try:
        await ctx.call(pay, amount=100)
    except ToolFailed as failed:
        assert_type(failed.outcome, str)
    assert_type(await ctx.ask("How many?", int), int)
    await ctx.ask("Anything?", {"type": "object"})
    advice = await ctx.delegate(talker, message)
    completion = await ctx.model([{"role": "user", "content": name}], tools=[forecast])
    assert_type(completion.tool_calls, list[ToolCall])
    results = await ctx.run_calls(completion, [forecast, pay])
    assert_type(results, list[flowtrio.CallResult])
    for asked in completion.tool_calls:
        await ctx.call(forecast, asked)
    await ctx.model(ctx.messages, tools=[forecast])
    await ctx.delegate(talker, message, history=ctx.history)
    async with ctx.message() as out:
        await out.write(f"Booked. {advice}")
    await ctx.custom("booking", {"city": message})
    ctx.start_soon(trio.sleep, 1)
    return {"booked": True}


def not_async(ctx: RunContext, message: str) -> str:
    """No agent: nobody could wait for it."""
    return message


agents: list[AgentLike] = [talker, planner, concierge]

# Runs


def describe(event: AgentEvent) -> str:
    """Match on the type, and let the checker see that none is forgotten."""
    match event.type:
        case EventType.MESSAGE_CHUNK | EventType.REASONING_CHUNK:
            return str(event.data["chunk"])
        case EventType.MESSAGE_COMPLETE | EventType.MESSAGE_PART | EventType.MESSAGE_RESET:
            return str(event.data["message_id"])
        case EventType.STATE_CHANGE:
            return str(event.data["new_status"])
        case EventType.TOOL_CALL_START | EventType.TOOL_CALL_END:
            return str(event.data["tool_name"])
        case EventType.TOOL_CALL_ARGS | EventType.TOOL_PROGRESS | EventType.APPROVAL_REQUIRED:
            return str(event.data["call_id"])
        case EventType.AGENT_START | EventType.AGENT_END:
            return event.agent
        case EventType.INPUT_REQUIRED | EventType.INPUT_RESOLVED:
            return str(event.data["request_id"])
        case EventType.USER_MESSAGE:
            return str(event.data["message"])
        case EventType.RUN_START | EventType.ERROR | EventType.DONE | EventType.CUSTOM:
            return f"{event.seq} {event.run_id} {event.timestamp}"
        case _ as never:
            assert_never(never)


async def structured() -> None:
    engine = StreamEngine(mode=StreamMode.INCREMENTAL, limits=Limits(run=30, turns=math.inf))
    history: Sequence[Message] = ()
    async with engine.stream(
        talker, "Hello", mode="values", run_id="mine", history=history, app={"db": None}
    ) as stream:
        assert_type(stream, EventStream[str])
        async for event in stream:
            assert_type(event, AgentEvent)
            print(describe(event))
        assert_type(await stream.receive_batch(), list[AgentEvent])
    history = stream.messages
    assert_type(stream.status, AgentStatus)
    if stream.status is AgentStatus.COMPLETED:
        print(stream.statistics().events)


async def bare() -> None:
    async with StreamEngine() as engine:
        async for event in engine.stream(concierge, "Paris"):
            if event.type == EventType.DONE:
                break


async def result() -> None:
    stream = StreamEngine().stream(planner, "Plan a trip")
    assert_type(stream, EventStream[Trip])
    assert_type(await StreamEngine().stream(talker, "Hello").result(), str)
    images = [Image(path=name) for name in ("a.png", "b.png")]
    assert_type(await StreamEngine().stream(talker, images).result(), str)
    assert_type(await StreamEngine().stream(talker, [Text("Hello"), *images]).result(), str)
    StreamEngine().stream(talker, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await StreamEngine().stream(concierge, "Paris").result(), dict[str, bool])
    try:
        assert_type(await stream.result(), Trip)
    except RunFailed as failed:
        assert_type(failed.error, dict[str, Any])
        print(failed.messages, failed.usage)
    except RunCancelled as cancelled:
        assert_type(cancelled.run_id, str)
    except flowtrio.FlowtrioError:
        raise


def controls(stream: EventStream) -> list[bool]:
    """What a button may call, from any thread."""
    return [
        stream.cancel("stop button"),
        stream.cancel_tool("c1"),
        stream.approve("c1"),
        stream.deny("c1", "too dear"),
        stream.answer("q1", "Ada"),
    ]


def wrong_use() -> None:
    engine = StreamEngine(mode=StreamMode.EVENTS)
    engine.stream(talker)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.stream(not_async, "Hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.stream("Hello", "Hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Agent(Echo())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Limits(runs=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# Serving


class Notebook:
    """A store of one's own."""

    async def load(self, tenant_id: str, session_id: str) -> list[Message]:
        """Give what was said."""
        return []

    async def save(self, tenant_id: str, session_id: str, messages: Sequence[Message]) -> None:
        """Keep what was said."""

    async def delete(self, tenant_id: str, session_id: str) -> None:
        """Forget what was said."""


stores: list[ConversationStore] = [Notebook(), MemoryConversations(max_messages=20)]


async def who(request: Request) -> str | None:
    """Say whose a request is."""
    return request.headers.get("x-tenant")


guards: list[Authenticate] = [who, lambda request: request.query.get("tenant")]


async def choose(message: str, ctx: RunContext) -> AgentLike:
    """Choose who answers."""
    return talker if len(message) < 100 else concierge


async def serve() -> None:
    async with Orchestrator(
        llm_client=DemoClient(),
        agents=[talker, concierge],
        route=choose,
        conversations=Notebook(),
        runs_per_tenant=4,
        on_busy="cancel",
    ) as orchestrator:
        stream = orchestrator.process_stream("Hello", tenant_id="ada", session_id="1")
        assert_type(stream, EventStream)
        print(await orchestrator.process("Hello", app={"db": None}))
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(
                    serve_websocket,
                    orchestrator,
                    "127.0.0.1",
                    0,
                    authenticate=who,
                    limits=ServerLimits(connections=10),
                )
            )


# Testing


async def a_test_of_an_agent() -> None:
    with ScriptedModel([ToolCall(id="1", name="forecast", arguments={"city": "Paris"})]) as model:
        async with StreamEngine().stream(talker.replace(llm_client=model), "Hello") as stream:
            log = [event async for event in stream]
    check_events(log)
    assert_type(find_violations(log, whole=False), list[Violation])
    assert_type(list(project(StreamMode.MESSAGES, log)), list[AgentEvent])
    for run in every_fault(talker, "Hello", app=dict, kinds=("fail", "cancel")):
        assert_type(run, SimulatedRun)


# Tools from elsewhere


async def rows(ctx: RunContext, arguments: dict[str, Any]) -> list[str]:
    return [ctx.run_id, *arguments]


def plain_rows(arguments: dict[str, Any]) -> int:
    return len(arguments)


def tools_from_a_schema() -> None:
    schema = {"type": "object"}
    made = Tool.from_schema(plain_rows, name="rows", description="Rows.", parameters=schema)
    assert_type(made({"a": 1}), int)
    Tool.from_schema(rows, name="rows", description="", parameters=schema, timeout=5, retries=1)
    Tool.from_schema(
        rows, name="rows", description="", parameters=schema, validate=lambda given: bool(given)
    )


class Bank:
    async def tools(self, ctx: RunContext) -> Sequence[Tool[..., Any]]:
        return [Tool.from_schema(rows, name="rows", description="", parameters={})]


class Lister:
    async def tools(self, ctx: RunContext) -> list[Any]:
        return [plain_rows]


def toolsets() -> None:
    bank: Toolset = Bank()
    Agent(llm_client=DemoClient(), tools=[bank, Lister(), rows])
    Orchestrator(llm_client=DemoClient(), tools=[Bank()])
    Agent(llm_client=DemoClient(), tools=[7])  # type: ignore[list-item]


async def servers() -> None:
    async with (
        mcp_tools("https://host.test/mcp", prefix="a_", approval=["delete"]) as far,
        mcp_tools(["uvx", "server"], only={"read"}, approval=lambda name, given: True) as near,
    ):
        assert_type(far, McpTools)
        orchestrator = Orchestrator(llm_client=DemoClient(), tools=[far, near])
        await serve_mcp(orchestrator, name="ask")
        async with mcp_tools(mcp_server(orchestrator)) as own:
            Agent(llm_client=DemoClient(), tools=[own])


# Telemetry: of one's own, and OpenTelemetry's


class Counting:
    """Hears, and no more."""

    def observe(self, event: AgentEvent) -> None:
        """See `flowtrio.abc.Telemetry`."""


class CountingRun(Counting):
    """Does all that the telemetry of one run may do, by methods."""

    @property
    def log_keys(self) -> Mapping[str, str]:
        """See `flowtrio.abc.RunTelemetry`."""
        return {"trace_id": "7"}

    async def around_agent(self, ctx: RunContext, proceed: Callable[[], Awaitable[Any]], /) -> Any:
        """See `flowtrio.abc.RunTelemetry`."""
        return await proceed()

    async def around_tool(
        self, ctx: RunContext, call: ToolCall, proceed: Callable[[], Awaitable[Any]], /
    ) -> Any:
        """See `flowtrio.abc.RunTelemetry`."""
        return await proceed()


class Waiting:
    """Would have to be awaited."""

    async def observe(self, event: AgentEvent) -> None:
        """Is no telemetry's."""


def telemetry() -> None:
    tracing = OpenTelemetry(content=True, conventions="1.41.0")
    of_run: RunTelemetry = tracing.of_run("run", "tenant")
    of_mine: RunTelemetry = CountingRun()
    per_run: TelemetryPerRun = tracing
    every: list[Telemetry] = [tracing, of_run, of_mine, per_run, Counting()]
    for each in every:
        StreamEngine(telemetry=each)
        Orchestrator(llm_client=DemoClient(), telemetry=each)
    StreamEngine(telemetry=Waiting())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    logging.StreamHandler().addFilter(LogFilter())
