"""Draw a run as a timeline, from a log of a run that took place.

``python docs/_run_picture.py`` plays the run below in virtual time and writes its log,
``run.jsonl``, and the picture, ``run.svg``. Building the documents draws the same log again.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import trio
from trio.testing import MockClock

from flowtrio import Agent, EventType, RunContext, StreamEngine, ToolCall, tool
from flowtrio.pictures._svg import draw_timeline
from flowtrio.testing import ScriptedModel

HERE = Path(__file__).parent
LOG, PICTURE = HERE / "run.jsonl", HERE / "run.svg"


@tool
async def search_flights(ctx: RunContext, city: str) -> int:
    """Price of the cheapest flight."""
    for airline in ("North", "South"):
        await trio.sleep(0.4)
        await ctx.progress({"asked": airline})
    return 129


@tool
async def search_hotels(city: str) -> str:
    """The best hotel."""
    await trio.sleep(0.5)
    return f"Hotel Central {city}"


@tool(needs_approval=True)
async def book(city: str) -> str:
    """Book both."""
    await trio.sleep(0.3)
    return "booked"


@tool
async def ask_visa_office(ctx: RunContext, city: str) -> str:
    """What a nested agent says."""
    model = ScriptedModel([0.2, "No ", 0.2, "visa ", 0.1, "needed."])
    return str(await ctx.delegate(Agent(llm_client=model, name="visa"), city))


def _call(name: str) -> ToolCall:
    return ToolCall(id=name, name=name, arguments={"city": "Paris"})


async def play() -> list[str]:
    """Run it, and give its log as lines of JSON."""
    model = ScriptedModel(
        [0.2, "I ", 0.1, "look.", _call("search_flights"), _call("search_hotels")],
        [0.2, "Good. ", _call("ask_visa_office"), 0.1, _call("book")],
        [0.2, "It ", 0.1, "is ", 0.1, "booked."],
    )
    agent = Agent(llm_client=model, tools=[search_flights, search_hotels, book, ask_visa_office])
    lines = []
    engine = StreamEngine(wall_clock=lambda: 1_767_225_600.0)
    async with engine.stream(agent, "A trip to Paris", run_id="a-run") as stream:
        async for event in stream:
            lines.append(msgspec.json.encode(event).decode())
            if event.type is EventType.APPROVAL_REQUIRED:
                await trio.sleep(0.6)
                stream.approve(event.data["call_id"])
    return lines


def draw() -> str:
    """The picture of the log."""
    lines = LOG.read_text(encoding="utf-8").splitlines()
    return draw_timeline(json.loads(line) for line in lines)


def write() -> None:
    """Write the picture, unless it is there as it should be."""
    picture = draw()
    if not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != picture:
        PICTURE.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    told = trio.run(play, clock=MockClock(autojump_threshold=0))
    LOG.write_text("".join(f"{line}\n" for line in told), encoding="utf-8")
    write()
