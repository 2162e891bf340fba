"""One run for the client of an MCP server: its events as progress, its questions as elicitation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from mcp.server import ServerRequestContext
from mcp_types import CallToolResult, ElicitResult, TextContent

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._failures import leaves
from flowtrio.serving.commands._conceal import conceal

if TYPE_CHECKING:
    from flowtrio._run._stream import EventStream

_APPROVAL: dict[str, Any] = {
    "type": "object",
    "properties": {"approve": {"type": "boolean", "title": "Approve"}},
    "required": ["approve"],
}
_ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string", "title": "Answer"}},
    "required": ["answer"],
}


class Relay:
    """Reads a run, and tells the client of it."""

    def __init__(
        self, context: ServerRequestContext[Any], stream: EventStream, *, debug: bool
    ) -> None:
        self._context = context
        self._stream = stream
        self._debug = debug
        self._told = 0
        self._error = ""
        self._last: AgentEvent

    async def run(self) -> CallToolResult:
        """Read to the end; gives the answer, or what went wrong."""
        try:
            async with self._stream as stream, trio.open_nursery() as nursery:
                async for event in stream:
                    await self._tell(event if self._debug else conceal(event), nursery)
                    self._last = event
                nursery.cancel_scope.cancel(reason="the run has ended")
        except BaseExceptionGroup as group:
            raise next(leaves(group)) from None
        return self._result(self._last.data)

    def _result(self, data: dict[str, Any]) -> CallToolResult:
        if data["status"] != "completed":
            words = self._error or f"the run was {data['status']}"
            return CallToolResult(content=[TextContent(text=words)], is_error=True)
        value = data["result"]
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        structured = value if isinstance(value, dict) else None
        return CallToolResult(content=[TextContent(text=text)], structured_content=structured)

    async def _tell(self, event: AgentEvent, nursery: trio.Nursery) -> None:
        data = event.data
        match event.type:
            case EventType.APPROVAL_REQUIRED:
                nursery.start_soon(self._ask_approval, data)
            case EventType.INPUT_REQUIRED:
                nursery.start_soon(self._ask_input, data)
            case EventType.ERROR:
                self._error = data["error"]
            case EventType.STATE_CHANGE if data["reason"]:
                await self._progress(data["reason"])
            case EventType.TOOL_CALL_START:
                await self._progress(f"{data['tool_name']} …")
            case EventType.TOOL_PROGRESS:
                await self._progress(f"{data['tool_name']}: {_text(data['progress'])}")
            case EventType.TOOL_CALL_END:
                await self._progress(f"{data['tool_name']}: {data['error'] or data['outcome']}")
            case EventType.AGENT_START:
                await self._progress(f"{data['agent']} …")

    async def _progress(self, text: str) -> None:
        self._told += 1
        await self._context.session.report_progress(self._told, None, text)

    # People

    async def _ask_approval(self, data: dict[str, Any]) -> None:
        words = f"Approve {data['tool_name']} with {_text(data['arguments'])}?"
        reply = await self._elicit(words, _APPROVAL)
        if reply is not None and (reply.content or {}).get("approve") is True:
            self._stream.approve(data["call_id"])
        else:
            self._stream.deny(data["call_id"], None if reply else "nobody can be asked")

    async def _ask_input(self, data: dict[str, Any]) -> None:
        is_form = (data["schema"] or {}).get("type") == "object"
        reply = await self._elicit(data["prompt"], data["schema"] if is_form else _ANSWER)
        if reply is None or reply.action != "accept":
            # It times out, as where there is no reader.
            return
        elif is_form:
            self._stream.answer(data["request_id"], _text(reply.content))
        else:
            self._stream.answer(data["request_id"], str((reply.content or {}).get("answer", "")))

    async def _elicit(self, words: str, schema: dict[str, Any]) -> ElicitResult | None:
        """Ask the client's user; None where there is nobody to ask."""
        session = self._context.session
        capabilities = session.client_capabilities
        if capabilities is None or capabilities.elicitation is None:
            return None
        try:
            return await session.elicit_form(words, schema, self._context.request_id)
        except Exception:
            # Newer versions of the protocol have no way back while a request is worked on.
            return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
