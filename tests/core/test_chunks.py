from __future__ import annotations

import decimal
import fractions
import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, TypeAlias

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core._chunks import (
    Chunk,
    Completion,
    CompletionBuilder,
    ToolArgs,
    ToolCall,
    Usage,
    check_told,
)
from flowtrio._core._chunks import fold as fold_reply
from flowtrio._core._exceptions import RemoteProtocolError
from flowtrio._core._prices import PriceTable

PROPERTY: Final = settings(
    max_examples=200, deadline=None, database=None, derandomize=True, report_multiple_bugs=False
)

Fold: TypeAlias = Callable[[Iterable[Chunk]], Completion | None]


def fold(chunks: Iterable[Chunk]) -> Completion | None:
    return folded_by(CompletionBuilder(), chunks)


def folded_by(builder: CompletionBuilder, chunks: Iterable[Chunk]) -> Completion | None:
    """Fold chunks of which only the last may be final."""
    completion = None
    for chunk in chunks:
        assert completion is None
        completion = builder.add(chunk)
    return completion


# Chunks


def test_a_chunk_of_text_leaves_the_rest_at_its_defaults() -> None:
    chunk = Chunk(content="x")

    assert msgspec.structs.asdict(chunk) == {
        "content": "x",
        "reasoning": "",
        "tool_args": (),
        "parts": (),
        "reset": None,
        "is_final": False,
        "tool_calls": [],
        "finish_reason": None,
        "raw_finish_reason": None,
        "usage": None,
        "model": None,
        "carry": None,
    }


def test_chunks_do_not_share_their_lists() -> None:
    assert Chunk().tool_calls is not Chunk().tool_calls


@pytest.mark.parametrize(
    "value", [Chunk(content="x"), Usage(), ToolArgs(0, "", "f", "{}"), ToolCall("i", "f", {})]
)
def test_what_a_model_said_is_frozen(value: Any) -> None:
    name = next(iter(type(value).__annotations__))

    with pytest.raises(AttributeError):
        setattr(value, name, "y")


def test_a_call_is_made_of_an_id_a_name_and_arguments() -> None:
    call = ToolCall(id="i", name="f", arguments={"a": 1})

    assert (call.raw, call.carry) == ("", None)


# Usage

COUNTS: Final = ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")
USAGES: Final = st.fixed_dictionaries(
    {
        **dict.fromkeys(COUNTS, st.integers(0, 10**9)),
        "quality": st.sampled_from(["measured", "lower_bound"]),
        "cost": st.sampled_from([None, "0", "0.1", "12.0000001"]),
    }
).map(lambda fields: Usage(**fields))


@PROPERTY
@given(USAGES, USAGES, USAGES)
def test_usage_adds_up_in_any_order(a: Usage, b: Usage, c: Usage) -> None:
    total = a + b

    assert total == b + a
    assert total + c == a + (b + c)
    assert a + Usage() == a
    assert all(getattr(total, n) == getattr(a, n) + getattr(b, n) for n in COUNTS)


@pytest.mark.parametrize(
    ("one", "other", "sum"),
    [
        ("measured", "measured", "measured"),
        ("measured", "lower_bound", "lower_bound"),
        ("lower_bound", "measured", "lower_bound"),
        ("lower_bound", "lower_bound", "lower_bound"),
    ],
)
def test_a_sum_is_measured_only_if_both_were(one: Any, other: Any, sum: str) -> None:
    assert (Usage(quality=one) + Usage(quality=other)).quality == sum


def test_costs_add_up_as_decimals_and_are_unknown_if_one_is() -> None:
    assert (Usage(cost="0.1") + Usage(cost="0.2")).cost == "0.3"
    assert (Usage(cost="0.10") + Usage(cost="2")).cost == "2.1"
    assert (Usage(cost="100") + Usage(cost="0")).cost == "100"
    assert (Usage(cost="0.1") + Usage()).cost == "0.1"
    assert (Usage(cost="0.1") + Usage(prompt_tokens=1)).cost is None


def test_events_carry_all_six_keys_of_usage() -> None:
    usage = Usage(
        prompt_tokens=1,
        completion_tokens=2,
        reasoning_tokens=3,
        cached_tokens=4,
        quality="lower_bound",
        cost="0.5",
    )

    assert usage.to_dict() == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "reasoning_tokens": 3,
        "cached_tokens": 4,
        "quality": "lower_bound",
        "cost": "0.5",
    }
    assert Usage().to_dict() == {**dict.fromkeys(COUNTS, 0), "quality": "measured", "cost": None}


# Folding


def test_nothing_is_whole_before_the_final_chunk() -> None:
    assert fold([]) is None
    assert fold([Chunk(content="a"), Chunk(content="b")]) is None
    assert fold([Chunk(is_final=True)]) == Completion()


