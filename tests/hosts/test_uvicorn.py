"""Applications under uvicorn, which is asyncio's: our own, and FastAPI's with our streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
import uvicorn
import websockets
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from flowtrio import DemoClient, EventType, Orchestrator, RunContext
from flowtrio._run import _thread
from flowtrio.asgi import create_app
from flowtrio.testing import check_events


class Agents:
    """Agents that note what becomes of them."""

    def __init__(self) -> None:
        self.alive = 0

    async def writes(self, ctx: RunContext, message: str) -> str:
        """Say the message, a letter at a time."""
        async with ctx.message() as out:
            for letter in message:
                await out.write(letter)
        return message

    async def waits(self, ctx: RunContext, message: str) -> None:
        """Say a word and wait."""
        self.alive += 1
        try:
            async with ctx.message() as out:
                await out.write("x")
                await trio.sleep_forever()
        finally:
            self.alive -= 1


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve it for the block; gives its address."""
    config = uvicorn.Config(
        app, port=0, log_level="warning", timeout_graceful_shutdown=1, lifespan="on"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    async with asyncio.timeout(60):
        while not server.started:
            await asyncio.sleep(0.005)
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 60)


def asking() -> httpx.AsyncClient:
    """A client with patience."""
    return httpx.AsyncClient(timeout=60)


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 120))

    assert not any(job for thread in _thread._shared for job in thread.jobs)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def app_of(agent: Any, **options: Any) -> Any:
    return create_app(Orchestrator(agents=[agent]), insecure=True, **options)


async def sse(client: httpx.AsyncClient, address: str, **keys: Any) -> list[dict[str, Any]]:
    async with client.stream("GET", address, **keys) as response:
        assert response.status_code == 200
        return [
            json.loads(line[6:]) async for line in response.aiter_lines() if line[:6] == "data: "
        ]


def test_a_run_is_streamed_and_read_again_from_any_place() -> None:
    async def main() -> None:
        async with serving(app_of(Agents().writes)) as address, asking() as client:
            url = f"http://{address}/chat/stream"
            events = await sse(client, url, params={"message": "hello", "run_id": "r1"})
            check_events(events)
            again = await sse(client, f"http://{address}/runs/r1/events", params={"after": 2})
            assert again == events[3:]
            assert (await client.get(f"http://{address}/ready")).status_code == 200

    run(main)


def test_a_run_is_cancelled_by_a_request() -> None:
    agents = Agents()

    async def main() -> None:
        async with serving(app_of(agents.waits)) as address, asking() as client:
            url = f"http://{address}"
            reading = asyncio.create_task(
                sse(client, f"{url}/chat/stream", params={"message": "hi", "run_id": "r1"})
            )
            await until(lambda: agents.alive == 1)
            answer = await client.post(f"{url}/runs/r1/cancel", json={})
            assert answer.status_code == 200
            assert (await reading)[-1]["data"]["status"] == "cancelled"

    run(main)


def test_a_websocket_has_a_run_and_its_controls() -> None:
    async def main() -> None:
        async with (
            serving(app_of(Agents().writes)) as address,
            websockets.connect(f"ws://{address}/chat") as socket,
        ):
            await socket.send("hello")
            events = []
            while not events or events[-1]["type"] != "done":
                frame = json.loads(await socket.recv())
                if "seq" in frame:
                    events.append(frame)
            check_events(events)

    run(main)


def test_a_client_that_goes_takes_its_run_with_it() -> None:
    agents = Agents()

    async def main() -> None:
        app = app_of(agents.waits, resume_window=0)
        async with serving(app) as address, asking() as client:
            url = f"http://{address}/chat/stream"
            async with client.stream("GET", url, params={"message": "hi"}) as response:
                await anext(response.aiter_lines())
                await until(lambda: agents.alive == 1)
            await until(lambda: agents.alive == 0)

    run(main)


