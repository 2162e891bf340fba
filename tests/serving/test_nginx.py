"""Debian's nginx in front of `flowtrio serve`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trio
from websockets.sync.client import connect

from tests.support.command import Server, serving
from tests.support.ports import free_port

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
CONFIGURATION = DEPLOY / "nginx.conf"
TOKEN = "canary-token"

AGENT = """
import trio

async def endless(ctx, message):
    async with ctx.message() as out:
        await out.write("one")
        await trio.sleep_forever()
"""

UNCHANGED = "server { listen 80; location / { proxy_pass http://127.0.0.1:8000; %s } }"
"""A server with nginx's own proxy settings, but for one line."""


def find_nginx() -> str:
    """nginx's path; where there is none, the test is skipped and says so, and in CI it fails."""
    path = shutil.which("nginx", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    if path is not None:
        return path
    said = "no nginx on this machine: apt-get install nginx-light (`nox -s tests` does it as root)"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


@contextmanager
def proxying(servers: str, behind: int, folder: Path, second: int = 0) -> Iterator[int]:
    """nginx with these servers, before a port of ours, or two; gives its own."""
    program = find_nginx()
    port = free_port()
    assert "listen 80;" in servers
    servers = servers.replace("listen 80;", f"listen 127.0.0.1:{port};")
    servers = servers.replace("127.0.0.1:8000", f"127.0.0.1:{behind}")
    servers = servers.replace("127.0.0.1:8001", f"127.0.0.1:{second}")
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
    whole += f"http {{\naccess_log off;\n{places}{servers}\n}}\n"
    if os.geteuid() == 0:
        whole = f"user root;\n{whole}"
    (folder / "nginx.conf").write_text(whole)
    command = [program, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        _wait_until_listening(port, process, folder)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _wait_until_listening(port: int, process: subprocess.Popen[str], folder: Path) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError((process.communicate()[0], (folder / "error.log").read_text()))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    find_nginx()
    (tmp_path / "odd.py").write_text(AGENT)
    options = ("--agent", "odd:endless", "--token", TOKEN, "--origin", "https://agents.example")
    with serving(*options, "--no-ws", cwd=tmp_path) as server:
        yield server


def port_of(served: Server) -> int:
    return int(served.page.rsplit(":", 1)[1].strip("/"))


async def read_while_running(
    port: int, served: Server, patience: float = 60
) -> tuple[bytes, bytes]:
    """What comes of an answer while its run goes on, and then all of it.

    Args:
      port: nginx's.
      served: The server behind it.
      patience: Seconds in which a word of it has to come, once it is said.

    """
    request = f"GET /chat/stream?message=a&run_id=r&token={TOKEN} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    bearer = {"authorization": f"Bearer {TOKEN}"}
    arrived = bytearray()
    is_settled, is_whole = trio.Event(), trio.Event()

    async def read(stream: trio.SocketStream) -> None:
        async for piece in stream:
            arrived.extend(piece)
            if b"message_chunk" in arrived:
                is_settled.set()
        is_whole.set()

    async with (
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
        httpx.AsyncClient(base_url=served.page, headers=bearer, timeout=60) as direct,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(read, stream)
        await stream.send_all(f"{request}connection: close\r\n\r\n".encode())
        with trio.fail_after(60):
            while "first_token_seconds_count 1" not in (await direct.get("/metrics")).text:
                await trio.sleep(0.05)
        with trio.move_on_after(patience):
            # The chunk is on its way; where nginx keeps it back, this waits in vain.
            await is_settled.wait()
        meanwhile = bytes(arrived)
        assert (await direct.post("/runs/r/cancel")).status_code == 200
        with trio.fail_after(60):
            await is_whole.wait()
    return meanwhile, bytes(arrived)


async def test_sse_passes_nginx_with_its_default_settings(served: Server, tmp_path: Path) -> None:
    with proxying(UNCHANGED % "", port_of(served), tmp_path) as port:
        meanwhile, whole = await read_while_running(port, served)

    assert b"message_chunk" in meanwhile
    assert b'"done"' not in meanwhile
    assert b'"done"' in whole


async def test_without_our_header_nginx_would_keep_all_back(served: Server, tmp_path: Path) -> None:
    """What the test above would notice."""
    servers = UNCHANGED % "proxy_ignore_headers X-Accel-Buffering;"
    with proxying(servers, port_of(served), tmp_path) as port:
        meanwhile, whole = await read_while_running(port, served, patience=2)

    assert b"message_chunk" not in meanwhile
    assert b'"done"' in whole


def test_a_websocket_passes_nginx_with_the_configuration_of_the_documents(
    served: Server, tmp_path: Path
) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    with proxying(CONFIGURATION.read_text("utf-8"), port_of(served), tmp_path) as port:
        sock = socket.create_connection(("127.0.0.1", port))
        with connect(
            "ws://agents.example/chat",
            sock=sock,
            origin="https://agents.example",  # type: ignore[arg-type]
            additional_headers=headers,
        ) as peer:
            peer.send("hello")
            frames = [peer.recv(timeout=60)]
            while '"message_chunk"' not in frames[-1]:
                frames.append(peer.recv(timeout=60))
        page = httpx.get(f"http://127.0.0.1:{port}/")
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=headers)

    assert page.headers["content-type"].startswith("text/html")
    assert metrics.status_code == 403


async def test_sse_passes_nginx_with_the_configuration_of_the_documents(
    served: Server, tmp_path: Path
) -> None:
    with proxying(CONFIGURATION.read_text("utf-8"), port_of(served), tmp_path) as port:
        meanwhile, _ = await read_while_running(port, served)

    assert b"message_chunk" in meanwhile


def test_below_a_path_of_a_site_all_is_there(served: Server, tmp_path: Path) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    servers = (DEPLOY / "nginx-base-path.conf").read_text("utf-8")
    with proxying(servers, port_of(served), tmp_path) as port:
        site = f"127.0.0.1:{port}/agents"
        page = httpx.get(f"http://{site}/")
        module = httpx.get(f"http://{site}/flowtrio.js")
        session = httpx.get(f"http://{site}/sessions/s", headers=headers)
        metrics = httpx.get(f"http://{site}/metrics", headers=headers)
        outside = httpx.get(f"http://127.0.0.1:{port}/health")
        with connect(f"ws://{site}/chat", additional_headers=headers) as peer:
            peer.send("hello")
            assert '"accepted"' in peer.recv(timeout=60)

    assert "<script" in page.text
    # Else it would be looked for at the site's own root.
    assert 'src="/' not in page.text
    assert 'href="/' not in page.text
    assert module.headers["content-type"].startswith("text/javascript")
    assert session.json()["session_id"] == "s"
    assert (metrics.status_code, outside.status_code) == (403, 404)


def test_a_conversation_finds_its_process_again(tmp_path: Path) -> None:
    find_nginx()
    servers = (DEPLOY / "nginx-sticky.conf").read_text("utf-8")
    with (
        serving("--no-ws") as one,
        serving("--no-ws") as other,
        proxying(servers, port_of(one), tmp_path, port_of(other)) as port,
    ):
        site = f"http://127.0.0.1:{port}"

        def talk(name: str) -> None:
            where = {"session": name}
            keys = {"session_id": name, "run_id": name, "message": "hi"}
            httpx.post(f"{site}/chat/stream", params=where, json=keys, timeout=60)
            for _ in range(3):
                again = httpx.get(f"{site}/sessions/{name}", params=where, timeout=60)
                assert [run["run_id"] for run in again.json()["runs"]] == [name]
            read = httpx.get(f"{site}/runs/{name}/events", params=where, timeout=60)
            assert read.status_code == 200

        # So many that one of two has none of them by chance once in half a million times.
        names = [str(number) for number in range(20)]
        with ThreadPoolExecutor(len(names)) as users:
            list(users.map(talk, names))
        shares = [
            len([1 for name in names if httpx.get(f"{s.page}sessions/{name}").json()["runs"]])
            for s in (one, other)
        ]

    assert sum(shares) == len(names)
    assert all(shares)
