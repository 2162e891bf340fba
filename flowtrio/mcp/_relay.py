"""One run for the client of an MCP server: its events as progress, its questions as elicitation.

A server of the older protocol asks while it works on a request. In the newer one it answers the
request with what it wants to know, and the client sends the request again, with the answers and
with a state that it gives back as it got it: which run, and where in its log. The run itself has
waited meanwhile.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from mcp.server import ServerRequestContext
from mcp_types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._failures import leaves
from flowtrio._run._controls import run_of
from flowtrio.serving.commands._conceal import conceal

from ._giving import given_result
from ._putting import Put, put_of

if TYPE_CHECKING:
    from flowtrio._hosting._follower import Follower
    from flowtrio._hosting._hosted import HostedRun


class Relay:
    """Reads a run, and tells the client of it."""

    def __init__(
        self,
        context: ServerRequestContext[Any],
        follower: Follower,
        hosted: HostedRun | None,
        *,
        debug: bool,
    ) -> None:
        self._hosted = hosted
        """The run, where it is here: events tell of images and files, and do not have them."""
        self._session = context.session
        self._request_id = context.request_id
        self._follower = follower
        self._debug = debug
        self._told = 0
        self._error = ""

    async def run(self) -> CallToolResult | InputRequiredResult:
        """Read to the end, or to a question that the client has to answer first."""
        result: CallToolResult | InputRequiredResult | None = None
        try:
            async with self._follower, trio.open_nursery() as nursery:
                while result is None:
                    event = await anext(self._follower)
                    event = event if self._debug else conceal(event)
                    result = await self._take(event, nursery)
                nursery.cancel_scope.cancel(reason="the request is answered")
        except BaseExceptionGroup as group:
            raise next(leaves(group)) from None
        return result

    async def _take(
        self, event: AgentEvent, nursery: trio.Nursery
    ) -> CallToolResult | InputRequiredResult | None:
        """Tell of an event; gives what the request is answered with, if it is by that."""
        if event.type is EventType.DONE:
            return self._result(event.data)
        if event.type is EventType.ERROR:
            self._error = event.data["error"]
        elif (put := put_of(event)) is not None:
            return self._put(put, event.seq, nursery)
        elif (words := _words(event)) is not None:
            self._told += 1
            await self._session.report_progress(self._told, None, words)
        return None

    def _result(self, data: dict[str, Any]) -> CallToolResult:
        if data["status"] != "completed":
            words = self._error or f"the run was {data['status']}"
            return CallToolResult(content=[TextContent(text=words)], is_error=True)
        told = data["result"]
        value = told if self._hosted is None else run_of(self._hosted.stream).result()
        return given_result(value, told, self._follower.run_id)

    # People

    def _put(self, put: Put, seq: int, nursery: trio.Nursery) -> InputRequiredResult | None:
        capabilities = self._session.client_capabilities
        if capabilities is None or capabilities.elicitation is None:
            put.settle(self._follower, None)
            return None
        if self._session.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            nursery.start_soon(self._elicit, put)
            return None
        params = ElicitRequestFormParams(message=put.words, requested_schema=put.schema)
        return InputRequiredResult(
            input_requests={put.key: ElicitRequest(params=params)},
            request_state=f"{self._follower.run_id}:{seq}",
        )

    async def _elicit(self, put: Put) -> None:
        reply: ElicitResult | None = None
        # A client that fails at it is one that cannot be asked.
        with suppress(Exception):
            reply = await self._session.elicit_form(put.words, put.schema, self._request_id)
        put.settle(self._follower, reply)


def _words(event: AgentEvent) -> str | None:
    """An event as progress, where it is any."""
    data = event.data
    match event.type:
        case EventType.STATE_CHANGE:
            return data["reason"] or None
        case EventType.TOOL_CALL_START:
            return f"{data['tool_name']} …"
        case EventType.TOOL_PROGRESS:
            progress = data["progress"]
            text = progress if isinstance(progress, str) else json.dumps(progress)
            return f"{data['tool_name']}: {text}"
        case EventType.TOOL_CALL_END:
            return f"{data['tool_name']}: {data['error'] or data['outcome']}"
        case EventType.AGENT_START:
            return f"{data['agent']} …"
        case _:
            return None
