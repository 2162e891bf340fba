"""What an agent gave, as contents of the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import msgspec
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from flowtrio._core._media import OCTETS, encode_data
from flowtrio._core._parts import File, Image, parts_of_result


def given_result(value: Any, told: Any, run_id: str) -> CallToolResult:
    """The answer to a call.

    Args:
      value: What the agent returned; *told*, where that is not known here.
      told: The same as JSON, in which parts have no content.
      run_id: The run, in the addresses of files.

    """
    items = parts_of_result(value)
    if items is None:
        structured = told if isinstance(told, dict) else None
        return CallToolResult(content=[_text(told)], structured_content=structured)
    plain: Sequence[Any] = told if isinstance(told, list) else [told]
    content: list[ContentBlock] = []
    for number, (item, text) in enumerate(zip(items, plain, strict=True)):
        is_medium = isinstance(item, Image | File)
        content.append(_medium(item, f"flowtrio://{run_id}/{number}") if is_medium else _text(text))
    return CallToolResult(content=content)


def _text(value: Any) -> TextContent:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return TextContent(text=text)


def _medium(part: Image | File, address: str) -> ContentBlock:
    kind, name = part.media_type or OCTETS, part.name
    if part.data is None:
        assert part.url is not None
        return ResourceLink(uri=part.url, name=name or part.url, mime_type=part.media_type)
    data = encode_data(part.data)
    if kind.startswith("image/"):
        return ImageContent(data=data, mime_type=kind)
    if kind.startswith("audio/"):
        return AudioContent(data=data, mime_type=kind)
    uri = f"{address}/{quote(name, safe='')}" if name else address
    return EmbeddedResource(resource=_resource(part.data, data, kind, uri))


def _resource(
    content: bytes, data: str, kind: str, uri: str
) -> TextResourceContents | BlobResourceContents:
    # A text is what other models read.
    if kind.startswith("text/"):
        with suppress(UnicodeDecodeError):
            return TextResourceContents(uri=uri, mime_type=kind, text=content.decode())
    return BlobResourceContents(uri=uri, mime_type=kind, blob=data)
