"""The specification's examples, as they are written there, against a host on loopback."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import websockets
from websockets.sync.client import connect

from flowtrio import Agent, EventType, OpenAIClient, Orchestrator, StreamMode, tool
from tests.support.blocks import run_block
from tests.support.model_server import (
    Answer,
    ModelServer,
    calls,
    hangs,
    open_model_server,
    refuses,
    says,
)
from tests.support.web_examples import SSE, WEBSOCKET, served

QUICK_START = """
from flowtrio import StreamEngine, StreamMode, EventType

engine = StreamEngine(mode=StreamMode.INCREMENTAL)

async for event in engine.stream(agent, message):
    if event.type == EventType.MESSAGE_CHUNK:
        print(event.data["chunk"], end="", flush=True)
    elif event.type == EventType.STATE_CHANGE:
        print(f"\\n[State: {event.data['new_status']}]")
"""

HANDLING_EVENTS = """
from flowtrio import EventType

async for event in engine.stream(agent, message):
    match event.type:
        case EventType.MESSAGE_CHUNK:
            ui.append_text(event.data["chunk"])

        case EventType.STATE_CHANGE:
            ui.update_status(f"Status: {event.data['new_status']}")

        case EventType.TOOL_CALL_START:
            ui.show_spinner(f"Running {event.data['tool_name']}...")

        case EventType.TOOL_CALL_END:
            ui.hide_spinner()

        case EventType.ERROR:
            ui.show_error(event.data["error"])

        case EventType.DONE:
            ui.complete()
"""

ORCHESTRATOR = """
orchestrator = Orchestrator(llm_client=client)

async for event in orchestrator.process_stream(
    message="Book a flight to Paris",
    tenant_id="user_123"
):
    handle_event(event)
"""

CLIENT = """
from flowtrio import OpenAIClient

client = OpenAIClient(api_key="sk-xxx", model="gpt-4o-mini")

async for chunk in client.stream_completion(messages):
    print(chunk.content, end="", flush=True)
"""


@tool
async def lookup(city: str) -> str:
    """Look something up."""
    return f"sunny in {city}"


TWO_TURNS: tuple[Answer, ...] = (
    calls(("lookup", {"city": "Paris"}), ("lookup", {"city": "Rome"}), text="Let me see. "),
    says("Sunny", " in", " both."),
)


@asynccontextmanager
async def openai(
    monkeypatch: pytest.MonkeyPatch, *answers: Answer
) -> AsyncIterator[tuple[ModelServer, OpenAIClient]]:
    """A host on loopback that the environment names, and a client of it."""
    async with open_model_server(answers) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        async with OpenAIClient(api_key="sk-xxx", model="gpt-4o-mini") as client:
            yield server, client


class FakeUI:
    """Writes down what it is told to show."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *text: self.shown.append((name, *text))


def test_incremental_is_another_name_of_updates() -> None:
    assert StreamMode.INCREMENTAL is StreamMode.UPDATES


