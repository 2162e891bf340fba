"""What is posted while a run goes on, at any moment and on any schedule, also as it ends.

It is never lost and never doubled: accepted, it is told once and stands in the conversation once,
and an agent that goes on to its answer was asked with it; refused, it is nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio import Agent, EventType, Limits, ToolCall, tool
from flowtrio._agents._steering import Listener
from flowtrio._core._transcript import Transcript
from flowtrio._run._inbox import Inbox
from flowtrio.testing import Fault, Reader, Schedule, SimulatedModel, simulate
from tests.proof.bugs import Bug

T = EventType
SEEDS_TO_CATCH = 300


@attrs.frozen(kw_only=True, repr=False)
class Poster(Reader):
    """Reads, and beside that says something after so many steps of its own."""

    moments: tuple[tuple[int, bool], ...] = ()
    """Steps to wait before each message, and whether that interrupts."""
    posted: list[tuple[str, bool]] = attrs.field(factory=list, eq=False)

    async def read(self, stream: Any, events: list[Any]) -> None:
        """See `Reader`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._post, stream)
            await super().read(stream, events)

    async def _post(self, stream: Any) -> None:
        for steps, interrupt in self.moments:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            text = f"posted {len(self.posted)}"
            self.posted.append((text, stream.post(text, interrupt=interrupt)))


@tool
async def look(n: int) -> str:
    """Look."""
    await trio.sleep(0.1)
    return "found"


def play(source: Random) -> tuple[Any, Poster, list[Any], str]:
    """One run of a drawn agent, with posts at drawn moments on a drawn schedule."""
    around = source.choice(("", "passes on", "asks itself", "asks again"))
    requests: list[Any] = []

    async def hook(ctx: Any, request: Any, proceed: Any) -> Any:
        if around == "asks itself":
            await ctx.model([{"role": "user", "content": "Well?"}], SimulatedModel([["hm", "m"]]))
        reply = await proceed(request)
        if around == "asks again" and not reply.tool_calls:
            reply = await proceed(request)
        return reply

    class Model(SimulatedModel):
        def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
            requests.append(messages)
            return super().stream_completion(messages, tools, **options)

    turns = [["so ", 0.1, "far", ToolCall("p", "look", {"n": 1})], ["the ", "answer"]]
    agent = Agent(
        llm_client=Model(turns[source.randrange(2) :]),
        tools=[look],
        around_model=hook if around else None,
    )
    often = range(source.choice((1, 2, 4)))
    reader = Poster(
        moments=tuple((source.randrange(40), source.randrange(2) == 0) for _ in often),
        cancels=source.choice((None, None, None, 6)),
    )
    run = simulate(
        agent,
        "go",
        reader=reader,
        faults=[Fault("cancel", source.randrange(60))] if source.randrange(4) == 0 else [],
        schedule=Schedule([source.randrange(6) for _ in range(80)]),
        limits=Limits(buffer=source.choice((64, 1))),
    )
    return run, reader, requests, around


def problems_of(source: Random) -> Iterator[str]:
    """Where a post was lost, doubled, or not answered."""
    run, reader, requests, _ = play(source)
    run.check()
    accepted = [text for text, took in reader.posted if took]
    told = [e.data["message"] for e in run.events if e.type is T.USER_MESSAGE]
    if told != accepted:
        yield f"accepted were {accepted}, told {told}"
    said = [m["content"] for m in run.messages if m["role"] == "user"]
    if said != ["go", *accepted]:
        yield f"accepted were {accepted}, the conversation has {said}"
    if run.status == "completed":
        asked = [m["content"] for m in requests[-1] if m["role"] == "user"]
        if asked != said:
            yield f"the last request has {asked}, said was {said}"
    cut = [
        e.data["content"]
        for e in run.events
        if e.type is T.MESSAGE_COMPLETE and e.agent == "root"
        if e.data["finish_reason"] == "cancelled" and e.data["content"]
    ]
    kept = [m["content"] for m in run.messages if m.get("flowtrio", {}).get("partial")]
    if kept != cut:
        yield f"cut were {cut}, kept as partial are {kept}"


@settings(max_examples=150)
@given(st.randoms(use_true_random=False))
def test_what_is_posted_is_never_lost_and_never_doubled(source: Random) -> None:
    assert list(problems_of(source)) == []


def test_posts_are_taken_and_refused_and_cut_replies() -> None:
    """Else the property would say nothing."""
    seen = set()
    for seed in range(100):
        run, reader, _, around = play(Random(seed))
        reasons = {e.data["finish_reason"] for e in run.events if e.type is T.MESSAGE_COMPLETE}
        seen |= {(around, took) for _, took in reader.posted}
        if run.status == "completed" and "cancelled" in reasons:
            seen.add((around, "cut"))
        if run.events[-3].type is T.USER_MESSAGE:
            seen.add("at the end")

    hooks = ("", "passes on", "asks itself", "asks again")
    assert seen >= {(around, what) for around in hooks for what in (True, False, "cut")}
    assert "at the end" in seen


def says_yes_when_it_is_too_late(right: Any) -> Any:
    def post(inbox: Inbox, said: Any, **options: Any) -> bool:
        right(inbox, said, **options)
        return True

    return post


def forgets_what_waits(right: Any) -> Any:
    def hear_the_rest(inbox: Inbox, log: Any) -> None:
        inbox.is_closed = True

    return hear_the_rest


def looks_and_stops_later(right: Any) -> Any:
    async def take_or_stop(listener: Listener) -> bool:
        if await listener.take():
            return True
        await trio.lowlevel.checkpoint()
        listener.stop()
        return False

    return take_or_stop


def forgets_what_was_cut(right: Any) -> Any:
    def take(transcript: Transcript, reply: Any, data: dict[str, Any]) -> None:
        if data["finish_reason"] != "cancelled":
            right(transcript, reply, data)

    return take


def hears_twice(right: Any) -> Any:
    def hear(transcript: Transcript, said: Any) -> None:
        right(transcript, said)
        right(transcript, said)

    return hear


BUGS = [
    Bug("L11", Inbox, "post", says_yes_when_it_is_too_late),
    Bug("L11", Inbox, "hear_the_rest", forgets_what_waits),
    Bug("L11", Listener, "take_or_stop", looks_and_stops_later),
    Bug("L11", Transcript, "_take", forgets_what_was_cut),
    Bug("L11", Transcript, "hear", hears_twice),
]


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_bug_that_loses_or_doubles_is_caught(bug: Bug) -> None:
    with bug.planted():
        caught = next((s for s in range(SEEDS_TO_CATCH) if list(problems_of(Random(s)))), None)

    assert caught is not None
    assert list(problems_of(Random(caught))) == []
