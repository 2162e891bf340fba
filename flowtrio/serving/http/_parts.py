"""The images and files of a conversation: how they are shown in it, and served each by itself.

What a client sent and a tool gave is served as what it is, and never as a page of ours: a browser
shows what cannot run, and offers to keep everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from flowtrio._core._media import MEDIA_TYPE, OCTETS, Media, decode_data, read_media
from flowtrio.abc import Message

_SHOWN: Final = frozenset(
    {
        *("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp"),
        *("audio/wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/mp4", "text/plain"),
        *("video/mp4", "video/webm"),
    }
)
"""Types that a browser shows, and in which nothing can run."""

_MOST_DIGITS: Final = 9


def find_part(messages: Sequence[Message], number: str) -> tuple[bytes, dict[str, str]] | None:
    """The content of one of a conversation's images and files, and the headers it is served with.

    None where there is none of this number, or its content is elsewhere.
    """
    if not (number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS):
        return None
    media = next((m for n, m in enumerate(_all_media(messages)) if n == int(number)), None)
    if media is None or media.data is None:
        return None
    try:
        return decode_data(media.data), _headers(media)
    except ValueError:
        return None


def _headers(media: Media) -> dict[str, str]:
    kind = media.media_type or ""
    is_known = MEDIA_TYPE.fullmatch(kind) is not None
    disposition = "inline" if kind in _SHOWN else "attachment"
    if media.name is not None:
        disposition += f"; filename*=UTF-8''{quote(media.name, safe='')}"
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    return {
        "content-type": kind + charset if is_known else OCTETS,
        "content-disposition": disposition,
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "same-origin",
    }


def show_parts(messages: Sequence[Message]) -> list[Message]:
    """A conversation with what is told of its images and files in their places."""
    shown: list[Message] = []
    number = 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            told = []
            for part in content:
                media = _media(part)
                told.append(part if media is None else _told(media, number))
                number += media is not None
            message = {**message, "content": told}
        shown.append(message)
    return shown


def _told(media: Media, number: int) -> dict[str, Any]:
    told = media.told()
    place = {"part": number} if media.url is None else {"url": media.url}
    return {"type": told.pop("kind"), **told, **place}


def _all_media(messages: Sequence[Message]) -> Iterator[Media]:
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if (media := _media(part)) is not None:
                yield media


def _media(part: object) -> Media | None:
    try:
        return read_media(part) if isinstance(part, Mapping) else None
    except ValueError:
        return None
