"""Ollama."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from flowtrio.wire._ollama import KNOWN, decode_completion, encode_request, ollama_decoder

from ._client import HttpClient, Place
from ._request import HostRequest, Prompt

_PORT = 11434


class OllamaClient(HttpClient):
    """A model behind Ollama's own protocol.

    Args:
      api_key: A key, where the server wants one; by default ``OLLAMA_API_KEY`` from the
        environment.
        May be a function, async too, which is asked for it at each request.
      model: The model's name, such as ``llama3.2``.
      base_url: The address; by default ``OLLAMA_HOST`` from the environment, else port 11434 of
        this machine.
      http_client: An `httpx.AsyncClient` or `httpx2.AsyncClient` of the application's own, which is
        not closed here.
      limits: Limits of each reply.
      max_retries: How often a reply is asked for again before anything of it was said.
      extra_body: Keys of each request's body that the protocol does not have.
      options: Further keys of each request: ``temperature=0`` and the like go into its ``options``,
        others, such as ``think`` or ``keep_alive``, stand beside it.

    Raises:
      ValueError: there is no model.

    """

    provider: str = "ollama"
    """Who answers, as MESSAGE_COMPLETE tells it. May be set."""

    _place = Place(key_names=("OLLAMA_API_KEY",), needs_key=False)
    _known = KNOWN

    def _usual_url(self) -> str | None:
        return read_host(os.environ.get("OLLAMA_HOST", ""))

    def _request(self, prompt: Prompt) -> HostRequest:
        return HostRequest(
            ask=prompt.to(self._host.url("api/chat"), encode_request),
            decoder=ollama_decoder,
            decode_whole=decode_completion,
            content_type="application/x-ndjson",
        )


def read_host(text: str) -> str:
    """An address from what ``OLLAMA_HOST`` may say: host, port or both, with a scheme or not."""
    text = text.strip()
    has_scheme = "://" in text
    parts = urlsplit(text if has_scheme else f"http://{text}")
    host = parts.hostname or "127.0.0.1"
    if host == "0.0.0.0":
        host = "127.0.0.1"
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(parts.scheme, _PORT) if has_scheme else _PORT
    return f"{parts.scheme}://{host}:{parts.port or default}{parts.path.rstrip('/')}"
