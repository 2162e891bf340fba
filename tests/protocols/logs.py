"""Logs of every ending, by which adapters to other people's protocols are tested.

`NAMES` are programs written by hand, each with an ending of its own, that together tell every type
of event; `log_of` plays one. `SEEDS` are worlds that were drawn, as the proof plays them; `drawn`
plays one. Both are the same each time. `ALL` names all of them, and `any_log` plays one by its
name. `waits_of` gives the places where a log waits for people, at which a protocol's run may end
and another go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from random import Random
from typing import Any, Final

import trio
from trio.testing import MockClock

from flowtrio import (
    Agent,
    AgentEvent,
    Chunk,
    ClientTool,
    EventStream,
    EventType,
    Image,
    Limits,
    RunContext,
    StreamEngine,
    ToolCall,
    ToolDenied,
    Usage,
    tool,
)
from flowtrio.serving.http._segments import Waits
from flowtrio.testing import CUT, ScriptedModel
from tests.proof.worlds import draw_world
from tests.proof.worlds import play as play_world

T = EventType
LIMITS: Final = Limits(approval=5, input=5, tool=3)
SEEDS: Final = range(300)
FEW_SEEDS: Final = range(60)
"""For what takes long."""

Agents = Any


class Named(ScriptedModel):
    """A model that says whose it is."""

    provider, model = "openai", "gpt-4o-mini"


def asks(**named: dict[str, Any]) -> list[ToolCall]:
    """One call of each tool."""
    return [ToolCall(f"p_{name}", name, arguments) for name, arguments in named.items()]


def agent_of(*turns: Any, tools: Sequence[Any] = (), **options: Any) -> Agent[Any]:
    return Agent(llm_client=Named(*turns), tools=tools, **options)


# Tools


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


@tool(fatal=True)
async def fatal() -> str:
    """Fail, and the run with it."""
    raise RuntimeError("no more")


@tool
async def stuck() -> None:
    """Take longer than it may."""
    await trio.sleep(1000)


@tool
async def picture() -> list[Any]:
    """Give a picture."""
    return ["here", Image(data=b"\x89PNG\r\n\x1a\n", name="a.png")]


@tool
async def refuses() -> None:
    """Say that it may not."""
    raise ToolDenied("not today")


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
    model = Named(["Hm. ", *asks(look={"city": question})], [Chunk(reasoning="So."), "129.5."])
    async with ctx.message() as out:
        await out.write("asking ")
    return str(await ctx.delegate(Agent(llm_client=model, tools=[look], name="expert"), question))


@tool
async def narrate(ctx: RunContext) -> str:
    """Say something while it runs."""
    async with ctx.message() as out:
        await out.write("On ")
        await trio.sleep(0.1)
        await out.write("it.")
    return "told"


WHERE = ClientTool("where", "Where the user is.", {"type": "object"})
PICK = ClientTool("pick", "Pick one.", {"type": "object", "properties": {"of": {"type": "array"}}})


# Endings that are good


def plain() -> Agents:
    return agent_of(["It is ", "sunny", "."])


def silent() -> Agents:
    """An answer that is empty."""
    return agent_of([Chunk(is_final=True, finish_reason="stop")])


def thinks() -> Agents:
    """Reasoning, and what it cost."""
    steps = [Chunk(reasoning="Let me "), Chunk(reasoning="see."), "Four", ".", USAGE]
    return agent_of(steps)


USAGE: Final = Usage(prompt_tokens=20, completion_tokens=9, reasoning_tokens=4, cached_tokens=3)


def thinks_between() -> Agents:
    """Reasoning and text take turns in one message, around a tool."""
    steps = [Chunk(reasoning="a"), "b", Chunk(reasoning="c"), "d", Chunk(reasoning="e")]
    return agent_of([*steps, *asks(look={"city": "Rome"})], [*steps], tools=[look])


def strange_text() -> Agents:
    """Texts that encoders stumble over."""
    return agent_of(["line\nline\r\n\n", 'quote "\\', "\u2028é😀", " ", "data: x\n\nevent: y"])


def empty_reasoning_only() -> Agents:
    """Nothing is said but reasoning."""
    return agent_of([Chunk(reasoning="only this"), Chunk(is_final=True, finish_reason="stop")])


def tools_side_by_side() -> Agents:
    """Tools of which one fails, one is late, one is unknown, and one may not."""
    first = [Chunk(reasoning="Let me see. "), "I ", 0.1, "look."]
    made = asks(look={"city": "Paris"}, broken={}, stuck={}, unknown={}, refuses={}, picture={})
    tools = [look, broken, stuck, refuses, picture]
    return agent_of([*first, *made], ["It ", 0.1, "costs ", "129.5."], tools=tools)


def tools_in_turns() -> Agents:
    """Three turns, each with a text and the same tool."""
    turns = [[f"Trying {city}. ", *asks(look={"city": city})] for city in ("Rome", "Oslo")]
    return agent_of(*turns, "Both.", tools=[look])


def odd_arguments() -> Agents:
    """Arguments that do not parse, do not fit, or are missing."""
    made = [
        ToolCall("p0", "look", None, '{"city": '),
        ToolCall("p1", "look", {"city": 1}),
        ToolCall("p2", "look", {}),
    ]
    return agent_of(made, "Never mind.", tools=[look])


def speaks_in_a_tool() -> Agents:
    return agent_of(asks(narrate={}), "Done.", tools=[narrate])


def nested() -> Agents:
    """A tool asks an agent, which has a tool."""
    return agent_of(["I ask. ", *asks(consult={"question": "Paris"})], "Asked.", tools=[consult])


async def nested_twice(ctx: RunContext, message: str) -> str:
    """Two nested agents speak side by side, and one of them fails."""

    async def say(ctx: RunContext, message: str) -> str:
        async with ctx.message() as out:
            for word in ("la ", "le "):
                await out.write(word)
                await trio.sleep(0.1)
        if message == "b":
            raise RuntimeError("b broke")
        return message

    async def run(name: str) -> None:
        with suppress(RuntimeError):
            await ctx.delegate(say, name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "a")
        nursery.start_soon(run, "b")
    return "both"


async def returns_text(ctx: RunContext, message: str) -> str:
    """An answer that no message has told."""
    return "the answer"


async def returns_value(ctx: RunContext, message: str) -> dict[str, Any]:
    """An answer that is no text, behind a message."""
    await ctx.status("counting")
    await ctx.status("still counting")
    await ctx.custom("note", {"n": 1})
    async with ctx.message() as out:
        await out.write("Counted.")
    return {"count": 3}


async def own_calls(ctx: RunContext, message: str) -> str:
    """Calls of the body's own, of which one has arguments that do not fit."""
    price = await ctx.call(look, city="Paris")
    with suppress(Exception):
        await ctx.call(look, wrong=1)
    return f"{price['price']}"


