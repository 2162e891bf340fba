"""However a run ends, its conversation is one that every provider takes, and says what happened.

Each row of the table is a small program and the end it comes to. What it leaves behind is judged
three times: by each provider's rules, by what its events say of its calls and words, and by what a
next turn on it asks of its model.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs
import pytest
import trio

from flowtrio import (
    Agent,
    AgentEvent,
    Chunk,
    DeadlineExceeded,
    EventStream,
    EventType,
    Limits,
    Orchestrator,
    ProviderError,
    RunContext,
    StreamEngine,
    ToolCall,
    ToolFailed,
    tool,
)
from flowtrio.testing import CUT, ScriptedModel, check_events
from tests.support.conversations import log_problems, refusals

T = EventType


# Playing


@attrs.frozen
class Ended:
    """A run that has ended, and what it was given."""

    log: list[AgentEvent]
    messages: list[dict[str, Any]]
    history: Sequence[Mapping[str, Any]] = ()


Reader = Callable[[EventStream, AgentEvent], Any]
"""What a reader does at each event; True leaves."""
Row = Callable[[], Awaitable[Iterable[Ended]]]

_asked: list[str] = []
"""What providers would have refused of what the models of a row were asked."""


class Model(ScriptedModel):
    """A scripted model that judges what it is asked by every provider's rules."""

    def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
        """Judge, and play the next turn."""
        _asked.extend(refusals([m for m in messages if m["role"] != "system"]))
        return super().stream_completion(messages, tools, **options)


async def go(
    agent: Any,
    message: str = "go",
    at: Reader = lambda stream, event: None,
    *,
    history: Sequence[Any] = (),
    **options: Any,
) -> Ended:
    """Run an agent in a block, and read it as *at* says."""
    log: list[AgentEvent] = []
    given = copy.deepcopy(list(history))
    stream = StreamEngine().stream(agent, message, history=history, **options)
    async with stream:
        async for event in stream:
            log.append(event)
            if at(stream, event):
                break
    with suppress(trio.EndOfChannel):
        while True:
            log += await stream.receive_batch()
    check_events(log)
    assert list(history) == given, "the caller's history was changed"
    return Ended(log, stream.messages, history)


def on(type: EventType, act: Callable[[EventStream, dict[str, Any]], Any]) -> Reader:
    """Do something at each event of a type."""

    def at(stream: EventStream, event: AgentEvent) -> bool:
        if event.type is type:
            act(stream, event.data)
        return False

    return at


def leave_at(type: EventType) -> Reader:
    """Leave the block at the first event of a type."""
    return lambda stream, event: event.type is type


ROWS: dict[str, Row] = {}


def ending(row: Callable[[], Awaitable[Ended | Iterable[Ended]]]) -> Row:
    """A row of the table."""

    async def play() -> Iterable[Ended]:
        ended = await row()
        return [ended] if isinstance(ended, Ended) else ended

    ROWS[row.__name__] = play
    return play


def simple(name: str, make: Callable[[], Awaitable[Ended]]) -> None:
    """A row whose program is one expression."""
    make.__name__ = name  # type: ignore[attr-defined]
    ending(make)


# Tools


@tool
async def look(city: str = "Paris") -> str:
    """Look it up."""
    await trio.sleep(1)
    return f"{city} is fine"


@tool
async def count(city: str = "Paris") -> dict[str, Any]:
    """Count something."""
    await trio.sleep(2)
    return {"city": city, "n": [1, 2]}


@tool
async def nothing() -> None:
    """Give nothing."""


@tool
async def blank() -> str:
    """Give no text."""
    return ""


@tool
async def fails() -> None:
    """Fail."""
    raise ValueError("no luck")


@tool(fatal=True)
async def breaks() -> None:
    """Fail for good."""
    raise ValueError("for good")


@tool(timeout=5)
async def slow() -> str:
    """Take too long."""
    await trio.sleep(1000)
    return "never"


@tool(needs_approval=True)
async def pay(sum: int = 1) -> str:
    """Pay."""
    return f"paid {sum}"


