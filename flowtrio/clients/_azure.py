"""OpenAI's models at Azure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from flowtrio._core._asked import Asked
from flowtrio._core._limits import ModelLimits

from ._client import Place
from ._openai import Api, OpenAICompatible
from ._retries import MAX_RETRIES

_VERSIONS: dict[Api, str] = {"chat": "2024-10-21", "responses": "2025-04-01-preview"}
"""The version of Azure's interface for each protocol: the oldest that can all that we ask for."""


class AzureOpenAIClient(OpenAICompatible):
    """A deployment of one of OpenAI's models at Azure.

    Args:
      api_key: The key, sent as ``api-key``; by default ``AZURE_OPENAI_API_KEY`` from the
        environment. Not needed with an address of one's own.
        May be a function, async too, which is asked for it at each request.
      model: The deployment's name, which need not be the model's.
      azure_endpoint: The resource's address, such as ``https://mine.openai.azure.com``; by default
        ``AZURE_OPENAI_ENDPOINT`` from the environment.
      base_url: Another word for *azure_endpoint*, the one that all clients share.
      api_version: The version of Azure's interface; by default ``OPENAI_API_VERSION`` from the
        environment, else one that fits the protocol.
      http_client: An `httpx.AsyncClient` or `httpx2.AsyncClient` of the application's own, which is
        not closed here.
      limits: Limits of each reply.
      max_retries: How often a reply is asked for again before anything of it was said.
      extra_body: Keys of each request's body that the protocol does not have.
      api: Which of OpenAI's protocols: ``chat`` or ``responses``.
      options: Further keys of each request, such as ``temperature=0``.

    Raises:
      ValueError: there is no address, no key, or no model; or both addresses are given.

    """

    provider: str = "azure.ai.openai"
    """Who answers, as MESSAGE_COMPLETE tells it. May be set."""

    _place = Place(
        url_name="AZURE_OPENAI_ENDPOINT",
        key_names=("AZURE_OPENAI_API_KEY",),
        key_header=("api-key", ""),
    )

    def __init__(
        self,
        *,
        api_key: Asked | None = None,
        model: str,
        azure_endpoint: str | None = None,
        base_url: str | None = None,
        api_version: str | None = None,
        http_client: Any = None,
        limits: ModelLimits | None = None,
        max_retries: int = MAX_RETRIES,
        extra_body: Mapping[str, Any] | None = None,
        api: Api = "chat",
        **options: Any,
    ) -> None:
        self.api: Api = self._choose(api)
        """Which of OpenAI's protocols it speaks."""
        if azure_endpoint and base_url:
            raise ValueError("AzureOpenAIClient(): expected azure_endpoint=... or base_url=...")
        own_url = azure_endpoint or base_url
        url = own_url or self._usual_url()
        if not url:
            raise ValueError(
                "AzureOpenAIClient(): expected azure_endpoint=... or AZURE_OPENAI_ENDPOINT in the "
                "environment"
            )
        if not self._key(api_key) and not own_url:
            raise ValueError(
                "AzureOpenAIClient(): expected api_key=... or AZURE_OPENAI_API_KEY in the "
                "environment"
            )
        given = api_version or os.environ.get("OPENAI_API_VERSION")
        self.api_version: str = given or _VERSIONS[self.api]
        """The version of Azure's interface."""
        super().__init__(
            api_key=api_key,
            model=model,
            base_url=url,
            http_client=http_client,
            limits=limits,
            max_retries=max_retries,
            extra_body=extra_body,
            **options,
        )

    def _path(self, model: str) -> str:
        # A chat is at its deployment; Responses name theirs in the body.
        place = f"deployments/{quote(model, safe='')}/" if self.api == "chat" else ""
        path = super()._path(model)
        return f"openai/{place}{path}?api-version={quote(self.api_version, safe='')}"
