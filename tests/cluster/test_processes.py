"""``flowtrio serve`` on a real store that processes share: what its options do."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from flowtrio.cli._stores import CannotServe, Sharing, is_shared, open_stores
from flowtrio.serving._listening import open_listeners
from tests.chaos.processes import LEASE, Processes
from tests.serving.test_nginx import DEPLOY, find_nginx, proxying
from tests.support.command import FLOWTRIO, children_of, environment, serving
from tests.support.redis_server import RedisServer, redis_server
from tests.support.streaming import asking


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@asynccontextmanager
async def cluster(redis: RedisServer, folder: Path) -> AsyncIterator[Processes]:
    """Two gateways and two workers."""
    processes = Processes(redis, folder, random.Random(0), redis.url())
    (folder / "marks").touch()
    try:
        await processes.start()
        for each in [*processes.gateways, *processes.workers]:
            assert await each.wait_ready()
        yield processes
        await processes.end()
    finally:
        processes.kill()


async def read(address: str) -> list[dict[str, Any]]:
    """What is told of a run, to its end."""
    log = []
    async with asking(f"{address}/runs/r/events?after=-1") as answer:
        while (event := await answer.event()) is not None:
            log.append(event)
    return log


async def test_a_killed_worker_and_a_killed_gateway_lose_nothing(
    redis: RedisServer, tmp_path: Path
) -> None:
    async with cluster(redis, tmp_path) as processes, httpx.AsyncClient(timeout=20) as http:
        one, two = processes.gateways
        body = {"message": "m words=200", "run_id": "r", "session_id": "s"}
        async with asking(f"{one.address}/chat/stream", body) as answer:
            assert answer.status == 200
            while (event := await answer.event()) is not None:
                if event["type"] == "message_chunk":
                    break
        await one.end(signal.SIGKILL)
        # Each of the workers, as nobody says which one has it.
        for each in processes.workers:
            await each.end(signal.SIGKILL)
        processes.workers[0].start()
        assert await processes.workers[0].wait_ready()
        began = trio.current_time()
        log = await read(two.address)
        # Two leases, and what a busy machine needs.
        assert trio.current_time() - began < 10 * LEASE
        assert [event["seq"] for event in log] == list(range(len(log)))
        assert log[-2]["data"]["code"] == "interrupted"
        said = (await http.get(f"{two.address}/sessions/s")).json()["messages"]
        assert [each["role"] for each in said] == ["user", "assistant"]
        told = (await http.get(f"{two.address}/ready")).json()
        assert (told["role"], told["queued"]) == ("gateway", 0)
        metrics = [(await http.get(f"{p.address}/metrics")).text for p in (two,)]
        assert "flowtrio_lease_seconds" in metrics[0]
        # A worker that is told to stop gives its run up in good order.
        assert await processes.workers[0].end(signal.SIGTERM) == 0


async def test_nginx_has_any_gateway_answer_for_any_run(redis: RedisServer, tmp_path: Path) -> None:
    find_nginx()
    servers = (DEPLOY / "nginx-gateways.conf").read_text("utf-8")
    async with cluster(redis, tmp_path) as processes:
        one, two = processes.gateways
        with proxying(servers, one.port, tmp_path, two.port) as port:
            address = f"http://127.0.0.1:{port}"
            body = {"message": "m words=3", "run_id": "r", "session_id": "s"}
            async with asking(f"{address}/chat/stream", body) as answer:
                assert answer.status == 200
            log = await read(address)
            await one.end(signal.SIGKILL)
            assert await read(address) == log
        one.start()

    assert log[-1]["type"] == "done"


def refused(*arguments: str) -> str:
    """What ``serve`` says when it does not start: one line."""
    command = [*FLOWTRIO, "serve", "--port", "0", "--no-ws", *arguments]
    told = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment(), check=False
    )
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    return told.stderr


def test_a_store_that_forgets_what_it_has_no_room_for_is_refused_in_a_line() -> None:
    with redis_server("--maxmemory-policy", "allkeys-lru") as forgetful:
        assert "maxmemory-policy allkeys-lru" in refused("--store", forgetful.url())


def test_a_role_needs_a_store_that_is_shared() -> None:
    assert "--role worker: expected --store redis://HOST" in refused("--role", "worker")


def test_a_worker_tells_where_it_is_asked_how_it_is_and_nothing_else(redis: RedisServer) -> None:
    command = [*FLOWTRIO, "serve", "--store", redis.url(), "--role", "worker", "--port", "0"]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert worker.stdout is not None
        place = worker.stdout.readline().strip()
        told = httpx.get(place, timeout=60)
        worker.terminate()
        rest, _ = worker.communicate(timeout=60)
    finally:
        worker.kill()
        worker.wait()
    assert told.json()["role"] == "worker"
    assert rest == ""


# Several with one command


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended stays until somebody asks how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until_ready(address: str, count: int) -> None:
    """Wait until so many processes have a lease."""
    with trio.fail_after(60):
        async with httpx.AsyncClient(timeout=5) as http:
            while True:
                with suppress(httpx.HTTPError):
                    if (await http.get(f"{address}ready")).json().get("processes") == count:
                        return
                await trio.sleep(0.1)


async def test_one_command_starts_several_processes_at_one_address(redis: RedisServer) -> None:
    options = ("--processes", "2", "--store", redis.url(), "--lease", "2")
    with serving("--no-ws", *options) as server:
        await until_ready(server.page, 2)
        parent = server.process.pid
        first, second = children_of(parent)
        os.kill(first, signal.SIGKILL)
        with trio.fail_after(60):
            # The one that is gone counts until its lease is over, and another may be there by then.
            while first in (there := children_of(parent)) or len(there) < 2:
                await trio.sleep(0.1)
        await until_ready(server.page, 2)
        assert second in there
        status, errors = await trio.to_thread.run_sync(server.end, signal.SIGTERM)
        assert status == 0
        assert "a process has ended with status -9" in errors


async def test_who_cannot_begin_in_the_place_of_another_ends_nobody(tmp_path: Path) -> None:
    """As where the store is away for longer than one who begins waits for it."""
    log = tmp_path / "log"
    with redis_server() as odd:
        options = ("--processes", "2", "--store", odd.url(), "--lease", "2")
        with serving("--no-ws", *options, log=log) as server:
            await until_ready(server.page, 2)
            first, second = children_of(server.process.pid)
            odd.ask("CONFIG SET maxmemory-policy allkeys-lru")
            os.kill(first, signal.SIGKILL)
            with trio.fail_after(60):
                while "ended with status 2" not in log.read_text():
                    assert server.process.poll() is None, log.read_text()
                    await trio.sleep(0.1)
            odd.ask("CONFIG SET maxmemory-policy noeviction")
            await until_ready(server.page, 2)
            assert second in children_of(server.process.pid)


async def test_who_is_told_to_stop_by_a_service_manager_and_by_the_parent_is_told_once(
    redis: RedisServer, tmp_path: Path
) -> None:
    """systemd sends SIGTERM to a service's main process, and to all that it has started."""
    (tmp_path / "slow.py").write_text(
        "import trio\n\n\nasync def agent(ctx, message):\n    await trio.sleep(3)\n"
    )
    options = ["--processes", "2", "--store", redis.url(), "--lease", "5", "--capacity", "1"]
    with serving("--no-ws", "--agent", "slow:agent", *options, cwd=tmp_path) as server:
        await until_ready(server.page, 2)
        children = children_of(server.process.pid)
        async with httpx.AsyncClient(timeout=20) as http, trio.open_nursery() as nursery:
            for _ in children:
                nursery.start_soon(http.get, f"{server.page}chat/stream?message=hi")
            with trio.fail_after(20):
                while (await http.get(f"{server.page}ready")).json()["owned"] < 2:
                    await trio.sleep(0.05)
            for child in children:
                os.kill(child, signal.SIGTERM)
            await trio.sleep(0.5)
            assert children == children_of(server.process.pid)
            status, errors = await trio.to_thread.run_sync(server.end, signal.SIGTERM)
            nursery.cancel_scope.cancel()
        assert status == 0
        assert errors.count("status=completed") == 2


