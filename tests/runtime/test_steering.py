"""What the user says while a run goes on: taken before the model's next reply, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio

from flowtrio import (
    Chunk,
    EventStream,
    EventType,
    Image,
    Limits,
    RunContext,
    StreamEngine,
    Text,
    tool,
)
from flowtrio.testing import FunctionModel, ScriptedModel, check_events, check_messages
from tests.runtime._programs import agent_of, call, only, outcomes, play, runner

T = EventType


def posting(when: Callable[[Any], bool], *messages: Any, interrupt: bool = False) -> Any:
    """A reader that posts at the first event for which *when* holds."""

    async def reader(stream: EventStream, log: list[Any]) -> None:
        waiting = list(messages)
        async for event in stream:
            log.append(event)
            if waiting and when(event):
                for message in waiting:
                    assert stream.post(message, interrupt=interrupt)
                waiting.clear()
        assert not stream.post("too late")

    return reader


def at(type: EventType) -> Callable[[Any], bool]:
    return lambda event: event.type is type


def said(messages: Any) -> list[tuple[str, Any]]:
    return [(m["role"], m["content"]) for m in messages]


@tool
async def look() -> str:
    """Look it up."""
    await trio.sleep(1)
    return "found"


async def test_what_is_posted_while_a_tool_runs_stands_behind_its_result(
    autojump_clock: Any,
) -> None:
    model = ScriptedModel([call("look")], "fine")

    played = await play(
        runner(model, look), reader=posting(at(T.TOOL_CALL_START), "in French", "please")
    )
    check_events(played.log)
    check_messages(played.stream.messages)

    types = [event.type for event in played.log]
    first = types.index(T.USER_MESSAGE)
    assert types.index(T.TOOL_CALL_END) < first
    assert only(played.log, T.USER_MESSAGE) == [
        {"message": "in French", "parts": []},
        {"message": "please", "parts": []},
    ]
    assert said(model.requests[1].messages)[-3:] == [
        ("tool", "found"),
        ("user", "in French"),
        ("user", "please"),
    ]
    assert said(played.stream.messages)[-3:] == [
        ("user", "in French"),
        ("user", "please"),
        ("assistant", "fine"),
    ]


async def test_what_is_posted_into_the_answer_is_answered_too() -> None:
    model = ScriptedModel("Hello", "Bonjour")

    played = await play(runner(model), reader=posting(at(T.MESSAGE_CHUNK), "in French"))

    assert await played.stream.result() == "Bonjour"
    assert [m["finish_reason"] for m in only(played.log, T.MESSAGE_COMPLETE)] == ["stop", "stop"]
    assert said(played.stream.messages)[1:] == [
        ("assistant", "Hello"),
        ("user", "in French"),
        ("assistant", "Bonjour"),
    ]


async def test_an_answer_of_a_type_is_followed_by_another_where_something_was_posted() -> None:
    model = ScriptedModel('{"result": 1}', '{"result": 2}')
    agent = runner(model).replace(output=int)

    played = await play(agent, reader=posting(at(T.MESSAGE_CHUNK), "twice that"))

    assert await played.stream.result() == 2


async def test_an_interrupt_cuts_the_reply_and_its_calls_never_run(autojump_clock: Any) -> None:
    model = ScriptedModel(["Let me ", 60.0, "look", call("look")], "Bonjour")

    played = await play(
        runner(model, look), reader=posting(at(T.MESSAGE_CHUNK), "in French", interrupt=True)
    )
    check_events(played.log)
    check_messages(played.stream.messages)

    [cut, whole] = only(played.log, T.MESSAGE_COMPLETE)
    assert (cut["finish_reason"], cut["content"]) == ("cancelled", "Let me ")
    assert whole["content"] == "Bonjour"
    assert outcomes(played.log) == {}
    assert said(model.requests[1].messages)[1:] == [
        ("assistant", "Let me "),
        ("user", "in French"),
    ]
    assert played.stream.messages[1]["flowtrio"] == {"partial": True}
    assert trio.current_time() < 60


async def test_an_interrupt_before_the_first_token_leaves_no_message(autojump_clock: Any) -> None:
    model = ScriptedModel([60.0, "Hello"], "Bonjour")

    async with StreamEngine().stream(runner(model), "go") as stream:
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                log.extend([event async for event in stream])

            log: list[Any] = []
            nursery.start_soon(read)
            await trio.sleep(1)
            assert stream.post("in French", interrupt=True)
    check_events(log)

    assert said(stream.messages) == [
        ("user", "go"),
        ("user", "in French"),
        ("assistant", "Bonjour"),
    ]


async def test_a_client_that_breaks_while_it_is_cut_does_not_fail_the_run(
    autojump_clock: Any,
) -> None:
    class Breaks:
        asked = 0

        async def stream_completion(self, messages: Any, **options: Any) -> Any:
            self.asked += 1
            if self.asked == 2:
                yield Chunk(content="Bonjour", is_final=True)
                return
            yield Chunk(content="Hel")
            try:
                await trio.sleep(60)
            except trio.Cancelled:
                raise ConnectionError("cleanup failed") from None

    played = await play(
        runner(Breaks()), reader=posting(at(T.MESSAGE_CHUNK), "in French", interrupt=True)
    )

    assert await played.stream.result() == "Bonjour"


async def test_of_two_replies_at_once_an_interrupt_cuts_the_one_that_hears_it(
    autojump_clock: Any,
) -> None:
    models = ScriptedModel([1.0, "old"], "new"), ScriptedModel([2.0, "other"], "unasked")

    async def body(ctx: RunContext) -> str:
        async with trio.open_nursery() as nursery:
            for model in reversed(models):
                nursery.start_soon(runner(model), ctx, "go")
                await trio.sleep(0.1)
        return ""

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def post() -> None:
                await trio.sleep(0.5)
                assert stream.post("in euros", interrupt=True)

            log += [event async for event in stream]

    await play(agent_of(body), reader=reader)

    assert [len(model.requests) for model in models] == [2, 1]
    assert said(models[0].requests[1].messages)[-1] == ("user", "in euros")


async def test_a_call_that_is_asked_for_is_asked_for_again_where_the_reply_was_cut() -> None:
    model = ScriptedModel(["well", call("look")], [call("look")], "found")
    agent = runner(model, look, model_settings={"tool_choice": "required"})

    await play(agent, reader=posting(at(T.MESSAGE_CHUNK), "now", interrupt=True))

    assert [request.options.get("tool_choice") for request in model.requests] == [
        *("required", "required", None),
    ]


async def test_images_go_with_it() -> None:
    model = ScriptedModel("Hello", "A cat")
    image = Image(url="https://example.com/cat.png")

    played = await play(runner(model), reader=posting(at(T.MESSAGE_CHUNK), [Text("this?"), image]))

    [event] = only(played.log, T.USER_MESSAGE)
    assert event["parts"][0]["kind"] == "image"
    assert model.requests[1].messages[-1]["content"][1]["type"] == "image_url"


@pytest.mark.parametrize("limits", [Limits(turns=1), Limits(requests=1)])
async def test_nothing_is_taken_where_the_last_reply_has_begun(limits: Limits) -> None:
    model = ScriptedModel("Hello")

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.MESSAGE_CHUNK:
                assert not stream.post("in French", interrupt=True)

    played = await play(runner(model), reader=reader, limits=limits)

    assert await played.stream.result() == "Hello"


async def test_what_is_posted_while_instructions_are_looked_up_is_for_the_reply_they_are_for(
    autojump_clock: Any,
) -> None:
    async def instructions(ctx: RunContext) -> str:
        await trio.sleep(1)
        return "Be brief."

    model = ScriptedModel("the answer")

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def post() -> None:
                await trio.sleep(0.5)
                assert stream.post("and in Rome?")

            log += [event async for event in stream]

    played = await play(runner(model, instructions=instructions), reader=reader)

    assert said(model.requests[0].messages) == [
        *(("system", "Be brief."), ("user", "go"), ("user", "and in Rome?")),
    ]
    assert len(model.requests) == 1
    assert said(played.stream.messages)[-1] == ("assistant", "the answer")


async def test_a_body_that_asks_no_model_takes_nothing() -> None:
    async def body(ctx: RunContext) -> None:
        await ctx.status("working")

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            assert not stream.post("in French")

    await play(agent_of(body), reader=reader)


@pytest.mark.parametrize("interrupt", [False, True])
async def test_a_body_that_asks_a_model_takes_it_with_the_next_request(
    autojump_clock: Any, interrupt: bool
) -> None:
    model = ScriptedModel(["Hello", 20.0, " you"], "Bonjour")
    texts: list[str] = []

    async def body(ctx: RunContext) -> None:
        texts.append((await ctx.model(ctx.messages, model)).content)
        if not interrupt:
            texts.append((await ctx.model(ctx.messages, model)).content)
        assert ("user", "in French") in said(ctx.messages)

    played = await play(
        agent_of(body), reader=posting(at(T.MESSAGE_CHUNK), "in French", interrupt=interrupt)
    )

    assert texts == (["Bonjour"] if interrupt else ["Hello you", "Bonjour"])
    assert said(model.requests[1].messages)[1:] == [
        ("assistant", "Hello" if interrupt else "Hello you"),
        ("user", "in French"),
    ]
    check_messages(played.stream.messages)


async def test_what_nobody_came_to_take_is_told_at_the_end() -> None:
    model = ScriptedModel("Hello")

    async def body(ctx: RunContext) -> None:
        await ctx.model(ctx.messages, model)

    played = await play(agent_of(body), reader=posting(at(T.MESSAGE_CHUNK), "in French"))

    assert [e.type for e in played.log][-3:] == [T.USER_MESSAGE, T.STATE_CHANGE, T.DONE]
    assert said(played.stream.messages)[1:] == [("assistant", "Hello"), ("user", "in French")]


async def test_what_waits_when_the_run_is_cancelled_is_told_and_kept() -> None:
    @tool
    async def wait() -> None:
        """Wait."""
        await trio.sleep_forever()

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START:
                assert stream.post("in French")
                assert stream.cancel()
                assert not stream.post("and German")

    played = await play(runner(ScriptedModel([call("wait")]), wait), reader=reader)
    check_messages(played.stream.messages)

    assert [e.type for e in played.log][-4:] == [
        T.TOOL_CALL_END,
        T.USER_MESSAGE,
        T.STATE_CHANGE,
        T.DONE,
    ]
    assert said(played.stream.messages)[-1] == ("user", "in French")


async def test_a_nested_agent_takes_nothing() -> None:
    inner, outer = ScriptedModel("inner"), ScriptedModel("outer")

    async def body(ctx: RunContext) -> str:
        await ctx.delegate(runner(inner), "go")
        return await runner(outer)(ctx, "go on")  # type: ignore[no-any-return]

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.MESSAGE_CHUNK and event.agent != "root":
                assert not stream.post("in French")

    await play(agent_of(body), reader=reader)


async def test_only_so_many_wait_at_once() -> None:
    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.MESSAGE_CHUNK and not taken:
                taken.extend(stream.post(f"{n}") for n in range(70))

    taken: list[bool] = []

    played = await play(runner(ScriptedModel("Hello", "Bonjour")), reader=reader)

    assert taken == [True] * 64 + [False] * 6
    assert len(only(played.log, T.USER_MESSAGE)) == 64


async def test_what_cannot_be_said_is_refused() -> None:
    async with StreamEngine().stream(runner(ScriptedModel("Hello")), "go") as stream:
        with pytest.raises(TypeError, match="message: expected a str"):
            stream.post(3)  # type: ignore[arg-type]
        await stream.result()


async def test_another_thread_may_post_and_every_message_is_answered_or_refused() -> None:
    taken: list[str] = []

    async def reader(stream: EventStream, log: list[Any]) -> None:
        def post() -> None:
            for number in range(20):
                if stream.post(f"{number}"):
                    taken.append(f"{number}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, post)
            async for event in stream:
                log.append(event)

    def reply(request: Any) -> str:
        asked.append([m["content"] for m in request.messages])
        return "fine"

    asked: list[list[str]] = []

    played = await play(runner(FunctionModel(reply)), reader=reader, limits=Limits(turns=math.inf))

    assert [data["message"] for data in only(played.log, T.USER_MESSAGE)] == taken
    assert [text for text in asked[-1] if text.isdecimal()] == taken