class Halt(BaseException):
    """No exception."""


@tool
async def halts() -> None:
    """Raise what is no exception."""
    raise Halt


@tool
async def chatty(ctx: RunContext) -> str:
    """Say something while it works."""
    async with ctx.message() as out:
        await out.write("still working")
    return "done"


@tool
async def nesting(ctx: RunContext) -> Any:
    """Call another one."""
    return await ctx.call(count, city="Rome")


@tool
async def expert(ctx: RunContext) -> Any:
    """Ask another agent."""
    return await ctx.delegate(Agent(llm_client=Model("expertise"), name="expert"), "tell me")


TOOLS = [look, count, nothing, blank, fails, breaks, slow, pay, halts, chatty, nesting, expert]


def asks(*turns: Any, **options: Any) -> Agent[Any]:
    """An agent with all tools, whose model says *turns*."""
    return Agent(llm_client=Model(*turns), tools=TOOLS, **options)


def call(name: str, id: str | None = None, /, **arguments: Any) -> ToolCall:
    """A call of a model's."""
    return ToolCall(f"p_{name}" if id is None else id, name, arguments)


def calling(
    *names: str, then: Any = "fine", text: str = "let me see", **options: Any
) -> Agent[Any]:
    """An agent that says a word, calls tools and then answers."""
    calls = [call(name, f"p{n}") for n, name in enumerate(names)]
    return asks([*([text] if text else ()), *calls], then, **options)


# An agent's turns

simple("an answer", lambda: go(asks("hello")))
simple("two calls", lambda: go(calling("look", "count")))
simple("calls without a word", lambda: go(calling("look", "count", text="")))
simple("a blank text before calls", lambda: go(calling("look", text=" \n")))
simple("no result", lambda: go(calling("nothing", "blank")))
simple("a tool that raises", lambda: go(calling("fails", "look")))
simple("a tool that takes too long", lambda: go(calling("slow", "look")))
simple("a tool that ends the run", lambda: go(calling("breaks", "look")))
simple("a tool that raises what is no exception", lambda: go(calling("look", "halts")))
simple("an unknown tool", lambda: go(calling("loook", "look")))
simple("a tool that says something", lambda: go(calling("chatty", "look")))
simple("a tool that calls another one", lambda: go(calling("nesting", "look")))
simple("a tool that asks another agent", lambda: go(calling("expert")))
simple("arguments that do not parse", lambda: go(asks([_unparsed(), call("count")], "fine")))
simple("arguments that do not fit", lambda: go(asks([call("pay", sum="much")], "fine")))
simple("arguments of another name", lambda: go(asks([call("look", town="Rome")], "fine")))
simple(
    "turns without end", lambda: go(calling("look", then=[call("look")]), limits=Limits(turns=2))
)
simple("a blank answer", lambda: go(asks(" \n ")))
simple("a blank message", lambda: go(asks("hello"), "  "))
simple("an empty message", lambda: go(asks("hello"), ""))
simple("an odd text", lambda: go(asks("h\udc80ello\u2028"), "\ud83d and \x00"))


def _unparsed() -> ToolCall:
    return ToolCall("p1", "look", None, raw='{"city": "Pa')


# Approvals


def _deny(reason: str | None) -> Reader:
    return on(T.APPROVAL_REQUIRED, lambda stream, data: stream.deny(data["call_id"], reason))


def _approve(stream: EventStream, data: dict[str, Any]) -> None:
    stream.approve(data["call_id"])


simple("an approved call", lambda: go(calling("pay", "look"), at=on(T.APPROVAL_REQUIRED, _approve)))
simple("a denied call", lambda: go(calling("pay", "look"), at=_deny(None)))
simple("a call denied with a reason", lambda: go(calling("pay"), at=_deny("too much")))
simple("nobody approves", lambda: go(calling("pay", "look"), limits=Limits(approval=5)))
simple("a run cancelled while it waits for approval", lambda: go(calling("pay"), at=_cancel_asked))
simple("a call cancelled while it waits for approval", lambda: go(calling("pay"), at=_cancel_tool))


