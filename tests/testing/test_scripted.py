"""`ScriptedModel`: it plays what was written, and fails a test that strays from it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from flowtrio import (
    Agent,
    Chunk,
    EventStream,
    RemoteProtocolError,
    RunContext,
    RunFailed,
    StreamEngine,
    ToolCall,
    Usage,
    tool,
)
from flowtrio.testing import (
    CUT,
    FunctionModel,
    ScriptedModel,
    ScriptedRequest,
    SimulatedModel,
    check_events,
    every_fault,
    simulate,
)

HELLO = [{"role": "user", "content": "hello"}]


async def play(*steps: Any) -> list[Chunk]:
    """The chunks of one turn."""
    with ScriptedModel(list(steps)) as model:
        return [chunk async for chunk in model.stream_completion(HELLO)]


async def test_a_text_is_a_turn() -> None:
    with ScriptedModel("hello") as model:
        completion = await model.complete(HELLO)

    assert (completion.content, completion.finish_reason) == ("hello", "stop")
    assert completion.usage == Usage(prompt_tokens=10, completion_tokens=5)


async def test_steps_are_played_in_their_order(autojump_clock: MockClock) -> None:
    begun = trio.current_time()
    model = ScriptedModel(
        [
            "a",
            2,
            "b",
            ToolCall("c1", "look", {"at": 1}),
            Usage(prompt_tokens=1, completion_tokens=2),
        ]
    )
    times = {}
    async for chunk in model.stream_completion(HELLO):
        times[trio.current_time() - begun] = chunk

    assert list(times) == [0, 2]
    final = times[2]
    assert final.is_final
    assert final.tool_calls == [ToolCall("c1", "look", {"at": 1})]
    assert (final.finish_reason, final.usage) == (
        "tool_calls",
        Usage(prompt_tokens=1, completion_tokens=2),
    )


async def test_a_call_is_written_in_two_fragments() -> None:
    chunks = await play("x", ToolCall("c1", "look", {"at": 1}), ToolCall("c2", "go", None, "{bad"))
    args = [args for chunk in chunks for args in chunk.tool_args]

    assert [(a.index, a.id, a.name) for a in args] == [
        *[(0, "c1", "look")] * 2,
        *[(1, "c2", "go")] * 2,
    ]
    assert "".join(a.text for a in args[:2]) == '{"at": 1}'
    assert "".join(a.text for a in args[2:]) == "{bad"


async def test_an_exception_is_raised_where_it_stands() -> None:
    stream = ScriptedModel(["a", ZeroDivisionError(), "b"]).stream_completion(HELLO)
    assert (await anext(stream)).content == "a"
    with pytest.raises(ZeroDivisionError):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_cut_ends_a_turn_without_its_mark() -> None:
    assert [(c.content, c.is_final) for c in await play("a", CUT, "b")] == [("a", False)]
    with pytest.raises(RemoteProtocolError, match="without its finish mark"):
        await ScriptedModel(["a", CUT]).complete(HELLO)


async def test_chunks_are_played_as_they_are() -> None:
    final = Chunk(is_final=True, finish_reason="length")
    assert await play(Chunk(reasoning="hm"), final) == [Chunk(reasoning="hm"), final]


@pytest.mark.parametrize("make", [ScriptedModel, lambda *turns: SimulatedModel(turns)])
@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({}, r"expected a text, seconds, a ToolCall, .* or CUT, got dict"),
        (None, "got NoneType"),
        (True, "got bool"),
        (ValueError, "expected an exception, got the class ValueError: call it"),
        (-1, "expected seconds of silence from 0, got -1"),
        (math.nan, "expected seconds of silence from 0, got nan"),
    ],
)
def test_what_is_no_step_is_refused_with_its_place_when_it_is_written(
    make: Any, step: Any, expected: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^turn 2, step 3: .*{expected}"):
        make("a", ["b", 0.5, step])


@pytest.mark.parametrize("turn", [ToolCall("1", "look", {}), {"content": "b"}, b"b", 3])
def test_what_is_no_turn_is_refused_with_its_place(turn: Any) -> None:
    name = type(turn).__name__
    with pytest.raises(TypeError, match=f"turn 2: expected a text or a list of steps, got {name}"):
        ScriptedModel("a", turn)


def test_one_text_is_no_list_of_turns() -> None:
    with pytest.raises(TypeError, match="expected a list of turns, got one text"):
        SimulatedModel("hello")


@pytest.mark.parametrize("step", [math.inf, 0, Usage(), Chunk(content="x"), CUT, ValueError("x")])
def test_what_is_a_step_is_taken(step: Any) -> None:
    ScriptedModel(["a", step])


async def test_requests_are_kept() -> None:
    spec: Any = {"type": "function", "function": {"name": "look"}}
    model = ScriptedModel("a")
    await model.complete(HELLO, [spec], temperature=0)

    [request] = model.requests
    assert request.messages == HELLO
    assert request.tools == [spec]
    assert request.options == {"temperature": 0}


# Strictness


async def test_a_request_without_a_turn_fails_now_and_at_the_end() -> None:
    model = ScriptedModel("a")
    await model.complete(HELLO)
    with pytest.raises(AssertionError, match="request 2: no turn is left"):
        model.stream_completion(HELLO)
    with pytest.raises(AssertionError, match="a request failed: request 2"):
        model.check()


async def test_a_conversation_that_a_provider_refuses_fails() -> None:
    model = ScriptedModel("a")
    with pytest.raises(AssertionError, match="role 'robot'"):
        model.stream_completion([{"role": "robot", "content": "x"}])
    with pytest.raises(AssertionError, match="a request failed"):
        model.check()


def test_a_turn_that_was_not_asked_for_fails() -> None:
    with pytest.raises(AssertionError, match="2 turns were not asked for"):
        with ScriptedModel("a", "b"):
            pass


async def test_a_reply_that_is_left_open_fails() -> None:
    model = ScriptedModel(["a", "b"])
    reply = model.stream_completion(HELLO)
    await anext(reply)
    with pytest.raises(AssertionError, match="1 replies were left open"):
        model.check()

    await reply.aclose()
    await reply.aclose()
    model.check()


async def test_a_reply_that_was_not_begun_is_not_open() -> None:
    with ScriptedModel("a") as model:
        async with model.stream_completion(HELLO):
            pass


def test_a_block_that_fails_tells_its_own_error() -> None:
    with pytest.raises(ZeroDivisionError):
        with ScriptedModel("a"):
            raise ZeroDivisionError


async def test_a_cancelled_reply_is_closed(autojump_clock: MockClock) -> None:
    with ScriptedModel(["a", 9, "b"]) as model:
        reply = model.stream_completion(HELLO)
        await anext(reply)
        with trio.move_on_after(1):
            await anext(reply)


async def test_in_a_run_it_sees_what_the_tools_gave() -> None:
    @tool
    async def look(at: int) -> str:
        """Look."""
        return f"saw {at}"

    with ScriptedModel(["let me see", ToolCall("c1", "look", {"at": 3})], "done") as model:
        async with StreamEngine() as engine:
            async with engine.stream(Agent(llm_client=model, tools=[look]), "hi") as stream:
                check_events([event async for event in stream])

    assert model.requests[1].messages[-1]["content"] == "saw 3"
    assert [spec["function"]["name"] for spec in model.requests[0].tools] == ["look"]


# Agents that ask side by side


@tool
async def rest(seconds: float) -> str:
    """Take some time."""
    await trio.sleep(seconds)
    return "rested"


RESTS = [ToolCall("r", "rest", {"seconds": 1})]


def two_that_ask(model: Any, *, second: Any = None, apart: float = 0) -> Any:
    """An agent that delegates to two at once, whose models may be the same."""
    first = Agent(llm_client=model, tools=[rest], name="first")
    other = Agent(llm_client=second or model, tools=[rest], name="second")

    async def both(ctx: RunContext, message: str) -> list[str]:
        answers: dict[str, str] = {}

        async def ask(agent: Agent[str], seconds: float) -> None:
            await trio.sleep(seconds)
            answers[agent.name] = await ctx.delegate(agent, message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, first, 0)
            nursery.start_soon(ask, other, apart)
        return [answers["first"], answers["second"]]

    return both


@pytest.mark.parametrize(
    ("turns", "apart"), [(("a", "b"), 0), ((RESTS, "a", "b"), 0), ((RESTS, "a", "b"), 0.5)]
)
def test_one_model_of_two_agents_side_by_side_says_so(turns: Any, apart: float) -> None:
    model = ScriptedModel(*turns)
    run = simulate(two_that_ask(model, apart=apart), "go")

    assert run.status == "error"
    assert isinstance(run.error, RunFailed)
    told = r"request 2: .* asks while .*, which has asked too, is at work: .* by chance"
    with pytest.raises(AssertionError, match=f"a request failed: {told}"):
        model.check()


async def test_two_runs_at_once_say_so_too(autojump_clock: MockClock) -> None:
    model = ScriptedModel(["a", 1], "b")
    agent = Agent(llm_client=model)
    ends: list[str] = []

    async def read(stream: EventStream) -> None:
        async with stream:
            ends.append([event async for event in stream][-1].data["status"])

    async with StreamEngine() as engine, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(read, engine.stream(agent, "hi"))
    assert sorted(ends) == ["completed", "error"]
    with pytest.raises(AssertionError, match="which turn is whose would be by chance"):
        model.check()


def test_side_by_side_each_has_a_model_of_its_own_or_all_say_the_same() -> None:
    with ScriptedModel(RESTS, "a") as one, ScriptedModel(RESTS, "b") as other:
        assert simulate(two_that_ask(one, second=other), "go").result == ["a", "b"]
    with ScriptedModel("a", "a") as model:
        assert simulate(two_that_ask(model), "go").result == ["a", "a"]


def test_agents_that_wait_for_one_another_may_share_a_model() -> None:
    model = ScriptedModel(
        [ToolCall("p1", "helper", {"message": "one"})],
        RESTS,
        "helped",
        [ToolCall("p2", "helper", {"message": "two"})],
        "helped again",
        "done",
    )
    helper = Agent(llm_client=model, tools=[rest], name="helper")

    @tool(name="helper")
    async def ask_helper(ctx: RunContext, message: str) -> str:
        """Ask a helper."""
        return str(await ctx.delegate(helper, message))

    with model:
        run = simulate(Agent(llm_client=model, tools=[ask_helper]), "go")

    assert run.result == "done"
    assert [call.result for call in run.calls("helper")] == ["helped", "helped again"]


async def test_what_was_left_to_itself_is_beside_whoever_asks_next() -> None:
    model = ScriptedModel(["a", 5], "b", "c")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(model.complete, HELLO)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(AssertionError, match=r"request 2: .* asks while .*complete"):
            model.stream_completion(HELLO)
        nursery.cancel_scope.cancel()


async def test_what_was_answered_already_and_lingers_on_is_no_matter_to_whoever_began_it() -> None:
    model = ScriptedModel("a", "b")

    async def ask_and_linger(task_status: trio.TaskStatus[str]) -> None:
        task_status.started((await model.complete(HELLO)).content)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        first = await nursery.start(ask_and_linger)
        second = (await model.complete(HELLO)).content
        nursery.cancel_scope.cancel()

    assert (first, second) == ("a", "b")
    assert repr(model) == "<ScriptedModel asked=2 left=0>"


def parent_that_asks_beside_its_child(model: Any) -> Any:
    """An agent that has another answer in the background, and asks meanwhile."""
    one = Agent(llm_client=model, tools=[rest], name="one")

    async def parent(ctx: RunContext, message: str) -> list[str]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.delegate, one, message)
            said = [await ctx.delegate(one, message) for _ in range(2)]
        return said

    return parent


@pytest.mark.parametrize("turns", [("a", RESTS, "b", "c", "d"), (RESTS, "a", "b", "c", "d")])
def test_a_parent_that_asks_beside_its_child_says_so_in_every_order(turns: Any) -> None:
    for seed in range(40):
        model = ScriptedModel(*turns)
        simulate(parent_that_asks_beside_its_child(model), "go", schedule=seed)
        with pytest.raises(AssertionError, match="which turn is whose would be by chance"):
            model.check()


async def test_a_child_that_asks_after_its_parent_asked_beside_it_says_so() -> None:
    model = ScriptedModel("a", "b")
    may_ask = trio.Event()

    async def ask() -> None:
        await may_ask.wait()
        with pytest.raises(AssertionError, match=r"request 2: .* by chance"):
            model.stream_completion(HELLO)

    async def have_it_asked() -> None:
        await may_ask.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)

    for child in ask, have_it_asked:
        model, may_ask = ScriptedModel("a", "b"), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await model.complete(HELLO)
            may_ask.set()


async def test_a_child_that_asks_while_its_parent_is_being_answered_says_so() -> None:
    model = ScriptedModel("a", "b")

    async def ask() -> None:
        with pytest.raises(AssertionError, match=r"request 2: .* by chance"):
            model.stream_completion(HELLO)

    async with trio.open_nursery() as nursery, model.stream_completion(HELLO) as reply:
        nursery.start_soon(ask)
        async for _ in reply:
            pass


async def test_a_parent_that_does_not_wait_for_its_child_says_so() -> None:
    model = ScriptedModel("a", "b")

    async def ask_and_linger() -> None:
        await model.complete(HELLO)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_linger)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(AssertionError, match=r"request 2: .* by chance"):
            model.stream_completion(HELLO)
        nursery.cancel_scope.cancel()


async def test_a_child_that_its_parent_waits_for_may_ask_in_the_midst_of_a_reply() -> None:
    with ScriptedModel(["a", "b"], "c", "d") as model:
        async with model.stream_completion(HELLO) as reply:
            async for _ in reply:
                break
            async with trio.open_nursery() as nursery:
                nursery.start_soon(model.complete, HELLO)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(model.complete, HELLO)


def test_outside_a_loop_requests_are_in_order() -> None:
    model = ScriptedModel("a", "b")
    for _ in range(2):
        model.stream_completion(HELLO)

    assert len(model.requests) == 2


# Functions


def echo(request: ScriptedRequest) -> Any:
    """Call once, then say what came of it."""
    last = request.messages[-1]
    return RESTS if last["role"] == "user" else ["It ", last["content"]]


async def test_a_function_answers_each_request() -> None:
    with FunctionModel(echo) as model:
        first = await model.complete(HELLO, temperature=0)
        second = await model.complete(HELLO)

    assert first.tool_calls == second.tool_calls == RESTS
    assert [request.options for request in model.requests] == [{"temperature": 0}, {}]
    assert repr(model) == "<FunctionModel asked=2>"


def test_agents_side_by_side_may_share_a_function_and_so_may_runs() -> None:
    model = FunctionModel(echo)

    assert simulate(two_that_ask(model), "go", schedule=5).result == ["It rested"] * 2
    runs = every_fault(Agent(llm_client=model, tools=[rest]), "go", kinds="fail")
    assert [run.result for run in runs] == [
        "It rested",
        "It error: SimulatedFailure: drawn for wait 0",
        "It error: SimulatedFailure: drawn for wait 1",
    ]


async def test_what_a_function_finds_wrong_and_what_it_gives_wrong_are_told() -> None:
    def picky(request: ScriptedRequest) -> Any:
        assert request.tools, "expected tools"

    model = FunctionModel(picky)
    with pytest.raises(AssertionError, match="expected tools"):
        await model.complete(HELLO)
    with pytest.raises(AssertionError, match="a request failed: expected tools"):
        model.check()
    with pytest.raises(TypeError, match="turn 1: expected a text or a list of steps, got NoneType"):
        await model.complete(HELLO, [{"type": "function", "function": {"name": "look"}}])
    with pytest.raises(AssertionError, match="role 'robot'"):
        await FunctionModel(echo).complete([{"role": "robot", "content": "x"}])


async def test_a_reply_of_a_function_that_is_left_open_fails() -> None:
    model = FunctionModel(lambda request: ["a", "b"])
    await anext(model.stream_completion(HELLO))
    with pytest.raises(AssertionError, match="1 replies were left open"):
        model.check()
