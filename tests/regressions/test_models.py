"""What others take for an answer: streams that break, lie or stall, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from flowtrio import EventType, ModelLimits, tool
from tests.regressions._case import open_case
from tests.runtime._programs import outcomes
from tests.support.model_server import (
    Answer,
    Exchange,
    breaks_after,
    hangs,
    refuses,
    resets,
    says,
    sends,
)

T = EventType
FINE = says("all ", "fine")
SOON = ModelLimits(first_token=0.3, gap=0.3)


def event(text: str) -> bytes:
    """A whole SSE event with a piece of text."""
    return b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % text.encode()


def call(arguments: str, *, finish: bool) -> Answer:
    """A call of `pay` whose arguments are this text, with or without the finish mark."""

    async def answer(exchange: Exchange) -> None:
        function = {"name": "pay", "arguments": arguments}
        await exchange.send_delta(
            {"tool_calls": [{"index": 0, "id": "p1", "type": "function", "function": function}]}
        )
        if finish:
            await exchange.finish("tool_calls")
        else:
            await exchange.end()

    return answer


@attrs.frozen
class Row:
    """A host's behaviour and what the run tells of it."""

    name: str
    answers: Sequence[Answer]
    code: str
    said: str = ""
    """The text that was seen before it broke."""
    requests: int = 1
    limits: ModelLimits | None = None
    deadline: str | None = None


ROWS = [
    Row("reset-in-mid-stream", [breaks_after("half ")], "stream_cut", "half "),
    Row("eof-without-mark", [sends(event("half "))], "stream_cut", "half "),
    Row("eof-without-anything", [sends()], "empty_reply", requests=3),
    Row("cut-connection", [sends(event("half "), cut=True)], "stream_cut", "half "),
    Row("cut-chunk", [sends(event("half "), event("lost")[:30])], "stream_cut", "half "),
    Row("bad-json", [sends(event("half "), b"data: {no json\n\n")], "bad_stream", "half "),
    Row("429", [refuses(429, retry_after="0")], "rate_limited", requests=3),
    Row("500", [refuses(500, retry_after="0")], "server_error", requests=3),
    Row("400", [refuses(400)], "bad_request"),
    Row("stall-at-first", [hangs()], "deadline_exceeded", limits=SOON, deadline="first_token"),
    Row("stall-later", [hangs("half ")], "deadline_exceeded", "half ", limits=SOON, deadline="gap"),
    Row("cut-arguments", [call('{"amount": 1', finish=False)], "stream_cut"),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_a_model_that_fails_fails_its_run(row: Row) -> None:
    paid: list[int] = []

    @tool
    async def pay(amount: int) -> None:
        """Pay."""
        paid.append(amount)

    async with open_case(*row.answers, limits=row.limits) as case:
        await case.play(case.agent(pay))

        assert case.done["status"] == "error"
        assert case.error["source"] == ("deadline" if row.deadline else "model")
        print(
            "CODE", row.name, case.error["code"], case.error["source"], len(case.server.exchanges)
        )
        assert case.error["code"] == row.code
        assert case.error["deadline"] == row.deadline
        assert len(case.server.exchanges) == row.requests
        assert "".join(data["chunk"] for data in case.data(T.MESSAGE_CHUNK)) == row.said
        [message] = case.data(T.MESSAGE_COMPLETE)
        assert (message["content"], message["finish_reason"]) == (row.said, "error")
        assert paid == []


@pytest.mark.parametrize(
    "arguments",
    ['{"amount": 1', '{"amount": "1"}', "{}", '{"amount": 1, "more": 2}', "[1]", "null", '"1"'],
)
async def test_arguments_that_do_not_fit_never_reach_a_tool(arguments: str) -> None:
    paid: list[int] = []

    @tool
    async def pay(amount: int) -> None:
        """Pay."""
        paid.append(amount)

    async with open_case(call(arguments, finish=True), FINE) as case:
        await case.play(case.agent(pay))

        assert paid == []
        assert outcomes(case.log) == {"pay": "error"}
        assert case.data(T.TOOL_CALL_START) == []
        # The model hears of it, and goes on.
        [end] = case.data(T.TOOL_CALL_END)
        assert end["error"] in case.results()[0]["content"]
        assert case.done["result"] == "all fine"


@pytest.mark.parametrize(
    "first",
    [resets, refuses(429, retry_after="0"), refuses(503, retry_after="0")],
    ids=["reset", "429", "503"],
)
async def test_before_the_first_token_it_is_tried_again(first: Any) -> None:
    async with open_case(first, FINE) as case:
        await case.play(case.agent())

        assert case.done["result"] == "all fine"
        assert len(case.server.exchanges) == 2
        assert len(case.data(T.MESSAGE_COMPLETE)) == 1
