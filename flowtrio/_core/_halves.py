"""Characters that a model's host cut in two: a surrogate pair spread over two fragments.

A host that writes JSON in UTF-16 units may end one fragment with the first half of an emoji's pair
and begin the next with the second. Neither is a character; together they are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ._chunks import Chunk, ToolArgs
from ._values import clean_text

_REPLACEMENT: Final = "�"
_HALF: Final = re.compile("[\ud800-\udfff]")


class Halves:
    """Joins the halves of characters over a reply's chunks, each kind of text by itself."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[object, str] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a first half waits for its second."""
        return bool(self._held)

    def join(self, chunk: Chunk) -> Chunk:
        """Give *chunk* with whole characters only; a half at a text's end waits for the next.

        What stays alone until the final chunk, or is followed by something else, is U+FFFD.
        """
        if chunk.reset is not None:
            self._held.clear()
        if not self._held and not any(map(_is_cut, _texts(chunk))):
            return chunk
        args = [self._args(piece) for piece in chunk.tool_args]
        content = self._text("content", chunk.content)
        reasoning = self._text("reasoning", chunk.reasoning)
        parts = [self._part(part) for part in chunk.parts]
        if chunk.is_final:
            content += self._rest("content")
            reasoning += self._rest("reasoning")
            self._held.clear()
        return msgspec.structs.replace(
            chunk, content=content, reasoning=reasoning, tool_args=args, parts=parts
        )

    def _text(self, kind: object, text: str) -> str:
        if not text:
            return text
        text = self._held.pop(kind, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._held[kind] = text[-1]
            text = text[:-1]
        return clean_text(text)

    def _args(self, piece: ToolArgs) -> ToolArgs:
        text = self._text(piece.index, piece.text)
        return ToolArgs(piece.index, clean_text(piece.id), clean_text(piece.name), text)

    def _part(self, part: dict[str, Any]) -> dict[str, Any]:
        # Of the parts only a refusal is told in pieces.
        if part.get("type") == "refusal" and isinstance(part.get("text"), str):
            return {**part, "text": self._text("refusal", part["text"])}
        return part

    def _rest(self, kind: str) -> str:
        return _REPLACEMENT if kind in self._held else ""


def _texts(chunk: Chunk) -> Iterator[str]:
    yield chunk.content
    yield chunk.reasoning
    for piece in chunk.tool_args:
        yield piece.text
    for part in chunk.parts:
        if isinstance(part.get("text"), str):
            yield part["text"]


def _is_cut(text: str) -> bool:
    return not text.isascii() and _HALF.search(text) is not None
