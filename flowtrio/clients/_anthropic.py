"""Anthropic."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flowtrio._core._asked import Asked
from flowtrio._core._chunks import Chunk
from flowtrio._core._limits import ModelLimits
from flowtrio.abc import ToolSpec
from flowtrio.wire._anthropic import anthropic_decoder, decode_completion, is_paused
from flowtrio.wire._anthropic_requests import KNOWN, continued, encode_request, made_under

from ._client import HttpClient, Place
from ._request import HostRequest, HttpRequest
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

    def _request(
        self,
        model: str,
        messages: list[Mapping[str, Any]],
        tools: list[ToolSpec],
        options: dict[str, Any],
    ) -> HostRequest:
        return self._part_of_reply(model, messages, tools, options, None)

    def _part_of_reply(
        self,
        model: str,
        messages: list[Mapping[str, Any]],
        tools: list[ToolSpec],
        options: dict[str, Any],
        paused: Chunk | None,
    ) -> HostRequest:
        """Ask for a reply, or for what is still to come of one that was paused."""
        url = self._host.url("v1/messages")
        said = messages if paused is None else continued(messages, paused)

        def ask(stream: bool) -> HttpRequest:
            return HttpRequest(url, encode_request(model, said, tools, options, stream=stream))

        def under() -> str:
            # Of a reply that went on, all goes back in the place of what began it.
            return made_under(encode_request(model, messages, tools, options, stream=True))

        def go_on(final: Chunk) -> HostRequest | None:
            if not is_paused(final):
                return None
            return self._part_of_reply(model, messages, tools, options, final)

        return HostRequest(
            ask=ask,
            decoder=partial(anthropic_decoder, paused=paused, under=under),
            decode_whole=partial(decode_completion, paused=paused, under=under),
            go_on=go_on,
        )
