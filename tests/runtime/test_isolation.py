"""One run's fault is that run's alone (L12): what closes cannot fail, and nobody waits for ever."""

from __future__ import annotations

import contextvars
import copy
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from flowtrio import (
    Chunk,
    EventStream,
    EventType,
    Limits,
    RunContext,
    StreamEngine,
    ToolCall,
    ToolFailed,
    tool,
)
from flowtrio._core._chunks import ToolArgs
from flowtrio._core._law import Law
from flowtrio._core._prices import PriceTable
from flowtrio._run._run import Run
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import (
    agent_of,
    calling,
    check_ended,
    error_of,
    only,
    outcomes,
    play,
    read_all,
    runner,
    spelled,
)
from tests.support.conversations import refusals

T = EventType


class Model:
    """A client that says what it was given, whatever that is."""

    def __init__(self, *replies: list[Any]) -> None:
        self.replies = list(replies)

    async def stream_completion(
        self, messages: Any, tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """Say the next reply."""
        for chunk in self.replies.pop(0) if self.replies else [Chunk(is_final=True)]:
            yield chunk


# What closes cannot be refused


@tool(needs_approval=True)
async def charge() -> str:
    """Charge the card."""
    return "charged"


@tool
async def shielding(ctx: RunContext) -> str:
    """Charge, whatever comes."""
    with trio.CancelScope(shield=True):
        return str(await ctx.call(charge))


@pytest.mark.parametrize("buffer", [1, 2, 3, 4, 5, 6, 64])
@pytest.mark.parametrize("click", ["approve", "deny", "cancel_tool"])
@pytest.mark.parametrize("pause", [0.0, 0.3])
async def test_a_shielded_tool_and_two_clicks(
    buffer: int, click: str, pause: float, autojump_clock: Any
) -> None:
    """The outer call is cancelled, and then the nested one is decided: nothing runs of it."""
    clicks: list[bool] = []

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            await trio.sleep(pause)
            if event.type is T.APPROVAL_REQUIRED:
                assert stream.cancel_tool("c1")
                await trio.sleep(pause)
                clicks.append(getattr(stream, click)(event.data["call_id"]))

    played = await play(
        runner(calling("shielding"), shielding), limits=Limits(buffer=buffer), reader=reader
    )

    assert played.status == "completed"
    assert clicks == [False]
    assert outcomes(played.log) == {"shielding": "cancelled", "charge": "cancelled"}
    assert [start["tool_name"] for start in only(played.log, T.TOOL_CALL_START)] == ["shielding"]


@pytest.mark.parametrize("at", range(9))
@pytest.mark.parametrize("buffer", [1, 2, 64])
@pytest.mark.parametrize("needs_approval", [False, True])
async def test_a_call_that_is_cancelled_while_it_waits_to_begin(
    at: int, buffer: int, needs_approval: bool, autojump_clock: Any
) -> None:
    """The reader makes room for its START, and cancels it before it has said that."""

    @tool(needs_approval=needs_approval)
    async def work() -> str:
        """Work."""
        return "done"

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.seq == at:
                stream.cancel_tool("c1")
            if event.type is T.APPROVAL_REQUIRED:
                stream.approve("c1")
            await trio.sleep(0.1)

    played = await play(runner(calling("work"), work), limits=Limits(buffer=buffer), reader=reader)

    assert played.status == "completed"
    assert outcomes(played.log)["work"] in ("ok", "cancelled")


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("buffer", [1, 2])
@pytest.mark.parametrize("call_id", ["c1", "c2", "c3"])
async def test_one_of_several_that_is_cancelled_while_it_waits_to_begin(
    at: int, buffer: int, call_id: str, autojump_clock: Any
) -> None:
    """The others begin, in their order."""

    @tool
    async def work() -> None:
        """Work."""

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.seq == at:
                stream.cancel_tool(call_id)
            await trio.sleep(0.1)

    client = Model([Chunk(is_final=True, tool_calls=[ToolCall("", "work", {})] * 3)])
    played = await play(runner(client, work), limits=Limits(buffer=buffer), reader=reader)

    begun = [start["call_id"] for start in only(played.log, T.TOOL_CALL_START)]
    assert played.status == "completed"
    assert begun == sorted(begun)
    assert {"c1", "c2", "c3"} - {call_id} <= set(begun)


@pytest.mark.parametrize("pause", [0.0, 0.3])
@pytest.mark.parametrize("ends", ["returns", "is cancelled", "fails"])
async def test_a_client_that_names_a_call_otherwise_in_the_end(
    ends: str, pause: float, autojump_clock: Any
) -> None:
    """What it wrote was another call, and is closed; what it means in the end runs."""

    @tool
    async def second() -> str:
        """Work."""
        await trio.sleep(1)
        if ends == "fails":
            raise ValueError("planted")
        return "done"

    chunks = [
        Chunk(tool_args=[ToolArgs(0, "p1", "first", "{}")]),
        Chunk(is_final=True, tool_calls=[ToolCall("p1", "second", {})]),
    ]

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            await trio.sleep(pause)
            if event.type is T.TOOL_CALL_START and ends == "is cancelled":
                stream.cancel()

    client = Model(chunks, [Chunk(content="fine"), Chunk(is_final=True)])
    played = await play(runner(client, second), reader=reader, limits=Limits(buffer=1))

    second_ends = {"returns": "ok", "is cancelled": "cancelled", "fails": "error"}[ends]
    assert outcomes(played.log) == {"first": "cancelled", "second": second_ends}
    assert only(played.log, T.TOOL_CALL_START)[0]["call_id"] == "c2"


ARGUMENTS = [('{"n": 1}', {"n": 2}), ('{"n": ', {}), ("", {"n": 1}), ('{"n": 1}', None)]


@pytest.mark.parametrize(("written", "meant"), ARGUMENTS)
async def test_a_client_that_writes_other_arguments_than_it_means(written: str, meant: Any) -> None:
    """The checker of `play` refuses a START whose arguments are not the ones that were written."""

    @tool
    async def count(n: int = 0) -> int:
        """Count."""
        return n

    chunks = [
        Chunk(tool_args=[ToolArgs(0, "p1", "count", written)]),
        Chunk(is_final=True, tool_calls=[ToolCall("p1", "count", meant)]),
    ]
    client = Model(chunks, [Chunk(content="fine"), Chunk(is_final=True)])

    played = await play(runner(client, count))

    last = only(played.log, T.TOOL_CALL_END)[-1]
    assert last["result"] == (None if meant is None else meant.get("n", 0))


@pytest.mark.parametrize("what", ["call", "delegate", "ask", "model", "approve", "message"])
async def test_what_a_shielded_tool_has_under_way_ends_with_its_call(
    what: str, autojump_clock: Any
) -> None:
    """Within the moment, shield or not: what is told to be cancelled is."""
    ended_at: list[float] = []

    @tool
    async def slow() -> str:
        """Take long."""
        await trio.sleep(100)
        return "never"

    async def helper(ctx: RunContext, message: str) -> str:
        await trio.sleep(100)
        return "never"

    class Slow:
        async def stream_completion(self, *args: Any, **options: Any) -> AsyncIterator[Chunk]:
            yield Chunk(content="well")
            await trio.sleep(100)

    @tool
    async def shielded(ctx: RunContext) -> str:
        """Do something, whatever comes."""
        verbs: dict[str, Callable[[], Any]] = {
            "call": lambda: ctx.call(slow),
            "delegate": lambda: ctx.delegate(helper, "go"),
            "ask": lambda: ctx.ask("Sure?"),
            "model": lambda: ctx.model([{"role": "user", "content": "hi"}], client=Slow()),
            "approve": lambda: ctx.approve("it"),
            "message": lambda: speak(ctx),
        }
        try:
            with trio.CancelScope(shield=True):
                await verbs[what]()
        finally:
            ended_at.append(trio.current_time())
        return "went on"

    async def speak(ctx: RunContext) -> None:
        async with ctx.message() as out:
            await out.write("well")
            await trio.lowlevel.checkpoint()

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all, stream, log)
            await trio.sleep(1)
            stream.cancel_tool("c1")
            assert not stream.cancel_tool("c1")

    began = trio.current_time()
    played = await play(runner(calling("shielded"), shielded), reader=reader)

    assert played.status == "completed"
    assert ended_at == [began + (0 if what == "message" else 1)]


