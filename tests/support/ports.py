"""Ports for programs that cannot tell which one they were given."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_dice: Final = random.SystemRandom()


def free_port() -> int:
    """A port of this machine that nobody has, nor gets meanwhile without asking for this one.

    One that the kernel chose would go to whoever connects or listens next: all other tests do.
    """
    first = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32768
    while True:
        port = _dice.randrange(first // 2, first)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
