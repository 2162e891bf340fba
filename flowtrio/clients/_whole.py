"""Replies that are given whole, by those that stream them."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

from flowtrio._core._chunks import ClosableReply, Completion, fold
from flowtrio.abc import Message, ToolSpec


class Streaming(abc.ABC):
    """A client that streams its replies."""

    @abc.abstractmethod
    def stream_completion(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        tools: Sequence[ToolSpec] | None = None,
        **options: Any,
    ) -> ClosableReply:
        """Ask for one reply; see `flowtrio.abc.LLMClient`."""

    async def complete(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        tools: Sequence[ToolSpec] | None = None,
        **options: Any,
    ) -> Completion:
        """Ask for one reply and give it whole; see `stream_completion`."""
        return await fold(self.stream_completion(messages, tools, **options))
