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
from collections.abc import Awaitable, Mapping
from typing import Any

import attrs
import trio

from flowtrio._core._exceptions import DeadlineExceeded, ProviderError, RemoteProtocolError
from flowtrio._core._telling import tell

from ._answers import JSON
from ._body import body_of, read_at_most, unwind
from ._errors import add_words, error_of_response, refuses_streaming, unreachable
from ._host import CLOSE, Pool, library_of, library_of_response
from ._options import with_extra
from ._reading import Reading
from ._request import HostRequest
from ._retries import is_tried_again, wait_before_next
from ._watch import Wait

_DRAIN = 0.05
"""Seconds for the end of a body whose reply is whole, so that its connection can be used again."""

_MAX_ERROR = 64 * 1024
"""Bytes of an error's body that are read."""


@attrs.define(eq=False)
class Exchange(Reading):
    """One reply's requests and the body that is being read."""

    extra_body: Mapping[str, Any] = attrs.Factory(dict)
    is_closed: bool = False
    _retries: int = 0
    """Requests sent again since the reply began, or went on."""
    _begun: float | None = None
    """When its first request began, or that with which it went on."""
    _pool: Pool | None = None
    """Whose slot is held."""
    _wait: Wait | None = None

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

    async def _go_on(self, request: HostRequest) -> None:
        await self._leave()
        self._take_up(request)
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

    # Failing, and trying again

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
        self._pool = self._wait = None
        self._forget_body()
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
