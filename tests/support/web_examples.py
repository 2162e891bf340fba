"""The specification's examples of a web framework, as they are written there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from flowtrio import Orchestrator
from tests.support.blocks import run_block
from tests.support.worker import serving

WEBSOCKET = """
from fastapi import FastAPI, WebSocket

app = FastAPI()

@app.websocket("/chat")
async def chat(websocket: WebSocket):
    await websocket.accept()

    while True:
        message = await websocket.receive_text()

        async for event in orchestrator.process_stream(message):
            await websocket.send_json({
                "type": event.type.value,
                "data": event.data,
            })
"""

SSE = """
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()

@app.get("/chat/stream")
async def chat_stream(message: str):
    async def event_generator():
        async for event in orchestrator.process_stream(message):
            yield f"data: {json.dumps({'type': event.type.value, 'data': event.data})}\\n\\n"

    return StreamingResponse(
        event_generator(),
        media_type="text/event-stream"
    )
"""


async def run_example(source: str, orchestrator: Orchestrator) -> Any:
    """The application that an example makes, whose text is not touched."""
    names: dict[str, Any] = {"orchestrator": orchestrator, "json": json}
    await run_block(source, names)
    return names["app"]


@asynccontextmanager
async def served(source: str, orchestrator: Orchestrator) -> AsyncIterator[str]:
    """Serve an example on Hypercorn's trio worker; gives its address without a scheme."""
    async with serving(await run_example(source, orchestrator)) as url:
        yield url.removeprefix("http://")
