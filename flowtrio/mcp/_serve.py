"""An agent as a tool of an MCP server: for other people's agents and editors."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from ._relay import Relay

if TYPE_CHECKING:
    from flowtrio._hosting._orchestrator import Orchestrator

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
    as progress. Approvals and questions are put to the client by elicitation; a client that cannot
    be asked denies and answers nothing. A client that cancels its request cancels the run.

    Args:
      orchestrator: Who answers.
      name: The tool's name.
      description: What other agents are told of it.
      tenant_id: Whose the runs are.
      debug: Whether exceptions of tools and agents are told with their texts.

    """

    async def list_tools(
        context: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        tool = Tool(name=name, description=description, input_schema=_PARAMETERS)
        return ListToolsResult(tools=[tool])

    async def call_tool(
        context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        given = params.arguments or {}
        words = _misfit(given) if params.name == name else f"there is no tool {params.name!r}"
        if words is not None:
            return _failed(words)
        stream = orchestrator.process_stream(
            given["message"], tenant_id, given.get("session_id"), mode="events"
        )
        return await Relay(context, stream, debug=debug).run()

    return Server(
        "flowtrio",
        version=version("flowtrio"),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _misfit(given: dict[str, Any]) -> str | None:
    """What is wrong with a call's arguments, if anything is."""
    if unknown := given.keys() - _PARAMETERS["properties"].keys():
        return f"unknown arguments: {', '.join(sorted(unknown))}"
    for key in _PARAMETERS["properties"]:
        value = given.get(key)
        if (key in given or key == "message") and not (isinstance(value, str) and value):
            return f"{key}: expected a text that is not empty"
    return None


def _failed(words: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=words)], is_error=True)


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
