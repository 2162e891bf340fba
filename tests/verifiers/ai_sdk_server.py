"""A server of agents for the AI SDK's chats, for as long as its standard input is open."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import trio

from flowtrio import Agent, ClientTool, Orchestrator, RunContext, ToolCall, tool
from flowtrio.asgi import create_app
from flowtrio.protocols import AISDKProtocol
from flowtrio.testing import FunctionModel
from tests.support.worker import serving

GATES: defaultdict[str, trio.Event] = defaultdict(trio.Event)
"""What runs of `talks` wait for, by their ids."""


@tool(needs_approval=True)
async def book(city: str) -> str:
    """Book."""
    return f"booked {city}"


@tool
async def look() -> str:
    """Look."""
    return "sunny"


@tool
async def choose(ctx: RunContext) -> str:
    """Ask."""
    return await ctx.ask("Which colour?")


WHERE = ClientTool("where", "Where the user is.", {"type": "object"})


def asks_for(said: str, *calls: ToolCall, then: str, tools: list[Any], name: str) -> Agent[Any]:
    """An agent that says something and calls tools, and then says something else."""

    def answer(request: Any) -> Any:
        last = request.messages[-1]
        if last["role"] == "tool":
            return then.format(last["content"])
        return [said, *calls]

    return Agent(llm_client=FunctionModel(answer), tools=tools, name=name)


async def talks(ctx: RunContext, message: str) -> str:
    """Says one thing, and another one when it may."""
    async with ctx.message() as out:
        await out.write("one ")
        await GATES[ctx.run_id].wait()
        await out.write("two")
    return "one two"


AGENTS = [
    talks,
    asks_for(
        "Two. ",
        *(ToolCall(city, "book", {"city": city}) for city in ("Paris", "Rome")),
        then="One of two.",
        tools=[book],
        name="books",
    ),
    asks_for("", ToolCall("a", "choose", {}), then="It is {}.", tools=[choose], name="asks"),
    asks_for(
        "", ToolCall("a", "where", {}), then="You are in Rome.", tools=[WHERE], name="locates"
    ),
    asks_for(
        "Let me look. ", ToolCall("a", "look", {}), then="It is {}.", tools=[look], name="looks"
    ),
]


async def main() -> None:
    orchestrator = Orchestrator(agents=AGENTS, route=lambda message, context: "talks")
    app = create_app(orchestrator, protocols=[AISDKProtocol()])

    async def gated(scope: Any, receive: Any, send: Any) -> None:
        """The application, and ``POST /go/{run}``, which lets a run of `talks` go on."""
        path = str(scope.get("path", ""))
        if not path.startswith("/go/"):
            return await app(scope, receive, send)
        GATES[path.removeprefix("/go/")].set()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        return None

    async with serving(gated) as url:
        print(url, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    trio.run(main)
