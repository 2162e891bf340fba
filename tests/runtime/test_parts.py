"""Messages with images and files, and tools that give some: what is told, kept and asked."""

from __future__ import annotations

from typing import Any, Final

import pytest
import trio

from flowtrio import (
    Agent,
    EventType,
    FallbackClient,
    File,
    Image,
    Limits,
    MemoryConversations,
    OllamaClient,
    Orchestrator,
    RunContext,
    RunExists,
    StreamEngine,
    Text,
    ToolFailed,
    tool,
)
from flowtrio.testing import ScriptedModel, check_events, check_messages
from tests.runtime._programs import (
    calling,
    calls,
    done_of,
    error_of,
    only,
    outcomes,
    runner,
)

T = EventType
PNG: Final = b"\x89PNG\r\n\x1a\n"
URL: Final = "data:image/png;base64,iVBORw0KGgo="
CAT: Final = Image(data=PNG, name="cat.png")
TOLD: Final = {"kind": "image", "media_type": "image/png", "bytes": 8, "name": "cat.png"}
SEEN: Final = {"type": "image_url", "image_url": {"url": URL}, "flowtrio": {"name": "cat.png"}}
QUESTION: Final = [Text("What is it?"), CAT]
ASKED: Final = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, SEEN]}


async def _play(agent: Any, message: Any, **options: Any) -> tuple[list[Any], Any]:
    async with StreamEngine().stream(agent, message, **options) as stream:
        log = [event async for event in stream]
    check_events(log)
    check_messages(stream.messages)
    return log, stream


# What is said


async def test_a_message_with_an_image_is_told_without_it_and_asked_with_it() -> None:
    model = ScriptedModel("a cat")
    log, stream = await _play(runner(model), QUESTION)

    assert log[0].data["message"] == "What is it?"
    assert log[0].data["parts"] == [TOLD]
    assert "base64" not in repr(log)
    assert list(model.requests[0].messages) == [ASKED]
    assert stream.messages == [ASKED, {"role": "assistant", "content": "a cat"}]


async def test_a_plain_text_is_told_and_kept_as_ever() -> None:
    logs = [
        await _play(runner(ScriptedModel("hi")), message) for message in ("hello", [Text("hello")])
    ]

    for log, stream in logs:
        assert log[0].data["message"] == "hello"
        assert log[0].data["parts"] == []
        assert stream.messages[0] == {"role": "user", "content": "hello"}


async def test_an_image_alone_is_a_message_without_a_text() -> None:
    model = ScriptedModel("a cat")
    log, stream = await _play(runner(model), [CAT])

    assert log[0].data["message"] == ""
    assert stream.messages[0] == {"role": "user", "content": [SEEN]}


async def test_a_history_with_images_survives() -> None:
    _, first = await _play(runner(ScriptedModel("a cat")), QUESTION)
    model = ScriptedModel("yes")
    _, second = await _play(runner(model), "sure?", history=first.messages)

    assert second.messages[:2] == first.messages
    assert model.requests[0].messages[0] == ASKED


@pytest.mark.parametrize("message", [None, 3, [], ["text"], b"text"])
def test_what_is_no_message_is_refused_when_its_stream_is_made(message: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="message"):
        StreamEngine().stream(runner(ScriptedModel()), message)


# In a body of one's own


async def test_a_body_is_given_the_text_and_finds_the_rest() -> None:
    seen: list[Any] = []

    async def body(ctx: RunContext, message: str) -> str:
        seen.extend([message, ctx.parts, ctx.messages])
        return "ok"

    file = File(url="https://example.org/a.pdf", name="a.pdf")
    await _play(body, [Text("Look"), CAT, file])

    assert seen[0] == "Look"
    assert seen[1] == (Text("Look"), CAT, file)
    assert [part["type"] for part in seen[2][0]["content"]] == ["text", "image_url", "file"]


async def test_the_parts_of_a_plain_text_are_that_text() -> None:
    async def body(ctx: RunContext, message: str) -> bool:
        return ctx.parts == (Text("go"),)

    log, _ = await _play(body, "go")

    assert done_of(log)["result"] is True


