"""What a model says, as parts of an AI SDK message."""

from __future__ import annotations

from typing import Any

import attrs

from ._calls import UIChunk


@attrs.frozen
class Piece:
    """A part of text that is being said."""

    id: str
    kind: str
    """``text``, ``reasoning`` or ``refusal``."""

    @property
    def _type(self) -> str:
        return "reasoning" if self.kind == "reasoning" else "text"

    def begin(self) -> UIChunk:
        begun = {"type": f"{self._type}-start", "id": self.id}
        if self.kind == "refusal":
            return {**begun, "providerMetadata": {"flowtrio": {"refusal": True}}}
        return begun

    def say(self, text: str) -> UIChunk:
        return {"type": f"{self._type}-delta", "id": self.id, "delta": text}

    def end(self) -> UIChunk:
        return {"type": f"{self._type}-end", "id": self.id}

    def retract(self) -> UIChunk:
        return {**self.end(), "providerMetadata": {"flowtrio": {"retracted": True}}}


def told_part(part: dict[str, Any], id: str) -> UIChunk:
    """A part of a model's message: a source, a file, or what only its page may know."""
    match part:
        case {"type": "citation", "url": str(url)} if url:
            return {"type": "source-url", "sourceId": id, "url": url, **_title(part)}
        case {"type": "citation"}:
            named = _title(part) or {"title": "source"}
            return {"type": "source-document", "sourceId": id, "mediaType": "text/plain", **named}
        case {"type": "file", "url": str(url), "mime_type": str(kind)}:
            return {"type": "file", "url": url, "mediaType": kind}
        case {"type": "file", "data": str(data), "mime_type": str(kind)}:
            return {"type": "file", "url": f"data:{kind};base64,{data}", "mediaType": kind}
        case _:
            return {"type": "data-part", "id": id, "data": part}


def _title(part: dict[str, Any]) -> dict[str, str]:
    title = part.get("title")
    return {"title": title} if isinstance(title, str) and title else {}
