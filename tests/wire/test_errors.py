"""An error inside a stream is told in the provider's words."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from flowtrio.wire._errors import stream_error


@attrs.frozen
class Told:
    """What becomes of an error that a provider told."""

    words: str
    code: Any = None
    type: str | None = None
    ours: str = "stream_error"
    retryable: bool = False


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("no", Told("no")),
        ({"message": "no"}, Told("no")),
        ({"error": {"message": "no", "type": "x"}}, Told("no", type="x")),
        ({}, Told("")),
        (["no"], Told("no")),
        ({"message": None, "code": [1], "type": 7}, Told("")),
        ({"message": "a\ud800b"}, Told("a\ufffdb")),
        ({"message": "x" * 5000}, Told("x" * 2000)),
        ({"message": "no", "code": 400}, Told("no", 400)),
        ({"message": "no", "code": True}, Told("no")),
        ({"message": "no", "code": "tool_use_failed"}, Told("no", "tool_use_failed")),
        ({"message": "no", "code": 408}, Told("no", 408, retryable=True)),
        ({"message": "no", "code": 409}, Told("no", 409, retryable=True)),
        ({"message": "no", "code": 429}, Told("no", 429, None, "rate_limited", True)),
        ({"message": "no", "code": 500}, Told("no", 500, retryable=True)),
        ({"message": "no", "code": 502}, Told("no", 502, retryable=True)),
        (
            {"message": "no", "type": "server_error"},
            Told("no", None, "server_error", retryable=True),
        ),
        ({"message": "We are Overloaded"}, Told("We are Overloaded", retryable=True)),
        (
            {"message": "no", "code": "rate_limit_exceeded"},
            Told("no", "rate_limit_exceeded", None, "rate_limited", True),
        ),
    ],
)
def test_an_error_is_told_in_the_provider_s_words(error: Any, told: Told) -> None:
    exc = stream_error(error)

    assert exc.detail == {"words": told.words, "code": told.code, "type": told.type}
    assert (exc.code, exc.retryable, exc.status) == (told.ours, told.retryable, None)
    assert str(exc) == "the provider told an error in the middle of its stream"
