"""What stands in a frame of a model's stream: typed where it is used, of any type where not.

Hosts and gateways put odd things between: pings, comments in the wrong place, numbers for texts.
What a codec does not need may be anything; a frame that is no JSON object at all ends the reply.
"""

from __future__ import annotations

import abc
import re
import types
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar, Union, get_args, get_origin

import msgspec

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import RemoteProtocolError

from ._errors import check_no_error, named_error
from ._finish import FinishMark
from ._json import MAX_DEPTH, decode_json, read_json
from ._sse import ServerSentEvent

T = TypeVar("T")

_DONE: Final = b"[DONE]"
"""How OpenAI ends a stream, and many others after it."""

_PINGS: Final = frozenset(
    {
        *("ping", "pong", "keepalive", "keep-alive", "keep_alive", "heartbeat", "ok", "alive"),
        *("processing", "openrouter processing"),
    }
)
_NOTHING: Final = frozenset({"", "null", "{}", "[]", '""', *_PINGS})
_PING_EVENTS: Final = frozenset(
    way(word) for word in _PINGS for way in (str.lower, str.upper, str.capitalize)
)
"""As names of events; for every token, so without a call."""
_NO_WORD: Final = re.compile(r"[^a-z0-9{}\"]*|\d{4}-\d\d-\d\dt[\d:.+-]*z?")
"""Signs, or a date."""


def is_keepalive(data: bytes) -> bool:
    """Whether *data* only keeps a connection open: empty, a comment, a word such as ``[PING]``."""
    data = data.strip()
    if data.startswith(b":"):
        return True
    if len(data) > 30:
        return False
    word = data.decode("latin-1").lower()
    if _NO_WORD.fullmatch(word):
        return True
    return word in _NOTHING or word.strip('[]"') in _PINGS


def is_named_ping(event: ServerSentEvent) -> bool:
    """Whether an event only keeps a connection open by its name, whatever it says."""
    return event.event in _PING_EVENTS


def _lines_of(data: bytes) -> list[bytes]:
    """The values that stand in lines of their own in one event; none where they are one value."""
    lines = data.split(b"\n")
    is_each = all(
        line == _DONE or (line.startswith(b"{") and line.endswith(b"}")) for line in lines
    )
    return lines if is_each else []


class EventReply(abc.ABC):
    """What the protocols of server-sent events have in common: the first look at an event."""

    is_ended = False
    """See `flowtrio.wire._reply.Reply`."""
    needs_mark = True
    """Whether ``[DONE]`` ends only a reply that has its finish mark."""
    _mark: FinishMark

    @property
    def is_finished(self) -> bool:
        """See `flowtrio.wire._reply.Reply`."""
        return self._mark.reason is not None

    def read(self, frame: ServerSentEvent) -> list[Chunk]:
        """Give what an event says; see `flowtrio.wire._reply.Reply`."""
        data = frame.data
        if is_named_ping(frame):
            return []
        if b"\n" in data and (lines := _lines_of(data)):
            # Some hosts leave out the blank line that ends an event.
            each = (ServerSentEvent(line, frame.event) for line in lines)
            return [chunk for event in each if not self.is_ended for chunk in self.read(event)]
        if data[:1] != b"{":
            if data.strip() == _DONE:
                self.is_ended = self.is_finished or not self.needs_mark
                return []
            if is_keepalive(data):
                return []
        try:
            return self.read_payload(data, frame.event)
        except RemoteProtocolError:
            if frame.event != "error":
                raise
            raise named_error(data) from None

    @abc.abstractmethod
    def read_payload(self, data: bytes, event: str) -> list[Chunk]:
        """Give what the JSON in an event of this name says; see `read`."""
        ...


class Payloads(Generic[T]):
    """Decodes one reply's frames, in linear time.

    Args:
      decoder: Of a Struct; a field of another type than it expects is as one that is missing.

    """

    __slots__ = ("_decoder", "is_odd")

    def __init__(self, decoder: msgspec.json.Decoder[T]) -> None:
        self._decoder = decoder
        self.is_odd = False
        """Whether texts may have halves of characters, as only odd frames do; see `Halves`."""

    def read(self, data: bytes) -> T:
        """Decode a frame.

        Raises:
          ProviderError: it is an error that is no object.
          RemoteProtocolError: it is no JSON object.

        """
        try:
            try:
                payload = self._decoder.decode(data)
            except ValueError:
                return self._read_odd(data)
            if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
                # What is handed on may be no deeper than its readers take.
                decode_json(data)
            return payload
        except (ValueError, RecursionError):
            check_no_error(data)
            raise RemoteProtocolError(
                f"an event of the model's stream is not the expected JSON ({len(data)} bytes)",
                retryable=True,
            ) from None

    def _read_odd(self, data: bytes) -> T:
        value = read_json(data)
        if not isinstance(value, dict):
            raise ValueError("not an object")
        self.is_odd = True
        payload: T = _fit_struct(value, self._decoder.type)
        return payload


_UNFIT: Final = object()


def _fit(value: Any, kind: Any) -> Any:
    """*value* as *kind*, without what is of another type; ``_UNFIT`` if nothing is left."""
    if kind is Any:
        return value
    if get_origin(kind) in (Union, types.UnionType):
        fits = (_fit(value, option) for option in get_args(kind) if option is not type(None))
        return next((fit for fit in fits if fit is not _UNFIT), _UNFIT)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _fit_struct(value, kind) if isinstance(value, Mapping) else _UNFIT
    if get_origin(kind) is list and isinstance(value, list | dict):
        # Some write one thing where a list of one is due.
        given = value if isinstance(value, list) else [value] if value else []
        items = (_fit(item, get_args(kind)[0]) for item in given)
        return [item for item in items if item is not _UNFIT]
    try:
        # Some write numbers as texts.
        return msgspec.convert(value, kind, strict=False)
    except ValueError:
        return _UNFIT


def _fit_struct(value: Mapping[str, Any], kind: Any) -> Any:
    fields = {
        field.name: _fit(value[field.encode_name], field.type)
        for field in msgspec.structs.fields(kind)
        if field.encode_name in value
    }
    return kind(**{name: fit for name, fit in fields.items() if fit is not _UNFIT})