def _cancel_asked(stream: EventStream, event: AgentEvent) -> None:
    if event.type is T.APPROVAL_REQUIRED:
        stream.cancel("no")


def _cancel_tool(stream: EventStream, event: AgentEvent) -> None:
    if event.type in (T.APPROVAL_REQUIRED, T.TOOL_CALL_START):
        stream.cancel_tool(event.data["call_id"])


def _cancel_first(stream: EventStream, event: AgentEvent) -> None:
    if event.type is T.TOOL_CALL_START and event.data["call_id"] == "c1":
        stream.cancel_tool("c1")


# Ends in the midst


def _cancel(stream: EventStream, data: dict[str, Any]) -> None:
    stream.cancel("stop")


def cancel_at(type: EventType) -> Reader:
    """Cancel the run at the events of a type."""
    return on(type, _cancel)


_TWO = ("look", "count")
_TALK = ["one ", 1, "two ", 1, "three"]
simple("one call cancelled of two", lambda: go(calling("look", "count"), at=_cancel_first))
simple("both calls cancelled", lambda: go(calling("look", "count"), at=_cancel_tool))
simple(
    "cancelled in the calls",
    lambda: go(calling(*_TWO), at=cancel_at(T.TOOL_CALL_START)),
)
simple(
    "cancelled between two results",
    lambda: go(calling(*_TWO), at=cancel_at(T.TOOL_CALL_END)),
)
simple("cancelled in the text", lambda: go(asks(_TALK), at=cancel_at(T.MESSAGE_CHUNK)))
simple("cancelled in the arguments", lambda: go(calling("look"), at=cancel_at(T.TOOL_CALL_ARGS)))
simple(
    "cancelled when the reply is complete",
    lambda: go(calling("look"), at=cancel_at(T.MESSAGE_COMPLETE)),
)
simple("cancelled at once", lambda: go(asks("hello"), at=cancel_at(T.RUN_START)))
simple("left in the text", lambda: go(asks(_TALK), at=leave_at(T.MESSAGE_CHUNK)))
simple("left in the arguments", lambda: go(calling("look", "count"), at=leave_at(T.TOOL_CALL_ARGS)))
simple("left in the calls", lambda: go(calling("look", "slow"), at=leave_at(T.TOOL_CALL_END)))
simple("left in blank text", lambda: go(asks(["\n", 1, "two"]), at=leave_at(T.MESSAGE_CHUNK)))
simple("the run's deadline in the text", lambda: go(asks(_TALK), limits=Limits(run=1.5)))
simple("the run's deadline in the calls", lambda: go(calling(*_TWO), limits=Limits(run=1.5)))


# What a model does

_REFUSED = ProviderError("overloaded", status=529, retryable=False)
simple("a host that refuses", lambda: go(asks([_REFUSED])))
simple("a host that refuses the second turn", lambda: go(calling("look", then=[_REFUSED])))
simple("a host that fails in the text", lambda: go(asks(["half an ans", _REFUSED])))
simple("a model cut in the text", lambda: go(asks(["half an ans", CUT])))
simple("a model cut before a word", lambda: go(asks([CUT])))
simple("a model cut behind its calls", lambda: go(asks(["well", call("look"), CUT])))
simple("a long answer", lambda: go(asks(["much", _final("length")])))
simple(
    "calls of a reply that was too long", lambda: go(asks([_final("length", call("look"))], "so"))
)
simple("a filtered answer", lambda: go(asks(["so far", _final("content_filter")])))
simple("an answer filtered whole", lambda: go(asks([_final("content_filter")])))
simple("a refusal", lambda: go(asks([_part("refusal", "I will not."), _final("stop")])))
simple("calls with a reason that says stop", lambda: go(asks([_final("stop", call("look"))], "so")))
simple("reset in the text", lambda: go(asks(["wrong ", Chunk(reset="again"), "right"])))
simple("reset behind arguments", lambda: go(asks([call("look"), Chunk(reset="again"), "right"])))
simple("reset, and calls again", lambda: go(_resets()))


