"""What people bring: answers that are more than a line, questions declined, arguments edited."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import attrs
import pytest
import trio

from flowtrio import (
    Agent,
    Chunk,
    DeadlineExceeded,
    EventStream,
    EventType,
    InputDeclined,
    RunContext,
    Tool,
    ToolCall,
    tool,
)
from flowtrio.testing import ScriptedModel, check_events
from tests.runtime._programs import agent_of, call, only, outcomes, play, runner

T = EventType


@attrs.frozen
class Address:
    street: str
    number: int


def pressing(type: EventType, key: str, press: Callable[[EventStream, str], Any]) -> Any:
    """A reader that does *press* when it is asked."""

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is type:
                press(stream, event.data[key])

    return reader


def answering(*values: Any) -> Any:
    """A reader whose answers are refused but for the last."""

    def press(stream: EventStream, id: str) -> None:
        for value in values[:-1]:
            with pytest.raises(ValueError, match=f"answer to {id}: "):
                stream.answer(id, value)
        assert stream.answer(id, values[-1])
        assert not stream.answer(id, values[-1])

    return pressing(T.INPUT_REQUIRED, "request_id", press)


async def ask(schema: Any, *values: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Ask for *schema*; gives the value, and what both events told."""
    got: list[Any] = []

    async def body(ctx: RunContext) -> None:
        got.append(await ctx.ask("Where to?", schema))

    played = await play(agent_of(body), reader=answering(*values))
    check_events(played.log)
    [asked], [resolved] = only(played.log, T.INPUT_REQUIRED), only(played.log, T.INPUT_RESOLVED)
    return got[0], asked, resolved


@attrs.frozen
class Branch:
    leaves: list[Branch]


async def test_a_schema_refers_to_nothing_but_what_refers_to_itself() -> None:
    _, asked, _ = await ask(list[Address], [])
    _, recursive, _ = await ask(Branch, {"leaves": []})

    assert asked["schema"]["items"]["properties"]["number"] == {"type": "integer"}
    # Its class's name would stand in a form in the place of the field's.
    assert "title" not in asked["schema"]["items"]
    assert "$defs" not in asked["schema"]
    assert recursive["schema"]["properties"]["leaves"]["items"] == {"$ref": "#/$defs/Branch"}
    assert list(recursive["schema"]["$defs"]) == ["Branch"]


async def test_a_question_of_a_type_gives_its_value_and_tells_its_schema() -> None:
    value, asked, resolved = await ask(
        Address, {"street": "Long"}, "Long 3", {"street": "Long", "number": 3}
    )

    assert value == Address("Long", 3)
    assert sorted(asked["schema"]["properties"]) == ["number", "street"]
    assert resolved["text"] == '{"street":"Long","number":3}'


@pytest.mark.parametrize(
    ("schema", "given", "value"),
    [
        (None, "3", "3"),
        (int, "3", 3),
        (int, 3, 3),
        (bool, "true", True),
        (str, "Rome", "Rome"),
        (str, '"Rome"', "Rome"),
        (str, "3", "3"),
        (Literal["red", "blue"], "blue", "blue"),
        (list[int], "[1, 2]", [1, 2]),
        (int | None, "null", None),
        ({"type": "object", "required": ["a"]}, '{"a": 1}', {"a": 1}),
        ({"type": "string"}, "Rome", "Rome"),
    ],
)
async def test_a_text_stands_for_the_json_in_it_where_that_fits(
    schema: Any, given: Any, value: Any
) -> None:
    got, _, _ = await ask(schema, given)

    assert got == value


@pytest.mark.parametrize(
    ("schema", "wrong", "right"),
    [
        (None, 3, "3"),
        (int, "three", "3"),
        (int, "[" * 100_000, "3"),
        (int, "NaN", "3"),
        ({"type": "integer"}, "three", "3"),
        ({"type": "object", "required": ["a"]}, {"b": 1}, {"a": 1}),
    ],
)
async def test_a_wrong_answer_is_refused_and_the_question_stays_open(
    schema: Any, wrong: Any, right: Any
) -> None:
    _, _, resolved = await ask(schema, wrong, right)

    assert resolved["outcome"] == "answered"


