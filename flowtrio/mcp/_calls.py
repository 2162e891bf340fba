"""Calls of a server's tools: what a server says while it works on one belongs to that call.

Progress and questions come in the task that reads from the server, which serves all calls of all
runs. It must not wait for any of them: so they are handed over to the call that they belong to, and
told by a task of that call's own, which ends with it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import attrs
import trio
from mcp import Client
from mcp.client import ClientRequestContext
from mcp_types import CallToolResult, ElicitRequestParams

from flowtrio._core._failures import leaves
from flowtrio._core._telling import tell

from ._questions import CANCELLED, Answer, answer_of

if TYPE_CHECKING:
    from flowtrio._agents._context import RunContext

_MAX_REPORTS = 64
"""Reports that wait for a slow reader; the oldest go, as later ones tell more."""

_current: ContextVar[ServerCall | None] = ContextVar("flowtrio_mcp_call", default=None)
"""The call that a task works for.

The SDK carries it over to what the server asks meanwhile, but for a server that is a process and
speaks a version from before 2026-07-28.
"""


class Calls:
    """The calls of one server's tools that are under way."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._active: dict[ServerCall, None] = {}

    async def run(
        self, ctx: RunContext, client: Client, name: str, arguments: dict[str, Any]
    ) -> CallToolResult:
        """Call a tool."""
        call = ServerCall(ctx)
        self._active[call] = None
        try:
            return await call.run(client, name, arguments)
        finally:
            del self._active[call]

    async def elicit(self, context: ClientRequestContext, params: ElicitRequestParams) -> Answer:
        """Ask the user of the run whose call the server works on; see the SDK's `Client`."""
        call = _current.get() or self._likely()
        if call is None:
            tell(30, "the MCP server %s asks, and no call tells whom: cancelled", self._label)
            return CANCELLED
        return await call.ask(params)

    def _likely(self) -> ServerCall | None:
        """The newest call, where all are of one run: another run's user is not to be asked."""
        runs = {(call.ctx.tenant_id, call.ctx.run_id) for call in self._active}
        return next(reversed(self._active)) if len(runs) == 1 else None


class ServerCall:
    """One call, for as long as the server works on it."""

    def __init__(self, ctx: RunContext) -> None:
        self.ctx = ctx
        self._nursery: trio.Nursery | None = None
        self._reports, self._unread = trio.open_memory_channel[dict[str, Any]](_MAX_REPORTS)

    async def run(self, client: Client, name: str, arguments: dict[str, Any]) -> CallToolResult:
        """Call the tool; being cancelled is told to the server."""
        try:
            async with trio.open_nursery() as self._nursery:
                told = trio.Event()
                self._nursery.start_soon(self._report, told)
                try:
                    return await self._call(client, name, arguments)
                finally:
                    self._reports.close()
                    await told.wait()
                    # The server has not waited for an answer that is still to come.
                    self._nursery.cancel_scope.cancel(reason="the server has answered")
        except BaseExceptionGroup as group:
            raise next(leaves(group)) from None

    async def _call(self, client: Client, name: str, arguments: dict[str, Any]) -> CallToolResult:
        token = _current.set(self)
        try:
            return await client.call_tool(name, arguments, progress_callback=self._note)
        finally:
            _current.reset(token)

    # What the server says meanwhile

    async def _note(self, progress: float, total: float | None, message: str | None) -> None:
        report = {"progress": progress, "total": total, "message": message}
        try:
            self._reports.send_nowait(report)
        except trio.WouldBlock:
            self._unread.receive_nowait()
            self._reports.send_nowait(report)
        except trio.ClosedResourceError:
            # Behind the answer.
            return

    async def _report(self, told: trio.Event) -> None:
        async for report in self._unread:
            await self.ctx.progress(report)
        told.set()

    async def ask(self, params: ElicitRequestParams) -> Answer:
        """Ask the user, in a task of this call."""
        question = _Question(params)
        try:
            assert self._nursery is not None
            self._nursery.start_soon(question.put, self.ctx)
        except RuntimeError:
            # The call has just ended.
            return CANCELLED
        return await question.wait()


@attrs.define(eq=False)
class _Question:
    """A server's question on its way to the user."""

    params: ElicitRequestParams
    _answer: Answer = CANCELLED
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _done: trio.Event = attrs.field(factory=trio.Event)

    async def put(self, ctx: RunContext) -> None:
        """Ask; the call's task."""
        try:
            with self._scope:
                self._answer = await answer_of(ctx, self.params)
        finally:
            self._done.set()

    async def wait(self) -> Answer:
        """Wait for the answer; the task that reads from the server."""
        try:
            await self._done.wait()
        finally:
            self._scope.cancel(reason="the server does not ask any more")
        return self._answer
