"""Sockets to listen at, alone or together with other processes of this machine."""

from __future__ import annotations

from typing import Final

import trio

_BACKLOG: Final = 1024


async def open_listeners(
    host: str | None, port: int, *, is_shared: bool = False
) -> list[trio.SocketListener]:
    """Listen at an address; with *is_shared*, beside others that do so too.

    The kernel then gives each connection to one of them.

    Raises:
      OSError: it cannot be listened at.

    """
    if not is_shared:
        return await trio.open_tcp_listeners(port, host=host)
    listeners: list[trio.SocketListener] = []
    try:
        for sock in await bind_shared(host, port):
            sock.listen(_BACKLOG)
            listeners.append(trio.SocketListener(sock))
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners


async def bind_shared(host: str | None, port: int) -> list[trio.socket.SocketType]:
    """Bind sockets to an address that other processes may bind too; 0 for any port.

    Raises:
      OSError: they cannot be bound, or the system shares no ports.

    """
    if not hasattr(trio.socket, "SO_REUSEPORT"):
        raise OSError("this system does not share a port among processes")
    found = await trio.socket.getaddrinfo(
        host, port, type=trio.socket.SOCK_STREAM, flags=trio.socket.AI_PASSIVE
    )
    bound: list[trio.socket.SocketType] = []
    try:
        for family, kind, protocol, _, address in found:
            sock = trio.socket.socket(family, kind, protocol)
            bound.append(sock)
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEPORT, 1)
            if family == trio.socket.AF_INET6:
                sock.setsockopt(trio.socket.IPPROTO_IPV6, trio.socket.IPV6_V6ONLY, 1)
            chosen = bound[0].getsockname()[1] if port == 0 and len(bound) > 1 else port
            await sock.bind((address[0], chosen, *address[2:]))
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound
