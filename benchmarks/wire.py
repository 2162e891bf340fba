"""What it costs to get a model's stream off the wire, for each of its events.

A server in a process of its own sends a reply, each event in an HTTP chunk and a packet of its own,
so that the client waits for each, as for tokens. It is read by `httpx.Response.aiter_bytes` alone,
which is what ours are held against; by a client's reply, which gives `Chunk`s (wire to event); and
by a whole run, from the socket to the reader's ``async for``. For the further rows the server sends
as fast as it can, so that many chunks lie in one packet and hardly any waiting is to be paid for.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import httpx
import trio

from flowtrio import Agent, EventType, OpenAIClient, StreamEngine

from ._measure import ROOT, Row, Stopwatch, compare, interleave
from .decode import body

TARGET = 1.5
TARGET_OF_A_RUN = 2
PACE = 60e-6
"""Seconds between two packets: more than any side takes for one."""


@contextmanager
def model_server(events: int, pace: float) -> Iterator[str]:
    """Serve the reply from another process; give its address."""
    command = [sys.executable, "-m", "benchmarks.wire", str(events), str(pace)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


async def bytes_side(url: str, events: int) -> float:
    """CPU seconds for each event, read as bytes."""
    async with (
        httpx.AsyncClient(verify=False) as http,
        http.stream("POST", f"{url}/chat/completions", content=b"{}") as response,
    ):
        pieces = aiter(response.aiter_bytes())
        await anext(pieces)
        watch = Stopwatch()
        async for _ in pieces:
            pass
        return watch.seconds_each(events)


async def chunks_side(url: str, events: int, *, watched: bool) -> float:
    """CPU seconds for each event, read as chunks; *watched* by the reply's own limits or not."""
    async with (
        OpenAIClient(api_key="none", model="m", base_url=url) as client,
        client.stream_completion([]) as reply,
    ):
        if not watched:
            # As a run does, which watches by itself.
            reply.limits = None
        await anext(reply)
        watch = Stopwatch()
        count = 1
        async for chunk in reply:
            count += chunk.content != ""
        spent = watch.seconds_each(events)
    assert count == events
    return spent


async def run_side(url: str, events: int) -> float:
    """CPU seconds for each event, read as a run's events."""
    async with (
        OpenAIClient(api_key="none", model="m", base_url=url) as client,
        StreamEngine().stream(Agent(llm_client=client), "hello") as stream,
    ):
        count = 0
        watch = Stopwatch()
        async for event in stream:
            if event.type is EventType.MESSAGE_CHUNK:
                count += 1
                if count == 1:
                    watch = Stopwatch()
        spent = watch.seconds_each(events)
    assert count == events
    return spent


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    events, rounds = (3_000, 3) if quick else (10_000, 7)
    return [
        *_rows("one a packet", events, rounds, PACE, TARGET, TARGET_OF_A_RUN),
        *_rows("many a packet", events, rounds, 0, None, None),
    ]


def _rows(
    name: str,
    events: int,
    rounds: int,
    pace: float,
    target: float | None,
    target_of_a_run: float | None,
) -> list[Row]:
    with model_server(events, pace) as url:

        def side(measure: Callable[..., Awaitable[float]]) -> Callable[[], float]:
            return partial(trio.run, measure, url, events)

        taken = interleave(
            rounds,
            bare=side(bytes_side),
            reply=side(partial(chunks_side, watched=False)),
            watched=side(partial(chunks_side, watched=True)),
            run=side(run_side),
        )
    return [
        compare(
            f"wire to chunk, {name} / aiter_bytes", taken["reply"], taken["bare"], target=target
        ),
        compare(f"the same under its own limits, {name}", taken["watched"], taken["bare"]),
        compare(
            f"socket to reader of a run, {name} / aiter_bytes",
            taken["run"],
            taken["bare"],
            target=target_of_a_run,
        ),
    ]


# The other process


def serve(events: int, pace: float) -> None:
    """Answer every request with the reply, one connection after another."""
    pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in body(events)]
    pieces.append(b"0\r\n\r\n")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _read_request(connection)
                connection.sendall(head + b"connection: close\r\n\r\n")
                _send(connection, pieces, pace)


def _read_request(connection: socket.socket) -> None:
    head, _, content = b"", b"", b""
    while not content:
        head += connection.recv(65536)
        _, _, content = head.partition(b"\r\n\r\n")


def _send(connection: socket.socket, pieces: list[bytes], pace: float) -> None:
    due = time.perf_counter()
    for piece in pieces:
        connection.sendall(piece)
        due += pace
        # Sleeping is too coarse.
        while time.perf_counter() < due:
            pass


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]))
