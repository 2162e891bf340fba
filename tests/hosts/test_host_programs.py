"""The programs for other hosts, each served by uvicorn in a process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import websockets.sync.client

from flowtrio import Agent, DemoClient, EventType, StreamEngine, sync
from flowtrio.testing import check_events
from tests.hosts.test_uvicorn_process import PATIENCE, serving

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = 'You said: "hello"'


def test_fastapi_streams_and_has_our_application_beside(tmp_path: Path) -> None:
    program = (EXAMPLES / "uvicorn_app.py").read_text()
    with serving(tmp_path, program) as server:
        said = httpx.get(f"{server.url}/ask", params={"message": "hello"}, timeout=PATIENCE)
        page = httpx.get(f"{server.url}/agents/", timeout=PATIENCE)
        ready = httpx.get(f"{server.url}/agents/ready", timeout=PATIENCE)
        with websockets.sync.client.connect(f"{server.socket[:-5]}/agents/chat") as client:
            client.send("hello")
            while '"done"' not in client.recv(timeout=PATIENCE):
                pass
        with httpx.stream("GET", f"{server.url}/ask?message=hello", timeout=PATIENCE) as left:
            next(left.iter_bytes())
        assert server.stop() == ""

    assert said.text.startswith(SAID)
    assert page.status_code == 200
    assert ready.json() == {"status": "ready"}


def test_django_streams_and_answers(tmp_path: Path) -> None:
    program = (EXAMPLES / "django_app.py").read_text()
    with serving(tmp_path, program, "--lifespan", "off") as server:
        said = httpx.get(f"{server.url}/ask", params={"message": "hello"}, timeout=PATIENCE)
        answered = httpx.get(f"{server.url}/answer", params={"message": "hello"}, timeout=PATIENCE)
        refused = httpx.get(f"{server.url}/other", timeout=PATIENCE)
        told = server.stop()

    assert said.text.startswith(SAID)
    assert answered.json()["result"].startswith(SAID)
    assert refused.status_code == 404
    assert told == ""


def test_a_notebook_has_a_loop_that_runs_and_reads_in_plain_code_beside_it() -> None:
    """A cell is called by a running loop; a cell that awaits is a task of it."""
    engine, agent = StreamEngine(), Agent(llm_client=DemoClient(delay=0))

    def plain_cell() -> str:
        with sync.stream(engine, agent, "hello") as events:
            log = list(events)
        check_events(log)
        return "".join(e.data["chunk"] for e in log if e.type is EventType.MESSAGE_CHUNK)

    async def cell_that_awaits() -> str:
        said = ""
        async for event in engine.stream(agent, "hello"):
            if event.type is EventType.MESSAGE_CHUNK:
                said += event.data["chunk"]
        return said

    async def kernel() -> list[str]:
        return [plain_cell(), await cell_that_awaits(), plain_cell()]

    said = asyncio.run(kernel())

    assert len(set(said)) == 1
    assert said[0].startswith(SAID)
