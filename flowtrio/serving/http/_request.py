"""One HTTP request under ASGI, and its answer."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import attrs
import trio

from flowtrio.abc import Request
from flowtrio.serving._access import Refused
from flowtrio.serving._folding import fold_request
from flowtrio.serving.commands._clients import Refusal

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

logger: logging.Logger = logging.getLogger("flowtrio")

STATUSES: Final = {
    "unknown_run": 404,
    "no_next_reply": 409,
    "replay_gap": 410,
    "store_failed": 503,
    "no_reply": 503,
}
"""Of answers that tell why a run cannot be read or told something, by its code."""
_PIECE: Final = 64 * 1024
"""Bytes that are sent at once: a client that needs long for a long log takes some all the time."""
_COMMON: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def _refusal(status: int, code: str, error: str) -> dict[str, str]:
    return {"code": code, "error": error}


def refused(refusal: Refusal) -> Refused:
    """The answer that a refusal is where nothing of another one is on its way."""
    return Refused(STATUSES[refusal.code], refusal.error, refusal.code)


class Left(Exception):
    """The client has gone."""


def telling_who_left(send: Send) -> Send:
    """Have *send* raise `Left` for a client that has gone.

    "If send() is called on a closed connection the server should raise a server-specific subclass
    of OSError" (ASGI, HTTP & WebSocket 2.4); others say nothing.
    """

    async def sent(message: MutableMapping[str, Any]) -> None:
        try:
            await send(message)
        except OSError as exc:
            raise Left from exc

    return sent


def read_request(scope: Scope, path: str) -> Request:
    """What `authenticate` and the access rules see of a request."""
    client = scope.get("client")
    return fold_request(
        scope["headers"],
        path=path,
        query=scope.get("query_string", b"").decode("latin-1"),
        client=str(client[0]) if client else None,
    )


def path_below(scope: Scope) -> str:
    """The request's path below the place where the application is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :]
    return path


def pieces_below(scope: Scope) -> list[str]:
    """What stands between the slashes of that path; a slash in a name is sent as ``%2F``.

    `path_below` has them decoded, and cannot tell the two apart. Where the server does not give
    what was sent, a name has no slash.
    """
    path = path_below(scope)
    raw = scope.get("raw_path") or b""
    sent = [unquote(piece) for piece in raw.decode("latin-1").partition("?")[0].split("/")]
    for place in range(len(sent)):
        # Behind where we are mounted, however that is told.
        if "/" + "/".join(sent[place:]) == path:
            return sent[place:]
    return path.split("/")[1:]


@attrs.define(eq=False)
class Exchange:
    """A request that is being answered."""

    request: Request
    method: str
    receive: Receive
    _send: Send
    cors: dict[str, str] = attrs.Factory(dict)
    """Headers that let a page of an allowed origin read the answer."""
    shape: Callable[[int, str, str], Any] = attrs.field(default=_refusal, init=False)
    """Gives a refusal's body of its status, code and text."""
    seconds: float = math.inf
    """Until the client has taken what was sent to it; each piece has as long."""
    scope: trio.CancelScope | None = attrs.field(default=None, init=False)
    """What is cancelled when it has not; None for nothing, then the send raises `Left`.

    A server may shield its sends (Hypercorn does): a deadline does not reach them. But it reaches
    all that stands beside the sender in this scope."""
    has_begun: bool = attrs.field(default=False, init=False)
    """Whether something of the answer may be on its way."""

    async def read_body(self, limit: int, seconds: float, piece: float = math.inf) -> bytes:
        """Read the request's body.

        Args:
          limit: Bytes that it may have.
          seconds: How long it may take, for each *piece* of it.
          piece: Bytes.

        Raises:
          Refused: it is larger, or takes longer.
          Left: the client has gone.

        """
        with trio.move_on_after(seconds) as waiting:
            start, body = trio.current_time(), bytearray()
            while True:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise Left
                body += message.get("body", b"")
                if len(body) > limit:
                    raise Refused(413, f"the request's body is larger than {limit} bytes")
                if not message.get("more_body", False):
                    return bytes(body)
                waiting.deadline = start + seconds * (1 + len(body) // piece)
        raise Refused(408, f"the request's body takes longer than {seconds:g} s")

    async def wait_left(self) -> None:
        """Wait until the client has gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send an answer's head; see `send` for what it raises."""
        named = {**_COMMON, **self.cors, **headers}
        self.has_begun = True
        await self._give(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in named.items()],
            }
        )

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of an answer's body, in pieces that have the send deadline each for itself.

        Half a piece may be on the wire when that takes too long. Without its end, the answer is
        known to be cut.

        Raises:
          Left: the client did not take it in time, and there is no scope to cancel.

        """
        for start in range(0, max(len(body), 1), _PIECE):
            end = start + _PIECE
            is_last = not more and end >= len(body)
            piece = {"body": body[start:end], "more_body": not is_last}
            await self._give({"type": "http.response.body", **piece})

    async def _give(self, message: MutableMapping[str, Any]) -> None:
        scope = trio.CancelScope() if self.scope is None else self.scope
        scope.deadline = trio.current_time() + self.seconds
        if self.scope is None:
            with scope:
                await self._send(message)
            if scope.cancelled_caught:
                self.tell_late()
                raise Left
        else:
            try:
                await self._send(message)
            except Left:
                scope.cancel(reason="the client left")
            if scope.cancel_called:
                # By the deadline, or since the client left: nothing of what goes on is for it.
                await trio.lowlevel.checkpoint()
            scope.deadline = math.inf

    @property
    def is_late(self) -> bool:
        """Whether the client has not taken in time what is being sent in the scope."""
        return self.scope is not None and trio.current_time() >= self.scope.deadline

    def tell_late(self) -> None:
        """Write down that the client was too slow."""
        words = (
            "a client took nothing for %g s of what is sent to it: its %s of %r, from %s, is cut"
        )
        request = self.request
        logger.info(words, self.seconds, self.method, request.path, request.client or "somewhere")

    async def answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer."""
        length = {} if status == 204 else {"content-length": str(len(body))}
        await self.begin(status, {**length, **(headers or {})})
        await self.send(b"" if self.method == "HEAD" else body, more=False)

    async def answer_json(
        self, status: int, body: Any, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer in JSON."""
        kind = {"content-type": "application/json"}
        await self.answer(status, json.dumps(body).encode(), {**kind, **(headers or {})})

    async def refuse(
        self, status: int, code: str, error: str, retry_after: float | None = None
    ) -> None:
        """Say why not, and after how many seconds it is worth another try."""
        asks = {"www-authenticate": "Bearer"} if status == 401 else {}
        if retry_after is not None:
            asks["retry-after"] = str(math.ceil(retry_after))
        await self.answer_json(status, self.shape(status, code, error), asks)