def _final(reason: Any, *calls: ToolCall) -> Chunk:
    return Chunk(is_final=True, finish_reason=reason, tool_calls=list(calls))


def _part(type: str, text: str) -> Chunk:
    return Chunk(parts=[{"type": type, "text": text}])


def _resets() -> Agent[Any]:
    again = [Chunk(reset="again"), "now ", _final("tool_calls", call("count", city="Rome"))]
    return asks([call("look", "p_count"), *again], "fine")


# Ids and names

_LONG = "chatcmpl-tool-" + "0123456789abcdef" * 2
assert len(_LONG) == 46


def _twice(*calls: ToolCall) -> Agent[Any]:
    """An agent that makes the same calls in two turns."""
    return asks(list(calls), list(calls), "fine")


simple("one id twice in a reply", lambda: go(_twice(call("look", "x"), call("count", "x"))))
simple("no ids", lambda: go(_twice(call("look", ""), call("look", ""), call("count", ""))))
simple("ids of 46 characters", lambda: go(_twice(call("look", _LONG), call("count", _LONG + "x"))))
simple("ids of odd letters", lambda: go(_twice(call("look", "a.b:c/ü"), call("look", "a.b:c/ö"))))
simple(
    "ids that differ in what is cut",
    lambda: go(asks([call("look", _LONG + "1"), call("look", _LONG + "2")], "so")),
)
simple("a name with a dot", lambda: go(_twice(call("functions.look", "x"), call("look", "y"))))
simple("a name of 80 letters", lambda: go(_twice(call("look" * 20, "x"))))
simple("a name that begins with a digit", lambda: go(_twice(call("3d", "x"), call("-", "y"))))
simple("a name of blanks", lambda: go(_twice(call("l o o k", "x"), call(" ", "y"))))
simple("a name of none", lambda: go(asks([_final("tool_calls", call("", "x"))], "so")))
simple("names that become one", lambda: go(_twice(call("a.b", "x"), call("a/b", "y"))))


@ending
async def ids_that_run_ids_share() -> list[Ended]:
    """Ids are made of the run's, and two runs of one conversation may have ids that end alike."""
    first = await go(_twice(call("look", "")), run_id="a-" + "z" * 40)
    second = await go(_twice(call("look", "")), history=first.messages, run_id="b-" + "z" * 40)
    return [first, second]


@ending
async def the_same_ids_in_the_next_turn() -> list[Ended]:
    first = await go(_twice(call("look", "x"), call("look", _LONG)))
    second = await go(_twice(call("look", "x"), call("look", _LONG)), history=first.messages)
    return [first, second]


@ending
async def the_next_turn_of_one_that_was_cut() -> list[Ended]:
    first = await go(calling(*_TWO), at=cancel_at(T.TOOL_CALL_END))
    second = await go(asks(["half", CUT]), history=first.messages)
    third = await go(calling("look"), history=second.messages)
    return [first, second, third]


@ending
async def two_messages_after_no_answer() -> list[Ended]:
    first = await go(asks([_REFUSED]))
    second = await go(asks([_REFUSED]), history=first.messages)
    return [first, second]


# Types of answers


@ending
async def an_answer_of_the_wrong_type_once() -> Ended:
    return await go(Agent(llm_client=Model("three", '{"result": 3}'), output=int))


@ending
async def an_answer_of_the_wrong_type_twice() -> Ended:
    return await go(Agent(llm_client=Model("three", "four"), output=int))


@ending
async def a_blank_answer_of_a_type() -> Ended:
    return await go(Agent(llm_client=Model(" ", '{"result": 3}'), output=int))


# Histories that were given


def _called(id: Any, arguments: Any = "{}", name: str = "look") -> dict[str, Any]:
    made = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [made]}


def _result(id: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": "fine"}


_HI: dict[str, Any] = {"role": "user", "content": "hi"}
_SO: dict[str, Any] = {"role": "assistant", "content": "so"}
_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}

