"""Asking a model's host over HTTP: requests, retries, limits, and leaving early.

One reply::

    slot ─ request ─┬─ refused, reset, 429, 5xx ─ wait ─ again, three requests at most
                    ├─ "cannot stream" ───────── the same without streaming, once
                    ├─ any other status ──────── ProviderError
                    └─ 200 ─ pieces of the body ─ decoder ─ chunks ─ final ─ drained, slot free
                                 └─ left early ─ unwound, connection closed, slot free

Between two chunks no scope is open and no task runs, so a reply may be left at any time. Two things
about httpx shape what stands here. Its body is a chain of async generators that has to be unwound
from the inside, which only an exception at its innermost wait does: a cancellation, or the body's
end (`_unwind`). And a request that waits for a place in its pool may lose that place when it is
cancelled: so requests wait for a slot of ours instead, of which there are fewer.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol, Self

import attrs
import trio
from trio.lowlevel import checkpoint_if_cancelled

from flowtrio._core._chunks import Chunk, Completion, CompletionBuilder
from flowtrio._core._exceptions import DeadlineExceeded, ProviderError, RemoteProtocolError
from flowtrio._core._limits import ModelLimits

from ._errors import error_of_response, refuses_streaming, request_id
from ._here import check_trio
from ._host import CLOSE, HttpRequest, ModelHost, Pool, library_of, library_of_response
from ._watch import Wait

MAX_REQUESTS = 3
"""Requests for one reply at most."""

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0
"""Seconds before another request where the host does not say: doubled each time, then jittered."""

_AFTERWORD = 2.0
"""Seconds for what comes after the finish mark: usage, ``[DONE]``."""

_DRAIN = 0.05
"""Seconds for the end of a body whose reply is whole, so that its connection can be used again."""

_MAX_ERROR = 64 * 1024
_MAX_WHOLE = 64 * 1024 * 1024
"""Bytes of an error's body that are read, and of an answer that is not streamed."""


class Decoder(Protocol):
    """One reply's bytes to chunks, without I/O."""

    @property
    def is_finished(self) -> bool:
        """Whether the finish mark was seen."""
        ...

    def receive_data(self, data: bytes, /) -> list[Chunk]:
        """Take a piece of the body; give the chunks that it completes."""
        ...

    def end_of_data(self) -> list[Chunk]:
        """The body ended: give what is still to come, the final chunk last."""
        ...


@attrs.frozen(kw_only=True)
class ModelRequest:
    """What a client asks, and how the answer is read."""

    ask: Callable[[bool], HttpRequest]
    """Makes the request: for a stream if True, for a whole answer if False."""
    wants_stream: bool = True
    decoder: Callable[[], Decoder]
    decode_whole: Callable[[bytes], list[Chunk]]
    content_type: str = "text/event-stream"
    """Of a streamed answer."""

    def as_whole(self) -> ModelRequest:
        """The same, asked for a whole answer from the start."""
        return attrs.evolve(self, wants_stream=False)


def stream_reply(host: ModelHost, request: ModelRequest) -> CompletionStream:
    """Make a reply's iterator; nothing is sent before its first step."""
    return CompletionStream(_Exchange(host, request), host.limits)


