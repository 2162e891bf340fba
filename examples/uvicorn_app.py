"""FastAPI on uvicorn, which is asyncio's: a route that streams, and all of flowtrio's beside it.

    uvicorn examples.uvicorn_app:app --timeout-graceful-shutdown 10

Then the page is at ``/agents/``; try ``curl -N 'http://127.0.0.1:8000/ask?message=hello'`` too.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from flowtrio import DemoClient, EventType, Orchestrator
from flowtrio.asgi import create_app

orchestrator = Orchestrator(llm_client=DemoClient())
agents = create_app(orchestrator, drain=5)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # A framework does not tell what it mounts when it begins and ends.
    async with agents.lifespan():
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/agents", agents)


@app.get("/ask")
async def ask(message: str) -> StreamingResponse:
    async def text() -> AsyncIterator[str]:
        async for event in orchestrator.process_stream(message):
            match event.type:
                case EventType.MESSAGE_CHUNK:
                    yield event.data["chunk"]
                case EventType.ERROR:
                    yield f"\n[{event.data['code']}]"

    # A client that leaves ends the generator, and with it the run.
    return StreamingResponse(text(), media_type="text/plain")
