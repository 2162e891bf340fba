"""What a log says of its conversation: the same as the run that recorded it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
import pytest
import trio

from flowtrio import (
    Agent,
    AgentEvent,
    Chunk,
    EventType,
    Limits,
    RunContext,
    StreamEngine,
    ToolCall,
    tool,
)
from flowtrio._core._chunks import ToolArgs
from flowtrio._core._fit import NOT_RUN
from flowtrio._core._interrupted import missing_end
from flowtrio._core._said import Said
from flowtrio._core._transcript import Transcript
from flowtrio.testing import ScriptedModel
from flowtrio.testing._requests import check_messages

T = EventType
Messages = list[dict[str, Any]]


@tool
async def slow(ctx: RunContext, word: str) -> dict[str, str]:
    """Take a while, and say so."""
    await ctx.progress(1)
    async with ctx.message() as out:
        await out.write("a tool's own words")
    await trio.sleep(1)
    return {"word": word}


@tool
async def quiet(word: str) -> str:
    """Take a while, and say nothing."""
    await trio.sleep(1)
    return word


@tool
async def broken() -> str:
    """Fail."""
    raise RuntimeError("no")


@tool(needs_approval=True)
async def risky() -> str:
    """Need approval."""
    return "done"


def busy() -> Agent:
    """Turns with text, calls of all kinds, a reset, and a final answer."""
    model = ScriptedModel(
        [
            "thinking ",
            ToolCall("p1", "slow", {"word": "é"}),
            ToolCall("p2", "broken", {}),
            ToolCall("p3", "nowhere", {"a": 1}),
            ToolCall("p4", "risky", {}),
        ],
        ["wrong", Chunk(reset="another attempt"), "right ", 0.5, "on"],
    )
    return Agent(llm_client=model, tools=[slow, broken, risky])


def resetting() -> Agent:
    """A call and a refusal that are taken back, then a refusal that stands."""
    refusal = {"type": "refusal", "text": "no"}
    model = ScriptedModel(
        [
            Chunk(tool_args=[ToolArgs(index=0, id="a", name="slow", text="{")]),
            Chunk(parts=[{"type": "refusal", "text": "never"}]),
            Chunk(reset="another attempt"),
            Chunk(parts=[{"type": "citation", "url": "x"}]),
            Chunk(parts=[refusal]),
        ]
    )
    return Agent(llm_client=model, tools=[slow])


async def own(ctx: RunContext, message: str) -> str:
    """An agent of one's own: what it calls by itself is no part of what is said."""
    async with ctx.message() as out:
        await out.write("first ")
        await out.write("words")
    await ctx.call(quiet, word="x")
    await ctx.approve("pay", {"price": 1})
    await ctx.delegate(busy(), "nested")
    async with ctx.message() as out:
        await out.write("last words")
    return "ok"


def provider() -> Agent:
    """A call that the provider executes itself."""
    model = ScriptedModel(
        [
            Chunk(parts=[{"type": "server_tool_call", "id": "s", "name": "search"}]),
            Chunk(parts=[{"type": "server_tool_result", "id": "s", "result": 1}]),
            "found",
        ]
    )
    return Agent(llm_client=model)


async def answering(ctx: RunContext, message: str) -> str:
    """A model without the turn loop: its calls are answered one by one, and one is not."""
    asked: list[Any] = ["look", *(ToolCall(f"p{n}", "quiet", {"word": str(n)}) for n in range(3))]
    completion = await ctx.model(ctx.messages, ScriptedModel(asked), [quiet])
    await ctx.call(quiet, word="1")
    await ctx.run_calls(attrs.evolve(completion, tool_calls=completion.tool_calls[:1]), [quiet])
    await ctx.call(quiet, word="of its own")
    await ctx.call(quiet, completion.tool_calls[2])
    await ctx.model(ctx.messages, ScriptedModel("done"))
    return "what it returns"


async def calling(ctx: RunContext, message: str) -> str:
    """A body that has an agent answer, and returns what another one says."""
    await busy()(ctx, message)
    return str(await ctx.delegate(busy(), "nested"))


async def returning(ctx: RunContext, message: str) -> dict[str, int]:
    """A body that says nothing."""
    return {"a": 1}


PROGRAMS = [
    *(busy, resetting, provider),
    *(lambda: own, lambda: answering, lambda: calling, lambda: returning),
]


async def _run(make: Any, cancel_at: int | None = None) -> tuple[list[AgentEvent], Messages]:
    log = []
    async with StreamEngine(limits=Limits(approval=5)).stream(make(), "hi") as stream:
        async for event in stream:
            log.append(event)
            if event.seq == cancel_at:
                stream.cancel("enough")
    return log, stream.messages


def said_in(log: Sequence[AgentEvent]) -> Messages:
    said = Said()
    for event in log:
        said.add(event)
    return said.messages()


