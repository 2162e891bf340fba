"""Where a chat's runs are: in this process, or on a server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import attrs
import trio

from flowtrio._core._events import AgentEvent, AgentStatus
from flowtrio._core._exceptions import FlowtrioError
from flowtrio._core._parts import Part
from flowtrio._hosting._orchestrator import Orchestrator


class Run(AsyncIterable[AgentEvent], Protocol):
    """What a chat needs of a run, here or on a server: `flowtrio.EventStream` is one."""

    def cancel(self, reason: str | None = None) -> bool:
        """End it on purpose."""
        ...

    def approve(self, call_id: str, arguments: Mapping[str, Any] | None = None) -> bool:
        """Let a call begin."""
        ...

    def deny(self, call_id: str, reason: str | None = None) -> bool:
        """Refuse a call."""
        ...

    def answer(self, request_id: str, value: Any) -> bool:
        """Answer a question."""
        ...

    def dismiss(self, request_id: str, reason: str | None = None) -> bool:
        """Decline to answer one."""
        ...

    def post(self, message: str | Sequence[Part], interrupt: bool = False) -> bool:
        """Say something before the model's next reply."""
        ...


class Source(Protocol):
    """Where a chat's runs are: an orchestrator in this process, or a server."""

    def start(self, message: str | Sequence[Part]) -> AbstractAsyncContextManager[Run]:
        """Start the run that answers *message*, in the chat's one conversation."""
        ...


@attrs.frozen
class LocalSource:
    """Runs in this process."""

    orchestrator: Orchestrator

    def start(self, message: str | Sequence[Part]) -> AbstractAsyncContextManager[Run]:
        """See `Source`."""
        return self.orchestrator.process_stream(message, session_id="chat")


class RemoteError(Exception):
    """A server cannot be reached, is lost, or refuses."""

    def __init__(self, message: str, *, has_begun: bool) -> None:
        super().__init__(message)
        self.has_begun = has_begun
        """Whether the run had begun."""


@attrs.frozen
class RemoteSource:
    """Runs on a server, all of one conversation."""

    url: str
    """Address of its WebSocket."""
    token: str | None = attrs.field(default=None, repr=False)
    patience: float = 30
    """Seconds without a connection after which a run is given up."""
    _session_id: str = attrs.Factory(lambda: secrets.token_urlsafe(16))

    @asynccontextmanager
    async def start(self, message: str | Sequence[Part]) -> AsyncIterator[Run]:
        """See `Source`."""
        # A chat without a server needs none of what this imports.
        from flowtrio.remote._connect import connect

        async with AsyncExitStack() as stack:
            opening = connect(self.url, token=self.token, patience=self.patience)
            try:
                remote = await stack.enter_async_context(opening)
            except ConnectionError as exc:
                raise RemoteError(str(exc), has_begun=False) from None
            run = remote.process_stream(message, self._session_id)
            await stack.enter_async_context(run)
            try:
                yield run
            except (KeyError, IndexError):
                raise  # of our own making, and no unknown run
            except (trio.BrokenResourceError, FlowtrioError, LookupError) as exc:
                has_begun = run.status is not AgentStatus.INITIALIZING
                raise RemoteError(_failure(exc, has_begun), has_begun=has_begun) from None


def _failure(exc: Exception, has_begun: bool) -> str:
    if isinstance(exc, trio.BrokenResourceError):
        return str(exc)
    return f"{'lost the run' if has_begun else 'no run'}: {exc}"
