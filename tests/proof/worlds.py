"""Worlds: all that can happen in one run, drawn from a source of random numbers.

The source is Python's, for runs that are counted, or Hypothesis's, for those that are shrunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import attrs
import trio

from flowtrio import (
    Agent,
    Chunk,
    EventType,
    Image,
    Limits,
    RunContext,
    Text,
    ToolCall,
    ToolDenied,
    tool,
)
from flowtrio.testing import (
    CUT,
    Fault,
    Reader,
    Schedule,
    SimulatedFailure,
    SimulatedModel,
    SimulatedRun,
    simulate,
)

NAMES = ("a", "b", "c", "d")
READY = 12
"""Tasks of which any may go first: more than are ever ready at once. Were it many more, Hypothesis
would end on larger counter-examples."""
SECONDS = (0.0, 0.0, 0.1, 0.5, 1.0, 3.0)
KINDS = (
    *("returns", "raises", "tidies", "progresses", "delegates", "asks", "speaks", "is fatal"),
    *("starts tasks", "asks a model"),
)


POSTING = ("delegates", "asks", "speaks", "asks a model", "progresses")
"""How the first tool behaves where the reader says something of its own."""
HOOKS = {
    **{"raises": "again", "tidies": "denies", "progresses": "replaces", "delegates": "asks"},
    **{"asks": "again", "speaks": "denies", "is fatal": "replaces", "asks a model": "asks"},
}
"""What stands around tools and models, by how the second tool behaves."""


@attrs.frozen
class World:
    """What happens in one run. Its simplest form is a model that says nothing and stops."""

    turns: tuple[tuple[Any, ...], ...] = ()
    tools: dict[str, tuple[str, float]] = attrs.Factory(dict)
    """How each tool behaves, and a time that it takes."""
    approved: tuple[str, ...] = ()
    """Tools that need approval."""
    reader: Reader = attrs.Factory(Reader)
    faults: tuple[Fault, ...] = ()
    schedule: Schedule = attrs.Factory(Schedule)
    limits: Limits = attrs.Factory(Limits)
    waits: float = 0.0
    """Seconds that a body of one's own waits before it has the agent answer; 0 for no such body."""
    comes_and_goes: bool = False
    """Whether the last tool is a toolset's, which takes time and has it in every other turn."""
    posts: tuple[int, ...] = ()
    """Events after which the reader says something of its own, the first time interrupting."""
    edits: bool = False
    """Whether the reader gives other arguments to what it approves."""
    declines: bool = False
    """Whether the reader declines to answer."""
    hooks: str = ""
    """What stands around tools and models: nothing, or what that does; see `_make_hooks`."""


PICTURE = Image(data=b"\x89PNG\r\n\x1a\n", name="a.png")


@attrs.define
class Witness:
    """What the world itself saw, to be held against the log."""

    cuts: int = 0
    """Replies of the agent's model that ended without a finish mark, or failed."""
    strange: list[object] = attrs.Factory(list)
    """Arguments that reached a tool and are none."""
    posts: list[tuple[str, bool]] = attrs.Factory(list)
    """What the reader said, and whether it was taken in."""
    edited: list[str] = attrs.Factory(list)
    """Calls that were approved with other arguments."""
    declined: list[str] = attrs.Factory(list)
    """Questions that were declined."""
    denied: list[str] = attrs.Factory(list)
    """Calls that a hook denied."""
    ran: dict[str, object] = attrs.Factory(dict)
    """What the function of each call was given."""
    left: dict[str, float] = attrs.Factory(dict)
    """When the function of each call was left, by call; seconds of Trio's clock."""


def draw_plain_world(source: Random) -> World:
    """Make up a world where people only answer, and nothing stands around anything."""
    world = draw_world(source)
    return attrs.evolve(world, posts=(), edits=False, declines=False, hooks="")


def draw_world(source: Random) -> World:
    """Make up a world."""
    turns = tuple(_draw_turn(source) for _ in range(source.randrange(4)))
    tools = {name: (source.choice(KINDS), source.choice(SECONDS)) for name in NAMES}
    last, seconds = tools["d"]
    approved = tuple(name for name in NAMES if source.randrange(5) == 4)
    reader = _draw_reader(source)
    first, pause = tools["a"]
    return World(
        turns=turns,
        tools=tools,
        # Not drawn by itself: one draw more, and Hypothesis ends on larger counter-examples.
        waits=seconds if last in ("asks", "speaks") else 0.0,
        comes_and_goes=last in ("progresses", "starts tasks"),
        # Nor are these.
        posts=(2 + int(4 * pause), 5, 9) if first in POSTING else (),
        edits=not reader.is_bare,
        declines=reader.is_bare,
        hooks=HOOKS.get(tools["b"][0], "") if tools["b"][1] else "",
        approved=approved,
        reader=reader,
        faults=tuple(_draw_fault(source) for _ in range(source.choice((0, 0, 1, 2)))),
        schedule=Schedule(_draw_choices(source)),
        limits=Limits(
            run=source.choice((100.0, 100.0, 2.0)),
            tool=source.choice((60.0, 60.0, 0.7)),
            approval=1.0,
            input=1.0,
            grace=source.choice((5.0, 0.2)),
            parallel_tools=source.choice((8, 2, 1)),
            buffer=source.choice((64, 2, 1)),
            turns=4,
        ),
    )