def test_the_final_chunk_brings_its_own_fragment_and_what_is_known_at_the_end() -> None:
    calls = [ToolCall("i", "f", {"a": 1}, '{"a":1}')]
    chunks = [
        Chunk(reasoning="Hm"),
        Chunk(content="Good", parts=({"type": "x"},)),
        Chunk(tool_args=[ToolArgs(0, "i", "f", "{")]),
        Chunk(content=" ", reasoning=", so"),
        Chunk(
            content="day",
            parts=[{"type": "y"}],
            is_final=True,
            tool_calls=calls,
            finish_reason="tool_calls",
            raw_finish_reason="tool_use",
            usage=Usage(prompt_tokens=3),
            model="m",
            carry={"s": 1},
        ),
    ]

    completion = fold(chunks)

    assert completion == Completion(
        content="Good day",
        reasoning="Hm, so",
        parts=[{"type": "x"}, {"type": "y"}],
        tool_calls=calls,
        finish_reason="tool_calls",
        raw_finish_reason="tool_use",
        usage=Usage(prompt_tokens=3),
        model="m",
        carry={"s": 1},
    )
    assert completion is not None
    assert completion.tool_calls is not calls


def test_a_reset_discards_what_was_said_before_it_and_not_its_own_text() -> None:
    chunks = [
        Chunk(content="a", reasoning="b", parts=[{"type": "x"}]),
        Chunk(content="A", reset="overloaded"),
        Chunk(content="B", reasoning="C", is_final=True),
    ]

    assert fold(chunks) == Completion(content="AB", reasoning="C")


# Merging neighbouring chunks gives the same completion

PIECES: Final = st.fixed_dictionaries(
    {
        "content": st.text("ab", max_size=3),
        "reasoning": st.text("cd", max_size=3),
        "parts": st.lists(st.sampled_from([{"type": "x"}, {"type": "y"}]), max_size=2),
        "reset": st.sampled_from([None, None, None, "", "again"]),
    }
).map(lambda fields: Chunk(**fields))


def merged(one: Chunk, other: Chunk) -> Chunk:
    """One chunk that says what two neighbours say."""
    if other.reset is not None:
        return other
    said = {
        "content": one.content + other.content,
        "reasoning": one.reasoning + other.reasoning,
        "parts": [*one.parts, *other.parts],
        "reset": one.reset,
    }
    return msgspec.structs.replace(other, **said)


def check_merging(fold: Fold) -> None:
    @PROPERTY
    @given(st.lists(PIECES, max_size=6), PIECES, st.data())
    def agree(pieces: list[Chunk], last: Chunk, data: st.DataObject) -> None:
        last = msgspec.structs.replace(last, is_final=True, finish_reason="stop", model="m")
        chunks = [*pieces, last]
        place = data.draw(st.integers(0, len(chunks)))
        pair = chunks[place : place + 2]
        whole = fold(chunks)

        assert whole is not None
        if len(pair) == 2:
            assert fold([*chunks[:place], merged(*pair), *chunks[place + 2 :]]) == whole
        assert fold(itertools.chain([Chunk()], *([c, Chunk()] for c in pieces), [last])) == whole

    agree()


def test_merging_neighbours_and_empty_chunks_between_give_the_same_completion() -> None:
    check_merging(fold)


class AddsSpaces(CompletionBuilder):
    def add(self, chunk: Chunk) -> Completion | None:
        return super().add(msgspec.structs.replace(chunk, content=f"{chunk.content} "))


class NeverResets(CompletionBuilder):
    def add(self, chunk: Chunk) -> Completion | None:
        return super().add(msgspec.structs.replace(chunk, reset=None))


class KeepsThePartsOfTheLast(CompletionBuilder):
    def add(self, chunk: Chunk) -> Completion | None:
        completion = super().add(chunk)
        return completion and attrs.evolve(completion, parts=list(chunk.parts))


@pytest.mark.parametrize("wrong", [AddsSpaces, NeverResets, KeepsThePartsOfTheLast])
def test_a_fold_to_which_boundaries_mean_something_is_found_out(
    wrong: type[CompletionBuilder],
) -> None:
    with pytest.raises(AssertionError):
        check_merging(lambda chunks: folded_by(wrong(), chunks))


def test_the_text_is_kept_once_however_many_chunks_it_came_in() -> None:
    builder = CompletionBuilder()
    for _ in range(10_000):
        builder.add(Chunk(content="ab", reasoning="c"))

    held = [value.getvalue() for value in (builder._content, builder._reasoning)]

    assert held == ["ab" * 10_000, "c" * 10_000]
    assert builder._parts == []


# Folding a reply on its way


class Reply(AsyncIterator[Chunk]):
    """Gives these chunks."""

    def __init__(self, *chunks: Chunk) -> None:
        self._chunks = iter(chunks)
        self.is_left = False

    async def __anext__(self) -> Chunk:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.is_left = True


