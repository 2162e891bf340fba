"""Reading messages in OpenAI's shape, for codecs that translate them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def parts_of(content: Any) -> list[Mapping[str, Any]]:
    """A message's content as a list of parts; text becomes one, nothing none."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [part for part in content or () if isinstance(part, Mapping)]


def text_of(content: Any) -> str:
    """The text of a message's content, its other parts left out."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in parts_of(content))


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
    return media_type.partition(";")[0] or "application/octet-stream", data
