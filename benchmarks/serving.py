"""What a connection costs a WebSocket server, and how soon a token is at its client.

The server runs in a process of its own, and its CPU time is asked of it; the clients are here. The
bare side is trio-websocket's own server, whose handler answers each message by as many
`send_message` as ours sends events, of the same size: no agent, no order, no limits. The *direct*
side is ours too: a run that lives with its connection, and is kept nowhere.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import trio
import trio_websocket

from flowtrio import MemoryStore, OpenAIClient, Orchestrator, RunContext, ServerLimits
from flowtrio.serving.sockets.websocket import serve_websocket

from ._measure import CAN_TELL_RESIDENT, ROOT, Row, compare, resident_bytes

EVENT_TARGET = 1.3
BATCH_TARGET = 0.25
HOSTED_TARGET = 1.3
IDLE_LIMIT = 30
"""KiB of each idle connection."""
FIRST_TOKEN_LIMIT = 5
"""Milliseconds from the model's server to the client."""
EVENTS = 200
AROUND = 5
"""Events of a run beside its chunks: its start, two states, the message's end and the run's."""
TEXT = "token "
FRAME = 190
"""Characters of a chunk's event as a frame."""


# The server's process


async def talk(ctx: RunContext, message: str) -> None:
    """Say as many chunks as make `EVENTS` events."""
    async with ctx.message() as out:
        for _ in range(EVENTS - AROUND):
            await out.write(TEXT)


async def talk_to_all(ctx: RunContext, message: str) -> None:
    """Wait until all who want to listen are there, then talk."""
    await ctx.ask("Are all there?")
    await talk(ctx, message)


async def answer_bare(request: trio_websocket.WebSocketRequest) -> None:
    """Answer each message by as many frames."""
    connection = await request.accept()
    try:
        while True:
            await connection.get_message()
            for _ in range(EVENTS):
                await connection.send_message("x" * FRAME)
    except trio_websocket.ConnectionClosed:
        pass


