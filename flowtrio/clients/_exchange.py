"""Asking a model's host over HTTP: requests, answers, and leaving early.

One reply::

    slot ─ request ─┬─ refused, reset, 429, 5xx ─ wait ─ again, as often as the host may be asked
                    ├─ "cannot stream" ───────── the same without streaming, once
                    ├─ any other status ──────── ProviderError
                    └─ 200 ─ pieces of the body ─ decoder ─ chunks ─ final ─ drained, slot free
                                 ├─ overloaded, nothing said ─ wait ─ again
                                 │                             └─ paused ─ drained, another request
                                 └─ left early ─ unwound, connection closed, slot free

A request that waits for a place in httpx's pool may lose that place when it is cancelled: so
requests wait for a slot of ours instead, of which there are fewer.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import attrs
import msgspec
import trio

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import DeadlineExceeded, ProviderError, RemoteProtocolError
from flowtrio._core._telling import tell
from flowtrio.wire._payloads import is_keepalive
from flowtrio.wire._reply import empty_reply

from ._answers import BLANK, JSON, is_enough, kind_of, label_of
from ._body import body_of, read_at_most, unwind
from ._carry import tagged
from ._errors import add_words, error_of_response, refuses_streaming, request_id, unreachable
from ._host import CLOSE, ModelHost, Pool, library_of, library_of_response
from ._options import with_extra
from ._request import Decoder, ModelRequest
from ._retries import is_tried_again, wait_before_next
from ._watch import Wait

_AFTERWORD = 5.0
"""Seconds of silence after a finish reason that end a reply whose protocol has not ended it."""

_PINGED_AFTERWORD = 30.0
"""The same where the host pings: a reply that has said something does not go on for ever."""

_DRAIN = 0.05
"""Seconds for the end of a body whose reply is whole, so that its connection can be used again."""

MAX_CONTINUATIONS = 8
"""How often a reply goes on in another request, after its host has paused it."""

_MAX_ERROR = 64 * 1024
_MAX_WHOLE = 64 * 1024 * 1024
"""Bytes of an error's body that are read, and of an answer that is not streamed."""


