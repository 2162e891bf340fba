"""uvicorn in a process of its own: the specification's FastAPI examples, and how a server ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import websockets.sync.client

from flowtrio.testing import check_events
from tests.support.command import without_haste

CLIENTS = int(os.environ.get("FLOWTRIO_CLIENTS", "50"))
"""Clients of either kind at once."""

PATIENCE = 60
"""Seconds for an answer: of a program that is still starting too, since its socket is there."""

AGENT = """
import os
import trio

async def agent(ctx, message):
    async with ctx.message() as out:
        for word in message.split():
            await out.write(word + " ")
        if "wait" in message:
            try:
                await trio.sleep_forever()
            finally:
                os.write(1, b"run over\\n")
    return message
"""

SPECIFICATION = (
    AGENT
    + """
import json

from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from flowtrio import Orchestrator

orchestrator = Orchestrator(agents=[agent])

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
)

OURS = (
    AGENT
    + """
from flowtrio import Orchestrator, ServerLimits
from flowtrio.asgi import create_app

app = create_app(
    Orchestrator(agents=[agent]),
    insecure=True,
    resume_window=0,
    drain=0.2,
    limits=ServerLimits(connections=2000),
)
"""
)


class Server:
    """uvicorn, serving a program."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.socket = f"ws://127.0.0.1:{port}/chat"

    def wait_over(self) -> None:
        """Wait until the agent says that its run is over."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "run over\n"

    def stop(self) -> str:
        """Stop it, and give what it said besides."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode in (0, -signal.SIGTERM), err
        return out + without_haste(err)


def last_words(told: str) -> set[str]:
    """The exceptions of the tracebacks in a log; nothing else may warn of anything."""
    assert "Warning" not in told
    lines = told.splitlines()
    return {line.partition(":")[0] for line in lines if line[:1].islower() and "." in line}


@contextlib.contextmanager
def serving(tmp_path: Path, program: str, *options: str) -> Iterator[Server]:
    (tmp_path / "served.py").write_text(program)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(2048)
        port = listening.getsockname()[1]
        command = [
            *(sys.executable, "-X", "dev", "-m", "uvicorn", "served:app"),
            *("--fd", str(listening.fileno()), "--log-level", "warning"),
            *("--timeout-graceful-shutdown", "1", *options),
        ]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    with process:
        try:
            yield Server(process, port)
        finally:
            process.kill()


def ask(server: Server, params: dict[str, str]) -> AbstractContextManager[httpx.Response]:
    """Begin a run, whose events are the answer."""
    return httpx.stream("GET", f"{server.url}/chat/stream", params=params, timeout=PATIENCE)


def read_sse(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line[6:])


def begin(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Read up to a word, behind which the agent waits; gives what follows."""
    events = read_sse(response.iter_lines())
    while next(events)["type"] != "message_chunk":
        pass
    return events


# The specification's examples


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_examples_of_the_specification_run_as_they_stand(tmp_path: Path, loop: str) -> None:
    with serving(tmp_path, SPECIFICATION, "--loop", loop) as server:
        params = {"message": "Book a flight"}
        with ask(server, params) as response:
            events = list(read_sse(response.iter_lines()))
        assert [e["data"]["chunk"] for e in events if e["type"] == "message_chunk"] == [
            *("Book ", "a ", "flight ")
        ]
        assert events[-1]["type"] == "done"

        with websockets.sync.client.connect(server.socket, open_timeout=PATIENCE) as client:
            for _ in range(2):
                client.send("to Paris")
                while json.loads(client.recv(timeout=PATIENCE))["type"] != "done":
                    pass

        # The example does not catch that its client leaves.
        assert last_words(server.stop()) <= {"starlette.websockets.WebSocketDisconnect"}


def test_a_client_of_the_examples_that_leaves_cancels_its_run(tmp_path: Path) -> None:
    with serving(tmp_path, SPECIFICATION) as server:
        params = {"message": "wait"}
        with ask(server, params) as response:
            begin(response)
        server.wait_over()
        assert server.stop() == ""


# Our application


def test_a_run_that_goes_on_is_ended_in_good_order_when_the_server_stops(tmp_path: Path) -> None:
    with serving(tmp_path, OURS) as server:
        params = {"message": "wait", "run_id": "r1"}
        with ask(server, params) as response:
            events = begin(response)
            server.process.send_signal(signal.SIGTERM)
            server.wait_over()
            with contextlib.suppress(httpx.RemoteProtocolError):
                list(events)
        out, err = server.process.communicate(timeout=PATIENCE)

        assert out == ""
        # uvicorn waits for a second, cancels the connection, logs that, and ends our life.
        assert "timeout graceful shutdown exceeded" in err
        assert last_words(err) == {"asyncio.exceptions.CancelledError"}


async def test_many_clients_of_both_kinds_are_served_at_once(tmp_path: Path) -> None:
    logs: list[list[dict[str, Any]]] = []
    line = trio.CapacityLimiter(2 * CLIENTS)

    def by_sse(number: int) -> None:
        params = {"message": f"hello {number}"}
        url = f"{server.url}/chat/stream"
        with httpx.stream("GET", url, params=params, timeout=PATIENCE) as response:
            logs.append(list(read_sse(response.iter_lines())))

    def by_websocket(number: int) -> None:
        events: list[dict[str, Any]] = []
        with websockets.sync.client.connect(server.socket, open_timeout=PATIENCE) as client:
            client.send(f"hello {number}")
            while not events or events[-1]["type"] != "done":
                frame = json.loads(client.recv(timeout=PATIENCE))
                if "seq" in frame:
                    events.append(frame)
        logs.append(events)

    with serving(tmp_path, OURS) as server:
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                for read in (by_sse, by_websocket):
                    nursery.start_soon(
                        lambda *args: trio.to_thread.run_sync(*args, limiter=line), read, number
                    )
        assert await trio.to_thread.run_sync(server.stop) == ""

    assert len(logs) == 2 * CLIENTS
    for log in logs:
        check_events(log)
