"""What `stream.messages` says after a run: all that was said and returned, valid for the next."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from flowtrio import (
    Chunk,
    EventType,
    MemoryConversations,
    Orchestrator,
    RunContext,
    RunFailed,
    StreamEngine,
    ToolCall,
    tool,
)
from flowtrio._core._fit import NO_TEXT
from flowtrio.abc import Message
from flowtrio.testing import CUT, ScriptedModel, check_messages
from flowtrio.wire._anthropic_requests import encode_request
from tests.runtime._programs import (
    Endless,
    agent_of,
    call,
    calling,
    contents,
    done_of,
    only,
    play,
    runner,
    spelled,
)

T = EventType
BEFORE: list[Message] = [
    {"role": "user", "content": "before"},
    {"role": "assistant", "content": "yes"},
]


@tool
async def look() -> str:
    """Look."""
    return "seen"


# What a body returns


async def test_what_a_body_returns_is_in_the_conversation() -> None:
    async def body(ctx: RunContext) -> str:
        return "the answer"

    played = await play(agent_of(body), history=BEFORE)

    assert contents(played.stream.messages)[2:] == [("user", "go"), ("assistant", "the answer")]


async def test_what_a_delegate_said_and_the_body_returns_is_in_it() -> None:
    async def body(ctx: RunContext) -> str:
        return str(await ctx.delegate(runner(ScriptedModel("advice")), "what now?"))

    played = await play(agent_of(body))

    assert contents(played.stream.messages) == [("user", "go"), ("assistant", "advice")]


async def test_a_value_is_in_it_where_nothing_was_said() -> None:
    async def body(ctx: RunContext) -> dict[str, bool]:
        return {"booked": True}

    played = await play(agent_of(body))

    assert contents(played.stream.messages)[-1] == ("assistant", '{"booked":true}')


@pytest.mark.parametrize("value", ["said", {"booked": True}, None])
async def test_what_was_said_already_is_not_said_again(value: Any) -> None:
    async def body(ctx: RunContext) -> Any:
        async with ctx.message() as out:
            await out.write("said")
        return value

    played = await play(agent_of(body))

    assert contents(played.stream.messages) == [("user", "go"), ("assistant", "said")]


async def test_what_a_body_that_was_cancelled_returns_is_not_in_it(autojump_clock: Any) -> None:
    async def body(ctx: RunContext) -> str:
        try:
            await trio.sleep_forever()
        finally:
            return "too late"  # noqa: B012 - the body's own fault

    async def reader(stream: Any, log: list[Any]) -> None:
        await trio.sleep(1)
        stream.cancel("enough")

    played = await play(agent_of(body), reader=reader)

    assert done_of(played.log)["result"] is None
    assert contents(played.stream.messages) == [("user", "go")]


# Agents that a body calls


async def test_an_agent_is_asked_what_the_body_asks_it() -> None:
    model = ScriptedModel("short", "shorter")
    agent = runner(model)

    async def body(ctx: RunContext) -> str:
        first = await agent(ctx, "Summarise: a long text")
        return await agent(ctx, f"Summarise: {first}")

    played = await play(agent_of(body), history=BEFORE)

    assert [contents(request.messages)[2:] for request in model.requests] == [
        [("user", "Summarise: a long text")],
        [("user", "Summarise: short")],
    ]
    assert contents(played.stream.messages) == [
        *(("user", "before"), ("assistant", "yes"), ("user", "go")),
        *(("user", "Summarise: a long text"), ("assistant", "short")),
        *(("user", "Summarise: short"), ("assistant", "shorter")),
    ]


async def test_an_agent_that_gets_the_runs_message_is_the_runs_agent() -> None:
    model = calling("look")

    async def body(ctx: RunContext) -> str:
        return await runner(model, look)(ctx, "go")

    played = await play(agent_of(body), history=BEFORE)

    whole = [*contents(BEFORE), ("user", "go"), ("assistant", None), ("tool", "seen")]
    assert contents(model.requests[1].messages) == whole
    assert contents(played.stream.messages) == [*whole, ("assistant", "fine")]


async def test_two_at_once_do_not_interleave(autojump_clock: Any) -> None:
    slow = ScriptedModel([1.0, "a", 2.0, "b", call("look")], [2.0, "slow"])
    quick = ScriptedModel([1.5, call("look")], "quick")

    async def body(ctx: RunContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner(slow, look), ctx, "one")
            nursery.start_soon(runner(quick, look), ctx, "two")

    played = await play(agent_of(body))

    assert contents(slow.requests[1].messages)[0] == ("user", "one")
    assert contents(quick.requests[1].messages)[0] == ("user", "two")
    assert contents(played.stream.messages) == [
        ("user", "go"),
        *(("user", "two"), ("assistant", None), ("tool", "seen"), ("assistant", "quick")),
        *(("user", "one"), ("assistant", "ab"), ("tool", "seen"), ("assistant", "slow")),
    ]


async def test_an_agent_that_a_run_ends_with_is_in_the_conversation(autojump_clock: Any) -> None:
    model = ScriptedModel([call("look")], ["half ", 100.0])

    async def body(ctx: RunContext) -> str:
        return await runner(model, look)(ctx, "one")

    async def reader(stream: Any, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.data.get("chunk") == "half ":
                stream.cancel("enough")

    played = await play(agent_of(body), reader=reader)

    assert contents(played.stream.messages) == [
        *(("user", "go"), ("user", "one"), ("assistant", None), ("tool", "seen")),
        ("assistant", "half "),
    ]
    assert played.stream.messages[-1]["flowtrio"] == {"partial": True}


async def test_what_an_agent_that_raised_had_open_is_closed_at_once() -> None:
    cut = ScriptedModel(["half", CUT])

    async def body(ctx: RunContext) -> str:
        with pytest.raises(Exception, match="finish mark"):
            await runner(cut)(ctx, "one")
        await ctx.status("went on")
        return "the answer"

    played = await play(agent_of(body))

    assert spelled(played.log)[2:5] == ["chunk m1", "complete m1 error", "status running"]
    assert contents(played.stream.messages) == [
        *(("user", "go"), ("user", "one"), ("assistant", "half"), ("assistant", "the answer")),
    ]


async def test_what_an_agent_that_a_scope_cut_off_had_open_is_closed_at_once(
    autojump_clock: Any,
) -> None:
    @tool
    async def stuck() -> None:
        """Never end."""
        await trio.sleep_forever()

    async def body(ctx: RunContext) -> str:
        with trio.move_on_after(1):
            await runner(calling("stuck"), stuck)(ctx, "one")
        await ctx.status("went on")
        with trio.move_on_after(1):
            await runner(Endless(0.4))(ctx, "two")
        return "the answer"

    played = await play(agent_of(body))

    assert only(played.log, T.TOOL_CALL_END)[0]["outcome"] == "cancelled"
    assert contents(played.stream.messages)[1:] == [
        *(("user", "one"), ("assistant", None), ("tool", "error: the call was cancelled")),
        *(("user", "two"), ("assistant", "la la "), ("assistant", "the answer")),
    ]


async def test_an_agent_that_a_tool_calls_speaks_for_the_tool() -> None:
    inner = ScriptedModel([call("look")], "inner words")

    @tool
    async def ask(ctx: RunContext) -> str:
        """Ask another agent."""
        assert contents(ctx.messages)[-2:] == [
            ("assistant", None),
            ("tool", "error: this call has not ended yet"),
        ]
        return await runner(inner, look)(ctx, "inside")

    played = await play(runner(calling("ask"), ask), history=BEFORE)

    assert contents(inner.requests[0].messages) == [*contents(BEFORE), ("user", "inside")]
    assert contents(played.stream.messages)[2:] == [
        *(("user", "go"), ("assistant", None), ("tool", "inner words"), ("assistant", "fine")),
    ]


async def test_an_agent_that_a_nested_agent_calls_is_in_its_conversation() -> None:
    model = ScriptedModel("advice")

    async def nested(ctx: RunContext, message: str) -> list[Any]:
        await runner(model)(ctx, "more exactly?")
        return contents(ctx.messages)

    async def body(ctx: RunContext) -> None:
        assert await ctx.delegate(nested, "what now?", BEFORE) == [
            *contents(BEFORE),
            *(("user", "what now?"), ("user", "more exactly?"), ("assistant", "advice")),
        ]

    played = await play(agent_of(body))

    assert contents(model.requests[0].messages) == [*contents(BEFORE), ("user", "more exactly?")]
    assert contents(played.stream.messages) == [("user", "go")]


async def test_an_agent_has_its_own_model_and_the_body_none() -> None:
    async def body(ctx: RunContext) -> str:
        await runner(ScriptedModel("x"))(ctx, "one")
        with pytest.raises(Exception, match="has no model of its own"):
            await ctx.model(ctx.messages)
        with pytest.raises(TypeError, match="message: expected a str or a list of parts, got int"):
            await runner(ScriptedModel("x"))(ctx, 7)  # type: ignore[arg-type]
        return "x"

    await play(agent_of(body))


# Histories


async def test_a_delegate_is_told_what_was_said_before() -> None:
    model = ScriptedModel("advice")

    async def nested(ctx: RunContext, message: str) -> str:
        assert list(ctx.history) == BEFORE
        return await runner(model)(ctx, message)

    async def body(ctx: RunContext) -> None:
        await ctx.delegate(nested, "what now?", history=BEFORE)
        with pytest.raises(TypeError, match=r"history\[0\]: expected a message"):
            await ctx.delegate(nested, "what now?", history=["hi"])  # type: ignore[list-item]

    await play(agent_of(body))

    assert contents(model.requests[0].messages) == [*contents(BEFORE), ("user", "what now?")]


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (["hi"], r"history\[0\]: expected a message"),
        ([{"role": "robot", "content": "x"}], r"history\[0\]: role 'robot'"),
        (
            [
                {
                    "role": "assistant",
                    "tool_calls": [{"type": "function", "function": {"name": "x"}}],
                }
            ],
            r"tool_calls\[0\].id: expected text",
        ),
        ([{"role": "tool", "tool_call_id": "a", "content": "x"}], "expected a call of that id"),
    ],
)
def test_a_history_that_is_none_is_refused_when_the_run_is_made(history: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        StreamEngine().stream(runner(ScriptedModel("x")), "hi", history=history)


async def test_nothing_is_shared_with_whoever_gave_or_got_a_conversation() -> None:
    given = [{"role": "user", "content": [{"type": "text", "text": "before"}]}, *BEFORE[1:]]
    asked: list[Any] = []

    class Greedy:
        """Changes what it is asked."""

        async def stream_completion(self, messages: list[Any], **options: Any) -> Any:
            asked.append(copy.deepcopy(messages))
            for message in messages:
                if isinstance(message["content"], list):
                    message["content"][0]["text"] = "changed by the model"
                message["content"] = "changed by the model"
            yield Chunk(content="fine", is_final=True)

    async def body(ctx: RunContext) -> str:
        ctx.history[0]["content"][0]["text"] = "changed by the body"
        ctx.messages[0]["content"][0]["text"] = "changed by the body"
        given[0]["content"][0]["text"] = "changed by the caller"
        await ctx.model(ctx.messages, Greedy())
        return await runner(Greedy())(ctx, "go")

    played = await play(agent_of(body), history=given)
    played.stream.messages[0]["content"][0]["text"] = "changed by the reader"

    first = ("user", [{"type": "text", "text": "before"}])
    assert [contents(messages)[0] for messages in asked] == [first, first]
    assert contents(played.stream.messages)[0] == first
    assert given[0]["content"][0] == {"type": "text", "text": "changed by the caller"}


async def test_a_failed_runs_messages_are_a_copy_too() -> None:
    stream = StreamEngine().stream(runner(ScriptedModel(["half", CUT])), "hi")
    with pytest.raises(RunFailed) as caught:
        await stream.result()
    caught.value.messages[0]["content"] = "changed"

    assert contents(stream.messages) == [("user", "hi"), ("assistant", "half")]


# One odd reply or message


def odd_turn(n: int) -> list[Any]:
    """A turn as some hosts give it: odd names, no ids, ids that are long or come twice."""
    long = "chatcmpl-tool-0123456789abcdef0123456789abcdef"
    calls = [
        ToolCall("", "functions.look", {}),
        ToolCall("call_0", "look", {"x": 1}),
        ToolCall(long, "x" * 80, None),
        ToolCall(long, "look", {}),
    ]
    return [Chunk(content=f"{n}", is_final=True, tool_calls=calls)]


@pytest.mark.parametrize("run_id", [None, "the-same-run-id"])
async def test_odd_replies_do_not_spoil_later_turns(run_id: str | None) -> None:
    history: Sequence[Any] = ()
    for n, message in enumerate(["", " \n", "hello"]):
        model = ScriptedModel(odd_turn(n), "fine")
        async with StreamEngine().stream(
            runner(model, look), message, history=history, run_id=run_id
        ) as stream:
            names = {e.data["tool_name"] async for e in stream if e.type is T.TOOL_CALL_END}
        assert await stream.result() == "fine"
        assert names == {"functions.look", "look", "x" * 80}
        history = stream.messages

    check_messages(history)
    assert [m["content"] for m in history if m["role"] == "user"] == [NO_TEXT, NO_TEXT, "hello"]
    blocks = encode_request("m", history, None, {}, stream=True)["messages"]
    assert all(b["text"].strip() for m in blocks for b in m["content"] if b["type"] == "text")


async def test_blank_instructions_are_none() -> None:
    model = ScriptedModel("fine")

    await play(runner(model, instructions=" \n"))

    assert contents(model.requests[0].messages) == [("user", "go")]


async def test_a_body_asks_a_model_what_every_provider_takes() -> None:
    model = ScriptedModel("fine")

    async def body(ctx: RunContext) -> None:
        await ctx.model([{"role": "user", "content": ""}], model)
        with pytest.raises(TypeError, match=r"messages\[0\]: expected a message"):
            await ctx.model(["hi"], model)  # type: ignore[list-item]

    await play(agent_of(body))

    assert contents(model.requests[0].messages) == [("user", NO_TEXT)]


# Orchestrators


async def test_whoever_is_chosen_is_the_runs_agent() -> None:
    flights, hotels = ScriptedModel("a flight", "another"), ScriptedModel()
    chooser = ScriptedModel("flights", [call("choose_agent", agent="flights")])
    agents = [runner(flights, name="flights"), runner(hotels, name="hotels")]

    async with Orchestrator(llm_client=chooser, agents=agents) as orchestrator:
        for message in ("fly", "fly on"):
            await orchestrator.process(message, session_id="s")
    kept = await orchestrator.conversations.load("default", "s")

    # What a reader saw the agent say is in it: here, that it chose.
    assert contents(kept) == [
        *(("user", "fly"), ("assistant", "flights"), ("assistant", "a flight")),
        *(("user", "fly on"), ("assistant", "another")),
    ]
    assert contents(chooser.requests[1].messages)[1:] == contents(kept)[:4]


async def test_a_conversation_that_was_kept_badly_goes_on(caplog: Any) -> None:
    conversations = MemoryConversations()
    kept: list[Any] = [
        *BEFORE,
        {"role": "user", "content": ""},
        {"role": "robot", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call_of("x" * 46)]},
    ]
    await conversations.save("default", "s", kept)
    model = ScriptedModel("fine")

    with caplog.at_level(logging.WARNING, "flowtrio"):
        async with Orchestrator(llm_client=model, conversations=conversations) as orchestrator:
            assert await orchestrator.process("hi", session_id="s") == "fine"

    assert [role for role, _ in contents(model.requests[0].messages)] == [
        *("user", "assistant", "user", "assistant", "tool", "user"),
    ]
    assert "left out of its conversation: messages[3]: role 'robot'" in caplog.text
    check_messages(await conversations.load("default", "s"))


def call_of(id: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "functions.look", "arguments": "{"}}