async def test_what_a_type_itself_refuses_is_refused_to_the_answerer() -> None:
    @attrs.frozen
    class Even:
        number: int

        def __attrs_post_init__(self) -> None:
            if self.number % 2:
                raise ZeroDivisionError("odd")

    value, _, _ = await ask(Even, {"number": 3}, {"number": 4})

    assert value == Even(4)


@pytest.mark.parametrize("given", [object, 3, lambda: 3])
async def test_what_is_no_type_and_no_schema_cannot_be_asked_for(given: Any) -> None:
    async def body(ctx: RunContext) -> None:
        with pytest.raises(TypeError, match="expected a type with a JSON form"):
            await ctx.ask("?", given)

    played = await play(agent_of(body))

    assert only(played.log, T.INPUT_REQUIRED) == []


async def test_without_jsonschema_an_answer_is_any_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)

    value, _, _ = await ask({"type": "integer"}, '{"a": 1}')

    assert value == {"a": 1}


async def test_an_answer_that_is_no_json_is_refused_before_anything_is_decided() -> None:
    def press(stream: EventStream, id: str) -> None:
        with pytest.raises(TypeError, match="value: "):
            stream.answer(id, object())
        assert stream.answer(id, "yes")

    async def body(ctx: RunContext) -> str:
        return await ctx.ask("?")

    played = await play(agent_of(body), reader=pressing(T.INPUT_REQUIRED, "request_id", press))

    assert await played.stream.result() == "yes"


async def test_a_wrong_answer_from_another_thread_is_refused_there() -> None:
    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.INPUT_REQUIRED:
                id = event.data["request_id"]
                with pytest.raises(ValueError, match="answer to q1"):
                    await trio.to_thread.run_sync(stream.answer, id, "three")
                assert await trio.to_thread.run_sync(stream.answer, id, 3)

    async def body(ctx: RunContext) -> int:
        return await ctx.ask("?", int)

    played = await play(agent_of(body), reader=reader)

    assert await played.stream.result() == 3


@pytest.mark.parametrize("reason", [None, "none of your business"])
async def test_a_declined_question_raises_where_it_was_asked(reason: str | None) -> None:
    def press(stream: EventStream, id: str) -> None:
        assert stream.dismiss(id, reason)
        assert not stream.answer(id, "late")
        assert not stream.dismiss(id)

    async def body(ctx: RunContext) -> list[Any]:
        with pytest.raises(InputDeclined, match="declined to answer question q1") as caught:
            await ctx.ask("?")
        return [caught.value.request_id, caught.value.reason]

    played = await play(agent_of(body), reader=pressing(T.INPUT_REQUIRED, "request_id", press))
    check_events(played.log)

    assert await played.stream.result() == ["q1", reason]
    [resolved] = only(played.log, T.INPUT_RESOLVED)
    assert resolved == {"request_id": "q1", "outcome": "declined", "text": None}


async def test_what_was_declined_as_the_run_ended_stays_declined() -> None:
    def press(stream: EventStream, id: str) -> None:
        assert stream.dismiss(id)
        assert stream.cancel()

    async def body(ctx: RunContext) -> None:
        await ctx.ask("?")

    played = await play(agent_of(body), reader=pressing(T.INPUT_REQUIRED, "request_id", press))

    assert [data["outcome"] for data in only(played.log, T.INPUT_RESOLVED)] == ["declined"]


async def test_what_was_denied_as_the_run_ended_stays_denied() -> None:
    def press(stream: EventStream, id: str) -> None:
        assert stream.deny(id, "too dear")
        assert stream.cancel()

    model = ScriptedModel([ToolCall("p", "pay", {"amount": 5})])
    agent = Agent(llm_client=model, tools=[pay])
    played = await play(agent, reader=pressing(T.APPROVAL_REQUIRED, "call_id", press))

    [end] = only(played.log, T.TOOL_CALL_END)
    assert (end["outcome"], end["error"]) == ("denied", "too dear")
    assert "denied: too dear" in played.stream.messages[-1]["content"]