@pytest.mark.parametrize("what", ["call", "charge", "delegate", "ask", "model", "approve", "reply"])
async def test_what_waits_for_the_reader_to_be_told_does_not_begin_after_its_call(
    what: str, autojump_clock: Any
) -> None:
    """A shielded tool, a reader that stopped, and a click: no event would tell of it."""
    began: list[str] = []
    raised: list[BaseException] = []

    @tool
    async def work() -> None:
        """Work."""
        began.append("work")

    async def helper(ctx: RunContext, message: str) -> None:
        began.append("helper")

    @tool
    async def shielded(ctx: RunContext) -> str:
        """Do something, whatever comes."""
        client = Model([Chunk(content="well"), Chunk(is_final=True)])
        verbs: dict[str, Callable[[], Any]] = {
            "call": lambda: ctx.call(work),
            "charge": lambda: ctx.call(charge),
            "delegate": lambda: ctx.delegate(helper, "go"),
            "ask": lambda: ctx.ask("Sure?"),
            "model": lambda: ctx.model([{"role": "user", "content": "hi"}], client=client),
            "reply": lambda: ctx.model([{"role": "user", "content": "hi"}], client=client),
            "approve": lambda: ctx.approve("it"),
        }
        with trio.CancelScope(shield=True):
            if what != "reply":
                await ctx.progress(0)
            try:
                assert await verbs[what]() is False
            except BaseException as exc:
                raised.append(exc)
        return "went on"

    async def reader(stream: EventStream, log: list[Any]) -> None:
        while not only(log, T.TOOL_CALL_START):
            log.append(await anext(stream))
        await trio.sleep(1)
        assert stream.statistics().parked_emitters == 1
        assert stream.cancel_tool("c1")
        await read_all(stream, log)

    limits = Limits(buffer=1)
    played = await play(runner(calling("shielded"), shielded), reader=reader, limits=limits)

    assert played.status == "completed"
    assert began == []
    expected = {"call": ToolFailed, "charge": ToolFailed}.get(what, trio.ClosedResourceError)
    assert [type(exc) for exc in raised] == ([] if what == "approve" else [expected])


async def test_an_answer_that_waits_for_the_reader_is_told_when_its_call_ends(
    autojump_clock: Any,
) -> None:
    raised: list[BaseException] = []

    @tool
    async def shielded(ctx: RunContext) -> str:
        """Ask, whatever comes."""

        async def fill() -> None:
            for number in range(20):
                await ctx.progress(number)

        ctx.start_soon(fill)
        try:
            with trio.CancelScope(shield=True):
                return await ctx.ask("Sure?")
        except trio.ClosedResourceError as exc:
            raised.append(exc)
            raise

    async def reader(stream: EventStream, log: list[Any]) -> None:
        while not only(log, T.INPUT_REQUIRED):
            log.append(await anext(stream))
        await trio.sleep(1)
        assert stream.answer("q1", "yes")
        await trio.sleep(1)
        assert stream.cancel_tool("c1")
        await read_all(stream, log)

    limits = Limits(buffer=1)
    played = await play(runner(calling("shielded"), shielded), reader=reader, limits=limits)

    assert len(raised) == 1
    [resolved] = only(played.log, T.INPUT_RESOLVED)
    assert (resolved["outcome"], resolved["text"]) == ("answered", "yes")


async def test_a_tool_cancelled_from_outside_while_nested_ones_were_cancelled_before(
    autojump_clock: Any,
) -> None:
    """A control on a call that was closed with the one around it is refused, and raises nothing."""
    took: list[bool] = []

    @tool
    async def inner() -> str:
        """Be slow to end."""
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return "late"

    @tool
    async def outer(ctx: RunContext) -> str:
        """Call it."""
        return str(await ctx.call(inner))

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START and event.data["tool_name"] == "inner":
                took.extend([stream.cancel_tool("c1"), stream.cancel_tool("c2")])

    played = await play(runner(calling("outer"), outer), reader=reader)

    assert took == [True, False]
    assert outcomes(played.log) == {"inner": "cancelled", "outer": "cancelled"}


async def test_a_nested_agents_own_error_is_not_replaced(autojump_clock: Any) -> None:
    seen: list[BaseException] = []

    async def helper(ctx: RunContext, message: str) -> str:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError("its own")

    @tool
    async def asking(ctx: RunContext) -> str:
        """Ask the helper."""
        try:
            return str(await ctx.delegate(helper, "go"))
        except BaseException as exc:
            seen.append(exc)
            raise

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.AGENT_START:
                assert stream.cancel_tool("c1")

    played = await play(runner(calling("asking"), asking), reader=reader)

    assert played.status == "completed"
    assert [type(exc) for exc in seen] == [ZeroDivisionError]


# The last resort


@pytest.mark.parametrize("place", ["closers", "the end", "a thing's own words"])
async def test_a_bug_in_the_end_costs_this_run_and_says_so(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: Any, autojump_clock: Any
) -> None:
    """Planted: what may not fail does. The run has its end, and another one does not notice."""
    struck: list[str] = []

    def fails(*args: Any, **options: Any) -> Any:
        struck.append(place)
        raise ZeroDivisionError("planted")

    async def body(ctx: RunContext) -> str:
        async with ctx.message() as out:
            await out.write("well")
            await trio.sleep(10)
        return "done"

    log: list[Any] = []
    async with StreamEngine().stream(agent_of(body), "go") as other:
        stream = StreamEngine().stream(agent_of(body), "go")
        with nothing_hangs():
            async with stream:
                await trio.sleep(1)
                with monkeypatch.context() as patch:
                    target = {
                        "closers": "_run._log.EventLog.close_all",
                        "the end": "_run._log.Law.open_brackets",
                        "a thing's own words": "_agents._opened.MessageWriter.closing",
                    }[place]
                    patch.setattr(f"flowtrio.{target}", fails)
                    stream.cancel()
                    log = [event async for event in stream]
        told = [event async for event in other]

    assert struck
    assert log[-1].type is T.DONE
    status = "cancelled" if place == "a thing's own words" else "error"
    assert log[-1].data["status"] == status
    assert [event.type for event in log].count(T.ERROR) == (status == "error")
    assert told[-1].data["status"] == "completed"
    assert "planted" in caplog.text