def alike(messages: Messages) -> Messages:
    """Messages as a log can know them: without the providers' own ids, and calls nobody ran."""
    untold = {m["tool_call_id"] for m in messages if m["content"] == NOT_RUN}
    numbers: dict[str, str] = {}
    alike = []
    for message in messages:
        message = dict(message)
        if calls := message.pop("tool_calls", None):
            told = [
                {**call, "id": numbers.setdefault(call["id"], f"{len(numbers)}")}
                for call in calls
                if call["id"] not in untold
            ]
            if told:
                message["tool_calls"] = told
            elif message["content"] is None:
                continue
        if "tool_call_id" in message:
            if message["tool_call_id"] in untold:
                continue
            message["tool_call_id"] = numbers[message["tool_call_id"]]
        alike.append(message)
    return alike


@pytest.mark.parametrize("make", PROGRAMS)
async def test_a_whole_log_says_what_its_run_said(make: Any, autojump_clock: Any) -> None:
    log, messages = await _run(make)

    assert len(messages) > 1
    assert alike(said_in(log)) == alike(messages)


@pytest.mark.parametrize("make", PROGRAMS)
async def test_a_run_that_was_cancelled_anywhere_leaves_the_same(
    make: Any, autojump_clock: Any
) -> None:
    whole, _ = await _run(make)
    for place in range(len(whole)):
        log, messages = await _run(make, place)

        assert alike(said_in(log)) == alike(messages)


@pytest.mark.parametrize("make", PROGRAMS)
async def test_a_log_that_was_cut_anywhere_says_a_conversation(
    make: Any, autojump_clock: Any
) -> None:
    log, _ = await _run(make)
    for place in range(1, len(log) + 1):
        said = said_in([*log[:place], *missing_end(log[:place], log[0])])

        assert said[0] == {"role": "user", "content": "hi"}
        check_messages(said)


async def test_text_that_was_cut_off_is_kept_and_marked(autojump_clock: Any) -> None:
    log, _ = await _run(busy)
    place = next(e.seq for e in log if e.data.get("chunk") == "right ")
    said = said_in([*log[: place + 1], *missing_end(log[: place + 1], log[0])])

    assert said[-1] == {"role": "assistant", "content": "right ", "flowtrio": {"partial": True}}
    assert [m["content"] for m in said if m["role"] == "tool"] == [
        '{"word":"é"}',
        "error: RuntimeError: no",
        "error: there is no tool of that name; there are: slow, broken, risky",
        "error: nobody answered within 5 s",
    ]


async def test_a_call_that_waits_for_a_person_has_a_result(autojump_clock: Any) -> None:
    asked = "risky", {"n": 1}

    @tool(name="risky", needs_approval=True)
    async def pay(n: int) -> str:
        """Pay."""
        return "paid"

    class Silent:
        """Tells of its call in the last chunk alone."""

        async def stream_completion(self, *args: Any, **options: Any) -> Any:
            yield Chunk(is_final=True, tool_calls=[ToolCall("p", *asked)])

    log, _ = await _run(lambda: Agent(llm_client=Silent(), tools=[pay]), 5)
    place = next(e.seq for e in log if e.type is T.APPROVAL_REQUIRED)
    said = said_in([*log[: place + 1], *missing_end(log[: place + 1], log[0])])

    [call] = said[1]["tool_calls"]
    assert call["function"] == {"name": "risky", "arguments": '{"n":1}'}
    assert said[2]["content"] == "error: the call was cancelled"
    check_messages(said)


async def test_arguments_that_are_no_object_become_empty(autojump_clock: Any) -> None:
    log, _ = await _run(busy)
    log = [event for event in log if event.type is not T.TOOL_CALL_START]
    for text in ("[1,", "[1]"):
        bad = [
            msgspec.structs.replace(event, data={**event.data, "delta": text})
            if event.type is T.TOOL_CALL_ARGS
            else event
            for event in log
        ]
        calls = said_in(bad)[1]["tool_calls"]

        assert calls[0]["function"]["arguments"] == "{}"


async def test_a_log_tells_whose_words_are_a_tools(autojump_clock: Any) -> None:
    """The second schema tells it by a key; logs of the first are read by what was running."""
    log, _ = await _run(busy)
    told = [
        msgspec.structs.replace(event, data={**event.data, "parent_call_id": None})
        if event.type is T.MESSAGE_COMPLETE
        else event
        for event in log
    ]
    tools = msgspec.structs.replace(told[-3], type=T.MESSAGE_COMPLETE)
    data = {"message_id": "m99", "content": "x", "finish_reason": "stop", "parent_call_id": "c1"}
    told.insert(-1, msgspec.structs.replace(tools, data=data))
    words = [m["content"] for m in said_in(told) if m["role"] == "assistant"]

    assert words == ["thinking ", "a tool's own words", "right on"]


async def test_a_result_that_is_forgotten_would_be_noticed(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: a transcript that takes no notice of results."""
    log, messages = await _run(busy)
    monkeypatch.setattr(Transcript, "note_result", lambda *args: None)

    assert alike(said_in(log)) != alike(messages)
