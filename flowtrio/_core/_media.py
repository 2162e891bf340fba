"""Images and files within a conversation: what kind, of which type, how large, and where.

A conversation has OpenAI's shape, so media stand in a message's content as parts of that shape::

    {"type": "image_url", "image_url": {"url": "data:image/png;base64,…" or "https://…"}}
    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,…"}}
    {"type": "file", "file": {"filename": "a.pdf", "file_url": "https://…"}}
    {"type": "input_audio", "input_audio": {"data": "…", "format": "wav"}}

The private key ``flowtrio`` of a part has what that shape has no place for: an image's name, and
the type of what is at an address. Who has to know what a part is, a codec or a server, reads it
here; the content stays text, and is decoded by nobody who only passes it on.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import attrs

MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}")
"""A media type without parameters, in small letters (RFC 6838, section 4.2)."""
OCTETS: Final = "application/octet-stream"

_ALIASES: Final = {
    "image/jpg": "image/jpeg",
    "audio/mp3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "application/x-pdf": "application/pdf",
}

_BY_SUFFIX: Final = {
    **{"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif"},
    **{"webp": "image/webp", "svg": "image/svg+xml", "avif": "image/avif", "heic": "image/heic"},
    **{"heif": "image/heif", "bmp": "image/bmp", "tif": "image/tiff", "tiff": "image/tiff"},
    **{"pdf": "application/pdf", "json": "application/json", "xml": "application/xml"},
    **{"txt": "text/plain", "log": "text/plain", "md": "text/markdown", "csv": "text/csv"},
    **{"html": "text/html", "htm": "text/html", "rtf": "application/rtf"},
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    **{"wav": "audio/wav", "mp3": "audio/mpeg", "ogg": "audio/ogg", "flac": "audio/flac"},
    **{"m4a": "audio/mp4", "mp4": "video/mp4", "webm": "video/webm", "mov": "video/quicktime"},
}

_BY_START: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"%PDF-": "application/pdf",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
    b"OggS": "audio/ogg",
    b"fLaC": "audio/flac",
}
_IN_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_BY_BRAND: Final = {b"avif": "image/avif", b"heic": "image/heic", b"M4A ": "audio/mp4"}

SURE: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf"})
"""Types that bytes tell for sure: what is called so and is not, every provider refuses."""


def plain_type(given: str) -> str | None:
    """A media type as it is compared, without parameters; None if *given* is none."""
    plain = given.partition(";")[0].strip().lower()
    plain = _ALIASES.get(plain, plain)
    return plain if MEDIA_TYPE.fullmatch(plain) else None


def type_of_bytes(data: bytes) -> str | None:
    """What bytes are, by how they begin; None where that does not tell."""
    for start, media_type in _BY_START.items():
        if data.startswith(start):
            return media_type
    if data.startswith(b"RIFF"):
        return _IN_RIFF.get(data[8:12])
    return _BY_BRAND.get(data[8:12]) if data[4:8] == b"ftyp" else None


def type_of_name(name: str) -> str | None:
    """What a file is, by how its name ends; None where that does not tell."""
    return _BY_SUFFIX.get(name.rpartition(".")[2].lower()) if "." in name else None


def encode_data(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode()


def decode_data(text: str) -> bytes:
    """The bytes of base64, strictly.

    Raises:
      ValueError: it is none.

    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("expected base64") from None


def bytes_of_data(text: str) -> int:
    """How many bytes base64 stands for."""
    return len(text) // 4 * 3 - text[-2:].count("=")