def provider_side() -> Agents:
    """A provider runs a call of its own; parts of several kinds."""
    web = {"id": "s1", "name": "web_search", "arguments": {"q": "Paris"}}
    steps = [
        Chunk(parts=[{"type": "server_tool_call", **web}]),
        Chunk(parts=[{"type": "server_tool_result", "id": "s1", "result": ["a page"]}]),
        Chunk(content="See ", parts=[{"type": "citation", "url": "https://example.org/"}]),
        Chunk(parts=[{"type": "citation", "url": "https://example.org/b", "title": "B"}]),
        Chunk(parts=[{"type": "citation", "cited_text": "a page", "title": "C"}]),
        Chunk(parts=[{"type": "file", "mime_type": "image/png", "data": "iVBORw0KGgo="}]),
        Chunk(parts=[{"type": "file", "mime_type": "text/csv", "url": "https://example.org/c"}]),
        Chunk(parts=[{"type": "odd", "value": [1]}]),
        Chunk(content="there.", is_final=True, finish_reason="stop", model="model-2"),
    ]
    return agent_of(steps, name="researcher")


def refusal() -> Agents:
    """The model says in a part of its own that it will not."""
    steps = [
        Chunk(parts=[{"type": "refusal", "text": "I "}]),
        Chunk(parts=[{"type": "refusal", "text": "will not."}]),
        Chunk(is_final=True, finish_reason="stop"),
    ]
    return agent_of(steps)


def begins_anew() -> Agents:
    """What was said is discarded, twice, and once with a call that was being written."""
    half = Chunk(tool_args=[])
    first = ["Wro", half, Chunk(reset="again"), Chunk(reasoning="hm"), "ng", Chunk(reset="more")]
    again = [*asks(look={"city": "Oslo"}), "never"]
    return agent_of([*first, "Right. ", *again[:1]], ["Oslo."], tools=[look])


def begins_anew_with_calls() -> Agents:
    """A hook asks for the same reply again, behind a call that was being written."""

    async def twice(ctx: Any, request: Any, proceed: Any) -> Any:
        await proceed(request)
        return await proceed(request)

    turns = [["One. ", *asks(look={"city": "Rome"})], ["Two."]]
    return agent_of(*turns, tools=[look], around_model=twice)


