"""``flowtrio serve --processes N``: several, each a whole server at the same address.

The first process is only their parent. It reserves the ports, starts the others with the same
options, and starts another one where one ends that was not told to. They share nothing but the
store; the kernel gives each connection to one of them. When the parent is gone, in whatever way,
their standard input ends, and they stop as they do on SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import trio

from flowtrio.serving._listening import bind_shared

from ._stores import CannotServe, is_shared

logger: logging.Logger = logging.getLogger("flowtrio")

_PAUSE: Final = 1.0
"""Seconds until another one is started in the place of one that has ended."""
STOP: Final = getattr(signal, "SIGUSR1", signal.SIGTERM)
"""How they are told to stop by their parent. Not as by others: a service manager tells the parent
and all that it has started, and who is told twice leaves at once."""
_REFUSED: Final = 2
"""The status of one that has said why it does not start."""


def check_processes(options: argparse.Namespace) -> None:
    """Refuse several processes whose store is none that they share, by `CannotServe`."""
    if not is_shared(options.store):
        raise CannotServe(
            f"--processes {options.processes}: expected --store redis://HOST, to be shared"
        )


async def serve_many(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Be the parent of processes that serve by these *arguments*; gives the exit status."""
    check_processes(options)
    with ExitStack() as reserved:
        ports = list[str]()
        wanted = [("--port", options.port, options.no_http)]
        wanted.append(("--ws-port", options.ws_port, options.no_ws or options.role == "worker"))
        for option, port, is_unwanted in wanted:
            if is_unwanted:
                continue
            try:
                sockets = await bind_shared(options.host, port)
            except OSError as exc:
                words = f"can't listen on {options.host}:{port}: {exc.strerror or exc}"
                raise CannotServe(words) from None
            for sock in sockets:
                reserved.callback(sock.close)
            ports += [option, str(sockets[0].getsockname()[1])]
        command = [sys.executable, "-m", "flowtrio", "serve", *arguments]
        parent = Parent([*command, "--processes", "1", "--shared-ports", *ports])
        return await parent.live(options.processes)


class Parent:
    """The parent of processes that do the same."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._running: set[trio.Process] = set()
        self._stopping = trio.Event()
        self._status = 0

    async def live(self, count: int) -> int:
        """Have so many run until a signal comes; gives the exit status."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_all, count, nursery)
                async for _ in signals:
                    # The second one is for those that have not ended by the first.
                    self._stop()
        return self._status

    async def _keep_all(self, count: int, around: trio.Nursery) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(count):
                # One of them says where all are.
                nursery.start_soon(self._keep, None if number == 0 else subprocess.DEVNULL)
        around.cancel_scope.cancel(reason="all processes have ended")

    async def _keep(self, output: int | None) -> None:
        """Have one of them run, and another one after it."""
        has_begun = False
        while not self._stopping.is_set():
            # A group of their own: Ctrl-C in a terminal comes to them from here, once.
            process = await trio.lowlevel.open_process(
                self._command, stdin=subprocess.PIPE, stdout=output, process_group=0
            )
            self._running.add(process)
            if self._stopping.is_set():
                process.send_signal(STOP)
            status = await process.wait()
            self._running.discard(process)
            assert process.stdin is not None
            await process.stdin.aclose()
            if self._stopping.is_set():
                self._status = max(self._status, status if status > 0 else 0)
            elif status == _REFUSED and not has_begun:
                self._status = status
                self._stop()
            else:
                # One that is refused in the place of another is refused for a while: its store is
                # away. That is no reason to end those that wait for it.
                logger.error("a process has ended with status %s: another one begins", status)
                has_begun, output = True, subprocess.DEVNULL
                await trio.sleep(_PAUSE)

    def _stop(self) -> None:
        self._stopping.set()
        for process in self._running:
            process.send_signal(STOP)


async def stop_at_end_of_input() -> None:
    """Be told to stop when the parent is gone."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        while await stream.receive_some():
            pass
    signal.raise_signal(signal.SIGTERM)