def data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 of a ``data:`` URL (RFC 2397); None for any other address.

    Raises:
      ValueError: it is one, and not in base64.

    """
    if not url.startswith("data:"):
        return None
    head, comma, data = url.removeprefix("data:").partition(",")
    media_type, _, encoding = head.rpartition(";")
    if not comma or encoding != "base64":
        raise ValueError("data: URL: expected data:MEDIA/TYPE;base64,DATA")
    return media_type.partition(";")[0] or OCTETS, data


@attrs.frozen(kw_only=True)
class Media:
    """An image or a file of a conversation: its content in base64, or its address."""

    media_type: str | None
    """None where nobody said what is at an address."""
    data: str | None = attrs.field(default=None, repr=False)
    """In base64; None for what is at an address."""
    url: str | None = attrs.field(default=None, repr=False)
    name: str | None = None
    is_image: bool
    """Whether it is shown to a model that sees."""

    def told(self) -> dict[str, Any]:
        """What events and readers are told of it, without its content."""
        return {
            "kind": "image" if self.is_image else "file",
            "media_type": self.media_type,
            "bytes": None if self.data is None else bytes_of_data(self.data),
            "name": self.name,
        }

    def to_part(self) -> dict[str, Any]:
        """Itself as a part of a message's content."""
        private: dict[str, Any] = {}
        address = self.url or f"data:{self.media_type};base64,{self.data}"
        if self.url is not None and self.media_type is not None:
            private["media_type"] = self.media_type
        if self.is_image:
            if self.name is not None:
                private["name"] = self.name
            part: dict[str, Any] = {"type": "image_url", "image_url": {"url": address}}
        else:
            where = "file_data" if self.url is None else "file_url"
            named = {} if self.name is None else {"filename": self.name}
            part = {"type": "file", "file": {**named, where: address}}
        return {**part, "flowtrio": private} if private else part

    def to_url(self) -> str:
        """Its address, or a ``data:`` URL of what it holds."""
        return self.url or f"data:{self.media_type or OCTETS};base64,{self.data}"


def read_media(part: Mapping[str, Any]) -> Media | None:
    """The image or file that a part of a message's content is; None if it is neither.

    Raises:
      ValueError: its ``data:`` URL is none.

    """
    reader = _READERS.get(str(part.get("type")))
    inner = part.get(str(part.get("type")))
    return reader(inner, part) if reader is not None and isinstance(inner, Mapping) else None


def told_of(content: object) -> list[dict[str, Any]]:
    """What is told of the images and files in a message's content, in their order."""
    parts = content if isinstance(content, list) else []
    told = []
    for part in parts:
        with suppress(ValueError):
            media = read_media(part) if isinstance(part, Mapping) else None
            told += [] if media is None else [media.told()]
    return told


def _read_image(image: Mapping[str, Any], part: Mapping[str, Any]) -> Media | None:
    url = image.get("url")
    if not isinstance(url, str):
        return None
    return _at(url, _private(part, "name"), part, is_image=True)


def _read_file(file: Mapping[str, Any], part: Mapping[str, Any]) -> Media | None:
    address = file.get("file_data") or file.get("file_url")
    if not isinstance(address, str):
        # By an id of its provider's.
        return None
    given = file.get("filename")
    name = given if isinstance(given, str) else None
    if not address.startswith(("data:", "https://", "http://", "gs://")):
        # Base64 without a word about its type.
        media_type = type_of_name(name or "") or OCTETS
        address = f"data:{media_type};base64,{address}"
    return _at(address, name, part, is_image=False)


def _read_audio(audio: Mapping[str, Any], part: Mapping[str, Any]) -> Media | None:
    data, format = audio.get("data"), audio.get("format")
    if not isinstance(data, str) or not isinstance(format, str):
        return None
    media_type = _BY_SUFFIX.get(format, f"audio/{format}")
    return Media(media_type=media_type, data=data, name=_private(part, "name"), is_image=False)


_READERS: Final[dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Media | None]]] = {
    "image_url": _read_image,
    "file": _read_file,
    "input_audio": _read_audio,
}


def _at(url: str, name: str | None, part: Mapping[str, Any], *, is_image: bool) -> Media:
    data: str | None = None
    address: str | None = url
    media_type = _private(part, "media_type")
    if (held := data_url(url)) is not None:
        (media_type, data), address = held, None
        media_type = _ALIASES.get(media_type, media_type)
    # A file may be an image as well.
    is_image = is_image or (media_type or "").startswith("image/")
    return Media(media_type=media_type, data=data, url=address, name=name, is_image=is_image)


def _private(part: Mapping[str, Any], key: str) -> str | None:
    private = part.get("flowtrio")
    value = private.get(key) if isinstance(private, Mapping) else None
    return value if isinstance(value, str) else None
