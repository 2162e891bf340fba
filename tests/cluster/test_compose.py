"""The commands of the compose file, run without a container, at addresses of their own."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.serving.test_nginx import DEPLOY
from tests.support.command import FLOWTRIO, environment
from tests.support.ports import free_port
from tests.support.redis_server import find_redis

COMPOSE = (DEPLOY / "compose.yaml").read_text("utf-8")
TRIPS = """
from flowtrio import Agent, DemoClient

agent = Agent(llm_client=DemoClient(delay=0))
"""
TOKEN = "canary-token"


def command_of(service: str) -> list[str]:
    """The command of one of the services."""
    [found] = re.findall(rf"^  {service}:\n(?:    .*\n)*?    command: (\[.*\])$", COMPOSE, re.M)
    command: list[str] = json.loads(found)
    return command


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(20) == 0


def wait_for(address: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{address}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"nothing is ready at {address}"
        time.sleep(0.1)


def test_a_run_that_a_gateway_starts_is_run_by_a_worker(tmp_path: Path) -> None:
    (tmp_path / "trips.py").write_text(TRIPS)
    store, gateway, worker = free_port(), free_port(), free_port()
    program, *settings = command_of("store")
    assert program == "valkey-server"
    url = re.findall(r"FLOWTRIO_STORE: (\S+)", COMPOSE)[0].replace(
        "store:6379", f"127.0.0.1:{store}"
    )
    env = {**environment(), "FLOWTRIO_STORE": url, "FLOWTRIO_TOKEN": TOKEN}
    with ExitStack() as stack:
        begun = [
            find_redis(),
            *settings,
            "--port",
            str(store),
            "--save",
            "",
            "--loglevel",
            "warning",
        ]
        stack.enter_context(running(begun, cwd=tmp_path))
        for service, port in (("worker", worker), ("gateway", gateway)):
            name, *given = command_of(service)
            assert name == "flowtrio"
            given[given.index("--port") + 1] = str(port)
            given[given.index("--host") + 1] = "127.0.0.1"
            stack.enter_context(running([*FLOWTRIO, *given], cwd=tmp_path, env=env))
        for port in (worker, gateway):
            wait_for(f"http://127.0.0.1:{port}")
        with httpx.Client(base_url=f"http://127.0.0.1:{gateway}", timeout=60) as http:
            http.headers["authorization"] = f"Bearer {TOKEN}"
            body = {"message": "hello", "run_id": "r"}
            told = http.post("/chat/stream", json=body).text
            roles = [
                httpx.get(f"http://127.0.0.1:{port}/ready").json()["role"]
                for port in (gateway, worker)
            ]

    assert '"type":"done"' in told
    assert '"status":"completed"' in told
    assert roles == ["gateway", "worker"]
