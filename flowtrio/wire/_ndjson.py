"""JSON lines: one value a line, empty lines ignored."""

from __future__ import annotations

from ._sse import MAX_EVENT_BYTES, LineDecoder


class NDJSONDecoder:
    """Bytes in, lines out: each is one JSON value, not yet decoded."""

    __slots__ = ("_lines",)

    def __init__(self, max_line_bytes: int = MAX_EVENT_BYTES) -> None:
        self._lines = LineDecoder(max_line_bytes)

    def receive_data(self, data: bytes) -> list[bytes]:
        """Take bytes; give the lines that they complete. See `LineDecoder`."""
        return [line for line in self._lines.receive_data(data) if line.strip()]

    def end_of_data(self) -> bytes | None:
        """Give the line that was not terminated, if there is one."""
        rest = self._lines.take_rest()
        return rest if rest.strip() else None
