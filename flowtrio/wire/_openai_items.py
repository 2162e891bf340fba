"""What the items of a Responses answer mean: tools of the provider's, citations, what goes back.

An answer is a list of items: messages, thoughts, calls of our functions, and calls of tools that
the provider runs itself. Some more ask *us* to act (custom tools, a computer, a shell): these are
shown, but cannot be answered here, so they do not go back either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._json import decode_arguments

_FOR_US = frozenset(
    {
        "apply_patch_call",
        "computer_call",
        "custom_tool_call",
        "local_shell_call",
        "mcp_approval_request",
    }
)
"""Items that wait for an answer which only the application could give."""

_ASKED = ("queries", "code", "server_label")
"""Keys of an item that say what its tool was asked."""

_NOT_RESULT = frozenset(
    {
        *_ASKED,
        *("id", "type", "status", "name", "call_id", "arguments", "action", "error"),
        *("approval_request_id", "encrypted_content"),
    }
)
"""Keys of an item that are no part of its tool's result."""


def waits_for_us(item: dict[str, Any]) -> bool:
    """Whether the model waits for an answer to this item, other than a function's result."""
    match item.get("type"):
        case "shell_call":
            environment = item.get("environment")
            return not (isinstance(environment, dict) and _has_container(environment))
        case "tool_search_call":
            return item.get("execution") == "client"
        case kind:
            return kind in _FOR_US


def _has_container(environment: dict[str, Any]) -> bool:
    return str(environment.get("type", "")).startswith("container")


def is_server_tool(item: dict[str, Any]) -> bool:
    """Whether the provider itself runs what this item calls; kinds yet unknown included."""
    kind = str(item.get("type"))
    is_call = kind.endswith("_call") or kind == "mcp_list_tools"
    return is_call and kind != "function_call" and not waits_for_us(item)


def is_known_at_once(item: dict[str, Any]) -> bool:
    """Whether an item that has only begun says all that its tool is asked.

    The others say it when they are done, or in an event of their own.
    """
    return item.get("type") in ("image_generation_call", "mcp_list_tools")


def call_part(item: dict[str, Any], id: str) -> dict[str, Any]:
    """The part that tells of a call which the provider runs."""
    return {
        "type": "server_tool_call",
        "id": id,
        "name": _name(item),
        "arguments": _arguments(item),
    }


def result_parts(item: dict[str, Any], id: str) -> list[dict[str, Any]]:
    """The parts that tell how such a call ended: a file where it made one, then the result."""
    result = {key: value for key, value in item.items() if key not in _NOT_RESULT}
    files = []
    if item.get("type") == "image_generation_call":
        image = result.pop("result", None)
        if isinstance(image, str) and image:
            kind = str(item.get("output_format") or "png")
            files.append({"type": "file", "mime_type": f"image/{kind}", "data": image})
    action = item.get("action")
    if isinstance(action, dict) and "sources" in action:
        result["sources"] = action["sources"]
    part: dict[str, Any] = {
        "type": "server_tool_result",
        "id": id,
        "result": item.get("output") if item.get("type") == "mcp_call" else result,
    }
    error = _error(item)
    if error is not None:
        part["error"] = error
    return [*files, part]


def _name(item: dict[str, Any]) -> str:
    name = item.get("name")
    if item.get("type") == "mcp_call" and isinstance(name, str):
        return name
    return str(item.get("type")).removesuffix("_call")


def _arguments(item: dict[str, Any]) -> dict[str, Any]:
    arguments, action = item.get("arguments"), item.get("action")
    if isinstance(arguments, str):
        decoded = decode_arguments(arguments)
        return {"arguments": arguments} if decoded is None else decoded
    if isinstance(arguments, dict):
        return arguments
    if isinstance(action, dict):
        return {key: value for key, value in action.items() if key != "sources"}
    return {key: item[key] for key in _ASKED if item.get(key) is not None}


def _error(item: dict[str, Any]) -> str | None:
    error = item.get("error")
    if isinstance(error, dict):
        error = error.get("message") or error.get("type") or "failed"
    if error is not None:
        return str(error)
    return str(item["status"]) if item.get("status") in ("failed", "incomplete") else None


def annotation_part(annotation: dict[str, Any]) -> dict[str, Any]:
    """The part that an annotation of a text becomes."""
    rest = {key: value for key, value in annotation.items() if key != "type"}
    match annotation.get("type"):
        case "url_citation" | "file_citation":
            return {"type": "citation", **rest}
        case "container_file_citation" | "file_path":
            return {"type": "file", **rest}
        case kind:
            return {**rest, "type": str(kind or "annotation")}


def other_part(item: dict[str, Any]) -> dict[str, Any]:
    """The part that any other item becomes; what is for the provider alone is left out."""
    return {key: value for key, value in item.items() if key != "encrypted_content"}


def carry_of(items: Sequence[dict[str, Any]], is_stored: bool) -> dict[str, Any] | None:
    """What goes back with this reply: its items as they came, or None where the text will do.

    Args:
      items: The answer's items, in their order.
      is_stored: Whether the provider keeps them, and so finds again what it did not send.

    """
    kept: list[dict[str, Any]] = []
    for item in items:
        if waits_for_us(item):
            # "Item of type 'reasoning' was provided without its required following item."
            while kept and kept[-1].get("type") == "reasoning":
                kept.pop()
            continue
        kept.append({key: value for key, value in item.items() if value is not None})
    if not is_stored and not all(_can_return(item) for item in kept):
        # Without them the items that they led to are refused too, unless as plain messages.
        return None
    # A message's phase is not in its text, and models get worse where it is missing.
    is_plain = all(
        item.get("type") in ("message", "function_call") and "phase" not in item for item in kept
    )
    return None if is_plain else {"openai_responses": {"items": kept}}


def _can_return(item: dict[str, Any]) -> bool:
    """Whether a provider that kept nothing can read this item."""
    is_reasoning = item.get("type") == "reasoning"
    return not is_reasoning or bool(item.get("encrypted_content") or item.get("content"))
