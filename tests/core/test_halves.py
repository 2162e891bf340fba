from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtrio._core._chunks import Chunk, ToolArgs
from flowtrio._core._halves import Halves
from flowtrio._core._values import clean_text

FIRST, SECOND = "\ud83d", "\ude00"


def joined(*chunks: Chunk) -> list[Chunk]:
    halves = Halves()
    return [halves.join(chunk) for chunk in chunks]


def args(text: str, index: int = 0) -> Chunk:
    return Chunk(tool_args=[ToolArgs(index, "i", "f", text)])


def refusal(text: str) -> Chunk:
    return Chunk(parts=[{"type": "refusal", "text": text}])


def test_a_chunk_of_whole_characters_is_the_same_one() -> None:
    for chunk in (Chunk(content="a 😀"), args("é"), refusal("no"), Chunk(is_final=True)):
        assert joined(chunk)[0] is chunk


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (lambda text: Chunk(content=text), lambda chunk: chunk.content),
        (lambda text: Chunk(reasoning=text), lambda chunk: chunk.reasoning),
        (args, lambda chunk: chunk.tool_args[0].text),
        (refusal, lambda chunk: chunk.parts[0]["text"]),
    ],
    ids=["content", "reasoning", "arguments", "refusal"],
)
def test_two_halves_of_one_kind_are_a_character(make: Any, read: Any) -> None:
    assert [read(chunk) for chunk in joined(make(f"a{FIRST}"), make(f"{SECOND}b"))] == ["a", "😀b"]


def test_halves_of_different_kinds_are_none() -> None:
    first, second = joined(Chunk(content=FIRST), Chunk(reasoning=SECOND))

    assert (first.content, second.reasoning) == ("", "�")


def test_calls_are_told_apart() -> None:
    texts = [chunk.tool_args[0].text for chunk in joined(args(FIRST), args("x", 1), args(SECOND))]

    assert texts == ["", "x", "😀"]


def test_what_waits_until_the_final_chunk_is_replaced() -> None:
    final = joined(Chunk(content=FIRST, reasoning=FIRST), Chunk(is_final=True))[-1]

    assert (final.content, final.reasoning) == ("�", "�")


def test_a_reset_forgets_what_waits() -> None:
    halves = Halves()
    halves.join(Chunk(content=FIRST))

    assert halves.is_waiting
    assert halves.join(Chunk(reset="again", content=SECOND)).content == "�"
    assert not halves.is_waiting


@given(st.text(st.sampled_from("a😀é\ud83d\ude00"), max_size=8), st.lists(st.integers(0, 8)))
def test_wherever_a_text_is_cut_it_is_the_same_text(text: str, cuts: list[int]) -> None:
    units = text.encode("utf-16-le", "surrogatepass")
    places = [0, *sorted(2 * (cut % (len(units) // 2 + 1)) for cut in cuts), len(units)]
    pieces = [
        units[a:b].decode("utf-16-le", "surrogatepass") for a, b in itertools.pairwise(places)
    ]
    chunks = [*(Chunk(content=piece) for piece in pieces), Chunk(is_final=True)]

    assert "".join(chunk.content for chunk in joined(*chunks)) == clean_text(text)
