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
    asked, questions = trio.open_memory_channel[str](16)

    async def answer() -> None:
        async for message in questions:
            async with orchestrator.process_stream(message) as stream:
                async for event in stream:
                    await websocket.send_json({"type": event.type.value, "data": event.data})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        # Read while it is written: who only sends is never told that the client has gone.
        async for message in websocket.iter_text():
            try:
                asked.send_nowait(message)
            except trio.WouldBlock:
                break  # it asks faster than it is answered
        nursery.cancel_scope.cancel()


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