GIVEN: dict[str, list[dict[str, Any]]] = {
    "a plain one": [_HI, _SO],
    "calls": [_HI, _called("x"), _result("x"), _SO],
    "arguments that do not parse": [_HI, _called("x", '{"city": "Pa'), _result("x"), _SO],
    "arguments that are no object": [_HI, _called("x", "[1]"), _result("x"), _SO],
    "no arguments": [_HI, _called("x", ""), _result("x"), _SO],
    "a result that is missing": [_HI, _called("x"), _SO],
    "a result that is missing at the end": [_HI, _called("x")],
    "ids of 46 characters": [_HI, _called(_LONG), _result(_LONG), _SO],
    "an id twice": [_HI, _called("x"), _result("x"), _called("x"), _result("x"), _SO],
    "a name with a dot": [_HI, _called("x", name="functions.look"), _result("x"), _SO],
    "a blank message": [{"role": "user", "content": " "}, _SO, _HI, _SO],
    "a blank answer": [_HI, {"role": "assistant", "content": " \n"}, _HI, _SO],
    "two messages in a row": [_HI, _HI, _SO],
    "an image": [{"role": "user", "content": [{"type": "text", "text": "look"}, _IMAGE]}, _SO],
    "an image alone": [{"role": "user", "content": [_IMAGE]}, _SO],
    "a blank part": [{"role": "user", "content": [{"type": "text", "text": ""}, _IMAGE]}, _SO],
    "the assistant first": [_SO, _HI, _SO],
    "an empty result": [_HI, _called("x"), {**_result("x"), "content": ""}, _SO],
}


def _with_history(history: list[dict[str, Any]]) -> Callable[[], Awaitable[Ended]]:
    return lambda: go(_twice(call("look", "x")), history=history)


for _name, _given in GIVEN.items():
    simple(f"a history with {_name}", _with_history(_given))


# Custom agents


def custom(body: Callable[[RunContext, str], Awaitable[Any]]) -> None:
    """A row: a run of a custom agent, read to its end."""

    async def row() -> Ended:
        return await go(body)

    row.__name__ = body.__name__
    ending(row)


async def say(ctx: RunContext, *texts: str) -> None:
    """Say one message."""
    async with ctx.message() as out:
        for text in texts:
            await out.write(text)


USER: list[dict[str, Any]] = [{"role": "user", "content": "go"}]


@custom
async def returns_a_text(ctx: RunContext, message: str) -> str:
    return "the answer"


@custom
async def returns_what_it_said(ctx: RunContext, message: str) -> str:
    await say(ctx, "the ", "answer")
    return "the answer"


@custom
async def returns_another_text(ctx: RunContext, message: str) -> str:
    await say(ctx, "one moment")
    return "the answer"


@custom
async def returns_what_it_said_first(ctx: RunContext, message: str) -> str:
    await say(ctx, "one")
    await say(ctx, "two")
    return "one"


@custom
async def returns_a_value(ctx: RunContext, message: str) -> Any:
    return {"booked": True, "for": ["Zoë", 2]}


@custom
async def returns_a_value_and_has_spoken(ctx: RunContext, message: str) -> Any:
    await say(ctx, "booked")
    return {"booked": True}


@custom
async def returns_nothing_and_says_nothing(ctx: RunContext, message: str) -> None:
    await trio.lowlevel.checkpoint()


@custom
async def returns_and_says_blanks(ctx: RunContext, message: str) -> str:
    await say(ctx, " ", "\n")
    await say(ctx)
    return "  "


@custom
async def raises(ctx: RunContext, message: str) -> None:
    await say(ctx, "here I go")
    raise ValueError("no")


@custom
async def raises_in_a_message(ctx: RunContext, message: str) -> str:
    with suppress(ValueError):
        async with ctx.message() as out:
            await out.write("half")
            raise ValueError
    return "after all"


@custom
async def cancels_its_message(ctx: RunContext, message: str) -> None:
    with trio.move_on_after(1):
        async with ctx.message() as out:
            await out.write("half")
            await trio.sleep(5)
    await say(ctx, "whole")