def cut_by_length() -> Agents:
    """An answer that is cut by the limit of tokens."""
    return agent_of(["It is ", Chunk(is_final=True, finish_reason="length")])


def steered() -> Agents:
    """The user says something while a tool runs, and cuts the answer with more."""
    return agent_of(asks(look={"city": "Paris"}), ["It ", 5, "costs"], "Much.", tools=[look])


# People


def approved_and_denied() -> Agents:
    """One call is approved, one denied, and nobody answers for a third."""
    turns = [["Good. ", *asks(book={"city": city})] for city in ("Paris", "Rome", "Oslo")]
    return agent_of(*turns, "One of three.", tools=[book])


def two_at_once() -> Agents:
    """Two calls wait for a person at once, beside one that needs none."""
    made = [ToolCall(f"p{city}", "book", {"city": city}) for city in ("Paris", "Rome")]
    return agent_of(["Two. ", *made, *asks(look={"city": "Oslo"})], "One.", tools=[book, look])


def edited() -> Agents:
    """A person approves with arguments of his own."""
    return agent_of(asks(book={"city": "Paris"}), "Booked.", tools=[book])


def asks_in_a_tool() -> Agents:
    return agent_of(asks(confirm={"what": "it"}), "Confirmed.", tools=[confirm])


async def questions(ctx: RunContext, message: str) -> str:
    """Questions: one answered, one declined, one left open, one with a type."""
    colour = await ctx.ask("Which colour?")
    with suppress(Exception):
        await ctx.ask("Which name?")
    with suppress(TimeoutError):
        await ctx.ask("Which size?")
    return f"{colour} {await ctx.ask('How many?', int)}"


def other_side() -> Agents:
    """Two tools that the other side runs, at once, beside one of ours, and one more behind."""
    made = [*asks(where={}, pick={"of": ["a", "b"]}, look={"city": "Rome"})]
    later = asks(where={})
    tools = [WHERE, PICK, look]
    return agent_of(["Let me ask. ", *made], later, "There.", tools=tools)


# Endings that are bad


def model_fails() -> Agents:
    return agent_of(["half an ans", ValueError("the host broke")])


def model_is_cut() -> Agents:
    return agent_of([Chunk(reasoning="hm"), "half an ans", CUT])


def withheld() -> Agents:
    """A reply that the provider took back."""
    return agent_of(["Some", Chunk(is_final=True, finish_reason="content_filter")])


def cut_twice() -> Agents:
    """Calls that are cut by the limit of tokens, twice."""
    final = Chunk(is_final=True, finish_reason="length", tool_calls=asks(look={"city": "Rome"}))
    return agent_of(["I ", final], ["I again ", final], tools=[look])


def tool_is_fatal() -> Agents:
    made = asks(look={"city": "Rome"}, fatal={})
    return agent_of(["I try. ", *made], tools=[look, fatal])