async def test_a_reply_without_a_final_chunk_does_not_fold() -> None:
    reply = Reply(Chunk(content="a"))
    with pytest.raises(RemoteProtocolError, match="without its finish mark") as caught:
        await fold_reply(reply)

    assert (caught.value.code, caught.value.retryable) == ("stream_cut", True)
    assert reply.is_left


async def test_nothing_is_read_behind_the_final_chunk() -> None:
    reply = Reply(Chunk(content="a", is_final=True), Chunk(content="b"))

    assert (await fold_reply(reply)).content == "a"
    assert reply.is_left
    assert (await anext(reply)).content == "b"


# What the last chunk tells


@pytest.mark.parametrize(
    "final",
    [
        Chunk(),
        Chunk(model="m", usage=Usage()),
        Chunk(usage=Usage(prompt_tokens=10**15, quality="lower_bound", cost="0.10")),
        *(Chunk(usage=Usage(cost=cost)) for cost in ("0", "-0.5", "1E+15", "1E-60", "1_000")),
    ],
)
def test_a_model_and_a_usage_may_be_told(final: Chunk) -> None:
    check_told(final)


def usage(**given: Any) -> Chunk:
    return Chunk(usage=Usage(**given))


class Count(int):
    pass


COST: Final = "Usage.cost: expected None, or a decimal as a str: 10**15 and 60 places at most"


@pytest.mark.parametrize(
    ("final", "words"),
    [
        (Chunk(model=b"m"), "Chunk.model: expected a str or None, got bytes"),  # type: ignore[arg-type]
        (Chunk(usage={}), "Chunk.usage: expected a Usage or None, got dict"),  # type: ignore[arg-type]
        (usage(prompt_tokens=-5), "Usage.prompt_tokens: expected 0 to 10**15, got -5"),
        (
            usage(cached_tokens=10**15 + 1),
            f"Usage.cached_tokens: expected 0 to 10**15, got {10**15 + 1}",
        ),
        (usage(prompt_tokens=-(10**5000)), "Usage.prompt_tokens: expected 0 to 10**15, got <int>"),
        (usage(completion_tokens=Count(1)), "Usage.completion_tokens: expected an int, got Count"),
        (usage(completion_tokens=1.5), "Usage.completion_tokens: expected an int, got float"),
        (usage(reasoning_tokens=None), "Usage.reasoning_tokens: expected an int, got NoneType"),
        (usage(cached_tokens=True), "Usage.cached_tokens: expected an int, got bool"),
        (usage(quality="guessed"), "Usage.quality: expected 'measured' or 'lower_bound'"),
        *((usage(cost=cost), COST) for cost in (0.5, "cheap", "NaN", "-Infinity", "", b"1")),
        *((usage(cost=cost), COST) for cost in ("1E+999999", "-1E+16", "0E+999999", "1E-999999")),
        *((usage(cost=cost), COST) for cost in ("1E-61", "9" * 16, "0" * 101, "1" * 10**6)),
    ],
)
def test_what_is_no_model_and_no_usage_is_refused_by_name(final: Chunk, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(words)}$"):
        check_told(final)


def is_told(usage: Usage) -> bool:
    try:
        check_told(Chunk(usage=usage))
    except (TypeError, ValueError):
        return False
    return True


ODD_COSTS: Final = st.one_of(
    st.sampled_from([None, "0.1", "1E+15", "-1E-60", "1E+16", "1E-61", "0E+999999", "sNaN"]),
    st.builds(
        "{}.{}E{}".format, st.integers(-9, 10**9), st.integers(0, 10**40), st.integers(-25, 8)
    ),
)
ODD_USAGES: Final = st.builds(
    Usage,
    prompt_tokens=st.sampled_from([0, 1, 999, 10**15, 10**15 + 1, -1]),
    completion_tokens=st.integers(0, 10**15),
    cached_tokens=st.sampled_from([0, 10**15, 10**400]),
    cost=ODD_COSTS,
)
CONTEXTS: Final = [
    decimal.Context(prec=1, traps=[decimal.Inexact, decimal.Rounded, decimal.Overflow]),
    decimal.Context(prec=3, Emax=3, Emin=-3),
    decimal.Context(traps=[]),
    decimal.DefaultContext,
]


@PROPERTY
@given(st.lists(ODD_USAGES.filter(is_told), max_size=6), st.sampled_from(CONTEXTS))
def test_what_may_be_told_can_be_priced_added_up_and_written(
    usages: list[Usage], context: decimal.Context
) -> None:
    table = PriceTable.of({"m": {"prompt": "1E+15", "completion": "1E-60", "cached": "0.3"}})
    assert table is not None
    with decimal.localcontext(context):
        priced = [table.priced(usage, ("m",)) for usage in usages]
        total = sum(priced, Usage())

    costs = [fractions.Fraction(usage.cost) for usage in priced if usage.cost is not None]
    assert len(costs) == len(usages)
    assert fractions.Fraction(total.cost or 0) == sum(costs)
    assert len(str(total.to_dict())) < 500
