"""Small programs for the runtime's tests, and what is asked of each log that they leave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import trio

from flowtrio import (
    Agent,
    AgentEvent,
    Chunk,
    EventStream,
    EventType,
    Limits,
    RunContext,
    StreamEngine,
    Tool,
    ToolCall,
    tool,
)
from flowtrio.testing import ScriptedModel, check_events
from flowtrio.testing import check_messages as check_messages

T = EventType


# Models


def call(name: str, /, **arguments: Any) -> ToolCall:
    """A call that a scripted model makes; the provider's id is made of the name."""
    return ToolCall(f"p_{name}", name, arguments)


def calls(*names: str) -> list[ToolCall]:
    """Calls without arguments, with provider's ids of their own."""
    return [ToolCall(f"p{number}_{name}", name, {}) for number, name in enumerate(names)]


def calling(*names: str, then: str = "fine") -> ScriptedModel:
    """A model that calls tools without arguments in its first turn and answers in the next."""
    return ScriptedModel(calls(*names), then)


class Endless:
    """A model that never stops talking, one chunk for each second or without a pause."""

    def __init__(self, gap: float | None = None) -> None:
        self.gap = gap
        self.said = 0
        self.is_closed = False

    async def stream_completion(
        self, messages: Any, tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """Talk."""
        try:
            while True:
                if self.gap is not None:
                    await trio.sleep(self.gap)
                self.said += 1
                yield Chunk(content="la ")
        finally:
            self.is_closed = True


# Tools


class Diary:
    """Tools that write down what becomes of them: each line is a name and a word."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tool(self, name: str, body: Callable[[], Awaitable[Any]], **options: Any) -> Tool[..., Any]:
        """A tool without parameters that does *body* and tells of its beginning and its end."""

        async def fn() -> Any:
            self.lines.append(f"{name} began")
            try:
                return await body()
            finally:
                self.lines.append(f"{name} ended")

        return tool(name=name, **options)(fn)

    def sleeper(self, name: str = "sleep", seconds: float = 5.0) -> Tool[..., Any]:
        """A tool that takes its time."""
        return self.tool(name, lambda: trio.sleep(seconds))

    def failing(self, name: str, exc: BaseException, **options: Any) -> Tool[..., Any]:
        """A tool that raises at once."""

        async def body() -> None:
            raise exc

        return self.tool(name, body, **options)

    def tidy(self, name: str, cleanup: float, **options: Any) -> Tool[..., Any]:
        """A tool that sleeps for long and needs *cleanup* seconds when it is cancelled."""

        async def body() -> None:
            try:
                await trio.sleep(1000)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(cleanup)

        return self.tool(name, body, **options)

    @property
    def running(self) -> list[str]:
        """The tools that began and have not ended."""
        names = [line.removesuffix(" began") for line in self.lines if line.endswith(" began")]
        for line in self.lines:
            if line.endswith(" ended"):
                names.remove(line.removesuffix(" ended"))
        return names


# Logs


def spell(event: AgentEvent) -> str:
    """An event in a few words: what it is, whose it is, and how it turned out."""
    data = event.data
    match event.type:
        case T.STATE_CHANGE:
            return f"status {data['new_status']}"
        case T.MESSAGE_COMPLETE:
            return f"complete {data['message_id']} {data['finish_reason']}"
        case T.TOOL_CALL_START | T.TOOL_CALL_ARGS | T.TOOL_PROGRESS | T.APPROVAL_REQUIRED:
            word = {T.TOOL_CALL_START: "start", T.TOOL_CALL_ARGS: "args"}.get(event.type)
            return f"{word or event.type.partition('_')[0]} {data['call_id']}"
        case T.TOOL_CALL_END:
            return f"end {data['call_id']} {data['outcome']}"
        case T.AGENT_START:
            return f"agent {event.agent}"
        case T.AGENT_END:
            return f"agent_end {event.agent} {data['outcome']}"
        case T.INPUT_REQUIRED:
            return f"ask {data['request_id']}"
        case T.INPUT_RESOLVED:
            return f"answer {data['request_id']} {data['outcome']}"
        case T.ERROR:
            return f"error {data['source']} {data['code']}"
        case T.DONE:
            return f"done {data['status']}"
        case T.MESSAGE_CHUNK | T.REASONING_CHUNK | T.MESSAGE_RESET | T.MESSAGE_PART:
            return f"{event.type.rpartition('_')[2]} {data['message_id']}"
        case _:
            return str(event.type)


def spelled(log: Sequence[AgentEvent]) -> list[str]:
    """A log in a few words."""
    return [spell(event) for event in log]


def only(log: Sequence[AgentEvent], type: EventType) -> list[dict[str, Any]]:
    """The data of all events of one type."""
    return [event.data for event in log if event.type is type]


def outcomes(log: Sequence[AgentEvent]) -> dict[str, str]:
    """How each tool's last call ended, by the tool's name."""
    return {data["tool_name"]: data["outcome"] for data in only(log, T.TOOL_CALL_END)}


def error_of(log: Sequence[AgentEvent]) -> dict[str, Any]:
    """The data of the one ERROR."""
    [data] = only(log, T.ERROR)
    return data


def done_of(log: Sequence[AgentEvent]) -> dict[str, Any]:
    """The data of the DONE at the end."""
    assert log[-1].type is T.DONE
    return log[-1].data


# Playing


@attrs.frozen
class Played:
    """A run that was read to its end."""

    stream: EventStream
    log: list[AgentEvent]

    @property
    def words(self) -> list[str]:
        """The log, spelled."""
        return spelled(self.log)

    @property
    def status(self) -> str:
        """How it ended."""
        return str(done_of(self.log)["status"])


Reader = Callable[[EventStream, list[AgentEvent]], Awaitable[None]]


async def read_all(stream: EventStream, log: list[AgentEvent]) -> None:
    """The plain reader."""
    async for event in stream:
        log.append(event)


async def read_rest(stream: EventStream, log: list[AgentEvent]) -> None:
    """Read what a stream that was left still holds."""
    try:
        while True:
            log += await stream.receive_batch()
    except trio.EndOfChannel:
        pass


async def play(
    agent: Any,
    message: str = "go",
    *,
    limits: Limits | None = None,
    reader: Reader = read_all,
    engine: StreamEngine | None = None,
    **options: Any,
) -> Played:
    """Run *agent* in a block, read it, and check its log and its conversation.

    What *reader* left unread when it returned is read after the block, so that the log is whole
    however early it left.
    """
    log: list[AgentEvent] = []
    stream = (engine or StreamEngine()).stream(agent, message, limits=limits, **options)
    with nothing_left_behind():
        async with stream:
            await reader(stream, log)
    return await check_ended(stream, log)


async def check_ended(stream: EventStream, log: list[AgentEvent]) -> Played:
    """Assert that a stream's run ended by the laws, and give it with its whole log."""
    await read_rest(stream, log)
    check_events(log)
    check_messages(stream.messages)
    assert stream.statistics().undelivered == 0
    assert stream.statistics().open_brackets == 0
    return Played(stream, log)


def runner(model: Any, *tools: Tool[..., Any] | Callable[..., Any], **options: Any) -> Agent[str]:
    """An agent of a model and its tools."""
    return Agent(llm_client=model, tools=tools, **options)


def agent_of(body: Callable[[RunContext], Awaitable[Any]], name: str = "body") -> Any:
    """An agent of a function that needs no message."""

    async def agent(ctx: RunContext, message: str) -> Any:
        return await body(ctx)

    agent.__name__ = name
    return agent


# What is alive


def tasks() -> set[str]:
    """The names and identities of all tasks below Trio's root."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return {f"{task.name} {id(task):x}" for task in _below(root)}


def _below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _below(child)


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Assert that no task outlives the block, however it is left (L5)."""
    before = tasks()
    try:
        yield
    finally:
        assert tasks() <= before


def contents(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    """A conversation as pairs of role and content."""
    return [(message["role"], message.get("content")) for message in messages]


async def until_idle(recorder: Any) -> None:
    """Wait until no run is hosted by *recorder*."""
    with trio.fail_after(1000):
        while recorder.runs:
            await trio.sleep(0.01)