async def test_the_quick_start_prints_what_the_model_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with openai(monkeypatch, *TWO_TURNS) as (server, client):
        agent = Agent(llm_client=client, tools=[lookup])

        await run_block(QUICK_START, {"agent": agent, "message": "Paris or Rome?"})

    assert capsys.readouterr().out == (
        "\n[State: running]\nLet me see. Sunny in both.\n[State: completed]\n"
    )
    assert [m["role"] for m in server.exchanges[1].body["messages"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
    ]


async def test_every_type_of_event_can_be_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowtrio import StreamEngine

    ui = FakeUI()
    async with openai(monkeypatch, *TWO_TURNS) as (_, client):
        agent = Agent(llm_client=client, tools=[lookup])
        names = {"engine": StreamEngine(), "agent": agent, "message": "hi", "ui": ui}

        await run_block(HANDLING_EVENTS, names)

    # The two calls run side by side: one may end before the other starts.
    assert sorted(ui.shown[2:6]) == [
        ("hide_spinner",),
        ("hide_spinner",),
        ("show_spinner", "Running lookup..."),
        ("show_spinner", "Running lookup..."),
    ]
    assert ui.shown[:2] + ui.shown[6:] == [
        ("update_status", "Status: running"),
        ("append_text", "Let me see. "),
        ("append_text", "Sunny"),
        ("append_text", " in"),
        ("append_text", " both."),
        ("update_status", "Status: completed"),
        ("complete",),
    ]


async def test_errors_are_shown_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowtrio import StreamEngine

    ui = FakeUI()
    async with openai(monkeypatch, refuses(401)) as (_, client):
        agent = Agent(llm_client=client)
        names = {"engine": StreamEngine(), "agent": agent, "message": "hi", "ui": ui}

        await run_block(HANDLING_EVENTS, names)

    assert ui.shown[-3:] == [
        ("update_status", "Status: error"),
        (
            "show_error",
            "the model's host 127.0.0.1 answered 401, expected 200: no (model gpt-4o-mini). "
            "Check the key",
        ),
        ("complete",),
    ]


async def test_the_orchestrator_example(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    async with openai(monkeypatch, says("Booked.")) as (server, client):
        names = {"Orchestrator": Orchestrator, "client": client, "handle_event": events.append}

        await run_block(ORCHESTRATOR, names)

    assert [event.type for event in events] == [
        EventType.RUN_START,
        EventType.STATE_CHANGE,
        EventType.MESSAGE_CHUNK,
        EventType.MESSAGE_COMPLETE,
        EventType.STATE_CHANGE,
        EventType.DONE,
    ]
    assert events[-1].data["result"] == "Booked."
    [exchange] = server.exchanges
    assert exchange.body["messages"] == [{"role": "user", "content": "Book a flight to Paris"}]


async def test_the_client_example_reads_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_model_server([says("Hel", "lo")]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)

        await run_block(CLIENT, {"messages": [{"role": "user", "content": "hi"}]})

    assert capsys.readouterr().out == "Hello"
    [exchange] = server.exchanges
    assert exchange.path == "/v1/chat/completions"
    assert exchange.headers["authorization"] == "Bearer sk-xxx"
    assert exchange.body["model"] == "gpt-4o-mini"
    assert exchange.body["stream"] is True


# The web framework's examples, on Hypercorn's Trio worker, with clients of their own


async def test_the_websocket_example_answers_message_after_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def talk(url: str) -> list[list[dict[str, Any]]]:
        answers = []
        async with websockets.connect(url) as websocket:
            for message in ("Paris?", "Rome?"):
                await websocket.send(message)
                events: list[dict[str, Any]] = []
                while not events or events[-1]["type"] != "done":
                    events.append(json.loads(await websocket.recv()))
                answers.append(events)
        return answers

    async with openai(monkeypatch, *TWO_TURNS, *TWO_TURNS) as (_, client):
        agent = Agent(llm_client=client, tools=[lookup])
        async with served(WEBSOCKET, Orchestrator(agents=[agent])) as address:
            url = f"ws://{address}/chat"
            answers = await trio.to_thread.run_sync(lambda: asyncio.run(talk(url)))

    for events, message in zip(answers, ("Paris?", "Rome?"), strict=True):
        assert events[0]["data"]["message"] == message
        types = [event["type"] for event in events]
        assert types.count("tool_call_start") == types.count("tool_call_end") == 2
        text = "".join(e["data"]["chunk"] for e in events if e["type"] == "message_chunk")
        assert text == "Let me see. Sunny in both."
        assert events[-1]["data"]["status"] == "completed"


async def test_the_sse_example_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[float] = []
    events: list[dict[str, Any]] = []
    async with openai(monkeypatch, says("one", "two", "three", gap=0.05)) as (_, client):
        orchestrator = Orchestrator(llm_client=client)
        async with served(SSE, orchestrator) as address:
            url = f"http://{address}/chat/stream"
            async with (
                httpx.AsyncClient() as http,
                http.stream("GET", url, params={"message": "hi"}) as response,
            ):
                assert response.headers["content-type"].startswith("text/event-stream")
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        events.append(json.loads(line.removeprefix("data: ")))
                        arrived.append(trio.current_time())

    assert [e["data"]["chunk"] for e in events if e["type"] == "message_chunk"] == [
        "one",
        "two",
        "three",
    ]
    assert events[-1]["type"] == "done"
    assert arrived[-1] - arrived[0] >= 0.1, "the events came all at once"


async def test_a_client_of_the_sse_example_that_leaves_stops_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with openai(monkeypatch, hangs("one")) as (server, client):
        orchestrator = Orchestrator(llm_client=client)
        async with served(SSE, orchestrator) as address:
            url = f"http://{address}/chat/stream"
            with trio.CancelScope() as leaving:
                async with (
                    httpx.AsyncClient() as http,
                    http.stream("GET", url, params={"message": "hi"}) as response,
                ):
                    async for line in response.aiter_lines():
                        if "message_chunk" in line:
                            leaving.cancel()
            gone_at = trio.current_time()
            with trio.fail_after(20):
                while (left_at := server.exchanges[0].left_at) is None:
                    await trio.sleep(0.01)

    assert left_at - gone_at <= 1


PROGRAM = """
import json
from flowtrio import DemoClient, Orchestrator

orchestrator = Orchestrator(llm_client=DemoClient(delay=0))
"""


@contextmanager
def hypercorn(folder: Path, source: str) -> Iterator[str]:
    """Run an example by Hypercorn's own command; gives its address without a scheme."""
    (folder / "program.py").write_text(PROGRAM + source)
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-b", "127.0.0.1:0", "program:app"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"Running on http://(\S+)", line):
                yield found[1]
                break
        else:
            raise AssertionError("".join(said))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()


def test_the_websocket_example_runs_by_hypercorns_command(tmp_path: Path) -> None:
    with hypercorn(tmp_path, WEBSOCKET) as address, connect(f"ws://{address}/chat") as websocket:
        websocket.send("Paris?")
        events = [json.loads(websocket.recv(timeout=60))]
        while events[-1]["type"] != "done":
            events.append(json.loads(websocket.recv(timeout=60)))

    assert events[0]["data"]["message"] == "Paris?"
    assert events[-1]["data"]["status"] == "completed"


def test_the_sse_example_runs_by_hypercorns_command(tmp_path: Path) -> None:
    with hypercorn(tmp_path, SSE) as address:
        answer = httpx.get(f"http://{address}/chat/stream", params={"message": "hi"}, timeout=60)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]

    assert events[0]["data"]["message"] == "hi"
    assert events[-1]["data"]["status"] == "completed"
