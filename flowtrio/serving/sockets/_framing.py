"""WebSocket framing (RFC 6455) by trio-websocket, made fit for hostile peers.

Only its connection object is used, under our own accept loop and our own reading of the request's
head. What is changed in it, and why, stands beside each method.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, TextMessage

from flowtrio._core._limits import ServerLimits
from flowtrio.serving._head import Head
from flowtrio.serving._replayed import Replayed

from ._patience import Patience

logger: logging.Logger = logging.getLogger("flowtrio")

_PIECE = 64 * 1024
_MEDIUM: Final = Struct("!BBH")
_LARGE: Final = Struct("!BBQ")


class Framing(WebSocketConnection):
    """One WebSocket: texts in, texts out, closed with a code."""

    def __init__(
        self, stream: trio.abc.Stream, head: Head, limits: ServerLimits, patience: Patience
    ) -> None:
        self._held = _Held(stream, head)
        super().__init__(
            self._held,
            WSConnection(ConnectionType.SERVER),
            # What is received is taken at once: what waits here would hold up the pings behind it.
            message_queue_size=1,
            max_message_size=limits.whole_message,
        )
        self._limits = limits
        self._patience = patience
        self._frames = 0
        self._size = 0
        self._may_be_large = False
        self.let_go: Callable[[], object] = lambda: None
        """Called when the other side closes, goes, or breaks the protocol. A task that waited for
        that would cost each idle connection a tenth of its memory."""
        self._has_read_all = trio.Event()

    @property
    def received(self) -> int:
        """Bytes that came so far: whoever is in the midst of a large message answers no ping."""
        return self._held.count

    async def accept(self, subprotocol: str | None) -> None:
        """Finish the opening handshake, whose request was received before.

        Raises:
          trio.TooSlowError: the client does not take the answer.

        """
        with trio.fail_after(self._limits.handshake):
            request = await self._get_request()
            await request.accept(subprotocol=subprotocol)
        # An idle connection would keep the request, and the parser that read it: a tenth of it all.
        self._wsproto.handshake = _AGREED  # type: ignore[assignment]
        self._held.go_on()

    async def read(self) -> None:
        """Read from the network until it ends; one task has to, all the time."""
        try:
            await self._reader_task()
        finally:
            self.let_go()
            self._has_read_all.set()

    async def send_texts(self, texts: Sequence[str]) -> None:
        """Send texts, each a message of its own, in one write or several where they are long.

        Raises:
          ConnectionClosed: the connection is closed, or being closed; or the other side does not
            take them, and it was dropped. Half a frame may be on the wire.

        """
        if self._close_reason or self._wsproto.state is not ConnectionState.OPEN:
            raise ConnectionClosed(self._close_reason)
        data = b"".join([part for text in texts for part in _frame(text.encode())])
        # As `_send` does for one: a message costs a third of what it does there.
        try:
            # For the usual case: waiting in line is a schedule point of its own.
            self._stream_lock.acquire_nowait()
        except trio.WouldBlock:
            await self._stream_lock.acquire()
        try:
            # Each for itself: a long message may take longer, and it would only come again.
            for start in range(0, len(data), _PIECE):
                self._patience.begin(self)
                await self._stream.send_all(data[start : start + _PIECE])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self._abort_web_socket()
            raise ConnectionClosed(self._close_reason) from None
        finally:
            self._patience.end(self)
            self._stream_lock.release()

    async def close(self, code: int, reason: str) -> None:
        """Close with a code, and wait for the other side's answer for a short while."""
        if self._close_reason:
            # The network's side was first. Its close frame may still stand in line to be sent, and
            # whoever calls this cancels it next.
            return await self.wait_closed()
        with trio.move_on_after(self._limits.close):
            await self.aclose(code, reason)

    async def wait_closed(self) -> None:
        """Wait until a closing that began on the network's side is through."""
        with trio.move_on_after(self._limits.close):
            await self._has_read_all.wait()

    async def drop(self, seconds: float) -> None:
        """See `Sender`: who sends is told that all is closed."""
        words = "a client took nothing for %s s of what is sent to it: its WebSocket is dropped"
        logger.info(words, seconds)
        await self.abort()

    async def abort(self) -> None:
        """Drop the connection: something was cut short, so nothing can be said on it any more."""
        await trio.aclose_forcefully(self._stream)

    async def _handle_close_connection_event(self, event: CloseConnection) -> None:
        self.let_go()
        # Our close frame stands in line behind what is being sent, which nobody may be reading.
        with trio.move_on_after(self._limits.close) as answering:
            await self._answer_close(event)
        if answering.cancelled_caught:
            await self.abort()

    async def _answer_close(self, event: CloseConnection) -> None:
        if self._wsproto.state is ConnectionState.OPEN:
            # The framing found a violation. "[It] MUST send an appropriate Close frame before
            # proceeding to close the TCP connection" (section 7.1.7); trio-websocket does not.
            # The reason first: from here on send_message() has to raise ConnectionClosed.
            self._close_reason = CloseReason(event.code, event.reason or None)
            await self._send(CloseConnection(code=event.code, reason=event.reason))
            await self._discard_input()
        await super()._handle_close_connection_event(event)

    async def _send(self, event: Event) -> None:
        # Behind our close frame nothing may be sent any more, and wsproto refuses to: no answer to
        # a ping, and no second close frame, whatever is still found in what comes.
        if self._wsproto.state not in (ConnectionState.LOCAL_CLOSING, ConnectionState.CLOSED):
            await super()._send(event)

    async def _handle_message_event(self, event: BytesMessage | TextMessage) -> None:
        if (reason := self._excess(event)) is not None:
            self._close_reason = CloseReason(1009, reason)
            await self._send(CloseConnection(code=1009, reason=reason))
            await self._recv_channel.aclose()
            self._reader_running = False
        else:
            await super()._handle_message_event(event)
        if not self._reader_running:
            await self._discard_input()

    def _excess(self, event: BytesMessage | TextMessage) -> str | None:
        """What a message has too much of with this piece, if anything."""
        limits, data = self._limits, event.data
        if not self._size:
            self._may_be_large = isinstance(data, str) and data[:1] == "{"
        self._size += len(data)
        # Frames without content count nothing towards the size of their message.
        self._frames += event.frame_finished
        size, frames = self._size, self._frames
        if event.message_finished:
            self._size = self._frames = 0
        elif frames >= limits.message_frames:
            return "too many frames"
        # Only a command may have parts. What is none need not be held to be refused.
        return None if size <= limits.message or self._may_be_large else "the message is too large"

    async def _discard_input(self) -> None:
        """Read on, so that the close frame arrives: closing on unread data resets the connection.

        A peer in the middle of a large message reads nothing before it has sent it.
        """
        with trio.move_on_after(self._limits.close):
            try:
                while await self._stream.receive_some(_PIECE):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass


