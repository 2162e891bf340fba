"""Replies that were withheld or cut: what they ask for never runs (L10)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

from flowtrio import (
    Agent,
    Chunk,
    EventType,
    LocalProtocolError,
    RemoteProtocolError,
    RunContext,
    StreamEngine,
    ToolCall,
    tool,
)
from flowtrio._core._chunks import ToolArgs
from flowtrio._core._law import Law
from tests.runtime._programs import agent_of, error_of, only, play, runner

T = EventType

CUT = "the reply was cut before this call was whole"
WITHHELD = "the reply was withheld"


class Model:
    """Says what it was given, and keeps what it was asked."""

    def __init__(self, *replies: list[Chunk]) -> None:
        self.replies = list(replies)
        self.asked: list[list[dict[str, Any]]] = []

    async def stream_completion(
        self, messages: Any, tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """Say the next reply; the last one for ever."""
        self.asked.append(messages)
        for chunk in self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]:
            yield chunk


def final(reason: Any, *calls: ToolCall, raw: str | None = None) -> Chunk:
    """The end of a reply."""
    return Chunk(is_final=True, finish_reason=reason, raw_finish_reason=raw, tool_calls=list(calls))


def written(text: str = "{}") -> Chunk:
    """A call as its client shows it while it is written."""
    return Chunk(tool_args=[ToolArgs(0, "p1", "delete", text)])


DELETE = ToolCall("p1", "delete", {})
ANSWER = [Chunk(content="fine"), final("stop")]


@attrs.define
class Disk:
    """A tool that must not run by accident."""

    deleted: list[str] = attrs.Factory(list)

    @property
    def tool(self) -> Any:
        """Delete something, by default everything."""

        async def delete(path: str = ".") -> str:
            """Delete."""
            self.deleted.append(path)
            return "gone"

        return tool(delete)


# Cut


@pytest.mark.parametrize("is_shown", [True, False])
@pytest.mark.parametrize("text", ["{}", "", '{"path": "/'])
async def test_calls_of_a_cut_reply_never_run_and_the_model_is_told(
    is_shown: bool, text: str
) -> None:
    disk = Disk()
    shown = [written(text)] if is_shown else []
    call = DELETE if text in ("{}", "") else ToolCall("p1", "delete", None, text)
    model = Model([Chunk(content="I will"), *shown, final("length", call)], ANSWER)

    played = await play(runner(model, disk.tool))

    assert disk.deleted == []
    assert played.status == "completed"
    [end] = only(played.log, T.TOOL_CALL_END)
    assert (end["outcome"], end["error"]) == ("cancelled", CUT)
    assert only(played.log, T.TOOL_CALL_START) == []
    assert model.asked[1][-1]["content"] == f"error: the call was cancelled: {CUT}"


async def test_the_second_cut_in_a_row_ends_the_run() -> None:
    disk = Disk()
    model = Model([written(), final("length", DELETE)])

    played = await play(runner(model, disk.tool))

    assert disk.deleted == []
    assert len(model.asked) == 2
    assert (error_of(played.log)["source"], error_of(played.log)["code"]) == ("model", "max_tokens")
    assert error_of(played.log)["retryable"] is False


async def test_a_cut_that_is_followed_by_something_else_is_not_the_first_of_two() -> None:
    disk = Disk()
    cut, works = [written(), final("length", DELETE)], [written(), final("tool_calls", DELETE)]
    model = Model(cut, works, cut, ANSWER)

    played = await play(runner(model, disk.tool))

    assert played.status == "completed"
    assert disk.deleted == ["."]


@pytest.mark.parametrize(
    "raw",
    [
        *("model_context_window_exceeded", "context_window_exceeded", "contextLengthExceeded"),
        *("model_length", "MODEL_LENGTH"),
    ],
)
async def test_a_full_context_ends_the_run_at_once(raw: str) -> None:
    disk = Disk()
    model = Model([written(), final("length", DELETE, raw=raw)])

    played = await play(runner(model, disk.tool))

    assert disk.deleted == []
    assert len(model.asked) == 1
    assert error_of(played.log)["code"] == "context_window"


async def test_a_cut_answer_is_an_answer_and_says_so() -> None:
    played = await play(runner(Model([Chunk(content="half of it"), final("length")])))

    assert played.status == "completed"
    assert await played.stream.result() == "half of it"
    assert only(played.log, T.MESSAGE_COMPLETE)[0]["finish_reason"] == "length"


async def test_a_cut_answer_is_no_value_of_a_type() -> None:
    model = Model([Chunk(content='{"result": [1, 2'), final("length")])

    played = await play(runner(model, output=list[int]))

    assert len(model.asked) == 1
    assert error_of(played.log)["code"] == "max_tokens"


# Withheld


@pytest.mark.parametrize("is_shown", [True, False])
async def test_a_withheld_reply_ends_the_run_and_goes_into_no_later_request(is_shown: bool) -> None:
    disk = Disk()
    shown = [written()] if is_shown else []
    model = Model([Chunk(content="First "), *shown, final("content_filter", DELETE, raw="SAFETY")])
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]

    played = await play(runner(model, disk.tool), history=history)

    error = error_of(played.log)
    assert disk.deleted == []
    assert (error["source"], error["code"], error["retryable"]) == ("model", "withheld", False)
    assert error["detail"] == {"finish_reason": "SAFETY"}
    assert only(played.log, T.TOOL_CALL_START) == []
    assert [end["error"] for end in only(played.log, T.TOOL_CALL_END)] == [WITHHELD]
    *before, asked = played.stream.messages
    assert before == history
    assert asked == {"role": "user", "content": "go", "flowtrio": {"withheld": True}}

    later = Model(ANSWER)
    again = await play(runner(later), "something else", history=played.stream.messages)

    assert again.status == "completed"
    assert later.asked == [[*history, {"role": "user", "content": "something else"}]]
    assert again.stream.messages[:3] == played.stream.messages


async def test_what_came_before_a_withheld_reply_in_its_run_is_left_out_with_it() -> None:
    """Else the next request would begin with what an unasked question was answered with."""
    disk = Disk()
    model = Model([written(), final("tool_calls", DELETE)], [final("content_filter")])

    played = await play(runner(model, disk.tool))

    marks = [message.get("flowtrio") for message in played.stream.messages]
    assert marks == [{"withheld": True}] * 3
    later = Model(ANSWER)
    await play(runner(later), "next", history=played.stream.messages)
    assert later.asked == [[{"role": "user", "content": "next"}]]


async def test_a_refusal_that_its_provider_takes_for_an_answer_is_one() -> None:
    chunks = [Chunk(parts=[{"type": "refusal", "text": "I will not."}]), final("stop")]

    played = await play(runner(Model(chunks)))

    assert played.status == "completed"
    assert played.stream.messages[-1]["content"] == "I will not."


@pytest.mark.parametrize("way", ["passes on", "calls"])
async def test_an_agent_that_a_body_asks_has_its_question_withheld(way: str) -> None:
    inner: Agent[str] = runner(Model([final("content_filter")]))
    asked: list[Any] = []

    async def body(ctx: RunContext) -> str:
        message = "go" if way == "passes on" else "Summarise: all"
        with pytest.raises(RemoteProtocolError) as caught:
            await inner(ctx, message)
        asked.extend(ctx.messages)
        return caught.value.code

    played = await play(agent_of(body))

    assert await played.stream.result() == "withheld"
    if way == "calls":
        assert asked == [{"role": "user", "content": "go"}]
    else:
        assert asked == []
        assert played.stream.messages[0]["flowtrio"] == {"withheld": True}


async def test_what_such_an_agent_said_before_stands_there_marked() -> None:
    disk = Disk()
    works = [Chunk(content="Let me see. "), written(), final("tool_calls", DELETE)]
    inner = runner(Model(works, [final("content_filter")]), disk.tool)

    async def body(ctx: RunContext) -> str:
        with pytest.raises(RemoteProtocolError):
            await inner(ctx, "Summarise: all")
        return "done"

    played = await play(agent_of(body))

    said = [(m["role"], (m.get("flowtrio") or {}).get("withheld")) for m in played.stream.messages]
    withheld = [("user", True), ("assistant", True), ("tool", True)]
    assert said == [("user", None), *withheld, ("assistant", None)]


# A body of one's own


async def test_a_body_cannot_run_what_was_cut() -> None:
    disk = Disk()
    model = Model([written(), final("length", DELETE)])
    told: list[Any] = []

    async def body(ctx: RunContext) -> None:
        completion = await ctx.model(ctx.messages, client=model, tools=[disk.tool])
        told.extend([completion.finish_reason, *completion.tool_calls])
        assert await ctx.run_calls(completion, [disk.tool]) == []

    played = await play(agent_of(body))

    assert told == ["length"]
    assert disk.deleted == []
    assert [end["error"] for end in only(played.log, T.TOOL_CALL_END)] == [CUT]


async def test_a_body_is_told_that_a_reply_was_withheld() -> None:
    model = Model([final("content_filter", DELETE)])

    async def body(ctx: RunContext) -> None:
        await ctx.model(ctx.messages, client=model)

    played = await play(agent_of(body))

    assert (error_of(played.log)["source"], error_of(played.log)["code"]) == ("model", "withheld")


# The law


@pytest.mark.parametrize("reason", ["length", "content_filter"])
@pytest.mark.parametrize("schema", [1, 2])
def test_the_law_refuses_to_start_a_call_of_such_a_reply(reason: str, schema: int) -> None:
    """But reads the logs of the first schema, whose runs did."""
    law = Law()
    law.step(T.RUN_START, {"schema": schema}, "root")
    change = {"old_status": "initializing", "new_status": "running", "reason": None}
    law.step(T.STATE_CHANGE, change, "root")
    complete = {"message_id": "m1", "content": "", "finish_reason": reason}
    law.step(T.MESSAGE_COMPLETE, complete, "root")
    start = {"call_id": "c1", "tool_name": "t", "message_id": "m1", "provider_executed": False}

    if schema == 1:
        law.step(T.TOOL_CALL_START, start, "root")
    else:
        with pytest.raises(LocalProtocolError, match="m1: the reply was") as caught:
            law.step(T.TOOL_CALL_START, start, "root")
        assert caught.value.law == "L10"


async def test_a_runtime_that_runs_them_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what a turn forgets, the gate holds."""
    monkeypatch.setattr("flowtrio._agents._model.UNFIT_TO_RUN", {})
    disk = Disk()
    model = Model([written(), final("length", DELETE)], ANSWER)

    stream = StreamEngine().stream(runner(model, disk.tool), "go")
    log = [event async for event in stream]

    assert disk.deleted == []
    assert error_of(log)["error"].startswith("LocalProtocolError")
