"""Abuse of an application under uvicorn: those cases of the suite that reach the application.

What is below HTTP and below the framing of WebSockets is uvicorn's own business there: slow heads,
floods of pings, violations of the protocol, peers that vanish without a word.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from tests.serving.test_abuse import (  # noqa: F401
    AGENT,
    TOKEN,
    Target,
    test_a_token_that_is_offered_as_subprotocol_is_not_repeated,
    test_an_answer_in_sse_cannot_be_forged_by_what_is_said,
    test_bodies_that_do_not_come,
    test_clients_that_vanish_in_mid_stream,
    test_missing_wrong_and_guessed_tokens,
    test_odd_texts_are_messages_like_others,
    test_paths_that_lead_out,
    test_readers_that_read_no_more,
    test_requests_that_make_no_sense,
    test_wrong_and_look_alike_origins,
    test_wrong_commands_are_told,
)
from tests.support.command import environment

PROGRAM = f"""
from flowtrio import Orchestrator, ServerLimits
from flowtrio.asgi import create_app

{AGENT}

app = create_app(
    Orchestrator(agents=[agent]),
    token={TOKEN!r},
    resume_window=0.1,
    limits=ServerLimits(handshake=0.5, send=0.5, close=0.3, ping_interval=0.4, ping_timeout=0.8),
)
"""


@attrs.frozen
class Server:
    """uvicorn, as the suite sees a server."""

    process: subprocess.Popen[str]
    page: str


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("uvicorn-abuse")
    (folder / "odd.py").write_text(PROGRAM)
    with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "log").open("wb") as log:
        # As little as Trio's listeners have in hand; by itself the kernel takes megabytes.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "odd:app", "--fd", str(listener.fileno())]
        process = subprocess.Popen(
            [*command, "--timeout-graceful-shutdown", "5", "--log-level", "info"],
            stderr=log,
            stdout=log,
            text=True,
            env=environment(),
            cwd=folder,
            pass_fds=[listener.fileno()],
        )
    try:
        while "Uvicorn running" not in (folder / "log").read_text():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        server: Any = Server(process, f"http://127.0.0.1:{port}/")
        yield Target(server, {"http": port}, folder / "log")
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def port(target: Target) -> int:
    return target.ports["http"]


def test_it_ends_in_good_order_and_has_nothing_to_tell(target: Target) -> None:
    """The last of this file: what all the cases before it have left."""
    target.server.process.send_signal(signal.SIGTERM)
    assert target.server.process.wait(timeout=60) in (0, -signal.SIGTERM)
    told = target.log.read_text()

    assert 1011 not in target.codes
    # How uvicorn tells of an answer that was cut, since its client took nothing of it; and of
    # requests that are none.
    told = told.replace("ERROR:    ASGI callable returned without completing response.", "")
    told = told.replace("WARNING:  Invalid HTTP request received.", "")
    assert re.findall("(?i)error|traceback|exception|warning.*", told) == []
