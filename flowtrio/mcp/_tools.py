"""A server's tools as a toolset."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx2
import trio
from mcp import Client, MCPError
from mcp.client.client import ConnectMode
from mcp_types import METHOD_NOT_FOUND
from mcp_types import Tool as ServerTool

from flowtrio._agents._tools import Tool
from flowtrio._core._failures import leaves
from flowtrio._core._telling import tell
from flowtrio._core._values import told

from ._calls import Calls
from ._content import result_of
from ._link import Link
from ._place import McpServer, place_of

if TYPE_CHECKING:
    from flowtrio._agents._context import RunContext

Approval: TypeAlias = bool | Collection[str] | Callable[[str, dict[str, Any]], bool]
"""Which calls a person approves: all or none, those of these names, or a function of the tool's
name and the arguments."""

_MAX_PAGES = 100
"""Pages of a server's list of tools."""


@asynccontextmanager
async def mcp_tools(
    server: McpServer,
    *,
    prefix: str = "",
    only: Collection[str] | None = None,
    approval: Approval = False,
    http_client: httpx2.AsyncClient | None = None,
    mode: ConnectMode = "auto",
    seconds: float = 30,
) -> AsyncIterator[McpTools]:
    """Connect to an MCP server for a block, and give its tools as a toolset.

    ``async with mcp_tools("https://…/mcp") as tools: Agent(tools=[tools], …)``. Around the program
    or the orchestrator, not inside a tool: the connection serves all runs.

    Args:
      server: An address (streamable HTTP); a command and its arguments as a list, or the SDK's
        ``StdioServerParameters`` (a process of one's own, with a bare environment); the SDK's
        ``Server`` or ``MCPServer`` (in this process); or a function that makes a transport.
      prefix: Stands before the names of its tools.
      only: The names, as the server has them, of the tools that are offered; all by default.
      approval: Which calls a person has to approve first; see `Tool.needs_approval`.
      http_client: Sends the requests to an address, with its headers and its authentication.
      mode: Which version of the protocol is spoken; see the SDK's ``Client``.
      seconds: For connecting, and for listing the tools.

    Raises:
      ConnectionError: there is no connection to be had at the beginning.
      TypeError: *server* is nothing to connect to, or another argument is of another type.
      ValueError: *server* is no address or command.

    """
    place = place_of(server, http_client)
    calls = Calls(place.label)

    def make() -> Client:
        # Lists are asked for at each turn, and a server that has died has none.
        return Client(place.connect(), mode=mode, elicitation_callback=calls.elicit, cache=None)

    link = Link(make, place.label, seconds)
    tools = McpTools(link, calls, place.label, prefix, only, approval, seconds)
    error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run, name=f"MCP server {place.label}")
            try:
                await link.connect()
                yield tools
            except BaseException as exc:
                # Kept out of the nursery, which would wrap it into a group.
                error = exc
            finally:
                link.close()
    except BaseExceptionGroup as group:
        # Ctrl-C in the connection's task.
        raise next(leaves(group)) from None
    if error is not None:
        raise error


class McpTools:
    """The tools of one MCP server; a toolset. Made by `mcp_tools`."""

    def __init__(
        self,
        link: Link,
        calls: Calls,
        label: str,
        prefix: str,
        only: Collection[str] | None,
        approval: Approval,
        seconds: float,
    ) -> None:
        if not isinstance(prefix, str):
            raise TypeError(f"prefix={told(prefix)}: expected a text")
        if isinstance(only, str):
            raise TypeError(f"only={told(only)}: expected names, got a text")
        asked: object = approval
        # What an async function gives is true whatever it would have said.
        is_none = isinstance(approval, str) or inspect.iscoroutinefunction(asked)
        if is_none or not isinstance(approval, Collection | bool | Callable):
            raise TypeError(
                f"approval={told(approval)}: expected a bool, names, or a plain function of a "
                "tool's name and the arguments"
            )
        self._link = link
        self._calls = calls
        self._label = label
        self._prefix = prefix
        self._only = None if only is None else frozenset(only)
        self._approval = approval
        self._seconds = seconds
        self._made: dict[str, tuple[ServerTool, Tool[..., Any] | None]] = {}
        """What each tool was made of, which is dear, and None where none could be made."""

    def __repr__(self) -> str:
        return f"<McpTools of {self._label}>"

    async def tools(self, ctx: RunContext) -> Sequence[Tool[..., Any]]:
        """Ask the server which tools there are; none while it cannot be reached."""
        client = self._link.client
        listed = None if client is None else await self._list(client)
        if listed is None:
            client = await self._link.renewed(client)
            listed = None if client is None else await self._list(client)
        offered = [each for each in listed or () if self._only is None or each.name in self._only]
        self._made = {each.name: (each, self._tool(each)) for each in offered}
        return [tool for _, tool in self._made.values() if tool is not None]

    async def _list(self, client: Client) -> list[ServerTool] | None:
        """All pages of the list; None if the server does not give it."""
        found: list[ServerTool] = []
        cursor: str | None = None
        try:
            with trio.fail_after(self._seconds):
                for _ in range(_MAX_PAGES):
                    page = await client.list_tools(cursor=cursor)
                    found += page.tools
                    cursor = page.next_cursor
                    if cursor is None:
                        break
        except Exception as exc:
            if isinstance(exc, MCPError) and exc.code == METHOD_NOT_FOUND:
                # It has other things than tools.
                return []
            tell(logging.WARNING, "the MCP server %s lists no tools", self._label, exc=exc)
            return None
        return found

    def _tool(self, given: ServerTool) -> Tool[..., Any] | None:
        known, made = self._made.get(given.name, (None, None))
        if known == given:
            return made

        async def call(ctx: RunContext, arguments: dict[str, Any]) -> Any:
            return await self._call(ctx, given, arguments)

        try:
            return Tool.from_schema(
                call,
                name=self._prefix + given.name,
                description=given.description or given.title or "",
                parameters=given.input_schema,
                needs_approval=self._needs_approval(given.name),
            )
        except ValueError as exc:
            text = "the MCP server %s has a tool that cannot be offered: %s"
            tell(logging.WARNING, text, self._label, exc)
            return None

    def _needs_approval(self, name: str) -> bool | Callable[[dict[str, Any]], bool]:
        match self._approval:
            case bool():
                return self._approval
            case Collection():
                return name in self._approval
            case ask:
                return partial(ask, name)

    async def _call(self, ctx: RunContext, given: ServerTool, arguments: dict[str, Any]) -> Any:
        client = self._link.client
        if client is None:
            await trio.lowlevel.checkpoint()
            raise ConnectionError(f"there is no connection to the MCP server {self._label}")
        result = await self._calls.run(ctx, client, given.name, arguments)
        return result_of(result, given.output_schema)
