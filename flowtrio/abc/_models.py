"""What flowtrio asks of a model, and how messages and tools are told to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from flowtrio._core._chunks import Chunk

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
