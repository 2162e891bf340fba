"""What all clients over HTTP share: everything but how a request is written and an answer read."""

from __future__ import annotations

import abc
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import attrs
import trio

from flowtrio._core._asked import Asked
from flowtrio._core._limits import ModelLimits
from flowtrio.abc import Message, ToolSpec

from ._host import ClientStatistics, ModelHost
from ._options import check_extra_body, check_options, with_extra
from ._request import HostRequest, Prompt
from ._retries import MAX_RETRIES
from ._stream import CompletionStream, stream_reply
from ._whole import Streaming


@attrs.frozen
class Place:
    """Where a client finds its host and its key, unless it is told."""

    url: str = ""
    """The provider's own address, if it has one."""
    url_name: str = ""
    """The variable of the environment for another one."""
    key_names: tuple[str, ...] = ()
    """Those for the key; the first that is set holds."""
    key_header: tuple[str, str] = ("authorization", "Bearer ")
    """How the key is sent: the header's name, and what stands before the key."""
    needs_key: bool = True
    """Whether the provider wants one."""


class HttpClient(Streaming, trio.abc.AsyncResource):
    """A model behind HTTP. Can be made outside Trio and shared by any number of runs.

    ``async with`` closes its connections at the block's end; without it they are closed when Trio
    ends.
    """

    provider: str
    """Who answers: OpenTelemetry's well-known value of ``gen_ai.provider.name`` where there is one,
    so that a trace can be made of a log without a table of names; else a word of the same kind."""

    _place: ClassVar[Place]
    _known: frozenset[str] | None = None
    """The options that the protocol has; None lets all pass."""
    _headers: Mapping[str, str] = MappingProxyType({})
    """Of each request, beside the key's."""

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
        **options: Any,
    ) -> None:
        name, place = type(self).__name__, self._place
        url = base_url or self._usual_url()
        key = self._key(api_key)
        if place.key_names and place.needs_key and not (key or url):
            raise ValueError(
                f"{name}(): expected api_key=... or {place.key_names[-1]} in the environment"
            )
        self._host = ModelHost.of(
            url or place.url,
            headers=self._headers,
            key=key,
            key_header=place.key_header,
            http_client=http_client,
            limits=limits,
            max_retries=max_retries,
        )
        if not isinstance(model, str) or not model:
            raise ValueError(f"{name}(model={model!r}): expected a model's name")
        self.model = model
        """The model's name."""
        check_options(name, options, self._known)
        self.options: dict[str, Any] = dict(options)
        """Further keys of each request."""
        self.extra_body: dict[str, Any] = check_extra_body(name, extra_body)
        """Keys of each request's body that the protocol does not have."""

    def _key(self, given: Asked | None) -> Asked | None:
        """The key that was given, else the environment's."""
        if given is not None:
            return given
        return next(filter(None, map(os.environ.get, self._place.key_names)), None)

    def _usual_url(self) -> str | None:
        """Where its host is by the environment; then it needs no key."""
        return os.environ.get(self._place.url_name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} model={self.model!r} host={self._host.name!r}>"

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
            ``stream=False`` asks for a whole answer, ``extra_body`` has what the protocol has not.

        Raises:
          TypeError: the protocol has no such option.

        """
        name = type(self).__name__
        extra = with_extra(self.extra_body, check_extra_body(name, options.pop("extra_body", None)))
        check_options(name, options.keys() - {"model"}, self._known)
        options = {**self.options, **options}
        model = options.pop("model", self.model)
        wants_stream = options.pop("stream", True)
        request = self._request(Prompt(model, list(messages), list(tools or ()), options))
        if not wants_stream:
            request = request.as_whole()
        return stream_reply(self._host, request, model, extra)

    @abc.abstractmethod
    def _request(self, prompt: Prompt) -> HostRequest:
        """Say what is asked, and how the answer is read."""

    def statistics(self) -> ClientStatistics:
        """A snapshot for debugging; never to be used for logic."""
        return self._host.statistics()

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._host.aclose()
