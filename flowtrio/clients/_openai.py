"""OpenAI, and every server that speaks its chat completions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from flowtrio._core._chunks import Completion
from flowtrio._core._limits import ModelLimits
from flowtrio.abc import Message, ToolSpec
from flowtrio.wire._openai_chat import ChatDecoder, decode_completion, encode_request

from ._host import (
    ClientStatistics,
    HttpRequest,
    ModelHost,
    check_base_url,
    check_headers,
    check_http_client,
)
from ._http import CompletionStream, ModelRequest, fold, stream_reply

_BASE_URL = "https://api.openai.com/v1"


class OpenAIClient:
    """A model behind OpenAI's chat completions, at OpenAI or any compatible server.

    Can be made outside Trio and shared by any number of runs. ``async with`` closes its connections
    at the block's end; without it they are closed when Trio ends.

    Args:
      api_key: The key; by default ``OPENAI_API_KEY`` from the environment. Not needed with a
        *base_url* of one's own.
      model: The model's name.
      base_url: Where ``/chat/completions`` is; by default ``OPENAI_BASE_URL`` from the environment,
        else OpenAI.
      http_client: An `httpx.AsyncClient` or `httpx2.AsyncClient` of the application's own, which is
        not closed here.
      limits: Limits of each reply.
      api: Which of OpenAI's protocols: ``chat``.
      options: Further keys of each request, such as ``temperature=0``.

    Raises:
      ValueError: there is no key, or no model.

    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        model: str,
        base_url: str | None = None,
        http_client: Any = None,
        limits: ModelLimits | None = None,
        api: Literal["chat"] = "chat",
        **options: Any,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise ValueError(f"OpenAIClient(model={model!r}): expected the name of a model")
        if api != "chat":
            raise ValueError(f"OpenAIClient(api={api!r}): expected 'chat'")
        given_url = base_url or os.environ.get("OPENAI_BASE_URL")
        key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY")
        if not key and not given_url:
            raise ValueError(
                "OpenAIClient(): expected api_key=... or OPENAI_API_KEY in the environment"
            )
        self.model = model
        self.options = options
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._host = ModelHost(
            base_url=check_base_url(given_url or _BASE_URL),
            headers=check_headers(headers),
            secrets=(key,) if key else (),
            http_client=check_http_client(http_client),
            limits=limits or ModelLimits(),
        )

    def __repr__(self) -> str:
        return f"<OpenAIClient model={self.model!r} host={self._host.name!r}>"

    @property
    def limits(self) -> ModelLimits:
        """Limits of each reply; in a run its turn enforces them."""
        return self._host.limits

    def stream_completion(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        tools: Sequence[ToolSpec] | None = None,
        **options: Any,
    ) -> CompletionStream:
        """Ask for one reply, streamed.

        An endpoint that cannot stream is asked without; its answer comes as a few chunks.

        Args:
          messages: The conversation, in OpenAI's shape.
          tools: Tools to offer, in OpenAI's shape.
          options: Further keys of the request, over the client's own; None takes a key out,
            ``stream=False`` asks for a whole answer.

        """
        options = {**self.options, **options}
        messages = list(messages)
        model = options.pop("model", self.model)
        wants_stream = options.pop("stream", True)
        url = f"{self._host.base_url}/chat/completions"

        def ask(stream: bool) -> HttpRequest:
            return HttpRequest(url, encode_request(model, messages, tools, options, stream=stream))

        return stream_reply(
            self._host,
            ModelRequest(
                ask=ask,
                wants_stream=wants_stream,
                decoder=ChatDecoder,
                decode_whole=decode_completion,
            ),
        )

    async def complete(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        tools: Sequence[ToolSpec] | None = None,
        **options: Any,
    ) -> Completion:
        """Ask for one reply and give it whole; see `stream_completion`."""
        return await fold(self.stream_completion(messages, tools, **options))

    def statistics(self) -> ClientStatistics:
        """A snapshot for debugging; never to be used for logic."""
        return self._host.statistics()

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._host.aclose()

    async def __aenter__(self) -> Self:
        """Give the client itself."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.aclose()
