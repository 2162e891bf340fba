"""``flowtrio serve`` as a user meets it: a process, its addresses, signals, real clients."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio_websocket
import trustme
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from flowtrio import DemoClient, Orchestrator, ServerLimits
from flowtrio.cli._protocols import PROTOCOLS, lines_of
from flowtrio.cli._serve import (
    CannotServe,
    Serving,
    _drop_who_takes_nothing,
    _make_tls,
    _watch_signals,
    _what_is_left,
    make_config,
    serve,
)
from flowtrio.cli._stores import open_stores
from flowtrio.testing import check_events
from flowtrio.wire._sse import SSEDecoder
from tests.support.command import Server, run, serving, talk

TOKEN = "canary-token"
BEARER = {"authorization": f"Bearer {TOKEN}"}

AGENTS = """
import trio

async def endless(ctx, message):
    async with ctx.message() as out:
        await out.write("one")
        await trio.sleep_forever()

async def stubborn(ctx, message):
    try:
        await endless(ctx, message)
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

async def flood(ctx, message):
    async with ctx.message() as out:
        for _ in range(4000):
            await out.write("x" * 10_000)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a server finds agents of its own: ``odd:endless`` and others."""
    (tmp_path / "odd.py").write_text(AGENTS)
    return tmp_path


def read_sse(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in SSEDecoder().receive_data(text) if event.data]


# Addresses


def test_the_addresses_are_printed_and_the_command_can_be_typed() -> None:
    with serving("--token", TOKEN) as served:
        page, ws, curl, *others = served.lines
        ended = subprocess.run(
            curl,
            shell=True,
            env={**os.environ, "TOKEN": TOKEN},
            capture_output=True,
            timeout=60,
            check=True,
        )
        shown = httpx.get(page)

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", page)
    assert re.fullmatch(r"ws://127\.0\.0\.1:\d+/chat", ws)
    assert curl.startswith('curl -N -H "Authorization: Bearer $TOKEN" ')
    assert others == lines_of(page.removesuffix("/"), tuple(PROTOCOLS))
    check_events(read_sse(ended.stdout))
    assert shown.headers["content-type"].startswith("text/html")


def test_both_websockets_answer_the_websockets_package() -> None:
    with serving() as served:
        for url in (served.socket, served.page.replace("http", "ws") + "chat"):
            reply, *events = talk(url, "Book a flight to Paris")

            assert reply["type"] == "accepted"
            check_events(events)
            assert sum(event["type"] == "tool_call_start" for event in events) >= 2
            assert events[-1]["timestamp"] - events[0]["timestamp"] > 0.6


def test_the_page_and_the_listener_know_of_each_other() -> None:
    with serving() as served:
        policy = httpx.get(served.page).headers["content-security-policy"]
        ws_origin = served.socket.removesuffix("/chat")
        own = served.page.removesuffix("/")
        for origin in (own, own.replace("127.0.0.1", "localhost")):
            assert talk(served.socket, "hi", origin=origin)
        with pytest.raises(InvalidStatus, match="403"):
            talk(served.socket, "hi", origin="https://evil.example")

    [allowed] = [rule for rule in policy.split("; ") if rule.startswith("connect-src")]
    assert ws_origin in allowed.split()
    assert ws_origin.replace("127.0.0.1", "localhost") in allowed.split()


def test_either_of_both_can_be_left_out() -> None:
    with serving("--no-http") as alone:
        assert alone.lines == [alone.socket]
        assert talk(alone.socket, "hi")
    with serving("--no-ws") as alone:
        assert [line.split(":")[0] for line in alone.lines[:2]] == ["http", "curl -N 'http"]
        assert httpx.get(f"{alone.page}health").json() == {"status": "ok"}


@pytest.mark.parametrize(("names", "status"), [("ag-ui,openai", 200), ("none", 404)])
def test_other_peoples_protocols_are_spoken_where_they_are_asked_for(
    names: str, status: int
) -> None:
    with serving("--protocols", names) as served:
        answer = httpx.get(f"{served.page}v1/models")

    assert answer.status_code == status


def test_a_protocol_that_nobody_knows_is_refused_in_one_line() -> None:
    told = run("serve", "--protocols", "openai,gopher")

    assert told.returncode == 2
    assert "unknown gopher; expected openai" in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_a_run_of_one_listener_is_followed_on_the_other() -> None:
    with serving() as served:
        with connect(served.socket, subprotocols=["flowtrio.v1"]) as peer:  # type: ignore[list-item]
            peer.send('{"type": "message", "message": "hi", "run_id": "r"}')
            assert json.loads(peer.recv(timeout=60))["type"] == "accepted"
            answer = httpx.get(f"{served.page}runs/r/events", timeout=60)
            # A client that has not read all of it waits ten seconds for the end of its connection.
            while json.loads(peer.recv(timeout=60))["type"] != "done":
                pass

    check_events(read_sse(answer.content))


def test_both_addresses_speak_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = {name: tmp_path / name for name in ("cert", "key", "both")}
    issued.cert_chain_pems[0].write_to_path(files["cert"])
    issued.private_key_pem.write_to_path(files["key"])
    issued.private_key_and_cert_chain_pem.write_to_path(files["both"])
    import ssl

    context = ssl.create_default_context()
    authority.configure_trust(context)
    for options in (
        ("--certfile", str(files["cert"]), "--keyfile", str(files["key"])),
        ("--certfile", str(files["both"])),
    ):
        with serving(*options) as served:
            assert served.page.startswith("https://")
            assert served.socket.startswith("wss://")
            with httpx.Client(verify=context) as http:
                policy = http.get(served.page).headers["content-security-policy"]
            assert talk(served.socket, "hi", ssl=context)
            assert served.socket.removesuffix("/chat") in policy


# What cannot be done


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "0.0.0.0"), "can't listen on 0.0.0.0 for anybody: expected --token"),
        (("--no-http", "--no-ws"), "nothing is left to serve"),
        (("--store", "redis:x"), "--store redis: expected memory, sqlite:PATH or redis://HOST"),
        (("--store", "sqlite:"), "--store sqlite: expected memory, sqlite:PATH or redis://HOST"),
        (("--store", "sqlite:/no/where/x.db"), "there is no folder /no/where"),
        (("--store", "sqlite:/proc/x.db"), "can't open the store /proc/x.db: "),
        (("--keep", "7d"), "--keep is for an sqlite store: memory is bounded by its size"),
        (("--certfile", "/nowhere"), "can't use --certfile /nowhere: No such file"),
        (("--token", "naïve"), "token: expected printable ASCII text"),
        (("--origin", "friend"), "origin 'friend': expected scheme://host"),
        (("--origin", "friend", "--no-ws"), "origin 'friend': expected scheme://host"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(arguments: Any, words: str) -> None:
    ended = run("serve", "--port", "0", "--ws-port", "0", *arguments)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--port", "--ws-port"])
def test_a_port_in_use_is_told_in_one_line(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = {"--port": "--ws-port", "--ws-port": "--port"}[option]
        ended = run("serve", option, str(port), other, "0")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"flowtrio: can't listen on 127.0.0.1:{port}: Address already in use\n"


def test_without_hypercorn_its_extra_is_named_and_the_other_listener_works() -> None:
    program = "import sys; sys.modules['hypercorn'] = None; sys.argv[0] = 'flowtrio'\n"
    program += "from flowtrio.cli._main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "serve", "--ws-port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "flowtrio: the HTTP address needs hypercorn: pip install 'flowtrio[server]', or --no-http\n"
    )

    with subprocess.Popen([*command, "--no-http"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert talk(process.stdout.readline().strip(), "hi")
        process.terminate()


# The end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    """In mid-stream too: a run that ends within the drain is whole."""
    with serving() as served, connect(served.socket) as peer:
        peer.send("Book a flight to Paris")
        frames = [json.loads(peer.recv(timeout=60)) for _ in range(5)]
        served.process.send_signal(number)
        with pytest.raises(ConnectionClosed):
            while True:
                frames.append(json.loads(peer.recv(timeout=60)))
        _, errors = served.process.communicate(timeout=60)

    check_events(frames[1:])
    assert served.process.returncode == 0
    assert "Traceback" not in errors
    assert peer.protocol.close_code == 1012


async def _follow_sse(served: Server, ends: list[Any]) -> None:
    url = f"{served.page}chat/stream?message=a"
    async with httpx.AsyncClient(headers=BEARER, timeout=60) as http:
        async with http.stream("GET", url) as response:
            body = b""
            async for piece in response.aiter_bytes():
                body += piece
                if b"message_chunk" in body and "begun" not in ends:
                    ends.append("begun")
    ends[:] = [(frame["type"], frame["data"].get("code")) for frame in read_sse(body)[-2:]]


async def _follow_socket(url: str, ends: list[Any]) -> None:
    frames: list[Any] = []
    headers = [(b"authorization", BEARER["authorization"].encode())]
    async with trio_websocket.open_websocket_url(url, extra_headers=headers) as ws:
        await ws.send_message("hi")
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            while True:
                frames.append(json.loads(await ws.get_message()))
                if frames[-1]["type"] == "message_chunk":
                    ends.append("begun")
        await trio.aclose_forcefully(ws._stream)
    code = closed.value.reason.code
    ends[:] = [*((f["type"], f["data"].get("code")) for f in frames[-2:]), code]


async def test_fifty_runs_are_told_of_the_shutdown_on_every_transport(folder: Path) -> None:
    """Each reader gets ERROR and DONE, /ready says 503 meanwhile, and the process is gone."""
    sockets: list[list[Any]] = [[] for _ in range(25)]
    streams: list[list[Any]] = [[] for _ in range(25)]
    arguments = ("--agent", "odd:endless", "--token", TOKEN, "--drain", "2")
    with serving(*arguments, cwd=folder) as served:
        urls = [served.socket, served.page.replace("http", "ws") + "chat"]
        async with trio.open_nursery() as nursery:
            for place, ends in enumerate(sockets):
                nursery.start_soon(_follow_socket, urls[place % 2], ends)
            for ends in streams:
                nursery.start_soon(_follow_sse, served, ends)
            with trio.fail_after(60):
                while not all(sockets + streams):
                    await trio.sleep(0.05)
            served.process.send_signal(signal.SIGTERM)
            with trio.fail_after(60):
                async with httpx.AsyncClient() as http:
                    while (ready := await http.get(f"{served.page}ready")).status_code == 200:
                        await trio.sleep(0.01)
        wait = partial(served.process.communicate, timeout=60)
        told, errors = await trio.to_thread.run_sync(wait)

    assert ready.json() == {"status": "draining"}
    assert sockets == [[("error", "shutdown"), ("done", None), 1012]] * 25
    assert streams == [[("error", "shutdown"), ("done", None)]] * 25
    assert served.process.returncode == 0
    assert "Traceback" not in errors
    assert TOKEN not in "".join([*served.lines, told, errors])


def test_what_does_not_end_is_left_behind_in_time(folder: Path) -> None:
    with serving("--agent", "odd:stubborn", "--drain", "0.1", cwd=folder) as served:
        with connect(served.socket) as peer:
            peer.send("hi")
            while json.loads(peer.recv(timeout=60))["type"] != "message_chunk":
                pass
            status, errors = served.end(signal.SIGTERM)

    assert status == 1
    [line] = [e for e in errors.splitlines() if "something has not ended 4.1 s after" in e]
    assert line.partition("what is left: ")[2] == "agent stubborn"


async def test_of_the_threads_only_those_that_work_are_left_over() -> None:
    """Trio keeps a thread that has done its work for the next, and it keeps no process alive."""
    begun, release = trio.Event(), threading.Event()

    def stuck() -> None:
        trio.from_thread.run_sync(begun.set)
        release.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, stuck)
        await begun.wait()
        await trio.to_thread.run_sync(threading.get_ident)
        left = _what_is_left()
        release.set()

    assert [name for name in left if name.startswith("stuck from ")]
    assert not [name for name in left if name.startswith("Trio thread ")]


def test_without_window_and_drain_runs_are_whole_and_end_with_the_server(folder: Path) -> None:
    options = ("--agent", "odd:endless", "--resume-window", "0", "--drain", "0s")
    with serving(*options, cwd=folder) as served:
        with connect(served.socket, subprotocols=[Subprotocol("flowtrio.v1")]) as peer:
            peer.send("hi")
            while json.loads(peer.recv(timeout=60))["type"] != "message_chunk":
                pass
            served.process.send_signal(signal.SIGTERM)
            types = []
            with suppress(ConnectionClosed):
                while True:
                    types.append(json.loads(peer.recv(timeout=60))["type"])
        _, errors = served.process.communicate(timeout=60)

    assert types[-2:] == ["error", "done"]
    assert (served.process.returncode, "Traceback" in errors) == (0, False)


def test_a_second_signal_ends_at_once(folder: Path) -> None:
    with serving("--agent", "odd:endless", "--drain", "600", cwd=folder) as served:
        with connect(served.socket) as peer:
            peer.send("hi")
            peer.recv(timeout=60)
            served.process.send_signal(signal.SIGINT)
            while served.process.poll() is None:
                served.process.send_signal(signal.SIGINT)
                try:
                    served.process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
    assert served.process.returncode == 128 + signal.SIGINT


# Options


def test_a_token_is_asked_for_and_shown_nowhere() -> None:
    with serving("--token", TOKEN) as served:
        assert talk(served.socket, "hi", additional_headers=BEARER)
        with pytest.raises(InvalidStatus, match="401"):
            talk(served.socket, "hi")
        asked = httpx.get(f"{served.page}chat/stream?message=hi")
        page = httpx.get(served.page)
        by_query = httpx.get(f"{served.page}metrics?token={TOKEN}")
        status, errors = served.end(signal.SIGTERM)

    assert (asked.status_code, by_query.status_code, status) == (401, 200, 0)
    assert TOKEN not in "".join([*served.lines, errors, asked.text, page.text, by_query.text])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_and_its_conversation_outlast_a_server_on_a_file(
    number: signal.Signals, tmp_path: Path
) -> None:
    store = ("--store", f"sqlite:{tmp_path / 'runs.db'}", "--keep", "7d", "--resume-window", "30s")
    # It reads no further than where the server ends: nobody waits for an end of its connection.
    with serving(*store) as served, connect(served.socket, close_timeout=0.1) as peer:
        asked = {"type": "message", "message": "Hello", "run_id": "r", "session_id": "s"}
        peer.send(json.dumps(asked))
        events = [json.loads(peer.recv(timeout=60)) for _ in range(6)][1:]
        served.end(number)
    with serving(*store) as served:
        after = str(events[-1]["seq"])
        rest = httpx.get(f"{served.page}runs/r/events", params={"after": after})
        session = httpx.get(f"{served.page}sessions/s").json()

    events += read_sse(rest.content)
    check_events(events)
    assert [run["run_id"] for run in session["runs"]] == ["r"]
    assert session["messages"][0] == {"role": "user", "content": "Hello"}
    if number is signal.SIGKILL:
        assert events[-2]["data"]["code"] == "interrupted"
        said = [e["data"]["content"] for e in events if e["type"] == "message_complete"]
        kept = [m["content"] for m in session["messages"] if m["role"] == "assistant"]
        assert [text for text in kept if text] == [text for text in said if text]


def test_limits_are_options_of_both_listeners(folder: Path) -> None:
    limited = ("--limit-connections", "1", "--agent", "odd:endless")
    with serving(*limited, cwd=folder) as served, connect(served.socket):
        with pytest.raises(InvalidStatus, match="503"):
            connect(served.socket)
        with httpx.stream("GET", f"{served.page}chat/stream?message=a"):
            assert httpx.get(f"{served.page}chat/stream?message=b").status_code == 503


def test_hypercorn_has_the_same_limits() -> None:
    config = make_config(Serving(limits=ServerLimits(head=1000, handshake=4)))

    assert (config.h11_max_incomplete_size, config.keep_alive_timeout) == (1000, 4)
    assert (config.accesslog, config.keep_alive_max_requests) == (None, 0)


def test_a_client_that_takes_nothing_is_dropped(folder: Path) -> None:
    """Though Hypercorn shields its sends: the kernel ends the connection."""
    options = ("--agent", "odd:flood", "--limit-send", "0.5", "--no-ws")
    with serving(*options, cwd=folder) as served:
        port = int(served.page.rsplit(":", 1)[1].strip("/"))
        with socket.create_connection(("127.0.0.1", port)) as silent:
            silent.sendall(b"GET /chat/stream?message=a HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            silent.settimeout(60)
            # It is answered, and takes nothing of that: what a figure shows of it soon goes by.
            assert silent.recv(1, socket.MSG_PEEK)
            deadline = time.monotonic() + 60
            while "flowtrio_connections 0.0" not in (told := _metrics(served)):
                assert time.monotonic() < deadline, told


def _metrics(served: Server) -> str:
    return httpx.get(f"{served.page}metrics", timeout=60).text


def test_what_is_logged_may_be_json() -> None:
    with serving("--log-format", "json", "--no-ws") as served:
        httpx.get(f"{served.page}chat/stream?message=hi&run_id=r", timeout=60)
        _, errors = served.end(signal.SIGTERM)

    lines = [json.loads(line) for line in errors.splitlines()]
    assert {line["logger"] for line in lines} == {"flowtrio"}
    [line] = [line for line in lines if "run r" in line["message"]]
    assert line["level"] == "INFO"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", line["time"])


FROZEN = """
import gc

