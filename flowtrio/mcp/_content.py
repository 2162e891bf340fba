"""What a server's tool gave, as the result of a call."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

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

from flowtrio._core._media import OCTETS
from flowtrio._core._parts import File, Image, Part, Text


class McpToolFailed(Exception):
    """A server's tool said that it failed; its text is what it said."""


def result_of(result: CallToolResult, output_schema: dict[str, Any] | None) -> Any:
    """The call's result: what is structured, else its text, else parts; or `McpToolFailed`."""
    if result.is_error:
        raise McpToolFailed(_reason(result) or "the tool gave no reason")
    parts = [_part(block) for block in result.content]
    if any(not isinstance(part, Text) for part in parts):
        return parts
    if result.structured_content is not None:
        return _unwrapped(result.structured_content, output_schema or {})
    return "\n".join(part.text for part in parts if isinstance(part, Text)) if parts else None


def _unwrapped(value: Any, output_schema: dict[str, Any]) -> Any:
    """What servers wrap since a structured result has to be an object: ``{"result": 7}``."""
    is_wrapped = list(output_schema.get("properties") or ()) == ["result"]
    if is_wrapped and isinstance(value, dict) and list(value) == ["result"]:
        return value["result"]
    return value


def _reason(result: CallToolResult) -> str:
    """Why a tool failed: its texts, else what is structured."""
    texts = [text for block in result.content if (text := _text(block))]
    if texts or result.structured_content is None:
        return "\n".join(texts)
    return json.dumps(result.structured_content, ensure_ascii=False)


def _text(block: ContentBlock) -> str:
    if isinstance(block, EmbeddedResource):
        return block.resource.text if isinstance(block.resource, TextResourceContents) else ""
    return block.text if isinstance(block, TextContent) else ""


def _part(block: ContentBlock) -> Part:
    match block:
        case TextContent(text=text):
            return Text(text)
        case ImageContent(data=data, mime_type=kind) | AudioContent(data=data, mime_type=kind):
            return _medium(data, kind, None)
        case ResourceLink(uri=uri, name=name, description=description):
            return Text(f"{name}: {uri}" + (f" ({description})" if description else ""))
        case _:
            return _resource(block.resource)


def _resource(resource: TextResourceContents | BlobResourceContents) -> Part:
    if isinstance(resource, TextResourceContents):
        return Text(resource.text)
    name = str(resource.uri).rstrip("/").rpartition("/")[2]
    return _medium(resource.blob, resource.mime_type, name)


def _medium(data: str, kind: str | None, name: str | None) -> Image | File:
    content = base64.b64decode(data, validate=True)
    is_image = (kind or "").startswith("image/")
    make = Image if is_image else File
    # Some servers are wrong about the type, or do not know it; the bytes tell it as a rule.
    for known in (kind, None):
        with suppress(ValueError):
            return make(data=content, media_type=known, name=name)
    return make(data=content, media_type=None if is_image else OCTETS, name=name)