async def test_an_agent_that_is_handed_the_bodys_message_is_asked_all_of_it() -> None:
    model = ScriptedModel("a cat", "and another")

    async def body(ctx: RunContext, message: str) -> str:
        first = await runner(model)(ctx, message)
        return first + await runner(model)(ctx, [Text("And this?"), CAT])

    _, stream = await _play(body, QUESTION)

    assert model.requests[0].messages[-1] == ASKED
    assert model.requests[1].messages[-1]["content"] == [
        {"type": "text", "text": "And this?"},
        SEEN,
    ]
    assert [m["role"] for m in stream.messages] == [
        *("user", "assistant", "user", "assistant", "assistant"),
    ]


async def test_a_delegate_is_asked_with_parts_and_finds_its_own() -> None:
    model = ScriptedModel("a cat")

    async def inner(ctx: RunContext, message: str) -> str:
        assert ctx.parts == (Text("Look"), CAT)
        return str(await runner(model)(ctx, message))

    async def body(ctx: RunContext, message: str) -> str:
        return str(await ctx.delegate(inner, [Text("Look"), *ctx.parts[1:]]))

    log, _ = await _play(body, QUESTION)

    assert done_of(log)["result"] == "a cat"
    assert model.requests[0].messages[-1]["content"] == [{"type": "text", "text": "Look"}, SEEN]


async def test_a_router_passes_images_on() -> None:
    model = ScriptedModel("a cat")
    orchestrator = Orchestrator(
        agents=[runner(model, name="eyes"), runner(ScriptedModel(), name="ears")],
        route=lambda message, ctx: "eyes",
    )

    assert await orchestrator.process(QUESTION) == "a cat"
    assert model.requests[0].messages[-1] == ASKED


# What tools give


@tool
async def photo() -> Image:
    """Take a photo."""
    return CAT


@tool
def pages() -> list[Any]:
    """Read a document."""
    return ["page 1", CAT, {"page": 2}, Text("the end")]


async def test_an_image_from_a_tool_is_told_without_it_and_shown_to_the_model() -> None:
    model = ScriptedModel(calls("photo", "pages"), "two cats")
    log, stream = await _play(runner(model, photo, pages), "look")
    ends = {end["tool_name"]: end["result"] for end in only(log, T.TOOL_CALL_END)}
    results = [m["content"] for m in stream.messages if m["role"] == "tool"]

    assert ends == {"photo": TOLD, "pages": ["page 1", TOLD, {"page": 2}, "the end"]}
    assert "base64" not in repr(log)
    assert results == [
        [SEEN],
        [
            {"type": "text", "text": "page 1"},
            SEEN,
            {"type": "text", "text": '{"page":2}'},
            {"type": "text", "text": "the end"},
        ],
    ]
    assert [m["content"] for m in model.requests[1].messages if m["role"] == "tool"] == results


async def test_text_parts_alone_are_a_text() -> None:
    @tool
    async def speak() -> Text:
        """Speak."""
        return Text("words")

    log, stream = await _play(runner(calling("speak"), speak), "go")

    assert only(log, T.TOOL_CALL_END)[0]["result"] == "words"
    assert [m["content"] for m in stream.messages if m["role"] == "tool"] == ["words"]


async def test_what_a_body_calls_gives_the_image_itself() -> None:
    async def body(ctx: RunContext, message: str) -> Image:
        image = await ctx.call(photo)
        assert image is CAT
        return CAT

    log, stream = await _play(body, "go")

    assert done_of(log)["result"] == TOLD
    assert "base64" not in repr(stream.messages)


async def test_a_model_whose_calls_a_body_runs_is_shown_the_image_too() -> None:
    model = ScriptedModel(calls("photo"), "a cat")

    async def body(ctx: RunContext, message: str) -> str:
        completion = await ctx.model(ctx.messages, model, tools=[photo])
        [result] = await ctx.run_calls(completion, [photo])
        assert result.value is CAT
        return (await ctx.model(ctx.messages, model)).content

    await _play(body, "go")

    assert model.requests[1].messages[-1]["content"] == [SEEN]


