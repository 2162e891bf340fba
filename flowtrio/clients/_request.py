"""What is posted to a model's host, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from flowtrio._core._chunks import Chunk
from flowtrio.abc import ToolSpec


@attrs.frozen
class HttpRequest:
    """What is posted where."""

    url: str
    body: dict[str, Any] = attrs.field(repr=False)


@attrs.frozen(repr=False)
class Prompt:
    """What a model is asked, in OpenAI's shape."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[ToolSpec]
    options: Mapping[str, Any]

    def encoded(self, encode: Callable[..., dict[str, Any]], *, stream: bool) -> dict[str, Any]:
        """The body of a request by a protocol's ``encode_request``."""
        return encode(self.model, self.messages, self.tools, self.options, stream=stream)

    def to(self, url: str, encode: Callable[..., dict[str, Any]]) -> Callable[[bool], HttpRequest]:
        """What makes the request that is posted to an address; see `HostRequest.ask`."""
        return lambda stream: HttpRequest(url, self.encoded(encode, stream=stream))


class Decoder(Protocol):
    """One reply's bytes to chunks, without I/O."""

    @property
    def is_finished(self) -> bool:
        """Whether the finish mark was seen."""
        ...

    def receive_data(self, data: bytes, /) -> list[Chunk]:
        """Take a piece of the body; give the chunks that it completes."""
        ...

    def end_of_data(self) -> list[Chunk]:
        """The body ended: give what is still to come, the final chunk last."""
        ...


@attrs.frozen(kw_only=True)
class HostRequest:
    """What a client asks, and how the answer is read."""

    ask: Callable[[bool], HttpRequest]
    """Makes the request: for a stream if True, for a whole answer if False."""
    wants_stream: bool = True
    decoder: Callable[[], Decoder]
    decode_whole: Callable[[bytes], list[Chunk]]
    content_type: str = "text/event-stream"
    """Of a streamed answer."""
    origin: str = ""
    """Names the host in what it gives to carry; empty where any host of the protocol takes that."""
    go_on: Callable[[Chunk], HostRequest | None] = lambda final: None
    """Gives, for the final chunk of an answer, the request with which the reply goes on; None where
    it is whole."""

    def as_whole(self) -> HostRequest:
        """The same, asked for a whole answer from the start."""
        return attrs.evolve(self, wants_stream=False)
