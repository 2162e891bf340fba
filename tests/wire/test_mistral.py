"""Ids of calls as Mistral takes them."""

from __future__ import annotations

import re
from typing import Any

from flowtrio.wire._mistral import fit_call_ids


def conversation(*ids: str) -> list[dict[str, Any]]:
    calls = [{"id": id, "type": "function", "function": {"name": "look"}} for id in ids]
    results = [{"role": "tool", "tool_call_id": id, "content": "x"} for id in ids]
    said = {"role": "assistant", "content": None, "tool_calls": calls}
    return [{"role": "user", "content": "hello"}, said, *results]


def test_ids_become_what_mistral_takes_and_still_name_their_calls() -> None:
    given = conversation("call_1", "call_2", "", "é", "\ud800", "Abc123xyz\n", "toolu_01A2B3")
    user, said, *results = fit_call_ids(given)
    ids = [call["id"] for call in said["tool_calls"]]

    assert user == given[0]
    assert all(re.fullmatch(r"[a-zA-Z0-9]{9}", id) for id in ids)
    assert len(set(ids)) == len(ids)
    assert [result["tool_call_id"] for result in results] == ids
    assert given == conversation(
        "call_1", "call_2", "", "é", "\ud800", "Abc123xyz\n", "toolu_01A2B3"
    )


def test_the_same_id_becomes_the_same_in_every_request() -> None:
    assert fit_call_ids(conversation("call_1")) == fit_call_ids(conversation("call_1"))
    assert fit_call_ids(conversation("call_1"))[2]["tool_call_id"] == "74196fe72"


def test_mistrals_own_ids_stay() -> None:
    given = conversation("Abc123xyz", "000000000")

    assert fit_call_ids(given) == given
