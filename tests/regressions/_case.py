"""One case: an agent of a model on loopback, and what has to hold after it, whatever happened."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trio
import trio.testing

from flowtrio import (
    Agent,
    AgentEvent,
    EventStream,
    EventType,
    Limits,
    ModelLimits,
    OpenAIClient,
    StreamEngine,
)
from flowtrio.testing import find_violations
from tests.runtime._programs import Diary, check_ended, only, read_all, tasks
from tests.support.model_server import Answer, ModelServer, open_model_server

Reader = Callable[[EventStream, list[AgentEvent]], Awaitable[None]]


@attrs.define(eq=False)
class Case:
    """A run against a real socket, and what it left."""

    server: ModelServer
    client: OpenAIClient
    diary: Diary = attrs.field(factory=Diary)
    """Tools that write down what becomes of them."""
    log: list[AgentEvent] = attrs.field(factory=list)
    stream: EventStream | None = None
    """The run's stream; None for one that was dropped in the middle of its log."""

    def agent(self, *tools: Any, **options: Any) -> Agent[str]:
        """An agent of the loopback model."""
        return Agent(llm_client=self.client, tools=tools, **options)

    async def play(
        self, agent: Any, reader: Reader = read_all, *, limits: Limits | None = None
    ) -> None:
        """Run an agent in a block and have it read."""
        self.stream = StreamEngine().stream(agent, "go", limits=limits)
        async with self.stream:
            await reader(self.stream, self.log)

    def data(self, type: EventType) -> list[dict[str, Any]]:
        """The data of all events of one type."""
        return only(self.log, type)

    @property
    def done(self) -> dict[str, Any]:
        """The data of DONE."""
        [done] = self.data(EventType.DONE)
        return done

    @property
    def error(self) -> dict[str, Any]:
        """The data of the one ERROR."""
        [error] = self.data(EventType.ERROR)
        return error

    def results(self, request: int = -1) -> list[dict[str, Any]]:
        """What the model was told of its calls, in the messages of one request."""
        messages = self.server.exchanges[request].body["messages"]
        return [message for message in messages if message["role"] == "tool"]

    async def check_after(self) -> None:
        """Assert what holds after every case."""
        if self.stream is None:
            assert find_violations(self.log, whole=False) == []
        else:
            await check_ended(self.stream, self.log)
        assert self.diary.running == []
        written = list(self.diary.lines)
        await self.client.aclose()
        with trio.fail_after(10):
            await self.server.wait_left()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert self.diary.lines == written, "side effects after the end"


def sockets() -> int:
    """How many sockets this process holds."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        # The descriptor of the listing itself is gone by now.
        with suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


@asynccontextmanager
async def open_case(*answers: Answer, limits: ModelLimits | None = None) -> AsyncIterator[Case]:
    """Serve a model, give a case, and check at the end that nothing of it is left.

    The log is lawful and whole, with its one DONE; the conversation can be continued; the model's
    host holds no connection; no task, no socket and no side effect is left.
    """
    tasks_before, sockets_before = tasks(), sockets()
    with trio.fail_after(60):
        async with open_model_server(answers) as server:
            client = OpenAIClient(api_key="k", model="m", base_url=server.url, limits=limits)
            case = Case(server, client)
            yield case
            await case.check_after()
    assert tasks() <= tasks_before
    assert sockets() == sockets_before


def stops_at(type: EventType, act: Callable[[EventStream], object] | None = None) -> Reader:
    """A reader that leaves at the first event of a type; with *act* it does that and reads on."""

    async def reader(stream: EventStream, log: list[AgentEvent]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is type:
                if act is None:
                    return
                act(stream)

    return reader
