"""What items mean."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio.wire._openai_items import (
    annotation_part,
    call_part,
    carry_of,
    is_known_at_once,
    is_server_tool,
    other_part,
    result_parts,
    waits_for_us,
)
from tests.support.responses import call, message, reasoning


@pytest.mark.parametrize(
    ("item", "who"),
    [
        ({"type": "message"}, "nobody"),
        ({"type": "reasoning"}, "nobody"),
        ({"type": "function_call"}, "nobody"),
        ({"type": "web_search_call"}, "provider"),
        ({"type": "mcp_list_tools"}, "provider"),
        ({"type": "x_search_call"}, "provider"),
        ({"type": "shell_call", "environment": {"type": "container_reference"}}, "provider"),
        ({"type": "tool_search_call", "execution": "server"}, "provider"),
        ({"type": "custom_tool_call"}, "us"),
        ({"type": "computer_call"}, "us"),
        ({"type": "mcp_approval_request"}, "us"),
        ({"type": "shell_call", "environment": {"type": "local"}}, "us"),
        ({"type": "shell_call"}, "us"),
        ({"type": "tool_search_call", "execution": "client"}, "us"),
    ],
)
def test_who_runs_what_an_item_calls(item: dict[str, Any], who: str) -> None:
    assert (waits_for_us(item), is_server_tool(item)) == (who == "us", who == "provider")


@pytest.mark.parametrize(
    ("item", "name", "arguments", "result"),
    [
        (
            {"type": "web_search_call", "action": {"type": "search", "query": "q", "sources": [1]}},
            "web_search",
            {"type": "search", "query": "q"},
            {"sources": [1]},
        ),
        (
            {"type": "file_search_call", "queries": ["q"], "results": [{"text": "t"}]},
            "file_search",
            {"queries": ["q"]},
            {"results": [{"text": "t"}]},
        ),
        (
            {"type": "code_interpreter_call", "code": "1", "container_id": "c", "outputs": []},
            "code_interpreter",
            {"code": "1"},
            {"container_id": "c", "outputs": []},
        ),
        (
            {
                "type": "mcp_call",
                "name": "n",
                "server_label": "s",
                "arguments": "{}",
                "output": "o",
            },
            "n",
            {},
            "o",
        ),
        ({"type": "mcp_call", "arguments": "{"}, "mcp", {"arguments": "{"}, None),
        (
            {"type": "mcp_list_tools", "server_label": "s", "tools": []},
            "mcp_list_tools",
            {"server_label": "s"},
            {"tools": []},
        ),
        ({"type": "tool_search_call", "arguments": {"q": 1}}, "tool_search", {"q": 1}, {}),
    ],
)
def test_a_tool_of_the_provider_has_a_call_and_a_result(
    item: dict[str, Any], name: str, arguments: dict[str, Any], result: Any
) -> None:
    item = {**item, "id": "x1", "status": "completed"}

    assert call_part(item, "x1") == {
        "type": "server_tool_call",
        "id": "x1",
        "name": name,
        "arguments": arguments,
    }
    assert result_parts(item, "x1") == [
        {"type": "server_tool_result", "id": "x1", "result": result}
    ]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"error": "no"}, "no"),
        ({"error": {"type": "http_error", "message": "gone"}}, "gone"),
        ({"error": {"type": "http_error"}}, "http_error"),
        ({"error": {}}, "failed"),
        ({"status": "failed"}, "failed"),
        ({"status": "incomplete", "error": None}, "incomplete"),
    ],
)
def test_a_tool_that_failed_says_why(more: dict[str, Any], error: str) -> None:
    [part] = result_parts({"type": "mcp_call", **more}, "x")

    assert part["error"] == error


@pytest.mark.parametrize(("form", "mime"), [("webp", "image/webp"), (None, "image/png")])
def test_an_image_is_a_file_of_its_own(form: str | None, mime: str) -> None:
    item = {"type": "image_generation_call", "result": "AAAA", "output_format": form}
    file, result = result_parts(item, "x")

    assert file == {"type": "file", "mime_type": mime, "data": "AAAA"}
    assert result["result"] == {"output_format": form}
    assert len(result_parts({**item, "result": None}, "x")) == 1


def test_an_image_is_asked_for_before_its_words_are_known() -> None:
    kinds = ("image_generation_call", "mcp_list_tools", "web_search_call")

    assert [is_known_at_once({"type": kind}) for kind in kinds] == [True, True, False]


@pytest.mark.parametrize(
    ("annotation", "part"),
    [
        ({"type": "url_citation", "url": "u"}, {"type": "citation", "url": "u"}),
        ({"type": "file_citation", "file_id": "f"}, {"type": "citation", "file_id": "f"}),
        ({"type": "container_file_citation", "file_id": "f"}, {"type": "file", "file_id": "f"}),
        ({"type": "file_path", "file_id": "f"}, {"type": "file", "file_id": "f"}),
        ({"type": "news", "a": 1}, {"type": "news", "a": 1}),
        ({"a": 1}, {"type": "annotation", "a": 1}),
    ],
)
def test_annotations_are_citations_and_files(annotation: Any, part: Any) -> None:
    assert annotation_part(annotation) == part


def test_what_is_for_the_provider_alone_is_not_shown() -> None:
    item = {"type": "compaction", "encrypted_content": "sealed", "id": "c"}

    assert other_part(item) == {"type": "compaction", "id": "c"}


# What goes back


def carried(*items: dict[str, Any], is_stored: bool = False) -> Any:
    carry = carry_of(items, is_stored)
    return None if carry is None else carry["openai_responses"]["items"]


def test_a_plain_reply_carries_nothing() -> None:
    assert carried(message("a"), call("f", {})) is None


def test_a_phase_is_carried() -> None:
    assert carried(message("a", phase="commentary")) == [message("a", phase="commentary")]


def test_reasoning_goes_back_where_it_can_be_read() -> None:
    open_item = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "a"}]}

    assert carried(reasoning("a"), message("b")) == [reasoning("a"), message("b")]
    assert carried(open_item, call("f", {})) == [open_item, call("f", {})]
    assert carried(reasoning("a", None), message("b")) is None
    assert carried(reasoning("a", None), message("b"), is_stored=True) is not None


def test_keys_of_null_do_not_go_back() -> None:
    """Some hosts send ``"status": null`` and refuse it."""
    assert carried({**reasoning("a"), "status": None}) == [reasoning("a")]


def test_what_waits_for_us_does_not_go_back_nor_the_thought_behind_it() -> None:
    custom = {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "SELECT"}

    assert carried(reasoning("a"), message("b"), reasoning("c"), custom) == [
        reasoning("a"),
        message("b"),
    ]
    assert carried(reasoning("c"), custom) is None
