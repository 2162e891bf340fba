"""What a message may consist of: text, images and files.

A part is a value. What is in a file is read when the part is made, and what cannot be sent to
anybody (no bytes, of no known type, too much) is refused there. So whoever holds a part holds its
content, in this process and later in the conversation, which is where it is kept: events tell its
type, its size and its name only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final, TypeAlias

import attrs
import msgspec

from ._limits import MOST_PART_BYTES
from ._media import (
    SURE,
    Media,
    data_url,
    decode_data,
    encode_data,
    plain_type,
    read_media,
    type_of_bytes,
    type_of_name,
)
from ._values import check_json, clean_text, told, type_name

MAX_BYTES: Final = MOST_PART_BYTES
MAX_PARTS: Final = 100
"""Parts of one message."""
_MAX_URL: Final = 8192
"""Characters of an address."""
_MAX_NAME: Final = 255
_SCHEMES: Final = ("https://", "http://", "gs://")


def _check_text(instance: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"Text: expected a str, got {type_name(value)}")


@attrs.frozen
class Text:
    """A text within a message."""

    text: str = attrs.field(validator=[_check_text])
    """What is said."""


@attrs.frozen(init=False)
class _Medium:
    """What `Image` and `File` share."""

    _no_json: ClassVar[str] = "is no JSON here: in a result, expected it alone, or in a list"

    media_type: str | None
    """Such as ``image/png``; None where nobody knows what is at an address."""
    data: bytes | None = attrs.field(repr=False)
    """Its content; None for what is at an address."""
    url: str | None
    """Its address, which its provider reads; None for what is here."""
    name: str | None
    """The name of its file."""

    def __init__(
        self,
        *,
        url: str | None = None,
        data: bytes | None = None,
        path: Any = None,
        media_type: str | None = None,
        name: str | None = None,
    ) -> None:
        what = type(self).__name__
        if sum(given is not None for given in (url, data, path)) != 1:
            raise TypeError(f"{what}: expected one of url=, data= and path=")
        if path is not None:
            data, own = _read_file(what, path)
            name = own if name is None else name
        if url is not None and not isinstance(url, str):
            raise TypeError(f"{what}: url: expected a str, got {type_name(url)}")
        if url is not None and (held := data_url(url)) is not None:
            media_type, url = held[0] if media_type is None else media_type, None
            data = decode_data(held[1])
        name = _check_name(what, name)
        known: str | None
        if url is not None:
            known = _type_of_address(what, _check_url(what, url), media_type, name)
        else:
            data = _check_data(what, data)
            known = _type_of_data(what, data, media_type, name)
        if isinstance(self, Image) and not (known or "image/").startswith("image/"):
            raise ValueError(f"Image: expected an image, got {known}; is it a File?")
        for key, value in (("media_type", known), ("data", data), ("url", url), ("name", name)):
            object.__setattr__(self, key, value)

    def to_media(self) -> Media:
        """Itself as it stands in a conversation."""
        is_image = isinstance(self, Image) or (self.media_type or "").startswith("image/")
        return Media(
            media_type=self.media_type,
            data=None if self.data is None else encode_data(self.data),
            url=self.url,
            name=self.name,
            is_image=is_image,
        )

    def told(self) -> dict[str, Any]:
        """What events tell of it: ``kind media_type bytes name``."""
        is_image = isinstance(self, Image) or (self.media_type or "").startswith("image/")
        return {
            "kind": "image" if is_image else "file",
            "media_type": self.media_type,
            "bytes": None if self.data is None else len(self.data),
            "name": self.name,
        }


@attrs.frozen(init=False)
class Image(_Medium):
    """An image within a message, or in a tool's result.

    Args:
      url: Its address, for the model's host to read: ``https://``, or a ``data:`` URL.
      data: Its bytes.
      path: A file, which is read at once.
      media_type: Such as ``image/png``; known from the bytes or the name, as a rule.
      name: The name of its file; by default that of *path*.

    Raises:
      TypeError: not one of *url*, *data* and *path* is given, or is of another type.
      ValueError: it is empty, larger than 10 MiB, of no known type, or not what *media_type* says.
      OSError: the file cannot be read.

    """


@attrs.frozen(init=False)
class File(_Medium):
    """A file within a message, or in a tool's result: a document, a sound, anything.

    Args:
      url: Its address, for the model's host to read: ``https://``, or a ``data:`` URL.
      data: Its bytes.
      path: A file, which is read at once.
      media_type: Such as ``application/pdf``; known from the bytes or the name, as a rule.
      name: The name of the file; by default that of *path*.

    Raises:
      TypeError: not one of *url*, *data* and *path* is given, or is of another type.
      ValueError: it is empty, larger than 10 MiB, of no known type, or not what *media_type* says.
      OSError: the file cannot be read.

    """


Part: TypeAlias = Text | Image | File
"""A part of a message."""


def _read_file(what: str, path: Any) -> tuple[bytes, str]:
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
        name = str(file.name if isinstance(file.name, str) else path)
    return data, name.replace("\\", "/").rpartition("/")[2]


def _check_name(what: str, name: Any) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str):
        raise TypeError(f"{what}: name: expected a str, got {type_name(name)}")
    fit = "".join(c if c.isprintable() else "_" for c in clean_text(name))
    # A file's name, and never a way to one.
    return fit.replace("\\", "/").rpartition("/")[2][-_MAX_NAME:] or None


def _check_data(what: str, data: Any) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"{what}: data: expected bytes, got {type_name(data)}")
    size = len(data)
    if not size:
        raise ValueError(f"{what}: expected at least one byte, got none")
    if size > MAX_BYTES:
        raise ValueError(f"{what}: has more than {MAX_BYTES} bytes")
    return bytes(data)


def _check_url(what: str, url: str) -> str:
    if not url.startswith(_SCHEMES) or not url.isprintable() or " " in url or len(url) > _MAX_URL:
        raise ValueError(f"{what}: url={told(url)}: expected an address that begins with https://")
    return url


def _check_type(what: str, media_type: Any) -> str | None:
    if media_type is None:
        return None
    plain = plain_type(media_type) if isinstance(media_type, str) else None
    if plain is None:
        raise ValueError(f"{what}: media_type={told(media_type)}: expected one such as 'image/png'")
    return plain


def _type_of_data(what: str, data: bytes, given: Any, name: str | None) -> str:
    real = type_of_bytes(data)
    media_type = _check_type(what, given) or real or type_of_name(name or "")
    if media_type is None:
        raise ValueError(
            f"{what}: expected media_type=..., as neither its bytes nor its name tell what it is"
        )
    if media_type != real and (media_type in SURE or real in SURE):
        raise ValueError(f"{what}: expected {media_type}, and its bytes are {real or 'none'}")
    return media_type


def _type_of_address(what: str, url: str, given: Any, name: str | None) -> str | None:
    path = url.partition("#")[0].partition("?")[0]
    file = path.partition("://")[2].rpartition("/")[2]
    media_type = _check_type(what, given) or type_of_name(name or "") or type_of_name(file)
    if media_type is None and what != "Image":
        raise ValueError(f"{what}: expected media_type=..., as its address does not tell it")
    return media_type


# A user's message


@attrs.frozen
class UserMessage(Sequence[Part]):
    """What a user says, as a conversation has it and as events tell it: a sequence of its parts."""

    text: str
    """Its text; empty where it has none."""
    content: str | list[dict[str, Any]] = attrs.field(repr=False)
    """Its content in OpenAI's shape: the text, or a list of parts where there are others."""
    media: tuple[dict[str, Any], ...] = ()
    """What is told of its images and files."""

    def __len__(self) -> int:
        return len(parts_of(self))

    def __getitem__(self, place: Any) -> Any:
        return parts_of(self)[place]

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Its content where that is more than a text; else none."""
        return [] if isinstance(self.content, str) else self.content

    @property
    def digest(self) -> str | None:
        """What tells it from others, where it is more than a text."""
        if isinstance(self.content, str):
            return None
        return hashlib.sha256(msgspec.json.encode(self.content)).hexdigest()


def read_message(given: Any) -> UserMessage:
    """Read what a user says: a text, or a list of parts; one that was read is taken as it is.

    Raises:
      TypeError: it is neither a text nor a list of parts.
      ValueError: the list is empty, or has too much in it.

    """
    match given:
        case UserMessage():
            return given
        case str():
            # A subclass, such as an enum's member, is more than a text.
            text = clean_text(given if type(given) is str else str.__str__(given))
            return UserMessage(text, text)
        case Text() | _Medium():
            return _read_parts([given])
        case Sequence() if not isinstance(given, bytes | bytearray | memoryview):
            return _read_parts(list(given))
        case _:
            raise TypeError(f"message: expected a str or a list of parts, got {type_name(given)}")


def _read_parts(given: list[Any]) -> UserMessage:
    if not given:
        raise ValueError("message: expected at least one part, got none")
    if len(given) > MAX_PARTS:
        raise ValueError(f"message: has {len(given)} parts, more than {MAX_PARTS}")
    for place, part in enumerate(given):
        if not isinstance(part, Text | _Medium):
            raise TypeError(
                f"message[{place}]: expected Text, Image or File, got {type_name(part)}"
            )
    text = "\n".join(clean_text(part.text) for part in given if isinstance(part, Text))
    media = [part.told() for part in given if isinstance(part, _Medium)]
    if not media:
        return UserMessage(text, text)
    check_bytes(given, MAX_BYTES, "message")
    return UserMessage(text, to_content(given), tuple(media))


def check_bytes(parts: Sequence[Any], limit: float, what: str) -> None:
    """Refuse images and files that are too large together.

    Raises:
      ValueError: they are.

    """
    size = sum(len(part.data or b"") for part in parts if isinstance(part, _Medium))
    if size > limit:
        raise ValueError(f"{what}: its parts have {size} bytes, more than {limit}")


def to_content(parts: Sequence[Any]) -> list[dict[str, Any]]:
    """A message's content in OpenAI's shape, without text that is blank."""
    return [
        part.to_media().to_part()
        if isinstance(part, _Medium)
        else {"type": "text", "text": clean_text(part.text)}
        for part in parts
        if isinstance(part, _Medium) or part.text.strip()
    ]


def parts_of(message: UserMessage) -> tuple[Part, ...]:
    """What a message consists of, as values."""
    if isinstance(message.content, str):
        return (Text(message.content),)
    return tuple(_part_of(part) for part in message.content)


def _part_of(part: dict[str, Any]) -> Part:
    media = read_media(part)
    if media is None:
        return Text(part["text"])
    kind = Image if media.is_image else File
    return kind(url=media.to_url(), media_type=media.media_type, name=media.name)


# A tool's result


# Asked of each call's result, and a union is made anew each time that it is written.
_PARTS: Final = (Text, _Medium)
_LISTS: Final = (list, tuple)


def parts_of_result(value: Any) -> list[Any] | None:
    """The items of a result that is a part, or a list with one in it; None for any other."""
    if isinstance(value, _PARTS):
        return [value]
    if isinstance(value, _LISTS) and any(isinstance(item, _PARTS) for item in value):
        return list(value)
    return None


def _told_items(items: Sequence[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, _Medium):
            yield item.told()
        else:
            yield item.text if isinstance(item, Text) else item


def told_result(value: Any, limit_bytes: float | None) -> Any:
    """What an agent or a tool returned, as plain JSON: parts by what is told of them.

    Raises:
      TypeError: something in it has no JSON form, or a part stands deeper in it than in a list.
      ValueError: it is larger than *limit_bytes*, the content of its parts included; or no JSON.

    """
    items = parts_of_result(value)
    if items is None:
        return check_json(value, "result", limit_bytes=limit_bytes)
    check_bytes(items, MAX_BYTES if limit_bytes is None else limit_bytes, "result")
    plain = list(_told_items(items))
    if isinstance(value, Text | _Medium):
        [plain] = plain
    return check_json(plain, "result", limit_bytes=limit_bytes)


def content_of_result(value: Any, told: Any) -> list[dict[str, Any]] | None:
    """What a model is shown of a result with images or files in it; None where its text will do.

    Args:
      value: What the tool returned.
      told: The same as JSON; see `told_result`.

    """
    items = parts_of_result(value)
    if items is None or not any(isinstance(item, _Medium) for item in items):
        return None
    plain = told if isinstance(told, list) else [told]
    shown = [
        item if isinstance(item, _Medium) else Text(_as_text(text))
        for item, text in zip(items, plain, strict=True)
    ]
    return to_content(shown)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