@custom
async def two_messages_at_once(ctx: RunContext, message: str) -> None:
    async with ctx.message() as one, ctx.message() as two:
        await one.write("o")
        await two.write("t")
        await one.write("ne")
        await two.write("wo")


@custom
async def calls_of_its_own(ctx: RunContext, message: str) -> Any:
    await say(ctx, "looking")
    with suppress(ToolFailed):
        await ctx.call(fails)
    return await ctx.call(look, city="Rome")


async def _model(ctx: RunContext, *turns: Any, messages: Any = USER) -> Any:
    return await ctx.model(messages, client=Model(*turns), tools=TOOLS)


@custom
async def asks_a_model(ctx: RunContext, message: str) -> str:
    return str((await _model(ctx, "hello")).content)


@custom
async def asks_a_model_and_returns_another_text(ctx: RunContext, message: str) -> str:
    return str((await _model(ctx, "hello")).content).upper()


@custom
async def runs_the_calls_of_a_model(ctx: RunContext, message: str) -> str:
    reply = await _model(ctx, ["well", call("look", "x", city="Rome"), call("count", "y")])
    for made in reply.tool_calls:
        await ctx.call({"look": look, "count": count}[made.name], **made.arguments)
    return "both"


@custom
async def runs_the_calls_of_a_model_at_once_and_speaks(ctx: RunContext, message: str) -> str:
    reply = await _model(ctx, [call("count", "x"), call("look", "y"), call("fails", "z")])
    tools = {"look": look, "count": count, "fails": fails}

    async def run(made: ToolCall) -> None:
        with suppress(ToolFailed):
            await ctx.call(tools[made.name], **(made.arguments or {}))

    async with trio.open_nursery() as nursery:
        for made in reply.tool_calls:
            nursery.start_soon(run, made)
        await say(ctx, "still working")
    return str((await _model(ctx, "fine", messages=USER)).content)


@custom
async def runs_one_call_of_two(ctx: RunContext, message: str) -> str:
    await _model(ctx, [call("look", "x"), call("count", "y")])
    await ctx.call(count)
    return "that is enough"


@custom
async def runs_no_call_of_a_model(ctx: RunContext, message: str) -> None:
    await _model(ctx, ["I would", call("look", "x"), call("count", "y")])


@custom
async def runs_the_calls_of_the_reply_before(ctx: RunContext, message: str) -> str:
    await _model(ctx, [call("look", "x", city="Rome")])
    await say(ctx, "a moment")
    return str(await ctx.call(look, city="Rome"))


@custom
async def runs_equal_calls(ctx: RunContext, message: str) -> None:
    await _model(ctx, [call("look", "x"), call("look", "y")])
    await ctx.call(look)
    with trio.move_on_after(0.5):
        await ctx.call(look, city="Paris")


@custom
async def runs_all_calls_of_a_model(ctx: RunContext, message: str) -> str:
    calls = [call("look", "x"), call("fails", "x"), call("other", ""), _unparsed()]
    await ctx.run_calls(await _model(ctx, ["well", *calls]), [look, fails])
    return str((await _model(ctx, "fine", messages=ctx.messages)).content)


@custom
async def runs_the_very_calls_of_a_model(ctx: RunContext, message: str) -> None:
    reply = await _model(ctx, [call("look", "x"), call("look", "y"), _unparsed()])
    await say(ctx, "a moment")
    for made in reversed(reply.tool_calls):
        with suppress(ToolFailed):
            await ctx.call(look, made)


@custom
async def a_model_that_fails_is_caught(ctx: RunContext, message: str) -> str:
    with suppress(ProviderError):
        await _model(ctx, ["half", _REFUSED])
    return "sorry"


@custom
async def a_model_that_is_left(ctx: RunContext, message: str) -> str:
    with trio.move_on_after(1.5):
        await _model(ctx, _TALK)
    return "enough"


