"""Images and files in what a client sends: read within a server's limits, or refused.

A client's part is one of these; an address is for the model's host to read, never for the server::

    {"type": "text", "text": "…"}
    {"type": "image", "data": "base64", "media_type": "image/png", "name": "a.png"}
    {"type": "image" or "file", "url": "https://…"}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from flowtrio._core._limits import ServerLimits
from flowtrio._core._media import bytes_of_data, decode_data, encode_data
from flowtrio._core._parts import File, Image, Part, Text, UserMessage, read_message


class SentText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text"):
    """A text between other parts."""

    text: str


class _SentMedia(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: str | None = None
    url: str | None = None
    media_type: str | None = None
    name: str | None = None


class SentImage(_SentMedia, frozen=True, tag="image"):
    """An image."""


class SentFile(_SentMedia, frozen=True, tag="file"):
    """A file."""


SentPart: TypeAlias = SentText | SentImage | SentFile


def read_sent(message: str, parts: Sequence[SentPart], limits: ServerLimits) -> UserMessage:
    """What a client says: text, and behind it parts; a `ValueError` tells what is not taken."""
    if not parts:
        return read_message(message)
    if len(parts) > limits.parts:
        raise ValueError(f"parts: has {len(parts)}, more than {limits.parts}")
    size = sum(bytes_of_data(p.data) for p in parts if isinstance(p, _SentMedia) and p.data)
    if size > limits.part_bytes:
        raise ValueError(f"parts: have {size} bytes, more than {limits.part_bytes}")
    read = [_read(part, f"parts[{place}]", limits) for place, part in enumerate(parts)]
    return read_message([Text(message), *read] if message.strip() else read)


def _read(part: SentPart, where: str, limits: ServerLimits) -> Part:
    if isinstance(part, SentText):
        return Text(part.text)
    if part.url is not None and not part.url.startswith(("https://", "http://")):
        raise ValueError(f"{where}: url: expected an address that begins with https://")
    kind = Image if isinstance(part, SentImage) else File
    try:
        data = None if part.data is None else decode_data(part.data)
        made = kind(data=data, url=part.url, media_type=part.media_type, name=part.name)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{where}: {exc}") from None
    if made.media_type is not None and made.media_type not in limits.media_types:
        known = ", ".join(limits.media_types)
        raise ValueError(f"{where}: {made.media_type} is not taken here, expected one of {known}")
    return made


def encode_sent(message: UserMessage) -> dict[str, Any]:
    """The keys of a command that says *message*."""
    if isinstance(message.content, str):
        return {"message": message.text}
    return {"message": "", "parts": [_encode(part) for part in message]}


def _encode(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    given = {
        "type": "image" if isinstance(part, Image) else "file",
        "data": None if part.data is None else encode_data(part.data),
        "url": part.url,
        "media_type": part.media_type,
        "name": part.name,
    }
    return {key: value for key, value in given.items() if value is not None}
