"""The guide to serving: its table is the application's, and its WebSocket notices who leaves."""

from __future__ import annotations

import argparse
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from websockets.sync.client import connect

from flowtrio import DemoClient, Orchestrator
from flowtrio.asgi import create_app
from flowtrio.cli._options import add_serve
from flowtrio.serving.http import asgi
from flowtrio.wire._frames import CONTROLS
from tests.docs.test_guides import guide, names, rows
from tests.support.blocks import marked_block
from tests.support.command import serving
from tests.support.leaving import Endless, check_ends_within_a_second
from tests.support.web_examples import WEBSOCKET, run_example
from tests.support.worker import serving as serving_app

PROJECT = Path(__file__).parents[2]

METHODS = ("GET", "POST", "DELETE")


def table(text: str) -> set[tuple[str, str]]:
    """What the guide says is there, each control with its own address."""
    found = set()
    for method, address, what in rows(text, "method")[1:]:
        [path], [verb] = names(address), names(method)
        found.add((verb, path))
        if path.endswith("/cancel"):
            found |= {(verb, f"/runs/{{id}}/{name}") for name in names(what)}
    return found


async def ask(method: str, address: str) -> tuple[int, str]:
    """Status and body of the application's answer, without a server."""
    app = create_app(Orchestrator(llm_client=DemoClient()), operator_token="op")
    path, sent = address.replace("{id}", "x").replace("{n}", "0"), list[Any]()
    scope = {"type": "http", "method": method, "path": path, "scheme": "http", "server": None}
    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer op")]
    scope |= {"headers": headers, "client": ("127.0.0.1", 1)}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"].decode()


async def test_each_row_of_the_table_is_there_and_no_other_method_is() -> None:
    told = table(guide("serving"))
    for address in {address for _, address in told}:
        for method in METHODS:
            if ("WS", address) in told:
                continue
            status, body = await ask(method, address)
            is_there = status != 405 and "http_404" not in body

            assert is_there == ((method, address) in told), (method, address, status, body)


def test_the_table_has_each_address_that_the_application_tells_of() -> None:
    described = set()
    for line in (asgi.__doc__ or "").splitlines():
        if found := re.match(r"    (GET, PATCH, DELETE|GET|POST|WS) +(/.*)$", line):
            paths = re.findall(r"/[^ ?]*", found[2].split("  ")[0])
            described |= {(verb, path) for verb in found[1].split(", ") for path in paths}
    described.remove(("POST", "/runs/{id}/{command}"))
    described |= {("POST", f"/runs/{{id}}/{name}") for name in CONTROLS}

    assert table(guide("serving")) == described


@pytest.mark.parametrize(
    ("old", "new"), [("| `GET` | `/ready`", "| `POST` | `/ready`"), ("`deny`, ", "")]
)
async def test_a_table_that_says_something_else_is_noticed(old: str, new: str) -> None:
    text = guide("serving")

    assert old in text
    assert table(text.replace(old, new)) != table(text)


def with_watcher(where: str) -> str:
    """The WebSocket that is read while it is written, as the documents show it."""
    if where == "guide":
        return marked_block("serving", "websocket")
    return (PROJECT / "examples" / "fastapi_app.py").read_text("utf-8")


@pytest.mark.parametrize("is_polite", [True, False])
@pytest.mark.parametrize("where", ["guide", "example"])
async def test_the_websocket_of_the_documents_cancels_the_run_of_a_client_that_leaves(
    where: str, is_polite: bool
) -> None:
    agent = Endless()
    program: dict[str, Any] = {"agent": agent, "__name__": "guide"}
    exec(with_watcher(where), program)
    program["orchestrator"] = Orchestrator(agents=[agent])
    async with serving_app(program["app"]) as url:
        left_at = await trio.to_thread.run_sync(talk_and_leave, url, agent, is_polite)
        await check_ends_within_a_second(agent, left_at)


async def test_the_websocket_of_the_specification_as_written_does_not_notice() -> None:
    """It only sends: why the documents show another one, and what the test above would see."""
    agent = Endless()
    app = await run_example(WEBSOCKET, Orchestrator(agents=[agent]))
    async with serving_app(app) as url:
        await trio.to_thread.run_sync(talk_and_leave, url, agent, True)
        with trio.move_on_after(1.5):
            await agent.ended.wait()

        assert not agent.ended.is_set()


def talk_and_leave(url: str, agent: Endless, is_polite: bool) -> float:
    """Hear a word and leave, as the `websockets` package does it; gives when."""
    with connect(f"{url.replace('http', 'ws')}/chat") as websocket:
        websocket.send("hello")
        while json.loads(websocket.recv(timeout=60))["type"] != "message_chunk":
            pass
        left_at = trio.from_thread.run_sync(trio.current_time)
        if not is_polite:
            websocket.socket.shutdown(socket.SHUT_RDWR)
    return left_at


# The command


def options_of(text: str) -> dict[str, str]:
    """The options that a guide tells of, each with its default as it is written."""
    section = text.partition("## serve")[2]
    return {
        name: default.strip("` ")
        for cell, default, _ in rows(section, "option")[1:]
        for name in names(cell)
    }


def options_of_the_command() -> dict[str, str]:
    parser = argparse.ArgumentParser()
    add_serve(parser)
    for_people = [a for a in parser._actions if a.help is not argparse.SUPPRESS]
    found = {a.option_strings[-1]: a.default for a in for_people if a.dest != "help"}
    return {name: default for name, default in found.items() if "--limit-" not in name}


def test_the_options_of_serve_are_those_of_the_command() -> None:
    told = options_of(guide("command-line"))
    there = options_of_the_command()

    assert {*told, "--model", "--agent"} == {*there, "--limit-…"}
    for name in ("--host", "--port", "--ws-port", "--store", "--log-format"):
        assert told[name] == str(there[name]), name
    for name in ("--resume-window", "--drain"):
        assert told[name] == f"{there[name]} s", name


def test_an_option_that_is_not_told_is_noticed() -> None:
    text = guide("command-line")

    assert options_of(text.replace("| `--drain` |", "| `--patience` |")) != options_of(text)


def test_what_serve_prints_stands_in_the_guide() -> None:
    section = guide("command-line").partition("## serve")[2]
    shown = section.partition("```text\n")[2].partition("```")[0].splitlines()
    with serving() as served:
        ports = [served.page.rsplit(":", 1)[1][:-1], re.findall(r":(\d+)/", served.socket)[0]]
        printed = [
            line.replace(ports[0], "8000").replace(ports[1], "8765") for line in served.lines
        ]

    assert printed == shown