async def agent(ctx, message):
    return gc.get_freeze_count()
"""


def test_the_collector_is_spared_what_is_there_when_the_server_is_ready(tmp_path: Path) -> None:
    (tmp_path / "frozen.py").write_text(FROZEN)
    with serving("--no-http", "--agent", "frozen:agent", cwd=tmp_path) as served:
        done = talk(served.socket, "how many?")[-1]

    assert done["data"]["result"] > 10_000


def test_addresses_are_told_as_they_have_to_be_typed() -> None:
    assert Serving(host="::1").place("http", 80) == "http://[::1]:80"
    assert Serving(host="a.example").origins_of("http", 80) == ["http://a.example"]
    assert Serving(host="a.example", certfile="c").origins_of("ws", 443) == ["wss://a.example"]
    assert "http://localhost:81" in Serving(host="::1").origins_of("http", 81)


# In this process: what a coverage measurement can see


@pytest.mark.parametrize("left_out", ["nothing", "http", "ws"])
async def test_serve_tells_its_addresses_and_returns_on_a_signal(
    left_out: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ports = {"port": 0, "ws_port": 0} | {
        "nothing": {},
        "http": {"port": None},
        "ws": {"ws_port": None},
    }[left_out]
    async with open_stores(f"sqlite:{tmp_path / 'runs.db'}", 60) as stores:
        orchestrator = Orchestrator(llm_client=DemoClient(delay=0), **stores)
        async with trio.open_nursery() as nursery:
            serving = Serving(**ports, tokens=(TOKEN,), operator_tokens=("operator's",))
            nursery.start_soon(serve, orchestrator, serving)
            printed = ""
            with trio.fail_after(60):
                while not printed.endswith("\n"):
                    await trio.sleep(0.01)
                    printed += capsys.readouterr().out
            os.kill(os.getpid(), signal.SIGTERM)

    others = ["http"] * (len(PROTOCOLS) + 1)  # and the studio, since there may be operators
    assert [line.split(":")[0].split()[0] for line in printed.splitlines()] == {
        "nothing": ["http", "ws", "curl", *others],
        "http": ["ws"],
        "ws": ["http", "curl", *others],
    }[left_out]
    assert left_out == "http" or printed.endswith("/studio (studio)\n")


async def test_a_second_signal_and_a_late_end_leave_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    async with trio.open_nursery() as nursery:
        stopping = await nursery.start(_watch_signals, 9.0)
        os.kill(os.getpid(), signal.SIGTERM)
        await stopping.wait()
        await trio.sleep(8.9)
        assert left == []
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep(0.05)
        assert left == [128 + signal.SIGINT]
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()

    assert left == [128 + signal.SIGINT, 1]
    assert "something has not ended 9 s after the signal" in caplog.text


async def test_memory_needs_no_store() -> None:
    async with open_stores("memory", None) as stores:
        assert stores == {}


@pytest.mark.parametrize(
    ("name", "keep", "words"),
    [
        ("memory", 60.0, "--keep is for an sqlite store"),
        ("redis:x", None, "--store redis: expected memory, sqlite:PATH or redis://HOST"),
        ("sqlite:/no/where/x.db", None, "there is no folder /no/where"),
        ("sqlite:/proc/x.db", None, "can't open the store /proc/x.db"),
    ],
)
async def test_stores_that_cannot_be_had(name: str, keep: float | None, words: str) -> None:
    with pytest.raises(CannotServe, match=words):
        async with open_stores(name, keep):
            pass


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": None, "ws_port": None}, "nothing is left to serve"),
        ({"host": "0.0.0.0"}, "can't listen on 0.0.0.0 for anybody"),
        ({"certfile": "/nowhere"}, "can't use --certfile /nowhere: No such file"),
        ({"origins": ("friend",)}, "expected scheme://host"),
    ],
)
async def test_servers_that_cannot_be_had(options: Any, words: str) -> None:
    orchestrator = Orchestrator(llm_client=DemoClient())
    with pytest.RaisesGroup(
        pytest.RaisesExc(CannotServe, match=words), allow_unwrapped=True, flatten_subgroups=True
    ):
        await serve(orchestrator, Serving(**{"port": 0, "ws_port": 0, **options}))


@pytest.mark.parametrize("which", ["port", "ws_port"])
async def test_a_taken_port_is_an_error_of_one_line(which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"port": 0, "ws_port": 0, which: taken.getsockname()[1]}
        with pytest.RaisesGroup(
            pytest.RaisesExc(CannotServe, match="Address already in use"), flatten_subgroups=True
        ):
            await serve(Orchestrator(llm_client=DemoClient()), Serving(**ports))


def test_a_missing_extra_is_noticed_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "hypercorn", None)
    monkeypatch.delitem(sys.modules, "hypercorn.trio", raising=False)

    with pytest.raises(CannotServe, match=r"hypercorn: pip install 'flowtrio\[server\]'"):
        trio.run(serve, Orchestrator(llm_client=DemoClient()), Serving(port=0, ws_port=0))


def test_a_certificate_is_read_for_both(tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)

    assert _make_tls(Serving(certfile=str(path))) is not None
    assert _make_tls(Serving()) is None


def test_patience_without_limit_is_left_to_the_kernel() -> None:
    told: list[Any] = []

    class Socket:
        def setsockopt(self, *values: int) -> None:
            told.append(values[2])

    for seconds in (10, 0.0001, 1e9, math.inf):
        _drop_who_takes_nothing(Socket(), seconds)  # type: ignore[arg-type]

    assert told == [10_000, 1, 2**31 - 1]
