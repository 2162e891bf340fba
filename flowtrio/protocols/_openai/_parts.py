"""What a user says in OpenAI's words, as what flowtrio takes: within a server's limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flowtrio._core._limits import ServerLimits
from flowtrio._core._media import data_url, type_of_name
from flowtrio._core._parts import UserMessage
from flowtrio.serving._access import Refused
from flowtrio.wire._sent_parts import SentFile, SentImage, SentPart, SentText, read_sent

_MEDIA: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}


def unfit(where: str, expected: str, code: str = "invalid_value") -> Refused:
    """What is asked for cannot be done; *where* names the place in the request."""
    return Refused(400, f"{where}: {expected}", code)


def read_content(content: Any, limits: ServerLimits, where: str) -> UserMessage:
    """Read a user's content, text or parts; `Refused` for what the server does not take."""
    if isinstance(content, str):
        return read_sent(content, (), limits)
    if not isinstance(content, list) or not content:
        raise unfit(where, "expected a text or a list of parts")
    parts = [_read_part(part, f"{where}[{place}]") for place, part in enumerate(content)]
    if all(isinstance(part, SentText) for part in parts):
        return read_sent(text_of(content, where), (), limits)
    try:
        return read_sent("", parts, limits)
    except ValueError as exc:
        raise unfit(where, str(exc)) from None


def text_of(content: Any, where: str) -> str:
    """The text of an assistant's content, or of a result; `Refused` if it has other parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise unfit(where, "expected a text or a list of parts")
    texts = []
    for place, part in enumerate(content):
        key = _TEXTS.get(str(part.get("type"))) if isinstance(part, dict) else None
        if key is None or not isinstance(part.get(key), str):
            raise unfit(f"{where}[{place}]", "expected a part that is a text")
        texts.append(part[key])
    return "\n".join(texts)


_TEXTS: Final = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}


def _read_part(part: Any, where: str) -> SentPart:
    kind = part.get("type") if isinstance(part, dict) else None
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    try:
        sent = reader and reader(part)
    except (KeyError, TypeError, AttributeError, ValueError):
        sent = None
    if sent is None:
        known = ", ".join(_READERS)
        raise unfit(where, f"expected a part of type {known}, with its content or address")
    return sent


def _text(part: dict[str, Any]) -> SentPart | None:
    return SentText(part["text"]) if isinstance(part["text"], str) else None


def _image(part: dict[str, Any]) -> SentPart | None:
    address = part["image_url"]
    address = address["url"] if isinstance(address, dict) else address
    return SentImage(**_held(address))


def _audio(part: dict[str, Any]) -> SentPart | None:
    audio = part["input_audio"]
    return SentFile(data=str(audio["data"]), media_type=_MEDIA[audio["format"]])


def _file(part: dict[str, Any]) -> SentPart | None:
    """A file by its content or address; one by an id is a file of OpenAI's, which is not here."""
    file = part.get("file") or part
    name = file.get("filename")
    data = file.get("file_data")
    if data is None:
        return SentFile(url=str(file["file_url"]), media_type=None, name=name)
    held = _held(data) if data.startswith("data:") else {"data": data}
    if held.get("media_type") is None:
        held["media_type"] = type_of_name(name or "")
    return SentFile(**held, name=name)


def _held(address: str) -> dict[str, Any]:
    """What is at an address: its content, where it is in the address itself."""
    held = data_url(address)
    return {"url": address} if held is None else {"media_type": held[0], "data": held[1]}


_READERS: Final[dict[str, Callable[[dict[str, Any]], SentPart | None]]] = {
    "text": _text,
    "image_url": _image,
    "input_audio": _audio,
    "file": _file,
    "input_text": _text,
    "input_image": _image,
    "input_file": _file,
}
