"""One streamed reply, whatever its protocol: frames in, chunks out, and how it may end.

A protocol brings two parts: what cuts bytes into frames (`SSEDecoder`, or lines of JSON), and what
reads a frame (`Reply`). What all protocols share stands here: chunks before an error in the same
piece are given first and the next call raises, so that pieces make no difference; a reply without
its finish mark is an error; and what goes wrong after the finish mark does not fail the reply.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

import msgspec

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError

from ._errors import check_no_error, named_error
from ._json import MAX_DEPTH, decode_json
from ._sse import ServerSentEvent

F = TypeVar("F", bound=ServerSentEvent | bytes)
T = TypeVar("T")
F_co = TypeVar("F_co", covariant=True)
F_contra = TypeVar("F_contra", contravariant=True)


class Frames(Protocol[F_co]):
    """Cuts bytes into frames."""

    def receive_data(self, data: bytes, /) -> Iterable[F_co]:
        """Take bytes; give the frames that they complete."""
        ...

    def end_of_data(self) -> F_co | None:
        """Give the frame that was not terminated, if there is one."""
        ...


class Reply(Protocol[F_contra]):
    """Reads one reply's frames."""

    @property
    def is_finished(self) -> bool:
        """Whether the finish mark was seen."""
        ...

    def read(self, frame: F_contra, /) -> list[Chunk]:
        """Give what a frame says; the final chunk where nothing may follow it."""
        ...

    def final(self) -> Chunk:
        """The final chunk; the reply is finished.

        Raises:
          ProviderError: what finished it says that there is no answer.

        """
        ...


class ReplyDecoder(Generic[F]):
    """Bytes to chunks: ``receive_data(bytes)``, then ``end_of_data()``."""

    __slots__ = ("_error", "_frames", "_reply", "finish_mark", "is_complete")

    def __init__(self, frames: Frames[F], reply: Reply[F], finish_mark: str) -> None:
        self._frames = frames
        self._reply = reply
        self._error: ProviderError | RemoteProtocolError | None = None
        self.finish_mark = finish_mark
        """What a whole reply has, for messages."""
        self.is_complete = False
        """Whether the final chunk was given."""

    @property
    def is_finished(self) -> bool:
        """Whether the finish mark was seen."""
        return self.is_complete or self._reply.is_finished

    def receive_data(self, data: bytes) -> list[Chunk]:
        """Take a piece of the body; give the chunks that it completes.

        Raises:
          ProviderError: the provider told an error in the stream.
          RemoteProtocolError: the stream is malformed. Chunks before an error are given first, and
            the next call raises it.

        """
        if self._error is not None:
            raise self._error
        chunks: list[Chunk] = []
        try:
            for frame in self._frames.receive_data(data):
                self._read(frame, chunks)
        except (ProviderError, RemoteProtocolError) as exc:
            if not self.is_finished:
                self._error = exc
                if not chunks:
                    raise
        return chunks

    def end_of_data(self) -> list[Chunk]:
        """The body ended: give what is still to come, the final chunk last.

        Raises:
          ProviderError: see `receive_data`.
          RemoteProtocolError: the finish mark is missing; code ``stream_cut``.

        """
        if self._error is not None:
            raise self._error
        chunks: list[Chunk] = []
        try:
            frame = self._frames.end_of_data()
            if frame is not None:
                # Servers forget the last line's end; what decodes was not cut.
                self._read(frame, chunks)
        except RemoteProtocolError:
            chunks = []
        if self.is_complete:
            return chunks
        if not self._reply.is_finished:
            raise RemoteProtocolError(
                f"the model's stream ended without {self.finish_mark}",
                code="stream_cut",
                retryable=True,
            )
        final = self._reply.final()
        self.is_complete = True
        return [*chunks, final]

    def _read(self, frame: F, chunks: list[Chunk]) -> None:
        if self.is_complete:
            return
        try:
            if isinstance(frame, ServerSentEvent) and frame.event == "error":
                raise named_error(frame.data)
            said = self._reply.read(frame)
            if not said:
                check_no_error(frame.data if isinstance(frame, ServerSentEvent) else frame)
            chunks += said
        except (ProviderError, RemoteProtocolError):
            # What is wrong after the finish mark is passed over, not what stands behind it.
            if not self._reply.is_finished:
                raise
        else:
            self.is_complete = bool(chunks) and chunks[-1].is_final


def read_payload(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode a frame's JSON as the decoder's type, strictly and in linear time.

    Raises:
      ProviderError: it is an error, in another shape than that type's.
      RemoteProtocolError: it is not JSON, or not of the type.

    """
    try:
        try:
            payload = decoder.decode(data)
            if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
                # What is handed on may be no deeper than its readers take.
                decode_json(data)
            return payload
        except ValueError:
            return msgspec.convert(decode_json(data), decoder.type)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    except ValueError as exc:
        check_no_error(data)
        what = "not the expected JSON" if isinstance(exc, msgspec.ValidationError) else "not JSON"
        raise RemoteProtocolError(
            f"an event of the model's stream is {what} ({len(data)} bytes)", retryable=True
        ) from None
