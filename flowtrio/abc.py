"""The interfaces: what flowtrio asks of the parts that others may bring."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import attrs

from flowtrio._core._chunks import Chunk

if TYPE_CHECKING:
    from flowtrio._runtime._context import RunContext

Message: TypeAlias = dict[str, Any]
"""One message of a conversation, in the shape of OpenAI's chat completions.

``content`` is text or a list of parts. The one private key ``flowtrio`` may stand beside the
standard ones: ``{"partial": True}`` marks text that ended early, ``carry`` is what a provider wants
back. Codecs strip it.
"""

ToolSpec: TypeAlias = dict[str, Any]
"""A tool as clients are told of it, in the shape of OpenAI's chat completions:
``{"type": "function", "function": {"name", "description", "parameters"}}``, where the parameters
are a JSON Schema of type object."""


@runtime_checkable
class LLMClient(Protocol):
    """A model that streams."""

    def stream_completion(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """Ask for one reply.

        Gives chunks, the last one with ``is_final``. May be a plain async generator. Whoever asked
        closes the iterator (``aclose``) on every path where it has one.
        """
        ...


class AgentLike(Protocol):
    """Anything that can be run: `flowtrio.Agent`, or any ``async def agent(ctx, message)``."""

    def __call__(self, ctx: RunContext, message: str, /) -> Awaitable[Any]:
        """Do the job; what it returns is the run's result."""
        ...


class ConversationStore(Protocol):
    """Keeps what was said in conversations, each a ``(tenant_id, session_id)``."""

    async def load(self, tenant_id: str, session_id: str) -> list[Message]:
        """Give the conversation so far, oldest first; empty if there is none."""
        ...

    async def save(self, tenant_id: str, session_id: str, messages: Sequence[Message]) -> None:
        """Replace the conversation by *messages*."""
        ...

    async def delete(self, tenant_id: str, session_id: str) -> None:
        """Forget the conversation; nothing happens if there is none."""
        ...


@attrs.frozen(kw_only=True)
class Request:
    """A client's request as ``authenticate`` sees it, the same on all transports."""

    path: str
    """Path of the address, without the query."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """By lower-case name; several of one name are joined by ``", "``."""
    cookies: Mapping[str, str] = attrs.field(repr=False)
    """By name."""
    query: Mapping[str, str] = attrs.field(repr=False)
    """By name; the last one where a name stands twice."""
    client: str | None
    """Address of the other side, without the port; None where there is none."""


class Authenticate(Protocol):
    """Says whose a request is."""

    def __call__(self, request: Request, /) -> str | Awaitable[str | None] | None:
        """Give the tenant, or None to refuse. May be async; has the handshake's time."""
        ...