@custom
async def a_call_that_is_left(ctx: RunContext, message: str) -> str:
    await _model(ctx, [call("look", "x"), call("count", "y")])
    with trio.move_on_after(1.5):
        async with trio.open_nursery() as nursery:
            for each in (look, count):
                nursery.start_soon(ctx.call, each)
    return "enough"


@custom
async def asks_and_nobody_answers(ctx: RunContext, message: str) -> str:
    await say(ctx, "I wonder")
    try:
        return await ctx.ask("Which?")
    except DeadlineExceeded:
        return "nobody knows"


@custom
async def speaks_in_the_background(ctx: RunContext, message: str) -> str:
    ctx.start_soon(say, ctx, "from behind")
    return "in front"


@ending
async def an_approval_of_its_own_denied() -> Ended:
    async def agent(ctx: RunContext, message: str) -> str:
        return "yes" if await ctx.approve("book", {"price": 3}) else "not booked"

    return await go(agent, at=_deny("no"))


@ending
async def a_custom_agent_cancelled_in_a_call_of_its_model() -> Ended:
    return await go(_body(runs_model_calls), at=cancel_at(T.TOOL_CALL_START))


async def runs_model_calls(ctx: RunContext) -> None:
    await _model(ctx, ["well", call("look", "x"), call("count", "y")])
    await ctx.call(look)
    await ctx.call(count)


def _body(fn: Callable[[RunContext], Awaitable[Any]]) -> Any:
    async def agent(ctx: RunContext, message: str) -> Any:
        return await fn(ctx)

    return agent


# Agents in agents


@custom
async def an_agent_called(ctx: RunContext, message: str) -> Any:
    return await calling("look", "fails")(ctx, message)


@custom
async def an_agent_called_with_a_message_of_its_own(ctx: RunContext, message: str) -> Any:
    return await calling("look", then="a summary")(ctx, "Summarise: " + message)


@custom
async def an_agent_called_and_its_answer_changed(ctx: RunContext, message: str) -> Any:
    await say(ctx, "first")
    return (await calling("count", then="a summary")(ctx, message)).upper()


@custom
async def two_agents_called_in_turn(ctx: RunContext, message: str) -> Any:
    first = await calling("look", then="one")(ctx, message)
    return await calling("look", "count", then=f"{first} and two")(ctx, f"Go on from {first}.")


@custom
async def two_agents_called_at_once(ctx: RunContext, message: str) -> None:
    async with trio.open_nursery() as nursery:
        for names, then in (("look", "slow"), "a"), (("count", "look"), "b"):
            agent = calling(*names, then=then, text=f"text {then}")
            nursery.start_soon(agent, ctx, f"part {then}")


@custom
async def an_agent_called_while_its_caller_speaks(ctx: RunContext, message: str) -> Any:
    async def still() -> None:
        await trio.sleep(0.5)
        await say(ctx, "still working")

    ctx.start_soon(still)
    return await calling("look", "count")(ctx, message)


@custom
async def an_agent_called_that_fails(ctx: RunContext, message: str) -> Any:
    with suppress(ProviderError):
        await calling("look", then=["half", _REFUSED])(ctx, message)
    return "sorry"


@custom
async def an_agent_called_that_is_left(ctx: RunContext, message: str) -> Any:
    with trio.move_on_after(1.5):
        await calling("look", "count")(ctx, message)
    return "enough"


@custom
async def delegates(ctx: RunContext, message: str) -> Any:
    return await ctx.delegate(calling("look", then="an answer", name="other"), message)


@custom
async def delegates_and_says_something_else(ctx: RunContext, message: str) -> Any:
    await say(ctx, "asking")
    await ctx.delegate(calling("look", then="an answer", name="other"), message)
    await say(ctx, "asked")


@custom
async def delegates_to_one_that_fails(ctx: RunContext, message: str) -> Any:
    with suppress(ProviderError):
        await ctx.delegate(asks([_REFUSED], name="other"), message)
    return "nobody knows"


