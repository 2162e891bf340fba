"""The demonstration agent: what the server serves where nobody gave it an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from flowtrio._agents._agent import Agent
from flowtrio._agents._context import RunContext
from flowtrio._agents._tools import tool

if TYPE_CHECKING:
    from flowtrio.abc import LLMClient

INSTRUCTIONS = (
    "You help with travel. Look up flights and hotels with your tools, both at once where that "
    "helps, and book only when the user asked for it."
)

_PRICES = {"paris": 129, "rome": 142, "london": 99, "berlin": 118, "tokyo": 790}


@tool
async def search_flights(  # noqa: D417 - what is told to the model has no ctx
    ctx: RunContext, city: str, passengers: int = 1
) -> dict[str, object]:
    """Search for the cheapest flight to a city.

    Args:
      city: Where to fly.
      passengers: How many fly.

    """
    for found in range(1, 4):
        await trio.sleep(0.25)
        await ctx.progress({"airlines asked": found})
    price = _PRICES.get(city.casefold(), 240) * passengers
    return {"flight": f"FT{100 + price % 900}", "to": city, "departs": "09:40", "price": price}


@tool
async def search_hotels(city: str, nights: int = 2) -> list[dict[str, object]]:
    """Search for hotels in a city.

    Args:
      city: Where to stay.
      nights: How many nights.

    """
    await trio.sleep(0.5)
    price = _PRICES.get(city.casefold(), 240) // 2
    return [
        {"hotel": f"{name} {city}", "price": (price + extra) * nights}
        for name, extra in (("Hotel Central", 0), ("Grand Hotel", 60))
    ]


@tool(needs_approval=True)
async def book_trip(city: str, passengers: int = 1) -> dict[str, object]:
    """Book the flight and the hotel that were found. A person has to approve it.

    Args:
      city: Where to.
      passengers: How many travel.

    """
    await trio.sleep(0.3)
    return {"booked": True, "to": city, "passengers": passengers}


def demo_agent(client: LLMClient) -> Agent[str]:
    """Make the demonstration agent on any model."""
    return Agent(
        llm_client=client,
        tools=[search_flights, search_hotels, book_trip],
        instructions=INSTRUCTIONS,
        name="demo",
    )