async def agent_fails(ctx: RunContext, message: str) -> None:
    """The body fails with everything open."""

    async def inner(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            await out.write("in")
            await trio.sleep(0.2)
            raise RuntimeError("inner broke")

    async with ctx.message() as out:
        await out.write("out")
        await ctx.delegate(inner, "go")


def too_many_turns() -> Agents:
    """The model never stops calling."""
    turns = [asks(look={"city": str(n)}) for n in range(3)]
    return agent_of(*turns, tools=[look])


def deadline() -> Agents:
    """The run's own time is over."""
    return agent_of(["Wait", 100, "ing"])


def cancelled() -> Agents:
    """It is cancelled while everything is open."""
    made = asks(consult={"question": "Paris"}, confirm={"what": "it"}, book={"city": "Rome"})
    return agent_of(["All. ", *made], tools=[consult, confirm, book])


def cancelled_in_text() -> Agents:
    return agent_of([Chunk(reasoning="hm"), "one ", "two ", 1, "three"])


def cancelled_in_arguments() -> Agents:
    """It is cancelled while the model writes a call."""
    return agent_of(["I ", *asks(look={"city": "Paris"}), 1], tools=[look])


def tool_cancelled() -> Agents:
    """One of two calls is cancelled, and the run goes on."""
    return agent_of(asks(look={"city": "Rome"}, stuck={}), "One.", tools=[look, stuck])


PROGRAMS: Final[list[Any]] = [
    *(plain, silent, thinks, thinks_between, strange_text, empty_reasoning_only),
    *(tools_side_by_side, tools_in_turns, odd_arguments, speaks_in_a_tool, nested, nested_twice),
    *(returns_text, returns_value, own_calls, provider_side, refusal, begins_anew),
    *(begins_anew_with_calls, cut_by_length, steered, approved_and_denied, two_at_once, edited),
    *(asks_in_a_tool, questions, other_side, model_fails, model_is_cut, withheld, cut_twice),
    *(tool_is_fatal, agent_fails, too_many_turns, deadline, cancelled, cancelled_in_text),
    *(cancelled_in_arguments, tool_cancelled),
]
BODIES: Final = (nested_twice, returns_text, returns_value, own_calls, questions, agent_fails)
"""Programs that are agents, and not what makes one."""
NAMES: Final = [program.__name__ for program in PROGRAMS]
ALL: Final = [*NAMES, *map(str, SEEDS)]
ANSWERS: Final = {
    "Which colour?": "blue",
    "How many?": "3",
    "Result of where": '"home"',
    "Result of pick": '{"picked": "a"}',
    "Really it?": "yes",
}


class People:
    """What people do in a program, from what they see; they take a second for each decision."""

    def __init__(self, name: str, stream: EventStream, nursery: trio.Nursery) -> None:
        self.name = name
        self.stream = stream
        self.nursery = nursery
        self.asked = 0

    def see(self, event: AgentEvent) -> None:
        data, stream = event.data, self.stream
        match event.type:
            case T.APPROVAL_REQUIRED | T.INPUT_REQUIRED if self.name == "cancelled":
                pass
            case T.APPROVAL_REQUIRED:
                self.asked += 1
                self.nursery.start_soon(self._decide, data["call_id"], self.asked)
            case T.INPUT_REQUIRED:
                self.nursery.start_soon(self._answer, data["request_id"], data["prompt"])
            case T.TOOL_PROGRESS if self.name == "cancelled" and event.agent != "root":
                stream.cancel("the reader left")
            case T.TOOL_PROGRESS if self.name == "steered":
                stream.post("in euros")
            case T.MESSAGE_CHUNK if self.name == "steered" and data["chunk"] == "It ":
                stream.post("in words", interrupt=True)
            case T.MESSAGE_CHUNK if self.name == "cancelled_in_text" and data["chunk"] == "two ":
                stream.cancel("the reader left")
            case T.TOOL_CALL_ARGS if self.name == "cancelled_in_arguments":
                stream.cancel("the reader left")
            case T.TOOL_CALL_START if self.name == "tool_cancelled":
                if data["tool_name"] == "stuck":
                    stream.cancel_tool(data["call_id"])
            case _:
                pass

    async def _decide(self, call_id: str, number: int) -> None:
        await trio.sleep(number)
        if self.name == "edited":
            self.stream.approve(call_id, {"city": "Rome"})
        elif number == 1:
            self.stream.approve(call_id)
        elif number == 2:
            self.stream.deny(call_id, "too dear")

    async def _answer(self, request_id: str, prompt: str) -> None:
        await trio.sleep(1)
        if prompt == "Which name?":
            self.stream.dismiss(request_id, "none of your business")
        elif prompt in ANSWERS:
            self.stream.answer(request_id, ANSWERS[prompt])


async def _play(program: Any) -> list[AgentEvent]:
    name = program.__name__
    limits = {deadline: Limits(run=2), too_many_turns: Limits(turns=2)}.get(program, LIMITS)
    engine = StreamEngine(limits=limits, wall_clock=lambda: 1_767_225_600.0)
    agent = program if program in BODIES else program()
    log: list[AgentEvent] = []
    async with trio.open_nursery() as nursery:
        async with engine.stream(agent, f"{name}, please", run_id=name) as stream:
            people = People(name, stream, nursery)
            async for event in stream:
                log.append(event)
                people.see(event)
        nursery.cancel_scope.cancel()
    return log


@cache
def log_of(name: str) -> list[AgentEvent]:
    """The log of a program, by its name."""
    [program] = [program for program in PROGRAMS if program.__name__ == name]
    return trio.run(_play, program, clock=MockClock(autojump_threshold=0))


@cache
def drawn(seed: int) -> list[AgentEvent]:
    """The log of a world that is made from *seed*."""
    run, _ = play_world(draw_world(Random(seed)))
    return run.events


def any_log(name: str) -> list[AgentEvent]:
    """A log by its name in `ALL`."""
    return drawn(int(name)) if name.isdigit() else log_of(name)


def waits_of(log: Sequence[AgentEvent]) -> list[int]:
    """The last event before each wait for people, by its number."""
    waits = Waits()
    found = []
    for event in log:
        was = waits.for_people
        waits.feed(event)
        if waits.for_people and not was:
            found.append(event.seq)
    return found
