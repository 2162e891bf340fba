"""Google's Gemini."""

from __future__ import annotations

from urllib.parse import quote

from flowtrio._core._asked import Asked
from flowtrio.wire._gemini import KNOWN, decode_completion, encode_request, gemini_decoder

from ._client import HttpClient, Place
from ._request import HostRequest, HttpRequest, Prompt

_VERSION = "v1beta"


class GeminiClient(HttpClient):
    """A Gemini model, by Google's own protocol.

    Args:
      api_key: The key; by default ``GOOGLE_API_KEY``, else ``GEMINI_API_KEY`` from the environment.
        Not needed with a *base_url* of one's own.
        May be a function, async too, which is asked for it at each request.
      model: The model's name, such as ``gemini-2.5-flash``.
      base_url: The address, without the version; by default ``GOOGLE_GEMINI_BASE_URL`` from the
        environment, else Google's.
      http_client: An `httpx.AsyncClient` or `httpx2.AsyncClient` of the application's own, which is
        not closed here.
      limits: Limits of each reply.
      max_retries: How often a reply is asked for again before anything of it was said.
      extra_body: Keys of each request's body that the protocol does not have.
      options: Further keys of each request: ``temperature=0`` and the like go into its
        ``generationConfig``, others, such as ``safetySettings``, stand beside it.

    Raises:
      ValueError: there is no key, or no model.

    """

    provider: str = "gcp.gemini"
    """Who answers, as MESSAGE_COMPLETE tells it. May be set."""

    _place = Place(
        url="https://generativelanguage.googleapis.com",
        url_name="GOOGLE_GEMINI_BASE_URL",
        # The SDK reads both, and takes Google's where both are set.
        key_names=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        key_header=("x-goog-api-key", ""),
    )
    _known = KNOWN

    def _key(self, given: Asked | None) -> Asked | None:
        # An empty one is none.
        return super()._key(given or None)

    def _request(self, prompt: Prompt) -> HostRequest:
        base = f"{_VERSION}/models/{quote(prompt.model, safe='')}"

        def ask(stream: bool) -> HttpRequest:
            verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
            body = encode_request(prompt.messages, prompt.tools, prompt.options)
            return HttpRequest(self._host.url(f"{base}:{verb}"), body)

        return HostRequest(ask=ask, decoder=gemini_decoder, decode_whole=decode_completion)
