"""Images and files on their way to a provider, and what has no way there.

What a provider cannot take is refused before anything is sent to it, and in a way that lets a
`flowtrio.FallbackClient` ask the next one. Whether a *model* sees is not known here: its host says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from flowtrio._core._exceptions import ProviderError
from flowtrio._core._media import Media, read_media, told_of

from ._messages import Message, parts_of

TEXT_TYPES: Final = frozenset({"application/json", "application/xml"})
"""Types of text, beside those that say so."""

_FILES: Final = {"application/pdf": "file.pdf", "text/plain": "file.txt"}


def unsupported(words: str) -> ProviderError:
    """The error of a part that a provider has no place for."""
    return ProviderError(words, code="unsupported_part")


def media_of(part: Mapping[str, Any], host: str) -> Media:
    """The image or file that a part is; else a `ProviderError`, ``unsupported_part``."""
    try:
        media = read_media(part)
    except ValueError as exc:
        raise unsupported(str(exc)) from None
    if media is None:
        raise unsupported(f"{host} takes no content part of type {part.get('type')!r}")
    return media


def refused(media: Media, host: str, takes: str) -> ProviderError:
    """The error of an image or a file that *host* does not take; it *takes* others."""
    kind = "image" if media.is_image else "file"
    where = "by its address" if media.data is None else "by its content"
    return unsupported(f"{host} takes no {kind} of type {media.media_type} {where}, but {takes}")


def is_text(media_type: str | None) -> bool:
    """Whether a file is one to read."""
    return media_type is not None and (media_type.startswith("text/") or media_type in TEXT_TYPES)


def name_of(media: Media) -> str:
    """A file's name, for providers that want one."""
    return media.name or _FILES.get(media.media_type or "", "file")


# What was said before


def with_notes(
    messages: Sequence[Message], encode: Callable[[Mapping[str, Any]], object]
) -> list[Message]:
    """A conversation in which notes stand for what *encode* refuses.

    What is asked now is left alone, so that it is refused. But what was said before, to another
    provider maybe, or was shown by a tool, stands in the conversation for ever: no later turn may
    fail of it.
    """
    users = [place for place, message in enumerate(messages) if message["role"] == "user"]
    asked = users[-1] if users else -1
    return [
        message if place == asked else _with_notes(message, encode)
        for place, message in enumerate(messages)
    ]


def _with_notes(message: Message, encode: Callable[[Mapping[str, Any]], object]) -> Message:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    noted = [_noted(part, encode) for part in content]
    is_same = all(one is other for one, other in zip(noted, content, strict=True))
    return message if is_same else {**message, "content": noted}


def _noted(part: Any, encode: Callable[[Mapping[str, Any]], object]) -> Any:
    if not isinstance(part, Mapping) or part.get("type") == "text":
        return part
    try:
        encode(part)
    except ProviderError:
        [told] = told_of([part]) or [{}]
        known = [told.get(key) for key in ("kind", "media_type", "name")]
        words = " ".join(filter(None, known)) or "something"
        return {"type": "text", "text": f"({words}: cannot be shown here)"}
    return part


# Where a result is text


def with_media_behind(messages: Sequence[Message]) -> list[Message]:
    """A conversation whose results are text: their images and files stand behind them.

    For providers that want a result to be text. What a tool showed is a message of the user then,
    behind the last result of the same reply, since nothing may stand between those.
    """
    moved: list[Message] = []
    shown: list[Mapping[str, Any]] = []
    for message in messages:
        if message["role"] != "tool":
            moved += _shown(shown)
            shown = []
        elif any(part.get("type") != "text" for part in parts_of(message.get("content"))):
            texts = _as_text(parts_of(message["content"]), shown)
            message = {**message, "content": "\n".join(texts)}
        moved.append(message)
    return [*moved, *_shown(shown)]


def _as_text(parts: Sequence[Mapping[str, Any]], shown: list[Mapping[str, Any]]) -> Iterator[str]:
    for part in parts:
        if part.get("type") == "text":
            yield str(part.get("text", ""))
        else:
            shown.append(part)
            yield f"(shown below, number {len(shown)})"


def _shown(parts: Sequence[Mapping[str, Any]]) -> list[Message]:
    if not parts:
        return []
    words = "What the tools showed, in this order:"
    return [{"role": "user", "content": [{"type": "text", "text": words}, *parts]}]