def test_many_clients_are_served_at_once() -> None:
    async def main() -> None:
        async with serving(app_of(Agents().writes)) as address, asking() as client:
            url = f"http://{address}/chat/stream"
            logs = await asyncio.gather(
                *(sse(client, url, params={"message": "m" * n}) for n in range(1, 51))
            )
            for log in logs:
                check_events(log)

    run(main)


def test_runs_end_when_the_server_stops() -> None:
    agents = Agents()

    async def main() -> None:
        app = app_of(agents.waits, drain=0.1)
        async with serving(app) as address, asking() as client:
            async with client.stream(
                "GET", f"http://{address}/chat/stream", params={"message": "hi"}
            ) as response:
                await anext(response.aiter_lines())
                await until(lambda: agents.alive == 1)
        assert agents.alive == 0

    run(main)


def test_it_is_mounted_with_its_life_in_the_frameworks() -> None:
    orchestrator = Orchestrator(agents=[Agents().writes])
    inner = create_app(orchestrator, insecure=True)
    outer = FastAPI(lifespan=inner.lifespan)
    outer.mount("/agents", inner)

    async def main() -> None:
        async with serving(outer) as address, asking() as client:
            assert orchestrator.is_open
            url = f"http://{address}/agents/chat/stream"
            check_events(await sse(client, url, params={"message": "hello"}))
        assert not orchestrator.is_open

    run(main)


def test_it_is_opened_by_the_first_request_where_nobody_runs_its_life() -> None:
    outer = FastAPI()
    outer.mount("/agents", app_of(Agents().writes))

    async def main() -> None:
        async with serving(outer) as address, asking() as client:
            url = f"http://{address}/agents/chat/stream"
            check_events(await sse(client, url, params={"message": "hello"}))

    run(main)


# FastAPI with streams of ours


def fastapi_app(orchestrator: Orchestrator) -> FastAPI:
    """The application of the streaming guide."""
    app = FastAPI()

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()

        while True:
            message = await websocket.receive_text()

            async for event in orchestrator.process_stream(message):
                await websocket.send_json(
                    {
                        "type": event.type.value,
                        "data": event.data,
                    }
                )

    @app.get("/chat/stream")
    async def chat_stream(message: str) -> Any:
        async def event_generator() -> AsyncIterator[str]:
            async for event in orchestrator.process_stream(message):
                data = json.dumps({"type": event.type.value, "data": event.data})
                yield f"data: {data}\n\n"

        return StreamingResponse(event_generator(), media_type="text/event-stream")

    return app


def test_fastapi_streams_events_to_sse_and_websocket_clients() -> None:
    async def main() -> None:
        app = fastapi_app(Orchestrator(llm_client=DemoClient(delay=0)))
        async with serving(app) as address, asking() as client:
            events = await sse(client, f"http://{address}/chat/stream", params={"message": "hi"})
            assert events[0]["type"] == EventType.RUN_START
            assert events[-1]["data"]["status"] == "completed"
            async with websockets.connect(f"ws://{address}/chat") as socket:
                for _ in range(2):
                    await socket.send("hello")
                    while json.loads(await socket.recv())["type"] != "done":
                        pass

    run(main)


def test_a_client_of_fastapi_that_goes_ends_its_run() -> None:
    agents = Agents()

    async def main() -> None:
        app = fastapi_app(Orchestrator(agents=[agents.waits]))
        async with serving(app) as address, asking() as client:
            url = f"http://{address}/chat/stream"
            async with client.stream("GET", url, params={"message": "hi"}) as response:
                await anext(response.aiter_lines())
                await until(lambda: agents.alive == 1)
            await until(lambda: agents.alive == 0)

    run(main)


def test_a_scope_that_is_none_is_refused_here_too() -> None:
    async def main() -> None:
        app = app_of(Agents().writes)
        with pytest.raises(RuntimeError, match="expected http, websocket or lifespan"):
            await app({"type": "other"}, None, None)

    run(main)
