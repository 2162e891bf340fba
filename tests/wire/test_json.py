from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio.wire._json import (
    NestedTooDeeply,
    check_depth,
    decode_arguments,
    decode_json,
    encode_json,
)

PROPERTY: Final = settings(
    max_examples=200, deadline=None, database=None, derandomize=True, report_multiple_bugs=False
)

Decode: TypeAlias = Callable[[bytes | str], Any]

BAD: Final[list[bytes]] = [
    b"",
    b" ",
    b"{",
    b"nul",
    b"[1,]",
    b'{"a":1,}',
    b"{'a':1}",
    b"{a:1}",
    b"[1] [2]",
    b"01",
    b"+1",
    b".5",
    b"1.",
    b"0x10",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b'"a\nb"',
    b'"\\x41"',
    b'"\\u12"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b"\xef\xbb\xbf1",
    b"// a\n1",
    b"1" * 5000,
]
"""Texts that lenient readers take for JSON, or are not even close to it."""


def nested(depth: int, innermost: str = "", left: str = "[", right: str = "]") -> str:
    return left * depth + innermost + right * depth


def is_json(value: Any) -> bool:
    """Whether it is plain, finite and fit for UTF-8."""
    match value:
        case None | bool() | int():
            return True
        case str():
            return not any("\ud800" <= char <= "\udfff" for char in value)
        case float():
            return math.isfinite(value)
        case list():
            return all(map(is_json, value))
        case dict():
            return all(is_json(key) and is_json(item) for key, item in value.items())
        case _:
            return False


# Values

TEXT: Final = st.text(st.characters(exclude_categories=()), max_size=8)
VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=10,
)


@PROPERTY
@given(VALUES, st.booleans())
def test_json_is_decoded_as_it_is_everywhere(value: Any, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)

    assert decode_json(text) == value
    assert decode_json(text.encode()) == value


def check_strictness(decode: Decode) -> None:
    for text in BAD:
        # A lone surrogate beside it has the text read a second time.
        for bad in (text, b"[" + text + b"]", b'["\\ud800",' + text + b"]"):
            if bad == b"[" + text + b"]" and not text.strip():
                continue
            with pytest.raises(ValueError):
                decode(bad)


def test_what_is_not_json_is_refused_beside_lone_surrogates_too() -> None:
    check_strictness(decode_json)


def test_a_lenient_decoder_is_found_out() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_strictness(lambda data: json.loads(data))


def check_surrogates(decode: Decode) -> None:
    @PROPERTY
    @given(st.dictionaries(TEXT, st.lists(TEXT) | TEXT))
    def agree(value: dict[str, Any]) -> None:
        decoded = decode(json.dumps(value))

        assert is_json(decoded)
        assert is_json(value) <= (decoded == value)

    agree()


def test_whatever_was_escaped_the_texts_are_fit_for_utf_8() -> None:
    check_surrogates(decode_json)


def test_a_decoder_that_keeps_or_drops_lone_surrogates_is_found_out() -> None:
    with pytest.raises(AssertionError):
        check_surrogates(lambda data: json.loads(data))
    with pytest.raises(AssertionError):
        check_surrogates(lambda data: json.loads(str(data).replace("\\ud83d", "")))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\ud83d"', "\ufffd"),
        (r'"a\ude00b"', "a\ufffdb"),
        (r'"\ud83d\ude00"', "😀"),
        (r'"\ud83d\ude00\ud83d"', "😀\ufffd"),
        (r'"\ude00\ud83d"', "\ufffd\ufffd"),
        (r'"\\ud83d"', r"\ud83d"),
        (r'{"\ud83d": ["\ud83d", 1, 2.5, null, true, {"a": "\ud83d"}]}', None),
    ],
)
def test_a_surrogate_without_its_partner_is_replaced(text: str, value: str | None) -> None:
    if value is None:
        assert decode_json(text) == {"\ufffd": ["\ufffd", 1, 2.5, None, True, {"a": "\ufffd"}]}
    else:
        assert decode_json(text) == decode_json(text.encode()) == value


def test_a_surrogate_that_was_not_escaped_is_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON"):
        decode_json('"\ud800"')


# Encoding


