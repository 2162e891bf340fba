"""An agent of your own: any async function, with Trio's nurseries inside it.

python examples/custom_agent.py
"""

from typing import Any

import trio

from flowtrio import Agent, DemoClient, EventType, RunContext, StreamEngine, tool


@tool
async def search_flights(city: str) -> dict[str, Any]:
    """Search for a flight."""
    await trio.sleep(0.2)
    return {"to": city, "price": 129}


@tool
async def search_hotels(city: str) -> list[str]:
    """Search for hotels."""
    await trio.sleep(0.3)
    return [f"Hotel Central {city}"]


visa_agent = Agent(llm_client=DemoClient(delay=0), name="visa")


async def plan_trip(ctx: RunContext, message: str) -> dict[str, bool]:
    await ctx.status("searching")
    found: dict[str, Any] = {}

    async def look(name: str, fn: Any) -> None:
        found[name] = await ctx.call(fn, city=message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look, "flights", search_flights)
        nursery.start_soon(look, "hotels", search_hotels)
    if not await ctx.approve("book", {"price": found["flights"]["price"]}):
        return {"booked": False}
    advice = await ctx.delegate(visa_agent, message)
    async with ctx.message() as out:
        await out.write(f"Booked a flight and {found['hotels'][0]}. ")
        await out.write(advice)
    return {"booked": True}


async def main() -> None:
    async with StreamEngine().stream(plan_trip, "Paris") as stream:
        async for event in stream:
            if event.type is not EventType.MESSAGE_CHUNK:
                print(f"{event.seq:3} {event.agent:9} {event.type}")
            if event.type is EventType.APPROVAL_REQUIRED:
                stream.approve(event.data["call_id"])
        print(await stream.result())


trio.run(main)
