from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core._chunks import ToolArgs, ToolCall
from flowtrio._core._values import clean_text
from flowtrio.wire._calls import CallWriter

PROPERTY: Final = settings(
    max_examples=150, deadline=None, database=None, derandomize=True, report_multiple_bugs=False
)

Fragment: TypeAlias = tuple[int | None, str, str, str | dict[str, Any] | None]
Write: TypeAlias = Callable[[list[Fragment]], list[ToolCall]]


def write(fragments: list[Fragment]) -> list[ToolCall]:
    return written_by(CallWriter(), fragments)


def written_by(writer: CallWriter, fragments: list[Fragment]) -> list[ToolCall]:
    for fragment in fragments:
        writer.add(*fragment)
    return writer.finish()


TABLE: Final[dict[str, tuple[list[Fragment], list[ToolCall]]]] = {
    "no fragments, no calls": ([], []),
    "the text comes in pieces": (
        [(0, "i", "f", ""), (0, "", "", '{"a"'), (0, "", "", ": 1}")],
        [ToolCall("i", "f", {"a": 1}, '{"a": 1}')],
    ),
    "the text comes in one piece": (
        [(0, "i", "f", '{"a": 1}')],
        [ToolCall("i", "f", {"a": 1}, '{"a": 1}')],
    ),
    "no text is no arguments": ([(0, "i", "f", None)], [ToolCall("i", "f", {}, "")]),
    "empty text is no arguments": ([(0, "i", "f", "")], [ToolCall("i", "f", {}, "")]),
    "the object itself": (
        [(0, "i", "f", {"a": "é"})],
        [ToolCall("i", "f", {"a": "é"}, '{"a": "é"}')],
    ),
    "an empty object": ([(0, "i", "f", {})], [ToolCall("i", "f", {}, "{}")]),
    "text that does not parse": (
        [(0, "i", "f", '{"a": ')],
        [ToolCall("i", "f", None, '{"a": ')],
    ),
    "text that is no object": ([(0, "i", "f", "[1]")], [ToolCall("i", "f", None, "[1]")]),
    "calls take turns": (
        [(0, "i", "f", "{"), (1, "j", "g", "{"), (0, "", "", "}"), (1, "", "", "}")],
        [ToolCall("i", "f", {}, "{}"), ToolCall("j", "g", {}, "{}")],
    ),
    "places with holes, in the order of their beginning": (
        [(7, "i", "f", "{}"), (3, "j", "g", "{}")],
        [ToolCall("i", "f", {}, "{}"), ToolCall("j", "g", {}, "{}")],
    ),
    "the id is told again": (
        [(0, "i", "f", "{"), (0, "i", "f", "}")],
        [ToolCall("i", "f", {}, "{}")],
    ),
    "the id is told late": (
        [(0, "", "f", "{"), (0, "i", "", "}")],
        [ToolCall("i", "f", {}, "{}")],
    ),
    "another id in the same place is another call": (
        [(0, "i", "f", "{}"), (0, "j", "f", '{"a"'), (0, "", "", ": 1}")],
        [ToolCall("i", "f", {}, "{}"), ToolCall("j", "f", {"a": 1}, '{"a": 1}')],
    ),
    "uncounted, told apart by id": (
        [(None, "i", "f", "{"), (None, "i", "", "}"), (None, "j", "g", "{}")],
        [ToolCall("i", "f", {}, "{}"), ToolCall("j", "g", {}, "{}")],
    ),
    "uncounted, the next piece has neither id nor name": (
        [(None, "i", "f", "{"), (None, "", "", "}")],
        [ToolCall("i", "f", {}, "{}")],
    ),
    "uncounted and without ids, told apart by name": (
        [(None, "", "f", "{}"), (None, "", "f", '{"a": 1}')],
        [ToolCall("", "f", {}, "{}"), ToolCall("", "f", {"a": 1}, '{"a": 1}')],
    ),
    "another id in the midst of the text is none": (
        [(0, "i", "f", ""), (0, "j", "", '{"a": '), (0, "k", "", "1}")],
        [ToolCall("i", "f", {"a": 1}, '{"a": 1}')],
    ),
    "another id and the name again in the midst of the text": (
        [(0, "i", "f", '{"a'), (0, "j", "f", '": "}'), (0, "k", "f", '"}')],
        [ToolCall("i", "f", {"a": "}"}, '{"a": "}"}')],
    ),
    "an escape is cut in two": (
        [(0, "i", "f", '{"a": "\\'), (0, "j", "f", '""'), (0, "k", "f", "}")],
        [ToolCall("i", "f", {"a": '"'}, '{"a": "\\""}')],
    ),
    "the name again with each piece": (
        [(0, "i", "f", '{"a"'), (0, "i", "f", ": [{"), (0, "i", "f", "}]}"), (0, "i", "f", "")],
        [ToolCall("i", "f", {"a": [{}]}, '{"a": [{}]}')],
    ),
    "whole calls in one place, without ids": (
        [(0, "", "f", "{}"), (0, "", "g", '{"a": 1}'), (0, "", "g", '{"a": 2}')],
        [
            ToolCall("", "f", {}, "{}"),
            ToolCall("", "g", {"a": 1}, '{"a": 1}'),
            ToolCall("", "g", {"a": 2}, '{"a": 2}'),
        ],
    ),
    "whole calls in one place, with equal ids": (
        [(0, "i", "f", '{"a": 1}'), (0, "i", "f", '{"a": 2}'), (0, "i", "g", {})],
        [
            ToolCall("i", "f", {"a": 1}, '{"a": 1}'),
            ToolCall("i", "f", {"a": 2}, '{"a": 2}'),
            ToolCall("i", "g", {}, "{}"),
        ],
    ),
    "calls without arguments in one place": (
        [(0, "i", "f", ""), (0, "j", "f", ""), (0, "", "g", "")],
        [ToolCall("i", "f", {}, ""), ToolCall("j", "f", {}, ""), ToolCall("", "g", {}, "")],
    ),
    "another id after whole arguments, without a name": (
        [(0, "i", "f", "{}"), (0, "j", "", '{"a": 1}')],
        [ToolCall("i", "f", {}, "{}"), ToolCall("j", "", {"a": 1}, '{"a": 1}')],
    ),
    "uncounted, the id changes in the midst of the text": (
        [(None, "i", "f", ""), (None, "j", "", '{"a": 1'), (None, "k", "", "}")],
        [ToolCall("i", "f", {"a": 1}, '{"a": 1}')],
    ),
    "uncounted, calls take turns by their ids": (
        [
            *((None, "i", "f", ""), (None, "j", "f", "")),
            *((None, "i", "", "{}"), (None, "j", "", "{}")),
        ],
        [ToolCall("i", "f", {}, "{}"), ToolCall("j", "f", {}, "{}")],
    ),
    "uncounted, calls take turns by an id that came later": (
        [
            *((None, "i", "f", '{"a"'), (None, "i2", "", ": ")),
            *((None, "j", "g", ""), (None, "i2", "", "1}"), (None, "j", "", "{}")),
        ],
        [ToolCall("i", "f", {"a": 1}, '{"a": 1}'), ToolCall("j", "g", {}, "{}")],
    ),
    "an object with what JSON does not have": (
        [(0, "i", "f", {"a": float("nan")})],
        [ToolCall("i", "f", None, '{"a": NaN}')],
    ),
    "an object with halves of a character": (
        [(0, "i", "f", {"a": "\ud83d\ude00\ud83d"})],
        [ToolCall("i", "f", {"a": "😀�"}, '{"a": "😀�"}')],
    ),
    "halves of a character in two pieces": (
        [(0, "i", "f", '{"a": "\ud83d'), (0, "", "", '\ude00"}')],
        [ToolCall("i", "f", {"a": "😀"}, '{"a": "😀"}')],
    ),
    "uncounted and without anything": ([(None, "", "", "{}")], [ToolCall("", "", {}, "{}")]),
}


