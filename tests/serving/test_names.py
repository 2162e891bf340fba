"""Whatever a client calls its conversation, it is found again by that name, and changed by it."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import pytest

from tests.support.site import site, talk

NAMES: Final = [
    *(
        "s",
        "a/b",
        "/",
        "//",
        "a/../b",
        "../x",
        "...",
        "..a",
        "x/branch",
        "x/parts/0",
        "runs/events",
    ),
    *("a b", " ", "a?b=c", "a#b", "%", "%2F", "a%2Fb", "%00", "a\x00b", "a\nb", "a+b", "a;b,c"),
    *("\u00e4", "\u65e5\u672c", "\u202eabc", "\u2028", "\U0001d54f" * 60, "n" * 256, "null", "{}"),
]


def sent(name: str) -> str:
    """As a browser's ``encodeURIComponent`` writes it."""
    return quote(name, safe="!'()*~")


async def test_a_conversation_of_any_name_can_be_read_renamed_branched_and_deleted() -> None:
    async with site(talk) as s:
        for name in NAMES:
            asked = {"message": "hi", "session_id": name}
            await s.follow("POST", "/chat/stream", json=asked)
            path = f"/sessions/{sent(name)}"
            read = await s.http.get(path)
            renamed = await s.http.patch(path, json={"title": "T"})
            body = {"back": 1, "message": "hi"}
            branch = await s.http.post(f"{path}/branch", json=body)
            part = await s.http.get(f"{path}/parts/0")
            deleted = await s.http.delete(path)
            gone = await s.http.get(path)

            answers = (read, renamed, branch, part, deleted)
            assert [a.status_code for a in answers] == [200, 200, 201, 404, 204], name
            assert (read.json()["session_id"], len(read.json()["runs"])) == (name, 1)
            assert part.json()["code"] == "unknown_part"
            assert gone.json()["runs"] == []


@pytest.mark.parametrize("key", ["session_id", "run_id"])
@pytest.mark.parametrize("name", [".", ".."])
async def test_a_name_that_no_address_can_have_is_refused(key: str, name: str) -> None:
    async with site(talk) as s:
        answer = await s.http.post("/chat/stream", json={"message": "hi", key: name})

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_frame")
