"""Each provider's page says how its host cuts, withholds and refuses, in words that are known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

import flowtrio
from flowtrio.wire._errors import Told, is_passing
from flowtrio.wire._finish import FinishMark

PROVIDERS: Final = Path(flowtrio.__file__).parents[1] / "docs" / "providers"
PAGES: Final = sorted(
    path.stem for path in PROVIDERS.glob("*.md") if path.stem not in ("index", "fallback")
)
ROWS: Final = ("cut", "the context is full", "withheld", "overloaded")

TERMS: Final = frozenset(
    {
        *("[DONE]", "message_stop", "message_start", "response.incomplete", "incomplete"),
        *("done_reason", "blockReason", "retryDelay", "Retry-After", "error", "stop"),
    }
)
"""Words that are no reason and no code."""


def rows_of(page: str) -> dict[str, str]:
    """What a page says of how its host tells each of these."""
    text = (PROVIDERS / f"{page}.md").read_text("utf-8")
    _, heading, section = text.partition("## When a reply is cut, withheld or refused\n")
    assert heading, page
    found = re.findall(r"^\| ([a-z ]+) \| (.+?) \|", section.partition("\n## ")[0], re.MULTILINE)
    return dict(found)


def meaning(word: str) -> set[str]:
    """What the code takes a word for, as a finish reason and as the code of an error."""
    mark, told = FinishMark(unknown="stop"), Told(code=word)
    mark.tell(word)
    known = {"length": "cut", "content_filter": "withheld"}
    found = {known[mark.reason]} if mark.reason in known else set()
    if mark.reason == "length" and ("context" in word or word.startswith("model_")):
        found.add("the context is full")
    if told.is_too_long:
        found.add("the context is full")
    if told.is_withheld:
        found.add("withheld")
    if told.is_passing or told.is_used_up or (word.isdecimal() and is_passing(int(word))):
        found.add("overloaded")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_each_page_says_how_its_host_ends_a_reply(page: str) -> None:
    rows = rows_of(page)

    assert set(ROWS) - {"the context is full"} <= rows.keys() <= set(ROWS)
    for row, text in rows.items():
        for word in set(re.findall(r"`([^`]+)`", text)) - TERMS:
            assert row in meaning(word), (row, word)


@pytest.mark.parametrize("word", ["stop", "tool_calls", "invalid_api_key", "whatever"])
def test_a_word_that_means_nothing_of_the_kind_is_noticed(word: str) -> None:
    assert meaning(word) == set()
