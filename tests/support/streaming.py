"""A reader of lines over HTTP that may stop anywhere, which leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio


class Lines:
    """An answer, line by line."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._data = b""
        self.status = 0

    async def line(self) -> bytes | None:
        """The next one; None at the end."""
        while b"\n" not in self._data:
            piece = await self._stream.receive_some()
            if not piece:
                return None
            self._data += piece
        line, _, self._data = self._data.partition(b"\n")
        return line.strip()

    async def event(self) -> dict[str, Any] | None:
        """The next one that is JSON."""
        while (line := await self.line()) is not None:
            if line.startswith(b"{"):
                event: dict[str, Any] = json.loads(line)
                return event
        return None


@asynccontextmanager
async def asking(url: str, body: Any = None) -> AsyncIterator[Lines]:
    """Ask for lines of JSON; with a *body*, by POST. The answer's head is read.

    Raises:
      OSError: nobody is there.

    """
    parts = urlsplit(url)
    content = b"" if body is None else json.dumps(body).encode()
    head = [
        f"{'GET' if body is None else 'POST'} {parts.path}?{parts.query} HTTP/1.0",
        *(f"Host: {parts.netloc}", "Accept: application/x-ndjson"),
        *("Content-Type: application/json", f"Content-Length: {len(content)}"),
    ]
    assert parts.hostname is not None
    assert parts.port is not None
    async with await trio.open_tcp_stream(parts.hostname, parts.port) as stream:
        lines = Lines(stream)
        try:
            await stream.send_all("\r\n".join([*head, "", ""]).encode() + content)
            first = await lines.line() or b"HTTP/1.0 0"
            lines.status = int(first.split()[1])
            while await lines.line():
                pass
            yield lines
        except trio.BrokenResourceError as exc:
            raise ConnectionError from exc
