"""A connection of which something was read already."""

from __future__ import annotations

import trio


class Replayed(trio.abc.Stream):
    """A stream that gives what was received before once more."""

    def __init__(self, stream: trio.abc.Stream, received: bytes) -> None:
        self.stream = stream
        self.received = received

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `trio.abc.ReceiveStream`: what was received before comes first."""
        if self.received:
            await trio.lowlevel.checkpoint()
            received, self.received = self.received, b""
            return received
        return await self.stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        await self.stream.aclose()
