"""A server of several tenants: who may connect, whose conversation it is, how much each may run.

    python examples/tenants.py

Connect with ``ws://127.0.0.1:8766/chat?key=alice-key``.
"""

from functools import partial

import trio

from flowtrio import Agent, DemoClient, Orchestrator, serve_websocket
from flowtrio.abc import Request

KEYS = {"alice-key": "alice", "bob-key": "bob"}


async def who(request: Request) -> str | None:
    """Give the tenant, or None for 401. A real one would look into a database."""
    return KEYS.get(request.query.get("key", ""))


async def main() -> None:
    flights = Agent(llm_client=DemoClient(), name="flights", instructions="You find flights.")
    hotels = Agent(llm_client=DemoClient(), name="hotels", instructions="You find hotels.")
    async with Orchestrator(
        llm_client=DemoClient(), agents=[flights, hotels], runs_per_tenant=4, on_busy="cancel"
    ) as orchestrator:
        async with trio.open_nursery() as nursery:
            serve = partial(serve_websocket, orchestrator, "127.0.0.1", 8766, authenticate=who)
            await nursery.start(serve)
            print("ws://127.0.0.1:8766/chat?key=alice-key", flush=True)


trio.run(main)
