"""Which server, and how it is reached: a process, an address, or a server in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import attrs
import httpx2
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.server.mcpserver import MCPServer

from flowtrio._core._values import told

McpServer: TypeAlias = (
    str
    | Sequence[str]
    | StdioServerParameters
    | Server[Any]
    | MCPServer
    | Callable[[], AbstractAsyncContextManager[Any]]
)
"""What `mcp_tools` connects to: an address, a command and its arguments, the SDK's parameters of
one, a server in this process, or a function that makes a transport of the SDK."""


@attrs.frozen
class Place:
    """Where a server is."""

    label: str
    """What it is called in messages; without what may be secret."""
    connect: Callable[[], Any]
    """Gives what the SDK's client connects to, anew for each connection."""


def place_of(server: McpServer, http_client: httpx2.AsyncClient | None) -> Place:
    """Read what `mcp_tools` was given.

    Raises:
      TypeError: it is nothing that can be connected to, or *http_client* has nothing to do.
      ValueError: it is no address, or a command without a name.

    """
    if http_client is not None and not isinstance(server, str):
        raise TypeError(f"http_client= is for a server's address, got {told(server)}")
    match server:
        case str():
            return _at_address(server, http_client)
        case StdioServerParameters():
            return Place(server.command, lambda: stdio_client(server))
        case MCPServer() | Server():
            return Place(server.name, lambda: server)
        case list() | tuple():
            if not server or not all(isinstance(word, str) and word for word in server):
                raise ValueError(f"server={told(server)}: expected a command and its arguments")
            parameters = StdioServerParameters(command=server[0], args=list(server[1:]))
            return Place(server[0], lambda: stdio_client(parameters))
        case _ if callable(server):
            return Place(getattr(server, "__name__", "server"), server)
        case _:
            raise TypeError(
                f"server={told(server)}: expected an address, a command and its arguments as a "
                "list, StdioServerParameters, a server, or a function that makes a transport"
            )


def _at_address(url: str, http_client: httpx2.AsyncClient | None) -> Place:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            "server=...: expected an address that begins with http:// or https://; a command is a "
            "list of its words"
        )
    # Without user, password and query, which may be secret.
    label = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return Place(label, lambda: streamable_http_client(url, http_client=http_client))