async def test_processes_end_with_their_parent(redis: RedisServer) -> None:
    options = ("--processes", "2", "--store", redis.url(), "--lease", "2")
    with serving("--no-ws", *options) as server:
        await until_ready(server.page, 2)
        children = children_of(server.process.pid)
        assert len(children) == 2
        server.process.kill()
        with trio.fail_after(60):
            while any(map(is_alive, children)):
                await trio.sleep(0.1)


def test_processes_that_would_know_nothing_of_each_other_are_refused() -> None:
    assert "--processes 2: expected --store redis://HOST" in refused("--processes", "2")


def test_what_one_of_them_refuses_is_told_once(redis: RedisServer) -> None:
    given = ("--processes", "2", "--store", redis.url(), "--host", "0.0.0.0")
    command = [*FLOWTRIO, "serve", "--port", "0", "--no-ws", *given]
    told = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment(), check=False
    )
    assert told.returncode == 2
    assert "can't listen on 0.0.0.0 for anybody" in told.stderr


async def test_an_address_that_is_taken_is_told(redis: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = refused("--processes", "2", "--store", redis.url(), "--port", port)
        assert f"can't listen on 127.0.0.1:{port}" in told
        with pytest.raises(OSError, match="in use"):
            await open_listeners("127.0.0.1", int(port), is_shared=True)


async def test_a_shared_port_is_one_for_all_addresses_of_a_name() -> None:
    listeners = await open_listeners("localhost", 0, is_shared=True)
    ports = {listener.socket.getsockname()[1] for listener in listeners}
    for listener in listeners:
        await listener.aclose()
    assert len(ports) == 1


async def test_what_cannot_be_used_is_told_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flowtrio.cli import _stores

    monkeypatch.setattr(_stores, "_REACHED_WITHIN", 0.3)
    for url, words in (
        ("redis://u:secret@127.0.0.1:1", "can't reach the store"),
        ("redis://u:secret@", "without a host"),
        ("redis://u:secret@host/?x=1", "expected prefix"),
        ("rediss://u:secret@127.0.0.1:1?ca=/no/ca.pem", "No such file .*'/no/ca.pem'"),
    ):
        with pytest.raises(CannotServe, match=words) as exc:
            async with open_stores(url, None):
                pass
        assert "secret" not in str(exc.value)
    assert not is_shared("sqlite:x")


async def test_a_shared_store_makes_one_process_of_several(redis: RedisServer) -> None:
    sharing = Sharing(role="worker", lease=3, capacity=7)
    async with open_stores(redis.url(), 60, sharing) as given:
        assert (given["role"], given["lease"], given["capacity"]) == ("worker", 3, 7)
        assert given["store"].keep == 60