@pytest.mark.parametrize("case", TABLE)
def test_calls_are_put_together_however_they_are_told(case: str) -> None:
    fragments, calls = TABLE[case]

    assert write(fragments) == calls


@pytest.mark.parametrize("case", TABLE)
def test_readers_of_the_fragments_see_the_same_calls(case: str) -> None:
    fragments, calls = TABLE[case]
    writer = CallWriter()
    texts: dict[int, str] = {}
    last: dict[int, ToolArgs] = {}

    for fragment in fragments:
        args = writer.add(*fragment)
        texts[args.index] = texts.get(args.index, "") + args.text
        last[args.index] = args

    assert [clean_text(texts[place]) for place in range(len(writer))] == [
        call.raw for call in calls
    ]
    assert [(last[p].id, last[p].name) for p in last] == [(call.id, call.name) for call in calls]


def test_a_fragment_is_told_with_what_is_known_of_its_call() -> None:
    writer = CallWriter()

    assert writer.add(5, "i", "f", None) == ToolArgs(0, "i", "f", "")
    assert writer.add(9, "", "g", "{") == ToolArgs(1, "", "g", "{")
    assert writer.add(5, "", "", "{}") == ToolArgs(0, "i", "f", "{}")
    assert writer.add(9, "j", "", "}") == ToolArgs(1, "j", "g", "}")
    assert len(writer) == 2