def check_round_trip(encode: Callable[[Any], bytes]) -> None:
    @PROPERTY
    @given(st.dictionaries(TEXT, VALUES | TEXT | st.lists(TEXT)))
    def agree(value: dict[str, Any]) -> None:
        # json's own escapes say every lone surrogate, which the decoder then replaces.
        assert decode_json(encode(value)) == decode_json(json.dumps(value))

    agree()


def test_what_is_encoded_is_decoded_as_it_was_but_for_lone_surrogates() -> None:
    check_round_trip(encode_json)


def test_an_encoder_that_keeps_or_drops_lone_surrogates_is_found_out() -> None:
    def keeps(value: Any) -> bytes:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")

    def drops(value: Any) -> bytes:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "ignore")

    with pytest.raises(ValueError):
        check_round_trip(keeps)
    with pytest.raises(AssertionError):
        check_round_trip(drops)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True, "é"]}, '{"a":[1,2.5,null,true,"é"]}'),
        (("a", {"b"}), '["a",["b"]]'),
        (["a\ud800b"], '["a\ufffdb"]'),
        ({"\ud800": {"\ud800"}}, '{"\ufffd":["\ufffd"]}'),
        ("\ud83d\ude00", '"😀"'),
    ],
)
def test_values_are_encoded_shortly(value: Any, text: str) -> None:
    assert encode_json(value) == text.encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [(("\ud800",), '["\ufffd"]'), ({1: "\ud800"}, '{"1":"\ufffd"}')],
)
def test_lone_surrogates_are_replaced_wherever_they_are(value: Any, text: str) -> None:
    assert encode_json(value) == text.encode()


@pytest.mark.parametrize("beside", ["", "\ud800"])
def test_what_has_no_json_form_is_refused(beside: str) -> None:
    with pytest.raises(TypeError, match="object is unsupported"):
        encode_json([beside, object()])


# Nesting


@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
@pytest.mark.parametrize("beside", ["", r'"\ud800"'])
def test_nesting_is_bounded(left: str, right: str, beside: str) -> None:
    levels = left.count("[") + left.count("{")
    innermost = beside or "1"

    decode_json(nested(128 // levels, innermost, left, right))
    for depth in (128 // levels + 1, 200, 500, 100_000):
        with pytest.raises(NestedTooDeeply):
            decode_json(nested(depth, innermost, left, right))


def test_depth_is_counted_along_the_deepest_way() -> None:
    check_depth(1)
    check_depth([[1], [{"a": [2]}], "x"])
    check_depth(json.loads(nested(128)))

    with pytest.raises(NestedTooDeeply, match=r"^nested deeper than 128$"):
        check_depth({"a": 1, "b": [0, json.loads(nested(127))], "c": []})


def test_a_reader_may_want_fewer_levels() -> None:
    check_depth([[1]], 2)

    with pytest.raises(NestedTooDeeply, match=r"^nested deeper than 2$"):
        check_depth([[[]]], 2)


# Arguments of tool calls


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", {}),
        (" \n", {}),
        ("{}", {}),
        ('{"city": "Zürich", "days": 3}', {"city": "Zürich", "days": 3}),
        (' {"a": [1, 2.5, null]} ', {"a": [1, 2.5, None]}),
        (r'{"a": "\ud83d\ude00"}', {"a": "😀"}),
        (r'{"a": "\ud83d"}', {"a": "\ufffd"}),
        ("null", None),
        ("[]", None),
        ('"{}"', None),
        ("1", None),
        ('{"a": 1', None),
        ('{"a": 1}}', None),
        ("{}{}", None),
        ('{"a": NaN}', None),
        ('{"a": 1e999}', None),
        ('{"a": "\ud800"}', None),
        (nested(200, "1", '{"a":', "}"), None),
    ],
)
def test_arguments_are_an_object_or_nothing(text: str, arguments: dict[str, Any] | None) -> None:
    assert decode_arguments(text) == arguments


@PROPERTY
@given(st.dictionaries(st.text(), VALUES), st.integers(1, 1000))
def test_arguments_that_were_cut_are_no_arguments(value: dict[str, Any], place: int) -> None:
    text = json.dumps(value)

    assert decode_arguments(text) == value
    assert decode_arguments(text[: place % len(text) or 1]) is None
