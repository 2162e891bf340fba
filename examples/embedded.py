"""An agent inside an application that has its own nursery, database and shutdown.

python examples/embedded.py
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from flowtrio import Agent, DemoClient, EventType, RunContext, StreamEngine, tool


class Database:
    """The application's own client; SQLite in a thread of its own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._limiter = trio.CapacityLimiter(1)

    async def fetch(self, query: str, *values: object) -> list[tuple[object, ...]]:
        def work() -> list[tuple[object, ...]]:
            return self._connection.execute(query, values).fetchall()

        return await trio.to_thread.run_sync(work, limiter=self._limiter)


@asynccontextmanager
async def open_database() -> AsyncIterator[Database]:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.execute("create table orders (customer text, item text)")
    connection.executemany(
        "insert into orders values (?, ?)", [("Ada", "a loom"), ("Ada", "punched cards")]
    )
    try:
        yield Database(connection)
    finally:
        connection.close()
        print("the database is closed")


@tool
async def orders_of(ctx: RunContext, customer: str) -> list[str]:
    """The items that a customer has ordered."""
    found = await ctx.app.fetch("select item from orders where customer = ?", customer)
    return [str(item) for (item,) in found]


async def answer_tickets(engine: StreamEngine, database: Database) -> None:
    """One of the application's services: a run for each ticket."""
    agent = Agent(llm_client=DemoClient(delay=0.001), tools=[orders_of])
    for ticket in ["What was ordered by Ada", "Tell me more on what was sent to Ada"]:
        async with engine.stream(agent, ticket, app=database) as stream:
            async for event in stream:
                if event.type is EventType.TOOL_CALL_END:
                    print(f"{ticket!r}: {event.data['result']}")
            print(f"  {stream.status}, {stream.statistics().events} events")


async def heartbeat() -> None:
    """Another service, which goes on beside it."""
    while True:
        await trio.sleep(0.05)


async def main() -> None:
    # Leaving the engine joins its runs, so the database outlives all that uses it.
    async with open_database() as database, StreamEngine() as engine:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heartbeat)
            await answer_tickets(engine, database)
            nursery.cancel_scope.cancel()


trio.run(main)