@custom
async def delegates_to_one_that_delegates(ctx: RunContext, message: str) -> Any:
    async def middle(ctx: RunContext, message: str) -> Any:
        await say(ctx, "in the middle")
        return {"deep": await ctx.delegate(asks("deep", name="inner"), message)}

    return await ctx.delegate(middle, message)


@custom
async def delegates_in_the_call_of_a_model(ctx: RunContext, message: str) -> Any:
    await _model(ctx, [call("expert", "x"), call("nesting", "y")])
    await ctx.call(expert)
    await ctx.call(nesting)
    return "so they say"


@custom
async def delegates_with_what_was_said(ctx: RunContext, message: str) -> Any:
    await say(ctx, "asking")
    return await ctx.delegate(calling("look", name="other"), "and?", ctx.messages)


@custom
async def an_agent_called_in_a_tool(ctx: RunContext, message: str) -> Any:
    @tool
    async def asks_inside(ctx: RunContext) -> Any:
        """Call an agent."""
        return await calling("look", then="inside")(ctx, "inside?")

    await _model(ctx, [call("asks_inside", "x")])
    await ctx.call(asks_inside)
    return "outside"


@ending
async def cancelled_in_a_nested_call() -> Ended:
    async def agent(ctx: RunContext, message: str) -> Any:
        await say(ctx, "asking")
        return await ctx.delegate(calling("look", "count", name="other"), message)

    return await go(agent, at=cancel_at(T.TOOL_CALL_START))


@ending
async def cancelled_in_the_tool_of_a_tool() -> Ended:
    def at(stream: EventStream, event: AgentEvent) -> None:
        if event.type is T.TOOL_CALL_START and event.data["tool_name"] == "count":
            stream.cancel_tool(event.data["call_id"])

    return await go(calling("nesting", "look"), at=at)


# Conversations that are kept


async def _heard(stream: EventStream) -> list[AgentEvent]:
    return [event async for event in stream]


@ending
async def a_message_that_cancels_the_one_before() -> list[Ended]:
    agent = asks(["let me", call("look"), call("count")], "second", "third")
    ended: list[Ended] = []

    async def talk(message: str) -> None:
        stream = orchestrator.process_stream(message, session_id="s")
        log = await _heard(stream)
        kept = await orchestrator.conversations.load("default", "s")
        ended.append(Ended(log, stream.messages, ended[-1].messages if ended else ()))
        assert not refusals(list(kept))

    async with Orchestrator(agents=[agent], on_busy="cancel") as orchestrator:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk, "first")
            await trio.sleep(1.5)
            nursery.start_soon(talk, "second")
        await talk("third")
    return ended


@ending
async def agents_that_take_turns() -> list[Ended]:
    one, other = calling("look", name="one"), calling("look", "count", name="other")
    ended: list[Ended] = []
    async with Orchestrator(agents=[one, other], route=lambda m, _: m) as orchestrator:
        for name in ("one", "other"):
            stream = orchestrator.process_stream(name, session_id="s")
            log = await _heard(stream)
            ended.append(Ended(log, stream.messages, ended[-1].messages if ended else ()))
    return ended


# The judgement


@pytest.mark.parametrize("name", ROWS)
async def test_what_a_run_leaves_behind_is_taken_and_true(name: str, autojump_clock: Any) -> None:
    _asked.clear()
    ended = list(await ROWS[name]())

    told = list(_asked)
    for each in ended:
        told += refusals([*each.messages, {"role": "user", "content": "And now?"}])
        told += log_problems(each.messages, each.log, each.history)
        told += await _next_turn(each.messages)

    assert not told, "\n".join(dict.fromkeys(told))


async def _next_turn(history: list[dict[str, Any]]) -> list[str]:
    """What is wrong with a further turn on a conversation."""
    model = Model([call("look", "x"), call("look", "x")], "fine")
    ended = await go(Agent(llm_client=model, tools=TOOLS), "And now?", history=history)
    told = [] if ended.log[-1].data["status"] == "completed" else [repr(ended.log[-2].data)]
    return told + log_problems(ended.messages, ended.log, history)


def test_the_table_is_long_enough() -> None:
    assert len(ROWS) >= 40
