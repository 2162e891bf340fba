"""What an agent, a run and a tool may be given beside their work: settings, budgets, tries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import attrs
import pytest
import trio

from flowtrio import (
    Agent,
    Chunk,
    EventType,
    LimitExceeded,
    Limits,
    Orchestrator,
    RunContext,
    RunFailed,
    StreamEngine,
    ToolCall,
    Usage,
    tool,
)
from flowtrio.testing import FunctionModel, ScriptedModel, check_events

PRICES = {"m": {"prompt": "1", "completion": "2"}}


class Recording:
    """A model that answers in turn and keeps what it was asked."""

    model = "m"

    def __init__(self, *turns: Chunk) -> None:
        self.turns = list(turns)
        self.asked: list[tuple[Sequence[Any], dict[str, Any]]] = []

    async def stream_completion(self, messages: Any, **options: Any) -> Any:
        self.asked.append((messages, options))
        yield self.turns.pop(0)


def says(text: str, tokens: int = 10, **keys: Any) -> Chunk:
    return Chunk(content=text, is_final=True, usage=Usage(completion_tokens=tokens), **keys)


def calls(name: str, **arguments: Any) -> Chunk:
    call = ToolCall(id="1", name=name, arguments=arguments)
    return Chunk(is_final=True, tool_calls=[call], usage=Usage(completion_tokens=10))


async def run(agent: Any, **options: Any) -> list[Any]:
    prices = options.pop("prices", None)
    stream = StreamEngine(prices=prices).stream(agent, "hi", **options)
    events = [event async for event in stream]

    check_events(events)
    return events


@tool
async def look() -> str:
    """Look."""
    return "seen"


# Instructions and settings


@pytest.mark.parametrize("is_async", [False, True])
async def test_instructions_may_be_a_function_of_the_context(is_async: bool) -> None:
    def plain(ctx: RunContext) -> str:
        return f"You serve {ctx.tenant_id} in {ctx.app}."

    async def later(ctx: RunContext) -> str:
        await trio.lowlevel.checkpoint()
        return plain(ctx)

    model = Recording(calls("look"), says("done"))
    agent = Agent(llm_client=model, instructions=later if is_async else plain, tools=[look])
    await run(agent, app="Rome")

    assert [messages[0]["content"] for messages, _ in model.asked] == [
        "You serve default in Rome."
    ] * 2


async def test_instructions_that_give_no_text_end_the_run() -> None:
    agent = Agent(llm_client=Recording(), instructions=lambda ctx: 3)  # type: ignore[arg-type,return-value]
    events = await run(agent)

    [error] = [event.data["error"] for event in events if event.type is EventType.ERROR]
    assert "instructions: expected the function to give a str, got 3" in error
    with pytest.raises(TypeError, match=r"Agent\(instructions=3\): expected a text, or a function"):
        Agent(llm_client=Recording(), instructions=3)  # type: ignore[arg-type]


async def test_settings_reach_the_model_and_a_forced_call_is_asked_for_once() -> None:
    model = Recording(calls("look"), says("done"))
    agent = Agent(
        llm_client=model,
        tools=[look],
        model_settings={"temperature": 0, "tool_choice": "required"},
    )
    await run(agent)

    assert [options["temperature"] for _, options in model.asked] == [0, 0]
    assert ["tool_choice" in options for _, options in model.asked] == [True, False]


@pytest.mark.parametrize("choice", ["auto", "none"])
async def test_a_choice_that_forces_nothing_holds_for_all_turns(choice: str) -> None:
    model = Recording(calls("look"), says("done"))
    await run(Agent(llm_client=model, tools=[look], model_settings={"tool_choice": choice}))

    assert [options["tool_choice"] for _, options in model.asked] == [choice, choice]


@pytest.mark.parametrize("given", [3, "temperature", {3: 4}, {"tools": []}, {"output_schema": 1}])
def test_settings_that_are_none_are_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="model_settings"):
        Agent(llm_client=Recording(), model_settings=given)


# Budgets


@pytest.mark.parametrize(
    ("limits", "name", "replies"),
    [
        (Limits(tokens=10), "tokens", 2),
        (Limits(tokens=9), "tokens", 1),
        (Limits(cost="0.00002"), "cost", 2),  # type: ignore[arg-type]
        (Limits(cost=0.00001), "cost", 1),  # type: ignore[arg-type]
        (Limits(requests=1), "requests", 1),
    ],
)
async def test_a_run_ends_behind_the_reply_that_passed_its_budget(
    limits: Limits, name: str, replies: int
) -> None:
    model = Recording(calls("look"), calls("look"), says("done"))
    events = await run(Agent(llm_client=model, tools=[look]), limits=limits, prices=PRICES)

    [error] = [event.data for event in events if event.type is EventType.ERROR]
    assert (error["source"], error["limit"]) == ("limit", name)
    assert len(model.asked) == replies


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(tokens=15), "tokens"),
        (Limits(cost="0.00003"), "cost"),  # type: ignore[arg-type]
        (Limits(requests=2), "requests"),
    ],
)
@pytest.mark.parametrize("is_caught", [False, True])
async def test_no_model_is_asked_once_more_where_a_tools_agent_passed_the_budget(
    limits: Limits, name: str, is_caught: bool
) -> None:
    model, inner = Recording(calls("research"), says("done")), Recording(says("a"), says("b"))

    @tool(retries=1)
    async def research(ctx: RunContext) -> str:
        """Ask another agent."""
        try:
            return await ctx.delegate(Agent(llm_client=inner), "go")
        except LimitExceeded:
            if is_caught:
                return "nothing"
            raise

    events = await run(Agent(llm_client=model, tools=[research]), limits=limits, prices=PRICES)

    [error] = [event.data for event in events if event.type is EventType.ERROR]
    assert (error["source"], error["limit"]) == ("limit", name)
    assert (len(model.asked), len(inner.asked)) == (1, 1)


async def test_a_cost_that_nobody_knows_passes_a_limit_of_cost() -> None:
    agent = Agent(llm_client=Recording(says("done")))
    events = await run(agent, limits=Limits(cost=1))  # type: ignore[arg-type]

    [error] = [event.data for event in events if event.type is EventType.ERROR]
    assert (error["source"], error["limit"]) == ("limit", "cost")
    assert "expected prices=" in error["error"]


async def test_within_its_budget_a_run_is_as_ever() -> None:
    model = Recording(calls("look"), says("done"))
    limits = Limits(tokens=20, cost=Decimal("0.00004"), requests=2)
    events = await run(Agent(llm_client=model, tools=[look]), limits=limits, prices=PRICES)

    assert events[-1].data["status"] == "completed"


@pytest.mark.parametrize("name", ["tokens", "cost", "requests"])
@pytest.mark.parametrize("value", [0, -1, math.nan, "no", True, "-1", "nan", "inf", [1]])
def test_a_budget_is_a_number_above_nought(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"Limits\({name}=.*: expected a number above 0"):
        Limits(**{name: value})


# One run


async def test_a_run_brings_tools_settings_limits_and_history_of_its_own() -> None:
    model = Recording(calls("look"), says("done"))
    orchestrator = Orchestrator(
        agents=[Agent(llm_client=model, model_settings={"temperature": 0, "top_p": 1})]
    )
    result = await orchestrator.process(
        "hi",
        tools=[look],
        model_settings={"temperature": 1},
        history=[{"role": "user", "content": "before"}, {"role": "assistant", "content": "yes"}],
        limits=Limits(requests=2),
    )

    assert result == "done"
    [(messages, options), _] = model.asked
    assert [message["content"] for message in messages] == ["before", "yes", "hi"]
    assert (options["temperature"], options["top_p"]) == (1, 1)
    assert [spec["function"]["name"] for spec in options["tools"]] == ["look"]


PHOTO = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
LOOKED = [
    {"role": "user", "content": "Look!"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "a loom"},
]


@pytest.mark.parametrize(
    ("history", "text"),
    [
        ([{"role": "user", "content": "Who?"}], "Who?"),
        ([*LOOKED, {"role": "user", "content": "And now?"}], "And now?"),
        ([{"role": "user", "content": [{"type": "text", "text": "This?"}, PHOTO]}], "This?"),
        (LOOKED, ""),
    ],
)
async def test_without_a_message_a_run_goes_on_from_its_history(
    history: list[Any], text: str
) -> None:
    model = Recording(says("done"))
    stream = Orchestrator(llm_client=model).process_stream(None, history=history)
    events = [event async for event in stream]

    check_events(events)
    [(messages, _)] = model.asked
    assert messages == history
    assert stream.messages == [*history, {"role": "assistant", "content": "done"}]
    assert events[0].data["message"] == text
    assert len(events[0].data["parts"]) == ("This?" in str(history))


async def test_where_there_is_nothing_to_go_on_from_that_is_told() -> None:
    orchestrator = Orchestrator(llm_client=Recording())
    answered = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for history in (None, [], answered):
        with pytest.raises(ValueError, match=r"message=None: expected a history= that ends with"):
            orchestrator.process_stream(None, history=history)
    with pytest.raises(ValueError, match="message=None"):
        await orchestrator.process(None, session_id="s")
    with pytest.raises(TypeError, match="history"):
        await orchestrator.process(None, history=["hi"])
    # A message that is empty is one all the same, behind anything but results of tools.
    model = Recording(says("done"))
    await Orchestrator(llm_client=model).process("", history=answered)
    assert [each["content"] for each in model.asked[0][0]] == ["a", "b", "(no text)"]


async def test_what_a_run_brings_is_for_its_root_agent_alone() -> None:
    inner = Recording(says("inner"))

    async def body(ctx: RunContext, message: str) -> Any:
        return await ctx.delegate(Agent(llm_client=inner), message)

    await Orchestrator(agents=[body]).process("hi", tools=[look], model_settings={"top_p": 1})

    assert inner.asked[0][1] == {}


async def test_a_hosted_run_brings_them_too() -> None:
    model = Recording(calls("look"), says("done"))
    async with Orchestrator(agents=[Agent(llm_client=model)]) as orchestrator:
        run_id = await orchestrator.start("hi", tools=[look])
        events = [event async for event in orchestrator.attach(run_id)]

    assert events[-1].data["status"] == "completed"


async def test_what_cannot_be_one_runs_is_refused_when_it_is_made() -> None:
    orchestrator = Orchestrator(llm_client=Recording(), tools=[look])
    with pytest.raises(ValueError, match="a conversation has its own history"):
        orchestrator.process_stream("hi", session_id="s", history=[])
    with pytest.raises(TypeError, match="model_settings"):
        orchestrator.process_stream("hi", model_settings={"tools": []})
    with pytest.raises(TypeError, match="expected a list of tools"):
        orchestrator.process_stream("hi", tools=look)  # type: ignore[arg-type]
    with pytest.raises(RunFailed, match="names of their own: look"):
        await orchestrator.process("hi", tools=[look])


# Tries of a tool


async def ends_of(**options: Any) -> tuple[list[tuple[str, Any]], list[float], list[int | None]]:
    times: list[float] = []
    attempts: list[int | None] = []

    @tool(**options)
    async def flaky(ctx: RunContext) -> str:
        """Fail twice."""
        times.append(trio.current_time())
        attempts.append(ctx.attempt)
        if len(times) < 3:
            raise LookupError if len(times) == 1 else KeyError
        return "done"

    agent = Agent(
        llm_client=ScriptedModel(
            [ToolCall(id="1", name="flaky", arguments={})],
            ["ok"],
        ),
        tools=[flaky],
    )
    events = await run(agent)
    ends = [
        (event.data["outcome"], event.data["result"])
        for event in events
        if event.type is EventType.TOOL_CALL_END
    ]
    return ends, [time - times[0] for time in times], attempts


async def test_tries_wait_twice_as_long_each_time(autojump_clock: trio.testing.MockClock) -> None:
    ends, times, attempts = await ends_of(retries=2, backoff=0.5)

    assert ends == [("ok", "done")]
    assert times == pytest.approx([0, 0.5, 1.5])
    assert attempts == [1, 2, 3]


async def test_only_what_is_named_is_tried_again() -> None:
    ends, _, attempts = await ends_of(retries=5, retry_on=(KeyError,))
    assert ends[0][0] == "error"
    assert attempts == [1]

    ends, _, _ = await ends_of(retries=5, retry_on=LookupError)
    assert ends == [("ok", "done")]


@pytest.mark.parametrize(
    "options",
    [
        *({"backoff": -1}, {"backoff": "1"}, {"backoff": math.nan}),
        *({"retry_on": ()}, {"retry_on": "x"}, {"retry_on": BaseException}, {"retry_on": (int,)}),
    ],
)
def test_tries_that_cannot_be_are_refused(options: Any) -> None:
    async def fn() -> None: ...

    with pytest.raises(ValueError, match="expected"):
        tool(**options)(fn)


# Parts of a message, and the context's type


async def test_an_agent_adds_citations_of_its_own() -> None:
    async def cites(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            await out.write("Rome was founded in 753 BC.")
            await out.part("citation", url="https://example.org", title="Rome")
            with pytest.raises(TypeError):
                await out.part(3)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await out.part("citation", url=object())

    events = await run(cites)

    [part] = [event.data["part"] for event in events if event.type is EventType.MESSAGE_PART]
    assert part == {"type": "citation", "url": "https://example.org", "title": "Rome"}


@attrs.frozen
class Shop:
    name: str


async def test_a_context_of_an_application_is_a_tools_context_as_well() -> None:
    @tool
    async def whose(ctx: RunContext[Shop]) -> str:
        """Say whose it is."""
        return ctx.app.name

    @tool
    async def whose_else(ctx: RunContext[Shop] | None = None) -> str:
        """Say whose it is."""
        assert ctx is not None
        return ctx.app.name

    async def body(ctx: RunContext[Shop], message: str) -> list[str]:
        return [await ctx.call(whose), await ctx.call(whose_else)]

    assert whose.parameters["properties"] == whose_else.parameters["properties"] == {}
    events = await run(body, app=Shop("Anna's"))

    assert events[-1].data["result"] == ["Anna's", "Anna's"]


async def test_results_have_the_types_of_what_is_called() -> None:
    @tool
    def half(number: int) -> float:
        """Halve."""
        return number / 2

    async def length(ctx: RunContext, message: str) -> int:
        return len(message)

    async def body(ctx: RunContext, message: str) -> float:
        halved: float = await ctx.call(half, number=3)
        counted: int = await ctx.delegate(length, "abc")
        return halved + counted

    events = await run(body)

    assert events[-1].data["result"] == 4.5


async def test_a_function_model_serves_where_a_request_decides() -> None:
    agent = Agent(
        llm_client=FunctionModel(lambda request: "seen"), model_settings={"temperature": 0}
    )
    events = await run(agent)

    assert events[-1].data["result"] == "seen"
