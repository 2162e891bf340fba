"""Each example runs as a user would run it, in a process of its own, with warnings as errors."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from flowtrio.testing import check_events
from tests.support.command import press_ctrl_c, without_haste

EXAMPLES = Path(__file__).parent.parent / "examples"

PROGRAMS = {
    "two_turns.py": ["[forecast {'city': 'Rome'}]", "The conversation has 8 messages."],
    "progress.py": ["{'bytes': 400000}", "ok: 400000 bytes"],
    "stop_button.py": ["cancelled: stop button", "{'partial': True}"],
    "custom_agent.py": ["root/visa agent_start", "{'booked': True}"],
    "property.py": [" charges, none of them too early"],
    "support_desk.py": [
        "may we refund? Yes.",
        "1 photo; ['20 euros come back.', 'Descale it.']",
        "cancelled: they hung up",
        "refunds: [20]",
        "cost: {'acme': '0.0020",
    ],
    "embedded.py": ["['a loom', 'punched cards']", "completed, ", "the database is closed"],
}
SERVERS = {"websocket_server.py", "tenants.py", "fastapi_app.py"}
APPLICATIONS = {"uvicorn_app.py", "django_app.py"}
"""Those that a server of its own serves; `tests/hosts/test_host_programs.py` runs them."""

COMMAND = [sys.executable, "-X", "dev", "-W", "error"]


def test_each_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*PROGRAMS, *SERVERS, *APPLICATIONS}


def test_each_example_stands_in_the_documents() -> None:
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text("utf-8")
    shown = re.findall(r"^```\{literalinclude\} \.\./examples/(\S+)$", page, re.MULTILINE)

    assert sorted(shown) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize(("name", "expected"), PROGRAMS.items())
def test_a_program_prints_something_worth_reading(name: str, expected: list[str]) -> None:
    done = subprocess.run(
        [*COMMAND, EXAMPLES / name], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, without_haste(done.stderr)) == (0, "")
    for text in expected:
        assert text in done.stdout


@contextmanager
def running(name: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run a server until the block ends, then as if somebody pressed Ctrl-C."""
    process = subprocess.Popen(
        [*COMMAND, EXAMPLES / name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        _wait_until_listening(port, process)
        yield process
        press_ctrl_c(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_ctrl_c_that_python_throws_away_is_pressed_again() -> None:
    program = """
import signal, time, weakref
class Thing: pass
thing = Thing()
# Raised in a weak reference's callback: told on standard error, and thrown away.
reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
del thing
print("ready", flush=True)
time.sleep(3600)
"""
    missed = subprocess.Popen(
        [*COMMAND[:1], "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert missed.stdout is not None
    assert missed.stdout.readline() == "ready\n"
    _, errors = press_ctrl_c(missed)

    assert errors.startswith("Exception ignored in")
    assert errors.rstrip().endswith("KeyboardInterrupt")


def _wait_until_listening(port: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError(f"the server ended: {process.communicate()[1]}")


async def _talk(url: str, text: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    async with websockets.connect(url) as websocket:
        await websocket.send(text)
        while not events or events[-1]["type"] != "done":
            frame = json.loads(await websocket.recv())
            if frame["type"] not in ("accepted", "rejected"):
                events.append(frame)
    return events


def talk(url: str, text: str) -> list[dict[str, Any]]:
    return asyncio.run(_talk(url, text))


def test_the_websocket_server_is_short_and_serves() -> None:
    assert len((EXAMPLES / "websocket_server.py").read_text().splitlines()) <= 40
    with running("websocket_server.py", 8765):
        events = talk("ws://127.0.0.1:8765/chat", "Museums in Paris?")

    check_events(events)
    starts = {e["data"]["tool_name"] for e in events if e["type"] == "tool_call_start"}
    assert starts == {"forecast", "count_museums"}


def test_each_tenant_brings_a_key() -> None:
    with running("tenants.py", 8766):
        events = talk("ws://127.0.0.1:8766/chat?key=alice-key", "A flight, please")
        with pytest.raises(websockets.InvalidStatus) as refused:
            talk("ws://127.0.0.1:8766/chat?key=eve", "hello")

    check_events(events)
    assert refused.value.response.status_code == 401


def test_fastapi_serves_both() -> None:
    with running("fastapi_app.py", 8767):
        events = talk("ws://127.0.0.1:8767/chat", "hello")
        response = httpx.get("http://127.0.0.1:8767/chat/stream", params={"message": "hello"})

    assert events[-1]["data"]["status"] == "completed"
    lines = [line for line in response.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert json.loads(lines[-1].removeprefix("data: "))["type"] == "done"