def test_the_calls_may_be_asked_for_before_they_are_whole() -> None:
    writer = CallWriter()
    writer.add(0, "i", "f", '{"a": 1')

    assert writer.finish() == [ToolCall("i", "f", None, '{"a": 1')]

    writer.add(0, "", "", "}")

    assert writer.finish() == [ToolCall("i", "f", {"a": 1}, '{"a": 1}')]


def test_what_goes_back_with_a_call_is_the_last_that_came() -> None:
    writer = CallWriter()
    for carry in ({"s": 1}, None, {"s": 2}, None):
        writer.add(0, "i", "f", "", carry)
    writer.add(1, "j", "g", {"a": 1}, {"s": 3})

    assert [call.carry for call in writer.finish()] == [{"s": 2}, {"s": 3}]


def test_text_after_an_empty_object_counts() -> None:
    assert write([(0, "i", "f", {}), (0, "", "", '{"a": 1}')])[0].arguments == {"a": 1}


# Any cut of the arguments, and any turns of the calls, give the same calls

ARGUMENTS: Final = st.dictionaries(
    st.text(max_size=3), st.integers() | st.text() | st.lists(st.booleans()), max_size=3
)


@st.composite
def tellings(draw: st.DrawFn) -> tuple[list[ToolCall], list[Fragment]]:
    """Some calls, and one way in which a server that counts may tell them."""
    whole = [json.dumps(arguments) for arguments in draw(st.lists(ARGUMENTS, max_size=3))]
    calls = [ToolCall(f"i{n}", f"f{n}", json.loads(raw), raw) for n, raw in enumerate(whole)]
    fragments: list[Fragment] = [(n, call.id, call.name, "") for n, call in enumerate(calls)]
    rest = dict(enumerate(whole))
    while rest:
        n = draw(st.sampled_from(sorted(rest)))
        length = draw(st.integers(1, 12))
        fragments.append((n, "", "", rest[n][:length]))
        rest[n] = rest[n][length:]
        if not rest[n]:
            del rest[n]
    return calls, fragments


def check_turns(write: Write) -> None:
    @PROPERTY
    @given(tellings())
    def agree(telling: tuple[list[ToolCall], list[Fragment]]) -> None:
        calls, fragments = telling

        assert write(fragments) == calls

    agree()


def test_any_cut_and_any_turns_give_the_same_calls() -> None:
    check_turns(write)


class TrustsTheOrder(CallWriter):
    def add(self, index: int | None, *rest: Any) -> ToolArgs:
        return super().add(None, *rest)


class StripsEachPiece(CallWriter):
    def add(self, index: int | None, id: str, name: str, arguments: Any, *rest: Any) -> ToolArgs:
        return super().add(index, id, name, arguments.strip(), *rest)


class MendsCutArguments(CallWriter):
    def finish(self) -> list[ToolCall]:
        return [
            ToolCall(call.id, call.name, call.arguments or {}, call.raw)
            for call in super().finish()
        ]


@pytest.mark.parametrize("wrong", [TrustsTheOrder, StripsEachPiece])
def test_a_writer_that_mixes_calls_up_is_found_out(wrong: type[CallWriter]) -> None:
    with pytest.raises(AssertionError):
        check_turns(lambda fragments: written_by(wrong(), fragments))


# L10: arguments that do not parse never become arguments


def check_honesty(write: Write) -> None:
    raw = '{"city": "Zürich", "days": [1, {"a": null}]}'
    for length in range(1, len(raw)):
        calls = write([(0, "i", "f", raw[: length // 2]), (0, "", "", raw[length // 2 : length])])

        assert calls == [ToolCall("i", "f", None, raw[:length])]


def test_arguments_cut_anywhere_are_none_at_all() -> None:
    check_honesty(write)


def test_a_writer_that_mends_cut_arguments_is_found_out() -> None:
    with pytest.raises(AssertionError):
        check_honesty(lambda fragments: written_by(MendsCutArguments(), fragments))