@attrs.define(eq=False)
class Exchange:
    """One reply's requests and the body that is being read."""

    host: ModelHost
    request: ModelRequest
    model: str = ""
    """Who answers, for messages."""
    extra_body: Mapping[str, Any] = attrs.Factory(dict)
    chunks: deque[Chunk] = attrs.Factory(deque)
    """Decoded and not yet taken."""
    has_spoken: bool = False
    """Whether a chunk has come: from then on there is no other attempt."""
    is_over: bool = False
    """Whether the final chunk has come."""
    is_closed: bool = False
    heard_at: float = -math.inf
    """When bytes last came that said nothing, on Trio's clock."""
    _retries: int = 0
    """Requests sent again since the reply began, or went on."""
    _begun: float | None = None
    """When its first request began, or that with which it went on."""
    _continuations: int = 0
    _next: ModelRequest | None = None
    """With what the reply goes on."""
    _asks_whole: bool = False
    """Whether a whole answer is asked for: by the caller, or since the host cannot stream."""
    _pool: Pool | None = None
    """Whose slot is held."""
    _response: Any = None
    _body: AsyncIterator[bytes] | None = None
    _decoder: Decoder | None = None
    _may_hide_error: bool = False
    """Whether the last piece may have an error behind its chunks."""
    _wait: Wait | None = None
    _finished_at: float | None = None
    """Since when nothing was said behind a finish reason."""

    def __attrs_post_init__(self) -> None:
        self._asks_whole = not self.request.wants_stream

    def advance(self) -> Awaitable[None]:
        """Get a response, or read one piece of its body."""
        if self.has_spoken and self._decoder is not None:
            # For every token: without a further frame to walk through.
            return self._read_piece(self._decoder)
        if self._next is not None:
            return self._go_on(self._next)
        return self._open() if self._body is None else self._begin()

    async def _begin(self) -> None:
        """Read the first of a body, which may say that the host cannot stream, or cannot now."""
        try:
            if self._decoder is None:
                await self._read_begin()
            else:
                await self._read_piece(self._decoder)
        except (ProviderError, RemoteProtocolError) as exc:
            if self._is_refusal_to_stream(exc):
                await self._ask_whole()
            elif self.has_spoken:
                raise
            else:
                await self._try_again(exc, exc.__cause__)

    # Opening

    async def _go_on(self, request: ModelRequest) -> None:
        await self._leave()
        self.request, self._next = request, None
        self._retries, self._begun = 0, None
        await self._open()

    async def _open(self) -> None:
        host = self.host
        if self._begun is None:
            self._begun = trio.current_time()
        key = await host.ask_key()
        pool = host.pool()
        await pool.enter(self)
        self._pool = pool
        library = library_of(pool.http)
        asked = self.request.ask(not self._asks_whole)
        asked = attrs.evolve(asked, body=with_extra(asked.body, self.extra_body))
        http_request = host.build(pool.http, asked, key)
        host.requests += 1
        try:
            self._response = await pool.http.send(http_request, stream=True)
        except library.ConnectTimeout as exc:
            seconds = host.limits.connect
            raise DeadlineExceeded(
                f"no connection to the model's host {host.name} within {seconds} s (connect)",
                deadline="connect",
            ) from exc
        except library.RequestError as exc:
            await self._try_again(self._unreachable(exc), exc)
        else:
            self._body = body_of(self._response)
            if self._response.status_code != 200:
                await self._refused()
            elif self._asks_whole and self._label != JSON:
                raise self._mislabelled(JSON)

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

    async def _refused(self) -> None:
        assert self._body is not None
        body = b""
        with contextlib.suppress(library_of_response(self._response).RequestError):
            body = await read_at_most(self._body, _MAX_ERROR)
        host, response = self.host, self._response
        error = error_of_response(
            response.status_code, response.headers, body, host.name, host.wall_clock()
        )
        error.args = (host.hide(str(error)),)
        error.detail = host.hide(error.detail)
        add_words(error, self.model)
        if self._is_refusal_to_stream(error):
            await self._ask_whole()
        else:
            await self._try_again(error, None)

    # Waiting

    def watched(self, seconds: float) -> Wait | None:
        """What watches the waits for a body; None where its connection is not its own."""
        if self._next is not None:
            # It is not a body that is waited for.
            return None
        if self._wait is None and self._pool is not None and self._response is not None:
            stream = self._response.extensions.get("network_stream")
            if stream is None or self._response.http_version != "HTTP/1.1":
                return None
            self._wait = Wait(stream.aclose, seconds)
            self._pool.watch.add(self._wait)
        return self._wait

    def _is_refusal_to_stream(self, error: ProviderError | RemoteProtocolError) -> bool:
        if self._asks_whole or self.has_spoken:
            return False
        if isinstance(error, ProviderError):
            return refuses_streaming(error)
        # JSON instead of a stream, and no answer either.
        return self._decoder is None and error.code not in ("too_large", "bad_content_type")

    async def _ask_whole(self) -> None:
        """See to it that the next step asks for a whole answer."""
        self._asks_whole = True
        await self._leave()

    # Reading

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

    # Failing, and trying again

    def _wrong(self, text: str, *, code: str, retryable: bool = True) -> RemoteProtocolError:
        error = RemoteProtocolError(text, code=code, retryable=retryable, detail=self._detail())
        add_words(error, self.model)
        return error

    def _unreachable(self, exc: Exception) -> ProviderError:
        self.host.clean(exc)
        error = unreachable(exc, self.host.name)
        add_words(error, self.model)
        return error

    async def _broken(self, exc: Exception) -> None:
        if self._wait is not None and self._wait.is_expired:
            raise self.host.limits.stalled("gap", pings=False) from None
        if not self.has_spoken:
            return await self._try_again(self._unreachable(exc), exc)
        self.host.clean(exc)
        broke = f"the model's stream broke off before its finish mark: {type(exc).__name__}"
        raise self._wrong(broke, code="stream_cut") from exc

    async def _try_again(
        self, error: ProviderError | RemoteProtocolError, cause: BaseException | None
    ) -> None:
        """Wait, so that the next step asks again; or give up."""
        host = self.host
        if not is_tried_again(error) or self._retries >= host.max_retries:
            raise error from cause
        assert self._begun is not None
        longest = self._begun + host.limits.first_token - trio.current_time()
        wait = wait_before_next(error, self._retries, longest, host.jitter)
        if wait is None:
            raise error from cause
        self._retries += 1
        host.retries += 1
        tell(
            logging.WARNING,
            "%s; asking again in %.1f s (retry %d of %d)",
            error,
            wait,
            self._retries,
            host.max_retries,
        )
        await self._leave()
        await trio.sleep(wait)

    # Leaving

    async def close(self) -> None:
        """Leave, in whatever state; takes no longer than it has to."""
        if not self.is_closed:
            self.is_closed = True
            await self._leave()

    async def _leave(self) -> None:
        """Give the connection and the slot back."""
        body, response, pool = self._body, self._response, self._pool
        if self._wait is not None and pool is not None:
            pool.watch.discard(self._wait)
        self._body = self._response = self._pool = self._wait = self._decoder = None
        self._may_hide_error, self._finished_at, self.heard_at = False, None, -math.inf
        try:
            if body is not None:
                is_read = self.is_over or self._next is not None
                await unwind(body, patience=_DRAIN if is_read else 0)
            if response is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE):
                    await response.aclose()
        finally:
            if pool is not None:
                pool.leave(self)


def _bounded(final: Chunk) -> Chunk:
    """*final* of a reply that said something, which cost something.

    Some hosts do not count, and send zeros.
    """
    usage = final.usage
    if usage is None or usage.completion_tokens:
        return final
    usage = msgspec.structs.replace(usage, quality="lower_bound")
    return msgspec.structs.replace(final, usage=usage)