def _draw_choices(source: Random) -> list[int]:
    often = source.choice((1, 2, 10))
    size = source.choice((0, 20, 60, 120))
    return [
        source.randrange(READY) if source.randrange(often) == often - 1 else 0 for _ in range(size)
    ]


def _draw_turn(source: Random) -> tuple[Any, ...]:
    steps: list[Any] = []
    for _ in range(source.randrange(5)):
        what = source.randrange(6)
        if what < 3:
            steps.append(source.choice(("la", "b ", "c")))
        elif what == 3:
            steps.append(source.choice((0.1, 0.5, 1.0, 3.0)))
        else:
            steps.append(source.choice((Chunk(reasoning="hm"), Chunk(reset="again"))))
    for number in range(source.choice((0, 1, 2, 4))):
        name = source.choice(NAMES)
        arguments = source.choice(({"n": 1}, {"n": 2}, {"n": 3}, {"n": "x"}, None))
        steps.append(ToolCall(f"p{number}", name, arguments, "{" if arguments is None else ""))
    if source.randrange(6) == 5:
        end = source.choice((CUT, SimulatedFailure("drawn")))
        steps = [*steps[: source.randrange(len(steps) + 1)], end]
    return tuple(steps)


def _draw_reader(source: Random) -> Reader:
    leaves = source.choice((None, None, "breaks", "raises", "cancels", "cancels_tool", "times_out"))
    when: dict[str, Any] = {}
    if leaves == "times_out":
        when = {leaves: source.choice(SECONDS)}
    elif leaves is not None:
        when = {leaves: 1 + source.randrange(4 if leaves == "cancels_tool" else 25)}
    return Reader(
        pause=source.choice((0.0, 0.0, 0.3)),
        polls=source.choice((None, None, 0.2)),
        approves=source.choice((True, False, None)),
        answers=source.choice(("yes", None)),
        is_bare=source.choice((False, True)),
        **when,
    )


def _draw_fault(source: Random) -> Fault:
    kind = source.choice(("cancel", "cut_off", "fail", "cancel_tool", "delay"))
    if kind in ("cancel", "cut_off"):
        return Fault(kind, source.randrange(150))
    if kind == "delay":
        return Fault(kind, call=source.randrange(4), seconds=source.choice(SECONDS))
    return Fault(kind, source.randrange(5), source.randrange(4))


# Playing one


def play(
    world: World, telemetry: Any = None, around_tool: Any = None
) -> tuple[SimulatedRun, Witness]:
    """Simulate a world; give the run, and what the world saw of it."""
    witness = Witness()
    tools = [_make_tool(world, witness, name, *how) for name, how in world.tools.items()]
    if world.comes_and_goes:
        tools[-1] = _Toolset(tools[-1], *world.tools[NAMES[-1]])
    hooks = _make_hooks(world, witness)
    if around_tool is not None:
        hooks["around_tool"] = around_tool
    agent = Agent(llm_client=_Model(world.turns, witness), tools=tools, **hooks)

    async def patient(ctx: RunContext, message: str) -> str:
        await trio.sleep(world.waits)
        return await agent(ctx, message)

    run = simulate(
        patient if world.waits else agent,
        [Text("go"), PICTURE] if world.waits else "go",
        reader=_Person(world=world, witness=witness, **attrs.asdict(world.reader, recurse=False)),
        faults=world.faults,
        schedule=world.schedule,
        limits=world.limits,
        telemetry=telemetry,
    )
    return run, witness