@contextmanager
def nothing_hangs() -> Iterator[None]:
    """Fail what takes more than an hour."""
    with trio.fail_after(3600):
        yield


async def test_who_lets_runs_in_may_break(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours, planted: it costs the run, which has its end."""
    from flowtrio import Orchestrator
    from flowtrio._hosting._sessions import Sessions

    def broken(self: Sessions, run: Run) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Sessions, "count", broken)
    orchestrator = Orchestrator(agents=[agent_of(nothing)])
    log = [event async for event in orchestrator.process_stream("go")]

    assert error_of(log)["source"] == "internal"


async def test_a_run_that_nobody_gave_a_reason_to_end_has_one(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    """A bug of ours, planted: a failure is forgotten."""

    async def body(ctx: RunContext) -> None:
        monkeypatch.setattr(Run, "fail", lambda self, exc, source: None)
        raise ValueError("forgotten")

    stream = StreamEngine().stream(agent_of(body), "go")
    with nothing_hangs():
        async with stream:
            log = [event async for event in stream]

    assert error_of(log)["code"] == "internal_failed"


# Whoever listens may fail


class Raising(logging.Handler):
    """A handler that does not do its duty."""

    def emit(self, record: logging.LogRecord) -> None:
        """Fail."""
        raise ZeroDivisionError("planted in a handler")


@pytest.fixture
def raising_handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A handler and a filter on the logger, both of which raise."""
    logger = logging.getLogger("flowtrio")
    handler = Raising()
    monkeypatch.setattr(logging, "raiseExceptions", False)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield
    logger.removeHandler(handler)
    logger.setLevel(level)


@tool(retries=1)
async def failing() -> None:
    """Fail."""
    raise ValueError("planted")


@tool(fatal=True)
async def deadly() -> None:
    """Fail, and the run with it."""
    raise ValueError("planted")


@pytest.mark.parametrize("form", ["block", "bare"])
@pytest.mark.parametrize("name", ["failing", "deadly", "shielding"])
async def test_a_log_handler_that_raises(
    form: str, name: str, raising_handler: None, autojump_clock: Any
) -> None:
    agent = runner(calling(name), failing, deadly, shielding)
    log: list[Any] = []
    stream = StreamEngine().stream(agent, "go")
    with nothing_hangs():
        if form == "block":
            async with stream:
                await read_all(stream, log)
        else:
            await read_all(stream, log)
    played = await check_ended(stream, log)

    assert played.status == ("error" if name == "deadly" else "completed")


async def test_a_logger_of_ones_own_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(level: int) -> bool:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(logging.getLogger("flowtrio"), "isEnabledFor", fails)

    with nothing_hangs():
        played = await play(agent_of(nothing))

    assert played.status == "completed"


async def test_what_a_log_handler_raised_is_printed_as_logging_does(
    raising_handler: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)

    await play(agent_of(nothing))

    assert "planted in a handler" in capsys.readouterr().err


async def nothing(ctx: RunContext) -> None:
    """Do nothing."""


class Uncaught(BaseException):
    """What nobody expects."""


@pytest.mark.parametrize(
    "when", [float("nan"), float("inf"), "noon", ZeroDivisionError("planted"), Uncaught()]
)
async def test_a_wall_clock_that_tells_no_time(when: Any) -> None:
    def clock() -> Any:
        if isinstance(when, BaseException):
            raise when
        return when

    engine = StreamEngine(wall_clock=clock)

    played = await play(agent_of(nothing), engine=engine)

    assert played.status == "completed"
    assert played.log[0].timestamp > 0


@pytest.mark.parametrize("ends", ["completed", "cancelled"])
async def test_a_price_table_that_fails(
    ends: str,
    autojump_clock: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*args: Any) -> None:
        raise ZeroDivisionError("planted")

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.MESSAGE_CHUNK and ends == "cancelled":
                stream.cancel()

    monkeypatch.setattr(PriceTable, "priced", fails)
    engine = StreamEngine(prices={"m": {"prompt": "1", "completion": "1"}})
    client = ScriptedModel(["one ", 1.0, "two"])
    played = await play(runner(client), engine=engine, reader=reader)

    assert played.status == ends
    assert played.log[-1].data["usage"]["cost"] is None
    assert "the price table failed" in caplog.text


@pytest.mark.parametrize("exc", [ZeroDivisionError("planted"), KeyboardInterrupt()])
async def test_who_is_told_of_the_end_may_fail(exc: BaseException) -> None:
    told: list[str] = []

    def fails() -> None:
        told.append("first")
        raise exc

    stream = StreamEngine().stream(agent_of(nothing), "go")
    stream._run.when_done(fails)
    stream._run.when_done(lambda: told.append("second"))
    raised: list[BaseException] = []
    try:
        async with stream:
            log = [event async for event in stream]
    except KeyboardInterrupt as interrupt:
        raised.append(interrupt)
        log = []
        with pytest.raises(trio.EndOfChannel):
            while True:
                log += await stream.receive_batch()
    stream._run.when_done(lambda: told.append("third"))

    assert told == ["first", "second", "third"]
    assert raised == ([exc] if isinstance(exc, KeyboardInterrupt) else [])
    assert not log or log[-1].type is T.DONE


# Values belong to the log


@tool(needs_approval=True)
async def pay(to: dict[str, Any]) -> Any:
    """Pay somebody."""
    told = copy.deepcopy(to)
    to["amount"] = 0
    to.setdefault("list", []).append("changed")
    return told


async def test_nobody_shares_what_is_recorded_or_executed() -> None:
    """A reader masks a number, a tool changes its argument: neither reaches anybody else."""
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    arguments = {"to": {"name": "Ann", "amount": 5, "list": [1]}}
    model = ScriptedModel([ToolCall("p1", "pay", arguments)], "fine")

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.APPROVAL_REQUIRED:
                event.data["arguments"]["to"]["amount"] = 9
                event.data["arguments"]["to"]["list"].append(2)
                assert stream.approve(event.data["call_id"])
                event.data["arguments"]["to"]["amount"] = 5
                del event.data["arguments"]["to"]["list"][1:]

    played = await play(runner(model, pay), reader=reader, history=history)
    played.stream.messages[0]["content"] = "changed"

    assert only(played.log, T.TOOL_CALL_START)[0]["arguments"] == arguments
    assert only(played.log, T.TOOL_CALL_END)[0]["result"] == arguments["to"]
    assert history[0]["content"] == "hi"
    assert played.stream.messages[0]["content"] == "hi"


@pytest.mark.parametrize("reason", [True, 1, b"no", object(), ["no"]])
async def test_only_an_approval_approves(reason: Any) -> None:
    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.APPROVAL_REQUIRED:
                with pytest.raises(TypeError, match="reason: expected a str"):
                    stream.deny(event.data["call_id"], reason)
                assert not stream.answer(event.data["call_id"], "yes")
                assert stream.deny(event.data["call_id"], "no")

    played = await play(runner(calling("charge"), charge), reader=reader)

    assert outcomes(played.log) == {"charge": "denied"}
    assert only(played.log, T.TOOL_CALL_START) == []


# Controls


ODD = [None, 1, b"c1", object(), ["c1"], {"c1": 1}, float("nan")]


@pytest.mark.parametrize("where", ["here", "in a thread"])
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
async def test_a_control_refuses_at_once_what_is_no_text(odd: Any, where: str) -> None:
    refused: list[str] = []

    def press(stream: EventStream) -> None:
        presses: list[tuple[str, Callable[[], object]]] = [
            ("cancel_tool", lambda: stream.cancel_tool(odd)),
            ("approve", lambda: stream.approve(odd)),
            ("deny", lambda: stream.deny(odd)),
            ("answer", lambda: stream.answer(odd, "x")),
        ]
        if odd is not None:
            presses.append(("cancel", lambda: stream.cancel(odd)))
        for name, act in presses:
            with pytest.raises(TypeError, match="expected a str"):
                act()
            refused.append(name)

    async def body(ctx: RunContext) -> str:
        return await ctx.ask("Sure?")

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.INPUT_REQUIRED:
                if where == "here":
                    press(stream)
                else:
                    await trio.to_thread.run_sync(press, stream)
                assert stream.answer("q1", "yes")

    played = await play(agent_of(body), reader=reader)

    assert played.status == "completed"
    assert len(refused) == (4 if odd is None else 5)


@pytest.mark.parametrize("where", ["here", "in a thread"])
async def test_half_a_character_in_a_control_is_replaced(where: str) -> None:
    async def body(ctx: RunContext) -> None:
        await ctx.ask("Sure?")
        await trio.sleep_forever()

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.INPUT_REQUIRED:
                if where == "here":
                    assert stream.answer("q1", "a\ud83d")
                else:
                    assert await trio.to_thread.run_sync(stream.answer, "q1", "a\ud83d")
            if event.type is T.INPUT_RESOLVED:
                assert stream.cancel("b\udc00")

    played = await play(agent_of(body), reader=reader)

    assert only(played.log, T.INPUT_RESOLVED)[0]["text"] == "a\ufffd"
    assert played.log[-1].data["reason"] == "b\ufffd"


@pytest.mark.parametrize("where", ["here", "in a thread"])
async def test_a_control_that_breaks_ends_its_run_and_answers(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours, planted: whoever pressed is told, also in another thread."""

    def broken(self: Run, call_id: str) -> bool:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("flowtrio._run._open.OpenThings.cancel_call", broken)
    answers: list[bool] = []

    async def reader(stream: EventStream, log: list[Any]) -> None:
        log.append(await anext(stream))
        if where == "here":
            answers.append(stream.cancel_tool("c1"))
        else:
            answers.append(await trio.to_thread.run_sync(stream.cancel_tool, "c1"))
        await read_all(stream, log)

    played = await play(agent_of(lambda ctx: trio.sleep_forever()), reader=reader)

    assert answers == [False]
    assert error_of(played.log)["source"] == "internal"


async def test_closing_a_stream_inside_its_own_run_is_refused(autojump_clock: Any) -> None:
    """It would wait for itself, behind a shield."""
    streams: list[EventStream] = []
    refused: list[str] = []

    async def body(ctx: RunContext) -> str:
        try:
            await streams[0].aclose()
        except RuntimeError as exc:
            refused.append(str(exc))
        return "went on"

    for form in ("bare", "block"):
        streams[:] = [StreamEngine().stream(agent_of(body), "go")]
        with nothing_hangs():
            if form == "bare":
                log = [event async for event in streams[0]]
            else:
                async with streams[0]:
                    log = [event async for event in streams[0]]
        assert log[-1].data["result"] == "went on"

    assert [text.partition(" of run")[0] for text in refused] == ["can't wait for the end"] * 2


async def test_closing_a_stream_in_a_call_that_somebody_outside_makes_is_refused(
    autojump_clock: Any,
) -> None:
    """The run's end waits for that call, so it would wait for itself too."""
    refused: list[str] = []
    contexts: list[RunContext] = []
    stream = StreamEngine().stream(agent_of(lambda ctx: body(ctx)), "go")

    @tool
    async def closing() -> None:
        """Close the run that it is made in."""
        try:
            await stream.aclose()
        except RuntimeError as exc:
            refused.append(str(exc))

    async def body(ctx: RunContext) -> None:
        contexts.append(ctx)
        await trio.sleep(5)

    with nothing_hangs():
        await anext(stream)
        await trio.sleep(1)
        await contexts[0].call(closing)
        log = [event async for event in stream]

    assert len(refused) == 1
    assert log[-1].data["status"] == "completed"


@pytest.mark.parametrize("form", ["block", "bare"])
async def test_closing_a_stream_in_a_call_of_a_run_inside_its_run_is_refused(
    form: str, autojump_clock: Any
) -> None:
    """The outer run's end waits for the inner one's, and that for who visits it."""
    refused: list[str] = []
    contexts: list[RunContext] = []
    outer = StreamEngine().stream(agent_of(lambda ctx: hosts(ctx)), "go")

    @tool
    async def closing() -> None:
        """Close the run around the one that it is made in."""
        try:
            await outer.aclose()
        except RuntimeError as exc:
            refused.append(str(exc))

    async def inner(ctx: RunContext) -> None:
        contexts.append(ctx)
        await trio.sleep(5)

    async def hosts(ctx: RunContext) -> None:
        stream = StreamEngine().stream(agent_of(inner), "in")
        if form == "bare":
            async for _ in stream:
                pass
        else:
            async with stream:
                await stream.result()

    with nothing_hangs():
        await anext(outer)
        await trio.sleep(1)
        await contexts[0].call(closing)
        log = [event async for event in outer]

    assert [text.partition(" of run")[0] for text in refused] == ["can't wait for the end"]
    assert log[-1].data["status"] == "completed"
    assert trio.current_time() < 6


async def test_reading_a_run_inside_itself_does_not_wait_for_its_own_end(
    autojump_clock: Any,
) -> None:
    streams: list[EventStream] = []

    async def body(ctx: RunContext) -> None:
        async for _ in streams[0]:
            pass

    streams.append(StreamEngine().stream(agent_of(body), "go"))
    with nothing_hangs():
        await anext(streams[0])
        await trio.sleep(1)
        streams[0].cancel()
        await streams[0].aclose()

    assert streams[0].status == "cancelled"


# Effects that no event would tell


VERBS: dict[str, Callable[[RunContext], Any]] = {
    "call": lambda ctx: ctx.call(failing),
    "model": lambda ctx: ctx.model([{"role": "user", "content": "hi"}], client=Model()),
    "delegate": lambda ctx: ctx.delegate(agent_of(nothing), "go"),
    "ask": lambda ctx: ctx.ask("Sure?"),
    "approve": lambda ctx: ctx.approve("it"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("place", ["cleanup", "a call's cleanup", "after the end"])
async def test_what_would_have_an_effect_is_refused_after_the_end(
    verb: str, place: str, autojump_clock: Any
) -> None:
    refused: list[str] = []
    contexts: list[RunContext] = []

    async def late(ctx: RunContext) -> None:
        with trio.CancelScope(shield=True):
            try:
                await VERBS[verb](ctx)
            except trio.ClosedResourceError as exc:
                refused.append(str(exc))

    @tool
    async def tidying(ctx: RunContext) -> None:
        """Tidy up late."""
        contexts.append(ctx)
        try:
            await trio.sleep_forever()
        finally:
            if place != "after the end":
                await late(ctx)

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START:
                await trio.testing.wait_all_tasks_blocked()
                assert stream.cancel() if place == "cleanup" else stream.cancel_tool("c1")

    played = await play(runner(calling("tidying"), tidying), reader=reader)
    if place == "after the end":
        await late(contexts[0])

    assert len(refused) == 1
    assert refused[0].startswith("can't ")
    assert "has ended" in refused[0]
    words = spelled(played.log)
    assert not any(word.startswith(("agent ", "ask ", "approval")) for word in words)
    assert words.count("start c1") == 1


@pytest.mark.parametrize("verb", ["status", "progress", "custom", "message"])
async def test_what_only_speaks_is_discarded_after_its_call(verb: str, autojump_clock: Any) -> None:
    async def speak(ctx: RunContext) -> None:
        match verb:
            case "status":
                await ctx.status("late")
            case "progress":
                await ctx.progress("late")
            case "custom":
                await ctx.custom("late")
            case _:
                async with ctx.message() as out:
                    await out.write("late")

    @tool
    async def tidying(ctx: RunContext) -> None:
        """Tidy up late."""
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await speak(ctx)

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.TOOL_CALL_START:
                await trio.testing.wait_all_tasks_blocked()
                assert stream.cancel_tool("c1")

    played = await play(runner(calling("tidying"), tidying), reader=reader)

    assert "late" not in str([event.data for event in played.log])
    assert played.stream.statistics().late_events >= 1


async def test_who_waits_for_the_reader_when_his_call_ends_says_nothing_any_more(
    autojump_clock: Any,
) -> None:
    """The wait is over at once, shield or not, and gives back what it had taken."""
    over: list[float] = []

    @tool
    async def reporting(ctx: RunContext) -> None:
        """Report much."""
        with trio.CancelScope(shield=True):
            for number in range(5):
                await ctx.progress(number)
        over.append(trio.current_time())

    async def reader(stream: EventStream, log: list[Any]) -> None:
        await trio.sleep(1)
        while not only(log, T.TOOL_CALL_START):
            log.append(await anext(stream))
            await trio.sleep(1)
        assert stream.statistics().parked_emitters == 1
        assert stream.cancel_tool("c1")
        cancelled_at = trio.current_time()
        await trio.sleep(5)
        assert over == [cancelled_at]
        await read_all(stream, log)

    played = await play(
        runner(calling("reporting"), reporting), reader=reader, limits=Limits(buffer=2)
    )

    assert played.status == "completed"
    assert outcomes(played.log) == {"reporting": "cancelled"}


# The bound


async def most_undelivered(body: Callable[[RunContext], Any], seconds: float) -> int:
    """How many events a paused reader finds, with a buffer of 4."""
    stream = StreamEngine().stream(agent_of(body), "go", limits=Limits(buffer=4))
    async with stream:
        await trio.sleep(seconds)
        return stream.statistics().undelivered


async def test_messages_that_fail_wait_for_the_reader(autojump_clock: Any) -> None:
    async def body(ctx: RunContext) -> None:
        for _ in range(1000):
            with pytest.raises(ZeroDivisionError):
                async with ctx.message():
                    raise ZeroDivisionError

    assert await most_undelivered(body, 60) <= 4 + 1 + 3


async def test_a_model_that_is_asked_again_and_again_waits_for_the_reader(
    autojump_clock: Any,
) -> None:
    class Dead:
        async def stream_completion(self, *args: Any, **options: Any) -> AsyncIterator[Chunk]:
            raise OSError("no host")
            yield

    async def body(ctx: RunContext) -> None:
        for _ in range(1000):
            with pytest.raises(OSError, match="no host"):
                await ctx.model([{"role": "user", "content": "hi"}], client=Dead())

    assert await most_undelivered(body, 60) <= 4 + 1 + 3


async def test_calls_that_are_given_up_before_they_start_leave_nothing(
    autojump_clock: Any,
) -> None:
    async def body(ctx: RunContext) -> None:
        for _ in range(100):
            with trio.move_on_after(0.1):
                await ctx.call(failing)

    assert await most_undelivered(body, 60) <= 4 + 1 + 3


async def test_a_started_calls_end_waits_for_nobody(autojump_clock: Any) -> None:
    """Its START has waited: as all closers do, the END owes its credit."""

    @tool
    async def quick() -> str:
        """Return at once."""
        return "result"

    log: list[Any] = []
    limits = Limits(buffer=1)
    async with StreamEngine().stream(
        runner(calling("quick"), quick), "go", limits=limits
    ) as stream:
        while not only(log, T.TOOL_CALL_START):
            log.append(await anext(stream))
            await trio.sleep(1)
        assert stream.cancel("enough")
    played = await check_ended(stream, log)

    assert outcomes(played.log) == {"quick": "ok"}
    assert stream.messages[-1]["content"] == "result"


async def test_a_call_that_waits_to_say_why_it_never_began_says_nothing_when_it_is_cut_off(
    autojump_clock: Any,
) -> None:
    chunks = [Chunk(is_final=True, tool_calls=[ToolCall("p1", "unknown", {})])]
    stream = StreamEngine().stream(runner(Model(chunks)), "go", limits=Limits(buffer=1))
    log: list[Any] = []
    async with stream:
        while not only(log, T.MESSAGE_COMPLETE):
            log.append(await anext(stream))
            await trio.sleep(1)
        assert stream.cancel("enough")
    played = await check_ended(stream, log)

    assert played.status == "cancelled"


async def test_many_that_open_at_once_owe_one_closer_each(autojump_clock: Any) -> None:
    async def speak(ctx: RunContext) -> None:
        async with ctx.message():
            raise ZeroDivisionError

    async def body(ctx: RunContext) -> None:
        for _ in range(20):
            with pytest.RaisesGroup(
                ZeroDivisionError, allow_unwrapped=True, flatten_subgroups=True
            ):
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(speak, ctx)

    assert await most_undelivered(body, 60) <= 4 + 3 + 3


# Tasks and contexts of somebody else


async def test_a_call_made_by_a_task_outside_ends_with_the_run(autojump_clock: Any) -> None:
    """It is reached by the run's end, and waited for."""
    left: list[float] = []
    contexts: list[RunContext] = []

    @tool
    async def slow() -> None:
        """Take long, and tidy up."""
        try:
            await trio.sleep(100)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            left.append(trio.current_time())

    async def outside(stream: EventStream) -> None:
        with pytest.raises(ToolFailed):
            await contexts[0].call(slow)

    async def body(ctx: RunContext) -> None:
        contexts.append(ctx)
        await trio.sleep(5)

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async with trio.open_nursery() as nursery:
            log.append(await anext(stream))
            await trio.sleep(1)
            nursery.start_soon(outside, stream)
            await read_all(stream, log)
            assert left == [trio.current_time()]

    played = await play(agent_of(body), reader=reader)

    assert outcomes(played.log) == {"slow": "cancelled"}
    assert played.log[-1].data["leftover"] == []


async def test_a_call_of_a_task_outside_that_outlasts_the_grace_is_named_and_awaited(
    autojump_clock: Any,
) -> None:
    contexts: list[RunContext] = []
    ended: list[float] = []

    @tool
    async def stubborn() -> None:
        """Take longer than the grace, whatever comes."""
        with trio.CancelScope(shield=True):
            await trio.sleep(4 + 1.5 * Limits().grace)

    async def outside() -> None:
        with pytest.raises(ToolFailed):
            await contexts[0].call(stubborn)
        ended.append(trio.current_time())

    async def body(ctx: RunContext) -> None:
        contexts.append(ctx)
        await trio.sleep(5)

    log: list[Any] = []
    stream = StreamEngine().stream(agent_of(body), "go")
    async with trio.open_nursery() as nursery:
        async with stream:
            log.append(await anext(stream))
            await trio.sleep(1)
            nursery.start_soon(outside, name="somebody outside")
            await read_all(stream, log)
        # Named in DONE, and waited for all the same.
        assert ended == [trio.current_time()]
    await check_ended(stream, log)

    assert log[-1].data["leftover"] == ["somebody outside"]


async def test_a_task_outside_that_waits_for_what_comes_behind_the_run_is_left(
    autojump_clock: Any,
) -> None:
    contexts: list[RunContext] = []
    behind, grace = trio.Event(), Limits().grace

    @tool
    async def waits() -> None:
        """Wait for what comes behind the run, whatever comes."""
        with trio.CancelScope(shield=True):
            await behind.wait()

    async def outside() -> None:
        with pytest.raises(ToolFailed):
            await contexts[0].call(waits)

    async def body(ctx: RunContext) -> None:
        contexts.append(ctx)
        await trio.sleep(5)

    async def in_the_end() -> None:
        await trio.sleep(1000)
        behind.set()

    log: list[Any] = []
    stream = StreamEngine().stream(agent_of(body), "go")
    async with trio.open_nursery() as around:
        around.start_soon(in_the_end)
        async with trio.open_nursery() as nursery:
            async with stream:
                log.append(await anext(stream))
                began = trio.current_time()
                await trio.sleep(1)
                nursery.start_soon(outside, name="somebody outside")
                await read_all(stream, log)
            assert trio.current_time() - began == pytest.approx(5 + 2 * grace)
            behind.set()
        around.cancel_scope.cancel()
    await check_ended(stream, log)

    assert log[-1].data["leftover"] == ["somebody outside"]


@pytest.mark.parametrize("opened", ["before", "since"])
async def test_what_a_task_outside_starts_in_a_run_cannot_wait_for_its_end(
    opened: str, autojump_clock: Any
) -> None:
    contexts: list[RunContext] = []
    told: list[str] = []

    async def close() -> None:
        try:
            await stream.aclose()
            told.append("closed")
        except RuntimeError as exc:
            told.append("inside" if "can't wait for the end" in str(exc) else repr(exc))

    @tool
    async def closes() -> None:
        """Close the stream in a task of the tool's."""
        async with trio.open_nursery() as nursery:
            (nurseries[0] if opened == "before" else nursery).start_soon(close)
            await trio.sleep(1)

    async def outside() -> None:
        async with trio.open_nursery() as nursery:
            nurseries.append(nursery)
            with suppress(ToolFailed):
                await contexts[0].call(closes)

    async def body(ctx: RunContext) -> None:
        contexts.append(ctx)
        await trio.sleep(5)

    log: list[Any] = []
    nurseries: list[trio.Nursery] = []
    stream = StreamEngine().stream(agent_of(body), "go")
    async with trio.open_nursery() as nursery:
        async with stream:
            log.append(await anext(stream))
            await trio.sleep(1)
            nursery.start_soon(outside)
            await read_all(stream, log)
    await check_ended(stream, log)

    assert told == ["closed" if opened == "before" else "inside"]
    assert log[-1].data["leftover"] == []


async def test_a_question_of_a_task_outside_does_not_outlive_the_body(autojump_clock: Any) -> None:
    contexts: list[RunContext] = []

    async def body(ctx: RunContext) -> str:
        contexts.append(ctx)
        await trio.sleep(5)
        return "done"

    async def outside() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await contexts[0].ask("Sure?")

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async with trio.open_nursery() as nursery:
            log.append(await anext(stream))
            await trio.sleep(1)
            nursery.start_soon(outside)
            await read_all(stream, log)

    played = await play(agent_of(body), reader=reader)

    assert played.status == "completed"
    assert only(played.log, T.INPUT_RESOLVED)[0]["outcome"] == "cancelled"


async def test_a_message_that_nobody_ends_ends_with_its_call() -> None:
    @tool
    async def careless(ctx: RunContext) -> str:
        """Begin to speak."""
        out = await ctx.message().__aenter__()
        await out.write("well")
        return "done"

    async def helper(ctx: RunContext, message: str) -> str:
        out = await ctx.message().__aenter__()
        await out.write("well")
        return "done"

    async def body(ctx: RunContext) -> None:
        await ctx.call(careless)
        await ctx.delegate(helper, "go")

    played = await play(agent_of(body))

    assert played.status == "completed"
    assert [d["finish_reason"] for d in only(played.log, T.MESSAGE_COMPLETE)] == ["cancelled"] * 2


async def test_a_run_started_by_a_task_that_outlived_its_run_has_its_end(
    autojump_clock: Any,
) -> None:
    """At every step of the time in which the first run's nursery closes, and after."""
    logs: list[list[Any]] = []

    async def stray(steps: int) -> None:
        for _ in range(steps):
            await trio.lowlevel.cancel_shielded_checkpoint()
        logs.append([event async for event in StreamEngine().stream(agent_of(nothing), "late")])

    for steps in range(40):

        async def body(ctx: RunContext, steps: int = steps) -> None:
            context = contextvars.copy_context()
            trio.lowlevel.spawn_system_task(stray, steps, context=context)

        with nothing_hangs():
            async for _ in StreamEngine().stream(agent_of(body), "go"):
                pass
            await trio.sleep(1)

    assert len(logs) == 40
    assert {log[-1].type for log in logs} == {T.DONE}
    assert {log[-1].data["status"] for log in logs} <= {"completed", "cancelled"}


async def test_a_home_that_takes_nobody_in_any_more_ends_the_run() -> None:
    async with trio.open_nursery() as nursery:
        pass
    engine = StreamEngine()
    engine._home.nursery = nursery
    engine._home._token = trio.lowlevel.current_trio_token()

    stream = engine.stream(agent_of(nothing), "go")
    log = [event async for event in stream]

    assert error_of(log)["source"] == "internal"
    assert log[-1].type is T.DONE


# Smaller ones


async def test_errors_that_are_handled_are_not_kept() -> None:
    """A run that asks a dead host for a week does not grow."""

    class Dead:
        async def stream_completion(self, *args: Any, **options: Any) -> AsyncIterator[Chunk]:
            raise OSError("no host")
            yield

    kept: list[int] = []

    async def body(ctx: RunContext) -> None:
        for _ in range(50):
            with pytest.raises(OSError, match="no host"):
                await ctx.model([{"role": "user", "content": "hi"}], client=Dead())
        kept.append(len(ctx._frame.run._also))

    await play(agent_of(body))

    assert kept == [0]


async def test_errors_beside_the_one_that_ends_a_run_are_bounded(autojump_clock: Any) -> None:
    async def fail(ctx: RunContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("late")

    async def body(ctx: RunContext) -> None:
        for _ in range(100):
            ctx.start_soon(fail, ctx)
        await trio.sleep(1)
        raise KeyError("first")

    played = await play(agent_of(body))

    assert len(error_of(played.log)["causes"]) == 16
    assert len(played.stream._run._also) == 16


PARTS = [
    {"type": "server_tool_call", "name": "search"},
    {"type": "server_tool_call", "id": "s1"},
    {"type": "server_tool_call", "id": 1, "name": "search"},
    {"type": "server_tool_call", "id": "", "name": ""},
    {"type": "server_tool_call", "id": "s1", "name": "search", "arguments": "odd"},
    {"type": "server_tool_result"},
    {"type": "refusal", "text": 1},
    {},
]


@pytest.mark.parametrize("part", PARTS, ids=str)
async def test_a_part_that_lacks_what_it_should_have(part: dict[str, Any]) -> None:
    client = Model([Chunk(parts=[part, part]), Chunk(content="fine"), Chunk(is_final=True)])

    played = await play(runner(client))

    assert played.status == "completed"


@pytest.mark.parametrize("reason", ["", "\ud800", 5, object()])
async def test_a_reset_for_a_reason_that_is_none(reason: Any) -> None:
    client = Model([Chunk(content="a"), Chunk(reset=reason), Chunk(is_final=True)])

    played = await play(runner(client))

    is_text = isinstance(reason, str)
    assert played.status == ("completed" if is_text else "error")
    assert only(played.log, T.MESSAGE_COMPLETE)[0]["content"] == ("" if is_text else "a")


ODD_CALLS = [
    ToolCall(None, "odd", {}),  # type: ignore[arg-type]
    ToolCall(5, "odd", {}),  # type: ignore[arg-type]
    ToolCall("p1", None, {}),  # type: ignore[arg-type]
    ToolCall("p1", "odd", [1]),  # type: ignore[arg-type]
    ToolCall("p1", "odd", "text"),  # type: ignore[arg-type]
    ToolCall("p1", "odd", {}, carry="text"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("odd", ODD_CALLS, ids=str)
async def test_a_call_that_is_none_leaves_a_conversation_all_the_same(odd: ToolCall) -> None:
    """What was said with it stays said, and every provider takes the next turn."""
    said = [Chunk(content="so"), Chunk(is_final=True, tool_calls=[odd], carry="x")]  # type: ignore[arg-type]

    played = await play(runner(Model(said, [Chunk(content="fine"), Chunk(is_final=True)])))

    assert refusals([*played.stream.messages, {"role": "user", "content": "and?"}]) == []
    assert played.stream.messages[1]["content"] == "so"
    if played.status == "error":
        assert error_of(played.log)["source"] == "model"


@pytest.mark.parametrize("where", ["an agent", "a nested agent", "a task"])
async def test_names_are_text_that_events_can_carry(where: str, autojump_clock: Any) -> None:
    class Named:
        name = "half \ud800"

        async def __call__(self, ctx: RunContext, message: str) -> None:
            """Do nothing."""

    async def stays() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(9)

    async def body(ctx: RunContext) -> None:
        if where == "a nested agent":
            await ctx.delegate(Named(), "hi")
        elif where == "a task":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stays, name=f"half \ud800{'x' * 100_000}")
                nursery.cancel_scope.cancel()

    agent = Named() if where == "an agent" else agent_of(body)
    played = await play(agent, limits=Limits(run=1, grace=1))

    assert all(len(str(event.data)) < 5000 for event in played.log)


async def test_calls_that_wait_for_their_tool_keep_no_place_of_the_agents(
    autojump_clock: Any,
) -> None:
    """One tool that is taken does not hold up another one, and the reverse."""
    began = trio.current_time()

    @tool(concurrency=1)
    async def single() -> float:
        """Work alone."""
        await trio.sleep(10)
        return trio.current_time() - began

    @tool
    async def other() -> float:
        """Work."""
        await trio.sleep(1)
        return trio.current_time() - began

    model = ScriptedModel(
        [ToolCall(f"p{n}", "single", {}) for n in range(3)] + [ToolCall("p3", "other", {})], "fine"
    )
    played = await play(runner(model, single, other), limits=Limits(parallel_tools=2))

    ends = [(d["tool_name"], d["result"]) for d in only(played.log, T.TOOL_CALL_END)]
    assert ends == [("other", 1.0), ("single", 10.0), ("single", 20.0), ("single", 30.0)]


@pytest.mark.parametrize("buffer", [1, 4, 64])
async def test_calls_of_a_reply_start_in_the_models_order(buffer: int, autojump_clock: Any) -> None:
    """Whatever the scheduler does, and however slow the reader is."""

    @tool
    async def work(n: int) -> int:
        """Work."""
        await trio.sleep(0)
        return n

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            await trio.sleep(0.1 if buffer == 1 else 0)

    model = ScriptedModel([ToolCall(f"p{n}", "work", {"n": n}) for n in range(20)], "fine")
    limits = Limits(buffer=buffer, parallel_tools=20)
    played = await play(runner(model, work), reader=reader, limits=limits)

    starts = only(played.log, T.TOOL_CALL_START)
    assert [start["arguments"]["n"] for start in starts] == list(range(20))
    assert [start["call_id"] for start in starts] == [f"c{n}" for n in range(1, 21)]


@pytest.mark.parametrize("step", [0.0, 0.1])
@pytest.mark.parametrize("limits", [Limits(parallel_tools=4), Limits(parallel_tools=1)])
async def test_calls_that_wait_for_a_place_start_in_the_models_order_too(
    limits: Limits, step: float, autojump_clock: Any
) -> None:
    """Also where several places come free at once."""

    @tool
    async def work(n: int) -> int:
        """Work; as long as the others, or longer the later it starts."""
        await trio.sleep(1 + n * step)
        return n

    model = ScriptedModel([ToolCall(f"p{n}", "work", {"n": n}) for n in range(12)], "fine")
    played = await play(runner(model, work), limits=limits)

    starts = only(played.log, T.TOOL_CALL_START)
    assert [start["arguments"]["n"] for start in starts] == list(range(12))


async def test_calls_that_are_given_up_in_line_leave_it(autojump_clock: Any) -> None:
    """Those that were given a place in that moment give it back."""

    @tool(concurrency=1)
    async def single() -> str:
        """Work alone."""
        await trio.sleep(10)
        return "done"

    async def body(ctx: RunContext) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.call, single)
            await trio.sleep(1)
            for _ in range(5):
                with trio.move_on_after(1):
                    await ctx.call(single)
        return str(await ctx.call(single))

    with nothing_hangs():
        played = await play(agent_of(body))

    assert await played.stream.result() == "done"


@pytest.mark.parametrize("ends", ["the run", "a scope around them"])
async def test_calls_that_were_not_begun_when_their_reply_is_given_up_have_their_end(
    ends: str, autojump_clock: Any
) -> None:
    ran: list[int] = []

    @tool
    async def work(n: int) -> int:
        """Work."""
        ran.append(n)
        await trio.sleep(1)
        return n

    agent = runner(
        ScriptedModel([ToolCall(f"p{n}", "work", {"n": n}) for n in range(8)], "fine"), work
    )

    async def body(ctx: RunContext) -> str:
        with trio.move_on_after(5 if ends == "a scope around them" else 1000):
            await agent(ctx, "go")
        return "went on"

    async def reader(stream: EventStream, log: list[Any]) -> None:
        while len(only(log, T.TOOL_CALL_START)) < 3:
            log.append(await anext(stream))
        await trio.sleep(10)
        if ends == "the run":
            stream.cancel()
        await read_all(stream, log)

    played = await play(agent_of(body), reader=reader, limits=Limits(buffer=1))

    assert played.status == ("cancelled" if ends == "the run" else "completed")
    ends_by_call = {d["call_id"]: d["outcome"] for d in only(played.log, T.TOOL_CALL_END)}
    assert len(ends_by_call) == 8
    started = {d["call_id"] for d in only(played.log, T.TOOL_CALL_START)}
    assert len(ran) <= len(started) < 8


@pytest.mark.parametrize("abandon", [False, True])
async def test_an_exception_that_lets_nobody_look_does_not_keep_a_worker_thread(
    abandon: bool,
) -> None:
    class Shy(Exception):
        def __getattribute__(self, name: str) -> Any:
            raise ZeroDivisionError("planted")

    @tool(abandon=abandon)
    def shy() -> None:
        """Fail."""
        raise Shy

    with nothing_hangs():
        played = await play(runner(calling("shy"), shy))

    assert played.log[-1].type is T.DONE
    assert outcomes(played.log)["shy"] in ("error", "cancelled")


async def test_a_call_within_a_call_finds_its_tool_free_at_last(autojump_clock: Any) -> None:
    """Who waits for two places at once keeps neither: no two calls wait for each other."""

    @tool(concurrency=1)
    async def single() -> str:
        """Work alone."""
        await trio.sleep(1)
        return "done"

    @tool
    async def outer(ctx: RunContext) -> str:
        """Call it."""
        await trio.sleep(1)
        return str(await ctx.call(single))

    model = ScriptedModel([ToolCall("a", "outer", {}), ToolCall("b", "single", {})], "fine")
    with nothing_hangs():
        played = await play(runner(model, single, outer), limits=Limits(parallel_tools=1))

    assert set(outcomes(played.log).values()) == {"ok"}


def test_a_stream_that_was_never_made_can_be_dropped() -> None:
    stream = EventStream.__new__(EventStream)

    stream.__del__()


class Abrupt(BaseException):
    pass


@pytest.mark.parametrize(
    "raised",
    [
        ExceptionGroup("two", [OSError("disk"), OSError("net")]),
        Abrupt("stop"),
        BaseExceptionGroup("one", [Abrupt("stop")]),
    ],
)
async def test_a_store_is_the_one_that_is_blamed_whatever_it_raises(raised: BaseException) -> None:
    from flowtrio import MemoryConversations, Orchestrator

    class Broken(MemoryConversations):
        async def load(self, tenant_id: str, session_id: str) -> Any:
            raise raised

    orchestrator = Orchestrator(llm_client=ScriptedModel("hi"), conversations=Broken())
    log = [event async for event in orchestrator.process_stream("go", session_id="s")]

    assert error_of(log)["source"] == "store"


async def test_a_client_cannot_change_what_the_next_one_is_told_of_a_tool() -> None:
    @tool
    async def look(at: str) -> str:
        """Look."""
        return at

    class Strict:
        async def stream_completion(
            self, messages: Any, tools: Any = None, **options: Any
        ) -> AsyncIterator[Chunk]:
            tools[0]["function"]["parameters"]["properties"].clear()
            yield Chunk(is_final=True, finish_reason="stop")

    before = look.spec()
    await play(runner(Strict(), look))

    assert look.spec() == before
    assert list(before["function"]["parameters"]["properties"]) == ["at"]


@pytest.mark.parametrize("who", ["a tool", "a nested agent", "a task"])
async def test_whoever_runs_a_call_its_history_says_what_became_of_it(who: str) -> None:
    @tool
    async def look(n: int) -> int:
        """Look."""
        return n

    model = ScriptedModel([ToolCall("p1", "look", {"n": 7})])

    async def body(ctx: RunContext) -> None:
        completion = await ctx.model(ctx.messages, client=model, tools=[look])
        [call] = completion.tool_calls

        @tool
        async def passing(inner: RunContext) -> Any:
            """Have it done."""
            return await inner.call(look, call)

        async def helper(inner: RunContext, message: str) -> Any:
            return await inner.call(look, call)

        match who:
            case "a tool":
                await ctx.call(passing)
            case "a nested agent":
                await ctx.delegate(helper, "go")
            case _:
                ctx.start_soon(ctx.call, look, call)

    played = await play(agent_of(body))

    assert [m["content"] for m in played.stream.messages if m["role"] == "tool"] == ["7"]


LONG = "x" * 2000


@pytest.mark.parametrize("what", ["status", "custom", "ask", "delegate", "call", "approve"])
async def test_a_text_that_is_longer_than_a_result_may_be_is_refused(what: str) -> None:
    refused: list[str] = []

    @tool
    async def look(at: str) -> str:
        """Look."""
        return at

    async def body(ctx: RunContext) -> None:
        verbs: dict[str, Callable[[], Any]] = {
            "status": lambda: ctx.status(LONG),
            "custom": lambda: ctx.custom(LONG),
            "ask": lambda: ctx.ask(LONG),
            "delegate": lambda: ctx.delegate(agent_of(nothing), LONG),
            "call": lambda: ctx.call(look, at=LONG),
            "approve": lambda: ctx.approve("it", {"at": LONG}),
        }
        with pytest.raises(ValueError, match="result_bytes=1000") as caught:
            await verbs[what]()
        refused.append(str(caught.value))

    played = await play(agent_of(body), limits=Limits(result_bytes=1000))

    assert len(refused) == 1
    assert LONG not in str(refused)
    assert played.status == "completed"


async def test_a_control_refuses_what_is_too_long() -> None:
    stream = StreamEngine().stream(agent_of(nothing), "go", limits=Limits(result_bytes=1000))

    for act in (stream.cancel, lambda text: stream.deny("c1", text)):
        with pytest.raises(ValueError, match="2000 characters"):
            act(LONG)
    with pytest.raises(ValueError, match="value"):
        stream.answer("q1", LONG)


@pytest.mark.parametrize("how", ["result", "iteration"])
async def test_a_bare_stream_that_was_read_is_not_read_again(how: str) -> None:
    stream = StreamEngine().stream(agent_of(nothing), "go")
    if how == "result":
        await stream.result()
    else:
        assert [event async for event in stream][-1].type is T.DONE

    with pytest.raises(RuntimeError, match="read to the end before"):
        async for _ in stream:
            pass
    await stream.result()


async def test_an_interrupt_while_threads_press_is_no_deadlock(autojump_clock: Any) -> None:
    """Whoever presses in a thread has his answer, also when the loop has ended."""
    answers: list[bool] = []
    stream = StreamEngine().stream(agent_of(nothing), "go")
    async for _ in stream:
        pass

    thread = threading.Thread(target=lambda: answers.append(stream.cancel()))
    thread.start()
    await trio.to_thread.run_sync(thread.join)

    assert answers == [False]


async def test_a_law_that_is_abandoned_has_nothing_open() -> None:
    law = Law()
    law.step(T.RUN_START, {}, "root")
    change = {"old_status": "initializing", "new_status": "running", "reason": None}
    law.step(T.STATE_CHANGE, change, "root")
    law.begin_message("m1", "root")

    law.abandon()

    assert law.open_brackets() == []
