"""OpenAI, and every server that speaks one of its protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Final, Literal, TypeAlias, get_args

import attrs

from flowtrio._core._asked import Asked
from flowtrio._core._limits import ModelLimits
from flowtrio.wire import (
    _openai_chat,
    _openai_chat_requests,
    _openai_input,
    _openai_responses,
)
from flowtrio.wire._mistral import fit_call_ids
from flowtrio.wire._openai_chat_media import OPENAI, ChatMedia

from ._carry import for_origin, origin_of
from ._client import HttpClient, Place
from ._request import Decoder, HostRequest, Prompt
from ._retries import MAX_RETRIES

Api: TypeAlias = Literal["chat", "responses"]
"""OpenAI's protocols: chat completions, which many servers speak, and Responses."""

_KNOWN: Final[dict[Api, frozenset[str]]] = {
    "chat": _openai_chat_requests.KNOWN,
    "responses": _openai_input.KNOWN,
}
"""The options of each protocol."""

_PATHS: Final[dict[Api, str]] = {"chat": "chat/completions", "responses": "responses"}
"""Where each protocol is spoken, below a server's own address."""


class OpenAICompatible(HttpClient):
    """What all clients of OpenAI's protocols share: requests and answers."""

    _api: Api = "chat"
    _known = _KNOWN["chat"]
    _media: ClassVar[ChatMedia] = OPENAI
    """How the host takes images and files in a chat."""

    def _choose(self, api: Api) -> Api:
        """Speak one of the protocols, and give it back; a `ValueError` if it is none."""
        if api not in get_args(Api):
            expected = " or ".join(map(repr, get_args(Api)))
            raise ValueError(f"{type(self).__name__}(api={api!r}): expected {expected}")
        self._api, self._known = api, _KNOWN[api]
        return api

    def _path(self, model: str) -> str:
        """Where the protocol is spoken, below the host's address."""
        return _PATHS[self._api]

    def _request(self, prompt: Prompt) -> HostRequest:
        host = self._host
        url, origin = host.url(self._path(prompt.model)), origin_of(host.base_url)
        messages = for_origin(prompt.messages, origin)
        encode: Callable[..., dict[str, Any]] = _openai_input.encode_request
        decoder: Callable[[], Decoder] = _openai_responses.responses_decoder
        decode_whole = _openai_responses.decode_completion
        if self._api == "chat":
            encode = partial(_openai_chat_requests.encode_request, media=self._media)
            decoder, decode_whole = _openai_chat.ChatDecoder, _openai_chat.decode_completion
            if f".{host.name}".endswith(".mistral.ai"):
                messages = fit_call_ids(messages)
        ask = attrs.evolve(prompt, messages=messages).to(url, encode)
        return HostRequest(ask=ask, origin=origin, decoder=decoder, decode_whole=decode_whole)


class OpenAIClient(OpenAICompatible):
    """A model behind OpenAI's chat completions or Responses, at OpenAI or any compatible server.

    Args:
      api_key: The key; by default ``OPENAI_API_KEY`` from the environment. Not needed with a
        *base_url* of one's own.
        May be a function, async too, which is asked for it at each request.
      model: The model's name.
      base_url: Where ``/chat/completions`` or ``/responses`` is; by default ``OPENAI_BASE_URL``
        from the environment, else OpenAI.
      http_client: An `httpx.AsyncClient` or `httpx2.AsyncClient` of the application's own, which is
        not closed here.
      limits: Limits of each reply.
      max_retries: How often a reply is asked for again before anything of it was said.
      extra_body: Keys of each request's body that the protocol does not have.
      api: Which of OpenAI's protocols: ``chat``, or ``responses``, which has more: summaries of
        what the model thinks, reasoning kept over several turns, tools that OpenAI runs itself.
      options: Further keys of each request, such as ``temperature=0``.

    Raises:
      ValueError: there is no key, or no model.

    """

    provider: str = "openai"
    """Who answers, as MESSAGE_COMPLETE tells it. May be set, for another host of this protocol."""

    _place = Place(
        url="https://api.openai.com/v1",
        url_name="OPENAI_BASE_URL",
        key_names=("OPENAI_API_KEY",),
    )

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
        api: Api = "chat",
        **options: Any,
    ) -> None:
        self.api: Api = self._choose(api)
        """Which of OpenAI's protocols it speaks."""
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
