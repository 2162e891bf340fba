"""Makes a golden file: what this version keeps in SQLite, as SQL.

Run once for each version of the logs, before it is changed, and kept for ever::

    python -m tests.stores.golden.make > tests/stores/golden/schema-N.sql
"""

from __future__ import annotations

import re
import sqlite3
import sys
import tempfile
from pathlib import Path

import trio

from flowtrio import (
    Agent,
    Orchestrator,
    RunContext,
    SQLiteConversations,
    SQLiteStore,
    ToolCall,
    tool,
)
from flowtrio.testing import ScriptedModel


@tool
async def look(ctx: RunContext, city: str) -> dict[str, object]:
    """Look out of the window."""
    await ctx.progress({"seen": 1})
    return {"city": city, "sun": True, "degrees": 21.5}


@tool(needs_approval=True)
async def book(city: str) -> str:
    """Book a place."""
    return f"booked {city}"


async def nested(ctx: RunContext, message: str) -> str:
    """Answer, and say so."""
    async with ctx.message() as out:
        await out.write("nested ")
        await out.write("wörds")
    return "ok"


async def travels(ctx: RunContext, message: str) -> str:
    """Do all that opens something, and what the message says."""
    await ctx.status("off")
    await ctx.custom("note", {"a": [1, None, "ä"]})
    await ctx.delegate(nested, message)
    if message == "fail":
        raise RuntimeError("no way")
    calls = [ToolCall("c1", "look", {"city": "Rom"}), ToolCall("c2", "book", {"city": "Rom"})]
    model = ScriptedModel(["thinking ", *calls], ["all ", "done"])
    if message == "cut":
        async with ctx.message() as out:
            await out.write("half a ")
            return str(await ctx.ask("who?"))
    return str(await Agent(llm_client=model, tools=[look, book], name="b")(ctx, message))


async def main(path: Path) -> None:
    """Have one run end in each way, and leave two that have not ended."""
    async with (
        SQLiteStore(path) as store,
        SQLiteConversations(path) as conversations,
        Orchestrator(agents=[travels], store=store, conversations=conversations) as orchestrator,
    ):
        for message in ("go", "fail", "cancel"):
            await orchestrator.start(message, session_id="ended", run_id=message)
            async with orchestrator.attach(message) as stream:
                async for event in stream:
                    if event.type == "approval_required":
                        if message == "go":
                            stream.approve(event.data["call_id"])
                        else:
                            stream.cancel("enough")
        for message in ("cut", "waits"):
            await orchestrator.start(message, session_id="cut", run_id=message)
        async with orchestrator.attach("cut") as stream:
            async for event in stream:
                if event.type == "input_required":
                    break
        await trio.sleep(0.2)
        with sqlite3.connect(path) as connection:
            sys.stdout.writelines(f"{_readable(line)}\n" for line in connection.iterdump())
            [version] = connection.execute("PRAGMA user_version").fetchone()
            print(f"PRAGMA user_version = {version};")
        connection.close()


def _readable(line: str) -> str:
    """A line of SQL with JSON in the place of bytes."""
    return re.sub("X'([0-9A-F]*)'", _as_text, line)


def _as_text(found: re.Match[str]) -> str:
    text = bytes.fromhex(found[1]).decode().replace("'", "''")
    return f"CAST('{text}' AS BLOB)"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        trio.run(main, Path(place) / "runs.db")
