"""``--mcp``: the servers whose tools a served agent has."""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from ._load import UsageError

if TYPE_CHECKING:
    from flowtrio.abc import Toolset

_NAMED = re.compile(r"(?:([A-Za-z0-9_-]+)=)?(.*)", re.DOTALL)
"""``git_=uvx mcp-server-git``: two servers may have tools of one name."""


@asynccontextmanager
async def open_servers(given: Sequence[str]) -> AsyncIterator[list[Toolset]]:
    """Connect to what ``--mcp`` names, each an address or a command; gives their tools.

    A name and ``=`` before it stand before the names of its tools.

    Raises:
      UsageError: something is missing, or a server cannot be reached.

    """
    if not given:
        yield []
        return
    try:
        from flowtrio.mcp import mcp_tools
    except ImportError as exc:
        raise UsageError(str(exc).replace("flowtrio.mcp", "--mcp", 1)) from None
    async with AsyncExitStack() as stack:
        toolsets: list[Toolset] = []
        for named in given:
            prefix, server = _NAMED.findall(named)[0]
            try:
                connecting = mcp_tools(_place(server), prefix=prefix)
                toolsets.append(await stack.enter_async_context(connecting))
            except (ConnectionError, ValueError) as exc:
                raise UsageError(f"--mcp: {exc}") from None
        yield toolsets


def _place(server: str) -> str | list[str]:
    """An address, or a command as its words."""
    is_address = server.startswith(("http://", "https://"))
    return server if is_address else shlex.split(server)
