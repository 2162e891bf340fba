"""`FallbackClient`: several models in line, each for when those before it fail."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec
import trio

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import (
    DeadlineExceeded,
    ProviderError,
    RemoteProtocolError,
    withheld_reply,
)
from flowtrio._core._limits import ModelLimits
from flowtrio.abc import LLMClient, Message, ToolSpec

from ._whole import Streaming

_NO_LIMITS: Final = ModelLimits(
    connect=math.inf, first_token=math.inf, gap=math.inf, content=math.inf
)


@attrs.frozen(kw_only=True)
class FallbackStatistics:
    """A snapshot for debugging; never used for logic."""

    replies: tuple[int, ...]
    """Replies that were asked of each client, in their order."""
    failures: tuple[int, ...]
    """How many of those failed."""


class FallbackClient(Streaming, trio.abc.AsyncResource):
    """Asks the first of several clients, and the next one where that fails.

    A reply that fails in the middle begins anew with the next client: the run tells it by a
    MESSAGE_RESET. What makes a client fail is the model's doing: its host refuses or cannot be
    reached, withholds the reply, its stream is malformed, cut or stalls. Each client's own limits
    and retries hold; errors of other kinds, such as a bug in a client, are not hidden.

    Args:
      clients: At least one, in the order in which they are asked.

    Raises:
      TypeError: one of them has no ``stream_completion``.
      ValueError: there is none.

    """

    limits = _NO_LIMITS
    """None of its own, so that a run's limit does not end a reply that the next client can give."""

    def __init__(self, clients: Sequence[LLMClient]) -> None:
        self._clients = tuple(clients)
        if not self._clients:
            raise ValueError("FallbackClient([]): expected at least one client")
        for client in self._clients:
            if not callable(getattr(client, "stream_completion", None)):
                raise TypeError(
                    f"FallbackClient: {type(client).__name__} has no stream_completion method"
                )
        self._replies = [0] * len(self._clients)
        self._failures = [0] * len(self._clients)

    def __repr__(self) -> str:
        return f"<FallbackClient {list(self._clients)!r}>"

    def stream_completion(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        tools: Sequence[ToolSpec] | None = None,
        **options: Any,
    ) -> FallbackReply:
        """Ask for one reply; see `flowtrio.abc.LLMClient`.

        The options go to every client that is asked: give only such as all of them take, and what
        differs to the clients themselves, when they are made.
        """
        if tools:
            options["tools"] = tools
        return FallbackReply(self, [dict(message) for message in messages], options)

    def statistics(self) -> FallbackStatistics:
        """A snapshot for debugging; never to be used for logic."""
        return FallbackStatistics(replies=tuple(self._replies), failures=tuple(self._failures))

    async def aclose(self) -> None:
        """Close the clients that can be closed."""
        for client in self._clients:
            if (aclose := getattr(client, "aclose", None)) is not None:
                await aclose()


def _cost_nothing(exc: Exception) -> bool:
    """Whether no model was at work: its host refused, or could not be reached.

    An error that has no status came inside a stream, when the model had begun.
    """
    if isinstance(exc.__cause__, ExceptionGroup):
        return all(map(_cost_nothing, exc.__cause__.exceptions))
    if isinstance(exc, ProviderError):
        return exc.status is not None or exc.code == "connection_failed"
    return getattr(exc, "deadline", None) == "connect"


