"""What all clients over HTTP share: everything but how a request is written and an answer read."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from flowtrio._core._chunks import Completion, fold
from flowtrio._core._limits import ModelLimits
from flowtrio.abc import Message, ToolSpec

from ._host import ClientStatistics, ModelHost
from ._options import check_extra_body, check_options, with_extra
from ._request import HostRequest
from ._stream import CompletionStream, stream_reply


class HttpClient(abc.ABC):
    """A model behind HTTP. Can be made outside Trio and shared by any number of runs.

    ``async with`` closes its connections at the block's end; without it they are closed when Trio
    ends.
    """

    provider: str
    """Who answers: OpenTelemetry's well-known value of ``gen_ai.provider.name`` where there is one,
    so that a trace can be made of a log without a table of names; else a word of the same kind."""

    def __init__(
        self,
        model: str,
        host: ModelHost,
        options: Mapping[str, Any],
        known: frozenset[str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise ValueError(f"{type(self).__name__}(model={model!r}): expected a model's name")
        self.model = model
        """The model's name."""
        check_options(type(self).__name__, options, known)
        self.options: dict[str, Any] = dict(options)
        """Further keys of each request."""
        self.extra_body: dict[str, Any] = check_extra_body(type(self).__name__, extra_body)
        """Keys of each request's body that the protocol does not have."""
        self._known = known
        self._host = host

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
        request = self._request(model, list(messages), list(tools or ()), options)
        if not wants_stream:
            request = request.as_whole()
        return stream_reply(self._host, request, model, extra)

    @abc.abstractmethod
    def _request(
        self,
        model: str,
        messages: list[Mapping[str, Any]],
        tools: list[ToolSpec],
        options: dict[str, Any],
    ) -> HostRequest:
        """Say what is asked, and how the answer is read."""

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