@attrs.frozen(kw_only=True, repr=False)
class _Person(Reader):
    """Says something of its own, edits and declines."""

    world: World
    witness: Witness
    _read: list[EventType] = attrs.field(factory=list, eq=False)

    def _react(self, stream: Any, type: EventType, data: dict[str, Any], started: int) -> None:
        self._read.append(type)
        world, witness = self.world, self.witness
        if len(self._read) in world.posts:
            text = f"said {len(witness.posts)}"
            interrupt = len(self._read) == world.posts[0]
            witness.posts.append((text, stream.post(text, interrupt=interrupt)))
        if type is EventType.APPROVAL_REQUIRED and self.approves and world.edits:
            if stream.approve(data["call_id"], {"n": EDITED}):
                witness.edited.append(data["call_id"])
        elif type is EventType.INPUT_REQUIRED and world.declines:
            if stream.dismiss(data["request_id"], "no idea"):
                witness.declined.append(data["request_id"])
        else:
            super()._react(stream, type, data, started)


EDITED = 7
"""The number that a person gives to what it approves."""


def _make_hooks(world: World, witness: Witness) -> dict[str, Any]:
    if not world.hooks:
        return {}

    async def around_tool(ctx: RunContext, call: ToolCall, proceed: Any) -> Any:
        try:
            value = await proceed()
        except ValueError:
            if world.hooks != "again":
                raise
            value = await proceed()
        if world.hooks == "denies" and (call.arguments or {}).get("n") == 2:
            witness.denied.append(call.id)
            raise ToolDenied("not two")
        return "replaced" if world.hooks == "replaces" else value

    async def around_model(ctx: RunContext, request: Any, proceed: Any) -> Any:
        if world.hooks == "asks":
            client = SimulatedModel([["hm", 0.1]])
            await ctx.model([{"role": "user", "content": "May I?"}], client=client)
        reply = await proceed(request)
        if world.hooks == "again" and not reply.tool_calls:
            reply = await proceed(request)
        if world.hooks == "replaces" and reply.content:
            reply = attrs.evolve(reply, content=reply.content.upper())
        return reply

    return {"around_tool": around_tool, "around_model": around_model}


class _Model(SimulatedModel):
    """Tells the witness how its replies ended."""

    def __init__(self, turns: Any, witness: Witness) -> None:
        super().__init__(turns)
        self.witness = witness

    async def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
        """See `SimulatedModel`."""
        reply = super().stream_completion(messages, tools, **options)
        is_final = False
        async with reply:
            try:
                async for chunk in reply:
                    is_final = chunk.is_final
                    yield chunk
            except SimulatedFailure:
                self.witness.cuts += 1
                raise
        self.witness.cuts += not is_final


class _Toolset:
    """Has its tool in every other turn; where that starts tasks, it fails in the third."""

    def __init__(self, tool: Any, kind: str, seconds: float) -> None:
        self.tool = tool
        self.fails = kind == "starts tasks"
        self.seconds = seconds
        self.asked = 0

    async def tools(self, ctx: RunContext) -> Sequence[Any]:
        """See `flowtrio.abc.Toolset`."""
        self.asked += 1
        await trio.sleep(self.seconds)
        if self.fails and self.asked == 3:
            raise ValueError("no tools")
        return [self.tool] if self.asked % 2 else []


def _make_tool(world: World, witness: Witness, name: str, kind: str, seconds: float) -> Any:
    async def helper(ctx: RunContext, message: str) -> str:
        async with ctx.message() as out:
            await out.write(message)
            await trio.sleep(seconds)
        return message

    async def body(ctx: RunContext, n: int) -> Any:
        witness.ran[str(ctx.call_id)] = n
        if not isinstance(n, int):
            witness.strange.append(n)
        try:
            return await _behave(ctx, kind, name, seconds, helper)
        finally:
            witness.left[str(ctx.call_id)] = trio.current_time()

    return tool(name=name, fatal=kind == "is fatal", needs_approval=name in world.approved)(body)


async def _behave(ctx: RunContext, kind: str, name: str, seconds: float, helper: Any) -> Any:
    match kind:
        case "raises" | "is fatal":
            await trio.sleep(seconds)
            raise ValueError(name)
        case "tidies":
            try:
                await trio.sleep(100)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(seconds)
        case "progresses":
            for part in range(3):
                await ctx.progress(part)
                await trio.sleep(seconds)
            return [name, PICTURE]
        case "delegates":
            return str(await ctx.delegate(helper, name))
        case "asks":
            return await ctx.ask(name)
        case "asks a model":
            client = SimulatedModel([["well", seconds]])
            return (await ctx.model([{"role": "user", "content": name}], client=client)).content
        case "starts tasks":
            ctx.start_soon(trio.sleep, seconds)
            ctx.start_soon(ctx.custom, name)
        case "speaks":
            async with ctx.message() as out:
                await out.write(name)
                await trio.sleep(seconds)
    await trio.sleep(seconds)
    return name
