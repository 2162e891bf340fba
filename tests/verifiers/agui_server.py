"""A server of agents that play a part, for a client in another process; ends with its input.

Its two addresses differ in what becomes of a run whose client has gone: at the first it goes on,
at the second it is cancelled at once.
"""

from __future__ import annotations

import sys
from typing import Any

import trio

from flowtrio import Agent, Chunk, Orchestrator, RunContext, tool
from flowtrio.asgi import create_app
from flowtrio.protocols import AGUIProtocol
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import call, calls
from tests.support.worker import serving


@tool(needs_approval=True)
async def book(city: str) -> str:
    """Book a hotel."""
    return f"booked {city}"


@tool
async def paint(ctx: RunContext) -> str:
    """Paint it."""
    await ctx.progress("looking for colours")
    return f"painted {await ctx.ask('Which colour?')}"


def turns_for(message: str) -> list[Any]:
    """What the model says."""
    thinks = [Chunk(reasoning="Let me "), Chunk(reasoning="see. ")]
    match message:
        case "two":
            cities = [call("book", city=city) for city in ("Paris", "Rome")]
            return [[*thinks, "Two, ", "then. ", *cities], ["Booked ", "one."]]
        case "colour":
            return [["I ask. ", *calls("paint")], "Painted."]
        case "again":
            return [["Wrong. ", *thinks, Chunk(reset="lost"), "Right."]]
        case "where":
            return [["Where? ", *calls("where")], "There."]
        case _:
            return [["one ", *([0.01, "more "] * 2000)]]


async def answers(ctx: RunContext, message: str) -> str:
    """Do what the message says."""
    agent = Agent(llm_client=ScriptedModel(*turns_for(message)), tools=[book, paint])
    return str(await agent(ctx, message))


def front_end() -> Agent[Any]:
    """An agent that calls a tool of the front end."""
    return Agent(llm_client=ScriptedModel(*turns_for("where")), name="front")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        urls = []
        for window in (60, 0):
            agents = [answers, front_end()]
            orchestrator = Orchestrator(agents=agents, route=lambda message, ctx: "answers")
            protocol = AGUIProtocol(resume_window=window, client_tools=True)
            app = create_app(orchestrator, protocols=[protocol])
            urls.append(await nursery.start(_serve, app))
        print(*urls, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


async def _serve(app: Any, *, task_status: trio.TaskStatus[str]) -> None:
    async with serving(app) as url:
        task_status.started(url)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
