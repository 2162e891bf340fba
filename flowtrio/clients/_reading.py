"""Reading what a model's host answers: the pieces of a body, decoded into chunks.

An answer shows by its first bytes what it is: a stream, a whole answer in JSON, or neither. Behind
a finish reason a stream is read on for a while, since that only announces the end.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import msgspec
import trio

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio._core._telling import tell
from flowtrio.wire._payloads import is_keepalive
from flowtrio.wire._reply import empty_reply

from ._answers import BLANK, is_enough, kind_of, label_of
from ._body import read_at_most
from ._carry import tagged
from ._errors import add_words, request_id
from ._host import ModelHost, library_of_response
from ._request import Decoder, HostRequest

_AFTERWORD = 5.0
"""Seconds of silence after a finish reason that end a reply whose protocol has not ended it."""

_PINGED_AFTERWORD = 30.0
"""The same where the host pings: a reply that has said something does not go on for ever."""

MAX_CONTINUATIONS = 8
"""How often a reply goes on in another request, after its host has paused it."""

_MAX_WHOLE = 64 * 1024 * 1024
"""Bytes of an answer that is not streamed."""


@attrs.define(eq=False)
class Reading(ABC):
    """One reply as far as it is read, and the body of the answer that is being read."""

    host: ModelHost
    request: HostRequest
    model: str = ""
    """Who answers, for messages."""
    chunks: deque[Chunk] = attrs.Factory(deque)
    """Decoded and not yet taken."""
    has_spoken: bool = False
    """Whether a chunk has come: from then on there is no other attempt."""
    is_over: bool = False
    """Whether the final chunk has come."""
    heard_at: float = -math.inf
    """When bytes last came that said nothing, on Trio's clock."""
    _continuations: int = 0
    _next: HostRequest | None = None
    """With what the reply goes on."""
    _asks_whole: bool = False
    """Whether a whole answer is asked for: by the caller, or since the host cannot stream."""
    _response: Any = None
    _body: AsyncIterator[bytes] | None = None
    _decoder: Decoder | None = None
    _may_hide_error: bool = False
    """Whether the last piece may have an error behind its chunks."""
    _finished_at: float | None = None
    """Since when nothing was said behind a finish reason."""

    def _take_up(self, request: HostRequest) -> None:
        """The reply goes on with another request."""
        self.request, self._next = request, None

    def _forget_body(self) -> None:
        self._body = self._response = self._decoder = None
        self._may_hide_error, self._finished_at, self.heard_at = False, None, -math.inf

    @abstractmethod
    async def _broken(self, exc: Exception) -> None:
        """The connection broke off: raises, unless the reply is asked for again."""

    @property
    def _label(self) -> str:
        return label_of(str(self._response.headers.get("content-type", "")))

    def _mislabelled(self, expected: str) -> RemoteProtocolError:
        told = self.host.hide(self._response.headers.get("content-type", ""))[:100]
        return self._wrong(
            f"expected content type {expected!r}, got {told!r}",
            code="bad_content_type",
            retryable=False,
        )

    async def _read_piece(self, decoder: Decoder) -> None:
        assert self._body is not None
        if self._may_hide_error:
            # An error that stood behind chunks is told now, not when more data comes.
            self._may_hide_error = False
            self._take(decoder.receive_data, b"")
        piece: bytes | None = None
        try:
            if decoder.is_finished:
                piece = await self._read_afterword(self._body)
            else:
                piece = await self._body.__anext__()
        except StopAsyncIteration:
            pass
        except library_of_response(self._response).RequestError as exc:
            return await self._broken(exc)
        if piece is None:
            self._take(decoder.end_of_data)
        else:
            # A line's end before the last one, or before the blank line: more than one frame.
            self._may_hide_error = piece.find(b"\n") < len(piece) - 2
            self._take(decoder.receive_data, piece)
            if not self.chunks:
                self.heard_at = trio.current_time()
            else:
                self._finished_at = None
        return None

    async def _read_afterword(self, body: AsyncIterator[bytes]) -> bytes | None:
        """What comes behind a finish reason, which only announces the end; None after silence."""
        now, limits = trio.current_time(), self.host.limits
        if self._finished_at is None:
            self._finished_at = now
        # Sooner than who watches this reply would take the silence for a stall.
        seconds = min(_AFTERWORD, limits.first_token / 2, limits.gap / 2, limits.content / 2)
        due = now + seconds
        if self.has_spoken:
            due = min(due, max(now, self._finished_at + _PINGED_AFTERWORD))
        with trio.move_on_at(due):
            return await anext(body)
        tell(
            logging.WARNING,
            "the model's host %s was silent for %.1f s after its finish reason: the reply is taken "
            "for whole",
            self.host.name,
            seconds,
        )
        return None

    async def _read_begin(self) -> None:
        """Read as much as shows what the answer is: a stream, or JSON.

        What was paid for is read, whatever its label says.
        """
        body, label, expected = self._body, self._label, self.request.content_type
        assert body is not None
        begin = b""
        try:
            async for piece in body:
                self.heard_at = trio.current_time()
                begin = (begin + piece).lstrip(BLANK)
                if is_enough(begin, label, expected):
                    break
            kind = "whole" if self._asks_whole else kind_of(begin, label, expected)
            if kind is None:
                raise self._mislabelled(expected)
            if kind == "whole":
                return await self._read_whole(body, begin)
        except library_of_response(self._response).RequestError as exc:
            return await self._broken(exc)
        # More than one frame may have come, and the last of them may be an error.
        decoder = self._decoder = self.request.decoder()
        self._may_hide_error = True
        return self._take(decoder.receive_data, begin)

    async def _read_whole(self, body: AsyncIterator[bytes], begin: bytes) -> None:
        """Read an answer that is JSON."""
        begin += await read_at_most(body, _MAX_WHOLE - len(begin))
        if len(begin) > _MAX_WHOLE:
            raise self._wrong(
                f"the model's answer is larger than {_MAX_WHOLE} bytes",
                code="too_large",
                retryable=False,
            )
        self._take(self._decode_whole, begin)

    def _decode_whole(self, body: bytes) -> list[Chunk]:
        """Decode it as a whole answer, or as a stream of lines that is called JSON."""
        if is_keepalive(body):
            raise empty_reply()
        try:
            return self.request.decode_whole(body)
        except RemoteProtocolError:
            lines = body.strip().splitlines()
            if self._asks_whole or len(lines) < 2 or not lines[0].rstrip().endswith(b"}"):
                raise
            decoder = self._decoder = self.request.decoder()
            chunks = decoder.receive_data(body)
            return chunks if chunks and chunks[-1].is_final else [*chunks, *decoder.end_of_data()]

    def _take(self, decode: Callable[..., list[Chunk]], *data: bytes) -> None:
        try:
            chunks = decode(*data)
        except (ProviderError, RemoteProtocolError) as exc:
            exc.detail = {**self._detail(), **self.host.hide(exc.detail or {})}
            add_words(exc, self.model)
            raise
        if chunks:
            has_said = self.has_spoken or len(chunks) > 1
            self.has_spoken = True
            if chunks[-1].is_final:
                chunks[-1] = self._end(_bounded(chunks[-1]) if has_said else chunks[-1])
            self.is_over = chunks[-1].is_final
            self.chunks.extend(chunks)

    def _end(self, final: Chunk) -> Chunk:
        """The final chunk; where the reply goes on, only what it says."""
        if self._continuations < MAX_CONTINUATIONS:
            self._next = self.request.go_on(final)
        if self._next is None:
            return tagged(final, self.request.origin) if self.request.origin else final
        self._continuations += 1
        self._decoder, self._may_hide_error = None, False
        return Chunk(
            content=final.content,
            reasoning=final.reasoning,
            tool_args=final.tool_args,
            parts=final.parts,
        )

    def _detail(self) -> dict[str, Any]:
        headers = self._response.headers
        return {"status": self._response.status_code, "request_id": request_id(headers)}

    def _wrong(self, text: str, *, code: str, retryable: bool = True) -> RemoteProtocolError:
        error = RemoteProtocolError(text, code=code, retryable=retryable, detail=self._detail())
        add_words(error, self.model)
        return error


def _bounded(final: Chunk) -> Chunk:
    """*final* of a reply that said something, which cost something.

    Some hosts do not count, and send zeros.
    """
    usage = final.usage
    if usage is None or usage.completion_tokens:
        return final
    usage = msgspec.structs.replace(usage, quality="lower_bound")
    return msgspec.structs.replace(final, usage=usage)
