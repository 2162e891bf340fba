"""Server-Sent Events, by the WHATWG's HTML standard, section 9.2.

On bytes, since lines may end in CR, LF or CRLF and in nothing else: a decoder of text lines also
splits at U+2028 and the like, which a model may well say. Three stages, each testable alone: bytes
to lines, lines to fields, fields to events.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from flowtrio._core._exceptions import RemoteProtocolError

MAX_EVENT_BYTES = 8 * 1024 * 1024
"""Size of one event at most, by default."""

_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(msgspec.Struct, frozen=True):
    """One dispatched event."""

    data: bytes
    """The data lines, joined by LF; UTF-8 as it came."""
    event: str = "message"
    """The event's type."""
    id: str | None = None
    """The last event id so far, this event's included; None if there was none."""
    retry: int | None = None
    """Reconnection time in milliseconds, if this event told one."""


class LineDecoder:
    """Cuts bytes into lines, whatever the pieces they come in; linear in their number."""

    __slots__ = ("_after_cr", "_error", "_is_first", "_pieces", "_size", "max_bytes")

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self.max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._error: RemoteProtocolError | None = None
        self._is_first = True

    def receive_data(self, data: bytes) -> list[bytes]:
        """Take bytes; give the lines that they complete, without their ends.

        Raises:
          RemoteProtocolError: a line is longer than ``max_bytes``. Lines before it are given first,
            and the next call raises, so that the pieces make no difference.

        """
        self._raise_error()
        if not data:
            return []
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._pieces:
            lines[0] = b"".join([*self._pieces, lines[0]])
            self._pieces.clear()
            self._size = 0
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
        lengths = [*map(len, lines), self._size]
        if max(lengths) > self.max_bytes:
            self._error = RemoteProtocolError(
                f"a line of the stream is longer than {self.max_bytes} bytes", code="too_large"
            )
            lines = lines[: next(n for n, size in enumerate(lengths) if size > self.max_bytes)]
            if not lines:
                raise self._error
        if self._is_first and lines:
            # "One leading U+FEFF BYTE ORDER MARK character is ignored if any are present."
            self._is_first = False
            lines[0] = lines[0].removeprefix(_BOM)
        return lines

    def take_rest(self) -> bytes:
        """Give what followed the last line's end; raises as `receive_data` does."""
        self._raise_error()
        rest = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return rest.removeprefix(_BOM) if self._is_first else rest

    @property
    def is_between_lines(self) -> bool:
        """Whether all that came ended with a line's end other than a lone CR."""
        return not (self._pieces or self._after_cr or self._is_first or self._error)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


class SSEDecoder:
    """Bytes in, events out."""

    __slots__ = (
        "_data",
        "_error",
        "_event",
        "_id",
        "_is_between",
        "_lines",
        "_retry",
        "_size",
        "max_event_bytes",
    )

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.max_event_bytes = max_event_bytes
        self._lines = LineDecoder(max_event_bytes)
        self._is_between = False
        """Whether nothing is kept of what came but the last id."""
        self._error: RemoteProtocolError | None = None
        self._id: str | None = None
        self._retry: int | None = None
        self._clear()

    def receive_data(self, data: bytes) -> list[ServerSentEvent]:
        """Take bytes; give the events that they complete.

        Raises:
          RemoteProtocolError: an event is larger than ``max_event_bytes``. Events before it are
            given first, and the next call raises, so that the pieces make no difference.

        """
        if (
            self._is_between
            and data.endswith(b"\n\n")
            and data.startswith(b"data: ")
            and data.find(b"\n") == len(data) - 2
            and b"\r" not in data
            and len(data) < self.max_event_bytes
        ):
            # One event of one line, as hosts send tokens: all the rest gives the same, but slower.
            return [ServerSentEvent(data[6:-2], "message", self._id)]
        self._raise_error()
        events: list[ServerSentEvent] = []
        try:
            for line in self._lines.receive_data(data):
                if line:
                    self._field(line)
                elif (event := self._dispatch()) is not None:
                    events.append(event)
        except RemoteProtocolError as exc:
            self._error = exc
            self._is_between = False
            if not events:
                raise
        else:
            begun = self._data or self._event or self._retry is not None
            self._is_between = not begun and self._lines.is_between_lines
        return events

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def end_of_data(self) -> ServerSentEvent | None:
        """Give the event that was not terminated, if there is one.

        The standard discards it: it may have been cut. Whoever can tell may use it all the same.
        """
        self._raise_error()
        rest = self._lines.take_rest()
        if rest:
            self._field(rest)
        return self._dispatch()

    def _field(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        if colon and value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1
            if self._size > self.max_event_bytes:
                raise RemoteProtocolError(
                    f"an event of the stream is larger than {self.max_event_bytes} bytes",
                    code="too_large",
                )
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 16:
            self._retry = int(value)
        # All else is a comment, or a field that the standard ignores.

    def _dispatch(self) -> ServerSentEvent | None:
        event = None
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            event = ServerSentEvent(data, self._event or "message", self._id, self._retry)
        self._clear()
        return event

    def _clear(self) -> None:
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""
        self._retry = None


def encode_event(
    data: str, *, event: str | None = None, id: str | None = None, retry: int | None = None
) -> bytes:
    """Encode one event; *retry* is in milliseconds.

    The *data* may have several lines; a line's end or NUL in *event* or *id* is a `ValueError`.
    """
    return "".join(_fields(data, event, id, retry)).encode()


def encode_json_event(value: Any, *, event: str | None = None) -> bytes:
    """Encode one event whose data is *value* as JSON; see `encode_event`."""
    return encode_event(msgspec.json.encode(value).decode(), event=event)


def _fields(data: str, event: str | None, id: str | None, retry: int | None) -> Iterator[str]:
    for name, value in (("event", event), ("id", id)):
        if value is not None:
            if any(c in value for c in "\r\n\0"):
                raise ValueError(f"{name} {value!r}: expected text of one line")
            yield f"{name}: {value}\n"
    if retry is not None:
        yield f"retry: {retry}\n"
    for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        yield f"data: {line}\n"
    yield "\n"


def encode_comment(text: str = "") -> bytes:
    """Encode a comment: what keeps a quiet connection open."""
    return f": {' '.join(text.split())}\n\n".encode()
