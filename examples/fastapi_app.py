"""FastAPI on Hypercorn's Trio worker: a WebSocket and server-sent events.

    python examples/fastapi_app.py

Try ``curl -N 'http://127.0.0.1:8767/chat/stream?message=hello'``.
"""

import json
from collections.abc import AsyncIterator

import hypercorn
import hypercorn.trio
import trio
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from flowtrio import DemoClient, Orchestrator

app = FastAPI()
orchestrator = Orchestrator(llm_client=DemoClient())


@app.websocket("/chat")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket.iter_text():
        async for event in orchestrator.process_stream(message):
            await websocket.send_json({"type": event.type.value, "data": event.data})


@app.get("/chat/stream")
async def chat_stream(message: str) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        async for event in orchestrator.process_stream(message):
            yield f"data: {json.dumps({'type': event.type.value, 'data': event.data})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


if __name__ == "__main__":
    config = hypercorn.Config()
    config.bind = ["127.0.0.1:8767"]
    trio.run(hypercorn.trio.serve, app, config)  # type: ignore[arg-type]