async def serve(kind: str, model_url: str) -> None:
    """Serve, and tell the port; then answer each line of the input by our CPU time and memory.

    The word ``begin`` says that they are what a measurement begins with.
    """
    limits = ServerLimits(connections=5000)
    async with trio.open_nursery() as nursery:
        if kind == "bare":
            bare = partial(trio_websocket.serve_websocket, answer_bare, "127.0.0.1", 0, None)
            server = await nursery.start(bare)
            port = server.port
        else:
            if kind == "model":
                client = OpenAIClient(api_key="none", model="m", base_url=model_url)
                orchestrator = Orchestrator(llm_client=client, store=MemoryStore())
            else:
                orchestrator = Orchestrator(agents=[talk_to_all if kind == "shared" else talk])
            serving = partial(serve_websocket, orchestrator, "127.0.0.1", 0, limits=limits)
            listeners = await nursery.start(serving)
            port = listeners[0].socket.getsockname()[1]
        print(port, flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            if line == "begin\n":
                # With nothing left over: neither the connections, nor what was measured before.
                gc.collect()
            told = {"cpu": time.process_time(), "bytes": resident_bytes()}
            print(json.dumps(told), flush=True)
        nursery.cancel_scope.cancel()


class Server:
    """A server in a process of its own."""

    def __init__(self, kind: str, model_url: str = "") -> None:
        command = [sys.executable, "-m", "benchmarks.serving", kind, model_url]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = f"ws://127.0.0.1:{int(self._read())}/"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def ask(self, word: str = "") -> dict[str, Any]:
        """Its CPU seconds and the bytes it holds; with ``begin`` when it has cleaned up."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._read())
        return told

    def stop(self) -> None:
        """End it."""
        self._process.communicate()


@contextmanager
def server(kind: str, model_url: str = "") -> Iterator[Server]:
    """Have a server run."""
    running = Server(kind, model_url)
    try:
        yield running
    finally:
        running.stop()


# The clients


async def read_events(connection: trio_websocket.WebSocketConnection) -> None:
    """Send one message, and read until all has come."""
    await connection.send_message("go")
    seen = 0
    while seen < EVENTS:
        text = await connection.get_message()
        assert isinstance(text, str)
        if text.startswith("["):
            seen += text.count('"seq":')
        elif not text.startswith('{"type":"accepted"'):
            seen += 1


async def measure_events(running: Server, protocols: list[str], connections: int) -> float:
    """CPU seconds of the server for each event; the connections are there before."""
    opened: list[trio_websocket.WebSocketConnection] = []
    async with trio.open_nursery() as nursery:

        async def hold(task_status: trio.TaskStatus[None]) -> None:
            opening = trio_websocket.open_websocket_url(running.url, subprotocols=protocols)
            async with opening as connection:
                opened.append(connection)
                task_status.started()
                await trio.sleep_forever()

        for _ in range(connections):
            await nursery.start(hold)
        before = running.ask("begin")["cpu"]
        async with trio.open_nursery() as readers:
            for connection in opened:
                readers.start_soon(read_events, connection)
        spent = float(running.ask()["cpu"] - before)
        nursery.cancel_scope.cancel()
    return spent / (connections * EVENTS)


async def follow_shared(
    running: Server, protocol: str, place: dict[str, Any], *, task_status: trio.TaskStatus[None]
) -> None:
    """Follow the run from behind its question to its end."""
    async with trio_websocket.open_websocket_url(
        running.url, subprotocols=[protocol]
    ) as connection:
        resume = {"type": "resume", "run_id": place["run_id"], "after": place["seq"]}
        await connection.send_message(json.dumps(resume))
        assert '"accepted"' in await connection.get_message()
        task_status.started()
        while '"type":"done"' not in await connection.get_message():
            pass


async def measure_shared(running: Server, protocol: str, connections: int) -> float:
    """CPU seconds of the server for each event of one run that all connections follow."""
    async with trio_websocket.open_websocket_url(
        running.url, subprotocols=["flowtrio.v1"]
    ) as starter:
        await starter.send_message("go")
        question: dict[str, Any] = {}
        while question.get("type") != "input_required":
            question = json.loads(await starter.get_message())
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                await nursery.start(partial(follow_shared, running, protocol, question))
            before = running.ask("begin")["cpu"]
            answer = {"type": "answer", "run_id": question["run_id"], "text": "yes"}
            answer["request_id"] = question["data"]["request_id"]
            await starter.send_message(json.dumps(answer))
            seen: dict[str, Any] = {}
            while seen.get("type") != "done":
                seen = json.loads(await starter.get_message())
        spent = float(running.ask()["cpu"] - before)
    return spent / (connections + 1) / (seen["seq"] - question["seq"])


def event_rows(connections: int, rounds: int) -> list[Row]:
    """CPU time of the server for each event.

    Those of a run for each connection, which has to be made too, and those of one run that all
    connections follow: what the connection costs by itself.
    """
    sides: dict[str, tuple[str, list[str]]] = {
        "bare": ("bare", []),
        "direct": ("ours", []),
        "hosted": ("ours", ["flowtrio.v1"]),
        "batch": ("ours", ["flowtrio.batch.v1"]),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    shared = {"shared": "flowtrio.v1", "shared batch": "flowtrio.batch.v1"}
    taken |= {name: [] for name in shared}
    with server("bare") as bare, server("ours") as ours, server("shared") as of_all:
        servers = {"bare": bare, "ours": ours}
        for number in range(rounds + 1):
            for name, (kind, protocols) in sides.items():
                spent = trio.run(measure_events, servers[kind], protocols, connections)
                if number:
                    taken[name].append(spent)
            for name, protocol in shared.items():
                spent = trio.run(measure_shared, of_all, protocol, connections)
                if number:
                    taken[name].append(spent)
    told = {
        "direct frames / bare send_message": ("direct", "bare", EVENT_TARGET),
        "hosted frames / bare send_message": ("hosted", "bare", EVENT_TARGET),
        "hosted batch / bare send_message": ("batch", "bare", BATCH_TARGET),
        "hosted frames / direct frames": ("hosted", "direct", HOSTED_TARGET),
        "hosted batch / direct frames": ("batch", "direct", HOSTED_TARGET),
        "shared frames / bare send_message": ("shared", "bare", EVENT_TARGET),
        "shared batch / bare send_message": ("shared batch", "bare", BATCH_TARGET),
    }
    return [
        compare(f"event to {connections} clients, {words}", taken[one], taken[other], target=target)
        for words, (one, other, target) in told.items()
    ]


@asynccontextmanager
async def idle_connections(url: str, count: int) -> Any:
    async with trio.open_nursery() as nursery:

        async def hold(task_status: trio.TaskStatus[None]) -> None:
            async with trio_websocket.open_websocket_url(url):
                task_status.started()
                await trio.sleep_forever()

        for _ in range(count):
            await nursery.start(hold)
        yield
        nursery.cancel_scope.cancel()


async def measure_idle(running: Server, count: int) -> float:
    """Bytes of each idle connection."""
    async with idle_connections(running.url, 20):
        pass
    before = running.ask()["bytes"]
    async with idle_connections(running.url, count):
        return float(running.ask()["bytes"] - before) / count


def idle_rows(count: int) -> list[Row]:
    """Memory of idle connections."""
    if not CAN_TELL_RESIDENT:
        return []
    figures = {}
    for kind in ("ours", "bare"):
        with server(kind) as running:
            figures[kind] = trio.run(measure_idle, running, count) / 1024
    return [
        Row(
            subject=f"idle connection of {count:,}, RSS / trio-websocket",
            ours=figures["ours"],
            theirs=figures["bare"],
            limit=IDLE_LIMIT,
            unit="KiB",
        )
    ]


# The first token


class Model:
    """A model's server that notes when it wrote the first token of each reply."""

    def __init__(self) -> None:
        self.written: dict[str, float] = {}

    async def handle(self, stream: trio.SocketStream) -> None:
        """Answer one request after the other."""
        rest = b""
        while True:
            while b"\r\n\r\n" not in rest:
                piece = await stream.receive_some()
                if not piece:
                    return
                rest += piece
            head, _, rest = rest.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if b"content-length" in line]
            size = int(lengths[0].split(b":")[1])
            while len(rest) < size:
                rest += await stream.receive_some()
            body, rest = json.loads(rest[:size]), rest[size:]
            await self.answer(stream, body["messages"][-1]["content"])

    async def answer(self, stream: trio.SocketStream, name: str) -> None:
        """Think for a while, then say one word."""
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        await stream.send_all(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        await trio.sleep(0.2)
        self.written[name] = time.perf_counter()
        await self.send(stream, {"delta": {"content": name}, "index": 0})
        await trio.sleep(0.1)
        await self.send(stream, {"delta": {}, "index": 0, "finish_reason": "stop"})
        await stream.send_all(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    @staticmethod
    async def send(stream: trio.SocketStream, choice: dict[str, Any]) -> None:
        """Send one chunk."""
        data = b"data: " + json.dumps({"model": "m", "choices": [choice]}).encode() + b"\n\n"
        await stream.send_all(b"%x\r\n%s\r\n" % (len(data), data))


async def first_tokens(runs: int, rounds: int) -> list[float]:
    """Seconds from the model's server to the client, of runs that go on at once."""
    model, found = Model(), []

    async def ask(url: str, name: str) -> None:
        opened = trio_websocket.open_websocket_url(url, subprotocols=["flowtrio.v1"])
        async with opened as connection:
            await connection.send_message(name)
            while '"message_chunk"' not in await connection.get_message():
                pass
            found.append(time.perf_counter() - model.written[name])
            while '"done"' not in await connection.get_message():
                pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, model.handle, 0)
        port = listeners[0].socket.getsockname()[1]
        running = await trio.to_thread.run_sync(Server, "model", f"http://127.0.0.1:{port}/v1")
        for number in range(rounds):
            async with trio.open_nursery() as askers:
                for place in range(runs):
                    askers.start_soon(ask, running.url, f"{number}-{place}")
        await trio.to_thread.run_sync(running.stop)
        nursery.cancel_scope.cancel()
    return found


def first_token_rows(runs: int, rounds: int) -> list[Row]:
    """How soon a first token is at the client."""
    found = trio.run(first_tokens, runs, rounds)
    return [
        Row(
            subject=f"first token, model to client, {runs} runs, median / worst",
            ours=statistics.median(found) * 1000,
            theirs=max(found) * 1000,
            limit=FIRST_TOKEN_LIMIT,
            unit="ms",
        )
    ]


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    _allow_descriptors()
    connections, rounds, idle = (20, 2, 100) if quick else (200, 7, 1000)
    return [
        *event_rows(connections, rounds),
        *idle_rows(idle),
        *first_token_rows(10 if quick else 50, 3),
    ]


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 8192:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))


if __name__ == "__main__":
    _allow_descriptors()
    trio.run(serve, *sys.argv[1:])
