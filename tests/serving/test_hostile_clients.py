"""A server in a process of its own, and all the clients that do harm."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import trio

from tests.support.command import Server, serving, talk
from tests.support.hostile_clients import CLIENTS, attack

LIMITS = ("--limit-handshake", "2", "--limit-send", "2", "--limit-close", "1")
GROWTH_MIB = 20.0
"""Of memory that stays, however often they come."""
ROUNDS = int(os.environ.get("FLOWTRIO_HOSTILE_ROUNDS", "1"))


def test_there_are_enough_of_them_and_each_is_another() -> None:
    assert len(CLIENTS) >= 73
    assert len({client.name for client in CLIENTS}) == len(CLIENTS)
    assert len({(c.sends, c.again, c.end, c.at_once, c.is_http) for c in CLIENTS}) == len(CLIENTS)


def attack_all(served: Server) -> None:
    ports = [urlsplit(url).port for url in (served.socket, served.page)]
    trio.run(attack, *ports, 8.0)


def resident_mib(served: Server) -> float:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def test_hostile_clients_leave_no_traceback_and_little_memory(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving("--resume-window", "0", *LIMITS, log=log) as served:
        talk(served.socket, "hello")
        httpx.get(f"{served.page}health").raise_for_status()
        before = resident_mib(served)
        for _ in range(ROUNDS):
            attack_all(served)

        assert talk(served.socket, "hello")[-1]["data"]["status"] == "completed"
        assert httpx.get(f"{served.page}ready").status_code == 200
        grown = resident_mib(served) - before
    told = log.read_text()

    assert "Traceback" not in told
    assert " ERROR " not in told, told
    assert grown < GROWTH_MIB, f"{grown:.1f} MiB more"


def test_a_traceback_would_be_seen(tmp_path: Path) -> None:
    """What a server logs is in the file: else its silence would say nothing."""
    log = tmp_path / "log"
    with serving(log=log) as served:
        talk(served.socket, "hello")
    assert "status=completed" in log.read_text()
