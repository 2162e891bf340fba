"""Recorded model replies: `RecordingClient` writes them down, `ReplayClient` plays them again.

A recording is a file of JSON lines, one for each reply: what was asked (``messages``, ``tools``,
``options``), the chunks as they came with their times, and how it ended. It holds what was said and
nothing of how it was sent: no headers, no keys.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import DeadlineExceeded, ProviderError, RemoteProtocolError
from flowtrio._core._values import check_json
from flowtrio.abc import LLMClient
from flowtrio.clients._whole import Streaming


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a recording."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    options: dict[str, Any]
    chunks: list[tuple[float, Chunk]]
    """Each with the seconds since the one before."""
    error: dict[str, Any] | None = None
    """What it failed of; None where it was whole, or left early."""


class RecordingClient(Streaming):
    """Passes everything on to another client, and appends each reply to a file.

    A reply is written when it has ended, whole, failed or left early.

    Args:
      client: The client that answers.
      path: The file; made if it is not there.

    """

    def __init__(self, client: LLMClient, path: str | os.PathLike[str]) -> None:
        self._client = client
        self._path = Path(path)

    def __repr__(self) -> str:
        return f"<RecordingClient {self._client!r} path={str(self._path)!r}>"

    @property
    def limits(self) -> Any:
        """Limits of the client that answers."""
        return getattr(self._client, "limits", None)

    @property
    def provider(self) -> Any:
        """The provider of the client that answers."""
        return getattr(self._client, "provider", None)

    @property
    def model(self) -> Any:
        """The model of the client that answers."""
        return getattr(self._client, "model", None)

    def stream_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> _Recorded:
        """Ask for one reply, and write it down."""
        asked = _asked(messages, tools, options)
        if tools:
            options = {**options, "tools": tools}
        return _Recorded(self._client.stream_completion(list(messages), **options), asked, self)  # type: ignore[arg-type]

    def _write(self, entry: _Entry) -> None:
        # One short line at a time: a test's file is not worth a thread.
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")


class _Recorded(AsyncIterator[Chunk], trio.abc.AsyncResource):
    """A reply that is passed on and written down."""

    def __init__(
        self, reply: AsyncIterator[Chunk], asked: dict[str, Any], client: RecordingClient
    ) -> None:
        self._reply = reply
        self._asked = asked
        self._client = client
        self._chunks: list[tuple[float, Chunk]] = []
        self._since: float | None = None
        self._is_written = False

    async def __anext__(self) -> Chunk:
        """Give the next chunk."""
        self._since = trio.current_time() if self._since is None else self._since
        try:
            chunk = await anext(self._reply)
        except StopAsyncIteration:
            self._write(None)
            raise
        except Exception as exc:
            self._write(_error_data(exc))
            raise
        now = trio.current_time()
        self._chunks.append((now - self._since, chunk))
        self._since = now
        if chunk.is_final:
            self._write(None)
        return chunk

    def _write(self, error: dict[str, Any] | None) -> None:
        if not self._is_written:
            self._is_written = True
            self._client._write(_Entry(**self._asked, chunks=self._chunks, error=error))

    async def aclose(self) -> None:
        """Leave the rest unsaid, and write down what there was."""
        try:
            if (aclose := getattr(self._reply, "aclose", None)) is not None:
                await aclose()
        finally:
            if self._chunks:
                self._write(None)


class ReplayClient(Streaming):
    """Plays recorded replies again, to whoever asks the same.

    Each request gets the next unused reply that was recorded for the same messages and tools; what
    was never asked, or more often than it was recorded, fails. Chunks come at once, unless their
    times are asked for.

    Args:
      path: A file that `RecordingClient` wrote.
      timed: Whether chunks take the time they took.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is no recording.

    """

    def __init__(self, path: str | os.PathLike[str], *, timed: bool = False) -> None:
        self._path = Path(path)
        self._timed = timed
        self._entries = [
            _read_entry(line, f"{self._path.name}:{number}")
            for number, line in enumerate(self._path.read_bytes().splitlines(), 1)
            if line.strip()
        ]

    def __repr__(self) -> str:
        return f"<ReplayClient path={str(self._path)!r} left={len(self._entries)}>"

    def stream_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> _Replayed:
        """Play the reply that was recorded for this request.

        Raises:
          AssertionError: none is left for it; tells where it differs from the next one.

        """
        asked = _asked(messages, tools, options)
        for place, entry in enumerate(self._entries):
            if entry.messages == asked["messages"] and entry.tools == asked["tools"]:
                del self._entries[place]
                return _Replayed(entry, self._timed)
        raise AssertionError(self._difference(asked))

    def _difference(self, asked: dict[str, Any]) -> str:
        if not self._entries:
            return f"no reply is left in {self._path.name}"
        entry = self._entries[0]
        key = "tools" if entry.messages == asked["messages"] else "messages"
        given, recorded = asked[key], getattr(entry, key)
        if len(given) != len(recorded):
            how = f"{len(given)} {key}, the next one has {len(recorded)}"
        else:
            pairs = zip(given, recorded, strict=True)
            place = next(i for i, (one, other) in enumerate(pairs) if one != other)
            how = f"{key}[{place}] differs from the next one's"
        return f"{self._path.name} has no reply for this request: {how}"


class _Replayed(AsyncIterator[Chunk], trio.abc.AsyncResource):
    """A recorded reply on its way."""

    def __init__(self, entry: _Entry, timed: bool) -> None:
        self._chunks = deque(entry.chunks)
        self._error = entry.error
        self._timed = timed

    async def __anext__(self) -> Chunk:
        """Give the next chunk, or raise what was raised."""
        if not self._chunks:
            await trio.lowlevel.checkpoint()
            if self._error is not None:
                raise _make_error(self._error)
            raise StopAsyncIteration
        seconds, chunk = self._chunks.popleft()
        await trio.sleep(seconds if self._timed else 0)
        return chunk

    async def aclose(self) -> None:
        """Leave the rest unsaid."""
        self._chunks.clear()
        self._error = None
        await trio.lowlevel.checkpoint()


def _asked(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    plain = {
        key: value for key, value in options.items() if not isinstance(value, bytes) and value != ()
    }
    return {
        "messages": check_json([dict(message) for message in messages], "messages"),
        "tools": check_json([dict(tool) for tool in tools or ()], "tools"),
        "options": check_json(plain, "options"),
    }


def _read_entry(line: bytes, place: str) -> _Entry:
    try:
        return msgspec.json.decode(line, type=_Entry)
    except msgspec.MsgspecError as exc:
        raise ValueError(f"{place}: expected a recorded reply: {exc}") from None


_ERRORS: dict[str, tuple[type[Exception], tuple[str, ...]]] = {
    "ProviderError": (ProviderError, ("status", "code", "retry_after", "retryable", "detail")),
    "RemoteProtocolError": (RemoteProtocolError, ("code", "retryable", "detail")),
    "DeadlineExceeded": (DeadlineExceeded, ("deadline",)),
}
"""The failures that are a model's doing, and what is kept of each."""


def _error_data(exc: Exception) -> dict[str, Any]:
    name = type(exc).__name__
    kept = _ERRORS[name][1] if name in _ERRORS else ()
    return {
        "type": name,
        "error": str(exc),
        **{key: json.loads(msgspec.json.encode(getattr(exc, key))) for key in kept},
    }


def _make_error(data: dict[str, Any]) -> Exception:
    data = dict(data)
    name, text = data.pop("type"), data.pop("error")
    if name not in _ERRORS:
        return RuntimeError(f"{name}: {text}")
    return _ERRORS[name][0](text, **data)
