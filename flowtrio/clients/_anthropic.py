"""Anthropic."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs

from flowtrio._core._asked import Asked
from flowtrio._core._chunks import Chunk
from flowtrio._core._limits import ModelLimits
from flowtrio.wire._anthropic import anthropic_decoder, decode_completion, is_paused
from flowtrio.wire._anthropic_requests import KNOWN, continued, encode_request, made_under

from ._client import HttpClient, Place
from ._request import HostRequest, Prompt
from ._retries import MAX_RETRIES

_VERSION = "2023-06-01"
# The newer version takes away temperature, top_p and top_k, and adds nothing to what is said here.


class AnthropicClient(HttpClient):
    """A Claude model, by Anthropic's own protocol.

    Args:
      api_key: The key; by default ``ANTHROPIC_API_KEY`` from the environment. Not needed with a
        *base_url* of one's own.
        May be a function, async too, which is asked for it at each request.
      model: The model's name, such as ``claude-sonnet-4-5``.
      base_url: The address, without the version; by default ``ANTHROPIC_BASE_URL`` from the
        environment, else Anthropic's.
      http_client: An `httpx.AsyncClient` or `httpx2.AsyncClient` of the application's own, which is
        not closed here.
      limits: Limits of each reply.
      max_retries: How often a reply is asked for again before anything of it was said.
      extra_body: Keys of each request's body that the protocol does not have.
      api_version: The protocol's version, sent as ``anthropic-version``.
      betas: Names of features to switch on, sent as ``anthropic-beta``.
      options: Further keys of each request, such as ``thinking={"type": "adaptive"}``. The protocol
        wants ``max_tokens``: 16384, where they do not say.

    Raises:
      ValueError: there is no key, or no model.

    """

    provider: str = "anthropic"
    """Who answers, as MESSAGE_COMPLETE tells it. May be set."""

    _place = Place(
        url="https://api.anthropic.com",
        url_name="ANTHROPIC_BASE_URL",
        key_names=("ANTHROPIC_API_KEY",),
        key_header=("x-api-key", ""),
    )
    _known = KNOWN

    def __init__(
        self,
        *,
        api_key: Asked | None = None,
        model: str,
        base_url: str | None = None,
        http_client: Any = None,
        limits: ModelLimits | None = None,
        max_retries: int = MAX_RETRIES,
        extra_body: Mapping[str, Any] | None = None,
        api_version: str = _VERSION,
        betas: tuple[str, ...] | list[str] = (),
        **options: Any,
    ) -> None:
        self._headers = {"anthropic-version": api_version}
        if betas:
            self._headers["anthropic-beta"] = ",".join(betas)
        super().__init__(
            api_key=api_key,
            model=model,
            base_url=base_url,
            http_client=http_client,
            limits=limits,
            max_retries=max_retries,
            extra_body=extra_body,
            **options,
        )

    def _request(self, prompt: Prompt) -> HostRequest:
        return self._part_of_reply(prompt, None)

    def _part_of_reply(self, prompt: Prompt, paused: Chunk | None) -> HostRequest:
        """Ask for a reply, or for what is still to come of one that was paused."""
        messages = prompt.messages if paused is None else continued(prompt.messages, paused)
        asked = attrs.evolve(prompt, messages=messages)

        def under() -> str:
            # Of a reply that went on, all goes back in the place of what began it.
            return made_under(prompt.encoded(encode_request, stream=True))

        def go_on(final: Chunk) -> HostRequest | None:
            return self._part_of_reply(prompt, final) if is_paused(final) else None

        return HostRequest(
            ask=asked.to(self._host.url("v1/messages"), encode_request),
            decoder=partial(anthropic_decoder, paused=paused, under=under),
            decode_whole=partial(decode_completion, paused=paused, under=under),
            go_on=go_on,
        )
