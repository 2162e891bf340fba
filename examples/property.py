"""A property of an agent, tried on many schedules and readers: a run is not one order of events.

    python examples/property.py

With pytest, the decorated function is a test as it stands.
"""

import trio
from hypothesis import given, settings

from flowtrio import RunContext, tool
from flowtrio.testing import Reader, Schedule, check_events, readers, schedules, simulate


@tool
async def check_stock(item: str) -> int:
    """How many are left."""
    await trio.sleep(0.1)
    return 3


@tool
async def charge(cents: int) -> None:
    """Charge the customer."""
    await trio.sleep(0.2)


async def shop(ctx: RunContext, message: str) -> str:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ctx.status, "looking")
        stock = await ctx.call(check_stock, item=message)
    if not stock:
        return "sold out"
    await ctx.call(charge, cents=250)
    return "sold"


tried = charged = 0


@settings(max_examples=50, deadline=None, database=None)
@given(reader=readers(), schedule=schedules())
def test_it_never_charges_before_the_stock_is_known(reader: Reader, schedule: Schedule) -> None:
    global tried, charged
    run = simulate(shop, "a loom", reader=reader, schedule=schedule)
    check_events(run.events)
    for call in run.calls("charge"):
        assert any(s.ended_ok_before(call) for s in run.calls("check_stock")), run.timeline()
        charged += 1
    tried += 1


if __name__ == "__main__":
    test_it_never_charges_before_the_stock_is_known()
    print(f"{tried} runs, {charged} charges, none of them too early")
