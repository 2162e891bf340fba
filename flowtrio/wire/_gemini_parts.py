"""Text, images and files in a request to Gemini."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._media import media_of

_MEDIA = ("inlineData", "fileData")


def encode_part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A message's part as Gemini takes it; a `ProviderError` where it does not."""
    if part.get("type") == "text":
        return {"text": part["text"]}
    media = media_of(part, "Gemini")
    if media.data is not None:
        return {"inlineData": {"mimeType": media.media_type, "data": media.data}}
    kind = {} if media.media_type is None else {"mimeType": media.media_type}
    return {"fileData": {**kind, "fileUri": media.url}}


def may_join(before: Sequence[Mapping[str, Any]], parts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether parts of one role may be one content with those before them.

    Results may not, with images: a content with a result in it is read as one of functions only.
    """
    has_result = any("functionResponse" in part for part in before)
    return not (has_result and any(key in part for part in parts for key in _MEDIA))
