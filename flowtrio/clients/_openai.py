"""OpenAI, and every server that speaks its chat completions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from flowtrio._core._limits import ModelLimits
from flowtrio.abc import ToolSpec
from flowtrio.wire._openai_chat import ChatDecoder, decode_completion, encode_request

from ._client import HttpClient
from ._host import HttpRequest, ModelHost
from ._http import ModelRequest

_BASE_URL = "https://api.openai.com/v1"


class OpenAIClient(HttpClient):
    """A model behind OpenAI's chat completions, at OpenAI or any compatible server.

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
        if api != "chat":
            raise ValueError(f"OpenAIClient(api={api!r}): expected 'chat'")
        given_url = base_url or os.environ.get("OPENAI_BASE_URL")
        key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY")
        if not key and not given_url:
            raise ValueError(
                "OpenAIClient(): expected api_key=... or OPENAI_API_KEY in the environment"
            )
        host = ModelHost.of(
            given_url or _BASE_URL,
            headers={"authorization": f"Bearer {key}"} if key else {},
            key=key,
            http_client=http_client,
            limits=limits,
        )
        super().__init__(model, host, options)

    def _request(
        self,
        model: str,
        messages: list[Mapping[str, Any]],
        tools: list[ToolSpec],
        options: dict[str, Any],
    ) -> ModelRequest:
        url = f"{self._host.base_url}/chat/completions"

        def ask(stream: bool) -> HttpRequest:
            return HttpRequest(url, encode_request(model, messages, tools, options, stream=stream))

        return ModelRequest(ask=ask, decoder=ChatDecoder, decode_whole=decode_completion)
