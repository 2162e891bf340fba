"""An agent as a tool of an MCP server: for other people's agents and editors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import trio
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ElicitResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from flowtrio._core._exceptions import FlowtrioError
from flowtrio._core._failures import words_of
from flowtrio._hosting._hosted import HostedRun
from flowtrio._hosting._service import Service

from ._putting import settle
from ._relay import Relay

if TYPE_CHECKING:
    from flowtrio._hosting._orchestrator import Orchestrator

_RESUME_WINDOW = 60
"""Seconds that a run goes on whose client does not come back; one that waits for it goes on."""

_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "minLength": 1, "description": "What to ask."},
        "session_id": {
            "type": "string",
            "minLength": 1,
            "description": "A conversation that goes on; without one, nothing is remembered.",
        },
    },
    "required": ["message"],
    "additionalProperties": False,
}


def mcp_server(
    orchestrator: Orchestrator,
    *,
    name: str = "ask_agent",
    description: str = "Ask the agent, and give its answer.",
    tenant_id: str = "default",
    debug: bool = False,
) -> Server[Any]:
    """Make a server of the official SDK with one tool: it asks the agent.

    The tool takes a ``message``, and a ``session_id`` for a conversation. What the run does is told
    as progress. Approvals and questions are put to the client by elicitation; where it cannot be
    asked, approvals are denied. A client that cancels its request cancels the run. The orchestrator
    is opened for as long as the server runs, unless it is open.

    Args:
      orchestrator: Who answers.
      name: The tool's name.
      description: What other agents are told of it.
      tenant_id: Whose the runs are.
      debug: Whether exceptions of tools and agents are told with their texts.

    """
    service = Service(orchestrator)

    async def list_tools(
        context: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        tool = Tool(name=name, description=description, input_schema=_PARAMETERS)
        return ListToolsResult(tools=[tool])

    async def call_tool(
        context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult:
        try:
            run_id, after, hosted = await place(params)
        except (FlowtrioError, ValueError) as exc:
            return CallToolResult(content=[TextContent(text=words_of(exc))], is_error=True)
        follower = orchestrator.attach(run_id, after, tenant_id, "events")
        for key, reply in (params.input_responses or {}).items():
            if isinstance(reply, ElicitResult):
                settle(follower, key, reply)
        try:
            return await Relay(context, follower, hosted, debug=debug).run()
        except LookupError as exc:
            return CallToolResult(content=[TextContent(text=words_of(exc))], is_error=True)
        except trio.Cancelled:
            follower.cancel("the client has cancelled its request")
            raise

    async def place(params: CallToolRequestParams) -> tuple[str, int, HostedRun | None]:
        """The run that is asked for, a new one or one that goes on, and where it is read from."""
        if params.name != name:
            raise ValueError(f"there is no tool {params.name!r}")
        if params.request_state is not None:
            run_id, after = _read_state(params.request_state)
            return run_id, after, service.recorder.find(tenant_id, run_id)
        given = _checked(params.arguments or {})
        session_id = given.get("session_id")
        async with service.starting(
            None, given["message"], tenant_id, session_id, None, _RESUME_WINDOW
        ) as started:
            return started.run_id, -1, started if isinstance(started, HostedRun) else None

    @asynccontextmanager
    async def opened(server: Server[Any]) -> AsyncIterator[dict[str, Any]]:
        if orchestrator.is_open:
            yield {}
        else:
            async with orchestrator:
                yield {}

    return Server(
        "flowtrio",
        lifespan=opened,
        version=version("flowtrio"),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments, if they fit."""
    if unknown := given.keys() - _PARAMETERS["properties"].keys():
        raise ValueError(f"unknown arguments: {', '.join(sorted(unknown))}")
    for key in _PARAMETERS["properties"]:
        value = given.get(key)
        if (key in given or key == "message") and not (isinstance(value, str) and value):
            raise ValueError(f"{key}: expected a text that is not empty")
    return given


def _read_state(state: str) -> tuple[str, int]:
    run_id, _, seq = state.rpartition(":")
    if not seq.isdecimal():
        raise ValueError("this is no state that was given here")
    return run_id, int(seq)


async def serve_mcp(
    orchestrator: Orchestrator,
    *,
    name: str = "ask_agent",
    description: str = "Ask the agent, and give its answer.",
    tenant_id: str = "default",
    debug: bool = False,
) -> None:
    """Serve an agent as an MCP server on standard input and output, until the client is gone.

    See `mcp_server`, which makes the server for other transports.
    """
    server = mcp_server(
        orchestrator, name=name, description=description, tenant_id=tenant_id, debug=debug
    )
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
