"""Blocks of reasoning in fragments become the blocks that they were."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtrio.wire._reasoning_details import ReasoningDetails

TEXT = {"type": "reasoning.text", "format": "anthropic-claude-v1"}
SUMMARY = {"type": "reasoning.summary"}
SEALED = {"type": "reasoning.encrypted"}


def merged(*events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What goes back of fragments that came in these events."""
    details = ReasoningDetails()
    before = copy.deepcopy(events)
    for event in events:
        details.add(event)

    assert list(before) == list(events)
    assert bool(details) == any(events)
    return details.finish()


def each(*fragments: dict[str, Any]) -> list[dict[str, Any]]:
    return merged(*([fragment] for fragment in fragments))


CASES: dict[str, tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "nothing": ([], []),
    "one block, then its signature": (
        [
            [{**TEXT, "index": 0, "text": "Let", "signature": None}],
            [{**TEXT, "index": 0, "text": " me see."}],
            [{**TEXT, "index": 0, "signature": "S"}],
        ],
        [{**TEXT, "index": 0, "text": "Let me see.", "signature": "S"}],
    ),
    "blocks without numbers": (
        [
            [{**TEXT, "text": "a"}],
            [{**TEXT, "text": "b", "signature": "S"}],
            [{**TEXT, "text": "c"}],
            [{**TEXT, "signature": "T"}],
        ],
        [{**TEXT, "text": "ab", "signature": "S"}, {**TEXT, "text": "c", "signature": "T"}],
    ),
    "a number that stays": (
        [
            [{**TEXT, "index": 0, "text": "a", "signature": "S"}],
            [{**TEXT, "index": 0, "text": "b"}],
            [{**TEXT, "index": 0, "signature": "T"}],
        ],
        [
            {**TEXT, "index": 0, "text": "a", "signature": "S"},
            {**TEXT, "index": 0, "text": "b", "signature": "T"},
        ],
    ),
    "blocks that overlap": (
        [
            [{**TEXT, "index": 0, "text": "a"}],
            [{**SUMMARY, "index": 1, "summary": "x"}],
            [{**TEXT, "index": 0, "text": "b"}, {**SUMMARY, "index": 1, "summary": "y"}],
        ],
        [{**TEXT, "index": 0, "text": "ab"}, {**SUMMARY, "index": 1, "summary": "xy"}],
    ),
    "kinds of one number": (
        [
            [{**SUMMARY, "index": 0, "summary": "a"}, {**SEALED, "index": 0, "data": "X"}],
            [{**SUMMARY, "index": 0, "summary": "b"}],
        ],
        [{**SUMMARY, "index": 0, "summary": "ab"}, {**SEALED, "index": 0, "data": "X"}],
    ),
    "sealed pieces by their number": (
        [[{**SEALED, "index": 0, "id": "r", "data": "X"}], [{**SEALED, "index": 0, "data": "Y"}]],
        [{**SEALED, "index": 0, "id": "r", "data": "XY"}],
    ),
    "sealed twice": (
        [[{**SEALED, "index": 0, "data": "X"}], [{**SEALED, "index": 0, "data": "X"}]],
        [{**SEALED, "index": 0, "data": "X"}],
    ),
    "sealed blocks with ids of their own": (
        [
            [{**SEALED, "index": 0, "id": "r1", "data": "X"}],
            [{**SEALED, "index": 0, "id": "r2", "data": "Y"}],
        ],
        [
            {**SEALED, "index": 0, "id": "r1", "data": "X"},
            {**SEALED, "index": 0, "id": "r2", "data": "Y"},
        ],
    ),
    "sealed blocks without numbers": (
        [[{**SEALED, "data": "X"}], [{**SEALED, "data": "Y"}]],
        [{**SEALED, "data": "X"}, {**SEALED, "data": "Y"}],
    ),
    "a whole answer": (
        [[{**SUMMARY, "summary": "a"}, {**SUMMARY, "summary": "b"}, {"odd": 1}]],
        [{**SUMMARY, "summary": "a"}, {**SUMMARY, "summary": "b"}, {"odd": 1}],
    ),
    "a text of another type": (
        [[{**TEXT, "index": 0, "text": 7}], [{**TEXT, "index": 0, "text": "b"}]],
        [{**TEXT, "index": 0, "text": 7}],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fragments_of_a_block_go_back_as_one(name: str) -> None:
    events, blocks = CASES[name]

    assert merged(*events) == blocks


@given(
    st.lists(st.tuples(st.text(min_size=1), st.booleans()), max_size=4),
    st.data(),
)
def test_any_cut_of_the_same_blocks_gives_them_back(
    blocks: list[tuple[str, bool]], data: st.DataObject
) -> None:
    whole = [
        {**TEXT, "index": place, "text": text} | ({"signature": f"s{place}"} if signed else {})
        for place, (text, signed) in enumerate(blocks)
    ]
    fragments = []
    for block in whole:
        rest = dict(block)
        while len(rest["text"]) > 1 and data.draw(st.booleans()):
            fragments.append({**TEXT, "index": rest["index"], "text": rest["text"][0]})
            rest["text"] = rest["text"][1:]
        if "signature" in rest and data.draw(st.booleans()):
            signature = rest.pop("signature")
            fragments += [rest, {**TEXT, "index": rest["index"], "signature": signature}]
        else:
            fragments.append(rest)

    assert each(*fragments) == whole
