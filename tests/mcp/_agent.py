"""An agent that is served over standard input and output."""

from __future__ import annotations

import trio

from flowtrio import Orchestrator, RunContext
from flowtrio.mcp import serve_mcp


async def parrot(ctx: RunContext, message: str) -> str:
    """Say it again."""
    await ctx.status("listening")
    return f"{message}!"


if __name__ == "__main__":
    trio.run(serve_mcp, Orchestrator(agents=[parrot]))
