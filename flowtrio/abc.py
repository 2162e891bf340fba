"""The interfaces: what flowtrio asks of the parts that others may bring."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

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