class CompletionStream(AsyncIterator[Chunk]):
    """One reply on its way: an iterator of chunks, the last one with ``is_final``.

    Nothing is sent before the first step. May be left at any time, by ``break`` too; ``aclose`` and
    ``async with`` close the connection before they return, a dropped iterator as soon as Trio runs.
    One task may read at a time. After an error, or a read that was cancelled, it is closed.
    """

    __slots__ = ("__weakref__", "_exchange", "_is_reading", "_token", "limits")

    def __init__(self, exchange: _Exchange, limits: ModelLimits | None) -> None:
        self._exchange = exchange
        self._is_reading = False
        self._token: trio.lowlevel.TrioToken | None = None
        self.limits: ModelLimits | None = limits
        """Bounds of each wait for the host; None where the caller watches, as a run does."""

    async def __aenter__(self) -> Self:
        """Give the stream itself."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Give the stream itself."""
        return self

    async def __anext__(self) -> Chunk:
        """Give the next chunk.

        Raises:
          ProviderError: the host refused or failed, in the stream too.
          RemoteProtocolError: the stream is malformed, or ended before its finish mark.
          DeadlineExceeded: one of the limits passed: ``connect first_token gap``.
          trio.ClosedResourceError: it was closed, or a read failed before.

        """
        exchange = self._exchange
        if self._token is None:
            check_trio()
            self._token = trio.lowlevel.current_trio_token()
        try:
            await checkpoint_if_cancelled()
        except BaseException:
            # A cancellation may well strike between two reads: it ends the reply all the same.
            if not self._is_reading:
                await exchange.close()
            raise
        if exchange.chunks:
            return exchange.chunks.popleft()
        if self._is_reading:
            raise trio.BusyResourceError("another task is reading this reply")
        if exchange.is_over:
            await exchange.close()
            raise StopAsyncIteration
        if exchange.is_closed:
            raise trio.ClosedResourceError("can't read on: this reply was closed before its end")
        self._is_reading = True
        try:
            while not exchange.chunks:
                if self.limits is None:
                    await exchange.advance()
                else:
                    await self._advance_within(self.limits)
        except BaseException:
            await exchange.close()
            raise
        finally:
            self._is_reading = False
        return exchange.chunks.popleft()

    async def _advance_within(self, limits: ModelLimits) -> None:
        exchange = self._exchange
        if exchange.has_spoken and (wait := exchange.watched(limits.gap)) is not None:
            # For every token: without a scope, which would cost more than all the rest.
            wait.since = trio.current_time()
            try:
                return await exchange.advance()
            finally:
                wait.since = None
        name = "gap" if exchange.has_spoken else "first_token"
        seconds = limits.gap if exchange.has_spoken else limits.first_token
        with trio.move_on_after(seconds):
            return await exchange.advance()
        raise DeadlineExceeded(f"the model sent nothing for {seconds} s ({name})", deadline=name)

    async def aclose(self) -> None:
        """Close the reply and its connection; does nothing the second time."""
        self._exchange.chunks.clear()
        await self._exchange.close()

    def __del__(self) -> None:
        # Any thread, any time: nothing may be done here but to leave word for the loop.
        exchange = self._exchange
        if self._token is not None and not exchange.is_closed:
            # After the loop ended, its keeper has closed the connection.
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(_close_soon, exchange)


