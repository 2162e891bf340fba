"""The text timeline shows what is open, whatever the log is."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import EventType, RunContext, tool
from flowtrio.testing import Reader, simulate, text_timeline
from tests.testing.test_checks import LAWFUL

T = EventType


@tool(needs_approval=True)
async def book(ctx: RunContext, city: str) -> str:
    """Book a trip."""
    await ctx.progress("half")
    return city


async def helper(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        for word in message.split():
            await out.write(word)
    return "helped"


async def trip(ctx: RunContext, message: str) -> None:
    await ctx.custom("note", 3)
    await ctx.call(book, city=await ctx.ask("Where to?"))
    await ctx.delegate(helper, "one two three")


def test_each_kind_of_event_is_told_in_its_lane() -> None:
    run = simulate(trip, "go", reader=Reader(answers="Rome"))

    assert text_timeline(run.events) == TRIP


TRIP = """\
 seq   time
   0  0.000  ┌    run 'go'
   1  0.000  ├    running
   2  0.000  ├    custom {'name': 'note', 'value': 3}
   3  0.000  │┌   q1 asks 'Where to?'
   4  0.000  ├│   waiting_for_input
   5  0.000  │└   q1 answered 'Rome'
   6  0.000  ├    running
   7  0.000  │┌   c1 book needs approval {'city': 'Rome'}
   8  0.000  ├│   waiting_for_approval
   9  0.000  │├   c1 book starts {'city': 'Rome'}
  10  0.000  ├│   running
  11  0.000  │├   c1 book progress 'half'
  12  0.000  │└   c1 book ok 'Rome'
  13  0.000  │┌   agent root/helper begins
  14  0.000  ││┌  m1 says 'onetwothree' (3 pieces)
  17  0.000  ││└  m1 complete: stop
  18  0.000  │└   agent root/helper ok
  19  0.000  ├    completed
  20  0.000  └    done completed"""


@pytest.mark.parametrize("make", LAWFUL)
def test_every_event_of_a_lawful_log_is_told(make: Any) -> None:
    log = list(make())
    lines = text_timeline(log).splitlines()[1:]
    told = {line.split()[0] for line in lines}

    assert told <= {str(event["seq"]) for event in log}
    assert all(not lane.startswith("?") for lane in lines)
    assert lines[-1].endswith(f"done {log[-1]['data']['status']}")


def test_a_lane_that_is_free_again_is_used_again() -> None:
    def event(type: str, seq: int, call_id: str) -> dict[str, Any]:
        data = {"call_id": call_id, "tool_name": "look", "outcome": "ok", "result": None}
        return {"type": type, "seq": seq, "agent": "root", "data": data}

    log = [
        event("tool_call_start", 0, "c1"),
        event("tool_call_start", 1, "c2"),
        event("tool_call_end", 2, "c1"),
        event("tool_call_start", 3, "c3"),
    ]

    assert [line.split()[2] for line in text_timeline(log).splitlines()[1:]] == [
        "┌",
        "│┌",
        "└│",
        "┌│",
    ]


def test_a_part_is_shown_with_what_was_open_before_it() -> None:
    events = simulate(trip, "go").events
    lines = text_timeline(events, only=range(8, 10), marked=8).splitlines()

    assert len(lines) == 3
    assert lines[1].startswith(">    8")
    assert "├│" in lines[1]


def test_a_marked_fragment_stands_alone() -> None:
    events = simulate(helper, "one two three").events
    whole = text_timeline(events)
    marked = text_timeline(events, marked=3)

    assert "(3 pieces)" in whole
    assert ">    3  0.000  │├  m1 says 'two'" in marked


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": "done"},
        {"type": ["x"], "data": {}, "seq": "3", "timestamp": "now"},
        {"type": "message_chunk", "data": {"chunk": None, "message_id": []}},
        {"type": "tool_call_end", "data": [], "seq": 1, "timestamp": 1.0},
        None,
    ],
)
def test_what_cannot_be_understood_is_shown_as_it_is(event: Any) -> None:
    assert len(text_timeline([event]).splitlines()) == 2


def test_long_lines_are_cut_and_an_empty_log_is_a_head() -> None:
    event = {"type": "custom", "data": {"name": "n", "value": ["x" * 100] * 9}}

    assert text_timeline([event]).splitlines()[1].endswith("…")
    assert text_timeline([]) == " seq   time"
