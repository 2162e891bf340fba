"""Alibaba's DashScope: Qwen, behind an interface that is compatible with OpenAI's."""

from __future__ import annotations

from flowtrio.wire._openai_chat_media import DASHSCOPE

from ._client import Place
from ._openai import OpenAICompatible


class DashScopeClient(OpenAICompatible):
    """A model at Alibaba's DashScope, by its interface for clients of OpenAI.

    Args:
      api_key: The key; by default ``DASHSCOPE_API_KEY`` from the environment. Not needed with a
        *base_url* of one's own.
        May be a function, async too, which is asked for it at each request.
      model: The model's name, such as ``qwen-plus``.
      base_url: The address, without the version; by default ``https://dashscope.aliyuncs.com``.
        Keys of the international edition belong to ``https://dashscope-intl.aliyuncs.com``.
      http_client: An `httpx.AsyncClient` or `httpx2.AsyncClient` of the application's own, which is
        not closed here.
      limits: Limits of each reply.
      max_retries: How often a reply is asked for again before anything of it was said.
      extra_body: Keys of each request's body that the protocol does not have.
      options: Further keys of each request, such as ``enable_thinking=True``.

    Raises:
      ValueError: there is no key, or no model.

    """

    provider: str = "dashscope"
    """Who answers, as MESSAGE_COMPLETE tells it. May be set."""

    _place = Place(url="https://dashscope.aliyuncs.com", key_names=("DASHSCOPE_API_KEY",))
    _media = DASHSCOPE

    def _path(self, model: str) -> str:
        return f"compatible-mode/v1/{super()._path(model)}"
