"""What Anthropic's blocks mean beside text: citations, and tools that run at the provider.

What only the provider can read is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

SIGNED = ("thinking", "redacted_thinking")
"""Blocks that are valid behind what they were made under, and nowhere else."""


def is_signed(blocks: Sequence[dict[str, Any]]) -> bool:
    """Whether there are thoughts among a reply's blocks."""
    return any(block.get("type") in SIGNED for block in blocks)


def citation_part(given: dict[str, Any]) -> dict[str, Any]:
    """The part that a citation of a text becomes."""
    part = {key: value for key, value in _public(given).items() if key not in _CITATION_KEYS}
    return {
        "type": "citation",
        "url": given.get("url"),
        "title": given.get("title") or given.get("document_title"),
        "text": given.get("cited_text"),
        "kind": given.get("type"),
        **part,
    }


_CITATION_KEYS = ("type", "url", "title", "document_title", "cited_text")


def server_call_part(block: dict[str, Any]) -> dict[str, Any]:
    """The part that tells of a call which the provider runs."""
    arguments = block.get("input")
    return {
        "type": "server_tool_call",
        "id": str(block.get("id")),
        "name": str(block.get("name")),
        "arguments": arguments if isinstance(arguments, dict) else {},
    }


def result_parts(block: dict[str, Any]) -> list[dict[str, Any]]:
    """What a result of one of the provider's own tools says; nothing for any other block."""
    if block.get("type") == "container_upload":
        return [{"type": "file", "file_id": block.get("file_id")}]
    if not str(block.get("type")).endswith("_tool_result"):
        return []
    content = block.get("content")
    part = {
        "type": "server_tool_result",
        "id": str(block.get("tool_use_id")),
        "result": _public(content),
    }
    if isinstance(content, dict) and str(content.get("type")).endswith("_error"):
        part["error"] = str(content.get("error_code") or "error")
    elif block.get("is_error") is True:
        part["error"] = "error"
    return [part, *_files(content)]


def _files(content: Any) -> Iterator[dict[str, Any]]:
    """The files that a program has written."""
    files = content.get("content") if isinstance(content, dict) else None
    for file in files if isinstance(files, list) else ():
        if isinstance(file, dict) and isinstance(file.get("file_id"), str):
            yield {"type": "file", "file_id": file["file_id"]}


def _public(value: Any) -> Any:
    """A value without what only the provider can read; no deeper than JSON is decoded."""
    if isinstance(value, dict):
        return {k: _public(v) for k, v in value.items() if not k.startswith("encrypted_")}
    return [_public(item) for item in value] if isinstance(value, list) else value