@attrs.define(eq=False)
class _Exchange:
    """One reply's requests and the body that is being read."""

    host: ModelHost
    request: ModelRequest
    chunks: deque[Chunk] = attrs.Factory(deque)
    """Decoded and not yet taken."""
    has_spoken: bool = False
    """Whether a chunk has come: from then on there is no other attempt."""
    is_over: bool = False
    """Whether the final chunk has come."""
    is_closed: bool = False
    _requests: int = 0
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

    def __attrs_post_init__(self) -> None:
        self._asks_whole = not self.request.wants_stream

    def advance(self) -> Awaitable[None]:
        """Get a response, or read one piece of its body."""
        if self.has_spoken and self._decoder is not None:
            # For every token: without a further frame to walk through.
            return self._read_piece(self._decoder)
        return self._open() if self._body is None else self._begin()

    async def _begin(self) -> None:
        """Read the first of a body, which may say that the host cannot stream."""
        try:
            if self._decoder is None:
                await self._read_whole()
            else:
                await self._read_piece(self._decoder)
        except (ProviderError, RemoteProtocolError) as exc:
            if not self._is_refusal_to_stream(exc):
                raise
            await self._ask_whole()

    # Opening

    async def _open(self) -> None:
        host = self.host
        pool = host.pool()
        await pool.enter(self)
        self._pool = pool
        library = library_of(pool.http)
        http_request = host.build(pool.http, self.request.ask(not self._asks_whole))
        host.requests += 1
        self._requests += 1
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
            self._body = _body_of(self._response)
            if self._response.status_code == 200:
                self._choose_decoder()
            else:
                await self._refused()

    def _choose_decoder(self) -> None:
        content_type = self._response.headers.get("content-type", "")
        got = content_type.partition(";")[0].strip().lower()
        expected = self.request.content_type
        # Asked for a stream, some hosts answer whole all the same.
        is_whole = got == "application/json"
        if not is_whole and (self._asks_whole or got not in ("", expected)):
            expected = "application/json" if self._asks_whole else expected
            raise RemoteProtocolError(
                f"expected content type {expected!r}, got {self.host.hide(content_type)[:100]!r}",
                code="bad_content_type",
                detail=self._detail(),
            )
        self._decoder = None if is_whole else self.request.decoder()

    async def _refused(self) -> None:
        body = b""
        with contextlib.suppress(library_of_response(self._response).RequestError):
            body = await self._read_to_end(_MAX_ERROR)
        host, response = self.host, self._response
        error = error_of_response(
            response.status_code, response.headers, body, host.name, host.wall_clock()
        )
        error.detail = host.hide(error.detail)
        if self._is_refusal_to_stream(error):
            await self._ask_whole()
        else:
            await self._try_again(error, None)

    # Waiting

    def watched(self, seconds: float) -> Wait | None:
        """What watches the waits for a body; None where its connection is not its own."""
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
        return self._decoder is None and error.code != "too_large"

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
                # The reply is whole; what is still to come may take a while, not for ever.
                with trio.move_on_after(_AFTERWORD):
                    piece = await anext(self._body, None)
            else:
                piece = await self._body.__anext__()
        except StopAsyncIteration:
            pass
        except library_of_response(self._response).RequestError as exc:
            if not decoder.is_finished:
                return await self._broken(exc)
        if piece is None:
            self._take(decoder.end_of_data)
        else:
            # A line's end before the last one, or before the blank line: more than one frame.
            self._may_hide_error = piece.find(b"\n") < len(piece) - 2
            self._take(decoder.receive_data, piece)
        return None

    async def _read_whole(self) -> None:
        try:
            body = await self._read_to_end(_MAX_WHOLE)
        except library_of_response(self._response).RequestError as exc:
            return await self._broken(exc)
        if len(body) > _MAX_WHOLE:
            raise RemoteProtocolError(
                f"the model's answer is larger than {_MAX_WHOLE} bytes", code="too_large"
            )
        self._take(self.request.decode_whole, body)
        return None

    async def _read_to_end(self, limit: int) -> bytes:
        assert self._body is not None
        pieces, size = [], 0
        async for piece in self._body:
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                break
        return b"".join(pieces)

    def _take(self, decode: Callable[..., list[Chunk]], *data: bytes) -> None:
        try:
            chunks = decode(*data)
        except (ProviderError, RemoteProtocolError) as exc:
            exc.detail = {**self._detail(), **self.host.hide(exc.detail or {})}
            raise
        if chunks:
            self.has_spoken = True
            self.is_over = chunks[-1].is_final
            self.chunks.extend(chunks)

    def _detail(self) -> dict[str, Any]:
        headers = self._response.headers
        return {"status": self._response.status_code, "request_id": request_id(headers)}

    # Failing, and trying again

    def _unreachable(self, exc: Exception) -> ProviderError:
        # A certificate does not become valid by asking again.
        is_certificate = "CERTIFICATE" in str(exc).upper()
        self.host.clean(exc)
        return ProviderError(
            f"the model's host {self.host.name} could not be reached: {type(exc).__name__}",
            code="connection_failed",
            retryable=not is_certificate,
        )

    async def _broken(self, exc: Exception) -> None:
        if self._wait is not None and self._wait.is_expired:
            seconds = self._wait.seconds
            raise DeadlineExceeded(
                f"the model sent nothing for {seconds} s (gap)", deadline="gap"
            ) from None
        if not self.has_spoken:
            return await self._try_again(self._unreachable(exc), exc)
        self.host.clean(exc)
        raise RemoteProtocolError(
            f"the model's stream broke off before its finish mark: {type(exc).__name__}",
            code="stream_cut",
            retryable=True,
            detail=self._detail(),
        ) from exc

    async def _try_again(self, error: ProviderError, cause: Exception | None) -> None:
        """Wait, so that the next step asks again; or give up."""
        host = self.host
        wait = error.retry_after
        if wait is None:
            wait = host.jitter() * min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (self._requests - 1))
        longest = host.limits.first_token
        if not error.retryable or self._requests >= MAX_REQUESTS or wait >= longest:
            raise error from cause
        host.retries += 1
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
        self._body = self._response = self._pool = self._wait = None
        try:
            if body is not None:
                await _unwind(body, patience=_DRAIN if self.is_over else 0)
            if response is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE):
                    await response.aclose()
        finally:
            if pool is not None:
                pool.leave(self)


async def fold(stream: CompletionStream) -> Completion:
    """Read a reply to its end and give it whole."""
    builder = CompletionBuilder()
    async with stream:
        async for chunk in stream:
            completion = builder.add(chunk)
            if completion is not None:
                return completion
    raise RemoteProtocolError("the model's stream ended without its finish mark", code="stream_cut")


def _body_of(response: Any) -> AsyncIterator[bytes]:
    if "content-encoding" in response.headers:
        return response.aiter_bytes()  # type: ignore[no-any-return]
    # What the library has around this, to decompress and to count, costs as much as our decoding.
    return aiter(response.stream)


# The ends of things


async def _unwind(body: AsyncIterator[bytes], patience: float) -> None:
    """Read a body to its end for *patience* seconds, then end it by a cancellation of our own."""
    with trio.CancelScope(shield=True) as scope:
        scope.deadline = trio.current_time() + patience
        # Whatever is wrong with the rest, nobody wants it any more.
        with contextlib.suppress(Exception):
            async for _ in body:
                pass
    with contextlib.suppress(Exception):
        await body.aclose()  # type: ignore[attr-defined]


def _close_soon(exchange: _Exchange) -> None:
    trio.lowlevel.spawn_system_task(_close_quietly, exchange, name="flowtrio: leave a reply")


async def _close_quietly(exchange: _Exchange) -> None:
    with contextlib.suppress(Exception):
        await exchange.close()
