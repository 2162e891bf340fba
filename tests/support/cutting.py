"""A proxy that cuts connections at any byte of what the server says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import trio

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class CuttingProxy:
    """Forwards between a client and a server; lives in a thread with a loop of its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._left: int | None = None
        self._cuts: set[trio.CancelScope] = set()
        self.connections = 0
        self.port = 0

    def cut_after(self, count: int | None) -> None:
        """Cut after so many bytes more of the server's, on whatever connection; None for never."""
        self._left = count

    async def serve(self, is_up: threading.Event, holder: list[trio.CancelScope]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        with trio.CancelScope() as scope:
            holder.append(scope)
            is_up.set()
            await trio.serve_listeners(self._handle, listeners)

    async def _handle(self, client: trio.SocketStream) -> None:
        self.connections += 1
        try:
            server = await trio.open_unix_socket(self._path)
        except OSError:
            return await client.aclose()
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._forward, client, server, False, nursery.cancel_scope)
            nursery.start_soon(self._forward, server, client, True, nursery.cancel_scope)

    async def _forward(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        is_watched: bool,
        scope: trio.CancelScope,
    ) -> None:
        try:
            async for data in source:
                left = self._left
                if is_watched and left is not None:
                    self._left = max(left - len(data), 0)
                    if len(data) >= left:
                        self._left = None
                        if left:
                            await sink.send_all(data[:left])
                        break
                await sink.send_all(data)
        except _GONE:
            pass
        scope.cancel()


@contextmanager
def cutting(path: str) -> Iterator[CuttingProxy]:
    """A proxy before a Unix socket, up to the end of the block."""
    proxy = CuttingProxy(path)
    is_up, holder, token = threading.Event(), [], []

    async def main() -> None:
        token.append(trio.lowlevel.current_trio_token())
        await proxy.serve(is_up, holder)

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    is_up.wait(10)
    try:
        yield proxy
    finally:
        token[0].run_sync_soon(holder[0].cancel)
        thread.join(10)