async def test_a_results_images_count_as_its_bytes() -> None:
    @tool
    async def large() -> Image:
        """Give a large image."""
        return Image(data=PNG + bytes(1000))

    log, stream = await _play(
        runner(calling("large"), large), "go", limits=Limits(result_bytes=900)
    )

    [end] = only(log, T.TOOL_CALL_END)
    assert end["outcome"] == "error"
    assert "its parts have 1008 bytes, more than 900" in end["error"]
    assert isinstance(stream.messages[2]["content"], str)


async def test_an_image_deep_in_a_result_is_refused_with_what_was_expected() -> None:
    @tool
    async def nested() -> dict[str, Any]:
        """Nest."""
        return {"plot": CAT}

    log, _ = await _play(runner(calling("nested"), nested), "go")

    assert "expected it alone, or in a list" in only(log, T.TOOL_CALL_END)[0]["error"]


async def test_an_image_is_no_argument_and_no_progress() -> None:
    @tool
    async def report(ctx: RunContext) -> str:
        """Report."""
        await ctx.progress(CAT)
        return "never"

    async def body(ctx: RunContext, message: str) -> None:
        with pytest.raises(TypeError, match="Image is no JSON here"):
            await ctx.custom("photo", CAT)
        with pytest.raises(ToolFailed, match="Image is no JSON here"):
            await ctx.call(report)

    await _play(body, "go")


async def test_a_call_that_ends_early_shows_nothing_of_what_it_would_have_given(
    autojump_clock: object,
) -> None:
    model = ScriptedModel(calls("late"), "gone")

    @tool(timeout=1)
    async def late() -> Image:
        """Come late."""
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return CAT

    log, stream = await _play(runner(model, late), "go")

    assert outcomes(log) == {"late": "timeout"}
    assert "base64" not in repr(stream.messages)


# Conversations


async def test_a_conversation_keeps_its_images() -> None:
    conversations = MemoryConversations()
    model = ScriptedModel("a cat", "still a cat")
    async with Orchestrator(llm_client=model, conversations=conversations) as orchestrator:
        await orchestrator.process(QUESTION, session_id="s")
        await orchestrator.process("Sure?", session_id="s")

    assert model.requests[1].messages[0] == ASKED
    assert (await conversations.load("default", "s"))[0] == ASKED


async def test_the_same_start_attaches_and_another_image_is_another_message() -> None:
    model = ScriptedModel("a cat")
    async with Orchestrator(llm_client=model) as orchestrator:
        run_id = await orchestrator.start(QUESTION, run_id="r")
        assert await orchestrator.start(list(QUESTION), run_id="r") == run_id
        for other in ("What is it?", [QUESTION[0], Image(data=PNG + b"1", name="cat.png")]):
            with pytest.raises(RunExists):
                await orchestrator.start(other, run_id="r")
        async with orchestrator.attach(run_id) as follower:
            log = [event async for event in follower]
        for other in ("What is it?", [QUESTION[0]]):
            with pytest.raises(RunExists):
                await orchestrator.start(other, run_id="r")
        assert await orchestrator.start(QUESTION, run_id="r") == run_id
        header = await orchestrator.store.header("default", "r")

    assert log[0].data["parts"] == [TOLD]
    assert header is not None
    assert header.parts == ()


# Where a provider has no form for it


async def test_a_part_that_a_provider_cannot_take_fails_before_anything_is_sent() -> None:
    async with OllamaClient(model="m", base_url="http://127.0.0.1:9") as client:
        log, stream = await _play(runner(client), [File(data=b"%PDF-1.7")])

    error = error_of(log)
    assert (error["source"], error["code"], error["retryable"]) == (
        *("model", "unsupported_part"),
        False,
    )
    assert stream.messages[0]["content"][0]["type"] == "file"


async def test_a_fallback_asks_the_next_model_then() -> None:
    model = ScriptedModel("a document")
    async with OllamaClient(model="m", base_url="http://127.0.0.1:9") as client:
        fallback = FallbackClient([client, model])
        log, _ = await _play(Agent(llm_client=fallback), [File(data=b"%PDF-1.7")])

    assert done_of(log)["result"] == "a document"
    assert fallback.statistics().failures == (1, 0)
