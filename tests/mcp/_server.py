"""A server of the official SDK with a tool for each thing that a server may do."""

from __future__ import annotations

import base64
import os
from typing import Annotated

import anyio
from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from pydantic import BaseModel

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Seat(BaseModel):
    """What a traveller is asked for."""

    row: int
    window: bool = False


async def which_seat(ctx: Context) -> Elicit[Seat]:
    return Elicit("Which seat?", Seat)


def note(diary: str, word: str) -> None:
    with open(diary, "a", encoding="utf-8") as file:
        print(word, file=file)


def make() -> MCPServer:
    """The server."""
    server = MCPServer("bench")

    @server.tool()
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool(name="greet.person")
    async def greet(name: str) -> str:
        """Greet somebody."""
        return f"Hello, {name}"

    @server.tool()
    async def steps(ctx: Context, name: str, count: int = 3) -> str:
        """Report each step."""
        for step in range(count):
            await ctx.report_progress(step + 1, count, f"{name} {step + 1}")
            await anyio.sleep(0.01)
        return name

    @server.tool()
    async def sleep(diary: str) -> str:
        """Take long, and write down what becomes of it."""
        note(diary, "began")
        try:
            await anyio.sleep(60)
        except BaseException:
            note(diary, "cancelled")
            raise
        return "slept"

    @server.tool()
    async def fail() -> str:
        """Fail."""
        raise ValueError("planted")

    @server.tool()
    async def look() -> CallToolResult:
        """Give one of each kind of content."""
        image = base64.b64encode(PNG).decode()
        sound = base64.b64encode(b"RIFFxxxxWAVE").decode()
        return CallToolResult(
            content=[
                TextContent(text="see"),
                ImageContent(data=image, mime_type="image/png"),
                AudioContent(data=sound, mime_type="audio/wav"),
                ResourceLink(uri="note://1", name="note", description="A note"),
                EmbeddedResource(resource=TextResourceContents(uri="note://2", text="inside")),
                EmbeddedResource(
                    resource=BlobResourceContents(
                        uri="file:///a/b.pdf",
                        mime_type="application/pdf",
                        blob=base64.b64encode(b"%PDF-1.4 x").decode(),
                    )
                ),
            ]
        )

    @server.tool()
    async def book(seat: Annotated[ElicitationResult[Seat], Resolve(which_seat)]) -> str:
        """Ask the traveller for a seat, in the way of the protocol's version."""
        if seat.action != "accept":
            return seat.action
        return f"row {seat.data.row}"

    @server.tool()
    async def grow(ctx: Context) -> str:
        """Add a tool."""
        server.add_tool(lambda: "grown", name="grown", description="Was not there before.")
        await ctx.notify_tools_changed()
        return "ok"

    @server.tool()
    async def die() -> str:
        """End the whole process."""
        os._exit(3)

    return server


if __name__ == "__main__":
    make().run("stdio")
