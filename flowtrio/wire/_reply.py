"""One streamed reply, whatever its protocol: frames in, chunks out, and how it may end.

A protocol brings two parts: what cuts bytes into frames (`SSEDecoder`, or lines of JSON), and what
reads a frame (`Reply`). What all protocols share stands here:

    nothing said ──► said something ──► finish mark ──► the protocol's end ──► final chunk
         │                 │                 └─ the body's end ─┘
         │                 ├─ the protocol's end: text is complete, calls were cut
         │                 └─ the body's end: RemoteProtocolError, ``stream_cut``
         └─ either end: RemoteProtocolError, ``empty_reply``

A finish mark only announces the end: what is said behind it belongs to the reply, and what goes
wrong behind it fails the reply. Chunks before an error in the same piece are given first and the
next call raises, so that pieces make no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import attrs
import msgspec

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio._core._halves import Halves

from ._errors import check_no_error, named_error
from ._json import clean_json
from ._payloads import Payloads, is_named_ping
from ._sse import ServerSentEvent

F = TypeVar("F", bound=ServerSentEvent | bytes)
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

    payloads: Payloads[Any]
    """What decodes them."""

    @property
    def is_finished(self) -> bool:
        """Whether a finish mark was seen, which announces the end."""
        ...

    @property
    def is_ended(self) -> bool:
        """Whether the protocol's own end was seen, which nothing may follow."""
        ...

    def read(self, frame: F_contra, /) -> list[Chunk]:
        """Give what a frame says.

        Raises:
          ProviderError: it is an error.
          RemoteProtocolError: it is no such frame.

        """
        ...

    def final(self) -> Chunk:
        """The final chunk; the reply has ended.

        Raises:
          ProviderError: what finished it says that there is no answer.

        """
        ...