def _frame(payload: bytes) -> tuple[bytes, bytes]:
    """A text as one frame, in two parts: its head, and the text itself.

    wsproto's frames are the same, at the cost of a whole event each. Of its state they change
    nothing, as they are whole messages, and no extension was agreed on.
    """
    # FIN and the opcode of a text. "A server MUST NOT mask any frames that it sends to the client"
    # (section 5.1), so the length is the whole second byte.
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)), payload
    if size < 65536:
        return _MEDIUM.pack(0x81, 126, size), payload
    return _LARGE.pack(0x81, 127, size), payload


class _Agreed:
    """A handshake that is over: of wsproto's, all that is asked of it then."""

    def events(self) -> tuple[Event, ...]:
        return ()


_AGREED: Final = _Agreed()


class _Held(Replayed):
    """A connection whose head is read again; what came behind it waits until that was answered.

    wsproto forgets what it is given behind a handshake that it has not accepted yet.
    """

    def __init__(self, stream: trio.abc.Stream, head: Head) -> None:
        super().__init__(stream, head.raw[: head.length])
        self.count = 0
        """Bytes that came from the network."""
        self._rest = head.raw[head.length :]
        self._may_go_on = trio.Event()

    def go_on(self) -> None:
        """The head was read and answered."""
        self.received = self._rest
        self._may_go_on.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self.received and not self._may_go_on.is_set():
            await self._may_go_on.wait()
        data = await super().receive_some(max_bytes)
        self.count += len(data)
        return data


__all__ = ["ConnectionClosed", "Framing"]
