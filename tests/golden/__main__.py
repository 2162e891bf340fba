"""Write golden logs: ``python -m tests.golden``, for the schema of the code as it stands.

Each program is small and has an ending of its own; together they tell every type of event. What is
written for a schema is frozen once that schema is out: a file that changes is no golden file.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
from trio.testing import MockClock

from flowtrio import (
    Agent,
    Chunk,
    EventStream,
    EventType,
    Limits,
    RunContext,
    StreamEngine,
    ToolCall,
    tool,
)
from flowtrio._core._events import SCHEMA
from flowtrio.testing import CUT, ScriptedModel

T = EventType
HERE: Final = Path(__file__).parent
LIMITS: Final = Limits(approval=5, input=5, tool=3)


class Named(ScriptedModel):
    """A model that says whose it is."""

    provider, model = "openai", "gpt-4o-mini"


@tool
async def look(ctx: RunContext, city: str) -> dict[str, Any]:
    """Take a while, and tell how far it is."""
    await ctx.progress({"asked": city})
    await trio.sleep(0.5)
    return {"city": city, "price": 129.5}


@tool
async def broken() -> str:
    """Fail."""
    raise RuntimeError("no")


@tool
async def stuck() -> None:
    """Take longer than it may."""
    await trio.sleep(1000)


@tool(needs_approval=True)
async def book(city: str) -> str:
    """Need a person's approval."""
    return f"booked {city}"


@tool
async def confirm(ctx: RunContext, what: str) -> str:
    """Ask the user, and a person."""
    answer = await ctx.ask(f"Really {what}?")
    return f"{answer}, {await ctx.approve('confirm it', {'what': what})}"


@tool
async def consult(ctx: RunContext, question: str) -> str:
    """Ask an agent that has tools of its own, and tell what it says."""
    model = Named([ToolCall("n1", "look", {"city": question})], "It costs 129.5.")
    inner = Agent(llm_client=model, tools=[look], name="expert")
    async with ctx.message() as out:
        await out.write("asking ")
    return str(await ctx.delegate(inner, question))


def calls(**named: dict[str, Any]) -> list[ToolCall]:
    """One call of each tool."""
    return [ToolCall(f"p_{name}", name, arguments) for name, arguments in named.items()]


def completed() -> Agent:
    """Tools side by side, of which one fails and one is late; reasoning and an answer."""
    first = [Chunk(reasoning="Let me see. "), "I ", 0.1, "look."]
    made = calls(look={"city": "Paris"}, broken={}, stuck={}, unknown={})
    model = Named([*first, *made], ["It ", 0.1, "costs ", "129.5."])
    return Agent(llm_client=model, tools=[look, broken, stuck])


def approvals() -> Agent:
    """One call is approved, one denied, and nobody answers for a third."""
    turns = [["Good. ", *calls(book={"city": city})] for city in ("Paris", "Rome", "Oslo")]
    return Agent(llm_client=Named(*turns, "One of three."), tools=[book])


async def questions(ctx: RunContext, message: str) -> dict[str, Any]:
    """One question is answered, and one is not."""
    await ctx.status("asking")
    colour = await ctx.ask("Which colour?")
    with suppress(TimeoutError):
        await ctx.ask("Which size?")
    return {"colour": colour, "confirmed": await ctx.call(confirm, what=colour)}


def nested() -> Agent:
    """A tool asks an agent, which has a tool."""
    model = Named(calls(consult={"question": "Paris"}), "Asked.")
    return Agent(llm_client=model, tools=[consult])


async def fails(ctx: RunContext, message: str) -> None:
    """A nested agent fails and that is handled; then the model is cut."""
    await ctx.custom("note", {"n": 1})
    with suppress(RuntimeError):
        await ctx.delegate(_fails, message)
    await ctx.model([{"role": "user", "content": message}], Named(["half an ans", CUT]))


async def _fails(ctx: RunContext, message: str) -> None:
    raise RuntimeError("the nested agent broke")


def provider() -> Agent:
    """A reply begins anew; its provider runs a call; it has a part; its model is named."""
    web = {"id": "s1", "name": "web_search", "arguments": {"q": "Paris"}}
    steps = [
        "Wro",
        *("ng", Chunk(reset="another attempt")),
        Chunk(parts=[{"type": "server_tool_call", **web}]),
        Chunk(parts=[{"type": "server_tool_result", "id": "s1", "result": ["a page"]}]),
        Chunk(content="See ", parts=[{"type": "citation", "url": "https://example.org/"}]),
        Chunk(is_final=True, finish_reason="length", model="model-2"),
    ]
    return Agent(llm_client=Named(steps), name="researcher")


def cancelled() -> Agent:
    """It is cancelled while everything is open."""
    made = calls(consult={"question": "Paris"}, confirm={"what": "it"}, book={"city": "Rome"})
    return Agent(llm_client=Named(made), tools=[consult, confirm, book])


def steered() -> Agent:
    """The user says something while a tool runs, and cuts the answer with more."""
    made = calls(look={"city": "Paris"})
    return Agent(llm_client=Named(made, ["It ", 5, "costs"], "Much."), tools=[look])


PROGRAMS: Final[list[Callable[..., Any]]] = [
    *(completed, approvals, questions, nested, fails, provider, cancelled, steered)
]


async def react(stream: EventStream, event: Any, asked: list[str]) -> None:
    """Do what a person would: answer the first question, approve the first call, deny the next."""
    if event.type is T.APPROVAL_REQUIRED and event.data["tool_name"] != "confirm it":
        asked.append(event.data["call_id"])
        if len(asked) == 1:
            stream.approve(asked[0])
        elif len(asked) == 2:
            stream.deny(asked[1], "too dear")
    elif event.type is T.APPROVAL_REQUIRED:
        stream.approve(event.data["call_id"])
    elif stream.run_id == "steered" and event.type is T.TOOL_PROGRESS:
        stream.post("in euros")
    elif stream.run_id == "steered" and event.data.get("chunk") == "It ":
        stream.post("in words", interrupt=True)
    elif event.type is T.INPUT_REQUIRED and "size" not in event.data["prompt"]:
        stream.answer(event.data["request_id"], "blue")


async def play(program: Callable[..., Any]) -> list[Any]:
    """Run one, and give its log."""
    is_agent = program in (questions, fails)
    agent = program if is_agent else program()
    engine = StreamEngine(limits=LIMITS, wall_clock=lambda: 1_767_225_600.0)
    log, asked = [], list[str]()
    name = program.__name__
    async with engine.stream(agent, f"{name}, please", run_id=name) as stream:
        async for event in stream:
            log.append(event)
            if program is not cancelled:
                await react(stream, event, asked)
            elif event.type is T.TOOL_PROGRESS:
                await trio.sleep(0.1)
                stream.cancel("the golden reader left")
    return log


def write(directory: Path) -> None:
    """Play each and write its log; one of them once more, without its end."""
    directory.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        log = trio.run(play, program, clock=MockClock(autojump_threshold=0))
        lines = [msgspec.json.encode(event).decode() + "\n" for event in log]
        text = "".join(lines)
        (directory / f"{program.__name__}.jsonl").write_text(text, encoding="utf-8")
        if program is cancelled:
            place = next(i for i, event in enumerate(log) if event.type is T.TOOL_PROGRESS)
            cut = "".join(lines[: place + 1])
            (directory / "interrupted.jsonl").write_text(cut, encoding="utf-8")


if __name__ == "__main__":
    write(HERE / f"schema-{SCHEMA}")
