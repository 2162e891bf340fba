"""Calls of a reply: each is answered once, under its own id, however a body runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import attrs
import pytest
import trio
from pydantic import AfterValidator, BaseModel

from flowtrio import (
    Chunk,
    Completion,
    EventStream,
    EventType,
    RunContext,
    Tool,
    ToolCall,
    ToolFailed,
    tool,
)
from flowtrio._core._fit import NOT_RUN
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import Diary, agent_of, call, contents, only, play, runner

T = EventType


@tool
async def pay(amount: int, currency: str = "EUR") -> str:
    """Pay."""
    return f"paid {amount} {currency}"


@tool
async def fails() -> None:
    """Fail."""
    raise ValueError("planted")


def paying(*amounts: int) -> list[ToolCall]:
    return [ToolCall(f"p{n}", "pay", {"amount": amount}) for n, amount in enumerate(amounts)]


def starts(log: Any) -> list[tuple[str, Any, Any]]:
    return [
        (data["call_id"], data["message_id"], data["arguments"])
        for data in only(log, T.TOOL_CALL_START)
    ]


def results(played: Any) -> list[Any]:
    """What the conversation says of its calls."""
    return [m["content"] for m in played.stream.messages if m["role"] == "tool"]


# The smallest programs


async def test_what_a_model_asked_for_and_a_body_called_is_paid_once() -> None:
    """`ctx.model(tools=...)`, then `ctx.call(...)`: the next turn is told of the payment."""
    model = ScriptedModel(paying(5))

    async def body(ctx: RunContext) -> str:
        completion = await ctx.model([{"role": "user", "content": "go"}], model, [pay])
        for asked in completion.tool_calls:
            assert asked.arguments is not None
            await ctx.call(pay, **asked.arguments)
        async with ctx.message() as out:
            await out.write("done")
        return "done"

    played = await play(agent_of(body))

    assert contents(played.stream.messages) == [
        *(("user", "go"), ("assistant", None), ("tool", "paid 5 EUR"), ("assistant", "done")),
    ]
    assert starts(played.log) == [("c1", "m1", {"amount": 5})]


async def test_a_line_said_while_a_call_is_open_leaves_its_result(autojump_clock: Any) -> None:
    @tool
    async def slow() -> str:
        """Take a while."""
        await trio.sleep(5)
        return "paid"

    agent = runner(ScriptedModel([call("slow")], "done"), slow)

    async def body(ctx: RunContext) -> str:
        async def tick() -> None:
            await trio.sleep(1)
            async with ctx.message() as out:
                await out.write("still working")

        ctx.start_soon(tick)
        return await agent(ctx, "go")

    played = await play(agent_of(body))

    assert contents(played.stream.messages) == [
        *(("user", "go"), ("assistant", "still working")),
        *(("assistant", None), ("tool", "paid"), ("assistant", "done")),
    ]


async def test_a_line_said_while_a_body_answers_leaves_the_result_too(autojump_clock: Any) -> None:
    async def slow() -> str:
        """Take a while."""
        await trio.sleep(5)
        return "paid"

    async def body(ctx: RunContext) -> None:
        completion = await ctx.model(ctx.messages, ScriptedModel([call("slow")]), [slow])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.run_calls, completion, [slow])
            await trio.sleep(1)
            assert "has not ended" in ctx.messages[2]["content"]
            async with ctx.message() as out:
                await out.write("still working")

    played = await play(agent_of(body))

    assert results(played) == ["paid"]
    assert contents(played.stream.messages)[-1] == ("assistant", "still working")


# ctx.call


async def test_calls_are_answered_in_any_order_and_the_rest_says_so() -> None:
    async def body(ctx: RunContext) -> list[str]:
        completion = await ctx.model(ctx.messages, ScriptedModel(paying(1, 2, 3)), [pay])
        first, _, third = completion.tool_calls
        return [await ctx.call(pay, third), await ctx.call(pay, first)]

    played = await play(agent_of(body))

    assert await played.stream.result() == ["paid 3 EUR", "paid 1 EUR"]
    assert results(played) == ["paid 1 EUR", NOT_RUN, "paid 3 EUR"]
    assert starts(played.log) == [("c3", "m1", {"amount": 3}), ("c1", "m1", {"amount": 1})]


async def test_defaults_count_and_the_oldest_of_equals_is_answered_first() -> None:
    asked = [
        ToolCall("z", "pay", None),
        ToolCall("y", "pay", {"amount": "one"}),
        ToolCall("a", "pay", {"amount": 1}),
        ToolCall("b", "pay", {"amount": 1, "currency": "EUR"}),
        ToolCall("c", "pay", {"amount": 1, "currency": "USD"}),
    ]

    async def body(ctx: RunContext) -> None:
        await ctx.model(ctx.messages, ScriptedModel(asked), [pay])
        await ctx.call(pay, amount=1)
        await ctx.call(pay, currency="USD", amount=1)
        await ctx.call(pay, amount=1)
        await ctx.call(pay, amount=1)

    played = await play(agent_of(body))

    assert [start[:2] for start in starts(played.log)] == [
        *(("c3", "m1"), ("c5", "m1"), ("c4", "m1"), ("c6", None)),
    ]
    assert results(played) == [NOT_RUN, NOT_RUN, "paid 1 EUR", "paid 1 EUR", "paid 1 USD"]


class Order(BaseModel):
    id: int
    note: str = ""


class Code:
    """What pydantic makes of a text, and cannot write."""


@tool
async def book(order: Order) -> int:
    """Book."""
    return order.id


@tool
async def open_door(code: Annotated[Any, AfterValidator(lambda _: Code())]) -> str:
    """Open."""
    return "opened"


@pytest.mark.parametrize(
    ("called", "asked", "given"),
    [
        (book, {"order": {"id": 1}}, {"order": Order(id=1)}),
        (open_door, {"code": "a"}, {"code": "a"}),
    ],
)
async def test_arguments_that_only_pydantic_writes_are_found(
    called: Tool[..., Any], asked: dict[str, Any], given: dict[str, Any]
) -> None:
    async def body(ctx: RunContext) -> None:
        model = ScriptedModel([ToolCall("x", called.name, asked)])
        await ctx.model(ctx.messages, model, [called])
        await ctx.call(called, **given)

    played = await play(agent_of(body))

    assert [start[:2] for start in starts(played.log)] == [("c1", "m1")]
    assert NOT_RUN not in results(played)


async def test_other_arguments_tools_and_replies_are_the_bodys_own() -> None:
    @tool
    async def refund(amount: int) -> str:
        """Give back."""
        return "refunded"

    odd = [ToolCall("x", "pay", None), ToolCall("y", "pay", {"amount": "many"})]

    async def body(ctx: RunContext) -> None:
        earlier = await ctx.model(ctx.messages, ScriptedModel(paying(5)), [pay])
        await ctx.model(ctx.messages, ScriptedModel(odd), [pay])
        await ctx.call(pay, amount=5)
        await ctx.call(refund, amount=5)
        with pytest.raises(ToolFailed, match="Expected `int`"):
            await ctx.call(pay, amount="many")
        await ctx.call(pay, earlier.tool_calls[0])

    played = await play(agent_of(body))

    assert [start[1] for start in starts(played.log)] == [None, None, "m1"]
    assert results(played) == ["paid 5 EUR", NOT_RUN, NOT_RUN]


async def test_a_call_whose_arguments_did_not_parse_ends_in_error() -> None:
    async def body(ctx: RunContext) -> None:
        asked = [ToolCall("x", "pay", None, raw="{")]
        completion = await ctx.model(ctx.messages, ScriptedModel(asked), [pay])
        with pytest.raises(ToolFailed, match="not a JSON object") as caught:
            await ctx.call(pay, completion.tool_calls[0])
        assert caught.value.outcome == "error"

    played = await play(agent_of(body))

    assert only(played.log, T.TOOL_CALL_END)[0]["call_id"] == "c1"
    assert results(played) == ["error: the arguments are not a JSON object"]


async def test_a_call_is_answered_once_and_what_failed_stays_said() -> None:
    async def body(ctx: RunContext) -> None:
        completion = await ctx.model(ctx.messages, ScriptedModel([call("fails")]), [fails])
        for _ in range(2):
            with pytest.raises(ToolFailed, match="planted"):
                await ctx.call(fails, completion.tool_calls[0])

    played = await play(agent_of(body))

    assert [start[:2] for start in starts(played.log)] == [("c1", "m1"), ("c2", None)]
    assert results(played) == ["error: ValueError: planted"]


async def test_a_copy_of_a_call_answers_it_and_a_strangers_does_not() -> None:
    async def body(ctx: RunContext) -> None:
        completion = await ctx.model(ctx.messages, ScriptedModel(paying(1, 2)), [pay])
        first, second = completion.tool_calls
        await ctx.call(pay, ToolCall("", "pay", {"amount": 7}))
        await ctx.call(pay, attrs.evolve(second))
        await ctx.call(pay, attrs.evolve(first, arguments={"amount": 3}))

    played = await play(agent_of(body))

    assert starts(played.log) == [
        ("c3", None, {"amount": 7}),
        ("c2", "m1", {"amount": 2}),
        ("c1", "m1", {"amount": 3}),
    ]
    assert results(played) == ["paid 3 EUR", "paid 2 EUR"]


@pytest.mark.parametrize(
    ("given", "named"), [({"amount": 1}, {}), (ToolCall("a", "pay", {}), {"amount": 1})]
)
async def test_a_call_is_one_of_a_completion_or_named_arguments(given: Any, named: Any) -> None:
    async def body(ctx: RunContext) -> None:
        with pytest.raises(TypeError, match=r"expected one of completion\.tool_calls alone"):
            await ctx.call(pay, given, **named)

    played = await play(agent_of(body))

    assert played.status == "completed"


async def test_a_tool_answers_what_it_asked_for_and_nothing_of_its_agents() -> None:
    @tool
    async def outer(ctx: RunContext, amount: int) -> str:
        """Ask a model, and do as it says."""
        await ctx.call(pay, amount=amount)
        completion = await ctx.model(ctx.messages, ScriptedModel(paying(1)), [pay])
        await ctx.call(pay, amount=1)
        return str(await ctx.call(pay, completion.tool_calls[0]))

    asked = [ToolCall("o", "outer", {"amount": 5}), *paying(5)]

    async def body(ctx: RunContext) -> None:
        completion = await ctx.model(ctx.messages, ScriptedModel(asked), [outer, pay])
        await ctx.call(outer, completion.tool_calls[0])

    played = await play(agent_of(body))

    assert results(played) == ["paid 1 EUR", NOT_RUN]
    assert [start[1] for start in starts(played.log)] == ["m1", None, None, "m2"]


# ctx.run_calls


async def test_a_reply_is_run_as_an_agent_runs_it(autojump_clock: Any) -> None:
    diary = Diary()
    tools = [pay, fails, diary.sleeper("one", 5), diary.sleeper("two", 5)]
    asked = [
        *(call("one"), call("two"), call("fails"), call("ghost"), call("pay", amount="x")),
        ToolCall("", "pay", None),
        call("pay", amount=1),
    ]
    seen: list[Any] = []

    async def body(ctx: RunContext) -> None:
        completion = await ctx.model(ctx.messages, ScriptedModel(asked), tools)
        begun = trio.current_time()
        seen.extend(await ctx.run_calls(completion, tools))
        assert trio.current_time() - begun == 5
        assert [result.call for result in seen] == completion.tool_calls

    played = await play(agent_of(body))

    assert [result.outcome for result in seen] == [
        *("ok", "ok", "error", "error", "error", "error", "ok"),
    ]
    assert [result.call_id for result in seen] == [f"c{number}" for number in range(1, 8)]
    assert [result.text for result in seen] == results(played)
    assert (seen[6].value, seen[6].error) == ("paid 1 EUR", None)
    assert (seen[2].value, seen[2].error) == (None, "ValueError: planted")
    assert seen[3].error == "there is no tool of that name; there are: pay, fails, one, two"


async def test_the_turn_loop_can_be_written_by_hand() -> None:
    model = ScriptedModel([call("pay", amount=1)], [call("pay", amount=2)], "both paid")

    async def body(ctx: RunContext) -> str:
        while True:
            completion = await ctx.model(ctx.messages, model, [pay])
            if not await ctx.run_calls(completion, [pay]):
                return completion.content

    played = await play(agent_of(body))

    assert await played.stream.result() == "both paid"
    assert contents(model.requests[2].messages) == [
        *(("user", "go"), ("assistant", None), ("tool", "paid 1 EUR")),
        *(("assistant", None), ("tool", "paid 2 EUR")),
    ]


async def test_a_completion_from_elsewhere_is_run_as_the_bodys_own() -> None:
    elsewhere = Completion(tool_calls=paying(1, 2))

    async def body(ctx: RunContext) -> list[str]:
        return [result.text for result in await ctx.run_calls(elsewhere, [pay])]

    played = await play(agent_of(body))

    assert await played.stream.result() == ["paid 1 EUR", "paid 2 EUR"]
    assert [start[1] for start in starts(played.log)] == [None, None]
    assert results(played) == []


async def test_calls_that_are_cut_off_end_cancelled(autojump_clock: Any) -> None:
    diary = Diary()
    tools = [diary.sleeper("one"), diary.sleeper("two")]

    async def body(ctx: RunContext) -> str:
        completion = await ctx.model(ctx.messages, ScriptedModel([call("one"), call("two")]), tools)
        with trio.move_on_after(1):
            await ctx.run_calls(completion, tools)
        return "went on"

    played = await play(agent_of(body))

    assert results(played) == ["error: the call was cancelled"] * 2


async def test_a_call_that_is_cancelled_is_a_result(autojump_clock: Any) -> None:
    diary = Diary()
    seen: list[Any] = []

    async def body(ctx: RunContext) -> None:
        completion = await ctx.model(
            ctx.messages, ScriptedModel([call("sleep")]), [diary.sleeper()]
        )
        seen.extend(await ctx.run_calls(completion, [diary.sleeper()]))

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START:
                assert stream.cancel_tool(event.data["call_id"])

    await play(agent_of(body), reader=reader)

    assert [(result.outcome, result.error) for result in seen] == [("cancelled", None)]


async def test_what_a_body_changes_in_a_call_is_not_in_the_log() -> None:
    class Silent:
        """Tells of its call in the last chunk alone."""

        async def stream_completion(self, *args: Any, **options: Any) -> AsyncIterator[Chunk]:
            yield Chunk(is_final=True, tool_calls=paying(1))

    @tool(name="pay")
    async def pay_all(amount: Any) -> str:
        """Pay."""
        return f"paid {amount}"

    async def body(ctx: RunContext) -> None:
        completion = await ctx.model(ctx.messages, Silent(), [pay_all])
        arguments = {"amount": [1]}
        asked = attrs.evolve(completion.tool_calls[0], arguments=arguments)
        await ctx.call(pay_all, asked)
        arguments["amount"].append(2)

    played = await play(agent_of(body))

    assert starts(played.log) == [("c1", "m1", {"amount": [1]})]


@pytest.mark.parametrize("by", ["the call", "its arguments", "the reply"])
async def test_an_answer_that_was_cut_off_before_it_began_is_none(by: str) -> None:
    """No event tells of it, so the call is there to be answered, and the oldest still first."""

    async def body(ctx: RunContext, message: str) -> None:
        model = ScriptedModel([*paying(1), *paying(1)])
        reply = await ctx.model(ctx.messages, model, tools=[pay])
        for is_cut in (True, False):
            with trio.CancelScope() as scope:
                if is_cut:
                    scope.cancel()
                if by == "the call":
                    await ctx.call(pay, reply.tool_calls[0])
                elif by == "the reply":
                    await ctx.run_calls(reply, [pay])
                else:
                    await ctx.call(pay, amount=1)

    played = await play(body)

    assert starts(played.log)[0] == ("c1", "m1", {"amount": 1})
    assert results(played)[0] == "paid 1 EUR"