# Arguments that a person edits


@tool(needs_approval=True)
async def pay(amount: int, to: str = "Ada") -> str:
    """Pay somebody."""
    return f"{amount} to {to}"


def approving(*arguments: Any) -> Any:
    """A reader whose arguments are refused but for the last."""

    def press(stream: EventStream, id: str) -> None:
        for given in arguments[:-1]:
            with pytest.raises(ValueError, match=r"^arguments[^:]*: (?!arguments)"):
                stream.approve(id, given)
        assert stream.approve(id, arguments[-1])

    return pressing(T.APPROVAL_REQUIRED, "call_id", press)


def paying() -> ScriptedModel:
    asked = Chunk(
        is_final=True,
        tool_calls=[call("pay", amount=100)],
        finish_reason="tool_calls",
        carry={"signature": "s"},
    )
    return ScriptedModel([asked], "Done.")


async def test_edited_arguments_are_told_run_and_stand_in_the_conversation() -> None:
    model = paying()

    played = await play(
        runner(model, pay), reader=approving({"amount": "1"}, {"amuont": 1}, {"amount": 1})
    )
    check_events(played.log)

    [start], [end] = only(played.log, T.TOOL_CALL_START), only(played.log, T.TOOL_CALL_END)
    assert start["arguments"] == {"amount": 1}
    assert end["result"] == "1 to Ada"
    [asking] = [m for m in played.stream.messages if m.get("tool_calls")]
    assert asking["tool_calls"][0]["function"]["arguments"] == '{"amount":1}'
    assert "carry" not in str(asking)


async def test_arguments_that_are_approved_as_they_are_keep_what_the_provider_wants() -> None:
    for arguments in (None, {"amount": 100}):
        played = await play(runner(paying(), pay), reader=approving(arguments))

        assert outcomes(played.log) == {"pay": "ok"}
        assert "signature" in str(played.stream.messages)


async def test_an_approval_of_no_tool_has_no_arguments_to_edit() -> None:
    async def body(ctx: RunContext) -> bool:
        return await ctx.approve("book", {"price": 3})

    played = await play(agent_of(body), reader=approving({"price": 4}, None))

    assert await played.stream.result() is True


async def test_a_tool_whose_check_breaks_refuses_and_goes_on_waiting() -> None:
    def validate(arguments: dict[str, Any]) -> None:
        if arguments != {"amount": 100}:
            raise ZeroDivisionError

    async def fn(arguments: dict[str, Any]) -> str:
        return "paid"

    tool = Tool.from_schema(
        fn,
        name="pay",
        description="",
        parameters={"type": "object"},
        validate=validate,
        needs_approval=True,
    )

    played = await play(runner(paying(), tool), reader=approving({"amount": 1}, {"amount": 100}))

    assert outcomes(played.log) == {"pay": "ok"}


async def test_arguments_that_are_no_object_are_refused() -> None:
    def press(stream: EventStream, id: str) -> None:
        with pytest.raises(TypeError, match="arguments: expected a dict, got list"):
            stream.approve(id, [1])  # type: ignore[arg-type]
        assert stream.deny(id)

    played = await play(
        runner(paying(), pay), reader=pressing(T.APPROVAL_REQUIRED, "call_id", press)
    )

    assert outcomes(played.log) == {"pay": "denied"}


async def test_nobody_to_ask_is_a_question_without_an_answer(autojump_clock: Any) -> None:
    async def body(ctx: RunContext) -> None:
        with pytest.raises(DeadlineExceeded):
            await ctx.ask("?", Address)

    played = await play(agent_of(body))

    assert only(played.log, T.INPUT_RESOLVED)[0]["outcome"] == "timeout"