class FallbackReply(AsyncIterator[Chunk], trio.abc.AsyncResource):
    """One reply on its way, from whichever client gives it."""

    def __init__(
        self,
        fallback: FallbackClient,
        messages: list[Message],
        options: dict[str, Any],
    ) -> None:
        self._fallback = fallback
        self._messages = messages
        self._options = options
        self._place = -1
        self._reply: Any = None
        self._speaker: Any = None
        """The reply that was asked for last, also when it is over: it may tell whose it was."""
        self._limits = _NO_LIMITS
        self._has_spoken = False
        self._is_over = False
        self._errors: list[Exception] = []
        self._has_lost = False
        """Whether a model worked and failed, and did not tell what that cost."""

    async def __anext__(self) -> Chunk:
        """Give the next chunk; one with ``reset`` where another client begins anew.

        Raises:
          ProviderError: every client failed; the causes are what they failed of.

        """
        while not self._is_over:
            try:
                chunk = await self._read()
            except (ProviderError, RemoteProtocolError, DeadlineExceeded) as exc:
                reset = await self._give_up(exc)
                if reset is not None:
                    return reset
                continue
            if chunk.is_final and chunk.finish_reason == "content_filter" and not self._is_last:
                reset = await self._give_up(withheld_reply(chunk.raw_finish_reason), chunk)
                if reset is not None:
                    return reset
                continue
            self._has_spoken = True
            if chunk.is_final:
                self._is_over = True
                await self._close()
                return self._with_failures(chunk)
            return chunk
        raise StopAsyncIteration

    async def _read(self) -> Chunk:
        if self._reply is None:
            self._place += 1
            self._speaker = None
            self._fallback._replies[self._place] += 1
            limits = getattr(self._client, "limits", None)
            self._limits = limits if isinstance(limits, ModelLimits) else ModelLimits()
        # Of a client that is not ours only chunks are heard.
        now = trio.current_time()
        limit, due = self._limits.due(now, now)
        if not self._has_spoken:
            limit, due = "first_token", now + self._limits.first_token
        with trio.move_on_at(due) as waiting:
            if self._reply is None:
                self._reply = self._speaker = await self._ask()
                if isinstance(getattr(self._reply, "limits", None), ModelLimits):
                    # Our own replies keep to their client's limits by themselves.
                    self._limits = _NO_LIMITS
                    waiting.deadline = math.inf
            try:
                return await anext(self._reply)
            except StopAsyncIteration:
                raise RemoteProtocolError(
                    "the model's stream ended without its finish mark",
                    code="stream_cut",
                    retryable=True,
                ) from None
        raise self._limits.stalled(limit, pings=False)

    @property
    def provider(self) -> str | None:
        """The provider of the client that is being asked, if it says."""
        return self._said_by_client("provider")

    @property
    def model(self) -> str | None:
        """The model that is being asked, if its client says."""
        return self._said_by_client("model")

    def _said_by_client(self, name: str) -> str | None:
        if self._place < 0:
            return None
        # The reply first: the client may be one that chooses among several, too.
        told = getattr(self._speaker, name, None) or getattr(self._client, name, None)
        return told if isinstance(told, str) else None

    def _with_failures(self, final: Chunk) -> Chunk:
        """*final*, whose usage is no measure of all where a model worked that then failed.

        What it said, or told of its cost, whoever reads this reply counts.
        """
        if final.usage is None or not self._has_lost:
            return final
        usage = msgspec.structs.replace(final.usage, quality="lower_bound")
        return msgspec.structs.replace(final, usage=usage)

    @property
    def heard_at(self) -> float | None:
        """When the host that is asked last sent something that said nothing, if its client says."""
        told = getattr(self._reply, "heard_at", None)
        return told if isinstance(told, float) else None

    @property
    def _is_last(self) -> bool:
        return self._place == len(self._fallback._clients) - 1

    @property
    def _client(self) -> LLMClient:
        return self._fallback._clients[self._place]

    async def _ask(self) -> Any:
        reply: Any = self._client.stream_completion(self._messages, **self._options)
        return await reply if inspect.isawaitable(reply) else reply

    async def _give_up(self, exc: Exception, withheld: Chunk | None = None) -> Chunk | None:
        """Leave the client that failed; gives the reset, where there is something to discard.

        Also where there is only a cost: it is the failed model's, at another price than the next.
        """
        await self._close()
        self._fallback._failures[self._place] += 1
        self._errors.append(exc)
        clients = self._fallback._clients
        if self._is_last:
            self._is_over = True
            if len(clients) == 1:
                raise exc
            raise ProviderError(
                f"all {len(clients)} models failed, the last one: {exc}",
                code=getattr(exc, "code", "deadline_exceeded"),
                retryable=any(getattr(e, "retryable", True) for e in self._errors),
                detail=getattr(exc, "detail", None),
            ) from ExceptionGroup("the models' failures", self._errors)
        usage, model = (None, None) if withheld is None else (withheld.usage, withheld.model)
        self._has_lost = self._has_lost or (usage is None and not _cost_nothing(exc))
        has_spoken, self._has_spoken = self._has_spoken, False
        if not has_spoken and usage is None:
            return None
        code = getattr(exc, "code", None) or getattr(exc, "deadline", None) or type(exc).__name__
        reason = f"model {self._place + 1} of {len(clients)} failed: {code}"
        return Chunk(reset=reason, usage=usage, model=model)

    async def _close(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None and (aclose := getattr(reply, "aclose", None)) is not None:
            await aclose()

    async def aclose(self) -> None:
        """Leave the rest unsaid."""
        self._is_over = True
        await self._close()
        await trio.lowlevel.checkpoint()
