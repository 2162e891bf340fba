"""A WebSocket server for an agent with two tools.

    python examples/websocket_server.py

Connect any WebSocket client to the address it prints and send a text. The model is the built-in
demonstration; OpenAIClient(model="gpt-4o-mini") in its place is a real one.
"""

import logging
from functools import partial

import trio

from flowtrio import Agent, DemoClient, Orchestrator, RunContext, serve_websocket, tool


@tool
async def forecast(city: str) -> str:
    """Weather forecast for a city."""
    return f"{city}: sunny"


@tool(timeout=20)
async def count_museums(ctx: RunContext, city: str) -> int:
    """Count a city's museums."""
    await ctx.progress({"asked": city})
    return 10 * len(city)


async def main() -> None:
    agent = Agent(llm_client=DemoClient(), tools=[forecast, count_museums])
    orchestrator = Orchestrator(agents=[agent], on_busy="cancel")
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_websocket, orchestrator, "127.0.0.1", 8765))
        print("ws://127.0.0.1:8765/chat", flush=True)


logging.basicConfig(level=logging.INFO)
trio.run(main)
