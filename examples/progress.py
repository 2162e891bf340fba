"""A tool that reports while it runs, with a client that belongs to the application.

python examples/progress.py
"""

from contextlib import aclosing

import httpx
import trio

from flowtrio import Agent, DemoClient, EventType, RunContext, StreamEngine, tool

SIZE = 400_000


@tool(timeout=20)
async def download(ctx: RunContext, name: str) -> int:
    """Download a file; gives its size in bytes."""
    size = 0
    async with ctx.app["http"].stream("GET", ctx.app["base_url"] + name) as response:
        async with aclosing(response.aiter_bytes(100_000)) as blocks:
            async for block in blocks:
                size += len(block)
                await ctx.progress({"bytes": size})
    return size


async def serve_file(stream: trio.SocketStream) -> None:
    """A web server that knows one file."""
    await stream.receive_some()
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\nconnection: close\r\n\r\n"
    await stream.send_all(head.encode() + bytes(SIZE))
    await stream.aclose()


async def main() -> None:
    async with trio.open_nursery() as nursery, httpx.AsyncClient() as http:
        listeners = await nursery.start(trio.serve_tcp, serve_file, 0)
        port = listeners[0].socket.getsockname()[1]
        app = {"http": http, "base_url": f"http://127.0.0.1:{port}/"}

        agent = Agent(llm_client=DemoClient(delay=0), tools=[download])
        async with StreamEngine().stream(agent, "Get the notes from archive", app=app) as stream:
            async for event in stream:
                if event.type is EventType.TOOL_PROGRESS:
                    print(event.data["progress"])
                elif event.type is EventType.TOOL_CALL_END:
                    print(f"{event.data['outcome']}: {event.data['result']} bytes")
        nursery.cancel_scope.cancel()


trio.run(main)