class ReplyDecoder(Generic[F]):
    """Bytes to chunks: ``receive_data(bytes)``, then ``end_of_data()``."""

    __slots__ = (
        "_error",
        "_frames",
        "_halves",
        "_has_answer",
        "_has_said",
        "_reply",
        "finish_mark",
        "is_complete",
    )

    def __init__(self, frames: Frames[F], reply: Reply[F], finish_mark: str) -> None:
        self._frames = frames
        self._reply = reply
        self._halves = Halves()
        self._error: ProviderError | RemoteProtocolError | None = None
        self._has_said = False
        self._has_answer = False
        """Whether it said what can be an answer: more than thoughts."""
        self.finish_mark = finish_mark
        """What a whole reply has, for messages."""
        self.is_complete = False
        """Whether the final chunk was given."""

    @property
    def is_finished(self) -> bool:
        """Whether a finish mark was seen: there may be nothing more to come."""
        return self.is_complete or self._reply.is_finished

    def receive_data(self, data: bytes) -> list[Chunk]:
        """Take a piece of the body; give the chunks that it completes.

        Raises:
          ProviderError: the provider told an error in the stream.
          RemoteProtocolError: the stream is malformed, or ended and had said nothing. Chunks before
            an error are given first, and the next call raises it.

        """
        if self._error is not None:
            raise self._error
        chunks: list[Chunk] = []
        try:
            for frame in self._frames.receive_data(data):
                self._read(frame, chunks)
        except (ProviderError, RemoteProtocolError) as exc:
            if not self.is_complete:
                self._error = exc
                if not chunks:
                    raise
        return chunks

    def end_of_data(self) -> list[Chunk]:
        """The body ended: give what is still to come, the final chunk last.

        Raises:
          ProviderError: see `receive_data`.
          RemoteProtocolError: the finish mark is missing, or what follows it was cut; code
            ``stream_cut``.

        """
        if self._error is not None:
            raise self._error
        chunks: list[Chunk] = []
        if self.is_complete:
            return chunks
        frame = self._frames.end_of_data()
        if frame is not None:
            # Servers forget the last line's end; what decodes was not cut.
            try:
                self._read(frame, chunks)
            except RemoteProtocolError as exc:
                raise (self._cut() if exc.code == "bad_stream" else exc) from None
        if not self.is_complete:
            self._end(chunks, is_cut=not self._reply.is_finished)
        return chunks

    def _read(self, frame: F, chunks: list[Chunk]) -> None:
        if self.is_complete:
            return
        reply = self._reply
        new = reply.read(frame)
        if not new:
            self._check(frame)
        else:
            if reply.payloads.is_odd:
                new = [self._halves.join(chunk) for chunk in new]
            chunks += new
            if not self._has_answer or new[0].reset is not None:
                self._note(new)
        if reply.is_ended:
            self._end(chunks)

    @staticmethod
    def _check(frame: F) -> None:
        """Look for an error in a frame in which the protocol found nothing."""
        if not isinstance(frame, ServerSentEvent):
            check_no_error(frame)
        elif frame.event == "error":
            raise named_error(frame.data)
        elif not is_named_ping(frame):
            check_no_error(frame.data)

    def _note(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            if chunk.reset is not None:
                self._has_said = self._has_answer = False
            if chunk.content or chunk.tool_args or chunk.parts:
                self._has_answer = True
            self._has_said = self._has_said or self._has_answer or bool(chunk.reasoning)

    # The end

    def _end(self, chunks: list[Chunk], *, is_cut: bool = False) -> None:
        is_marked = self._reply.is_finished
        if not is_marked and not self._has_said:
            raise empty_reply()
        if is_cut or not (is_marked or self._has_answer):
            raise self._cut()
        final = final_of(self._reply, is_marked=is_marked)
        if final.finish_reason == "tool_calls" and not (final.tool_calls or self._has_answer):
            raise empty_reply("for its calls, and there is none")
        self.is_complete = True
        chunks.append(self._whole(final) if self._reply.payloads.is_odd else final)

    def _whole(self, final: Chunk) -> Chunk:
        final = self._halves.join(final)
        model, carry = clean_json(final.model), clean_json(final.carry)
        return msgspec.structs.replace(final, model=model, carry=carry)

    def _cut(self) -> RemoteProtocolError:
        how = "was cut behind" if self._reply.is_finished else "ended without"
        return RemoteProtocolError(
            f"the model's stream {how} {self.finish_mark}",
            code="stream_cut",
            retryable=True,
        )


def empty_reply(how: str = "with nothing said and no finish reason") -> RemoteProtocolError:
    """The error of a reply that ended before anything was said; *how* it ended, for people."""
    return RemoteProtocolError(f"the model's reply ended {how}", code="empty_reply", retryable=True)


def whole_of(reply: Reply[Any], chunks: Sequence[Chunk], body: bytes, missing: str) -> list[Chunk]:
    """An answer that was not streamed, as chunks: those that were read of its *body*, and the end.

    Raises:
      ProviderError: it is an error.
      RemoteProtocolError: it is not such an answer; *missing* says what a whole one would have.

    """
    if not reply.is_finished:
        check_no_error(body)
        raise RemoteProtocolError(f"the model's answer {missing}", code="bad_answer")
    return [*chunks, final_of(reply)]


def final_of(reply: Reply[Any], *, is_marked: bool = True) -> Chunk:
    """The final chunk of a reply that ended; *is_marked* says whether with a finish mark.

    Calls that nobody said to be whole are cut, whatever they look like. Cut before the first word
    of its arguments, a call is not one without arguments.

    Raises:
      ProviderError: see `Reply.final`.

    """
    final = reply.final()
    calls = final.tool_calls
    if calls and not is_marked:
        final = msgspec.structs.replace(final, finish_reason="length")
    if calls and final.finish_reason == "length" and not calls[-1].raw:
        calls = [*calls[:-1], attrs.evolve(calls[-1], arguments=None)]
        final = msgspec.structs.replace(final, tool_calls=calls)
    return final
